//! All links of one node, and what the program around it has to do with them.
//!
//! The program records in the [`SharedJournal`] what advances its table, takes [`Words`] to verify and merge, and says
//! which keys may link. The bridge calls configured links until they stand, keeps one link with each node however many
//! connections there are, and tells islands the ways to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use isle_mesh::member::MemberId;
use isle_mesh::wire::MeshTag;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::endpoint::{self, Connection, Endpoint, OpenError};
use crate::frame::tunnel::TunnelFailure;
use crate::frame::{IslandLoad, Reach, Refusal};
use crate::journal::Journal;
pub use crate::link::{EndReason, Words};
use crate::routes::{self, Choice};
use crate::session::{Greeting, PROTOCOL};
use crate::shared::SharedJournal;
use crate::tunnel::{Dial, Dialled, Lines, Open};

mod hub;
mod status;
mod target;

pub use status::{LinkStatus, Refused, State, Status};
pub use target::{Place, Target, TargetError};

/// Wishes that wait for the bridge; whoever finds it full waits, too.
const COMMANDS_MAX: usize = 64;
/// Words that wait for the program; a link whose words find it full waits, and reads no others meanwhile.
const WORDS_MAX: usize = 16;
/// Events that a slow reader may be behind.
const EVENTS_MAX: usize = 1024;

/// What a program says of its bridge.
#[derive(Clone)]
pub struct Config {
    /// Our island: a label.
    pub island: String,
    /// Its number, if it has one.
    pub island_id: Option<u64>,
    /// Version of our software: at most 32 visible ASCII characters.
    pub software: String,
    /// Lowest and highest version of the protocol: [`PROTOCOL`] but in tests.
    pub protocol: (u8, u8),
    /// The socket.
    pub endpoint: endpoint::Settings,
    /// Most members in the journal: at least as many as the table takes.
    pub members_max: usize,
    /// Who may link besides those we call.
    pub allowed: BTreeSet<MemberId>,
    /// Whom to call.
    pub links: Vec<Target>,
    /// Lets in strangers with an invite; `None`: nobody.
    pub invites: Option<Arc<dyn Invites>>,
    /// Where tunnels end; `None`: none is let in.
    pub dialler: Option<Arc<dyn Dial>>,
}

impl Config {
    /// Of a bridge of `island` that nobody may link with yet.
    #[must_use]
    pub fn new(island: String) -> Self {
        Self {
            island,
            island_id: None,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            endpoint: endpoint::Settings::default(),
            members_max: 100_000,
            allowed: BTreeSet::new(),
            links: Vec::new(),
            invites: None,
            dialler: None,
        }
    }
}

impl std::fmt::Debug for Config {
    /// Without invites.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("island", &self.island).finish_non_exhaustive()
    }
}

/// The invites that a program has given out.
pub trait Invites: Send + Sync + 'static {
    /// Whether any is open: without one strangers are refused before they say a word. Called by the bridge's task, so it must
    /// not block.
    fn any_open(&self) -> bool;

    /// Lets `peer` in by the invite with this secret: once this has ended well the invite is used, `peer` is allowed, and
    /// neither is forgotten by a crash. The link carries nothing before. It may still be refused for another reason; who
    /// was let in once is let in again. Ended early, it may have let `peer` in or not.
    ///
    /// # Errors
    /// Why not.
    fn admit(&self, peer: MemberId, secret: [u8; 32]) -> Admitting;
}

/// The answer of [`Invites::admit`].
pub type Admitting = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

/// What has happened. Whoever lags reads [`Bridge::status`] and [`Feeds::ways`].
#[derive(Clone, Debug)]
pub enum Event {
    /// A link carries.
    LinkUp {
        /// With whom.
        peer: MemberId,
        /// What it said of itself.
        greeting: Greeting,
    },
    /// A link that carried is over.
    LinkDown {
        /// With whom.
        peer: MemberId,
        /// Why.
        reason: EndReason,
    },
    /// An island can be reached, or no more.
    Island(routes::Event),
}

/// What a bridge gives the program. All of it has to be read, or dropped to end the bridge's links.
#[derive(Debug)]
pub struct Feeds {
    /// To be verified and merged; while one is not, its link waits with those that follow.
    pub words: mpsc::Receiver<Words>,
    /// What has happened.
    pub events: broadcast::Receiver<Event>,
    /// What our links reach: the body of our ROUTES word, to be signed and said on our island whenever it changes.
    pub reaches: watch::Receiver<Vec<Reach>>,
    /// The way to each island that is taken, our own other bridges' ways included.
    pub ways: watch::Receiver<BTreeMap<String, Choice>>,
    /// How often there was no room for an island that a link or another bridge spoke of; only grows.
    pub islands_left_out: watch::Receiver<u64>,
}

/// A program's hold on its bridge. Cheap to clone; all clones are one. When the last is dropped the bridge ends without
/// a goodbye.
#[derive(Clone)]
pub struct Bridge {
    id: MemberId,
    addr: SocketAddr,
    journal: SharedJournal,
    load: Arc<watch::Sender<IslandLoad>>,
    lines: Lines,
    commands: mpsc::Sender<Command>,
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").field("id", &self.id).field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// Why a bridge ended unasked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// The socket is closed.
    #[error("the socket is closed")]
    Socket,
    /// A task of it panicked.
    #[error("a task of the bridge failed")]
    Task(#[source] tokio::task::JoinError),
}

/// The work of a bridge: to be spawned. Ends well after [`Bridge::leave`], or when every [`Bridge`] is dropped.
pub struct BridgeTask(Pin<Box<dyn Future<Output = Result<(), BridgeError>> + Send>>);

impl std::fmt::Debug for BridgeTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BridgeTask")
    }
}

impl Future for BridgeTask {
    type Output = Result<(), BridgeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

/// A wish to the bridge's task.
enum Command {
    Link(Target),
    Allow(MemberId),
    Unlink(MemberId, oneshot::Sender<bool>),
    BridgeRoutes(MemberId, Vec<Reach>),
    Status(oneshot::Sender<Status>),
    Connection(MemberId, oneshot::Sender<Option<Connection>>),
    Rename(String),
    Leave(oneshot::Sender<()>),
}

/// Opens the socket for the node with this key. To be called in a tokio runtime; the task goes on.
///
/// # Errors
/// No socket, or a key that cannot be used.
pub fn start(
    mut config: Config,
    key: &SigningKey,
    tag: MeshTag,
) -> Result<(Bridge, Feeds, BridgeTask), OpenError> {
    let bind = config.endpoint.bind;
    let endpoint = Endpoint::open(&config.endpoint, key, tag)?;
    let addr = endpoint.local_addr().map_err(|source| OpenError::Socket { bind, source })?;
    let id = endpoint.id();
    let journal = SharedJournal::new(Journal::new(rand::random(), config.members_max));
    let (commands, wishes) = mpsc::channel(COMMANDS_MAX);
    let (words_tx, words) = mpsc::channel(WORDS_MAX);
    let (events_tx, events) = broadcast::channel(EVENTS_MAX);
    let (load, loads) = watch::channel(IslandLoad::default());
    let (reaches_tx, reaches) = watch::channel(Vec::new());
    let (ways_tx, ways) = watch::channel(BTreeMap::new());
    let (left_out, islands_left_out) = watch::channel(0);
    let outlets =
        hub::Outlets { words: words_tx, events: events_tx, reaches: reaches_tx, ways: ways_tx, left_out };
    let lines = Lines::new(config.island.clone(), id, config.dialler.take());
    let hub = hub::Hub::new(config, endpoint, journal.clone(), lines.clone(), outlets, loads);
    let bridge = Bridge { id, addr, journal, load: Arc::new(load), lines, commands };
    let feeds = Feeds { words, events, reaches, ways, islands_left_out };
    Ok((bridge, feeds, BridgeTask(Box::pin(hub.run(wishes)))))
}

impl Bridge {
    /// Our key.
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// Where we listen.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What the links say of our table. To be written before anybody acts on the change.
    #[must_use]
    pub fn journal(&self) -> &SharedJournal {
        &self.journal
    }

    /// How large and busy our island is; said once a second.
    pub fn set_load(&self, load: IslandLoad) {
        self.load.send_replace(load);
    }

    /// Calls `target` from now on, and lets it call us. In place of another target with the same key.
    pub async fn link(&self, target: Target) {
        self.wish(Command::Link(target)).await;
    }

    /// Lets the node with this key link with us.
    pub async fn allow(&self, key: MemberId) {
        self.wish(Command::Allow(key)).await;
    }

    /// Ends the link with the node with this key, and does not let it in again. Whether there was anything to take away.
    pub async fn unlink(&self, key: MemberId) -> bool {
        self.ask(|reply| Command::Unlink(key, reply)).await.unwrap_or(false)
    }

    /// What another bridge of our island says that it reaches, by its newest ROUTES word; nothing, when it is gone.
    pub async fn set_bridge_routes(&self, bridge: MemberId, reaches: Vec<Reach>) {
        self.wish(Command::BridgeRoutes(bridge, reaches)).await;
    }

    /// Our island is called so from now on: a label. Links say their island when they begin, so those that stand end with a
    /// goodbye, and are called again at once by whoever has called them; tunnels over them are cut.
    pub async fn rename(&self, island: String) {
        self.wish(Command::Rename(island)).await;
    }

    /// All links as they are now.
    pub async fn status(&self) -> Status {
        self.ask(Command::Status).await.unwrap_or_default()
    }

    /// The connection of the link with the node with this key, if that is up.
    pub async fn connection(&self, key: MemberId) -> Option<Connection> {
        self.ask(|reply| Command::Connection(key, reply)).await.flatten()
    }

    /// Opens a tunnel along `open.hops`, of which the first is another island than ours. `early` is what comes first in it,
    /// a few KiB at most: it is sent along, and reaches the member once that has proved its key at the far bridge. At most
    /// ten seconds. Dropped before it is done, what was opened is closed.
    ///
    /// # Errors
    /// Why it does not stand.
    pub async fn tunnel(&self, open: Open, early: Bytes) -> Result<Dialled, TunnelFailure> {
        self.lines.open(open, early).await
    }

    /// Opens and takes on no more tunnels, and waits until those that others have through us are over, at most so long.
    pub async fn drain_tunnels(&self, most: Duration) {
        self.lines.drain(most).await;
    }

    /// Says goodbye on all links after everything urgent, and closes the socket. At most half a second.
    pub async fn leave(&self) {
        // An error says that it has ended already.
        let _ = self.ask(Command::Leave).await;
    }

    async fn wish(&self, command: Command) {
        // A bridge that has ended has no wishes left.
        let _ = self.commands.send(command).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.wish(command(reply)).await;
        answer.await.ok()
    }
}
