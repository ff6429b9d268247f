//! What our table lacks, found by comparing digests: the whole of another is fetched where a difference stays.
//!
//! Most differences end by themselves, for a word takes a moment to reach everybody, and a beacon may have been said before
//! it did. So one counts only once our own table has been as it is for a while.
//!
//! Source: NETWORK.md, section 7.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Membership, Timer};
use crate::member::MemberId;

/// A difference must last so long after our own last change. Required by DESIGN, section 5.
const LASTING: Duration = Duration::from_secs(1);
/// What others say of their tables so soon after ours changed is not compared: the same news has yet to reach them.
const UNDER_WAY: Duration = Duration::from_millis(300);
/// Where something changes all the time a table is fetched nevertheless after this.
const POSTPONED_MAX: Duration = Duration::from_secs(10);
/// Before a fetch one waits up to this, so that not all ask at once.
const SPREAD: Duration = Duration::from_millis(500);
/// Whoever agrees with most others waits up to so many times longer: the odd one out asks one member, and not all
/// members it at once.
const PATIENCE_MAX: u32 = 40;
/// Members for each time that. So the first of them asks after about two of their beacons.
const FOR_PATIENCE: usize = 12;
/// Beacons that wait unverified may show a difference and never its end: before one believes that most others differ, the
/// newest of so many is verified. A signature costs 40 µs.
const SAMPLE: usize = 16;
/// A member that brought nothing new is not asked again for this long, doubling up to 64 times.
const UNHELPFUL: Duration = Duration::from_secs(10);
/// Members remembered for that.
const REMEMBERED_MAX: usize = 256;

/// Who has another table than ours, and since when.
#[derive(Debug, Default)]
pub(super) struct Difference {
    since: Option<Instant>,
    /// When one of them is asked, or it is seen whether one has to be.
    due: Option<Instant>,
    /// At most so many differ, fewer than half: the odd one out was given time to ask.
    patient: Option<usize>,
    differing: BTreeMap<MemberId, u64>,
    /// Our digest, and when it became that.
    ours: Option<(u64, Instant)>,
    unhelpful: BTreeMap<MemberId, (Instant, u32)>,
}

impl Difference {
    pub(super) fn was_helpful(&mut self, id: &MemberId) {
        self.unhelpful.remove(id);
    }

    pub(super) fn was_unhelpful(&mut self, now: Instant, id: MemberId) {
        let times = self.unhelpful.get(&id).map_or(0, |(_, times)| (*times + 1).min(6));
        self.unhelpful.insert(id, (now + UNHELPFUL * 2_u32.pow(times), times));
        if self.unhelpful.len() > REMEMBERED_MAX {
            self.sweep(now);
        }
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        self.unhelpful.retain(|_, (until, _)| *until > now);
    }

    fn is_over(&mut self) {
        self.since = None;
        self.due = None;
        self.patient = None;
        self.differing.clear();
    }
}

impl Membership {
    /// What a member says of its table, against ours.
    pub(super) fn compare_digest(&mut self, now: Instant, id: MemberId, digest: u64) {
        if digest != self.settled_digest(now) {
            self.note_difference(now, id, digest);
            return;
        }
        self.difference.differing.remove(&id);
        if self.difference.differing.is_empty() {
            self.difference.is_over();
        }
    }

    /// What a beacon says that is not verified: it may show a difference, never the absence of one.
    pub(super) fn suppose_digest(&mut self, now: Instant, id: MemberId, digest: u64) {
        if digest != self.settled_digest(now) {
            self.note_difference(now, id, digest);
        }
    }

    /// Our digest. When it has changed, what others said before is compared no more.
    fn settled_digest(&mut self, now: Instant) -> u64 {
        let digest = self.digest();
        if self.difference.ours.is_none_or(|(last, _)| last != digest) {
            self.difference.ours = Some((digest, now));
            self.difference.differing.clear();
        }
        digest
    }

    /// Whether our table has just changed, so that what others say of theirs is not compared.
    pub fn is_news_under_way(&mut self, now: Instant) -> bool {
        self.settled_digest(now);
        self.difference.ours.is_some_and(|(_, at)| now < at + UNDER_WAY)
    }

    pub(super) fn note_difference(&mut self, now: Instant, id: MemberId, digest: u64) {
        if self.is_news_under_way(now) {
            return;
        }
        let difference = &mut self.difference;
        difference.differing.insert(id, digest);
        if difference.patient.is_some_and(|most| difference.differing.len() > most) {
            // The odd one out are we.
            difference.patient = None;
            difference.since = None;
        }
        if difference.since.is_none() {
            difference.since = Some(now);
            let wait = LASTING + self.up_to(SPREAD);
            self.catch_up_at(now + wait);
        }
    }

    /// Whatever was to happen before does not.
    fn catch_up_at(&mut self, at: Instant) {
        self.difference.due = Some(at);
        self.timers.arm(at, Timer::CatchUp);
    }

    /// The time has come to catch up, unless this was meant for a difference that is over, or that was given more time since.
    pub(super) fn catch_up_in_turn(&mut self, now: Instant) {
        if self.difference.due.take_if(|due| *due <= now).is_some() {
            self.catch_up(now);
        }
    }

    /// The difference has lasted: asks one of those who differ.
    pub(super) fn catch_up(&mut self, now: Instant) {
        self.settled_digest(now);
        let (since, ours) = (self.difference.since, self.difference.ours);
        let (Some(since), Some((_, changed))) = (since, ours) else { return };
        if self.joining.fetching.is_some() || self.leaving {
            // The next difference arms this anew.
            self.difference.is_over();
            return;
        }
        let lasted = changed + LASTING + self.beacon_period();
        if now < lasted && now < since + POSTPONED_MAX {
            let spread = self.up_to(SPREAD);
            self.catch_up_at(lasted.min(since + POSTPONED_MAX) + spread);
            return;
        }
        let there =
            self.peers.values().filter(|peer| !peer.standing.is_gone() && peer.heard.is_some()).count();
        if self.difference.patient.is_none() && self.estimate_differing(now) * 2 < there {
            self.difference.patient = Some(there / 2);
            let times = u32::try_from(there / FOR_PATIENCE).unwrap_or(u32::MAX).clamp(1, PATIENCE_MAX);
            let wait = self.rather_late(SPREAD * times, there);
            self.catch_up_at(now + wait);
            return;
        }
        let chosen = self.choose_differing(now);
        self.difference.is_over();
        let view = chosen.and_then(|id| self.peers.get(&id)).and_then(|peer| peer.view.clone());
        if let (Some(id), Some(view)) = (chosen, view) {
            self.wish(now, id, view.http_addresses.clone());
        }
    }

    /// A time before `most`, at random, so that of `among` that draw one a single one or a few are early, however many there are:
    /// the density grows with e^t.
    ///
    /// Source: J. Nonnenmacher, E. W. Biersack, "Scalable feedback for large groups", IEEE/ACM Transactions on Networking 7 (3), 1999.
    pub(super) fn rather_late(&mut self, most: Duration, among: usize) -> Duration {
        let growth = 1.0 + (among.max(1) as f64).ln();
        let drawn = rand::RngExt::random_range(&mut self.rng, 0.0..1.0);
        most.mul_f64((1.0 + drawn * growth.exp_m1()).ln() / growth)
    }

    /// One of those whose table differs by their own verified word.
    fn choose_differing(&mut self, now: Instant) -> Option<MemberId> {
        let mut candidates: Vec<MemberId> = std::mem::take(&mut self.difference.differing)
            .into_keys()
            .filter(|id| self.difference.unhelpful.get(id).is_none_or(|(until, _)| *until <= now))
            .filter(|id| {
                let view = self.peers.get(id).and_then(|peer| peer.view.as_ref());
                view.is_some_and(|view| !view.http_addresses.is_empty() && !view.standing.is_gone())
            })
            .collect();
        for _ in 0..candidates.len().min(SAMPLE) {
            let id = self.draw(&mut candidates);
            if self.differs(now, id) {
                return Some(id);
            }
        }
        None
    }

    /// How many have another table than ours, by what some of them say now. Drops those that have not.
    fn estimate_differing(&mut self, now: Instant) -> usize {
        let mut noted: Vec<MemberId> = self.difference.differing.keys().copied().collect();
        let sample = noted.len().min(SAMPLE);
        let mut differ = 0;
        for _ in 0..sample {
            let id = self.draw(&mut noted);
            if self.differs(now, id) {
                differ += 1;
            } else {
                self.difference.differing.remove(&id);
            }
        }
        // As many of the others, and those that were seen to.
        noted.len() * differ / sample.max(1) + differ
    }

    /// Takes one out of some, at random.
    fn draw(&mut self, ids: &mut Vec<MemberId>) -> MemberId {
        let at = rand::RngExt::random_range(&mut self.rng, 0..ids.len());
        ids.swap_remove(at)
    }

    /// Whether its table differs by its own verified word.
    fn differs(&mut self, now: Instant, id: MemberId) -> bool {
        self.settle_raw(now, id);
        let pulse = self.table.get(&id).and_then(|entry| entry.pulse.as_ref());
        pulse.is_some_and(|said| said.value.digest != self.digest())
    }
}
