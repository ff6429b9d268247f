//! One link of the simulated graph: a connection that comes and goes between two bridges, with its streams' bytes on
//! the way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use island_bridge::frame::{Decoder, Stream};
use island_bridge::redial::Redial;
use island_bridge::session::{Bookmark, Session};

/// Bytes that a stream may hold between the two sides: QUIC's flow control.
pub(crate) const WINDOW: usize = 512 << 10;

/// The first end dials.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) ends: [End; 2],
    /// One way.
    pub(crate) delay: Duration,
    pub(crate) is_cut: bool,
    /// Counts connections: what was sent on an earlier one never arrives.
    pub(crate) connection: u64,
    pub(crate) redial: Redial,
    /// What a cut holds back: the transport sends it again once packets flow.
    pub(crate) held: Vec<Packet>,
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) bridge: usize,
    pub(crate) session: Option<Session>,
    pub(crate) bookmark: Option<Bookmark>,
    pub(crate) streams: [Inbound; 3],
    /// The earliest wake-up that is scheduled.
    pub(crate) wake_at: Option<Instant>,
}

/// The bytes of one stream towards one end.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) decoder: Decoder,
    /// Pieces that have been sent and not come. Each packet brings the oldest: they never overtake each other, whatever
    /// becomes of the packets.
    pub(crate) on_way: VecDeque<Vec<u8>>,
    pub(crate) waiting: VecDeque<u8>,
    /// Sent and not yet read.
    pub(crate) outstanding: usize,
    pub(crate) last_arrival: Option<Instant>,
}

/// What arrives at an end.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) link: usize,
    pub(crate) end: usize,
    pub(crate) connection: u64,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// The next piece of this stream.
    Bytes(usize),
    Closed,
}

impl Link {
    pub(crate) fn new(bridges: [usize; 2], delay: Duration, seed: u64) -> Self {
        let ends = bridges.map(|bridge| End {
            bridge,
            session: None,
            bookmark: None,
            streams: Stream::ALL.map(Inbound::new),
            wake_at: None,
        });
        Self { ends, delay, is_cut: false, connection: 0, redial: Redial::new(seed), held: Vec::new() }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.ends.iter().all(|end| end.session.as_ref().is_some_and(Session::is_up))
    }
}

impl Inbound {
    pub(crate) fn new(stream: Stream) -> Self {
        let decoder = Decoder::new(stream);
        Self {
            decoder,
            on_way: VecDeque::new(),
            waiting: VecDeque::new(),
            outstanding: 0,
            last_arrival: None,
        }
    }
}
