//! What must hold of other islands and their members, at every node after every step; and what all must agree on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use isle_mesh::event::{Event, EventKind, Subject};
use isle_mesh::island::Island;
use isle_mesh::member::{Epoch, Member, MemberId, Reason, Stamp, Standing};
use isle_mesh::path::PATH_ISLANDS_MAX;

use crate::invariants::{Evidence, Farewells};
use crate::world::World;

/// What one node has told of other islands, replayed as an application would.
pub struct FarWitness {
    /// Of which life of the node.
    pub life: Instant,
    standing: BTreeMap<MemberId, Standing>,
    newest: BTreeMap<MemberId, Stamp>,
    left: BTreeMap<MemberId, Epoch>,
    reachable: BTreeMap<String, bool>,
    /// As it showed them last.
    pub islands: Arc<BTreeMap<String, Arc<Island>>>,
    /// Islands that came into reach and went out of it, and members called down, since that was last forgotten.
    pub ups: BTreeMap<String, u32>,
    pub downs: BTreeMap<String, u32>,
}

/// Who really said what, on the island that a member counts itself to.
pub struct Truth<'a> {
    pub farewells: &'a Farewells,
    pub evidence: &'a Evidence,
}

impl<'a> Truth<'a> {
    pub fn of(world: &'a World) -> Self {
        Self { farewells: &world.farewells, evidence: &world.network.evidence }
    }
}

impl FarWitness {
    pub fn new(life: Instant) -> Self {
        Self {
            life,
            standing: BTreeMap::new(),
            newest: BTreeMap::new(),
            left: BTreeMap::new(),
            reachable: BTreeMap::new(),
            islands: Arc::default(),
            ups: BTreeMap::new(),
            downs: BTreeMap::new(),
        }
    }

    pub fn forget_counts(&mut self) {
        self.ups.clear();
        self.downs.clear();
    }

    /// One more event of `own`; `truth` finds what was really said on an island.
    pub fn hear<'a>(&mut self, own: MemberId, event: &Event, truth: impl Fn(&str) -> Truth<'a>) {
        match &event.subject {
            Subject::Island(island) => self.hear_island(own, event.kind, island),
            Subject::Member(member) => {
                self.hear_member(own, event.kind, member, &truth(&member.record.island))
            }
        }
    }

    fn hear_island(&mut self, own: MemberId, kind: EventKind, island: &Island) {
        let was = self.reachable.insert(island.name.clone(), island.reachable).unwrap_or(false);
        let (is, counts) = match kind {
            EventKind::IslandUp => (true, &mut self.ups),
            EventKind::IslandDown => (false, &mut self.downs),
            other => panic!("{own:?} told {other:?} about an island"),
        };
        *counts.entry(island.name.clone()).or_default() += 1;
        assert_eq!((was, island.reachable), (!is, is), "{own:?} told {kind:?} about {}", island.name);
    }

    fn hear_member(&mut self, own: MemberId, kind: EventKind, member: &Member, truth: &Truth<'_>) {
        let id = member.id;
        let before = self.standing.get(&id).copied();
        let what = || format!("{own:?} told {} about the far {id:?}, which was {before:?}", kind.as_str());
        assert_ne!(id, own, "{}", what());
        assert!(truth.evidence.has_said(&member.record_bytes), "{}: nobody said that record", what());
        let epoch = member.stamp.epoch;
        let has_left = truth.farewells.get(&id).is_some_and(|left| *left >= epoch);
        match kind {
            EventKind::Joined => assert!(matches!(before, None | Some(Standing::Left)), "{}", what()),
            EventKind::Updated => assert_eq!(before, Some(Standing::Alive), "{}", what()),
            EventKind::Draining | EventKind::DuplicateKey => assert!(before.is_some(), "{}", what()),
            EventKind::Back => assert_eq!(before, Some(Standing::Down), "{}", what()),
            EventKind::Down => {
                assert_eq!(before, Some(Standing::Alive), "{}", what());
                assert!(truth.evidence.is_accused(id, epoch), "{}: nobody voted", what());
            }
            EventKind::Left => {
                assert_ne!(before, Some(Standing::Left), "{}", what());
                assert!(has_left, "{}, but it never said farewell", what());
                self.left.insert(id, epoch);
            }
            EventKind::Forgotten => assert!(before.is_some(), "{}", what()),
            EventKind::Suspect | EventKind::IslandUp | EventKind::IslandDown => panic!("{}", what()),
        }
        if let Some(newest) = self.newest.insert(id, member.stamp) {
            assert!(member.stamp >= newest, "{}: by {:?} after {newest:?}", what(), member.stamp);
        }
        if kind == EventKind::Forgotten {
            self.standing.remove(&id);
            return;
        }
        if member.standing != Standing::Left {
            let ended = self.left.get(&id).is_some_and(|left| epoch <= *left);
            assert!(!ended, "{}: a life that it had told the end of", what());
        }
        self.standing.insert(id, member.standing);
    }

    /// Replaying the events gives the table.
    pub fn agrees_with<'a>(&self, own: MemberId, members: impl Iterator<Item = &'a Arc<Member>>) {
        let listed: BTreeMap<_, _> = members.map(|member| (member.id, member.standing)).collect();
        assert_eq!(self.standing, listed, "the events of {own:?} tell another far table than it has");
    }

    /// The islands that a node shows, by name: no way has a loop, leads through its own island, is longer than may be or
    /// takes a link that there is not.
    pub fn show(
        &mut self,
        own: &str,
        islands: Arc<BTreeMap<String, Arc<Island>>>,
        are_joined: impl Fn(&str, &str) -> bool,
    ) {
        for way in islands.values().flat_map(|island| &island.ways) {
            let path = way.reach.path.islands();
            assert!(path.len() <= PATH_ISLANDS_MAX, "{own}: {path:?}");
            let mut at = own;
            for (number, next) in path.iter().enumerate() {
                assert!(next != own && !path[..number].contains(next), "{own}: a loop in {path:?}");
                assert!(are_joined(at, next), "{own}: {path:?}, and no link from {at} to {next}");
                at = next;
            }
        }
        self.islands = islands;
    }

    /// The chosen way to an island.
    pub fn way(&self, island: &str) -> Option<(MemberId, &[String])> {
        let way = self.islands.get(island).filter(|island| island.reachable)?.ways.first()?;
        Some((way.bridge, way.reach.path.islands()))
    }
}

/// What tables are compared by: of everybody who has not left, by which record, and whether it is down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    pub stamp: Stamp,
    pub fate: Fate,
}

/// What is believed to have become of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    There,
    /// Alive, but nobody left could say with certainty what became of it.
    Doubted,
    /// Alive, and nobody of its island can be reached: whether it is doubted besides is not shown.
    OutOfReach,
    GivenUp,
    Down,
}

impl Known {
    pub fn of(member: &Member) -> Option<(MemberId, Self)> {
        let fate = match (member.standing, member.reason) {
            (Standing::Down, Some(Reason::Unilateral)) => Fate::GivenUp,
            (Standing::Down, _) => Fate::Down,
            (_, Some(Reason::Unilateral)) => Fate::Doubted,
            (_, Some(Reason::IslandUnreachable)) => Fate::OutOfReach,
            _ => Fate::There,
        };
        let known = Self { stamp: member.stamp, fate };
        (member.standing != Standing::Left).then_some((member.id, known))
    }

    /// Whether this is what others are to know of a member of whom its island knows `home`. Whom its island gave up
    /// without its watchers, others may only doubt.
    pub fn follows(self, home: Self) -> bool {
        let is_same = match home.fate {
            Fate::There | Fate::Doubted | Fate::OutOfReach => {
                matches!(self.fate, Fate::There | Fate::OutOfReach)
            }
            Fate::GivenUp => self.fate != Fate::There,
            Fate::Down => matches!(self.fate, Fate::GivenUp | Fate::Down),
        };
        self.stamp == home.stamp && is_same
    }
}

/// What a member of an island that has lived for long knows of it.
pub fn known_at_home(world: &World) -> HashMap<MemberId, Known> {
    let living = world.processes.iter().filter(|process| process.lives());
    let Some(first) = living.min_by_key(|process| process.started) else { return HashMap::new() };
    let own = first.machine.self_member();
    first.machine.members().chain(own.iter()).filter_map(|member| Known::of(member)).collect()
}
