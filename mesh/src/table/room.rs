//! How many members that we have not proven ourselves there is room for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use foldhash::quality::FixedState;
use indexmap::IndexMap;

use super::Via;
use crate::member::MemberId;

/// Most unproven members heard in datagrams. Required by NETWORK.md, "Caps and floors". Those that a transfer tells
/// of are bounded by the table's size alone, else a newcomer could not learn a large island.
pub const UNPROVEN_MAX: usize = 1024;

/// Of these, most from one source address; loopback is exempt, for there every node of the host has the same.
pub const UNPROVEN_PER_SOURCE_MAX: usize = 64;

/// Who is unproven, and through whom, by the order in which they came.
#[derive(Debug)]
pub(super) struct Room {
    heard: BTreeMap<u64, (MemberId, IpAddr)>,
    /// How many of these were heard from one source.
    heard_from: IndexMap<IpAddr, usize, FixedState>,
    told: BTreeMap<u64, MemberId>,
}

impl Room {
    /// `seed`: of hashes, unknown to others.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            heard: BTreeMap::new(),
            heard_from: IndexMap::with_hasher(FixedState::with_seed(seed)),
            told: BTreeMap::new(),
        }
    }

    /// Who must go before one more may come this way. The oldest: a member that is there proves itself within a
    /// second, so whoever has not is hardly one, and cannot keep others out until it is forgotten. O(1) but where a source
    /// has had its share: there O([`UNPROVEN_MAX`]).
    pub(super) fn in_the_way(&self, via: Via) -> Option<MemberId> {
        let Via::Ears(ip) = via else { return None };
        let local = ip.to_canonical().is_loopback();
        let from_there = self.heard_from.get(&ip).copied().unwrap_or_default();
        let oldest = if !local && from_there >= UNPROVEN_PER_SOURCE_MAX {
            self.heard.values().find(|(_, source)| *source == ip)
        } else if self.heard.len() >= UNPROVEN_MAX {
            self.heard.first_key_value().map(|(_, oldest)| oldest)
        } else {
            None
        };
        oldest.map(|(id, _)| *id)
    }

    pub(super) fn take(&mut self, id: MemberId, via: Via, order: u64) {
        match via {
            Via::Told => {
                self.told.insert(order, id);
            }
            Via::Ears(ip) => {
                self.heard.insert(order, (id, ip));
                *self.heard_from.entry(ip).or_default() += 1;
            }
        }
    }

    /// It that came in this order needs no room any more.
    pub(super) fn release(&mut self, via: Via, order: u64) {
        let Via::Ears(ip) = via else {
            self.told.remove(&order);
            return;
        };
        if self.heard.remove(&order).is_some()
            && let Some(count) = self.heard_from.get_mut(&ip)
        {
            *count -= 1;
            if *count == 0 {
                self.heard_from.swap_remove(&ip);
            }
        }
    }

    /// How many are unproven.
    pub(super) fn taken(&self) -> usize {
        self.heard.len() + self.told.len()
    }

    /// Whom we were told of last.
    pub(super) fn latest_told(&self) -> Option<MemberId> {
        self.told.last_key_value().map(|(_, id)| *id)
    }
}
