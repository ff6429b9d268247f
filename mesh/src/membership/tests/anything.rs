//! Whatever is asked of a machine, in whatever order: it does not panic, and what it tells is consistent.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::far::FarWord;
use crate::island::made_by;
use crate::transfer::TransferFloor;
use crate::wire::Farewell;

/// One thing that can happen to node 0.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    /// A word of the recording, as it was or with one bit turned, from this host number.
    Hear(prop::sample::Index, Option<prop::sample::Index>, u8),
    Garbage(Vec<u8>),
    Start,
    Drain,
    Leave,
    Load(u32),
    Announce(bool),
    Networks(u8),
    Greet(u8),
    Refused(u8),
    Proved(u8),
    Table(u8),
    NoTable(u8),
    /// The same words, over a bridge.
    Far(Vec<prop::sample::Index>, bool),
    Withdrawn(u8),
    Foreign(u8),
    Reaches(u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    use prop::sample::Index;
    prop_oneof![
        4 => (0..3_000u64).prop_map(Step::Pass),
        1 => (0..900_000u64).prop_map(Step::Pass),
        8 => (any::<Index>(), prop::option::of(any::<Index>()), any::<u8>())
            .prop_map(|(word, bit, host)| Step::Hear(word, bit, host)),
        1 => prop::collection::vec(any::<u8>(), 0..1300).prop_map(Step::Garbage),
        1 => Just(Step::Start),
        1 => Just(Step::Drain),
        1 => Just(Step::Leave),
        1 => any::<u32>().prop_map(Step::Load),
        1 => any::<bool>().prop_map(Step::Announce),
        1 => any::<u8>().prop_map(Step::Networks),
        1 => any::<u8>().prop_map(Step::Greet),
        1 => (0..6u8).prop_map(Step::Refused),
        1 => (0..6u8).prop_map(Step::Proved),
        2 => (0..6u8).prop_map(Step::Table),
        1 => (0..6u8).prop_map(Step::NoTable),
        4 => (prop::collection::vec(any::<Index>(), 1..9), any::<bool>())
            .prop_map(|(words, urgent)| Step::Far(words, urgent)),
        1 => (0..6u8).prop_map(Step::Withdrawn),
        1 => (0..12u8).prop_map(Step::Foreign),
        1 => any::<u8>().prop_map(Step::Reaches),
    ]
}

/// Made once: it costs more than all cases.
static RECORDING: LazyLock<(Vec<Bytes>, VerifiedTransfer, Instant)> = LazyLock::new(recording);

/// Words of a small island in which somebody leaves and somebody comes back with its key, and its last table.
fn recording() -> (Vec<Bytes>, VerifiedTransfer, Instant) {
    let mut wire = Wire::of(5);
    wire.run_for(SECOND);
    wire.nodes[1].drain(wire.now);
    wire.run_for(SECOND);
    wire.nodes[1].leave(wire.now, LeaveReason::Stopped);
    wire.run_for(SECOND);
    wire.add(settings(1), again(1));
    wire.run_for(SECOND);
    // Somebody is given up, and comes back.
    wire.cut[4] = true;
    wire.run_for(3 * SECOND);
    wire.cut[4] = false;
    wire.run_for(SECOND);
    assert!([kind::SUSPECT, kind::DOWN, kind::FAREWELL].iter().all(|kind| wire.sent.contains_key(kind)));
    let mut table = wire.nodes[2].export(wire.now);
    let bytes = Identity::for_test(40).sign_word(
        MeshTag::of("test"),
        &Message::Farewell(Farewell { reason: LeaveReason::Stopped }),
        Seq(5_500),
    );
    table.floors.push(TransferFloor { bytes, age: SECOND });
    let table = transfer::verify_transfer(MeshTag::of("test"), table);
    let mut words = wire.recorded;
    words.extend(words_of_elsewhere());
    words.extend(words_of_bridges());
    (words, table, wire.now)
}

/// Members of that island are on others, and somebody there is down.
fn words_of_elsewhere() -> Vec<Bytes> {
    let mut words = Vec::new();
    for number in [2, 3, 30, 31] {
        let identity = Identity::for_test(number);
        for (seq, draining) in [(5_000, false), (6_000, true)] {
            let record = abroad::record_of(number, "south", &[2, 30], draining);
            words.push(identity.sign_word(MeshTag::of("test"), &Message::Announce(record.into()), Seq(seq)));
        }
    }
    words.extend(abroad::certificates_about(31, 5_000, &[2, 30]));
    words.extend(abroad::certificates_about(3, 6_000, &[2]));
    words
}

/// Bridges that make a name, of whom one goes by the other's later, and who goes with them; the last has a floor in the table.
fn words_of_bridges() -> Vec<Bytes> {
    let made = |number| made_by(Identity::for_test(number).id());
    let mut words = Vec::new();
    for (number, seq, island, is_given) in [
        (2, 7_000, made(2), true),
        (3, 7_000, made(3), true),
        (3, 8_000, made(2), false),
        (4, 7_000, made(3), false),
        (4, 8_000, "north".to_owned(), true),
        (40, 5_000, made(2), false),
        (40, 6_000, made(40), true),
    ] {
        let mut record = abroad::record_of(number, &island, &[2, 30], false);
        record.island_given = is_given;
        words.push(Identity::for_test(number).sign_word(
            MeshTag::of("test"),
            &Message::Announce(record.into()),
            Seq(seq),
        ));
    }
    words
}

fn take(node: &mut Membership, now: Instant, step: Step, words: &[Bytes], table: &VerifiedTransfer) {
    let id = |number: u8| Identity::for_test(number.into()).id();
    match step {
        Step::Pass(_) => node.handle_timeout(now),
        Step::Hear(word, bit, host) => {
            let mut bytes = word.get(words).to_vec();
            if let Some(bit) = bit {
                let bit = bit.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            let addr = SocketAddr::from(([10, 0, 0, host], 4000));
            let from = Source { addr, shared: host % 2 == 0 };
            let _ = node.handle_datagram(now, from, bytes.into());
        }
        Step::Garbage(bytes) => {
            let _ = node.handle_datagram(now, broadcast_from(9), bytes.into());
        }
        Step::Start => node.start(now),
        Step::Drain => node.drain(now),
        Step::Leave => node.leave(now, LeaveReason::Stopped),
        Step::Load(busy) => node.set_load(now, Load { in_flight: busy, capacity: busy / 2 }),
        Step::Announce(full) => {
            let roles = if full { vec!["intermediary".to_owned()] } else { Vec::new() };
            node.announce(now, &Announcement { roles: Some(roles), ..Announcement::default() });
        }
        Step::Networks(host) => {
            let addresses = vec![Address { ip: [10, 0, 0, host].into(), prefix: host % 33 }];
            let interface = Interface { index: 1, name: "e".to_owned(), addresses, loopback: false };
            node.set_interfaces(now, vec![interface]);
        }
        Step::Greet(host) => node.greet(vec![SocketAddr::from(([192, 0, 2, host], 5235))]),
        Step::Refused(number) => node.refused_connection(now, id(number)),
        Step::Proved(number) => node.proved(now, id(number)),
        Step::Table(number) => node.merge(now, id(number), table),
        Step::NoTable(number) => {
            node.fetch_failed(now, id(number));
            node.far_fetch_failed(now, id(number));
        }
        Step::Far(chosen, is_urgent) => {
            let chosen = chosen.iter().map(|word| word.get(words).clone());
            let words: Vec<FarWord> = chosen.filter_map(abroad::verified).collect();
            node.hear_far(now, id(90), &[], &words, is_urgent);
        }
        Step::Withdrawn(number) => node.hear_far(now, id(2), &[id(number)], &[], false),
        Step::Foreign(number) => node.set_foreign(now, BTreeSet::from([id(number)])),
        Step::Reaches(cost) => {
            let island = if cost % 2 == 0 { "south" } else { "west" };
            node.say_reaches(now, vec![abroad::reach(island, cost.into())]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_happens_the_events_tell_the_table(
        steps in prop::collection::vec(any_step(), 1..80),
        is_bridge in any::<bool>(),
    ) {
        let (words, table, began) = &*RECORDING;
        let mut now = *began;
        let roles = if is_bridge { vec!["bridge".to_owned()] } else { Vec::new() };
        let mut node =
            Membership::new(Settings { roles, ..settings(0) }, Identity::for_test(100), 1, now);
        if is_bridge {
            node.tell_outward();
        }
        let mut told: BTreeMap<MemberId, Standing> = BTreeMap::new();
        let mut number = 0;
        for step in steps {
            let is_timeout = matches!(step, Step::Pass(_));
            if let Step::Pass(milliseconds) = step {
                now += Duration::from_millis(milliseconds);
            }
            take(&mut node, now, step, words, table);
            while let Some(transmit) = node.poll_transmit() {
                prop_assert!(transmit.bytes.len() <= crate::wire::DATAGRAM_BYTES_MAX);
            }
            while node.poll_change().is_some() || node.poll_fetch().is_some() {}
            while node.poll_far_fetch().is_some() || node.poll_news().is_some() {}
            if is_timeout && let Some(wakeup) = node.poll_timeout() {
                prop_assert!(wakeup.at > now, "{} is due still", wakeup.why);
            }
            while let Some(event) = node.poll_event() {
                number += 1;
                prop_assert_eq!(event.number, number);
                let Some(member) = event.member() else { continue };
                if event.kind == EventKind::Forgotten {
                    told.remove(&member.id);
                } else if !member.is_self {
                    told.insert(member.id, member.standing);
                }
            }
            let all = || node.members().chain(node.far_members());
            let listed: BTreeMap<_, _> = all().map(|member| (member.id, member.standing)).collect();
            prop_assert_eq!(listed.len(), all().count(), "nobody is here and elsewhere");
            prop_assert_eq!(&listed, &told);
        }
    }
}
