//! The scenario that every configuration plays.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::island::Island;
use crate::measures::Lengths;
use crate::tuning::Tuning;

/// What is played, the same for all configurations.
pub(crate) struct Plan {
    pub(crate) members: u32,
    /// Share of all datagrams that are lost.
    pub(crate) loss: f64,
    pub(crate) seed: u64,
    /// So many crash, then so many leave, then twice as many come.
    pub(crate) crashes: u32,
    /// Share of the members that stand still now and then.
    pub(crate) stalls: f64,
}

/// All start within this.
const STARTS: Duration = Duration::from_secs(5);
/// They have so long to hear of each other by themselves.
const SETTLING: Duration = Duration::from_secs(60);
const LOOKED_AT_EVERY: Duration = Duration::from_millis(100);
/// Nothing happens for so long, and what is said then is counted.
const QUIET: Duration = Duration::from_secs(20);
/// From one newcomer to the next, and what the last has to hear of all.
const NEWCOMER: Duration = Duration::from_millis(300);
const LAST_NEWCOMER: Duration = Duration::from_secs(10);

/// Plays it, and gives the report's line.
pub(crate) fn play(plan: &Plan, tuning: &Tuning) -> Value {
    let mut island = Island::new(tuning.config.clone(), plan.loss, plan.seed);
    settle(&mut island, plan);
    island.stay_quiet_for(QUIET);
    island.stall(plan.stalls);
    for _ in 0..plan.crashes {
        island.crash();
        island.run_for(tuning.crash_window);
    }
    for _ in 0..plan.crashes {
        island.leave();
        island.run_for(tuning.leave_window);
    }
    let first = island.processes.len();
    island.measures.newcomers_complete = Lengths::default();
    for _ in 0..2 * plan.crashes {
        island.start();
        island.run_for(NEWCOMER);
    }
    island.run_for(LAST_NEWCOMER);
    let newcomers = &island.processes[first..];
    island.measures.newcomers_incomplete =
        newcomers.iter().filter(|process| !process.unheard.is_empty()).count();
    let product = format!("foca 2.0.0, {}", tuning.name);
    island.measures.line(&product, plan.members as usize, plan.loss, island.now)
}

/// Starts all, and waits until they know each other; those who do not by themselves are told.
fn settle(island: &mut Island, plan: &Plan) {
    let mut random = SmallRng::seed_from_u64(plan.seed ^ u64::from(plan.members));
    let mut starts: Vec<Duration> =
        (0..plan.members).map(|_| STARTS.mul_f64(random.random_range(0.0..1.0))).collect();
    starts.sort_unstable();
    for start in starts {
        island.run_for(start - island.now);
        island.start();
    }
    while !island.all_know_all() && island.now < SETTLING {
        island.run_for(LOOKED_AT_EVERY);
    }
    if island.all_know_all() {
        island.measures.settled = Some(island.now);
    } else {
        island.tell_all();
        island.run_for(QUIET);
    }
    let measures = &mut island.measures;
    (measures.false_downs, measures.excusable_downs, measures.renewals) = (0, 0, 0);
    measures.node_seconds = 0.0;
}
