//! What two bridges say to each other, and the way from the bytes of a stream to a frame and back.
//!
//! A frame is the length of what follows (4 bytes), its kind (1 byte) and its body, everything big-endian. Both are
//! looked at before a byte of the body is kept: a length that is too large or a kind that does not belong on the
//! stream ends the link. Decoding checks form only: whether words are what their authors said is for
//! `isle_mesh::verify`, whether a frame comes in turn is for the session.
//!
//! A link has three streams in each direction, so that nothing delays what matters: [`Stream::Control`],
//! [`Stream::Table`], [`Stream::Urgent`]. Each tunnel is a stream of its own that starts with one frame: [`tunnel`].

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use isle_mesh::island::WAYS_MAX;
use isle_mesh::member::MemberId;

pub use isle_mesh::reach::{IslandLoad, Reach};

mod body;
mod decoder;
mod reader;
#[cfg(test)]
pub(crate) mod tests;
pub mod tunnel;

pub use decoder::Decoder;

/// Bytes before a body: length and kind.
pub const PREFIX_BYTES: usize = 5;
/// Most words in one [`Changes`].
pub const BATCH_WORDS_MAX: usize = 1024;
/// Most bytes of all words in one [`Changes`]: so much of a table crosses in one round trip. Guessed: 10 MB, which
/// are 20,000 members, take 40 round trips.
pub const BATCH_BYTES_MAX: usize = 256 << 10;
/// Most members in the list of the withdrawn of one [`Changes`].
pub const WITHDRAWN_MAX: usize = 512;
/// A [`Digest`] has at most two to the power of this many buckets.
pub const BUCKET_BITS_MAX: u8 = 12;
/// Most hashes in one [`DigestRequest`], and most buckets.
pub const HELD_MAX: usize = 8192;
/// Most words in one frame of the urgent stream.
pub const URGENT_WORDS_MAX: usize = 2;
/// Most routes in one frame; more go into several.
pub const ROUTES_MAX: usize = 32;
/// Most islands in one frame of loads.
pub const LOADS_MAX: usize = 256;

/// Bytes that are no frame of ours. The stream cannot be read any further: the link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is more than this stream ever carries in one frame.
    #[error("a frame of {bytes} bytes, at most {most} are taken")]
    Long {
        /// What the prefix says.
        bytes: usize,
        /// What is allowed.
        most: usize,
    },
    /// No frame of this stream.
    #[error("no frame of kind {kind} belongs on this stream")]
    Kind {
        /// What the prefix says.
        kind: u8,
    },
    /// The body is not what its kind asks for.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// The streams of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stream {
    /// Hello, refusal, ping, load.
    Control,
    /// The table in batches.
    Table,
    /// What must not wait: farewells and the like, routes, goodbye. In order with each other.
    Urgent,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Control, Self::Table, Self::Urgent];

    /// Most bytes that may follow a frame's length here.
    #[must_use]
    pub fn frame_bytes_max(self) -> usize {
        match self {
            Self::Control => 32 << 10,
            // Words with their lengths and the ages of their members, the withdrawn, and a little for numbers.
            Self::Table => BATCH_BYTES_MAX + (2 + 36) * BATCH_WORDS_MAX + 32 * WITHDRAWN_MAX + 64,
            Self::Urgent => 32 << 10,
        }
    }
}

/// What is said on a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// "This is who I am": the first frame of either side.
    Hello(Hello),
    /// "Not with you": the last frame.
    Refused(Refusal),
    /// "Are you there?"
    Ping {
        /// Echoed in the answer.
        nonce: u64,
    },
    /// "Yes."
    Pong {
        /// The ping's.
        nonce: u64,
    },
    /// How busy islands are: those that a route was said for, and the sender's own.
    Load(Vec<(String, IslandLoad)>),
    /// "So far I have read your journal": the first frame on the table's stream.
    Cursor(Cursor),
    /// "I have merged that batch; the next, please."
    Ack {
        /// The batch's `through`.
        through: u64,
    },
    /// A batch of the table.
    Changes(Changes),
    /// "I do not know your cursor; this is what I have."
    Digest(Digest),
    /// "Of that I lack these."
    DigestRequest(DigestRequest),
    /// One word that must not wait; before it the word of the member that it is judged by, if that may not have come.
    Urgent {
        /// Its place in the sender's journal.
        index: u64,
        /// Whole datagrams, 1 to [`URGENT_WORDS_MAX`].
        words: Vec<Bytes>,
        /// As in [`Changes::gone`]: of the member that they are about.
        gone: Vec<(MemberId, Duration)>,
    },
    /// Which islands can be reached through the sender. What is not named stays as it was.
    Routes(Vec<Route>),
    /// "I end this link on purpose", after everything urgent; answered with the same.
    Goodbye(Goodbye),
}

impl Frame {
    /// The stream it belongs on.
    #[must_use]
    pub fn stream(&self) -> Stream {
        match self {
            Self::Hello(_) | Self::Refused(_) | Self::Ping { .. } | Self::Pong { .. } | Self::Load(_) => {
                Stream::Control
            }
            Self::Cursor(_)
            | Self::Ack { .. }
            | Self::Changes(_)
            | Self::Digest(_)
            | Self::DigestRequest(_) => Stream::Table,
            Self::Urgent { .. } | Self::Routes(_) | Self::Goodbye(_) => Stream::Urgent,
        }
    }
}

/// Body of a hello; the same in all versions but for what later ones append.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Lowest and highest version of this protocol that is understood, lowest first, at least 1.
    pub protocol: (u8, u8),
    /// The sender's island.
    pub island: String,
    /// A number of that island, if it has one: two islands with one number are one island, whatever they are called.
    pub island_id: Option<u64>,
    /// Which journal the sender's indices count.
    pub instance: u64,
    /// Version of the sender's software.
    pub software: String,
    /// The secret of an invite, shown by whom the other side does not know yet.
    pub invite: Option<[u8; 32]>,
}

/// Why a link is refused. The number of each is also the close code of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody has allowed this key.
    #[error("unknown key")]
    UnknownKey,
    /// No version that both sides understand.
    #[error("no common version")]
    Version,
    /// Both islands have one name.
    #[error("both islands have the same name")]
    SameName,
    /// The invite has expired.
    #[error("the invite has expired")]
    InviteExpired,
    /// The invite has been used as often as it may be.
    #[error("the invite has been used")]
    InviteUsed,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::UnknownKey, Self::Version, Self::SameName, Self::InviteExpired, Self::InviteUsed];

    /// The word used in logs, metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownKey => "unknown-key",
            Self::Version => "version",
            Self::SameName => "same-name",
            Self::InviteExpired => "invite-expired",
            Self::InviteUsed => "invite-used",
        }
    }

    /// Its number on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::UnknownKey => 1,
            Self::Version => 2,
            Self::SameName => 3,
            Self::InviteExpired => 4,
            Self::InviteUsed => 5,
        }
    }

    /// The way back from [`code`](Self::code).
    #[must_use]
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code)
    }
}

/// Why a link is ended on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Goodbye {
    /// The bridge stops.
    Leaving,
    /// Somebody has taken the link away; calling again is pointless.
    Unlinked,
}

/// How far a journal has been read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    /// Whose indices they are; 0 before anything was read.
    pub instance: u64,
    /// All changes up to this one have been merged, but for the urgent ones.
    pub index: u64,
    /// All urgent changes up to this one have been merged.
    pub urgent: u64,
}

/// A batch: first the withdrawn count, then the words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Once merged, the reader's cursor stands here; 0 while the answer to a [`DigestRequest`] goes on.
    pub through: u64,
    /// Members that can be reached over the sender no more.
    pub withdrawn: Vec<MemberId>,
    /// Whole datagrams of members, as they were signed.
    pub words: Vec<Bytes>,
    /// For how long members that these are about have been gone: down, or left. In whole seconds on the wire, at most 136
    /// years; not before version 2.
    pub gone: Vec<(MemberId, Duration)>,
}

/// A summary of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digest {
    /// The sender's index when it was made: with what is asked for now and everything later, all is known.
    pub index: u64,
    /// One number for each range of members, by the first bits of their ids. A power of two of them.
    pub buckets: Vec<u64>,
}

/// Which buckets differ, and what of them is known already.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DigestRequest {
    /// Ascending by bucket.
    pub wanted: Vec<Wanted>,
    /// Another request follows once this one is answered.
    pub more: bool,
}

/// One bucket of a [`DigestRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Its number.
    pub bucket: u16,
    /// Hashes of what the asker has in it, ascending: need not be sent.
    pub held: Vec<u64>,
}

/// What is said of one island.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// It can be reached so.
    Reach(Reach),
    /// It can be reached through the sender no more.
    Withdrawn(String),
}

impl Route {
    /// Which island it is about.
    #[must_use]
    pub fn island(&self) -> &str {
        match self {
            Self::Reach(reach) => reach.path.destination(),
            Self::Withdrawn(island) => island,
        }
    }

    /// The way, unless there is none any more.
    pub(crate) fn into_reach(self) -> Option<Reach> {
        match self {
            Self::Reach(reach) => Some(reach),
            Self::Withdrawn(_) => None,
        }
    }

    /// The same by the islands that they are about, in their order: at most [`WAYS_MAX`] of each, those before a withdrawal
    /// left out. Of an island that is named, whatever was said before is over.
    pub(crate) fn by_island(routes: impl IntoIterator<Item = Self>) -> BTreeMap<String, Vec<Self>> {
        let mut by_island: BTreeMap<String, Vec<Self>> = BTreeMap::new();
        for route in routes {
            let of_island = by_island.entry(route.island().to_owned()).or_default();
            let is_over = |said: &[Self]| matches!(said, [Self::Withdrawn(_)]);
            if matches!(route, Self::Withdrawn(_)) || is_over(of_island) {
                of_island.clear();
            }
            if of_island.len() < WAYS_MAX {
                of_island.push(route);
            }
        }
        by_island
    }
}

/// Appends `frame` as it is on its stream.
///
/// # Panics
/// If a list or a text is above its limit: whoever builds frames keeps to them.
pub fn encode(frame: &Frame, out: &mut Vec<u8>) {
    let most = frame.stream().frame_bytes_max();
    with_prefix(body::kind(frame), most, out, |out| body::write(frame, out));
}

/// Puts length and kind before what `body` appends.
fn with_prefix(kind: u8, most: usize, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(kind);
    body(out);
    let length = out.len() - start - 4;
    assert!(length <= most, "a frame of {length} bytes was built, the other side takes {most}");
    let length = u32::try_from(length).expect("a frame's limit fits 32 bits");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}
