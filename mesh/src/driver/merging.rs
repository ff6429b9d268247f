//! Words of other islands that wait to be taken in: a few at a time, so that sockets and deadlines get their turn.

use std::collections::VecDeque;
use std::vec;

use tokio::sync::oneshot;

use super::Driver;
use crate::far::{FarTransfer, FarWord};
use crate::member::MemberId;
use crate::mesh::HeardFar;

/// Words taken in at once: less than a millisecond, at 39 µs of wall clock a word in the development profile on a machine with
/// eight builds on two cores (`what_a_word_takes`).
const WORDS_PER_TURN: usize = 24;

/// Batches in the order in which they are taken in. Bounded by who gives them: a link gives one of each kind and waits,
/// and few bridges are asked at once.
#[derive(Default)]
pub(super) struct Merging(VecDeque<Batch>);

struct Batch {
    from: MemberId,
    words: vec::IntoIter<FarWord>,
    origin: Origin,
}

enum Origin {
    /// From a link, that is told when all is done.
    Link { withdrawn: Vec<MemberId>, is_urgent: bool, reply: oneshot::Sender<()> },
    /// From a bridge of our own island, by whose counting, how far; and how many were news.
    Bridge { instance: u64, through: u64, news: usize },
}

impl Merging {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a link has brought. Urgent words go before all that can wait.
    pub(super) fn add_heard(&mut self, heard: HeardFar, reply: oneshot::Sender<()>) {
        let HeardFar { from, withdrawn, words, is_urgent } = heard;
        let origin = Origin::Link { withdrawn, is_urgent, reply };
        let batch = Batch { from, words: words.into_iter(), origin };
        if is_urgent {
            // After those that are urgent, too.
            let place = self.0.iter().position(|other| !other.is_urgent()).unwrap_or(self.0.len());
            self.0.insert(place, batch);
        } else {
            self.0.push_back(batch);
        }
    }

    /// What was fetched from a bridge.
    pub(super) fn add_fetched(&mut self, from: MemberId, transfer: FarTransfer) {
        let FarTransfer { instance, through, words } = transfer;
        let origin = Origin::Bridge { instance, through, news: 0 };
        self.0.push_back(Batch { from, words: words.into_iter(), origin });
    }
}

impl Batch {
    fn is_urgent(&self) -> bool {
        matches!(self.origin, Origin::Link { is_urgent: true, .. })
    }
}

impl Driver {
    /// Takes in some of what waits.
    pub(super) fn merge_some(&mut self, now: std::time::Instant) {
        let Some(batch) = self.merging.0.front_mut() else { return };
        let from = batch.from;
        let some: Vec<FarWord> = batch.words.by_ref().take(WORDS_PER_TURN).collect();
        match &mut batch.origin {
            Origin::Link { withdrawn, is_urgent, .. } => {
                let withdrawn = std::mem::take(withdrawn);
                self.machine.hear_far(now, from, &withdrawn, &some, *is_urgent);
            }
            Origin::Bridge { news, .. } => *news += self.machine.merge_far_some(now, from, &some),
        }
        if batch.words.len() > 0 {
            return;
        }
        match self.merging.0.pop_front().map(|batch| batch.origin) {
            Some(Origin::Link { reply, .. }) => {
                // Whoever brought it is told when everything is done with it.
                self.carry_out();
                let _ = reply.send(());
            }
            Some(Origin::Bridge { instance, through, news }) => {
                self.machine.merge_far_done(now, from, (instance, through), news);
            }
            None => {}
        }
    }
}
