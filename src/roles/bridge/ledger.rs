//! What the mesh tells, put into the journal that links read.

use island_bridge::journal::{Change, What};
use island_bridge::shared::SharedJournal;
use isle_mesh::mesh::{News, Outward};
use isle_mesh::outward;
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
        match news {
            News::Said { member, what, bytes, is_urgent, from } => {
                let what = match what {
                    outward::What::Own => What::Own,
                    outward::What::Down => What::Down,
                    outward::What::Refuted => What::Refuted,
                };
                // As large as the table; a verdict on somebody whose record was not told is no news to others.
                if let Err(error) = self.journal.record(Change { member, what, bytes, is_urgent }, from) {
                    debug!(member = %member.short(), %error, "not told to other islands");
                }
            }
            News::Withdrawn(member) => self.journal.withdraw(member),
            News::Forgotten(member) => self.journal.forget(member),
        }
    }
}
