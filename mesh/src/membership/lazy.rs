//! Pulses that are kept unverified until something depends on them.
//!
//! In an island of a thousand every node hears a thousand broadcast beacons a second, and nearly all of them say only
//! that nothing is new. Each signature costs 40 µs; so the newest pulse of a member that is well is kept as it came, and
//! counts as nothing. It is verified when a vote, a verdict or a choice depends on it, when it says something
//! different, and now and then in any case.
//!
//! Source: NETWORK.md, "Pulses that wait".

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::receive::Way;
use super::{Membership, Source};
use crate::member::{MemberId, Stamp, Standing};
use crate::verify::{Refused, Verified, Word};
use crate::wire::{Beacon, Header, Message, kind};

/// In smaller islands every pulse is verified: 32 members cost half a percent of a core.
const MEMBERS_MIN: usize = 32;
/// A pulse in so long, and for each member that much longer, is verified whatever it says: 1 % of a core at most.
const CHECK_AT_LEAST: Duration = Duration::from_secs(2);
const CHECK_AT_LEAST_EACH: Duration = Duration::from_millis(5);
/// After a forged pulse in its name, all that come in that name are verified for this long.
const EAGER: Duration = Duration::from_secs(10);

/// A pulse as it came.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) bytes: Bytes,
    pub(super) stamp: Stamp,
    pub(super) at: Instant,
    pub(super) from: Source,
}

impl Membership {
    /// Lets a pulse wait if it may: a broadcast beacon of a member that is well, from where it was heard before, that
    /// says nothing new. Otherwise `None`, and it goes the way of all words. Two look-ups: an island of a thousand calls this a
    /// thousand times a second.
    ///
    /// # Errors
    /// `Stale`: not newer than what is known, or waits already.
    pub(super) fn let_wait(
        &mut self,
        now: Instant,
        from: Source,
        header: &Header,
        beacon: &Beacon,
        bytes: &Bytes,
    ) -> Option<Result<(), Refused>> {
        let members = self.table.len();
        if header.kind != kind::BEACON || !from.shared || members < MEMBERS_MIN {
            return None;
        }
        let peer = self.peers.get_mut(&header.author)?;
        let well = peer.standing == Standing::Alive && peer.doubt.is_none() && !peer.mute;
        let patience = CHECK_AT_LEAST + CHECK_AT_LEAST_EACH * u32::try_from(members).unwrap_or(u32::MAX);
        let checked = peer.checked.is_some_and(|at| now.saturating_duration_since(at) < patience);
        let suspicious = peer.eager_until.is_some_and(|until| until > now);
        let there = peer.from.is_some_and(|heard| heard.ip() == from.addr.ip());
        if !well || !checked || suspicious || !there {
            return None;
        }
        let entry = self.table.get(&header.author).filter(|entry| entry.proven)?;
        let (record, pulse) = (entry.record.as_ref()?, entry.pulse.as_ref()?);
        if header.stamp <= pulse.stamp || peer.raw.as_ref().is_some_and(|raw| raw.stamp >= header.stamp) {
            return Some(Err(Refused::Stale));
        }
        let known = &pulse.value;
        let step = (known.load.capacity / 4).max(1);
        let nothing_new = header.stamp.epoch == record.stamp.epoch
            && beacon.record_seq == record.stamp.seq
            && (beacon.full, beacon.deaf) == (known.full, known.deaf)
            && beacon.load.capacity == known.load.capacity
            && beacon.load.in_flight.abs_diff(known.load.in_flight) < step;
        if !nothing_new {
            return None;
        }
        peer.sign = Some(now);
        peer.raw = Some(Raw { bytes: bytes.clone(), stamp: header.stamp, at: now, from });
        self.watched.heard_all = Some(now);
        self.suppose_digest(now, header.author, beacon.digest);
        if let Some(digest) = beacon.far {
            self.compare_far(now, header.author, digest);
        }
        Some(Ok(()))
    }

    /// Whether this beacon, or a newer one, waits already: each comes once by each path.
    pub(super) fn is_waiting(&self, header: &Header) -> bool {
        let raw = self.peers.get(&header.author).and_then(|peer| peer.raw.as_ref());
        raw.is_some_and(|raw| raw.stamp >= header.stamp)
    }

    /// Verifies what waits of this member, now that something depends on it.
    pub(super) fn settle_raw(&mut self, now: Instant, id: MemberId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(raw) = peer.raw.take() else { return };
        match self.verified(raw.bytes) {
            Ok(word) => {
                // Older than what has come meanwhile: then nothing depends on it any more.
                let _ = self.accept_at(now, &word, Way::Ears(raw.from), raw.at);
            }
            Err(refused) => {
                self.counters.refuse(refused);
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.eager_until = Some(now + EAGER);
                }
            }
        }
    }

    /// The pulse in this word, if it is one.
    pub(super) fn beacon_in(word: &Verified<Word>) -> Option<&Beacon> {
        match word.message.as_ref()? {
            Message::Beacon(beacon) => Some(beacon),
            Message::Pong(pong) => Some(&pong.beacon),
            _ => None,
        }
    }
}
