//! Clients that ask at a steady pace over connections they keep, and check every answer.
//!
//! A client here forgives exactly two things: an answer that says `Connection: close` (it reconnects), and a refused
//! connection while another intermediary is known (it goes there). Everything else is a failure, with its moment.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::client::{Answer, Connection};
use crate::network::Host;

/// Checks one answer to a path; the text says what is wrong with it.
pub(crate) type Check = fn(&str, &Answer) -> Result<(), String>;

/// What to ask, how fast and of whom.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Intermediaries, each client's own first.
    pub(crate) targets: Vec<SocketAddr>,
    /// Asked for in turn.
    pub(crate) paths: Vec<String>,
    /// Requests per second, of all clients together.
    pub(crate) per_second: u32,
    /// Clients, each with one connection.
    pub(crate) clients: u32,
    /// Whether an answer is right.
    pub(crate) check: Check,
}

/// What became of the requests.
#[derive(Default, Debug)]
pub(crate) struct Outcome {
    /// Answers that were right.
    pub(crate) right: u64,
    /// What went wrong, and when.
    pub(crate) failures: Vec<(Instant, String)>,
    /// Answers that said `Connection: close`.
    pub(crate) closes: u64,
    /// Connections refused, and asked for elsewhere.
    pub(crate) refused: u64,
    /// How long right answers took, by status.
    pub(crate) latencies: BTreeMap<u16, Vec<Duration>>,
    /// Who served, by `Isle-Served-By`.
    pub(crate) served_by: BTreeMap<String, Vec<Instant>>,
}

impl Outcome {
    /// The first failures, for an error message.
    fn complaint(&self, since: Instant) -> String {
        let shown: Vec<String> = self
            .failures
            .iter()
            .take(8)
            .map(|(at, why)| format!("{:.3} s: {why}", at.saturating_duration_since(since).as_secs_f64()))
            .collect();
        format!("{} of {} failed: {}", self.failures.len(), self.sent(), shown.join("; "))
    }

    /// Requests in all.
    pub(crate) fn sent(&self) -> u64 {
        self.right + self.failures.len() as u64
    }

    /// How many requests failed later than this.
    pub(crate) fn failures_after(&self, when: Instant) -> usize {
        self.failures.iter().filter(|(at, _)| *at > when).count()
    }

    /// How many right answers had this status.
    pub(crate) fn count(&self, status: u16) -> usize {
        self.latencies.get(&status).map_or(0, Vec::len)
    }

    /// Fails unless everything was right; tells what was not, counted from `since`.
    pub(crate) fn demand_flawless(&self, since: Instant) -> Result<()> {
        ensure!(self.failures.is_empty(), "{}", self.complaint(since));
        ensure!(self.right > 0, "nothing was asked");
        Ok(())
    }

    fn add(&mut self, other: Self) {
        self.right += other.right;
        self.failures.extend(other.failures);
        self.closes += other.closes;
        self.refused += other.refused;
        for (status, took) in other.latencies {
            self.latencies.entry(status).or_default().extend(took);
        }
        for (who, when) in other.served_by {
            self.served_by.entry(who).or_default().extend(when);
        }
    }
}

/// Clients at work until [`Load::stop`].
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Outcome>>,
}

impl Load {
    /// Starts the clients in this host.
    pub(crate) fn start(from: &Host, plan: &Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..plan.clients).map(|number| {
            let mut client = Client::new(number, from.clone(), plan.clone());
            let stop = stop.clone();
            thread::spawn(move || client.run(&stop))
        });
        Self { clients: clients.collect(), stop }
    }

    /// Lets each client finish its request, and adds up.
    pub(crate) fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Outcome::default();
        for client in self.clients {
            sum.add(client.join().expect("clients report, they do not panic"));
        }
        sum.failures.sort();
        sum
    }
}

/// One client and its connection.
struct Client {
    number: u32,
    from: Host,
    plan: Plan,
    target: usize,
    connection: Option<Connection>,
    outcome: Outcome,
}

impl Client {
    fn new(number: u32, from: Host, plan: Plan) -> Self {
        let target = number as usize % plan.targets.len();
        Self { number, from, plan, target, connection: None, outcome: Outcome::default() }
    }

    fn run(&mut self, stop: &AtomicBool) -> Outcome {
        let period = Duration::from_secs(1) * self.plan.clients / self.plan.per_second;
        // Clients are spread over the period; each asks at its own beat whatever the answers take.
        let mut next = Instant::now() + period * self.number / self.plan.clients;
        let mut path = self.number as usize;
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            next = (next + period).max(Instant::now() - period * 4);
            let asked = self.plan.paths[path % self.plan.paths.len()].clone();
            path += 1;
            if let Err(why) = self.ask(&asked) {
                self.outcome.failures.push((Instant::now(), format!("{asked}: {why}")));
                self.connection = None;
            }
        }
        std::mem::take(&mut self.outcome)
    }

    fn ask(&mut self, path: &str) -> Result<(), String> {
        let mut connection = match self.connection.take() {
            Some(open) => open,
            None => self.connect().map_err(|error| format!("connecting: {error}"))?,
        };
        let answer = connection.get(path).map_err(|error| format!("asking: {error}"))?;
        if answer.closes() {
            self.outcome.closes += 1;
        } else {
            self.connection = Some(connection);
        }
        if let Some(who) = answer.header("isle-served-by") {
            self.outcome.served_by.entry(who.to_owned()).or_default().push(Instant::now());
        }
        (self.plan.check)(path, &answer)?;
        self.outcome.right += 1;
        self.outcome.latencies.entry(answer.status).or_default().push(answer.took);
        Ok(())
    }

    /// Connects to the own intermediary, or the next that does not refuse.
    fn connect(&mut self) -> io::Result<Connection> {
        let count = self.plan.targets.len();
        for _ in 1..count {
            match Connection::open(&self.from, self.plan.targets[self.target % count]) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.outcome.refused += 1;
                    self.target += 1;
                }
                other => return other,
            }
        }
        Connection::open(&self.from, self.plan.targets[self.target % count])
    }
}
