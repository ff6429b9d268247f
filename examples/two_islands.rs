//! Two islands and a link between their bridges: what somebody says on one is known on the other, to the farewell.
//!
//! Nodes of one island hear each other; bridges hold QUIC connections between islands and pass on what members have
//! signed. Here both islands share this machine and ignore each other for their names differ, so every word that
//! crosses went over the link.
//!
//! `cargo run --example two_islands`

use std::collections::BTreeSet;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use isle::config::BridgeConfig;
use isle::embed::{self, NoService};
use isle::mesh::config::MeshConfig;
use isle::mesh::event::EventKind;
use isle::mesh::member::Member;
use isle::mesh::mesh::Subscription;
use isle::roles::bridge::Target;
use tokio::time::timeout;

const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn config(island: &str, name: &str, state: Option<&Path>) -> MeshConfig {
    MeshConfig {
        name: name.to_owned(),
        mesh: "two islands".to_owned(),
        island: Some(island.to_owned()),
        interfaces: vec!["lo".to_owned()], // Nothing leaves this machine.
        state_dir: state.map(|state| state.join(name)), // Others pin a bridge's key, so it keeps one.
        ..MeshConfig::default()
    }
}

/// Waits until the member of this name does that.
async fn until(
    events: &mut Subscription,
    kind: EventKind,
    name: &str,
) -> Result<Arc<Member>, Box<dyn Error>> {
    loop {
        let event = timeout(Duration::from_secs(10), events.next()).await??;
        if let Some(member) = event.member().filter(|member| event.kind == kind && member.record.name == name)
        {
            return Ok(member.clone());
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let state = tempfile::tempdir()?;
    // On any free port instead of UDP 5236; nobody is called or let in yet.
    let links = BridgeConfig { quic: Some(HERE), allow: BTreeSet::new(), links: Vec::new() };
    let bridge = |island, name| {
        embed::join_as_bridge(config(island, name, Some(state.path())), Some(HERE), &links, NoService)
    };
    let (north, south) = (bridge("north", "n-bridge").await?, bridge("south", "s-bridge").await?);
    let mut in_north = north.mesh().subscribe().await?;

    // One side lets the other's key in, the other calls: on a command line `--allow KEY` and `--link KEY@HOST:PORT`.
    let (calls, called) = (north.bridge().ok_or("no bridge")?, south.bridge().ok_or("no bridge")?);
    called.allow(north.mesh().id()).await;
    calls.link(Target::new(south.mesh().id(), called.addr())).await;
    until(&mut in_north, EventKind::Joined, "s-bridge").await?;
    println!("north knows the bridge of south");

    let tags = vec![("celsius".to_owned(), "21".to_owned())];
    let thermometer = MeshConfig { tags, ..config("south", "thermometer", None) };
    let thermometer = embed::join(thermometer, Some(HERE), NoService).await?;
    let seen = until(&mut in_north, EventKind::Joined, "thermometer").await?;
    let (island, tags) = (&seen.record.island, &seen.record.tags);
    println!("north reads the thermometer of {island}: {tags:?}");

    thermometer.leave().await;
    until(&mut in_north, EventKind::Left, "thermometer").await?;
    println!("north heard its farewell");

    south.leave().await;
    until(&mut in_north, EventKind::Left, "s-bridge").await?;
    println!("and that of the bridge");
    north.leave().await;
    Ok(())
}
