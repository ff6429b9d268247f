//! What a bridge of our own island knows of others and we do not: fetched from it when its beacon says another digest.
//!
//! Of each bridge it is remembered how far we have read. One that says what we knew ourselves a moment ago lacks something
//! and is not asked; one that brought nothing new is left in peace for a while. Bridges do not wait for each other's next
//! beacon: on a long way between islands these waits would add up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::super::{FarFetch, Membership, Timer};
use super::BRIDGE;
use crate::far::{FarTransfer, FarWord};
use crate::member::MemberId;

/// Before a fetch one waits up to this, so that not all ask at once. Required by DESIGN, section 6.
const SPREAD: Duration = Duration::from_millis(200);
/// The same between bridges, of which there are few.
const SPREAD_OF_BRIDGES: Duration = Duration::from_millis(10);
/// A bridge that brought nothing new is not asked again for this long, doubling. Often it only said its beacon before
/// urgent words made us equal, so the first wait is as short as a beacon's: others hang on what it says next.
const UNHELPFUL: Duration = Duration::from_millis(200);
const UNHELPFUL_MAX: Duration = Duration::from_secs(640);
/// A tenth of that, if it says yet another digest by then: it has learned something.
const CHANGED: u32 = 10;
/// Bridges that are asked at once, and that are remembered.
const ASKED_MAX: usize = 16;
const REMEMBERED_MAX: usize = 256;
/// So many of the digests that we had last are remembered. Guessed: a few seconds of one change after another.
const HAD_MAX: usize = 64;
/// For so long: nobody's next beacon takes longer. Later a bridge that says what we had has come back to it, as when somebody
/// turns out to live.
const HAD_FOR: Duration = Duration::from_secs(5);
/// A bridge tells the others of its island that it has learned something, this often at most. Guessed.
const TOLD_EVERY: Duration = Duration::from_millis(50);

/// Whom we ask, and how far we have read.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    pub(super) wishes: VecDeque<FarFetch>,
    /// Bridges about to be asked, and being asked.
    asked: BTreeSet<MemberId>,
    /// What a bridge has said while it was asked.
    again: BTreeMap<MemberId, u64>,
    /// The digests that we had, since when, since somebody was last taken out.
    had: VecDeque<(Instant, u64)>,
    /// When other bridges were last told that we have learned something, and whether they are about to be.
    told: Option<Instant>,
    telling: bool,
    /// A part of what one has brought is taken in.
    merging: bool,
    cursors: BTreeMap<MemberId, (u64, u64)>,
    unhelpful: BTreeMap<MemberId, Unhelpful>,
}

#[derive(Debug)]
struct Unhelpful {
    since: Instant,
    wait: Duration,
    /// What it said of its table then.
    digest: u64,
}

impl Pulls {
    pub(super) fn forget(&mut self, id: &MemberId) {
        self.asked.remove(id);
        self.again.remove(id);
        self.cursors.remove(id);
        self.unhelpful.remove(id);
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        self.unhelpful.retain(|_, unhelpful| now < unhelpful.since + 2 * unhelpful.wait);
    }

    /// Whether we had this digest until a moment ago.
    fn has_had(&self, now: Instant, digest: u64) -> bool {
        let ends = self.had.iter().skip(1).map(|(since, _)| *since).chain([now]);
        let mut had = self.had.iter().zip(ends);
        had.any(|((_, had), end)| *had == digest && now.saturating_duration_since(end) < HAD_FOR)
    }

    fn may_ask(&self, now: Instant, id: &MemberId, digest: u64) -> bool {
        self.unhelpful.get(id).is_none_or(|unhelpful| {
            let wait = if unhelpful.digest == digest { unhelpful.wait } else { unhelpful.wait / CHANGED };
            now >= unhelpful.since + wait
        })
    }

    fn was_unhelpful(&mut self, now: Instant, id: MemberId, digest: u64) {
        let last = self.unhelpful.get(&id);
        if last.is_some_and(|last| last.digest == digest) {
            // All of it next time: something that we have lost since may have been read already.
            self.cursors.remove(&id);
        }
        let wait = last.map_or(UNHELPFUL, |last| (last.wait * 2).min(UNHELPFUL_MAX));
        if self.unhelpful.len() < REMEMBERED_MAX || self.unhelpful.contains_key(&id) {
            self.unhelpful.insert(id, Unhelpful { since: now, wait, digest });
        }
    }
}

impl Membership {
    /// What a bridge says that it knows of other islands, against what we know. It need not be verified yet.
    pub(in crate::membership) fn compare_far(&mut self, now: Instant, id: MemberId, digest: u64) {
        let pulls = &mut self.abroad.pulls;
        if digest == self.abroad.far.digest() || pulls.has_had(now, digest) {
            pulls.unhelpful.remove(&id);
            return;
        }
        // Halfway through what one bridge knows, all others seem to know more.
        if pulls.merging || pulls.asked.contains(&id) {
            if pulls.again.len() < ASKED_MAX || pulls.again.contains_key(&id) {
                pulls.again.insert(id, digest);
            }
            return;
        }
        if pulls.asked.len() >= ASKED_MAX || !pulls.may_ask(now, &id, digest) {
            return;
        }
        pulls.asked.insert(id);
        let wait = self.up_to(if self.is_bridge() { SPREAD_OF_BRIDGES } else { SPREAD });
        self.timers.arm(now + wait, Timer::PullFar(id));
    }

    /// Asks this bridge, if its own verified word still differs.
    pub(in crate::membership) fn pull_far(&mut self, now: Instant, id: MemberId) {
        self.settle_raw(now, id);
        let view =
            self.peers.get(&id).filter(|peer| !peer.standing.is_gone()).and_then(|peer| peer.view.clone());
        let there = view.filter(|view| view.has_role(BRIDGE) && !view.http_addresses.is_empty());
        let is_news =
            |digest: u64| digest != self.abroad.far.digest() && !self.abroad.pulls.has_had(now, digest);
        let differs = self.far_digest_of(&id).is_some_and(is_news);
        let Some(view) = there.filter(|_| differs && !self.leaving) else {
            self.abroad.pulls.asked.remove(&id);
            self.abroad.pulls.again.remove(&id);
            return;
        };
        let (instance, since) = self.abroad.pulls.cursors.get(&id).copied().unwrap_or_default();
        let at = view.http_addresses.clone();
        self.abroad.pulls.wishes.push_back(FarFetch { from: id, at, instance, since });
    }

    fn far_digest_of(&self, id: &MemberId) -> Option<u64> {
        self.table.get(id)?.pulse.as_ref()?.value.far
    }

    /// The next wish for what a bridge knows.
    pub fn poll_far_fetch(&mut self) -> Option<FarFetch> {
        self.abroad.pulls.wishes.pop_front()
    }

    /// Takes in what a bridge of our own island knows of others, all at once: 20,000 words can be most of a second.
    pub fn merge_far(&mut self, now: Instant, from: MemberId, transfer: &FarTransfer) {
        let news = self.merge_far_some(now, from, &transfer.words);
        self.merge_far_done(now, from, (transfer.instance, transfer.through), news);
    }

    /// The same for a part of the words; gives how many were news. Then follows
    /// [`merge_far_done`](Self::merge_far_done).
    pub fn merge_far_some(&mut self, now: Instant, from: MemberId, words: &[FarWord]) -> usize {
        if self.leaving {
            return 0;
        }
        self.abroad.pulls.merging = true;
        let news = words.iter().filter(|heard| self.hear_far_word(now, from, heard).is_ok()).count();
        self.settle_far(now, Some(from));
        news
    }

    /// All words of the bridge `from` are taken in, up to this `cursor` (its instance and index); so many were news.
    pub fn merge_far_done(&mut self, now: Instant, from: MemberId, cursor: (u64, u64), news: usize) {
        self.abroad.pulls.merging = false;
        self.abroad.pulls.asked.remove(&from);
        if self.leaving {
            return;
        }
        let has_read = self.abroad.pulls.cursors.get(&from) != Some(&cursor);
        if news == 0 {
            let digest = self.far_digest_of(&from).unwrap_or_default();
            self.abroad.pulls.was_unhelpful(now, from, digest);
        } else {
            self.abroad.pulls.unhelpful.remove(&from);
        }
        // What was read and was no news came by another way: it need not be read again.
        let cursors = &mut self.abroad.pulls.cursors;
        if has_read && (cursors.len() < REMEMBERED_MAX || cursors.contains_key(&from)) {
            cursors.insert(from, cursor);
        }
        for (id, digest) in std::mem::take(&mut self.abroad.pulls.again) {
            self.compare_far(now, id, digest);
        }
    }

    /// What we know of other islands may have changed: `lost`, because somebody was taken out.
    pub(super) fn note_far_digest(&mut self, now: Instant, lost: bool) {
        let digest = self.abroad.far.digest();
        let pulls = &mut self.abroad.pulls;
        if lost {
            pulls.had.clear();
        }
        if pulls.had.back().is_some_and(|(_, had)| *had == digest) {
            return;
        }
        if pulls.had.len() == HAD_MAX {
            pulls.had.pop_front();
        }
        pulls.had.push_back((now, digest));
        if self.is_bridge() && !self.abroad.pulls.telling {
            let pulls = &mut self.abroad.pulls;
            pulls.telling = true;
            let at = pulls.told.map_or(now, |told| now.max(told + TOLD_EVERY));
            self.timers.arm(at, Timer::TellBridges);
        }
    }

    /// A beacon to the other bridges of our island, for it says that we have learned something.
    pub(in crate::membership) fn tell_bridges(&mut self, now: Instant) {
        self.abroad.pulls.telling = false;
        let own = self.id();
        let others: Vec<MemberId> =
            self.abroad.far.routes.bridges().map(|(id, _)| id).filter(|id| *id != own).collect();
        if others.is_empty() || self.leaving || self.record_said.is_none() {
            return;
        }
        self.abroad.pulls.told = Some(now);
        let bytes = self.signed_beacon(now);
        self.send_to_each(&others, &bytes);
    }

    /// A fetch came to nothing.
    pub fn far_fetch_failed(&mut self, now: Instant, from: MemberId) {
        self.abroad.pulls.asked.remove(&from);
        self.abroad.pulls.again.remove(&from);
        let digest = self.far_digest_of(&from).unwrap_or_default();
        self.abroad.pulls.was_unhelpful(now, from, digest);
    }
}
