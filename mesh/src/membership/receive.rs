//! What is done with a datagram: the cheapest checks first, the signature last, then each kind to its subject.
//!
//! Source: NETWORK.md, section 4.

use std::time::Instant;

use bytes::Bytes;

use super::{Destination, Membership, Peer, Source, StopReason, join};
use crate::event::EventKind;
use crate::member::{Epoch, MemberId, Seq, Stamp};
use crate::table::{Advance, Via};
use crate::verify::{Refused, Verified, Word, peek, verify_as};
use crate::wire::{Beacon, Header, Message, SIGNATURE_BYTES, WIRE_VERSION, kind};

/// So often a node that starts takes an epoch above one in use: others may know it by words of several lives. Guessed.
const OUTLIVED_MAX: u32 = 8;

impl Membership {
    /// Takes in one datagram.
    ///
    /// # Errors
    /// Why nothing came of it; nothing but counters has changed then.
    pub fn handle_datagram(&mut self, now: Instant, from: Source, bytes: Bytes) -> Result<(), Refused> {
        let outcome = self.take_datagram(now, from, bytes);
        self.count(outcome)
    }

    /// Takes in one word whose signature the caller has checked, with all other checks of
    /// [`handle_datagram`](Self::handle_datagram): so a simulation decodes a word once for all who hear it.
    ///
    /// # Errors
    /// As for [`handle_datagram`](Self::handle_datagram).
    pub fn handle_word(&mut self, now: Instant, from: Source, word: &Verified<Word>) -> Result<(), Refused> {
        let outcome = self.take_word(now, from, word);
        self.count(outcome)
    }

    fn take_datagram(&mut self, now: Instant, from: Source, bytes: Bytes) -> Result<(), Refused> {
        let header = self.screen_header(&bytes)?;
        if header.kind == kind::BEACON && header.version == WIRE_VERSION && header.author != self.id() {
            if self.is_nobody(&header.author) {
                return Err(self.hear_nobody(now, from, header.author));
            }
            if let Some(beacon) = unverified_beacon(&bytes)?
                && let Some(outcome) = self.let_wait(now, from, &header, &beacon, &bytes)
            {
                return outcome;
            }
        }
        self.screen(now, from, &header, &bytes)?;
        let word = self.verified(bytes)?;
        self.act_on(now, from, &header, &word)
    }

    fn take_word(&mut self, now: Instant, from: Source, word: &Verified<Word>) -> Result<(), Refused> {
        let header = &word.header;
        if self.leaving {
            return Err(Refused::Unasked);
        }
        if header.mesh != self.tag {
            return Err(Refused::Mesh);
        }
        if let Some(Message::Beacon(beacon)) = &word.message
            && header.author != self.id()
        {
            if let Some(outcome) = self.let_wait(now, from, header, beacon, &word.bytes) {
                return outcome;
            }
            if self.is_nobody(&header.author) {
                return Err(self.hear_nobody(now, from, header.author));
            }
        }
        self.screen(now, from, header, &word.bytes)?;
        self.act_on(now, from, header, word)
    }

    /// Whether neither a record nor a floor of this member is known: its pulse can change nothing.
    fn is_nobody(&self, id: &MemberId) -> bool {
        self.table.get(id).is_none() && !self.table.remembers(id)
    }

    /// Somebody of whom nothing is known speaks: a stranger, if not a member of another island.
    fn hear_nobody(&mut self, now: Instant, from: Source, author: MemberId) -> Refused {
        if self.is_foreigner(&author) {
            return Refused::Island;
        }
        self.hear_unknown(now, from, author);
        Refused::Unasked
    }

    /// The word in these bytes, if their author said it.
    pub(super) fn verified(&self, bytes: Bytes) -> Result<Verified<Word>, Refused> {
        verify_as(self.identity.scheme(), self.tag, bytes)
    }

    fn count(&mut self, outcome: Result<(), Refused>) -> Result<(), Refused> {
        match outcome {
            Ok(()) => self.counters.accepted += 1,
            Err(refused) => self.counters.refuse(refused),
        }
        outcome
    }

    fn screen_header(&self, bytes: &Bytes) -> Result<Header, Refused> {
        if self.leaving { Err(Refused::Unasked) } else { peek(self.tag, bytes) }
    }

    /// All that can be known without the signature, the cheapest first.
    fn screen(&mut self, now: Instant, from: Source, header: &Header, bytes: &Bytes) -> Result<(), Refused> {
        if header.author == self.id() {
            let ours = Stamp { epoch: self.identity.epoch(), seq: self.seq };
            return if header.stamp > ours { Ok(()) } else { Err(Refused::Own) };
        }
        if matches!(header.kind, kind::ANNOUNCE | kind::FAREWELL) {
            self.heard_again(&header.author, bytes, from);
        }
        if self.has_abroad() {
            self.screen_abroad(header, bytes)?;
        }
        if header.kind == kind::ROUTES {
            self.screen_routes(header, bytes)?;
        }
        self.table.check_fresh(header, bytes)?;
        if header.kind == kind::BEACON && self.is_waiting(header) {
            return Err(Refused::Stale);
        }
        // Each word comes once by each path: one signature is enough.
        if self.joining.has_answered(header) {
            return Err(Refused::Stale);
        }
        if !self.is_heard_there(&header.author, from) {
            self.rates.admit(now, from.addr.ip(), self.table.len())?;
        }
        Ok(())
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
        if from.shared {
            self.watched.heard_all = Some(now);
        } else {
            self.watched.heard_alone = Some(now);
        }
        match word.message.as_ref().ok_or(Refused::Version)? {
            Message::Hello(hello) => {
                self.joining.answers(header);
                self.hear_hello(now, from, hello)
            }
            Message::Offer(offer) => self.hear_offer(now, from, header.author, offer),
            Message::Cookie(cookie) => self.hear_cookie(*cookie),
            Message::Ping(ping) => self.hear_ping(now, from, header.author, ping),
            Message::Announce(record) => {
                if self.has_abroad()
                    && self.is_foreigner(&header.author)
                    && let Some(outcome) = self.hear_record_abroad(now, word, record, from)
                {
                    return outcome;
                }
                self.check_island(&header.author, record)?;
                if self.table.get(&header.author).is_none_or(|entry| entry.record.is_none()) {
                    self.check_on_link(from.addr.ip())?;
                }
                self.accept(now, word, Way::Ears(from))
            }
            Message::Beacon(beacon) => {
                let accepted = self.accept(now, word, Way::Ears(from));
                if accepted == Err(Refused::Unasked) {
                    self.hear_unknown(now, from, header.author);
                }
                accepted?;
                self.compare_digest(now, header.author, beacon.digest);
                self.compare_record(now, header.author, beacon);
                if let Some(digest) = beacon.far {
                    self.compare_far(now, header.author, digest);
                }
                Ok(())
            }
            Message::Pong(pong) => {
                self.check_pong(&header.author, pong.nonce)?;
                self.accept(now, word, Way::Ears(from))?;
                self.prove(now, header.author);
                self.compare_digest(now, header.author, pong.beacon.digest);
                self.compare_record(now, header.author, &pong.beacon);
                Ok(())
            }
            Message::Farewell(_) if self.is_foreigner(&header.author) => {
                self.hear_urgent(now, word, Some((from, &word.bytes)))
            }
            Message::Farewell(_) => self.accept(now, word, Way::Ears(from)),
            Message::Hint(hint) => self.hear_hint(now, &header.author, hint),
            Message::Suspect(_) | Message::Down(_) if self.is_said_again(now, header) => Err(Refused::Stale),
            Message::Suspect(vote) => self.hear_vote(now, Some(from), word, vote),
            Message::Down(down) => self.hear_down(now, from, word, down),
            Message::Proof(proof) => self.hear_proof(now, from, word, proof),
            Message::Routes(routes) => self.hear_routes(now, word, routes),
        }
    }

    /// Whether a word that claims this author comes from where the author, proven, was heard last. Else the claim
    /// counts nothing before its signature is checked, and its source is held to a stranger's rate.
    pub(super) fn is_heard_there(&self, author: &MemberId, from: Source) -> bool {
        let heard = self.peers.get(author).and_then(|peer| peer.from);
        heard.is_some_and(|heard| heard.ip() == from.addr.ip()) && self.table.is_proven(author)
    }

    /// Our key has said something in `epoch` that we did not: start above it, or stop.
    ///
    /// An old life says no more, so being above it once is nearly always enough; another node that has just started with the
    /// same key starts above us in turn, and so on.
    pub(super) fn outlive(&mut self, now: Instant, epoch: Epoch) {
        self.outlived += 1;
        if now.saturating_duration_since(self.started) > join::STARTING || self.outlived > OUTLIVED_MAX {
            self.stop = Some(StopReason::KeyInUse(epoch));
        } else if self.identity.raise_epoch_above(epoch).is_err() {
            self.stop = Some(StopReason::NoEpochAbove(epoch));
        } else {
            self.seq = Seq(0);
            self.say_record(now);
        }
    }

    /// Merges a word of a slot and does what follows from it.
    pub(super) fn accept(&mut self, now: Instant, word: &Verified<Word>, way: Way) -> Result<(), Refused> {
        self.accept_at(now, word, way, now)
    }

    /// The same for a word that came earlier, `at`.
    pub(super) fn accept_at(
        &mut self,
        now: Instant,
        word: &Verified<Word>,
        way: Way,
        at: Instant,
    ) -> Result<(), Refused> {
        let id = word.header.author;
        let before = self.table.get(&id);
        let (was_duplicate, newest) = before.map_or((false, None), |entry| (entry.duplicate, entry.newest()));
        let from = way.source();
        let via = from.map_or(Via::Told, |source| Via::Ears(source.addr.ip()));
        let merged = self.table.merge(word, via, now);
        while let Some((evicted, _)) = self.table.pop_evicted() {
            self.tell_forgotten(now, evicted);
        }
        if !was_duplicate && self.is_duplicate(&id) {
            self.publish(now, id, Some(EventKind::DuplicateKey));
        }
        let advance = merged?;
        let peer = self.peers.get_or_insert_with(id, || Peer::new(now));
        // Draining and farewells are also passed on by others; first words and pulses come from their author alone.
        let is_authors = matches!(advance, Advance::Joined | Advance::Pulse);
        let mut moved = false;
        if let Some(source) = from.filter(|_| is_authors || peer.from.is_none()) {
            moved = peer.from.replace(source.addr) != Some(source.addr);
        }
        let direct = from.is_some_and(|from| self.is_from_author(&id, from));
        match advance {
            Advance::Joined => self.has_joined(now, id, word, from),
            Advance::Record => self.has_news(now, id, word, from),
            Advance::Pulse => {
                self.has_beaten(now, id, word, direct, at);
                if moved || !self.publish_pulse(&id) {
                    self.publish(now, id, None);
                }
            }
            Advance::Left => self.has_left(now, id, word, from),
            Advance::Past => {}
        }
        // A record that others say is no news of the life that it is from: it may have been said long ago, and missed.
        let is_new_life = newest.is_none_or(|newest| newest.epoch < word.header.stamp.epoch);
        let repeated = advance == Advance::Record && !direct && !is_new_life;
        let speaks = matches!(advance, Advance::Joined | Advance::Record | Advance::Pulse) && !repeated;
        if repeated {
            self.judge_anew(now, id);
        }
        // The slots are ordered each for itself; a sign of life is what is newer than all of them.
        let newer = newest.is_none_or(|newest| word.header.stamp > newest);
        if speaks && newer && !matches!(way, Way::Told) {
            if direct && let Some(peer) = self.peers.get_mut(&id) {
                peer.heard = peer.heard.max(Some(at));
                if peer.raw.is_none() {
                    peer.sign = peer.sign.max(Some(at));
                }
            }
            self.life_sign(now, id, word.header.stamp, direct, at);
            self.has_spoken_at_home(now, id);
        }
        self.note_known(&id);
        Ok(())
    }

    /// A newer pulse of `id`.
    fn has_beaten(&mut self, now: Instant, id: MemberId, word: &Verified<Word>, direct: bool, at: Instant) {
        let Some(beacon) = Self::beacon_in(word) else { return };
        let deaf = beacon.deaf;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.deaf = deaf;
        peer.past.note(at, word.header.stamp);
        if deaf {
            self.deaf.insert(id);
        }
        if peer.raw.as_ref().is_some_and(|raw| raw.stamp <= word.header.stamp) {
            peer.raw = None;
        }
        if direct {
            let gap = peer.heard.map(|last| at.saturating_duration_since(last));
            if let Some(gap) = gap {
                self.note_gap(&id, gap);
            }
            self.heard(now, id, word.header.stamp);
            self.consider_name_of(now, id);
        }
    }

    fn is_duplicate(&self, id: &MemberId) -> bool {
        self.table.get(id).is_some_and(|entry| entry.duplicate)
    }

    fn has_joined(&mut self, now: Instant, id: MemberId, word: &Verified<Word>, from: Option<Source>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            let source = peer.from;
            *peer = Peer::new(now);
            peer.from = source;
        }
        self.abroad.far.forget_end(&id);
        self.consider_island(now, id, from.is_some());
        self.publish(now, id, Some(EventKind::Joined));
        self.tell_word_of(&id, &word.bytes);
        self.arm_first_ping(now, id);
        self.spread_for_deaf(&id, word, from);
        self.is_no_stranger(&id);
        if from.is_some() {
            self.crowd.note(now);
            self.greet_soon(now);
        }
    }

    fn has_news(&mut self, now: Instant, id: MemberId, word: &Verified<Word>, from: Option<Source>) {
        let draining = self.table.record(&id).is_some_and(|r| r.value.draining);
        let was_draining =
            self.peers.get(&id).and_then(|peer| peer.view.as_ref()).is_some_and(|m| m.record.draining);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.recorded = now;
        }
        let epoch = word.header.stamp.epoch;
        if self.peers.get(&id).and_then(|peer| peer.view.as_ref()).is_some_and(|m| m.stamp.epoch != epoch) {
            self.watch_new_life(now, id);
        }
        self.consider_island(now, id, from.is_some());
        if self.has_moved_away(now, &id) {
            self.table.remove(&id);
            self.has_emigrated(now, id, word);
            return;
        }
        self.tell_word_of(&id, &word.bytes);
        let kind = if draining && !was_draining { EventKind::Draining } else { EventKind::Updated };
        self.publish(now, id, Some(kind));
        self.reconsider_watching(now, id);
        self.spread_for_deaf(&id, word, from);
        if draining {
            self.choose_watchers_soon(now);
        }
        if let Some(from) = from.filter(|_| kind == EventKind::Draining) {
            self.consider_relay(now, id, &word.bytes, from);
        }
    }

    /// News that came to us alone from somebody who hears no broadcasts is said to all for it, and all news to
    /// those of that kind whom we watch.
    fn spread_for_deaf(&mut self, id: &MemberId, word: &Verified<Word>, from: Option<Source>) {
        let Some(from) = from else { return };
        if !from.shared && self.peers.get(id).is_some_and(|peer| peer.deaf) {
            self.counters.relayed += 1;
            self.send(Destination::Everyone, word.bytes.clone());
        }
        self.tell_the_deaf(id, &word.bytes);
    }
}

/// How a word of a slot reached us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// In a datagram of its own.
    Ears(Source),
    /// Inside a proof.
    Proof,
    /// In another member's table.
    Told,
}

impl Way {
    fn source(self) -> Option<Source> {
        match self {
            Self::Ears(source) => Some(source),
            Self::Proof | Self::Told => None,
        }
    }
}

/// What a datagram that claims to be a beacon says. Below a microsecond; nothing of it is known to be true.
fn unverified_beacon(bytes: &[u8]) -> Result<Option<Beacon>, Refused> {
    let said =
        bytes.len().checked_sub(SIGNATURE_BYTES).and_then(|end| bytes.get(..end)).ok_or(Refused::Size)?;
    match crate::wire::decode(said)? {
        (_, Some(Message::Beacon(beacon))) => Ok(Some(beacon)),
        _ => Ok(None),
    }
}
