//! What is to be done when: a queue of deadlines, each knowing what it was armed for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use bytes::Bytes;

use crate::member::{Epoch, MemberId};

/// What a deadline is for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Timer {
    /// The next HELLO of our start, with its number.
    Hello(u8),
    /// Nobody has answered any HELLO.
    NobodyThere,
    /// A beacon for newcomers, out of turn.
    Greet,
    /// Our regular BEACON.
    Tick,
    /// Name our watchers.
    ChooseWatchers,
    /// The second answer to an accusation.
    Defend,
    /// Our record once more, unchanged.
    Refresh,
    /// Our record for a group of strangers.
    Introduce,
    /// One more copy of a word of ours, unless a newer one has taken its place.
    Copy(Bytes),
    /// In a crowd, a beacon that tells of this record of ours; which.
    Remind(Bytes, u8),
    /// Pass on somebody's draining or farewell.
    Relay(MemberId),
    /// Has this member been silent for too long? Only the latest of a member counts, by its number.
    Silence(MemberId, u64),
    /// Look at those that nobody watches.
    Look,
    /// Ask newcomers for the first time.
    FirstAsks,
    /// Ask this member once more, or give it up, if these questions (by their nonce) are still open.
    Ask(MemberId, Epoch, u64),
    /// A copy of our vote about this member.
    VoteCopy(MemberId, Bytes),
    /// What do the votes about this member come to? Only the latest counts, by its number.
    Consider(MemberId, u64),
    /// Say the certificate about this member, unless somebody has.
    Certify(MemberId),
    /// One more copy of it.
    CertificateCopy(MemberId, Bytes),
    /// Say the newest pulse of this member for it.
    Prove(MemberId),
    /// Ask this member so that a refusal shows, unless it was heard since then.
    Probe(MemberId, Instant),
    /// Ask this member for its record, if we still lack it.
    WantRecord(MemberId),
    /// Ask this one, who speaks and is not in our table, for its record.
    AskStranger(MemberId),
    /// Greet those who speak and are not in our table.
    Meet,
    /// This member should have given its table by now.
    Overdue(MemberId),
    /// Drop those who have been gone for long enough.
    Forget,
    /// Our table has differed from others' long enough.
    CatchUp,
    /// Say this urgent word of another island to ours, unless somebody has.
    SayFar(MemberId),
    /// Ask this bridge what it knows of other islands.
    PullFar(MemberId),
    /// Other bridges hear that we have learned something of other islands.
    TellBridges,
    /// One more copy of what our links reach, if there is nothing newer, by its number.
    RoutesCopy(u64),
    /// The same again, now and then.
    RoutesAgain(u64),
    /// The last way to some island has been gone for a while.
    GiveUpIslands,
    /// Refill, expire.
    Sweep,
}

impl Timer {
    /// The word for logs and for a loop that spins.
    #[must_use]
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::NobodyThere => "nobody-there",
            Self::Greet => "greet",
            Self::Tick => "tick",
            Self::ChooseWatchers => "choose-watchers",
            Self::Defend => "defend",
            Self::Refresh => "refresh",
            Self::Introduce => "introduce",
            Self::Copy(_) => "copy",
            Self::Remind(..) => "remind",
            Self::Relay(_) => "relay",
            Self::Silence(..) => "silence",
            Self::Look => "look",
            Self::FirstAsks => "first-asks",
            Self::Ask(..) => "ask",
            Self::VoteCopy(..) => "vote-copy",
            Self::Consider(..) => "consider",
            Self::Certify(_) => "certify",
            Self::CertificateCopy(..) => "certificate-copy",
            Self::Prove(_) => "prove",
            Self::Probe(..) => "probe",
            Self::WantRecord(_) => "want-record",
            Self::AskStranger(_) => "ask-stranger",
            Self::Meet => "meet",
            Self::Overdue(_) => "overdue",
            Self::Forget => "forget",
            Self::CatchUp => "catch-up",
            Self::SayFar(_) => "say-far",
            Self::PullFar(_) => "pull-far",
            Self::TellBridges => "tell-bridges",
            Self::RoutesCopy(_) => "routes-copy",
            Self::RoutesAgain(_) => "routes-again",
            Self::GiveUpIslands => "give-up-islands",
            Self::Sweep => "sweep",
        }
    }
}

/// Deadlines in order; equal ones in the order they were armed.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// With the number of each, so that timers themselves are never compared.
    queue: BinaryHeap<Reverse<(Instant, u64, Timer)>>,
    armed: u64,
}

impl Timers {
    /// Arms one more deadline. O(log n).
    pub(super) fn arm(&mut self, at: Instant, timer: Timer) {
        self.armed += 1;
        self.queue.push(Reverse((at, self.armed, timer)));
    }

    /// The next deadline and the name of what it is for. O(1): asked after every input.
    #[must_use]
    pub(super) fn next(&self) -> Option<(Instant, &'static str)> {
        self.queue.peek().map(|Reverse((at, _, timer))| (*at, timer.name()))
    }

    /// Takes the next timer that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Instant, Timer)> {
        self.queue.peek().filter(|Reverse((at, ..))| *at <= now)?;
        self.queue.pop().map(|Reverse((at, _, timer))| (at, timer))
    }

    /// Drops all that `unwanted` names. O(n).
    pub(super) fn disarm(&mut self, unwanted: impl Fn(&Timer) -> bool) {
        self.queue.retain(|Reverse((_, _, timer))| !unwanted(timer));
    }
}
