//! The island as a whole: its clock, its agenda, and the sentences that scenarios are made of.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use isle_mesh::event::EventKind;
use isle_mesh::member::{Epoch, LeaveReason, MemberId, Standing};
use isle_mesh::membership::{Destination, Fetch, Source};
use isle_mesh::transfer::VerifiedTransfer;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::invariants::Farewells;
use crate::measures::Measures;
use crate::network::{Network, SHARED, ip_of, node_at, private_of};
use crate::process::{Process, State};

/// Something that will happen.
enum Due {
    Start,
    Arrival {
        to: usize,
        source: Source,
        bytes: Bytes,
    },
    Resume(usize),
    /// A table that was asked for, as it was when it was read; `None`: nobody answered.
    Table {
        to: usize,
        life: Instant,
        from: MemberId,
        table: Option<VerifiedTransfer>,
    },
}

pub struct World {
    seed: u64,
    random: SmallRng,
    pub now: Instant,
    pub network: Network,
    processes: Vec<Process>,
    wakes: BTreeSet<(Instant, usize)>,
    agenda: BinaryHeap<Reverse<(Instant, u64)>>,
    dues: BTreeMap<u64, Due>,
    counted: u64,
    keys: u64,
    farewells: Farewells,
    farewell_at: BTreeMap<MemberId, Instant>,
    crashed_at: BTreeMap<MemberId, Instant>,
    first_word: BTreeMap<MemberId, Instant>,
    /// Nodes that share an address with an earlier life.
    by_id: BTreeMap<MemberId, usize>,
    started_within: Duration,
    pub measures: Measures,
}

/// How long a table takes over TCP: a few round trips and reading it.
const FETCH_TAKES: Duration = Duration::from_millis(6);
/// A member that stands still does not answer within this.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// A socket holds so many datagrams of a process that stands still.
const INBOX_MAX: usize = 5_000;

/// Runs a scenario with each seed, and says how to replay the one that fails.
pub fn with_seeds(scenario: &str, run: impl Fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("ISLE_SIMULATION_SEED").unwrap_or(1);
    for seed in first..first + number("ISLE_SIMULATION_SEEDS").unwrap_or(1) {
        struct Replay<'a>(&'a str, u64);
        impl Drop for Replay<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    let Self(scenario, seed) = self;
                    println!(
                        "seed {seed}; to replay: ISLE_SIMULATION_SEED={seed} cargo test --test simulation {scenario}"
                    );
                }
            }
        }
        let _replay = Replay(scenario, seed);
        run(seed);
    }
}

/// An island of so many nodes that start with the scenario.
pub fn island(nodes: usize, seed: u64) -> World {
    #[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
    let now = Instant::now();
    let mut world = World {
        seed,
        random: SmallRng::seed_from_u64(seed),
        now,
        network: Network::new(),
        processes: Vec::new(),
        wakes: BTreeSet::new(),
        agenda: BinaryHeap::new(),
        dues: BTreeMap::new(),
        counted: 0,
        keys: 0,
        farewells: Farewells::new(),
        farewell_at: BTreeMap::new(),
        crashed_at: BTreeMap::new(),
        first_word: BTreeMap::new(),
        by_id: BTreeMap::new(),
        started_within: Duration::ZERO,
        measures: Measures::default(),
    };
    world.keys = seed * 1_000_000 + u64::try_from(nodes).expect("few") + 1;
    for _ in 0..nodes {
        world.at(now, Due::Start);
    }
    world
}

// What scenarios say.
impl World {
    pub fn loss(mut self, share: f64) -> Self {
        self.network.loss = share;
        self
    }

    pub fn duplication(mut self, share: f64) -> Self {
        self.network.duplication = share;
        self
    }

    pub fn delay(mut self, least: Duration, most: Duration) -> Self {
        self.network.delay = (least, most);
        self
    }

    /// The first nodes start at random times within this, not all at once.
    pub fn started_within(mut self, length: Duration) -> Self {
        self.started_within = length;
        let starts: Vec<_> = std::mem::take(&mut self.dues).into_values().collect();
        self.agenda.clear();
        for start in starts {
            let after = length.mul_f64(self.random.random_range(0.0..1.0));
            self.at(self.now + after, start);
        }
        self
    }

    /// A number below `sides`.
    pub fn lot(&mut self, sides: u32) -> u32 {
        self.random.random_range(0..sides)
    }

    pub fn crash(&mut self, count: usize) -> &mut Self {
        for node in self.some_that_run(count) {
            self.processes[node].state = State::Crashed;
            let id = self.processes[node].id;
            self.crashed_at.insert(id, self.now);
        }
        self
    }

    pub fn farewell(&mut self, count: usize) -> &mut Self {
        for node in self.some_that_run(count) {
            let now = self.now;
            let process = &mut self.processes[node];
            process.state = State::Leaving;
            self.farewells.insert(process.id, process.epoch);
            self.farewell_at.insert(process.id, now);
            process.machine.leave(now, LeaveReason::Stopped);
            self.after_input(node);
        }
        self
    }

    pub fn join(&mut self, count: usize) -> &mut Self {
        for _ in 0..count {
            self.keys += 1;
            self.start(self.processes.len(), self.keys, Epoch(1));
        }
        self
    }

    /// Crash and start again at once, with the same key in its next epoch.
    pub fn restart_with_kept_key(&mut self, count: usize) -> &mut Self {
        for node in self.some_that_run(count) {
            let (key, epoch) = (self.processes[node].key, self.processes[node].epoch);
            self.start(node, key, Epoch(epoch.0 + 1));
        }
        self
    }

    /// Crash and start again at once at the same address, with a new key: what most nodes do.
    pub fn restart_with_fresh_key(&mut self, count: usize) -> &mut Self {
        for node in self.some_that_run(count) {
            let id = self.processes[node].id;
            self.crashed_at.insert(id, self.now);
            self.keys += 1;
            self.start(node, self.keys, Epoch(1));
        }
        self
    }

    pub fn stall(&mut self, count: usize, least: Duration, most: Duration) -> &mut Self {
        for node in self.some_that_run(count) {
            let until = self.now + least + (most - least).mul_f64(self.random.random_range(0.0..1.0));
            self.processes[node].state = State::Stalled(until);
            self.at(until, Due::Resume(node));
        }
        self
    }

    pub fn cut_one_way(&mut self, count: usize) -> &mut Self {
        for _ in 0..count {
            let pair = self.some_that_run(2);
            if let [from, to] = pair[..] {
                self.network.cuts.insert((from, to));
            }
        }
        self
    }

    /// Even and odd nodes do not hear each other any more.
    pub fn cut_in_two(&mut self) -> &mut Self {
        let most = self.processes.len() + 100;
        let pairs = (0..most).flat_map(|from| (0..most).map(move |to| (from, to)));
        self.network.cuts = pairs.filter(|(from, to)| from % 2 != to % 2).collect();
        self
    }

    pub fn heal_cuts(&mut self) -> &mut Self {
        self.network.cuts.clear();
        self
    }

    /// Somebody says again what was said before, to everyone.
    pub fn replay_old_words(&mut self, count: usize) -> &mut Self {
        for _ in 0..count {
            if self.network.recorded.is_empty() {
                break;
            }
            let place = self.random.random_range(0..self.network.recorded.len());
            let bytes = self.network.recorded[place].clone();
            let villain = self.processes.len() + 50;
            self.send_to_everyone(villain, &bytes);
        }
        self
    }

    pub fn run_for(&mut self, length: Duration) {
        let end = self.now + length;
        loop {
            let wake = self.wakes.first().map(|(at, _)| *at);
            let due = self.agenda.peek().map(|Reverse((at, _))| *at);
            let Some(next) = [wake, due].into_iter().flatten().min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            if due == Some(next) {
                let Some(Reverse((_, number))) = self.agenda.pop() else { break };
                if let Some(due) = self.dues.remove(&number) {
                    self.happen(due);
                }
            } else if let Some((_, node)) = self.wakes.pop_first() {
                self.wake(node);
            }
        }
        self.now = end;
    }

    /// Everybody who runs must list exactly those who run as alive, and all must have the same digest, within this.
    pub fn agrees_within(&mut self, length: Duration) {
        let start = self.now;
        loop {
            self.run_for(Duration::from_millis(100));
            match self.disagreement() {
                None => break,
                Some(what) => assert!(self.now - start < length, "no agreement within {length:?}: {what}"),
            }
        }
        println!("seed {}: agreement after {:?}", self.seed, self.now - start);
        for process in self.processes.iter().filter(|process| process.lives()) {
            let members = process.machine.members().map(|member| (&member.id, member.standing));
            process.witness.agrees_with(process.id, members);
        }
    }

    pub fn most_listed(&self) -> usize {
        let running = self.processes.iter().filter(|process| process.lives());
        running.map(|process| process.machine.members().count()).max().unwrap_or(0)
    }

    pub fn report(&self, what: &str) {
        println!("{what}:");
        self.measures.print();
    }
}

impl World {
    fn some_that_run(&mut self, count: usize) -> Vec<usize> {
        let mut running: Vec<usize> =
            (0..self.processes.len()).filter(|node| self.processes[*node].state == State::Running).collect();
        let mut chosen = Vec::new();
        while chosen.len() < count && running.len() > 1 {
            chosen.push(running.swap_remove(self.random.random_range(0..running.len())));
        }
        chosen
    }

    fn at(&mut self, at: Instant, due: Due) {
        self.counted += 1;
        self.agenda.push(Reverse((at, self.counted)));
        self.dues.insert(self.counted, due);
    }

    fn start(&mut self, node: usize, key: u64, epoch: Epoch) {
        let seed = self.random.random();
        let process = Process::start(node, key, epoch, seed, self.now);
        self.by_id.insert(process.id, node);
        self.crashed_at.remove(&process.id).filter(|_| epoch > Epoch(1));
        self.first_word.insert(process.id, self.now);
        if node < self.processes.len() {
            if let Some(wake) = self.processes[node].wake.take() {
                self.wakes.remove(&(wake, node));
            }
            self.processes[node] = process;
        } else {
            assert_eq!(node, self.processes.len(), "nodes are numbered without gaps");
            self.processes.push(process);
        }
        self.after_input(node);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Start => {
                self.keys += 1;
                self.start(self.processes.len(), self.keys, Epoch(1));
            }
            Due::Arrival { to, source, bytes } => self.arrive(to, source, &bytes),
            Due::Resume(node) => self.resume(node),
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

    fn arrive(&mut self, to: usize, source: Source, bytes: &Bytes) {
        let Some(state) = self.processes.get(to).map(|process| process.state) else { return };
        let word = self.network.word(bytes);
        let process = &mut self.processes[to];
        match state {
            State::Running => {
                self.measures.deliveries += 1;
                let _ = process.machine.handle_word(self.now, source, &word);
                self.after_input(to);
            }
            State::Stalled(_) if process.inbox.len() < INBOX_MAX => process.inbox.push((source, word)),
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
        for (source, word) in std::mem::take(&mut self.processes[node].inbox) {
            let _ = self.processes[node].machine.handle_word(now, source, &word);
        }
        self.processes[node].machine.handle_timeout(now);
        self.after_input(node);
    }

    fn wake(&mut self, node: usize) {
        let now = self.now;
        let process = &mut self.processes[node];
        process.wake = None;
        if matches!(process.state, State::Running | State::Leaving) {
            process.machine.handle_timeout(now);
            self.after_input(node);
        }
    }

    /// Carries out what the machine wants, and looks whether it told the truth.
    fn after_input(&mut self, node: usize) {
        let now = self.now;
        while let Some(transmit) = self.processes[node].machine.poll_transmit() {
            self.measures.datagrams += 1;
            let bytes = transmit.bytes;
            self.network.record(&mut self.random, &bytes);
            match transmit.to {
                Destination::Everyone | Destination::EveryoneBriefly => self.send_to_everyone(node, &bytes),
                Destination::Unicast(to) | Destination::Probe(to) => {
                    if let Some(other) = node_at(to.ip()) {
                        self.send(node, other, to.port() == SHARED, &bytes);
                    }
                }
            }
        }
        while self.processes[node].machine.poll_change().is_some() {}
        while let Some(event) = self.processes[node].machine.poll_event() {
            self.measure(node, event.kind, event.member.id, event.member.stamp.epoch);
            let process = &mut self.processes[node];
            process.witness.hear(process.id, &event, &self.farewells);
        }
        while let Some(wish) = self.processes[node].machine.poll_fetch() {
            self.fetch(node, wish);
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

    fn send_to_everyone(&mut self, from: usize, bytes: &Bytes) {
        for other in (0..self.processes.len()).filter(|other| *other != from) {
            self.send(from, other, true, bytes);
        }
    }

    fn send(&mut self, from: usize, to: usize, shared: bool, bytes: &Bytes) {
        let mut addr = private_of(from);
        if shared {
            addr.set_port(SHARED);
        }
        let source = Source { addr, interface: 2, shared };
        let arrivals: Vec<_> = self.network.arrivals(&mut self.random, from, to).collect();
        for after in arrivals {
            self.at(self.now + after, Due::Arrival { to, source, bytes: bytes.clone() });
        }
    }

    fn fetch(&mut self, node: usize, wish: Fetch) {
        self.measures.fetches += 1;
        let other = self
            .by_id
            .get(&wish.from)
            .copied()
            .filter(|other| wish.at.iter().any(|at| at.ip() == ip_of(*other)));
        let cut =
            |a: usize, b: usize| self.network.cuts.contains(&(a, b)) || self.network.cuts.contains(&(b, a));
        let reached = other.filter(|other| !cut(node, *other) && self.processes[*other].id == wish.from);
        let life = self.processes[node].started;
        let (after, table) = match reached.map(|other| (other, self.processes[other].state)) {
            Some((other, State::Running | State::Leaving)) => (FETCH_TAKES, Some(self.table_of(other))),
            Some((_, State::Crashed | State::Left)) => (FETCH_TAKES, None),
            _ => (FETCH_TIMEOUT, None),
        };
        self.at(self.now + after, Due::Table { to: node, life, from: wish.from, table });
    }

    fn table_of(&mut self, node: usize) -> VerifiedTransfer {
        let transfer = self.processes[node].machine.export(self.now);
        let words = transfer.words.iter().map(|word| (self.network.word(&word.bytes), word.age)).collect();
        let floors =
            transfer.floors.iter().map(|floor| (self.network.word(&floor.bytes), floor.age)).collect();
        VerifiedTransfer { words, floors, refused: 0 }
    }

    fn measure(&mut self, node: usize, kind: EventKind, id: MemberId, epoch: Epoch) {
        let now = self.now;
        let runs = self.by_id.get(&id).is_some_and(|other| {
            let process = &self.processes[*other];
            process.id == id && process.state == State::Running
        });
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
            EventKind::Suspect if runs => self.measures.false_suspicions += 1,
            EventKind::Down if runs => self.measures.false_downs += 1,
            EventKind::Down => {
                if let Some(at) = self.crashed_at.get(&id).filter(|at| **at > self.processes[node].started) {
                    self.measures.crashes_known.add(now - *at);
                }
            }
            _ => {}
        }
    }

    /// What two nodes do not agree on, if there is anything.
    fn disagreement(&self) -> Option<String> {
        let living: BTreeSet<MemberId> =
            self.processes.iter().filter(|process| process.lives()).map(|process| process.id).collect();
        let mut digests = BTreeSet::new();
        for process in self.processes.iter().filter(|process| process.lives()) {
            let alive = process.machine.members().filter(|member| member.standing == Standing::Alive);
            let mut listed: BTreeSet<MemberId> = alive.map(|member| member.id).collect();
            listed.insert(process.id);
            if listed != living {
                let missing: Vec<_> = living
                    .difference(&listed)
                    .map(|id| {
                        let seen = process.machine.members().find(|member| member.id == *id);
                        (id, seen.map(|member| (member.standing, member.proven, member.stamp)))
                    })
                    .collect();
                let surplus: Vec<_> = listed.difference(&living).collect();
                return Some(format!("{:?} misses {missing:?}, has {surplus:?} too many", process.id));
            }
            digests.insert(process.machine.digest());
        }
        (digests.len() > 1).then(|| format!("{} different digests", digests.len()))
    }
}
