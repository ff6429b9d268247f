//! How long things took and what they cost, counted as `tests/simulation/measures.rs` counts them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

/// Lengths of one kind.
#[derive(Default, Debug)]
pub(crate) struct Lengths(Vec<Duration>);

impl Lengths {
    pub(crate) fn add(&mut self, length: Duration) {
        self.0.push(length);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest that this share (0 to 1) of all does not exceed, in milliseconds, if `missing` more are longer
    /// than all that are known; null when it is one of those.
    fn at(&self, share: f64, missing: usize) -> Value {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index into a short list"
        )]
        let place = ((sorted.len() + missing) as f64 * share).ceil() as usize;
        sorted.get(place.saturating_sub(1)).map_or(Value::Null, |length| json!(length.as_secs_f64() * 1000.0))
    }
}

/// One who is gone: when, how many others are to find out, and when each did.
#[derive(Debug)]
struct Gone {
    at: Duration,
    observers: usize,
    last: Option<Duration>,
}

/// Words about those who are gone, in one way.
#[derive(Default, Debug)]
pub(crate) struct Deaths {
    gone: BTreeMap<usize, Gone>,
    /// From each one's end until each other knew.
    pub(crate) known: Lengths,
}

impl Deaths {
    /// This node is gone, and so many others are to find out.
    pub(crate) fn add(&mut self, node: usize, at: Duration, observers: usize) {
        self.gone.insert(node, Gone { at, observers, last: None });
    }

    /// One that started then knows that this node is gone. Whoever came after that is not asked.
    pub(crate) fn told(&mut self, node: usize, observer_started: Duration, now: Duration) {
        if let Some(gone) = self.gone.get_mut(&node).filter(|gone| observer_started <= gone.at) {
            gone.last = Some(now);
            self.known.add(now - gone.at);
        }
    }

    /// Words that never came.
    pub(crate) fn missed(&self) -> usize {
        let expected: usize = self.gone.values().map(|gone| gone.observers).sum();
        expected.saturating_sub(self.known.count())
    }

    /// From each end until the last that found out.
    fn known_to_all(&self) -> Lengths {
        Lengths(self.gone.values().filter_map(|gone| Some(gone.last? - gone.at)).collect())
    }
}

/// Payloads sent and received by all in a stretch of time; headers are not counted, and what is lost is only sent.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Traffic {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

/// All that a scenario measures.
#[derive(Default, Debug)]
pub(crate) struct Measures {
    pub(crate) crashes: Deaths,
    pub(crate) leaves: Deaths,
    /// From a newcomer's first word until it lists all who were there then.
    pub(crate) newcomers_complete: Lengths,
    /// Newcomers that never did.
    pub(crate) newcomers_incomplete: usize,
    /// Times that a sound member called a sound one down.
    pub(crate) false_downs: u64,
    /// The same where one of the two stood still or had just done so.
    pub(crate) excusable_downs: u64,
    /// Times that a living member was told that it is down, and so took another identity.
    pub(crate) renewals: u64,
    /// Inputs that foca answered with an error.
    pub(crate) errors: u64,
    /// Since the scenario began.
    pub(crate) traffic: Traffic,
    /// While nothing happened: what was counted, of how many nodes, for how long.
    pub(crate) steady: Option<(Traffic, usize, Duration)>,
    /// Virtual seconds of all living nodes together, since the island had settled.
    pub(crate) node_seconds: f64,
    /// From the first start until all listed all; `None`: they did not by themselves.
    pub(crate) settled: Option<Duration>,
}

impl Measures {
    /// The report's line.
    pub(crate) fn line(&self, product: &str, members: usize, loss: f64, length: Duration) -> Value {
        let days = self.node_seconds / 86_400.0;
        let (traffic, nodes, watched) = self.steady.unwrap_or_default();
        let node_seconds = nodes as f64 * watched.as_secs_f64();
        let (crashes, leaves) = (&self.crashes, &self.leaves);
        let to_all = crashes.known_to_all();
        let newcomers = |share| self.newcomers_complete.at(share, self.newcomers_incomplete);
        json!({
            "scenario": format!("{members} members, {} % loss, detection", loss * 100.0),
            "product": product,
            "members": members,
            "loss": loss,
            "seconds": length.as_secs_f64(),
            "settled_ms": self.settled.map(|settled| settled.as_secs_f64() * 1000.0),
            "crashes": crashes.gone.len(),
            "crash_p50_ms": crashes.known.at(0.5, 0),
            "crash_p99_ms": crashes.known.at(0.99, 0),
            "crash_max_ms": crashes.known.at(1.0, 0),
            "crash_all_p50_ms": to_all.at(0.5, 0),
            "crash_all_max_ms": to_all.at(1.0, 0),
            "leaves": leaves.gone.len(),
            "leave_p50_ms": leaves.known.at(0.5, 0),
            "leave_p99_ms": leaves.known.at(0.99, 0),
            "leave_max_ms": leaves.known.at(1.0, 0),
            "missed": crashes.missed() + leaves.missed(),
            "false_downs": self.false_downs,
            "false_downs_per_node_day": self.false_downs as f64 / days.max(f64::MIN_POSITIVE),
            "excusable_downs": self.excusable_downs,
            "renewals": self.renewals,
            "errors": self.errors,
            "node_days": days,
            "bytes_per_second": traffic.bytes as f64 / node_seconds,
            "unicast_bytes_per_second": traffic.bytes as f64 / node_seconds,
            "packets_per_second": traffic.packets as f64 / node_seconds,
            "newcomers": self.newcomers_complete.count() + self.newcomers_incomplete,
            "newcomers_incomplete": self.newcomers_incomplete,
            "newcomer_p50_ms": newcomers(0.5),
            "newcomer_p99_ms": newcomers(0.99),
            "newcomer_max_ms": newcomers(1.0),
        })
    }
}
