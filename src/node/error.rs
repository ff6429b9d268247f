//! Why a node does not run, and what to do about it.

use std::io::ErrorKind;
use std::path::PathBuf;

use island_bridge::bridge::BridgeError;
use island_bridge::endpoint::OpenError;
use isle_mesh::identity::IdentityError;
use isle_mesh::mesh::{JoinError, MeshError};
use tokio::task::JoinError as TaskError;

use crate::http::listen::ListenError;
use crate::roles::bridge::BridgeOpenError;
use crate::roles::pieces::SidecarError;

/// Why a node could not start, or ended without having been asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The listener could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The key could not be read, made or raised.
    #[error("no key in {}", dir.display())]
    Identity {
        /// The state directory.
        dir: PathBuf,
        /// Why.
        source: IdentityError,
    },
    /// The system gives no randomness for a fresh key.
    #[error("no key")]
    FreshIdentity(#[source] IdentityError),
    /// The service beside this node cannot be used as given.
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    /// There is no bridge.
    #[error(transparent)]
    Bridge(#[from] BridgeOpenError),
    /// The bridge ended by itself.
    #[error("the bridge ended by itself")]
    Links(#[from] BridgeError),
    /// The mesh could not be joined.
    #[error("the mesh cannot be joined")]
    Join(#[from] JoinError),
    /// The mesh ended by itself.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// A part ended that should not: a fault of ours.
    #[error("{part} ended by itself")]
    PartEnded {
        /// Which.
        part: &'static str,
    },
    /// A part panicked: a fault of ours.
    #[error("a part of the node panicked")]
    Panicked(#[source] TaskError),
    /// The system gives no signal handler or no standard output.
    #[error("cannot run here")]
    System(#[from] std::io::Error),
}

impl NodeError {
    /// What to do about it, with a command, if anything is known to help.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Listen(error) => Some(error.advice()),
            Self::Identity { dir, .. } => Some(format!(
                "give this node a state directory of its own with --state-dir, or move {} away for a new key",
                dir.display()
            )),
            Self::Bridge(BridgeOpenError::Links(OpenError::Socket { source, .. })) => Some(match source.kind() {
                ErrorKind::AddrInUse => "stop the other bridge of this host; or choose another UDP port, any free one with: --quic [::]:0".to_owned(),
                ErrorKind::AddrNotAvailable => "give --quic an address of this host, or [::] for all".to_owned(),
                _ => "choose another address and UDP port with: --quic IP:PORT".to_owned(),
            }),
            Self::Bridge(BridgeOpenError::NoStateDir) => {
                Some("name a directory that stays, with: --state-dir DIR".to_owned())
            }
            Self::Mesh(MeshError::KeyInUse { .. }) => {
                Some("start one of the two with another --state-dir, or with none".to_owned())
            }
            _ => None,
        }
    }
}
