//! Going on purpose: draining, the farewell, and passing on others' words of this kind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::announce::URGENT;
use super::join::is_far_back;
use super::{Destination, Membership, Source, Timer};
use crate::event::EventKind;
use crate::member::{LeaveReason, MemberId, Record, Standing};
use crate::table::Said;
use crate::verify::{Verified, Word};
use crate::wire::{Farewell, Message};

/// So many of those who hear a word pass it on.
const RELAYS: usize = 6;
/// Whoever passes a word on waits up to this long: perhaps others do.
const RELAY_WAIT: Duration = Duration::from_millis(20);
/// A word that so many others passed on needs no further help.
const PASSED_ON_ENOUGH: u8 = 2;

/// A word that we may pass on.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    bytes: Bytes,
    /// Copies that came from somebody else than the author.
    passed_on: u8,
}

impl Membership {
    /// Tells everyone that we stop soon, so that nobody chooses us any more. Said once.
    pub fn drain(&mut self, now: Instant) {
        if !self.record.draining && !self.leaving {
            self.record.draining = true;
            self.say_record(now);
        }
    }

    /// Says farewell. Further copies follow at 15 and 40 ms; then the caller may stop.
    pub fn leave(&mut self, now: Instant, reason: LeaveReason) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        let bytes = self.sign(&Message::Farewell(Farewell { reason }));
        self.tell_for_the_deaf(&bytes);
        self.timers.disarm(|_| true);
        self.farewell = Some((bytes.clone(), URGENT.len()));
        self.tell_own_word(&bytes, true);
        self.say_thrice(now, bytes, URGENT);
        self.publish_self(now, Some(EventKind::Left));
    }

    /// Whether the last copy of our farewell is out.
    #[must_use]
    pub fn has_said_farewell(&self) -> bool {
        self.farewell.as_ref().is_some_and(|(_, left)| *left == 0) && self.transmits.is_empty()
    }

    /// Whether `bytes` are our farewell; then one copy less is owed.
    pub(super) fn pay_farewell(&mut self, bytes: &Bytes) -> bool {
        match &mut self.farewell {
            Some((said, left)) if said == bytes => {
                *left = left.saturating_sub(1);
                true
            }
            _ => false,
        }
    }

    pub(super) fn has_left(
        &mut self,
        now: Instant,
        id: MemberId,
        word: &Verified<Word>,
        from: Option<Source>,
    ) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.standing = Standing::Left;
            peer.asking = None;
            peer.watching = None;
            peer.doubt = None;
            peer.raw = None;
            peer.since = now;
        }
        if self.table.get(&id).is_some_and(|entry| entry.record.is_some()) {
            self.publish(now, id, Some(EventKind::Left));
            self.tell_word_of(&id, &word.bytes);
        } else if self.tells_outward() {
            self.hear_end_of_unknown(now, &id, word);
        }
        if let Some(from) = from {
            self.tell_the_deaf(&id, &word.bytes);
            self.consider_relay(now, id, &word.bytes, from);
        }
        self.watcher_fell(now, id);
    }

    /// Passes a word on later if we are among the first few by lot, which everybody draws alike.
    pub(super) fn consider_relay(&mut self, now: Instant, about: MemberId, bytes: &Bytes, from: Source) {
        let lot = |id: &MemberId| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(bytes).update(&id.0);
            *hasher.finalize().as_bytes()
        };
        let mine = lot(&self.id());
        if is_far_back(head_of(&mine), self.table.len(), RELAYS) {
            return;
        }
        let alive = self.peers.iter().filter(|(id, peer)| **id != about && !peer.standing.is_gone());
        if alive.filter(|(id, _)| lot(id) < mine).take(RELAYS).count() >= RELAYS {
            return;
        }
        let passed_on = u8::from(!self.is_from_author(&about, from));
        if let Some(peer) = self.peers.get_mut(&about) {
            peer.relay = Some(Box::new(Relay { bytes: bytes.clone(), passed_on }));
            let wait = self.up_to(RELAY_WAIT);
            self.timers.arm(now + wait, Timer::Relay(about));
        }
    }

    /// The same word once more. The author's own copies, three by each path, say nothing about who missed them all.
    pub(super) fn heard_again(&mut self, about: &MemberId, bytes: &Bytes, from: Source) {
        let waits = self.peers.get(about).and_then(|peer| peer.relay.as_ref());
        if waits.is_some_and(|relay| relay.bytes == *bytes)
            && !self.is_from_author(about, from)
            && let Some(relay) = self.peers.get_mut(about).and_then(|peer| peer.relay.as_mut())
        {
            relay.passed_on = relay.passed_on.saturating_add(1);
        }
    }

    /// By the address: every node speaks to everyone from the discovery port. Another node of the author's host counts
    /// as the author; then one more copy is sent than needed.
    pub(super) fn is_from_author(&self, id: &MemberId, from: Source) -> bool {
        let ip = from.addr.ip();
        let heard_there = self.peers.get(id).and_then(|peer| peer.from).is_some_and(|heard| heard.ip() == ip);
        let announces =
            |said: &Said<Arc<Record>>| said.value.addresses.iter().any(|address| address.ip == ip);
        heard_there || self.table.record(id).is_some_and(announces)
    }

    pub(super) fn relay(&mut self, about: MemberId) {
        let Some(relay) = self.peers.get_mut(&about).and_then(|peer| peer.relay.take()) else { return };
        if relay.passed_on < PASSED_ON_ENOUGH && !self.leaving {
            self.counters.relayed += 1;
            self.send(Destination::Everyone, relay.bytes);
        }
    }
}

/// The first eight bytes of a lot, as a number.
pub(super) fn head_of(lot: &[u8; 32]) -> u64 {
    lot.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}
