//! The messages, and the way from bytes to a message and back.
//!
//! A datagram is a header that is fixed for all versions, a body, and a signature over both.
//! This file says what the messages are; the files below it turn them into bytes and back:
//! `header` (fixed), `body` (msgpack maps), `shape` and `fields` (bounds on both), `text` and `limits` (what may be said).
//! Decoding checks form only; who said it and whether it is news is for `verify` and `table`.
//!
//! Source: NETWORK.md, "Datagrams".

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::member::{Epoch, LeaveReason, Load, MemberId, Record, Seq, Stamp};
use crate::reach::Reach;

pub(crate) mod body;
pub(crate) mod fields;
pub mod header;
pub mod limits;
pub mod routes;
pub(crate) mod shape;
#[cfg(test)]
mod tests;
pub mod text;

pub use header::HEADER_BYTES;
pub use limits::{RecordError, check_record};
pub use text::is_label;

/// Most bytes a datagram may have: fits an Ethernet and a tunnel's MTU without fragments.
pub const DATAGRAM_BYTES_MAX: usize = 1200;

/// Length of the signature that ends every datagram.
pub const SIGNATURE_BYTES: usize = 64;

/// The least bytes a HELLO has, signature included; no answer to it is longer.
pub const HELLO_BYTES_MIN: usize = body::HELLO_SAID_BYTES + SIGNATURE_BYTES;

/// The version this code writes and reads.
pub const WIRE_VERSION: u8 = 1;

/// Most votes in a DOWN: so many fit a datagram.
pub const VOTES_MAX: usize = 5;

/// Most ways in a ROUTES: more do not fit a datagram.
pub const REACHES_MAX: usize = 64;

/// The numbers of the messages.
pub mod kind {
    /// ANNOUNCE.
    pub const ANNOUNCE: u8 = 1;
    /// BEACON.
    pub const BEACON: u8 = 2;
    /// HELLO.
    pub const HELLO: u8 = 3;
    /// OFFER.
    pub const OFFER: u8 = 4;
    /// COOKIE.
    pub const COOKIE: u8 = 5;
    /// PING.
    pub const PING: u8 = 6;
    /// PONG.
    pub const PONG: u8 = 7;
    /// FAREWELL.
    pub const FAREWELL: u8 = 8;
    /// HINT.
    pub const HINT: u8 = 9;
    /// SUSPECT.
    pub const SUSPECT: u8 = 10;
    /// DOWN.
    pub const DOWN: u8 = 11;
    /// PROOF.
    pub const PROOF: u8 = 12;
    /// ROUTES.
    pub const ROUTES: u8 = 13;
}

/// Bytes that are no datagram of ours. Never an alarm: anybody can send anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Shorter than a header or longer than a datagram.
    #[error("too short or too long")]
    Size,
    /// Does not start with our magic.
    #[error("another protocol")]
    Magic,
    /// Epoch or seq is 0 or above its ceiling.
    #[error("epoch or seq out of range")]
    Ceiling,
    /// The body is not what its kind asks for.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// The bytes that a signature is made over: header and body. `header.version` and `header.kind` should come
/// from [`Header::of`].
#[must_use]
pub fn encode(header: &Header, message: &Message) -> Vec<u8> {
    let mut said = Vec::with_capacity(256);
    header::write(header, &mut said);
    body::write(message, &mut said);
    said
}

/// Reads header and body, without the signature. Allocates at most a few kilobytes, whatever `said` claims.
///
/// The message is `None` when the kind or the version is one that this code does not know: the word can
/// still be verified, kept and passed on as bytes.
///
/// # Errors
/// What is wrong with the form. Nothing is known of the truth yet: see `verify`.
pub fn decode(said: &[u8]) -> Result<(Header, Option<Message>), DecodeError> {
    if said.len() > DATAGRAM_BYTES_MAX - SIGNATURE_BYTES {
        return Err(DecodeError::Size);
    }
    let (header, rest) = header::read(said)?;
    if header.version != WIRE_VERSION {
        return Ok((header, None));
    }
    if header.kind == kind::HELLO && said.len() < body::HELLO_SAID_BYTES {
        return Err(DecodeError::Malformed("a hello shorter than its answer"));
    }
    Ok((header, body::read(header.kind, rest)?))
}

/// Tells meshes on one wire apart: the first four bytes of BLAKE3("isle mesh " + name). Not a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MeshTag(pub [u8; 4]);

impl MeshTag {
    /// The tag of a mesh's name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"isle mesh ").update(name.as_bytes());
        let hash = hasher.finalize();
        let mut tag = [0; 4];
        tag.copy_from_slice(&hash.as_bytes()[..4]);
        Self(tag)
    }
}

/// The part of a datagram that every version can read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Wire version of the body.
    pub version: u8,
    /// What the body is; values we do not know are kept.
    pub kind: u8,
    /// Which mesh it is meant for.
    pub mesh: MeshTag,
    /// Who says it.
    pub author: MemberId,
    /// When, by the author's counting.
    pub stamp: Stamp,
}

impl Header {
    /// The header of `message` as this version writes it.
    #[must_use]
    pub fn of(mesh: MeshTag, author: MemberId, stamp: Stamp, message: &Message) -> Self {
        Self { version: WIRE_VERSION, kind: message.kind(), mesh, author, stamp }
    }
}

/// What is said. The number of each kind is in [`kind`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// "I am here and this is me." Slot: record.
    Announce(Arc<Record>),
    /// "I still am, and this busy." Slot: pulse.
    Beacon(Beacon),
    /// "I am new: who is there?"
    Hello(Hello),
    /// "I am; fetch the table here."
    Offer(Offer),
    /// "Repeat your hello with this, so that I know you are where you say."
    Cookie(Cookie),
    /// "Are you there?"
    Ping(Ping),
    /// "Yes, and this busy." Slot: pulse.
    Pong(Pong),
    /// "I leave on purpose." Slot: end.
    Farewell(Farewell),
    /// "A connection to it was refused: ask it." To its watchers.
    Hint(Hint),
    /// "It is silent." A vote.
    Suspect(Suspect),
    /// "So many have said so": votes, verbatim.
    Down(Down),
    /// "It has said this since": a pulse of the accused, verbatim.
    Proof(Proof),
    /// "These islands lie behind my links."
    Routes(Routes),
}

impl Message {
    /// Its number on the wire.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Announce(_) => kind::ANNOUNCE,
            Self::Beacon(_) => kind::BEACON,
            Self::Hello(_) => kind::HELLO,
            Self::Offer(_) => kind::OFFER,
            Self::Cookie(_) => kind::COOKIE,
            Self::Ping(_) => kind::PING,
            Self::Pong(_) => kind::PONG,
            Self::Farewell(_) => kind::FAREWELL,
            Self::Hint(_) => kind::HINT,
            Self::Suspect(_) => kind::SUSPECT,
            Self::Down(_) => kind::DOWN,
            Self::Proof(_) => kind::PROOF,
            Self::Routes(_) => kind::ROUTES,
        }
    }
}

/// Body of BEACON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beacon {
    /// Seq of the author's current record, in the header's epoch.
    pub record_seq: Seq,
    /// How busy the author is.
    pub load: Load,
    /// It admits no more for now.
    pub full: bool,
    /// It hears unicast but no broadcast.
    pub deaf: bool,
    /// Digest of the author's table: see `Table::digest`.
    pub digest: u64,
    /// Digest of what the author knows of other islands; only a bridge says it, and only in a BEACON.
    pub far: Option<u64>,
}

/// Body of HELLO.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Echoed in the answer.
    pub nonce: u64,
    /// 0 for the first try; names which members answer.
    pub attempt: u8,
    /// Digest of the author's table.
    pub digest: u64,
    /// What a COOKIE asked to have repeated.
    pub cookie: Option<[u8; 16]>,
    /// Island the author was given, if any.
    pub island: Option<String>,
    /// UDP port the answer goes to (the author's private socket).
    pub unicast_port: u16,
    /// Asks only where an intermediary is; the author is never listed.
    pub asking: bool,
}

/// Body of OFFER.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The hello's nonce.
    pub nonce: u64,
    /// The source address the hello came from, as seen by the author.
    pub observed: SocketAddr,
    /// Digest of the author's table.
    pub digest: u64,
    /// How many members it lists.
    pub members: u32,
    /// TCP port of the author where the table can be fetched; 0 for nowhere.
    pub http_port: u16,
    /// The author's island.
    pub island: String,
    /// Whether the author was given that name.
    pub island_given: bool,
    /// Whether the author is an intermediary that is not draining.
    pub intermediary: bool,
    /// Whether many come at once, as far as the author has heard.
    pub crowd: bool,
}

/// Body of COOKIE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cookie {
    /// The hello's nonce.
    pub nonce: u64,
    /// To be repeated in the next hello.
    pub cookie: [u8; 16],
}

/// Body of PING.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ping {
    /// Echoed in the answer.
    pub nonce: u64,
    /// Who is meant: nobody else answers.
    pub target: MemberId,
    /// UDP port the answer goes to.
    pub unicast_port: u16,
    /// Asks for the target's record besides; only a member that the target knows gets it.
    pub wants_record: bool,
}

/// Body of PONG.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pong {
    /// The ping's nonce.
    pub nonce: u64,
    /// The same as in a beacon.
    pub beacon: Beacon,
}

/// Body of FAREWELL. Its own (epoch, seq) in the header is the last the author says in that epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Farewell {
    /// Why.
    pub reason: LeaveReason,
}

/// Body of HINT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hint {
    /// Who refused a connection.
    pub target: MemberId,
}

/// Body of SUSPECT: one vote, good only with what it is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suspect {
    /// Who is silent.
    pub target: MemberId,
    /// The life it is judged in.
    pub epoch: Epoch,
    /// The record that names the voter a watcher, by its seq in that epoch.
    pub record_seq: Seq,
    /// The newest word of the target that the voter knows, by its seq in that epoch; not below `record_seq`.
    pub last_seq: Seq,
    /// For how long the voter has heard nothing, in milliseconds.
    pub silence_ms: u32,
}

/// Body of DOWN: a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Down {
    /// Whole SUSPECT datagrams, 1 to [`VOTES_MAX`]. Nothing is known of them yet: each is verified by itself.
    pub votes: Vec<Bytes>,
}

/// Body of PROOF.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proof {
    /// A whole BEACON or PONG datagram. Nothing is known of it yet: it is verified by itself.
    pub pulse: Bytes,
}

/// Body of ROUTES: what lies behind a bridge's links, in as many words as it takes. Newer words replace older ones part by
/// part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Routes {
    /// Which part this is, from 0.
    pub part: u8,
    /// How many parts there are, at least 1: what is held of further ones is over.
    pub parts: u8,
    /// At most [`REACHES_MAX`]; fewer where their names are long.
    pub reaches: Vec<Reach>,
}
