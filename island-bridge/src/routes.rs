//! Which islands can be reached, through whom, at what cost: a path vector between islands.
//!
//! A bridge hears from each link which islands lie behind it and by what path, and from the other bridges of its own
//! island what they have heard. It chooses the cheapest, and tells each link its own island and the rest, always with
//! the whole path. A path that names one's own island is never accepted, so no loop can be chosen however old the
//! news is. To its own island it tells only what its own links bring: what another bridge said goes no further.
//!
//! A path has at most eight islands, so the cheapest may be too long to lead further where one of fewer islands does:
//! both are told. So whoever is eight islands away at most is reached.
//!
//! There are at most 256 islands, our own among them. Of more those are left out that are brought by whoever brings most.
//!
//! A cheaper path replaces the chosen one only if it costs at most five sixths of it. What is no longer true is told
//! at once; everything else that changed, once a second.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use isle_mesh::member::MemberId;

use crate::frame::{IslandLoad, Reach, Route};
use isle_mesh::island::room::{Offer, left_out};
use isle_mesh::path::{PATH_ISLANDS_MAX, Path};

#[cfg(test)]
mod tests;
mod told;

use told::{Pending, Told};

/// Islands that one link, or one bridge, may speak of; more are ignored. As many are told, our own among them: who brings
/// most of those that there are makes room for others. Required by NETWORK.md, "Room".
pub const ISLANDS_MAX: usize = 256;

/// What each link costs besides its round trip: of two ways as long the one over fewer bridges is better. Guessed.
const HOP_COST: Duration = Duration::from_millis(1);

/// An island that no path leads to is given up after this: another path may come as the answer to the loss of the
/// last. Several round trips within a continent. Guessed.
const DOUBT: Duration = Duration::from_millis(200);

/// What one bridge knows of the ways to other islands.
#[derive(Debug)]
pub struct RouteTable {
    island: String,
    load: IslandLoad,
    links: BTreeMap<MemberId, Link>,
    /// What the other bridges of our island said.
    bridges: BTreeMap<MemberId, Heard>,
    chosen: BTreeMap<String, Choice>,
    /// Islands that were chosen a way to and have none, with the time at which they are given up.
    doubted: BTreeMap<String, Instant>,
    /// Islands that there is no room for.
    left_out: BTreeSet<String>,
    /// How many have become so.
    left_out_total: u64,
    /// What our island was told.
    told: Told,
    is_leaving: bool,
    events: VecDeque<Event>,
}

#[derive(Debug)]
struct Link {
    island: String,
    cost: Duration,
    /// As the other side said it: its island is the first on each path.
    heard: Heard,
    told: Told,
}

/// The ways to each island, at most [`WAYS_MAX`](isle_mesh::island::WAYS_MAX).
type Heard = BTreeMap<String, Vec<Reach>>;

/// What has changed, for people and for whoever chooses where requests go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The first way to this island has come.
    IslandUp(String),
    /// The last way to this island has been gone for 200 ms.
    IslandDown(String),
}

/// The way to an island that is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Through whom it leaves this island.
    pub via: Via,
    /// The islands on it, from the next one on, and its whole cost.
    pub reach: Reach,
}

/// Who carries what leaves the island.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Via {
    /// We do, over the link to this bridge of another island.
    Link(MemberId),
    /// This other bridge of our island.
    Bridge(MemberId),
}

/// A way that could be taken.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    via: Via,
    path: &'a Path,
    cost: Duration,
    load: IslandLoad,
}

impl RouteTable {
    /// Of a bridge of `island` without links.
    #[must_use]
    pub fn new(island: String) -> Self {
        Self {
            island,
            load: IslandLoad::default(),
            links: BTreeMap::new(),
            bridges: BTreeMap::new(),
            chosen: BTreeMap::new(),
            doubted: BTreeMap::new(),
            left_out: BTreeSet::new(),
            left_out_total: 0,
            told: Told::of_island(),
            is_leaving: false,
            events: VecDeque::new(),
        }
    }

    /// Our island is called so from now on. A path that names it leads back to us.
    pub fn rename(&mut self, now: Instant, island: String) {
        let heard = self.links.values_mut().map(|link| &mut link.heard).chain(self.bridges.values_mut());
        for heard in heard {
            for reaches in heard.values_mut() {
                reaches.retain(|reach| !reach.path.contains(&island));
            }
            heard.retain(|_, reaches| !reaches.is_empty());
        }
        self.island = island;
        self.refresh(now);
    }

    /// A link to the bridge `peer` of another island is up; `round_trip` is the connection's.
    pub fn link_up(&mut self, now: Instant, peer: MemberId, island: String, round_trip: Duration) {
        let cost = round_trip + HOP_COST;
        self.links.insert(peer, Link { island, cost, heard: BTreeMap::new(), told: Told::of_link() });
        self.refresh(now);
    }

    /// That link is down: nothing lies behind it any more.
    pub fn link_down(&mut self, now: Instant, peer: MemberId) {
        self.links.remove(&peer);
        self.refresh(now);
    }

    /// The round trips of these links have been measured again.
    pub fn link_round_trips(
        &mut self,
        now: Instant,
        measured: impl IntoIterator<Item = (MemberId, Duration)>,
    ) {
        let mut changed = false;
        for (peer, round_trip) in measured {
            let cost = round_trip + HOP_COST;
            if let Some(link) = self.links.get_mut(&peer).filter(|link| link.cost != cost) {
                link.cost = cost;
                changed = true;
            }
        }
        if changed {
            self.refresh(now);
        }
    }

    /// What the other side of that link said, in its order: of each island that is named, all ways there are. A path that
    /// names our own island, or does not start with the other side's, counts as no path.
    pub fn link_routes(&mut self, now: Instant, peer: MemberId, routes: Vec<Route>) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        for (island, routes) in Route::by_island(routes) {
            let reaches = routes.into_iter().filter_map(Route::into_reach);
            let theirs = reaches.filter(|reach| reach.path.next() == link.island).collect();
            hear(&mut link.heard, &self.island, island, theirs);
        }
        self.refresh(now);
    }

    /// How busy islands are, as the other side of that link says; only those that it has said a route for. No way is chosen
    /// by that, and other links hear of loads apart: O(islands x links).
    pub fn link_load(&mut self, now: Instant, peer: MemberId, loads: Vec<(String, IslandLoad)>) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        for (island, load) in loads {
            let Some(reaches) = link.heard.get_mut(&island) else { continue };
            for reach in reaches {
                reach.load = load;
            }
            if let Some(choice) = self.chosen.get_mut(&island).filter(|choice| choice.via == Via::Link(peer))
            {
                choice.reach.load = load;
            }
        }
        let own = self.compare_own();
        self.told.set_pending(now, own);
    }

    /// All that another bridge of our own island can reach, by its newest ROUTES word; nothing, when it is gone.
    pub fn bridge_routes(&mut self, now: Instant, bridge: MemberId, reaches: Vec<Reach>) {
        let mut heard = BTreeMap::new();
        for (island, routes) in Route::by_island(reaches.into_iter().map(Route::Reach)) {
            let reaches = routes.into_iter().filter_map(Route::into_reach).collect();
            hear(&mut heard, &self.island, island, reaches);
        }
        if heard.is_empty() {
            self.bridges.remove(&bridge);
        } else {
            self.bridges.insert(bridge, heard);
        }
        self.refresh(now);
    }

    /// How large and busy our own island is.
    pub fn own_load(&mut self, load: IslandLoad) {
        self.load = load;
    }

    /// From now on nothing can be reached through us: everything is withdrawn, for good.
    pub fn leave(&mut self, now: Instant) {
        self.is_leaving = true;
        self.refresh(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((island, _)) = self.doubted.iter().find(|(_, at)| **at <= now) {
            let island = island.clone();
            self.doubted.remove(&island);
            self.events.push_back(Event::IslandDown(island));
        }
    }

    /// When `handle_timeout`, `poll_link` or `poll_own` has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.links.values().filter_map(|link| link.told.due_at());
        due.chain(self.told.due_at()).chain(self.doubted.values().copied()).min()
    }

    /// What the other side of that link is to be told now; empty if nothing. To be asked after every input and
    /// timeout, and said: it is not given again.
    pub fn poll_link(&mut self, now: Instant, peer: MemberId) -> Vec<Route> {
        let Some(link) = self.links.get(&peer) else { return Vec::new() };
        if !link.told.is_due(now) {
            return Vec::new();
        }
        let wanted = self.wanted_by_link(link);
        self.links.get_mut(&peer).map_or_else(Vec::new, |link| link.told.tell(now, wanted))
    }

    /// What our own island is to be told now: all that our links reach, if that is something new. The body of the
    /// ROUTES word.
    pub fn poll_own(&mut self, now: Instant) -> Option<Vec<Reach>> {
        if !self.told.is_due(now) {
            return None;
        }
        let wanted = self.wanted_by_island();
        let reaches = wanted.values().flatten().map(|(_, reach)| reach.clone()).collect();
        self.told.tell(now, wanted);
        Some(reaches)
    }

    /// The loads to be said on that link: our island's, and of those that it was told of.
    #[must_use]
    pub fn loads(&self, peer: MemberId) -> Vec<(String, IslandLoad)> {
        let Some(link) = self.links.get(&peer) else { return Vec::new() };
        let of = |island: &String| match self.chosen.get(island) {
            _ if *island == self.island => Some((island.clone(), self.load)),
            choice => choice.map(|choice| (island.clone(), choice.reach.load)),
        };
        link.told.islands().filter_map(of).collect()
    }

    /// The way to `island` that is taken.
    #[must_use]
    pub fn best(&self, island: &str) -> Option<&Choice> {
        self.chosen.get(island)
    }

    /// All islands that can be reached, and how.
    pub fn islands(&self) -> impl Iterator<Item = (&str, &Choice)> {
        self.chosen.iter().map(|(island, choice)| (island.as_str(), choice))
    }

    /// How often there was no room for an island that somebody speaks of.
    #[must_use]
    pub fn left_out_total(&self) -> u64 {
        self.left_out_total
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Chooses anew, and looks what has to be told because of that. O(islands x links x (links + bridges)).
    fn refresh(&mut self, now: Instant) {
        let left = self.without_room();
        self.left_out_total += left.difference(&self.left_out).count() as u64;
        self.left_out = left;
        let mut chosen = BTreeMap::new();
        for island in self.known() {
            let before = self.chosen.get(island).map(|choice| choice.via);
            if let Some(candidate) = cheapest(&self.candidates(island).collect::<Vec<_>>(), before) {
                let reach = candidate.reach(candidate.path.clone());
                chosen.insert(island.to_owned(), Choice { via: candidate.via, reach });
            }
        }
        for island in self.chosen.keys().filter(|island| !chosen.contains_key(*island)) {
            self.doubted.insert(island.clone(), now + DOUBT);
        }
        for island in chosen.keys().filter(|island| !self.chosen.contains_key(*island)) {
            if self.doubted.remove(island).is_none() {
                self.events.push_back(Event::IslandUp(island.clone()));
            }
        }
        self.chosen = chosen;
        self.compare(now);
    }

    /// Compares what everybody was told with what they should know.
    fn compare(&mut self, now: Instant) {
        let is_true = |island: &str, via: Via, path: &Path| self.is_true(island, via, path);
        let compare_link = |link: &Link| link.told.compare(&self.wanted_by_link(link), is_true);
        let pending: Vec<_> = self.links.values().map(compare_link).collect();
        let own = self.compare_own();
        self.told.set_pending(now, own);
        for (link, pending) in self.links.values_mut().zip(pending) {
            link.told.set_pending(now, pending);
        }
    }

    fn compare_own(&self) -> Option<Pending> {
        let is_true = |island: &str, via: Via, path: &Path| self.is_true(island, via, path);
        self.told.compare(&self.wanted_by_island(), is_true)
    }

    /// Whether a way still leads to `island` through `via` by the end of this path.
    fn is_true(&self, island: &str, via: Via, path: &Path) -> bool {
        self.candidates(island).any(|it| it.via == via && path.islands().ends_with(it.path.islands()))
    }

    /// Which of the islands that anybody has spoken of there is no room for.
    fn without_room(&self) -> BTreeSet<String> {
        let by_links = self.links.iter().map(|(peer, link)| (Via::Link(*peer), &link.heard));
        let by_bridges = self.bridges.iter().map(|(bridge, heard)| (Via::Bridge(*bridge), heard));
        let offers = by_links
            .chain(by_bridges)
            .flat_map(|(by, heard)| heard.values().flatten().map(move |reach| Offer::of(by, &reach.path)));
        // One is our own.
        let left = left_out(offers.collect(), ISLANDS_MAX - 1, |island| self.chosen.contains_key(island));
        left.into_iter().map(str::to_owned).collect()
    }

    /// All islands that anybody has spoken of and that there is room for.
    fn known(&self) -> BTreeSet<&str> {
        let by_links = self.links.values().flat_map(|link| link.heard.keys());
        let by_bridges = self.bridges.values().flat_map(BTreeMap::keys);
        let known = by_links.chain(by_bridges).filter(|island| !self.left_out.contains(*island));
        known.map(String::as_str).collect()
    }

    fn candidates(&self, island: &str) -> impl Iterator<Item = Candidate<'_>> {
        let over_links = self.links.iter().flat_map(move |(peer, link)| {
            let reaches = link.heard.get(island).into_iter().flatten();
            reaches.map(|reach| Candidate::new(Via::Link(*peer), reach, link.cost))
        });
        let over_bridges = self.bridges.iter().flat_map(move |(bridge, heard)| {
            let reaches = heard.get(island).into_iter().flatten();
            reaches.map(|reach| Candidate::new(Via::Bridge(*bridge), reach, Duration::ZERO))
        });
        over_links.chain(over_bridges)
    }

    /// What the other side of a link should know: our island, and of the ways to each other that do not lead back through
    /// its own the cheapest and the one over the fewest islands. So it learns of the way round before it needs it.
    fn wanted_by_link(&self, link: &Link) -> Wanted {
        let mut wanted = Wanted::new();
        if self.is_leaving {
            return wanted;
        }
        for island in self.known() {
            // A path that is as long as may be leads no further, however cheap it is.
            let is_open = |way: &Candidate<'_>| {
                !way.path.contains(&link.island) && way.path.islands().len() < PATH_ISLANDS_MAX
            };
            let ways: Vec<_> = self.candidates(island).filter(is_open).collect();
            let told = worth_telling(&ways, link.told.via(island));
            let through = |way: Candidate<'_>| {
                way.path.through(&self.island).ok().map(|path| (Some(way.via), way.reach(path)))
            };
            let told: Vec<_> = told.filter_map(through).collect();
            if !told.is_empty() {
                wanted.insert(island.to_owned(), told);
            }
        }
        if let Ok(path) = Path::new(vec![self.island.clone()]) {
            let here = Reach { path, cost: Duration::ZERO, load: self.load };
            wanted.insert(self.island.clone(), vec![(None, here)]);
        }
        wanted
    }

    /// What our own island should know: where our links lead.
    fn wanted_by_island(&self) -> Wanted {
        let mut wanted = Wanted::new();
        if self.is_leaving {
            return wanted;
        }
        for island in self.known() {
            let ways: Vec<_> =
                self.candidates(island).filter(|way| matches!(way.via, Via::Link(_))).collect();
            let told = worth_telling(&ways, self.told.via(island));
            let told: Vec<_> = told.map(|way| (Some(way.via), way.reach(way.path.clone()))).collect();
            if !told.is_empty() {
                wanted.insert(island.to_owned(), told);
            }
        }
        wanted
    }
}

/// The ways to one island that somebody should know, the cheapest first, and through whom each goes; `None` for our own.
type Ways = Vec<(Option<Via>, Reach)>;

/// Those to each island.
type Wanted = BTreeMap<String, Ways>;

impl<'a> Candidate<'a> {
    fn new(via: Via, reach: &'a Reach, further: Duration) -> Self {
        Self { via, path: &reach.path, cost: reach.cost + further, load: reach.load }
    }

    fn reach(&self, path: Path) -> Reach {
        Reach { path, cost: self.cost, load: self.load }
    }
}

/// The cheapest, but the one that was taken before unless that costs over a fifth more.
fn cheapest<'a>(ways: &[Candidate<'a>], before: Option<Via>) -> Option<Candidate<'a>> {
    let by_cost = |way: &&Candidate<'_>| (way.cost, way.path.islands().len(), way.via);
    let cheapest = ways.iter().min_by_key(by_cost)?;
    let is_near = |way: &&Candidate<'_>| Some(way.via) == before && way.cost * 5 <= cheapest.cost * 6;
    Some(*ways.iter().filter(is_near).min_by_key(by_cost).unwrap_or(cheapest))
}

/// That one, and one over the fewest islands if those are fewer. Which of them does not hang on costs, so it rarely changes.
fn worth_telling<'a>(ways: &[Candidate<'a>], before: Option<Via>) -> impl Iterator<Item = Candidate<'a>> {
    let cheapest = cheapest(ways, before);
    let length = |way: &Candidate<'_>| way.path.islands().len();
    let shortest = ways.iter().min_by_key(|way| (length(way), way.via, way.path)).copied();
    let is_shorter = |way: &Candidate<'_>| cheapest.is_some_and(|cheapest| length(way) < length(&cheapest));
    cheapest.into_iter().chain(shortest.filter(is_shorter))
}

/// Keeps what was said of `island` in place of what was said before, or nothing if it leads back to our own.
fn hear(heard: &mut Heard, own: &str, island: String, mut reaches: Vec<Reach>) {
    reaches.retain(|reach| !reach.path.contains(own));
    let has_room = heard.len() < ISLANDS_MAX || heard.contains_key(&island);
    if reaches.is_empty() || !has_room {
        heard.remove(&island);
    } else {
        heard.insert(island, reaches);
    }
}
