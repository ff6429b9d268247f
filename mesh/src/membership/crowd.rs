//! Crowds: so many newcomers within a second that what is done for each of a few would drown all.
//!
//! A power cut ends and a thousand members start at once, or two halves of an island are plugged together. In a crowd a record
//! is said once, greetings and tables are left out, and questions wait; whoever missed a record notices it by its author's
//! next beacons, which come sooner than usual, and asks for that record alone. Whoever is here hears that there is one; a newcomer
//! is told with the answers to its first question.
//!
//! Source: NETWORK.md, "Crowds".

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Destination, Membership, Timer};

/// So many newcomers within [`WITHIN`] are a crowd, so many accused a storm. Smaller islands than this see neither.
const SURGE_MIN: u32 = 64;
const WITHIN: Duration = Duration::from_secs(1);
/// It has passed so long after the last that made it one.
const PASSED: Duration = Duration::from_secs(2);
/// So many who speak and are unknown are a group that has been here for longer, and that does not know us either.
pub(super) const GROUP_MIN: usize = 32;
/// Then everybody says its own record once more within this, but not more than once in [`INTRODUCED_EVERY`].
const INTRODUCED_WITHIN: Duration = Duration::from_millis(500);
/// They begin about as late as we.
const SKEW: Duration = Duration::from_millis(150);
const INTRODUCED_EVERY: Duration = Duration::from_secs(3);
/// In a crowd a record is said once. So many beacons follow within a beacon period: each is a third of a record's bytes, and
/// whoever has missed the record learns from one that it lacks it, and asks.
const REMINDERS: u8 = 5;
/// In a storm alone, where fewer are there to miss it.
const REMINDERS_IN_STORM: u8 = 4;
const REMIND_EACH_PERIODS: f64 = 0.13;
/// Where groups meet all say their records at once: then they are further apart, and the first comes when strangers are asked.
const REMIND_EACH_PERIODS_IN_GROUP: f64 = 0.33;

/// How often something has happened since the first time within [`WITHIN`].
#[derive(Debug, Default)]
pub(super) struct Tally(Option<(Instant, u32)>);

impl Tally {
    pub(super) fn count(&self, now: Instant) -> u32 {
        self.current(now).map_or(0, |(_, count)| count)
    }

    /// It happened once more.
    pub(super) fn note(&mut self, now: Instant) {
        let (since, count) = self.current(now).unwrap_or((now, 0));
        self.0 = Some((since, count.saturating_add(1)));
    }

    fn current(&self, now: Instant) -> Option<(Instant, u32)> {
        self.0.filter(|(since, _)| now.saturating_duration_since(*since) < WITHIN)
    }
}

/// Whether something happens often.
#[derive(Debug, Default)]
pub(super) struct Surge {
    lately: Tally,
    until: Option<Instant>,
}

impl Surge {
    /// It happened once more.
    pub(super) fn note(&mut self, now: Instant) {
        self.lately.note(now);
        if self.is_swelling(now) {
            self.lasts(now);
        }
    }

    /// It is, and will have been for a while.
    fn lasts(&mut self, now: Instant) {
        self.until = Some(now + PASSED);
    }

    pub(super) fn is_on(&self, now: Instant) -> bool {
        self.was_on_within(now, Duration::ZERO)
    }

    /// Whether it has happened often in the current second.
    pub(super) fn is_swelling(&self, now: Instant) -> bool {
        self.lately.count(now) >= SURGE_MIN
    }

    /// Whether it is, or was until then.
    pub(super) fn was_on_within(&self, now: Instant, length: Duration) -> bool {
        self.until.is_some_and(|until| now < until + length)
    }
}

/// Newcomers lately.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    newcomers: Surge,
    /// When we last said our record for a group of strangers.
    introduced: Option<Instant>,
}

impl Crowd {
    /// One more newcomer was heard.
    pub(super) fn note(&mut self, now: Instant) {
        self.newcomers.note(now);
    }

    /// Others have heard many newcomers.
    pub(super) fn is_told_of(&mut self, now: Instant) {
        self.newcomers.lasts(now);
    }

    pub(super) fn is_one(&self, now: Instant) -> bool {
        self.newcomers.is_on(now)
    }

    /// Whether we said our record for a group of strangers a moment ago.
    fn has_introduced_us(&self, now: Instant) -> bool {
        self.introduced.is_some_and(|at| now.saturating_duration_since(at) < INTRODUCED_EVERY)
    }

    /// Whether a group of strangers is being met now: its members say their records, as we do.
    pub(super) fn is_met(&self, now: Instant) -> bool {
        self.introduced.is_some_and(|at| now.saturating_duration_since(at) < INTRODUCED_WITHIN + SKEW)
    }
}

impl Membership {
    /// There is a group of strangers: says our record to them all, in our turn. A table for each of them that
    /// each of us fetched would cost a thousand times as much.
    pub(super) fn introduce_soon(&mut self, now: Instant) {
        // Whoever is only just joining is about to get the table of the group.
        if !self.joining.is_complete() || self.crowd.has_introduced_us(now) {
            return;
        }
        self.crowd.introduced = Some(now);
        let wait = self.up_to(INTRODUCED_WITHIN);
        self.timers.arm(now + wait, Timer::Introduce);
    }

    /// Our record once more, as it is.
    pub(super) fn introduce(&mut self, now: Instant) {
        if !self.leaving
            && let Some((_, bytes)) = self.record_said.clone()
        {
            let apart = self.reminders_apart(now);
            let begin = self.crowd.introduced.map_or(now, |at| at + INTRODUCED_WITHIN + SKEW + apart);
            let first = begin + self.up_to(apart);
            self.timers.arm(first, Timer::Remind(bytes.clone(), 1));
            self.watched.put_off_broadcast(first + self.beacon_period());
            self.send(Destination::Everyone, bytes);
        }
    }

    /// Whether many come or go at once, so that their records are not said three times.
    pub(super) fn is_crowded(&self, now: Instant) -> bool {
        self.crowd.is_one(now) || self.do_many_fall(now)
    }

    /// This record of ours was said: beacons are to follow it where there is a crowd. `turn`: which of them is the next.
    pub(super) fn remind_soon(&mut self, now: Instant, record: Bytes, turn: u8) {
        let apart = self.reminders_apart(now);
        self.timers.arm(now + apart, Timer::Remind(record, turn));
    }

    fn reminders_apart(&self, now: Instant) -> Duration {
        let in_group = self.crowd.has_introduced_us(now);
        let periods = if in_group { REMIND_EACH_PERIODS_IN_GROUP } else { REMIND_EACH_PERIODS };
        self.beacon_period().mul_f64(periods)
    }

    /// A beacon that tells of our record, if that is the newest and there is a crowd.
    pub(super) fn remind(&mut self, now: Instant, record: Bytes, turn: u8) {
        let names_watchers = !self.record.watchers.is_empty();
        if !names_watchers || !self.is_our_record(&record) || !self.is_crowded(now) {
            return;
        }
        let beacon = self.signed_beacon(now);
        self.broadcast(now, beacon, false);
        let most = if self.crowd.is_one(now) { REMINDERS } else { REMINDERS_IN_STORM };
        if turn < most {
            self.remind_soon(now, record, turn + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_within_a_second_are_a_surge_for_two_more() {
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut surge = Surge::default();
        for number in 0..63 {
            surge.note(after(number));
        }
        assert!(!surge.is_on(after(63)));
        surge.note(after(999));
        assert!(surge.is_on(after(999)) && surge.is_on(after(2_998)) && !surge.is_on(after(2_999)));
        let mut few = Surge::default();
        for number in 0..1_000 {
            few.note(after(number * 16));
            assert!(!few.is_on(after(number * 16)));
        }
    }
}
