//! What the rest of a program holds of a mesh: join, announce, watch, read, leave.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::config::MeshConfig;
use crate::driver;
use crate::event::Event;
use crate::far::FarWord;
use crate::identity::{Identity, Prover};
use crate::island::Island;
use crate::member::{LeaveReason, Load, Member, MemberId};
use crate::membership::{Announcement, Neighbours, StopReason, is_near};
use crate::metrics::{Counts, Metrics};
pub use crate::outward::{FarWords, News, Outward, What};
use crate::proof;
use crate::reach::Reach;
use crate::shared::SharedTable;
use crate::wire::{MeshTag, RecordError};

/// Wishes that wait for the driver; whoever finds it full waits too.
const COMMANDS_MAX: usize = 256;
/// Events that a slow reader may be behind.
pub(crate) const EVENTS_MAX: usize = 4096;

/// A future that owns what it needs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Fetches the body of `GET /mesh/records` from a member's HTTP listener. Given by the program, because a mesh
/// knows no HTTP. At most [`TRANSFER_BYTES_MAX`](crate::transfer::TRANSFER_BYTES_MAX) bytes, within a few seconds.
pub trait TableFetch: Send + Sync + 'static {
    /// Fetches from the listener at `at`.
    fn fetch(&self, at: SocketAddr) -> BoxFuture<Result<Bytes, FetchError>>;

    /// The same with `?instance=INSTANCE&since=SINCE`: what a bridge knows of other islands.
    fn fetch_far(&self, at: SocketAddr, instance: u64, since: u64) -> BoxFuture<Result<Bytes, FetchError>>;
}

/// Why a table could not be fetched; another member is asked then.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// Why a mesh cannot be joined. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The node's name, island, roles or tags are not such as everybody takes.
    #[error("cannot be announced")]
    Record(#[from] RecordError),
    /// The system gives no socket.
    #[error("no UDP socket")]
    Socket(#[source] io::Error),
    /// The system gives no randomness.
    #[error("no randomness: {0}")]
    Entropy(String),
}

/// Why a node stopped without having been asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeshError {
    /// Somebody else speaks with this node's key.
    #[error(
        "another node uses this node's key, in epoch {epoch}; each node needs a state directory of its own"
    )]
    KeyInUse {
        /// The epoch it was heard in.
        epoch: u32,
    },
    /// This key's epoch could not be raised.
    #[error("words of this key from epoch {epoch} were heard, and the epoch could not be raised above it")]
    Epoch {
        /// The epoch that was heard.
        epoch: u32,
    },
}

impl From<StopReason> for MeshError {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::KeyInUse(epoch) => Self::KeyInUse { epoch: epoch.0 },
            StopReason::NoEpochAbove(epoch) => Self::Epoch { epoch: epoch.0 },
        }
    }
}

/// The work of a node: to be spawned. Ends well after [`Mesh::leave`], or when every [`Mesh`] is dropped.
pub struct MeshTask(pub(crate) BoxFuture<Result<(), MeshError>>);

impl std::fmt::Debug for MeshTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MeshTask")
    }
}

impl Future for MeshTask {
    type Output = Result<(), MeshError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

/// A wish to the driver.
pub(crate) enum Command {
    Announce(Announcement, oneshot::Sender<Result<(), RecordError>>),
    Subscribe(oneshot::Sender<Subscription>),
    Records(oneshot::Sender<Bytes>),
    Proved(MemberId),
    Refused(MemberId),
    SayReaches(Vec<Reach>, oneshot::Sender<()>),
    HearFar(HeardFar, oneshot::Sender<()>),
    FarRecords { instance: u64, since: u64, reply: oneshot::Sender<Bytes> },
    Drain(oneshot::Sender<()>),
    Leave(LeaveReason, oneshot::Sender<()>),
}

/// What a link has brought, as far as it is true.
pub(crate) struct HeardFar {
    pub(crate) from: MemberId,
    pub(crate) withdrawn: Vec<MemberId>,
    pub(crate) words: Vec<FarWord>,
    pub(crate) is_urgent: bool,
}

/// A node's hold on its mesh. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Mesh {
    pub(crate) shared: Arc<Shared>,
}

/// Other islands by name.
pub type Islands = Arc<BTreeMap<String, Arc<Island>>>;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) tag: MeshTag,
    pub(crate) prover: Prover,
    pub(crate) table: SharedTable,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) load: watch::Sender<Load>,
    pub(crate) complete: watch::Receiver<bool>,
    pub(crate) neighbours: watch::Receiver<Neighbours>,
    pub(crate) islands: watch::Receiver<Islands>,
    pub(crate) foreign: watch::Sender<BTreeSet<MemberId>>,
    pub(crate) metrics: Metrics,
}

pub(crate) fn channels() -> (mpsc::Sender<Command>, mpsc::Receiver<Command>) {
    mpsc::channel(COMMANDS_MAX)
}

impl Mesh {
    /// Takes part in a mesh: opens the sockets and says the first words. The returned task must be spawned.
    ///
    /// # Errors
    /// See [`JoinError`]; nothing was sent then.
    pub fn join(
        config: MeshConfig,
        identity: Identity,
        fetch: Arc<dyn TableFetch>,
    ) -> Result<(Self, MeshTask), JoinError> {
        driver::start(config, identity, fetch)
    }

    /// This node's key.
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.shared.prover.id()
    }

    /// Tag of the mesh.
    #[must_use]
    pub fn tag(&self) -> MeshTag {
        self.shared.tag
    }

    /// The table, this node included.
    #[must_use]
    pub fn table(&self) -> &SharedTable {
        &self.shared.table
    }

    /// This node as the table has it.
    ///
    /// # Panics
    /// Never: a node lists itself from its first word on, and is not forgotten while it lives.
    #[must_use]
    pub fn me(&self) -> Arc<Member> {
        self.shared.table.get(&self.id()).expect("a node lists itself before `join` returns")
    }

    /// The island this node counts itself to.
    #[must_use]
    pub fn island(&self) -> String {
        self.me().record.island.clone()
    }

    /// Whether the table has been fetched, or nobody was there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        *self.shared.complete.borrow()
    }

    /// Waits until [`is_complete`](Self::is_complete), at most about half a second on a quiet network. Cancel safe.
    pub async fn complete(&self) {
        // The driver ends only after a farewell; then nobody needs to wait either.
        let _ = self.shared.complete.clone().wait_for(|complete| *complete).await;
    }

    /// All members as they are now, and every change from then on: nothing in between is missed.
    ///
    /// # Errors
    /// `Left` when this node has left the mesh.
    pub async fn subscribe(&self) -> Result<Subscription, Left> {
        self.ask(Command::Subscribe).await
    }

    /// Changes what this node says of itself.
    ///
    /// # Errors
    /// What everybody would refuse; then nothing is changed.
    pub async fn announce(&self, news: Announcement) -> Result<(), AnnounceError> {
        Ok(self.ask(|reply| Command::Announce(news, reply)).await??)
    }

    /// How busy this node is. Never waits; the newest counts.
    pub fn set_load(&self, load: Load) {
        self.shared.load.send_if_modified(|told| {
            let changed = *told != load;
            *told = load;
            changed
        });
    }

    /// A member proved its key at its listener. Dropped when the driver is behind: it will be proved again.
    pub fn proved(&self, id: MemberId) {
        let _ = self.shared.commands.try_send(Command::Proved(id));
    }

    /// A connection to a member was refused or reset: it is asked whether it lives. Dropped when the driver is behind.
    pub fn connection_refused(&self, id: MemberId) {
        let _ = self.shared.commands.try_send(Command::Refused(id));
    }

    /// Tells everybody that this node stops soon. Returns when the first copy is sent.
    pub async fn drain(&self) {
        // A driver that is gone has said more than this.
        let _ = self.ask(Command::Drain).await;
    }

    /// Says farewell. Returns when its last copy is sent, about 40 ms later; then the task ends.
    pub async fn leave(&self, reason: LeaveReason) {
        let _ = self.ask(|reply| Command::Leave(reason, reply)).await;
    }

    /// Body of `GET /mesh/records`; empty after this node has left.
    pub async fn records(&self) -> Bytes {
        self.ask(Command::Records).await.unwrap_or_default()
    }

    /// Body of `GET /mesh/proof`: that this node listens at `dialled`.
    #[must_use]
    pub fn proof(&self, nonce: &[u8; 16], dialled: SocketAddr) -> Vec<u8> {
        proof::encode(&self.shared.prover.prove(self.shared.tag, dialled, nonce))
    }

    /// Whether a node at `asker` may fetch records and proofs: on a network of ours, on this host, or admitted by cookie.
    #[must_use]
    pub fn may_ask(&self, asker: IpAddr) -> bool {
        let asker = asker.to_canonical();
        let neighbours = self.shared.neighbours.borrow();
        is_near(&neighbours.networks, asker) || neighbours.admitted.contains(&asker)
    }

    /// What this node has sent, heard and refused since it started.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.metrics.read()
    }

    /// The other islands that are known, by name; changed before the event that tells of it is sent.
    #[must_use]
    pub fn islands(&self) -> watch::Receiver<Islands> {
        self.shared.islands.clone()
    }

    /// Says to our island what this bridge's links reach: at once, twice more, and every two seconds from then on. Of
    /// the ways to an island the first two count; at most 256 islands. Nothing is said when nothing has changed.
    ///
    /// # Errors
    /// `Left` when this node has left the mesh.
    pub async fn say_reaches(&self, reaches: Vec<Reach>) -> Result<(), Left> {
        self.ask(|reply| Command::SayReaches(reaches, reply)).await
    }

    /// Takes in what a link has brought. Returns when it is verified and merged and [`Outward`] was told of what came of it;
    /// words that are not true are dropped. About 40 µs of CPU a word; many are verified on a blocking thread.
    ///
    /// # Errors
    /// `Left` when this node has left the mesh.
    pub async fn hear_far(&self, words: FarWords) -> Result<(), Left> {
        let FarWords { from, withdrawn, words, gone, is_urgent } = words;
        let mut words = FarWord::verify_all(self.tag(), words).await;
        FarWord::date(&mut words, gone);
        self.ask(|reply| Command::HearFar(HeardFar { from, withdrawn, words, is_urgent }, reply)).await
    }

    /// Body of `GET /mesh/records?instance=&since=`: what this node knows of members of other islands and has learned after
    /// `since`, by the counting of `instance`; everything, if that is another instance than this one's. Empty after this
    /// node has left.
    pub async fn far_records(&self, instance: u64, since: u64) -> Bytes {
        self.ask(|reply| Command::FarRecords { instance, since, reply }).await.unwrap_or_default()
    }

    /// Keys of links to other islands: they are never of our own, and what they say on the wire is ignored. In place of
    /// those named before. Never waits.
    pub fn set_foreign(&self, keys: BTreeSet<MemberId>) {
        self.shared.foreign.send_if_modified(|named| {
            let changed = *named != keys;
            *named = keys;
            changed
        });
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Left> {
        let (reply, answer) = oneshot::channel();
        self.shared.commands.send(command(reply)).await.map_err(|_| Left)?;
        answer.await.map_err(|_| Left)
    }
}

/// This node has left the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node has left the mesh")]
pub struct Left;

/// Why an announcement was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// Everybody would refuse it.
    #[error("cannot be announced")]
    Record(#[from] RecordError),
    /// Nobody is there to say it.
    #[error(transparent)]
    Left(#[from] Left),
}

/// All members at one moment, and every change after it, in order.
#[derive(Debug)]
pub struct Subscription {
    /// The members at the beginning, by id.
    pub snapshot: Vec<Arc<Member>>,
    pub(crate) events: broadcast::Receiver<Event>,
}

/// Why there is no next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Too far behind: so many were missed. The table is right; subscribe again for a new snapshot, or go on.
    #[error("{0} events were missed")]
    Lagged(u64),
    /// This node has left.
    #[error(transparent)]
    Left(#[from] Left),
}

impl Subscription {
    /// The next change.
    ///
    /// Cancel safe: an event not returned stays for the next call.
    ///
    /// # Errors
    /// See [`Ended`].
    pub async fn next(&mut self) -> Result<Event, Ended> {
        match self.events.recv().await {
            Ok(event) => Ok(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Err(Ended::Lagged(missed)),
            Err(broadcast::error::RecvError::Closed) => Err(Left.into()),
        }
    }
}
