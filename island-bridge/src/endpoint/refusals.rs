//! Which refusals are worth a line in the log: one a minute for each key.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isle_mesh::member::MemberId;

/// A key's refusals are logged so often at most.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Keys that are remembered. Keys cost a stranger nothing: with more of them in a minute the rest is not logged.
const KEYS_MAX: usize = 256;

/// When each key's refusal was last logged.
#[derive(Debug, Default)]
pub struct Refusals {
    logged: BTreeMap<MemberId, Instant>,
}

impl Refusals {
    /// Whether a refusal of `key` at `now` is to be logged; counts as logged if so.
    pub fn is_due(&mut self, now: Instant, key: MemberId) -> bool {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < LOG_INTERVAL;
        if self.logged.get(&key).is_some_and(is_recent) {
            return false;
        }
        if self.logged.len() >= KEYS_MAX && !self.logged.contains_key(&key) {
            self.logged.retain(|_, at| is_recent(at));
            if self.logged.len() >= KEYS_MAX {
                return false;
            }
        }
        self.logged.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> MemberId {
        MemberId(*blake3::hash(&number.to_be_bytes()).as_bytes())
    }

    #[test]
    fn each_key_is_logged_once_a_minute() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert!(refusals.is_due(now, key(1)) && refusals.is_due(now, key(2)));
        assert!(!refusals.is_due(now + Duration::from_secs(59), key(1)));
        assert!(refusals.is_due(now + LOG_INTERVAL, key(1)));
        assert!(!refusals.is_due(now + LOG_INTERVAL, key(1)));
    }

    #[test]
    fn a_flood_of_keys_fills_neither_log_nor_memory() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!((0..10_000).filter(|number| refusals.is_due(now, key(*number))).count(), KEYS_MAX);
        assert_eq!(refusals.logged.len(), KEYS_MAX);
        assert!(refusals.is_due(now + LOG_INTERVAL, key(10_001)));
        assert_eq!(refusals.logged.len(), 1);
    }
}
