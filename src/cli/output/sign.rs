//! One sign, word and colour for each way a member can stand: never colour alone.

use crate::api::view::MemberView;
use crate::cli::output::{Ink, Screen};

/// How a member stands, in one word for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stand {
    /// Well.
    Alive,
    /// Well, and stops soon.
    Draining,
    /// Listed as alive, but not to be reached from there.
    Unreachable,
    /// Doubted.
    Suspect,
    /// Given up.
    Down,
    /// Said farewell.
    Left,
}

impl Stand {
    /// Of a member. A standing of a later version reads as doubt.
    #[must_use]
    pub fn of(member: &MemberView) -> Self {
        match &*member.standing {
            "left" => Self::Left,
            "down" => Self::Down,
            "alive" if member.draining => Self::Draining,
            "alive" if member.reachable => Self::Alive,
            "alive" => Self::Unreachable,
            _ => Self::Suspect,
        }
    }

    /// Down or left.
    #[must_use]
    pub fn is_gone(self) -> bool {
        matches!(self, Self::Down | Self::Left)
    }

    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Draining => "draining",
            Self::Unreachable => "unreachable",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
        }
    }

    /// The sign.
    #[must_use]
    pub fn sign(self, screen: Screen) -> &'static str {
        let (sign, ascii) = match self {
            Self::Alive => ("●", "+"),
            Self::Draining => ("▾", "v"),
            Self::Unreachable => ("◌", "~"),
            Self::Suspect => ("◐", "?"),
            Self::Down => ("✕", "x"),
            Self::Left => ("○", "-"),
        };
        if screen.unicode { sign } else { ascii }
    }

    /// The colour.
    #[must_use]
    pub fn ink(self) -> Ink {
        match self {
            Self::Alive => Ink::Green,
            Self::Draining => Ink::Cyan,
            Self::Unreachable => Ink::Magenta,
            Self::Suspect => Ink::Yellow,
            Self::Down => Ink::Red,
            Self::Left => Ink::Dim,
        }
    }
}
