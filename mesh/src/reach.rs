//! How islands reach each other: what a bridge says of what lies behind its links.

use std::time::Duration;

use crate::path::Path;

/// A way to an island.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reach {
    /// Through which islands.
    pub path: Path,
    /// What the way costs: the sum of its links' round trips, in microseconds on the wire; at most 71 minutes.
    pub cost: Duration,
    /// How busy the island is.
    pub load: IslandLoad,
}

/// How large and how busy an island is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IslandLoad {
    /// Members that are alive there.
    pub members: u32,
    /// Requests in flight at all of them.
    pub in_flight: u32,
    /// Requests that all of them admit at once.
    pub capacity: u32,
}
