//! Effective settings of a node, typed: flags over environment over file over default, read once.
//!
//! | module | is |
//! |---|---|
//! | [`setting`] | the one list of settings: names, defaults, what each costs |
//! | [`layer`] | what flags, environment and file say, as text, with its origin |
//! | [`load`] | the layers put together and made into a [`NodeConfig`] |
//! | [`value`] | texts of values to what they mean, or why they cannot |
//! | [`similar`] | what somebody probably meant |

pub mod layer;
pub mod load;
pub mod setting;
pub mod similar;
pub mod value;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use island_bridge::bridge::Target;
use isle_mesh::member::MemberId;

/// What one process does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roles {
    /// Holds figures, or stands beside a service that does.
    pub pieces: bool,
    /// Takes clients' requests.
    pub intermediary: bool,
    /// Joins this island with others.
    pub bridge: bool,
}

/// Everything a node needs to know before it starts.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// What this process does.
    pub roles: Roles,
    /// Label of this node; `None`: the host's name.
    pub name: Option<String>,
    /// Listener; `None`: `[::]:PORT`, else `0.0.0.0:PORT`, with the role's port.
    pub listen: Option<SocketAddr>,
    /// Addresses to announce instead of those of the interfaces.
    pub advertise: Vec<IpAddr>,
    /// Given island name.
    pub island: Option<String>,
    /// Mesh name; nodes of other meshes do not exist for us.
    pub mesh: String,
    /// UDP port of discovery.
    pub discovery_port: u16,
    /// Interfaces that discovery uses; empty: all that are up.
    pub interfaces: Vec<String>,
    /// `HOST[:PORT]` to greet besides what broadcast reaches.
    pub seeds: Vec<String>,
    /// Host names under which the table's pages may be asked for.
    pub allow_hosts: Vec<String>,
    /// Where the key is kept; `None`: a fresh key each start.
    pub state_dir: Option<PathBuf>,
    /// Longest wait for requests in flight when leaving; 0: none.
    pub drain_timeout: Duration,
    /// Logs and the ready line as JSON.
    pub log_json: bool,
    /// What the piece server serves.
    pub pieces: PiecesConfig,
    /// How the intermediary behaves.
    pub intermediary: IntermediaryConfig,
    /// Whom the bridge links with.
    pub bridge: BridgeConfig,
}

/// Links to other islands.
#[derive(Clone, Debug, Default)]
pub struct BridgeConfig {
    /// Bridges to call.
    pub links: Vec<Target>,
    /// Keys that may call.
    pub allow: BTreeSet<MemberId>,
    /// Where QUIC listens; `None`: all addresses, UDP port 5236.
    pub quic: Option<SocketAddr>,
}

/// Where figures come from.
#[derive(Clone, Debug, Default)]
pub struct PiecesConfig {
    /// Files and folders; `builtin` names the built-in catalogue. Empty (and no upstream): builtin.
    pub figures: Vec<String>,
    /// Only these of them.
    pub only: Vec<String>,
    /// Sidecar: `GET /figures/a` is passed on to `URL/figures/a`.
    pub upstream: Option<String>,
    /// Sidecar: the figures announced.
    pub offers: Vec<String>,
}

/// How an intermediary admits, waits and hands over.
#[derive(Clone, Debug)]
pub struct IntermediaryConfig {
    /// Requests served at once.
    pub max_in_flight: usize,
    /// From arrival to the last byte of the answer's head.
    pub request_timeout: Duration,
    /// Longest wait for a holder to appear.
    pub wait: Duration,
    /// What to do with a request that finds us full.
    pub shed: Shed,
}

/// What to do with a request that finds us full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shed {
    /// Pass it on to a less busy peer and its answer back.
    Forward,
    /// Tell the client to ask a less busy peer (307).
    Redirect,
    /// 503.
    Refuse,
}
