//! The real program in a host: started, spoken to, stopped in every way a person or a fault would.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use isle_mesh::member::Record;
use isle_mesh::wire::{Message, SIGNATURE_BYTES};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;

use crate::client;
use crate::events::EventLog;
use crate::network::Host;

/// Longest wait for a node to be ready: starting takes 0.5 s when nobody answers.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A running node. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Node {
    /// The host it runs in.
    pub(crate) host: Host,
    /// When the process was started.
    pub(crate) started: Instant,
    label: String,
    child: Child,
    ready: Option<Ready>,
    lines: Receiver<(Instant, String)>,
    ended: Receiver<Instant>,
    log: PathBuf,
}

/// What the `ready` line says.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    /// When it was read.
    pub(crate) at: Instant,
    /// Its key.
    pub(crate) id: String,
    /// Its island.
    pub(crate) island: String,
    /// Where others dial it.
    pub(crate) http: SocketAddr,
}

impl Node {
    /// Starts `isle ARGUMENTS` with the host's label as its name, and does not wait.
    pub(crate) fn spawn(host: &Host, folder: &Path, arguments: &[&str]) -> Result<Self> {
        let label = host.label();
        Self::spawn_as(host, label, folder, arguments)
    }

    /// The same under another name, for several nodes of one host.
    pub(crate) fn spawn_as(host: &Host, label: &str, folder: &Path, arguments: &[&str]) -> Result<Self> {
        // One log for all lives of a node: a second start appends to it.
        let log = folder.join(format!("{label}.log"));
        let log_file = File::options().create(true).append(true).open(&log)?;
        let mut command = isle(folder, arguments);
        command.args(["--name", label]).stdout(Stdio::piped()).stderr(log_file);
        let started = Instant::now();
        let mut child = host.enter(|| command.spawn())?.context("starting isle")?;
        let (line_out, lines) = channel();
        let stdout = child.stdout.take().context("its output was asked for")?;
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = line_out.send((Instant::now(), line));
            }
        });
        let (end_out, ended) = channel();
        let pid = Pid::from_child(&child);
        thread::spawn(move || {
            // NOWAIT leaves the process to be reaped by `Child`, so its number cannot be given away before.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let _ = end_out.send(Instant::now());
        });
        Ok(Self {
            host: host.clone(),
            started,
            label: label.to_owned(),
            child,
            ready: None,
            lines,
            ended,
            log,
        })
    }

    /// Starts and waits for the `ready` line.
    pub(crate) fn start(host: &Host, folder: &Path, arguments: &[&str]) -> Result<Self> {
        let mut node = Self::spawn(host, folder, arguments)?;
        node.ready()?;
        Ok(node)
    }

    /// Waits for the `ready` line.
    pub(crate) fn ready(&mut self) -> Result<Ready> {
        if let Some(ready) = &self.ready {
            return Ok(ready.clone());
        }
        let (at, line) = self
            .lines
            .recv_timeout(READY_WITHIN)
            .with_context(|| format!("{} is not ready; its log: {}", self.label, self.log_tail()))?;
        let words: BTreeMap<&str, &str> =
            line.split_whitespace().filter_map(|word| word.split_once('=')).collect();
        ensure!(line.starts_with("ready "), "{} says {line:?} instead of being ready", self.label);
        let word = |key: &str| words.get(key).copied().with_context(|| format!("{line:?} lacks {key}"));
        let ready = Ready {
            at,
            id: word("id")?.to_owned(),
            island: word("island")?.to_owned(),
            http: word("http")?.parse().with_context(|| format!("address in {line:?}"))?,
        };
        self.ready = Some(ready.clone());
        Ok(ready)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.label
    }

    /// Its key; the node must be ready.
    pub(crate) fn id(&self) -> &str {
        &self.known().id
    }

    /// Where others dial it; the node must be ready.
    pub(crate) fn http(&self) -> SocketAddr {
        self.known().http
    }

    fn known(&self) -> &Ready {
        self.ready.as_ref().expect("`start` or `ready` came before")
    }

    /// Ctrl+C.
    pub(crate) fn interrupt(&self) -> Result<()> {
        self.signal(Signal::INT)
    }

    /// What a service manager sends.
    pub(crate) fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// `kill -9`: no last word.
    pub(crate) fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// Any signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("signal to {}", self.label))
    }

    /// Waits for its end: its status and the moment.
    pub(crate) fn ended(&mut self, within: Duration) -> Result<(ExitStatus, Instant)> {
        let Ok(at) = self.ended.recv_timeout(within) else {
            bail!("{} still runs after {within:?}; its log: {}", self.label, self.log_tail());
        };
        Ok((self.child.wait()?, at))
    }

    /// Follows its events from inside its own host.
    pub(crate) fn events(&self) -> EventLog {
        self.events_at(self.http())
    }

    /// Follows its events before it is ready, at an address it will have.
    pub(crate) fn events_at(&self, at: SocketAddr) -> EventLog {
        EventLog::follow(&self.label, &self.host, at, Duration::from_secs(10))
    }

    /// Asks it from inside its own host and demands 200.
    pub(crate) fn ask(&self, path: &str) -> Result<Value> {
        client::expect(&self.host, self.http(), path, 200)?.json()
    }

    /// What it says of itself: the signed bytes, and what they say.
    pub(crate) fn record(&self) -> Result<(Bytes, Arc<Record>)> {
        let records = client::expect(&self.host, self.http(), "/mesh/records", 200)?;
        let words = isle_mesh::transfer::decode(&records.body)?.words;
        let own = words.into_iter().find_map(|word| {
            let said = word.bytes.get(..word.bytes.len().checked_sub(SIGNATURE_BYTES)?)?;
            match isle_mesh::wire::decode(said).ok()? {
                (header, Some(Message::Announce(record))) if header.author.to_string() == self.id() => {
                    Some((word.bytes, record))
                }
                _ => None,
            }
        });
        own.context("a node without a record of its own")
    }

    /// Lines of its metrics that begin so.
    pub(crate) fn metrics(&self, name: &str) -> Result<Vec<String>> {
        let page = client::expect(&self.host, self.http(), "/metrics", 200)?;
        Ok(page.text().lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect())
    }

    /// What it believes of everybody, without what differs between any two moments or nodes.
    pub(crate) fn table(&self) -> Result<BTreeMap<String, String>> {
        let page = self.ask("/members")?;
        let members = page["members"].as_array().context("/members without members")?;
        Ok(members
            .iter()
            .map(|member| {
                let facts = [
                    "name", "roles", "island", "standing", "draining", "port", "figures", "version",
                    "protocol",
                ];
                let told: Vec<String> = facts.iter().map(|fact| format!("{fact}={}", member[fact])).collect();
                (member["id"].as_str().unwrap_or_default().to_owned(), told.join(" "))
            })
            .collect())
    }

    /// Resident memory in KiB.
    pub(crate) fn memory_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Processor time used so far.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Fields are counted after the name, which may hold spaces; utime and stime are the 12th and 13th then.
        let rest = stat.rsplit_once(") ").context("a stat without name")?.1;
        let ticks: u64 = rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        // Linux shows a hundredth of a second per tick whatever it counts in.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Its whole log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log(), 12)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command that ends by itself, and returns what it said.
pub(crate) fn command(host: &Host, folder: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = isle(folder, arguments);
    host.enter(|| command.output())?.with_context(|| format!("running isle {}", arguments.join(" ")))
}

/// The program with these arguments and nothing of our own environment that would steer it.
fn isle(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isle"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ISLE_")) {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command
}

/// Prints the end of every log in a folder, after a failure.
pub(crate) fn show_logs(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut logs: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    for path in logs {
        let text = fs::read_to_string(&path).unwrap_or_default();
        println!("    --- {} ---\n{}", path.display(), tail(&text, 4000));
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Asks again and again until it holds or time is up; for what no event tells.
pub(crate) fn eventually(
    what: &str,
    within: Duration,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let state = holds();
        if matches!(state, Ok(true)) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > within {
            return match state {
                Err(error) => Err(error.context(format!("not within {within:?}: {what}"))),
                _ => bail!("not within {within:?}: {what}"),
            };
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until all nodes list the same members with the same facts, this many of them alive.
pub(crate) fn agree(nodes: &[&Node], alive: usize, within: Duration) -> Result<Duration> {
    agree_where(nodes, alive, within, |_| true)
}

/// The same, without those that are down or left: a node that came later does not list them.
pub(crate) fn agree_on_living(nodes: &[&Node], alive: usize, within: Duration) -> Result<Duration> {
    agree_where(nodes, alive, within, is_alive)
}

fn agree_where(
    nodes: &[&Node],
    alive: usize,
    within: Duration,
    counts: fn(&str) -> bool,
) -> Result<Duration> {
    let table = |node: &Node| {
        let mut table = node.table()?;
        table.retain(|_, facts| counts(facts));
        anyhow::Ok(table)
    };
    eventually(&format!("{alive} members listed alike by all"), within, || {
        let (first, others) = nodes.split_first().context("no nodes")?;
        let expected = table(first)?;
        let count = expected.values().filter(|facts| is_alive(facts)).count();
        ensure!(count == alive, "{} lists {count} of {alive}: {expected:#?}", first.name());
        for other in others {
            let found = table(other)?;
            let (first, other) = (first.name(), other.name());
            ensure!(found == expected, "{first} and {other} differ: {expected:#?}\n{found:#?}");
        }
        Ok(true)
    })
}

/// Whether these facts of a table are those of one that is down or has left.
pub(crate) fn is_gone(facts: &str) -> bool {
    facts.contains("standing=\"down\"") || facts.contains("standing=\"left\"")
}

fn is_alive(facts: &str) -> bool {
    facts.contains("standing=\"alive\"")
}
