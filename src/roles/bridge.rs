//! A bridge: carries its island's words to other islands and theirs to it, and requests both ways.
//!
//! | module | is |
//! |---|---|
//! | [`control`] | the Unix socket through which this host's user changes it |
//! | `desk` | what is done for that user |
//! | [`token`], [`invites`] | invites: as a word, and as they are kept |
//! | `pins`, `kept` | keys learned while it ran; small files |
//! | `dial` | the last step of a tunnel: a member of our own island |
//! | `links` | links as people see them |
//! | `ledger` | what the mesh tells, as links read it |
//! | `tunnels` | CONNECT, and tunnels that come over links |
//! | `worker` | the thread on which links are worked at and tunnels carried |
//!
//! What crosses links is decided in `island-bridge`, what counts in the table in `isle-mesh`; this connects the two.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

pub use island_bridge::bridge::Target;
use island_bridge::bridge::{self, Bridge, BridgeError, BridgeTask, Config, Event, Feeds, Words};
use island_bridge::endpoint::{OpenError, Settings};
use island_bridge::junction::Siblings;
use isle_mesh::config::MeshConfig;
use isle_mesh::identity::Identity;
use isle_mesh::island;
use isle_mesh::member::MemberId;
use isle_mesh::mesh::{Ended, FarWords, Left, Mesh, Outward, Subscription};
use isle_mesh::reach::IslandLoad;
use isle_mesh::wire::MeshTag;
use metrics::counter;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info};

use crate::api::view::LinkView;
use crate::config::BridgeConfig;
use crate::http::accept::Opened;
use crate::http::body::Answer;
use crate::http::request::Connect;
use crate::roles::bridge::desk::Desk;
use crate::roles::bridge::invites::{Door, InviteBook};
use crate::roles::bridge::ledger::Ledger;
use crate::roles::bridge::pins::Pins;
use crate::roles::bridge::tunnels::{Dialler, Tunnels};
use crate::roles::bridge::worker::WorkerThread;
pub use kept::KeptError;

pub mod control;
mod desk;
mod dial;
pub mod invites;
mod kept;
mod ledger;
mod links;
mod pins;
pub mod token;
mod tunnels;
mod worker;

/// UDP port of a bridge, and TCP port of its listener.
pub const BRIDGE_PORT: u16 = 5236;
/// Size and load of the own island are told to others so often.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);
/// A bridge whose island was given no name makes no link for this long after it has asked who is there: a name that is heard
/// only in beacons would end it at once. Three beacons of a small island, or one of a large one that answers strangers.
const NAME_WAIT: Duration = Duration::from_millis(300);
/// A bridge leaves after the members of its island that leave with it, but does not wait for them longer than this.
const OTHERS_MAX: Duration = Duration::from_secs(1);

/// A bridge. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct BridgeRole {
    bridge: Bridge,
    tunnels: Arc<Tunnels>,
    desk: Arc<Desk>,
}

/// Keeps a bridge at work; to be spawned once the mesh is joined.
#[derive(Debug)]
pub struct BridgeWork {
    feeds: Feeds,
    task: BridgeTask,
    thread: WorkerThread,
    tunnels: Arc<Tunnels>,
    bridge: Bridge,
    desk: Arc<Desk>,
    /// Our island's name was given, so it stays.
    is_named: bool,
}

/// Why there is no bridge. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeOpenError {
    /// No links can be made.
    #[error("no links can be made")]
    Links(#[from] OpenError),
    /// What it knew is not to be read.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// The system gives no thread for them.
    #[error("no thread for the links")]
    Thread(#[source] io::Error),
    /// Others pin its key, so it has to keep one.
    #[error("a bridge needs a state directory, for its key")]
    NoStateDir,
}

impl BridgeRole {
    /// Opens the socket for links, with what is kept in the state directory. The mesh is joined after, with
    /// [`outward`](Self::outward). `island`: as it was given; else the mesh finds a name, and links wait for it a moment.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// See [`BridgeOpenError`].
    pub fn open(
        config: &BridgeConfig,
        dir: &Path,
        island: Option<&str>,
        identity: &Identity,
        tag: MeshTag,
    ) -> Result<(Self, BridgeWork), BridgeOpenError> {
        let made = || island::made_by(identity.id());
        let name = island.map_or_else(made, str::to_owned);
        let (pins, invites) = (Pins::open(dir)?, InviteBook::open(dir)?);
        let tunnels = Arc::<Tunnels>::default();
        let bind = config.quic.unwrap_or(SocketAddr::from((Ipv6Addr::UNSPECIFIED, BRIDGE_PORT)));
        let settings = Config {
            endpoint: Settings { bind, ..Settings::default() },
            allowed: config.allow.iter().copied().chain(pins.keys()).collect(),
            // Of two targets with one key the last counts: what was given now.
            links: pins.targets().into_iter().chain(config.links.iter().cloned()).collect(),
            invites: Some(Arc::new(Door::new(invites.clone(), pins.clone()))),
            dialler: Some(Arc::new(Dialler::of(&tunnels))),
            ..Config::new(name)
        };
        let thread = WorkerThread::start().map_err(BridgeOpenError::Thread)?;
        let (bridge, feeds, task) = {
            let _there = thread.handle().enter();
            bridge::start(settings, identity.signing_key(), tag)?
        };
        info!(quic = %bridge.addr(), links = config.links.len(), "bridge");
        let linked = config.links.iter().map(|link| link.key);
        let desk = Arc::new(Desk {
            dir: dir.to_owned(),
            bridge: bridge.clone(),
            pins,
            invites,
            given: Mutex::new(linked.chain(config.allow.iter().copied()).collect()),
            mesh: OnceLock::new(),
        });
        let work = BridgeWork {
            feeds,
            task,
            thread,
            tunnels: tunnels.clone(),
            bridge: bridge.clone(),
            desk: desk.clone(),
            is_named: island.is_some(),
        };
        Ok((Self { bridge, tunnels, desk }, work))
    }

    /// Opens it as [`open`](Self::open) does for a node that joins with `settings`, and puts into these what the mesh has to
    /// know of it.
    ///
    /// # Errors
    /// See [`BridgeOpenError`].
    pub fn link_up(
        config: &BridgeConfig,
        identity: &Identity,
        settings: &mut MeshConfig,
    ) -> Result<(Self, BridgeWork), BridgeOpenError> {
        let dir = settings.state_dir.as_deref().ok_or(BridgeOpenError::NoStateDir)?;
        let tag = MeshTag::of(&settings.mesh);
        let (role, work) = Self::open(config, dir, settings.island.as_deref(), identity, tag)?;
        settings.outward = Some(role.outward());
        settings.foreign = role.keys();
        Ok((role, work))
    }

    /// Where other islands' bridges call it.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.bridge.addr()
    }

    /// Calls `target` from now on, until this process ends.
    pub async fn link(&self, target: Target) {
        self.desk.name_foreigner(target.key);
        self.bridge.link(target).await;
    }

    /// Lets the node with this key link with us, until this process ends.
    pub async fn allow(&self, key: MemberId) {
        self.desk.name_foreigner(key);
        self.bridge.allow(key).await;
    }

    /// Keys that it links with: never of our own island.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<MemberId> {
        self.desk.keys()
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
        let Self { feeds, task, thread, tunnels, bridge, desk, is_named } = self;
        // It is run once.
        let _ = desk.mesh.set(mesh.clone());
        tunnels.attach(mesh.clone(), bridge.clone(), thread.worker());
        let Feeds { mut words, mut reaches, ways, events, mut islands_left_out } = feeds;
        // They are read off the mesh.
        drop(ways);
        let mut events = events;
        let mut islands = mesh.islands();
        let mut siblings = Siblings::default();
        let mut loads = interval(LOAD_INTERVAL);
        loads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut merging = JoinSet::new();
        let served = desk.clone().serve();
        let named = async {
            if !is_named {
                mesh.complete().await;
                sleep(NAME_WAIT).await;
            }
        };
        let mut names = OwnName::new(&mesh, is_named).await;
        tokio::pin!(served, named);
        // Of its own, so that it goes on while this waits for it.
        let mut linking = JoinSet::new();
        let mut waiting = Some(task);
        loop {
            tokio::select! {
                Some(ended) = linking.join_next() => return ended.map_err(BridgeError::Task)?,
                () = &mut named, if waiting.is_some() => {
                    if let Some(task) = waiting.take() {
                        linking.spawn_on(task, thread.handle());
                    }
                }
                () = &mut served => {}
                name = names.next() => bridge.rename(name).await,
                // A key that was let in by an invite is one of another island, too.
                Ok(Event::LinkUp { .. }) = events.recv() => desk.name_foreigners(),
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
                Ok(()) = islands.changed(), if waiting.is_none() => {
                    let now = islands.borrow_and_update().clone();
                    for (other, reaches) in siblings.ways(mesh.id(), &now) {
                        bridge.set_bridge_routes(other, reaches).await;
                    }
                }
                Ok(()) = islands_left_out.changed() => {
                    counter!("isle_bridge_islands_left_out_total").absolute(*islands_left_out.borrow_and_update());
                }
                _ = loads.tick() => bridge.set_load(load_of(&mesh)),
            }
        }
    }
}

/// What our island is called, as the mesh has it.
struct OwnName {
    mesh: Mesh,
    /// `None` where it stays, or there is no mesh any more.
    events: Option<Subscription>,
    told: String,
}

impl OwnName {
    async fn new(mesh: &Mesh, is_given: bool) -> Self {
        let events = if is_given { None } else { mesh.subscribe().await.ok() };
        Self { mesh: mesh.clone(), events, told: String::new() }
    }

    /// The name, when it is another one than this gave last. Cancel safe.
    async fn next(&mut self) -> String {
        while let Some(events) = &mut self.events {
            let now = self.mesh.island();
            if now != self.told {
                self.told.clone_from(&now);
                return now;
            }
            if let Err(Ended::Left(_)) = events.next().await {
                self.events = None;
            }
        }
        std::future::pending().await
    }
}

async fn merge(mesh: Mesh, words: Words) {
    let far = FarWords {
        from: words.from,
        withdrawn: words.withdrawn.clone(),
        words: words.words.clone(),
        gone: words.gone.clone(),
        is_urgent: words.is_urgent,
    };
    match mesh.hear_far(far).await {
        Ok(()) => words.merged(),
        // We have left. The link waits with what follows until it has said goodbye: dropped, the words would end it before.
        Err(Left) => std::future::pending().await,
    }
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
