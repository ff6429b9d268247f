//! Pulses that wait unverified, and what does not wait for them.

use super::*;

/// And the first one. These come too late to be watched by it.
const INTERMEDIARIES: std::ops::Range<usize> = 32..38;

/// So many that pulses wait, and long enough for that.
fn where_pulses_wait() -> Wire {
    let mut wire = Wire::of(0);
    for node in 0..40 {
        let role = if node == 0 || INTERMEDIARIES.contains(&node) { "intermediary" } else { "pieces" };
        let settings = Settings { roles: vec![role.to_owned()], ..settings(node) };
        wire.add(settings, Identity::for_test(node as u64));
    }
    wire.run_for(8 * SECOND);
    wire
}

impl Wire {
    /// How long ago the first node heard this one, by verified words.
    fn silence(&self, of: usize) -> Duration {
        let heard = self.nodes[0].peers.get(&self.nodes[of].id()).and_then(|peer| peer.heard);
        self.now - heard.expect("all have been heard")
    }

    /// Those of whom a pulse waits at the first node.
    fn waiting(&self, among: std::ops::Range<usize>) -> Vec<usize> {
        let waits = |of: &usize| self.nodes[0].peers.get(&self.nodes[*of].id()).unwrap().raw.is_some();
        among.filter(waits).collect()
    }
}

#[test]
fn the_next_pulse_of_a_member_that_refused_a_connection_is_verified() {
    let mut wire = where_pulses_wait();
    let of = *wire.waiting(1..40).first().expect("most wait");
    let id = wire.nodes[of].id();
    wire.nodes[0].refused_connection(wire.now, id);
    wire.run_for(SECOND / 2);
    // Too soon for another question.
    wire.nodes[0].refused_connection(wire.now, id);
    wire.run_for(SECOND / 2);
    assert!(wire.silence(of) < SECOND / 2);
    wire.run_for(SECOND);
    assert!(wire.waiting(of..of + 1) == [of] && wire.silence(of) > SECOND);
}

#[test]
fn an_intermediary_that_may_hand_over_requests_verifies_what_others_say_of_their_load() {
    let mut wire = where_pulses_wait();
    assert!(!wire.waiting(INTERMEDIARIES).is_empty());
    wire.nodes[0].set_load(wire.now, Load { in_flight: 8, capacity: 16 });
    wire.run_for(SECOND);
    let silence = INTERMEDIARIES.map(|of| wire.silence(of)).max();
    assert!(silence < Some(SECOND / 2), "{silence:?}");
    assert!(wire.waiting(1..INTERMEDIARIES.start).len() > 20, "others wait as before");
    wire.nodes[0].set_load(wire.now, Load { in_flight: 1, capacity: 16 });
    wire.run_for(SECOND);
    assert!(!wire.waiting(INTERMEDIARIES).is_empty());
}
