//! Addresses to greet besides what broadcast reaches: seeds, resolved again and again, and members of an earlier run.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::debug;

use crate::driver::Outcome;

/// Names are resolved again this often: an address behind a name may change at any time.
const EVERY: Duration = Duration::from_secs(30);
/// A name server that does not answer must not hold up the other names.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Resolves `seeds` for ever and hands the addresses on, with those `remembered` the first time.
pub(super) async fn resolve(
    seeds: Vec<String>,
    default_port: u16,
    remembered: Vec<SocketAddr>,
    greet: mpsc::Sender<Vec<SocketAddr>>,
) -> Outcome {
    if !remembered.is_empty() && greet.send(remembered.clone()).await.is_err() {
        return Outcome::Over;
    }
    if seeds.is_empty() {
        return Outcome::Over;
    }
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut addresses = remembered.clone();
        for seed in &seeds {
            let named = with_port(seed, default_port);
            match timeout(LOOKUP_TIMEOUT, lookup_host(&named)).await {
                Ok(Ok(found)) => addresses.extend(found),
                Ok(Err(error)) => debug!(seed, %error, "seed not resolved"),
                Err(_) => debug!(seed, "seed not resolved in time"),
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        if greet.send(addresses).await.is_err() {
            return Outcome::Over;
        }
    }
}

/// `HOST`, `HOST:PORT`, a bare IPv6 address or `[IPV6]:PORT`, as something that can be looked up.
fn with_port(seed: &str, default_port: u16) -> String {
    let bare_v6 = seed.parse::<std::net::Ipv6Addr>().is_ok();
    if bare_v6 {
        format!("[{seed}]:{default_port}")
    } else if seed.starts_with('[') && seed.ends_with(']') || !seed.contains(':') {
        format!("{seed}:{default_port}")
    } else {
        seed.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::with_port;

    #[test]
    fn a_seed_without_a_port_gets_the_discovery_port() {
        assert_eq!(with_port("hub", 5235), "hub:5235");
        assert_eq!(with_port("hub:1", 5235), "hub:1");
        assert_eq!(with_port("10.0.0.1", 5235), "10.0.0.1:5235");
        assert_eq!(with_port("fd00::1", 5235), "[fd00::1]:5235");
        assert_eq!(with_port("[fd00::1]", 5235), "[fd00::1]:5235");
        assert_eq!(with_port("[fd00::1]:9", 5235), "[fd00::1]:9");
    }
}
