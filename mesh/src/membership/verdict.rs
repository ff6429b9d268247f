//! Who is down: votes of a member's watchers, counted by everybody for itself.
//!
//! A vote names the record it is judged by and the last word its voter knows. A certificate is nothing but enough
//! votes, so it says the same to everybody who holds that record. Whoever hears the accused itself
//! believes its own ears: votes count only where nothing was heard for a while, and a verdict waits for the answers to two
//! more questions.
//!
//! Source: NETWORK.md, "Votes and certificates".

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Destination, Entry, Membership, Source, Timer};
use crate::event::EventKind;
use crate::member::{MemberId, Reason, Stamp, Standing};
use crate::verify::{Refused, Verified, Word};
use crate::wire::{Down, Message, Suspect, VOTES_MAX, limits::WATCHERS_MAX};

/// A doubt is shown after this: the accused answers sooner.
const SHOWN_AFTER: Duration = Duration::from_millis(30);
/// A certificate takes effect after this, unless a newer word comes first. Required by DESIGN, section 5.
const EFFECT_AFTER: Duration = Duration::from_millis(50);
/// Votes count nothing at whoever heard the accused itself within this.
const OWN_EARS: Duration = Duration::from_millis(250);
/// Whoever learned of a newer word within this refuses votes that do not know it.
const NEWS: Duration = Duration::from_millis(200);
/// Watchers that do not agree for so long are helped out. Required by DESIGN, section 5.
const UNDECIDED: Duration = Duration::from_secs(2);
/// So many that heard it and whose questions failed decide without watchers. Required by DESIGN, section 5.
const UNILATERAL: usize = 3;
/// A vote that is not said again is forgotten after this.
const VOTE_KEPT: Duration = Duration::from_secs(5);
/// Votes kept for one member: of its watchers, and of some others.
const VOTES_KEPT_MAX: usize = WATCHERS_MAX + 16;
/// A doubt is looked at again this often.
const CONSIDER_EVERY: Duration = Duration::from_millis(500);
/// A voter waits up to this before it says the certificate, perhaps another does.
const CERTIFY_WAIT: Duration = Duration::from_millis(20);
const CERTIFY_WAIT_IN_STORM: Duration = Duration::from_millis(900);
/// Copies of a vote and of a certificate. Required by DESIGN, section 5.
const VOTE_COPY: Duration = Duration::from_millis(30);
const CERTIFICATE_COPIES: [Duration; 2] = [Duration::from_millis(15), Duration::from_millis(40)];

/// A vote as it was heard.
#[derive(Clone, Debug)]
pub(super) struct Vote {
    bytes: Bytes,
    stamp: Stamp,
    last: Stamp,
    at: Instant,
}

/// What is said of a member that it is silent.
#[derive(Debug)]
pub(super) struct Doubt {
    since: Instant,
    votes: BTreeMap<MemberId, Vote>,
    /// Since when there are enough votes.
    ready: Option<Instant>,
    /// Somebody has said the certificate.
    certified: bool,
    /// Number of its timer: others are stale.
    number: u64,
}

impl Doubt {
    /// Whether watchers have not agreed for a while.
    pub(super) fn is_undecided(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= UNDECIDED
    }

    pub(super) fn has_vote_of(&self, id: &MemberId) -> bool {
        self.votes.contains_key(id)
    }
}

/// How a verdict came about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Enough of its watchers.
    Certified,
    /// Enough others, for want of watchers.
    Unilateral,
}

impl Membership {
    /// Says that `id` is silent, and asks it once more.
    pub(super) fn vote(&mut self, now: Instant, id: MemberId) {
        let Some((record, last)) = self.judged_by(&id) else { return };
        let Some(peer) = self.peers.get(&id) else { return };
        let silence = now.saturating_duration_since(peer.silent_since());
        let vote = Suspect {
            target: id,
            epoch: record.epoch,
            record_seq: record.seq,
            last_seq: last.seq,
            silence_ms: u32::try_from(silence.as_millis()).unwrap_or(u32::MAX),
        };
        let bytes = self.sign(&Message::Suspect(vote));
        let stamp = Stamp { epoch: self.identity.epoch(), seq: self.seq };
        self.counters.suspicions += 1;
        let mut others = vec![id];
        if let Some(said) = self.table.get(&id).and_then(|entry| entry.record.as_ref()) {
            let own = self.id();
            others.extend(said.value.watchers.iter().filter(|watcher| **watcher != own));
        }
        self.send_to_each(&others, &bytes);
        if !self.is_storm(now) {
            self.send(Destination::Everyone, bytes.clone());
            self.timers.arm(now + VOTE_COPY, Timer::VoteCopy(id, bytes.clone()));
        }
        self.ask(now, id, 3, Duration::from_millis(30));
        let own = self.id();
        self.keep_vote(now, id, own, Vote { bytes, stamp, last, at: now });
    }

    /// The second copy of our vote, if it still stands.
    pub(super) fn vote_copy(&mut self, id: MemberId, bytes: Bytes) {
        let own = self.id();
        let stands = self
            .peers
            .get(&id)
            .and_then(|peer| peer.doubt.as_ref())
            .and_then(|doubt| doubt.votes.get(&own))
            .is_some_and(|vote| vote.bytes == bytes);
        if stands && !self.leaving {
            self.send(Destination::Everyone, bytes);
        }
    }

    /// The record that names the watchers of `id`, and the newest word of it in that life.
    fn judged_by(&self, id: &MemberId) -> Option<(Stamp, Stamp)> {
        let entry = self.table.get(id).filter(|entry| !entry.has_left())?;
        let record = entry.record.as_ref()?.stamp;
        let newest = entry.newest()?;
        // A pulse of a life whose record we lack: there is nothing to judge by yet.
        (newest.epoch == record.epoch).then_some((record, newest))
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
                self.answer_with(now, voter, bytes);
            }
            return Err(Refused::Stale);
        }
        self.settle_raw(now, id);
        let Some((record, newest)) = self.judged_by(&id) else { return Err(Refused::Unasked) };
        if (vote.epoch, vote.record_seq) != (record.epoch, record.seq) {
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
        if !named && !self.table.get(&voter).is_some_and(|entry| entry.proven) {
            return Err(Refused::Unasked);
        }
        self.keep_vote(
            now,
            id,
            voter,
            Vote { bytes: word.bytes.clone(), stamp: word.header.stamp, last, at: now },
        );
        Ok(())
    }

    fn is_watcher_of(&self, watcher: &MemberId, id: &MemberId) -> bool {
        let record = self.table.get(id).and_then(|entry| entry.record.as_ref());
        record.is_some_and(|said| said.value.watchers.contains(watcher))
    }

    fn keep_vote(&mut self, now: Instant, id: MemberId, voter: MemberId, vote: Vote) {
        let named = self.is_watcher_of(&voter, &id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let fresh = peer.doubt.is_none();
        let doubt = peer.doubt.get_or_insert_with(|| {
            let votes = BTreeMap::new();
            Box::new(Doubt { since: now, votes, ready: None, certified: false, number: 0 })
        });
        if !named && !doubt.votes.contains_key(&voter) && doubt.votes.len() >= VOTES_KEPT_MAX {
            return;
        }
        doubt.votes.insert(voter, vote);
        if self.judge(now, &id).is_some() {
            self.consider(now, id);
        } else if fresh {
            self.consider_at(now + SHOWN_AFTER, id);
        }
    }

    fn consider_at(&mut self, at: Instant, id: MemberId) {
        self.watches += 1;
        let number = self.watches;
        if let Some(doubt) = self.peers.get_mut(&id).and_then(|peer| peer.doubt.as_mut()) {
            doubt.number = number;
            self.timers.arm(at, Timer::Consider(id, number));
        }
    }

    /// A doubt's timer.
    pub(super) fn consider_in_turn(&mut self, now: Instant, id: MemberId, number: u64) {
        let doubt = self.peers.get(&id).and_then(|peer| peer.doubt.as_ref());
        if doubt.is_some_and(|doubt| doubt.number == number) {
            self.settle_raw(now, id);
            self.consider(now, id);
        }
    }

    /// What the votes come to by now.
    fn consider(&mut self, now: Instant, id: MemberId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(doubt) = peer.doubt.as_mut() else { return };
        let standing = peer.standing;
        if standing != Standing::Down {
            doubt.votes.retain(|_, vote| now.saturating_duration_since(vote.at) < VOTE_KEPT);
        }
        if doubt.votes.is_empty() {
            self.acquit(now, id);
            return;
        }
        let verdict = self.judge(now, &id);
        if standing == Standing::Down {
            // Watchers have risen again, perhaps: a verdict stands until the member speaks.
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let heard = peer.was_heard_within(now, OWN_EARS);
        if standing == Standing::Alive && !heard && (verdict.is_some() || !peer.mute) {
            peer.standing = Standing::Suspect;
            peer.since = now;
            self.publish(now, id, Some(EventKind::Suspect));
        }
        let Some(verdict) = verdict else {
            if let Some(doubt) = self.peers.get_mut(&id).and_then(|peer| peer.doubt.as_mut()) {
                doubt.ready = None;
            }
            self.consider_at(now + CONSIDER_EVERY, id);
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let ever_heard = peer.heard.is_some();
        let Some(doubt) = peer.doubt.as_mut() else { return };
        let ready = *doubt.ready.get_or_insert(now);
        if now >= ready + EFFECT_AFTER || !ever_heard {
            self.go_down(now, id, verdict);
            return;
        }
        if ready == now {
            self.ask(now, id, 2, Duration::from_millis(20));
            self.certify_soon(now, id);
        }
        self.consider_at(ready + EFFECT_AFTER, id);
    }

    /// Whether the votes suffice, by what we know of their voters.
    fn judge(&self, now: Instant, id: &MemberId) -> Option<Verdict> {
        let peer = self.peers.get(id)?;
        let doubt = peer.doubt.as_ref()?;
        let record = &self.table.get(id)?.record.as_ref()?.value;
        if peer.was_heard_within(now, OWN_EARS) {
            return None;
        }
        let living = self.living_watchers(&record.watchers);
        let named =
            record.watchers.iter().filter(|id| doubt.votes.contains_key(*id) && !self.is_known_gone(id));
        let quorum = match living {
            0 => usize::MAX,
            1 => 1,
            2..=4 => 2,
            _ => 3,
        };
        if named.count() >= quorum {
            return Some(Verdict::Certified);
        }
        if living > 0 && !doubt.is_undecided(now) {
            return None;
        }
        let voters = doubt.votes.keys().filter(|voter| !self.is_known_gone(voter)).count();
        (voters >= self.undoubted_besides(id).min(UNILATERAL)).then_some(Verdict::Unilateral)
    }

    /// How many are there, ourselves included, whom nobody doubts; counted up to [`UNILATERAL`].
    fn undoubted_besides(&self, id: &MemberId) -> usize {
        let there = |(other, peer): &(&MemberId, &super::Peer)| {
            *other != id && peer.standing == Standing::Alive && peer.view.is_some() && !peer.mute
        };
        1 + self.peers.iter().filter(there).take(UNILATERAL).count()
    }

    fn go_down(&mut self, now: Instant, id: MemberId, verdict: Verdict) {
        let told = self.peers.get(&id).and_then(|peer| peer.told.filter(|_| peer.heard.is_none()));
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.standing == Standing::Alive {
            peer.standing = Standing::Suspect;
            peer.since = now;
            self.publish(now, id, Some(EventKind::Suspect));
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.standing = Standing::Down;
        peer.since = now;
        peer.asking = None;
        peer.watching = None;
        peer.verdict = Some(match verdict {
            Verdict::Certified => Reason::NoAnswer,
            Verdict::Unilateral => Reason::Unilateral,
        });
        // Of whom we were only told, others have known for longer: all are to forget it at about the same time.
        self.table.set_down(&id, Some(told.map_or(now, |told| told.min(now))), now);
        self.publish(now, id, Some(EventKind::Down));
        if let Some(bytes) = self.certificate(&id) {
            self.tell_the_deaf(&id, &bytes);
        }
        self.watcher_fell(now, id);
    }

    /// Votes are counted again where `fallen` was a watcher, and where it watched us another takes its place. O(members).
    pub(super) fn watcher_fell(&mut self, now: Instant, fallen: MemberId) {
        if self.record.watchers.contains(&fallen) {
            self.choose_watchers_soon(now);
        }
        let names = |peer: &super::Peer| {
            let view = peer.view.as_ref().filter(|_| !peer.standing.is_gone());
            view.is_some_and(|view| view.record.watchers.contains(&fallen))
        };
        let watched: Vec<MemberId> =
            self.peers.iter().filter(|(_, peer)| names(peer)).map(|(id, _)| *id).collect();
        for id in watched {
            self.reconsider_watching(now, id);
            if self.judge(now, &id).is_some() {
                self.consider_at(now, id);
            }
        }
    }

    /// A newer word of `id`: what was said before it counts no more. `direct`: heard by ourselves.
    pub(super) fn life_sign(&mut self, now: Instant, id: MemberId, stamp: Stamp, direct: bool) {
        let own = self.id();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.learned = Some(now);
        let was_mute = peer.mute;
        if direct {
            peer.mute = false;
            peer.asking = None;
            peer.unanswered = None;
        }
        let Some(doubt) = peer.doubt.as_mut() else {
            if was_mute && direct {
                self.publish(now, id, Some(EventKind::Updated));
            }
            return;
        };
        let accused = doubt.votes.contains_key(&own);
        doubt.votes.retain(|_, vote| !direct && vote.last >= stamp);
        let acquitted = doubt.votes.is_empty();
        if acquitted && accused {
            if direct {
                self.counters.false_suspicions += 1;
                // Others may have counted our vote and not hear the member.
                self.consider_proof(now, id);
            } else if let Some(peer) = self.peers.get_mut(&id) {
                peer.mute = true;
                self.withhold(now, id);
            }
        }
        let standing = self.peers.get(&id).map(|peer| peer.standing);
        if acquitted || standing == Some(Standing::Down) && self.judge(now, &id).is_none() {
            self.acquit(now, id);
        }
    }

    /// Nothing is said against `id` any more.
    fn acquit(&mut self, now: Instant, id: MemberId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.doubt = None;
        let was = peer.standing;
        if !matches!(was, Standing::Suspect | Standing::Down) {
            return;
        }
        peer.standing = Standing::Alive;
        peer.since = now;
        peer.verdict = None;
        if was == Standing::Down {
            peer.note_return(now);
            self.table.set_down(&id, None, now);
        }
        self.publish(now, id, Some(EventKind::Back));
        self.reconsider_watching(now, id);
        self.choose_watchers_soon(now);
    }

    /// The votes that `id` is down by, as one datagram.
    fn certificate(&mut self, id: &MemberId) -> Option<Bytes> {
        let doubt = self.peers.get(id)?.doubt.as_ref()?;
        let (named, others): (Vec<_>, Vec<_>) =
            doubt.votes.iter().partition(|(voter, _)| self.is_watcher_of(voter, id));
        let votes = named.into_iter().chain(others).map(|(_, vote)| vote.bytes.clone());
        let votes: Vec<Bytes> = votes.take(VOTES_MAX).collect();
        Some(self.sign(&Message::Down(Down { votes })))
    }

    fn certify_soon(&mut self, now: Instant, id: MemberId) {
        let own = self.id();
        let doubt = self.peers.get(&id).and_then(|peer| peer.doubt.as_ref());
        if doubt.is_some_and(|doubt| doubt.votes.contains_key(&own) && !doubt.certified) {
            let most = if self.is_storm(now) { CERTIFY_WAIT_IN_STORM } else { CERTIFY_WAIT };
            let wait = self.up_to(most);
            self.timers.arm(now + wait, Timer::Certify(id));
        }
    }

    /// Says the certificate, unless somebody has, or it no longer holds.
    pub(super) fn certify(&mut self, now: Instant, id: MemberId) {
        let open = self.peers.get(&id).and_then(|peer| peer.doubt.as_ref());
        if self.leaving || open.is_none_or(|doubt| doubt.certified || doubt.ready.is_none()) {
            return;
        }
        let Some(bytes) = self.certificate(&id) else { return };
        if let Some(doubt) = self.peers.get_mut(&id).and_then(|peer| peer.doubt.as_mut()) {
            doubt.certified = true;
        }
        self.send(Destination::Everyone, bytes.clone());
        if !self.is_storm(now) {
            for after in CERTIFICATE_COPIES {
                self.timers.arm(now + after, Timer::CertificateCopy(id, bytes.clone()));
            }
        }
    }

    /// Another copy of a certificate, if its member has not spoken meanwhile.
    pub(super) fn certificate_copy(&mut self, id: MemberId, bytes: Bytes) {
        if !self.leaving && self.peers.get(&id).is_some_and(|peer| peer.doubt.is_some()) {
            self.send(Destination::Everyone, bytes);
        }
    }

    /// A certificate: votes that may be news to us.
    pub(super) fn hear_down(&mut self, now: Instant, down: &Down) -> Result<(), Refused> {
        let mut outcome = Err(Refused::Stale);
        for bytes in &down.votes {
            let Some((voter, id)) = self.vote_in(bytes) else { return Err(Refused::Malformed) };
            let peer = self.peers.get_mut(&id);
            if let Some(doubt) = peer.and_then(|peer| peer.doubt.as_mut()) {
                let known = doubt.votes.get(&voter).is_some_and(|vote| vote.bytes == *bytes);
                if known {
                    continue;
                }
            }
            if self.is_known_gone(&id) {
                continue;
            }
            let word = self.verified(bytes.clone())?;
            if let Some(Message::Suspect(vote)) = word.message {
                let heard = self.hear_vote(now, None, &word, &vote);
                outcome = outcome.or(heard);
                if let Some(doubt) = self.peers.get_mut(&id).and_then(|peer| peer.doubt.as_mut()) {
                    doubt.certified |= doubt.ready.is_some();
                }
            }
        }
        outcome
    }

    /// Who votes about whom in these bytes, before anything of it is known to be true.
    fn vote_in(&self, bytes: &Bytes) -> Option<(MemberId, MemberId)> {
        let said = bytes.get(..bytes.len().checked_sub(crate::wire::SIGNATURE_BYTES)?)?;
        match crate::wire::decode(said).ok()? {
            (header, Some(Message::Suspect(vote))) => Some((header.author, vote.target)),
            _ => None,
        }
    }

    /// The votes of those that are down, for whoever fetches the table.
    pub(super) fn votes_in_force(&self, id: &MemberId) -> impl Iterator<Item = (&Bytes, Instant)> {
        let down = self.peers.get(id).filter(|peer| peer.standing == Standing::Down);
        let votes = down.and_then(|peer| peer.doubt.as_ref()).map(|doubt| doubt.votes.values());
        votes.into_iter().flatten().map(|vote| (&vote.bytes, vote.at))
    }

    /// The newest word that the votes about `id` know of.
    pub(super) fn last_known_to_votes(&self, id: &MemberId) -> Option<Stamp> {
        let doubt = self.peers.get(id)?.doubt.as_ref()?;
        doubt.votes.values().map(|vote| vote.last).max()
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
