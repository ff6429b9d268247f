//! What an island is called where nobody was given a name, and how it gets another.

use super::*;
use crate::island::made_by;

/// A bridge that was given no name.
fn bridge(wire: &mut Wire, key: u64) -> usize {
    let roles = vec!["bridge".to_owned()];
    wire.add(Settings { roles, ..settings(wire.nodes.len()) }, Identity::for_test(key))
}

fn member(wire: &mut Wire) -> usize {
    let number = wire.nodes.len();
    wire.add(settings(number), Identity::for_test(500 + number as u64))
}

fn named(wire: &mut Wire, name: &str) -> usize {
    let number = wire.nodes.len();
    let island = Some(name.to_owned());
    wire.add(Settings { island, ..settings(number) }, Identity::for_test(500 + number as u64))
}

/// Two keys: the one whose name is the smaller comes first.
fn keys() -> [u64; 2] {
    let mut keys = [700, 701];
    keys.sort_by_key(|key| made_by(Identity::for_test(*key).id()));
    keys
}

fn made(key: u64) -> String {
    made_by(Identity::for_test(key).id())
}

fn names(wire: &Wire) -> Vec<String> {
    wire.nodes.iter().map(|node| node.self_member().unwrap().record.island.clone()).collect()
}

/// Everybody is of this island, and lists all others as alive.
fn are_all_of(wire: &Wire, name: &str) {
    let all = wire.nodes.len();
    assert_eq!(names(wire), vec![name.to_owned(); all]);
    for (at, node) in wire.nodes.iter().enumerate() {
        let alive: Vec<_> = node.members().filter(|member| member.standing == Standing::Alive).collect();
        assert!(alive.iter().all(|member| member.record.island == name));
        assert_eq!(alive.len(), all - 1, "at {at}");
    }
}

/// Nobody has lost sight of anybody.
fn nobody_was_lost(wire: &Wire) {
    let lost = |(kind, _): &&(EventKind, MemberId)| {
        matches!(kind, EventKind::Forgotten | EventKind::Down | EventKind::Suspect | EventKind::Left)
    };
    for (at, events) in wire.events.iter().enumerate() {
        assert_eq!(events.iter().find(lost), None, "at {at}");
    }
}

#[test]
fn two_bridges_without_a_name_settle_on_the_smaller_one() {
    let [small, large] = keys();
    for (first, second, members_first) in
        [(small, large, true), (large, small, true), (small, large, false), (large, small, false)]
    {
        let mut wire = Wire::of(if members_first { 3 } else { 0 });
        bridge(&mut wire, first);
        wire.run_for(3 * SECOND);
        are_all_of(&wire, &made(first));
        bridge(&mut wire, second);
        wire.run_for(SECOND / 2);
        are_all_of(&wire, &made(small));
        for _ in 0..3 {
            member(&mut wire);
        }
        wire.run_for(3 * SECOND);
        are_all_of(&wire, &made(small));
        nobody_was_lost(&wire);
        wire.run_for(60 * SECOND);
        are_all_of(&wire, &made(small));
        // Given by the one, and heard by all others.
        let givers: Vec<_> = wire
            .nodes
            .iter()
            .filter(|node| node.self_member().unwrap().record.island_given)
            .map(Membership::id)
            .collect();
        assert_eq!(givers, [Identity::for_test(small).id()]);
    }
}

#[test]
fn a_bridge_without_a_name_takes_the_one_that_was_given() {
    let [key, _] = keys();
    // Named after it, so that the smaller of the two is not the one that counts.
    let mut wire = Wire::of(2);
    named(&mut wire, "north");
    wire.run_for(SECOND);
    bridge(&mut wire, key);
    wire.run_for(SECOND);
    are_all_of(&wire, "north");
    nobody_was_lost(&wire);

    let mut wire = Wire::of(2);
    bridge(&mut wire, key);
    wire.run_for(SECOND);
    are_all_of(&wire, &made(key));
    named(&mut wire, "north");
    wire.run_for(SECOND);
    are_all_of(&wire, "north");
    nobody_was_lost(&wire);
}

/// They hear the smaller bridge one after another, and each gives up the old name while some still have it: those may have
/// said it long ago, and are about to follow all the same.
#[test]
fn two_wires_whose_bridges_have_no_name_are_one_island_once_joined() {
    let [small, large] = keys();
    for seed in 0..12 {
        let mut wire = Wire::of(0);
        wire.seed = seed;
        for key in [small, large] {
            bridge(&mut wire, key);
            for _ in 0..3 {
                member(&mut wire);
            }
            if key == small {
                let (ours, theirs) = (0..4, 4..8);
                wire.unheard =
                    ours.flat_map(|a| theirs.clone().flat_map(move |b| [(a, b), (b, a)])).collect();
            }
        }
        wire.run_for(8 * SECOND);
        assert_eq!(names(&wire), [vec![made(small); 4], vec![made(large); 4]].concat(), "seed {seed}");
        wire.unheard.clear();
        wire.run_for(5 * SECOND);
        are_all_of(&wire, &made(small));
        nobody_was_lost(&wire);
    }
}

#[test]
fn who_does_not_hear_the_smaller_bridge_goes_with_the_one_it_hears() {
    let [small, large] = keys();
    let mut wire = Wire::of(0);
    bridge(&mut wire, large);
    let far_off = member(&mut wire);
    wire.unheard = [(2, far_off), (far_off, 2)].into();
    bridge(&mut wire, small);
    wire.run_for(3 * SECOND);
    assert_eq!(names(&wire), vec![made(small); 3]);
}

#[test]
fn a_name_goes_with_the_bridge_that_made_it_when_that_is_forgotten() {
    let [small, large] = keys();
    let mut wire = Wire::of(1);
    bridge(&mut wire, small);
    bridge(&mut wire, large);
    wire.run_for(3 * SECOND);
    are_all_of(&wire, &made(small));
    let now = wire.now;
    wire.nodes[1].leave(now, LeaveReason::Stopped);
    wire.run_for(SECOND);
    wire.cut[1] = true;
    assert_eq!(wire.nodes[2].self_member().unwrap().record.island, made(small));
    wire.run_for(660 * SECOND);
    for at in [0, 2] {
        assert_eq!(wire.nodes[at].self_member().unwrap().record.island, made(large), "at {at}");
    }
    assert_eq!(wire.standing(0, 2), Some(Standing::Alive));
}
