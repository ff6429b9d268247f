//! What one product was seen to do, shown and written down.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::measure::percentile;
use crate::network::Host;
use crate::runner::Run;

/// What happens to a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Crash,
    Unplug,
    Leave,
}

/// Samples of one product.
#[derive(Default, Debug)]
pub(super) struct Told {
    /// Killed with no last word.
    pub(super) crash: Vec<Duration>,
    /// Cut off.
    pub(super) unplug: Vec<Duration>,
    /// Gone on purpose, from the signal on.
    pub(super) leave: Vec<Duration>,
    /// Known to be stopping, so that nobody chooses it any more: what comes before a farewell.
    pub(super) draining: Vec<Duration>,
    /// The farewell counted from its first datagram.
    pub(super) farewell: Vec<Duration>,
    /// Words that never came.
    pub(super) missed: usize,
    /// What was said of the living.
    pub(super) false_downs: usize,
    /// While nothing happens, and this product is alone.
    pub(super) traffic: Option<Traffic>,
}

impl Told {
    /// Times of what is said of this fate.
    pub(super) fn of(&mut self, fate: Fate) -> &mut Vec<Duration> {
        match fate {
            Fate::Crash => &mut self.crash,
            Fate::Unplug => &mut self.unplug,
            Fate::Leave => &mut self.leave,
        }
    }

    /// Prints a product's numbers, and appends them to the report that `ISLE_SIMULATION_REPORT` names.
    pub(super) fn show(&self, run: &Run, product: &str, members: usize, loss_per_mille: u32) -> Result<()> {
        let measures = &run.measures;
        for (what, samples) in [
            ("kill -9: known down to another", &self.crash),
            ("unplugged: known down to another", &self.unplug),
            ("Ctrl+C: known to have left to another", &self.leave),
            ("Ctrl+C: known to be stopping to another", &self.draining),
            ("farewell known to another, after its first datagram", &self.farewell),
        ] {
            samples.iter().for_each(|took| measures.add(&format!("{product}: {what}"), *took));
        }
        measures.note(format!(
            "{product}: {} false `down`, {} words that never came, of {} members and {} ‰ loss",
            self.false_downs, self.missed, members, loss_per_mille
        ));
        let traffic = self.traffic.context("measured before")?;
        measures.note(format!(
            "{product}, idle, each host: {:.0} bytes/s in {:.1} packets/s sent, {:.0} bytes/s in {:.1} packets/s received",
            traffic.bytes_sent, traffic.packets_sent, traffic.bytes_received, traffic.packets_received
        ));
        let Some(report) = env::var_os("ISLE_SIMULATION_REPORT") else { return Ok(()) };
        let mut line = json!({
            "scenario": "detection::beside_serf",
            "product": product,
            "members": members,
            "loss": f64::from(loss_per_mille) / 1000.0,
            "false_downs": self.false_downs,
            "missed": self.missed,
            "bytes_per_second": traffic.bytes_sent,
            "packets_per_second": traffic.packets_sent,
            "received_bytes_per_second": traffic.bytes_received,
            "received_packets_per_second": traffic.packets_received,
        });
        for (what, samples) in [
            ("crash", &self.crash),
            ("unplug", &self.unplug),
            ("leave", &self.leave),
            ("draining", &self.draining),
            ("farewell", &self.farewell),
        ] {
            for (name, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
                line[format!("{what}_{name}_ms")] = millis(samples, percent);
            }
        }
        let mut file = File::options().create(true).append(true).open(report)?;
        writeln!(file, "{line}")?;
        Ok(())
    }
}

/// What a host says and hears in a second, all protocols and headers included; the mean of all hosts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    bytes_sent: f64,
    packets_sent: f64,
    bytes_received: f64,
    packets_received: f64,
}

impl Traffic {
    /// Measures for so long.
    pub(super) fn of(hosts: &[Host], watched: Duration) -> Result<Self> {
        let began = Instant::now();
        let before = hosts.iter().map(counters).collect::<Result<Vec<_>>>()?;
        thread::sleep(watched);
        let after = hosts.iter().map(counters).collect::<Result<Vec<_>>>()?;
        let per = began.elapsed().as_secs_f64() * hosts.len() as f64;
        let rate = |field: usize| {
            let sum: u64 =
                before.iter().zip(&after).map(|(before, after)| after[field] - before[field]).sum();
            sum as f64 / per
        };
        Ok(Self {
            bytes_received: rate(0),
            packets_received: rate(1),
            bytes_sent: rate(2),
            packets_sent: rate(3),
        })
    }
}

fn millis(samples: &[Duration], percent: usize) -> Value {
    match samples {
        [] => Value::Null,
        _ => json!(percentile(samples, percent).as_secs_f64() * 1000.0),
    }
}

/// Bytes and packets received, bytes and packets sent by a host's card so far.
fn counters(host: &Host) -> Result<[u64; 4]> {
    let text = host.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).context("no eth0")?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let field = |at: usize| fields.get(at).copied().with_context(|| format!("{line:?} is too short"));
    // Receiving takes the first eight columns (proc(5)).
    Ok([field(0)?, field(1)?, field(8)?, field(9)?])
}
