//! foca, a SWIM membership of the same kind and language, in the scenario that Isle plays in `tests/simulation/beside.rs`.
//!
//! Its state machines run as they are, in virtual time and under one seed, on a network that loses each datagram by
//! itself. Each configuration prints one line of JSON with the keys of `Measures::print` in
//! `tests/simulation/measures.rs`. Nothing of Isle is built here, and nothing of Isle depends on this.

mod island;
mod machine;
mod measures;
mod scenario;
#[cfg(test)]
mod tests;
mod tuning;

use clap::Parser;

use crate::scenario::{Plan, play};
use crate::tuning::Tuning;

/// Plays the detection scenario with foca; prints a line of JSON for each configuration.
#[derive(Parser)]
#[command(name = "isle-rivals")]
struct Arguments {
    /// Members of the island, when it has settled and at the end.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(8..=5000))]
    members: u32,
    /// Share of all datagrams that are lost, each by itself.
    #[arg(long, default_value_t = 0.05, value_parser = share)]
    loss: f64,
    /// The same seed gives the same line.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many crash and so many leave, one after the other; then twice as many come. At most a quarter of all members.
    #[arg(long, default_value_t = 20)]
    crashes: u32,
    /// Share of the members that stand still now and then: for 0.2 to 1.5 s, after 0.5 to 3.5 s.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    stalls: f64,
    /// Only this configuration: lan or fast.
    #[arg(long)]
    tuning: Option<String>,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..1.0).contains(&share) { Ok(share) } else { Err("not in 0..1".to_owned()) }
}

fn main() -> Result<(), String> {
    let given = Arguments::parse();
    if given.crashes == 0 || given.crashes > given.members / 4 {
        return Err(format!("--crashes is {}, not 1 to {}", given.crashes, given.members / 4));
    }
    let plan = Plan {
        members: given.members,
        loss: given.loss,
        seed: given.seed,
        crashes: given.crashes,
        stalls: given.stalls,
    };
    let tunings = [Tuning::lan(plan.members), Tuning::fast(plan.members)];
    let wanted = |tuning: &&Tuning| given.tuning.as_ref().is_none_or(|name| name == tuning.name);
    let mut chosen = tunings.iter().filter(wanted).peekable();
    if chosen.peek().is_none() {
        return Err("--tuning is lan or fast".to_owned());
    }
    for tuning in chosen {
        println!("{}", play(&plan, tuning));
    }
    Ok(())
}
