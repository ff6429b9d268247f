//! What all nodes of islands that are joined must know in the end, and where requests would go.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use isle_mesh::member::MemberId;
use isle_mesh::path::PATH_ISLANDS_MAX;

use super::Archipelago;
use super::invariants::{Known, known_at_home};
use super::link::Place;

/// How often it is looked whether all agree.
const LOOK: Duration = Duration::from_millis(50);
/// How long a scenario that has failed goes on.
const PATIENCE: Duration = Duration::from_secs(20);

impl Archipelago {
    /// The longest of the shortest ways, in round trips of the slowest link.
    pub fn crossing(&self) -> Duration {
        let slowest = self.links.iter().map(|link| link.delay * 2).max().unwrap_or_default();
        slowest * self.graph.diameter()
    }

    /// All tables of islands that are joined must be equal within the diameter's round trips and two seconds.
    pub fn agrees(&mut self) -> Duration {
        self.agrees_within(self.crossing() + Duration::from_secs(2))
    }

    pub fn agrees_within(&mut self, most: Duration) -> Duration {
        let start = self.now;
        loop {
            self.run_for(LOOK);
            let took = self.now - start;
            match self.disagreement() {
                None => break,
                Some(what) if took >= most => self.has_not_agreed(most, &what),
                Some(_) => {}
            }
        }
        let took = self.now - start;
        println!("seed {}: {} agrees after {took:?} of {most:?}", self.seed, self.called());
        self.all_replay();
        took
    }

    /// Fails, and says whether patience would have helped.
    fn has_not_agreed(&mut self, most: Duration, what: &str) -> ! {
        let start = self.now;
        while self.now - start < PATIENCE {
            self.run_for(LOOK * 4);
            if self.disagreement().is_none() {
                panic!("no agreement within {most:?}, but {:?} later: {what}", self.now - start);
            }
        }
        panic!("no agreement within {most:?}, nor {PATIENCE:?} later: {what}");
    }

    pub fn called(&self) -> String {
        let all: usize = self.islands.iter().map(|island| island.living().len()).sum();
        format!("{} of {} islands, {all} members", self.graph.shape, self.graph.islands)
    }

    /// Which links could carry if nothing else was wrong.
    fn is_open(&self, edge: usize) -> bool {
        let link = &self.links[edge];
        !link.is_cut && link.ends.iter().all(|end| self.listens(end.place))
    }

    /// What somebody does not agree on with others that it is joined with, if there is anything.
    pub fn disagreement(&mut self) -> Option<String> {
        // Who differed when it was last looked does so for a while.
        let (island, node) = self.doubted;
        if let Some(what) = self.differs(island, node, &self.reference(island)) {
            return Some(what);
        }
        for island in 0..self.islands.len() {
            if let Some(what) = self.islands[island].disagreement() {
                return Some(format!("on i{island}: {what}"));
            }
        }
        let mut done = BTreeSet::new();
        for first in 0..self.islands.len() {
            if done.contains(&first) {
                continue;
            }
            let reference = self.reference(first);
            for island in self.joined_with(first) {
                done.insert(island);
                for node in 0..self.islands[island].processes.len() {
                    if let Some(what) = self.differs(island, node, &reference) {
                        self.doubted = (island, node);
                        return Some(what);
                    }
                }
            }
        }
        None
    }

    fn joined_with(&self, island: usize) -> Vec<usize> {
        let distances = self.graph.distances(island, |edge| self.is_open(edge));
        (0..self.islands.len()).filter(|other| distances[*other].is_some()).collect()
    }

    /// What is known at home of everybody on the islands that this one is joined with.
    fn reference(&self, island: usize) -> BTreeMap<String, HashMap<MemberId, Known>> {
        let joined = self.joined_with(island).into_iter();
        joined.map(|other| (format!("i{other}"), known_at_home(&self.islands[other]))).collect()
    }

    fn differs(
        &self,
        island: usize,
        node: usize,
        reference: &BTreeMap<String, HashMap<MemberId, Known>>,
    ) -> Option<String> {
        let process = self.islands[island].processes.get(node).filter(|process| process.lives())?;
        let own = format!("i{island}");
        let mut expected: usize = reference.values().map(HashMap::len).sum();
        expected -= reference.get(&own).map_or(0, HashMap::len);
        let mut found = 0;
        for member in process.machine.far_members() {
            let Some(home) = reference.get(&member.record.island) else { continue };
            let Some((id, known)) = Known::of(member) else { continue };
            let there = home.get(&id);
            if !there.is_some_and(|home| known.follows(*home)) {
                let name = &member.record.name;
                return Some(format!(
                    "{own} n{node} has {known:?} of {name} of {}, at home it is {there:?}",
                    member.record.island
                ));
            }
            found += 1;
        }
        (found != expected).then(|| format!("{own} n{node} lists {found} far members of {expected}"))
    }

    /// Replaying what everybody told gives the tables.
    pub fn all_replay(&self) {
        for (island, world) in self.islands.iter().enumerate() {
            for (node, process) in world.processes.iter().enumerate().filter(|(_, process)| process.lives()) {
                process.replays();
                self.witnesses[island][node].agrees_with(process.id, process.machine.far_members());
            }
        }
    }
}

/// Where requests would go.
impl Archipelago {
    /// From everybody to every island that is near enough a request must find its way, within this.
    pub fn requests_arrive_within(&mut self, most: Duration) {
        let start = self.now;
        while let Some(what) = self.lost_request() {
            assert!(self.now - start < most, "within {most:?}: {what}");
            self.run_for(LOOK);
        }
        println!("seed {}: requests arrive after {:?}", self.seed, self.now - start);
    }

    fn lost_request(&self) -> Option<String> {
        for island in 0..self.islands.len() {
            let distances = self.graph.distances(island, |edge| self.is_open(edge));
            let near = |other: &usize| {
                distances[*other].is_some_and(|distance| (1..=PATH_ISLANDS_MAX as u32).contains(&distance))
            };
            for other in (0..self.islands.len()).filter(near) {
                for node in 0..self.islands[island].processes.len() {
                    if self.islands[island].processes[node].lives()
                        && let Err(why) = self.request(Place { island, node }, other)
                    {
                        return Some(format!("from i{island} n{node} to i{other}: {why}"));
                    }
                }
            }
        }
        None
    }

    /// Follows a request as tunnels go: along the chosen way; each bridge hands it to the next island over its own link,
    /// or through another bridge of its island.
    ///
    /// # Panics
    /// It comes to an island twice, or to more than may be.
    pub fn request(&self, from: Place, to: usize) -> Result<usize, String> {
        let witness = &self.witnesses[from.island][from.node];
        let Some((bridge, path)) = witness.way(&format!("i{to}")) else { return Err("no way".into()) };
        assert!(path.len() <= PATH_ISLANDS_MAX, "{path:?}");
        let mut been = BTreeSet::from([from.island]);
        let mut at = from.island;
        let mut by = self.islands[at].node_of(&bridge);
        for next in path {
            let next: usize = next[1..].parse().expect("islands are numbered");
            let node = by.ok_or("its bridge is gone")?;
            let mut ends = self.ends_of(Place { island: at, node });
            for other in (0..self.bridges_each).filter(|other| *other != node) {
                ends.extend(self.ends_of(Place { island: at, node: other }));
            }
            let leads_there = |(link, end): &&(usize, usize)| {
                self.links[*link].is_up() && self.links[*link].ends[1 - end].place.island == next
            };
            let (link, end) =
                ends.iter().find(leads_there).ok_or(format!("no link from i{at} to i{next}"))?;
            assert!(been.insert(next), "a request comes to i{next} twice: {path:?}");
            at = next;
            by = Some(self.links[*link].ends[1 - end].place.node);
        }
        if at == to { Ok(path.len()) } else { Err(format!("it ends at i{at}")) }
    }
}
