//! What a bridge of our own island knows of others and we do not: fetched from it when its beacon says another digest.
//!
//! Of each bridge it is remembered how far we have read. One that brought nothing new is left in peace for a while: it may
//! be the one who lacks something.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::super::{FarFetch, Membership, Timer};
use super::BRIDGE;
use crate::far::FarTransfer;
use crate::member::MemberId;

/// Before a fetch one waits up to this, so that not all ask at once. Required by DESIGN, section 6.
const SPREAD: Duration = Duration::from_millis(200);
/// A bridge that brought nothing new is not asked again for this long, doubling up to 64 times.
const UNHELPFUL: Duration = Duration::from_secs(10);
/// A tenth of that, if it says yet another digest by then: it has learned something.
const CHANGED: u32 = 10;
/// Bridges that are asked at once, and that are remembered.
const ASKED_MAX: usize = 16;
const REMEMBERED_MAX: usize = 256;

/// Whom we ask, and how far we have read.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    pub(super) wishes: VecDeque<FarFetch>,
    /// Bridges about to be asked, and being asked.
    asked: BTreeSet<MemberId>,
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
        self.cursors.remove(id);
        self.unhelpful.remove(id);
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        self.unhelpful.retain(|_, unhelpful| now < unhelpful.since + 2 * unhelpful.wait);
    }

    fn may_ask(&self, now: Instant, id: &MemberId, digest: u64) -> bool {
        self.unhelpful.get(id).is_none_or(|unhelpful| {
            let wait = if unhelpful.digest == digest { unhelpful.wait } else { unhelpful.wait / CHANGED };
            now >= unhelpful.since + wait
        })
    }

    fn was_unhelpful(&mut self, now: Instant, id: MemberId, digest: u64) {
        // All of it next time: something that we have lost since may have been read already.
        self.cursors.remove(&id);
        let wait = self.unhelpful.get(&id).map_or(UNHELPFUL, |last| (last.wait * 2).min(UNHELPFUL * 64));
        if self.unhelpful.len() < REMEMBERED_MAX || self.unhelpful.contains_key(&id) {
            self.unhelpful.insert(id, Unhelpful { since: now, wait, digest });
        }
    }
}

impl Membership {
    /// What a bridge says that it knows of other islands, against what we know. It need not be verified yet.
    pub(in crate::membership) fn compare_far(&mut self, now: Instant, id: MemberId, digest: u64) {
        let pulls = &self.abroad.pulls;
        if digest == self.abroad.far.digest()
            || pulls.asked.contains(&id)
            || pulls.asked.len() >= ASKED_MAX
            || !pulls.may_ask(now, &id, digest)
        {
            return;
        }
        self.abroad.pulls.asked.insert(id);
        let wait = self.up_to(SPREAD);
        self.timers.arm(now + wait, Timer::PullFar(id));
    }

    /// Asks this bridge, if its own verified word still differs.
    pub(in crate::membership) fn pull_far(&mut self, now: Instant, id: MemberId) {
        self.settle_raw(now, id);
        let view =
            self.peers.get(&id).filter(|peer| !peer.standing.is_gone()).and_then(|peer| peer.view.clone());
        let there = view.filter(|view| view.has_role(BRIDGE) && !view.http_addresses.is_empty());
        let differs = self.far_digest_of(&id).is_some_and(|digest| digest != self.abroad.far.digest());
        let Some(view) = there.filter(|_| differs && !self.leaving) else {
            self.abroad.pulls.asked.remove(&id);
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

    /// Takes in what a bridge of our own island knows of others.
    pub fn merge_far(&mut self, now: Instant, from: MemberId, transfer: &FarTransfer) {
        self.abroad.pulls.asked.remove(&from);
        if self.leaving {
            return;
        }
        let mut news = 0;
        for heard in &transfer.words {
            news += usize::from(self.hear_far_word(now, heard).is_ok());
        }
        self.settle_far(now, Some(from));
        if news == 0 {
            let digest = self.far_digest_of(&from).unwrap_or_default();
            self.abroad.pulls.was_unhelpful(now, from, digest);
            return;
        }
        self.abroad.pulls.unhelpful.remove(&from);
        if self.abroad.pulls.cursors.len() < REMEMBERED_MAX || self.abroad.pulls.cursors.contains_key(&from) {
            self.abroad.pulls.cursors.insert(from, (transfer.instance, transfer.through));
        }
    }

    /// A fetch came to nothing.
    pub fn far_fetch_failed(&mut self, now: Instant, from: MemberId) {
        self.abroad.pulls.asked.remove(&from);
        let digest = self.far_digest_of(&from).unwrap_or_default();
        self.abroad.pulls.was_unhelpful(now, from, digest);
    }
}
