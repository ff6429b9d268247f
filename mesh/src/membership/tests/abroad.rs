//! Two islands, each on a wire of its own, and a link between their bridges that carries what either tells.

use super::*;
use crate::far::FarWord;
use crate::island::ISLANDS_MAX;
use crate::member::{Load, Record, Seq};
use crate::outward::What;
use crate::path::Path;
use crate::reach::{IslandLoad, Reach};
use crate::verify::Scheme;
use crate::wire::{Beacon, Down, Suspect};

pub(super) fn verified(bytes: Bytes) -> Option<FarWord> {
    FarWord::verify(Scheme::Ed25519, MeshTag::of("test"), bytes).ok()
}

pub(super) fn reach(islands: &str, millis: u64) -> Reach {
    let path = Path::new(islands.split(' ').map(str::to_owned).collect()).unwrap();
    Reach { path, cost: Duration::from_millis(millis), load: IslandLoad::default() }
}

pub(super) fn record_of(number: u64, island: &str, watchers: &[u64], draining: bool) -> Record {
    Record {
        name: format!("f{number}"),
        roles: Vec::new(),
        addresses: Vec::new(),
        http_port: 1233,
        unicast_port: 4000,
        island: island.to_owned(),
        island_given: true,
        draining,
        catalogue: None,
        watchers: watchers.iter().map(|number| Identity::for_test(*number).id()).collect(),
        protocol: (1, 1),
        version: String::new(),
        tags: Vec::new(),
    }
}

/// The certificate by all these voters that the member is down, judged by its record with this seq.
pub(super) fn certificates_about(number: u64, seq: u64, voters: &[u64]) -> Option<Bytes> {
    votes_about(number, seq, seq, voters)
}

/// The same of voters that claim to have heard its word `last`.
fn votes_about(number: u64, seq: u64, last: u64, voters: &[u64]) -> Option<Bytes> {
    let vote = Suspect {
        target: Identity::for_test(number).id(),
        epoch: crate::member::Epoch(1),
        record_seq: Seq(seq),
        last_seq: Seq(last),
        silence_ms: 700,
    };
    let tag = MeshTag::of("test");
    let sign =
        |voter: &u64| Identity::for_test(*voter).sign_word(tag, &Message::Suspect(vote), Seq(1_000_000));
    let votes = voters.iter().map(sign).collect();
    let down = Message::Down(Down { votes });
    Some(Identity::for_test(*voters.first()?).sign_word(tag, &down, Seq(1_000_001)))
}

fn announce(number: u64, seq: u64, island: &str) -> Bytes {
    let record = record_of(number, island, &[], false);
    Identity::for_test(number).sign_word(MeshTag::of("test"), &Message::Announce(record.into()), Seq(seq))
}

fn on(island: &str, number: usize, roles: &[&str]) -> Settings {
    Settings {
        island: Some(island.to_owned()),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..settings(number)
    }
}

/// Nodes 0 and 1 are members, 2 is a bridge; more bridges follow.
fn island(name: &str, now: Instant, first_key: u64) -> Wire {
    let mut wire = Wire::of(0);
    wire.now = now;
    for number in 0..3 {
        let roles: &[&str] = if number == 2 { &["bridge"] } else { &["pieces"] };
        wire.add(on(name, number, roles), Identity::for_test(first_key + number as u64));
    }
    wire
}

const BRIDGE: usize = 2;

/// "north" and "south", and what their bridges have said to each other.
struct Islands {
    north: Wire,
    south: Wire,
    /// Whether the link carries.
    up: bool,
    /// Words that were carried.
    carried: usize,
}

impl Islands {
    fn new() -> Self {
        let north = island("north", Instant::now(), 200);
        let south = island("south", north.now, 300);
        let mut islands = Self { north, south, up: true, carried: 0 };
        islands.reach();
        islands.run_for(2 * SECOND);
        islands
    }

    /// The same with so many nodes in the south, that have named their watchers.
    fn of_south(count: usize) -> Self {
        let mut islands = Self::new();
        for number in islands.south.nodes.len()..count {
            islands.south.add(on("south", number, &["pieces"]), Identity::for_test(300 + number as u64));
        }
        islands.run_for(12 * SECOND);
        islands
    }

    /// Both bridges say what the link reaches, or that it reaches nothing.
    fn reach(&mut self) {
        for (wire, other) in [(&mut self.north, "south"), (&mut self.south, "north")] {
            let reaches = if self.up { vec![reach(other, 10)] } else { Vec::new() };
            wire.nodes[BRIDGE].say_reaches(wire.now, reaches);
            wire.settle();
        }
    }

    fn carry(&mut self) {
        while self.up && !(self.north.news[BRIDGE].is_empty() && self.south.news[BRIDGE].is_empty()) {
            self.carried += carry(&mut self.north, &mut self.south) + carry(&mut self.south, &mut self.north);
        }
    }

    fn run_for(&mut self, length: Duration) {
        let end = self.north.now + length;
        while self.north.now < end {
            self.north.run_for(5 * MS);
            self.south.run_for(5 * MS);
            self.carry();
        }
    }

    /// What all nodes of north but its bridge say of this node of south.
    fn seen(&self, of: usize) -> Vec<Option<Standing>> {
        [0, 1].map(|at| far_standing(&self.north, at, self.south.nodes[of].id())).to_vec()
    }
}

fn carry(from: &mut Wire, to: &mut Wire) -> usize {
    let (peer, ours) = (from.nodes[BRIDGE].id(), to.nodes[BRIDGE].id());
    let (mut words, mut withdrawn) = (Vec::new(), Vec::new());
    for news in std::mem::take(&mut from.news[BRIDGE]) {
        match news {
            News::Said { from, .. } if from == Some(ours) => {}
            News::Said { bytes, is_urgent, .. } => words.push((is_urgent, verified(bytes).unwrap())),
            News::Withdrawn(id) => withdrawn.push(id),
            News::Forgotten(_) => {}
        }
    }
    let now = to.now;
    to.nodes[BRIDGE].hear_far(now, peer, &withdrawn, &[], false);
    for (is_urgent, word) in &words {
        to.nodes[BRIDGE].hear_far(now, peer, &[], std::slice::from_ref(word), *is_urgent);
    }
    to.settle();
    words.len()
}

fn far_member(wire: &Wire, at: usize, id: MemberId) -> Option<Arc<Member>> {
    wire.nodes[at].far_members().find(|member| member.id == id).cloned()
}

fn far_standing(wire: &Wire, at: usize, id: MemberId) -> Option<Standing> {
    far_member(wire, at, id).map(|member| member.standing)
}

fn count(wire: &Wire, at: usize, kind: EventKind, id: MemberId) -> usize {
    wire.events[at].iter().filter(|event| **event == (kind, id)).count()
}

/// A bridge hears this from a link, as the first of its words or among those that can wait.
fn hear_far(wire: &mut Wire, at: usize, words: &[Bytes], is_urgent: bool) {
    hear_from(wire, at, 900, words, is_urgent);
}

/// The same from the link with the bridge that has this key.
fn hear_from(wire: &mut Wire, at: usize, link: u64, words: &[Bytes], is_urgent: bool) {
    let words: Vec<FarWord> = words.iter().cloned().filter_map(verified).collect();
    let now = wire.now;
    wire.nodes[at].hear_far(now, Identity::for_test(link).id(), &[], &words, is_urgent);
    wire.settle();
}

#[test]
fn every_node_lists_the_members_of_the_other_island_and_can_reach_them() {
    let islands = Islands::new();
    for wire in [&islands.north, &islands.south] {
        let digests: BTreeSet<u64> = wire.nodes.iter().map(|node| node.abroad.far.digest()).collect();
        assert!(digests.len() == 1 && !digests.contains(&0), "{digests:?}");
        for node in &wire.nodes {
            let far: Vec<_> = node.far_members().collect();
            assert_eq!(far.len(), 3);
            assert!(far.iter().all(|member| member.far && member.reachable && member.reason.is_none()));
            // Our own island is as it was.
            assert_eq!((node.members().count(), node.table.len()), (2, 2));
            assert!(node.record.watchers.iter().all(|id| node.members().any(|member| member.id == *id)));
        }
        let (digest, export) = (wire.nodes[0].digest(), wire.nodes[0].export(wire.now));
        assert!(wire.nodes.iter().all(|node| node.digest() == digest));
        let far = wire.nodes[0].far_members().next().unwrap();
        assert!(export.words.iter().all(|word| word.bytes[8..40] != far.id.0));
    }
    assert_eq!(count(&islands.north, 0, EventKind::Joined, islands.south.nodes[1].id()), 1);
}

#[test]
fn once_told_nothing_is_said_again() {
    let mut islands = Islands::new();
    let (carried, pulls) = (islands.carried, islands.north.pulls);
    islands.run_for(20 * SECOND);
    assert_eq!((islands.carried, islands.north.pulls), (carried, pulls));
}

#[test]
fn a_farewell_and_a_crash_are_known_on_the_other_island() {
    let mut islands = Islands::new();
    let now = islands.south.now;
    islands.south.nodes[0].leave(now, LeaveReason::Stopped);
    islands.south.settle();
    islands.carry();
    islands.run_for(25 * MS);
    assert_eq!(islands.seen(0), [Some(Standing::Left); 2], "an urgent word is said to the whole island");
    assert_eq!(count(&islands.north, 0, EventKind::Left, islands.south.nodes[0].id()), 1);

    islands.south.cut[1] = true;
    islands.run_for(900 * MS);
    assert_eq!(islands.seen(1), [Some(Standing::Down); 2]);
    let seen = far_member(&islands.north, 0, islands.south.nodes[1].id()).unwrap();
    assert!(!seen.reachable && seen.reason == Some(Reason::NoAnswer), "{:?}", seen.reason);
    islands.south.cut[1] = false;
    islands.run_for(SECOND);
    assert_eq!(islands.seen(1), [Some(Standing::Alive); 2]);
    assert_eq!(count(&islands.north, 0, EventKind::Back, islands.south.nodes[1].id()), 1);
    let digest = islands.north.nodes[BRIDGE].abroad.far.digest();
    assert!(islands.north.nodes.iter().all(|node| node.abroad.far.digest() == digest));
}

#[test]
fn a_cut_link_makes_one_event_and_a_healed_one_another() {
    let mut islands = Islands::new();
    let id = islands.south.nodes[0].id();
    let before = islands.north.events[0].len();
    islands.up = false;
    islands.reach();
    islands.run_for(400 * MS);
    let seen = far_member(&islands.north, 0, id).unwrap();
    assert_eq!((seen.standing, seen.reachable), (Standing::Alive, false));
    assert_eq!(seen.reason, Some(Reason::IslandUnreachable));
    assert_eq!(islands.north.events[0].len(), before, "nothing happened to any member");
    let known = islands.north.nodes[0].take_islands().unwrap();
    assert!(!known["south"].reachable && known["south"].ways.is_empty());
    islands.up = true;
    islands.reach();
    islands.run_for(100 * MS);
    assert!(far_member(&islands.north, 0, id).unwrap().reachable);
    let known = islands.north.nodes[0].take_islands().unwrap();
    assert_eq!(known["south"].ways[0].bridge, islands.north.nodes[BRIDGE].id());
}

#[test]
fn the_ways_of_a_bridge_that_died_count_no_more() {
    let mut islands = Islands::new();
    islands.north.cut[BRIDGE] = true;
    islands.run_for(1200 * MS);
    assert_eq!(islands.north.standing(0, BRIDGE), Some(Standing::Down));
    let seen = far_member(&islands.north, 0, islands.south.nodes[0].id()).unwrap();
    assert_eq!(seen.reason, Some(Reason::IslandUnreachable));
    islands.north.cut[BRIDGE] = false;
    islands.run_for(SECOND);
    assert!(far_member(&islands.north, 0, seen.id).unwrap().reachable, "it is back, and so are its ways");
}

#[test]
fn a_newcomer_knows_the_ways_at_once_and_the_members_soon() {
    let mut islands = Islands::new();
    let new = islands.north.add(on("north", 3, &["pieces"]), Identity::for_test(250));
    assert!(islands.north.nodes[new].take_islands().is_some_and(|known| known["south"].reachable));
    islands.run_for(450 * MS);
    assert_eq!(islands.north.nodes[new].far_members().filter(|member| member.reachable).count(), 3);
}

#[test]
fn a_bridge_says_the_ways_that_it_was_given_and_two_to_an_island_at_most() {
    let mut islands = Islands::new();
    let wire = &mut islands.north;
    let given = [reach("south", 12), reach("west south", 11), reach("east south", 1), reach("north west", 1)];
    wire.nodes[BRIDGE].say_reaches(wire.now, given.to_vec());
    wire.settle();
    for node in &mut wire.nodes {
        let known = node.take_islands().unwrap();
        let ways: Vec<Reach> = known["south"].ways.iter().map(|way| way.reach.clone()).collect();
        assert_eq!(ways, given[..2]);
    }
}

#[test]
fn islands_that_are_made_up_behind_one_link_keep_out_none_that_others_lead_to() {
    let mut north = island("north", Instant::now(), 200);
    let second = north.add(on("north", 3, &["bridge"]), Identity::for_test(250));
    north.run_for(SECOND);
    let now = north.now;
    let ways = |before: &str, name: &str, count: usize| -> Vec<Reach> {
        (0..count).map(|number| reach(&format!("{before} {name}{number}"), 10)).collect()
    };
    north.nodes[BRIDGE].say_reaches(now, [ways("liar", "a", 300), ways("honest", "z", 30)].concat());
    north.nodes[second].say_reaches(now, ways("other", "y", 30));
    north.settle();
    north.run_for(SECOND);
    for at in 0..north.nodes.len() {
        let known = north.nodes[at].take_islands().unwrap();
        let count = |name| known.values().filter(|it| it.name.starts_with(name) && it.reachable).count();
        assert_eq!((count('z'), count('y'), known.len()), (30, 30, ISLANDS_MAX), "at {at}");
    }
    assert_eq!(north.nodes[0].counters().islands_left_out, 30, "of what the first bridge says");
    // Members of islands that are made up, and that no way leads to: they make room among themselves.
    let made_up: Vec<Bytes> = (1000..1300).map(|number| announce(number, 1, &format!("b{number}"))).collect();
    hear_from(&mut north, BRIDGE, 666, &made_up, false);
    let honest: Vec<Bytes> = (0..30).map(|number| announce(300 + number, 1, &format!("z{number}"))).collect();
    hear_from(&mut north, BRIDGE, 900, &honest, false);
    north.run_for(5 * SECOND);
    for at in 0..north.nodes.len() {
        let seen = (300..330).filter(|number| {
            far_member(&north, at, Identity::for_test(*number).id()).is_some_and(|member| member.reachable)
        });
        assert_eq!(seen.count(), 30, "at {at}");
    }
}

#[test]
fn another_bridge_takes_over_and_urgent_words_are_said_once() {
    let mut islands = Islands::new();
    let second = islands.north.add(on("north", 3, &["bridge"]), Identity::for_test(250));
    let now = islands.north.now;
    islands.north.nodes[second].say_reaches(now, vec![reach("south", 100)]);
    islands.run_for(SECOND);
    let known = islands.north.nodes[0].take_islands().unwrap();
    let bridges: Vec<_> = known["south"].ways.iter().map(|way| way.bridge).collect();
    assert_eq!(bridges, [islands.north.nodes[BRIDGE].id(), islands.north.nodes[second].id()]);
    // Both hear the farewell from links of their own; it is on the wire once.
    let farewell = Message::Farewell(crate::wire::Farewell { reason: LeaveReason::Stopped });
    let farewell = Identity::for_test(300).sign_word(MeshTag::of("test"), &farewell, Seq(1_000_000));
    islands.north.sent.clear();
    islands.north.news[second].clear();
    hear_far(&mut islands.north, BRIDGE, std::slice::from_ref(&farewell), true);
    hear_far(&mut islands.north, second, std::slice::from_ref(&farewell), true);
    islands.north.run_for(50 * MS);
    assert_eq!(islands.north.sent.get(&kind::FAREWELL), Some(&1));
    assert_eq!(islands.seen(0), [Some(Standing::Left); 2]);
    assert_eq!(islands.north.news[second].len(), 1, "its other links must be told");
    islands.north.cut[BRIDGE] = true;
    islands.run_for(1200 * MS);
    assert!(far_member(&islands.north, 0, islands.south.nodes[1].id()).unwrap().reachable);
}

#[test]
fn a_bridge_hears_an_urgent_word_on_the_wire_and_tells_it_on() {
    let mut islands = Islands::new();
    let second = islands.north.add(on("north", 3, &["bridge"]), Identity::for_test(250));
    islands.run_for(SECOND);
    islands.north.news[second].clear();
    let now = islands.south.now;
    islands.south.nodes[0].leave(now, LeaveReason::Stopped);
    islands.south.settle();
    islands.carry();
    islands.run_for(25 * MS);
    let told: Vec<_> = islands.north.news[second].iter().collect();
    assert!(matches!(told[..], [News::Said { what: What::Own, is_urgent: true, .. }]), "{told:?}");
}

#[test]
fn members_that_we_hear_win_over_what_bridges_say() {
    let mut north = island("north", Instant::now(), 200);
    north.run_for(2 * SECOND);
    let id = north.nodes[0].id();
    let elsewhere = announce(200, 1_000_000, "south");
    hear_far(&mut north, BRIDGE, std::slice::from_ref(&elsewhere), false);
    assert_eq!(far_standing(&north, BRIDGE, id), None);
    assert_eq!(north.standing(BRIDGE, 0), Some(Standing::Alive));
    // Gone from here, it is where it says.
    north.cut[0] = true;
    north.run_for(SECOND);
    hear_far(&mut north, BRIDGE, &[elsewhere], false);
    assert_eq!(north.standing(BRIDGE, 0), None);
    assert_eq!(far_standing(&north, BRIDGE, id), Some(Standing::Alive));
    north.run_for(3 * SECOND);
    assert_eq!((north.standing(1, 0), far_standing(&north, 1, id)), (None, Some(Standing::Alive)));
    // Nor do older words on the wire, or in others' tables, bring it home.
    let before = north.recorded.iter().find(|word| word[8..40] == id.0 && word[3] == kind::ANNOUNCE).cloned();
    assert!(north.nodes[1].handle_datagram(north.now, broadcast_from(0), before.unwrap()).is_err());
    north.run_for(20 * SECOND);
    assert_eq!(north.standing(1, 0), None);
}

#[test]
fn a_split_island_lists_its_other_half_and_takes_it_back_when_it_hears_it() {
    let mut north = island("north", Instant::now(), 200);
    north.run_for(2 * SECOND);
    let word = announce(250, 7, "north");
    hear_far(&mut north, BRIDGE, std::slice::from_ref(&word), false);
    north.run_for(SECOND);
    for at in [0, 1, BRIDGE] {
        let seen = far_member(&north, at, Identity::for_test(250).id()).unwrap();
        assert_eq!((seen.reachable, seen.reason), (false, Some(Reason::SameNameOrSplit)));
        assert!(seen.http_addresses.is_empty());
    }
    // The wires are joined again: the same word, heard directly.
    north.nodes[0].handle_datagram(north.now, broadcast_from(50), word).unwrap();
    north.settle();
    assert!(far_member(&north, 0, Identity::for_test(250).id()).is_none());
    assert!(north.nodes[0].members().any(|member| member.id == Identity::for_test(250).id() && !member.far));
    north.run_for(5 * SECOND);
    assert!(far_member(&north, 1, Identity::for_test(250).id()).is_none(), "and for all others");
}

#[test]
fn on_the_wire_only_urgent_words_of_known_far_members_count() {
    let mut north = island("north", Instant::now(), 200);
    north.run_for(2 * SECOND);
    let now = north.now;
    let hear = |north: &mut Wire, word: Bytes| north.nodes[0].handle_datagram(now, broadcast_from(50), word);
    assert_eq!(hear(&mut north, announce(300, 5, "south")), Err(Refused::Island), "nobody knows that one");
    hear_far(&mut north, BRIDGE, &[announce(300, 5, "south")], false);
    north.run_for(SECOND);
    let now = north.now;
    let hear = |north: &mut Wire, word: Bytes| {
        let outcome = north.nodes[0].handle_datagram(now, broadcast_from(50), word);
        north.settle();
        outcome
    };
    assert_eq!(hear(&mut north, announce(300, 6, "south")), Err(Refused::Island));
    let beacon = crate::wire::Beacon {
        record_seq: Seq(5),
        load: Load::default(),
        full: false,
        deaf: false,
        digest: 0,
        far: None,
    };
    let tag = MeshTag::of("test");
    let beacon = Identity::for_test(300).sign_word(tag, &Message::Beacon(beacon), Seq(7));
    north.sent.clear();
    assert_eq!(hear(&mut north, beacon), Err(Refused::Island));
    let record = record_of(300, "south", &[], true);
    let draining = Identity::for_test(300).sign_word(tag, &Message::Announce(record.into()), Seq(8));
    let mut forged = draining.to_vec();
    forged[70] ^= 1;
    assert!(hear(&mut north, forged.into()).is_err());
    assert_eq!(hear(&mut north, draining), Ok(()));
    let seen = far_member(&north, 0, Identity::for_test(300).id()).unwrap();
    assert!(seen.record.draining && seen.far);
    north.run_for(3 * SECOND);
    assert_eq!(north.sent.get(&kind::HELLO), None, "it is no stranger");
}

#[test]
fn what_foreign_keys_say_on_the_wire_is_ignored() {
    let mut north = island("north", Instant::now(), 200);
    north.run_for(2 * SECOND);
    let now = north.now;
    let foreign = BTreeSet::from([north.nodes[1].id(), Identity::for_test(77).id()]);
    north.nodes[BRIDGE].set_foreign(now, foreign);
    north.settle();
    assert_eq!(north.standing(BRIDGE, 1), None);
    north.run_for(5 * SECOND);
    assert_eq!(north.standing(BRIDGE, 1), None, "neither by its own words nor in others' tables");
    assert_eq!(north.standing(BRIDGE, 0), Some(Standing::Alive));
    let word = announce(77, 1, "north");
    let heard = north.nodes[BRIDGE].handle_datagram(north.now, broadcast_from(50), word);
    assert_eq!(heard, Err(Refused::Island));
}

/// What the bridge has told of a member of its own island, and whether it was urgent.
fn about(wire: &mut Wire, id: MemberId) -> Vec<(What, bool)> {
    let news = std::mem::take(&mut wire.news[BRIDGE]);
    let of = |news: News| match news {
        News::Said { member, what, is_urgent, from: None, .. } if member == id => Some((what, is_urgent)),
        _ => None,
    };
    news.into_iter().filter_map(of).collect()
}

#[test]
fn a_bridge_tells_everything_that_others_must_know_of_its_island() {
    let mut north = island("north", Instant::now(), 200);
    north.run_for(2 * SECOND);
    let (own, id) = (north.nodes[BRIDGE].id(), north.nodes[0].id());
    let said = north.news[BRIDGE].clone();
    assert!(said.iter().any(|news| matches!(news, News::Said { member, .. } if *member == own)));
    let first = about(&mut north, id);
    assert!(!first.is_empty() && first.iter().all(|told| *told == (What::Own, false)), "{first:?}");
    north.cut[0] = true;
    north.run_for(SECOND);
    assert_eq!(about(&mut north, id), [(What::Down, true)]);
    north.cut[0] = false;
    north.run_for(SECOND);
    let back = about(&mut north, id);
    assert!(back.contains(&(What::Refuted, true)), "{back:?}");
    north.nodes[0].drain(north.now);
    north.settle();
    assert_eq!(about(&mut north, id), [(What::Own, true)]);
    north.nodes[0].leave(north.now, LeaveReason::Stopped);
    north.settle();
    assert_eq!(about(&mut north, id), [(What::Own, true)]);
    north.run_for(601 * SECOND);
    assert!(north.news[BRIDGE].contains(&News::Forgotten(id)));
    assert!(north.news[0].is_empty(), "nobody else keeps news");
}

fn farewell(number: u64, seq: u64) -> Bytes {
    let farewell = Message::Farewell(crate::wire::Farewell { reason: LeaveReason::Stopped });
    Identity::for_test(number).sign_word(MeshTag::of("test"), &farewell, Seq(seq))
}

/// What this bridge tells of a member, and from which link it has it.
fn told_of(wire: &mut Wire, id: MemberId) -> Vec<(Bytes, bool, Option<MemberId>)> {
    let of = |news: News| match news {
        News::Said { member, what: What::Own, bytes, is_urgent, from, .. } if member == id => {
            Some((bytes, is_urgent, from))
        }
        _ => None,
    };
    std::mem::take(&mut wire.news[BRIDGE]).into_iter().filter_map(of).collect()
}

#[test]
fn a_farewell_is_told_abroad_by_a_bridge_that_never_knew_the_record() {
    let mut north = island("north", Instant::now(), 200);
    let (id, goodbye) = (Identity::for_test(77).id(), farewell(77, 9));
    let now = north.now;
    north.nodes[BRIDGE].handle_datagram(now, broadcast_from(50), goodbye.clone()).unwrap();
    north.settle();
    assert_eq!(told_of(&mut north, id), [(goodbye.clone(), true, None)]);
    // The record comes after it: in another member's table, or from those who list it still.
    let record = announce(77, 8, "north");
    let late = north.nodes[BRIDGE].handle_datagram(now, broadcast_from(50), record.clone());
    assert_eq!(late, Ok(()), "taken in beside the farewell");
    north.settle();
    assert_eq!(told_of(&mut north, id), [], "told once");
}

#[test]
fn a_farewell_known_before_the_record_is_told_to_all_links_and_stands() {
    let mut south = island("south", Instant::now(), 300);
    let (id, goodbye) = (Identity::for_test(77).id(), farewell(77, 9));
    let now = south.now;
    south.nodes[BRIDGE].handle_datagram(now, broadcast_from(50), goodbye.clone()).unwrap();
    south.settle();
    // Also to the one that is about to bring the record.
    assert_eq!(told_of(&mut south, id), [(goodbye, true, None)]);
    hear_far(&mut south, BRIDGE, &[announce(77, 8, "north")], false);
    assert_eq!(told_of(&mut south, id), [], "it stays said");
    assert_eq!(far_standing(&south, BRIDGE, id), Some(Standing::Left));
}

/// The bridge has lost all that it knew.
fn start_bridge_anew(wire: &mut Wire, name: &str) {
    let mut anew = Membership::new(on(name, BRIDGE, &["bridge"]), Identity::for_test(399), 7, wire.now);
    anew.tell_outward();
    let addresses = vec![Address { ip: address(BRIDGE).ip(), prefix: 16 }];
    anew.set_interfaces(
        wire.now,
        vec![Interface { index: 1, name: "e".to_owned(), addresses, loopback: false }],
    );
    anew.start(wire.now);
    wire.nodes[BRIDGE] = anew;
    while wire.nodes[BRIDGE].poll_transmit().is_some() {}
    wire.news[BRIDGE].clear();
}

#[test]
fn a_farewell_that_a_new_bridge_hears_before_any_link_reaches_those_who_missed_it() {
    let mut north = island("north", Instant::now(), 200);
    north.run_for(2 * SECOND);
    let (id, goodbye) = (Identity::for_test(77).id(), farewell(77, 9));
    hear_far(&mut north, BRIDGE, &[announce(77, 8, "south")], false);
    north.run_for(2 * SECOND);
    assert_eq!(far_standing(&north, 0, id), Some(Standing::Alive));
    start_bridge_anew(&mut north, "north");
    // One that lists the member hears nothing while the farewell is passed on.
    north.cut[0] = true;
    let now = north.now;
    north.nodes[BRIDGE].handle_datagram(now, broadcast_from(50), goodbye.clone()).unwrap();
    north.run_for(100 * MS);
    north.cut[0] = false;
    assert_eq!(far_standing(&north, 0, id), Some(Standing::Alive));
    assert_eq!(
        told_of(&mut north, id),
        [(goodbye, true, None)],
        "no link brings it: all hear that it is known"
    );
    north.run_for(5 * SECOND);
    assert_eq!(far_standing(&north, 0, id), Some(Standing::Left));
}

#[test]
fn a_bridge_that_has_just_started_tells_the_farewell_that_it_hears_and_all_believe_it() {
    let mut islands = Islands::new();
    let id = islands.south.nodes[0].id();
    assert_eq!(islands.seen(0), [Some(Standing::Alive); 2]);
    // It hears the member for the first time when that goes.
    start_bridge_anew(&mut islands.south, "south");
    islands.south.nodes[0].leave(islands.south.now, LeaveReason::Stopped);
    islands.run_for(SECOND);
    assert_eq!(islands.seen(0), [Some(Standing::Left); 2], "{id:?}");
}

#[test]
fn a_verdict_on_one_of_ours_that_is_void_is_answered_with_its_pulse() {
    let mut north = island("north", Instant::now(), 200);
    north.run_for(5 * SECOND);
    north.news[BRIDGE].clear();
    let id = north.nodes[0].id();
    let seq = north.nodes[BRIDGE].table.get(&id).unwrap().record.as_ref().unwrap().stamp.seq;
    let down = certificates_about(200, seq.0, &[201, 202]).unwrap();
    for _ in 0..3 {
        hear_far(&mut north, BRIDGE, std::slice::from_ref(&down), true);
    }
    assert_eq!(about(&mut north, id), [(What::Refuted, true)]);
    assert_eq!(north.standing(BRIDGE, 0), Some(Standing::Alive));
}

#[test]
fn a_bridge_that_hears_nothing_of_the_accused_does_not_speak_for_it() {
    let mut north = island("north", Instant::now(), 200);
    north.run_for(5 * SECOND);
    let id = north.nodes[0].id();
    let entry = north.nodes[BRIDGE].table.get(&id).unwrap();
    let (record, newest) = (entry.record.as_ref().unwrap().stamp, entry.newest().unwrap());
    assert!(record < newest);
    north.news[BRIDGE].clear();
    // Others have agreed before the bridge does, by votes that do not know the last that it heard.
    north.cut[0] = true;
    let down = certificates_about(200, record.seq.0, &[201, 202]).unwrap();
    hear_far(&mut north, BRIDGE, &[down], true);
    assert_eq!(north.standing(BRIDGE, 0), Some(Standing::Alive));
    north.run_for(5 * SECOND);
    assert_eq!(north.standing(BRIDGE, 0), Some(Standing::Down));
    let told = about(&mut north, id);
    assert!(!told.iter().any(|(what, _)| *what == What::Refuted), "{told:?}");
}

#[test]
fn made_up_members_of_an_island_change_nothing_for_those_who_are_there() {
    let mut islands = Islands::new();
    let record = |islands: &Islands, of: usize| {
        let id = islands.south.nodes[of].id();
        islands.north.nodes[BRIDGE].abroad.far.record(&id).unwrap().0.seq.0
    };
    let made_up: Vec<Bytes> = (700..704)
        .map(|number| {
            let record = record_of(number, "south", &[300, 301, 700, 701, 702], false);
            Identity::for_test(number).sign_word(
                MeshTag::of("test"),
                &Message::Announce(record.into()),
                Seq(1),
            )
        })
        .collect();
    hear_far(&mut islands.north, BRIDGE, &made_up, false);
    islands.run_for(SECOND);
    let before = islands.north.events.clone();
    for round in 0..20 {
        for of in 0..3 {
            let (number, seq) = (300 + of as u64, record(&islands, of));
            let last = [seq, 1 << 47][round % 2];
            let down = votes_about(number, seq, last, &[700, 701, 702, 703]).unwrap();
            hear_far(&mut islands.north, BRIDGE, &[down], true);
        }
        islands.run_for(50 * MS);
        for at in 0..3 {
            let south = islands.south.nodes.iter().map(Membership::id);
            let seen: Vec<_> = south.filter_map(|id| far_member(&islands.north, at, id)).collect();
            assert!(seen.len() == 3 && seen.iter().all(|member| member.reachable), "round {round}");
        }
    }
    assert_eq!(islands.north.events, before);
}

#[test]
fn a_link_that_floods_the_table_keeps_out_nobody_that_others_bring() {
    let mut north = island("north", Instant::now(), 200);
    let second = north.add(on("north", 3, &["bridge"]), Identity::for_test(250));
    north.run_for(SECOND);
    let now = north.now;
    for node in &mut north.nodes {
        node.abroad.far.hold(60);
    }
    for (at, island) in [(BRIDGE, "south"), (second, "west")] {
        north.nodes[at].say_reaches(now, vec![reach(island, 10)]);
    }
    let members = |numbers: std::ops::Range<u64>, island: &str| -> Vec<Bytes> {
        numbers.map(|number| announce(number, 1, island)).collect()
    };
    // What two honest links bring, before, while and after the third makes members up.
    hear_from(&mut north, BRIDGE, 900, &members(300..308, "south"), false);
    hear_from(&mut north, second, 901, &members(400..408, "west"), false);
    north.run_for(SECOND);
    hear_from(&mut north, BRIDGE, 666, &members(1000..1200, "made-up"), false);
    north.run_for(SECOND);
    hear_from(&mut north, BRIDGE, 900, &members(308..312, "south"), false);
    hear_from(&mut north, second, 901, &members(408..412, "west"), false);
    north.run_for(2 * SECOND);
    hear_from(&mut north, BRIDGE, 666, &members(1200..1400, "made-up"), false);
    north.run_for(5 * SECOND);
    let honest: Vec<MemberId> = (300..312).chain(400..412).map(|n| Identity::for_test(n).id()).collect();
    for at in 0..north.nodes.len() {
        assert_eq!(north.nodes[at].far_members().count(), 60, "at {at}");
        for id in &honest {
            assert!(far_member(&north, at, *id).is_some_and(|member| member.reachable), "at {at}: {id}");
            assert_eq!(count(&north, at, EventKind::Forgotten, *id), 0, "at {at}");
        }
    }
    let counters = north.nodes[BRIDGE].counters();
    assert_eq!((counters.far_refused, counters.far_displaced), (156 + 200, 8));
    // Nobody asks for ever for what there is no room for.
    let pulls = north.pulls;
    north.run_for(60 * SECOND);
    assert!(north.pulls - pulls < 40, "{}", north.pulls - pulls);
}

#[test]
fn watchers_that_lie_elsewhere_are_refuted_by_the_member_itself() {
    let mut islands = Islands::new();
    islands.run_for(10 * SECOND);
    let id = islands.south.nodes[0].id();
    for (round, last) in [None, Some(1 << 47)].into_iter().enumerate() {
        let (stamp, record) = islands.north.nodes[BRIDGE].abroad.far.record(&id).unwrap();
        assert_eq!(record.watchers.len(), 2);
        // The newest that anybody can know, or more than there is.
        let newest = islands.south.nodes[BRIDGE].table.get(&id).and_then(Entry::newest).unwrap();
        let last = last.unwrap_or(newest.seq.0);
        let down = votes_about(300, stamp.seq.0, last, &[301, 302]).unwrap();
        hear_far(&mut islands.north, BRIDGE, &[down], true);
        assert_eq!(far_standing(&islands.north, BRIDGE, id), Some(Standing::Down), "its own watchers say so");
        islands.run_for(300 * MS);
        assert_eq!(islands.seen(0), [Some(Standing::Alive); 2], "round {round}");
        islands.run_for(2 * SECOND);
    }
    assert_eq!(islands.south.standing(1, 0), Some(Standing::Alive));
}

#[test]
fn a_member_of_a_large_island_that_nobody_can_ask_is_said_to_live_as_soon_as_it_is_heard() {
    let mut islands = Islands::of_south(40);
    let bridge = islands.south.nodes[BRIDGE].id();
    let far = &islands.north.nodes[BRIDGE].abroad.far;
    // Those whose pulses the bridge hears only as all do: it lets them wait.
    let quiet: Vec<(usize, Stamp, Vec<u64>)> = (3..40)
        .filter_map(|at| {
            let (stamp, record) = far.record(&islands.south.nodes[at].id())?;
            let watches = |key: &u64| record.watchers.contains(&Identity::for_test(*key).id());
            let voters: Vec<u64> = (300..340).filter(watches).take(3).collect();
            (!record.watchers.contains(&bridge)).then_some((at, stamp, voters))
        })
        .take(8)
        .collect();
    assert_eq!(quiet.len(), 8);
    for (at, stamp, voters) in quiet {
        let id = islands.south.nodes[at].id();
        islands.south.unheard.insert((BRIDGE, at));
        let newest = islands.south.nodes[at].seq.0;
        let down = votes_about(300 + at as u64, stamp.seq.0, newest, &voters).unwrap();
        hear_far(&mut islands.north, BRIDGE, &[down], true);
        assert_eq!(far_standing(&islands.north, BRIDGE, id), Some(Standing::Down));
        islands.run_for(300 * MS);
        assert_eq!(islands.seen(at), [Some(Standing::Alive); 2], "{at}");
        islands.south.unheard.clear();
    }
}

#[test]
fn who_is_heard_of_over_a_new_link_after_it_has_gone_is_listed_for_the_rest_of_ten_minutes() {
    let mut north = island("north", Instant::now(), 200);
    north.run_for(2 * SECOND);
    let id = Identity::for_test(300).id();
    let farewell = Message::Farewell(crate::wire::Farewell { reason: LeaveReason::Stopped });
    let farewell = Identity::for_test(300).sign_word(MeshTag::of("test"), &farewell, Seq(9));
    let mut words: Vec<FarWord> =
        [announce(300, 5, "south"), farewell.clone()].into_iter().filter_map(verified).collect();
    FarWord::date(&mut words, [(id, 420 * SECOND)]);
    let (now, link) = (north.now, Identity::for_test(900).id());
    north.nodes[BRIDGE].hear_far(now, link, &[], &words, false);
    north.settle();
    // Other links hear that, too.
    let told = north.news[BRIDGE].iter().find_map(|news| match news {
        News::Said { bytes, gone, .. } if *bytes == farewell => Some(*gone),
        _ => None,
    });
    assert_eq!(told, Some(Some(now - 420 * SECOND)));
    north.run_for(175 * SECOND);
    assert_eq!(far_standing(&north, BRIDGE, id), Some(Standing::Left));
    north.run_for(10 * SECOND);
    assert_eq!(far_standing(&north, BRIDGE, id), None);
}

#[test]
fn when_most_of_an_island_crashes_at_once_the_others_come_to_know() {
    let mut islands = Islands::of_south(7);
    let fallen = [0, 1, 3, 4, 5];
    for node in fallen {
        islands.south.cut[node] = true;
    }
    islands.run_for(5 * SECOND);
    for node in fallen {
        assert_eq!(islands.seen(node), [Some(Standing::Down); 2], "{node}");
    }
    assert_eq!(islands.seen(6), [Some(Standing::Alive); 2]);
    for node in fallen {
        islands.south.cut[node] = false;
    }
    islands.run_for(3 * SECOND);
    for node in fallen {
        assert_eq!(islands.seen(node), [Some(Standing::Alive); 2], "{node} is back");
    }
}

#[test]
fn a_deaf_node_hears_urgent_words_of_other_islands_from_its_watchers() {
    let mut islands = Islands::new();
    islands.north.deaf[0] = true;
    islands.run_for(8 * SECOND);
    assert!(islands.north.nodes[1].deaf.contains(&islands.north.nodes[0].id()));
    let now = islands.south.now;
    islands.south.nodes[0].leave(now, LeaveReason::Stopped);
    islands.south.settle();
    islands.carry();
    islands.run_for(30 * MS);
    assert_eq!(islands.seen(0), [Some(Standing::Left); 2]);
    islands.south.cut[1] = true;
    islands.run_for(900 * MS);
    assert_eq!(islands.seen(1), [Some(Standing::Down); 2]);
}

#[test]
fn a_bridge_that_cannot_broadcast_is_heard_by_way_of_its_watchers() {
    let mut islands = Islands::new();
    (islands.north.deaf[BRIDGE], islands.north.mute[BRIDGE]) = (true, true);
    islands.run_for(8 * SECOND);
    let farewell = Message::Farewell(crate::wire::Farewell { reason: LeaveReason::Stopped });
    let farewell = Identity::for_test(300).sign_word(MeshTag::of("test"), &farewell, Seq(1_000_000));
    islands.north.sent.clear();
    hear_far(&mut islands.north, BRIDGE, &[farewell], true);
    islands.north.run_for(60 * MS);
    assert_eq!(islands.seen(0), [Some(Standing::Left); 2]);
    assert!(islands.north.sent[&kind::FAREWELL] <= 12, "{:?}", islands.north.sent);
}

#[test]
fn a_bridge_that_brings_nothing_new_is_left_in_peace() {
    let mut north = island("north", Instant::now(), 200);
    north.run_for(SECOND);
    hear_far(&mut north, BRIDGE, &[announce(300, 5, "south"), announce(301, 5, "south")], false);
    north.run_for(SECOND);
    assert_eq!(north.pulls, 2, "both others have asked once");
    // It has forgotten somebody whom the others know.
    north.nodes[BRIDGE].abroad.far.give_home(&Identity::for_test(300).id());
    north.pulls = 0;
    north.run_for(30 * SECOND);
    // Each eight times at most: waits of 0.2 s, doubling.
    assert!((2..=16).contains(&north.pulls), "{}", north.pulls);
    assert_eq!(north.nodes[0].far_members().count(), 2);
}

#[test]
fn who_missed_that_somebody_lives_asks_though_it_had_the_digest_of_before() {
    let mut north = island("north", Instant::now(), 200);
    north.run_for(SECOND);
    let id = Identity::for_test(300).id();
    let sign = |message: &Message, seq: u64| {
        Identity::for_test(300).sign_word(MeshTag::of("test"), message, Seq(seq))
    };
    let record = record_of(300, "south", &[301], false);
    hear_far(&mut north, BRIDGE, &[sign(&Message::Announce(record.into()), 1)], false);
    north.run_for(SECOND);
    hear_far(&mut north, BRIDGE, &[certificates_about(300, 1, &[301]).unwrap()], true);
    north.run_for(SECOND);
    assert_eq!(far_standing(&north, 0, id), Some(Standing::Down));
    let beacon =
        Beacon { record_seq: Seq(1), load: Load::default(), full: false, deaf: false, digest: 0, far: None };
    north.mute[BRIDGE] = true;
    hear_far(&mut north, BRIDGE, &[sign(&Message::Beacon(beacon), 2)], true);
    north.run_for(100 * MS);
    north.mute[BRIDGE] = false;
    let seen = [BRIDGE, 0].map(|at| far_standing(&north, at, id));
    assert_eq!(seen, [Some(Standing::Alive), Some(Standing::Down)]);
    north.run_for(6 * SECOND);
    assert_eq!(far_standing(&north, 0, id), Some(Standing::Alive));
}

#[test]
fn an_island_that_takes_another_name_leaves_nothing_of_the_old_one() {
    let north = island("north", Instant::now(), 200);
    let mut south = Wire::of(0);
    south.now = north.now;
    for number in 0..3 {
        let roles = if number == BRIDGE { vec!["bridge".to_owned()] } else { Vec::new() };
        south.add(Settings { roles, ..settings(number) }, Identity::for_test(300 + number as u64));
    }
    let mut islands = Islands { north, south, up: true, carried: 0 };
    let old = crate::island::made_by(islands.south.nodes[BRIDGE].id());
    let reached = |islands: &mut Islands, name: &str| {
        let wire = &mut islands.north;
        wire.nodes[BRIDGE].say_reaches(wire.now, vec![reach(name, 10)]);
        wire.settle();
    };
    reached(&mut islands, &old);
    islands.run_for(2 * SECOND);
    let ids: Vec<_> = islands.south.nodes.iter().map(Membership::id).collect();
    let seen = |islands: &Islands, id| far_member(&islands.north, 0, id).unwrap();
    assert!(ids.iter().all(|id| seen(&islands, *id).record.island == old));

    islands.south.add(on("south", 3, &[]), Identity::for_test(303));
    reached(&mut islands, "south");
    islands.run_for(3 * SECOND);
    for id in ids {
        let member = seen(&islands, id);
        assert_eq!(
            (&*member.record.island, member.standing, member.reachable),
            ("south", Standing::Alive, true)
        );
        let ended = islands.north.events[0]
            .iter()
            .filter(|(kind, of)| *of == id && !matches!(kind, EventKind::Joined | EventKind::Updated));
        assert_eq!(ended.count(), 0);
    }
    for node in &mut islands.north.nodes {
        let known = node.take_islands().unwrap();
        assert_eq!(known.keys().collect::<Vec<_>>(), ["south"]);
    }
}

#[test]
fn what_follows_an_urgent_word_is_known_as_soon_as_anything() {
    let mut north = island("north", Instant::now(), 200);
    north.run_for(SECOND);
    hear_far(&mut north, BRIDGE, &[announce(300, 5, "south"), announce(301, 5, "south")], false);
    north.run_for(SECOND);
    let id = Identity::for_test(301).id();
    for seq in 6..20 {
        let draining = Message::Announce(record_of(300, "south", &[], true).into());
        let urgent = Identity::for_test(300).sign_word(MeshTag::of("test"), &draining, Seq(seq));
        hear_far(&mut north, BRIDGE, &[urgent], true);
        north.run_for(50 * MS);
        hear_far(&mut north, BRIDGE, &[announce(301, seq, "south")], false);
        north.run_for(SECOND);
        for at in [0, 1] {
            assert_eq!(far_member(&north, at, id).map(|member| member.stamp.seq), Some(Seq(seq)));
        }
    }
}
