//! What is done with a datagram: the cheapest checks first, the signature last, then each kind to its subject.
//!
//! Source: NETWORK.md, section 4.

use std::time::Instant;

use bytes::Bytes;

use super::{Membership, Peer, Source, StopReason, join};
use crate::event::EventKind;
use crate::member::{Epoch, MemberId, Seq, Stamp};
use crate::table::{Advance, Via};
use crate::verify::{Refused, Verified, Word, peek, verify};
use crate::wire::{Header, Message, kind};

impl Membership {
    /// Takes in one datagram.
    ///
    /// # Errors
    /// Why nothing came of it; nothing but counters has changed then.
    pub fn handle_datagram(&mut self, now: Instant, from: Source, bytes: Bytes) -> Result<(), Refused> {
        let outcome = self.screen(now, from, &bytes).and_then(|header| {
            let word = verify(self.tag, bytes)?;
            self.act_on(now, from, &header, &word)
        });
        self.count(outcome)
    }

    /// Takes in one word whose signature the caller has checked, with all other checks of
    /// [`handle_datagram`](Self::handle_datagram): so a simulation checks a signature once for all who hear it.
    ///
    /// # Errors
    /// As for [`handle_datagram`](Self::handle_datagram).
    pub fn handle_word(&mut self, now: Instant, from: Source, word: &Verified<Word>) -> Result<(), Refused> {
        let screened = self.screen(now, from, &word.bytes);
        let outcome = screened.and_then(|header| self.act_on(now, from, &header, word));
        self.count(outcome)
    }

    fn count(&mut self, outcome: Result<(), Refused>) -> Result<(), Refused> {
        match outcome {
            Ok(()) => self.counters.accepted += 1,
            Err(refused) => {
                if let Some(at) = Refused::ALL.iter().position(|reason| *reason == refused) {
                    self.counters.refused[at] += 1;
                }
            }
        }
        outcome
    }

    /// All that can be known without the signature, the cheapest first.
    fn screen(&mut self, now: Instant, from: Source, bytes: &Bytes) -> Result<Header, Refused> {
        if self.leaving {
            return Err(Refused::Unasked);
        }
        let header = peek(self.tag, bytes)?;
        if header.author == self.id() {
            let ours = Stamp { epoch: self.identity.epoch(), seq: self.seq };
            return if header.stamp > ours { Ok(header) } else { Err(Refused::Own) };
        }
        if matches!(header.kind, kind::ANNOUNCE | kind::FAREWELL) {
            self.heard_again(&header.author, bytes, from);
        }
        self.table.check_fresh(&header, bytes)?;
        // Each word comes once by each path: one signature is enough.
        if self.joining.has_answered(&header) {
            return Err(Refused::Stale);
        }
        if !self.is_heard_there(&header.author, from) {
            self.rates.admit(now, from.addr.ip())?;
        }
        Ok(header)
    }

    /// The word is true. What does it change?
    fn act_on(
        &mut self,
        now: Instant,
        from: Source,
        header: &Header,
        word: &Verified<Word>,
    ) -> Result<(), Refused> {
        if header.author == self.id() {
            // An old life's, or somebody else's who has our key.
            self.outlive(now, header.stamp.epoch);
            return Ok(());
        }
        match word.message.as_ref().ok_or(Refused::Version)? {
            Message::Hello(hello) => {
                self.joining.answers(header);
                self.hear_hello(now, from, hello)
            }
            Message::Offer(offer) => self.hear_offer(now, from, header.author, offer),
            Message::Cookie(cookie) => self.hear_cookie(*cookie),
            Message::Ping(ping) => self.hear_ping(from, ping),
            Message::Announce(record) => {
                self.check_island(&header.author, record)?;
                if self.table.get(&header.author).is_none_or(|entry| entry.record.is_none()) {
                    self.check_on_link(from.addr.ip())?;
                }
                self.accept(now, word, Some(from))
            }
            Message::Beacon(beacon) => {
                let accepted = self.accept(now, word, Some(from));
                if accepted == Err(Refused::Unasked) {
                    self.hear_unknown(now);
                }
                accepted?;
                self.compare_digest(now, header.author, beacon.digest);
                Ok(())
            }
            Message::Pong(pong) => {
                self.check_pong(&header.author, pong.nonce)?;
                self.accept(now, word, Some(from))?;
                self.prove(now, header.author);
                self.compare_digest(now, header.author, pong.beacon.digest);
                Ok(())
            }
            Message::Farewell(_) => self.accept(now, word, Some(from)),
        }
    }

    /// Whether a word that claims this author comes from where the author, proven, was heard last. Else the claim
    /// counts nothing before its signature is checked, and its source is held to a stranger's rate.
    fn is_heard_there(&self, author: &MemberId, from: Source) -> bool {
        let heard = self.peers.get(author).and_then(|peer| peer.from);
        heard.is_some_and(|heard| heard.ip() == from.addr.ip())
            && self.table.get(author).is_some_and(|entry| entry.proven)
    }

    /// Our key has said something in `epoch` that we did not: start above it, or stop.
    pub(super) fn outlive(&mut self, now: Instant, epoch: Epoch) {
        if now.saturating_duration_since(self.started) > join::STARTING {
            self.stop = Some(StopReason::KeyInUse(epoch));
        } else if self.identity.raise_epoch_above(epoch).is_err() {
            self.stop = Some(StopReason::NoEpochAbove(epoch));
        } else {
            self.seq = Seq(0);
            self.say_record(now);
        }
    }

    /// Merges a word of a slot and does what follows from it. `from`: heard directly there, else in a transfer.
    pub(super) fn accept(
        &mut self,
        now: Instant,
        word: &Verified<Word>,
        from: Option<Source>,
    ) -> Result<(), Refused> {
        let id = word.header.author;
        let was_duplicate = self.is_duplicate(&id);
        let merged =
            self.table.merge(word, from.map_or(Via::Told, |source| Via::Ears(source.addr.ip())), now);
        while let Some((evicted, _)) = self.table.pop_evicted() {
            self.tell_forgotten(evicted);
        }
        if !was_duplicate && self.is_duplicate(&id) {
            self.publish(now, id, Some(EventKind::DuplicateKey));
        }
        let advance = merged?;
        let peer = self.peers.entry(id).or_insert_with(|| Peer::new(now));
        // Draining and farewells are also passed on by others; first words and pulses come from their author alone.
        let is_authors = matches!(advance, Advance::Joined | Advance::Pulse);
        if let Some(source) = from.filter(|_| is_authors || peer.from.is_none()) {
            peer.from = Some(source.addr);
        }
        match advance {
            Advance::Joined => self.has_joined(now, id, from),
            Advance::Record => self.has_news(now, id, word, from),
            Advance::Pulse => {
                if from.is_some() {
                    self.heard(now, id, word.header.stamp);
                }
            }
            Advance::Left => self.has_left(now, id, word, from),
            Advance::Past => {}
        }
        Ok(())
    }

    fn is_duplicate(&self, id: &MemberId) -> bool {
        self.table.get(id).is_some_and(|entry| entry.duplicate)
    }

    fn has_joined(&mut self, now: Instant, id: MemberId, from: Option<Source>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            let source = peer.from;
            *peer = Peer::new(now);
            peer.from = source;
            peer.heard = from.map(|_| now);
        }
        self.consider_island(now, id, from.is_some());
        self.publish(now, id, Some(EventKind::Joined));
        self.arm_silence(now, id);
        self.arm_first_ping(now, id);
        // So that a newcomer knows us without waiting for our next turn; others' tables have us already. Not on large
        // islands: if a thousand nodes start together, each would hear five thousand beacons a second.
        if from.is_some() && self.table.len() < super::announce::GREETING_MEMBERS_MAX {
            self.beacon_soon(now);
        }
    }

    fn has_news(&mut self, now: Instant, id: MemberId, word: &Verified<Word>, from: Option<Source>) {
        let draining =
            self.table.get(&id).and_then(|entry| entry.record.as_ref()).is_some_and(|r| r.value.draining);
        let was_draining =
            self.peers.get(&id).and_then(|peer| peer.view.as_ref()).is_some_and(|m| m.record.draining);
        if from.is_some() {
            self.alive_again(now, id);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.heard = Some(now);
            }
        }
        let epoch = word.header.stamp.epoch;
        if self.peers.get(&id).and_then(|peer| peer.view.as_ref()).is_some_and(|m| m.stamp.epoch != epoch) {
            self.watch_new_life(now, id);
        }
        self.consider_island(now, id, from.is_some());
        if self.has_moved_away(&id) {
            self.table.remove(&id);
            self.tell_forgotten(id);
            return;
        }
        let kind = if draining && !was_draining { EventKind::Draining } else { EventKind::Updated };
        self.publish(now, id, Some(kind));
        if let Some(from) = from.filter(|_| kind == EventKind::Draining) {
            self.consider_relay(now, id, &word.bytes, from);
        }
    }
}
