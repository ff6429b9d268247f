//! The island as a whole: its clock, its agenda, and the sentences that scenarios are made of.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isle_mesh::event::EventKind;
use isle_mesh::member::{Epoch, MemberId, Seq, Standing};
use isle_mesh::membership::{Destination, Fetch, Membership, Source};
use isle_mesh::transfer::VerifiedTransfer;
use isle_mesh::verify::Scheme;
use isle_mesh::wire::kind;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::invariants::{Farewells, Members};
use crate::measures::{Measures, TABLE};
use crate::murmur::{Letter, Murmurs};
use crate::network::{Heard, Network, SHARED, ip_of, node_at, private_of};
use crate::process::{Process, Site, State};
use crate::voice::{Say, Voice, voice_at};
use crate::votes::{LastWords, Silent};

/// Something that will happen.
pub enum Due {
    Start,
    Arrival {
        to: usize,
        source: Source,
        word: Heard,
    },
    /// A word for all, at those who hear it at that moment.
    Spread {
        to: Vec<u32>,
        source: Source,
        word: Heard,
    },
    /// One that only authors words has one to say.
    Voice(usize, Epoch, Say),
    /// One of them says this once more.
    VoiceAgain(usize, Epoch, Bytes),
    /// Somebody has been silent for long in that life: those who only author words say so.
    Silence(MemberId, Epoch),
    /// Everybody hears what was said to all.
    Rouse,
    Stall(usize),
    Resume(usize),
    /// A second is over: what was counted in it is put to the rest.
    Second,
    /// A table that was asked for, as it was when it was read; `None`: nobody answered.
    Table {
        to: usize,
        life: Instant,
        from: MemberId,
        table: Option<VerifiedTransfer>,
    },
}

pub struct World {
    pub seed: u64,
    pub random: SmallRng,
    pub now: Instant,
    pub network: Network,
    pub murmurs: Murmurs,
    pub processes: Vec<Process>,
    /// Members that author words and keep no table.
    pub voices: Vec<Voice>,
    /// Which of those has this key.
    pub voice_by_id: Members<usize>,
    /// Who is gone without a word, where voices are to say so.
    pub silent: Members<Silent>,
    /// What the island is among others.
    pub site: Site,
    /// Nodes that took something in since this was last looked at; where there is one island alone nobody looks.
    pub touched: BTreeSet<usize>,
    wakes: BTreeSet<(Instant, usize)>,
    /// When, in which order, and where in `dues`.
    agenda: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    dues: Vec<Option<Due>>,
    free: Vec<usize>,
    counted: u64,
    pub keys: u64,
    scheme: Scheme,
    /// Whether what happens is printed as it happens.
    pub trace: bool,
    pub began: Instant,
    pub farewells: Farewells,
    pub farewell_at: BTreeMap<MemberId, Instant>,
    crashed_at: BTreeMap<MemberId, Instant>,
    first_word: BTreeMap<MemberId, Instant>,
    /// Who was last called silent by anybody, and when.
    pub accused: Members<Instant>,
    /// Nodes that share an address with an earlier life.
    by_id: Members<usize>,
    pub started_within: Duration,
    pub measures: Measures,
}

/// Members that a node lists wrongly are named up to so many.
const SHOWN: usize = 8;
/// The events of so many nodes are replayed and compared with their tables in every second; those of all at the end.
const LOOKED_AT: usize = 4;
const SECOND: Duration = Duration::from_secs(1);
/// How long a table takes over TCP: a few round trips and reading it.
const FETCH_TAKES: Duration = Duration::from_millis(6);
/// A member that stands still does not answer within this.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// A socket holds so many datagrams of a process that stands still.
const INBOX_MAX: usize = 5_000;

/// What a variable of the environment says, if it says something of that kind.
pub fn given<T: FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs a scenario with each seed, and says how to replay the one that fails.
pub fn with_seeds(scenario: &str, run: impl Fn(u64)) {
    let first: u64 = given("ISLE_SIMULATION_SEED").unwrap_or(1);
    for seed in first..first + given::<u64>("ISLE_SIMULATION_SEEDS").unwrap_or(1) {
        with_seed(scenario, seed, &run);
    }
}

/// The same with one seed.
pub fn with_seed(scenario: &str, seed: u64, run: impl FnOnce(u64)) {
    struct Replay<'a>(&'a str, u64);
    impl Drop for Replay<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let Self(scenario, seed) = self;
                println!(
                    "seed {seed}; to replay: cargo xtask sim --scenario {scenario} --seed {seed} --trace"
                );
            }
        }
    }
    let _replay = Replay(scenario, seed);
    run(seed);
}

/// An island of so many nodes that start with the scenario, with real signatures.
pub fn island(nodes: usize, seed: u64) -> World {
    island_of(nodes, seed, Scheme::Ed25519)
}

/// The same with hashes in their place: for large ones.
pub fn large_island(nodes: usize, seed: u64) -> World {
    island_of(nodes, seed, Scheme::StandIn)
}

fn island_of(nodes: usize, seed: u64, scheme: Scheme) -> World {
    #[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
    let now = Instant::now();
    let mut world = World {
        seed,
        random: SmallRng::seed_from_u64(seed),
        now,
        network: Network::new(scheme),
        murmurs: Murmurs::default(),
        processes: Vec::new(),
        voices: Vec::new(),
        voice_by_id: Members::default(),
        silent: Members::default(),
        site: Site::default(),
        touched: BTreeSet::new(),
        wakes: BTreeSet::new(),
        agenda: BinaryHeap::new(),
        dues: Vec::new(),
        free: Vec::new(),
        counted: 0,
        keys: 0,
        scheme,
        trace: std::env::var_os("ISLE_SIMULATION_TRACE").is_some(),
        began: now,
        farewells: Farewells::new(),
        farewell_at: BTreeMap::new(),
        crashed_at: BTreeMap::new(),
        first_word: BTreeMap::new(),
        accused: Members::default(),
        by_id: Members::default(),
        started_within: Duration::ZERO,
        measures: Measures::default(),
    };
    world.keys = seed * 1_000_000 + u64::try_from(nodes).expect("few") + 1;
    for _ in 0..nodes {
        world.at(now, Due::Start);
    }
    world.at(now + SECOND, Due::Second);
    world
}

impl World {
    pub fn run_for(&mut self, length: Duration) {
        let end = self.now + length;
        while self.next_at().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
        self.all_listen();
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<Instant> {
        let wake = self.wakes.first().map(|(at, _)| *at);
        let due = self.agenda.peek().map(|Reverse((at, ..))| *at);
        [wake, due].into_iter().flatten().min()
    }

    /// Lets it happen.
    pub fn step(&mut self) {
        let wake = self.wakes.first().map(|(at, _)| *at);
        let due = self.agenda.peek().map(|Reverse((at, ..))| *at);
        let Some(next) = [wake, due].into_iter().flatten().min() else { return };
        self.now = self.now.max(next);
        if due == Some(next) {
            let Some(Reverse((_, _, place))) = self.agenda.pop() else { return };
            self.free.push(place);
            if let Some(due) = self.dues[place].take() {
                self.happen(due);
            }
        } else if let Some((_, node)) = self.wakes.pop_first() {
            self.wake(node);
        }
    }

    /// Everybody who runs must list exactly those who run as alive, within this. Records may be older than others'.
    pub fn lists_within(&mut self, length: Duration) {
        let start = self.now;
        while let Some(what) = self.miscount(&self.living()) {
            if self.now - start >= length {
                self.report("not in time");
                panic!("not all listed within {length:?}: {what}");
            }
            self.run_for(Duration::from_millis(100));
        }
        println!("seed {}: all listed after {:?}", self.seed, self.now - start);
    }

    /// Everybody who runs must list exactly those who run as alive, and all must have the same digest, within this.
    pub fn agrees_within(&mut self, length: Duration) {
        let start = self.now;
        loop {
            self.run_for(Duration::from_millis(100));
            match self.disagreement() {
                None => break,
                Some(what) => assert!(
                    self.now - start < length,
                    "no agreement within {length:?}: {what}; {:?}",
                    self.miscount(&self.living())
                ),
            }
        }
        println!("seed {}: agreement after {:?}", self.seed, self.now - start);
        for process in self.processes.iter().filter(|process| process.lives()) {
            process.replays();
        }
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub fn most_listed(&self) -> usize {
        let running = self.processes.iter().filter(|process| process.lives());
        running.map(|process| process.machine.members().count()).max().unwrap_or(0)
    }

    pub fn report(&self, what: &str) {
        let living = self.processes.iter().filter(|process| process.lives()).count();
        self.measures.print(what, living, self.now - self.began);
    }
}

impl World {
    pub fn some_that_run(&mut self, count: usize) -> Vec<usize> {
        let mut running: Vec<usize> =
            (0..self.processes.len()).filter(|node| self.processes[*node].state == State::Running).collect();
        let mut chosen = Vec::new();
        while chosen.len() < count && running.len() > 1 {
            chosen.push(running.swap_remove(self.random.random_range(0..running.len())));
        }
        chosen
    }

    pub fn at(&mut self, at: Instant, due: Due) {
        self.counted += 1;
        let place = self.free.pop().unwrap_or(self.dues.len());
        if place == self.dues.len() {
            self.dues.push(None);
        }
        self.dues[place] = Some(due);
        self.agenda.push(Reverse((at, self.counted, place)));
    }

    /// All that was to happen, but the ends of seconds.
    pub fn take_agenda(&mut self) -> Vec<Due> {
        self.agenda.clear();
        self.free.clear();
        let all: Vec<Due> = std::mem::take(&mut self.dues).into_iter().flatten().collect();
        self.at(self.began + SECOND, Due::Second);
        all.into_iter().filter(|due| !matches!(due, Due::Second)).collect()
    }

    /// Notes that the process of this node is gone, and who is to find out.
    pub fn note_crash(&mut self, node: usize) {
        self.note(node, format_args!("is gone without a word"));
        let id = self.processes[node].id;
        self.crashed_at.insert(id, self.now);
        let others = self.processes.iter().filter(|process| process.lives() && process.id != id);
        let observers = others.count();
        self.measures.crash(id, self.now, observers);
        let process = &self.processes[node];
        if let Some(member) = process.machine.self_member().filter(|_| process.last > Seq(0)) {
            let words = LastWords {
                epoch: process.epoch,
                record: member.record_bytes.clone(),
                record_seq: member.stamp.seq,
                recorded: process.recorded.1,
                last: process.last,
                watchers: member.record.watchers.clone(),
            };
            self.falls_silent(id, words);
        }
    }

    pub fn stand_still(&mut self, node: usize, until: Instant) {
        // What came before was heard before.
        self.listen(node);
        self.note(node, format_args!("stands still for {:.3?}", until - self.now));
        self.processes[node].state = State::Stalled(until);
        self.processes[node].stood_still = Some((self.now, until));
        self.at(until, Due::Resume(node));
    }

    pub fn stall_later(&mut self, node: usize) {
        let after = Duration::from_millis(self.random.random_range(500..3_500));
        self.at(self.now + after, Due::Stall(node));
    }

    pub fn start(&mut self, node: usize, key: u64, epoch: Epoch) {
        let seed = self.random.random();
        let mut process = Process::start(node, key, epoch, seed, self.now, self.scheme, &self.site);
        process.heard = self.murmurs.after(self.now);
        self.by_id.insert(process.id, node);
        self.crashed_at.remove(&process.id).filter(|_| epoch > Epoch(1));
        self.silent.remove(&process.id);
        self.first_word.insert(process.id, self.now);
        self.note(node, format_args!("starts, {:?}, epoch {}", process.id, epoch.0));
        if node < self.processes.len() {
            if let Some(wake) = self.processes[node].wake.take() {
                self.wakes.remove(&(wake, node));
            }
            process.letters = std::mem::take(&mut self.processes[node].letters);
            self.processes[node] = process;
        } else {
            assert_eq!(node, self.processes.len(), "nodes are numbered without gaps");
            self.processes.push(process);
        }
        self.after_input(node);
    }

    /// Something comes to a node that is no datagram.
    pub fn input(&mut self, node: usize, now: Instant, input: impl FnOnce(&mut Membership)) {
        self.now = self.now.max(now);
        self.listen(node);
        input(&mut self.processes[node].machine);
        self.after_input(node);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Start => {
                self.keys += 1;
                self.start(self.processes.len(), self.keys, Epoch(1));
            }
            Due::Arrival { to, source, word } => self.arrive(to, source, &word),
            Due::Spread { to, source, word } => {
                for to in to {
                    self.arrive(to as usize, source, &word);
                }
            }
            Due::Voice(voice, epoch, say) if self.voices[voice].epoch() == epoch => self.speak(voice, say),
            Due::VoiceAgain(voice, epoch, bytes) => {
                if self.voices[voice].epoch() == epoch && self.voices[voice].lives() {
                    self.say_of_voice(voice, &bytes);
                }
            }
            Due::Voice(..) => {}
            Due::Silence(id, epoch) => self.judge_silence(id, epoch),
            Due::Rouse => self.rouse(),
            Due::Stall(node) => {
                if self.processes[node].state == State::Running {
                    let until = self.now + Duration::from_millis(self.random.random_range(200..1_500));
                    self.stand_still(node, until);
                }
            }
            Due::Resume(node) => {
                self.resume(node);
                if self.processes[node].stalls {
                    self.stall_later(node);
                }
            }
            Due::Second => self.close_second(),
            Due::Table { to, life, from, table } => {
                let now = self.now;
                let process = &mut self.processes[to];
                if process.state == State::Running && process.started == life {
                    match table {
                        Some(table) => process.machine.merge(now, from, &table),
                        None => process.machine.fetch_failed(now, from),
                    }
                    self.after_input(to);
                }
            }
        }
    }

    fn arrive(&mut self, to: usize, source: Source, word: &Heard) {
        if to >= self.processes.len() {
            return;
        }
        let heard = match word.header.kind {
            // Nothing of others depends on these.
            kind::ANNOUNCE | kind::PING | kind::PONG => self.hear_what_matters(to),
            _ => self.hear(to),
        };
        let process = &mut self.processes[to];
        process.receives(source, word);
        match process.state {
            State::Running => {
                self.measures.deliveries += 1;
                let _ = process.machine.handle_word(self.now, source, word);
                self.after_input(to);
            }
            State::Stalled(_) if process.inbox.len() < INBOX_MAX => {
                process.inbox.push((source, word.clone()));
            }
            _ if heard => self.after_input(to),
            _ => {}
        }
    }

    /// After a late wake-up a process first empties its sockets, as the driver does.
    fn resume(&mut self, node: usize) {
        let now = self.now;
        if self.processes[node].state != State::Stalled(now) {
            return;
        }
        self.processes[node].state = State::Running;
        self.processes[node].resumed = now;
        for (source, word) in std::mem::take(&mut self.processes[node].inbox) {
            let _ = self.processes[node].machine.handle_word(now, source, &word);
        }
        self.hear(node);
        self.processes[node].machine.handle_timeout(now);
        self.after_input(node);
    }

    fn wake(&mut self, node: usize) {
        let now = self.now;
        self.processes[node].wake = None;
        let machine = &self.processes[node].machine;
        // Whatever has come, it is asked below what it wants.
        let _ = match machine.poll_timeout().map(|wakeup| wakeup.why) {
            // What is kept from it has no part in its own words, in those who are new, and in those who are long gone.
            Some("tick" | "refresh" | "copy" | "remind" | "forget" | "sweep") => self.hear_what_matters(node),
            Some("hello" | "greet" | "first-asks" | "ask-stranger" | "meet" | "want-record") => {
                self.hear_what_matters(node)
            }
            Some("silence" | "ask" | "choose-watchers") if machine.is_calm(now) => {
                self.hear_what_matters(node)
            }
            Some("look") => self.hear_before_a_look(node),
            _ => self.hear(node),
        };
        let process = &mut self.processes[node];
        if matches!(process.state, State::Running | State::Leaving) {
            process.machine.handle_timeout(now);
            self.after_input(node);
        }
    }

    /// Carries out what the machine wants, and looks whether it told the truth.
    pub fn after_input(&mut self, node: usize) {
        let now = self.now;
        while let Some(transmit) = self.processes[node].machine.poll_transmit() {
            self.measures.datagrams += 1;
            let bytes = transmit.bytes;
            let for_all = matches!(transmit.to, Destination::Everyone | Destination::EveryoneBriefly);
            let header = self.network.word(&bytes).header;
            self.processes[node].says(now, &header);
            self.processes[node].traffic.sent(header.kind, for_all, bytes.len());
            self.network.record(&mut self.random, &bytes);
            self.note_word(node, &bytes);
            match transmit.to {
                Destination::Everyone | Destination::EveryoneBriefly => {
                    self.send_to_everyone(node, &bytes);
                    self.voices_hear(node, &bytes);
                }
                Destination::Unicast(to) | Destination::Probe(to) => match node_at(to.ip()) {
                    Some(other) if voice_at(other).is_some() => self.ask_voice(node, other, &bytes),
                    Some(other) => self.send(node, other, to.port() == SHARED, &bytes),
                    None => {}
                },
            }
        }
        while let Some(member) = self.processes[node].machine.poll_change() {
            self.note_change(node, &member);
        }
        while let Some(event) = self.processes[node].machine.poll_event() {
            let Some(member) = event.member().filter(|member| !member.far) else {
                self.processes[node].hear_beyond(event);
                continue;
            };
            self.measure(node, event.kind, member.id, member.stamp.epoch);
            self.note_event(node, &event);
            let process = &mut self.processes[node];
            process.witness.hear(process.id, &event, &self.farewells, &self.network.evidence);
        }
        while let Some(wish) = self.processes[node].machine.poll_fetch() {
            self.fetch(node, wish);
        }
        if self.site.island.is_some() {
            self.touched.insert(node);
        }
        let process = &mut self.processes[node];
        assert_eq!(process.machine.stopped(), None, "nobody shares a key here");
        if !process.complete && process.machine.is_complete() {
            process.complete = true;
            self.measures.newcomers_complete.add(now - process.started);
        }
        if process.state == State::Leaving && process.machine.has_said_farewell() {
            process.state = State::Left;
        }
        let next = process.machine.poll_timeout().map(|wakeup| wakeup.at);
        if next != process.wake {
            if let Some(old) = std::mem::replace(&mut process.wake, next) {
                self.wakes.remove(&(old, node));
            }
            if let Some(next) = next {
                self.wakes.insert((next, node));
            }
        }
    }

    pub fn send_to_everyone(&mut self, from: usize, bytes: &Bytes) {
        let word = self.network.word(bytes);
        self.note_accusation(&word);
        let source = source_of(from, true);
        if self.is_batched() {
            return self.murmur(from, source, word);
        }
        for (after, to) in self.network.spread(&mut self.random, self.now, from, self.processes.len()) {
            if !to.is_empty() {
                self.at(self.now + after, Due::Spread { to, source, word: word.clone() });
            }
        }
    }

    pub fn send(&mut self, from: usize, to: usize, shared: bool, bytes: &Bytes) {
        let word = self.network.word(bytes);
        self.note_accusation(&word);
        let source = source_of(from, shared);
        for after in self.network.arrivals(&mut self.random, self.now, from, to) {
            let mut letter = Some(Letter { at: self.now + after, source, word: word.clone() });
            if self.is_batched() {
                letter = letter.and_then(|letter| self.leave_letter(from, to, letter));
            }
            if let Some(Letter { at, source, word }) = letter {
                self.at(at, Due::Arrival { to, source, word });
            }
        }
    }

    /// Whether words are heard in batches: in large islands, where they are not doubled.
    fn is_batched(&self) -> bool {
        self.scheme == Scheme::StandIn && self.network.duplication == 0.0
    }

    fn close_second(&mut self) {
        self.all_listen();
        for process in &mut self.processes {
            let lived = process.lives();
            self.measures.second(&mut process.traffic, lived);
        }
        self.measures.second_is_over();
        let living: Vec<usize> =
            (0..self.processes.len()).filter(|node| self.processes[*node].lives()).collect();
        for _ in 0..LOOKED_AT.min(living.len()) {
            self.processes[living[self.random.random_range(0..living.len())]].replays();
        }
        self.at(self.now + SECOND, Due::Second);
    }

    pub fn node_of(&self, id: &MemberId) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    fn fetch(&mut self, node: usize, wish: Fetch) {
        self.measures.fetches += 1;
        self.note(node, format_args!("wants the table of {}", self.number_of(&wish.from)));
        let is_there = |other: &usize| wish.at.iter().any(|at| at.ip() == ip_of(*other));
        let other = self.by_id.get(&wish.from).copied().filter(is_there);
        let other = other.or_else(|| self.stands_in_for(&wish.from, node));
        let cut = |a: usize, b: usize| self.network.is_cut(a, b) || self.network.is_cut(b, a);
        let is_it =
            |other: usize| self.processes[other].id == wish.from || self.voice_of(&wish.from).is_some();
        let reached = other.filter(|other| !cut(node, *other) && is_it(*other));
        let life = self.processes[node].started;
        let (after, table) = match reached.map(|other| (other, self.processes[other].state)) {
            Some((other, State::Running | State::Leaving)) => (FETCH_TAKES, Some(self.table_of(other))),
            Some((_, State::Crashed | State::Left)) => (FETCH_TAKES, None),
            _ => (FETCH_TIMEOUT, None),
        };
        if let (Some(table), Some(other)) = (&table, other) {
            // Each word with its length and age.
            let bytes = table.words.iter().chain(&table.floors).map(|(word, _)| word.bytes.len() + 10).sum();
            self.processes[node].traffic.received(TABLE, false, bytes);
            self.processes[other].traffic.sent(TABLE, false, bytes);
        }
        self.at(self.now + after, Due::Table { to: node, life, from: wish.from, table });
    }

    fn table_of(&mut self, node: usize) -> VerifiedTransfer {
        let transfer = self.processes[node].machine.export(self.now);
        let words = transfer
            .words
            .iter()
            .map(|word| (self.network.kept_word(&word.bytes).as_ref().clone(), word.age))
            .collect();
        let floors = transfer
            .floors
            .iter()
            .map(|floor| (self.network.kept_word(&floor.bytes).as_ref().clone(), floor.age))
            .collect();
        VerifiedTransfer { words, floors, refused: 0 }
    }

    fn measure(&mut self, node: usize, kind: EventKind, id: MemberId, epoch: Epoch) {
        let now = self.now;
        self.measures.told(kind);
        match kind {
            EventKind::Joined => {
                let newcomer = self.first_word.get(&id).filter(|at| **at > self.processes[node].started);
                if let Some(at) = newcomer.filter(|_| epoch == Epoch(1) && self.processes[node].id != id) {
                    self.measures.newcomers_known.add(now - *at);
                }
            }
            EventKind::Left if self.processes[node].id != id => {
                if let Some(at) = self.farewell_at.get(&id).filter(|at| **at > self.processes[node].started) {
                    self.measures.farewells_known.add(now - *at);
                }
            }
            EventKind::Suspect | EventKind::Down | EventKind::Back => {
                self.measure_judgement(node, kind, id, epoch);
            }
            _ => {}
        }
    }

    /// Somebody is thought to be silent or gone, or is no more.
    fn measure_judgement(&mut self, node: usize, kind: EventKind, id: MemberId, epoch: Epoch) {
        let now = self.now;
        let healthy = |process: &Process| process.state == State::Running && !process.stood_still_lately(now);
        let other = self.by_id.get(&id).copied();
        let subject = other.map(|other| &self.processes[other]).filter(|process| process.id == id);
        // What is said of a life before is true: that one has ended.
        let runs = subject.is_some_and(|process| process.epoch == epoch && healthy(process));
        let exists = subject.is_some_and(Process::lives);
        // Whom a cut keeps apart, they cannot tell from the dead.
        let apart =
            other.is_some_and(|other| self.network.is_cut(other, node) || self.network.is_cut(node, other));
        let sound = healthy(&self.processes[node]) && !apart;
        self.measures.judged(sound);
        match kind {
            EventKind::Suspect if runs && sound => self.measures.false_suspicions += 1,
            EventKind::Down if runs && sound => self.measures.false_down(id, now),
            EventKind::Down if exists => self.measures.excusable_downs += 1,
            EventKind::Down => {
                if let Some(at) = self.crashed_at.get(&id).filter(|at| **at > self.processes[node].started) {
                    self.measures.found(id, now);
                    self.measures.crashes_known.add(now - *at);
                }
            }
            _ => {}
        }
    }

    /// All who are there now.
    pub fn living(&self) -> BTreeSet<MemberId> {
        let processes = self.processes.iter().filter(|process| process.lives()).map(|process| process.id);
        processes.chain(self.voices.iter().filter(|voice| voice.lives()).map(Voice::id)).collect()
    }

    /// Whom somebody misses, or has too many.
    fn miscount(&self, living: &BTreeSet<MemberId>) -> Option<String> {
        for process in self.processes.iter().filter(|process| process.lives()) {
            let alive = || {
                let alive = process.machine.members().filter(|member| member.standing == Standing::Alive);
                alive.map(|member| member.id).chain([process.id])
            };
            // Nobody is listed twice.
            let all_live = alive().all(|id| living.contains(&id));
            if !all_live || alive().count() != living.len() {
                let listed: BTreeSet<MemberId> = alive().collect();
                let missing: Vec<_> = living
                    .difference(&listed)
                    .map(|id| {
                        let seen = process.machine.members().find(|member| member.id == *id);
                        (id, seen.map(|member| (member.standing, member.proven, member.stamp)))
                    })
                    .collect();
                let surplus: Vec<_> = listed.difference(living).collect();
                let shown = |count: usize| count.min(SHOWN);
                return Some(format!(
                    "{}, {:?}, misses {}, as {:?}, has {} too many, as {:?}",
                    self.number_of(&process.id),
                    process.id,
                    missing.len(),
                    &missing[..shown(missing.len())],
                    surplus.len(),
                    &surplus[..shown(surplus.len())],
                ));
            }
        }
        None
    }

    /// What two nodes do not agree on, if there is anything.
    pub fn disagreement(&self) -> Option<String> {
        let lives = self.processes.iter().filter(|process| process.lives());
        let digests: BTreeSet<u64> = lives.map(|process| process.machine.digest()).collect();
        let differ = || (digests.len() > 1).then(|| format!("{} different digests", digests.len()));
        differ().or_else(|| self.miscount(&self.living()))
    }
}

fn source_of(node: usize, shared: bool) -> Source {
    let mut addr = private_of(node);
    if shared {
        addr.set_port(SHARED);
    }
    Source { addr, shared }
}
