//! How many members that we have not proven ourselves there is room for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Via;
use crate::member::MemberId;

/// Most unproven members heard in datagrams. Required by NETWORK.md, "Caps and floors". Those that a transfer tells
/// of are bounded by the table's size alone, else a newcomer could not learn a large island.
pub const UNPROVEN_MAX: usize = 1024;

/// Of these, most from one source address; loopback is exempt, for there every node of the host has the same.
pub const UNPROVEN_PER_SOURCE_MAX: usize = 64;

/// Who is unproven, and through whom, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Room {
    heard: BTreeSet<(u64, MemberId)>,
    heard_from: BTreeMap<IpAddr, BTreeSet<(u64, MemberId)>>,
    told: BTreeSet<(u64, MemberId)>,
}

impl Room {
    /// Who must go before one more may come this way. The oldest: a member that is there proves itself within a
    /// second, so whoever has not is hardly one, and cannot keep others out until it is forgotten.
    pub(super) fn in_the_way(&self, via: Via) -> Option<MemberId> {
        let Via::Ears(ip) = via else { return None };
        let local = ip.to_canonical().is_loopback();
        let from_there =
            self.heard_from.get(&ip).filter(|ids| !local && ids.len() >= UNPROVEN_PER_SOURCE_MAX);
        let oldest = match from_there {
            Some(ids) => ids.first(),
            None if self.heard.len() >= UNPROVEN_MAX => self.heard.first(),
            None => None,
        };
        oldest.map(|(_, id)| *id)
    }

    pub(super) fn take(&mut self, id: MemberId, via: Via, order: u64) {
        match via {
            Via::Told => {
                self.told.insert((order, id));
            }
            Via::Ears(ip) => {
                self.heard.insert((order, id));
                self.heard_from.entry(ip).or_default().insert((order, id));
            }
        }
    }

    pub(super) fn release(&mut self, id: MemberId, via: Via, order: u64) {
        match via {
            Via::Told => {
                self.told.remove(&(order, id));
            }
            Via::Ears(ip) => {
                self.heard.remove(&(order, id));
                if let Some(ids) = self.heard_from.get_mut(&ip) {
                    ids.remove(&(order, id));
                    if ids.is_empty() {
                        self.heard_from.remove(&ip);
                    }
                }
            }
        }
    }

    /// How many are unproven.
    pub(super) fn taken(&self) -> usize {
        self.heard.len() + self.told.len()
    }

    /// Whom we were told of last.
    pub(super) fn latest_told(&self) -> Option<MemberId> {
        self.told.last().map(|(_, id)| *id)
    }
}
