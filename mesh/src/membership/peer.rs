//! What we know of a member besides its words: how it stands, when it was heard, what others say of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lazy::{Known, Raw};
use super::leave::Relay;
use super::votes::Doubt;
use super::watch::Watching;
use crate::member::{Member, MemberId, Reason, Stamp, Standing};

/// One member as this node sees it. There may be 20,000: what only few have is boxed.
///
/// In the order given: what a look at all touches comes first, then what a pulse does that says nothing new, for in a large
/// table each line has to be fetched from memory.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Peer {
    pub(super) standing: Standing,
    /// Alive by what others prove; we hear nothing.
    pub(super) mute: bool,
    /// Says that it hears no broadcasts.
    pub(super) deaf: bool,
    /// How it was found to be down.
    pub(super) verdict: Option<Reason>,
    /// Set while somebody says that it is silent.
    pub(super) doubt: Option<Box<Doubt>>,
    /// Set while we watch it.
    pub(super) watching: Option<Box<Watching>>,
    /// Marks of the watchers that its record names: 0 if it names none.
    pub(super) named: u64,
    /// When a pulse in its name last came from where it is heard that was left to wait: see `raw`; or, with none waiting,
    /// when it was last heard.
    pub(super) sign: Option<Instant>,
    /// When a pulse of it was last verified, and until when all are: somebody spoke in its name.
    pub(super) checked: Option<Instant>,
    pub(super) eager_until: Option<Instant>,
    /// Where its last word came from.
    pub(super) from: Option<SocketAddr>,
    /// What its next pulse is measured by.
    pub(super) known_said: Option<Known>,
    /// Its newest pulse, if that is not verified yet: it came at `sign`, from `from`.
    pub(super) raw: Option<Raw>,
    /// When it was last heard by ourselves, in a word that was verified.
    pub(super) heard: Option<Instant>,
    /// When it became known: silence counts from here as long as nothing is heard.
    pub(super) known: Instant,
    pub(super) view: Option<Arc<Member>>,
    /// When something newer of it was last learned, by whatever path.
    pub(super) learned: Option<Instant>,
    pub(super) last_pulse: Option<Stamp>,
    pub(super) since: Instant,
    /// When others say to have heard it last; for dates alone.
    pub(super) told: Option<Instant>,
    /// When we learned its record as it is now.
    pub(super) recorded: Instant,
    /// When it had not answered the last of our questions.
    pub(super) unanswered: Option<Instant>,
    pub(super) past: Past,
    pub(super) asking: Option<Asking>,
    pub(super) relay: Option<Box<Relay>>,
    /// Its last returns from the dead, and until when its limit is doubled for them.
    pub(super) returns: Option<Box<Returns>>,
}

/// Marks of members: those of a list that does not have one's mark do not name it.
pub(super) fn marks<'a>(ids: impl IntoIterator<Item = &'a MemberId>) -> u64 {
    ids.into_iter().fold(0, |marks, id| marks | 1 << (id.0[0] % 64))
}

/// Questions to a member that are not answered yet.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) nonce: u64,
    pub(super) sent: u8,
    /// How many are asked before it is left at that, and how far apart.
    pub(super) most: u8,
    pub(super) apart: Duration,
}

/// What a member had said by then is past: see [`Past::is_over`]. Words of one member overtake each other by milliseconds.
const PAST: Duration = Duration::from_secs(1);

/// A pulse of a member that we have known for a while.
#[derive(Debug, Default)]
pub(super) struct Past {
    settled: Option<Stamp>,
    next: Option<(Stamp, Instant)>,
}

impl Past {
    pub(super) fn note(&mut self, now: Instant, stamp: Stamp) {
        if self.next.is_none_or(|(_, at)| now.saturating_duration_since(at) >= PAST) {
            self.settled = self.next.map(|(said, _)| said).or(self.settled);
            self.next = Some((stamp, now));
        }
    }

    /// Whether a word of it is so old that whoever says it now says it again. Only for words that their author sends
    /// when it signs them.
    pub(super) fn is_over(&self, now: Instant, stamp: Stamp) -> bool {
        let next = self.next.filter(|(_, at)| now.saturating_duration_since(*at) >= PAST);
        next.map(|(said, _)| said).or(self.settled).is_some_and(|settled| stamp < settled)
    }
}

/// So many returns within `FLAPPING` double the patience with a member for `PATIENT`.
const RETURNS_MAX: usize = 3;
const FLAPPING: Duration = Duration::from_secs(60);
const PATIENT: Duration = Duration::from_secs(300);

/// When a member came back after it was called down. Any detector quicker than a second sees a stall of a second
/// rightly; a member that stalls again and again is given more time.
#[derive(Debug, Default)]
pub(super) struct Returns {
    last: [Option<Instant>; RETURNS_MAX],
    until: Option<Instant>,
}

impl Returns {
    fn note(&mut self, now: Instant) {
        self.last.rotate_left(1);
        self.last[RETURNS_MAX - 1] = Some(now);
        if self.last[0].is_some_and(|first| now.saturating_duration_since(first) <= FLAPPING) {
            self.until = Some(now + PATIENT);
        }
    }
}

impl Peer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            standing: Standing::Alive,
            since: now,
            heard: None,
            learned: None,
            told: None,
            known: now,
            recorded: now,
            from: None,
            sign: None,
            unanswered: None,
            known_said: None,
            raw: None,
            checked: None,
            eager_until: None,
            last_pulse: None,
            verdict: None,
            mute: false,
            deaf: false,
            named: 0,
            past: Past::default(),
            asking: None,
            relay: None,
            view: None,
            watching: None,
            doubt: None,
            returns: None,
        }
    }

    /// When it was last heard, or became known if it never was. Unverified pulses count nothing.
    pub(super) fn silent_since(&self) -> Instant {
        self.heard.unwrap_or(self.known)
    }

    /// When anything in its name last came, verified or not: good for not asking, never for a verdict.
    pub(super) fn last_sign(&self) -> Instant {
        self.silent_since().max(self.sign.unwrap_or(self.known))
    }

    /// Heard by ourselves within `length`.
    pub(super) fn was_heard_within(&self, now: Instant, length: Duration) -> bool {
        self.heard.is_some_and(|at| now.saturating_duration_since(at) < length)
    }

    pub(super) fn note_return(&mut self, now: Instant) {
        self.returns.get_or_insert_default().note(now);
    }

    /// Whether it comes and goes so often that it is given twice the time.
    pub(super) fn is_flapping(&self, now: Instant) -> bool {
        self.returns.as_ref().and_then(|returns| returns.until).is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_a_pulse_known_for_a_second_is_over() {
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut past = Past::default();
        assert!(!past.is_over(after(0), Stamp::new(1, 1)));
        past.note(after(0), Stamp::new(1, 10));
        past.note(after(500), Stamp::new(1, 15));
        assert!(!past.is_over(after(999), Stamp::new(1, 9)));
        assert!(past.is_over(after(1_000), Stamp::new(1, 9)));
        past.note(after(1_100), Stamp::new(1, 21));
        assert!(
            past.is_over(after(1_100), Stamp::new(1, 9)) && !past.is_over(after(1_100), Stamp::new(1, 11))
        );
        assert!(
            past.is_over(after(2_100), Stamp::new(1, 20)) && !past.is_over(after(2_100), Stamp::new(2, 1))
        );
    }

    #[test]
    fn three_returns_within_a_minute_double_the_patience_for_five() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut peer = Peer::new(start);
        peer.note_return(after(0));
        peer.note_return(after(61));
        peer.note_return(after(62));
        assert!(!peer.is_flapping(after(62)));
        peer.note_return(after(63));
        assert!(peer.is_flapping(after(63)) && peer.is_flapping(after(362)));
        assert!(!peer.is_flapping(after(364)));
    }
}
