//! The scenarios of `tests/simulation` for longer than every `cargo test` has time for: more seeds, larger islands.

use anyhow::{Result, ensure};
use clap::Args;

use crate::run::{cargo, demand};

/// As many members as one island of the scenario of many islands has.
const ISLAND_MEMBERS: u32 = 1_000;
/// The scenario that is so many islands for so long, and nothing else.
const MANY_ISLANDS: &str = "islands_of_a_thousand";

/// What to simulate. Without arguments: every scenario once.
#[derive(Args)]
pub(crate) struct Simulation {
    /// Only scenarios whose name contains this.
    #[arg(long)]
    scenario: Option<String>,
    /// How many seeds each scenario runs with, one after the other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    seeds: u32,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many members the large islands have. With --seconds: how many there are in all, in islands of a thousand.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
    members: Option<u32>,
    /// Islands of a thousand side by side for so many virtual seconds, instead of the scenarios.
    #[arg(long, conflicts_with = "scenario", requires = "members")]
    seconds: Option<u32>,
    /// Prints what happened at which node, in virtual time; one scenario at a time.
    #[arg(long)]
    trace: bool,
    /// Appends a line of JSON for each scenario and seed to this file.
    #[arg(long)]
    report: Option<std::path::PathBuf>,
}

/// The tests of `tests/simulation` on a build of their own: without the assertions of a development build, and
/// without the minutes that a release takes to link.
pub(crate) const SIMULATION: [&str; 6] =
    ["test", "--profile", "simulation", "--package", "isle-simulation", "--"];

/// Runs it.
pub(crate) fn run(what: &Simulation) -> Result<()> {
    let mut command = cargo(&SIMULATION);
    command.args(["--include-ignored"]);
    // Lines of one scenario stay together; a trace is to be read while it runs.
    if what.trace {
        command.args(["--nocapture", "--test-threads=1"]).env("ISLE_SIMULATION_TRACE", "1");
    } else {
        command.arg("--show-output");
    }
    match (what.seconds, what.members) {
        (Some(seconds), Some(members)) => {
            ensure!(members % ISLAND_MEMBERS == 0, "--members with --seconds are whole thousands");
            command.arg(MANY_ISLANDS).env("ISLE_SIMULATION_SECONDS", seconds.to_string());
            command.env("ISLE_SIMULATION_ISLANDS", (members / ISLAND_MEMBERS).to_string());
        }
        (_, Some(members)) => {
            command.env("ISLE_SIMULATION_MEMBERS", members.to_string());
        }
        (_, None) => {}
    }
    if let Some(report) = &what.report {
        // The tests run in another directory than this does.
        command.env("ISLE_SIMULATION_REPORT", std::path::absolute(report)?);
    }
    command.env("ISLE_SIMULATION_SEED", what.seed.to_string());
    command.env("ISLE_SIMULATION_SEEDS", what.seeds.to_string());
    demand(command.args(what.scenario.as_deref()))
}
