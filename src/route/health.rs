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
    /// When it refused, if that is why.
    refused: Option<Instant>,
    probed: Option<Instant>,
}

impl Health {
    /// Until when it is left out; also while a probe is under way.
    #[must_use]
    pub fn out_until(&self, now: Instant) -> Option<Instant> {
        self.out.map(|out| out.until.max(now))
    }

    /// Whether it should get one request now, to see whether it is well again. Not if it refused and the mesh has not `heard` it
    /// since: then its process is most likely gone.
    #[must_use]
    pub fn is_probe_due(&self, now: Instant, heard: Option<Instant>) -> bool {
        self.out.is_some_and(|out| {
            let silent = out.refused.is_some_and(|at| heard.is_some_and(|heard| heard <= at));
            let probed = out.probed.is_some_and(|at| now.saturating_duration_since(at) < PROBE_MAX);
            now >= out.until && !silent && !probed
        })
    }

    /// That request is on its way.
    pub fn probe(&mut self, now: Instant) {
        if let Some(out) = &mut self.out {
            out.probed = Some(now);
        }
    }

    /// A request that began then was answered: all is forgiven. Not if it has refused since: then its last words were under way
    /// while its process was gone already.
    pub fn succeeded(&mut self, began: Instant) {
        let has_refused_since = self.out.and_then(|out| out.refused).is_some_and(|at| began < at);
        if !has_refused_since {
            *self = Self::default();
        }
    }

    /// A request failed.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let is_over = self.out.is_none_or(|out| now >= out.until);
        if self.failures >= FAILURES && is_over {
            self.times = self.times.saturating_add(1);
            let until = now + (OUT * self.times).min(OUT_MAX);
            self.out = Some(Out { until, refused: None, probed: None });
        }
    }

    /// A connection was refused or broke off: one is enough. By the end of that time the mesh knows whether it lives.
    pub fn refused(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.out.is_none_or(|out| now >= out.until) {
            self.times = self.times.saturating_add(1);
            let until = now + (REFUSED * self.times).min(OUT_MAX);
            self.out = Some(Out { until, refused: Some(now), probed: None });
        }
    }

    /// A request ended without telling anything: if it was the probe, another one may go.
    pub fn unknown(&mut self) {
        if let Some(out) = &mut self.out {
            out.probed = None;
        }
    }
}
