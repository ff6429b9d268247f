//! Evidence that an accused member lives, for those who do not hear it; and what a refused connection is worth.
//!
//! Source: NETWORK.md, "Proof" and "Hints".

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::receive::Way;
use super::{Destination, Membership, Source, Timer};
use crate::member::MemberId;
use crate::verify::{Refused, Verified, Word};
use crate::wire::{Hint, Message, Proof, kind};

/// Whoever holds a newer word waits up to this, for the accused itself, or another, to say it first.
const PROOF_WAIT: Duration = Duration::from_millis(50);
/// A proof needs a word heard by ourselves within this.
const PROOF_FRESH: Duration = Duration::from_millis(1500);
/// Islands of fewer members have so few watchers that everybody proves.
const PROVERS: usize = 16;
/// One proof or hint for each member in this.
const ONCE_IN: Duration = Duration::from_secs(1);
/// One answer to each who asks, about each: whoever asks again lost it.
const ANSWER_ONCE_IN: Duration = Duration::from_millis(200);
/// Members remembered for that.
const REMEMBERED_MAX: usize = 256;
/// After a refused connection its watchers ask at once and again after these.
const PROBES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(60), Duration::from_millis(180)];

/// What was said lately for or against others.
#[derive(Debug, Default)]
pub(super) struct Spoken {
    /// Proofs about to be said.
    pending: BTreeMap<MemberId, Instant>,
    proofs: BTreeMap<MemberId, Instant>,
    hints: BTreeMap<MemberId, Instant>,
    probes: BTreeMap<MemberId, Instant>,
    /// Who was answered about whom.
    answers: BTreeMap<(MemberId, MemberId), Instant>,
    renewals: BTreeMap<MemberId, Instant>,
}

/// Whether it is time again for `what`, which may be in every `within`, and remembers that it was.
fn once<K: Ord>(when: &mut BTreeMap<K, Instant>, now: Instant, what: K, within: Duration) -> bool {
    let lately = |at: &Instant| now.saturating_duration_since(*at) < within;
    if when.get(&what).is_some_and(lately) {
        return false;
    }
    if when.len() >= REMEMBERED_MAX {
        when.retain(|_, at| lately(at));
    }
    if when.len() >= REMEMBERED_MAX {
        return false;
    }
    when.insert(what, now);
    true
}

impl Membership {
    /// Somebody accuses `id`, of whom we know newer: says so in a moment, unless another does. On large islands its
    /// watchers do that, who hear it most often. The accused has answered by then, but perhaps its accuser
    /// does not hear it.
    pub(super) fn consider_proof(&mut self, now: Instant, id: MemberId) {
        let small = self.table.len() < PROVERS;
        let ours = self.peers.get(&id).filter(|peer| small || peer.watching.is_some());
        let heard = ours.is_some_and(|peer| peer.was_heard_within(now, PROOF_FRESH));
        if heard && !self.spoken.pending.contains_key(&id) && once(&mut self.spoken.proofs, now, id, ONCE_IN)
        {
            self.spoken.pending.insert(id, now);
            let wait = self.up_to(PROOF_WAIT);
            self.timers.arm(now + wait, Timer::Prove(id));
        }
    }

    /// `id` was proven by another.
    pub(super) fn proof_is_needless(&mut self, id: &MemberId) {
        self.spoken.pending.remove(id);
    }

    /// Says the newest pulse of `id` for it.
    pub(super) fn say_proof(&mut self, id: MemberId) {
        if self.spoken.pending.remove(&id).is_none() || self.leaving {
            return;
        }
        let pulse = self.table.get(&id).and_then(|entry| entry.pulse.as_ref()).map(|said| said.bytes.clone());
        if let Some(pulse) = pulse {
            let bytes = self.sign(&Message::Proof(Proof { pulse }));
            self.counters.relayed += 1;
            self.send(Destination::Everyone, bytes);
        }
    }

    /// A pulse of somebody else's, verbatim.
    pub(super) fn hear_proof(
        &mut self,
        now: Instant,
        from: Source,
        word: &Verified<Word>,
        proof: &Proof,
    ) -> Result<(), Refused> {
        let header = crate::verify::peek(self.tag, &proof.pulse)?;
        if !matches!(header.kind, kind::BEACON | kind::PONG) {
            return Err(Refused::Malformed);
        }
        if header.author == self.id() {
            return Err(Refused::Own);
        }
        if self.is_abroad(&header.author) {
            return self.hear_proof_abroad(now, from, &word.bytes, &proof.pulse, &header);
        }
        if self.table.get(&header.author).is_none() {
            return Err(Refused::Unasked);
        }
        self.table
            .check_fresh(&header, &proof.pulse)
            .inspect_err(|_| self.spoken.forget_pending(&header.author))?;
        let word = self.verified(proof.pulse.clone())?;
        self.proof_is_needless(&header.author);
        self.accept(now, &word, Way::Proof)
    }

    /// A connection to it was refused or reset: we and its watchers ask it at once. Nobody is given up for that alone.
    pub fn refused_connection(&mut self, now: Instant, id: MemberId) {
        // Whether it is tried again depends on when it is heard.
        self.attend_to(&id);
        if self.table.get(&id).is_none()
            || self.is_known_gone(&id)
            || !once(&mut self.spoken.hints, now, id, ONCE_IN)
        {
            return;
        }
        let watchers = self.watchers_of(&id);
        let bytes = self.sign(&Message::Hint(Hint { target: id }));
        self.send_to_each(&watchers, &bytes);
        self.probe_soon(now, id);
    }

    /// Somebody's connection to `hint.target` was refused. Its watchers ask it.
    pub(super) fn hear_hint(&mut self, now: Instant, author: &MemberId, hint: &Hint) -> Result<(), Refused> {
        if !self.table.is_proven(author) {
            return Err(Refused::Unasked);
        }
        if self.peers.get(&hint.target).is_none_or(|peer| peer.watching.is_none()) {
            return Err(Refused::NotForUs);
        }
        self.probe_soon(now, hint.target);
        Ok(())
    }

    fn probe_soon(&mut self, now: Instant, id: MemberId) {
        if once(&mut self.spoken.probes, now, id, ONCE_IN) {
            for after in PROBES {
                self.timers.arm(now + after, Timer::Probe(id, now));
            }
        }
    }

    /// Asks `id` in a way that shows whether its host refuses; nothing if it was heard `since`.
    pub(super) fn probe(&mut self, id: MemberId, since: Instant) {
        let heard = self
            .peers
            .get(&id)
            .is_none_or(|peer| peer.standing.is_gone() || peer.heard.is_some_and(|at| at > since));
        if heard {
            return;
        }
        if let Some(at) = self.unicast_address(&id) {
            let nonce = self.rng.random();
            let bytes = self.ping(&id, nonce, false);
            self.transmits.push_back(super::Transmit { to: Destination::Probe(at), bytes });
        }
    }

    /// The host at `at` says that nobody listens at that port (ICMP). Anybody on the way can say so, so it only shortens
    /// the silence that a watcher waits for.
    pub fn handle_refused(&mut self, now: Instant, at: SocketAddr) {
        let watched = self.peers.iter().filter(|(_, peer)| peer.watching.is_some()).map(|(id, _)| *id);
        let there: Vec<MemberId> = watched.filter(|id| self.unicast_address(id) == Some(at)).collect();
        for id in there {
            self.note_refused(now, id);
        }
    }

    /// A word about a member, for somebody who asks about it and has missed that, now and then.
    pub(super) fn answer_with(&mut self, now: Instant, to: MemberId, about: MemberId, bytes: bytes::Bytes) {
        if once(&mut self.spoken.answers, now, (to, about), ANSWER_ONCE_IN)
            && let Some(at) = self.unicast_address(&to)
        {
            self.send_to(at, bytes);
        }
    }
}

impl Spoken {
    fn forget_pending(&mut self, id: &MemberId) {
        self.pending.remove(id);
    }

    /// Whether it is time to say again that `id` is down.
    pub(super) fn may_renew(&mut self, now: Instant, id: MemberId) -> bool {
        once(&mut self.renewals, now, id, ONCE_IN)
    }
}
