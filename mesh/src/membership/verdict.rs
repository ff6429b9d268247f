//! Who is down: votes are counted by everybody for itself.
//!
//! Whoever hears the accused itself believes its own ears: votes count only where nothing was heard for a while, and a
//! verdict waits for the answers to two more questions.
//!
//! Source: NETWORK.md, "Votes and certificates".

use std::time::{Duration, Instant};

use rand::RngExt;

use super::peer::marks;
use super::votes::{Doubt, Vote};
use super::{Membership, Timer};
use crate::event::EventKind;
use crate::member::{MemberId, Reason, Record, Stamp, Standing};

/// A certificate takes effect after this, unless a newer word comes first. Required by DESIGN, section 5.
const EFFECT_AFTER: Duration = Duration::from_millis(50);
/// Votes count nothing at whoever heard the accused itself within this.
const OWN_EARS: Duration = Duration::from_millis(250);
/// So many that heard it and whose questions failed decide without watchers. Required by DESIGN, section 5.
const UNILATERAL: usize = 3;
/// A vote that is not said again is forgotten after this.
const VOTE_KEPT: Duration = Duration::from_secs(5);
/// A doubt is looked at again this often.
const CONSIDER_EVERY: Duration = Duration::from_millis(500);
/// In a storm a doubt that lasts longer is one's own: others have heard more. Those who decide are asked after this and
/// up to so much more, all others later.
const ASK_WATCHERS_AFTER: Duration = Duration::from_millis(800);
const ASK_WATCHERS_SPREAD: Duration = Duration::from_millis(200);
const ASK_AFTER: Duration = Duration::from_millis(1_100);
/// Whoever asked before that has been answered, or nobody can.
const ANSWERED_WITHIN: Duration = Duration::from_millis(700);
/// In a storm one of so many asks the accused itself.
const ONE_ASKS_OF: u32 = 16;

/// How many of so many watchers that count decide. Required by DESIGN, section 5.
fn quorum_of(living: usize) -> usize {
    match living {
        0 | 1 => living,
        2..=4 => 2,
        _ => 3,
    }
}

/// How a verdict came about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Enough of its watchers.
    Certified,
    /// Enough others, for want of watchers.
    Unilateral,
}

impl Membership {
    pub(super) fn consider_at(&mut self, at: Instant, id: MemberId) {
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
    pub(super) fn consider(&mut self, now: Instant, id: MemberId) {
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
            if verdict == Some(Verdict::Certified) {
                self.is_certified_by_now(now, id);
            }
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let heard = peer.was_heard_within(now, OWN_EARS);
        if standing == Standing::Alive && !heard && (verdict.is_some() || !peer.mute) {
            peer.standing = Standing::Suspect;
            peer.since = now;
            self.publish(now, id, Some(EventKind::Suspect));
            if self.do_many_fall(now) && self.record.watchers.contains(&id) {
                // Another takes its place soon, if it has not been heard by then.
                self.choose_watchers_soon(now);
            }
        }
        let Some(verdict) = verdict else {
            if let Some(doubt) = self.peers.get_mut(&id).and_then(|peer| peer.doubt.as_mut()) {
                doubt.ready = None;
            }
            self.ask_by_vote(now, id);
            let again = self.next_doubt(now, id);
            self.consider_at(again, id);
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
            self.ask_before_verdict(now, id);
            self.certify_soon(now, id);
        }
        self.consider_at(ready + EFFECT_AFTER, id);
    }

    /// The accused is asked once more before the votes count. In a storm by those it names as watchers and by few others: it hears
    /// the votes and answers them to all.
    fn ask_before_verdict(&mut self, now: Instant, id: MemberId) {
        if !self.is_storm(now) {
            self.ask(now, id, 2, Duration::from_millis(20));
        } else if self.rng.random_ratio(1, ONE_ASKS_OF) || self.is_watcher_of(&self.id(), &id) {
            self.ask(now, id, 1, Duration::from_millis(20));
        }
    }

    /// In a storm votes are said twice at most, and no certificate. Whoever has heard some and no word of the accused since asks
    /// those who decide, and if that leads to nothing votes, too, unless others have: whoever has enough votes answers with those.
    fn ask_by_vote(&mut self, now: Instant, id: MemberId) {
        let Some(peer) = self.peers.get(&id).filter(|_| self.is_storm(now)) else { return };
        let Some(doubt) = peer.doubt.as_ref() else { return };
        let ours = doubt.votes.get(&self.identity.id()).map(|vote| vote.at);
        let lately = ours.is_some_and(|at| now.saturating_duration_since(at) < CONSIDER_EVERY);
        let lasts = now.saturating_duration_since(Self::doubted_since(doubt));
        // What those were answered may have yet to reach us.
        let is_recent = |vote: &&Vote| now.saturating_duration_since(vote.at) < ANSWERED_WITHIN;
        let others_ask = self.votes_besides_watchers(doubt, &id).filter(is_recent).count() >= UNILATERAL;
        if peer.last_sign() >= doubt.since || self.is_in_doubt(now) {
            return;
        }
        let (asked, voted) = (doubt.asked, ours.is_some());
        if lasts >= self.patience_with_watchers(now, &id, doubt) && !voted && self.is_substitute_for(&id) {
            self.vote_once(now, id);
        } else if lasts >= ASK_WATCHERS_AFTER && !asked {
            self.ask_watchers(now, id);
            if let Some(doubt) = self.peers.get_mut(&id).and_then(|peer| peer.doubt.as_mut()) {
                doubt.asked = true;
            }
        } else if lasts >= ASK_AFTER && !lately && !others_ask {
            self.vote_once(now, id);
        }
    }

    /// Since when somebody may have been in this doubt.
    fn doubted_since(doubt: &Doubt) -> Instant {
        let before = if doubt.late { ASK_WATCHERS_AFTER } else { Duration::ZERO };
        doubt.since.checked_sub(before).unwrap_or(doubt.since)
    }

    /// When a doubt without a verdict is looked at again. In a storm not by all at once: of those who ask a few are enough.
    fn next_doubt(&mut self, now: Instant, id: MemberId) -> Instant {
        if !self.is_storm(now) {
            return now + CONSIDER_EVERY;
        }
        let doubt = self.peers.get(&id).and_then(|peer| peer.doubt.as_ref());
        let Some(doubt) = doubt else { return now + CONSIDER_EVERY };
        let (since, asked) = (Self::doubted_since(doubt), doubt.asked);
        let undecided = since + self.patience_with_watchers(now, &id, doubt);
        if now < undecided && undecided < since + ASK_WATCHERS_AFTER {
            return undecided;
        }
        if !asked {
            return now.max(since + ASK_WATCHERS_AFTER) + self.up_to(ASK_WATCHERS_SPREAD);
        }
        let spread = self.up_to(CONSIDER_EVERY / 2);
        (since + ASK_AFTER).max(now + CONSIDER_EVERY / 2) + spread
    }

    /// Its watchers have come to agree on somebody whom others gave up without them: who is far away believes only them.
    fn is_certified_by_now(&mut self, now: Instant, id: MemberId) {
        let unilateral = |peer: &&mut super::Peer| peer.verdict == Some(Reason::Unilateral);
        let Some(peer) = self.peers.get_mut(&id).filter(unilateral) else { return };
        peer.verdict = Some(Reason::NoAnswer);
        self.publish(now, id, None);
        if let Some(bytes) = self.certificate(&id) {
            self.tell_down(&id, &bytes);
        }
    }

    /// Whether the votes suffice, by what we know of their voters.
    pub(super) fn judge(&self, now: Instant, id: &MemberId) -> Option<Verdict> {
        let peer = self.peers.get(id)?;
        let doubt = peer.doubt.as_ref()?;
        let record = &self.table.get(id)?.record.as_ref()?.value;
        if peer.was_heard_within(now, OWN_EARS) {
            return None;
        }
        if let Some((voted, needed)) = self.votes_of_watchers(now, id, doubt, record) {
            return (voted >= needed).then_some(Verdict::Certified);
        }
        let voters = self.sound_voters(doubt);
        let needed = self.undoubted_besides(id, peer.heard.is_some()).clamp(1, UNILATERAL);
        (voters >= needed).then_some(Verdict::Unilateral)
    }

    /// How many of its watchers have voted, and how many are needed; `None` where anybody decides, for they are all gone or do
    /// not agree for long.
    fn votes_of_watchers(
        &self,
        now: Instant,
        id: &MemberId,
        doubt: &Doubt,
        record: &Record,
    ) -> Option<(usize, usize)> {
        let (voted, needed) = (self.named_voters(doubt, record).count(), self.quorum_among(&record.watchers));
        (needed > 0 && (voted >= needed || !self.is_undecided(now, id, doubt))).then_some((voted, needed))
    }

    /// How many votes decide of these watchers: of those that are not known to be gone. 0: all are.
    pub(super) fn quorum_among(&self, watchers: &[MemberId]) -> usize {
        quorum_of(self.living_watchers(watchers))
    }

    /// Whether our vote about `id` counts and there are no more than suffice.
    pub(super) fn needs_our_vote(&self, now: Instant, id: &MemberId) -> bool {
        let Some(doubt) = self.peers.get(id).and_then(|peer| peer.doubt.as_ref()) else { return false };
        let Some(record) = self.table.record(id).map(|said| &said.value) else { return false };
        match self.votes_of_watchers(now, id, doubt, record) {
            Some((voted, needed)) => voted <= needed && record.watchers.contains(&self.id()),
            None => doubt.votes.len() <= UNILATERAL,
        }
    }

    /// The watchers named in this record that have voted and are there still.
    fn named_voters<'a>(&self, doubt: &Doubt, record: &'a Record) -> impl Iterator<Item = &'a MemberId> {
        record.watchers.iter().filter(|id| doubt.votes.contains_key(*id) && !self.is_known_gone(id))
    }

    /// How many of those who voted are there still, and no mere claims.
    fn sound_voters(&self, doubt: &Doubt) -> usize {
        let counts = |voter: &&MemberId| {
            let proven = self.table.is_proven(voter);
            **voter == self.id() || proven && !self.is_known_gone(voter)
        };
        doubt.votes.keys().filter(counts).count()
    }

    /// Whether somebody who comes now may not believe that `id` is down, and our own vote would help.
    pub(super) fn is_short_of_votes(&self, now: Instant, id: &MemberId) -> bool {
        match (self.judge(now, id), self.peers.get(id).and_then(|peer| peer.doubt.as_ref())) {
            (_, None) | (Some(Verdict::Certified), _) => false,
            (None, Some(_)) => true,
            (Some(Verdict::Unilateral), Some(doubt)) => {
                let ours = self.id();
                let counts = self.sound_voters(doubt) < UNILATERAL || self.is_watcher_of(&ours, id);
                counts && !doubt.has_vote_of(&ours)
            }
        }
    }

    /// How many are there whom nobody doubts and who may have heard `id`; counted up to [`UNILATERAL`].
    fn undoubted_besides(&self, id: &MemberId, heard_by_us: bool) -> usize {
        let there = |(other, peer): &(&MemberId, &super::Peer)| {
            let alive = *other != id && peer.standing == Standing::Alive && !peer.mute;
            alive && self.table.is_proven(other)
        };
        usize::from(heard_by_us) + self.peers.iter().filter(there).take(UNILATERAL).count()
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
            self.tell_down(&id, &bytes);
        }
        self.watcher_fell(now, id);
        self.renew(now, id, false);
    }

    /// Votes are counted again where `fallen` was a watcher or a voter, and where it watched us another takes its place.
    /// O(members).
    pub(super) fn watcher_fell(&mut self, now: Instant, fallen: MemberId) {
        if self.record.watchers.contains(&fallen) {
            self.choose_watchers_soon(now);
        }
        let mark = marks([&fallen]);
        let names = |peer: &super::Peer| {
            if peer.named & mark == 0 {
                return false;
            }
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
        let held_by_it = |peer: &super::Peer| {
            peer.standing == Standing::Down
                && peer.doubt.as_ref().is_some_and(|doubt| doubt.has_vote_of(&fallen))
        };
        let held: Vec<MemberId> =
            self.peers.iter().filter(|(_, peer)| held_by_it(peer)).map(|(id, _)| *id).collect();
        for id in held {
            self.renew(now, id, false);
        }
    }

    /// A newer word of `id`, which reached us at `at`: what was said before it counts no more. `direct`: heard by ourselves.
    pub(super) fn life_sign(&mut self, now: Instant, id: MemberId, stamp: Stamp, direct: bool, at: Instant) {
        let own = self.id();
        let proven = self.table.is_proven(&id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.learned = peer.learned.max(Some(at));
        let was_mute = peer.mute;
        if direct {
            peer.mute = false;
            // One word may be an old one, said again; the answer to our question is not.
            peer.asking = peer.asking.take().filter(|_| !proven);
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
    pub(super) fn acquit(&mut self, now: Instant, id: MemberId) {
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
            self.tell_refuted(&id);
        }
        self.publish(now, id, Some(EventKind::Back));
        self.reconsider_watching(now, id);
        self.choose_watchers_soon(now);
    }
}
