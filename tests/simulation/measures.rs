//! How long things took.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use isle_mesh::event::EventKind;
use isle_mesh::member::MemberId;

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

    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    pub fn p99_is_below(&self, most: Duration) {
        let p99 = self.at(0.99).expect("it happened at least once");
        assert!(p99 <= most, "p99 is {p99:?}, not {most:?} ({} of them)", self.0.len());
    }

    pub fn max_is_below(&self, most: Duration) {
        let max = self.at(1.0).expect("it happened at least once");
        assert!(max <= most, "the most is {max:?}, not {most:?} ({} of them)", self.0.len());
    }

    pub fn print(&self, what: &str) {
        if let (Some(half), Some(p99), Some(most)) = (self.at(0.5), self.at(0.99), self.at(1.0)) {
            println!("  {what}: p50 {half:.1?}, p99 {p99:.1?}, max {most:.1?} ({} times)", self.0.len());
        }
    }
}

/// All who follow one certificate do so within this.
const ONE_VERDICT: Duration = Duration::from_secs(5);

/// Bytes and datagrams of one node in the second that runs.
#[derive(Default)]
pub struct Traffic {
    sent: [u64; 2],
    received: [u64; 2],
    datagrams: u64,
    /// Sent and received by what it was: a datagram's kind, or [`TABLE`].
    kinds: [u64; KINDS.len()],
}

/// What traffic consists of, by the number of its kind.
const KINDS: [&str; 14] = [
    "table", "ANNOUNCE", "BEACON", "HELLO", "OFFER", "COOKIE", "PING", "PONG", "FAREWELL", "HINT", "SUSPECT",
    "DOWN", "PROOF", "ROUTES",
];
/// A whole table, over TCP: no datagram has this kind.
pub const TABLE: u8 = 0;

impl Traffic {
    pub fn sent(&mut self, kind: u8, for_all: bool, bytes: usize) {
        self.sent[usize::from(for_all)] += bytes as u64;
        self.count(kind, bytes);
    }

    pub fn received(&mut self, kind: u8, for_all: bool, bytes: usize) {
        self.received[usize::from(for_all)] += bytes as u64;
        self.count(kind, bytes);
    }

    fn count(&mut self, kind: u8, bytes: usize) {
        self.datagrams += 1;
        self.kinds[usize::from(kind)] += bytes as u64;
    }
}

/// What all nodes sent and received in one second.
#[derive(Clone, Copy, Default)]
struct Sum {
    nodes: u64,
    bytes: u64,
    kinds: [u64; KINDS.len()],
}

impl Sum {
    fn mean(&self) -> u64 {
        self.bytes / self.nodes.max(1)
    }

    /// Bytes a node of each kind, the most first.
    fn by_kind(&self) -> String {
        let mut kinds: Vec<_> = KINDS.iter().zip(self.kinds.map(|bytes| bytes / self.nodes.max(1))).collect();
        kinds.retain(|(_, bytes)| *bytes > 0);
        kinds.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        kinds.iter().map(|(kind, bytes)| format!("{kind} {bytes}")).collect::<Vec<_>>().join(", ")
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
    /// When each crashed, and when the last observer so far called it down.
    crashes: BTreeMap<MemberId, (Instant, Option<Instant>)>,
    /// How often others were to find out that somebody crashed.
    observers: usize,
    /// Times that a sound node called a sound one suspect, or down.
    pub false_suspicions: u64,
    pub false_downs: u64,
    /// The same by verdict: however many called that one down, if each did so soon after the one before.
    pub false_verdicts: u64,
    /// When each sound one was last called down by a sound one.
    wronged: BTreeMap<MemberId, Instant>,
    /// Times that somebody was called down who lived, but had stood still, or was by one that had.
    pub excusable_downs: u64,
    /// Suspicions, downs and returns told by sound nodes.
    pub events: u64,
    /// Events of all kinds, but that somebody who was gone is forgotten.
    pub told_of_the_living: u64,
    pub datagrams: u64,
    pub deliveries: u64,
    pub fetches: u64,
    seconds: u64,
    unicast: u64,
    for_all: u64,
    packets: u64,
    /// Bytes to and from one, to and from all, and datagrams of a node and second, if later ones do not count.
    kept: Option<[u64; 3]>,
    /// The most that one node sent and received in one second, and the most that all did on average.
    pub worst: u64,
    pub worst_mean: u64,
    /// The second that runs, and those before it that count.
    second: Sum,
    past: Vec<Sum>,
}

/// Of longer scenarios the first seconds are shown.
const SHOWN_MAX: usize = 10;

impl Measures {
    /// It is gone without a word, and so many are to find out.
    pub fn crash(&mut self, id: MemberId, now: Instant, observers: usize) {
        self.crashes.insert(id, (now, None));
        self.observers += observers;
    }

    pub fn found(&mut self, id: MemberId, now: Instant) {
        if let Some((_, last)) = self.crashes.get_mut(&id) {
            *last = Some(now);
        }
    }

    /// A sound one called a sound one down.
    pub fn false_down(&mut self, id: MemberId, now: Instant) {
        self.false_downs += 1;
        let last = self.wronged.insert(id, now);
        if last.is_none_or(|last| now - last > ONE_VERDICT) {
            self.false_verdicts += 1;
        }
    }

    fn node_days(&self) -> f64 {
        self.seconds as f64 / 86_400.0
    }

    /// How often a sound member is called down by anybody sound in a day of its life.
    pub fn false_verdicts_per_node_day(&self) -> f64 {
        self.false_verdicts as f64 / self.node_days().max(f64::MIN_POSITIVE)
    }

    pub fn told(&mut self, kind: EventKind) {
        self.told_of_the_living += u64::from(kind != EventKind::Forgotten);
    }

    /// A node thinks that somebody is silent or gone, or is no more; `sound`: it is well, and hears that one.
    pub fn judged(&mut self, sound: bool) {
        self.events += u64::from(sound);
    }

    /// Puts what a node counted in a second to the rest.
    pub fn second(&mut self, traffic: &mut Traffic, lived: bool) {
        let traffic = std::mem::take(traffic);
        let unicast = traffic.sent[0] + traffic.received[0];
        let for_all = traffic.sent[1] + traffic.received[1];
        if lived {
            self.seconds += 1;
            self.unicast += unicast;
            self.for_all += for_all;
            self.packets += traffic.datagrams;
            self.worst = self.worst.max(unicast + for_all);
            self.second.nodes += 1;
            self.second.bytes += unicast + for_all;
            for (sum, bytes) in self.second.kinds.iter_mut().zip(traffic.kinds) {
                *sum += bytes;
            }
        }
    }

    /// The island's second is over.
    pub fn second_is_over(&mut self) {
        let second = std::mem::take(&mut self.second);
        self.worst_mean = self.worst_mean.max(second.mean());
        self.past.push(second);
    }

    /// Forgets traffic so far: what follows is another phase.
    pub fn restart_traffic(&mut self) {
        (self.seconds, self.unicast, self.for_all, self.packets) = (0, 0, 0, 0);
        (self.worst, self.worst_mean) = (0, 0);
        self.past.clear();
    }

    /// What is said from here on does not count as traffic of a node and second.
    pub fn keep_traffic(&mut self) {
        self.kept = Some(self.rates());
    }

    /// Forgets the newcomers so far.
    pub fn forget_newcomers(&mut self) {
        self.newcomers_complete = Lengths::default();
        self.newcomers_known = Lengths::default();
    }

    /// Bytes a node and second: unicast, and for all; sent and received.
    pub fn bytes_per_second(&self) -> (u64, u64) {
        let [unicast, for_all, _] = self.rates();
        (unicast, for_all)
    }

    fn rates(&self) -> [u64; 3] {
        let sums = [self.unicast, self.for_all, self.packets];
        self.kept.unwrap_or(sums.map(|sum| sum / self.seconds.max(1)))
    }

    /// From each crash until the last that found it had done so.
    pub fn crashes_known_to_all(&self) -> Lengths {
        Lengths(self.crashes.values().filter_map(|(at, last)| Some((*last)? - *at)).collect())
    }

    pub fn crashes_unnoticed(&self) -> usize {
        self.crashes.values().filter(|(_, last)| last.is_none()).count()
    }

    /// Prints it all, and appends a line of JSON to the file named by `ISLE_SIMULATION_REPORT`.
    pub fn print(&self, what: &str, members: usize, length: Duration) {
        println!("{what}: {members} members at the end, {length:.0?}");
        self.newcomers_complete.print("newcomer complete");
        self.newcomers_known.print("newcomer known to another");
        self.farewells_known.print("farewell known to another");
        self.crashes_known.print("crash known to another");
        let to_all = self.crashes_known_to_all();
        to_all.print("crash known to all");
        let days = self.node_days();
        println!(
            "  false suspicions {}, false downs {}, in {} verdicts ({:.3} a node and day; {days:.3} node-days), excusable downs {}",
            self.false_suspicions,
            self.false_downs,
            self.false_verdicts,
            self.false_verdicts_per_node_day(),
            self.excusable_downs
        );
        let [unicast, for_all, packets] = self.rates();
        println!(
            "  a node and second: {unicast} B to and from one, {for_all} B to and from all, {} datagrams; worst {} B, worst mean {} B",
            packets, self.worst, self.worst_mean
        );
        println!(
            "  {} datagrams, {} deliveries, {} tables fetched",
            self.datagrams, self.deliveries, self.fetches
        );
        for (number, second) in self.past.iter().enumerate().take(SHOWN_MAX) {
            println!("  second {}: {} B a node: {}", number + 1, second.mean(), second.by_kind());
        }
        let Some(path) = std::env::var_os("ISLE_SIMULATION_REPORT") else { return };
        let ms = |length: Option<Duration>| length.map(|length| length.as_secs_f64() * 1000.0);
        let line = serde_json::json!({
            "scenario": what,
            "product": "isle",
            "members": members,
            "seconds": length.as_secs_f64(),
            "crashes": self.crashes.len(),
            "crash_p50_ms": ms(self.crashes_known.at(0.5)),
            "crash_p99_ms": ms(self.crashes_known.at(0.99)),
            "crash_max_ms": ms(self.crashes_known.at(1.0)),
            "crash_all_p50_ms": ms(to_all.at(0.5)),
            "crash_all_max_ms": ms(to_all.at(1.0)),
            "leave_p50_ms": ms(self.farewells_known.at(0.5)),
            "leave_p99_ms": ms(self.farewells_known.at(0.99)),
            "leave_max_ms": ms(self.farewells_known.at(1.0)),
            "false_downs": self.false_downs,
            "false_downs_per_node_day": self.false_downs as f64 / days.max(f64::MIN_POSITIVE),
            "false_verdicts": self.false_verdicts,
            "node_days": days,
            "bytes_per_second": unicast + for_all,
            "unicast_bytes_per_second": unicast,
            "packets_per_second": packets,
            "newcomer_p50_ms": ms(self.newcomers_complete.at(0.5)),
            "newcomer_p99_ms": ms(self.newcomers_complete.at(0.99)),
            "newcomer_max_ms": ms(self.newcomers_complete.at(1.0)),
            // An observer that ended before it found out is one of them.
            "missed": self.observers.saturating_sub(self.crashes_known.0.len()),
        });
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        writeln!(file.expect("the report can be written"), "{line}").expect("the report can be written");
    }
}
