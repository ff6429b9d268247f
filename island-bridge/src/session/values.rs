//! What a session is given and what it gives.

use std::time::{Duration, Instant};

use bytes::Bytes;
use isle_mesh::member::MemberId;

use crate::frame::{Cursor, Goodbye, IslandLoad, Refusal, Route, Stream};

/// What a session is told once, when the connection stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The key that the connection has proven: what it tells us need not be told to it.
    pub peer: MemberId,
    /// Whether that key may link.
    pub admission: Admission,
    /// Our island's name: a label.
    pub island: String,
    /// Its number, if it has one.
    pub island_id: Option<u64>,
    /// Version of our software: at most 32 visible ASCII characters.
    pub software: String,
    /// Lowest and highest version of the protocol that we understand; [`PROTOCOL`](super::PROTOCOL).
    pub protocol: (u8, u8),
    /// The secret of the invite we were given, while the other side does not know our key.
    pub invite: Option<[u8; 32]>,
    /// How far the last session with this peer had read: see [`Session::bookmark`](super::Session::bookmark).
    pub bookmark: Option<Bookmark>,
}

/// How far another's journal was read. Good as long as our own table still has all that was read: an island that could not
/// be reached for a day is dropped, and would not come again over a link that goes on where it stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bookmark {
    /// There.
    pub cursor: Cursor,
    /// What our own journal had lost by then: see [`Journal::losses`](crate::journal::Journal::losses).
    pub losses: u64,
}

/// Whether the other side's key may link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// We were told this key.
    Known,
    /// Only with an invite; until then we say nothing of ourselves.
    ByInvite,
}

/// What the other side said of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// Its island.
    pub island: String,
    /// The number of that island, if it has one.
    pub island_id: Option<u64>,
    /// Version of its software.
    pub software: String,
    /// The version of the protocol that is spoken: the highest that both understand.
    pub protocol: u8,
}

/// What has happened, for the caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Somebody unknown shows an invite: answer with `admit` or `refuse`.
    Invited {
        /// What it shows.
        secret: [u8; 32],
    },
    /// The link carries.
    Up(Greeting),
    /// To be verified and merged, the withdrawn first; then call `merged` with the stream. Nothing else comes on that
    /// stream before.
    Words {
        /// On which stream they came.
        stream: Stream,
        /// Members that can be reached over this link no more.
        withdrawn: Vec<MemberId>,
        /// Datagrams. Nothing is known of them yet.
        words: Vec<Bytes>,
        /// For how long members that these are about have been gone, as far as the other side says so.
        gone: Vec<(MemberId, Duration)>,
    },
    /// Which islands can be reached through the other side; what is not named stays as it was.
    Routes(Vec<Route>),
    /// How busy islands are.
    Load(Vec<(String, IslandLoad)>),
    /// The link is over: send what `poll_transmit` still gives, then close the connection. The last event.
    Down(DownReason),
}

/// Why a link is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// Nothing was heard for so long.
    #[error("nothing heard for {:.1} s", .0.as_secs_f32())]
    Silent(Duration),
    /// We refused it.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The other side refused us.
    #[error("the other side refused: {0}")]
    RefusedByPeer(Refusal),
    /// We ended it with `goodbye`.
    #[error("ended by us")]
    Ended,
    /// The other side ended it on purpose.
    #[error("ended by the other side")]
    EndedByPeer(Goodbye),
    /// The other side broke the protocol.
    #[error("the other side broke the protocol: {0}")]
    Breach(Breach),
}

/// How the protocol was broken. The link is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Breach {
    /// A second hello.
    #[error("a second hello")]
    SecondHello,
    /// Something else than a hello or a refusal came first.
    #[error("something came before the hello")]
    BeforeHello,
    /// A frame that nothing asked for: a batch before the last was acknowledged, a request without a digest, ...
    #[error("{0} out of turn")]
    OutOfTurn(&'static str),
    /// An index that goes backwards, or an acknowledgement of something else than was sent.
    #[error("an index that does not follow")]
    Index,
    /// A bucket that the digest does not have.
    #[error("a bucket that the digest does not have")]
    Bucket,
}

/// What a link has carried since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Words sent, urgent ones included.
    pub words_sent: u64,
    /// Words that came, urgent ones included, news or not.
    pub words_heard: u64,
    /// Of those sent, in frames that went past the others.
    pub urgent_sent: u64,
    /// Of those that came, in such frames.
    pub urgent_heard: u64,
    /// Times that digests had to be compared, either way.
    pub digests: u64,
}

/// When `handle_timeout` has work, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wakeup {
    /// Then.
    pub at: Instant,
    /// For this.
    pub why: Why,
}

/// What a session waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Why {
    /// The other side has been silent for too long.
    SilenceEnds,
    /// A ping is due.
    PingDue,
    /// Loads may be said again.
    LoadDue,
    /// The other side is to hear how far it has read, though nothing in it concerns it.
    AdvanceDue,
    /// Our goodbye has waited long enough for its answer.
    GoodbyeEnds,
}
