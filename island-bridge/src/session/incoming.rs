//! The other side's journal, as we read it: where we stand, what we lack, when we want more.

use super::values::{Bookmark, Breach};
use crate::frame::{Changes, Cursor, Digest, DigestRequest, Frame};
use crate::journal::Journal;

#[derive(Debug)]
pub(super) struct Incoming {
    stage: Stage,
    /// Where the reading stands; good for another session once it streams.
    cursor: Cursor,
    /// What our own journal had lost when all that lies before was read.
    losses: u64,
    /// All is to be compared anew, if anything was lost since.
    anew_due: bool,
    /// The batch that is being merged.
    merging: Option<u64>,
    /// The urgent word that is being merged.
    merging_urgent: Option<u64>,
    ack_due: Option<u64>,
}

#[derive(Debug)]
enum Stage {
    /// We are to say how far we have read.
    CursorDue,
    /// Changes follow if it knows our cursor, else a digest.
    Opening,
    /// A digest follows, after what is on its way.
    Reopening,
    /// What lies behind this digest from `bucket` on is to be asked for.
    Comparing {
        digest: Digest,
        bucket: usize,
    },
    /// The answer is coming; afterwards the digest goes on at `next`, if it does.
    Asked {
        digest: Digest,
        next: Option<usize>,
    },
    Streaming,
}

impl Incoming {
    /// `bookmark` is where an earlier session stopped.
    pub(super) fn new(bookmark: Option<Bookmark>) -> Self {
        Self {
            stage: Stage::CursorDue,
            cursor: bookmark.map(|bookmark| bookmark.cursor).unwrap_or_default(),
            losses: bookmark.map(|bookmark| bookmark.losses).unwrap_or_default(),
            anew_due: false,
            merging: None,
            merging_urgent: None,
            ack_due: None,
        }
    }

    /// The journal that is read counts as `instance`; another one's cursor means nothing there.
    pub(super) fn of_instance(&mut self, instance: u64) {
        if self.cursor.instance != instance {
            self.cursor = Cursor { instance, ..Cursor::default() };
        }
    }

    /// Where a later session may go on; `None` while a first reading is not finished.
    pub(super) fn bookmark(&self) -> Option<Bookmark> {
        let is_known = matches!(self.stage, Stage::Streaming | Stage::Opening | Stage::CursorDue);
        let bookmark = Bookmark { cursor: self.cursor, losses: self.losses };
        (is_known && self.cursor.index > 0).then_some(bookmark)
    }

    /// Compares all once more, if our own table has lost something since it was read.
    pub(super) fn read_anew(&mut self) {
        self.anew_due = true;
    }

    pub(super) fn is_merging(&self) -> bool {
        self.merging.is_some()
    }

    pub(super) fn is_merging_urgent(&self) -> bool {
        self.merging_urgent.is_some()
    }

    pub(super) fn handle_digest(&mut self, digest: Digest) -> Result<(), Breach> {
        let (Stage::Opening | Stage::Reopening) = self.stage else {
            return Err(Breach::OutOfTurn("a digest"));
        };
        // What was urgent stays read: such words may have overtaken the digest.
        self.cursor.index = 0;
        self.stage = Stage::Comparing { digest, bucket: 0 };
        Ok(())
    }

    /// Takes note of a batch; it counts once [`merged`](Self::merged).
    pub(super) fn handle_changes(&mut self, changes: &Changes) -> Result<(), Breach> {
        if self.merging.is_some() || self.ack_due.is_some() {
            return Err(Breach::OutOfTurn("a batch"));
        }
        let follows = match &self.stage {
            Stage::Opening | Stage::Reopening | Stage::Streaming => changes.through > self.cursor.index,
            Stage::Asked { digest, .. } => [0, digest.index].contains(&changes.through),
            Stage::CursorDue | Stage::Comparing { .. } => return Err(Breach::OutOfTurn("a batch")),
        };
        if !follows {
            return Err(Breach::Index);
        }
        if matches!(self.stage, Stage::Opening) {
            self.stage = Stage::Streaming;
        }
        self.merging = Some(changes.through);
        Ok(())
    }

    pub(super) fn handle_urgent(&mut self, index: u64) -> Result<(), Breach> {
        if self.merging_urgent.is_some() {
            return Err(Breach::OutOfTurn("an urgent word"));
        }
        if index <= self.cursor.urgent {
            return Err(Breach::Index);
        }
        self.merging_urgent = Some(index);
        Ok(())
    }

    pub(super) fn merged(&mut self) {
        let Some(through) = self.merging.take() else { return };
        self.ack_due = Some(through);
        match &mut self.stage {
            Stage::Asked { .. } if through == 0 => {}
            Stage::Asked { digest, next } => {
                let digest = std::mem::replace(digest, Digest { index: 0, buckets: Vec::new() });
                match *next {
                    Some(bucket) => self.stage = Stage::Comparing { digest, bucket },
                    None => self.read_through(digest.index),
                }
            }
            _ => self.cursor.index = through,
        }
    }

    pub(super) fn merged_urgent(&mut self) {
        if let Some(index) = self.merging_urgent.take() {
            self.cursor.urgent = index;
        }
    }

    /// The next frame for the table's stream.
    pub(super) fn poll(&mut self, journal: &Journal) -> Option<Frame> {
        if let Some(through) = self.ack_due.take() {
            return Some(Frame::Ack { through });
        }
        match &mut self.stage {
            Stage::CursorDue => {
                self.stage = Stage::Opening;
                if std::mem::replace(&mut self.losses, journal.losses()) != journal.losses() {
                    self.cursor = Cursor { instance: self.cursor.instance, ..Cursor::default() };
                }
                Some(Frame::Cursor(self.cursor))
            }
            Stage::Streaming if self.anew_due && self.merging.is_none() => {
                self.anew_due = false;
                if self.losses == journal.losses() {
                    return None;
                }
                self.losses = journal.losses();
                self.stage = Stage::Reopening;
                Some(Frame::Cursor(Cursor::default()))
            }
            // What was on its way is acknowledged first.
            Stage::Comparing { digest, bucket } if self.merging.is_none() => {
                let (request, next) = journal.request(&digest.buckets, *bucket);
                let digest = std::mem::replace(digest, Digest { index: 0, buckets: Vec::new() });
                if request.wanted.is_empty() {
                    self.read_through(digest.index);
                } else {
                    self.stage = Stage::Asked { digest, next };
                }
                Some(Frame::DigestRequest(DigestRequest { more: next.is_some(), ..request }))
            }
            _ => None,
        }
    }

    fn read_through(&mut self, index: u64) {
        self.cursor.index = index;
        self.cursor.urgent = self.cursor.urgent.max(index);
        self.stage = Stage::Streaming;
    }
}
