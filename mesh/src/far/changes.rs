//! In which order members changed, so that whoever has read up to somewhere reads only what came after.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::by_member::{ByMember, by_member};
use crate::member::MemberId;

/// Each member once, where it changed last. As large as the table.
#[derive(Debug)]
pub(super) struct Changes {
    instance: u64,
    head: u64,
    by_index: BTreeMap<u64, MemberId>,
    index_of: ByMember<u64>,
}

impl Changes {
    /// None yet. `instance` tells these from those before a restart; 0 stands for "none" at askers.
    pub(super) fn new(seed: u64, instance: u64) -> Self {
        Self { instance: instance.max(1), head: 0, by_index: BTreeMap::new(), index_of: by_member(seed) }
    }

    pub(super) fn instance(&self) -> u64 {
        self.instance
    }

    /// Index of the last change; 0 before the first.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    pub(super) fn note(&mut self, id: MemberId) {
        self.head += 1;
        if let Some(before) = self.index_of.insert(id, self.head) {
            self.by_index.remove(&before);
        }
        self.by_index.insert(self.head, id);
    }

    pub(super) fn remove(&mut self, id: &MemberId) {
        if let Some(index) = self.index_of.swap_remove(id) {
            self.by_index.remove(&index);
        }
    }

    /// All later than `index`, in order.
    pub(super) fn after(&self, index: u64) -> impl Iterator<Item = (u64, MemberId)> {
        self.by_index.range((Bound::Excluded(index), Bound::Unbounded)).map(|(index, id)| (*index, *id))
    }
}
