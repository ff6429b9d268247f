//! Another island as the rest of the node sees it: whether it can be reached, and through whom.

use std::time::Instant;

use crate::member::MemberId;
use crate::reach::{IslandLoad, Reach};

/// Most other islands that are known at once. Required by DESIGN, section 5.
pub const ISLANDS_MAX: usize = 256;

/// Another island: a value, complete in itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Island {
    /// Its name: a label.
    pub name: String,
    /// Whether there is a way to it, or was one within the last 200 ms.
    pub reachable: bool,
    /// Since when `reachable` is as it is.
    pub since: Instant,
    /// How large and busy it is, as the chosen way says; nothing where there is none.
    pub load: IslandLoad,
    /// The ways to it: the chosen one first, then the cheapest. Empty when there is none.
    pub ways: Vec<Way>,
}

/// A way to another island.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    /// The bridge of our own island that carries it; perhaps this node itself.
    pub bridge: MemberId,
    /// Through which islands, at what cost.
    pub reach: Reach,
}
