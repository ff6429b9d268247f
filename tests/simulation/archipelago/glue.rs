//! What a node does with what it hears of other islands, and a bridge with its links: as the driver of the mesh, the role
//! of a bridge and its hub do.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use island_bridge::frame::{Goodbye, Stream};
use island_bridge::journal::Journal;
use island_bridge::junction::{Junction, Siblings};
use isle_mesh::far::{FarTransfer, FarWord, read_transfer_with};
use isle_mesh::member::MemberId;
use isle_mesh::membership::FarFetch;
use isle_mesh::reach::IslandLoad;
use isle_mesh::verify::Scheme;
use isle_mesh::wire::MeshTag;
use rand::RngExt;

use super::invariants::{FarWitness, Truth};
use super::link::Place;
use super::{Archipelago, Brought, Job};
use crate::process::State;
use crate::world::World;

/// How long it takes until what came over a link is verified and merged, and what each word adds.
const MERGE_TAKES: Duration = Duration::from_millis(1);
const WORD_TAKES: Duration = Duration::from_micros(20);
/// How long a request to a bridge of the own island takes, besides.
const FETCH_TAKES: Duration = Duration::from_millis(6);
const MEMBERS_MAX: usize = 100_000;

/// What a bridge is besides a member: in one life.
pub struct Bridge {
    pub life: Instant,
    pub id: MemberId,
    pub journal: Journal,
    pub junction: Junction,
    siblings: Siblings,
    wake_at: Option<Instant>,
    leaving: bool,
    /// What was last fetched of it: since when, how far.
    exported: Option<(u64, u64, Rc<FarTransfer>)>,
}

impl Archipelago {
    /// Does what the nodes of an island want after they took something in, until nobody wants anything.
    pub fn attend(&mut self, island: usize) {
        while let Some(node) = self.islands[island].touched.pop_first() {
            let place = Place { island, node };
            self.witness(place);
            self.begin_life(place);
            let process = &mut self.islands[island].processes[node];
            let islands = process.machine.take_islands();
            let wish = process.machine.poll_far_fetch();
            let mut has_news = false;
            if let Some(bridge) = self.bridges.get_mut(&place) {
                while let Some(news) = process.machine.poll_news() {
                    has_news = true;
                    // A verdict on somebody whose record was not told is no news to others.
                    let _ = bridge.journal.tell(news);
                }
                if let Some(islands) = &islands {
                    has_news = true;
                    for (other, reaches) in bridge.siblings.ways(bridge.id, islands) {
                        bridge.junction.heard_bridge(self.now, other, reaches);
                    }
                }
                has_news |= process.state == State::Left && !bridge.leaving;
            }
            if let Some(wish) = wish {
                self.fetch_far(place, &wish);
                self.islands[island].touched.insert(node);
            }
            if let Some(islands) = islands {
                let edges = &self.graph.edges;
                let own = format!("i{island}");
                let number = |name: &str| name[1..].parse::<usize>().expect("islands are numbered");
                self.witnesses[island][node].show(&own, islands, |one, other| {
                    let (one, other) = (number(one), number(other));
                    edges.contains(&(one, other)) || edges.contains(&(other, one))
                });
            }
            if has_news {
                self.settle(place);
            }
        }
        self.reorder(island);
    }

    /// Looks whether a node told the truth about other islands.
    fn witness(&mut self, place: Place) {
        let Place { island, node } = place;
        let process = &mut self.islands[island].processes[node];
        let (id, life) = (process.id, process.started);
        let events = std::mem::take(&mut process.beyond);
        let witnesses = &mut self.witnesses[island];
        while witnesses.len() <= node {
            witnesses.push(FarWitness::new(life));
        }
        if witnesses[node].life != life {
            witnesses[node] = FarWitness::new(life);
        }
        for event in events {
            if self.islands[island].trace {
                let at = (self.now - self.began).as_secs_f64();
                let whom = event.island().map_or_else(
                    || {
                        let member = event.member().expect("about an island or a member");
                        format!("{} of {}", member.record.name, member.record.island)
                    },
                    |island| island.name.clone(),
                );
                println!(
                    "{at:10.4} s  {:<4} n{node:<5} far: {} {whom}",
                    format!("i{island}"),
                    event.kind.as_str()
                );
            }
            let islands = &self.islands;
            let truth = |name: &str| {
                let number: usize = name[1..].parse().expect("islands are numbered");
                Truth::of(&islands[number])
            };
            self.witnesses[island][node].hear(id, &event, truth);
        }
    }

    /// A process that has started anew knows nothing of the links of the one before.
    fn begin_life(&mut self, place: Place) {
        let Some(peers) = self.ends.get(&place) else { return };
        let process = &self.islands[place.island].processes[place.node];
        let life = process.started;
        if self.bridges.get(&place).is_some_and(|bridge| bridge.life == life) {
            return;
        }
        let id = process.id;
        let mut junction = Junction::new(self.now, format!("i{}", place.island));
        for (peer, (link, end)) in peers {
            self.links[*link].ends[*end].session = None;
            if *end == 0 {
                junction.call(self.now, *peer, self.random.random());
            }
        }
        let bridge = Bridge {
            life,
            id,
            journal: Journal::new(self.random.random(), MEMBERS_MAX),
            junction,
            siblings: Siblings::default(),
            wake_at: None,
            leaving: false,
            exported: None,
        };
        self.bridges.insert(place, bridge);
        self.settle(place);
    }

    /// Whether the process of a bridge can do something.
    pub fn runs(&self, place: Place) -> bool {
        let process = &self.islands[place.island].processes.get(place.node);
        process.is_some_and(|process| matches!(process.state, State::Running | State::Leaving | State::Left))
            && self.bridges.contains_key(&place)
    }

    /// The same, and it takes calls.
    pub fn listens(&self, place: Place) -> bool {
        self.runs(place) && self.islands[place.island].processes[place.node].state == State::Running
    }

    pub fn wake_bridge(&mut self, place: Place, life: Instant) {
        let now = self.now;
        let is_due = self
            .bridges
            .get_mut(&place)
            .is_some_and(|bridge| bridge.life == life && bridge.wake_at.take_if(|at| *at <= now).is_some());
        if is_due && self.runs(place) {
            if let Some(bridge) = self.bridges.get_mut(&place) {
                bridge.junction.handle_timeout(now);
            }
            for (link, end) in self.ends_of(place) {
                if let Some(session) = &mut self.links[link].ends[end].session {
                    session.handle_timeout(now);
                }
            }
            self.settle(place);
            self.attend(place.island);
        }
    }

    pub fn ends_of(&self, place: Place) -> Vec<(usize, usize)> {
        self.ends.get(&place).map(|peers| peers.values().copied().collect()).unwrap_or_default()
    }

    /// After any input of a bridge: what follows from it is said, and it is noted when it has something to do.
    pub fn settle(&mut self, place: Place) {
        if !self.runs(place) {
            return;
        }
        let now = self.now;
        let ends = self.ends_of(place);
        self.leave_after_farewell(place, &ends);
        for (link, end) in &ends {
            self.take_events(*link, *end);
        }
        let Some(bridge) = self.bridges.get_mut(&place) else { return };
        let (world, links, peers) = (&self.islands[place.island], &mut self.links, &self.ends[&place]);
        let loads = {
            let round_trip = |peer: &MemberId| {
                let (link, end) = peers[peer];
                links[link].ends[end].session.as_ref()?.round_trip()
            };
            bridge.junction.poll_loads(now, || load_of(world, place.node), round_trip)
        };
        let routes = bridge.junction.poll_links(now);
        for (peer, loads) in loads {
            let (link, end) = peers[&peer];
            if let Some(session) = &mut links[link].ends[end].session {
                session.say_load(loads);
            }
        }
        for (peer, routes) in routes {
            let (link, end) = peers[&peer];
            if let Some(session) = &mut links[link].ends[end].session {
                session.say_routes(routes);
            }
        }
        while bridge.junction.poll_event().is_some() {}
        for peer in bridge.junction.poll_anew() {
            let (link, end) = peers[&peer];
            if let Some(session) = &mut links[link].ends[end].session {
                session.read_anew();
            }
        }
        let mut calls = Vec::new();
        while let Some(peer) = bridge.junction.poll_call(now) {
            calls.push(peers[&peer].0);
        }
        let (life, reaches) = (bridge.life, bridge.junction.poll_own(now));
        for link in calls {
            self.knock(link, life, now, 0);
        }
        if let Some(reaches) = reaches {
            // Whoever has left says nothing more.
            self.islands[place.island].input(place.node, now, |machine| machine.say_reaches(now, reaches));
        }
        for (link, end) in &ends {
            self.transmit(*link, *end);
        }
        self.schedule(place, &ends);
    }

    /// The farewell is said on the island; then goodbye is on the links, after everything urgent.
    fn leave_after_farewell(&mut self, place: Place, ends: &[(usize, usize)]) {
        let Some(bridge) = self.bridges.get_mut(&place) else { return };
        let has_left = self.islands[place.island].processes[place.node].state == State::Left;
        if !has_left || bridge.leaving {
            return;
        }
        bridge.leaving = true;
        bridge.junction.leave(self.now);
        for (link, end) in ends {
            if let Some(session) = &mut self.links[*link].ends[*end].session {
                session.goodbye(self.now, Goodbye::Leaving);
            }
        }
    }

    fn schedule(&mut self, place: Place, ends: &[(usize, usize)]) {
        let sessions = ends.iter().filter_map(|(link, end)| self.links[*link].ends[*end].session.as_ref());
        let wakeups = sessions.filter_map(|session| session.poll_timeout().map(|wakeup| wakeup.at)).min();
        let Some(bridge) = self.bridges.get_mut(&place) else { return };
        let at = wakeups.into_iter().fold(bridge.junction.poll_timeout(), Instant::min).max(self.now);
        if bridge.wake_at.is_none_or(|planned| at < planned) {
            bridge.wake_at = Some(at);
            let life = bridge.life;
            self.plan(at - self.now, Job::Wake(place, life));
        }
    }
}

/// Words from elsewhere.
impl Archipelago {
    /// What a link brought is on its way to the table.
    pub fn hand_over(
        &mut self,
        (link, end): (usize, usize),
        stream: Stream,
        withdrawn: Vec<MemberId>,
        words: Vec<Bytes>,
    ) {
        let takes = MERGE_TAKES + WORD_TAKES * u32::try_from(words.len()).expect("a batch");
        let connection = self.links[link].connection;
        let place = self.links[link].ends[end].place;
        let life = self.islands[place.island].processes[place.node].started;
        self.plan(takes, Job::Merge(Brought { link, end, connection, life, stream, withdrawn, words }));
    }

    pub fn merge(&mut self, brought: Brought) {
        let Brought { link, end, connection, life, stream, withdrawn, words } = brought;
        let (place, peer) = (self.links[link].ends[end].place, self.peer(link, end));
        // Those of a process that is no more are gone with it; when the link has broken they are merged all the same.
        if !self.listens(place) || self.islands[place.island].processes[place.node].started != life {
            return;
        }
        let now = self.now;
        let words: Vec<FarWord> = words.into_iter().filter_map(|word| self.verify(word)).collect();
        self.islands[place.island].input(place.node, now, |machine| {
            machine.hear_far(now, peer, &withdrawn, &words, stream == Stream::Urgent);
        });
        self.attend(place.island);
        if self.links[link].connection == connection
            && let Some(session) = &mut self.links[link].ends[end].session
        {
            session.merged(stream);
            self.read(link, end);
        }
        self.settle(place);
        self.attend(place.island);
    }

    fn fetch_far(&mut self, asker: Place, wish: &FarFetch) {
        self.fetched += 1;
        let life = self.islands[asker.island].processes[asker.node].started;
        let other = self.islands[asker.island].node_of(&wish.from);
        let place =
            other.map(|node| Place { island: asker.island, node }).filter(|place| self.listens(*place));
        let transfer = place.map(|place| self.far_of(place, wish.instance, wish.since));
        let words = transfer.as_ref().map_or(0, |transfer| transfer.words.len());
        let takes = FETCH_TAKES + WORD_TAKES * u32::try_from(words).expect("a transfer is bounded");
        self.plan(takes, Job::Far { place: asker, life, from: wish.from, transfer });
    }

    /// What a bridge knows of other islands, made anew only if it has changed.
    fn far_of(&mut self, place: Place, instance: u64, since: u64) -> Rc<FarTransfer> {
        let machine = &self.islands[place.island].processes[place.node].machine;
        let (ours, head) = machine.far_head();
        let since = if instance == ours { since } else { 0 };
        let made = self.bridges.get(&place).and_then(|bridge| bridge.exported.as_ref());
        if let Some((_, _, transfer)) = made.filter(|(from, to, _)| (*from, *to) == (since, head)) {
            return transfer.clone();
        }
        let body = machine.far_records(self.now, ours, since);
        let transfer =
            read_transfer_with(&body, |word| self.verify(word)).expect("a bridge says only bodies");
        let transfer = Rc::new(transfer);
        if let Some(bridge) = self.bridges.get_mut(&place) {
            bridge.exported = Some((since, head, transfer.clone()));
        }
        transfer
    }

    pub fn bring_far(
        &mut self,
        place: Place,
        life: Instant,
        from: MemberId,
        transfer: Option<Rc<FarTransfer>>,
    ) {
        let words = transfer.as_ref().map(|transfer| transfer.words.len());
        self.note(place, format_args!("far: was told {words:?} words by {from:?}"));
        let (now, world) = (self.now, &mut self.islands[place.island]);
        let process = &world.processes[place.node];
        if process.started != life || process.state != State::Running {
            return;
        }
        world.input(place.node, now, |machine| match &transfer {
            Some(transfer) => machine.merge_far(now, from, transfer),
            None => machine.far_fetch_failed(now, from),
        });
        self.attend(place.island);
    }

    fn verify(&mut self, bytes: Bytes) -> Option<FarWord> {
        if let Some(word) = self.words.get(&bytes) {
            return Some(word.clone());
        }
        let word = FarWord::verify(Scheme::StandIn, MeshTag::of("isle"), bytes.clone()).ok()?;
        if self.words.len() >= 50_000 {
            self.words.clear();
        }
        self.words.insert(bytes, word.clone());
        Some(word)
    }
}

/// How large and busy an island is, as a bridge of it sees it.
fn load_of(world: &World, node: usize) -> IslandLoad {
    let machine = &world.processes[node].machine;
    let own = machine.self_member();
    let living = machine.members().chain(own.iter()).filter(|member| !member.standing.is_gone());
    living.fold(IslandLoad::default(), |sum, member| IslandLoad {
        members: sum.members + 1,
        in_flight: sum.in_flight.saturating_add(member.load.in_flight),
        capacity: sum.capacity.saturating_add(member.load.capacity),
    })
}
