//! The table as every task reads it: one writer, many readers. The only file that knows the concurrent map.

use std::sync::Arc;

use dashmap::DashMap;

use crate::member::{Member, MemberId};

/// Read side. Cheap to clone; every method returns copies, no guard leaves this file.
#[derive(Clone, Debug)]
pub struct SharedTable {
    members: Arc<DashMap<MemberId, Arc<Member>>>,
}

/// Write side: held by the driver alone.
#[derive(Debug)]
pub struct TableWriter {
    members: Arc<DashMap<MemberId, Arc<Member>>>,
}

/// An empty table, as its two sides.
#[must_use]
pub fn table() -> (TableWriter, SharedTable) {
    let members = Arc::new(DashMap::new());
    (TableWriter { members: members.clone() }, SharedTable { members })
}

impl TableWriter {
    /// Puts a member in place of what was known of it.
    pub fn put(&self, member: Arc<Member>) {
        self.members.insert(member.id, member);
    }

    /// Removes a member that is no longer listed.
    pub fn remove(&self, id: &MemberId) {
        self.members.remove(id);
    }
}

impl SharedTable {
    /// One member.
    #[must_use]
    pub fn get(&self, id: &MemberId) -> Option<Arc<Member>> {
        self.members.get(id).map(|found| found.value().clone())
    }

    /// All members, sorted by id. O(n log n): for people and rebuilds, not for requests.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Member>> {
        let mut all: Vec<_> = self.members.iter().map(|entry| entry.value().clone()).collect();
        all.sort_unstable_by_key(|member| member.id);
        all
    }

    /// How many are listed, this node included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}
