//! Ctrl+C under load: nobody notices but by a `Connection: close`.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Claim;
use crate::client::{Answer, Connection};
use crate::figures;
use crate::island::Island;
use crate::load::{Load, Plan};
use crate::node::Node;
use crate::runner::Run;
use crate::service::Service;
use crate::tap::{FAREWELL, Tap};

pub(super) const SCENARIOS: &[Claim] = &[
    ("leaving::a_piece_server_stopped_under_load_fails_no_request", piece_server),
    ("leaving::one_of_two_intermediaries_stopped_fails_no_client", intermediary),
    ("leaving::every_role_leaves_with_status_0_and_a_farewell", roles),
    ("leaving::a_second_ctrl_c_does_not_wait", twice),
    ("leaving::a_restart_of_every_node_in_turn_fails_no_request", rolling),
];

/// How long the load runs before and after what happens to it.
const AROUND: Duration = Duration::from_millis(1200);
/// An answer that takes this long is one that leaving has to wait for.
const SLOW: Duration = Duration::from_millis(300);

fn piece_server(run: &Run) -> Result<()> {
    let mut island = Island::start(
        run,
        &[("hub", &["intermediary"]), ("p1", &["pieces"]), ("p2", &["pieces"]), ("p3", &["pieces"])],
    )?;
    let tap = Tap::open(&island.client)?;
    for _ in 0..run.count(2, 20) {
        let mut leaving = island.take("p1")?;
        let (id, host) = (leaving.id().to_owned(), leaving.host.clone());
        let logs = island.events()?;
        let plan = steady(vec![island.node("hub")?.http()]);
        let load = Load::start(&island.client, &plan);
        thread::sleep(AROUND);
        let stopped = Instant::now();
        leaving.interrupt()?;
        let (status, ended) = leaving.ended(Duration::from_secs(10))?;
        run.measures.add("a piece server under load: Ctrl+C to exit", ended - stopped);
        let farewell = tap.wait("its farewell", Duration::from_secs(2), |heard| {
            heard.kind() == FAREWELL && heard.author() == id
        })?;
        for log in &logs {
            let left = log.wait("left", Duration::from_secs(10), |seen| seen.is("left", &id))?;
            run.measures.add("its farewell known to another", left.at.saturating_duration_since(farewell.at));
        }
        thread::sleep(AROUND);
        for log in &logs {
            log.demand_sense()?;
        }
        let outcome = load.stop();
        outcome.demand_flawless(stopped)?;
        ensure!(status.code() == Some(0), "exit {status}");
        let late = outcome.served_by.iter().filter(|(who, _)| who.starts_with("p1@"));
        let late: usize = late.map(|(_, when)| when.iter().filter(|at| **at > ended).count()).sum();
        ensure!(late == 0, "{late} answers are said to come from a node that had ended");
        run.measures
            .note(format!("{} requests, 0 failed, around the leave of a piece server", outcome.right));
        island.nodes.push(island.join(&host, &["pieces"])?);
        island.agree_alive(4)?;
    }
    let bound = run.bound(Duration::from_millis(1000), Duration::from_millis(100));
    let known = run.measures.percentile("its farewell known to another", 99);
    ensure!(known <= bound, "farewell known after {known:?}");
    Ok(())
}

fn intermediary(run: &Run) -> Result<()> {
    let mut island = Island::empty(run)?;
    let beside = island.host("slow")?;
    let service = Service::start(&beside, SLOW)?;
    let url = service.url();
    let sidecar = island.join(&beside, &["pieces", "--upstream", &url, "--offers", "slow"])?;
    island.nodes.push(sidecar);
    for (name, role) in [("i1", "intermediary"), ("i2", "intermediary"), ("p1", "pieces"), ("p2", "pieces")] {
        let host = island.host(name)?;
        island.nodes.push(island.join(&host, &[role])?);
    }
    island.agree()?;
    for round in 0..run.count(2, 20) {
        let leaving_name = if round % 2 == 0 { "i1" } else { "i2" };
        let targets = vec![island.node("i1")?.http(), island.node("i2")?.http()];
        let quick = Load::start(&island.client, &steady(targets.clone()));
        let slow_plan = Plan {
            targets,
            paths: vec!["/figures/slow".to_owned()],
            per_second: 30,
            clients: 16,
            check: slow_and_whole,
        };
        let slow = Load::start(&island.client, &slow_plan);
        thread::sleep(AROUND);
        let mut leaving = island.take(leaving_name)?;
        let host = leaving.host.clone();
        let stopped = Instant::now();
        leaving.interrupt()?;
        let (status, ended) = leaving.ended(Duration::from_secs(15))?;
        run.measures.add("an intermediary under load: Ctrl+C to exit", ended - stopped);
        thread::sleep(AROUND);
        let (quick, slow) = (quick.stop(), slow.stop());
        quick.demand_flawless(stopped)?;
        slow.demand_flawless(stopped)?;
        ensure!(status.code() == Some(0), "exit {status}");
        ensure!(quick.closes > 0, "nobody was told to reconnect");
        run.measures.note(format!(
            "{} quick and {} slow requests, 0 failed; {} told to close, {} connections refused",
            quick.right,
            slow.right,
            quick.closes + slow.closes,
            quick.refused + slow.refused
        ));
        island.nodes.push(island.join(&host, &["intermediary"])?);
        island.agree_alive(5)?;
    }
    Ok(())
}

fn roles(run: &Run) -> Result<()> {
    let mut island = Island::start(run, &[("witness", &["intermediary"])])?;
    let log = island.node("witness")?.events();
    for (name, role) in [("p", "pieces"), ("i", "intermediary"), ("u", "up")] {
        let host = island.host(name)?;
        for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
            let mut node = island.join(&host, &[role])?;
            let id = node.id().to_owned();
            log.wait("joined", Duration::from_secs(5), |seen| seen.is("joined", &id))?;
            let stopped = Instant::now();
            node.signal(signal)?;
            let (status, ended) = node.ended(Duration::from_secs(5))?;
            ensure!(status.code() == Some(0), "{role}: exit {status} after {signal:?}");
            run.measures.add("idle exit, each role and signal", ended - stopped);
            run.measures.note(format!("{role} {signal:?}: {:?}", ended - stopped));
            let left = log.wait("left", Duration::from_secs(5), |seen| seen.is("left", &id))?;
            ensure!(left.data["member"]["reason"] == "farewell", "left without farewell: {}", left.data);
        }
    }
    let (bound, took) = (
        run.bound(Duration::from_secs(1), Duration::from_millis(150)),
        run.measures.percentile("idle exit, each role and signal", 100),
    );
    ensure!(took <= bound, "idle exit took {took:?}");
    Ok(())
}

fn twice(run: &Run) -> Result<()> {
    let mut island = Island::empty(run)?;
    let beside = island.host("slow")?;
    let service = Service::start(&beside, Duration::from_secs(8))?;
    let sidecar = island.join(&beside, &["pieces", "--upstream", &service.url(), "--offers", "slow"])?;
    let witness_host = island.host("witness")?;
    let witness = island.join(&witness_host, &["intermediary"])?;
    let host = island.host("hub")?;
    let mut hub = island.join(&host, &["intermediary"])?;
    let log = witness.events();
    let id = hub.id().to_owned();
    log.listing(2, Duration::from_secs(5))?;
    crate::node::eventually("the sidecar's figure", Duration::from_secs(5), || {
        let listed = hub.ask("/figures")?;
        Ok(listed["figures"][0]["name"] == "slow")
    })?;
    let mut pending = Connection::open(&island.client, hub.http())?;
    pending.send(format!("GET /figures/slow HTTP/1.1\r\nHost: {}\r\n\r\n", hub.http()).as_bytes())?;
    crate::node::eventually("the request at the service", Duration::from_secs(5), || {
        Ok(!service.vias().is_empty())
    })?;
    hub.interrupt()?;
    log.wait("draining", Duration::from_secs(5), |seen| seen.is("draining", &id))?;
    let again = Instant::now();
    hub.interrupt()?;
    let (status, ended) = hub.ended(Duration::from_secs(5))?;
    run.measures.add("second Ctrl+C to exit", ended - again);
    ensure!(status.code() == Some(130), "exit {status} after the second Ctrl+C");
    ensure!(ended - again < Duration::from_secs(1), "it waited {:?}", ended - again);
    log.wait("left", Duration::from_secs(5), |seen| seen.is("left", &id))?;
    drop(sidecar);
    Ok(())
}

fn rolling(run: &Run) -> Result<()> {
    let names = [("i1", "intermediary"), ("i2", "intermediary"), ("p1", "pieces"), ("p2", "pieces")];
    let arguments: Vec<[&str; 1]> = names.iter().map(|(_, role)| [*role]).collect();
    let nodes: Vec<(&str, &[&str])> =
        names.iter().zip(&arguments).map(|((name, _), arguments)| (*name, arguments.as_slice())).collect();
    let mut island = Island::start(run, &nodes)?;
    let targets = vec![island.node("i1")?.http(), island.node("i2")?.http()];
    let load = Load::start(&island.client, &steady(targets));
    let began = Instant::now();
    for _ in 0..run.count(3, 20) {
        for (name, role) in names {
            let mut old = island.take(name)?;
            old.terminate()?;
            old.ended(Duration::from_secs(15))?;
            let new: Node = island.join(&old.host.clone(), &[role])?;
            island.nodes.push(new);
            island.agree_alive(4)?;
        }
    }
    let outcome = load.stop();
    run.measures.note(format!("{} requests over a rolling restart of 4 nodes", outcome.right));
    outcome.demand_flawless(began)
}

/// 200 requests per second for the built-in figures, by 16 clients that keep their connections.
fn steady(targets: Vec<std::net::SocketAddr>) -> Plan {
    Plan { targets, paths: figures::paths(), per_second: 200, clients: 16, check: figures::check }
}

fn slow_and_whole(_: &str, answer: &Answer) -> Result<(), String> {
    if answer.status == 200 && answer.body == b"slow but sure\n" {
        return Ok(());
    }
    Err(format!("{} {}", answer.status, answer.text()))
}
