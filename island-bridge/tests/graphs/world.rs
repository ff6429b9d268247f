//! Islands, bridges and links in virtual time, from one seed. Words and routes cross as the bytes they are on a wire.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use island_bridge::frame::{Frame, IslandLoad, Reach, Stream};
use island_bridge::journal::Journal;
use island_bridge::routes::{self, RouteTable};
use island_bridge::session::{Event, Session};
use isle_mesh::member::MemberId;
use isle_mesh::path::Path;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::link::{Content, Link, Packet};
use crate::table::{Kind, Known, Table, Word, merge, view};

mod faults;
mod streams;

/// How long a broadcast takes on an island.
const WIRE_DELAY: Duration = Duration::from_millis(2);
/// How long it takes to verify and merge what came on a stream.
const MERGE_DELAY: Duration = Duration::from_millis(1);

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) rng: StdRng,
    jobs: BTreeMap<(Instant, u64), Job>,
    jobs_ever: u64,
    pub(crate) islands: Vec<Island>,
    pub(crate) bridges: Vec<Bridge>,
    pub(crate) links: Vec<Link>,
    /// Which word crossed which link, when and which way.
    pub(crate) crossings: BTreeMap<(usize, Bytes), Crossing>,
    /// What bridges said of islands, and when.
    pub(crate) events: Vec<(Instant, usize, routes::Event)>,
}

pub(crate) struct Island {
    pub(crate) name: String,
    pub(crate) bridges: Vec<usize>,
    pub(crate) members: Vec<MemberId>,
}

pub(crate) struct Bridge {
    pub(crate) island: usize,
    pub(crate) id: MemberId,
    pub(crate) table: Table,
    pub(crate) journal: Journal,
    pub(crate) routes: RouteTable,
    ends: Vec<(usize, usize)>,
    routes_wake_at: Option<Instant>,
    /// Its newest ROUTES word, as its island's table has it.
    said: Vec<Reach>,
    is_dead: bool,
}

/// By the end that sent it: when it was sent, when it was first read.
#[derive(Default, Debug)]
pub(crate) struct Crossing {
    pub(crate) sent: [Vec<Instant>; 2],
    pub(crate) read: [Option<Instant>; 2],
}

#[derive(Debug)]
enum Job {
    Arrive(Packet),
    Wake(usize, usize),
    WakeRoutes(usize),
    Dial(usize),
    Connect(usize),
    Merged(usize, usize, u64, Stream),
    Wire(usize, Word),
    WireRoutes(usize, MemberId, Vec<Reach>),
    Loads(usize),
    /// Its island finds that this bridge is dead, if it is.
    Found(usize),
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Instant::now(),
            rng: StdRng::seed_from_u64(seed),
            jobs: BTreeMap::new(),
            jobs_ever: 0,
            islands: Vec::new(),
            bridges: Vec::new(),
            links: Vec::new(),
            crossings: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// So many islands of so many bridges and members each; unconnected.
    pub(crate) fn with_islands(mut self, islands: usize, bridges: usize, members: usize) -> Self {
        for island in 0..islands {
            let name = format!("i{island}");
            let members: Vec<_> = (0..members).map(|member| id("member", island * 1000 + member)).collect();
            let first = self.bridges.len();
            for bridge in first..first + bridges {
                self.bridges.push(Bridge {
                    island,
                    id: id("bridge", bridge),
                    table: Table::new(),
                    journal: Journal::new(self.rng.random(), 100_000),
                    routes: RouteTable::new(name.clone()),
                    ends: Vec::new(),
                    routes_wake_at: None,
                    said: Vec::new(),
                    is_dead: false,
                });
                let first = Duration::from_millis(self.rng.random_range(0..1000));
                self.plan(first, Job::Loads(bridge));
                for member in &members {
                    let word = Word { kind: Kind::Record, member: *member, epoch: 1, seq: 1, verdict: 0 };
                    self.learn(bridge, word, None);
                }
            }
            self.islands.push(Island { name, bridges: (first..first + bridges).collect(), members });
        }
        self
    }

    /// A link between two bridges, dialled at once.
    pub(crate) fn link(&mut self, one: usize, other: usize, delay: Duration) -> usize {
        let link = self.links.len();
        self.links.push(Link::new([one, other], delay, self.rng.random()));
        self.bridges[one].ends.push((link, 0));
        self.bridges[other].ends.push((link, 1));
        self.plan(Duration::ZERO, Job::Dial(link));
        link
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(job) = self.jobs.first_entry().filter(|job| job.key().0 <= end) {
            let ((at, _), job) = job.remove_entry();
            self.now = at;
            self.run(job);
        }
        self.now = end;
    }

    /// Runs until all bridges that live agree; how long that took, at most `limit`.
    pub(crate) fn run_until_equal(&mut self, limit: Duration) -> Option<Duration> {
        let start = self.now;
        while self.now <= start + limit {
            if self.is_equal() {
                return Some(self.now - start);
            }
            self.run_for(Duration::from_millis(5));
        }
        None
    }

    pub(crate) fn is_equal(&self) -> bool {
        let mut views =
            self.bridges.iter().filter(|bridge| !bridge.is_dead).map(|bridge| view(&bridge.table));
        let first = views.next();
        views.all(|view| Some(&view) == first.as_ref())
    }

    /// What the bridges know of the members that they do not agree on.
    pub(crate) fn difference(&self) -> String {
        let living = || self.bridges.iter().enumerate().filter(|(_, bridge)| !bridge.is_dead);
        let members: BTreeSet<_> = living().flat_map(|(_, bridge)| bridge.table.keys()).collect();
        let mut text = String::new();
        for member in members {
            let known: Vec<_> = living().map(|(number, it)| (number, it.table.get(member))).collect();
            let views: BTreeSet<_> = known.iter().map(|(_, known)| known.map(Known::view)).collect();
            if views.len() > 1 {
                text.push_str(&format!("{member:?}:\n"));
                known.iter().for_each(|(number, known)| text.push_str(&format!("  {number} {known:?}\n")));
            }
        }
        text
    }

    /// A member says its next word of this kind, or others its next verdict; its island's bridges hear it.
    pub(crate) fn say(&mut self, island: usize, member: usize, kind: Kind) -> Word {
        let member = self.islands[island].members[member];
        let word = self.bridges[self.islands[island].bridges[0]].table[&member].next(kind);
        for bridge in self.islands[island].bridges.clone() {
            let delay = WIRE_DELAY.mul_f64(self.rng.random_range(0.0..1.0));
            self.plan(delay, Job::Wire(bridge, word));
        }
        word
    }

    /// Somebody somewhere says something.
    pub(crate) fn churn(&mut self) {
        let island = self.rng.random_range(0..self.islands.len());
        let member = self.rng.random_range(0..self.islands[island].members.len());
        let known =
            &self.bridges[self.islands[island].bridges[0]].table[&self.islands[island].members[member]];
        let kind = match self.rng.random_range(0..20) {
            _ if known.has_left() => Kind::Record,
            0..11 => Kind::Record,
            11..13 => Kind::Draining,
            13..16 => Kind::Farewell,
            _ => Kind::Verdict,
        };
        self.say(island, member, kind);
    }

    /// A few of those at once.
    pub(crate) fn churn_some(&mut self) {
        for _ in 0..self.rng.random_range(1..4) {
            self.churn();
        }
    }

    /// How the first bridge of one island reaches another island.
    pub(crate) fn way(&self, from: usize, to: usize) -> Option<&Path> {
        let bridge = &self.bridges[self.islands[from].bridges[0]];
        bridge.routes.best(&self.islands[to].name).map(|choice| &choice.reach.path)
    }

    fn plan(&mut self, delay: Duration, job: Job) {
        self.jobs_ever += 1;
        self.jobs.insert((self.now + delay, self.jobs_ever), job);
    }

    fn run(&mut self, job: Job) {
        match job {
            Job::Arrive(packet) => self.arrive(packet),
            Job::Wake(link, end) => {
                let (now, end) = (self.now, &mut self.links[link].ends[end]);
                if end.wake_at.take_if(|at| *at <= now).is_some() {
                    let bridge = end.bridge;
                    if let Some(session) = &mut end.session {
                        session.handle_timeout(now);
                    }
                    self.settle(bridge);
                }
            }
            Job::WakeRoutes(bridge) => {
                let (now, this) = (self.now, &mut self.bridges[bridge]);
                if this.routes_wake_at.take_if(|at| *at <= now).is_some() {
                    this.routes.handle_timeout(now);
                    self.settle(bridge);
                }
            }
            Job::Dial(link) => {
                let ends = &self.links[link].ends;
                let is_dead = ends.iter().any(|end| self.bridges[end.bridge].is_dead);
                if ends[0].session.is_some() || self.bridges[ends[0].bridge].is_dead {
                    return;
                }
                if self.links[link].is_cut || is_dead {
                    self.redial(link);
                } else {
                    self.plan(self.links[link].delay * 2, Job::Connect(link));
                }
            }
            Job::Connect(link) if self.links[link].is_cut => self.redial(link),
            Job::Connect(link) if self.links[link].ends[0].session.is_some() => {}
            Job::Connect(link) => self.connect(link),
            Job::Merged(link, end, connection, stream) => {
                if self.links[link].connection == connection {
                    if let Some(session) = &mut self.links[link].ends[end].session {
                        session.merged(stream);
                    }
                    self.read(link, end);
                    self.settle(self.links[link].ends[end].bridge);
                }
            }
            Job::Wire(bridge, word) => {
                if !self.bridges[bridge].is_dead && self.learn(bridge, word, None) {
                    self.settle(bridge);
                }
            }
            Job::WireRoutes(bridge, from, reaches) => {
                self.bridges[bridge].routes.bridge_routes(self.now, from, reaches);
                self.settle(bridge);
            }
            Job::Found(bridge) if !self.bridges[bridge].is_dead => {}
            Job::Found(bridge) => {
                for sibling in self.siblings(bridge) {
                    self.plan(Duration::ZERO, Job::WireRoutes(sibling, self.bridges[bridge].id, Vec::new()));
                }
            }
            Job::Loads(bridge) => {
                self.say_loads(bridge);
                self.settle(bridge);
                self.plan(Duration::from_secs(1), Job::Loads(bridge));
            }
        }
    }

    /// Merges a word; whether it was news.
    fn learn(&mut self, bridge: usize, word: Word, from: Option<MemberId>) -> bool {
        let this = &mut self.bridges[bridge];
        let is_news = merge(&mut this.table, word);
        if is_news {
            this.journal.record(word.change(), from).expect("the journal has room");
        }
        is_news
    }

    fn siblings(&self, bridge: usize) -> Vec<usize> {
        let island = &self.islands[self.bridges[bridge].island];
        island.bridges.iter().copied().filter(|other| *other != bridge).collect()
    }

    fn redial(&mut self, link: usize) {
        let at = self.links[link].redial.next(self.now);
        self.plan(at - self.now, Job::Dial(link));
    }

    /// After any input of a bridge: what follows from it is said.
    fn settle(&mut self, bridge: usize) {
        for (link, end) in self.bridges[bridge].ends.clone() {
            self.take_events(link, end);
        }
        self.spread_routes(bridge);
        for (link, end) in self.bridges[bridge].ends.clone() {
            self.transmit(link, end);
            self.schedule(link, end);
        }
    }

    fn take_events(&mut self, link: usize, end: usize) {
        let (now, peer) = (self.now, self.peer(link, end));
        let this = &self.links[link];
        let (bridge, connection, round_trip) = (this.ends[end].bridge, this.connection, this.delay * 2);
        while let Some(event) = self.links[link].ends[end].session.as_mut().and_then(Session::poll_event) {
            let routes = &mut self.bridges[bridge].routes;
            match event {
                Event::Invited { .. } => unreachable!("nobody here has an invite"),
                Event::Up(greeting) => {
                    routes.link_up(now, peer, greeting.island, round_trip);
                    self.links[link].redial.up(now);
                }
                Event::Words { stream, words, .. } => {
                    for word in words {
                        self.merge_far(bridge, Word::of(&word), peer);
                    }
                    self.plan(MERGE_DELAY, Job::Merged(link, end, connection, stream));
                }
                Event::Routes(said) => routes.link_routes(now, peer, said),
                Event::Load(loads) => routes.link_load(now, peer, loads),
                Event::Down(_) => {
                    self.transmit(link, end);
                    self.send(link, end, Content::Closed);
                    self.disconnect(link, end);
                    if end == 0 {
                        self.redial(link);
                    }
                }
            }
        }
    }

    /// A word from another island: if it is news, the bridges beside us hear it, too.
    fn merge_far(&mut self, bridge: usize, word: Word, from: MemberId) {
        if self.learn(bridge, word, Some(from)) {
            for sibling in self.siblings(bridge) {
                self.plan(WIRE_DELAY, Job::Wire(sibling, word));
            }
        }
    }

    fn spread_routes(&mut self, bridge: usize) {
        let now = self.now;
        while let Some(event) = self.bridges[bridge].routes.poll_event() {
            self.events.push((now, bridge, event));
        }
        for (link, end) in self.bridges[bridge].ends.clone() {
            let peer = self.peer(link, end);
            if let Some(session) = &mut self.links[link].ends[end].session {
                session.say_routes(self.bridges[bridge].routes.poll_link(now, peer));
            }
        }
        if let Some(reaches) = self.bridges[bridge].routes.poll_own(now) {
            self.bridges[bridge].said.clone_from(&reaches);
            for sibling in self.siblings(bridge) {
                let job = Job::WireRoutes(sibling, self.bridges[bridge].id, reaches.clone());
                self.plan(WIRE_DELAY, job);
            }
        }
        let this = &mut self.bridges[bridge];
        if let Some(at) = this.routes.poll_timeout()
            && this.routes_wake_at.is_none_or(|planned| at < planned)
        {
            this.routes_wake_at = Some(at.max(now));
            self.plan(at.saturating_duration_since(now), Job::WakeRoutes(bridge));
        }
    }

    fn say_loads(&mut self, bridge: usize) {
        let members =
            u32::try_from(self.islands[self.bridges[bridge].island].members.len()).expect("few members");
        let load = IslandLoad { members, in_flight: self.rng.random_range(0..9), capacity: 9 };
        self.bridges[bridge].routes.own_load(load);
        for (link, end) in self.bridges[bridge].ends.clone() {
            let (now, peer) = (self.now, self.peer(link, end));
            if let Some(session) =
                self.links[link].ends[end].session.as_mut().filter(|session| session.is_up())
            {
                session.say_load(self.bridges[bridge].routes.loads(peer));
                if let Some(round_trip) = session.round_trip() {
                    self.bridges[bridge].routes.link_round_trips(now, [(peer, round_trip)]);
                }
            }
        }
    }

    fn schedule(&mut self, link: usize, end: usize) {
        let this = &mut self.links[link].ends[end];
        let Some(wakeup) = this.session.as_ref().and_then(Session::poll_timeout) else { return };
        if this.wake_at.is_none_or(|planned| wakeup.at < planned) {
            this.wake_at = Some(wakeup.at.max(self.now));
            self.plan(wakeup.at.saturating_duration_since(self.now), Job::Wake(link, end));
        }
    }
}

fn id(kind: &str, number: usize) -> MemberId {
    MemberId(*blake3::hash(format!("{kind} {number}").as_bytes()).as_bytes())
}

fn words(frame: &Frame) -> Vec<Bytes> {
    match frame {
        Frame::Changes(changes) => changes.words.clone(),
        Frame::Urgent { words, .. } => words.clone(),
        _ => Vec::new(),
    }
}
