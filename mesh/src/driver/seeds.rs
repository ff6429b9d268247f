//! Addresses to greet besides what broadcast reaches: seeds, resolved again and again, and members of an earlier run.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::debug;

use crate::driver::Outcome;

/// Names are resolved again this often: an address behind a name may change at any time.
const EVERY: Duration = Duration::from_secs(30);
/// A name server that does not answer must not hold up the other names.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Resolves `seeds` for ever and hands the addresses on, with those `remembered` after them.
///
/// All names are looked up at once and each is handed on when it is known. One that can no longer be resolved keeps
/// the addresses it had.
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
    let mut resolved: Vec<Vec<SocketAddr>> = vec![Vec::new(); seeds.len()];
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut lookups = JoinSet::new();
        for (index, seed) in seeds.iter().enumerate() {
            let named = with_port(seed, default_port);
            lookups.spawn(async move { (index, look_up(&named).await) });
        }
        while let Some(first) = lookups.join_next().await {
            // Those that are known together, addresses above all, are handed on together.
            let known = std::iter::once(first).chain(std::iter::from_fn(|| lookups.try_join_next()));
            let mut news = false;
            for (index, found) in known.flatten().filter(|(_, found)| !found.is_empty()) {
                resolved[index] = found;
                news = true;
            }
            if news && greet.send(in_order(&resolved, &remembered)).await.is_err() {
                return Outcome::Over;
            }
        }
    }
}

async fn look_up(named: &str) -> Vec<SocketAddr> {
    match timeout(LOOKUP_TIMEOUT, lookup_host(named)).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => {
            debug!(seed = named, %error, "seed not resolved");
            Vec::new()
        }
        Err(_) => {
            debug!(seed = named, "seed not resolved in time");
            Vec::new()
        }
    }
}

/// Each address once, those of seeds first: somebody named them, and the list may be cut at its end.
fn in_order(resolved: &[Vec<SocketAddr>], remembered: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut seen = BTreeSet::new();
    resolved.iter().flatten().chain(remembered).copied().filter(|address| seen.insert(*address)).collect()
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
    use super::*;

    #[test]
    fn a_seed_without_a_port_gets_the_discovery_port() {
        assert_eq!(with_port("hub", 5235), "hub:5235");
        assert_eq!(with_port("hub:1", 5235), "hub:1");
        assert_eq!(with_port("10.0.0.1", 5235), "10.0.0.1:5235");
        assert_eq!(with_port("fd00::1", 5235), "[fd00::1]:5235");
        assert_eq!(with_port("[fd00::1]", 5235), "[fd00::1]:5235");
        assert_eq!(with_port("[fd00::1]:9", 5235), "[fd00::1]:9");
    }

    #[tokio::test]
    async fn seeds_come_before_remembered_members_and_do_not_wait_for_bad_names() {
        let (greet, mut greeted) = mpsc::channel(1);
        let remembered: Vec<SocketAddr> = vec!["10.0.0.1:5235".parse().unwrap()];
        let seeds = vec!["not a name".to_owned(), "10.0.0.9".to_owned(), "10.0.0.1".to_owned()];
        let task = tokio::spawn(resolve(seeds, 5235, remembered.clone(), greet));
        assert_eq!(greeted.recv().await.unwrap(), remembered);
        let whole: Vec<SocketAddr> = vec!["10.0.0.9:5235".parse().unwrap(), "10.0.0.1:5235".parse().unwrap()];
        let told = timeout(LOOKUP_TIMEOUT, async { while greeted.recv().await.unwrap() != whole {} });
        told.await.unwrap();
        task.abort();
    }
}
