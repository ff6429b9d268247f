//! Which member holds which figure: the catalogues of all members, put together.
//!
//! | module | is |
//! |---|---|
//! | [`snapshot`] | the index at one moment: immutable, made from the one before |
//! | [`plan`] | which version of each share counts, and who holds it |
//! | `follow` | the task that keeps the index current |
//!
//! A catalogue is named by its digest, which its member signed: equal ones are fetched once, and what was fetched is
//! checked against its name, so nothing that a single member does can spoil it for the others. Members that are gone keep
//! their figures for as long as the table lists them (10 minutes), so that a figure nobody can serve just now is told
//! apart from one that nobody knows.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub use self::follow::{IndexTask, index};
pub use self::plan::{ShareHolders, shares};
pub use self::snapshot::Snapshot;

mod follow;
pub mod plan;
pub mod snapshot;

/// Most entries of all catalogues together, some 200 MB. Required by DESIGN, "Caps".
const ENTRIES_MAX: usize = 1_000_000;

/// The index as everybody reads it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Index {
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: watch::Receiver<u64>,
}

impl Index {
    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Moves with every change of what is known, and of any member's standing. Mark it seen before reading the snapshot,
    /// and no change is missed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}
