//! The commands that only ask, from a host where nothing runs: they find an intermediary by themselves and leave no trace.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Claim;
use crate::client::Answer;
use crate::figures;
use crate::island::Island;
use crate::node;
use crate::runner::Run;

pub(super) const SCENARIOS: &[Claim] = &[
    ("asking::get_finds_an_intermediary_by_itself_and_is_never_listed", get),
    ("asking::get_without_an_island_fails_soon_and_says_so", alone),
    ("asking::get_outlives_the_intermediary_it_would_have_asked", next_intermediary),
];

fn get(run: &Run) -> Result<()> {
    let island = Island::start(run, &[("hub", &["intermediary"]), ("p1", &["pieces"])])?;
    let logs = island.events()?;
    let before = logs.iter().map(|log| log.all().len()).collect::<Vec<_>>();
    let ask = |arguments: &[&str]| node::command(&island.client, run.folder.path(), arguments);
    let began = Instant::now();
    let got = ask(&["get", "giraffe", "--json"])?;
    run.measures.add("isle get from a host without node", began.elapsed());
    ensure!(got.status.success(), "isle get: {} {}", got.status, String::from_utf8_lossy(&got.stderr));
    let answer = Answer { status: 200, headers: Vec::new(), body: got.stdout, took: Duration::ZERO };
    figures::check("/figures/giraffe", &answer).map_err(anyhow::Error::msg)?;

    let table = ask(&["get", "Giraffe"])?;
    let text = String::from_utf8_lossy(&table.stdout);
    ensure!(table.status.success() && text.contains("QTY"), "as a table: {text}");
    ensure!(!text.contains('\u{1b}'), "coloured without a terminal: {text:?}");
    ensure!(
        ask(&["get", "no-such-figure"])?.status.code() == Some(3),
        "an unknown figure is not exit status 3"
    );

    let members: Value =
        serde_json::from_slice(&ask(&["members", "--json"])?.stdout).context("members --json")?;
    let count = members["members"].as_array().map_or(0, Vec::len);
    ensure!(count == 2, "{count} members: {members}");
    let listed = ask(&["figures"])?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    ensure!(figures::names().iter().all(|name| text.contains(name)), "isle figures: {text}");
    for arguments in [["explain", "giraffe"].as_slice(), &["status"]] {
        let said = ask(arguments)?;
        ensure!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
    }

    for ((node, log), before) in island.nodes.iter().zip(&logs).zip(before) {
        let new: Vec<String> = log.all()[before..].iter().map(|seen| seen.brief()).collect();
        ensure!(!new.iter().any(|event| event.starts_with("joined")), "{} says {new:?}", node.name());
    }
    island.agree()?;
    Ok(())
}

fn alone(run: &Run) -> Result<()> {
    let island = Island::empty(run)?;
    let began = Instant::now();
    let got = node::command(&island.client, run.folder.path(), &["get", "giraffe"])?;
    let said = String::from_utf8_lossy(&got.stderr);
    ensure!(got.status.code() == Some(1), "{} {said}", got.status);
    ensure!(said.contains("intermediary"), "it only says: {said}");
    ensure!(began.elapsed() < Duration::from_secs(10), "after {:?}", began.elapsed());
    Ok(())
}

fn next_intermediary(run: &Run) -> Result<()> {
    let mut island =
        Island::start(run, &[("i1", &["intermediary"]), ("i2", &["intermediary"]), ("p1", &["pieces"])])?;
    for leaving in ["i1", "i2"] {
        if leaving == "i2" {
            // The last one goes only when another is there.
            let host = island.host("i3")?;
            let third = island.join(&host, &["intermediary"])?;
            island.nodes.push(third);
            island.agree_alive(3)?;
        }
        island.take(leaving)?.kill()?;
        // At once, while everybody still believes in the killed one.
        for _ in 0..5 {
            let got = node::command(&island.client, run.folder.path(), &["get", "giraffe", "--json"])?;
            let said = String::from_utf8_lossy(&got.stderr);
            ensure!(got.status.success(), "isle get after {leaving} was killed: {} {said}", got.status);
        }
    }
    Ok(())
}
