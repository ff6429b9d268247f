//! Whether the other side is there, and how far away: pings, round trips, silence.

use std::time::{Duration, Instant};

/// A ping goes out so long after the one before, or when that is answered if that is later. A quarter of the least
/// silence limit, so that three may be lost to a stalled path.
const PING_INTERVAL: Duration = Duration::from_millis(250);

/// The silence limit is never below this: what DESIGN asks for, "max(1 s, 4 round trips)".
const SILENCE_MIN: Duration = Duration::from_secs(1);

/// The silence limit before any round trip was measured: QUIC has just finished its handshake in less. Guessed.
const SILENCE_UNMEASURED: Duration = Duration::from_secs(3);

/// Who looks so long after a limit has passed was itself asleep, and listens this long before it believes in silence.
const LATE: Duration = Duration::from_millis(250);

/// Ping and silence of one link.
#[derive(Debug)]
pub(super) struct Pulse {
    heard_at: Instant,
    /// When nothing was heard since, and we were late to look, listening ends here.
    extended_to: Option<Instant>,
    ping_at: Instant,
    ping_due: bool,
    /// The ping that is on its way.
    asked: Option<(u64, Instant)>,
    nonce: u64,
    smoothed: Option<Duration>,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            heard_at: now,
            extended_to: None,
            ping_at: now,
            ping_due: true,
            asked: None,
            nonce: 0,
            smoothed: None,
        }
    }

    /// The smoothed round trip, once measured.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.smoothed
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.extended_to = None;
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.ping_due |= self.ask_at().is_some_and(|at| at <= now);
    }

    /// The nonce of a ping, if one is due.
    pub(super) fn ask(&mut self, now: Instant) -> Option<u64> {
        if !std::mem::take(&mut self.ping_due) {
            return None;
        }
        self.nonce += 1;
        self.asked = Some((self.nonce, now));
        self.ping_at = now + PING_INTERVAL;
        Some(self.nonce)
    }

    /// When a ping becomes due, if none is due or on its way.
    pub(super) fn ask_at(&self) -> Option<Instant> {
        (self.asked.is_none() && !self.ping_due).then_some(self.ping_at)
    }

    /// Takes an answer; one that was not asked for counts for nothing.
    pub(super) fn answered(&mut self, now: Instant, nonce: u64) {
        let Some((_, at)) = self.asked.take_if(|(asked, _)| *asked == nonce) else { return };
        let sample = now.saturating_duration_since(at);
        // As TCP does it (RFC 6298): an eighth of the news.
        self.smoothed = Some(self.smoothed.map_or(sample, |smoothed| (smoothed * 7 + sample) / 8));
    }

    /// How long the other side may be silent.
    pub(super) fn limit(&self) -> Duration {
        self.smoothed.map_or(SILENCE_UNMEASURED, |smoothed| SILENCE_MIN.max(smoothed * 4))
    }

    pub(super) fn silence_ends(&self) -> Instant {
        self.extended_to.unwrap_or(self.heard_at + self.limit())
    }

    /// For how long nothing was heard, if that is too long.
    pub(super) fn silence(&mut self, now: Instant) -> Option<Duration> {
        let ends = self.silence_ends();
        if now < ends {
            return None;
        }
        if self.extended_to.is_none() && now > ends + LATE {
            self.extended_to = Some(now + LATE);
            return None;
        }
        Some(now.saturating_duration_since(self.heard_at))
    }
}
