//! What changed in the own table, in the order in which links read it.
//!
//! A change has an index, counted from 1. A link's reader says how far it has read; what lies behind that is what it
//! lacks. Of each member only the newest word is kept, with the verdict on it if there is one: a reader that is slow
//! reads less, never more, and the journal is as large as the table. Whoever read another journal, or one that has
//! forgotten too much since, compares digests instead: see `digest`.
//!
//! Which word is newer is the table's business: what is recorded here has advanced it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isle_mesh::member::MemberId;
use isle_mesh::outward::{self, News};

use crate::frame::{BATCH_BYTES_MAX, BATCH_WORDS_MAX, Changes, Cursor, WITHDRAWN_MAX};

mod digest;
#[cfg(test)]
mod tests;

pub(crate) use digest::Position;

/// Withdrawals that are remembered for readers; whoever has not read the oldest compares digests. Guessed: four
/// islands of a thousand members vanish within one outage of a link.
pub const WITHDRAWN_KEPT: usize = 4096;

/// Something that advanced the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Whom it is about, which need not be its author.
    pub member: MemberId,
    /// What it is.
    pub what: What,
    /// The whole datagram.
    pub bytes: Bytes,
    /// It must not wait behind others: farewells, verdicts, draining.
    pub is_urgent: bool,
}

/// What a word says of the member it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Its own newest word: its record, or its farewell. Ends the verdict on the one before.
    Own,
    /// Others have given it up.
    Down,
    /// It lives after all: a pulse that ends the verdict. To be recorded also when a link brings a verdict that one's own
    /// table knows to be void: others may still believe it.
    Refuted,
}

impl From<outward::What> for What {
    fn from(what: outward::What) -> Self {
        match what {
            outward::What::Own => Self::Own,
            outward::What::Down => Self::Down,
            outward::What::Refuted => Self::Refuted,
        }
    }
}

/// Why a change was not recorded. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// As many members as there may be; forget one first.
    #[error("the journal holds {members} members and takes no more")]
    Full {
        /// How many.
        members: usize,
    },
    /// A verdict on somebody whose own word was never recorded.
    #[error("a verdict on an unknown member")]
    Unknown,
}

/// The changes of one table. Holds at most two words a member and [`WITHDRAWN_KEPT`] withdrawals.
#[derive(Debug)]
pub struct Journal {
    instance: u64,
    members_max: usize,
    members: usize,
    head: u64,
    entries: BTreeMap<Key, Entry>,
    /// Changes that can wait, by index.
    waiting: BTreeMap<u64, Key>,
    /// Changes that cannot, by index.
    urgent: BTreeMap<u64, Key>,
    /// Ascending by index.
    withdrawn: VecDeque<(u64, MemberId)>,
    /// A withdrawal up to here has been dropped: earlier readers may have missed it.
    oldest: u64,
    /// Members taken out that others may still have.
    losses: u64,
}

/// Member first, so that a range of members is a range of keys.
pub(crate) type Key = (MemberId, Part);

/// Of each member there is at most one word of each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Part {
    Own,
    Verdict,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) index: u64,
    pub(crate) what: What,
    pub(crate) bytes: Bytes,
    /// Of the bytes.
    pub(crate) hash: u64,
    /// What it counts in digests: by meaning, where equal verdicts may have different bytes.
    pub(crate) meaning: u64,
    /// The bridge that told us, if one did: it need not be told.
    pub(crate) from: Option<MemberId>,
    pub(crate) is_urgent: bool,
    /// Of a member's own word: since when the member is gone, if it is.
    gone: Option<Instant>,
}

impl Journal {
    /// An empty one. `instance` is random: it tells this journal's indices from those of one before a restart.
    /// `members_max` is at least that of the table.
    #[must_use]
    pub fn new(instance: u64, members_max: usize) -> Self {
        Self {
            // 0 stands for "none" in a cursor.
            instance: instance.max(1),
            members_max,
            members: 0,
            head: 0,
            entries: BTreeMap::new(),
            waiting: BTreeMap::new(),
            urgent: BTreeMap::new(),
            withdrawn: VecDeque::new(),
            oldest: 0,
            losses: 0,
        }
    }

    /// Which journal this is; never 0.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// Index of the last change; 0 before the first.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// How often a member was taken out whom others may still have. What was read of another journal before the last time
    /// may be lacking now: see [`Bookmark`](crate::session::Bookmark).
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// How many members it has words of.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members
    }

    /// Takes what the mesh tells: the table says so already.
    ///
    /// # Errors
    /// As for [`record`](Self::record).
    pub fn tell(&mut self, news: News) -> Result<(), JournalError> {
        match news {
            News::Said { member, what, bytes, is_urgent, from, gone } => {
                self.record(Change { member, what: what.into(), bytes, is_urgent }, from)?;
                self.date(&member, gone);
                Ok(())
            }
            News::Withdrawn(member) => {
                self.withdraw(member);
                Ok(())
            }
            News::Forgotten(member) => {
                self.forget(member);
                Ok(())
            }
        }
    }

    /// Records what advanced the table; `from` is the key of the bridge that brought it, if one did. Gives its index,
    /// or `None` when it says nothing new to anybody. O(log n).
    ///
    /// # Errors
    /// `Full` or `Unknown`.
    pub fn record(&mut self, change: Change, from: Option<MemberId>) -> Result<Option<u64>, JournalError> {
        let Change { member, what, bytes, is_urgent } = change;
        let hash = hash_of(&bytes);
        let own = self.entries.get(&(member, Part::Own)).map(|entry| (entry.hash, entry.meaning));
        let verdict = self.entries.get(&(member, Part::Verdict)).map(|entry| (entry.what, entry.hash));
        let (part, meaning) = match (what, own) {
            (What::Own, Some((known, _))) if known == hash => return Ok(None),
            (What::Own, None) if self.members == self.members_max => {
                return Err(JournalError::Full { members: self.members });
            }
            (What::Own, _) => {
                self.remove((member, Part::Verdict));
                (Part::Own, hash)
            }
            (_, None) => return Err(JournalError::Unknown),
            // One with other votes means the same in digests, and is told to those who read on: it may convince more.
            (What::Down, Some(_)) if verdict == Some((What::Down, hash)) => return Ok(None),
            (What::Down, Some((_, meaning))) => (Part::Verdict, hash_of(&meaning.to_be_bytes())),
            (What::Refuted, Some(_)) if verdict == Some((What::Refuted, hash)) => return Ok(None),
            (What::Refuted, Some(_)) => (Part::Verdict, 0),
        };
        let key = (member, part);
        self.remove(key);
        self.head += 1;
        let index = self.head;
        if is_urgent { &mut self.urgent } else { &mut self.waiting }.insert(index, key);
        self.members += usize::from(part == Part::Own);
        self.entries.insert(key, Entry { index, what, bytes, hash, meaning, from, is_urgent, gone: None });
        Ok(Some(index))
    }

    /// Since when a member is gone, or that it is not.
    fn date(&mut self, member: &MemberId, gone: Option<Instant>) {
        if let Some(entry) = self.entries.get_mut(&(*member, Part::Own)) {
            entry.gone = gone;
        }
    }

    /// For how long a member has been gone, as far as we were told, and if that is worth saying: a second at least.
    pub(crate) fn gone_for(&self, member: &MemberId, now: Instant) -> Option<Duration> {
        let since = self.entries.get(&(*member, Part::Own))?.gone?;
        Some(now.saturating_duration_since(since)).filter(|age| *age >= Duration::from_secs(1))
    }

    /// Takes a member out because its time in the table is over. Readers are not told: their clocks run, too.
    pub fn forget(&mut self, member: MemberId) {
        self.remove((member, Part::Own));
        self.remove((member, Part::Verdict));
    }

    /// Takes a member out and tells readers that it can be reached through us no more.
    pub fn withdraw(&mut self, member: MemberId) {
        self.losses += 1;
        if !self.entries.contains_key(&(member, Part::Own)) {
            return;
        }
        self.forget(member);
        self.head += 1;
        self.withdrawn.push_back((self.head, member));
        if self.withdrawn.len() > WITHDRAWN_KEPT {
            self.oldest = self.withdrawn.pop_front().map_or(self.oldest, |(index, _)| index);
        }
    }

    /// Whether changes alone bring a reader that stands there up to date, and are the cheapest way: one that has read
    /// nothing yet may know much of it from elsewhere.
    #[must_use]
    pub fn knows(&self, cursor: Cursor) -> bool {
        cursor.instance == self.instance
            && (self.oldest.max(1)..=self.head).contains(&cursor.index)
            && cursor.urgent <= self.head
    }

    /// The next batch after `index` for a reader that knows those already that `is_known` names. Urgent words are
    /// not in it, so nobody is gone by what is. `through` says how far it goes, also when there is nothing in it.
    pub(crate) fn batch(&self, index: u64, is_known: impl Fn(&Entry) -> bool) -> Changes {
        let mut changes = Changes { through: self.head, ..Changes::default() };
        let mut bytes = 0;
        let later = (Bound::Excluded(index), Bound::Unbounded);
        let mut words = self.waiting.range(later).map(|(index, key)| (*index, &self.entries[key])).peekable();
        let first = self.withdrawn.partition_point(|(withdrawn, _)| *withdrawn <= index);
        let mut withdrawn = self.withdrawn.range(first..).peekable();
        let mut read = index;
        loop {
            let word_at = words.peek().map_or(u64::MAX, |(index, _)| *index);
            match withdrawn.next_if(|(index, _)| *index < word_at) {
                Some(_) if changes.withdrawn.len() == WITHDRAWN_MAX => break,
                Some((index, member)) => {
                    changes.withdrawn.push(*member);
                    read = *index;
                    continue;
                }
                None => {}
            }
            let Some((index, entry)) = words.next() else { return changes };
            if !is_known(entry) {
                bytes += entry.bytes.len();
                if changes.words.len() == BATCH_WORDS_MAX || bytes > BATCH_BYTES_MAX {
                    break;
                }
                changes.words.push(entry.bytes.clone());
            }
            read = index;
        }
        changes.through = read;
        changes
    }

    /// The first urgent change after `index`, whom it is about, and that member's own word if the change is a verdict on it.
    pub(crate) fn urgent_after(&self, index: u64) -> Option<(&MemberId, &Entry, Option<&Entry>)> {
        let later = (Bound::Excluded(index), Bound::Unbounded);
        let key = self.urgent.range(later).next().map(|(_, key)| key)?;
        let judged = (key.1 == Part::Verdict).then(|| &self.entries[&(key.0, Part::Own)]);
        Some((&key.0, &self.entries[key], judged))
    }

    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.entries.remove(&key) {
            if entry.is_urgent { &mut self.urgent } else { &mut self.waiting }.remove(&entry.index);
            self.members -= usize::from(key.1 == Part::Own);
        }
    }
}

/// The first eight bytes of BLAKE3.
pub(crate) fn hash_of(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    hash.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}
