//! Who a member is and what it says of itself: plain values, no clock, no bytes of the wire.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

/// A member's identity: its ed25519 public key.
///
/// Shown and parsed as lower-case base32 without padding (52 characters).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MemberId(pub [u8; 32]);

/// All of it, in words: keys may be chosen, so a part is not enough.
impl Hash for MemberId {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (words, _) = self.0.as_chunks::<8>();
        words.iter().for_each(|word| state.write_u64(u64::from_ne_bytes(*word)));
    }
}

/// By bytes. Keys are random, so their first eight nearly always decide: tables are looked up for every datagram.
impl Ord for MemberId {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.head().cmp(&other.head()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for MemberId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl MemberId {
    fn head(&self) -> u64 {
        self.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }

    /// The first eight characters: enough for people and logs, never for decisions.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// A text that is not 52 characters of lower-case base32.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a member id is 52 characters of a-z and 2-7")]
pub struct NotAMemberId;

impl FromStr for MemberId {
    type Err = NotAMemberId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 52 {
            return Err(NotAMemberId);
        }
        let bytes = data_encoding::BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| NotAMemberId)?;
        bytes.try_into().map(Self).map_err(|_| NotAMemberId)
    }
}

/// One life of a key: raised, and on disk, before the first word of that life. Starts at 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The last epoch there is. A key that reached it is used up; at one start a second that takes 68 years.
    pub const MAX: Self = Self((1 << 31) - 1);
}

/// Counts what a node signs within an epoch. Starts at 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seq(pub u64);

impl Seq {
    /// The last seq there is: at a million words a second it lasts 8 years.
    pub const MAX: Self = Self((1 << 48) - 1);

    /// Between 1 and [`Self::MAX`].
    #[must_use]
    pub fn is_valid(self) -> bool {
        (1..=Self::MAX.0).contains(&self.0)
    }
}

/// When a word was said, by its author's own counting: the only order there is between two words of one author.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stamp {
    /// The life it was said in.
    pub epoch: Epoch,
    /// Its number in that life.
    pub seq: Seq,
}

impl Stamp {
    /// From bare numbers.
    #[must_use]
    pub fn new(epoch: u32, seq: u64) -> Self {
        Self { epoch: Epoch(epoch), seq: Seq(seq) }
    }

    /// Whether both numbers are between 1 and their ceilings. Without ceilings one word could say the last
    /// number there is, and its author could never say anything newer.
    #[must_use]
    pub fn is_valid(self) -> bool {
        (1..=Epoch::MAX.0).contains(&self.epoch.0) && self.seq.is_valid()
    }
}

/// How a member stands with us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Standing {
    /// Heard lately, or told of by the table and not doubted.
    Alive,
    /// Silent for longer than its limit; asked, no answer yet. Still chosen, last.
    Suspect,
    /// Given up; one newer word brings it back.
    Down,
    /// Said its own signed farewell; only a higher epoch brings it back.
    Left,
}

impl Standing {
    /// The word used in JSON, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
        }
    }

    /// Down or left: listed for a while, chosen never.
    #[must_use]
    pub fn is_gone(self) -> bool {
        matches!(self, Self::Down | Self::Left)
    }
}

/// How busy a member is: requests being served here, and how many it takes at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Requests in flight.
    pub in_flight: u32,
    /// The most it admits at once; 0 when it admits none or has not said.
    pub capacity: u32,
}

/// One address a node announces, with the length of its network's prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The address itself.
    pub ip: IpAddr,
    /// Length of the network prefix: 0-32 or 0-128.
    pub prefix: u8,
}

/// Digest of what a node has to offer; what the bytes mean is the application's business.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct CatalogueSummary {
    /// Names the content: equal digests, equal content.
    pub digest: [u8; 32],
    /// How many entries it has.
    pub entries: u32,
}

/// What a node says of itself in an ANNOUNCE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Label for people: 1 to 63 bytes of visible characters, not unique.
    pub name: String,
    /// What it does: at most 8 labels of `a-z 0-9 -`, each at most 32 long (`pieces`, `intermediary`, `bridge`, or an embedder's own).
    pub roles: Vec<String>,
    /// Where it may be reached, at most 8.
    pub addresses: Vec<Address>,
    /// TCP port of its HTTP listener; 0 for none.
    pub http_port: u16,
    /// UDP port of its private socket: all unicast goes there.
    pub unicast_port: u16,
    /// The island it counts itself to.
    pub island: String,
    /// Whether that name was given to it (`--island`) rather than heard or defaulted.
    pub island_given: bool,
    /// Stops soon: choose it no more.
    pub draining: bool,
    /// What it offers, if anything.
    pub catalogue: Option<CatalogueSummary>,
    /// The members it asks to listen for its beacons, at most 6.
    pub watchers: Vec<MemberId>,
    /// Lowest and highest wire version it understands.
    pub protocol: (u8, u8),
    /// Version of its software, at most 32 characters.
    pub version: String,
    /// Free labels of an embedding application: at most 16, 512 bytes in all.
    pub tags: Vec<(String, String)>,
}

impl Record {
    /// Whether it announces this role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r == role)
    }
}

/// Why a node leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaveReason {
    /// Somebody stopped it (Ctrl+C, SIGTERM).
    Stopped,
    /// It will be back with a newer version.
    Upgrade,
    /// It failed and says so.
    Failed,
}

/// Why a member is not plainly well. The one list that JSON, text, metrics and documents draw from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Reason {
    /// Nothing heard for longer than its silence limit.
    Silent,
    /// Enough of its watchers say so: no answer to pings either.
    NoAnswer,
    /// As `NoAnswer`, but said by others for want of watchers.
    Unilateral,
    /// Others hear it, we do not.
    Unheard,
    /// Known from others only, not yet heard by ourselves.
    Unproven,
    /// Said farewell.
    Farewell,
    /// Announced that it stops.
    Draining,
    /// Speaks a newer protocol than we do.
    NewerVersion,
    /// Two nodes use one key.
    DuplicateKey,
    /// Announces no address that we can reach.
    NoAddress,
    /// No way leads to its island.
    IslandUnreachable,
    /// Its record came over a bridge and names our own island: another island has its name, or ours has split.
    SameNameOrSplit,
}

impl Reason {
    /// All there are.
    pub const ALL: [Self; 12] = [
        Self::Silent,
        Self::NoAnswer,
        Self::Unilateral,
        Self::Unheard,
        Self::Unproven,
        Self::Farewell,
        Self::Draining,
        Self::NewerVersion,
        Self::DuplicateKey,
        Self::NoAddress,
        Self::IslandUnreachable,
        Self::SameNameOrSplit,
    ];

    /// The word used in JSON, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::NoAnswer => "no-answer",
            Self::Unilateral => "unilateral",
            Self::Unheard => "unheard",
            Self::Unproven => "unproven",
            Self::Farewell => "farewell",
            Self::Draining => "draining",
            Self::NewerVersion => "newer-version",
            Self::DuplicateKey => "duplicate-key",
            Self::NoAddress => "no-address",
            Self::IslandUnreachable => "island-unreachable",
            Self::SameNameOrSplit => "same-name-or-split",
        }
    }
}

/// One row of the table as the rest of the node sees it: a value, complete in itself.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its key.
    pub id: MemberId,
    /// The stamp of `record`.
    pub stamp: Stamp,
    /// What it last said of itself.
    pub record: Arc<Record>,
    /// The signed bytes of `record`, as heard.
    pub record_bytes: Bytes,
    /// How it stands with us.
    pub standing: Standing,
    /// Heard directly at least once: two beacons in order, a pong to our nonce, or an endpoint proof.
    pub proven: bool,
    /// Whether we believe that we can reach it now.
    pub reachable: bool,
    /// Why it is not plainly well, if it is not.
    pub reason: Option<Reason>,
    /// Since when `standing` and `reason` are as they are.
    pub since: Instant,
    /// When its pulse was last heard by us.
    pub heard: Option<Instant>,
    /// How busy it last said it is.
    pub load: Load,
    /// Where its HTTP listener is to be dialled from here (with scope for link-local addresses), best first; empty if nowhere.
    pub http_addresses: Vec<SocketAddr>,
    /// Whether this is the node itself.
    pub is_self: bool,
    /// Known over bridges alone: of another island. Its load and pulse stay there, and it is dialled through tunnels.
    pub far: bool,
}

impl Member {
    /// Whether a request may be sent to it at all: alive or suspect, not draining, with an address here or a way to its
    /// island.
    #[must_use]
    pub fn is_choosable(&self) -> bool {
        let is_reached = if self.far {
            self.reachable && self.record.http_port != 0
        } else {
            !self.http_addresses.is_empty()
        };
        is_reached && !self.standing.is_gone() && !self.record.draining
    }

    /// Whether it announces this role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.record.has_role(role)
    }
}
