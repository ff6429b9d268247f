//! How many second tries there may be: a fifth of the requests, so that a failing island is not made to carry more, and ten
//! a second, so that an island with few requests may repeat all of them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over which time is counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Tries in a window whatever the traffic. A pure share starves at low volume (envoy-mobile #811).
const FLOOR: u32 = 100;
/// One try for so many requests.
const REQUESTS_PER_TRY: u32 = 5;

/// Requests and second tries of the last ten seconds, by the second.
#[derive(Debug)]
pub(super) struct RetryBudget {
    started: Instant,
    /// The newest last.
    seconds: VecDeque<Second>,
}

#[derive(Clone, Copy, Debug)]
struct Second {
    number: u64,
    requests: u32,
    tries: u32,
}

impl RetryBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self { started: now, seconds: VecDeque::new() }
    }

    /// A first try was made.
    pub(super) fn request(&mut self, now: Instant) {
        let second = self.second(now);
        second.requests = second.requests.saturating_add(1);
    }

    /// Whether one more try may be made; it is then counted.
    pub(super) fn retry(&mut self, now: Instant) -> bool {
        self.second(now);
        let sum = |count: fn(&Second) -> u32| self.seconds.iter().map(count).fold(0, u32::saturating_add);
        let allowed = (sum(|second| second.requests) / REQUESTS_PER_TRY).saturating_add(FLOOR);
        let may = sum(|second| second.tries) < allowed;
        if may {
            self.second(now).tries += 1;
        }
        may
    }

    fn second(&mut self, now: Instant) -> &mut Second {
        let number = now.saturating_duration_since(self.started).as_secs();
        while self.seconds.front().is_some_and(|second| second.number + WINDOW.as_secs() <= number) {
            self.seconds.pop_front();
        }
        if self.seconds.back().is_none_or(|second| second.number < number) {
            self.seconds.push_back(Second { number, requests: 0, tries: 0 });
        }
        self.seconds.back_mut().expect("pushed above if it was empty")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_requests_may_be_repeated_and_ten_a_second_besides() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(start);
        let tries = |budget: &mut RetryBudget, now| (0..10_000).filter(|_| budget.retry(now)).count();
        assert_eq!(tries(&mut budget, start), 100);
        let later = start + Duration::from_secs(3);
        (0..1000).for_each(|_| budget.request(later));
        assert_eq!(tries(&mut budget, later), 200);
        let first_forgotten = start + Duration::from_secs(11);
        assert_eq!(tries(&mut budget, first_forgotten), 100);
        assert!(budget.seconds.len() <= 10);
    }
}
