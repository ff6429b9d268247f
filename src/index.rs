//! Who holds which figure: the catalogues of all members that announce one, each fetched once whoever holds it.
//!
//! A catalogue is named by its digest, so equal catalogues are one here. Looking a figure up searches each
//! different catalogue; nothing is merged, so a member that comes or goes costs nothing but a new list of holders.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::StatusCode;
use isle_mesh::member::{Member, MemberId};
use isle_mesh::mesh::{Ended, Mesh};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::endpoint::{EndpointError, Endpoints};
use crate::figures::catalogue::{CATALOGUE_BYTES_MAX, Catalogue, Entry};
use crate::figures::figure::Hash;
use crate::figures::name::{FigureName, Share};
use crate::upstream::{Ask, UpstreamError, Upstreams};

/// Catalogues of at most this many entries in all are kept: about 200 MB. More are refused, and said to be.
const ENTRIES_MAX: usize = 1_000_000;
/// A catalogue of 64 MiB needs a second or two on a busy LAN.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// A catalogue that could not be had is tried again after this, doubling up to `RETRY_MAX`.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// One catalogue and its holders.
#[derive(Clone, Debug)]
struct Held {
    catalogue: Arc<Catalogue>,
    holders: Vec<MemberId>,
}

/// Everything known at one moment. Immutable: whoever looks things up sees one state.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By digest.
    held: Vec<Held>,
    /// Members that are there and whose catalogue is not known yet.
    pending: usize,
}

/// One share of a figure, in the version that counts, and who holds it.
#[derive(Clone, Debug)]
pub struct ShareHolders {
    /// What the catalogues say of it.
    pub entry: Entry,
    /// Who holds exactly this, gone members included, by id.
    pub holders: Vec<MemberId>,
    /// Who holds something else under this name and share.
    pub conflicting: Vec<MemberId>,
}

impl Snapshot {
    /// All shares of `name` that anybody listed holds, by index; empty if nobody has heard of it.
    ///
    /// If members disagree on a share, the version that more of them hold counts, then the smaller hash.
    /// If they disagree on how many shares there are, the number that more of them hold, then the smaller.
    #[must_use]
    pub fn shares(&self, name: &FigureName) -> Vec<ShareHolders> {
        let mut versions: BTreeMap<Share, BTreeMap<Hash, (Entry, BTreeSet<MemberId>)>> = BTreeMap::new();
        for held in &self.held {
            for entry in &held.catalogue.entries()[held.catalogue.range(name)] {
                let (_, holders) = versions
                    .entry(entry.share)
                    .or_default()
                    .entry(entry.hash)
                    .or_insert_with(|| (entry.clone(), BTreeSet::new()));
                holders.extend(held.holders.iter().copied());
            }
        }
        let mut splits: BTreeMap<u16, usize> = BTreeMap::new();
        for (share, hashes) in &versions {
            *splits.entry(share.of).or_default() +=
                hashes.values().map(|(_, holders)| holders.len()).sum::<usize>();
        }
        let Some((of, _)) = splits.into_iter().min_by_key(|(of, holders)| (usize::MAX - holders, *of)) else {
            return Vec::new();
        };
        versions
            .into_iter()
            .filter(|(share, _)| share.of == of)
            .map(|(_, hashes)| preferred(hashes))
            .collect()
    }

    /// Names after `after` (exclusive) that contain `part`, sorted, at most `limit`, each once.
    #[must_use]
    pub fn names(&self, after: Option<&FigureName>, part: &str, limit: usize) -> Vec<FigureName> {
        let mut names: BTreeSet<&FigureName> = BTreeSet::new();
        for held in &self.held {
            let entries = held.catalogue.entries();
            let start = after.map_or(0, |after| entries.partition_point(|entry| entry.name <= *after));
            let mut taken = 0;
            for entry in entries[start..].iter().filter(|entry| entry.name.as_str().contains(part)) {
                // Shares of one figure stand together and are one name.
                if names.insert(&entry.name) {
                    taken += 1;
                }
                if taken >= limit {
                    break;
                }
            }
        }
        names.into_iter().take(limit).cloned().collect()
    }

    /// Whether somebody's catalogue is still being fetched.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending > 0
    }

    /// Names close to `name`, for a person who mistyped it: at most three.
    #[must_use]
    pub fn similar(&self, name: &str) -> Vec<FigureName> {
        const LOOKED_AT_MAX: usize = 20_000;
        let mut close: BTreeSet<(usize, &FigureName)> = BTreeSet::new();
        for entry in self.held.iter().flat_map(|held| held.catalogue.entries()).take(LOOKED_AT_MAX) {
            let distance = distance(name, entry.name.as_str());
            if distance <= 1 + name.len() / 4 {
                close.insert((distance, &entry.name));
            }
        }
        close.into_iter().take(3).map(|(_, name)| name.clone()).collect()
    }
}

fn preferred(hashes: BTreeMap<Hash, (Entry, BTreeSet<MemberId>)>) -> ShareHolders {
    let best = hashes
        .iter()
        .min_by_key(|(hash, (_, holders))| (usize::MAX - holders.len(), **hash))
        .map(|(hash, _)| *hash)
        .expect("a share is listed because an entry of it was seen");
    let mut preferred = None;
    let mut conflicting = Vec::new();
    for (hash, (entry, holders)) in hashes {
        if hash == best {
            preferred = Some((entry, holders.into_iter().collect()));
        } else {
            conflicting.extend(holders);
        }
    }
    let (entry, holders) = preferred.expect("chosen among these");
    ShareHolders { entry, holders, conflicting }
}

/// Insertions, deletions and replacements between two texts (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut left_above = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let change = left_above + usize::from(x != y);
            left_above = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(left_above + 1);
        }
    }
    row[b.len()]
}

/// The index as everybody reads it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Index {
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: watch::Receiver<u64>,
    again: tokio::sync::mpsc::Sender<Hash>,
}

/// Keeps an [`Index`] current; to be spawned.
#[derive(Debug)]
pub struct IndexTask {
    mesh: Mesh,
    upstreams: Upstreams,
    endpoints: Arc<Endpoints>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: watch::Sender<u64>,
    again: tokio::sync::mpsc::Receiver<Hash>,
    /// Digest announced by each listed member that has a catalogue.
    announced: BTreeMap<MemberId, Hash>,
    catalogues: HashMap<Hash, Arc<Catalogue>>,
    fetching: BTreeMap<Hash, Duration>,
    fetches: JoinSet<(Hash, Option<Catalogue>)>,
}

/// An empty index and the task that fills it.
#[must_use]
pub fn index(mesh: Mesh, upstreams: Upstreams, endpoints: Arc<Endpoints>) -> (Index, IndexTask) {
    let snapshot: Arc<ArcSwap<Snapshot>> = Arc::default();
    let (changes, seen) = watch::channel(0);
    let (again, asked) = tokio::sync::mpsc::channel(16);
    let index = Index { snapshot: snapshot.clone(), changes: seen, again };
    let task = IndexTask {
        mesh,
        upstreams,
        endpoints,
        snapshot,
        changes,
        again: asked,
        announced: BTreeMap::new(),
        catalogues: HashMap::new(),
        fetching: BTreeMap::new(),
        fetches: JoinSet::new(),
    };
    (index, task)
}

impl Index {
    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Moves with every change of what is known. Mark it seen before reading the snapshot, and no change is missed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// A member's figure did not match the catalogue of this digest. It is fetched anew; until then nothing of it counts.
    /// Dropped when several are waiting already.
    pub fn distrust(&self, digest: Hash) {
        let _ = self.again.try_send(digest);
    }
}

enum Wake {
    Event(Result<isle_mesh::event::Event, Ended>),
    Fetched(Hash, Option<Catalogue>),
    Again(Hash),
}

impl IndexTask {
    /// Follows the table until this node leaves.
    pub async fn run(mut self) {
        loop {
            let Ok(mut events) = self.mesh.subscribe().await else { return };
            self.announced.clear();
            for member in std::mem::take(&mut events.snapshot) {
                self.note(&member, true);
            }
            self.publish();
            loop {
                let wake = tokio::select! {
                    biased;
                    event = events.next() => Wake::Event(event),
                    Some(Ok((digest, catalogue))) = self.fetches.join_next() => Wake::Fetched(digest, catalogue),
                    Some(digest) = self.again.recv() => Wake::Again(digest),
                };
                match wake {
                    Wake::Event(Ok(event)) => {
                        let listed = event.kind != isle_mesh::event::EventKind::Forgotten;
                        self.note(&event.member, listed);
                    }
                    // Too far behind to follow: begin again from the table as it is.
                    Wake::Event(Err(Ended::Lagged(_))) => break,
                    Wake::Event(Err(Ended::Left(_))) => return,
                    Wake::Fetched(digest, catalogue) => self.take(digest, catalogue),
                    Wake::Again(digest) => {
                        if self.catalogues.remove(&digest).is_some() {
                            warn!(%digest, "a figure did not match its catalogue, which is fetched anew");
                            self.fetch(digest);
                        }
                    }
                }
                self.publish();
            }
        }
    }

    fn note(&mut self, member: &Member, listed: bool) {
        match member.record.catalogue.filter(|_| listed) {
            Some(summary) => {
                let digest = Hash(summary.digest);
                self.announced.insert(member.id, digest);
                if !self.catalogues.contains_key(&digest) && !member.standing.is_gone() {
                    self.fetch(digest);
                }
            }
            None => {
                self.announced.remove(&member.id);
            }
        }
        let announced = &self.announced;
        self.catalogues.retain(|digest, _| announced.values().any(|held| held == digest));
    }

    fn fetch(&mut self, digest: Hash) {
        if self.fetching.contains_key(&digest) {
            return;
        }
        self.fetching.insert(digest, Duration::ZERO);
        self.spawn(digest, Duration::ZERO);
    }

    fn spawn(&mut self, digest: Hash, after: Duration) {
        let (mesh, upstreams, endpoints) =
            (self.mesh.clone(), self.upstreams.clone(), self.endpoints.clone());
        self.fetches.spawn(async move {
            sleep(after).await;
            let deadline = Instant::now() + FETCH_TIMEOUT;
            (digest, fetch_from_any(&mesh, &upstreams, &endpoints, digest, deadline).await)
        });
    }

    fn take(&mut self, digest: Hash, catalogue: Option<Catalogue>) {
        let waited = self.fetching.remove(&digest).unwrap_or_default();
        let wanted = self.announced.values().any(|announced| *announced == digest);
        match catalogue {
            Some(catalogue) => {
                let entries: usize = self.catalogues.values().map(|held| held.entries().len()).sum();
                if entries + catalogue.entries().len() > ENTRIES_MAX {
                    warn!(%digest, entries = catalogue.entries().len(), "no room for one more catalogue");
                } else if wanted {
                    info!(%digest, figures = catalogue.entries().len(), "catalogue known");
                    self.catalogues.insert(digest, Arc::new(catalogue));
                }
            }
            None if wanted => {
                let wait = (waited * 2).clamp(RETRY_MIN, RETRY_MAX);
                self.fetching.insert(digest, wait);
                self.spawn(digest, wait);
            }
            None => {}
        }
    }

    fn publish(&mut self) {
        let mut holders: BTreeMap<Hash, Vec<MemberId>> = BTreeMap::new();
        let mut pending = 0;
        for (id, digest) in &self.announced {
            if self.catalogues.contains_key(digest) {
                holders.entry(*digest).or_default().push(*id);
            } else if self.mesh.table().get(id).is_some_and(|member| member.is_choosable()) {
                pending += 1;
            }
        }
        let held = holders
            .into_iter()
            .filter_map(|(digest, holders)| {
                Some(Held { catalogue: self.catalogues.get(&digest)?.clone(), holders })
            })
            .collect();
        self.snapshot.store(Arc::new(Snapshot { held, pending }));
        self.changes.send_modify(|version| *version += 1);
    }
}

/// Fetches the catalogue of this digest from whoever announces it, one after another.
async fn fetch_from_any(
    mesh: &Mesh,
    upstreams: &Upstreams,
    endpoints: &Endpoints,
    digest: Hash,
    deadline: Instant,
) -> Option<Catalogue> {
    for member in mesh.table().all() {
        let announces = member.record.catalogue.is_some_and(|summary| Hash(summary.digest) == digest);
        if !announces || member.standing.is_gone() {
            continue;
        }
        match fetch(mesh, upstreams, endpoints, &member, digest, deadline).await {
            Ok(catalogue) => return Some(catalogue),
            Err(error) => debug!(member = %member.id.short(), %error, "catalogue not fetched"),
        }
    }
    None
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("not what it announced: {0}")]
    Wrong(String),
}

async fn fetch(
    mesh: &Mesh,
    upstreams: &Upstreams,
    endpoints: &Endpoints,
    member: &Member,
    digest: Hash,
    deadline: Instant,
) -> Result<Catalogue, FetchError> {
    let at = endpoints.of(mesh, upstreams, member, deadline).await?;
    let answer = upstreams.fetch(at, &Ask::get("/local/catalog"), CATALOGUE_BYTES_MAX, deadline).await;
    let answer = answer.inspect_err(|_| endpoints.forget(member, at))?;
    if answer.status != StatusCode::OK {
        return Err(FetchError::Status(answer.status));
    }
    let parsed = tokio::task::spawn_blocking(move || Catalogue::parse(&answer.body)).await;
    let catalogue = parsed
        .map_err(|_| FetchError::Wrong("cannot be read".to_owned()))?
        .map_err(|error| FetchError::Wrong(error.to_string()))?;
    if catalogue.digest() == digest {
        Ok(catalogue)
    } else {
        Err(FetchError::Wrong("another digest".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::shelf::Shelf;

    fn id(number: u8) -> MemberId {
        MemberId([number; 32])
    }

    fn snapshot(holders: &[u8]) -> Snapshot {
        let catalogue = Arc::new(Shelf::builtin().catalogue().clone());
        Snapshot {
            held: vec![Held { catalogue, holders: holders.iter().copied().map(id).collect() }],
            pending: 0,
        }
    }

    #[test]
    fn a_figure_is_found_with_its_holders_and_an_unknown_one_is_not() {
        let snapshot = snapshot(&[1, 2]);
        let shares = snapshot.shares(&"giraffe".parse().unwrap());
        assert_eq!(shares.len(), 1);
        assert_eq!(shares[0].holders, [id(1), id(2)]);
        assert!(snapshot.shares(&"unicorn".parse().unwrap()).is_empty());
    }

    #[test]
    fn names_come_sorted_and_in_pages() {
        let snapshot = snapshot(&[1]);
        let all = snapshot.names(None, "", 100);
        assert_eq!(all.len(), 17);
        assert!(all.is_sorted());
        let mut paged = Vec::new();
        while let page = snapshot.names(paged.last(), "", 5)
            && !page.is_empty()
        {
            paged.extend(page);
        }
        assert_eq!(paged, all);
        assert_eq!(snapshot.names(None, "giraf", 5), ["giraffe".parse().unwrap()]);
    }

    #[test]
    fn what_more_members_hold_counts() {
        let one = Entry { name: "a".parse().unwrap(), share: Share::WHOLE, size: 1, hash: Hash([1; 32]) };
        let two = Entry { hash: Hash([2; 32]), ..one.clone() };
        let versions = BTreeMap::from([
            (one.hash, (one, BTreeSet::from([id(1)]))),
            (two.hash, (two.clone(), BTreeSet::from([id(2), id(3)]))),
        ]);
        let preferred = preferred(versions);
        assert_eq!(preferred.entry, two);
        assert_eq!(preferred.conflicting, [id(1)]);
    }

    #[test]
    fn a_mistyped_name_finds_the_figure() {
        assert_eq!(snapshot(&[1]).similar("girafe"), ["giraffe".parse().unwrap()]);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
