//! When a member is left out after failures, and how it comes back: one request at a time.

use std::time::{Duration, Instant};

/// So many failures in a row leave a member out.
const FAILURES: u32 = 5;
/// For how long, the first time; each further time that much longer.
const OUT: Duration = Duration::from_secs(5);
/// For how long after one refused connection, the first time. A crash is known to all by then.
const REFUSED: Duration = Duration::from_secs(1);
/// But not longer than this.
const OUT_MAX: Duration = Duration::from_secs(60);
/// A probe that has not ended by then is taken for lost.
const PROBE_MAX: Duration = Duration::from_secs(10);

/// Health of one member, as our own requests saw it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Health {
    failures: u32,
    /// How often in a row it was left out.
    times: u32,
    out: Option<Out>,
}

#[derive(Clone, Copy, Debug)]
struct Out {
    until: Instant,
    probed: Option<Instant>,
}

impl Health {
    /// Until when it is left out; also while a probe is under way.
    #[must_use]
    pub fn out_until(&self, now: Instant) -> Option<Instant> {
        self.out.map(|out| out.until.max(now))
    }

    /// Whether it should get one request now, to see whether it is well again.
    #[must_use]
    pub fn is_probe_due(&self, now: Instant) -> bool {
        self.out.is_some_and(|out| {
            now >= out.until && out.probed.is_none_or(|at| now.saturating_duration_since(at) >= PROBE_MAX)
        })
    }

    /// That request is on its way.
    pub fn probe(&mut self, now: Instant) {
        if let Some(out) = &mut self.out {
            out.probed = Some(now);
        }
    }

    /// A request was answered: all is forgiven.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A request failed.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let is_over = self.out.is_none_or(|out| now >= out.until);
        if self.failures >= FAILURES && is_over {
            self.times = self.times.saturating_add(1);
            self.out = Some(Out { until: now + (OUT * self.times).min(OUT_MAX), probed: None });
        }
    }

    /// A connection was refused or broke off: one is enough. By the end of that time the mesh knows whether it lives.
    pub fn refused(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.out.is_none_or(|out| now >= out.until) {
            self.times = self.times.saturating_add(1);
            self.out = Some(Out { until: now + (REFUSED * self.times).min(OUT_MAX), probed: None });
        }
    }

    /// A request ended without telling anything: if it was the probe, another one may go.
    pub fn unknown(&mut self) {
        if let Some(out) = &mut self.out {
            out.probed = None;
        }
    }
}
