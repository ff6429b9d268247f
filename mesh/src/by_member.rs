//! Maps from members to what is kept of them: looked up several times for each of a thousand datagrams a second.
//!
//! In the order of insertion, so that a seed replays everything. Who chooses keys does not know the hasher's seed.

use foldhash::quality::FixedState;
use indexmap::IndexMap;

use crate::member::MemberId;

/// A map by member.
pub(crate) type ByMember<V> = IndexMap<MemberId, V, FixedState>;

/// An empty one.
pub(crate) fn by_member<V>(seed: u64) -> ByMember<V> {
    IndexMap::with_hasher(FixedState::with_seed(seed))
}
