//! Votes: what a watcher says of a silent member, and what becomes of the votes of others.
//!
//! A vote names the record it is judged by and the last word its voter knows, so a newer word makes it worthless, and a vote
//! from another life never counts.
//!
//! Source: NETWORK.md, "Votes and certificates".

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Destination, Entry, Membership, Source, Timer};
use crate::member::{MemberId, Seq, Stamp, Standing};
use crate::verify::{Refused, Verified, Word};
use crate::wire::limits::WATCHERS_MAX;
use crate::wire::{Header, Message, Suspect};

/// A doubt is shown after this: the accused answers sooner.
const SHOWN_AFTER: Duration = Duration::from_millis(30);
/// Whoever learned of a newer word within this refuses votes that do not know it.
const NEWS: Duration = Duration::from_millis(200);
/// Watchers that do not agree for so long are helped out. Required by DESIGN, section 5.
const UNDECIDED: Duration = Duration::from_secs(2);
/// The same in a storm, where watchers wait for each other's end: of two that watch each other neither falls before.
const UNDECIDED_IN_STORM: Duration = Duration::from_millis(600);
/// Votes kept for one member: of its watchers, and of some others.
const VOTES_KEPT_MAX: usize = WATCHERS_MAX + 16;
/// Beyond a beacon period: who has missed all copies of a record has asked for it and been answered after this.
const MISSED_FOR: Duration = Duration::from_millis(500);
/// The second copy of a vote. Required by DESIGN, section 5.
const VOTE_COPY: Duration = Duration::from_millis(30);
/// In a storm it comes later, when one knows who else has voted: after this and up to as much again.
const VOTE_COPY_IN_STORM: Duration = Duration::from_millis(300);
/// So many who ask about the same member are not alone.
const ASKING_MANY: usize = 2;

/// A vote as it was heard.
#[derive(Clone, Debug)]
pub(super) struct Vote {
    pub(super) bytes: Bytes,
    stamp: Stamp,
    /// Of the record that it is judged by.
    record: Seq,
    pub(super) last: Stamp,
    pub(super) at: Instant,
}

/// What is said of a member that it is silent.
#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) since: Instant,
    pub(super) votes: BTreeMap<MemberId, Vote>,
    /// Since when there are enough votes.
    pub(super) ready: Option<Instant>,
    /// Somebody has said the certificate.
    pub(super) certified: bool,
    /// In a storm: it is ours alone, for others have heard more.
    pub(super) late: bool,
    /// In a storm: those who decide have been asked.
    pub(super) asked: bool,
    /// Number of its timer: others are stale.
    pub(super) number: u64,
}

impl Doubt {
    pub(super) fn has_vote_of(&self, id: &MemberId) -> bool {
        self.votes.contains_key(id)
    }
}

impl Membership {
    /// Whether the watchers of `id` have not agreed for a while.
    pub(super) fn is_undecided(&self, now: Instant, id: &MemberId, doubt: &Doubt) -> bool {
        now.saturating_duration_since(doubt.since) >= self.patience_with_watchers(now, id, doubt)
    }

    /// For how long the watchers of `id` are waited for. In a storm not long, for most of them may be gone; but where enough to
    /// decide are accused by nobody and accuse nobody, they hear it.
    pub(super) fn patience_with_watchers(&self, now: Instant, id: &MemberId, doubt: &Doubt) -> Duration {
        if !self.is_storm(now) {
            return UNDECIDED;
        }
        let watchers = self.named_by(id);
        let is_accused = |id: &MemberId| self.peers.get(id).is_some_and(|peer| peer.doubt.is_some());
        let is_quiet = |id: &&MemberId| !self.is_known_gone(id) && !doubt.has_vote_of(id) && !is_accused(id);
        let (quiet, needed) = (watchers.iter().filter(is_quiet).count(), self.quorum_among(watchers));
        if needed > 0 && quiet >= needed { UNDECIDED } else { UNDECIDED_IN_STORM }
    }

    /// Says that `id` is silent, and asks it once more.
    pub(super) fn vote(&mut self, now: Instant, id: MemberId) {
        let Some(bytes) = self.vote_once(now, id) else { return };
        let copy =
            if self.is_storm(now) { VOTE_COPY_IN_STORM + self.up_to(VOTE_COPY_IN_STORM) } else { VOTE_COPY };
        self.timers.arm(now + copy, Timer::VoteCopy(id, bytes));
    }

    /// The same without copies of it. Returns what was said.
    pub(super) fn vote_once(&mut self, now: Instant, id: MemberId) -> Option<Bytes> {
        let (vote, record, last) = self.vote_about(now, &id)?;
        let bytes = self.sign(&Message::Suspect(vote));
        let stamp = Stamp { epoch: self.identity.epoch(), seq: self.seq };
        self.counters.suspicions += 1;
        let own = self.id();
        let mut others = vec![id];
        others.extend(self.named_by(&id).iter().filter(|watcher| **watcher != own));
        self.send_to_each(&others, &bytes);
        self.say_young_record(&id);
        self.send(Destination::Everyone, bytes.clone());
        self.ask(now, id, 3, Duration::from_millis(30));
        let vote = Vote { bytes: bytes.clone(), stamp, record: record.seq, last, at: now };
        self.keep_vote(now, id, own, vote);
        Some(bytes)
    }

    /// What we would say of `id`, the record that it is judged by, and its newest word.
    fn vote_about(&self, now: Instant, id: &MemberId) -> Option<(Suspect, Stamp, Stamp)> {
        let (record, last) = self.judged_by(id)?;
        let silence = now.saturating_duration_since(self.peers.get(id)?.silent_since());
        let vote = Suspect {
            target: *id,
            epoch: record.epoch,
            record_seq: record.seq,
            last_seq: last.seq,
            silence_ms: u32::try_from(silence.as_millis()).unwrap_or(u32::MAX),
        };
        Some((vote, record, last))
    }

    /// Some miss all copies of a record, learn from the next beacon that they lack it, and ask. They cannot if its author
    /// has fallen silent meanwhile, and votes are worth nothing where it is missing.
    fn say_young_record(&mut self, id: &MemberId) {
        let Some(peer) = self.peers.get(id) else { return };
        if peer.silent_since() >= peer.recorded + self.beacon_period() + MISSED_FOR {
            return;
        }
        let record = self.table.record(id);
        if let Some(bytes) = record.map(|said| said.bytes.clone()) {
            self.counters.relayed += 1;
            self.send(Destination::Everyone, bytes);
        }
    }

    /// Says for ourselves that `id` is down, if we hold so and too few of those are left who said it: whoever comes now
    /// finds it out by our words. `asked`: somebody who is not sure says so. Watchers of `id` do that, and those that
    /// stand in for them.
    pub(super) fn renew(&mut self, now: Instant, id: MemberId, asked: bool) {
        let down = self.peers.get(&id).is_some_and(|peer| peer.standing == Standing::Down);
        if !down || self.leaving || !(asked || self.is_short_of_votes(now, &id)) {
            return;
        }
        if self.speaks_for(&id) && self.spoken.may_renew(now, id) {
            self.vote(now, id);
        }
    }

    /// In a storm whoever missed votes gets them alone, from those who voted; where more have asked all, all do, from one.
    fn answer_by_certificate(&mut self, now: Instant, id: MemberId, asker: MemberId, alone: bool) {
        let own = self.id();
        let doubt = self.peers.get(&id).and_then(|peer| peer.doubt.as_ref());
        let Some(doubt) = doubt.filter(|doubt| doubt.has_vote_of(&own)) else { return };
        if alone || self.votes_besides_watchers(doubt, &id).count() < ASKING_MANY {
            if let Some(bytes) = self.certificate(&id) {
                self.answer_with(now, asker, id, bytes);
            }
        } else if self.spoken.may_renew(now, id) {
            self.certify_anew(now, id);
        }
    }

    /// The votes of those who are no watchers of `id`: who says so asks.
    pub(super) fn votes_besides_watchers<'a>(
        &self,
        doubt: &'a Doubt,
        id: &MemberId,
    ) -> impl Iterator<Item = &'a Vote> {
        doubt.votes.iter().filter(|(voter, _)| !self.is_watcher_of(voter, id)).map(|(_, vote)| vote)
    }

    /// A newer record of `id` names other watchers: votes by the last one are worth nothing, and ours is said again. It did
    /// not come from `id`, so it says nothing about whether that lives.
    pub(super) fn judge_anew(&mut self, now: Instant, id: MemberId) {
        let own = self.id();
        let Some((record, _)) = self.judged_by(&id) else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(doubt) = peer.doubt.as_mut() else { return };
        let accused = doubt.has_vote_of(&own);
        doubt.votes.retain(|_, vote| vote.record == record.seq);
        let nobody = doubt.votes.is_empty();
        if peer.standing == Standing::Down {
            self.renew(now, id, true);
        } else if accused {
            self.vote(now, id);
        } else if nobody {
            self.acquit(now, id);
        }
    }

    /// One more copy of our vote, if it still stands; in a storm where no vote may be missed, for there it is worth its bytes.
    pub(super) fn vote_copy(&mut self, now: Instant, id: MemberId, bytes: Bytes) {
        let own = self.id();
        let stands = self
            .peers
            .get(&id)
            .and_then(|peer| peer.doubt.as_ref())
            .and_then(|doubt| doubt.votes.get(&own))
            .is_some_and(|vote| vote.bytes == bytes);
        if stands && !self.leaving && (!self.is_storm(now) || self.needs_our_vote(now, &id)) {
            self.send(Destination::Everyone, bytes);
        }
    }

    /// A vote about `id` to those who decide about it alone: they answer whoever has missed something by a certificate.
    pub(super) fn ask_watchers(&mut self, now: Instant, id: MemberId) {
        let Some((vote, _, _)) = self.vote_about(now, &id) else { return };
        let Some(doubt) = self.peers.get(&id).and_then(|peer| peer.doubt.as_ref()) else { return };
        let mut asked: Vec<MemberId> = doubt.votes.keys().copied().collect();
        asked.extend(self.named_by(&id).iter().filter(|watcher| !doubt.has_vote_of(watcher)));
        let own = self.id();
        asked.retain(|other| *other != own && !self.is_known_gone(other));
        let bytes = self.sign(&Message::Suspect(vote));
        self.send_to_each(&asked, &bytes);
    }

    /// The record that names the watchers of `id`, and the newest word of it in that life.
    fn judged_by(&self, id: &MemberId) -> Option<(Stamp, Stamp)> {
        let entry = self.table.get(id).filter(|entry| !entry.has_left())?;
        let record = entry.record.as_ref()?.stamp;
        let newest = entry.newest()?;
        // A pulse of a life whose record we lack: there is nothing to judge by yet.
        (newest.epoch == record.epoch).then_some((record, newest))
    }

    /// Whether this vote or certificate is an old one that somebody else says again: they are sent when they are signed. It
    /// would make its target answer and, twice, give up the watcher that it is from.
    pub(super) fn is_said_again(&self, now: Instant, header: &Header) -> bool {
        self.peers.get(&header.author).is_some_and(|peer| peer.past.is_over(now, header.stamp))
    }

    /// A vote. `from`: heard directly, else inside a certificate or a table.
    pub(super) fn hear_vote(
        &mut self,
        now: Instant,
        from: Option<Source>,
        word: &Verified<Word>,
        vote: &Suspect,
    ) -> Result<(), Refused> {
        let voter = word.header.author;
        let id = vote.target;
        if id == self.id() {
            if vote.epoch == self.identity.epoch() {
                self.defend(now, voter);
                if vote.last_seq > self.seq {
                    self.belie(now, vote.record_seq);
                }
            }
            return Ok(());
        }
        if voter == id {
            return Err(Refused::Malformed);
        }
        let Some(entry) = self.table.get(&id) else { return Err(Refused::Unasked) };
        if entry.has_left() {
            // Whoever asks about one that has left has not heard so.
            let farewell = entry.end.as_ref().map(|said| said.bytes.clone());
            if let Some(bytes) = farewell.filter(|_| from.is_some()) {
                self.answer_with(now, voter, id, bytes);
            }
            return Err(Refused::Stale);
        }
        self.settle_raw(now, id);
        let Some((record, newest)) = self.judged_by(&id) else { return Err(Refused::Unasked) };
        let judged_by = Stamp { epoch: vote.epoch, seq: vote.record_seq };
        if judged_by != record {
            if judged_by < record && from.is_some() && self.table.is_proven(&voter) {
                self.tell_record_of(now, &id, voter);
            }
            return Err(Refused::Stale);
        }
        let last = Stamp { epoch: vote.epoch, seq: vote.last_seq };
        let Some(peer) = self.peers.get(&id) else { return Err(Refused::Unasked) };
        let learned = peer.learned.is_some_and(|at| now.saturating_duration_since(at) < NEWS);
        if last < newest && learned {
            self.consider_proof(now, id);
            return Err(Refused::Stale);
        }
        let held = peer.doubt.as_ref().and_then(|doubt| doubt.votes.get(&voter));
        if held.is_some_and(|held| held.stamp >= word.header.stamp) {
            return Err(Refused::Stale);
        }
        let named = self.is_watcher_of(&voter, &id);
        if !named && self.table.get(&voter).is_none() {
            return Err(Refused::Unasked);
        }
        // A watcher's first vote may only be late.
        let late = self.is_storm(now) && named && held.is_none();
        let asks = from.is_some() && peer.standing == Standing::Down && self.table.is_proven(&voter) && !late;
        let (bytes, stamp) = (word.bytes.clone(), word.header.stamp);
        let vote = Vote { bytes, stamp, record: record.seq, last, at: now };
        self.keep_vote(now, id, voter, vote);
        if asks && self.is_storm(now) {
            let alone = from.is_some_and(|from| !from.shared);
            self.answer_by_certificate(now, id, voter, alone);
        } else if asks {
            self.renew(now, id, true);
        }
        Ok(())
    }

    /// Somebody votes by an older record of `id` than ours, and our votes are worth nothing there: those who speak for `id`
    /// give it the one that it lacks.
    fn tell_record_of(&mut self, now: Instant, id: &MemberId, voter: MemberId) {
        if !self.speaks_for(id) {
            return;
        }
        let record = self.table.record(id);
        if let Some(bytes) = record.map(|said| said.bytes.clone()) {
            self.answer_with(now, voter, *id, bytes);
        }
    }

    pub(super) fn is_watcher_of(&self, watcher: &MemberId, id: &MemberId) -> bool {
        self.named_by(id).contains(watcher)
    }

    /// Whose vote about `id` may be dropped for another, where there are many.
    fn voter_that_is_gone(&self, id: &MemberId) -> Option<MemberId> {
        let doubt = self.peers.get(id)?.doubt.as_ref()?;
        let mut voters = doubt.votes.keys().filter(|_| doubt.votes.len() >= VOTES_KEPT_MAX);
        let there = |voter: &MemberId| *voter == self.id() || self.table.get(voter).is_some();
        voters.find(|voter| !there(voter) || self.is_known_gone(voter)).copied()
    }

    fn keep_vote(&mut self, now: Instant, id: MemberId, voter: MemberId, vote: Vote) {
        let named = self.is_watcher_of(&voter, &id);
        let gone = self.voter_that_is_gone(&id);
        let late = self.is_wave_over(now);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let fresh = peer.doubt.is_none();
        let was_down = peer.standing == Standing::Down;
        self.looked.doubted = true;
        let doubt = peer.doubt.get_or_insert_with(|| {
            let votes = BTreeMap::new();
            Box::new(Doubt {
                since: now,
                votes,
                ready: None,
                certified: false,
                late,
                asked: false,
                number: 0,
            })
        });
        if !doubt.votes.contains_key(&voter)
            && doubt.votes.len() >= VOTES_KEPT_MAX
            && gone.is_none_or(|gone| doubt.votes.remove(&gone).is_none())
            && !named
        {
            return;
        }
        let is_first = doubt.votes.insert(voter, vote).is_none();
        if fresh && named && voter != self.id() {
            self.note_accused(now);
        }
        if was_down && is_first {
            self.tell_vote(&id, &voter);
        }
        if self.judge(now, &id).is_some() {
            self.consider(now, id);
        } else if fresh {
            self.consider_at(now + SHOWN_AFTER, id);
        }
    }
}

impl Entry {
    /// The newest of its record and its pulse.
    #[must_use]
    pub fn newest(&self) -> Option<Stamp> {
        let record = self.record.as_ref().map(|said| said.stamp);
        let pulse = self.pulse.as_ref().map(|said| said.stamp);
        record.max(pulse)
    }
}
