//! How many second tries there may be: a share of the requests, so that a failing island is not made to carry more.

use std::time::Instant;

/// Tries that each request adds.
const PER_REQUEST: f64 = 0.2;
/// Tries that each second adds: an island with few requests may repeat all of them.
const PER_SECOND: f64 = 10.0;
/// What is saved up: ten seconds' worth at 500 requests a second.
const SAVED_MAX: f64 = 1_100.0;

/// The tries that are left.
#[derive(Debug)]
pub(super) struct RetryBudget {
    saved: f64,
    filled: Instant,
}

impl RetryBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self { saved: 10.0 * PER_SECOND, filled: now }
    }

    /// A first try was made.
    pub(super) fn request(&mut self, now: Instant) {
        self.fill(now);
        self.saved = (self.saved + PER_REQUEST).min(SAVED_MAX);
    }

    /// Whether one more try may be made; it is then counted.
    pub(super) fn retry(&mut self, now: Instant) -> bool {
        self.fill(now);
        let may = self.saved >= 1.0;
        if may {
            self.saved -= 1.0;
        }
        may
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.saved = (self.saved + passed * PER_SECOND).min(SAVED_MAX);
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_fifth_of_the_requests_may_be_repeated_and_ten_a_second_besides() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(start);
        assert_eq!((0..1000).filter(|_| budget.retry(start)).count(), 100);
        (0..1000).for_each(|_| budget.request(start));
        assert_eq!((0..1000).filter(|_| budget.retry(start)).count(), 200);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| budget.retry(later)).count(), 10);
    }
}
