//! Another island as the rest of the node sees it: whether it can be reached, and through whom.

use std::time::Instant;

use crate::member::MemberId;
use crate::reach::{IslandLoad, Reach};

pub mod room;

/// Most other islands that are known at once. Required by DESIGN, section 5.
pub const ISLANDS_MAX: usize = 256;
/// Most ways to one island that are told: the cheapest, and one over fewer islands.
pub const WAYS_MAX: usize = 2;
/// What names begin with that bridges make.
const MADE: &str = "isle-";
/// So many characters of the key follow: two of a thousand bridges have the same in one case of 2,000. Guessed.
const MADE_CHARS: usize = 6;

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

/// The name that a bridge makes for its island while it has no other: `isle-` and the first six characters of its id.
#[must_use]
pub fn made_by(bridge: MemberId) -> String {
    let mut name = MADE.to_owned() + &bridge.to_string();
    name.truncate(MADE.len() + MADE_CHARS);
    name
}

/// Whether a bridge may have made this name. Only together with the bridge's key it is certain.
pub(crate) fn is_like_made(name: &str) -> bool {
    let made = name.strip_prefix(MADE).filter(|rest| rest.len() == MADE_CHARS);
    made.is_some_and(|rest| rest.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')))
}
