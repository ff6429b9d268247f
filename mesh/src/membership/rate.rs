//! How much a source may make us work: a bucket of tokens for each address, asked before a signature is verified.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::verify::Refused;

/// Words of members not yet proven that one address may send: at once, and a second. A host that starts fifty
/// nodes at once stays below it; a signature costs 40 µs, so a flooder gets less than 1 % of a core. Guessed.
const BURST: f64 = 600.0;
const PER_SECOND: f64 = 200.0;
/// Addresses remembered. When full, newcomers share the strictest treatment: they wait for a sweep.
const ADDRESSES_MAX: usize = 4096;

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// The buckets of all addresses heard lately.
#[derive(Debug, Default)]
pub(super) struct Rates {
    buckets: BTreeMap<IpAddr, Bucket>,
}

impl Rates {
    /// Takes one token.
    ///
    /// # Errors
    /// `Rate` when there is none.
    pub(super) fn admit(&mut self, now: Instant, ip: IpAddr) -> Result<(), Refused> {
        if ip.is_loopback() {
            return Ok(());
        }
        if self.buckets.len() >= ADDRESSES_MAX && !self.buckets.contains_key(&ip) {
            return Err(Refused::Rate);
        }
        let bucket = self.buckets.entry(ip).or_insert(Bucket { tokens: BURST, filled: now });
        bucket.refill(now);
        if bucket.tokens < 1.0 {
            return Err(Refused::Rate);
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    /// Forgets those that are full again.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.buckets.retain(|_, bucket| {
            bucket.refill(now);
            bucket.tokens < BURST
        });
    }
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let passed: Duration = now.saturating_duration_since(self.filled);
        self.tokens = (self.tokens + passed.as_secs_f64() * PER_SECOND).min(BURST);
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flooder_is_held_to_its_rate_and_others_are_not() {
        let mut rates = Rates::default();
        let start = Instant::now();
        let (flooder, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let admitted = (0..10_000).filter(|_| rates.admit(start, flooder).is_ok()).count();
        assert_eq!(admitted, 600);
        assert!(rates.admit(start, other).is_ok());
        assert!(rates.admit(start + Duration::from_secs(1), flooder).is_ok());
        rates.sweep(start + Duration::from_secs(9));
        assert!(rates.buckets.is_empty());
    }
}
