//! Which member a request goes to: pure decisions over what was measured, no clock, no sockets.
//!
//! Of the members that may serve it two are drawn, and the one of lower cost wins: peak-EWMA of its latency x (our requests in
//! flight to it + 1) / its capacity. What others announce of their load is not compared: it is as old as its beacon, and
//! everybody would run to the same member.
//!
//! Source: DESIGN section 7; Mitzenmacher, "How useful is old information".
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use isle_mesh::member::MemberId;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// An estimate loses its weight over this time.
const DECAY: Duration = Duration::from_secs(10);
/// What a member without samples is thought to need: small, or newcomers would starve.
const FIRST_GUESS: Duration = Duration::from_millis(5);
/// A failure counts as if the answer had taken this long, else a member that fails fast attracts everybody.
const FAILURE: Duration = Duration::from_secs(5);
/// So many failures in a row put a member out.
const FAILURES_MAX: u32 = 5;
/// For this long, doubling with every further time, at most `OUT_MAX`; then one request probes it.
const OUT_MIN: Duration = Duration::from_secs(5);
const OUT_MAX: Duration = Duration::from_secs(60);

/// Somebody who may serve a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Who.
    pub id: MemberId,
    /// How many requests it takes at once; 0: it has not said.
    pub capacity: u32,
    /// To be chosen only when no other is there: not proven yet, or doubted.
    pub last: bool,
}

/// How a request to a member ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// An answer came after this time.
    Answered(Duration),
    /// None came, or one that says it cannot serve.
    Failed,
    /// We gave up for reasons of our own; it says nothing about the member.
    Cancelled,
}

#[derive(Debug)]
struct Health {
    /// Peak-EWMA of its latency, seconds.
    latency: f64,
    updated: Instant,
    in_flight: u32,
    failures: u32,
    /// Out until then, and for how long that was.
    out: Option<(Instant, Duration)>,
    probing: bool,
}

impl Health {
    fn new(now: Instant) -> Self {
        Self {
            latency: FIRST_GUESS.as_secs_f64(),
            updated: now,
            in_flight: 0,
            failures: 0,
            out: None,
            probing: false,
        }
    }

    /// The estimate as it has aged: towards the first guess, so that one bad moment is not for ever.
    fn latency_at(&self, now: Instant) -> f64 {
        let weight = (-now.saturating_duration_since(self.updated).as_secs_f64() / DECAY.as_secs_f64()).exp();
        let guess = FIRST_GUESS.as_secs_f64();
        if self.latency > guess { guess + (self.latency - guess) * weight } else { self.latency }
    }

    /// A peak counts at once, anything lower with the age of what it replaces.
    fn sample(&mut self, seconds: f64, now: Instant) {
        let held = self.latency_at(now);
        let age = now.saturating_duration_since(self.updated).as_secs_f64();
        let weight = (-age / DECAY.as_secs_f64()).exp().min(0.9);
        self.latency = if seconds > held { seconds } else { held * weight + seconds * (1.0 - weight) };
        self.updated = now;
    }
}

/// What we have measured of other members. Owned behind a lock by whoever sends requests.
#[derive(Debug)]
pub struct Routes {
    health: HashMap<MemberId, Health>,
    rng: SmallRng,
}

impl Routes {
    /// Nothing measured yet; `seed` is all the randomness there will be.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { health: HashMap::new(), rng: SmallRng::seed_from_u64(seed) }
    }

    /// Chooses one of `candidates` and counts a request in flight to it; end it with [`ended`](Self::ended).
    pub fn choose(&mut self, candidates: &[Candidate], now: Instant) -> Option<MemberId> {
        let firsts: Vec<Candidate> = candidates.iter().copied().filter(|candidate| !candidate.last).collect();
        let pool = if firsts.is_empty() { candidates.to_vec() } else { firsts };
        let eligible = self.eligible(pool, now);
        let chosen = match eligible.len() {
            0 => return None,
            1 => eligible[0],
            count => {
                let first = self.rng.random_range(0..count);
                let second = (first + self.rng.random_range(1..count)) % count;
                let (a, b) = (eligible[first], eligible[second]);
                if self.cost(&b, now) < self.cost(&a, now) { b } else { a }
            }
        };
        let health = self.health.entry(chosen.id).or_insert_with(|| Health::new(now));
        health.in_flight += 1;
        if health.out.is_some() {
            health.probing = true;
        }
        Some(chosen.id)
    }

    /// Leaves out those that are out; but never more than half, and never the last.
    fn eligible(&self, mut pool: Vec<Candidate>, now: Instant) -> Vec<Candidate> {
        let out_max = pool.len() / 2;
        let mut out: Vec<(Instant, MemberId)> = pool
            .iter()
            .filter_map(|candidate| {
                let health = self.health.get(&candidate.id)?;
                let (until, _) = health.out?;
                // When its time is over one request probes it; the others wait for how that ends.
                (until > now || health.probing).then_some((until, candidate.id))
            })
            .collect();
        out.sort_unstable_by(|a, b| b.cmp(a));
        out.truncate(out_max);
        pool.retain(|candidate| !out.iter().any(|(_, id)| *id == candidate.id));
        pool
    }

    /// What one more request to it would cost; only the order means something.
    #[must_use]
    pub fn cost(&self, candidate: &Candidate, now: Instant) -> f64 {
        let (latency, in_flight) = match self.health.get(&candidate.id) {
            Some(health) => (health.latency_at(now), health.in_flight),
            None => (FIRST_GUESS.as_secs_f64(), 0),
        };
        latency * f64::from(in_flight + 1) / f64::from(candidate.capacity.max(1))
    }

    /// Whether it is out for its failures.
    #[must_use]
    pub fn is_out(&self, id: &MemberId, now: Instant) -> bool {
        self.health.get(id).and_then(|health| health.out).is_some_and(|(until, _)| until > now)
    }

    /// A request that [`choose`](Self::choose) counted has ended.
    pub fn ended(&mut self, id: &MemberId, how: Ended, now: Instant) {
        let Some(health) = self.health.get_mut(id) else { return };
        health.in_flight = health.in_flight.saturating_sub(1);
        let probed = std::mem::take(&mut health.probing);
        match how {
            Ended::Answered(took) => {
                health.sample(took.as_secs_f64(), now);
                health.failures = 0;
                health.out = None;
            }
            Ended::Failed => {
                health.sample(FAILURE.as_secs_f64(), now);
                health.failures += 1;
                if health.failures >= FAILURES_MAX || probed {
                    let length = health.out.map_or(OUT_MIN, |(_, length)| (length * 2).min(OUT_MAX));
                    health.out = Some((now + length, length));
                }
            }
            Ended::Cancelled => {}
        }
    }

    /// Forgets members that are listed no more and have nothing in flight.
    pub fn sweep(&mut self, is_listed: impl Fn(&MemberId) -> bool) {
        self.health.retain(|id, health| health.in_flight > 0 || is_listed(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(number: u8) -> Candidate {
        Candidate { id: MemberId([number; 32]), capacity: 100, last: false }
    }

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn the_quicker_member_gets_more() {
        let (mut routes, start) = (Routes::new(1), Instant::now());
        let both = [candidate(1), candidate(2)];
        let mut counts = [0, 0];
        for turn in 0..1000 {
            let now = at(start, turn * 10);
            let id = routes.choose(&both, now).unwrap();
            let slow = id == both[1].id;
            counts[usize::from(slow)] += 1;
            routes.ended(&id, Ended::Answered(Duration::from_millis(if slow { 50 } else { 5 })), now);
        }
        assert!(counts[0] > 5 * counts[1], "{counts:?}");
        assert!(counts[1] > 0, "an estimate ages, so the slow one is tried again: {counts:?}");
    }

    #[test]
    fn who_fails_is_out_and_one_request_probes_it_back() {
        let (mut routes, start) = (Routes::new(1), Instant::now());
        let (bad, good) = (candidate(1), candidate(2));
        for _ in 0..5 {
            routes.choose(&[bad], start);
            routes.ended(&bad.id, Ended::Failed, start);
        }
        assert!(routes.is_out(&bad.id, start));
        assert!((0..100).all(|_| routes.choose(&[bad, good], start) == Some(good.id)));
        let later = at(start, 5_001);
        let probes = (0..100).filter(|_| routes.choose(&[bad, good], later) == Some(bad.id)).count();
        assert!(probes <= 1, "{probes} requests went to a member that nobody has seen well again");
    }

    #[test]
    fn the_last_one_is_never_out() {
        let (mut routes, now) = (Routes::new(1), Instant::now());
        for _ in 0..20 {
            assert!(routes.choose(&[candidate(1)], now).is_some());
            routes.ended(&candidate(1).id, Ended::Failed, now);
        }
        assert!(routes.choose(&[candidate(1)], now).is_some());
    }

    #[test]
    fn doubted_members_serve_when_nobody_else_can() {
        let (mut routes, now) = (Routes::new(1), Instant::now());
        let doubted = Candidate { last: true, ..candidate(1) };
        assert!((0..50).all(|_| routes.choose(&[doubted, candidate(2)], now) == Some(candidate(2).id)));
        assert_eq!(routes.choose(&[doubted], now), Some(doubted.id));
    }

    #[test]
    fn capacity_divides_the_cost() {
        let (routes, now) = (Routes::new(1), Instant::now());
        let large = Candidate { capacity: 400, ..candidate(1) };
        assert!(routes.cost(&large, now) < routes.cost(&candidate(2), now));
    }
}
