//! What developers run: all checks before a merge, scenarios between network namespaces and in virtual time, long
//! trials, comparisons, fuzzing.
//!
//! It only starts other programs and says what it starts; it writes nothing that stays but what they write.

mod bench;
mod check;
mod run;
mod scenarios;
mod sim;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Tasks for people who work on Isle. Run as `cargo xtask TASK`.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must pass before a merge: fmt, clippy, tests, docs, deny.
    Check,
    /// The scenarios between network namespaces alone, short versions (needs root, iproute2, nftables).
    Netns {
        /// Only scenarios whose name contains one of these.
        filters: Vec<String>,
    },
    /// The long versions on the release binary: more runs, more datagrams, the promised bounds; prints p50, p99, spread.
    ///
    /// Nothing is written; copy what is worth keeping into docs/benchmarks.md, with the date and the machine.
    /// Measures time: let nothing else run beside it.
    Trial {
        /// Only scenarios whose name contains one of these.
        filters: Vec<String>,
    },
    /// The scenarios of many nodes in virtual time, also the long ones; replays one that failed.
    Sim(sim::Simulation),
    /// Isle beside its rivals in the same scenario; prints a table for docs/benchmarks.md.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Fuzzes one target, or builds and lists all (needs nightly and cargo-fuzz).
    Fuzz {
        /// A target of fuzz/; without it all are built and listed.
        target: Option<String>,
        /// How long to look for new inputs.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Check => check::everything(),
        Task::Netns { filters } => scenarios::short(&filters),
        Task::Trial { filters } => scenarios::long(&filters),
        Task::Sim(what) => sim::run(&what),
        Task::Bench(what) => bench::run(&what),
        Task::Fuzz { target, seconds } => check::fuzz(target.as_deref(), seconds),
    }
}
