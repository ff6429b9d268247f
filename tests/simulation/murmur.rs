//! Beacons to all that say nothing new: a thousand members say a million of them to each other in a second.
//!
//! They are kept once for all, in order. A node takes in those that it has not had whenever something else
//! happens to it, each at the moment at which it came; so a table is in the processor's cache for many of them.
//! With ten beacons a second from each of those that a node watches, that is every few milliseconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use isle_mesh::member::{Epoch, Seq};
use isle_mesh::membership::Source;
use isle_mesh::verify::{Verified, Word};
use isle_mesh::wire::Message;

use crate::process::State;
use crate::world::World;

/// One of them.
struct Murmur {
    from: usize,
    at: Instant,
    source: Source,
    word: Verified<Word>,
    /// Who does not hear it is drawn from this.
    lots: u64,
}

/// Those of the last seconds.
#[derive(Default)]
pub struct Murmurs {
    kept: VecDeque<Murmur>,
    /// Number of the first that is kept.
    first: u64,
    /// What each node said last but for load, digest and number.
    said: Vec<Option<(Epoch, Seq, bool, bool)>>,
}

/// A node that stands still for longer has lost them.
const KEPT: Duration = Duration::from_secs(3);

impl Murmurs {
    /// The number that the next one will have.
    pub fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// Whether this word says no more than the last to all of the same node did.
    pub fn is_one(&mut self, node: usize, word: &Verified<Word>) -> bool {
        let Some(Message::Beacon(beacon)) = &word.message else { return false };
        let says = Some((word.header.stamp.epoch, beacon.record_seq, beacon.full, beacon.deaf));
        if node >= self.said.len() {
            self.said.resize(node + 1, None);
        }
        std::mem::replace(&mut self.said[node], says) == says
    }

    /// Keeps one that comes to all at that moment.
    pub fn say(&mut self, from: usize, at: Instant, source: Source, word: Verified<Word>, lots: u64) {
        let murmur = Murmur { from, at, source, word, lots };
        // Those said shortly before may come later.
        let behind = self.kept.iter().rev().take_while(|earlier| earlier.at > at).count();
        self.kept.insert(self.kept.len() - behind, murmur);
    }

    fn forget(&mut self, before: Instant) {
        while self.kept.front().is_some_and(|murmur| murmur.at < before) {
            self.kept.pop_front();
            self.first += 1;
        }
    }
}

impl World {
    /// Lets a node take in what has come to it.
    pub fn listen(&mut self, node: usize) {
        let process = &mut self.processes[node];
        let begin = process.heard.max(self.murmurs.first);
        if process.state != State::Running || begin == self.murmurs.end() {
            return;
        }
        let mut place = usize::try_from(begin - self.murmurs.first).expect("an index of what is kept");
        while let Some(murmur) = self.murmurs.kept.get(place).filter(|murmur| murmur.at <= self.now) {
            place += 1;
            if murmur.from == node {
                continue;
            }
            if self.network.misses(&mut self.random, murmur.at, murmur.lots, murmur.from, node) {
                continue;
            }
            process.traffic.received(true, murmur.word.bytes.len());
            self.measures.deliveries += 1;
            let _ = process.machine.handle_word(murmur.at, murmur.source, &murmur.word);
        }
        let end = self.murmurs.first + place as u64;
        if process.heard != end {
            process.heard = end;
            self.after_input(node);
        }
    }

    /// The same for all, so that what they know is what they can know now.
    pub fn all_listen(&mut self) {
        for node in 0..self.processes.len() {
            self.listen(node);
        }
        self.murmurs.forget(self.now.checked_sub(KEPT).unwrap_or(self.began));
    }
}
