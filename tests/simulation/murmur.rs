//! What is said to all, kept once for all and in order, and heard by each node in batches.
//!
//! A thousand members say a million beacons to each other in a second. A node takes in those that it has not had whenever
//! something happens to it, each at the moment at which it came; so a table is in the processor's cache for many of
//! them. What says nothing new waits for that however long it takes: by a node's own beacons and timers that is every few
//! milliseconds, and what the machine would only let wait it is not told of until something could depend on it (see `ears`).
//! Anything else is heard by everybody within two milliseconds, as if that was how long a process takes to get to its sockets.
//!
//! Beacons to a watcher alone wait likewise, as long as nobody accuses who says them.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use isle_mesh::member::{Epoch, MemberId, Seq};
use isle_mesh::membership::Source;
use isle_mesh::verify::Word;
use isle_mesh::wire::{Beacon, Message, kind};
use rand::RngExt;

use crate::ears::Speakers;
use crate::network::{Heard, MOMENTS};
use crate::process::{Process, State};
use crate::world::{Due, World};

/// One word to all.
#[derive(Clone)]
struct Murmur {
    from: usize,
    at: Instant,
    source: Source,
    word: Heard,
    /// Of the word: it is looked at by far more than are told of it.
    kind: u8,
    bytes: usize,
    /// Who does not hear it is drawn from this.
    lots: u64,
    /// Heard now by those alone who draw this; by all, if none.
    moment: Option<usize>,
    /// Of a beacon that says what the last one said, and nothing of other islands.
    digest: Option<u64>,
    /// How often its author had said something else by then.
    changes: u32,
    /// How somebody is judged may come of it.
    is_grave: bool,
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
    /// What each node said last but for load, digest and number, and how often that has changed.
    said: Vec<(Option<Said>, u32)>,
    speakers: Speakers,
    /// Those that a node is told of while it listens, by their places.
    told: Vec<usize>,
    /// When everybody is to listen.
    rouses: BTreeSet<Instant>,
}

/// A node that stands still for longer has lost them.
const KEPT: Duration = Duration::from_secs(10);
/// A record that was first said so long ago is said again, for the few who missed it.
const REPEATED: Duration = Duration::from_secs(5);
/// Nobody is in doubt for longer without being accused again.
const DOUBTED_FOR: Duration = Duration::from_secs(6);
/// Fewer are not worth looking ahead for.
const EXPECTED_MIN: usize = 2;
/// News waits for no longer than this.
const ROUSE_EVERY: Duration = Duration::from_millis(2);

type Said = (Epoch, Seq, bool, bool);

fn says(word: &Word, beacon: &Beacon) -> Option<Said> {
    Some((word.header.stamp.epoch, beacon.record_seq, beacon.full, beacon.deaf))
}

impl Murmurs {
    /// The number of the first that comes after this.
    pub fn after(&self, now: Instant) -> u64 {
        self.first + self.kept.partition_point(|murmur| murmur.at <= now) as u64
    }

    /// Whether this word says no more than the last to all of the same node did, and how often that has changed.
    fn is_one(&mut self, node: usize, word: &Word) -> (bool, u32) {
        if node >= self.said.len() {
            self.said.resize(node + 1, (None, 0));
        }
        let (said, changes) = &mut self.said[node];
        let Some(Message::Beacon(beacon)) = &word.message else { return (false, *changes) };
        let says = says(word, beacon);
        let is_one = std::mem::replace(said, says) == says;
        *changes += u32::from(!is_one);
        (is_one, *changes)
    }

    /// Whether a word to one does.
    fn is_nothing_new(&self, node: usize, word: &Word) -> bool {
        let Some(Message::Beacon(beacon)) = &word.message else { return false };
        self.said.get(node).is_some_and(|(said, _)| *said == says(word, beacon))
    }

    /// Whether how somebody is judged may come of those from this number to now.
    fn are_grave(&self, begin: u64, now: Instant) -> bool {
        let begin = usize::try_from(begin.saturating_sub(self.first)).expect("an index of what is kept");
        self.kept.range(begin..).take_while(|murmur| murmur.at <= now).any(|murmur| murmur.is_grave)
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
        self.murmurs.speakers.speaks(from, self.now - self.began);
        let (is_one, changes) = self.murmurs.is_one(from, &word);
        let repeats = is_one || self.repeats_its_record(from, &word);
        let (kind, bytes) = (word.header.kind, word.bytes.len());
        let digest = match &word.message {
            Some(Message::Beacon(beacon)) if repeats && beacon.far.is_none() => Some(beacon.digest),
            _ => None,
        };
        let is_grave = !matches!(kind, kind::ANNOUNCE | kind::BEACON | kind::HELLO);
        let moment = None;
        let at = self.now;
        let murmur = Murmur { from, at, source, word, kind, bytes, lots, moment, digest, changes, is_grave };
        if repeats {
            let at = self.now + self.network.takes(&mut self.random);
            return self.murmurs.keep(Murmur { at, ..murmur });
        }
        for moment in 0..MOMENTS {
            let at = self.now + self.network.takes(&mut self.random);
            self.murmurs.keep(Murmur { at, moment: Some(moment), ..murmur.clone() });
            self.rouse_by(at);
        }
    }

    /// Whether a node says its record once more, long after the first time.
    fn repeats_its_record(&self, node: usize, word: &Word) -> bool {
        let process = self.processes.get(node).filter(|process| process.id == word.header.author);
        word.header.kind == kind::ANNOUNCE
            && process.is_some_and(|process| {
                let (seq, since) = process.recorded;
                word.header.stamp.seq == seq && self.now - since > REPEATED
            })
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
        for node in 0..self.processes.len() {
            let unchanged = !self.murmurs.are_grave(self.processes[node].heard, self.now);
            self.listen_to(node, unchanged);
        }
        self.forget_murmurs();
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
        self.listen_to(node, false);
    }

    /// The same, but for beacons that change nothing, if those are left out.
    fn listen_to(&mut self, node: usize, unchanged: bool) {
        if self.hear_all_but(node, unchanged) {
            self.after_input(node);
        }
    }

    /// The same without carrying out what comes of it. Returns whether anything had come.
    pub fn hear(&mut self, node: usize) -> bool {
        self.hear_all_but(node, false)
    }

    /// The same, but for beacons that change nothing: those are kept from its machine.
    pub fn hear_what_matters(&mut self, node: usize) -> bool {
        self.hear_all_but(node, true)
    }

    /// The same before its machine looks for members that have been silent for long: it is told since when nobody is.
    pub fn hear_before_a_look(&mut self, node: usize) -> bool {
        let heard = self.hear_what_matters(node);
        let process = &mut self.processes[node];
        let since = self.murmurs.speakers.all_heard_since(&process.ears, node, self.began, self.now);
        process.machine.all_gave_signs_since(since.max(process.started));
        process.machine.looks_for_signs(self.now) && self.hear(node) || heard
    }

    fn hear_all_but(&mut self, node: usize, unchanged: bool) -> bool {
        let process = &mut self.processes[node];
        if process.state != State::Running {
            return false;
        }
        let murmurs = &mut self.murmurs;
        let mut told = std::mem::take(&mut murmurs.told);
        let first = murmurs.first;
        let place_of = |number: u64| number.checked_sub(first).and_then(|place| usize::try_from(place).ok());
        if !unchanged {
            told.extend(process.ears.take_kept().into_iter().filter_map(place_of));
        }
        let begin = place_of(process.heard.max(first)).expect("an index of what is kept");
        // What others say of their tables means nothing while news is under way.
        let digest = (!process.machine.is_news_under_way(self.now)).then(|| process.machine.digest());
        let mut end = begin;
        for murmur in murmurs.kept.range(begin..).take_while(|murmur| murmur.at <= self.now) {
            let place = end;
            end += 1;
            if !murmur.is_heard_now_by(node)
                || self.network.misses(&mut self.random, murmur.at, murmur.lots, murmur.from, node)
            {
                continue;
            }
            self.measures.deliveries += 1;
            process.traffic.received(murmur.kind, murmur.source.shared, murmur.bytes);
            let may_be_kept =
                unchanged && murmur.digest.is_some_and(|said| digest.is_none_or(|ours| said == ours));
            let kept_after = may_be_kept.then_some(murmur.changes);
            if !process.ears.hear(murmur.from, murmur.at - self.began, first + place as u64, kept_after) {
                told.push(place);
            }
        }
        process.heard = first + end as u64;
        let heard = self.tell(node, &told);
        told.clear();
        self.murmurs.told = told;
        heard
    }

    /// Tells its machine of murmurs, by their places in order, and of what has come to it alone.
    fn tell(&mut self, node: usize, murmurs: &[usize]) -> bool {
        let process = &mut self.processes[node];
        let kept = &self.murmurs.kept;
        let letters = process.letters.iter().take_while(|letter| letter.at <= self.now);
        let expected = murmurs.iter().map(|place| &kept[*place].word);
        let expected = expected.map(|word| (&word.header.author, word.header.kind == kind::BEACON));
        let expected = expected.chain(letters.map(|letter| (&letter.word.header.author, false)));
        if expected.clone().nth(EXPECTED_MIN - 1).is_some() {
            process.machine.expect(self.now, expected);
        }
        let mut heard = !murmurs.is_empty();
        let mut murmurs = murmurs.iter().map(|place| &kept[*place]);
        loop {
            let murmur = murmurs.next();
            let until = murmur.map_or(self.now, |murmur| murmur.at);
            while process.letters.front().is_some_and(|letter| letter.at <= until) {
                let Some(letter) = process.letters.pop_front() else { break };
                self.measures.deliveries += 1;
                heard = true;
                process.receives(letter.source, &letter.word);
                take_in(process, letter.at, letter.source, &letter.word);
            }
            let Some(murmur) = murmur else { return heard };
            take_in(process, murmur.at, murmur.source, &murmur.word);
            let waits = murmur.digest.and_then(|_| process.machine.lets_wait_until(&murmur.word.header));
            process.ears.told(murmur.from, murmur.changes, waits.map(|until| until - self.began));
        }
    }

    /// All hear what has come but what changes nothing, so that it is counted.
    pub fn all_listen(&mut self) {
        for node in 0..self.processes.len() {
            self.listen_to(node, true);
        }
        self.forget_murmurs();
    }

    fn forget_murmurs(&mut self) {
        self.murmurs.forget(self.now.checked_sub(KEPT).unwrap_or(self.began));
    }
}

/// At the moment it came, or at which the process got to it.
fn take_in(process: &mut Process, at: Instant, source: Source, word: &Heard) {
    let _ = process.machine.handle_word(at.max(process.resumed), source, word);
}

/// At which of the moments of a word a node hears it.
fn moment_of(lots: u64, node: usize) -> usize {
    (lots.rotate_left(17) as usize ^ (node.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32)) % MOMENTS
}
