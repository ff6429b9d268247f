//! The journal as all links of a bridge read it.
//!
//! A lock, not a task of its own: each link's task keeps its own session and asks for the next frame when its stream has
//! room, so a link that is slow takes nobody's time, and the journal needs no queue for any of them. The lock is held
//! for one call that does not wait: microseconds, or a millisecond for the digest of twenty thousand members.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use isle_mesh::member::MemberId;
use isle_mesh::outward::News;
use tokio::sync::watch;

use crate::journal::{Change, Journal, JournalError};

/// A [`Journal`] that wakes its links when it changes. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct SharedJournal {
    journal: Arc<Mutex<Journal>>,
    head: Arc<watch::Sender<u64>>,
}

impl SharedJournal {
    /// Shares `journal`.
    #[must_use]
    pub fn new(journal: Journal) -> Self {
        let head = Arc::new(watch::Sender::new(journal.head()));
        Self { journal: Arc::new(Mutex::new(journal)), head }
    }

    /// As [`Journal::tell`]; links say what is new at once.
    ///
    /// # Errors
    /// As there.
    pub fn tell(&self, news: News) -> Result<(), JournalError> {
        let mut journal = self.lock();
        journal.tell(news)?;
        self.wake(&journal);
        Ok(())
    }

    /// As [`Journal::record`]; links say what is new at once.
    ///
    /// # Errors
    /// As there.
    pub fn record(&self, change: Change, from: Option<MemberId>) -> Result<Option<u64>, JournalError> {
        let mut journal = self.lock();
        let recorded = journal.record(change, from)?;
        self.wake(&journal);
        Ok(recorded)
    }

    /// As [`Journal::forget`].
    pub fn forget(&self, member: MemberId) {
        self.lock().forget(member);
    }

    /// As [`Journal::withdraw`]; links say it at once.
    pub fn withdraw(&self, member: MemberId) {
        let mut journal = self.lock();
        journal.withdraw(member);
        self.wake(&journal);
    }

    /// How many members it has words of.
    #[must_use]
    pub fn members(&self) -> usize {
        self.lock().members()
    }

    /// Reads it. `read` must be brief: the other links wait.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Journal) -> T) -> T {
        read(&self.lock())
    }

    /// Tells when there is something new.
    pub(crate) fn heads(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    fn wake(&self, journal: &Journal) {
        self.head.send_if_modified(|head| std::mem::replace(head, journal.head()) != *head);
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        // Nothing in there panics halfway; if it did, other links would still have to be told what is known.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
