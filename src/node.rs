//! Composition: builds the parts of a node, connects them, owns their tasks, and takes them down in order.
//!
//! | module | is |
//! |---|---|
//! | [`host`] | the host's name, descriptors |
//! | [`ready`] | the one line on standard output |
//! | [`tables`] | fetches other members' tables |
//! | [`leaving`] | the order of leaving |
//!
//! What the parts do is in their own modules; nothing is decided here but who is connected to whom.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use island_bridge::bridge::BridgeError;
use isle_mesh::config::MeshConfig;
use isle_mesh::event::{Event, EventKind};
use isle_mesh::identity::{Identity, IdentityError};
use isle_mesh::member::{CatalogueSummary, Load, Member};
use isle_mesh::membership::Announcement;
use isle_mesh::mesh::{Ended, Islands, JoinError, Mesh, MeshError};
use isle_mesh::metrics::Counts;
use isle_mesh::shared::SharedTable;
use tokio::sync::watch;
use tokio::task::{JoinError as TaskError, JoinSet};
use tracing::{Instrument, debug, info, info_span, warn};

use crate::api::view::{self, LinkView};
use crate::api::{Api, Source};
use crate::config::{NodeConfig, Roles};
use crate::http::accept::{self, App, Limits, Opened};
use crate::http::body::Answer;
use crate::http::connections::Connections;
use crate::http::hosts::HostRules;
use crate::http::listen::{self, ListenError};
use crate::http::request::{Connect, Gated};
use crate::http::respond;
use crate::node::ready::Ready;
use crate::node::tables::Tables;
use crate::roles::bridge::{BRIDGE_PORT, BridgeOpenError, BridgeRole};
use crate::roles::intermediary::Intermediary;
use crate::roles::pieces::{Pieces, SidecarError};
use crate::shutdown::StopSignals;
use crate::telemetry;
use crate::upstream::Upstreams;

pub mod host;
pub mod leaving;
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
            Self::Mesh(MeshError::KeyInUse { .. }) => {
                Some("start one of the two with another --state-dir, or with none".to_owned())
            }
            _ => None,
        }
    }
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
            Arc::new(NodeSource { mesh: mesh.clone(), bridge: bridge.clone() }),
            connections.clone(),
            metrics,
        );
        tasks.spawn(tell(mesh.clone(), api.clone()).instrument(span.clone()));
        let upkeep = api.clone();
        tasks.spawn(async move {
            upkeep.keep_up().await;
            ("metrics", Ok(()))
        });
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
        let app = Arc::new(NodeApp { mesh: mesh.clone(), api, pieces, intermediary, bridge: bridge.clone() });
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
                distinguish(&self.mesh).await;
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

/// The links of our island's bridges, as these say what they reach: all up, for of others they say nothing.
fn links_of(mesh: &Mesh) -> Vec<LinkView> {
    let (own, islands) = (mesh.island(), mesh.islands());
    let islands = islands.borrow();
    let ways = islands.values().flat_map(|island| island.ways.iter().map(move |way| (island, way)));
    let links = ways.filter(|(_, way)| way.reach.path.islands().len() == 1);
    links
        .map(|(island, way)| LinkView {
            ends: [way.bridge.to_string(), String::new()],
            islands: [own.clone(), island.name.clone()],
            state: "up".to_owned(),
            round_trip_ms: Some(view::millis(way.reach.cost)),
            since_ms: view::millis(island.since.elapsed()),
            reason: None,
            advice: None,
        })
        .collect()
}

/// A node that was given no name takes another than those that other nodes of this host have: `box`, `box-2`, ...
async fn distinguish(mesh: &Mesh) {
    let me = mesh.me();
    let others: Vec<_> = mesh
        .table()
        .all()
        .into_iter()
        .filter(|member| !member.is_self && !member.standing.is_gone() && is_on_this_host(&me, member))
        .map(|member| member.record.name.clone())
        .collect();
    let base = me.record.name.clone();
    if !others.contains(&base) {
        return;
    }
    let free = (2..).map(|number| format!("{base}-{number}")).find(|name| !others.contains(name));
    let news = Announcement { name: free, ..Announcement::default() };
    if let Err(error) = mesh.announce(news).await {
        debug!(%error, "the name stays as it is");
    }
}

/// Whether it announces an address of ours, or nothing but loopback: then we could not hear it from elsewhere.
fn is_on_this_host(me: &Member, other: &Member) -> bool {
    let (ours, theirs) = (&me.record.addresses, &other.record.addresses);
    theirs.iter().all(|address| address.ip.is_loopback())
        || theirs.iter().any(|a| !a.ip.is_loopback() && ours.iter().any(|own| own.ip == a.ip))
}

/// Passes every change of the table on to the readers of the API.
pub(crate) async fn tell(mesh: Mesh, api: Api) -> Ending {
    let Ok(mut events) = mesh.subscribe().await else { return ("events", Ok(())) };
    loop {
        match events.next().await {
            Ok(event) => {
                log(&event);
                api.tell(&event);
            }
            Err(Ended::Lagged(_)) => api.missed(),
            Err(Ended::Left(_)) => return ("events", Ok(())),
        }
    }
}

/// What an operator would tell a colleague.
fn log(event: &Event) {
    let Some(member) = event.member() else {
        if let Some(island) = event.island() {
            info!(island = island.name, "{}", event.kind.as_str());
        }
        return;
    };
    let (name, id) = (&member.record.name, member.id.short());
    match event.kind {
        EventKind::Updated | EventKind::Forgotten => debug!(member = id, name, "{}", event.kind.as_str()),
        EventKind::DuplicateKey => warn!(member = id, name, "two nodes use this key"),
        EventKind::Joined
        | EventKind::Draining
        | EventKind::Suspect
        | EventKind::Down
        | EventKind::Back
        | EventKind::Left
        | EventKind::IslandUp
        | EventKind::IslandDown => {
            info!(member = id, name, island = member.record.island, "{}", event.kind.as_str());
        }
    }
}

/// The mesh as the API sees it.
pub(crate) struct NodeSource {
    pub(crate) mesh: Mesh,
    pub(crate) bridge: Option<BridgeRole>,
}

impl Source for NodeSource {
    fn far_records(&self, instance: u64, since: u64) -> BoxFuture<'_, Bytes> {
        Box::pin(self.mesh.far_records(instance, since))
    }

    fn islands(&self) -> Islands {
        self.mesh.islands().borrow().clone()
    }

    fn links(&self) -> BoxFuture<'_, Vec<LinkView>> {
        Box::pin(async move {
            match &self.bridge {
                Some(bridge) => bridge.links(&self.mesh.island()).await,
                None => links_of(&self.mesh),
            }
        })
    }

    fn me(&self) -> Arc<Member> {
        self.mesh.me()
    }

    fn table(&self) -> &SharedTable {
        self.mesh.table()
    }

    fn is_complete(&self) -> bool {
        self.mesh.is_complete()
    }

    fn may_ask(&self, asker: IpAddr) -> bool {
        self.mesh.may_ask(asker)
    }

    fn counts(&self) -> Counts {
        self.mesh.counts()
    }

    fn records(&self) -> BoxFuture<'_, Bytes> {
        Box::pin(self.mesh.records())
    }

    fn proof(&self, nonce: &[u8; 16], dialled: SocketAddr) -> Vec<u8> {
        self.mesh.proof(nonce, dialled)
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

/// What answers this node's requests.
struct NodeApp {
    mesh: Mesh,
    api: Api,
    pieces: Option<Pieces>,
    intermediary: Option<Intermediary>,
    bridge: Option<BridgeRole>,
}

impl App for NodeApp {
    async fn connect(&self, request: Connect) -> Option<Result<Opened, Answer>> {
        Some(self.bridge.as_ref()?.connect(&request).await)
    }

    async fn answer(&self, request: Gated) -> Answer {
        if let Some(answer) = self.api.answer(&request).await {
            return answer;
        }
        if let Some(intermediary) = &self.intermediary
            && let Some(answer) = intermediary.answer(&request).await
        {
            return answer;
        }
        if let Some(pieces) = &self.pieces
            && let Some(answer) = pieces.answer(&self.mesh, &request).await
        {
            return answer;
        }
        respond::no_such_path(&request.path).into_answer()
    }
}
