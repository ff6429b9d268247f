//! Keeps the index current: follows the mesh, fetches the catalogues that are announced, each digest once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::StatusCode;
use http_body_util::BodyExt;
use isle_mesh::event::{Event, EventKind, Subject};
use isle_mesh::member::{Member, MemberId};
use isle_mesh::mesh::{Ended, Mesh, Subscription};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};
use tracing::{debug, info, warn};

use super::{ENTRIES_MAX, Index, Snapshot};
use crate::endpoint::{EndpointError, Endpoints};
use crate::figures::{Catalogue, CatalogueError, CatalogueParser, Hash};
use crate::http::body::BodyError;
use crate::upstream::{Ask, UpstreamError, Upstreams};

/// Catalogues fetched at once: each may be 64 MiB on the wire.
const FETCHES_MAX: usize = 8;
/// Longest time for one catalogue.
const FETCH_WAIT: Duration = Duration::from_secs(30);
/// After a failed fetch the next one waits this long, then twice as long, and so on.
const RETRY: Duration = Duration::from_millis(100);
/// But not longer than this.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A catalogue that could not be had so often no longer makes anybody wait for it.
const HOPEFUL_ATTEMPTS: u32 = 4;
/// Larger catalogues are put in place away from the tasks that serve: 1,000 figures take some 500 µs.
const INLINE_ENTRIES_MAX: usize = 1000;

/// Why a catalogue was not had.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("its address is not proven")]
    Endpoint(#[from] EndpointError),
    #[error("it could not be asked")]
    Upstream(#[from] UpstreamError),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its catalogue broke off")]
    Body(#[from] BodyError),
    #[error("its catalogue has not the form")]
    Form(#[from] CatalogueError),
    #[error("its catalogue has another digest than the one it signed")]
    Digest,
    #[error("not complete in time")]
    TooLate,
}

/// The task that keeps an [`Index`] current: to be spawned.
#[derive(Debug)]
pub struct IndexTask {
    mesh: Mesh,
    upstreams: Upstreams,
    endpoints: Arc<Endpoints>,
    published: Arc<ArcSwap<Snapshot>>,
    changes: watch::Sender<u64>,
    snapshot: Snapshot,
    /// Members that announce a catalogue, with it.
    announced: BTreeMap<MemberId, (Hash, Arc<Member>)>,
    /// Whom the snapshot has as holder of what.
    attached: BTreeMap<MemberId, Hash>,
    holders: BTreeMap<Hash, BTreeSet<MemberId>>,
    wanted: BTreeMap<Hash, Want>,
    fetches: JoinSet<(Hash, Result<Catalogue, FetchError>)>,
    dirty: bool,
}

/// A catalogue that is announced and not here yet.
#[derive(Debug)]
struct Want {
    attempts: u32,
    due: Instant,
    is_fetching: bool,
    /// When it was last due, nobody who may be asked announced it: the first who does is asked at once.
    lacks_anybody: bool,
}

impl Want {
    fn new(due: Instant) -> Self {
        Self { attempts: 0, due, is_fetching: false, lacks_anybody: false }
    }
}

enum Wake {
    Event(Result<Event, Ended>),
    Fetched(Result<(Hash, Result<Catalogue, FetchError>), tokio::task::JoinError>),
    Due,
}

/// An empty index and the task that fills it.
#[must_use]
pub fn index(mesh: Mesh, upstreams: Upstreams, endpoints: Arc<Endpoints>) -> (Index, IndexTask) {
    let published: Arc<ArcSwap<Snapshot>> = Arc::default();
    let (changes, seen) = watch::channel(0);
    let index = Index { snapshot: published.clone(), changes: seen };
    let task = IndexTask {
        mesh,
        upstreams,
        endpoints,
        published,
        changes,
        snapshot: Snapshot::default(),
        announced: BTreeMap::new(),
        attached: BTreeMap::new(),
        holders: BTreeMap::new(),
        wanted: BTreeMap::new(),
        fetches: JoinSet::new(),
        dirty: false,
    };
    (index, task)
}

impl IndexTask {
    /// Follows the mesh until this node has left it.
    pub async fn run(mut self) {
        while let Ok(mut events) = self.mesh.subscribe().await {
            self.begin(&events).await;
            if self.follow(&mut events).await.is_break() {
                return;
            }
        }
    }

    /// Takes a table as a whole: at the start, and after events were missed.
    async fn begin(&mut self, events: &Subscription) {
        let listed: BTreeSet<_> = events.snapshot.iter().map(|member| member.id).collect();
        let gone: Vec<_> = self.announced.keys().filter(|id| !listed.contains(id)).copied().collect();
        for id in gone {
            self.forget(id);
        }
        for member in &events.snapshot {
            self.take(member);
        }
        self.settle().await;
    }

    async fn follow(&mut self, events: &mut Subscription) -> std::ops::ControlFlow<()> {
        loop {
            let wake = {
                let due = self.next_due();
                tokio::select! {
                    biased;
                    event = events.next() => Wake::Event(event),
                    Some(fetched) = self.fetches.join_next() => Wake::Fetched(fetched),
                    () = until(due) => Wake::Due,
                }
            };
            match wake {
                Wake::Event(Ok(event)) => self.event(&event),
                Wake::Event(Err(Ended::Lagged(missed))) => {
                    debug!(missed, "events were missed; the table is read again");
                    return std::ops::ControlFlow::Continue(());
                }
                Wake::Event(Err(Ended::Left(_))) => return std::ops::ControlFlow::Break(()),
                Wake::Fetched(Ok((digest, fetched))) => self.fetched(digest, fetched).await,
                // A panic is a fault of ours; what was wanted is asked for again.
                Wake::Fetched(Err(error)) => {
                    warn!(%error, "reading a catalogue failed");
                    for want in self.wanted.values_mut() {
                        want.is_fetching = false;
                    }
                }
                Wake::Due => {}
            }
            self.settle().await;
        }
    }

    fn event(&mut self, event: &Event) {
        let member = match &event.subject {
            Subject::Member(member) => member,
            Subject::Island(island) => return self.retake(&island.name),
        };
        match event.kind {
            EventKind::Forgotten => self.forget(member.id),
            EventKind::Joined
            | EventKind::Updated
            | EventKind::Draining
            | EventKind::Suspect
            | EventKind::Down
            | EventKind::Back
            | EventKind::Left
            | EventKind::DuplicateKey => self.take(member),
            // Told of islands, not of members.
            EventKind::IslandUp | EventKind::IslandDown => {}
        }
    }

    /// Whether the members of an island can be asked has changed: what waits for somebody to ask looks again.
    fn retake(&mut self, island: &str) {
        let of_it = self.announced.iter().filter(|(_, (_, member))| member.record.island == island);
        let now: Vec<_> = of_it.filter_map(|(id, _)| self.mesh.table().get(id)).collect();
        now.iter().for_each(|member| self.take(member));
    }

    /// A member as it is now.
    fn take(&mut self, member: &Arc<Member>) {
        let Some(catalogue) = member.record.catalogue else {
            self.announced.remove(&member.id);
            self.detach(member.id);
            return;
        };
        let digest = Hash(catalogue.digest);
        self.announced.insert(member.id, (digest, member.clone()));
        if self.snapshot.has(&digest) {
            self.attach(member.id, digest);
        } else {
            // What it held before is most likely still right for the moment until the new catalogue is here.
            let due = Instant::now();
            let want = self.wanted.entry(digest).or_insert(Want::new(due));
            if want.lacks_anybody && member.is_choosable() {
                *want = Want { lacks_anybody: false, due, ..*want };
            }
        }
    }

    fn forget(&mut self, id: MemberId) {
        self.announced.remove(&id);
        self.detach(id);
    }

    fn attach(&mut self, id: MemberId, digest: Hash) {
        if self.attached.get(&id) == Some(&digest) {
            return;
        }
        // First the new place, then the old: a figure in both is never without this holder in a snapshot.
        self.holders.entry(digest).or_default().insert(id);
        self.tell_holders(&digest);
        if let Some(old) = self.attached.insert(id, digest) {
            self.release(id, &old);
        }
        self.dirty = true;
    }

    fn detach(&mut self, id: MemberId) {
        if let Some(old) = self.attached.remove(&id) {
            self.release(id, &old);
            self.dirty = true;
        }
    }

    fn release(&mut self, id: MemberId, digest: &Hash) {
        if let Some(holders) = self.holders.get_mut(digest) {
            holders.remove(&id);
            if holders.is_empty() {
                self.holders.remove(digest);
                self.snapshot.remove(digest);
            } else {
                self.tell_holders(digest);
            }
        }
    }

    fn tell_holders(&mut self, digest: &Hash) {
        let holders = self.holders.get(digest).map(|ids| ids.iter().copied().collect()).unwrap_or_default();
        self.snapshot.set_holders(digest, holders);
    }

    async fn fetched(&mut self, digest: Hash, fetched: Result<Catalogue, FetchError>) {
        match fetched {
            Ok(catalogue) if self.snapshot.len() + catalogue.entries().len() > ENTRIES_MAX => {
                warn!(%digest, entries = catalogue.entries().len(), "the index is full; a catalogue is left out");
                self.retry_later(&digest, RETRY_MAX);
            }
            Ok(catalogue) => {
                let entries = catalogue.entries().len();
                let started = Instant::now();
                self.add(Arc::new(catalogue)).await;
                self.wanted.remove(&digest);
                let of: Vec<_> = self.announcers(&digest).map(|member| member.id).collect();
                info!(entries, members = of.len(), took = ?started.elapsed(), "catalogue read");
                for id in of {
                    self.attach(id, digest);
                }
                if !self.holders.contains_key(&digest) {
                    self.snapshot.remove(&digest);
                }
                self.dirty = true;
            }
            Err(error) => {
                debug!(%digest, error = &error as &dyn std::error::Error, "no catalogue");
                let attempts = self.wanted.get(&digest).map_or(0, |want| want.attempts);
                self.retry_later(&digest, (RETRY * 2u32.pow(attempts.min(10))).min(RETRY_MAX));
            }
        }
    }

    fn retry_later(&mut self, digest: &Hash, wait: Duration) {
        if let Some(want) = self.wanted.get_mut(digest) {
            want.attempts += 1;
            want.is_fetching = false;
            want.due = Instant::now() + wait;
            self.dirty = true;
        }
    }

    async fn add(&mut self, catalogue: Arc<Catalogue>) {
        if catalogue.entries().len() <= INLINE_ENTRIES_MAX {
            return self.snapshot.add(catalogue);
        }
        let mut snapshot = std::mem::take(&mut self.snapshot);
        let added = tokio::task::spawn_blocking(move || {
            snapshot.add(catalogue);
            snapshot
        });
        self.snapshot = added.await.expect("adding a catalogue does not panic, and is never cancelled");
    }

    /// Asks for what is wanted, and lets everybody see what changed.
    async fn settle(&mut self) {
        let announced: BTreeSet<Hash> = self.announced.values().map(|(digest, _)| *digest).collect();
        self.wanted.retain(|digest, _| announced.contains(digest));
        let now = Instant::now();
        let due: Vec<Hash> = self
            .wanted
            .iter()
            .filter(|(_, want)| !want.is_fetching && want.due <= now)
            .map(|(digest, _)| *digest)
            .collect();
        for digest in due {
            if self.fetches.len() >= FETCHES_MAX {
                break;
            }
            self.fetch(digest);
        }
        let hopeful = self.wanted.iter().filter(|(digest, want)| {
            want.attempts < HOPEFUL_ATTEMPTS && self.announcers(digest).any(|member| member.is_choosable())
        });
        let unread = hopeful.count();
        if self.dirty || unread != self.snapshot.unread() {
            self.snapshot.set_unread(unread);
            self.publish();
        } else {
            // A standing may have changed: whoever waits for a holder looks again.
            self.tell();
        }
    }

    fn publish(&mut self) {
        self.dirty = false;
        self.published.store(Arc::new(self.snapshot.clone()));
        self.tell();
    }

    fn tell(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    /// Fetches from one of those who announce it, another one each time.
    fn fetch(&mut self, digest: Hash) {
        let could: Vec<_> =
            self.announcers(&digest).filter(|member| member.is_choosable()).cloned().collect();
        let Some(want) = self.wanted.get_mut(&digest) else { return };
        let Some(from) = could.get(want.attempts as usize % could.len().max(1)).cloned() else {
            // The event of somebody who may be asked makes it due again.
            *want = Want { lacks_anybody: true, due: Instant::now() + RETRY_MAX, ..*want };
            return;
        };
        want.is_fetching = true;
        let (mesh, upstreams, endpoints) =
            (self.mesh.clone(), self.upstreams.clone(), self.endpoints.clone());
        self.fetches
            .spawn(async move { (digest, fetch(&mesh, &upstreams, &endpoints, &from, digest).await) });
    }

    fn announcers(&self, digest: &Hash) -> impl Iterator<Item = &Arc<Member>> {
        self.announced.values().filter(move |(announced, _)| announced == digest).map(|(_, member)| member)
    }

    fn next_due(&self) -> Option<Instant> {
        if self.fetches.len() >= FETCHES_MAX {
            return None;
        }
        self.wanted.values().filter(|want| !want.is_fetching).map(|want| want.due).min()
    }
}

/// Cancel safe: it only waits.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

async fn fetch(
    mesh: &Mesh,
    upstreams: &Upstreams,
    endpoints: &Endpoints,
    from: &Member,
    digest: Hash,
) -> Result<Catalogue, FetchError> {
    let deadline = Instant::now() + FETCH_WAIT;
    let at = endpoints.of(mesh, upstreams, from, deadline).await?;
    let reply = upstreams.send(at, &Ask::get("/local/catalog"), deadline).await;
    let (head, mut body) = reply.inspect_err(|_| endpoints.forget(from, at))?.into_parts();
    if head.status != StatusCode::OK {
        return Err(FetchError::Status(head.status));
    }
    let mut parser = CatalogueParser::default();
    let read = async {
        while let Some(frame) = body.frame().await {
            // In the network's pieces, so no step is long.
            if let Ok(data) = frame?.into_data() {
                parser.push(&data)?;
            }
        }
        Ok::<_, FetchError>(parser.finish()?)
    };
    let catalogue = timeout_at(deadline.into(), read).await.map_err(|_| FetchError::TooLate)??;
    if catalogue.digest() == digest { Ok(catalogue) } else { Err(FetchError::Digest) }
}
