//! Votes, certificates, proofs: who is down, and who cannot be made to be.

use super::*;
use crate::member::Epoch;
use crate::wire::{Down, Hint, Proof, Suspect};

fn record_of(wire: &Wire, node: usize) -> (Stamp, Arc<Record>) {
    let me = wire.nodes[node].self_member().unwrap();
    (me.stamp, me.record.clone())
}

/// A vote of `voter` about `target` that claims to know all it ever said.
fn vote(wire: &Wire, voter: u64, target: usize, seq: u64, epoch: Epoch) -> Bytes {
    let (stamp, _) = record_of(wire, target);
    let vote = Suspect {
        target: wire.nodes[target].id(),
        epoch,
        record_seq: stamp.seq,
        last_seq: Seq::MAX,
        silence_ms: 60_000,
    };
    Identity::for_test(voter).sign_word(MeshTag::of("test"), &Message::Suspect(vote), Seq(seq))
}

#[test]
fn two_three_and_four_members_find_a_crash() {
    for count in 2..=4 {
        let mut wire = Wire::of(count);
        wire.run_for(3 * SECOND);
        wire.cut[0] = true;
        wire.run_for(800 * MS);
        for at in 1..count {
            assert_eq!(wire.standing(at, 0), Some(Standing::Down), "at {at} of {count}");
            for of in (1..count).filter(|of| *of != at) {
                assert_eq!(wire.standing(at, of), Some(Standing::Alive), "{of} at {at} of {count}");
            }
        }
    }
}

#[test]
fn whoever_is_unplugged_finds_that_it_is_alone() {
    for count in [2, 3, 8] {
        let mut wire = Wire::of(count);
        wire.run_for(3 * SECOND);
        wire.cut[0] = true;
        wire.run_for(12 * SECOND);
        let left: Vec<usize> =
            (1..count).filter(|of| wire.standing(0, *of) != Some(Standing::Down)).collect();
        assert_eq!(left, Vec::<usize>::new(), "of {count}");
        wire.cut[0] = false;
        wire.run_for(3 * SECOND);
        for at in 1..count {
            assert_eq!(wire.standing(0, at), Some(Standing::Alive));
            assert_eq!(wire.standing(at, 0), Some(Standing::Alive));
        }
    }
}

#[test]
fn six_of_six_watchers_together_do_not_remove_a_member_that_is_heard() {
    let mut wire = Wire::of(9);
    wire.run_for(3 * SECOND);
    let (_, record) = record_of(&wire, 0);
    assert_eq!(record.watchers.len(), 6);
    let liars: Vec<usize> = (1..9).filter(|at| record.watchers.contains(&wire.nodes[*at].id())).collect();
    let honest: Vec<usize> = (1..9).filter(|at| !liars.contains(at)).collect();
    // The accused is not to know: votes and certificates go to the honest alone.
    for round in 0..200_u64 {
        wire.run_for(50 * MS);
        let votes: Vec<Bytes> =
            liars.iter().map(|liar| vote(&wire, *liar as u64, 0, 1_000_000 + 10 * round, Epoch(1))).collect();
        let down = Message::Down(Down { votes: votes[..5].to_vec() });
        let tag = MeshTag::of("test");
        let down = Identity::for_test(liars[0] as u64).sign_word(tag, &down, Seq(1_000_001 + 10 * round));
        for at in &honest {
            for bytes in votes.iter().chain([&down]) {
                let _ = wire.nodes[*at].handle_datagram(wire.now, broadcast_from(liars[0]), bytes.clone());
            }
        }
        wire.settle();
    }
    wire.run_for(SECOND);
    for at in honest {
        assert_eq!(wire.standing(at, 0), Some(Standing::Alive));
        assert_eq!(wire.count(at, EventKind::Down, 0), 0);
    }
}

#[test]
fn votes_of_another_life_mesh_or_record_do_nothing() {
    let mut wire = Wire::of(5);
    wire.run_for(3 * SECOND);
    wire.cut[0] = true;
    wire.run_for(300 * MS);
    let (stamp, _) = record_of(&wire, 0);
    let target = wire.nodes[0].id();
    let said = |voter: u64, mesh: &str, epoch: u32, record: u64| {
        let vote = Suspect {
            target,
            epoch: Epoch(epoch),
            record_seq: Seq(record),
            last_seq: Seq::MAX,
            silence_ms: 60_000,
        };
        Identity::for_test(voter).sign_word(MeshTag::of(mesh), &Message::Suspect(vote), Seq(1_000_000))
    };
    let record = stamp.seq.0;
    let wrong = [("other", 1, record), ("test", 2, record), ("test", 1, record - 1), ("test", 1, record + 1)];
    for voter in 2..5 {
        for (mesh, epoch, record) in wrong {
            let word = said(voter, mesh, epoch, record);
            let heard = wire.nodes[1].handle_datagram(wire.now, broadcast_from(3), word);
            assert!(heard.is_err(), "{mesh} {epoch} {record}");
        }
    }
    // A stranger's right one neither.
    for voter in 70..76 {
        let word = said(voter, "test", 1, record);
        assert_eq!(wire.nodes[1].handle_datagram(wire.now, broadcast_from(3), word), Err(Refused::Unasked));
    }
    wire.run_for(100 * MS);
    assert_eq!(wire.standing(1, 0), Some(Standing::Alive));
}

#[test]
fn a_one_way_cut_is_one_suspicion_at_most_a_minute_and_no_death() {
    for count in [3, 9] {
        let mut wire = Wire::of(count);
        wire.run_for(3 * SECOND);
        // A watcher of node 0 hears it no more; everybody else does.
        let watchers = wire.nodes[0].self_member().unwrap().record.watchers.clone();
        let deaf = (1..count).find(|at| watchers.contains(&wire.nodes[*at].id())).unwrap();
        wire.unheard.insert((0, deaf));
        for minute in 0..2 {
            for events in &mut wire.events {
                events.clear();
            }
            wire.run_for(60 * SECOND);
            for at in 1..count {
                assert_eq!(wire.count(at, EventKind::Down, 0), 0, "at {at} of {count}");
                let events = wire.count(at, EventKind::Suspect, 0) + wire.count(at, EventKind::Back, 0);
                assert!(events <= 2, "{events} events at {at} of {count} in minute {minute}");
            }
        }
        assert_eq!(wire.standing(deaf, 0), Some(Standing::Alive));
        let id = wire.nodes[0].id();
        let seen = wire.nodes[deaf].members().find(|member| member.id == id).unwrap();
        assert_eq!((seen.reachable, seen.reason), (false, Some(Reason::Unheard)), "of {count}");
        wire.unheard.clear();
        wire.run_for(2 * SECOND);
        let seen = wire.nodes[deaf].members().find(|member| member.id == id).unwrap();
        assert_eq!((seen.reachable, seen.reason), (true, None), "of {count}");
    }
}

#[test]
fn a_newcomer_is_told_who_is_down() {
    let mut wire = Wire::of(8);
    wire.run_for(3 * SECOND);
    wire.cut[0] = true;
    wire.run_for(2 * SECOND);
    let new = wire.add(settings(20), Identity::for_test(20));
    wire.run_for(100 * MS);
    assert_eq!(wire.standing(new, 0), Some(Standing::Down));
    wire.run_for(2 * SECOND);
    let digest = wire.nodes[new].digest();
    assert!((1..8).all(|at| wire.nodes[at].digest() == digest));
}

#[test]
fn a_watcher_that_starts_again_says_itself_that_its_target_is_gone() {
    let mut wire = Wire::of(24);
    wire.run_for(3 * SECOND);
    let (gone, (_, record)) = (wire.nodes[0].id(), record_of(&wire, 0));
    wire.cut[0] = true;
    wire.run_for(SECOND);
    let mut watchers: Vec<usize> =
        (1..24).filter(|at| record.watchers.contains(&wire.nodes[*at].id())).collect();
    // Two are left, and the one that starts again is none that would stand in for them.
    let lot = |at: &usize| *blake3::hash(&[gone.0, wire.nodes[*at].id().0].concat()).as_bytes();
    watchers.sort_by_key(|at| std::cmp::Reverse(lot(at)));
    let (again, other) = (watchers[0], watchers[1]);
    for left in &watchers[2..] {
        wire.nodes[*left].leave(wire.now, LeaveReason::Stopped);
    }
    wire.run_for(SECOND);
    assert!(!wire.nodes[again].is_substitute_for(&gone));
    wire.begin_as(again, super::again(again as u64));
    wire.run_for(1200 * MS);
    assert_eq!(
        (wire.standing(other, 0), wire.standing(again, 0)),
        (Some(Standing::Down), Some(Standing::Down))
    );
}

#[test]
fn a_refused_probe_shortens_the_silence_and_proves_nothing() {
    let mut wire = Wire::of(6);
    wire.run_for(3 * SECOND);
    let target = wire.nodes[0].id();
    // Alive, and somebody says that its port is refused, again and again.
    for _ in 0..100 {
        for at in 1..6 {
            let now = wire.now;
            wire.nodes[at].refused_connection(now, target);
            wire.nodes[at].handle_refused(now, address(0));
        }
        wire.settle();
        wire.run_for(50 * MS);
    }
    assert!((1..6).all(|at| wire.count(at, EventKind::Suspect, 0) == 0));
    wire.cut[0] = true;
    wire.run_for(5 * MS);
    for at in 1..6 {
        wire.nodes[at].handle_refused(wire.now, address(0));
    }
    wire.settle();
    wire.run_for(350 * MS);
    assert!((1..6).all(|at| wire.standing(at, 0) == Some(Standing::Down)));
}

#[test]
fn a_hint_makes_watchers_ask_once_in_a_second() {
    let mut wire = Wire::of(3);
    wire.run_for(3 * SECOND);
    wire.cut[0] = true;
    let hint = Message::Hint(Hint { target: wire.nodes[0].id() });
    let tag = MeshTag::of("test");
    wire.sent.clear();
    for seq in 0..50 {
        let word = Identity::for_test(2).sign_word(tag, &hint, Seq(1_000_000 + seq));
        let _ = wire.nodes[1].handle_datagram(wire.now, broadcast_from(2), word);
        wire.settle();
    }
    wire.run_for(50 * MS);
    assert_eq!(wire.sent.get(&kind::PING), Some(&1), "{:?}", wire.sent);
    assert_eq!(wire.standing(1, 0), Some(Standing::Alive));
}

#[test]
fn news_reaches_whoever_hears_no_broadcasts_and_its_own_news_all() {
    let mut wire = Wire::of(9);
    wire.run_for(3 * SECOND);
    wire.deaf[0] = true;
    wire.run_for(5 * SECOND);
    let id = wire.nodes[1].id();
    let news = Announcement { roles: Some(vec!["other".to_owned()]), ..Announcement::default() };
    wire.nodes[1].announce(wire.now, &news);
    wire.settle();
    wire.run_for(100 * MS);
    let roles = |wire: &Wire| {
        wire.nodes[0].members().find(|member| member.id == id).map(|member| member.record.roles.clone())
    };
    assert_eq!(roles(&wire), Some(vec!["other".to_owned()]));
    wire.nodes[1].leave(wire.now, LeaveReason::Stopped);
    wire.settle();
    wire.run_for(100 * MS);
    assert_eq!(wire.standing(0, 1), Some(Standing::Left));
    wire.cut[2] = true;
    wire.run_for(SECOND);
    assert_eq!(wire.standing(0, 2), Some(Standing::Down));
}

#[test]
fn a_proof_of_somebody_elses_making_is_refused() {
    let mut wire = Wire::of(4);
    wire.run_for(3 * SECOND);
    let beacon = crate::wire::Beacon {
        record_seq: Seq(1),
        load: Load::default(),
        full: false,
        deaf: false,
        digest: 0,
        far: None,
    };
    let tag = MeshTag::of("test");
    let mut pulse = Identity::for_test(50).sign_word(tag, &Message::Beacon(beacon), Seq(1_000_000)).to_vec();
    pulse[8..40].copy_from_slice(&wire.nodes[0].id().0);
    let proof = Message::Proof(Proof { pulse: pulse.into() });
    let word = Identity::for_test(2).sign_word(tag, &proof, Seq(1_000_000));
    assert_eq!(wire.nodes[1].handle_datagram(wire.now, broadcast_from(2), word), Err(Refused::Signature));
}

#[test]
fn two_groups_that_are_plugged_together_know_each_other_within_a_second() {
    let mut wire = Wire::of(12);
    // Told apart from the start: what they learned of each other in no time is forgotten by a new life.
    let group = |node: usize| node % 2;
    wire.unheard = (0..12)
        .flat_map(|from| (0..12).map(move |to| (from, to)))
        .filter(|(from, to)| group(*from) != group(*to))
        .collect();
    for node in 0..12 {
        wire.begin_anew(node);
    }
    wire.run_for(10 * SECOND);
    assert!(wire.nodes.iter().all(|node| node.members().count() == 5));
    wire.unheard.clear();
    wire.run_for(SECOND);
    for at in 0..12 {
        let alive = wire.nodes[at].members().filter(|member| member.standing == Standing::Alive).count();
        assert_eq!(alive, 11, "at {at}");
    }
}

/// How often each vote about a node that falls is said to all, in a storm, where so many of its six watchers live.
fn copies_of_votes_in_storm(living: usize) -> Vec<usize> {
    let mut wire = Wire::of(14);
    wire.run_for(3 * SECOND);
    let (_, record) = record_of(&wire, 0);
    let watchers: Vec<usize> = (1..14).filter(|at| record.watchers.contains(&wire.nodes[*at].id())).collect();
    assert_eq!(watchers.len(), 6);
    wire.cut[0] = true;
    for at in &watchers[living..] {
        wire.cut[*at] = true;
    }
    wire.run_for(400 * MS);
    let now = wire.now;
    for node in &mut wire.nodes {
        for _ in 0..64 {
            node.note_accused(now);
        }
    }
    wire.recorded.clear();
    wire.run_for(1_700 * MS);
    let voters: BTreeSet<MemberId> = watchers[..living].iter().map(|at| wire.nodes[*at].id()).collect();
    let mut said: BTreeMap<Bytes, usize> = BTreeMap::new();
    for bytes in &wire.recorded {
        let word = crate::verify::verify(MeshTag::of("test"), bytes.clone()).unwrap();
        if let Some(Message::Suspect(vote)) = &word.message
            && vote.target == wire.nodes[0].id()
            && voters.contains(&word.header.author)
        {
            *said.entry(bytes.clone()).or_default() += 1;
        }
    }
    for at in (1..14).filter(|at| !wire.cut[*at]) {
        assert_eq!(wire.standing(at, 0), Some(Standing::Down), "at {at}");
    }
    // Besides, to the accused and to the other five.
    said.into_values().map(|times| times - 6).collect()
}

#[test]
fn in_a_storm_a_vote_is_said_again_where_it_may_not_be_missed() {
    assert_eq!(copies_of_votes_in_storm(6), [1; 6]);
    assert_eq!(copies_of_votes_in_storm(2), [2; 2]);
    assert_eq!(copies_of_votes_in_storm(3), [1; 3]);
}

#[test]
fn in_a_storm_whoever_missed_all_votes_but_one_asks_the_watchers_and_is_answered_alone() {
    let mut wire = Wire::of(14);
    wire.run_for(3 * SECOND);
    let (_, record) = record_of(&wire, 0);
    let (watchers, others): (Vec<usize>, Vec<usize>) =
        (1..14).partition(|at| record.watchers.contains(&wire.nodes[*at].id()));
    let substitute = |at: &usize| wire.nodes[*at].is_substitute_for(&wire.nodes[0].id());
    let asker = *others.iter().find(|at| !substitute(at)).unwrap();
    wire.unheard.extend(watchers[1..].iter().map(|watcher| (*watcher, asker)));
    wire.cut[0] = true;
    wire.run_for(400 * MS);
    let now = wire.now;
    for node in &mut wire.nodes {
        for _ in 0..64 {
            node.note_accused(now);
        }
    }
    wire.run_for(500 * MS);
    assert!(watchers.iter().all(|at| wire.standing(*at, 0) == Some(Standing::Down)));
    assert_eq!(wire.standing(asker, 0), Some(Standing::Suspect));
    wire.recorded.clear();
    wire.run_for(800 * MS);
    assert_eq!(wire.standing(asker, 0), Some(Standing::Down));
    // To each of the six, and nothing to all.
    let about_it = |bytes: &&Bytes| {
        let word = crate::verify::verify(MeshTag::of("test"), (*bytes).clone()).unwrap();
        matches!(&word.message, Some(Message::Suspect(vote)) if vote.target == wire.nodes[0].id())
    };
    assert_eq!(wire.recorded.iter().filter(about_it).count(), 6);
}

#[test]
fn in_a_storm_three_who_missed_a_member_do_not_give_it_up_while_its_watchers_are_quiet() {
    let mut wire = Wire::of(14);
    wire.run_for(3 * SECOND);
    let (stamp, record) = record_of(&wire, 0);
    let others: Vec<usize> = (1..14).filter(|at| !record.watchers.contains(&wire.nodes[*at].id())).collect();
    let (at, voters) = (others[0], &others[1..4]);
    wire.unheard.insert((0, at));
    wire.run_for(300 * MS);
    let now = wire.now;
    let target = wire.nodes[0].id();
    for _ in 0..64 {
        wire.nodes[at].note_accused(now);
    }
    for voter in voters {
        let last_seq = wire.nodes[0].seq;
        let vote = Suspect { target, epoch: stamp.epoch, record_seq: stamp.seq, last_seq, silence_ms: 2_000 };
        let (identity, seq) = (Identity::for_test(*voter as u64), Seq(1_000_000));
        let word = identity.sign_word(MeshTag::of("test"), &Message::Suspect(vote), seq);
        wire.nodes[at].handle_datagram(now, broadcast_from(*voter), word).unwrap();
    }
    wire.run_for(100 * MS);
    assert_eq!(wire.standing(at, 0), Some(Standing::Suspect));
    for _ in 0..15 {
        wire.run_for(100 * MS);
        assert_ne!(wire.standing(at, 0), Some(Standing::Down));
    }
    assert_eq!(wire.standing(at, 0), Some(Standing::Alive));
}

#[test]
fn whoever_missed_the_last_record_of_a_member_that_crashes_has_it_from_those_who_vote() {
    let mut wire = Wire::of(12);
    wire.run_for(3 * SECOND);
    let (_, record) = record_of(&wire, 0);
    let stands_by = (1..12).find(|at| !record.watchers.contains(&wire.nodes[*at].id())).unwrap();
    wire.unheard.insert((0, stands_by));
    let now = wire.now;
    wire.nodes[0].announce(now, &news());
    wire.settle();
    wire.run_for(400 * MS);
    wire.cut[0] = true;
    wire.run_for(900 * MS);
    assert!((1..12).all(|at| wire.standing(at, 0) == Some(Standing::Down)));
}

#[test]
fn whoever_votes_by_an_old_record_is_given_the_new_one_by_watchers() {
    let mut wire = Wire::of(16);
    wire.run_for(3 * SECOND);
    let (stamp, record) = record_of(&wire, 0);
    let watches = |at: &usize| record.watchers.contains(&wire.nodes[*at].id());
    let (named, others): (Vec<_>, Vec<_>) = (1..16).partition(watches);
    let voter = others[0];
    let old = Suspect {
        target: wire.nodes[0].id(),
        epoch: stamp.epoch,
        record_seq: Seq(stamp.seq.0 - 1),
        last_seq: stamp.seq,
        silence_ms: 4_000,
    };
    let word = Identity::for_test(voter as u64).sign_word(
        MeshTag::of("test"),
        &Message::Suspect(old),
        Seq(1_000_000),
    );
    let from = broadcast_from(voter);
    let now = wire.now;
    let mut answers = |at: usize| {
        assert_eq!(wire.nodes[at].handle_datagram(now, from, word.clone()), Err(Refused::Stale));
        let said: Vec<Transmit> = std::iter::from_fn(|| wire.nodes[at].poll_transmit()).collect();
        assert!(said.iter().all(|said| said.to == Destination::Unicast(address(voter))));
        said.iter().filter(|said| said.bytes[3] == kind::ANNOUNCE).count()
    };
    assert!(named.iter().all(|at| answers(*at) == 1));
    let answered = others[1..].iter().filter(|at| answers(**at) == 1).count();
    assert!(answered <= 3, "those who stand in for them: {answered}");
}
