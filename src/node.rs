//! Composition: builds the parts of a node, connects them, owns their tasks, and takes them down in order.
//!
//! | module | is |
//! |---|---|
//! | `answers` | what answers requests, and tells of events |
//! | `error` | why a node does not run, and what to do |
//! | [`host`] | the host's name, descriptors |
//! | `names` | a name of its own for a node that was given none |
//! | [`ready`] | the one line on standard output |
//! | [`tables`] | fetches other members' tables |
//! | [`leaving`] | the order of leaving |
//!
//! What the parts do is in their own modules; nothing is decided here but who is connected to whom.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use isle_mesh::config::MeshConfig;
use isle_mesh::identity::Identity;
use isle_mesh::member::{CatalogueSummary, Load};
use isle_mesh::mesh::Mesh;
use tokio::sync::watch;
use tokio::task::{JoinError as TaskError, JoinSet};
use tracing::{Instrument, debug, info, info_span, warn};

use crate::api::Api;
use crate::config::{NodeConfig, Roles};
use crate::http::accept::{self, Limits};
use crate::http::connections::Connections;
use crate::http::hosts::HostRules;
use crate::http::listen;
use crate::node::ready::Ready;
use crate::node::tables::Tables;
use crate::roles::bridge::{BRIDGE_PORT, BridgeRole};
use crate::roles::intermediary::Intermediary;
use crate::roles::pieces::Pieces;
use crate::shutdown::StopSignals;
use crate::telemetry;
use crate::upstream::Upstreams;

pub(crate) use answers::{NodeSource, tell};
pub use error::NodeError;

mod answers;
mod error;
pub mod host;
pub mod leaving;
mod names;
pub mod ready;
pub mod tables;

/// TCP port of a piece server.
pub const PIECES_PORT: u16 = 1233;
/// TCP port of an intermediary.
pub const INTERMEDIARY_PORT: u16 = 5235;

/// How a node ended, having been asked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Drained, and said farewell.
    Left,
    /// Asked twice: said farewell and cut what was in flight.
    LeftAtOnce,
}

/// What ends when a task of the node ends.
pub(crate) type Ending = (&'static str, Result<(), NodeError>);

/// Runs a node until it is stopped by signals. Installs metrics; logging is the caller's business.
///
/// # Errors
/// See [`NodeError`]. What was begun is undone as far as the error allows: if the node had joined, it said farewell.
pub async fn run(config: NodeConfig) -> Result<Outcome, NodeError> {
    let mut signals = StopSignals::listen()?;
    let mut node = Node::start(&config).await?;
    let failed = tokio::select! {
        biased;
        () = signals.next() => None,
        error = node.live(&config) => Some(error),
    };
    match failed {
        None => Ok(node.leave(&mut signals, config.drain_timeout).await),
        Some(error) => {
            leaving::at_once(&node.mesh, &node.connections, node.bridge.as_ref()).await;
            Err(error)
        }
    }
}

struct Node {
    mesh: Mesh,
    connections: Connections,
    bridge: Option<BridgeRole>,
    listens_at: SocketAddr,
    tasks: JoinSet<Ending>,
}

impl Node {
    async fn start(config: &NodeConfig) -> Result<Self, NodeError> {
        let descriptors = host::raise_descriptor_limit();
        debug!(descriptors, "descriptor limit");
        let metrics = telemetry::metrics();
        let default_port = match config.roles {
            Roles { intermediary: true, .. } => INTERMEDIARY_PORT,
            Roles { bridge: true, .. } => BRIDGE_PORT,
            _ => PIECES_PORT,
        };
        let listener = listen::listen(config.listen, default_port)?;
        let listens_at = listener.local_addr()?;
        let identity = identity(config.state_dir.clone()).await?;
        let name = config.name.clone().unwrap_or_else(host::name);
        let upstreams = Upstreams::default();
        let pieces = match config.roles.pieces {
            true => Some(Pieces::new(&config.pieces, upstreams.clone()).await?),
            false => None,
        };
        let catalogue = pieces.as_ref().and_then(|(pieces, _)| pieces.summary());
        let mut settings = mesh_config(config, name, listens_at, catalogue);
        let bridge = match config.roles.bridge {
            true => Some(BridgeRole::link_up(&config.bridge, &identity, &mut settings)?),
            false => None,
        };
        let (mesh, task) = Mesh::join(settings, identity, Arc::new(Tables))?;
        let span = info_span!("node", id = %mesh.id().short());
        let mut tasks: JoinSet<Ending> = JoinSet::new();
        let bridge = bridge.map(|(bridge, work)| {
            let mesh = mesh.clone();
            tasks.spawn(
                async move { ("bridge", work.run(mesh).await.map_err(NodeError::from)) }
                    .instrument(span.clone()),
            );
            bridge
        });
        tasks.spawn(async move { ("mesh", task.await.map_err(NodeError::from)) }.instrument(span.clone()));
        let connections = Connections::new();
        let api = Api::new(
            Arc::new(NodeSource {
                mesh: mesh.clone(),
                bridge: bridge.clone(),
                pieces: pieces.as_ref().map(|(pieces, _)| pieces.clone()),
            }),
            connections.clone(),
            metrics,
        );
        tasks.spawn(tell(mesh.clone(), api.clone()).instrument(span.clone()));
        let pieces = pieces.map(|(pieces, task)| {
            let mesh = mesh.clone();
            tasks.spawn(
                async move {
                    task.run(mesh).await;
                    ("figures", Ok(()))
                }
                .instrument(span.clone()),
            );
            pieces
        });
        let intermediary = config.roles.intermediary.then(|| {
            let (intermediary, task) = Intermediary::new(
                mesh.clone(),
                config.intermediary.clone(),
                upstreams,
                connections.clone(),
                pieces.clone(),
            );
            tasks.spawn(
                async move {
                    task.run().await;
                    ("intermediary", Ok(()))
                }
                .instrument(span.clone()),
            );
            intermediary
        });
        let loads = match (&intermediary, &pieces) {
            (Some(intermediary), _) => Some(intermediary.loads()),
            (None, Some(pieces)) => Some(pieces.loads()),
            (None, None) => None,
        };
        if let Some(loads) = loads {
            tasks.spawn(announce_load(mesh.clone(), loads));
        }
        let app = Arc::new(answers::NodeApp {
            mesh: mesh.clone(),
            api,
            pieces,
            intermediary,
            bridge: bridge.clone(),
        });
        let own = host::full_name();
        let hosts = HostRules::new(&config.allow_hosts, Some(&own));
        let (accepting, limits) = (connections.clone(), Limits::default());
        tasks.spawn(
            async move {
                accept::serve(listener, app, hosts, limits, accepting).await;
                ("listener", Ok(()))
            }
            .instrument(span),
        );
        Ok(Self { mesh, connections, bridge, listens_at, tasks })
    }

    /// Says when the node is ready, and waits for the first part that ends by itself.
    ///
    /// Cancel safe: dropped before the ready line is printed, it is never printed.
    async fn live(&mut self, config: &NodeConfig) -> NodeError {
        let ready = async {
            self.mesh.complete().await;
            if config.name.is_none() {
                names::distinguish(&self.mesh).await;
            }
        };
        tokio::select! {
            biased;
            ended = self.tasks.join_next() => return why(ended),
            () = ready => {}
        }
        if let Err(error) = self.ready_line().print(config.log_json) {
            return NodeError::System(error);
        }
        why(self.tasks.join_next().await)
    }

    fn ready_line(&self) -> Ready {
        let me = self.mesh.me();
        let http = if self.listens_at.ip().is_unspecified() {
            me.http_addresses.first().copied().unwrap_or(self.listens_at)
        } else {
            self.listens_at
        };
        Ready { name: me.record.name.clone(), id: me.id, island: me.record.island.clone(), http }
    }

    async fn leave(self, signals: &mut StopSignals, drain_timeout: Duration) -> Outcome {
        tokio::select! {
            biased;
            () = signals.next() => {
                let cut = leaving::at_once(&self.mesh, &self.connections, self.bridge.as_ref()).await;
                warn!(cut, "left at once");
                Outcome::LeftAtOnce
            }
            left = leaving::in_order(&self.mesh, &self.connections, self.bridge.as_ref(), drain_timeout) => {
                info!(cut = left.cut, took = ?left.took, "left");
                Outcome::Left
            }
        }
    }
}

/// A part that ended, well or not, is a fault: parts live as long as the node.
fn why(ended: Option<Result<Ending, TaskError>>) -> NodeError {
    match ended {
        Some(Ok((_, Err(error)))) => error,
        Some(Ok((part, Ok(())))) => NodeError::PartEnded { part },
        Some(Err(error)) => NodeError::Panicked(error),
        None => NodeError::PartEnded { part: "everything" },
    }
}

/// The kept key of `dir`, or a fresh one.
async fn identity(dir: Option<PathBuf>) -> Result<Identity, NodeError> {
    let Some(dir) = dir else { return Identity::fresh().map_err(NodeError::FreshIdentity) };
    let opened = tokio::task::spawn_blocking(move || {
        Identity::open(&dir).map_err(|source| NodeError::Identity { dir, source })
    });
    opened.await.map_err(NodeError::Panicked)?
}

fn mesh_config(
    config: &NodeConfig,
    name: String,
    listens_at: SocketAddr,
    catalogue: Option<CatalogueSummary>,
) -> MeshConfig {
    let mut roles = Vec::new();
    if config.roles.pieces {
        roles.push("pieces".to_owned());
    }
    if config.roles.intermediary {
        roles.push("intermediary".to_owned());
    }
    if config.roles.bridge {
        roles.push("bridge".to_owned());
    }
    let mut advertise: Vec<IpAddr> = config.advertise.clone();
    if advertise.is_empty() && !listens_at.ip().is_unspecified() {
        // Nobody reaches us at another address than the one we listen on.
        advertise.push(listens_at.ip());
    }
    MeshConfig {
        name,
        mesh: config.mesh.clone(),
        island: config.island.clone(),
        roles,
        http_port: listens_at.port(),
        advertise,
        catalogue,
        discovery_port: config.discovery_port,
        interfaces: config.interfaces.clone(),
        seeds: config.seeds.clone(),
        state_dir: config.state_dir.clone(),
        ..MeshConfig::default()
    }
}

/// Announces how busy this node is; the newest counts.
async fn announce_load(mesh: Mesh, mut loads: watch::Receiver<Load>) -> Ending {
    loop {
        let load = *loads.borrow_and_update();
        mesh.set_load(load);
        if loads.changed().await.is_err() {
            return ("load", Ok(()));
        }
    }
}
