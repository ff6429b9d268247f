//! ROUTES: what the bridges of our own island say that they reach, we among them if we are one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::{Destination, Membership, Timer};
use super::BRIDGE;
use crate::island::room::{Offer, left_out};
use crate::island::{ISLANDS_MAX, WAYS_MAX};
use crate::member::{Epoch, MemberId, Stamp};
use crate::reach::Reach;
use crate::verify::{Refused, Verified, Word};
use crate::wire::{Header, Message, Routes, SIGNATURE_BYTES, routes};

/// Copies of a word that is new. Required by DESIGN, section 6.
const COPIES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(150)];
/// The words are repeated this often, for whoever missed all copies.
const AGAIN: Duration = Duration::from_secs(2);

/// What we have said last.
#[derive(Debug)]
pub(super) struct SaidRoutes {
    reaches: BTreeMap<String, Vec<Reach>>,
    words: Vec<Bytes>,
    epoch: Epoch,
    /// Counts what we have said: timers of earlier words are stale.
    round: u64,
}

impl Membership {
    /// Says what the links of this node reach, if that has changed: to everyone, at once and again. Of the ways to an
    /// island the first [`WAYS_MAX`] count: which of more are worth telling is for whoever knows the links to choose. Of more
    /// than [`ISLANDS_MAX`] islands those are left out that lie behind the same as most of them do.
    pub fn say_reaches(&mut self, now: Instant, reaches: Vec<Reach>) {
        let mut ways: BTreeMap<String, Vec<Reach>> = BTreeMap::new();
        for reach in reaches.into_iter().filter(|reach| !reach.path.contains(&self.record.island)) {
            let ways = ways.entry(reach.path.destination().to_owned()).or_default();
            if ways.len() < WAYS_MAX {
                ways.push(reach);
            }
        }
        let said = self.abroad.said.as_ref().map(|said| &said.reaches);
        let is_said = |island: &str| said.is_some_and(|said| said.contains_key(island));
        let offers = ways.values().flatten().map(|reach| Offer::of((), &reach.path)).collect();
        let left = left_out(offers, ISLANDS_MAX, is_said);
        let left: Vec<String> = left.into_iter().map(str::to_owned).collect();
        for island in left {
            ways.remove(&island);
        }
        let is_same = match &self.abroad.said {
            Some(said) => said.reaches == ways,
            None => ways.is_empty(),
        };
        if !is_same && !self.leaving {
            self.say_routes(now, ways);
        }
    }

    fn say_routes(&mut self, now: Instant, reaches: BTreeMap<String, Vec<Reach>>) {
        let round = self.abroad.said.as_ref().map_or(0, |said| said.round) + 1;
        let (id, epoch) = (self.id(), self.identity.epoch());
        let mut words = Vec::new();
        for part in routes::in_parts(reaches.values().flatten().cloned().collect()) {
            let bytes = self.sign(&Message::Routes(part.clone()));
            let stamp = Stamp { epoch, seq: self.seq };
            // Ours are newer than those before.
            let _ = self.abroad.far.routes.take(id, stamp, bytes.clone(), &part);
            self.send(Destination::Everyone, bytes.clone());
            words.push(bytes);
        }
        self.abroad.said = Some(SaidRoutes { reaches, words, epoch, round });
        for after in COPIES {
            self.timers.arm(now + after, Timer::RoutesCopy(round));
        }
        let again = self.jittered(AGAIN);
        self.timers.arm(now + again, Timer::RoutesAgain(round));
        self.reconsider_ways(now);
    }

    /// One more copy, unless there are newer words.
    pub(in crate::membership) fn routes_copy(&mut self, round: u64) {
        let said = self.abroad.said.as_ref().filter(|said| said.round == round && !self.leaving);
        for bytes in said.map(|said| said.words.clone()).unwrap_or_default() {
            self.send(Destination::Everyone, bytes);
        }
    }

    /// The same again; in a new life, anew.
    pub(in crate::membership) fn routes_again(&mut self, now: Instant, round: u64) {
        let epoch = self.identity.epoch();
        let Some(said) = self.abroad.said.as_ref().filter(|said| said.round == round) else { return };
        if said.epoch != epoch {
            let reaches = said.reaches.clone();
            self.say_routes(now, reaches);
            return;
        }
        self.routes_copy(round);
        let again = self.jittered(AGAIN);
        self.timers.arm(now + again, Timer::RoutesAgain(round));
    }

    /// Whether a word of this kind could change anything: only one that a bridge of our own island says, and only once.
    pub(in crate::membership) fn screen_routes(&self, header: &Header, bytes: &Bytes) -> Result<(), Refused> {
        if !self.may_route(&header.author) {
            return Err(Refused::Unasked);
        }
        let said = bytes.len().checked_sub(SIGNATURE_BYTES).and_then(|end| bytes.get(..end));
        match crate::wire::decode(said.ok_or(Refused::Size)?)? {
            (_, Some(Message::Routes(routes))) => {
                self.abroad.far.routes.check_fresh(&header.author, header.stamp, &routes)
            }
            _ => Ok(()),
        }
    }

    fn may_route(&self, id: &MemberId) -> bool {
        let view = self.peers.get(id).and_then(|peer| peer.view.as_ref());
        view.is_some_and(|view| view.has_role(BRIDGE)) && !self.is_foreign(id)
    }

    /// What another bridge says.
    pub(in crate::membership) fn hear_routes(
        &mut self,
        now: Instant,
        word: &Verified<Word>,
        routes: &Routes,
    ) -> Result<(), Refused> {
        let id = word.header.author;
        if !self.may_route(&id) {
            return Err(Refused::Unasked);
        }
        self.abroad.far.routes.take(id, word.header.stamp, word.bytes.clone(), routes)?;
        self.tell_the_deaf(&id, &word.bytes);
        self.reconsider_ways(now);
        Ok(())
    }

    /// Something has happened to a member whose ways may be taken.
    pub(in crate::membership) fn reconsider_ways_of(&mut self, now: Instant, id: &MemberId) {
        if self.abroad.far.routes.contains(id) {
            self.reconsider_ways(now);
        }
    }

    /// Chooses the ways to other islands anew.
    pub(super) fn reconsider_ways(&mut self, now: Instant) {
        let bridges: Vec<MemberId> = self
            .abroad
            .far
            .routes
            .bridges()
            .filter(|(id, epoch)| *id == self.id() || self.carries(id, *epoch))
            .map(|(id, _)| id)
            .collect();
        self.abroad.far.choose(now, &bridges);
        self.settle_far(now, None);
        self.doubt_islands();
    }

    /// Whether this bridge is there, in the life in which it said what it reaches.
    fn carries(&self, id: &MemberId, epoch: Epoch) -> bool {
        let view =
            self.peers.get(id).filter(|peer| !peer.standing.is_gone()).and_then(|peer| peer.view.as_ref());
        view.is_some_and(|view| {
            view.has_role(BRIDGE)
                && view.record.island == self.record.island
                && view.stamp.epoch <= epoch
                && !self.is_foreign(id)
        })
    }

    fn doubt_islands(&mut self) {
        if let Some(until) = self.abroad.far.doubted_until() {
            self.timers.disarm(|timer| *timer == Timer::GiveUpIslands);
            self.timers.arm(until, Timer::GiveUpIslands);
        }
    }

    /// Islands whose last way has been gone for a while.
    pub(in crate::membership) fn give_up_islands(&mut self, now: Instant) {
        self.abroad.far.give_up(now);
        self.settle_far(now, None);
        self.doubt_islands();
    }

    /// The words of all bridges that are kept, for whoever fetches our table.
    pub(in crate::membership) fn routes_words(&self) -> impl Iterator<Item = &Bytes> {
        self.abroad.far.routes.words()
    }
}
