//! What one host hears and says by UDP, counted by its own kernel: what is meant for it alone, and what for all.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::network::Host;

/// Counts whole IP packets; in the order of [`Traffic`].
const RULES: &str = "table inet traffic {
counter heard_one {}
counter heard_all {}
counter said_one {}
counter said_all {}
chain heard { type filter hook input priority 0; policy accept
    iifname != \"eth0\" return
    meta l4proto != udp return
    ip daddr { 10.77.255.255, 255.255.255.255, 224.0.0.0/4 } counter name heard_all return
    ip6 daddr ff00::/8 counter name heard_all return
    counter name heard_one
}
chain said { type filter hook output priority 0; policy accept
    oifname != \"eth0\" return
    meta l4proto != udp return
    ip daddr { 10.77.255.255, 255.255.255.255, 224.0.0.0/4 } counter name said_all return
    ip6 daddr ff00::/8 counter name said_all return
    counter name said_one
}
}";

/// Packets and bytes of IP.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flow {
    packets: u64,
    bytes: u64,
}

/// What a host heard and said since it was metered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    at: Instant,
    /// Heard: meant for it alone.
    pub(crate) heard_one: Flow,
    /// Heard: meant for all.
    pub(crate) heard_all: Flow,
    /// Said to one.
    pub(crate) said_one: Flow,
    /// Said to all.
    pub(crate) said_all: Flow,
    /// Heard and lost, for the socket's buffer was full.
    pub(crate) lost: u64,
}

/// Counts the traffic of a host from here on.
#[derive(Debug)]
pub(crate) struct Meter(Host);

impl Meter {
    /// Starts to count.
    pub(crate) fn start(host: &Host) -> Result<Self> {
        nft(host, &[RULES])?;
        Ok(Self(host.clone()))
    }

    /// What has been counted so far.
    pub(crate) fn read(&self) -> Result<Traffic> {
        let listed: Value =
            serde_json::from_str(&nft(&self.0, &["-j", "list counters table inet traffic"])?)?;
        let at = Instant::now();
        let counters = listed["nftables"].as_array().context("no counters")?;
        let flow = |name: &str| {
            let found = counters.iter().map(|each| &each["counter"]).find(|counter| counter["name"] == name);
            let number = |key: &str| found.and_then(|counter| counter[key].as_u64());
            let (packets, bytes) = (number("packets"), number("bytes"));
            anyhow::Ok(Flow { packets: packets.context("packets")?, bytes: bytes.context("bytes")? })
        };
        let snmp = self.0.enter(|| fs::read_to_string("/proc/thread-self/net/snmp"))??;
        Ok(Traffic {
            at,
            heard_one: flow("heard_one")?,
            heard_all: flow("heard_all")?,
            said_one: flow("said_one")?,
            said_all: flow("said_all")?,
            lost: udp_lost(&snmp).context("no RcvbufErrors")?,
        })
    }
}

impl Traffic {
    /// What came after `before`, and in which time.
    pub(crate) fn since(&self, before: &Self) -> (Self, Duration) {
        let took = self.at - before.at;
        let difference = Self {
            at: self.at,
            heard_one: self.heard_one.less(before.heard_one),
            heard_all: self.heard_all.less(before.heard_all),
            said_one: self.said_one.less(before.said_one),
            said_all: self.said_all.less(before.said_all),
            lost: self.lost - before.lost,
        };
        (difference, took)
    }
}

impl Flow {
    fn less(self, before: Self) -> Self {
        Self { packets: self.packets - before.packets, bytes: self.bytes - before.bytes }
    }

    /// kB a second.
    pub(crate) fn rate(self, took: Duration) -> f64 {
        self.bytes as f64 / 1000.0 / took.as_secs_f64()
    }

    /// In words.
    pub(crate) fn per_second(self, took: Duration) -> String {
        format!("{:.1} kB/s ({:.0}/s)", self.rate(took), self.packets as f64 / took.as_secs_f64())
    }
}

/// The column `RcvbufErrors` of the lines `Udp:`.
fn udp_lost(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Udp:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let column = names.split_whitespace().position(|name| name == "RcvbufErrors")?;
    numbers.split_whitespace().nth(column)?.parse().ok()
}

/// Runs nft in a host; the words are its command.
fn nft(host: &Host, words: &[&str]) -> Result<String> {
    let output = host.enter(|| Command::new("nft").args(words).output())?.context("running nft")?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}
