//! A service that announces itself with a role and tags, and a client that finds it by them and asks it.
//!
//! `cargo run --example tiny_service`

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use isle::embed::{self, NoService};
use isle::http::accept::App;
use isle::http::body::{Answer, full};
use isle::http::request::Gated;
use isle::mesh::config::MeshConfig;
use isle::upstream::{Ask, Upstreams};
use tokio::time::timeout;

/// Answers every path with a greeting.
struct Greeter;

impl App for Greeter {
    async fn answer(&self, request: Gated) -> Answer {
        Answer::new(full(format!("hello, {}\n", request.path.trim_start_matches('/'))))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = |name: &str, roles: &[&str], tags: &[(&str, &str)]| MeshConfig {
        name: name.to_owned(),
        mesh: "tiny service".to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        interfaces: vec!["lo".to_owned()], // Nothing leaves this machine.
        ..MeshConfig::default()
    };
    let here = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let service = embed::join(config("greeter", &["greeting"], &[("language", "en")]), here, Greeter).await?;

    let client = embed::join(config("client", &[], &[]), here, NoService).await?;
    let mut watching = client.mesh().subscribe().await?;
    let greets = |member: &isle::mesh::member::Member| {
        member.has_role("greeting") && member.record.tags.contains(&("language".to_owned(), "en".to_owned()))
    };
    let mut found = watching.snapshot.iter().find(|member| greets(member)).cloned();
    while found.is_none() {
        let event = timeout(Duration::from_secs(5), watching.next()).await??;
        found = event.member().filter(|member| greets(member)).cloned();
    }
    let found = found.ok_or("nobody greets")?;
    let at = *found.http_addresses.first().ok_or("it announces no address that counts here")?;
    println!("found {} at {at}", found.record.name);

    let deadline = Instant::now() + Duration::from_secs(5);
    let answer = Upstreams::default().fetch(at, &Ask::get("/world"), 1024, deadline).await?;
    print!("it says: {}", String::from_utf8_lossy(&answer.body));

    client.leave().await;
    service.leave().await;
    Ok(())
}
