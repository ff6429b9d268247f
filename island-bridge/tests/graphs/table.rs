//! An abstract table: of each member the newest own word and the verdict on it. Merging is a join, as in a real one.

use std::collections::BTreeMap;

use bytes::Bytes;
use island_bridge::journal::{Change, What};
use isle_mesh::member::MemberId;

/// A word as these simulations have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Word {
    pub(crate) kind: Kind,
    pub(crate) member: MemberId,
    pub(crate) epoch: u32,
    pub(crate) seq: u64,
    /// Which verdict on that word it is; odd ones say "down".
    pub(crate) verdict: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    Record,
    Draining,
    Farewell,
    Verdict,
}

/// What is known of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    own: Word,
    verdict: Option<Word>,
}

pub(crate) type Table = BTreeMap<MemberId, Known>;

/// What two tables are to agree on: the newest own word, and whether the member is down.
pub(crate) fn view(table: &Table) -> BTreeMap<MemberId, (u32, u64, bool, bool)> {
    let of =
        |known: &Known| (known.own.epoch, known.own.seq, known.own.kind == Kind::Farewell, known.is_down());
    table.iter().map(|(member, known)| (*member, of(known))).collect()
}

impl Word {
    pub(crate) fn bytes(&self) -> Bytes {
        let mut bytes = vec![self.kind as u8];
        bytes.extend_from_slice(&self.member.0);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.verdict.to_be_bytes());
        // As long as words are.
        bytes.resize(300, 0);
        bytes.into()
    }

    pub(crate) fn of(bytes: &[u8]) -> Self {
        let kinds = [Kind::Record, Kind::Draining, Kind::Farewell, Kind::Verdict];
        Self {
            kind: kinds[usize::from(bytes[0])],
            member: MemberId(bytes[1..33].try_into().expect("so many bytes")),
            epoch: u32::from_be_bytes(bytes[33..37].try_into().expect("so many bytes")),
            seq: u64::from_be_bytes(bytes[37..45].try_into().expect("so many bytes")),
            verdict: u32::from_be_bytes(bytes[45..49].try_into().expect("so many bytes")),
        }
    }

    pub(crate) fn change(&self) -> Change {
        let what = match self.kind {
            Kind::Verdict if self.verdict % 2 == 1 => What::Down,
            Kind::Verdict => What::Refuted,
            _ => What::Own,
        };
        Change { member: self.member, what, bytes: self.bytes(), is_urgent: self.kind != Kind::Record }
    }
}

impl Known {
    pub(crate) fn view(&self) -> (u32, u64, bool, bool) {
        (self.own.epoch, self.own.seq, self.has_left(), self.is_down())
    }

    pub(crate) fn is_down(&self) -> bool {
        self.verdict.is_some_and(|verdict| verdict.verdict % 2 == 1)
    }

    /// The words that say all this, the own one first.
    pub(crate) fn words(&self) -> impl Iterator<Item = Word> {
        std::iter::once(self.own).chain(self.verdict)
    }

    /// The word that the member would say next.
    pub(crate) fn next(&self, kind: Kind) -> Word {
        let last = self.own;
        let (epoch, seq, verdict) = match kind {
            Kind::Verdict => (last.epoch, last.seq, self.verdict.map_or(0, |verdict| verdict.verdict) + 1),
            _ if last.kind == Kind::Farewell => (last.epoch + 1, 1, 0),
            _ => (last.epoch, last.seq + 1, 0),
        };
        Word { kind, member: last.member, epoch, seq, verdict }
    }

    pub(crate) fn has_left(&self) -> bool {
        self.own.kind == Kind::Farewell
    }
}

/// Whether `word` advanced the table.
pub(crate) fn merge(table: &mut Table, word: Word) -> bool {
    let rank = |word: &Word| (word.epoch, word.kind == Kind::Farewell, word.seq);
    match table.get_mut(&word.member) {
        None if word.kind == Kind::Verdict => false,
        None => {
            table.insert(word.member, Known { own: word, verdict: None });
            true
        }
        Some(known) if word.kind == Kind::Verdict => {
            let is_on_this = (known.own.epoch, known.own.seq) == (word.epoch, word.seq);
            let is_newer = known.verdict.is_none_or(|verdict| word.verdict > verdict.verdict);
            if is_on_this && is_newer && !known.has_left() {
                known.verdict = Some(word);
                return true;
            }
            false
        }
        Some(known) if rank(&word) > rank(&known.own) => {
            *known = Known { own: word, verdict: None };
            true
        }
        Some(_) => false,
    }
}
