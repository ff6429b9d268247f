//! Runs scenarios one after another, for what they measure would be worth nothing beside each other.
//!
//! Speaks enough of libtest's language (`--list`, `--exact`, `--skip`, filters) for `cargo test` and nextest.
//! Says what it could not run, and fails instead where `ISLE_REQUIRE_NETNS=1`.

use std::any::Any;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::measure::Measures;
use crate::network;
use crate::node::eventually;

/// One claim about real nodes on real wires.
pub(crate) struct Scenario {
    /// The claim.
    pub(crate) name: &'static str,
    /// What must hold.
    pub(crate) run: fn(&Run) -> Result<()>,
}

/// What a scenario is given.
pub(crate) struct Run {
    /// Whether this is the long version (`cargo xtask trial`).
    pub(crate) long: bool,
    /// Numbers to be shown when the scenario is over.
    pub(crate) measures: Measures,
    /// A folder for figures, keys and logs, gone afterwards.
    pub(crate) folder: tempfile::TempDir,
}

impl Run {
    /// A count for the short version and one for the long.
    pub(crate) fn count(&self, short: usize, long: usize) -> usize {
        if self.long { long } else { short }
    }

    /// A bound for the short version, generous because CI's machine may be busy, and the real one for the long.
    pub(crate) fn bound(&self, short: Duration, long: Duration) -> Duration {
        if self.long { long } else { short }
    }
}

/// Longest a scenario may take before everything is ended: (short, long).
const PATIENCE: (Duration, Duration) = (Duration::from_secs(150), Duration::from_secs(3600));

/// Arguments that we understand, in libtest's words.
#[derive(Default)]
struct Arguments {
    list: bool,
    exact: bool,
    ignored: bool,
    filters: Vec<String>,
    skip: Vec<String>,
}

impl Arguments {
    fn parse() -> Self {
        let mut parsed = Self::default();
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--list" => parsed.list = true,
                "--exact" => parsed.exact = true,
                "--ignored" => parsed.ignored = true,
                "--skip" => parsed.skip.extend(arguments.next()),
                // Options with a value that change nothing here.
                "--format" | "--test-threads" | "--color" | "--logfile" | "-Z" => drop(arguments.next()),
                flag if flag.starts_with('-') => (),
                filter => parsed.filters.push(filter.to_owned()),
            }
        }
        parsed
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        // Nothing here is marked ignored, and `--ignored` asks for those alone.
        !self.ignored
            && (self.filters.is_empty() || self.filters.iter().any(fits))
            && !self.skip.iter().any(fits)
    }
}

/// Runs what the command line asks for.
pub(crate) fn main(scenarios: &[Scenario]) -> ExitCode {
    let arguments = Arguments::parse();
    let chosen: Vec<&Scenario> = scenarios.iter().filter(|scenario| arguments.wants(scenario.name)).collect();
    if arguments.list {
        for scenario in chosen {
            println!("{}: test", scenario.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} scenarios, one at a time", chosen.len());
    network::sweep();
    let filtered = scenarios.len() - chosen.len();
    if let Some(missing) = network::missing().filter(|_| !chosen.is_empty()) {
        return without_namespaces(&missing, &chosen, filtered);
    }
    let long = env::var_os("ISLE_TRIAL").is_some_and(|value| value == "1");
    let began = Instant::now();
    let mut failed = Vec::new();
    for scenario in &chosen {
        println!("test {} ...", scenario.name);
        let watched = watch(scenario.name, long);
        let started = Instant::now();
        let outcome = run(scenario, long);
        drop(watched);
        match outcome {
            Ok(()) => println!("test {} ... ok ({:.1} s)", scenario.name, started.elapsed().as_secs_f64()),
            Err(why) => {
                println!(
                    "test {} ... FAILED ({:.1} s)\n    {why}",
                    scenario.name,
                    started.elapsed().as_secs_f64()
                );
                failed.push(scenario.name);
            }
        }
    }
    summary(&failed, chosen.len() - failed.len(), 0, filtered, began.elapsed())
}

/// Nothing can be run: said, and a failure where it was demanded.
fn without_namespaces(missing: &str, chosen: &[&Scenario], filtered: usize) -> ExitCode {
    let demanded = env::var_os("ISLE_REQUIRE_NETNS").is_some_and(|value| value == "1");
    let verdict = if demanded { "FAILED" } else { "ignored" };
    for scenario in chosen {
        println!("test {} ... {verdict}, {missing}", scenario.name);
    }
    let failed: Vec<&str> =
        if demanded { chosen.iter().map(|scenario| scenario.name).collect() } else { Vec::new() };
    summary(&failed, 0, chosen.len() - failed.len(), filtered, Duration::ZERO)
}

fn summary(failed: &[&str], passed: usize, ignored: usize, filtered: usize, took: Duration) -> ExitCode {
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    println!(
        "\ntest result: {}. {passed} passed; {} failed; {ignored} ignored; 0 measured; {filtered} filtered out; \
         finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len(),
        took.as_secs_f64()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// One scenario, from an empty machine to an empty machine.
fn run(scenario: &Scenario, long: bool) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| format!("a folder for it: {error}"))?;
    let run = Run { long, measures: Measures::default(), folder };
    let outcome = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&run)));
    run.measures.show();
    let verdict = match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(panic) => Err(format!("panicked: {}", text_of(&*panic))),
    };
    if verdict.is_err() {
        crate::node::show_logs(run.folder.path());
    }
    // Threads of a scenario that failed may need a moment to let go of their hosts.
    let gone =
        eventually("no namespace left", Duration::from_secs(2), || Ok(network::own_names().is_empty()));
    if gone.is_err() {
        let left = network::own_names().join(", ");
        network::sweep_own();
        return verdict.and(Err(format!("left namespaces behind: {left}")));
    }
    verdict
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

/// Ends the whole run when a scenario hangs; dropping the answer calls it off.
fn watch(name: &'static str, long: bool) -> Sender<()> {
    let (called_off, waiting) = channel();
    let patience = if long { PATIENCE.1 } else { PATIENCE.0 };
    thread::spawn(move || {
        if waiting.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            println!("test {name} ... FAILED, hangs: ended after {patience:?}");
            network::sweep_own();
            println!("\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n");
            std::process::exit(101);
        }
    });
    called_off
}
