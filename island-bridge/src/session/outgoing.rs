//! Our journal, as the other side reads it: one batch at a time, each acknowledged before the next.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use isle_mesh::member::MemberId;

use super::values::Breach;
use crate::frame::{Changes, Cursor, Digest, DigestRequest, Frame};
use crate::journal::{Entry, Journal, Position, hash_of};

/// The other side hears so rarely how far it has read of what does not concern it: it only matters if the link breaks.
const ADVANCE_INTERVAL: Duration = Duration::from_secs(1);

/// Words of the other side that are remembered, so as not to send them back when they come over another link, too.
/// What is dropped crosses once more.
const HEARD_MAX: usize = 4096;

/// From this version of the protocol on it is said for how long members have been gone.
const AGES_SINCE: u8 = 2;

#[derive(Debug)]
pub(super) struct Outgoing {
    stage: Stage,
    /// The batch that is not acknowledged yet.
    in_flight: Option<u64>,
    /// All that can wait up to here was sent or need not be.
    sent: u64,
    /// How far the other side knows that it has read.
    told: u64,
    /// How far it has said that it has.
    read: u64,
    /// When it is to hear more, if it lags behind.
    advance_at: Option<Instant>,
    advance_due: bool,
    /// All urgent changes up to here were sent or need not be.
    urgent: u64,
    /// Whether it understands for how long members have been gone.
    tells_ages: bool,
    known: Known,
}

#[derive(Debug)]
enum Stage {
    /// It has not said how far it has read.
    Opening,
    Opened(Cursor),
    /// It has our digest, and is to say what it lacks.
    Compared {
        bits: u8,
        index: u64,
    },
    Answering {
        bits: u8,
        index: u64,
        request: DigestRequest,
        at: Position,
    },
    /// It reads change after change.
    Streaming,
}

impl Outgoing {
    pub(super) fn new(peer: MemberId) -> Self {
        Self {
            stage: Stage::Opening,
            in_flight: None,
            sent: 0,
            told: 0,
            read: 0,
            advance_at: None,
            advance_due: false,
            urgent: 0,
            tells_ages: false,
            known: Known { peer, since: 0, heard: Heard::default() },
        }
    }

    /// This version of the protocol is spoken.
    pub(super) fn speaks(&mut self, protocol: u8) {
        self.tells_ages = protocol >= AGES_SINCE;
    }

    /// The other side has this word.
    pub(super) fn heard(&mut self, word: &[u8]) {
        self.known.heard.insert(hash_of(word));
    }

    pub(super) fn handle_cursor(&mut self, cursor: Cursor) -> Result<(), Breach> {
        match self.stage {
            Stage::Opening => self.stage = Stage::Opened(cursor),
            // It has lost something that it had read, and starts over.
            Stage::Streaming if cursor == Cursor::default() => self.stage = Stage::Opened(cursor),
            _ => return Err(Breach::OutOfTurn("a cursor")),
        }
        Ok(())
    }

    pub(super) fn handle_ack(&mut self, through: u64) -> Result<(), Breach> {
        match self.in_flight.take() {
            Some(in_flight) if in_flight == through => {
                self.read = self.read.max(through);
                Ok(())
            }
            Some(_) => Err(Breach::Index),
            None => Err(Breach::OutOfTurn("an acknowledgement")),
        }
    }

    pub(super) fn handle_request(&mut self, request: DigestRequest) -> Result<(), Breach> {
        let (Stage::Compared { bits, index }, None) = (&self.stage, self.in_flight) else {
            return Err(Breach::OutOfTurn("a request"));
        };
        let (bits, index) = (*bits, *index);
        if request.wanted.last().is_some_and(|last| u32::from(last.bucket) >= 1 << bits) {
            return Err(Breach::Bucket);
        }
        self.stage = match (request.wanted.is_empty(), request.more) {
            (true, true) => return Err(Breach::OutOfTurn("an empty request")),
            (true, false) => self.stream_from(index),
            (false, _) => Stage::Answering { bits, index, request, at: Position::default() },
        };
        Ok(())
    }

    /// The next frame for the table's stream.
    pub(super) fn poll_table(&mut self, now: Instant, journal: &Journal) -> Option<Frame> {
        if let Some(digest) = self.open(journal) {
            return Some(Frame::Digest(digest));
        }
        if self.in_flight.is_some() {
            return None;
        }
        let changes = match &mut self.stage {
            Stage::Answering { .. } => self.answer(now, journal),
            Stage::Streaming => self.next_batch(now, journal)?,
            _ => return None,
        };
        self.in_flight = Some(changes.through);
        Some(Frame::Changes(changes))
    }

    /// The next urgent word.
    pub(super) fn poll_urgent(&mut self, now: Instant, journal: &Journal) -> Option<Frame> {
        if matches!(self.stage, Stage::Opening | Stage::Opened(_)) {
            return None;
        }
        while let Some((member, entry, judged)) = journal.urgent_after(self.urgent) {
            self.urgent = entry.index;
            if self.known.contains(entry) {
                continue;
            }
            let mut words = Vec::new();
            if let Some(judged) = judged.filter(|judged| self.may_lack(judged)) {
                // It follows in a batch all the same: should the link break now, only that is sure to be sent again.
                words.push(judged.bytes.clone());
            }
            words.push(entry.bytes.clone());
            let gone = journal.gone_for(member, now).filter(|_| self.tells_ages);
            let gone = gone.map(|age| (*member, age)).into_iter().collect();
            return Some(Frame::Urgent { index: entry.index, words, gone });
        }
        None
    }

    /// When the other side is to hear how far it has read.
    pub(super) fn advance_at(&self) -> Option<Instant> {
        self.advance_at
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.advance_due |= self.advance_at.take_if(|at| *at <= now).is_some();
    }

    /// Whether a word may not have come to the other side before what is urgent now: one that can wait, or any while
    /// digests are compared.
    fn may_lack(&self, entry: &Entry) -> bool {
        let can_wait = !entry.is_urgent || !matches!(self.stage, Stage::Streaming);
        can_wait && entry.index > self.read && !self.known.contains(entry)
    }

    /// Looks where the other side stands: there, or a digest is needed first.
    fn open(&mut self, journal: &Journal) -> Option<Digest> {
        let Stage::Opened(cursor) = self.stage else { return None };
        if journal.knows(cursor) {
            (self.urgent, self.read) = (cursor.urgent, cursor.index);
            self.stage = self.stream_from(cursor.index);
            return None;
        }
        let (bits, index) = (journal.bucket_bits(), journal.head());
        self.urgent = index;
        (self.known.since, self.known.heard) = (index, Heard::default());
        self.stage = Stage::Compared { bits, index };
        Some(Digest { index, buckets: journal.buckets(bits) })
    }

    fn stream_from(&mut self, index: u64) -> Stage {
        (self.sent, self.told) = (index, index);
        Stage::Streaming
    }

    fn answer(&mut self, now: Instant, journal: &Journal) -> Changes {
        let Stage::Answering { bits, index, request, at } = &mut self.stage else {
            return Changes::default();
        };
        let (bits, index) = (*bits, *index);
        let answer = journal.answer(now, request, bits, index, *at);
        let gone = if self.tells_ages { answer.gone } else { Vec::new() };
        let mut changes = Changes { through: 0, withdrawn: Vec::new(), words: answer.words, gone };
        if let Some(next) = answer.next {
            *at = next;
            return changes;
        }
        changes.through = index;
        self.stage = if request.more { Stage::Compared { bits, index } } else { self.stream_from(index) };
        changes
    }

    fn next_batch(&mut self, now: Instant, journal: &Journal) -> Option<Changes> {
        let changes = journal.batch(self.sent, |entry| self.known.contains(entry));
        self.sent = changes.through;
        if changes.words.is_empty() && changes.withdrawn.is_empty() {
            if self.sent == self.told {
                return None;
            }
            if !self.advance_due {
                self.advance_at.get_or_insert(now + ADVANCE_INTERVAL);
                return None;
            }
        }
        (self.advance_at, self.advance_due) = (None, false);
        self.told = self.sent;
        Some(changes)
    }
}

/// What the other side has told us, and need not be told.
#[derive(Debug)]
struct Known {
    peer: MemberId,
    /// What it told us before this: whoever compares digests may have lost it, as one that has started anew.
    since: u64,
    /// Since then.
    heard: Heard,
}

impl Known {
    fn contains(&self, entry: &Entry) -> bool {
        entry.from == Some(self.peer) && entry.index > self.since || self.heard.contains(entry.hash)
    }
}

/// Hashes of words, the last [`HEARD_MAX`] of them.
#[derive(Debug, Default)]
struct Heard {
    known: BTreeSet<u64>,
    order: VecDeque<u64>,
}

impl Heard {
    fn insert(&mut self, hash: u64) {
        if !self.known.insert(hash) {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > HEARD_MAX {
            let oldest = self.order.pop_front().expect("it was just filled");
            self.known.remove(&oldest);
        }
    }

    fn contains(&self, hash: u64) -> bool {
        self.known.contains(&hash)
    }
}
