//! The claims, by subject.

mod rig;

use crate::runner::Scenario;

/// Every scenario, those about the rig itself first: when they fail, the others mean nothing.
pub(crate) fn all() -> Vec<Scenario> {
    [rig::SCENARIOS].into_iter().flatten().map(|&(name, run)| Scenario { name, run }).collect()
}

/// A scenario as its module lists it: the claim and its proof.
type Claim = (&'static str, fn(&crate::runner::Run) -> anyhow::Result<()>);
