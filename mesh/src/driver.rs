//! The one task that owns the sockets and the state machine.
//!
//! Waiting only chooses; the work is done after, where nothing is dropped halfway. After every wake-up the sockets
//! are emptied before any deadline is looked at, so that a machine that slept does not take its own sleep
//! for others' silence.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{poll_fn, ready};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use crate::config::MeshConfig;
use crate::driver::interfaces::Interfaces;
use crate::driver::merging::Merging;
use crate::driver::socket::Port;
use crate::event::{Event, EventKind, Subject};
use crate::far::{self, FarTransfer};
use crate::identity::Identity;
use crate::member::{Address, Load, MemberId, Record};
use crate::membership::{
    Announcement, Destination, FarFetch, Fetch, Interface, Membership, Neighbours, Settings, Source, Transmit,
};
use crate::mesh::{
    Command, EVENTS_MAX, Islands, JoinError, Mesh, MeshError, MeshTask, Shared, Subscription, TableFetch,
    channels,
};
use crate::metrics::Metrics;
use crate::outward::Outward;
use crate::shared::{self, TableWriter};
use crate::transfer::{self, VerifiedTransfer};
use crate::wire::{DATAGRAM_BYTES_MAX, MeshTag, RecordError, WIRE_VERSION, check_record};

pub(crate) mod interfaces;
mod merging;
mod peers;
mod seeds;
pub(crate) mod socket;
#[cfg(test)]
mod tests;

/// Datagrams taken in before deadlines, wishes and other tasks get their turn: about 10 ms of work.
const DATAGRAMS_PER_TURN: usize = 256;
/// Each socket has its part of a turn, at least this much: a flood at one does not silence the others.
const DATAGRAMS_PER_PORT_MIN: usize = 16;
/// From so many members on a thousand datagrams a second and more are said to all, see `beacon_period`: then the sockets that
/// hear them rest.
const RESTING_MEMBERS_MIN: usize = 200;
/// For so long: being woken for each of them costs most of what a node that nobody asks anything needs (measured). What is
/// said to all is heard so much later at the most, and a tick of the runtime's clock.
const REST: Duration = Duration::from_millis(2);
/// While sockets are not yet empty, deadlines wait this long, not longer: a flood must not keep this node from saying
/// that it lives. What a machine that slept finds in its sockets is read by then (1 MiB each; guessed).
const BEHIND_MAX: Duration = Duration::from_millis(50);
/// The table as others fetch it is made anew this often at most, unless it changed: it says how old each word is.
const EXPORT_AGE_MAX: Duration = Duration::from_secs(1);
/// A host refuses at once or, behind a filter, never.
const PROBE_WAIT: Duration = Duration::from_millis(200);
/// Probes under way at once; above this they are left out, for they only make a verdict quicker.
const PROBES_MAX: usize = 32;
/// A member that does not give its table within this is passed over.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the sockets, says the first words, and returns the handle and the task that goes on.
pub(crate) fn start(
    config: MeshConfig,
    identity: Identity,
    fetch: Arc<dyn TableFetch>,
) -> Result<(Mesh, MeshTask), JoinError> {
    let tag = MeshTag::of(&config.mesh);
    let (mut ports, unicast_port) = socket::open_private().map_err(JoinError::Socket)?;
    let settings = settings(&config, tag, unicast_port);
    check(&settings)?;
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| JoinError::Entropy(error.to_string()))?;
    let now = Instant::now().into_std();
    let prover = identity.prover();
    let mut machine = Membership::new(settings, identity, u64::from_le_bytes(seed), now);
    let interfaces = Interfaces::new(config.interfaces.clone());
    let found = interfaces.list().unwrap_or_default();
    for name in config.interfaces.iter().filter(|name| found.iter().all(|there| there.name != **name)) {
        warn!(interface = name, "no such interface is up; it is used when it appears");
    }
    for interface in &found {
        ports.extend(socket::open_shared(interface, config.discovery_port));
    }
    if !found.is_empty() && !ports.iter().any(|port| port.shared) {
        warn!(port = config.discovery_port, "no socket on the discovery port: others are not heard");
    }
    machine.set_interfaces(now, found.clone());
    machine.set_foreign(now, config.foreign.clone());
    if config.outward.is_some() {
        machine.tell_outward();
    }
    let (writer, table) = shared::table();
    let (commands, wishes) = channels();
    let (load, loads) = watch::channel(Load::default());
    let (complete_tx, complete) = watch::channel(false);
    let (neighbours_tx, neighbours) = watch::channel(Neighbours::default());
    let (islands_tx, islands) = watch::channel(Islands::default());
    let (foreign, foreigners) = watch::channel(config.foreign);
    let metrics = Metrics::default();
    let (events, _) = broadcast::channel(EVENTS_MAX);
    let mut driver = Driver {
        machine,
        ports,
        interfaces,
        found,
        discovery_port: config.discovery_port,
        writer,
        events,
        version: 0,
        exported: None,
        far_exported: None,
        behind_since: None,
        rest_until: None,
        commands: wishes,
        loads,
        complete: complete_tx,
        neighbours: neighbours_tx,
        islands: islands_tx,
        foreign: foreigners,
        outward: config.outward,
        fetch,
        tag,
        tasks: JoinSet::new(),
        merging: Merging::default(),
        leaving: None,
        probes: 0,
        metrics: metrics.clone(),
    };
    driver.machine.start(now);
    driver.carry_out();
    let shared =
        Shared { tag, prover, table, commands, load, complete, neighbours, islands, foreign, metrics };
    let mesh = Mesh { shared: Arc::new(shared) };
    let (greet, greetings) = mpsc::channel(1);
    let known = peers::Peers::open(config.state_dir);
    driver.tasks.spawn(seeds::resolve(config.seeds, config.discovery_port, known.addresses(), greet));
    Ok((mesh, MeshTask(Box::pin(driver.run(greetings, known)))))
}

fn settings(config: &MeshConfig, tag: MeshTag, unicast_port: u16) -> Settings {
    let alone = |ip: IpAddr| Address { ip, prefix: if ip.is_ipv4() { 32 } else { 128 } };
    Settings {
        tag,
        island: config.island.clone(),
        name: config.name.clone(),
        roles: config.roles.clone(),
        tags: config.tags.clone(),
        http_port: config.http_port,
        unicast_port,
        advertise: config.advertise.iter().copied().map(alone).collect(),
        catalogue: config.catalogue,
        version: config.version.clone(),
    }
}

/// Whether everybody would take this node's record.
fn check(settings: &Settings) -> Result<(), RecordError> {
    check_record(&Record {
        name: settings.name.clone(),
        roles: settings.roles.clone(),
        addresses: settings.advertise.clone(),
        http_port: settings.http_port,
        unicast_port: settings.unicast_port,
        island: settings.island.clone().unwrap_or_else(|| "local".to_owned()),
        island_given: settings.island.is_some(),
        draining: false,
        catalogue: settings.catalogue,
        watchers: Vec::new(),
        protocol: (WIRE_VERSION, WIRE_VERSION),
        version: settings.version.clone(),
        tags: settings.tags.clone(),
    })
}

struct Driver {
    machine: Membership,
    ports: Vec<Port>,
    interfaces: Interfaces,
    found: Vec<Interface>,
    discovery_port: u16,
    writer: TableWriter,
    events: broadcast::Sender<Event>,
    /// Moves with every event.
    version: u64,
    exported: Option<Exported>,
    far_exported: Option<FarExported>,
    /// Since when the sockets have not been empty.
    behind_since: Option<Instant>,
    /// Until then those for what is said to all are not watched.
    rest_until: Option<Instant>,
    commands: mpsc::Receiver<Command>,
    loads: watch::Receiver<Load>,
    complete: watch::Sender<bool>,
    neighbours: watch::Sender<Neighbours>,
    islands: watch::Sender<Islands>,
    foreign: watch::Receiver<BTreeSet<MemberId>>,
    outward: Option<Arc<dyn Outward>>,
    fetch: Arc<dyn TableFetch>,
    tag: MeshTag,
    tasks: JoinSet<Outcome>,
    /// Words of other islands that were not taken in yet.
    merging: Merging,
    leaving: Option<Vec<oneshot::Sender<()>>>,
    /// Probes under way.
    probes: usize,
    metrics: Metrics,
}

/// The table as others fetch it, and what it was made of.
struct Exported {
    version: u64,
    digest: u64,
    at: std::time::Instant,
    bytes: Bytes,
}

/// What was last fetched of other islands.
struct FarExported {
    since: u64,
    head: u64,
    at: std::time::Instant,
    bytes: Bytes,
}

/// What a task of the driver brought.
enum Outcome {
    Fetched(MemberId, Option<VerifiedTransfer>),
    FetchedFar(MemberId, Option<FarTransfer>),
    /// The address that refused, if it did.
    Probed(Option<SocketAddr>),
    Over,
}

/// What was read of the sockets.
struct Received {
    /// They are empty now.
    drained: bool,
    /// Datagrams that came to the discovery port.
    of_all: usize,
}

enum Wake {
    Command(Option<Command>),
    Datagrams,
    Load,
    Foreign,
    Interfaces(Vec<Interface>),
    Greet(Vec<SocketAddr>),
    Outcome(Option<Outcome>),
    Timeout,
    /// There are words to be taken in.
    Merge,
}

impl Driver {
    async fn run(
        mut self,
        mut greetings: mpsc::Receiver<Vec<SocketAddr>>,
        mut known: peers::Peers,
    ) -> Result<(), MeshError> {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
        loop {
            let wake = self.wait(&mut greetings).await;
            let Received { drained, of_all } = self.receive(&mut buffer);
            let now = Instant::now();
            self.rest_or_watch(now, drained, of_all);
            let now = now.into_std();
            match wake {
                Wake::Command(Some(command)) => self.obey(now, command),
                Wake::Command(None) => return Ok(()),
                // Words are taken in after every wake-up, so that a flood does not keep them out.
                Wake::Datagrams | Wake::Timeout | Wake::Merge => {}
                Wake::Load => {
                    let load = *self.loads.borrow_and_update();
                    self.machine.set_load(now, load);
                }
                Wake::Foreign => {
                    let keys = self.foreign.borrow_and_update().clone();
                    self.machine.set_foreign(now, keys);
                }
                Wake::Interfaces(found) => self.use_interfaces(now, found),
                Wake::Greet(addresses) => self.machine.greet(addresses),
                Wake::Outcome(outcome) => self.take_outcome(now, outcome),
            }
            if self.may_judge(drained) {
                self.machine.handle_timeout(now);
            }
            let merges = !self.merging.is_empty();
            if merges {
                self.merge_some(now);
            }
            self.carry_out();
            self.metrics.show(self.machine.counters());
            if let Some(reason) = self.machine.stopped() {
                return Err(reason.into());
            }
            if self.machine.has_said_farewell() {
                known.remember(self.machine.proven_addresses(self.discovery_port)).await;
                for waiting in self.leaving.take().unwrap_or_default() {
                    // Whoever asked may have given up waiting.
                    let _ = waiting.send(());
                }
                return Ok(());
            }
            if known.is_due() {
                known.remember_later(self.machine.proven_addresses(self.discovery_port));
            }
            if !drained || merges {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits for a reason to do something. Loses nothing.
    async fn wait(&mut self, greetings: &mut mpsc::Receiver<Vec<SocketAddr>>) -> Wake {
        let deadline = self.machine.poll_timeout().map(|wakeup| Instant::from_std(wakeup.at));
        let deadline = [deadline, self.rest_until].into_iter().flatten().min();
        let ports = &self.ports;
        let readable = poll_fn(|context| {
            let any = ports.iter().any(|port| port.poll_readable(context).is_ready());
            if any { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            biased;
            command = self.commands.recv() => Wake::Command(command),
            () = sleep_until(deadline.unwrap_or_else(much_later)) => Wake::Timeout,
            () = readable => Wake::Datagrams,
            Ok(()) = self.loads.changed() => Wake::Load,
            Ok(()) = self.foreign.changed() => Wake::Foreign,
            Some(outcome) = self.tasks.join_next() => Wake::Outcome(outcome.ok()),
            Some(addresses) = greetings.recv() => Wake::Greet(addresses),
            found = self.interfaces.changed() => Wake::Interfaces(found),
            () = ready(()), if !self.merging.is_empty() => Wake::Merge,
        }
    }

    /// Whether deadlines may be believed: what had come before them is read, or would take too long.
    fn may_judge(&mut self, drained: bool) -> bool {
        if drained {
            self.behind_since = None;
            return true;
        }
        self.behind_since.get_or_insert_with(Instant::now).elapsed() > BEHIND_MAX
    }

    /// On a large island the sockets for what is said to all are read every [`REST`] while something comes, and wake nobody
    /// meanwhile.
    fn rest_or_watch(&mut self, now: Instant, drained: bool, of_all: usize) {
        if drained && of_all > 0 && self.machine.known() >= RESTING_MEMBERS_MIN {
            self.rest_until = Some(now + REST);
            self.ports.iter_mut().filter(|port| port.shared).for_each(Port::rest);
        } else if self.rest_until.is_some_and(|until| until <= now) {
            let watched = self.ports.iter_mut().try_for_each(Port::watch);
            // Whoever cannot wait for them reads them as before.
            self.rest_until = watched.is_err().then(|| now + REST);
        }
    }

    /// Takes in what waits in the sockets, up to a turn's worth.
    fn receive(&mut self, buffer: &mut [u8]) -> Received {
        let share = (DATAGRAMS_PER_TURN / self.ports.len().max(1)).max(DATAGRAMS_PER_PORT_MIN);
        let (mut drained, mut of_all) = (true, 0);
        for port in &self.ports {
            let mut left = share;
            loop {
                if left == 0 {
                    drained = false;
                    break;
                }
                left -= 1;
                let (length, from) = match port.receive(buffer) {
                    Ok(received) => received,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    // An ICMP answer to something we sent; the next read goes on.
                    Err(_) => continue,
                };
                of_all += usize::from(port.shared);
                let now = Instant::now().into_std();
                let addr = SocketAddr::new(from.ip().to_canonical(), from.port());
                let addr = if addr.is_ipv6() { from } else { addr };
                let source = Source { addr, shared: port.shared };
                let bytes = Bytes::copy_from_slice(&buffer[..length]);
                if let Err(refused) = self.machine.handle_datagram(now, source, bytes) {
                    debug!(from = %addr.ip(), reason = refused.as_str(), "datagram refused");
                }
            }
        }
        Received { drained, of_all }
    }

    fn obey(&mut self, now: std::time::Instant, command: Command) {
        match command {
            Command::Announce(news, reply) => {
                let announced = self.announce(now, &news);
                // Whoever announced reads the table next.
                self.carry_out();
                let _ = reply.send(announced);
            }
            Command::Subscribe(reply) => {
                // The table is written before each event is sent, both here: nothing falls in between.
                let mut snapshot: Vec<_> = self.machine.members().cloned().collect();
                snapshot.extend(self.machine.far_members().cloned());
                snapshot.extend(self.machine.self_member());
                snapshot.sort_by_key(|member| member.id);
                let _ = reply.send(Subscription { snapshot, events: self.events.subscribe() });
            }
            Command::Records(reply) => {
                let _ = reply.send(self.records(now));
            }
            Command::Proved(id) => self.machine.proved(now, id),
            Command::Refused(id) => self.machine.refused_connection(now, id),
            Command::SayReaches(reaches, reply) => {
                self.machine.say_reaches(now, reaches);
                self.carry_out();
                let _ = reply.send(());
            }
            Command::HearFar(heard, reply) => self.merging.add_heard(heard, reply),
            Command::FarRecords { instance, since, reply } => {
                let _ = reply.send(self.far_records(now, instance, since));
            }
            Command::Drain(reply) => {
                self.machine.drain(now);
                self.carry_out();
                let _ = reply.send(());
            }
            Command::Leave(reason, reply) => {
                self.leaving.get_or_insert_default().push(reply);
                self.machine.leave(now, reason);
            }
        }
    }

    fn announce(&mut self, now: std::time::Instant, news: &Announcement) -> Result<(), RecordError> {
        check_record(&self.machine.record_with(news))?;
        self.machine.announce(now, news);
        Ok(())
    }

    fn records(&mut self, now: std::time::Instant) -> Bytes {
        let (version, digest) = (self.version, self.machine.digest());
        let fresh = |made: &&Exported| {
            made.version == version
                && made.digest == digest
                && now.saturating_duration_since(made.at) < EXPORT_AGE_MAX
        };
        if let Some(made) = self.exported.as_ref().filter(fresh) {
            return made.bytes.clone();
        }
        let bytes = Bytes::from(transfer::encode(&self.machine.export(now)));
        self.exported = Some(Exported { version, digest, at: now, bytes: bytes.clone() });
        bytes
    }

    /// All nodes of an island ask a bridge for the same at about the same time.
    fn far_records(&mut self, now: std::time::Instant, instance: u64, since: u64) -> Bytes {
        let (ours, head) = self.machine.far_head();
        let since = if instance == ours { since } else { 0 };
        let fresh = |made: &&FarExported| {
            (made.since, made.head) == (since, head)
                && now.saturating_duration_since(made.at) < EXPORT_AGE_MAX
        };
        if let Some(made) = self.far_exported.as_ref().filter(fresh) {
            return made.bytes.clone();
        }
        let bytes = self.machine.far_records(now, ours, since);
        self.far_exported = Some(FarExported { since, head, at: now, bytes: bytes.clone() });
        bytes
    }

    fn use_interfaces(&mut self, now: std::time::Instant, found: Vec<Interface>) {
        let kept: BTreeMap<u32, &Interface> =
            self.found.iter().map(|interface| (interface.index, interface)).collect();
        // A socket that could not be opened is tried again with each look at the interfaces.
        let is_as_wanted = |new: &Interface| {
            let open = self.ports.iter().filter(|port| port.shared && port.interface == new.index).count();
            kept.get(&new.index) == Some(&new) && open == socket::families(new)
        };
        let stay: Vec<u32> = found.iter().filter(|new| is_as_wanted(new)).map(|new| new.index).collect();
        self.ports.retain(|port| !port.shared || stay.contains(&port.interface));
        for interface in found.iter().filter(|new| !stay.contains(&new.index)) {
            self.ports.extend(socket::open_shared(interface, self.discovery_port));
        }
        if found != self.found {
            debug!(interfaces = found.len(), "interfaces changed");
            self.found.clone_from(&found);
            self.machine.set_interfaces(now, found);
        }
    }

    fn take_outcome(&mut self, now: std::time::Instant, outcome: Option<Outcome>) {
        match outcome {
            Some(Outcome::Fetched(from, Some(table))) => self.machine.merge(now, from, &table),
            Some(Outcome::Fetched(from, None)) => self.machine.fetch_failed(now, from),
            Some(Outcome::FetchedFar(from, Some(transfer))) => {
                self.merging.add_fetched(from, transfer);
            }
            Some(Outcome::FetchedFar(from, None)) => self.machine.far_fetch_failed(now, from),
            Some(Outcome::Probed(refused)) => {
                self.probes -= 1;
                if let Some(at) = refused {
                    self.machine.handle_refused(now, at);
                }
            }
            Some(Outcome::Over) => {}
            None => warn!("a task of the mesh panicked"),
        }
    }

    /// Does what the machine wants: sends, writes the table, then tells of it, starts fetches.
    fn carry_out(&mut self) {
        while let Some(Transmit { to, bytes }) = self.machine.poll_transmit() {
            self.send(to, &bytes);
        }
        while let Some(member) = self.machine.poll_change() {
            self.writer.put(member);
        }
        if let Some(islands) = self.machine.take_islands() {
            self.islands.send_replace(islands);
        }
        let events: Vec<Event> = std::iter::from_fn(|| self.machine.poll_event()).collect();
        for event in &events {
            self.version += 1;
            match (&event.subject, event.kind) {
                (Subject::Member(member), EventKind::Forgotten) => self.writer.remove(&member.id),
                (Subject::Member(member), _) => self.writer.put(member.clone()),
                (Subject::Island(_), _) => {}
            }
        }
        if let Some(outward) = &self.outward {
            while let Some(news) = self.machine.poll_news() {
                outward.tell(news);
            }
        }
        for event in events {
            // Nobody may be listening.
            let _ = self.events.send(event);
        }
        while let Some(wish) = self.machine.poll_far_fetch() {
            self.tasks.spawn(fetch_far(self.fetch.clone(), self.tag, wish));
        }
        while let Some(wish) = self.machine.poll_fetch() {
            self.tasks.spawn(fetch_table(self.fetch.clone(), self.tag, wish));
        }
        let complete = self.machine.is_complete();
        self.complete.send_if_modified(|told| std::mem::replace(told, complete) != complete);
        if let Some(neighbours) = self.machine.take_neighbours() {
            self.neighbours.send_replace(neighbours);
        }
    }

    /// Whether the interface of this IPv6 socket has one for IPv4, which everybody there hears, too.
    fn is_second(&self, port: &Port) -> bool {
        let is_v4 = |port: &Port| port.paths.first().is_some_and(SocketAddr::is_ipv4);
        !is_v4(port)
            && self
                .ports
                .iter()
                .any(|other| other.shared && other.interface == port.interface && is_v4(other))
    }

    fn send(&mut self, to: Destination, bytes: &[u8]) {
        match to {
            Destination::Everyone => {
                for port in self.ports.iter().filter(|port| port.shared) {
                    for path in &port.paths {
                        self.metrics.sent(&port.send(bytes, *path));
                    }
                }
            }
            Destination::EveryoneBriefly => {
                for port in self.ports.iter().filter(|port| port.shared && !self.is_second(port)) {
                    if let Some(path) = port.paths.first() {
                        self.metrics.sent(&port.send(bytes, *path));
                    }
                }
            }
            Destination::Probe(at) => {
                if self.probes < PROBES_MAX {
                    self.probes += 1;
                    self.tasks.spawn(probe(at, bytes.to_vec()));
                }
            }
            Destination::Unicast(at) => {
                let of_family = |port: &&Port| !port.shared && port.is_ipv4() == at.is_ipv4();
                match self.ports.iter().find(of_family) {
                    Some(port) => self.metrics.sent(&port.send(bytes, at)),
                    None => debug!(%at, "no socket for this family"),
                }
            }
        }
    }
}

/// Sends `bytes` from a socket of their own, and waits a while for the host to refuse them. Answers go to
/// the private socket.
async fn probe(at: SocketAddr, bytes: Vec<u8>) -> Outcome {
    let refused = async {
        let any: IpAddr =
            if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(at).await?;
        socket.send(&bytes).await?;
        socket.recv(&mut [0; 1]).await
    };
    match timeout(PROBE_WAIT, refused).await {
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Outcome::Probed(Some(at)),
        _ => Outcome::Probed(None),
    }
}

fn much_later() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// Fetches and verifies a member's table, at the first of its addresses that gives one.
async fn fetch_table(fetch: Arc<dyn TableFetch>, tag: MeshTag, wish: Fetch) -> Outcome {
    for at in wish.at {
        match timeout(FETCH_TIMEOUT, fetch.fetch(at)).await {
            Ok(Ok(body)) => {
                let verified = tokio::task::spawn_blocking(move || {
                    transfer::decode(&body).map(|table| transfer::verify_transfer(tag, table))
                });
                match verified.await {
                    Ok(Ok(table)) => return Outcome::Fetched(wish.from, Some(table)),
                    Ok(Err(error)) => {
                        debug!(member = %wish.from.short(), %error, "a table that cannot be read")
                    }
                    Err(_) => debug!(member = %wish.from.short(), "a table could not be verified"),
                }
            }
            Ok(Err(error)) => debug!(member = %wish.from.short(), %at, %error, "table not fetched"),
            Err(_) => debug!(member = %wish.from.short(), %at, "table not fetched in time"),
        }
    }
    Outcome::Fetched(wish.from, None)
}

/// Fetches and verifies what a bridge knows of other islands, at the first of its addresses that gives it.
async fn fetch_far(fetch: Arc<dyn TableFetch>, tag: MeshTag, wish: FarFetch) -> Outcome {
    for at in wish.at {
        match timeout(FETCH_TIMEOUT, fetch.fetch_far(at, wish.instance, wish.since)).await {
            Ok(Ok(body)) => match tokio::task::spawn_blocking(move || far::read_transfer(tag, &body)).await {
                Ok(Ok(transfer)) => return Outcome::FetchedFar(wish.from, Some(transfer)),
                Ok(Err(error)) => {
                    debug!(member = %wish.from.short(), %error, "far records that cannot be read")
                }
                Err(_) => debug!(member = %wish.from.short(), "far records could not be verified"),
            },
            Ok(Err(error)) => debug!(member = %wish.from.short(), %at, %error, "far records not fetched"),
            Err(_) => debug!(member = %wish.from.short(), %at, "far records not fetched in time"),
        }
    }
    Outcome::FetchedFar(wish.from, None)
}
