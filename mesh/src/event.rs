//! What changed in the table, for the rest of the node.

use std::sync::Arc;

use crate::member::Member;

/// One change. Events of one node are numbered without gaps; the table is written before its event is sent.
#[derive(Clone, Debug)]
pub struct Event {
    /// Number of this change: one more than the one before.
    pub number: u64,
    /// What happened.
    pub kind: EventKind,
    /// The member as it is after the change.
    pub member: Arc<Member>,
}

/// What happened to a member.
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
        }
    }
}
