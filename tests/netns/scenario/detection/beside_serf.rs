//! The same deaths on the same wire at the same time, told by Isle and by Debian's serf.
//!
//! Each host runs a piece server and a serf agent. What happens to a host happens to both; each is timed by what the
//! others say of it: `/events` here, the agents' logs there. Without serf, and in the short version, Isle is alone.

use std::env;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::DOWN_WITHIN;
use super::told::{Fate, Told, Traffic};
use crate::events::EventLog;
use crate::measure::percentile;
use crate::neighbours;
use crate::network::{Host, Wire};
use crate::node::{self, Node, eventually};
use crate::runner::Run;
use crate::serf::{self, Agent, Word};
use crate::sniffer::Sniffer;
use crate::tap::{DISCOVERY, FAREWELL};

/// Hosts in the trial.
const MEMBERS: usize = 40;
/// Lost of all packets, in thousandths.
const LOSS_PER_MILLE: u32 = 50;
/// serf gives up on a member after 8 to 10 s, and takes up to half a minute to find one again.
const SERF_WITHIN: Duration = Duration::from_secs(45);
/// Where many agents start together some hear of others only when two compare their lists: above 32 members that is
/// every minute.
const SERF_STARTS_WITHIN: Duration = Duration::from_secs(150);
/// A node that starts, or whose cable is put back, is known to all within this, whatever is lost.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// Where the kind of a datagram lies (NETWORK.md, "Datagrams").
const KIND: usize = 3;

/// What is promised of Isle, in the trial.
const DEATH_KNOWN_P99: Duration = Duration::from_millis(900);
const FAREWELL_KNOWN_P50: Duration = Duration::from_millis(5);
const FAREWELL_KNOWN_P99: Duration = Duration::from_millis(100);

/// From when to when others may rightly say of this host's node that it is gone; an unplugged one may say so of all.
#[derive(Debug)]
struct Fault {
    host: usize,
    id: String,
    fate: Fate,
    from: Instant,
    /// `None` until everybody lists everybody again.
    until: Option<Instant>,
}

impl Fault {
    fn covers(&self, at: Instant) -> bool {
        self.from <= at && self.until.is_none_or(|until| at <= until)
    }
}

struct Trial<'a> {
    run: &'a Run,
    wire: Wire,
    hosts: Vec<Host>,
    nodes: Vec<Node>,
    /// Every life of every node: its host, and what it said.
    lives: Vec<(usize, EventLog)>,
    /// For each node the place of its present life.
    current: Vec<usize>,
    agents: Vec<Agent>,
    /// What agents said that were ended since.
    past_agents: Vec<(usize, Vec<serf::Said>)>,
    faults: Vec<Fault>,
    isle: Told,
    serf: Told,
}

pub(super) fn compare(run: &Run) -> Result<()> {
    let mut trial = Trial::new(run, run.count(8, members()?))?;
    let idle = Duration::from_secs(run.count(3, 60) as u64);
    let version = serf::version().filter(|_| run.long);
    trial.wire.lose(LOSS_PER_MILLE)?;
    if version.is_some() {
        trial.start_agents()?;
        trial.serf.traffic = Some(Traffic::of(&trial.hosts, idle)?);
    } else {
        run.measures.note("without serf: it takes part in the trial, where it is installed");
    }
    trial.start_nodes()?;
    // What was measured before something went wrong is shown, too.
    let outcome = trial.rounds();
    trial.count_false_downs();
    trial.agents.clear();
    let worked = trial.processor_time();
    trial.isle.traffic = Some(Traffic::of(&trial.hosts, idle)?);
    if outcome.is_ok() {
        let took = trial.processor_time()? - worked?;
        let share = took.as_secs_f64() / idle.as_secs_f64() / trial.nodes.len() as f64;
        run.measures.note(format!("isle, idle, each node: {:.1} % of a processor", share * 100.0));
    }
    trial.isle.show(run, "isle", trial.hosts.len(), LOSS_PER_MILLE)?;
    if let Some(version) = version {
        trial.serf.show(run, &format!("serf {version}"), trial.hosts.len(), LOSS_PER_MILLE)?;
    }
    outcome?;
    trial.demand()
}

/// `ISLE_TRIAL_MEMBERS`: how many hosts, where the machine cannot carry what is promised.
fn members() -> Result<usize> {
    let Some(said) = env::var_os("ISLE_TRIAL_MEMBERS") else { return Ok(MEMBERS) };
    let count: usize = said.to_string_lossy().parse().context("ISLE_TRIAL_MEMBERS is no number")?;
    ensure!((2..=200).contains(&count), "ISLE_TRIAL_MEMBERS is {count}, not 2 to 200");
    Ok(count)
}

impl<'a> Trial<'a> {
    fn new(run: &'a Run, count: usize) -> Result<Self> {
        let wire = Wire::new()?;
        let hosts =
            (0..count).map(|number| wire.host(&format!("n{number}"), &format!("{}/24", address(number))));
        let hosts = hosts.collect::<Result<Vec<_>>>()?;
        neighbours::acquaint_many(&hosts.iter().collect::<Vec<_>>())?;
        Ok(Self {
            run,
            wire,
            hosts,
            nodes: Vec::new(),
            lives: Vec::new(),
            current: Vec::new(),
            agents: Vec::new(),
            past_agents: Vec::new(),
            faults: Vec::new(),
            isle: Told::default(),
            serf: Told::default(),
        })
    }

    /// Everything that happens to hosts, one at a time.
    fn rounds(&mut self) -> Result<()> {
        for (fate, count) in [
            (Fate::Crash, self.run.count(3, 20)),
            (Fate::Unplug, self.run.count(1, 20)),
            (Fate::Leave, self.run.count(3, 20)),
        ] {
            for round in 0..count {
                // Never the first host, where new agents ask for the others.
                let host = 1 + (round * 7) % (self.hosts.len() - 1);
                self.round(fate, host).with_context(|| format!("{fate:?} {round}"))?;
            }
        }
        Ok(())
    }

    /// Of all nodes so far.
    fn processor_time(&self) -> Result<Duration> {
        self.nodes.iter().map(Node::processor_time).sum()
    }

    fn start_agents(&mut self) -> Result<()> {
        for host in &self.hosts {
            self.agents.push(Agent::start(host, address(0))?);
        }
        self.agents_listed(SERF_STARTS_WITHIN)
    }

    fn agents_listed(&self, patience: Duration) -> Result<()> {
        for agent in &self.agents {
            let listed = agent.lists(self.hosts.len() - 1, patience);
            listed.with_context(|| format!("serf at {} does not list all", agent.name()))?;
        }
        Ok(())
    }

    fn start_nodes(&mut self) -> Result<()> {
        for host in &self.hosts {
            self.nodes.push(Node::spawn(host, self.run.folder.path(), &["pieces"])?);
        }
        for node in &mut self.nodes {
            node.ready()?;
        }
        for (number, node) in self.nodes.iter().enumerate() {
            self.current.push(self.lives.len());
            self.lives.push((number, node.events()));
        }
        // Listed is enough: with losses and busy processors somebody is doubted by somebody at most moments.
        let others = self.nodes.len() - 1;
        self.lives.iter().try_for_each(|(_, log)| log.listing(others, SETTLED_WITHIN).map(drop))
    }

    /// Lets it happen to one host, times what all others say of it, and waits until all is as before.
    fn round(&mut self, fate: Fate, host: usize) -> Result<()> {
        let id = self.nodes[host].id().to_owned();
        let own = address(host);
        let farewells = Sniffer::open(&self.hosts[host], move |packet| {
            *packet.from.ip() == own
                && packet.to.port() == DISCOVERY
                && packet.payload.get(KIND) == Some(&FAREWELL)
        })?;
        let began = Instant::now();
        self.faults.push(Fault { host, id: id.clone(), fate, from: began, until: None });
        let at = self.strike(fate, host)?;
        let expected = if fate == Fate::Leave { "left" } else { "down" };
        for (other, log) in self.others(host) {
            let seen = log
                .wait(expected, DOWN_WITHIN, |seen| seen.at >= began && seen.is(expected, &id))
                .with_context(|| format!("n{other} about n{host}"))?;
            let took = seen.at.saturating_duration_since(at.0);
            if took > DEATH_KNOWN_P99 {
                let doubts = self.nodes[other].metrics("isle_mesh_self_doubts_total");
                let doubts = doubts.unwrap_or_default().join(", ");
                self.run
                    .measures
                    .note(format!("isle, late: n{other} about n{host}, {fate:?}, {took:?}; {doubts}"));
            }
            self.isle.of(fate).push(took);
            if fate == Fate::Leave {
                let stops = log.wait("draining", DOWN_WITHIN, |seen| {
                    matches!(seen.kind.as_str(), "draining" | "left")
                        && seen.data["member"]["id"] == id.as_str()
                })?;
                self.isle.draining.push(stops.at.saturating_duration_since(at.0));
                // It may be known to another before our thread that watches the card has run.
                eventually("a farewell leaves the host", DOWN_WITHIN, || Ok(!farewells.all().is_empty()))?;
                let first = farewells.all()[0].at;
                self.isle.farewell.push(seen.at.saturating_duration_since(first));
            }
        }
        self.hear_agents(fate, host, began, at.1);
        self.mend(fate, host)?;
        self.faults.last_mut().context("pushed above")?.until = Some(Instant::now());
        Ok(())
    }

    /// Returns when it came over the node, and when over the agent.
    fn strike(&mut self, fate: Fate, host: usize) -> Result<(Instant, Instant)> {
        let signal = match fate {
            Fate::Crash => Signal::KILL,
            Fate::Leave => Signal::INT,
            Fate::Unplug => {
                self.wire.cut_off(&self.hosts[host], true)?;
                // In force when the rules are there, which is when `nft` has ended.
                let now = Instant::now();
                return Ok((now, now));
            }
        };
        let node_at = Instant::now();
        self.nodes[host].signal(signal)?;
        let agent_at = Instant::now();
        if let Some(agent) = self.agents.get(host) {
            agent.signal(signal)?;
        }
        Ok((node_at, agent_at))
    }

    fn hear_agents(&mut self, fate: Fate, host: usize, since: Instant, at: Instant) {
        let word = if fate == Fate::Leave { Word::Left } else { Word::Failed };
        let name = self.hosts[host].label().to_owned();
        for (other, agent) in self.agents.iter().enumerate() {
            if other == host {
                continue;
            }
            match agent.wait(word, &name, since, SERF_WITHIN) {
                Some(said) => self.serf.of(fate).push(said.saturating_duration_since(at)),
                None => self.serf.missed += 1,
            }
        }
    }

    /// Starts what was ended, plugs in what was unplugged, and waits until everybody lists everybody.
    fn mend(&mut self, fate: Fate, host: usize) -> Result<()> {
        let healed = Instant::now();
        if !self.agents.is_empty() {
            // An agent that was cut off would find the others again after half a minute: a new one does at once.
            self.agents[host].signal(Signal::KILL)?;
            let said = self.agents[host].all();
            self.past_agents.push((host, said));
        }
        if fate == Fate::Unplug {
            self.wire.cut_off(&self.hosts[host], false)?;
        } else {
            self.nodes[host].ended(DOWN_WITHIN)?;
            let node = Node::start(&self.hosts[host], self.run.folder.path(), &["pieces"])?;
            let log = node.events();
            log.started()?;
            self.current[host] = self.lives.len();
            self.lives.push((host, log));
            self.nodes[host] = node;
        }
        if !self.agents.is_empty() {
            self.agents[host] = Agent::start(&self.hosts[host], address(0))?;
        }
        let (id, word) = (self.nodes[host].id(), if fate == Fate::Unplug { "back" } else { "joined" });
        for (_, log) in self.others(host) {
            log.wait(word, SETTLED_WITHIN, |seen| seen.at >= healed && seen.is(word, id))?;
        }
        let count = self.nodes.len();
        eventually("it lists all the others", SETTLED_WITHIN, || {
            let table = self.nodes[host].table()?;
            Ok(table.values().filter(|facts| !node::is_gone(facts)).count() == count)
        })?;
        if let Err(error) = self.agents_listed(SERF_WITHIN) {
            // What it does not know yet is its own affair; words that never come because of it are counted.
            self.run.measures.note(format!("after {fate:?} of n{host}, {SERF_WITHIN:?} later: {error:#}"));
        }
        Ok(())
    }

    /// The present lives of all nodes but this one.
    fn others(&self, host: usize) -> Vec<(usize, EventLog)> {
        let lives = self.current.iter().map(|place| &self.lives[*place]);
        lives.filter(|(other, _)| *other != host).cloned().collect()
    }

    /// Counts what was said of the living.
    fn count_false_downs(&mut self) {
        let is_deaf = |observer: usize, at: Instant| {
            let cut = self.faults.iter().filter(|fault| fault.fate == Fate::Unplug && fault.host == observer);
            cut.into_iter().any(|fault| fault.covers(at))
        };
        for (observer, log) in &self.lives {
            for seen in log.all().iter().filter(|seen| seen.kind == "down" && !is_deaf(*observer, seen.at)) {
                // A node that was ended never comes back: the next one on its host has another key.
                let is_right = self.faults.iter().any(|fault| {
                    let is_gone = fault.fate != Fate::Unplug && fault.from <= seen.at;
                    seen.data["member"]["id"] == fault.id.as_str() && (is_gone || fault.covers(seen.at))
                });
                if !is_right {
                    self.isle.false_downs += 1;
                    self.run.measures.note(format!("isle, false: n{observer} says {}", seen.brief()));
                }
            }
        }
        let present = self.agents.iter().enumerate().map(|(host, agent)| (host, agent.all()));
        for (observer, said) in present.chain(self.past_agents.iter().cloned()) {
            let failed = said.iter().filter(|said| said.word == Word::Failed);
            let wrong = failed.filter(|said| {
                // An agent keeps its name over all its lives.
                let is_right =
                    |fault: &Fault| self.hosts[fault.host].label() == said.whom && fault.covers(said.at);
                !is_deaf(observer, said.at) && !self.faults.iter().any(is_right)
            });
            self.serf.false_downs += wrong.count();
        }
    }

    /// Fails unless Isle kept what it promises.
    fn demand(&self) -> Result<()> {
        ensure!(self.isle.false_downs == 0, "{} were called down and lived", self.isle.false_downs);
        if !self.run.long {
            return Ok(());
        }
        for (what, samples, percent, bound) in [
            ("crash", &self.isle.crash, 99, DEATH_KNOWN_P99),
            ("unplug", &self.isle.unplug, 99, DEATH_KNOWN_P99),
            ("farewell", &self.isle.farewell, 50, FAREWELL_KNOWN_P50),
            ("farewell", &self.isle.farewell, 99, FAREWELL_KNOWN_P99),
        ] {
            let took = percentile(samples, percent);
            ensure!(took <= bound, "{what}: p{percent} is {took:?}, promised are {bound:?}");
        }
        Ok(())
    }
}

fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(10 + host).expect("at most 200 hosts"))
}
