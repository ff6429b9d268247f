//! `serf agent` (HashiCorp's SWIM, Debian package `serf`) in a host, to be measured beside us.
//!
//! What an agent believes is read from its log, line by line as it is written: `serf: EventMemberFailed: NAME ADDRESS`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::network::Host;

/// What one agent said of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Word {
    /// Listed, new or again.
    Joined,
    /// Given up.
    Failed,
    /// Gone on purpose.
    Left,
}

/// One line that says something of a member.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// When it was read.
    pub(crate) at: Instant,
    /// What.
    pub(crate) word: Word,
    /// Of whom.
    pub(crate) whom: String,
}

type Log = Arc<(Mutex<Vec<Said>>, Condvar)>;

/// A running agent. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    name: String,
    child: Child,
    log: Log,
}

/// The version that is installed; `None` without.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("serf").arg("version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // Debian's build does not know its own version, so the package is asked where there is one.
    let package = Command::new("dpkg-query").args(["-W", "-f", "${Version}", "serf"]).output().ok();
    let package = package.filter(|output| output.status.success());
    match package {
        Some(output) => Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        None => text.lines().next().map(str::to_owned),
    }
}

impl Agent {
    /// Starts an agent with all defaults (`-profile=lan`), named after its host, that joins the one at `seed`.
    pub(crate) fn start(host: &Host, seed: Ipv4Addr) -> Result<Self> {
        let name = host.label().to_owned();
        let mut command = Command::new("serf");
        command.args(["agent", "-iface=eth0", "-retry-interval=1s"]);
        command.args([&format!("-node={name}"), &format!("-retry-join={seed}")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = host.enter(|| command.spawn())?.context("starting serf")?;
        let stdout = child.stdout.take().context("its output was asked for")?;
        let log = Log::default();
        let background = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(said) = parse(Instant::now(), &line) {
                    let (lines, changed) = &*background;
                    lines.lock().expect("nothing panics while holding it").push(said);
                    changed.notify_all();
                }
            }
        });
        Ok(Self { name, child, log })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Any signal: it leaves on the first `INT`.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("signal to serf at {}", self.name))
    }

    /// Waits until it has said this of that member after `since`; `None` when it does not.
    pub(crate) fn wait(&self, word: Word, whom: &str, since: Instant, patience: Duration) -> Option<Instant> {
        let fits = |said: &&Said| said.word == word && said.whom == whom && said.at >= since;
        self.until(patience, |lines| lines.iter().find(fits).map(|said| said.at))
    }

    /// Waits until it lists so many members besides itself.
    pub(crate) fn lists(&self, others: usize, patience: Duration) -> Option<Instant> {
        self.until(patience, |lines| {
            let listed: BTreeMap<&str, Word> =
                lines.iter().map(|said| (said.whom.as_str(), said.word)).collect();
            let alive = listed.iter().filter(|(whom, word)| **whom != self.name && **word == Word::Joined);
            (alive.count() >= others).then(|| lines.last().map(|said| said.at))?
        })
    }

    /// Everything so far.
    pub(crate) fn all(&self) -> Vec<Said> {
        self.log.0.lock().expect("nothing panics while holding it").clone()
    }

    fn until<T>(&self, patience: Duration, mut done: impl FnMut(&[Said]) -> Option<T>) -> Option<T> {
        let until = Instant::now() + patience;
        let (lines, changed) = &*self.log;
        let mut lines = lines.lock().expect("nothing panics while holding it");
        loop {
            if let Some(found) = done(&lines) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            lines = changed.wait_timeout(lines, left).expect("nothing panics while holding it").0;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(at: Instant, line: &str) -> Option<Said> {
    let (_, event) = line.split_once("serf: EventMember")?;
    let mut words = event.split_whitespace();
    let word = match words.next()? {
        "Join:" => Word::Joined,
        "Failed:" => Word::Failed,
        "Leave:" => Word::Left,
        _ => return None,
    };
    Some(Said { at, word, whom: words.next()?.to_owned() })
}
