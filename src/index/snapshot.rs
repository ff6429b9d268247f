//! The index at one moment.
//!
//! Names lead to places in catalogues by their keyed hash. The map is cut into shards that snapshots share: a change
//! copies the shards it touches and nothing else, so one figure more costs microseconds beside a million others.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use isle_mesh::member::MemberId;

use crate::figures::{Catalogue, Entry, FigureName, Hash};

/// Enough that a shard of a full index (1,000 names) is copied in some 20 µs; few enough to copy their list each time.
const SHARDS: usize = 1024;

/// An immutable index.
#[derive(Clone, Debug)]
pub struct Snapshot {
    hasher: RandomState,
    shards: Vec<Arc<Shard>>,
    /// Catalogues; a place that is free is used again.
    slots: Vec<Option<Slot>>,
    by_digest: HashMap<Hash, usize>,
    entries: usize,
    unread: usize,
}

/// By hash of a name; names that share one stand together and are told apart in their catalogues.
type Shard = HashMap<u64, Arc<[Place]>>;

/// Entries of one figure in one catalogue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    slot: u32,
    first: u32,
    count: u16,
}

#[derive(Clone, Debug)]
struct Slot {
    catalogue: Arc<Catalogue>,
    holders: Arc<[MemberId]>,
}

/// One share of a figure in one catalogue, with all members that announce this catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// What the body must be.
    pub entry: &'a Entry,
    /// Who holds it, gone ones included; sorted.
    pub holders: &'a [MemberId],
    /// Digest of the catalogue that says so.
    pub digest: Hash,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: vec![Arc::default(); SHARDS],
            slots: Vec::new(),
            by_digest: HashMap::new(),
            entries: 0,
            unread: 0,
        }
    }
}

impl Snapshot {
    /// Everything that is held under a name. O(catalogues that have it), whatever the size of the index.
    pub fn offers<'a>(&'a self, name: &'a FigureName) -> impl Iterator<Item = Offer<'a>> {
        let (shard, key) = self.key(name);
        let places = self.shards[shard].get(&key).map_or(&[][..], |places| places);
        places.iter().filter_map(|place| self.slots[place.slot as usize].as_ref().zip(Some(place))).flat_map(
            move |(slot, place)| {
                let first = place.first as usize;
                let entries = &slot.catalogue.entries()[first..first + usize::from(place.count)];
                entries.iter().filter(|entry| entry.name == *name).map(|entry| Offer {
                    entry,
                    holders: &slot.holders,
                    digest: slot.catalogue.digest(),
                })
            },
        )
    }

    /// All catalogues with their holders, in no particular order.
    pub fn catalogues(&self) -> impl Iterator<Item = (&Arc<Catalogue>, &Arc<[MemberId]>)> {
        self.slots.iter().flatten().map(|slot| (&slot.catalogue, &slot.holders))
    }

    /// Whether this catalogue is in the index.
    #[must_use]
    pub fn has(&self, digest: &Hash) -> bool {
        self.by_digest.contains_key(digest)
    }

    /// Entries of all catalogues, equal catalogues counted once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Names after `after` (exclusive) that contain `part`, sorted, at most `limit`, each once. Walks the catalogues from
    /// there: a search for what is rare looks at all names.
    #[must_use]
    pub fn names(&self, after: Option<&FigureName>, part: &str, limit: usize) -> Vec<FigureName> {
        let mut names: BTreeSet<&FigureName> = BTreeSet::new();
        for (catalogue, _) in self.catalogues() {
            let entries = catalogue.entries();
            let start = after.map_or(0, |after| entries.partition_point(|entry| entry.name <= *after));
            let figures = entries[start..].chunk_by(|a, b| a.name == b.name).map(|shares| &shares[0].name);
            names.extend(figures.filter(|name| name.as_str().contains(part)).take(limit));
            // What stands behind `limit` others is on another page.
            while names.len() > limit {
                names.pop_last();
            }
        }
        names.into_iter().cloned().collect()
    }

    /// Names close to `name`, for a person who mistyped it: at most three.
    #[must_use]
    pub fn similar(&self, name: &str) -> Vec<FigureName> {
        const LOOKED_AT_MAX: usize = 20_000;
        let mut close: BTreeSet<(usize, &FigureName)> = BTreeSet::new();
        for entry in self.catalogues().flat_map(|(catalogue, _)| catalogue.entries()).take(LOOKED_AT_MAX) {
            let distance = distance(name, entry.name.as_str());
            if distance <= 1 + name.len() / 4 {
                close.insert((distance, &entry.name));
            }
        }
        close.into_iter().take(3).map(|(_, name)| name.clone()).collect()
    }

    /// Whether a catalogue is announced that has not been read yet: what is not found may be in it.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.unread > 0
    }

    /// How many such catalogues there are.
    pub(super) fn set_unread(&mut self, unread: usize) {
        self.unread = unread;
    }

    pub(super) fn unread(&self) -> usize {
        self.unread
    }

    /// Adds a catalogue without holders; nothing if it is there. O(its figures), some 50 ms for 100,000.
    pub fn add(&mut self, catalogue: Arc<Catalogue>) {
        if self.has(&catalogue.digest()) {
            return;
        }
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let number = u32::try_from(slot).expect("fewer catalogues than members, of which there are 20,000");
        let mut changes: HashMap<usize, Vec<(u64, Place)>> = HashMap::new();
        for (first, count) in figures(&catalogue) {
            let (shard, key) = self.key(&catalogue.entries()[first].name);
            let first = u32::try_from(first).expect("at most 100,000 entries");
            changes.entry(shard).or_default().push((key, Place { slot: number, first, count }));
        }
        for (shard, added) in changes {
            let shard = Arc::make_mut(&mut self.shards[shard]);
            shard.reserve(added.len());
            for (key, place) in added {
                let places = shard.entry(key).or_insert_with(|| Arc::new([]));
                *places = places.iter().copied().chain([place]).collect();
            }
        }
        self.entries += catalogue.entries().len();
        self.by_digest.insert(catalogue.digest(), slot);
        self.slots[slot] = Some(Slot { catalogue, holders: Arc::new([]) });
    }

    /// Removes a catalogue; nothing if it is not there. O(its figures).
    pub fn remove(&mut self, digest: &Hash) {
        let Some(slot) = self.by_digest.remove(digest) else { return };
        let Some(Slot { catalogue, .. }) = self.slots[slot].take() else { return };
        self.entries -= catalogue.entries().len();
        for (first, _) in figures(&catalogue) {
            let (shard, key) = self.key(&catalogue.entries()[first].name);
            let shard = Arc::make_mut(&mut self.shards[shard]);
            let Some(places) = shard.get_mut(&key) else { continue };
            *places = places.iter().copied().filter(|place| place.slot as usize != slot).collect();
            if places.is_empty() {
                shard.remove(&key);
            }
        }
    }

    /// Says who holds a catalogue of the index.
    pub fn set_holders(&mut self, digest: &Hash, mut holders: Vec<MemberId>) {
        let slot = self.by_digest.get(digest).and_then(|slot| self.slots[*slot].as_mut());
        if let Some(slot) = slot {
            holders.sort_unstable();
            slot.holders = holders.into();
        }
    }

    fn key(&self, name: &FigureName) -> (usize, u64) {
        let key = self.hasher.hash_one(name);
        (usize::try_from(key % SHARDS as u64).expect("less than SHARDS"), key)
    }
}

/// Where each figure begins in a catalogue, and how many shares of it there are.
fn figures(catalogue: &Catalogue) -> impl Iterator<Item = (usize, u16)> {
    let mut first = 0;
    catalogue.entries().chunk_by(|a, b| a.name == b.name).map(move |shares| {
        let place = (first, u16::try_from(shares.len()).unwrap_or(u16::MAX));
        first += shares.len();
        place
    })
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

#[cfg(test)]
mod tests;
