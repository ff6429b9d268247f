//! The messages, and the way from bytes to a message and back.
//!
//! A datagram is a header that is fixed for all versions, a body, and a signature over both.
//! This file says what the messages are; `wire/header.rs` and `wire/body.rs` turn them into bytes and back.
//! Decoding checks form only; who said it and whether it is news is for `verify` and `table`.
//!
//! Source: NETWORK.md, "Datagrams".

use std::net::SocketAddr;

use crate::member::{LeaveReason, Load, MemberId, Record, Seq, Stamp};

/// Most bytes a datagram may have: fits an Ethernet and a tunnel's MTU without fragments.
pub const DATAGRAM_BYTES_MAX: usize = 1200;

/// The version this code writes and reads.
pub const WIRE_VERSION: u8 = 1;

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

/// What is said. The number of each kind is in `wire/body.rs`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// "I am here and this is me." Slot: record.
    Announce(Record),
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
