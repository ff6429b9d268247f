//! An estimate of a member's latency: rises to a peak at once, falls with time.

use std::time::{Duration, Instant};

/// Time constant of the decay, as in linkerd and finagle.
const TAU: Duration = Duration::from_secs(10);
/// What a member without samples is taken for beside others without.
const START: Duration = Duration::from_millis(5);
/// What a failure counts as; else a member that fails fast would attract the traffic.
const FAILURE: Duration = Duration::from_secs(5);
/// Nothing is estimated below this: products with it must still tell one request in flight from ten.
const FLOOR: f64 = 20e-6;

/// A peak-sensitive moving average, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    seconds: f64,
    at: Instant,
    measured: bool,
}

impl Latency {
    /// Without samples.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { seconds: START.as_secs_f64(), at: now, measured: false }
    }

    /// The estimate, in seconds. Decays without samples, too: a member that was slow once is tried again.
    #[must_use]
    pub fn estimate(&self, now: Instant) -> f64 {
        (self.seconds * kept(self.at, now)).max(FLOOR)
    }

    /// Whether any request to it has ended.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.measured
    }

    /// A request was answered.
    pub fn sample(&mut self, now: Instant, latency: Duration) {
        let sample = latency.as_secs_f64();
        let kept = kept(self.at, now);
        self.seconds =
            if sample > self.seconds { sample } else { self.seconds * kept + sample * (1.0 - kept) };
        self.at = now;
        self.measured = true;
    }

    /// A request was answered by one that is not warm yet: what came before is no measure.
    pub fn follow(&mut self, now: Instant, latency: Duration) {
        *self = Self { seconds: latency.as_secs_f64(), at: now, measured: true };
    }

    /// A request failed.
    pub fn failure(&mut self, now: Instant) {
        self.sample(now, FAILURE);
    }
}

/// Which part of an old value still counts.
fn kept(then: Instant, now: Instant) -> f64 {
    (-(now.saturating_duration_since(then).as_secs_f64() / TAU.as_secs_f64())).exp()
}
