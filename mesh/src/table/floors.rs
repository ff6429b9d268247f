//! Memory of members that are listed no more: nothing they said before they went counts again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::member::{Epoch, MemberId, Seq, Stamp};
use crate::wire::Header;

/// Most floors of members once proven. Required by NETWORK.md, "Caps and floors"; about 15 MB.
pub const FLOORS_MAX: usize = 65_536;

/// Most floors of members never proven: four times as many as there can be at once.
pub const DOUBTED_FLOORS_MAX: usize = 4096;

/// How long a floor is kept. Required by NETWORK.md, "Caps and floors".
pub const FLOOR_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a floor of a member never proven is kept: twice the time that others list it.
const DOUBTED_FLOOR_KEPT: Duration = Duration::from_secs(1200);

/// The last word of a member that is gone.
#[derive(Clone, Debug)]
pub(super) struct Floor {
    /// Nothing up to this counts.
    pub(super) stamp: Stamp,
    /// The word, for others to check.
    pub(super) bytes: Bytes,
    /// Since when it is gone.
    pub(super) since: Instant,
}

impl Floor {
    /// The floor of a farewell: it ends its whole epoch.
    pub(super) fn ended(epoch: Epoch, bytes: Bytes, since: Instant) -> Self {
        Self { stamp: Stamp { epoch, seq: Seq::MAX }, bytes, since }
    }
}

/// Floors by member, the oldest dropped first when there are too many.
#[derive(Debug)]
pub(super) struct Floors {
    floors: BTreeMap<MemberId, Floor>,
    by_age: BTreeSet<(Instant, MemberId)>,
    most: usize,
    kept: Duration,
}

impl Floors {
    pub(super) fn proven() -> Self {
        Self::new(FLOORS_MAX, FLOOR_KEPT)
    }

    pub(super) fn doubted() -> Self {
        Self::new(DOUBTED_FLOORS_MAX, DOUBTED_FLOOR_KEPT)
    }

    fn new(most: usize, kept: Duration) -> Self {
        Self { floors: BTreeMap::new(), by_age: BTreeSet::new(), most, kept }
    }

    pub(super) fn len(&self) -> usize {
        self.floors.len()
    }

    /// Whether one is kept of this member.
    pub(super) fn contains(&self, id: &MemberId) -> bool {
        self.floors.contains_key(id)
    }

    /// Whether this word is from before its author went.
    pub(super) fn blocks(&self, header: &Header) -> bool {
        self.floors.get(&header.author).is_some_and(|floor| header.stamp <= floor.stamp)
    }

    /// A newer pulse: the member lives, in `epoch`. Its record of that life, which may be older than the floor, counts
    /// again; those of earlier lives do not.
    pub(super) fn lower(&mut self, id: &MemberId, epoch: Epoch) {
        if let Some(floor) = self.floors.get_mut(id) {
            floor.stamp = Stamp { epoch, seq: Seq(0) };
        }
    }

    /// Ends a floor: its member has said something newer.
    pub(super) fn lift(&mut self, id: &MemberId) {
        if let Some(floor) = self.floors.remove(id) {
            self.by_age.remove(&(floor.since, *id));
        }
    }

    /// Keeps a floor; the oldest goes when there are too many.
    pub(super) fn put(&mut self, id: MemberId, floor: Floor) {
        if self.floors.get(&id).is_some_and(|held| held.stamp >= floor.stamp) {
            return;
        }
        self.lift(&id);
        self.by_age.insert((floor.since, id));
        self.floors.insert(id, floor);
        while self.floors.len() > self.most {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            self.floors.remove(&oldest);
        }
    }

    /// Keeps a floor that somebody else tells of, unless another would have to go for it.
    pub(super) fn put_if_room(&mut self, id: MemberId, floor: Floor) {
        if self.floors.len() < self.most || self.floors.contains_key(&id) {
            self.put(id, floor);
        }
    }

    pub(super) fn iter(&self, now: Instant) -> impl Iterator<Item = (&Bytes, Duration)> {
        self.floors.values().map(move |floor| (&floor.bytes, now.saturating_duration_since(floor.since)))
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((since, id)) = self.by_age.first().copied() {
            if now.saturating_duration_since(since) < self.kept {
                break;
            }
            self.lift(&id);
        }
    }
}
