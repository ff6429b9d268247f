//! A bridge: carries its island's words to other islands and theirs to it, and requests both ways.
//!
//! | module | is |
//! |---|---|
//! | `dial` | the last step of a tunnel: a member of our own island |
//! | `links` | links as people see them |
//! | `ledger` | what the mesh tells, as links read it |
//! | `tunnels` | CONNECT, and tunnels that come over links |
//!
//! What crosses links is decided in `island-bridge`, what counts in the table in `isle-mesh`; this connects the two.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use island_bridge::bridge::{self, Bridge, BridgeError, BridgeTask, Config, Feeds, Words};
use island_bridge::endpoint::{OpenError, Settings};
use isle_mesh::identity::Identity;
use isle_mesh::island::Island;
use isle_mesh::member::MemberId;
use isle_mesh::mesh::{FarWords, Left, Mesh, Outward};
use isle_mesh::reach::{IslandLoad, Reach};
use isle_mesh::wire::MeshTag;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{debug, info};

use crate::api::view::LinkView;
use crate::config::BridgeConfig;
use crate::http::accept::Opened;
use crate::http::body::Answer;
use crate::http::request::Connect;
use crate::roles::bridge::ledger::Ledger;
use crate::roles::bridge::tunnels::Tunnels;

mod dial;
mod ledger;
mod links;
mod tunnels;

/// UDP port of a bridge, and TCP port of its listener.
pub const BRIDGE_PORT: u16 = 5236;
/// Size and load of the own island are told to others so often.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);
/// A bridge leaves after the members of its island that leave with it, but does not wait for them longer than this.
const OTHERS_MAX: Duration = Duration::from_secs(1);

/// A bridge. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct BridgeRole {
    bridge: Bridge,
    tunnels: Arc<Tunnels>,
}

/// Keeps a bridge at work; to be spawned once the mesh is joined.
#[derive(Debug)]
pub struct BridgeWork {
    feeds: Feeds,
    task: BridgeTask,
    tunnels: Arc<Tunnels>,
    bridge: Bridge,
}

/// The name of an island that was given none: made from the key of its bridge.
#[must_use]
pub fn island_of(key: MemberId) -> String {
    format!("isle-{}", &key.to_string()[..6])
}

impl BridgeRole {
    /// Opens the socket for links. The mesh is joined after, with [`outward`](Self::outward).
    ///
    /// # Errors
    /// No socket, or a key that cannot be used.
    pub fn open(
        config: &BridgeConfig,
        island: &str,
        identity: &Identity,
        tag: MeshTag,
    ) -> Result<(Self, BridgeWork), OpenError> {
        let tunnels = Arc::<Tunnels>::default();
        let bind = config.quic.unwrap_or(SocketAddr::from((Ipv6Addr::UNSPECIFIED, BRIDGE_PORT)));
        let settings = Config {
            endpoint: Settings { bind, ..Settings::default() },
            allowed: config.allow.clone(),
            links: config.links.clone(),
            dialler: Some(tunnels.clone()),
            ..Config::new(island.to_owned())
        };
        let (bridge, feeds, task) = bridge::start(settings, identity.signing_key(), tag)?;
        info!(quic = %bridge.addr(), links = config.links.len(), "bridge");
        let work = BridgeWork { feeds, task, tunnels: tunnels.clone(), bridge: bridge.clone() };
        Ok((Self { bridge, tunnels }, work))
    }

    /// Takes what the mesh tells.
    #[must_use]
    pub fn outward(&self) -> Arc<dyn Outward> {
        Arc::new(Ledger::new(self.bridge.journal().clone()))
    }

    /// All links as they are now, as `island` and its bridge see them.
    pub async fn links(&self, island: &str) -> Vec<LinkView> {
        let status = self.bridge.status().await;
        status.links.iter().map(|link| links::view(self.bridge.id(), island, link)).collect()
    }

    /// Opens the tunnel that CONNECT asks for, or says why not.
    ///
    /// # Errors
    /// The answer that says why.
    pub async fn connect(&self, request: &Connect) -> Result<Opened, Answer> {
        self.tunnels.connect(request).await.map_err(|problem| *problem)
    }

    /// Waits until whoever leaves with us has left, and tunnels are over: the island's last words go over our links.
    pub async fn linger(&self, mesh: &Mesh, drain_timeout: Duration) {
        let deadline = Instant::now() + drain_timeout;
        if timeout(OTHERS_MAX.min(drain_timeout), others_left(mesh)).await.is_err() {
            debug!("members of this island that leave take longer");
        }
        self.bridge.drain_tunnels(deadline.saturating_duration_since(Instant::now())).await;
    }

    /// Says goodbye on all links, after everything urgent.
    pub async fn leave(&self) {
        self.bridge.leave().await;
    }
}

/// Waits until nobody else on our own island is draining.
async fn others_left(mesh: &Mesh) {
    let Ok(mut events) = mesh.subscribe().await else { return };
    let is_leaving = || {
        let all = mesh.table().all();
        all.iter().any(|member| {
            !member.is_self && !member.far && !member.standing.is_gone() && member.record.draining
        })
    };
    while is_leaving() && !matches!(events.next().await, Err(isle_mesh::mesh::Ended::Left(_))) {}
}

impl BridgeWork {
    /// Carries words, ways and loads between the links and the mesh until the bridge has left.
    ///
    /// # Errors
    /// The bridge ended by itself.
    pub async fn run(self, mesh: Mesh) -> Result<(), BridgeError> {
        let Self { feeds, task, tunnels, bridge } = self;
        tunnels.attach(mesh.clone(), bridge.clone());
        let Feeds { mut words, mut reaches, ways, events } = feeds;
        // They are read off the mesh and off the status.
        drop((ways, events));
        let mut islands = mesh.islands();
        let mut bridges = BTreeSet::new();
        let mut loads = interval(LOAD_INTERVAL);
        loads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut merging = JoinSet::new();
        tokio::pin!(task);
        loop {
            tokio::select! {
                ended = &mut task => return ended,
                Some(words) = words.recv() => {
                    // Each link gives one batch of each kind at a time, so there are few of them.
                    merging.spawn(merge(mesh.clone(), words));
                }
                Some(_) = merging.join_next() => {}
                Ok(()) = reaches.changed() => {
                    let now = reaches.borrow_and_update().clone();
                    // Whoever has left says nothing more.
                    let _ = mesh.say_reaches(now).await;
                }
                Ok(()) = islands.changed() => {
                    let now = islands.borrow_and_update().clone();
                    bridges = tell_ways(&bridge, mesh.id(), &now, bridges).await;
                }
                _ = loads.tick() => bridge.set_load(load_of(&mesh)),
            }
        }
    }
}

async fn merge(mesh: Mesh, words: Words) {
    let far = FarWords {
        from: words.from,
        withdrawn: words.withdrawn.clone(),
        words: words.words.clone(),
        is_urgent: words.is_urgent,
    };
    match mesh.hear_far(far).await {
        Ok(()) => words.merged(),
        // We have left. The link waits with what follows until it has said goodbye: dropped, the words would end it before.
        Err(Left) => std::future::pending().await,
    }
}

/// Tells the bridge what the others of our island reach; gives whom it was told of.
async fn tell_ways(
    bridge: &Bridge,
    own: MemberId,
    islands: &BTreeMap<String, Arc<Island>>,
    before: BTreeSet<MemberId>,
) -> BTreeSet<MemberId> {
    let mut reaches: BTreeMap<MemberId, Vec<Reach>> = before.into_iter().map(|id| (id, Vec::new())).collect();
    for way in islands.values().flat_map(|island| &island.ways).filter(|way| way.bridge != own) {
        reaches.entry(way.bridge).or_default().push(way.reach.clone());
    }
    let mut told = BTreeSet::new();
    for (other, reaches) in reaches {
        if !reaches.is_empty() {
            told.insert(other);
        }
        bridge.set_bridge_routes(other, reaches).await;
    }
    told
}

/// How large and busy our own island is.
fn load_of(mesh: &Mesh) -> IslandLoad {
    let all = mesh.table().all();
    let living = all.iter().filter(|member| !member.far && !member.standing.is_gone());
    living.fold(IslandLoad::default(), |sum, member| IslandLoad {
        members: sum.members + 1,
        in_flight: sum.in_flight.saturating_add(member.load.in_flight),
        capacity: sum.capacity.saturating_add(member.load.capacity),
    })
}
