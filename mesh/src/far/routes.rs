//! What the bridges of our own island say that they reach: of each the newest word of each part.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::island::{ISLANDS_MAX, WAYS_MAX};
use crate::member::{Epoch, MemberId, Stamp};
use crate::reach::Reach;
use crate::verify::Refused;
use crate::wire::Routes;

/// Bridges of one island whose words are kept; further ones are refused. Guessed.
const BRIDGES_MAX: usize = 64;

/// The words of all bridges, our own included if we are one.
#[derive(Debug, Default)]
pub(crate) struct RouteWords {
    bridges: BTreeMap<MemberId, Parts>,
}

/// The words of one bridge, all of one life.
#[derive(Debug)]
struct Parts {
    newest: Stamp,
    /// How many parts there are, by the newest word.
    count: u8,
    parts: BTreeMap<u8, Part>,
}

#[derive(Debug)]
struct Part {
    stamp: Stamp,
    bytes: Bytes,
    reaches: Vec<Reach>,
}

impl RouteWords {
    /// Whether this word of `bridge` could change anything: asked before its signature is paid for.
    ///
    /// # Errors
    /// `Stale`, or `Full` where too many bridges speak.
    pub(crate) fn check_fresh(
        &self,
        bridge: &MemberId,
        stamp: Stamp,
        routes: &Routes,
    ) -> Result<(), Refused> {
        let Some(held) = self.bridges.get(bridge) else {
            return if self.bridges.len() < BRIDGES_MAX { Ok(()) } else { Err(Refused::Full) };
        };
        let is_old = held.parts.get(&routes.part).is_some_and(|part| stamp <= part.stamp);
        let is_over = stamp < held.newest && routes.part >= held.count;
        if is_old || is_over || stamp.epoch < held.newest.epoch { Err(Refused::Stale) } else { Ok(()) }
    }

    /// Takes a word if it is newer than what is held of its part. Parts beyond the newest word's count are over.
    ///
    /// # Errors
    /// As for [`check_fresh`](Self::check_fresh); nothing has changed then.
    pub(crate) fn take(
        &mut self,
        bridge: MemberId,
        stamp: Stamp,
        bytes: Bytes,
        routes: &Routes,
    ) -> Result<(), Refused> {
        self.check_fresh(&bridge, stamp, routes)?;
        let held = self.bridges.entry(bridge).or_insert_with(|| Parts {
            newest: stamp,
            count: routes.parts,
            parts: BTreeMap::new(),
        });
        if stamp.epoch > held.newest.epoch {
            held.parts.clear();
        }
        held.parts.insert(routes.part, Part { stamp, bytes, reaches: routes.reaches.clone() });
        if stamp >= held.newest {
            held.newest = stamp;
            held.count = routes.parts;
            held.parts.retain(|part, _| *part < routes.parts);
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, bridge: &MemberId) -> bool {
        self.bridges.remove(bridge).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bridges.is_empty()
    }

    pub(crate) fn contains(&self, bridge: &MemberId) -> bool {
        self.bridges.contains_key(bridge)
    }

    /// Who has said something, and in which life.
    pub(crate) fn bridges(&self) -> impl Iterator<Item = (MemberId, Epoch)> {
        self.bridges.iter().map(|(id, held)| (*id, held.newest.epoch))
    }

    /// All words, for others.
    pub(crate) fn words(&self) -> impl Iterator<Item = &Bytes> {
        self.bridges.values().flat_map(|held| held.parts.values().map(|part| &part.bytes))
    }

    /// The ways that `bridge` has: at most [`WAYS_MAX`] to each of as many islands as there may be.
    pub(super) fn reaches(&self, bridge: &MemberId) -> impl Iterator<Item = &Reach> {
        let parts = self.bridges.get(bridge).into_iter().flat_map(|held| held.parts.values());
        parts.flat_map(|part| &part.reaches).take(WAYS_MAX * ISLANDS_MAX)
    }
}
