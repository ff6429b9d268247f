//! A mesh in your own program: join, announce a service with tags, watch, read the table, leave.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use isle::embed::{self, NoService};
//! use isle::mesh::config::MeshConfig;
//!
//! let config = MeshConfig {
//!     name: "printer".to_owned(),
//!     roles: vec!["printing".to_owned()],
//!     tags: vec![("paper".to_owned(), "a4".to_owned())],
//!     interfaces: vec!["lo".to_owned()], // This host alone; leave it out for all networks.
//!     ..MeshConfig::default()
//! };
//! let member = embed::join(config, None, NoService).await?;
//! let watching = member.mesh().subscribe().await?;
//! assert!(watching.snapshot.iter().any(|member| member.has_role("printing")));
//! member.leave().await;
//! # Ok(())
//! # }
//! ```
//!
//! Every member has an HTTP listener, for others fetch its table there and have it prove its address; a program may
//! answer requests of its own on it. With [`join_as_bridge`] it links its island with others, too.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use isle_mesh::config::MeshConfig;
use isle_mesh::identity::{Identity, IdentityError};
use isle_mesh::member::LeaveReason;
use isle_mesh::mesh::{JoinError, Mesh};
use tokio::task::JoinSet;

use crate::api::Api;
use crate::config::BridgeConfig;
use crate::http::accept::{self, App, Limits, Opened};
use crate::http::body::Answer;
use crate::http::connections::Connections;
use crate::http::hosts::HostRules;
use crate::http::listen::{self, ListenError};
use crate::http::request::{Connect, Gated};
use crate::http::respond;
use crate::node::tables::Tables;
use crate::node::{NodeSource, tell};
use crate::roles::bridge::{BridgeOpenError, BridgeRole};
use crate::telemetry;

/// Why a program could not join. Nothing was said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// The listener could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The key could not be read, made or raised.
    #[error("no key")]
    Identity(#[from] IdentityError),
    /// The mesh could not be joined.
    #[error("the mesh cannot be joined")]
    Join(#[from] JoinError),
    /// There is no bridge.
    #[error(transparent)]
    Bridge(#[from] BridgeOpenError),
    /// The system will not say where the listener is.
    #[error("no listener")]
    System(#[from] std::io::Error),
}

/// A program without requests of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoService;

impl App for NoService {
    async fn answer(&self, request: Gated) -> Answer {
        respond::no_such_path(&request.path).into_answer()
    }
}

/// A program's membership. Leave with [`leave`](Self::leave): dropping it looks like a crash to the others.
#[derive(Debug)]
pub struct Embedded {
    mesh: Mesh,
    listens_at: SocketAddr,
    connections: Connections,
    bridge: Option<BridgeRole>,
    tasks: JoinSet<()>,
}

/// Tunnels of others that a bridge carries are waited for so long when it leaves.
const TUNNELS_MAX: Duration = Duration::from_secs(1);

/// Takes part in a mesh. `listen`: where the HTTP listener is opened, by default on any free port of every address;
/// `config.http_port` is set from it. `service` answers what Isle itself does not.
/// With `config.state_dir` the key is kept there, else it is a fresh one.
///
/// # Errors
/// See [`EmbedError`].
pub async fn join(
    config: MeshConfig,
    listen: Option<SocketAddr>,
    service: impl App,
) -> Result<Embedded, EmbedError> {
    start(config, listen, None, service).await
}

/// The same as a bridge: what members of linked islands say is in the table besides, and theirs hear of ours. The role is
/// added to `config.roles`. It needs `config.state_dir`, for others pin its key, and this host's user may change its links
/// there while it runs, as with `isle bridge link`. Links and tunnels are worked at on a thread of their own, which is started
/// here.
///
/// # Errors
/// See [`EmbedError`].
pub async fn join_as_bridge(
    mut config: MeshConfig,
    listen: Option<SocketAddr>,
    links: &BridgeConfig,
    service: impl App,
) -> Result<Embedded, EmbedError> {
    if !config.roles.iter().any(|role| role == "bridge") {
        config.roles.push("bridge".to_owned());
    }
    start(config, listen, Some(links), service).await
}

async fn start(
    mut config: MeshConfig,
    listen: Option<SocketAddr>,
    links: Option<&BridgeConfig>,
    service: impl App,
) -> Result<Embedded, EmbedError> {
    let listener = listen::listen(listen, 0)?;
    let listens_at = listener.local_addr()?;
    config.http_port = listens_at.port();
    if config.advertise.is_empty() && !listens_at.ip().is_unspecified() {
        config.advertise.push(listens_at.ip());
    }
    let identity = match config.state_dir.clone() {
        Some(dir) => identity_in(dir).await?,
        None => Identity::fresh()?,
    };
    let opened = links.map(|links| BridgeRole::link_up(links, &identity, &mut config)).transpose()?;
    let (mesh, task) = Mesh::join(config, identity, Arc::new(Tables))?;
    let (bridge, work) = opened.unzip();
    let connections = Connections::new();
    let api = Api::new(
        Arc::new(NodeSource { mesh: mesh.clone(), bridge: bridge.clone(), pieces: None }),
        connections.clone(),
        telemetry::metrics(),
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        if let Err(error) = task.await {
            tracing::error!(%error, "the mesh ended");
        }
    });
    if let Some(work) = work {
        let mesh = mesh.clone();
        tasks.spawn(async move {
            if let Err(error) = work.run(mesh).await {
                tracing::error!(%error, "the bridge ended");
            }
        });
    }
    let telling = (mesh.clone(), api.clone());
    tasks.spawn(async move {
        // Ends with the mesh; how that ended is said by the task above.
        let (_, _) = tell(telling.0, telling.1).await;
    });
    let app = Arc::new(Both { api, bridge: bridge.clone(), service });
    let accepting = connections.clone();
    let hosts = HostRules::default();
    tasks.spawn(async move { accept::serve(listener, app, hosts, Limits::default(), accepting).await });
    Ok(Embedded { mesh, listens_at, connections, bridge, tasks })
}

/// Opening blocks on the disk.
async fn identity_in(dir: PathBuf) -> Result<Identity, EmbedError> {
    let opened = tokio::task::spawn_blocking(move || Identity::open(&dir)).await;
    Ok(opened.map_err(std::io::Error::other)??)
}

impl Embedded {
    /// The mesh: table, events, announcements.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Where the HTTP listener is.
    #[must_use]
    pub fn listens_at(&self) -> SocketAddr {
        self.listens_at
    }

    /// The links to other islands, of who has joined as a bridge.
    #[must_use]
    pub fn bridge(&self) -> Option<&BridgeRole> {
        self.bridge.as_ref()
    }

    /// Says farewell and stops. Requests in flight are finished first. A bridge waits besides, up to a second each, for
    /// the members of its island that are leaving and for tunnels: so their farewells cross before its own.
    pub async fn leave(mut self) {
        self.mesh.drain().await;
        self.connections.stop();
        self.connections.finished().await;
        if let Some(bridge) = &self.bridge {
            bridge.linger(&self.mesh, TUNNELS_MAX).await;
        }
        self.mesh.leave(LeaveReason::Stopped).await;
        if let Some(bridge) = &self.bridge {
            bridge.leave().await;
        }
        self.tasks.shutdown().await;
    }
}

/// Isle's own paths first, then the program's.
struct Both<S> {
    api: Api,
    bridge: Option<BridgeRole>,
    service: S,
}

impl<S: App> App for Both<S> {
    async fn connect(&self, request: Connect) -> Option<Result<Opened, Answer>> {
        match &self.bridge {
            Some(bridge) => Some(bridge.connect(&request).await),
            None => self.service.connect(request).await,
        }
    }

    async fn answer(&self, request: Gated) -> Answer {
        match self.api.answer(&request).await {
            Some(answer) => answer,
            None => self.service.answer(request).await,
        }
    }
}
