//! What a node has heard of each other one, and the beacons that are kept from its machine, for they change nothing.
//!
//! A beacon that says what the last one said, of a member whose pulses wait unverified, is good for one thing: its author has
//! given a sign. So of those the machine is told one, and else that all have given signs, until it would verify another; of what is
//! kept it is told the newest of each author as soon as anything could depend on it.

use std::time::{Duration, Instant};

/// Whoever said nothing to all for so long is known to be gone.
const GONE: Duration = Duration::from_secs(5);

/// Milliseconds since the world began.
type Millis = u32;

fn millis(length: Duration) -> Millis {
    Millis::try_from(length.as_millis()).expect("a few days")
}

/// Of one author, by its node.
#[derive(Clone, Copy, Default)]
struct Ear {
    /// When it was last heard; 0: never.
    heard: Millis,
    /// Until when what says the same is kept.
    keeps_until: Millis,
    /// How often it had said something else by then that the machine was told of last.
    changes: u32,
    /// Number of the murmur that is kept, and one.
    kept: u32,
}

/// Those of one node.
#[derive(Default)]
pub struct Ears {
    of: Vec<Ear>,
    /// The authors of what is kept.
    kept: Vec<u32>,
}

impl Ears {
    /// A murmur came, so long after the beginning. Returns whether it is kept: it may be where the machine was told of one after
    /// so many changes.
    pub fn hear(&mut self, from: usize, at: Duration, number: u64, changes: Option<u32>) -> bool {
        if from >= self.of.len() {
            self.of.resize(from + 1, Ear::default());
        }
        let at = millis(at);
        let ear = &mut self.of[from];
        ear.heard = ear.heard.max(at);
        let number = u32::try_from(number + 1).expect("a few hundred million");
        let is_kept = changes == Some(ear.changes) && at < ear.keeps_until;
        let before = std::mem::replace(&mut ear.kept, if is_kept { number } else { 0 });
        if is_kept && before == 0 {
            self.kept.push(u32::try_from(from).expect("a few thousand nodes"));
        }
        is_kept
    }

    /// The machine was told of a word of this author, said after so many changes, and lets others that say the same wait until so
    /// long after the beginning, if it does.
    pub fn told(&mut self, from: usize, changes: u32, waits: Option<Duration>) {
        let ear = &mut self.of[from];
        ear.changes = changes;
        ear.keeps_until = waits.map_or(0, millis);
    }

    /// The numbers of all that is kept, in order; it is not kept any more.
    pub fn take_kept(&mut self) -> Vec<u64> {
        let authors = std::mem::take(&mut self.kept);
        let kept = authors.iter().map(|from| std::mem::take(&mut self.of[*from as usize].kept));
        let mut numbers: Vec<u64> = kept.filter_map(|number| u64::from(number).checked_sub(1)).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// When each node first and last said something to all; 0: never.
#[derive(Default)]
pub struct Speakers {
    spoke: Vec<(Millis, Millis)>,
}

impl Speakers {
    pub fn speaks(&mut self, node: usize, at: Duration) {
        if node >= self.spoke.len() {
            self.spoke.resize(node + 1, (0, 0));
        }
        let (first, last) = &mut self.spoke[node];
        *last = millis(at);
        if *first == 0 {
            *first = *last;
        }
    }

    /// Since when these ears, of that node, have heard all who are not gone, if they have spoken before.
    pub fn all_heard_since(&self, ears: &Ears, node: usize, began: Instant, now: Instant) -> Instant {
        let gone = millis((now - began).saturating_sub(GONE));
        let others = self.spoke.iter().enumerate().filter(|(from, (_, last))| *from != node && *last >= gone);
        let heard = others.map(|(from, (first, _))| ears.of.get(from).map_or(0, |ear| ear.heard).max(*first));
        heard.min().map_or(now, |least| began + Duration::from_millis(least.into()))
    }
}
