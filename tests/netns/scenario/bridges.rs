//! Islands joined by bridges, with the same addresses on each.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Claim;
use crate::archipelago::{Archipelago, allow, link};
use crate::client;
use crate::runner::Run;
use crate::sea::Relay;

pub(super) const SCENARIOS: &[Claim] =
    &[("bridges::two_islands_list_each_other_and_serve_each_others_figures", two_islands)];

/// How long datagrams take over the sea, each way.
const DELAY: Duration = Duration::from_millis(20);

/// Two islands of five on the same addresses, one link with [`DELAY`]. Figures: each has one that the other lacks.
struct Pair {
    both: Archipelago,
    _relay: Relay,
}

impl Pair {
    fn start(run: &Run) -> Result<Self> {
        let mut both = Archipelago::new(run, &["north", "south"])?;
        for (island, letter, only) in [("north", "n", "giraffe"), ("south", "s", "shark")] {
            both.node(island, &format!("{letter}-hub"), &["intermediary"])?;
            for number in 1..=3 {
                both.node(island, &format!("{letter}-p{number}"), &["pieces", "--only", only])?;
            }
            both.bridge(island, &format!("{letter}-bridge"))?;
        }
        let (north, south) = (both.bridges["n-bridge"].key.clone(), both.bridges["s-bridge"].key.clone());
        let relay = both.sea.relay(both.bridges["s-bridge"].address, DELAY)?;
        both.start("n-bridge", &link(&south, relay.at))?;
        both.start("s-bridge", &allow(&north))?;
        Ok(Self { both, _relay: relay })
    }
}

fn two_islands(run: &Run) -> Result<()> {
    let mut pair = Pair::start(run)?;
    let took = pair.both.complete(10, run.bound(Duration::from_secs(5), Duration::from_secs(1)))?;
    run.measures.add("tables complete after the second bridge started", took);
    let north = pair.both.island("north")?;
    let hub = north.node("n-hub")?.http();
    let answer = client::expect(&north.client, hub, "/figures/shark", 200)?;
    let from = answer.header("isle-served-by").context("no Isle-Served-By")?.to_owned();
    run.measures.note(format!("a figure of the south, asked in the north: {:?}, by {from}", answer.took));
    Ok(())
}
