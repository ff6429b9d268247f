//! Pulses that are kept unverified until something depends on them.
//!
//! In an island of a thousand every node hears a thousand broadcast beacons a second, and nearly all of them say only
//! that nothing is new. Each signature costs 40 µs; so the newest pulse of a member that is well is kept as it came, and
//! counts as nothing. It is verified when a vote, a verdict or a choice depends on it, when it says something
//! different, and now and then in any case.
//!
//! Two choices of the data plane depend on pulses that say nothing new. Whether a member that refused a connection is tried
//! again: its next one is verified. And to whom requests are handed over by an intermediary that is busy or stops: it verifies
//! those of other intermediaries.
//!
//! Source: NETWORK.md, "Pulses that wait".

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::announce::is_full;
use super::join::INTERMEDIARY;
use super::peer::Peer;
use super::receive::Way;
use super::{Membership, Source};
use crate::member::{Epoch, Load, MemberId, Stamp, Standing};
use crate::table::Entry;
use crate::verify::{Refused, Verified, Word};
use crate::wire::{Beacon, Header, Message, kind};

/// In smaller islands every pulse is verified: 32 members cost half a percent of a core.
const MEMBERS_MIN: usize = 32;
/// A pulse in so long, and for each member that much longer, is verified whatever it says: half a percent of a core at most.
const CHECK_AT_LEAST: Duration = Duration::from_secs(2);
const CHECK_AT_LEAST_EACH: Duration = Duration::from_millis(10);
/// So many pulses a second are verified for the sake of requests that may be handed over: a quarter of a percent of a core, and
/// more intermediaries to choose from than that are of no use.
const ATTENDED_MAX: u32 = 64;
/// After a forged pulse in its name, all that come in that name are verified for this long.
const EAGER: Duration = Duration::from_secs(10);

/// So many authors are looked for at once.
const AHEAD: usize = 64;

/// A pulse as it came: to all, when its author last gave a sign, from where that is heard.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) stamp: Stamp,
    bytes: Bytes,
}

/// What the table holds of a member that is proven, as far as its next pulse is measured by it: kept with the peer, so that a
/// pulse that says nothing new is one look-up and not two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Known {
    record: Stamp,
    pulse: Stamp,
    load: Load,
    full: bool,
    deaf: bool,
}

impl Known {
    fn of(entry: &Entry) -> Option<Self> {
        let (record, pulse) = (entry.record.as_ref()?, entry.pulse.as_ref()?);
        let Beacon { load, full, deaf, .. } = pulse.value;
        entry.proven.then_some(Self { record: record.stamp, pulse: pulse.stamp, load, full, deaf })
    }

    /// Whether this beacon, said in `epoch`, differs by no more than a little load.
    fn covers(&self, epoch: Epoch, beacon: &Beacon) -> bool {
        let step = (self.load.capacity / 4).max(1);
        epoch == self.record.epoch
            && beacon.record_seq == self.record.seq
            && (beacon.full, beacon.deaf) == (self.full, self.deaf)
            && beacon.load.capacity == self.load.capacity
            && beacon.load.in_flight.abs_diff(self.load.in_flight) < step
    }
}

impl Membership {
    /// Lets a pulse wait if it may: a broadcast beacon of a member that is well, from where it was heard before, that
    /// says nothing new. Otherwise `None`, and it goes the way of all words. One look-up: an island of a thousand calls this a
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
        let patience = self.check_patience();
        let attends = self.may_hand_over() && self.attended.count(now) < ATTENDED_MAX;
        let peer = self.peers.get_mut(&header.author)?;
        let well = peer.standing == Standing::Alive && peer.doubt.is_none() && !peer.mute;
        let checked = peer.checked.is_some_and(|at| now.saturating_duration_since(at) < patience);
        let suspicious = peer.eager_until.is_some_and(|until| until > now);
        let there = peer.from.is_some_and(|heard| heard.ip() == from.addr.ip());
        if !well || !checked || suspicious || !there {
            return None;
        }
        #[cfg(test)]
        assert_eq!(peer.known_said, self.table.get(&header.author).and_then(Known::of));
        let known = peer.known_said?;
        if header.stamp <= known.pulse || peer.raw.as_ref().is_some_and(|raw| raw.stamp >= header.stamp) {
            return Some(Err(Refused::Stale));
        }
        if attends && peer.view.as_ref().is_some_and(|view| view.has_role(INTERMEDIARY)) {
            self.attended.note(now);
            return None;
        }
        if !known.covers(header.stamp.epoch, beacon) {
            return None;
        }
        peer.sign = Some(now);
        peer.raw = Some(Raw { bytes: bytes.clone(), stamp: header.stamp });
        self.watched.heard_all = Some(now);
        self.suppose_digest(now, header.author, beacon.digest);
        if let Some(digest) = beacon.far {
            self.compare_far(now, header.author, digest);
        }
        Some(Ok(()))
    }

    /// Words of these members are about to be handed in, some of them beacons to all, which may wait: what is kept of their authors
    /// is better fetched from memory all at once. For a caller that has many in hand, and many tables.
    pub fn expect<'a>(&self, now: Instant, mut authors: impl Iterator<Item = (&'a MemberId, bool)>) {
        let patience = self.check_patience();
        let mut places = [(0, false); AHEAD];
        loop {
            let mut count = 0;
            for (place, (author, may_wait)) in places.iter_mut().zip(&mut authors) {
                *place = (self.peers.guess(author), may_wait);
                count += 1;
            }
            let expected = || {
                let found = |(place, may_wait): &(u32, bool)| Some((self.peers.at(*place)?, *may_wait));
                places[..count].iter().filter_map(found)
            };
            // No choice here depends on what is fetched, so nothing waits for it: something of each line that a pulse is
            // measured by.
            let seen = expected().fold(false, |seen, ((id, peer), _)| {
                let raw = peer.raw.as_ref().map_or(0, |raw| raw.stamp.seq.0);
                let flags = peer.mute ^ peer.checked.is_some() ^ peer.from.is_some();
                seen ^ flags ^ peer.known_said.is_some() ^ (id.0[0] == 0) ^ (raw == 1)
            });
            // And of those that a word touches which does not wait.
            let waits = |peer: &Peer| {
                let checked = peer.checked.filter(|_| peer.known_said.is_some());
                checked.is_some_and(|at| now.saturating_duration_since(at) < patience)
            };
            let verified = expected().filter(|((_, peer), may_wait)| !(*may_wait && waits(peer)));
            let seen = verified.fold(seen, |seen, ((id, peer), _)| {
                let view = peer.view.as_ref().is_some_and(|view| view.heard.is_some() ^ view.proven);
                seen ^ view ^ self.table.touch(id) ^ peer.learned.is_some() ^ peer.asking.is_some()
            });
            std::hint::black_box(seen);
            if count < AHEAD {
                return;
            }
        }
    }

    /// Whether we are an intermediary that is about to be too busy, or stops.
    fn may_hand_over(&self) -> bool {
        let half_full = is_full(Load { in_flight: self.load.in_flight.saturating_mul(2), ..self.load });
        (half_full || self.record.draining) && self.record.has_role(INTERMEDIARY)
    }

    /// Something depends on the next pulse of this member.
    pub(super) fn attend_to(&mut self, id: &MemberId) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.checked = None;
        }
    }

    /// How long after a pulse of a member was verified others may wait.
    fn check_patience(&self) -> Duration {
        CHECK_AT_LEAST + CHECK_AT_LEAST_EACH * u32::try_from(self.table.len()).unwrap_or(u32::MAX)
    }

    /// A slot of this member has changed, or it was proven.
    pub(super) fn note_known(&mut self, id: &MemberId) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.known_said = self.table.get(id).and_then(Known::of);
        }
    }

    /// Until when others that say the same as this pulse would wait as it does, with nothing that depends on one of them but that a
    /// sign was given. For a caller that has many in hand: it may keep them back until then, as long as it says
    /// [`all_gave_signs_since`](Self::all_gave_signs_since) and hands them in before anything else happens that depends on them.
    #[must_use]
    pub fn lets_wait_until(&self, header: &Header) -> Option<Instant> {
        let peer = self.peers.get(&header.author).filter(|peer| peer.watching.is_none())?;
        let waits = peer.raw.as_ref().is_some_and(|raw| raw.stamp == header.stamp);
        Some(peer.checked.filter(|_| waits)? + self.check_patience())
    }

    /// Whether this beacon, or a newer one, waits already: each comes once by each path.
    pub(super) fn is_waiting(&self, header: &Header) -> bool {
        let raw = self.peers.get(&header.author).and_then(|peer| peer.raw.as_ref());
        raw.is_some_and(|raw| raw.stamp >= header.stamp)
    }

    /// Verifies what waits of this member, now that something depends on it.
    pub(super) fn settle_raw(&mut self, now: Instant, id: MemberId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (Some(raw), Some(at), Some(addr)) = (peer.raw.take(), peer.sign, peer.from) else { return };
        match self.verified(raw.bytes) {
            Ok(word) => {
                // Older than what has come meanwhile: then nothing depends on it any more.
                let _ = self.accept_at(now, &word, Way::Ears(Source { addr, shared: true }), at);
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
