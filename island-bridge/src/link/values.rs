//! What a link gives, and why it ends.

use std::time::Duration;

use bytes::Bytes;
use isle_mesh::member::MemberId;
use tokio::sync::oneshot;

use super::streams::Broken;
use crate::endpoint::Closing;
use crate::frame::{FrameError, Refusal};
use crate::session::DownReason;

/// Words that came over a link, to be verified and merged in this order, the withdrawn first. The link hands over no
/// others of the kind before [`merged`](Self::merged) is called; dropped without that, the link ends, and the words
/// come again over the next one.
#[derive(Debug)]
pub struct Words {
    /// The bridge that sent them: what they change is recorded as from there.
    pub from: MemberId,
    /// Members that can be reached over this link no more.
    pub withdrawn: Vec<MemberId>,
    /// Whole datagrams. Nothing is known of them yet.
    pub words: Vec<Bytes>,
    /// For how long members that these are about have been gone, as far as the other side says so.
    pub gone: Vec<(MemberId, Duration)>,
    /// They went past the others.
    pub is_urgent: bool,
    pub(super) merged: oneshot::Sender<()>,
}

impl Words {
    /// They are in the table, and what they changed is in the journal.
    pub fn merged(self) {
        // The link may have ended meanwhile.
        let _ = self.merged.send(());
    }
}

/// Why a link is over.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EndReason {
    /// As the session says.
    #[error(transparent)]
    Session(#[from] DownReason),
    /// The connection is gone.
    #[error("the connection was lost")]
    Lost(#[from] quinn::ConnectionError),
    /// The other side sent what is no frame.
    #[error("not a frame")]
    Frame(#[from] FrameError),
    /// The other side used its streams in another way than a link does.
    #[error("{0}")]
    Streams(String),
    /// The other side said no hello that could be accepted in time.
    #[error("no hello in {0:?}")]
    NoHello(Duration),
    /// The same two nodes have another connection.
    #[error("replaced by another connection")]
    Replaced,
    /// Words were dropped without being merged, or nobody takes events any more.
    #[error("the program does not go on")]
    Abandoned,
}

impl EndReason {
    /// Why the link may not be, and whether the other side said so; `None` if it ended for another reason.
    #[must_use]
    pub fn refusal(&self) -> Option<(Refusal, bool)> {
        match self {
            Self::Session(DownReason::Refused(refusal)) => Some((*refusal, false)),
            Self::Session(DownReason::RefusedByPeer(refusal)) => Some((*refusal, true)),
            _ => None,
        }
    }

    pub(super) fn closing(&self) -> Closing {
        match self {
            Self::Session(DownReason::Refused(refusal)) => Closing::Refused(*refusal),
            Self::Session(DownReason::Breach(_)) | Self::Frame(_) | Self::Streams(_) => Closing::Breach,
            Self::Replaced => Closing::Replaced,
            _ => Closing::Ended,
        }
    }
}

impl From<Broken> for EndReason {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Frame(error) => error.into(),
            Broken::Lost(error) => match Closing::of(&error) {
                Some(Closing::Refused(refusal)) => DownReason::RefusedByPeer(refusal).into(),
                Some(Closing::Replaced) => Self::Replaced,
                _ => error.into(),
            },
            other => Self::Streams(other.to_string()),
        }
    }
}
