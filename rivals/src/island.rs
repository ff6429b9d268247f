//! Many processes on one network, in virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::Duration;

use foca::{Config, Member, OwnedNotification, Timer};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::machine::{Identity, Machine, Outbox, Process, State};
use crate::measures::{Measures, Traffic};

/// A datagram takes up to this long.
const DELAY_MAX: Duration = Duration::from_millis(2);
/// A socket holds so many datagrams of a process that stands still.
const INBOX_MAX: usize = 5_000;
/// A newcomer that nobody has answered asks another.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(1);
/// Who stood still is not blamed, nor believed, for so long after.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Something that will happen to a node.
enum Due {
    Datagram(Vec<u8>),
    Timer(Timer<Identity>),
    Announce,
    Stall,
    Resume,
}

pub(crate) struct Island {
    pub(crate) now: Duration,
    pub(crate) processes: Vec<Process>,
    pub(crate) measures: Measures,
    config: Config,
    loss: f64,
    random: SmallRng,
    /// When, in which order, to whom, and where in `dues`.
    agenda: BinaryHeap<Reverse<(Duration, u64, usize, usize)>>,
    dues: Vec<Option<Due>>,
    free: Vec<usize>,
    counted: u64,
    /// (observer, node): that this one is gone is told once.
    told: BTreeSet<(usize, usize)>,
}

impl Island {
    pub(crate) fn new(config: Config, loss: f64, seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            processes: Vec::new(),
            measures: Measures::default(),
            config,
            loss,
            random: SmallRng::seed_from_u64(seed),
            agenda: BinaryHeap::new(),
            dues: Vec::new(),
            free: Vec::new(),
            counted: 0,
            told: BTreeSet::new(),
        }
    }

    /// A node starts now, and asks one that runs for the others.
    pub(crate) fn start(&mut self) {
        let node = self.processes.len();
        let mut process = Process::start(node, self.config.clone(), self.random.random(), self.now);
        process.unheard = self.living().collect();
        self.processes.push(process);
        self.announce(node);
    }

    /// One of those that run ends without a word.
    pub(crate) fn crash(&mut self) {
        if let Some(node) = self.one_that_runs(None) {
            self.processes[node].state = State::Crashed;
            self.measures.crashes.add(node, self.now, self.living().count());
        }
    }

    /// One of those that run says that it goes, and ends.
    pub(crate) fn leave(&mut self) {
        if let Some(node) = self.one_that_runs(None) {
            self.act(node, |machine, outbox| machine.leave_cluster(outbox));
            self.processes[node].state = State::Left;
            self.measures.leaves.add(node, self.now, self.living().count());
        }
    }

    /// A share of all stands still now and then from here on.
    pub(crate) fn stall(&mut self, share: f64) {
        let living: Vec<usize> = self.living().collect();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a short list"
        )]
        let count = (living.len() as f64 * share) as usize;
        for node in living.into_iter().take(count) {
            self.processes[node].stalls = true;
            self.stall_later(node);
        }
    }

    /// Whether everybody has heard of all who were there when it came, and who live.
    pub(crate) fn all_know_all(&self) -> bool {
        let living: Vec<usize> = self.living().collect();
        living.iter().all(|node| self.processes[*node].machine.num_members() + 1 >= living.len())
    }

    /// Gives everybody the whole list, as a user of foca would over a connection of his own.
    pub(crate) fn tell_all(&mut self) {
        let living: Vec<usize> = self.living().collect();
        let all: Vec<Member<Identity>> =
            living.iter().map(|node| Member::alive(*self.processes[*node].machine.identity())).collect();
        for node in living {
            let list = all.clone();
            self.act(node, |machine, outbox| machine.apply_many(list.into_iter(), false, outbox));
        }
    }

    pub(crate) fn run_for(&mut self, length: Duration) {
        let end = self.now + length;
        let began = self.now;
        while let Some(Reverse((at, _, node, place))) = self.agenda.peek().copied() {
            if at > end {
                break;
            }
            self.agenda.pop();
            self.free.push(place);
            self.now = at;
            if let Some(due) = self.dues[place].take() {
                self.happen(node, due);
            }
        }
        self.now = end;
        self.measures.node_seconds += self.living().count() as f64 * (end - began).as_secs_f64();
    }

    /// Counts what is said while nothing happens.
    pub(crate) fn stay_quiet_for(&mut self, length: Duration) {
        let before = self.measures.traffic;
        self.run_for(length);
        let after = self.measures.traffic;
        let counted = Traffic { bytes: after.bytes - before.bytes, packets: after.packets - before.packets };
        self.measures.steady = Some((counted, self.living().count(), length));
    }

    fn living(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.processes.len()).filter(|node| self.processes[*node].lives())
    }

    /// Somebody that runs and does not stand still now, other than this one.
    fn one_that_runs(&mut self, but: Option<usize>) -> Option<usize> {
        let mut running: Vec<usize> = (0..self.processes.len())
            .filter(|node| self.processes[*node].state == State::Running && Some(*node) != but)
            .collect();
        (!running.is_empty()).then(|| running.swap_remove(self.random.random_range(0..running.len())))
    }

    fn at(&mut self, at: Duration, node: usize, due: Due) {
        self.counted += 1;
        let place = self.free.pop().unwrap_or(self.dues.len());
        if place == self.dues.len() {
            self.dues.push(None);
        }
        self.dues[place] = Some(due);
        self.agenda.push(Reverse((at, self.counted, node, place)));
    }

    fn stall_later(&mut self, node: usize) {
        let after = Duration::from_millis(self.random.random_range(500..3_500));
        self.at(self.now + after, node, Due::Stall);
    }

    fn announce(&mut self, node: usize) {
        if self.processes[node].machine.num_members() > 0 {
            return;
        }
        if let Some(other) = self.one_that_runs(Some(node)) {
            let to = *self.processes[other].machine.identity();
            self.act(node, |machine, outbox| machine.announce(to, outbox));
        }
        self.at(self.now + ANNOUNCE_AGAIN, node, Due::Announce);
    }

    fn happen(&mut self, node: usize, due: Due) {
        match (self.processes[node].state, due) {
            (State::Running, Due::Datagram(bytes)) => self.receive(node, &bytes),
            (State::Running, Due::Timer(timer)) => {
                self.act(node, |machine, outbox| machine.handle_timer(timer, outbox));
            }
            (State::Running, Due::Announce) => self.announce(node),
            (State::Running, Due::Stall) => {
                let until = self.now + Duration::from_millis(self.random.random_range(200..1_500));
                self.processes[node].state = State::Stalled(until);
                self.at(until, node, Due::Resume);
            }
            (State::Stalled(_), Due::Datagram(bytes)) if self.processes[node].inbox.len() < INBOX_MAX => {
                self.processes[node].inbox.push(bytes);
            }
            (State::Stalled(_), Due::Timer(timer)) => self.processes[node].overdue.push(timer),
            (State::Stalled(until), Due::Resume) if until == self.now => self.resume(node),
            (State::Stalled(until), due @ Due::Announce) => self.at(until, node, due),
            _ => {}
        }
    }

    /// It empties its socket, then does what is overdue, in the order that foca asks for.
    fn resume(&mut self, node: usize) {
        let process = &mut self.processes[node];
        process.state = State::Running;
        process.resumed = Some(self.now);
        for bytes in std::mem::take(&mut process.inbox) {
            self.receive(node, &bytes);
        }
        let mut overdue = std::mem::take(&mut self.processes[node].overdue);
        overdue.sort();
        for timer in overdue {
            self.act(node, |machine, outbox| machine.handle_timer(timer, outbox));
        }
        self.stall_later(node);
    }

    fn receive(&mut self, node: usize, bytes: &[u8]) {
        self.act(node, |machine, outbox| machine.handle_data(bytes, outbox));
    }

    /// Lets a machine do something, and carries out what it wants.
    fn act(&mut self, node: usize, what: impl FnOnce(&mut Machine, &mut Outbox) -> Result<(), foca::Error>) {
        let mut outbox = Outbox::default();
        if what(&mut self.processes[node].machine, &mut outbox).is_err() {
            self.measures.errors += 1;
        }
        for (timer, after) in outbox.timers {
            self.at(self.now + after, node, Due::Timer(timer));
        }
        for (to, bytes) in outbox.datagrams {
            self.send(to.node(), bytes);
        }
        for news in outbox.news {
            self.tell(node, news);
        }
    }

    fn send(&mut self, to: usize, bytes: Vec<u8>) {
        self.count(bytes.len());
        if to >= self.processes.len() || self.random.random_bool(self.loss) {
            return;
        }
        self.count(bytes.len());
        let after = DELAY_MAX.mul_f64(self.random.random_range(0.0..1.0));
        self.at(self.now + after, to, Due::Datagram(bytes));
    }

    fn count(&mut self, bytes: usize) {
        self.measures.traffic.bytes += bytes as u64;
        self.measures.traffic.packets += 1;
    }

    fn tell(&mut self, observer: usize, news: OwnedNotification<Identity>) {
        match news {
            OwnedNotification::MemberUp(id) => {
                let process = &mut self.processes[observer];
                if process.unheard.remove(&id.node()) && process.unheard.is_empty() {
                    self.measures.newcomers_complete.add(self.now - process.started);
                }
            }
            OwnedNotification::MemberDown(id) => self.tell_down(observer, id.node()),
            OwnedNotification::Rejoin(_) => self.measures.renewals += 1,
            _ => {}
        }
    }

    fn tell_down(&mut self, observer: usize, node: usize) {
        let [watcher, watched] = [&self.processes[observer], &self.processes[node]];
        let started = watcher.started;
        if watched.lives() {
            let sound = [watcher, watched].iter().all(|process| process.is_healthy(self.now, AFTERMATH));
            let counter =
                if sound { &mut self.measures.false_downs } else { &mut self.measures.excusable_downs };
            *counter += 1;
        } else if self.told.insert((observer, node)) {
            let deaths = match watched.state {
                State::Left => &mut self.measures.leaves,
                _ => &mut self.measures.crashes,
            };
            deaths.told(node, started, self.now);
        }
    }
}
