//! What the mesh tells, put into the journal that links read.

use island_bridge::shared::SharedJournal;
use isle_mesh::mesh::{News, Outward};
use tracing::debug;

/// Writes the journal.
#[derive(Debug)]
pub(super) struct Ledger {
    journal: SharedJournal,
}

impl Ledger {
    pub(super) fn new(journal: SharedJournal) -> Self {
        Self { journal }
    }
}

impl Outward for Ledger {
    fn tell(&self, news: News) {
        // As large as the table; a verdict on somebody whose record was not told is no news to others.
        if let Err(error) = self.journal.tell(news) {
            debug!(%error, "not told to other islands");
        }
    }
}
