//! What is said to all, kept once for all and in order, and heard by each node in batches.
//!
//! A thousand members say a million beacons to each other in a second. A node takes in those that it has not had whenever
//! something happens to it, each at the moment at which it came; so a table is in the processor's cache for many of
//! them. What says nothing new waits for that however long it takes: by a node's own beacons and timers that is every few
//! milliseconds. Anything else is heard by everybody within two milliseconds, as if that was how long a
//! process takes to get to its sockets.
//!
//! Beacons to a watcher alone wait likewise, as long as nobody accuses who says them.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use isle_mesh::member::{Epoch, MemberId, Seq};
use isle_mesh::membership::Source;
use isle_mesh::verify::Word;
use isle_mesh::wire::{Beacon, Message, kind};
use rand::RngExt;

use crate::network::{Heard, MOMENTS};
use crate::process::{Process, State};
use crate::world::{Due, World};

/// One word to all.
struct Murmur {
    from: usize,
    at: Instant,
    source: Source,
    word: Heard,
    /// Who does not hear it is drawn from this.
    lots: u64,
    /// Heard now by those alone who draw this; by all, if none.
    moment: Option<usize>,
}

impl Murmur {
    /// Whether it comes to this node at its moment, unless it is lost.
    fn is_heard_now_by(&self, node: usize) -> bool {
        self.from != node && self.moment.is_none_or(|moment| moment == moment_of(self.lots, node))
    }
}

/// A beacon to one, that may wait.
pub struct Letter {
    pub at: Instant,
    pub source: Source,
    pub word: Heard,
}

/// Those of the last seconds.
#[derive(Default)]
pub struct Murmurs {
    kept: VecDeque<Murmur>,
    /// Number of the first that is kept.
    first: u64,
    /// What each node said last but for load, digest and number.
    said: Vec<Option<(Epoch, Seq, bool, bool)>>,
    /// When everybody is to listen.
    rouses: BTreeSet<Instant>,
}

/// A node that stands still for longer has lost them.
const KEPT: Duration = Duration::from_secs(3);
/// Nobody is in doubt for longer without being accused again.
const DOUBTED_FOR: Duration = Duration::from_secs(6);
/// Fewer are not worth looking ahead for.
const EXPECTED_MIN: usize = 4;
/// News waits for no longer than this.
const ROUSE_EVERY: Duration = Duration::from_millis(2);

fn says(word: &Word, beacon: &Beacon) -> Option<(Epoch, Seq, bool, bool)> {
    Some((word.header.stamp.epoch, beacon.record_seq, beacon.full, beacon.deaf))
}

impl Murmurs {
    /// The number of the first that comes after this.
    pub fn after(&self, now: Instant) -> u64 {
        self.first + self.kept.partition_point(|murmur| murmur.at <= now) as u64
    }

    /// Whether this word says no more than the last to all of the same node did.
    fn is_one(&mut self, node: usize, word: &Word) -> bool {
        let Some(Message::Beacon(beacon)) = &word.message else { return false };
        if node >= self.said.len() {
            self.said.resize(node + 1, None);
        }
        let says = says(word, beacon);
        std::mem::replace(&mut self.said[node], says) == says
    }

    /// Whether a word to one does.
    fn is_nothing_new(&self, node: usize, word: &Word) -> bool {
        let Some(Message::Beacon(beacon)) = &word.message else { return false };
        self.said.get(node).is_some_and(|said| *said == says(word, beacon))
    }

    fn keep(&mut self, murmur: Murmur) {
        // Those said shortly before may come later.
        let behind = self.kept.iter().rev().take_while(|earlier| earlier.at > murmur.at).count();
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
    /// Says a word to all who hear it.
    pub fn murmur(&mut self, from: usize, source: Source, word: Heard) {
        let lots = self.random.random();
        if self.murmurs.is_one(from, &word) {
            let at = self.now + self.network.takes(&mut self.random);
            self.murmurs.keep(Murmur { from, at, source, word, lots, moment: None });
            return;
        }
        for moment in 0..MOMENTS {
            let at = self.now + self.network.takes(&mut self.random);
            let moment = Some(moment);
            self.murmurs.keep(Murmur { from, at, source, word: word.clone(), lots, moment });
            self.rouse_by(at);
        }
    }

    /// Everybody listens soon after that: at the next of the moments that all news waits for.
    fn rouse_by(&mut self, at: Instant) {
        let moments = (at - self.began).div_duration_f64(ROUSE_EVERY).floor() + 1.0;
        let rouse = self.began + ROUSE_EVERY.mul_f64(moments);
        if self.murmurs.rouses.insert(rouse) {
            self.at(rouse, Due::Rouse);
        }
    }

    pub fn rouse(&mut self) {
        self.murmurs.rouses.remove(&self.now);
        self.all_listen();
    }

    /// Notes whom this word accuses.
    pub fn note_accusation(&mut self, word: &Word) {
        if let Some(Message::Suspect(vote)) = &word.message {
            self.accused.insert(vote.target, self.now);
        }
    }

    fn is_accused_lately(&self, id: &MemberId) -> bool {
        self.accused.get(id).is_some_and(|at| self.now - *at < DOUBTED_FOR)
    }

    /// Leaves a word to one where it is found when that one next listens, if it may wait.
    pub fn leave_letter(&mut self, from: usize, to: usize, letter: Letter) -> Option<Letter> {
        let accused = self.is_accused_lately(&letter.word.header.author);
        if accused || !self.murmurs.is_nothing_new(from, &letter.word) || to >= self.processes.len() {
            return Some(letter);
        }
        let letters = &mut self.processes[to].letters;
        let behind = letters.iter().rev().take_while(|earlier| earlier.at > letter.at).count();
        letters.insert(letters.len() - behind, letter);
        None
    }

    /// Lets a node take in what has come to it.
    pub fn listen(&mut self, node: usize) {
        if self.hear(node) {
            self.after_input(node);
        }
    }

    /// The same without carrying out what comes of it. Returns whether anything had come.
    pub fn hear(&mut self, node: usize) -> bool {
        let process = &mut self.processes[node];
        if process.state != State::Running {
            return false;
        }
        let begin = process.heard.max(self.murmurs.first);
        let mut place = usize::try_from(begin - self.murmurs.first).expect("an index of what is kept");
        let mut heard = false;
        let due = self.murmurs.kept.range(place..).take_while(|murmur| murmur.at <= self.now);
        let due = due.filter(|murmur| murmur.is_heard_now_by(node));
        let letters = process.letters.iter().take_while(|letter| letter.at <= self.now);
        let due = due.map(|murmur| (&murmur.word, murmur.word.header.kind == kind::BEACON));
        let expected = due.chain(letters.map(|letter| (&letter.word, false)));
        if expected.clone().nth(EXPECTED_MIN - 1).is_some() {
            process.machine.expect(self.now, expected.map(|(word, waits)| (&word.header.author, waits)));
        }
        loop {
            let murmur = self.murmurs.kept.get(place).filter(|murmur| murmur.at <= self.now);
            let until = murmur.map_or(self.now, |murmur| murmur.at);
            while process.letters.front().is_some_and(|letter| letter.at <= until) {
                let Some(letter) = process.letters.pop_front() else { break };
                self.measures.deliveries += 1;
                heard = true;
                take_in(process, letter.at, letter.source, &letter.word);
            }
            let Some(murmur) = murmur else { break };
            place += 1;
            if !murmur.is_heard_now_by(node) {
                continue;
            }
            if self.network.misses(&mut self.random, murmur.at, murmur.lots, murmur.from, node) {
                continue;
            }
            self.measures.deliveries += 1;
            heard = true;
            take_in(process, murmur.at, murmur.source, &murmur.word);
        }
        process.heard = self.murmurs.first + place as u64;
        heard
    }

    /// The same for all, so that what they know is what they can know now.
    pub fn all_listen(&mut self) {
        for node in 0..self.processes.len() {
            self.listen(node);
        }
        self.murmurs.forget(self.now.checked_sub(KEPT).unwrap_or(self.began));
    }
}

/// At the moment it came, or at which the process got to it.
fn take_in(process: &mut Process, at: Instant, source: Source, word: &Heard) {
    process.traffic.received(word.header.kind, source.shared, word.bytes.len());
    let _ = process.machine.handle_word(at.max(process.resumed), source, word);
}

/// At which of the moments of a word a node hears it.
fn moment_of(lots: u64, node: usize) -> usize {
    (lots.rotate_left(17) as usize ^ (node.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32)) % MOMENTS
}
