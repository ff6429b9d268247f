//! The task that owns the links of a bridge. What is decided about them is decided in a [`Junction`].
//!
//! It never waits for a link or for the program: links are given orders that keep the newest only, the program reads
//! what is newest. After every wake-up what follows from it is said, and everything that is due is done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use isle_mesh::member::MemberId;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::status::{Refused, Status};
use super::target::{CallError, call};
use super::{BridgeError, Command, Config, Event, Target};
use crate::endpoint::{Closing, Connection, Endpoint, Incoming, Refusals};
use crate::frame::{Goodbye, IslandLoad, Reach, Refusal};
use crate::junction::Junction;
use crate::link::{self, End, EndReason, Words};
use crate::routes::{Choice, Via};
use crate::session::Greeting;
use crate::shared::SharedJournal;
use crate::tls::Purpose;
use crate::tunnel::{self, Lines};

mod links;
mod report;

use links::{Configured, Known, Live};

/// Events of links that were not taken yet; a link waits while there are more.
const LINK_EVENTS_MAX: usize = 64;
/// Handshakes that strangers may have under way; others are asked to come again.
const HANDSHAKES_MAX: usize = 32;
/// Links that may show an invite at the same time; others are asked to come again.
const STRANGERS_MAX: usize = 8;
/// Strangers' refusals that are remembered for people.
const REFUSED_MAX: usize = 16;
/// All goodbyes take at most so long: a session's limit, and a little for the tasks.
const LEAVE_MAX: Duration = Duration::from_millis(300);
/// Others learn within this that the connections are closed, or by silence.
const CLOSE_MAX: Duration = Duration::from_millis(200);

/// An event, and which link it is of.
type Numbered = (u64, link::Event);

/// Where things go that the program reads.
pub(super) struct Outlets {
    pub(super) words: mpsc::Sender<Words>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) reaches: watch::Sender<Vec<Reach>>,
    pub(super) ways: watch::Sender<BTreeMap<String, Choice>>,
    pub(super) left_out: watch::Sender<u64>,
}

pub(super) struct Hub {
    config: Config,
    endpoint: Endpoint,
    journal: SharedJournal,
    lines: Lines,
    outlets: Outlets,
    loads: watch::Receiver<IslandLoad>,
    junction: Junction,
    /// Whom we call.
    configured: BTreeMap<MemberId, Configured>,
    /// Who may link, those that we call included.
    known: BTreeMap<MemberId, Known>,
    /// One for each node.
    links: BTreeMap<MemberId, Live>,
    links_ever: u64,
    refusals: Refusals,
    refused: VecDeque<(MemberId, Refused)>,
    tasks: JoinSet<Outcome>,
    handshakes: usize,
    /// For links to send to.
    link_events_tx: mpsc::Sender<Numbered>,
    link_events: mpsc::Receiver<Numbered>,
    leaving: Option<Leaving>,
}

struct Leaving {
    ends_at: Instant,
    replies: Vec<oneshot::Sender<()>>,
}

/// What a task of the hub brought.
enum Outcome {
    Called {
        key: MemberId,
        started_at: Instant,
        result: Result<Connection, CallError>,
    },
    Accepted(Option<Connection>),
    /// Its last event has said so.
    LinkOver,
    /// Whoever showed an invite.
    Answered,
}

enum Wake {
    Command(Option<Command>),
    Link(u64, link::Event),
    Outcome(Result<Outcome, JoinError>),
    Incoming(Option<Incoming>),
    Timeout,
}

impl Hub {
    pub(super) fn new(
        mut config: Config,
        endpoint: Endpoint,
        journal: SharedJournal,
        lines: Lines,
        outlets: Outlets,
        loads: watch::Receiver<IslandLoad>,
    ) -> Self {
        let (allowed, targets) = (std::mem::take(&mut config.allowed), std::mem::take(&mut config.links));
        let (link_events_tx, link_events) = mpsc::channel(LINK_EVENTS_MAX);
        let mut hub = Self {
            junction: Junction::new(Instant::now().into_std(), config.island.clone()),
            config,
            endpoint,
            journal,
            lines,
            outlets,
            loads,
            configured: BTreeMap::new(),
            known: allowed.into_iter().map(|key| (key, Known::default())).collect(),
            links: BTreeMap::new(),
            links_ever: 0,
            refusals: Refusals::default(),
            refused: VecDeque::new(),
            tasks: JoinSet::new(),
            handshakes: 0,
            link_events_tx,
            link_events,
            leaving: None,
        };
        for target in targets {
            hub.configure(target);
        }
        hub
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), BridgeError> {
        loop {
            self.act();
            if self.leaving.as_ref().is_some_and(|leaving| self.has_left(leaving)) {
                break;
            }
            match self.wait(&mut commands).await {
                Wake::Command(Some(command)) => self.obey(command),
                Wake::Command(None) => break,
                Wake::Link(number, event) => self.take_event(number, event),
                Wake::Outcome(Ok(outcome)) => self.take_outcome(outcome),
                // A call that was stopped.
                Wake::Outcome(Err(error)) if error.is_cancelled() => {}
                Wake::Outcome(Err(error)) => return Err(BridgeError::Task(error)),
                Wake::Incoming(Some(incoming)) => self.accept(incoming),
                Wake::Incoming(None) => return Err(BridgeError::Socket),
                Wake::Timeout => {}
            }
        }
        self.endpoint.close();
        self.endpoint.wait_closed(CLOSE_MAX).await;
        for reply in self.leaving.take().into_iter().flat_map(|leaving| leaving.replies) {
            // Whoever asked may have given up waiting.
            let _ = reply.send(());
        }
        Ok(())
    }

    /// Waits for a reason to do something. Loses nothing.
    async fn wait(&mut self, commands: &mut mpsc::Receiver<Command>) -> Wake {
        let deadline = self.deadline();
        tokio::select! {
            biased;
            command = commands.recv() => Wake::Command(command),
            Some((number, event)) = self.link_events.recv() => Wake::Link(number, event),
            Some(outcome) = self.tasks.join_next() => Wake::Outcome(outcome),
            incoming = self.endpoint.incoming() => Wake::Incoming(incoming),
            () = sleep_until(deadline) => Wake::Timeout,
        }
    }

    fn deadline(&self) -> Instant {
        let due = Instant::from_std(self.junction.poll_timeout());
        self.leaving.as_ref().map_or(due, |leaving| due.min(leaving.ends_at))
    }

    /// Does what is due, and says what follows from what has happened.
    fn act(&mut self) {
        let now = Instant::now();
        self.junction.handle_timeout(now.into_std());
        self.say_loads(now);
        self.call_due(now);
        self.spread_routes(now);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Link(target) => self.configure(target),
            Command::Allow(key) => self.allow(key),
            Command::Unlink(key, reply) => {
                let _ = reply.send(self.unlink(key));
            }
            Command::BridgeRoutes(bridge, reaches) => {
                self.junction.heard_bridge(Instant::now().into_std(), bridge, reaches);
            }
            Command::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Command::Connection(key, reply) => {
                let live = self.links.get(&key).filter(|live| live.greeting.is_some());
                let _ = reply.send(live.map(|live| live.connection.clone()));
            }
            Command::Rename(island) => self.rename(island),
            Command::Leave(reply) => self.leave(reply),
        }
    }

    fn rename(&mut self, island: String) {
        if self.config.island == island {
            return;
        }
        info!(island, "our island has another name");
        self.config.island.clone_from(&island);
        self.lines.rename(island.clone());
        self.junction.rename(Instant::now().into_std(), island);
        for live in self.links.values() {
            live.orders.end(End::Goodbye(Goodbye::Leaving));
        }
    }

    fn leave(&mut self, reply: oneshot::Sender<()>) {
        let now = Instant::now();
        let leaving =
            self.leaving.get_or_insert_with(|| Leaving { ends_at: now + LEAVE_MAX, replies: Vec::new() });
        leaving.replies.push(reply);
        self.junction.leave(now.into_std());
        for live in self.links.values() {
            live.orders.end(End::Goodbye(Goodbye::Leaving));
        }
    }

    fn has_left(&self, leaving: &Leaving) -> bool {
        self.links.is_empty() || leaving.ends_at <= Instant::now()
    }

    fn take_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Called { key, started_at, result } => self.called(key, started_at, result),
            Outcome::Accepted(connection) => {
                self.handshakes -= 1;
                match connection {
                    Some(connection) if connection.purpose() == Purpose::Tunnels => self.carry(connection),
                    Some(connection) => self.connect(connection),
                    None => {}
                }
            }
            Outcome::LinkOver | Outcome::Answered => {}
        }
    }

    fn accept(&mut self, incoming: Incoming) {
        if self.leaving.is_some() || self.handshakes >= HANDSHAKES_MAX {
            return incoming.defer();
        }
        self.handshakes += 1;
        self.tasks.spawn(async { Outcome::Accepted(incoming.accept().await) });
    }

    fn take_event(&mut self, number: u64, event: link::Event) {
        let now = Instant::now();
        let Some((&peer, live)) = self.links.iter_mut().find(|(_, live)| live.number == number) else {
            return;
        };
        match event {
            link::Event::Invited(secret) => {
                let Some(invites) = &self.config.invites else {
                    return live.orders.answer_invite(Err(Refusal::UnknownKey));
                };
                live.by_invite = true;
                // It takes the disk's time.
                let (admission, orders) = (invites.admit(peer, secret), live.orders.clone());
                self.tasks.spawn(async move {
                    orders.answer_invite(admission.await);
                    Outcome::Answered
                });
            }
            link::Event::Up(greeting) => self.up(now, peer, greeting),
            link::Event::Routes(routes) => self.junction.heard_routes(now.into_std(), peer, routes),
            link::Event::Load(loads) => self.junction.heard_loads(now.into_std(), peer, loads),
            link::Event::Down(reason, bookmark) => self.down(now, peer, reason, bookmark),
        }
    }

    fn say_loads(&mut self, now: Instant) {
        let (loads, links) = (&mut self.loads, &self.links);
        let round_trip = |peer: &MemberId| links.get(peer)?.shown().round_trip;
        for (peer, loads) in
            self.junction.poll_loads(now.into_std(), || *loads.borrow_and_update(), round_trip)
        {
            let Some(live) = self.links.get(&peer) else { continue };
            if let (Some(round_trip), Some(greeting)) = (live.shown().round_trip, &live.greeting) {
                self.lines.up(peer, &greeting.island, round_trip);
            }
            live.orders.say_loads(loads);
        }
    }

    fn spread_routes(&mut self, now: Instant) {
        let now = now.into_std();
        for (peer, routes) in self.junction.poll_links(now) {
            if let Some(live) = self.links.get(&peer) {
                live.orders.say_routes(routes);
            }
        }
        if let Some(reaches) = self.junction.poll_own(now) {
            self.outlets.reaches.send_replace(reaches);
        }
        while let Some(event) = self.junction.poll_event() {
            info!(?event, "ways between islands");
            // Nobody may be listening.
            let _ = self.outlets.events.send(Event::Island(event));
        }
        for peer in self.junction.poll_anew() {
            if let Some(live) = self.links.get(&peer) {
                live.orders.read_anew();
            }
        }
        let other = |(island, way): (&str, &Choice)| match way.via {
            Via::Bridge(bridge) if way.reach.path.next() == island => Some((island.to_owned(), bridge)),
            _ => None,
        };
        self.lines.set_others(self.junction.islands().filter_map(other).collect());
        let routes = &self.junction;
        self.outlets.left_out.send_if_modified(|shown| {
            let before = std::mem::replace(shown, routes.left_out_total());
            before != *shown
        });
        self.outlets.ways.send_if_modified(|shown| {
            let is_same = shown.len() == routes.islands().count()
                && routes.islands().all(|(island, way)| shown.get(island) == Some(way));
            if !is_same {
                *shown = routes.islands().map(|(island, way)| (island.to_owned(), way.clone())).collect();
            }
            !is_same
        });
    }
}

impl Drop for Hub {
    /// However it ends: whoever still holds the bridge does not hold its connections, and the socket with them.
    fn drop(&mut self) {
        self.lines.end();
    }
}
