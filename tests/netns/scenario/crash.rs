//! Crashes and bad wires: found out soon, never imagined, and hidden from clients as long as anyone can serve.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rustix::process::Signal;

use super::Claim;
use crate::client;
use crate::events::Seen;
use crate::figures;
use crate::island::Island;
use crate::load::{Load, Plan};
use crate::node::eventually;
use crate::runner::Run;

pub(super) const SCENARIOS: &[Claim] = &[
    ("crash::a_killed_piece_server_fails_no_request_and_its_own_figures_go", killed),
    ("crash::twenty_percent_loss_takes_nobody_down", loss),
    ("crash::a_pause_below_the_silence_limit_takes_nobody_down", paused),
    ("crash::a_cut_wire_heals", cut),
];

/// Down is said at the latest after this: 1 s of silence, 1.5 s of pings, and what a busy machine adds.
const DOWN_WITHIN: Duration = Duration::from_secs(6);

fn killed(run: &Run) -> Result<()> {
    let own = r#"{"name":"only-here","pieces":[{"part":"brick","color":"red","quantity":1}]}"#;
    fs::write(run.folder.path().join("own.json"), own)?;
    let doomed: &[&str] = &["pieces", "--figures", "builtin", "--figures", "own.json"];
    let mut island = Island::start(
        run,
        &[("hub", &["intermediary"]), ("p1", &["pieces"]), ("p2", &["pieces"]), ("doomed", doomed)],
    )?;
    let hub = island.node("hub")?.http();
    for _ in 0..run.count(2, 20) {
        eventually("the figure that only one has", Duration::from_secs(10), || {
            Ok(client::get(&island.client, hub, "/figures/only-here")?.status == 200)
        })?;
        let node = island.take("doomed")?;
        let (id, host) = (node.id().to_owned(), node.host.clone());
        let logs = island.events()?;
        let plan = Plan {
            targets: vec![hub],
            paths: figures::paths(),
            per_second: 200,
            clients: 16,
            check: figures::check,
        };
        let load = Load::start(&island.client, &plan);
        thread::sleep(Duration::from_secs(1));
        let killed = Instant::now();
        node.kill()?;
        for log in &logs {
            let down = log.wait("down", DOWN_WITHIN, |seen| seen.is("down", &id))?;
            run.measures
                .add("kill -9: known down to another after", down.at.saturating_duration_since(killed));
        }
        for log in &logs {
            log.demand_sense()?;
        }
        let outcome = load.stop();
        outcome.demand_flawless(killed)?;
        let served = outcome.served_by.iter().filter(|(who, _)| who.starts_with("doomed@"));
        let last = served.flat_map(|(_, when)| when).filter(|at| **at > killed).max();
        let went_on = last.map_or(Duration::ZERO, |at| *at - killed);
        run.measures.add("kill -9: last answer from it after", went_on);
        run.measures.note(format!("{} requests, 0 failed, around a kill -9", outcome.right));

        let gone = client::get(&island.client, hub, "/figures/only-here")?;
        ensure!(matches!(gone.status, 404 | 503), "its own figure is {}: {}", gone.status, gone.text());
        let listed = island.node("hub")?.ask("/figures?limit=1000")?.to_string();
        ensure!(!listed.contains("only-here"), "its own figure is still listed");
        drop(node);
        island.nodes.push(island.join(&host, doomed)?);
        island.agree_alive(4)?;
    }
    Ok(())
}

fn loss(run: &Run) -> Result<()> {
    let pieces: &[&str] = &["pieces"];
    let island = Island::start(
        run,
        &[("hub", &["intermediary"]), ("p1", pieces), ("p2", pieces), ("p3", pieces), ("p4", pieces)],
    )?;
    let logs = island.events()?;
    island.wire.lose(200)?;
    let watched = Duration::from_secs(run.count(15, 600) as u64);
    thread::sleep(watched);
    island.wire.lose(0)?;
    let mut suspicions = 0;
    for log in &logs {
        for seen in log.all() {
            suspicions += usize::from(seen.kind == "suspect");
            if matches!(seen.kind.as_str(), "down" | "left") {
                bail!("said in {watched:?} of 20 % loss: {}", seen.brief());
            }
        }
    }
    run.measures
        .note(format!("{suspicions} suspicions and no `down` among 5 nodes in {watched:?} of 20 % loss"));
    island.agree()?;
    Ok(())
}

/// Below the least silence that makes a watcher vote (600 ms), with the time that a beacon may be late by.
const PAUSE: Duration = Duration::from_millis(400);
/// Above the most: whoever stands still for so long is rightly called down, and is back at once.
const LONG_PAUSE: Duration = Duration::from_millis(1500);

fn paused(run: &Run) -> Result<()> {
    let pieces: &[&str] = &["pieces"];
    let island =
        Island::start(run, &[("hub", &["intermediary"]), ("p1", pieces), ("p2", pieces), ("p3", pieces)])?;
    let logs = island.events()?;
    let pause = |name: &str, length: Duration| {
        let node = island.node(name)?;
        node.signal(Signal::STOP)?;
        thread::sleep(length);
        node.signal(Signal::CONT)
    };
    for _ in 0..run.count(3, 20) {
        for name in ["p1", "hub"] {
            pause(name, PAUSE)?;
            // Long enough for a sleeper to say what it wrongly believes, and for others to notice its silence late.
            thread::sleep(Duration::from_secs(1));
        }
    }
    for log in &logs {
        if let Some(word) = log.all().iter().find(|seen| matches!(seen.kind.as_str(), "down" | "left")) {
            bail!("after pauses of {PAUSE:?} somebody says {}", word.brief());
        }
    }
    pause("p1", LONG_PAUSE)?;
    let awake = Instant::now();
    let sleeper = island.node("p1")?;
    for (node, log) in island.nodes.iter().zip(&logs) {
        let wrong = |seen: &Seen| seen.kind == "down" && !seen.is("down", sleeper.id());
        ensure!(!log.all().iter().any(wrong), "{} calls somebody down that was awake", node.name());
        if node.name() != "p1" {
            let back = log.wait("back", Duration::from_secs(5), |seen| seen.is("back", sleeper.id()))?;
            run.measures.add("awake again: back after", back.at.saturating_duration_since(awake));
        }
    }
    island.agree()?;
    Ok(())
}

fn cut(run: &Run) -> Result<()> {
    let pieces: &[&str] = &["pieces"];
    let island =
        Island::start(run, &[("hub", &["intermediary"]), ("p1", pieces), ("p2", pieces), ("p3", pieces)])?;
    let lonely = island.node("p3")?;
    let logs = island.events()?;
    island.wire.cut_off(&lonely.host, true)?;
    let mut doubted = BTreeSet::new();
    for (node, log) in island.nodes.iter().zip(&logs).filter(|(node, _)| node.name() != "p3") {
        log.wait("down", Duration::from_secs(15), |seen| seen.is("down", lonely.id()))?;
        doubted.insert(node.name());
    }
    ensure!(doubted.len() == 3, "{doubted:?}");
    island.wire.cut_off(&lonely.host, false)?;
    let healed = Instant::now();
    for (node, log) in island.nodes.iter().zip(&logs) {
        if node.name() != "p3" {
            let back = log.wait("back", Duration::from_secs(10), |seen| seen.is("back", lonely.id()))?;
            run.measures.add("a healed cut: back after", back.at.saturating_duration_since(healed));
        }
        ensure!(
            !log.all().iter().any(|seen| seen.kind == "left"),
            "somebody was called left without a farewell"
        );
    }
    island.agree()?;
    Ok(())
}
