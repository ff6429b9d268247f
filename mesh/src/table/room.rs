//! How many members that we have not proven ourselves there is room for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Via;
use crate::member::MemberId;
use crate::verify::Refused;

/// Most unproven members heard in datagrams. Required by NETWORK.md, "Caps and floors". Those that a transfer tells
/// of are bounded by the table's size alone, else a newcomer could not learn a large island.
pub const UNPROVEN_MAX: usize = 1024;

/// Of these, most from one source address; loopback is exempt, for there every node of the host has the same.
pub const UNPROVEN_PER_SOURCE_MAX: usize = 64;

/// Who is unproven, and through whom.
#[derive(Debug, Default)]
pub(super) struct Room {
    heard: BTreeMap<IpAddr, usize>,
    heard_total: usize,
    told: BTreeSet<(u64, MemberId)>,
}

impl Room {
    /// Whether one more may come this way.
    pub(super) fn check(&self, via: Via) -> Result<(), Refused> {
        let Via::Ears(ip) = via else { return Ok(()) };
        let from_there = self.heard.get(&ip).copied().unwrap_or(0);
        let local = ip.to_canonical().is_loopback();
        if self.heard_total >= UNPROVEN_MAX || (!local && from_there >= UNPROVEN_PER_SOURCE_MAX) {
            return Err(Refused::Full);
        }
        Ok(())
    }

    pub(super) fn take(&mut self, id: MemberId, via: Via, order: u64) {
        match via {
            Via::Told => {
                self.told.insert((order, id));
            }
            Via::Ears(ip) => {
                *self.heard.entry(ip).or_default() += 1;
                self.heard_total += 1;
            }
        }
    }

    pub(super) fn release(&mut self, id: MemberId, via: Via, order: u64) {
        match via {
            Via::Told => {
                self.told.remove(&(order, id));
            }
            Via::Ears(ip) => {
                self.heard_total -= 1;
                let count = self.heard.get_mut(&ip).expect("counted when it was taken in");
                *count -= 1;
                if *count == 0 {
                    self.heard.remove(&ip);
                }
            }
        }
    }

    /// Whom we were told of last.
    pub(super) fn latest_told(&self) -> Option<MemberId> {
        self.told.last().map(|(_, id)| *id)
    }
}
