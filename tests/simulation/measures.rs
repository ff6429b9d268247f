//! How long things took.

use std::time::Duration;

/// Lengths of one kind.
#[derive(Default)]
pub struct Lengths(Vec<Duration>);

impl Lengths {
    pub fn add(&mut self, length: Duration) {
        self.0.push(length);
    }

    fn at(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index into a short list"
        )]
        let place = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
        sorted.get(place).copied()
    }

    pub fn p99_is_below(&self, most: Duration) {
        let p99 = self.at(0.99).expect("it happened at least once");
        assert!(p99 <= most, "p99 is {p99:?}, not {most:?} ({} of them)", self.0.len());
    }

    pub fn print(&self, what: &str) {
        if let (Some(half), Some(p99), Some(most)) = (self.at(0.5), self.at(0.99), self.at(1.0)) {
            println!("  {what}: p50 {half:.1?}, p99 {p99:.1?}, max {most:.1?} ({} times)", self.0.len());
        }
    }
}

/// All that a scenario measures.
#[derive(Default)]
pub struct Measures {
    /// From a node's first word until another lists it.
    pub newcomers_known: Lengths,
    /// From a node's first word until it calls its table complete.
    pub newcomers_complete: Lengths,
    /// From a farewell's first copy until another knows of it.
    pub farewells_known: Lengths,
    /// From a crash until another calls it down.
    pub crashes_known: Lengths,
    /// Times that a node which ran was called suspect, or down.
    pub false_suspicions: u64,
    pub false_downs: u64,
    pub datagrams: u64,
    pub deliveries: u64,
    pub fetches: u64,
}

impl Measures {
    pub fn print(&self) {
        self.newcomers_complete.print("newcomer complete");
        self.newcomers_known.print("newcomer known to another");
        self.farewells_known.print("farewell known to another");
        self.crashes_known.print("crash known to another");
        println!(
            "  false suspicions {}, false downs {}; {} datagrams, {} deliveries, {} tables fetched",
            self.false_suspicions, self.false_downs, self.datagrams, self.deliveries, self.fetches
        );
    }
}
