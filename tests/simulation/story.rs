//! The sentences that scenarios are made of.

use std::time::Duration;

use isle_mesh::member::{Epoch, LeaveReason};
use rand::RngExt;

use crate::process::State;
use crate::world::World;

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
        for start in self.take_agenda() {
            let after = length.mul_f64(self.random.random_range(0.0..1.0));
            self.at(self.now + after, start);
        }
        self
    }

    /// What is said to one node is lost in bursts of this mean length, path by path.
    pub fn in_bursts(mut self, mean: Duration) -> Self {
        self.network.burst = Some(mean);
        self
    }

    /// Everything is lost to one node at a time, in bursts of this mean length: node by node.
    pub fn with_deaf_moments(mut self, mean: Duration) -> Self {
        self.network.deafness = Some(mean);
        self
    }

    /// A number below `sides`.
    pub fn lot(&mut self, sides: u32) -> u32 {
        self.random.random_range(0..sides)
    }

    pub fn crash(&mut self, count: usize) -> &mut Self {
        for node in self.some_that_run(count) {
            self.crash_of(node);
        }
        self
    }

    pub fn crash_of(&mut self, node: usize) {
        self.processes[node].state = State::Crashed;
        self.note_crash(node);
    }

    /// The one that started last.
    pub fn crash_newest(&mut self) -> &mut Self {
        let node = self.processes.len() - 1;
        self.processes[node].state = State::Crashed;
        self.note_crash(node);
        self
    }

    pub fn farewell(&mut self, count: usize) -> &mut Self {
        for node in self.some_that_run(count) {
            self.farewell_of(node);
        }
        self
    }

    pub fn farewell_of(&mut self, node: usize) {
        let now = self.now;
        let process = &mut self.processes[node];
        process.state = State::Leaving;
        self.farewells.insert(process.id, process.epoch);
        self.farewell_at.insert(process.id, now);
        process.machine.leave(now, LeaveReason::Stopped);
        self.after_input(node);
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
            self.restart_of(node);
        }
        self
    }

    pub fn restart_of(&mut self, node: usize) {
        let (key, epoch) = (self.processes[node].key, self.processes[node].epoch);
        self.start(node, key, Epoch(epoch.0 + 1));
    }

    /// Crash and start again at once at the same address, with a new key: what most nodes do.
    pub fn restart_with_fresh_key(&mut self, count: usize) -> &mut Self {
        for node in self.some_that_run(count) {
            self.restart_afresh(node);
        }
        self
    }

    pub fn restart_afresh(&mut self, node: usize) {
        self.note_crash(node);
        self.keys += 1;
        self.start(node, self.keys, Epoch(1));
    }

    pub fn stall(&mut self, count: usize, least: Duration, most: Duration) -> &mut Self {
        for node in self.some_that_run(count) {
            let until = self.now + least + (most - least).mul_f64(self.random.random_range(0.0..1.0));
            self.stand_still(node, until);
        }
        self
    }

    pub fn cut_one_way(&mut self, count: usize) -> &mut Self {
        for _ in 0..count {
            let pair = self.some_that_run(2);
            if let [from, to] = pair[..] {
                self.note(from, format_args!("is not heard by n{to} any more"));
                self.network.cuts.insert((from, to));
            }
        }
        self
    }

    /// Even and odd nodes do not hear each other any more.
    pub fn cut_in_two(&mut self) -> &mut Self {
        self.note_of_all(format_args!("even and odd do not hear each other"));
        self.network.halved = true;
        self
    }

    pub fn heal_cuts(&mut self) -> &mut Self {
        self.note_of_all(format_args!("everybody hears everybody"));
        self.network.cuts.clear();
        self.network.halved = false;
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

    /// A share of all nodes stands still now and then from here on: for 0.2 to 1.5 s, after 0.5 to 3.5 s.
    pub fn stalls_of(&mut self, share: f64) -> &mut Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a few thousand"
        )]
        let count = (self.processes.len() as f64 * share) as usize;
        for node in self.some_that_run(count) {
            self.processes[node].stalls = true;
            self.stall_later(node);
        }
        self
    }
}
