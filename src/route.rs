//! Which of several members gets a request: two are drawn at random, the cheaper one wins.
//!
//! Cost is an estimate of latency that follows peaks at once and decays, times what we ourselves have in flight
//! there and one more, divided by the member's capacity. It is never "the least busy of the table": with news that is
//! a second old everybody runs to the same member (measured: p50 25 times as long).
//!
//! | module | is |
//! |---|---|
//! | [`latency`] | the estimate |
//! | [`health`] | when a member is left out after failures, and asked again |
//!
//! Pure: time and randomness are given. It knows neither the table nor figures.
//!
//! Source: DESIGN section 7; Mitzenmacher, "How useful is old information".

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isle_mesh::member::MemberId;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use self::health::Health;
use self::latency::Latency;

pub mod health;
pub mod latency;

/// Capacity of a member that has not said any. Guessed: about what one core of a small machine serves at once.
const CAPACITY_UNKNOWN: u32 = 256;
/// How long a newcomer is spared. Guessed: caches and connections are warm by then.
const WARM_UP: Duration = Duration::from_secs(5);
/// Which part of its share a newcomer gets at first; it grows evenly from there.
const WARMTH_MIN: f64 = 0.1;
/// Of two that cost about the same the one drawn first is taken: estimates of equal members differ by some percent, and
/// the dearer would starve (traefik #12306: 5 of 1,500 requests).
const CLEARLY_CHEAPER: f64 = 0.8;

/// A member that could get the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Who.
    pub id: MemberId,
    /// How many requests it says that it takes at once; 0: it has not said.
    pub capacity: u32,
    /// To be chosen only when no other is there: not reached yet, or doubted.
    pub last: bool,
    /// When the mesh heard it last, if it did.
    pub heard: Option<Instant>,
    /// What the way to its island costs; `None`: it is on ours.
    pub way: Option<Duration>,
    /// It says that it takes no more for now.
    pub full: bool,
}

/// How a request to a member ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// An answer came after this time.
    Answered(Duration),
    /// None came, or one that says it cannot serve.
    Failed,
    /// The connection was refused or broke off: its process may be gone, so nothing more is sent for a while.
    Refused,
    /// We gave up for reasons of our own; it says nothing about the member.
    Cancelled,
}

/// What we have measured of other members. Owned behind a lock by whoever sends requests; [`sweep`](Routes::sweep) bounds it.
#[derive(Debug)]
pub struct Routes {
    rng: SmallRng,
    tracks: BTreeMap<MemberId, Track>,
}

#[derive(Debug)]
struct Track {
    known_since: Instant,
    latency: Latency,
    health: Health,
    in_flight: u32,
}

impl Track {
    fn new(now: Instant) -> Self {
        Self { known_since: now, latency: Latency::new(now), health: Health::default(), in_flight: 0 }
    }

    /// Which part of its share it gets: 1 once it is warm.
    fn warmth(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.known_since);
        (age.as_secs_f64() / WARM_UP.as_secs_f64()).clamp(WARMTH_MIN, 1.0)
    }

    fn is_warm(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.known_since) >= WARM_UP
    }

    fn cost(&self, latency: f64, announced: u32) -> f64 {
        let capacity = match announced {
            0 => CAPACITY_UNKNOWN,
            said => said,
        };
        latency * f64::from(self.in_flight + 1) / f64::from(capacity)
    }
}

impl Routes {
    /// Knows nobody. `seed` decides all draws.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), tracks: BTreeMap::new() }
    }

    /// Chooses one of `candidates` and counts a request in flight to it; end it with [`ended`](Self::ended). `None` only when
    /// there are none. O(n log m).
    ///
    /// Our own island comes first. When it has none, or all of it are full, the island with the cheapest way does.
    ///
    /// A member that was left out and whose time has come is chosen at once, for one request: that is how it
    /// comes back.
    pub fn choose(&mut self, candidates: &[Candidate], now: Instant) -> Option<MemberId> {
        for candidate in candidates {
            self.track(now, candidate.id);
        }
        let chosen = self.choose_among(now, &nearest(candidates))?;
        self.track(now, chosen).in_flight += 1;
        Some(chosen)
    }

    fn choose_among(&mut self, now: Instant, pool: &[Candidate]) -> Option<MemberId> {
        let out = self.left_out(now, pool);
        let probe = pool.iter().find(|candidate| {
            self.tracks
                .get(&candidate.id)
                .is_some_and(|track| track.health.is_probe_due(now, candidate.heard))
        });
        if let Some(probe) = probe.copied() {
            self.track(now, probe.id).health.probe(now);
            return Some(probe.id);
        }
        let open: Vec<_> = pool.iter().filter(|candidate| !out.contains(&candidate.id)).collect();
        match open.len() {
            0 => None,
            1 => Some(open[0].id),
            count => {
                let first = self.rng.random_range(0..count);
                let second = (first + self.rng.random_range(1..count)) % count;
                Some(self.better(now, *open[first], *open[second]))
            }
        }
    }

    /// The cheaper one of two, or the first. Whoever was not measured yet is taken for as quick as the other, and so is a
    /// newcomer beside a warm one, for its first answers wait for connections and caches; but that one enters the
    /// comparison in a part of all draws only.
    fn better(&mut self, now: Instant, a: Candidate, b: Candidate) -> MemberId {
        let lot: f64 = self.rng.random();
        let fresh = Track::new(now);
        let of = |candidate: &Candidate| self.tracks.get(&candidate.id).unwrap_or(&fresh);
        let (first, second) = (of(&a), of(&b));
        let (warmth, others) = (first.warmth(now), second.warmth(now));
        if lot >= (warmth / others).min(others / warmth) {
            return if warmth > others { a.id } else { b.id };
        }
        let (quick, other) = (first.latency.estimate(now), second.latency.estimate(now));
        let believed = |one: &Track, beside: &Track| {
            one.latency.is_measured() && (one.is_warm(now) || !beside.is_warm(now))
        };
        let (quick, other) = match (believed(first, second), believed(second, first)) {
            (false, true) => (other, other),
            (true, false) => (quick, quick),
            _ => (quick, other),
        };
        let clearly_cheaper =
            second.cost(other, b.capacity) < first.cost(quick, a.capacity) * CLEARLY_CHEAPER;
        if clearly_cheaper { b.id } else { a.id }
    }

    /// Who of `pool` is left out now: never more than half, so never the last. Those whose time comes first are let
    /// in when there would be more.
    fn left_out(&self, now: Instant, pool: &[Candidate]) -> Vec<MemberId> {
        let mut out: Vec<(Instant, MemberId)> = pool
            .iter()
            .filter_map(|candidate| {
                let until = self.tracks.get(&candidate.id)?.health.out_until(now)?;
                Some((until, candidate.id))
            })
            .collect();
        out.sort_unstable_by(|a, b| b.cmp(a));
        out.truncate(pool.len() / 2);
        out.into_iter().map(|(_, id)| id).collect()
    }

    /// What one more request to it would cost; only the order means something.
    #[must_use]
    pub fn cost(&self, candidate: &Candidate, now: Instant) -> f64 {
        let fresh = Track::new(now);
        let track = self.tracks.get(&candidate.id).unwrap_or(&fresh);
        track.cost(track.latency.estimate(now), candidate.capacity)
    }

    /// Whether it is out for its failures.
    #[must_use]
    pub fn is_out(&self, id: &MemberId, now: Instant) -> bool {
        self.tracks.get(id).is_some_and(|track| track.health.out_until(now).is_some())
    }

    /// A request that [`choose`](Self::choose) counted has ended.
    pub fn ended(&mut self, id: &MemberId, how: Ended, now: Instant) {
        let Some(track) = self.tracks.get_mut(id) else { return };
        track.in_flight = track.in_flight.saturating_sub(1);
        match how {
            Ended::Answered(took) => {
                if track.is_warm(now) {
                    track.latency.sample(now, took);
                } else {
                    track.latency.follow(now, took);
                }
                track.health.succeeded(now.checked_sub(took).unwrap_or(now));
            }
            Ended::Failed => {
                track.latency.failure(now);
                track.health.failed(now);
            }
            Ended::Refused => {
                track.latency.failure(now);
                track.health.refused(now);
            }
            Ended::Cancelled => track.health.unknown(),
        }
    }

    /// Nobody listens at its address any more, as was seen apart from any request.
    pub fn vanished(&mut self, id: &MemberId, now: Instant) {
        if let Some(track) = self.tracks.get_mut(id) {
            track.health.refused(now);
        }
    }

    /// A member is back, or there anew: what was measured before no longer counts, except what is in flight.
    pub fn renewed(&mut self, id: &MemberId, now: Instant) {
        if let Some(track) = self.tracks.get_mut(id) {
            *track = Track { in_flight: track.in_flight, ..Track::new(now) };
        }
    }

    /// Forgets members that are listed no more and have nothing in flight.
    pub fn sweep(&mut self, is_listed: impl Fn(&MemberId) -> bool) {
        self.tracks.retain(|id, track| track.in_flight > 0 || is_listed(id));
    }

    fn track(&mut self, now: Instant, id: MemberId) -> &mut Track {
        self.tracks.entry(id).or_insert_with(|| Track::new(now))
    }
}

/// Those that are compared with each other: one island's, or all when all are doubted.
fn nearest(candidates: &[Candidate]) -> Vec<Candidate> {
    let sound = || candidates.iter().copied().filter(|candidate| !candidate.last);
    let near: Vec<_> = sound().filter(|candidate| candidate.way.is_none()).collect();
    let cheapest = sound().filter_map(|candidate| candidate.way).min();
    match cheapest {
        _ if near.iter().any(|candidate| !candidate.full) => near,
        Some(cheapest) => sound().filter(|candidate| candidate.way == Some(cheapest)).collect(),
        None if near.is_empty() => candidates.to_vec(),
        None => near,
    }
}

#[cfg(test)]
mod tests;
