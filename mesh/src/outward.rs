//! What a bridge is told of its island's table, for the links to other islands, and what these bring.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::member::MemberId;

/// Takes what advances the table of a bridge. Given by the program, because a mesh knows no links.
pub trait Outward: Send + Sync + 'static {
    /// Something has changed: the shared table says so already, and its event is not sent yet. Called by the task of the
    /// mesh, so it must not block.
    fn tell(&self, news: News);
}

/// Programs need not say how theirs is shown.
impl std::fmt::Debug for dyn Outward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outward")
    }
}

/// Something that advanced the table: of a member of our own island, or of one of another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// A word counts now that did not before.
    Said {
        /// Whom it is about, which need not be its author.
        member: MemberId,
        /// What it says of that member.
        what: What,
        /// The whole datagram.
        bytes: Bytes,
        /// Others wait for it: farewells, verdicts, draining.
        is_urgent: bool,
        /// The bridge that brought it, if it is of another island.
        from: Option<MemberId>,
        /// Since when that member counts as gone, if it is down or has left.
        gone: Option<Instant>,
    },
    /// Listed no more because it cannot be reached through us: others may still reach it.
    Withdrawn(MemberId),
    /// Listed no more because its time is over: it is over everywhere.
    Forgotten(MemberId),
}

/// What a word says of the member that it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Its own newest word: its record, or its farewell. Ends the verdict on the one before.
    Own,
    /// A certificate: others have given it up.
    Down,
    /// A pulse that ends the verdict. Also told where others still believe a verdict that is known to be void.
    Refuted,
}

/// What a link has brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FarWords {
    /// The key of the bridge at its other end.
    pub from: MemberId,
    /// Members that can be reached over this link no more.
    pub withdrawn: Vec<MemberId>,
    /// Datagrams. Nothing is known of them yet.
    pub words: Vec<Bytes>,
    /// For how long members that these are about have been gone, as far as the other side says so. Claims: they count for
    /// those who are gone by the words.
    pub gone: Vec<(MemberId, Duration)>,
    /// They came before others: said to our own island at once.
    pub is_urgent: bool,
}
