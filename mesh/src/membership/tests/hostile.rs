//! Recorded words of a real run, altered or said again: nobody's table changes (threats T1 and T2).

use rand::rngs::SmallRng;

use super::*;

/// What a node believes, as far as words can change it.
fn beliefs(node: &Membership) -> (u64, Vec<(MemberId, Standing, Stamp)>) {
    (node.digest(), node.members().map(|member| (member.id, member.standing, member.stamp)).collect())
}

/// Four nodes of which one says farewell: every kind of word is said at least once but a cookie.
fn a_run_with_a_farewell() -> Wire {
    let mut wire = Wire::of(4);
    wire.run_for(2 * SECOND);
    wire.nodes[2].drain(wire.now);
    wire.run_for(SECOND);
    wire.nodes[3].leave(wire.now, LeaveReason::Stopped);
    wire.settle();
    wire.run_for(SECOND);
    wire
}

/// From this host, where no rate holds a source back: every word is looked at as far as it deserves.
fn loopback() -> Source {
    Source { addr: SocketAddr::from(([127, 0, 0, 1], 9)), shared: true }
}

#[test]
fn altered_words_change_nothing() {
    let mut wire = a_run_with_a_farewell();
    let now = wire.now;
    let before = beliefs(&wire.nodes[0]);
    let mut rng = SmallRng::seed_from_u64(1);
    for _ in 0..20_000 {
        let genuine = &wire.recorded[rng.random_range(0..wire.recorded.len())];
        let other = &wire.recorded[rng.random_range(0..wire.recorded.len())];
        let mut altered = genuine.to_vec();
        match rng.random_range(0..4) {
            0 => altered.truncate(rng.random_range(0..genuine.len())),
            1 => {
                let bit = rng.random_range(0..genuine.len() * 8);
                altered[bit / 8] ^= 1 << (bit % 8);
            }
            2 => {
                // The head of one word and the tail of another.
                let place = rng.random_range(0..genuine.len().min(other.len()));
                altered.truncate(place);
                altered.extend_from_slice(&other[place..]);
            }
            // A later stamp under an old signature.
            _ => altered[44..52].copy_from_slice(&(1 << 40 | rng.random_range(0..9u64)).to_be_bytes()),
        }
        if !wire.recorded.iter().any(|genuine| *genuine == altered) {
            let refused = wire.nodes[0].handle_datagram(now, loopback(), altered.into());
            assert!(refused.is_err());
        }
    }
    assert_eq!(beliefs(&wire.nodes[0]), before);
    assert!(wire.nodes[0].poll_event().is_none());
}

#[test]
fn words_said_again_in_any_order_change_nothing() {
    let mut wire = a_run_with_a_farewell();
    let before = beliefs(&wire.nodes[0]);
    let now = wire.now;
    let mut rng = SmallRng::seed_from_u64(2);
    for _ in 0..5_000 {
        let word = wire.recorded[rng.random_range(0..wire.recorded.len())].clone();
        let _ = wire.nodes[0].handle_datagram(now, loopback(), word);
    }
    assert_eq!(beliefs(&wire.nodes[0]), before);
    assert!(wire.nodes[0].poll_event().is_none());
}

#[test]
fn old_words_do_not_revive_who_left_at_a_newcomer() {
    let mut wire = a_run_with_a_farewell();
    let left = wire.nodes[3].id();
    let said: Vec<_> = wire.recorded.iter().filter(|bytes| bytes[8..40] == left.0).cloned().collect();
    let newcomer = wire.add(settings(9), Identity::for_test(9));
    wire.run_for(SECOND);
    for word in said {
        let _ = wire.nodes[newcomer].handle_datagram(wire.now, loopback(), word);
    }
    assert_eq!(wire.standing(newcomer, 3), Some(Standing::Left));
}

#[test]
fn old_words_do_not_revive_who_was_forgotten() {
    let mut wire = Wire::of(2);
    wire.run_for(2 * SECOND);
    let left = wire.nodes[1].id();
    wire.nodes[1].leave(wire.now, LeaveReason::Stopped);
    wire.run_for(SECOND);
    let said: Vec<_> = wire.recorded.iter().filter(|bytes| bytes[8..40] == left.0).cloned().collect();
    wire.cut[1] = true;
    wire.run_for(crate::table::GONE_LISTED + 10 * SECOND);
    assert_eq!(wire.standing(0, 1), None, "no longer listed");
    let newcomer = wire.add(settings(9), Identity::for_test(9));
    wire.run_for(SECOND);
    for node in [0, newcomer] {
        for word in &said {
            assert!(wire.nodes[node].handle_datagram(wire.now, loopback(), word.clone()).is_err());
        }
        assert_eq!(wire.standing(node, 1), None);
    }
}
