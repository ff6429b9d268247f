//! What people see of a bridge's links.

use std::net::SocketAddr;
use std::time::Duration;

use isle_mesh::member::MemberId;

use crate::frame::Refusal;
use crate::session::Counters;
use crate::tunnel::TunnelCounters;

/// All links of a bridge, and who else wanted one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// By key: every configured link, every allowed key, every link that is there.
    pub links: Vec<LinkStatus>,
    /// Strangers that were refused, the last sixteen, the newest last.
    pub refused: Vec<(MemberId, Refused)>,
}

/// One link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkStatus {
    /// The key of the other side.
    pub peer: MemberId,
    /// Where it is called, if we call it: `HOST:PORT`.
    pub target: Option<String>,
    /// Where it is now, or was last.
    pub addr: Option<SocketAddr>,
    /// Its island, once it has said it.
    pub island: Option<String>,
    /// What the link does.
    pub state: State,
    /// For how long it has been up, or has not.
    pub since: Duration,
    /// Why it was last refused, since it was last up.
    pub refused: Option<Refused>,
    /// Why it is not up, in words, since it was last up.
    pub trouble: Option<String>,
    /// Smoothed, while it is up.
    pub round_trip: Option<Duration>,
    /// Of the connection that is there; zero without.
    pub counters: Counters,
    /// What its tunnels have carried since the bridge started.
    pub tunnels: TunnelCounters,
}

/// Why a link may not be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The reason.
    pub reason: Refusal,
    /// The other side refused, not we.
    pub by_peer: bool,
}

/// What a link does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// Nothing: the other side is to call.
    Waiting,
    /// We call, or will soon again.
    Calling,
    /// The connection stands, hellos are said.
    Greeting,
    /// It carries.
    Up,
}

impl State {
    /// The word used in logs, metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Calling => "calling",
            Self::Greeting => "greeting",
            Self::Up => "up",
        }
    }
}
