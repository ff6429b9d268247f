//! `isle demo`: two islands of nine processes on this machine, to look at, play with, or be shown around.
//!
//! Everything is on loopback, under a mesh name and a discovery port of its own: it meets no other node, and
//! nothing leaves the machine.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::cli::arguments::Demo;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Ink, Screen, note, print};
use crate::shutdown::StopSignals;

pub mod child;
pub mod island;
pub mod load;
pub mod report;
pub mod tour;

use island::{HUBS, Island, IslandError, PIECES, SOUTH_FIGURE, SPLIT, role_of};
use report::Report;

/// Longest wait for all nodes to leave after Ctrl+C.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// Runs the command.
///
/// # Errors
/// There is no room for an island, or a check of the tour failed.
pub async fn run(demo: &Demo, screen: Screen) -> Result<Exit, Failure> {
    let mut signals = StopSignals::listen().map_err(|error| Failure::of(Exit::Failed, &error))?;
    if !demo.tour {
        return play(screen, &mut signals).await;
    }
    tokio::select! {
        biased;
        // What is dropped here kills its nodes.
        () = signals.next() => Ok(Exit::Interrupted),
        exit = show(demo, screen) => exit,
    }
}

async fn show(demo: &Demo, screen: Screen) -> Result<Exit, Failure> {
    let mut report = Report::new(demo.json, screen);
    report.say(
        "Two islands on this machine: 3 intermediaries, 4 piece servers, 2 bridges. Loopback only.\n\n",
    )?;
    let started = Instant::now();
    let mut island = Island::start().map_err(|error| no_island(&error))?;
    let walked = tour::walk(&mut island, &mut report, started).await;
    if let Err(error) = &walked {
        let why = Failure::of(Exit::Failed, error).what;
        report.check(&report::Check::same("goes-on", "the tour goes on", "", why))?;
    }
    report.end(started.elapsed())?;
    if !report.is_well() {
        note(&format!("logs of the nodes: {}", island.keep_logs().display()));
        return Ok(Exit::Failed);
    }
    report.say("Next:  isle up      on two machines of one network\n       isle demo    these islands, yours to play with\n")?;
    Ok(Exit::Done)
}

async fn play(screen: Screen, signals: &mut StopSignals) -> Result<Exit, Failure> {
    let mut island = Island::start().map_err(|error| no_island(&error))?;
    tokio::select! {
        biased;
        () = signals.next() => return Ok(Exit::Interrupted),
        ready = island.ready() => ready.map_err(|error| Failure::of(Exit::Failed, &error))?,
    }
    print(invitation(screen, &island))?;
    signals.next().await;
    note("all leave …  Ctrl+C again ends them at once");
    let mut nodes = std::mem::take(island.nodes_mut());
    nodes.iter().for_each(child::Node::interrupt);
    let all = async {
        for node in &mut nodes {
            // Whoever was killed by hand ended otherwise; that is what this is for.
            let _ = node.ended(LEAVE_WITHIN).await;
        }
    };
    tokio::select! {
        biased;
        () = signals.next() => Ok(Exit::Interrupted),
        left = timeout(LEAVE_WITHIN, all) => match left {
            Ok(()) => Ok(Exit::Done),
            Err(_) => Err(Failure::new(Exit::Failed, "some nodes did not leave, and were killed")),
        },
    }
}

/// Who is there, and what can be tried.
fn invitation(screen: Screen, island: &Island) -> String {
    let mut text = String::from("Two islands on this machine. Loopback only; Ctrl+C ends them.\n\n");
    for node in island.nodes() {
        let role = match role_of(node.name()) {
            "pieces" => "piece server",
            role => role,
        };
        let process = node.process().map(|process| process.to_string()).unwrap_or_default();
        let name = screen.paint(Ink::Bold, &format!("{:<6}", node.name()));
        text.push_str(&format!("  {name} {role:<13} http://{:<16} process {process}\n", node.http()));
    }
    let [hub, _] = HUBS;
    let at = format!("--at http://{}", island.node(hub).http());
    let [_, _, cat] = PIECES;
    let process =
        |name: &str| island.node(name).process().map(|process| process.to_string()).unwrap_or_default();
    text.push_str(&format!(
        "\nTry in another terminal:\n  \
         isle get giraffe {at}\n  \
         isle get {SPLIT} {at}     a third from each piece server\n  \
         isle get {SOUTH_FIGURE} {at}  from the other island\n  \
         isle members {at}         both islands\n  \
         isle watch {at}           and then, beside it:\n  \
         kill -9 {}      {cat} crashes\n  \
         kill -INT {}    {hub} leaves in order\n",
        process(cat),
        process(hub),
    ));
    text
}

fn no_island(error: &IslandError) -> Failure {
    Failure::of(Exit::Failed, error)
        .advise("a demonstration needs loopback, and a folder for temporary files")
}
