//! What holds for every message: it comes back as it went, and nothing else comes in.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::identity::Identity;
use crate::member::{Address, CatalogueSummary, Epoch};
use crate::path::Path;
use crate::reach::IslandLoad;
use crate::verify::{Refused, verify};

fn labels() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9._~-]{1,63}", "[à-ÿ一-九🦀]{1,15}"]
}

fn addresses() -> impl Strategy<Value = Address> {
    let v4 = (1..224u8, any::<[u8; 3]>(), 0..=32u8)
        .prop_map(|(a, [b, c, d], prefix)| Address { ip: [a, b, c, d].into(), prefix });
    let v6 = (any::<[u8; 15]>(), 0..=128u8).prop_map(|(rest, prefix)| {
        let mut octets = [0x20; 16];
        octets[1..].copy_from_slice(&rest);
        Address { ip: octets.into(), prefix }
    });
    prop_oneof![v4, v6]
}

fn tags() -> impl Strategy<Value = Vec<(String, String)>> {
    proptest::collection::btree_map("[a-z0-9._-]{1,32}", "[ -~é]{0,12}", 0..10)
        .prop_map(|tags| tags.into_iter().collect())
}

fn records() -> impl Strategy<Value = Record> {
    let names =
        (labels(), proptest::collection::vec("[a-z0-9-]{1,20}", 0..5), labels(), "[!-~]{0,32}", tags());
    let numbers = (any::<(u16, u16, bool, bool)>(), 1..9u8, 0..9u8);
    let lists = (
        proptest::collection::vec(addresses(), 0..=8),
        proptest::option::of(any::<([u8; 32], u32)>()),
        proptest::collection::vec(any::<[u8; 32]>().prop_map(MemberId), 0..=6),
    );
    (names, numbers, lists).prop_map(
        |(
            (name, roles, island, version, tags),
            (numbers, lowest, more),
            (addresses, catalogue, watchers),
        )| {
            let (http_port, unicast_port, island_given, draining) = numbers;
            let catalogue = catalogue.map(|(digest, entries)| CatalogueSummary { digest, entries });
            let protocol = (lowest, lowest + more);
            #[rustfmt::skip]
            let record = Record {
                name, roles, addresses, http_port, unicast_port, island, island_given, draining, catalogue,
                watchers, protocol, version, tags,
            };
            record
        },
    )
}

fn beacons() -> impl Strategy<Value = Beacon> {
    (1..=Seq::MAX.0, any::<(u32, u32, bool, bool, u64)>(), any::<Option<u64>>()).prop_map(
        |(seq, (in_flight, capacity, full, deaf, digest), far)| Beacon {
            record_seq: Seq(seq),
            load: Load { in_flight, capacity },
            full,
            deaf,
            digest,
            far,
        },
    )
}

fn hellos() -> impl Strategy<Value = Hello> {
    let numbers = any::<(u64, u8, u64, bool)>();
    (numbers, any::<Option<[u8; 16]>>(), proptest::option::of(labels()), 1..=u16::MAX).prop_map(
        |((nonce, attempt, digest, asking), cookie, island, unicast_port)| Hello {
            nonce,
            attempt,
            digest,
            cookie,
            island,
            unicast_port,
            asking,
        },
    )
}

fn offers() -> impl Strategy<Value = Offer> {
    (any::<(u64, u64, u32, u16)>(), any::<[bool; 3]>(), any::<u16>(), addresses(), labels()).prop_map(
        |(
            (nonce, digest, members, http_port),
            [island_given, intermediary, crowd],
            port,
            address,
            island,
        )| Offer {
            nonce,
            observed: SocketAddr::new(address.ip.to_canonical(), port),
            digest,
            members,
            http_port,
            island,
            island_given,
            intermediary,
            crowd,
        },
    )
}

fn words(most: usize) -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

fn votes() -> impl Strategy<Value = Suspect> {
    (any::<[u8; 32]>(), 1..=Epoch::MAX.0, 1..=Seq::MAX.0, 0..1000u64, any::<u32>()).prop_map(
        |(target, epoch, record, more, silence_ms)| Suspect {
            target: MemberId(target),
            epoch: Epoch(epoch),
            record_seq: Seq(record),
            last_seq: Seq((record + more).min(Seq::MAX.0)),
            silence_ms,
        },
    )
}

fn reaches() -> impl Strategy<Value = Reach> {
    let paths = proptest::collection::btree_set("[a-z]{1,9}", 1..=8);
    (paths, any::<(u32, u32, u32, u32)>()).prop_map(|(islands, (micros, members, in_flight, capacity))| {
        Reach {
            path: Path::new(islands.into_iter().collect()).unwrap(),
            cost: Duration::from_micros(micros.into()),
            load: IslandLoad { members, in_flight, capacity },
        }
    })
}

fn routes() -> impl Strategy<Value = Routes> {
    (0..255u8, any::<u8>(), proptest::collection::vec(reaches(), 0..10)).prop_map(|(part, more, reaches)| {
        Routes { part, parts: part.saturating_add(more).max(part + 1), reaches }
    })
}

pub(crate) fn messages() -> impl Strategy<Value = Message> {
    let reasons =
        prop_oneof![Just(LeaveReason::Stopped), Just(LeaveReason::Upgrade), Just(LeaveReason::Failed)];
    prop_oneof![
        records().prop_map(|record| Message::Announce(record.into())),
        beacons().prop_map(Message::Beacon),
        hellos().prop_map(Message::Hello),
        offers().prop_map(Message::Offer),
        any::<(u64, [u8; 16])>().prop_map(|(nonce, cookie)| Message::Cookie(Cookie { nonce, cookie })),
        (any::<(u64, [u8; 32], bool)>(), 1..=u16::MAX).prop_map(
            |((nonce, target, wants_record), unicast_port)| Message::Ping(Ping {
                nonce,
                target: MemberId(target),
                unicast_port,
                wants_record
            })
        ),
        (any::<u64>(), beacons()).prop_map(|(nonce, beacon)| {
            Message::Pong(Pong { nonce, beacon: Beacon { far: None, ..beacon } })
        }),
        reasons.prop_map(|reason| Message::Farewell(Farewell { reason })),
        any::<[u8; 32]>().prop_map(|target| Message::Hint(Hint { target: MemberId(target) })),
        votes().prop_map(Message::Suspect),
        proptest::collection::vec(words(200), 1..=VOTES_MAX).prop_map(|votes| Message::Down(Down { votes })),
        words(300).prop_map(|pulse| Message::Proof(Proof { pulse })),
        routes().prop_map(Message::Routes),
    ]
}

fn stamps() -> impl Strategy<Value = Stamp> {
    (1..=Epoch::MAX.0, 1..=Seq::MAX.0).prop_map(|(epoch, seq)| Stamp::new(epoch, seq))
}

fn tag() -> MeshTag {
    MeshTag::of("isle")
}

/// A datagram of each kind, and one with everything that is optional.
fn samples() -> Vec<Bytes> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let identity = Identity::for_test(1);
    let mut samples = Vec::new();
    while samples.len() < 16 {
        let message = messages().new_tree(&mut runner).unwrap().current();
        if samples.len() < 8 && usize::from(message.kind()) != samples.len() + 1 {
            continue;
        }
        samples.push(identity.sign_word(tag(), &message, Seq(7)));
    }
    samples
}

proptest! {
    #[test]
    fn what_is_encoded_comes_back(message in messages(), stamp in stamps(), author: [u8; 32]) {
        let header = Header::of(tag(), MemberId(author), stamp, &message);
        let said = encode(&header, &message);
        prop_assert_eq!(decode(&said), Ok((header, Some(message))));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
        let _ = decode(&bytes);
        let _ = verify(tag(), bytes.into());
    }

    #[test]
    fn any_body_is_read_without_panic(
        kind in 0..16u8, body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let header = Header { version: 1, kind, mesh: tag(), author: MemberId([1; 32]), stamp: Stamp::new(1, 1) };
        let mut said = Vec::new();
        header::write(&header, &mut said);
        said.extend_from_slice(&body);
        let _ = decode(&said);
    }

    #[test]
    fn no_offer_is_longer_than_a_hello(hello in hellos(), offer in offers()) {
        let identity = Identity::for_test(1);
        let hello = identity.sign_word(tag(), &Message::Hello(hello), Seq::MAX);
        let offer = identity.sign_word(tag(), &Message::Offer(offer), Seq::MAX);
        prop_assert_eq!(hello.len(), HELLO_BYTES_MIN);
        prop_assert!(offer.len() <= hello.len());
    }

    #[test]
    fn no_pong_is_longer_than_its_ping(nonce: u64, port in 1..=u16::MAX, beacon in beacons()) {
        let identity = Identity::for_test(1);
        let ping = Ping { nonce, target: identity.id(), unicast_port: port, wants_record: false };
        let ping = identity.sign_word(tag(), &Message::Ping(ping), Seq(1));
        let pong = identity.sign_word(tag(), &Message::Pong(Pong { nonce, beacon }), Seq(1));
        prop_assert!(pong.len() <= ping.len());
    }

    #[test]
    fn a_checked_record_fits_whatever_becomes_of_it(record in records(), addresses in proptest::collection::vec(addresses(), 8)) {
        if check_record(&record).is_ok() {
            let grown = Record { addresses, watchers: vec![MemberId([7; 32]); 6], draining: true, ..record };
            let datagram = Identity::for_test(1).sign_word(tag(), &Message::Announce(grown.into()), Seq::MAX);
            prop_assert!(datagram.len() <= DATAGRAM_BYTES_MAX);
        }
    }
}

#[test]
fn a_datagram_cut_anywhere_is_refused() {
    for datagram in samples() {
        assert!(verify(tag(), datagram.clone()).is_ok());
        for length in 0..datagram.len() {
            assert!(verify(tag(), datagram.slice(..length)).is_err(), "{length} of {datagram:x?}");
        }
        let longer = [&datagram[..], &[0]].concat();
        assert!(verify(tag(), longer.into()).is_err());
    }
}

#[test]
fn a_datagram_with_any_bit_flipped_is_refused() {
    for datagram in samples() {
        for bit in 0..datagram.len() * 8 {
            let mut flipped = datagram.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(tag(), flipped.into()).is_err(), "bit {bit} of {datagram:x?}");
        }
    }
}

#[test]
fn beacons_are_no_longer_than_the_protocol_says() {
    let length =
        |beacon: Beacon| Identity::for_test(1).sign_word(tag(), &Message::Beacon(beacon), Seq::MAX).len();
    let likely = Beacon {
        record_seq: Seq(u64::from(u32::MAX)),
        load: Load { in_flight: 65_535, capacity: 65_535 },
        full: true,
        deaf: true,
        digest: u64::MAX,
        far: None,
    };
    let bridge = Beacon { load: Load::default(), full: false, far: Some(u64::MAX), ..likely };
    assert_eq!((length(likely), length(bridge)), (148, 149));
    let both = Beacon { load: likely.load, ..bridge };
    assert_eq!(length(both), 159);
    let longest = Beacon {
        record_seq: Seq::MAX,
        load: Load { in_flight: u32::MAX, capacity: u32::MAX },
        full: true,
        ..bridge
    };
    assert_eq!((length(Beacon { far: None, ..longest }), length(longest)), (156, 167));
}

#[test]
fn what_is_newer_than_this_code_is_kept_as_bytes() {
    let identity = Identity::for_test(1);
    for (version, kind) in [(1, 0), (1, 14), (1, 255), (2, 1), (255, 3)] {
        let header = Header { version, kind, mesh: tag(), author: identity.id(), stamp: Stamp::new(1, 1) };
        let mut said = Vec::new();
        header::write(&header, &mut said);
        said.extend_from_slice(b"any bytes at all");
        let word = verify(tag(), identity.sign_said(said)).unwrap().into_inner();
        assert_eq!((word.header, word.message), (header, None));
    }
}

#[test]
fn numbers_beyond_their_ceilings_are_refused() {
    let message = Message::Farewell(Farewell { reason: LeaveReason::Stopped });
    let of = |epoch, seq| Header::of(tag(), MemberId([1; 32]), Stamp::new(epoch, seq), &message);
    for header in [of(0, 1), of(1 << 31, 1), of(1, 0), of(1, 1 << 48)] {
        assert_eq!(decode(&encode(&header, &message)), Err(DecodeError::Ceiling));
    }
}

#[test]
fn another_mesh_is_told_apart_before_any_signature() {
    let message = Message::Farewell(Farewell { reason: LeaveReason::Stopped });
    let datagram = Identity::for_test(1).sign_word(MeshTag::of("other"), &message, Seq(1));
    assert_eq!(verify(tag(), datagram), Err(Refused::Mesh));
}

#[test]
fn a_record_that_would_be_refused_is_noticed_before_it_is_said() {
    let good = Record {
        name: "p1".into(),
        roles: vec!["pieces".into()],
        addresses: vec![Address { ip: [10, 0, 0, 1].into(), prefix: 24 }],
        http_port: 1233,
        unicast_port: 40_000,
        island: "local".into(),
        island_given: false,
        draining: false,
        catalogue: None,
        watchers: vec![],
        protocol: (1, 1),
        version: "0.1.0".into(),
        tags: vec![],
    };
    assert_eq!(check_record(&good), Ok(()));
    let with = |change: &dyn Fn(&mut Record)| {
        let mut bad = good.clone();
        change(&mut bad);
        check_record(&bad)
    };
    assert_eq!(with(&|r| r.name = "a b".into()), Err(RecordError::Name));
    assert_eq!(with(&|r| r.island = String::new()), Err(RecordError::Island));
    assert_eq!(with(&|r| r.roles = vec!["x".into(); 9]), Err(RecordError::Roles));
    assert_eq!(with(&|r| r.addresses[0].ip = [224, 0, 0, 1].into()), Err(RecordError::Addresses));
    assert_eq!(with(&|r| r.addresses[0].ip = [0; 16].into()), Err(RecordError::Addresses));
    assert_eq!(with(&|r| r.addresses[0].ip = [255; 4].into()), Err(RecordError::Addresses));
    assert_eq!(with(&|r| r.addresses[0].prefix = 33), Err(RecordError::Addresses));
    assert_eq!(with(&|r| r.watchers = vec![MemberId([0; 32]); 7]), Err(RecordError::Watchers));
    assert_eq!(with(&|r| r.protocol = (2, 1)), Err(RecordError::Protocol));
    assert_eq!(with(&|r| r.tags = vec![("k".into(), "1".into()); 2]), Err(RecordError::Tags));
    let large: Vec<_> = (0..4).map(|n| (format!("k{n}"), "v".repeat(126))).collect();
    let long = with(&|r| {
        r.tags = large.clone();
        r.roles = (0..8).map(|n| format!("{n}{}", "x".repeat(31))).collect();
    });
    assert!(matches!(long, Err(RecordError::Long { bytes: 1.. })), "{long:?}");
}
