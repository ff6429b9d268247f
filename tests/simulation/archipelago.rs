//! Many islands joined by bridges, whole nodes: each island a world of its own, all under one clock and one seed. A bridge
//! is a member of its island, and glued to its links as the product glues it: what its mesh tells goes into a journal, what
//! links bring is verified and merged, what is decided about links is decided in a junction.
//!
//! | module | subject |
//! |---|---|
//! | `graph` | which islands are joined |
//! | `link` | what a link is |
//! | `carry` | calls, connections, and what goes over them |
//! | `glue` | what a node does with what it hears of other islands, and a bridge with its links |
//! | `invariants` | what must hold |
//! | `agreement` | what all must know in the end |
//! | `story` | the sentences that scenarios are made of |
//! | `scenarios` | the scenarios |

mod agreement;
mod carry;
mod glue;
mod graph;
mod invariants;
mod link;
mod scenarios;
mod story;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use island_bridge::frame::Stream;
use isle_mesh::far::{FarTransfer, FarWord};
use isle_mesh::identity::Identity;
use isle_mesh::member::MemberId;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::archipelago::glue::Bridge;
use crate::archipelago::graph::Graph;
use crate::archipelago::invariants::FarWitness;
use crate::archipelago::link::{Link, Packet, Place};
use crate::world::{World, large_island};

/// What is to be built.
pub struct Plan {
    graph: Graph,
    seed: u64,
    bridges: usize,
    members: usize,
    voices: usize,
    loss: f64,
    crashes: bool,
    delay: (Duration, Duration),
}

/// Islands joined like this, of one bridge and two members each.
pub fn archipelago(graph: Graph, seed: u64) -> Plan {
    let delay = (Duration::from_millis(5), Duration::from_millis(20));
    Plan { graph, seed, bridges: 1, members: 2, voices: 0, loss: 0.02, crashes: true, delay }
}

impl Plan {
    /// So many bridges on each island. Each end of a link is at one of them, by lot.
    pub fn bridges(mut self, count: usize) -> Self {
        self.bridges = count;
        self
    }

    /// So many members on each island besides that keep a table.
    pub fn members(mut self, count: usize) -> Self {
        self.members = count;
        self
    }

    /// So many that only author words.
    pub fn voices(mut self, count: usize) -> Self {
        self.voices = count;
        self
    }

    /// Members come, go and change, but none is gone without a word.
    pub fn without_crashes(mut self) -> Self {
        self.crashes = false;
        self
    }

    /// Everybody starts within half a second.
    pub fn begins(self) -> Archipelago {
        let Self { graph, seed, bridges, members, voices, loss, crashes, delay } = self;
        let mut random = SmallRng::seed_from_u64(seed);
        let number = |island: usize| island as u64;
        let mut islands: Vec<World> = (0..graph.islands)
            .map(|island| large_island(bridges + members, seed * 1_000 + number(island)).loss(loss))
            .collect();
        let now = islands[0].now;
        let key = |islands: &[World], place: Place| {
            Identity::stand_in(islands[place.island].keys + 1 + place.node as u64).id()
        };
        let mut links = Vec::new();
        for (one, other) in &graph.edges {
            let places = [*one, *other].map(|island| Place { island, node: random.random_range(0..bridges) });
            let takes = delay.0 + (delay.1 - delay.0).mul_f64(random.random_range(0.0..1.0));
            links.push(Link::new(places.map(|place| (place, key(&islands, place))), takes));
        }
        let mut ends: BTreeMap<Place, BTreeMap<MemberId, (usize, usize)>> = BTreeMap::new();
        for island in 0..graph.islands {
            for node in 0..bridges {
                ends.insert(Place { island, node }, BTreeMap::new());
            }
        }
        for (number, link) in links.iter().enumerate() {
            for end in [0, 1] {
                let peer = link.ends[1 - end].id;
                ends.entry(link.ends[end].place).or_default().insert(peer, (number, end));
            }
        }
        for (island, world) in islands.iter_mut().enumerate() {
            (world.now, world.began) = (now, now);
            world.site.island = Some(format!("i{island}"));
            for (place, peers) in ends.iter().filter(|(place, _)| place.island == island) {
                world.site.bridges.insert(place.node, peers.keys().copied().collect());
            }
        }
        let islands: Vec<World> = islands
            .into_iter()
            .map(|island| {
                let (least, most) = (Duration::ZERO, Duration::from_millis(2));
                island.delay(least, most).started_within(Duration::from_millis(500))
            })
            .collect();
        let mut archipelago = Archipelago {
            seed,
            now,
            began: now,
            random,
            order: BTreeSet::new(),
            next: vec![None; islands.len()],
            jobs: BTreeMap::new(),
            jobs_ever: 0,
            ends,
            bridges: BTreeMap::new(),
            links,
            graph,
            crashes,
            bridges_each: bridges,
            members_each: members,
            witnesses: islands.iter().map(|_| Vec::new()).collect(),
            words: HashMap::new(),
            doubted: (0, 0),
            fetched: 0,
            islands,
        };
        for island in 0..archipelago.islands.len() {
            archipelago.reorder(island);
        }
        archipelago.run_for(Duration::from_millis(600));
        for island in &mut archipelago.islands {
            island.now = archipelago.now;
            island.start_voices(voices, Duration::from_millis(500));
        }
        for island in 0..archipelago.islands.len() {
            archipelago.reorder(island);
        }
        archipelago
    }
}

pub struct Archipelago {
    pub seed: u64,
    pub now: Instant,
    began: Instant,
    random: SmallRng,
    pub islands: Vec<World>,
    /// Which island is next to do something, and what is noted of each in there.
    order: BTreeSet<(Instant, usize)>,
    next: Vec<Option<Instant>>,
    jobs: BTreeMap<(Instant, u64), Job>,
    jobs_ever: u64,
    /// Which end of which link is at a bridge, by the key at the other.
    ends: BTreeMap<Place, BTreeMap<MemberId, (usize, usize)>>,
    bridges: BTreeMap<Place, Bridge>,
    links: Vec<Link>,
    graph: Graph,
    /// Whether anybody is gone without a word.
    crashes: bool,
    bridges_each: usize,
    members_each: usize,
    witnesses: Vec<Vec<FarWitness>>,
    /// Words of other islands that were verified.
    words: HashMap<Bytes, FarWord>,
    /// Where tables differed last: looked at first.
    doubted: (usize, usize),
    /// Times that a bridge was asked for what it knows.
    fetched: u64,
}

/// Something that happens between islands, or between a bridge and its own.
enum Job {
    Wake(Place, Instant),
    Arrive(Packet),
    /// A stream of a link has room again.
    Room(Place),
    /// What a link brought is verified.
    Merge(Brought),
    /// The next packet of a call.
    Knock {
        link: usize,
        life: Instant,
        started_at: Instant,
        knock: usize,
    },
    /// That packet is answered.
    Connect {
        link: usize,
        life: Instant,
        started_at: Instant,
        knock: usize,
    },
    CallFailed {
        link: usize,
        life: Instant,
        started_at: Instant,
    },
    /// What a bridge knows of other islands has come.
    Far {
        place: Place,
        life: Instant,
        from: MemberId,
        transfer: Option<Rc<FarTransfer>>,
    },
}

/// What a link has brought, at which end, over which of its connections and in which life of the bridge.
pub struct Brought {
    link: usize,
    end: usize,
    connection: u64,
    life: Instant,
    stream: Stream,
    withdrawn: Vec<MemberId>,
    words: Vec<Bytes>,
}

impl Archipelago {
    pub fn run_for(&mut self, length: Duration) {
        let end = self.now + length;
        loop {
            let job = self.jobs.first_key_value().map(|((at, _), _)| *at);
            let island = self.order.first().copied();
            match (job, island) {
                (Some(at), first) if at <= end && first.is_none_or(|(island_at, _)| at < island_at) => {
                    let Some((_, job)) = self.jobs.pop_first() else { break };
                    self.now = self.now.max(at);
                    self.happen(job);
                }
                (_, Some((at, island))) if at <= end => {
                    self.now = self.now.max(at);
                    self.islands[island].step();
                    self.attend(island);
                }
                _ => break,
            }
        }
        self.now = end;
        for island in 0..self.islands.len() {
            self.islands[island].now = end;
            self.islands[island].all_listen();
            self.attend(island);
        }
    }

    fn plan(&mut self, after: Duration, job: Job) {
        self.jobs_ever += 1;
        self.jobs.insert((self.now + after, self.jobs_ever), job);
    }

    fn happen(&mut self, job: Job) {
        match job {
            Job::Wake(place, life) => self.wake_bridge(place, life),
            Job::Arrive(packet) => self.arrive(packet),
            Job::Room(place) => {
                self.settle(place);
                self.attend(place.island);
            }
            Job::Merge(brought) => self.merge(brought),
            Job::Knock { link, life, started_at, knock } => self.knock(link, life, started_at, knock),
            Job::Connect { link, life, started_at, knock } => self.connect(link, life, started_at, knock),
            Job::CallFailed { link, life, started_at } => self.call_failed(link, life, started_at),
            Job::Far { place, life, from, transfer } => self.bring_far(place, life, from, transfer),
        }
    }

    /// Notes when an island next does something.
    fn reorder(&mut self, island: usize) {
        let next = self.islands[island].next_at();
        if next != self.next[island] {
            if let Some(before) = std::mem::replace(&mut self.next[island], next) {
                self.order.remove(&(before, island));
            }
            self.order.extend(next.map(|at| (at, island)));
        }
    }

    fn note(&self, place: Place, what: std::fmt::Arguments<'_>) {
        let Place { island, node } = place;
        if self.islands[island].trace {
            let at = (self.now - self.began).as_secs_f64();
            println!("{at:10.4} s  {:<4} n{node:<5} {what}", format!("i{island}"));
        }
    }
}
