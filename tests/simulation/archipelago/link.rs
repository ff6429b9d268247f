//! A link: a connection that comes and goes between two bridges, and what is on its way. QUIC loses nothing, so what
//! a packet's loss costs is time; what a cut holds back comes once it has healed, if the connection still stands then.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use island_bridge::frame::{Frame, Stream};
use island_bridge::session::Session;
use isle_mesh::member::MemberId;

/// A bridge, by its island and its number there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    pub island: usize,
    pub node: usize,
}

/// Bytes that a stream holds between the two sides: flow control.
pub const WINDOW: usize = 512 << 10;
/// When the packets of a call go out, and when the caller gives up: what QUIC does with a first guess of 40 ms.
pub const KNOCKS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(120),
    Duration::from_millis(360),
    Duration::from_millis(840),
    Duration::from_millis(1800),
];
pub const CALL_MAX: Duration = Duration::from_secs(2);

/// The first end calls.
pub struct Link {
    pub ends: [End; 2],
    /// One way.
    pub delay: Duration,
    pub is_cut: bool,
    /// Counts connections: what was sent on an earlier one never arrives.
    pub connection: u64,
    pub held: Vec<Packet>,
}

pub struct End {
    pub place: Place,
    pub id: MemberId,
    pub session: Option<Session>,
    pub streams: [Inbound; 3],
}

/// One stream towards an end.
#[derive(Default)]
pub struct Inbound {
    /// Sent and not come. Each packet brings the oldest: they never overtake each other, whatever becomes of packets.
    pub on_way: VecDeque<Frame>,
    pub waiting: VecDeque<Frame>,
    /// Sent and not taken.
    pub outstanding: usize,
    pub last_arrival: Option<Instant>,
}

pub struct Packet {
    pub link: usize,
    pub end: usize,
    pub connection: u64,
    pub content: Content,
}

pub enum Content {
    /// The next frame of this stream.
    Frame(usize),
    Closed,
}

impl Link {
    pub fn new(places: [(Place, MemberId); 2], delay: Duration) -> Self {
        let ends = places.map(|(place, id)| End { place, id, session: None, streams: Default::default() });
        Self { ends, delay, is_cut: false, connection: 0, held: Vec::new() }
    }

    pub fn is_up(&self) -> bool {
        self.ends.iter().all(|end| end.session.as_ref().is_some_and(Session::is_up))
    }
}

pub fn number_of(stream: Stream) -> usize {
    Stream::ALL.iter().position(|known| *known == stream).expect("there are three")
}

/// About how many bytes a frame has.
pub fn bytes_of(frame: &Frame) -> usize {
    match frame {
        Frame::Changes(changes) => changes.words.iter().map(|word| word.len() + 2).sum::<usize>() + 32,
        Frame::Urgent { words, .. } => words.iter().map(|word| word.len() + 2).sum::<usize>() + 16,
        Frame::Digest(digest) => digest.buckets.len() * 8,
        _ => 64,
    }
}
