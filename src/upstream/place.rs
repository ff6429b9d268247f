//! Where a member's listener is reached: on our own networks, or on another island through a bridge of ours.

use std::fmt;
use std::net::SocketAddr;

use http::HeaderValue;
use isle_mesh::member::{Epoch, MemberId};
use isle_mesh::wire::MeshTag;

use crate::http::hosts::host_of;

/// Where a listener is reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// At this address.
    Direct(SocketAddr),
    /// On another island.
    Far(Passage),
}

/// The way to a member of another island: a bridge of ours is asked to connect us.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Passage {
    /// Listener of the bridge, which has proved its key there.
    pub bridge: SocketAddr,
    /// The mesh that all three belong to.
    pub mesh: MeshTag,
    /// Who is to be reached.
    pub member: MemberId,
    /// In which life it has to prove its key.
    pub epoch: Epoch,
    /// The TCP port it announced.
    pub port: u16,
}

impl Place {
    /// The address, if it is one of our own networks.
    #[must_use]
    pub fn direct(&self) -> Option<SocketAddr> {
        match self {
            Self::Direct(at) => Some(*at),
            Self::Far(_) => None,
        }
    }

    /// The address that is dialled: the listener's, or that of the bridge on the way.
    #[must_use]
    pub fn dialled(&self) -> SocketAddr {
        match self {
            Self::Direct(at) => *at,
            Self::Far(passage) => passage.bridge,
        }
    }

    /// `Host` for a request there.
    pub(super) fn host(&self) -> HeaderValue {
        match self {
            Self::Direct(at) => host_of(*at),
            Self::Far(passage) => {
                HeaderValue::try_from(passage.authority()).expect("letters, digits, a colon")
            }
        }
    }
}

impl Passage {
    /// `MEMBER:PORT`, as CONNECT names it.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.member, self.port)
    }
}

impl From<SocketAddr> for Place {
    fn from(at: SocketAddr) -> Self {
        Self::Direct(at)
    }
}

impl From<Passage> for Place {
    fn from(passage: Passage) -> Self {
        Self::Far(passage)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(at) => at.fmt(f),
            Self::Far(passage) => {
                write!(f, "{}:{} through {}", passage.member.short(), passage.port, passage.bridge)
            }
        }
    }
}
