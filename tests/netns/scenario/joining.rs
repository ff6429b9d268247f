//! Coming and going on a quiet island: how complete, how equal, how fast.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Claim;
use crate::island::Island;
use crate::node::{self, Node, eventually};
use crate::runner::Run;
use crate::tap::{FAREWELL, Tap};

pub(super) const SCENARIOS: &[Claim] = &[
    ("joining::an_intermediary_and_seven_piece_servers_list_each_other_alike", complete),
    ("joining::newcomers_and_farewells_are_known_at_once", newcomer),
    ("joining::a_kept_key_comes_back_under_a_higher_epoch", kept_key),
];

/// What is measured, and what is promised of its 99th percentile: (what, busy machine, quiet machine).
const WHOLE_TABLE: (&str, u64, u64) = ("newcomer: whole table after exec", 3000, 300);
const KNOWN: (&str, u64, u64) = ("newcomer: known to another after its first datagram", 1000, 50);
const FAREWELL_KNOWN: (&str, u64, u64) =
    ("farewell: known to another after it was heard on the wire", 1000, 100);
const EXIT: (&str, u64, u64) = ("Ctrl+C: exit when idle", 1000, 150);

/// The island of the issue: one intermediary, seven piece servers, nothing configured.
fn one_and_seven(run: &Run) -> Result<Island> {
    let pieces: &[&str] = &["pieces"];
    let names = ["p1", "p2", "p3", "p4", "p5", "p6", "p7"];
    let mut nodes: Vec<(&str, &[&str])> = vec![("hub", &["intermediary"])];
    nodes.extend(names.map(|name| (name, pieces)));
    Island::start(run, &nodes)
}

fn complete(run: &Run) -> Result<()> {
    let island = one_and_seven(run)?;
    let hub = island.node("hub")?;
    // Listed at once, well once heard directly.
    eventually("everybody well and reachable", Duration::from_secs(5), || {
        let page = hub.ask("/members")?;
        let members = page["members"].as_array().context("members")?;
        ensure!(members.len() == 8, "{} members", members.len());
        for member in members {
            let name = member["name"].as_str().unwrap_or_default();
            ensure!(
                member["reachable"] == true && member["reason"].is_null(),
                "{name} is not well: {member}"
            );
            ensure!(
                name == "hub" || member["figures"] == 17,
                "{name} announces other than 17 figures: {member}"
            );
            ensure!(
                member["address"].as_str().is_some_and(|address| address.starts_with("10.77.0.")),
                "{name} has an address that others cannot dial: {member}"
            );
        }
        Ok(true)
    })?;
    let page = hub.ask("/members")?;
    ensure!(page["self"]["name"] == "hub", "self is {}", page["self"]);
    Ok(())
}

fn newcomer(run: &Run) -> Result<()> {
    let mut island = one_and_seven(run)?;
    let logs = island.events()?;
    let tap = Tap::open(&island.client)?;
    let host = island.host("newcomer")?;
    let http: SocketAddr = "10.77.0.18:1233".parse()?;
    for _ in 0..run.count(4, 20) {
        let mut node = Node::spawn(&host, run.folder.path(), &["pieces"])?;
        let own_log = node.events_at(http);
        let ready = node.ready()?;
        let whole = own_log.listing(8, Duration::from_secs(10))?;
        run.measures.add(WHOLE_TABLE.0, whole.saturating_duration_since(node.started));
        run.measures.add("newcomer: ready after exec", ready.at - node.started);
        let author = |kind: Option<u8>| {
            let id = ready.id.clone();
            move |heard: &crate::tap::Heard| {
                heard.author() == id && kind.is_none_or(|kind| heard.kind() == kind)
            }
        };
        let first = tap.wait("its first datagram", Duration::from_secs(2), author(None))?;
        for log in &logs {
            let known = log.wait("joined", Duration::from_secs(10), |seen| seen.is("joined", &ready.id))?;
            run.measures.add(KNOWN.0, known.at.saturating_duration_since(first.at));
        }
        let stopped = std::time::Instant::now();
        node.interrupt()?;
        let (status, ended) = node.ended(Duration::from_secs(10))?;
        ensure!(status.code() == Some(0), "exit {status} after Ctrl+C");
        run.measures.add(EXIT.0, ended - stopped);
        let farewell = tap.wait("its farewell", Duration::from_secs(2), author(Some(FAREWELL)))?;
        for log in &logs {
            let left = log.wait("left", Duration::from_secs(10), |seen| seen.is("left", &ready.id))?;
            run.measures.add(FAREWELL_KNOWN.0, left.at.saturating_duration_since(farewell.at));
            let doubted =
                log.all().iter().any(|seen| seen.is("suspect", &ready.id) || seen.is("down", &ready.id));
            ensure!(!doubted, "somebody doubted a node that had said farewell");
        }
    }
    for log in &logs {
        log.demand_sense()?;
    }
    for (what, busy, quiet) in [WHOLE_TABLE, KNOWN, FAREWELL_KNOWN, EXIT] {
        let bound = run.bound(Duration::from_millis(busy), Duration::from_millis(quiet));
        let measured = run.measures.percentile(what, 99);
        ensure!(measured <= bound, "{what}: p99 is {measured:?}, at most {bound:?} is promised");
    }
    Ok(())
}

fn kept_key(run: &Run) -> Result<()> {
    let mut island = Island::start(run, &[("hub", &["intermediary"])])?;
    let log = island.node("hub")?.events();
    let host = island.host("p1")?;
    let arguments = ["pieces", "--state-dir", "state"];
    let mut first = island.join(&host, &arguments)?;
    let id = first.id().to_owned();
    log.wait("joined", Duration::from_secs(5), |seen| seen.is("joined", &id))?;
    first.terminate()?;
    let (status, _) = first.ended(Duration::from_secs(5))?;
    ensure!(status.code() == Some(0), "exit {status} after SIGTERM");
    log.wait("left", Duration::from_secs(5), |seen| seen.is("left", &id))?;
    let second = island.join(&host, &arguments)?;
    ensure!(second.id() == id, "the key was not kept");
    node::agree(&[island.node("hub")?, &second], 2, Duration::from_secs(5))?;
    // Killed, it leaves no farewell; its next life is news all the same.
    second.kill()?;
    drop(second);
    let third = island.join(&host, &arguments)?;
    ensure!(third.id() == id, "the key was not kept over a crash");
    node::agree(&[island.node("hub")?, &third], 2, Duration::from_secs(5))?;
    Ok(())
}
