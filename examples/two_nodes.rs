//! Two nodes that find each other, without being told of one another.
//!
//! `cargo run --example two_nodes`

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use isle::embed::{self, NoService};
use isle::mesh::config::MeshConfig;
use isle::mesh::event::EventKind;
use tokio::time::timeout;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = |name: &str| MeshConfig {
        name: name.to_owned(),
        mesh: "two nodes".to_owned(),
        interfaces: vec!["lo".to_owned()], // Nothing leaves this machine.
        ..MeshConfig::default()
    };
    let here = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));

    let ann = embed::join(config("ann"), here, NoService).await?;
    let mut events = ann.mesh().subscribe().await?;
    let started = Instant::now();
    let bob = embed::join(config("bob"), here, NoService).await?;

    loop {
        let event = timeout(Duration::from_secs(5), events.next()).await??;
        let joined = event.member().filter(|_| event.kind == EventKind::Joined);
        if let Some(member) = joined.filter(|member| member.id == bob.mesh().id()) {
            let (name, at) = (&member.record.name, &member.http_addresses);
            println!("ann found {name} after {:?}, at {at:?}", started.elapsed());
            break;
        }
    }
    bob.leave().await;
    loop {
        let event = timeout(Duration::from_secs(5), events.next()).await??;
        if let Some(member) = event.member().filter(|_| event.kind == EventKind::Left) {
            println!("ann heard the farewell of {}", member.record.name);
            break;
        }
    }
    ann.leave().await;
    Ok(())
}
