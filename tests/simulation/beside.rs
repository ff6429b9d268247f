//! What rivals are put through, too: `cargo xtask bench detection` prints both in one table.

use std::time::Duration;

use crate::large::settled;
use crate::world::{given, with_seeds};
use crate::{ms, secs};

/// Nothing happens for so long, and what is said then is counted.
const QUIET: Duration = secs(20);

/// The same phases as `play` in `rivals/src/scenario.rs`; each death is given longer than it was ever seen to take.
#[test]
#[ignore = "one half of a comparison: cargo xtask bench detection"]
fn beside_rivals() {
    let members = given("ISLE_SIMULATION_MEMBERS").unwrap_or(200);
    let crashes = given("ISLE_SIMULATION_CRASHES").unwrap_or(20);
    let loss = given("ISLE_SIMULATION_LOSS").unwrap_or(0.05);
    let stalls = given("ISLE_SIMULATION_STALLS").unwrap_or(0.0);
    with_seeds("beside_rivals", |seed| {
        let mut island = settled(members, seed, loss);
        island.run_for(QUIET);
        island.measures.keep_traffic();
        island.stalls_of(stalls);
        for _ in 0..crashes {
            island.crash(1);
            island.run_for(secs(2));
        }
        for _ in 0..crashes {
            island.farewell(1);
            island.run_for(secs(1));
        }
        island.measures.forget_newcomers();
        for _ in 0..2 * crashes {
            island.join(1);
            island.run_for(ms(300));
        }
        island.run_for(secs(10));
        island.report(&format!("{members} members, {} % loss, detection", loss * 100.0));
    });
}
