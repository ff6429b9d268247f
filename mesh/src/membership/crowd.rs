//! Crowds: so many newcomers within a second that what is done for each of a few would drown all.
//!
//! A power cut ends and a thousand members start at once, or two halves of an island are plugged together. In a crowd a record's
//! copies are a second apart, greetings and tables are left out, and questions wait; whoever missed a record
//! notices it by its author's next beacon and asks for that record alone.
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
/// The copies of a record in a crowd come so late that most who missed it have asked by then.
const COPIES: u32 = 2;
const COPY_AFTER: Duration = Duration::from_secs(1);
/// Where many have fallen there is more room for them.
const COPY_AFTER_IN_STORM: Duration = Duration::from_millis(400);
const COPY_SPREAD: Duration = Duration::from_millis(300);
/// All of them have been sent after this.
pub(super) const COPIED_WITHIN: Duration = COPY_AFTER.saturating_mul(COPIES).saturating_add(COPY_SPREAD);

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
        if self.lately.count(now) >= SURGE_MIN {
            self.until = Some(now + PASSED);
        }
    }

    pub(super) fn is_on(&self, now: Instant) -> bool {
        self.was_on_within(now, Duration::ZERO)
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

    pub(super) fn is_one(&self, now: Instant) -> bool {
        self.newcomers.is_on(now)
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
        let lately = |at: Instant| now.saturating_duration_since(at) < INTRODUCED_EVERY;
        // Whoever is only just joining is about to get the table of the group.
        if !self.joining.is_complete() || self.crowd.introduced.is_some_and(lately) {
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
            self.copy_in_crowd(now, bytes.clone());
            self.send(Destination::Everyone, bytes);
        }
    }

    /// Whether many come or go at once, so that their records are not said three times.
    pub(super) fn is_crowded(&self, now: Instant) -> bool {
        self.crowd.is_one(now) || self.do_many_fall(now)
    }

    /// The copies of this record of ours that are said where there is a crowd.
    pub(super) fn copy_in_crowd(&mut self, now: Instant, bytes: Bytes) {
        let is_storm_alone = self.do_many_fall(now) && !self.crowd.is_one(now);
        let after = if is_storm_alone { COPY_AFTER_IN_STORM } else { COPY_AFTER };
        for turn in 1..=COPIES {
            let wait = after * turn + self.up_to(COPY_SPREAD);
            self.timers.arm(now + wait, Timer::CopyInCrowd(bytes.clone()));
        }
    }

    pub(super) fn send_copy_in_crowd(&mut self, bytes: Bytes) {
        if self.is_our_record(&bytes) {
            self.send(Destination::Everyone, bytes);
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
