//! When a configured link is tried again: soon, then more rarely, for ever.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The first wait: a bridge that restarts is back in about so long.
const WAIT_MIN: Duration = Duration::from_millis(50);

/// No wait is longer, so that a healed network carries again within about a second; an attempt is one datagram.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Waits are stretched or shortened by at most this part, so that the two ends do not call in step.
const JITTER: f64 = 0.2;

/// A link that was up for so long starts over with the shortest wait; one that breaks at once does not. Guessed.
const LASTED: Duration = Duration::from_secs(5);

/// The waits of one configured link.
#[derive(Debug)]
pub struct Redial {
    wait: Duration,
    up_at: Option<Instant>,
    rng: StdRng,
}

impl Redial {
    /// Of a link that has not been tried yet. `seed` decides the jitter.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { wait: WAIT_MIN, up_at: None, rng: StdRng::seed_from_u64(seed) }
    }

    /// The link is up.
    pub fn up(&mut self, now: Instant) {
        self.up_at = Some(now);
    }

    /// The attempt failed, or the link went down: when to try again. Between 40 ms and 1.2 s from now.
    pub fn next(&mut self, now: Instant) -> Instant {
        if self.up_at.take().is_some_and(|at| now.saturating_duration_since(at) >= LASTED) {
            self.wait = WAIT_MIN;
        }
        let stretch = self.rng.random_range(1.0 - JITTER..=1.0 + JITTER);
        let at = now + self.wait.mul_f64(stretch);
        self.wait = (self.wait * 2).min(WAIT_MAX);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next waits, in milliseconds.
    fn waits(redial: &mut Redial, now: Instant, count: usize) -> Vec<u128> {
        (0..count).map(|_| (redial.next(now) - now).as_millis()).collect()
    }

    #[test]
    fn waits_double_to_a_second_and_stay_there() {
        let now = Instant::now();
        for seed in 0..100 {
            let waits = waits(&mut Redial::new(seed), now, 50);
            for (wait, middle) in
                waits.into_iter().zip([50, 100, 200, 400, 800].into_iter().chain([1000; 45]))
            {
                assert!((middle * 8 / 10 - 1..=middle * 12 / 10).contains(&wait), "{wait} for {middle}");
            }
        }
    }

    #[test]
    fn two_links_do_not_call_in_step() {
        let now = Instant::now();
        assert_ne!(waits(&mut Redial::new(1), now, 9), waits(&mut Redial::new(2), now, 9));
    }

    #[test]
    fn only_a_link_that_lasted_starts_over() {
        let (mut redial, now) = (Redial::new(1), Instant::now());
        waits(&mut redial, now, 9);
        redial.up(now);
        let brief = now + LASTED - Duration::from_millis(1);
        assert!(redial.next(brief) - brief > Duration::from_millis(700));
        redial.up(now);
        let lasted = now + LASTED;
        assert!(redial.next(lasted) - lasted < Duration::from_millis(70));
        assert!(redial.next(lasted) - lasted > Duration::from_millis(70));
    }
}
