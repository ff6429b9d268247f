//! `isle up`, `isle pieces`, `isle intermediary`, `isle bridge`: settings, then the node until it has left.

use std::io::{self, Read};
use std::process::exit;
use std::thread;

use tokio::runtime;

use crate::cli::failure::{Exit, Failure};
use crate::cli::flags::Flags;
use crate::config::load::Settings;
use crate::node::{self, NodeError, Outcome};
use crate::telemetry;

/// Runs a node of these roles until it is stopped.
///
/// # Errors
/// The settings mean nothing, the node cannot start, or it ended by itself.
pub fn run<const ROLES: u8>(flags: Flags<ROLES>) -> Result<Exit, Failure> {
    let usage = |error: &dyn std::error::Error| {
        Failure::of(Exit::Usage, error).advise("see what can be set with: isle config")
    };
    let settings = Settings::load(flags.layer, flags.file).map_err(|error| usage(&error))?;
    let config = settings.node(Flags::<ROLES>::ROLES).map_err(|error| usage(&error))?;
    let verbosity = settings.verbosity().map_err(|error| usage(&error))?;
    telemetry::log(config.log_json, verbosity);
    if flags.tether {
        die_with_standard_input();
    }
    let runtime = runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::of(Exit::Failed, &error))?;
    match runtime.block_on(node::run(config)) {
        Ok(Outcome::Left) => Ok(Exit::Done),
        Ok(Outcome::LeftAtOnce) => Ok(Exit::Interrupted),
        Err(error) => Err(failed(&error)),
    }
}

fn failed(error: &NodeError) -> Failure {
    let failure = Failure::of(Exit::Failed, error);
    match error.advice() {
        Some(advice) => failure.advise(advice),
        None => failure,
    }
}

/// Ends the process when nobody holds the other end of its standard input any more: so nodes that were started for
/// a demonstration do not outlive it, however it ended.
fn die_with_standard_input() {
    thread::spawn(|| {
        let mut stdin = io::stdin().lock();
        let mut bytes = [0; 64];
        while matches!(stdin.read(&mut bytes), Ok(read) if read > 0) {}
        exit(1);
    });
}
