//! Members of other islands: what links bring and the wire, what is pulled from the bridges of our own island, and how it
//! goes together with our own table. Members that we hear ourselves always win.
//!
//! Source: NETWORK.md, "Members of other islands".

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::receive::Way;
use super::{Destination, Membership, Source, Timer};
use crate::event::{Event, EventKind, Subject};
use crate::far::{Far, FarWord, Out};
use crate::island::Island;
use crate::member::{Member, MemberId, Record, Stamp};
use crate::outward::News;
use crate::verify::{Refused, Verified, Word, peek};
use crate::wire::{Header, Message, Proof, kind};

mod outward;
mod pull;
mod ways;

use outward::Refuted;
use pull::Pulls;
use ways::SaidRoutes;

/// The role of those who carry words between islands.
pub(super) const BRIDGE: &str = "bridge";
/// An urgent word is said to our island after up to this, unless another bridge has. Required by DESIGN, section 6.
const SAY_WAIT: Duration = Duration::from_millis(20);
/// Words that wait for that; what is above it is pulled like everything else. Guessed.
const PENDING_MAX: usize = 256;

/// What is kept of other islands.
#[derive(Debug)]
pub(super) struct Abroad {
    pub(super) far: Far,
    /// Keys of links: never of our own island.
    foreign: BTreeSet<MemberId>,
    /// Whether somebody wants news.
    outward: bool,
    news: VecDeque<News>,
    pulls: Pulls,
    /// Urgent words about to be said, by whom they are about.
    pending: BTreeMap<MemberId, Bytes>,
    said: Option<SaidRoutes>,
    /// Of whom others were told lately that it lives, or will be.
    refuted: BTreeMap<MemberId, Refuted>,
}

impl Abroad {
    pub(super) fn new(own_island: String, seed: u64, instance: u64) -> Self {
        Self {
            far: Far::new(own_island, seed, instance),
            foreign: BTreeSet::new(),
            outward: false,
            news: VecDeque::new(),
            pulls: Pulls::default(),
            pending: BTreeMap::new(),
            said: None,
            refuted: BTreeMap::new(),
        }
    }
}

impl Membership {
    /// Members of other islands, by id.
    pub fn far_members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.abroad.far.members()
    }

    /// The other islands by name, if they have changed since this was last asked.
    pub fn take_islands(&mut self) -> Option<Arc<BTreeMap<String, Arc<Island>>>> {
        self.abroad.far.take_islands()
    }

    /// Body of `GET /mesh/records?instance=&since=`.
    #[must_use]
    pub fn far_records(&self, now: Instant, instance: u64, since: u64) -> Bytes {
        self.abroad.far.records(now, instance, since)
    }

    /// What a body made now for somebody who has read nothing depends on.
    #[must_use]
    pub fn far_head(&self) -> (u64, u64) {
        self.abroad.far.head()
    }

    /// Keys of links: they are never of our own island, and what they say on the wire is ignored.
    pub fn set_foreign(&mut self, now: Instant, keys: BTreeSet<MemberId>) {
        let listed: Vec<MemberId> = keys.iter().filter(|id| self.table.get(id).is_some()).copied().collect();
        self.abroad.foreign = keys;
        for id in listed {
            self.table.remove(&id);
            self.tell_withdrawn(now, id);
        }
    }

    /// Takes in what the link with the bridge `from` has brought. Nothing of it is lost when this returns; the caller then
    /// drains the news.
    pub fn hear_far(
        &mut self,
        now: Instant,
        from: MemberId,
        withdrawn: &[MemberId],
        words: &[FarWord],
        is_urgent: bool,
    ) {
        if self.leaving {
            return;
        }
        for id in withdrawn {
            self.abroad.far.withdraw(id, &from);
        }
        for heard in words {
            let author = heard.word.header.author;
            let is_new = self.abroad.far.standing(&author).is_none();
            let is_news = self.hear_far_word(now, from, heard).is_ok();
            if is_news && is_new {
                self.abroad.far.set_origin(&author, from);
            }
            if is_news && is_urgent && (heard.is_urgent() || heard.is_pulse()) {
                self.say_soon(now, heard);
            }
        }
        self.settle_far(now, Some(from));
    }

    /// Takes in a word that came over a bridge: that of another island, or one of ours.
    fn hear_far_word(&mut self, now: Instant, from: MemberId, heard: &FarWord) -> Result<(), Refused> {
        let header = heard.word.header;
        let id = heard.subject().ok_or(Refused::Malformed)?;
        if id == self.id() {
            return self.hear_of_us(now, heard);
        }
        if header.kind != kind::DOWN {
            // Floors of our own island hold for those who left it.
            self.table.check_fresh(&header, &heard.word.bytes)?;
        }
        if !self.is_home(&id) {
            self.hear_brought(now, from, heard)?;
            self.hand_over_farewell(now, from, id);
            return Ok(());
        }
        match &heard.word.message {
            Some(Message::Announce(_)) => {
                let newer = self.home_record(&id).is_some_and(|(stamp, _)| header.stamp > stamp);
                if !newer || !self.is_known_gone(&id) {
                    return Err(Refused::Stale);
                }
                // Gone from here, and there elsewhere; or our island has split.
                self.abroad.far.check_fresh(&header, &heard.word.bytes)?;
                self.move_abroad(now, id);
                self.hear_brought(now, from, heard)
            }
            // Only it can say so, and once it has, it has.
            Some(Message::Farewell(_)) => self.accept(now, &heard.word, Way::Told),
            Some(Message::Down(_)) => {
                self.refute_abroad(now, id, heard);
                Err(Refused::Stale)
            }
            _ => Err(Refused::Stale),
        }
    }

    fn hear_brought(&mut self, now: Instant, from: MemberId, heard: &FarWord) -> Result<(), Refused> {
        let outcome = self.abroad.far.hear(now, Some(from), heard);
        self.counters.far_refused += u64::from(outcome == Err(Refused::Full));
        outcome
    }

    /// The farewell of somebody of whom we know nothing else: of our own island, or of another whose records we have yet to
    /// fetch. So it is kept with those of other islands, too, and handed on with them: whoever of our island lists its
    /// author as a member of another learns it from nobody else, once we have told links that we know it.
    pub(super) fn hear_end_of_unknown(&mut self, now: Instant, id: &MemberId, word: &Verified<Word>) {
        let heard = FarWord::of(self.identity.scheme(), self.tag, word.clone());
        let outcome = self.abroad.far.hear(now, None, &heard);
        self.settle_far(now, None);
        if outcome.is_err() {
            self.tell_word_of(id, &word.bytes);
        }
    }

    /// A farewell that came on the wire before anything else was known of its author, of whom `from` has brought a word.
    fn hand_over_farewell(&mut self, now: Instant, from: MemberId, id: MemberId) {
        let end = self.table.get(&id).and_then(|entry| entry.end.as_ref()).map(|said| said.bytes.clone());
        if let Some(word) = end.and_then(|bytes| self.verified(bytes).ok()) {
            self.table.remove(&id);
            self.peers.swap_remove(&id);
            // What was brought is from there. The farewell is not: whoever brought a record of it may not know it.
            self.settle_far(now, Some(from));
            // What came of it shows there: the far table may know it already.
            let _ = self.hear_urgent(now, &word, None);
        }
    }

    /// Our own words come back, or others have given us up.
    fn hear_of_us(&mut self, now: Instant, heard: &FarWord) -> Result<(), Refused> {
        let header = heard.word.header;
        let ours = Stamp { epoch: self.identity.epoch(), seq: self.seq };
        if header.kind == kind::DOWN {
            let id = self.id();
            self.refute_abroad(now, id, heard);
        } else if header.stamp > ours {
            self.outlive(now, header.stamp.epoch);
        }
        Err(Refused::Own)
    }

    /// What has come of words of other islands; `from`: the bridge that brought them.
    fn settle_far(&mut self, now: Instant, from: Option<MemberId>) {
        self.abroad.far.settle(now);
        self.counters.islands_left_out = self.abroad.far.islands_left_out();
        let mut lost = false;
        while let Some(out) = self.abroad.far.poll() {
            lost |= matches!(
                out,
                Out::Event(EventKind::Forgotten, _)
                    | Out::Withdrawn(_)
                    | Out::Displaced(_)
                    | Out::Forgotten(_)
            );
            match out {
                Out::Event(kind, member) => self.tell(member, Some(kind)),
                Out::Change(member) => self.tell(member, None),
                Out::Island(kind, island) => {
                    self.event_number += 1;
                    let subject = Subject::Island(island);
                    self.events.push_back(Event { number: self.event_number, kind, subject });
                }
                Out::Said { member, what, bytes, is_urgent } => {
                    self.news(News::Said { member, what, bytes, is_urgent, from, gone: None });
                }
                Out::Withdrawn(id) => self.news(News::Withdrawn(id)),
                Out::Displaced(id) => {
                    self.counters.far_displaced += 1;
                    self.news(News::Withdrawn(id));
                }
                Out::Forgotten(id) => self.news(News::Forgotten(id)),
            }
        }
        self.note_far_digest(now, lost);
    }

    /// Whether this member is listed as one of our own island.
    fn is_home(&self, id: &MemberId) -> bool {
        self.table.get(id).is_some_and(|entry| entry.record.is_some())
    }

    fn home_record(&self, id: &MemberId) -> Option<(Stamp, Arc<Record>)> {
        self.table.get(id)?.record.as_ref().map(|said| (said.stamp, said.value.clone()))
    }

    /// Whether this member is listed as one of another island.
    pub(super) fn is_abroad(&self, id: &MemberId) -> bool {
        !self.abroad.far.is_empty() && self.abroad.far.record(id).is_some() && !self.is_home(id)
    }

    /// What we say in our beacons of what we know, if we are a bridge.
    pub(super) fn far_digest(&self) -> Option<u64> {
        self.is_bridge().then(|| self.abroad.far.digest())
    }

    fn is_bridge(&self) -> bool {
        self.record.has_role(BRIDGE)
    }

    /// Our island has another name now.
    pub(super) fn is_called(&mut self, now: Instant, name: &str) {
        self.abroad.far.set_own_island(now, name);
        self.reconsider_ways(now);
        self.tell_all_words();
    }

    /// A member of ours counts itself to another island, and has been taken out of our table. Other islands learn it by its
    /// own word, if we are a bridge.
    pub(super) fn has_emigrated(&mut self, now: Instant, id: MemberId, word: &Verified<Word>) {
        self.unlist(now, id);
        if self.abroad.outward && !self.abroad.foreign.contains(&id) {
            // What came of it shows there.
            let _ = self.hear_urgent(now, word, None);
        } else {
            self.news(News::Withdrawn(id));
        }
    }

    fn move_abroad(&mut self, now: Instant, id: MemberId) {
        self.table.remove(&id);
        self.unlist(now, id);
    }
}

/// On the wire.
impl Membership {
    /// What can be known before a signature is paid for: whether these keys and members are any of our business there.
    pub(super) fn screen_abroad(&mut self, header: &Header, bytes: &Bytes) -> Result<(), Refused> {
        let abroad = &mut self.abroad;
        if abroad.foreign.contains(&header.author) && abroad.far.record(&header.author).is_none() {
            return Err(Refused::Island);
        }
        if !matches!(header.kind, kind::ANNOUNCE | kind::FAREWELL | kind::DOWN) {
            return if abroad.foreign.contains(&header.author) { Err(Refused::Island) } else { Ok(()) };
        }
        // Another bridge has said it.
        abroad.pending.retain(|_, said| said != bytes);
        if header.kind == kind::DOWN || !self.is_abroad(&header.author) {
            return Ok(());
        }
        let record = self.abroad.far.record(&header.author);
        match record
            .filter(|(_, record)| header.kind == kind::ANNOUNCE && self.is_home_island(header.author, record))
        {
            // The very word that came over a bridge, heard directly, is news.
            Some((stamp, _)) if header.stamp >= stamp => Ok(()),
            _ => self.abroad.far.check_fresh(header, bytes),
        }
    }

    /// Whether anything there is to be looked at so.
    pub(super) fn has_abroad(&self) -> bool {
        !(self.abroad.far.is_empty() && self.abroad.foreign.is_empty())
    }

    /// A record of somebody listed as one of another island: `None` if it is of ours now, and all that was known is
    /// forgotten; else what came of it. Only that it stops soon is news from there.
    pub(super) fn hear_record_abroad(
        &mut self,
        now: Instant,
        word: &Verified<Word>,
        record: &Record,
        from: Source,
    ) -> Option<Result<(), Refused>> {
        let id = word.header.author;
        // Heard on our wire, it is of our island, or we are about to be of its.
        if self.is_home_island(id, record) && !self.abroad.foreign.contains(&id) {
            let stale = self.abroad.far.record(&id).is_some_and(|(stamp, _)| word.header.stamp < stamp);
            if stale {
                return Some(Err(Refused::Stale));
            }
            self.come_home(now, id);
            return None;
        }
        Some(if record.draining {
            self.hear_urgent(now, word, Some((from, &word.bytes)))
        } else {
            Err(Refused::Island)
        })
    }

    /// An urgent word about a member of another island, as bridges say it to their own. Whoever hears no broadcasts learns
    /// it from its watchers, and says it by way of them.
    /// `heard`: in which datagram, and from where.
    pub(super) fn hear_urgent(
        &mut self,
        now: Instant,
        word: &Verified<Word>,
        heard: Option<(Source, &Bytes)>,
    ) -> Result<(), Refused> {
        let (from, said) = heard.unzip();
        let said = said.unwrap_or(&word.bytes);
        let heard = FarWord::of(self.identity.scheme(), self.tag, word.clone());
        let outcome = self.abroad.far.hear(now, None, &heard);
        self.settle_far(now, None);
        outcome?;
        if let Some(id) = heard.subject() {
            self.tell_the_deaf(&id, said);
        }
        let sender = from.filter(|from| !from.shared).map(|from| from.addr);
        let is_deaf = |id: &MemberId| self.peers.get(id).is_some_and(|peer| peer.deaf && peer.from == sender);
        if sender.is_some() && self.deaf.iter().any(is_deaf) {
            self.counters.relayed += 1;
            self.send(Destination::Everyone, said.clone());
        }
        Ok(())
    }

    /// A proof that a member of another island lives: it counts where somebody says otherwise.
    pub(super) fn hear_proof_abroad(
        &mut self,
        now: Instant,
        from: Source,
        proof: &Bytes,
        pulse: &Bytes,
        header: &Header,
    ) -> Result<(), Refused> {
        if !self.abroad.far.is_accused_or_down(&header.author) {
            return Err(Refused::Unasked);
        }
        self.abroad.far.check_fresh(header, pulse)?;
        let word = self.verified(pulse.clone())?;
        self.abroad.pending.remove(&header.author);
        self.hear_urgent(now, &word, Some((from, proof)))
    }

    /// Whether votes on this member are for the far table to judge, and could change anything there.
    ///
    /// # Errors
    /// `Stale`: it is gone already.
    pub(super) fn judges_abroad(&self, id: &MemberId) -> Result<bool, Refused> {
        if !self.is_abroad(id) {
            return Ok(false);
        }
        let gone = self.abroad.far.standing(id).is_some_and(|standing| standing.is_gone());
        if gone { Err(Refused::Stale) } else { Ok(true) }
    }

    /// A word in another's table of our own island, of a member that is listed as one of another island. Whether it
    /// counts for ours now.
    pub(super) fn is_home_by_now(&mut self, now: Instant, word: &Verified<Word>) -> bool {
        let id = word.header.author;
        let Some((stamp, record)) = self.abroad.far.record(&id) else { return true };
        let is_split = record.island == self.record.island;
        match &word.message {
            Some(Message::Announce(_))
                if word.header.stamp > stamp || is_split && word.header.stamp == stamp =>
            {
                self.come_home(now, id);
                true
            }
            Some(Message::Farewell(_)) => {
                // What came of it shows there.
                let _ = self.hear_urgent(now, word, None);
                false
            }
            _ => false,
        }
    }

    fn come_home(&mut self, now: Instant, id: MemberId) {
        self.abroad.far.give_home(&id);
        self.settle_far(now, None);
    }

    /// Whether a beacon that nobody of our table says is that of another island's member, and no stranger's.
    pub(super) fn is_foreigner(&self, id: &MemberId) -> bool {
        self.has_abroad() && (self.abroad.foreign.contains(id) || self.is_abroad(id))
    }

    pub(super) fn is_foreign(&self, id: &MemberId) -> bool {
        self.abroad.foreign.contains(id)
    }

    fn say_soon(&mut self, now: Instant, heard: &FarWord) {
        let Some(id) = heard.subject() else { return };
        if self.abroad.pending.len() >= PENDING_MAX {
            return;
        }
        let wait = self.up_to(SAY_WAIT);
        self.abroad.pending.insert(id, heard.word.bytes.clone());
        self.timers.arm(now + wait, Timer::SayFar(id));
    }

    /// Says an urgent word of another island to ours, unless another bridge has.
    pub(super) fn say_far(&mut self, id: MemberId) {
        if let Some(bytes) = self.abroad.pending.remove(&id).filter(|_| !self.leaving) {
            self.counters.relayed += 1;
            // A pulse alone says nothing on a wire where nobody watches its author.
            let is_pulse =
                matches!(peek(self.tag, &bytes).map(|header| header.kind), Ok(kind::BEACON | kind::PONG));
            let bytes = if is_pulse { self.sign(&Message::Proof(Proof { pulse: bytes })) } else { bytes };
            self.tell_the_deaf(&id, &bytes);
            self.tell_for_the_deaf(&bytes);
            self.send(Destination::Everyone, bytes);
        }
    }

    /// Time has passed.
    pub(super) fn forget_far(&mut self, now: Instant) {
        if self.has_abroad() || !self.abroad.far.routes.is_empty() {
            self.abroad.far.forget_due(now);
            self.settle_far(now, None);
            if self.abroad.far.has_room_for_islands() {
                self.reconsider_ways(now);
            }
        }
    }

    pub(super) fn sweep_abroad(&mut self, now: Instant) {
        self.abroad.far.sweep(now);
        self.settle_far(now, None);
        self.abroad.pulls.sweep(now);
        self.abroad.refuted.retain(|_, refuted| !refuted.is_over(now));
    }
}
