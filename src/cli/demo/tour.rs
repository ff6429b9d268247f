//! The tour: discovery, a figure, a figure in shares, a crash, a hand-over, farewells; each step checked.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::api::view::{MemberView, MembersPage};
use crate::cli::client::{AskError, Client};
use crate::cli::demo::child::ChildError;
use crate::cli::demo::island::{BRIDGES, HUBS, ISLANDS, Island, PIECES, SOUTH_FIGURE, SOUTH_PIECES, SPLIT};
use crate::cli::demo::load::{Load, Outcome};
use crate::cli::demo::report::{Check, Report};
use crate::cli::failure::Failure;
use crate::figures::figure::Figure;

/// Between two looks at a table that is to change.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Requests a second while things happen.
const A_SECOND: u32 = 200;
/// Requests that go through before something happens, and again after it.
const BEFORE_AND_AFTER: usize = 100;
/// Longest time that a table takes to change: an island this small calls a crash down within 3 s.
const TABLE_WITHIN: Duration = Duration::from_secs(6);
/// Longest time that a node without work takes to leave. More than it needs; less than its drain timeout.
const LEAVES_WITHIN: Duration = Duration::from_secs(8);

/// Why a tour cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TourError {
    /// A node does not do what processes do.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// A node does not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Nobody can be told.
    #[error("{0}")]
    Report(Failure),
}

impl From<Failure> for TourError {
    fn from(failure: Failure) -> Self {
        Self::Report(failure)
    }
}

/// Walks through all of it. `started`: when the nodes were.
///
/// # Errors
/// A tour that cannot go on; checks that fail are told and do not end it.
pub async fn walk(island: &mut Island, report: &mut Report, started: Instant) -> Result<(), TourError> {
    discovery(island, report, started).await?;
    figures(island, report).await?;
    shares(island, report).await?;
    across(island, report).await?;
    cut(island, report).await?;
    crash(island, report).await?;
    hand_over(island, report).await?;
    farewells(island, report).await
}

async fn discovery(island: &mut Island, report: &mut Report, started: Instant) -> Result<(), TourError> {
    report.part("discovery", "Discovery", "nobody was told an address but one bridge the other's")?;
    island.ready().await?;
    let ready = started.elapsed();
    let all = island.nodes().len();
    let equal = until(TABLE_WITHIN, async || {
        let tables = tables(island).await;
        let first = tables.first()?;
        (first.len() == all && tables.len() == all && tables.iter().all(|table| table == first)).then_some(())
    });
    let equal = equal.await.map(|()| started.elapsed());
    let got = if equal.is_some() { "equal".to_owned() } else { described(&tables(island).await) };
    let check =
        Check::same("equal-tables", format!("{all} members; all {all} tables are equal"), "equal", got)
            .fact("members", all);
    report
        .check(&check.fact("ready_ms", ready.as_millis()).took(equal.unwrap_or_else(|| started.elapsed())))?;
    Ok(())
}

async fn figures(island: &Island, report: &mut Report) -> Result<(), TourError> {
    let hub = island.node(HUBS[0]).client();
    report.part("figure", "A figure", &format!("isle get giraffe --at http://{}", hub.authority()))?;
    let start = Instant::now();
    let giraffe = asked(&hub, "giraffe").await;
    let took = start.elapsed();
    let (pieces, from) = match &giraffe {
        Ok(body) => (body["total"].to_string(), holders(body)),
        Err(error) => (error.to_string(), String::new()),
    };
    let text = format!("{pieces} pieces from {from}, through {}", HUBS[0]);
    report.check(&Check::same("giraffe", text, 28, &pieces).fact("pieces", &pieces).took(took))?;
    let start = Instant::now();
    let mut wrong = Vec::new();
    for figure in island.figures() {
        if !is_same(figure, asked(&hub, figure.name().as_str()).await.ok().as_ref()) {
            wrong.push(figure.name().to_string());
        }
    }
    let all = island.figures().len();
    let text = format!("all {all} figures arrive piece by piece as they are in their files");
    report.check(
        &Check::same("all-figures", text, "", wrong.join(", ")).fact("figures", all).took(start.elapsed()),
    )?;
    Ok(())
}

async fn shares(island: &Island, report: &mut Report) -> Result<(), TourError> {
    let hub = island.node(HUBS[1]).client();
    report.part("shares", "Shares", &format!("{SPLIT} is split: a third of its pieces at each server"))?;
    let start = Instant::now();
    let body = asked(&hub, SPLIT).await;
    let took = start.elapsed();
    let whole = island.figures().iter().find(|figure| figure.name().as_str() == SPLIT);
    let is_whole = whole.is_some_and(|whole| is_same(whole, body.as_ref().ok()));
    let (from, total) = match &body {
        Ok(body) => (holders(body), body["total"].to_string()),
        Err(error) => (error.to_string(), "no".to_owned()),
    };
    let text = format!("{total} pieces from {from}, put together by {}", HUBS[1]);
    let got = format!("{} from {from}", if is_whole { "whole" } else { "incomplete" });
    report.check(
        &Check::same("whole", text, format!("whole from {}", PIECES.join(", ")), got)
            .fact("shares", 3)
            .took(took),
    )?;
    Ok(())
}

async fn across(island: &Island, report: &mut Report) -> Result<(), TourError> {
    let [north, south] = ISLANDS;
    report.part("across", "Another island", &format!("{SOUTH_FIGURE} is in the {south} alone"))?;
    let hub = island.node(HUBS[0]).client();
    let start = Instant::now();
    let body = until(TABLE_WITHIN, async || asked(&hub, SOUTH_FIGURE).await.ok()).await;
    let got = body.as_ref().map(holders).unwrap_or_default();
    let text = format!("{SOUTH_FIGURE} comes to the {north} through {} and {}", BRIDGES[0], BRIDGES[1]);
    report.check(&Check::same("figure", text, SOUTH_PIECES, got).took(start.elapsed()))?;
    let page: MembersPage = hub.json("/members").await?;
    let reached: Vec<_> =
        page.islands.iter().filter(|island| island.reachable).map(|island| &*island.name).collect();
    let text = format!("both islands are listed at {}, and can be reached", HUBS[0]);
    report.check(&Check::same("islands", text, ISLANDS.join(", "), reached.join(", ")))?;
    Ok(())
}

/// Whether a node of the north can reach the south.
async fn reaches_south(hub: &Client) -> Option<bool> {
    let page: MembersPage = hub.json("/members").await.ok()?;
    page.islands.iter().find(|island| island.name == ISLANDS[1]).map(|island| island.reachable)
}

async fn cut(island: &Island, report: &mut Report) -> Result<(), TourError> {
    let [_, south] = ISLANDS;
    let gate = island.node(BRIDGES[1]);
    report.part("cut", "A cut", &format!("{} stands still: the link falls silent", gate.name()))?;
    let hub = island.node(HUBS[0]).client();
    let id = id_of(island, gate.name()).await?;
    gate.pause(true);
    let start = Instant::now();
    let lost = until(TABLE_WITHIN, async || (reaches_south(&hub).await == Some(false)).then_some(())).await;
    let took = start.elapsed();
    let page: Result<MembersPage, _> = hub.json("/members").await;
    let refused = asked(&hub, SOUTH_FIGURE).await;
    gate.pause(false);
    let got = if lost.is_some() { "unreachable" } else { "reachable" };
    report.check(
        &Check::same("unreachable", format!("the {south} cannot be reached"), "unreachable", got).took(took),
    )?;
    let gone: Vec<_> = page?
        .members
        .into_iter()
        // What stands still is found to be down by its own island, and rightly so.
        .filter(|member| member.island == south && member.standing != "alive" && member.id != id)
        .map(|member| format!("{} {}", member.name, member.standing))
        .collect();
    report.check(&Check::same(
        "nobody-gone",
        "none of the others there is called down",
        "",
        gone.join(", "),
    ))?;
    let reason = match refused {
        Err(AskError::Problem { problem, .. }) => format!("{} {}", problem.status, problem.reason),
        Err(error) => error.to_string(),
        Ok(_) => "a figure".to_owned(),
    };
    let text = format!("{SOUTH_FIGURE} cannot be had meanwhile, and the answer says why");
    report.check(&Check::same("refused", text, "503 island-unreachable", reason))?;
    let start = Instant::now();
    let back = until(TABLE_WITHIN, async || asked(&hub, SOUTH_FIGURE).await.ok()).await;
    let got = if back.is_some() { "there" } else { "missing" };
    report.check(
        &Check::same("healed", format!("{} goes on: it is there again", gate.name()), "there", got)
            .took(start.elapsed()),
    )?;
    // Its own island may have given it up, and hears it again.
    let settled = until(TABLE_WITHIN, async || stands(island, &id, "alive").await.then_some(())).await;
    let got = if settled.is_some() { "alive".to_owned() } else { standings(island, &id).await };
    report.check(&Check::same("alive", format!("{} is alive at everybody", gate.name()), "alive", got))?;
    Ok(())
}

async fn crash(island: &mut Island, report: &mut Report) -> Result<(), TourError> {
    let [_, _, victim] = PIECES;
    report.part(
        "crash",
        "A crash",
        &format!("kill -9 {victim}, while {A_SECOND} requests a second go on"),
    )?;
    let load = Load::start(&[island.node(HUBS[0]).http()], &unsplit(island), A_SECOND);
    more(&load, BEFORE_AND_AFTER).await;
    let mut node = island.take(victim);
    let dead = id_of(island, victim).await?;
    node.kill();
    let start = Instant::now();
    node.ended(LEAVES_WITHIN).await?;
    let known = until(TABLE_WITHIN, async || stands(island, &dead, "down").await.then_some(())).await;
    let took = start.elapsed();
    let got = if known.is_some() { "down".to_owned() } else { standings(island, &dead).await };
    report.check(&Check::same("down", format!("everybody calls {victim} down"), "down", got).took(took))?;
    more(&load, BEFORE_AND_AFTER).await;
    told(report, &load.stop().await)?;

    let hub = island.node(HUBS[1]).client();
    let start = Instant::now();
    let missing = match asked(&hub, SPLIT).await {
        Err(AskError::Problem { problem, .. }) => {
            format!("{} without {}", problem.status, problem.missing.join(", "))
        }
        Err(error) => error.to_string(),
        Ok(_) => "a figure".to_owned(),
    };
    let text = format!("{SPLIT} cannot be had, and the answer says which share is missing");
    report.check(&Check::same("missing-share", text, "503 without 3/3", missing).took(start.elapsed()))?;
    let start = Instant::now();
    island.restart(victim).await?;
    let back = until(TABLE_WITHIN, async || asked(&hub, SPLIT).await.ok()).await;
    let got = if back.is_some() { "whole" } else { "missing" };
    report.check(
        &Check::same("restarted", format!("{victim} is started again: {SPLIT} is whole"), "whole", got)
            .took(start.elapsed()),
    )?;
    Ok(())
}

async fn hand_over(island: &mut Island, report: &mut Report) -> Result<(), TourError> {
    let [leaves, stays] = HUBS;
    report.part(
        "hand-over",
        "A hand-over",
        &format!("Ctrl+C on {leaves}, while {A_SECOND} requests a second go on"),
    )?;
    let nodes = [island.node(leaves).http(), island.node(stays).http()];
    let load = Load::start(&nodes, &unsplit(island), A_SECOND);
    more(&load, BEFORE_AND_AFTER).await;
    let mut node = island.take(leaves);
    node.interrupt();
    let start = Instant::now();
    let status = node.ended(LEAVES_WITHIN).await?;
    let took = start.elapsed();
    more(&load, BEFORE_AND_AFTER).await;
    let outcome = load.stop().await;
    let got = status.code().map_or_else(|| status.to_string(), |code| code.to_string());
    let text = format!("{leaves} finished what it had, and left");
    report.check(&Check::same("left", text, 0, got).fact("told_to_reconnect", outcome.closing).took(took))?;
    let moved = format!("clients went on with {stays}");
    let got = if outcome.moved > 0 { "moved" } else { "not moved" };
    report.check(&Check::same("moved", moved, "moved", got).fact("moved", outcome.moved))?;
    told(report, &outcome)
}

async fn farewells(island: &mut Island, report: &mut Report) -> Result<(), TourError> {
    let [_, first, _] = PIECES;
    report.part("farewells", "Farewells", "Ctrl+C on everybody else")?;
    let mut node = island.take(first);
    let id = id_of(island, first).await?;
    node.interrupt();
    let start = Instant::now();
    let known = until(TABLE_WITHIN, async || stands(island, &id, "left").await.then_some(())).await;
    let took = start.elapsed();
    let got = if known.is_some() { "left".to_owned() } else { standings(island, &id).await };
    report.check(
        &Check::same("farewell", format!("everybody heard the farewell of {first}"), "left", got).took(took),
    )?;
    node.ended(LEAVES_WITHIN).await?;
    let page: MembersPage = island.node(HUBS[1]).client().json("/members").await?;
    let down: Vec<_> =
        page.members.iter().filter(|member| member.standing == "down").map(|member| &*member.name).collect();
    let text = format!("{} alone was ever lost, the one that was killed", PIECES[2]);
    report.check(&Check::same("nobody-lost", text, PIECES[2], down.join(", ")))?;
    let start = Instant::now();
    let rest = std::mem::take(island.nodes_mut());
    rest.iter().for_each(|node| node.interrupt());
    let mut unwell = Vec::new();
    let left = rest.len();
    for mut node in rest {
        let status = node.ended(LEAVES_WITHIN).await?;
        if !status.success() {
            unwell.push(format!("{}: {status}", node.name()));
        }
    }
    let text = format!("the other {left} left, too");
    report.check(
        &Check::same("all-left", text, "", unwell.join(", ")).fact("left", left).took(start.elapsed()),
    )?;
    Ok(())
}

/// No request may fail, whatever happened.
fn told(report: &mut Report, outcome: &Outcome) -> Result<(), TourError> {
    let text = format!("0 of {} requests failed", outcome.asked);
    let got = match &*outcome.examples {
        [] => format!("{} failed", outcome.failed),
        examples => format!("{} failed: {}", outcome.failed, examples.join("; ")),
    };
    report.check(
        &Check::same("failures", text, "0 failed", got)
            .fact("asked", outcome.asked)
            .fact("failed", outcome.failed),
    )?;
    Ok(())
}

/// Waits until so many more requests were made.
async fn more(load: &Load, requests: usize) {
    let wanted = load.asked() + requests;
    // Should requests hang, the check of what failed says so.
    let _ = until(TABLE_WITHIN, async || (load.asked() >= wanted).then_some(())).await;
}

/// Looks again and again until there is something to see.
async fn until<T>(within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + within;
    loop {
        if let Some(seen) = look().await {
            return Some(seen);
        }
        if Instant::now() >= end {
            return None;
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn asked(hub: &Client, name: &str) -> Result<Value, AskError> {
    hub.json(&format!("/figures/{name}")).await
}

/// Whether an answer has the pieces of a figure, and its total.
fn is_same(figure: &Figure, body: Option<&Value>) -> bool {
    let wanted: Value = serde_json::from_slice(figure.body()).unwrap_or_default();
    body.is_some_and(|body| body["pieces"] == wanted["pieces"] && body["total"] == wanted["total"])
}

/// The names of who had the pieces.
fn holders(body: &Value) -> String {
    let sources = body["sources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut names: Vec<_> = sources.iter().filter_map(|source| source["name"].as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// All figures but the split one: those that one server alone cannot take with it.
fn unsplit(island: &Island) -> Vec<Figure> {
    island.figures().iter().filter(|figure| figure.name().as_str() != SPLIT).cloned().collect()
}

async fn pages(island: &Island) -> Vec<MembersPage> {
    let mut pages = Vec::new();
    for node in island.nodes() {
        pages.extend(node.client().json::<MembersPage>("/members").await.ok());
    }
    pages
}

/// Who stands how, at each node.
async fn tables(island: &Island) -> Vec<BTreeMap<String, String>> {
    let told = |member: MemberView| (member.name, member.standing);
    pages(island).await.into_iter().map(|page| page.members.into_iter().map(told).collect()).collect()
}

fn described(tables: &[BTreeMap<String, String>]) -> String {
    let sizes: Vec<_> = tables.iter().map(|table| table.len().to_string()).collect();
    format!("tables of {} members", sizes.join(", "))
}

/// The id of the one of that name who is there.
async fn id_of(island: &Island, name: &str) -> Result<String, TourError> {
    let page: MembersPage = island.node(HUBS[1]).client().json("/members").await?;
    let here = page.members.into_iter().find(|member| member.name == name && member.standing == "alive");
    Ok(here.map(|member| member.id).unwrap_or_default())
}

/// Whether it stands so at every node.
async fn stands(island: &Island, id: &str, standing: &str) -> bool {
    let pages = pages(island).await;
    let so =
        |page: &MembersPage| page.members.iter().any(|member| member.id == id && member.standing == standing);
    pages.len() == island.nodes().len() && pages.iter().all(so)
}

async fn standings(island: &Island, id: &str) -> String {
    let pages = pages(island).await;
    let of = |page: MembersPage| {
        let member = page.members.into_iter().find(|member| member.id == id);
        format!("{} at {}", member.map_or("unknown".to_owned(), |member| member.standing), page.me.name)
    };
    pages.into_iter().map(of).collect::<Vec<_>>().join(", ")
}
