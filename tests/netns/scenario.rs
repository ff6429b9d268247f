//! The claims, by subject.

mod asking;
mod bridges;
mod crash;
mod crowd;
mod detection;
mod figures;
mod hostile;
mod joining;
mod leaving;
mod overload;
mod rig;
mod rogue;
mod rough_clients;
mod topology;
mod tunnels;

use crate::runner::Scenario;

/// Every scenario, those about the rig itself first: when they fail, the others mean nothing.
pub(crate) fn all() -> Vec<Scenario> {
    [
        rig::SCENARIOS,
        joining::SCENARIOS,
        figures::SCENARIOS,
        leaving::SCENARIOS,
        crash::SCENARIOS,
        detection::SCENARIOS,
        crowd::SCENARIOS,
        overload::SCENARIOS,
        topology::SCENARIOS,
        asking::SCENARIOS,
        hostile::SCENARIOS,
        bridges::SCENARIOS,
        rogue::SCENARIOS,
        tunnels::SCENARIOS,
        rough_clients::SCENARIOS,
    ]
    .into_iter()
    .flatten()
    .map(|&(name, run)| Scenario { name, run })
    .collect()
}

/// A scenario as its module lists it: the claim and its proof.
type Claim = (&'static str, fn(&crate::runner::Run) -> anyhow::Result<()>);
