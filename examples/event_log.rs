//! Everything that happens in a mesh, in order and without gaps: three nodes come, change and go.
//!
//! `cargo run --example event_log`

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use isle::embed::{self, Embedded, NoService};
use isle::mesh::config::MeshConfig;
use isle::mesh::event::EventKind;
use isle::mesh::membership::Announcement;
use tokio::time::timeout;

async fn join(name: &str) -> Result<Embedded, Box<dyn Error>> {
    let config = MeshConfig {
        name: name.to_owned(),
        mesh: "event log".to_owned(),
        interfaces: vec!["lo".to_owned()], // Nothing leaves this machine.
        ..MeshConfig::default()
    };
    Ok(embed::join(config, Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))), NoService).await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let observer = join("observer").await?;
    let mut log = observer.mesh().subscribe().await?;
    println!("    time  event        member");

    let come_and_go = async {
        for name in ["ann", "bob", "cat"] {
            let node = join(name).await?;
            node.mesh().complete().await;
            let tags = Some(vec![("mood".to_owned(), "cheerful".to_owned())]);
            node.mesh().announce(Announcement { tags, ..Announcement::default() }).await?;
            node.leave().await;
        }
        Ok::<(), Box<dyn Error>>(())
    };
    let write_down = async {
        let mut left = 0;
        while left < 3 {
            let event = timeout(Duration::from_secs(10), log.next()).await??;
            left += usize::from(event.kind == EventKind::Left);
            let who = event.member().map_or("", |member| &member.record.name);
            println!("{:>7.3}s  {:<12} {who}", started.elapsed().as_secs_f64(), event.kind.as_str());
        }
        Ok(())
    };
    tokio::try_join!(come_and_go, write_down)?;
    observer.leave().await;
    Ok(())
}
