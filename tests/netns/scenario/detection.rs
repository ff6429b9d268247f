//! Deaths noticed soon, and none imagined: on real wires, under load, with losses, beside another program.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Claim;
use crate::client;
use crate::events::EventLog;
use crate::figures;
use crate::island::Island;
use crate::load::{Load, Plan};
use crate::network::Host;
use crate::node::{Node, eventually};
use crate::runner::Run;
use crate::sniffer::Sniffer;

mod beside_serf;
mod told;

pub(super) const SCENARIOS: &[Claim] = &[
    ("detection::two_three_and_four_members_find_a_crash", few),
    ("detection::stress_brings_no_false_down", stress),
    ("detection::killed_under_load", killed_under_load),
    ("detection::a_one_way_cut_does_not_flap", one_way),
    ("detection::beside_serf", beside_serf::compare),
];

/// Longest wait for `down` before a scenario gives up; what is promised is checked apart, and in the trial.
const DOWN_WITHIN: Duration = Duration::from_secs(10);
/// Where too few watchers live to vote, a crash is known after this.
const DOWN_WITHOUT_QUORUM: Duration = Duration::from_secs(3);
/// An intermediary asks nobody who was killed so long ago.
const ASKED_IN_VAIN_FOR: Duration = Duration::from_millis(50);
/// More `suspect`, `down` and `back` about one member in a minute is flapping.
const EVENTS_PER_MINUTE: usize = 2;

fn few(run: &Run) -> Result<()> {
    for count in 2..=4 {
        let what = format!("kill -9 of one of {count}: known down to another");
        let mut island = numbered(run, count)?;
        for _ in 0..run.count(1, 20) {
            let mut node = island.nodes.remove(0);
            let logs = island.events()?;
            let killed = Instant::now();
            node.kill()?;
            for log in &logs {
                let down = log.wait("down", DOWN_WITHIN, |seen| seen.is("down", node.id()))?;
                run.measures.add(&what, down.at.saturating_duration_since(killed));
                log.demand_sense()?;
            }
            node.ended(DOWN_WITHIN)?;
            let host = node.host.clone();
            island.nodes.push(island.join(&host, &["pieces"])?);
            island.agree_alive(count)?;
        }
        let (bound, took) =
            (run.bound(DOWN_WITHIN, DOWN_WITHOUT_QUORUM), run.measures.percentile(&what, 100));
        ensure!(took <= bound, "{what} after {took:?}");
    }
    Ok(())
}

fn stress(run: &Run) -> Result<()> {
    let island = numbered(run, run.count(10, 40))?;
    let logs = island.events()?;
    let watched = Duration::from_secs(run.count(15, 600) as u64);
    let burners = Burner::on_every_core(&island.client)?;
    thread::sleep(watched);
    let cores = burners.len();
    drop(burners);
    let mut suspicions = 0;
    for log in &logs {
        for seen in log.all() {
            suspicions += usize::from(seen.kind == "suspect");
            ensure!(!matches!(seen.kind.as_str(), "down" | "left"), "said under stress: {}", seen.brief());
        }
    }
    run.measures.note(format!(
        "{suspicions} suspicions and no `down` among {} nodes in {watched:?} with {cores} cores kept busy",
        island.nodes.len()
    ));
    island.agree()?;
    Ok(())
}

fn killed_under_load(run: &Run) -> Result<()> {
    let pieces: &[&str] = &["pieces"];
    let mut island = Island::start(
        run,
        &[("hub", &["intermediary"]), ("p1", pieces), ("p2", pieces), ("doomed", pieces)],
    )?;
    let hub = island.node("hub")?.http();
    // Followed once for all rounds: a node has room for a few streams only.
    let survivors = island.nodes.iter().filter(|node| node.name() != "doomed");
    let logs: Vec<EventLog> = survivors.map(Node::events).collect();
    logs.iter().try_for_each(|log| log.started().map(drop))?;
    let vain = "kill -9 under 200 requests/s: last packet of the intermediary to it, after";
    for _ in 0..run.count(2, 20) {
        let mut node = island.take("doomed")?;
        let (id, host, port) = (node.id().to_owned(), node.host.clone(), node.http().port());
        let sniffer = Sniffer::open(&host, move |packet| {
            IpAddr::from(*packet.from.ip()) == hub.ip() && packet.to.port() == port && packet.asks()
        })?;
        let targets = vec![hub];
        let plan =
            Plan { targets, paths: figures::paths(), per_second: 200, clients: 16, check: figures::check };
        let load = Load::start(&island.client, &plan);
        let asked_after = eventually("a newcomer is asked", Duration::from_secs(60), || {
            Ok(sniffer.all().iter().filter(|packet| !packet.payload.is_empty()).count() > 20)
        })?;
        run.measures.add("a newcomer has been asked 20 times, after the load began", asked_after);
        let failed_before = tries_failed(&island)?;
        let killed = Instant::now();
        node.kill()?;
        for log in &logs {
            let down = log.wait("down", DOWN_WITHIN, |seen| seen.is("down", &id))?;
            run.measures
                .add("kill -9 under load: known down to another", down.at.saturating_duration_since(killed));
        }
        // A member left out for its failures would be tried again after 5 s.
        thread::sleep(Duration::from_secs(run.count(1, 6) as u64));
        load.stop().demand_flawless(killed)?;
        let asked = sniffer.all();
        let late: Vec<Duration> =
            asked.iter().filter(|packet| packet.at > killed).map(|packet| packet.at - killed).collect();
        let said: Vec<String> = asked
            .iter()
            .filter(|packet| packet.at > killed)
            .map(|packet| String::from_utf8_lossy(&packet.payload).lines().next().unwrap_or("SYN").to_owned())
            .collect();
        run.measures.add(vain, late.last().copied().unwrap_or_default());
        run.measures.note(format!(
            "packets to it after its kill: {late:?} {said:?}; {} tries failed, no request did",
            tries_failed(&island)? - failed_before
        ));
        node.ended(DOWN_WITHIN)?;
        island.nodes.push(island.join(&host, pieces)?);
        island.agree_alive(4)?;
    }
    let (bound, last) =
        (run.bound(Duration::from_secs(1), ASKED_IN_VAIN_FOR), run.measures.percentile(vain, 100));
    ensure!(last < bound, "the killed server was still asked after {last:?}");
    Ok(())
}

fn one_way(run: &Run) -> Result<()> {
    let island = numbered(run, 5)?;
    let logs = island.events()?;
    let (unheard, deaf) = (&island.nodes[0], &island.nodes[1]);
    island.wire.cut_one_way(&unheard.host, &deaf.host, true)?;
    let watched = Duration::from_secs(run.count(12, 60) as u64);
    thread::sleep(watched);
    island.wire.cut_one_way(&unheard.host, &deaf.host, false)?;
    let mut total = 0;
    for (node, log) in island.nodes.iter().zip(&logs) {
        for (member, events) in doubts(log) {
            ensure!(
                events.len() <= EVENTS_PER_MINUTE,
                "{} says of {member} in {watched:?}: {events:?}",
                node.name()
            );
            let is_heard = node.name() != deaf.name() || member != unheard.id();
            ensure!(!is_heard || !events.contains(&"down".to_owned()), "{} says down", node.name());
            total += events.len();
        }
    }
    run.measures.note(format!("{total} doubts said by 5 nodes in {watched:?} of a cut that is one way"));
    island.agree()?;
    Ok(())
}

/// What a node said of the lives of others, by member.
fn doubts(log: &EventLog) -> BTreeMap<String, Vec<String>> {
    let mut doubts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for seen in log.all() {
        if let ("suspect" | "down" | "back" | "left", Some(id)) =
            (seen.kind.as_str(), seen.data["member"]["id"].as_str())
        {
            doubts.entry(id.to_owned()).or_default().push(seen.kind);
        }
    }
    doubts
}

/// How many tries of the intermediary at its members have failed so far.
fn tries_failed(island: &Island) -> Result<u64> {
    let hub = island.node("hub")?;
    let page = client::expect(&hub.host, hub.http(), "/metrics", 200)?;
    let text = String::from_utf8_lossy(&page.body).into_owned();
    let of_tries = |line: &&str| {
        line.starts_with("isle_upstream_duration_seconds_count")
            && (line.contains("result=\"failed\"") || line.contains("result=\"refused\""))
    };
    let count = |line: &str| {
        line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).with_context(|| line.to_owned())
    };
    text.lines().filter(of_tries).map(count).sum()
}

/// An island of so many piece servers: `n0`, `n1`, ...
fn numbered(run: &Run, count: usize) -> Result<Island> {
    let names: Vec<String> = (0..count).map(|number| format!("n{number}")).collect();
    let pieces: &[&str] = &["pieces"];
    let nodes: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), pieces)).collect();
    Island::start(run, &nodes)
}

/// A process that does nothing as fast as it can. Killed when dropped; runs in a host, so it never outlives that.
#[derive(Debug)]
struct Burner(Child);

impl Burner {
    fn on_every_core(host: &Host) -> Result<Vec<Self>> {
        let cores = thread::available_parallelism()?.get();
        let burners: Result<Vec<Self>> = (0..cores)
            .map(|_| {
                let mut command = Command::new("sh");
                command.args(["-c", "while :; do :; done"]);
                Ok(Self(host.enter(|| command.spawn())??))
            })
            .collect();
        let mut burners = burners?;
        for burner in &mut burners {
            if let Some(status) = burner.0.try_wait()? {
                bail!("a busy process ended: {status}");
            }
        }
        Ok(burners)
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
