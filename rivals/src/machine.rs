//! foca's state machine in a process that can stand still, crash or leave.

use std::collections::BTreeSet;
use std::time::Duration;

use foca::{Config, Foca, Notification, OwnedNotification, PostcardCodec, Runtime, Timer};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

/// An address, and which of its lives this is.
///
/// Four bytes on the wire for the address, as one of IPv4 has: foca's packets are counted with what they would carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    address: u32,
    life: u16,
}

/// 10.0.0.0: numbers so large take four bytes in foca's encoding of integers, too.
const NETWORK: u32 = 0x0a00_0000;

impl Identity {
    /// The first life of the node of this number.
    pub(crate) fn of(node: usize) -> Self {
        Self { address: NETWORK + u32::try_from(node).expect("a few thousand nodes"), life: 0 }
    }

    /// The node's number.
    pub(crate) fn node(self) -> usize {
        (self.address - NETWORK) as usize
    }
}

impl foca::Identity for Identity {
    type Addr = u32;

    fn renew(&self) -> Option<Self> {
        Some(Self { life: self.life.wrapping_add(1), ..*self })
    }

    fn addr(&self) -> u32 {
        self.address
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.life > other.life
    }
}

/// foca as it is used here: nothing but membership.
pub(crate) type Machine = Foca<Identity, PostcardCodec, SmallRng, foca::NoCustomBroadcast>;

/// Whether a process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Running,
    /// Stands still until then; its socket fills up meanwhile.
    Stalled(Duration),
    /// Ended without a word.
    Crashed,
    /// Ended after it said so.
    Left,
}

/// A node: its machine and what has happened to it. Moments are virtual, since the scenario began.
pub(crate) struct Process {
    pub(crate) machine: Machine,
    pub(crate) state: State,
    pub(crate) started: Duration,
    /// Stands still now and then, and when it last began to move again.
    pub(crate) stalls: bool,
    pub(crate) resumed: Option<Duration>,
    /// What came while it stood still.
    pub(crate) inbox: Vec<Vec<u8>>,
    pub(crate) overdue: Vec<Timer<Identity>>,
    /// Who was there when it came and that it has not heard of: its table is complete when this is empty.
    pub(crate) unheard: BTreeSet<usize>,
}

impl Process {
    pub(crate) fn start(node: usize, config: Config, seed: u64, now: Duration) -> Self {
        let random = SmallRng::seed_from_u64(seed);
        Self {
            machine: Foca::new(Identity::of(node), config, random, PostcardCodec),
            state: State::Running,
            started: now,
            stalls: false,
            resumed: None,
            inbox: Vec::new(),
            overdue: Vec::new(),
            unheard: BTreeSet::new(),
        }
    }

    /// Whether it is a member.
    pub(crate) fn lives(&self) -> bool {
        matches!(self.state, State::Running | State::Stalled(_))
    }

    /// Whether it runs and has not stood still for this long.
    pub(crate) fn is_healthy(&self, now: Duration, aftermath: Duration) -> bool {
        self.state == State::Running && self.resumed.is_none_or(|at| now > at + aftermath)
    }
}

/// What a machine wants after an input.
#[derive(Default)]
pub(crate) struct Outbox {
    pub(crate) datagrams: Vec<(Identity, Vec<u8>)>,
    pub(crate) timers: Vec<(Timer<Identity>, Duration)>,
    pub(crate) news: Vec<OwnedNotification<Identity>>,
}

impl Runtime<Identity> for Outbox {
    fn notify(&mut self, news: Notification<'_, Identity>) {
        self.news.push(news.to_owned());
    }

    fn send_to(&mut self, to: Identity, bytes: &[u8]) {
        self.datagrams.push((to, bytes.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        self.timers.push((timer, after));
    }
}
