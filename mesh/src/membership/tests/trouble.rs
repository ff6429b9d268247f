//! Cuts, crashes and moves: who is still known afterwards, and who no longer.

use super::*;
use crate::member::Epoch;
use crate::wire::Beacon;

#[test]
fn whoever_was_forgotten_while_cut_off_is_listed_again() {
    let mut wire = Wire::of(3);
    wire.run_for(2 * SECOND);
    wire.cut[0] = true;
    wire.run_for(640 * SECOND);
    assert_eq!(wire.standing(1, 0), None);
    wire.cut[0] = false;
    wire.run_for(40 * SECOND);
    for (at, of) in [(1, 0), (2, 0), (0, 1), (0, 2)] {
        assert_eq!(wire.standing(at, of), Some(Standing::Alive), "{of} at {at}");
    }
}

#[test]
fn a_new_life_of_a_kept_key_is_watched_like_the_first() {
    let mut wire = Wire::of(3);
    wire.run_for(2 * SECOND);
    wire.cut[1] = true;
    let again = wire.add(settings(1), again(1));
    wire.run_for(2 * SECOND);
    assert_eq!(wire.standing(0, again), Some(Standing::Alive));
    wire.cut[again] = true;
    wire.run_for(4 * SECOND);
    assert_eq!(wire.standing(0, again), Some(Standing::Down));
}

#[test]
fn who_is_asked_for_its_record_learns_who_asks() {
    let mut wire = Wire::of(2);
    wire.run_for(2 * SECOND);
    wire.cut[0] = true;
    wire.begin_as(1, again(1));
    wire.run_for(500 * MS);
    // Now the first knows an old record of the second, which knows nothing of it and does not hear it unasked.
    (wire.cut[0], wire.mute[0]) = (false, true);
    wire.run_for(SECOND);
    let epoch = wire.nodes[0].members().next().map(|member| member.stamp.epoch);
    assert_eq!(epoch, Some(Epoch(2)));
    assert_eq!(wire.standing(1, 0), Some(Standing::Alive));
}

#[test]
fn who_hears_no_broadcasts_keeps_the_others_by_asking() {
    let mut wire = Wire::of(4);
    wire.run_for(2 * SECOND);
    wire.deaf[0] = true;
    wire.run_for(20 * SECOND);
    for of in 1..4 {
        assert_eq!(wire.standing(0, of), Some(Standing::Alive));
        assert_eq!(wire.count(0, EventKind::Suspect, of), 0);
    }
}

#[test]
fn a_member_that_took_another_name_meanwhile_is_listed_no_more() {
    let mut wire = Wire::of(2);
    let named = |node: usize, island: &str| Settings { island: Some(island.to_owned()), ..settings(node) };
    wire.run_for(SECOND);
    wire.cut[0] = true;
    let north = wire.add(named(2, "north"), Identity::for_test(2));
    wire.run_for(SECOND);
    (wire.cut[0], wire.cut[1], wire.cut[north]) = (false, true, true);
    let south = wire.add(named(3, "south"), Identity::for_test(3));
    wire.run_for(SECOND);
    (wire.cut[1], wire.cut[north]) = (false, false);
    wire.run_for(60 * SECOND);
    assert_eq!(wire.standing(0, south), Some(Standing::Alive));
    assert_eq!(wire.standing(1, north), Some(Standing::Alive));
    for (at, of) in [(0, 1), (1, 0), (0, north), (1, south)] {
        assert_eq!(wire.standing(at, of), None, "{of} at {at}");
    }
}

#[test]
fn two_nodes_with_one_key_are_shown_as_such() {
    let mut wire = Wire::of(1);
    let twin = Identity::for_test(60);
    for name in ["first", "second"] {
        let record = Record { name: name.to_owned(), ..wire.nodes[0].record.clone() };
        let word = twin.sign_word(MeshTag::of("test"), &Message::Announce(record.into()), Seq(5));
        let _ = wire.nodes[0].handle_datagram(wire.now, broadcast_from(60), word);
    }
    wire.settle();
    assert!(wire.events[0].contains(&(EventKind::DuplicateKey, twin.id())));
    let seen = wire.nodes[0].members().find(|member| member.id == twin.id()).unwrap();
    assert_eq!(seen.reason, Some(Reason::DuplicateKey));
}

#[test]
fn whom_nobody_ever_heard_is_forgotten_by_all() {
    let mut wire = Wire::of(4);
    wire.run_for(2 * SECOND);
    // One record and never a pulse: heard by node 0 alone, told to the others.
    let record = Record { name: "ghost".to_owned(), ..wire.nodes[0].record.clone() };
    let ghost = Identity::for_test(61);
    let word = ghost.sign_word(MeshTag::of("test"), &Message::Announce(record.into()), Seq(1));
    let _ = wire.nodes[0].handle_datagram(wire.now, broadcast_from(61), word);
    wire.run_for(5 * SECOND);
    let lists = |wire: &Wire| {
        wire.nodes.iter().filter(|node| node.members().any(|member| member.id == ghost.id())).count()
    };
    assert!(lists(&wire) > 0);
    wire.run_for(1300 * SECOND);
    assert_eq!(lists(&wire), 0);
    wire.run_for(60 * SECOND);
    assert_eq!(lists(&wire), 0);
}

#[test]
fn who_differed_a_moment_ago_and_agrees_by_now_makes_nobody_fetch_a_table() {
    let mut wire = Wire::of(40);
    wire.run_for(3 * SECOND);
    let now = wire.now;
    let others: Vec<MemberId> = wire.nodes[1..].iter().map(Membership::id).collect();
    let node = &mut wire.nodes[0];
    for id in &others {
        node.note_difference(now, *id, 1);
    }
    let much_later = now + 20 * SECOND;
    node.catch_up(much_later);
    node.catch_up(much_later + 20 * SECOND);
    assert!(node.poll_fetch().is_none());
}

#[test]
fn of_a_thousand_that_wait_for_the_odd_one_out_few_ask_soon() {
    let mut wire = Wire::of(1);
    let waits: Vec<std::time::Duration> =
        (0..1000).map(|_| wire.nodes[0].rather_late(20 * SECOND, 1000)).collect();
    let within = |seconds| waits.iter().filter(|wait| **wait < seconds * SECOND).count();
    // 0.4 + 2.3 + 17 + 113 are expected.
    assert!((0..8).contains(&within(3)) && within(5) < 12 && (8..40).contains(&within(10)), "{waits:?}");
    assert!(within(15) < 200 && within(20) == 1000);
}

#[test]
fn a_difference_that_comes_again_is_given_as_much_time_as_the_first() {
    let mut wire = Wire::of(40);
    wire.run_for(3 * SECOND);
    let (now, odd) = (wire.now, wire.nodes[1].id());
    let record_seq = wire.nodes[1].record_said.as_ref().unwrap().0.seq;
    let beacon = Beacon { record_seq, load: Load::default(), full: false, deaf: false, digest: 1, far: None };
    let say = |seq| {
        let word = Message::Beacon(beacon);
        wire.nodes[1].identity().sign_word(MeshTag::of("test"), &word, Seq(seq))
    };
    let words = [1_000_001, 1_000_002].map(say);
    let node = &mut wire.nodes[0];
    for (word, at) in words.into_iter().zip([now, now + SECOND / 10]) {
        // One of forty differs, agrees at once, and differs again.
        node.handle_datagram(at, broadcast_from(1), word).unwrap();
        if at == now {
            node.compare_digest(at, odd, node.digest());
        }
    }
    let until = now + 3 * SECOND;
    while let Some(wakeup) = node.poll_timeout().filter(|wakeup| wakeup.at <= until) {
        node.handle_timeout(wakeup.at);
    }
    assert!(node.poll_fetch().is_none(), "the odd one out was to ask first");
}
