//! How much strangers may make us work: a bucket of tokens for each address and one for all of them, asked before a
//! signature is verified.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use foldhash::quality::FixedState;

use crate::verify::Refused;

/// Words of members not yet proven that one address may send: at once, and a second. A host that starts fifty
/// nodes at once stays below it. Guessed.
const EACH: Limit = Limit { burst: 600.0, per_second: 200.0 };
/// What a newcomer says: it comes before what others say beyond this.
const FEW: Limit = Limit { burst: 32.0, per_second: 4.0 };
/// While so many words of all addresses together have not been made up for, no address may send more than a few.
const HELD_BACK: f64 = 1000.0;
/// Addresses remembered. When full, newcomers share the strictest treatment: they wait for a sweep.
const ADDRESSES_MAX: usize = 4096;

/// What all addresses may send together. A newcomer on a large island hears some words of each member before it has
/// proven it. A signature costs 40 to 60 µs, so beside a thousand members strangers get 4 % of a core for long.
fn limit_of_all(members: usize) -> Limit {
    let members = f64::from(u32::try_from(members).unwrap_or(u32::MAX));
    Limit { burst: 2000.0 + 8.0 * members, per_second: 200.0 + members / 2.0 }
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    burst: f64,
    per_second: f64,
}

/// What was taken of a limit and has not been made up for.
#[derive(Debug, Default)]
struct Bucket {
    taken: f64,
    /// As of then.
    at: Option<Instant>,
}

impl Bucket {
    /// Makes up for the time that has passed. Returns what is still taken.
    fn drain(&mut self, now: Instant, limit: Limit) -> f64 {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.taken = (self.taken - passed.as_secs_f64() * limit.per_second).max(0.0);
        self.at = Some(now);
        self.taken
    }

    /// Whether one more may be taken now.
    fn has_room(&mut self, now: Instant, limit: Limit) -> bool {
        self.drain(now, limit) + 1.0 <= limit.burst
    }
}

/// What one address has sent.
#[derive(Debug, Default)]
struct Heard {
    all: Bucket,
    /// Held to [`FEW`]; full when it sent more.
    few: Bucket,
}

/// The buckets of all addresses heard lately.
#[derive(Debug)]
pub(super) struct Rates {
    all: Bucket,
    addresses: HashMap<IpAddr, Heard, FixedState>,
}

impl Rates {
    /// `seed`: of its hashes, unknown to others.
    pub(super) fn new(seed: u64) -> Self {
        Self { all: Bucket::default(), addresses: HashMap::with_hasher(FixedState::with_seed(seed)) }
    }

    /// Takes one token of an address, on an island of so many members.
    ///
    /// # Errors
    /// `Rate` when there is none.
    pub(super) fn admit(&mut self, now: Instant, ip: IpAddr, members: usize) -> Result<(), Refused> {
        if ip.is_loopback() {
            return Ok(());
        }
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&ip) {
            return Err(Refused::Rate);
        }
        let limit = limit_of_all(members);
        let (all, own) = (&mut self.all, self.addresses.entry(ip).or_default());
        let (is_few, is_own) = (own.few.has_room(now, FEW), own.all.has_room(now, EACH));
        if !is_own || !all.has_room(now, limit) || (all.taken >= HELD_BACK && !is_few) {
            return Err(Refused::Rate);
        }
        own.few.taken += f64::from(u8::from(is_few));
        own.all.taken += 1.0;
        all.taken += 1.0;
        Ok(())
    }

    /// Forgets those that have made up for all they took.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.addresses.retain(|_, own| own.few.drain(now, FEW) > 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    #[test]
    fn a_flooder_is_held_to_its_rate_and_others_are_not() {
        let mut rates = Rates::new(7);
        let start = Instant::now();
        let admitted = (0..10_000).filter(|_| rates.admit(start, address(1), 10).is_ok()).count();
        assert_eq!(admitted, 600);
        assert!(rates.admit(start, address(2), 10).is_ok());
        assert!(rates.admit(start + Duration::from_secs(1), address(1), 10).is_ok());
        rates.sweep(start + Duration::from_secs(9));
        assert!(rates.addresses.is_empty());
    }

    #[test]
    fn many_flooders_share_what_all_may_send_and_leave_room_for_newcomers() {
        let mut rates = Rates::new(7);
        let start = Instant::now();
        let (mut flood, mut newcomers) = (0, 0);
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            for flooder in 0..16 {
                flood += u32::from(rates.admit(now, address(flooder), 1000).is_ok());
            }
            if millisecond % 500 == 0 {
                let newcomer = address(1000 + u32::try_from(millisecond).unwrap());
                newcomers += (0..10).filter(|_| rates.admit(now, newcomer, 1000).is_ok()).count();
            }
        }
        assert_eq!(newcomers, 200, "all that they say");
        assert!((7_000..9_000).contains(&flood), "{flood} in 10 s");
    }

    #[test]
    fn a_crowd_is_admitted_and_made_up_addresses_are_no_more_than_one() {
        let mut rates = Rates::new(7);
        let start = Instant::now();
        let mut said = |count: u32, words: u32| {
            let admit = |ip| rates.admit(start, address(ip), 0).is_ok();
            (0..count * words).map(|word| word % count).map(admit).filter(|admitted| *admitted).count()
        };
        assert_eq!(said(500, 4), 2000);
        assert_eq!(said(2_000, 4), 0);
    }
}
