//! Whole tables: ours for others, theirs for us.
//!
//! Source: NETWORK.md, sections 7 and 8.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Membership;
use super::receive::Way;
use crate::member::{MemberId, Stamp};
use crate::transfer::{Transfer, TransferFloor, TransferWord, VerifiedTransfer};
use crate::wire::{Message, kind};

/// A word that another has heard within this is a sign of life.
const EVIDENCE_AGE_MAX: Duration = Duration::from_secs(2);

impl Membership {
    /// Digest of the table, this node included.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.table.digest().wrapping_add(self.record_digest)
    }

    /// The table as the members' own words, for [`transfer::encode`](crate::transfer::encode).
    #[must_use]
    pub fn export(&self, now: Instant) -> Transfer {
        let mut words = Vec::with_capacity(2 * self.table.len() + 1);
        if let Some((_, bytes)) = &self.record_said {
            words.push(TransferWord { bytes: bytes.clone(), age: Duration::ZERO });
        }
        for (id, entry) in self.table.iter() {
            let peer = self.peers.get(id);
            let heard = peer.and_then(|peer| peer.heard.or(peer.told)).unwrap_or(self.started);
            let mut push = |bytes: &Bytes, since: Instant| {
                words.push(TransferWord { bytes: bytes.clone(), age: now.saturating_duration_since(since) });
            };
            if let Some(said) = &entry.record {
                push(&said.bytes, heard);
            }
            if let Some(said) = &entry.pulse {
                push(&said.bytes, heard);
            }
            if let Some(said) = &entry.end {
                push(&said.bytes, peer.map_or(heard, |peer| peer.since));
            }
            for (bytes, at) in self.votes_in_force(id) {
                push(bytes, at);
            }
        }
        for bytes in self.routes_words() {
            words.push(TransferWord { bytes: bytes.clone(), age: Duration::ZERO });
        }
        let floors =
            self.table.floors(now).map(|(bytes, age)| TransferFloor { bytes: bytes.clone(), age }).collect();
        Transfer { words, floors }
    }

    /// Takes in another member's table.
    pub fn merge(&mut self, now: Instant, from: MemberId, transfer: &VerifiedTransfer) {
        let mut news = 0;
        let (mut votes, mut routes) = (Vec::new(), Vec::new());
        for (word, age) in &transfer.floors {
            if word.header.author != self.id() {
                self.table.merge_floor(word, *age, now);
            }
        }
        for (word, age) in &transfer.words {
            let id = word.header.author;
            if id == self.id() {
                let ours = Stamp { epoch: self.identity.epoch(), seq: self.seq };
                if word.header.stamp > ours {
                    self.outlive(now, word.header.stamp.epoch);
                }
                continue;
            }
            if self.is_foreigner(&id) && (self.is_foreign(&id) || !self.is_home_by_now(now, word)) {
                continue;
            }
            if let Some(Message::Routes(said)) = &word.message {
                routes.push((word, said));
                continue;
            }
            if let Some(Message::Announce(record)) = &word.message
                && self.check_island(&id, record).is_err()
            {
                continue;
            }
            if let Some(Message::Suspect(_)) = &word.message {
                votes.push(word);
                continue;
            }
            let refutes = *age < EVIDENCE_AGE_MAX && self.is_after_votes(now, &id, word.header.stamp, *age);
            if self.accept(now, word, Way::Told).is_ok() {
                news += 1;
                if refutes {
                    self.life_sign(now, id, word.header.stamp, false, now);
                }
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.told = peer.told.max(now.checked_sub(*age));
                }
                if let Some(since) = now.checked_sub(*age).filter(|_| word.header.kind == kind::FAREWELL) {
                    self.table.date_gone(&id, since);
                }
            }
        }
        // After the records that they are judged by.
        for word in votes {
            if let Some(Message::Suspect(vote)) = &word.message
                && self.hear_vote(now, None, word, vote).is_ok()
            {
                news += 1;
            }
        }
        for (word, said) in routes {
            news += usize::from(self.hear_routes(now, word, said).is_ok());
        }
        self.has_merged(now, from, news);
    }
}
