//! What changed in the table, for the rest of the node.

use std::sync::Arc;

use crate::island::Island;
use crate::member::Member;

/// One change. Events of one node are numbered without gaps; the table is written before its event is sent.
#[derive(Clone, Debug)]
pub struct Event {
    /// Number of this change: one more than the one before.
    pub number: u64,
    /// What happened.
    pub kind: EventKind,
    /// To whom, as it is after the change.
    pub subject: Subject,
}

/// Whom an event is about.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A member, of our own island or of another.
    Member(Arc<Member>),
    /// Another island.
    Island(Arc<Island>),
}

impl Event {
    /// The member it is about, if it is about one.
    #[must_use]
    pub fn member(&self) -> Option<&Arc<Member>> {
        match &self.subject {
            Subject::Member(member) => Some(member),
            Subject::Island(_) => None,
        }
    }

    /// The island it is about, if it is about one.
    #[must_use]
    pub fn island(&self) -> Option<&Arc<Island>> {
        match &self.subject {
            Subject::Member(_) => None,
            Subject::Island(island) => Some(island),
        }
    }
}

/// What happened to a member, or to an island.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum EventKind {
    /// First time listed, or listed again under a higher epoch after it left.
    Joined,
    /// Said something new of itself.
    Updated,
    /// Will stop soon.
    Draining,
    /// Silent for longer than its limit.
    Suspect,
    /// Given up.
    Down,
    /// Heard again after suspicion or a verdict.
    Back,
    /// Said farewell.
    Left,
    /// No longer listed.
    Forgotten,
    /// Two nodes speak with this key.
    DuplicateKey,
    /// The first way to another island has come.
    IslandUp,
    /// The last way to another island has been gone for 200 ms.
    IslandDown,
}

impl EventKind {
    /// The word used in JSON and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Updated => "updated",
            Self::Draining => "draining",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Back => "back",
            Self::Left => "left",
            Self::Forgotten => "forgotten",
            Self::DuplicateKey => "duplicate-key",
            Self::IslandUp => "island-up",
            Self::IslandDown => "island-down",
        }
    }
}
