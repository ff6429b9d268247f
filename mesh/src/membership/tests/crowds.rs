//! Where many start at once.

use super::*;

/// As if it had heard that many newcomers.
fn hears_a_crowd(node: &mut Membership, now: Instant) {
    for _ in 0..64 {
        node.crowd.note(now);
    }
}

impl Wire {
    /// What this node said of a kind, each time that it was said.
    fn said_by(&self, node: usize, what: u8) -> Vec<Stamp> {
        let headers =
            self.recorded.iter().map(|bytes| crate::verify::peek(MeshTag::of("test"), bytes).unwrap());
        let said = headers.filter(|header| header.author == self.nodes[node].id() && header.kind == what);
        said.map(|header| header.stamp).collect()
    }

    /// So many nodes, of which these hear a crowd, and one that comes then. Returns how often it says its first record.
    fn copies_of_a_newcomer(count: usize, crowded: std::ops::Range<usize>) -> usize {
        let mut wire = Self::of(count);
        wire.run_for(SECOND);
        let now = wire.now;
        crowded.for_each(|node| hears_a_crowd(&mut wire.nodes[node], now));
        let newcomer = wire.add(settings(count), Identity::for_test(count as u64));
        wire.run_for(SECOND);
        assert!(wire.nodes[newcomer].is_complete());
        assert_eq!(wire.nodes[newcomer].members().count(), count);
        let said = wire.said_by(newcomer, kind::ANNOUNCE);
        said.iter().filter(|stamp| **stamp == said[0]).count()
    }
}

#[test]
fn in_a_crowd_a_record_is_said_once_and_beacons_follow_it() {
    let mut wire = Wire::of(70);
    wire.run_for(SECOND);
    let now = wire.now;
    hears_a_crowd(&mut wire.nodes[0], now);
    wire.recorded.clear();
    wire.nodes[0].announce(now, &news());
    wire.run_for(200 * MS);
    assert_eq!(wire.said_by(0, kind::ANNOUNCE).len(), 1);
    // To its watchers twice in this time, or thrice, and to all five times.
    let distinct: BTreeSet<Stamp> = wire.said_by(0, kind::BEACON).into_iter().collect();
    assert!((6..=8).contains(&distinct.len()), "{}", distinct.len());
}

#[test]
fn a_newcomer_believes_that_there_is_a_crowd_when_two_say_it() {
    assert_eq!(Wire::copies_of_a_newcomer(4, 0..0), 3);
    assert_eq!(Wire::copies_of_a_newcomer(4, 0..1), 3);
    assert_eq!(Wire::copies_of_a_newcomer(2, 0..2), 1);
    assert_eq!(Wire::copies_of_a_newcomer(70, 0..70), 1);
}

#[test]
fn in_a_crowd_whoever_has_only_begun_answers_nobody() {
    let offers_of = |crowd: bool| {
        let mut wire = Wire::of(1);
        assert!(!wire.nodes[0].is_complete());
        if crowd {
            hears_a_crowd(&mut wire.nodes[0], wire.now);
        }
        wire.add(settings(1), Identity::for_test(1));
        wire.said_by(0, kind::OFFER).len()
    };
    assert_eq!((offers_of(false), offers_of(true)), (1, 0));
}
