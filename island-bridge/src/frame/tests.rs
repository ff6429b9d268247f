//! What holds for every frame: it comes back as it went, however the stream is cut, and nothing else comes in.

use proptest::prelude::*;

use super::tunnel::{Hop, Open, Opened, TunnelFailure, TunnelFrame};
use std::time::Duration;

use isle_mesh::path::Path;

use super::*;

fn labels() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9._~-]{1,63}", "[à-ÿ一-九🦀]{1,15}"]
}

fn members() -> impl Strategy<Value = MemberId> {
    any::<[u8; 32]>().prop_map(MemberId)
}

fn paths() -> impl Strategy<Value = Path> {
    proptest::collection::btree_set(labels(), 1..=8)
        .prop_map(|islands| Path::new(islands.into_iter().collect()).unwrap())
}

fn loads() -> impl Strategy<Value = IslandLoad> {
    any::<(u32, u32, u32)>().prop_map(|(members, in_flight, capacity)| IslandLoad {
        members,
        in_flight,
        capacity,
    })
}

fn words() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 1..300).prop_map(Bytes::from)
}

fn hellos() -> impl Strategy<Value = Hello> {
    let optional = any::<(Option<u64>, Option<[u8; 32]>)>();
    (1..9u8, 0..9u8, labels(), optional, any::<u64>(), "[!-~]{0,32}").prop_map(
        |(lowest, more, island, (island_id, invite), instance, software)| Hello {
            protocol: (lowest, lowest + more),
            island,
            island_id,
            instance,
            software,
            invite,
        },
    )
}

fn requests() -> impl Strategy<Value = DigestRequest> {
    let held = proptest::collection::vec(any::<u64>(), 0..20);
    (proptest::collection::btree_map(any::<u16>(), held, 0..20), any::<bool>()).prop_map(|(wanted, more)| {
        let sorted = |(bucket, mut held): (u16, Vec<u64>)| {
            held.sort_unstable();
            Wanted { bucket, held }
        };
        let wanted = wanted.into_iter().map(sorted).collect();
        DigestRequest { wanted, more }
    })
}

fn routes() -> impl Strategy<Value = Route> {
    let reach = (paths(), any::<u32>(), loads()).prop_map(|(path, micros, load)| {
        Route::Reach(Reach { path, cost: Duration::from_micros(micros.into()), load })
    });
    prop_oneof![reach, labels().prop_map(Route::Withdrawn)]
}

fn ages(most: usize) -> impl Strategy<Value = Vec<(MemberId, Duration)>> {
    let age = any::<u32>().prop_map(|seconds| Duration::from_secs(seconds.into()));
    proptest::collection::vec((members(), age), 0..=most)
}

/// Any frame of a link.
pub(crate) fn frames() -> impl Strategy<Value = Frame> {
    let changes = (
        any::<u64>(),
        proptest::collection::vec(members(), 0..8),
        proptest::collection::vec(words(), 0..20),
        ages(4),
    )
        .prop_map(|(through, withdrawn, words, gone)| {
            Frame::Changes(Changes { through, withdrawn, words, gone })
        });
    let digests = (any::<u64>(), 0..=BUCKET_BITS_MAX).prop_flat_map(|(index, bits)| {
        proptest::collection::vec(any::<u64>(), 1 << bits)
            .prop_map(move |buckets| Frame::Digest(Digest { index, buckets }))
    });
    prop_oneof![
        hellos().prop_map(Frame::Hello),
        proptest::sample::select(&Refusal::ALL[..]).prop_map(Frame::Refused),
        any::<u64>().prop_map(|nonce| Frame::Ping { nonce }),
        any::<u64>().prop_map(|nonce| Frame::Pong { nonce }),
        proptest::collection::vec((labels(), loads()), 0..9).prop_map(Frame::Load),
        any::<(u64, u64, u64)>().prop_map(|(instance, index, urgent)| Frame::Cursor(Cursor {
            instance,
            index,
            urgent
        })),
        any::<u64>().prop_map(|through| Frame::Ack { through }),
        changes,
        digests,
        requests().prop_map(Frame::DigestRequest),
        (any::<u64>(), proptest::collection::vec(words(), 1..=URGENT_WORDS_MAX), ages(1))
            .prop_map(|(index, words, gone)| Frame::Urgent { index, words, gone }),
        proptest::collection::vec(routes(), 0..ROUTES_MAX).prop_map(Frame::Routes),
        prop_oneof![Just(Goodbye::Leaving), Just(Goodbye::Unlinked)].prop_map(Frame::Goodbye),
    ]
}

fn tunnel_frames() -> impl Strategy<Value = TunnelFrame> {
    let open = (
        proptest::collection::btree_map(labels(), proptest::option::of(members()), 1..=8),
        members(),
        1..=u16::MAX,
        any::<[u8; 16]>(),
    )
        .prop_map(|(hops, target, port, nonce)| {
            let hops = hops.into_iter().map(|(island, bridge)| Hop { island, bridge }).collect();
            TunnelFrame::Open(Open { hops, target, port, nonce })
        });
    prop_oneof![
        open,
        words().prop_filter("a proof's length", |proof| proof.len() <= 256).prop_map(|proof| {
            TunnelFrame::Opened(Opened { dialled: "[fd77::1]:1233".parse().unwrap(), proof })
        }),
        any::<[u8; 4]>().prop_map(|ip| {
            TunnelFrame::Opened(Opened { dialled: (ip, 80).into(), proof: Bytes::from_static(b"p") })
        }),
        proptest::sample::select(&TunnelFailure::ALL[..]).prop_map(TunnelFrame::Failed),
    ]
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(frame, &mut bytes);
    bytes
}

fn decoded(stream: Stream, bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let (mut decoder, mut input, mut frames) = (Decoder::new(stream), bytes, Vec::new());
    while let Some(frame) = decoder.read(&mut input)? {
        frames.push(frame);
    }
    Ok(frames)
}

/// The bytes of a frame whose body is `body`.
fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len() + 1).unwrap().to_be_bytes().to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

proptest! {
    #[test]
    fn a_frame_comes_back_as_it_went(frame in frames()) {
        prop_assert_eq!(decoded(frame.stream(), &encoded(&frame)), Ok(vec![frame]));
    }

    #[test]
    fn it_does_not_matter_where_a_stream_is_cut(
        sent in proptest::collection::vec(frames(), 1..4),
        cuts in proptest::collection::vec(1..400usize, 1..50),
    ) {
        let stream = sent[0].stream();
        let sent: Vec<Frame> = sent.into_iter().filter(|frame| frame.stream() == stream).collect();
        let bytes: Vec<u8> = sent.iter().flat_map(encoded).collect();
        let (mut decoder, mut rest, mut came) = (Decoder::new(stream), &bytes[..], Vec::new());
        let mut cuts = cuts.into_iter().cycle();
        while !rest.is_empty() {
            let (mut piece, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            while let Some(frame) = decoder.read(&mut piece).unwrap() {
                came.push(frame);
            }
            prop_assert!(piece.is_empty());
            rest = after;
        }
        prop_assert!(decoder.is_between_frames());
        prop_assert_eq!(came, sent);
    }

    #[test]
    fn hostile_bytes_do_not_panic(
        kind in any::<u8>(),
        body in proptest::collection::vec(any::<u8>(), 0..2000),
        stream in proptest::sample::select(&Stream::ALL[..]),
    ) {
        let _ = decoded(stream, &body);
        let _ = decoded(stream, &raw(kind, &body));
        let _ = Decoder::tunnel().read(&mut &raw(kind, &body)[..]);
    }

    #[test]
    fn a_frame_with_one_byte_changed_is_refused_or_well_formed(
        frame in frames(),
        at in any::<proptest::sample::Index>(),
        to in any::<u8>(),
    ) {
        let mut bytes = encoded(&frame);
        let at = at.index(bytes.len());
        bytes[at] = to;
        for came in decoded(frame.stream(), &bytes).unwrap_or_default() {
            prop_assert_eq!(decoded(came.stream(), &encoded(&came)), Ok(vec![came]));
        }
    }

    #[test]
    fn a_tunnel_frame_comes_back_and_leaves_what_follows(frame in tunnel_frames(), content in "[a-z]{0,9}") {
        let mut bytes = Vec::new();
        tunnel::encode(&frame, &mut bytes);
        bytes.extend_from_slice(content.as_bytes());
        let mut input = &bytes[..];
        prop_assert_eq!(Decoder::tunnel().read(&mut input), Ok(Some(frame)));
        prop_assert_eq!(input, content.as_bytes());
    }
}

#[test]
fn a_huge_length_is_refused_by_its_prefix() {
    for stream in Stream::ALL {
        let most = stream.frame_bytes_max();
        let claimed = u32::try_from(most + 1).unwrap().to_be_bytes();
        let prefix = [claimed[0], claimed[1], claimed[2], claimed[3], 0];
        assert_eq!(decoded(stream, &prefix), Err(FrameError::Long { bytes: most + 1, most }));
    }
    let huge = [0xff, 0xff, 0xff, 0xff, 48];
    assert!(matches!(Decoder::tunnel().read(&mut &huge[..]), Err(FrameError::Long { .. })));
}

#[test]
fn a_claimed_length_reserves_nothing() {
    let mut decoder = Decoder::new(Stream::Table);
    let claims = [&200_000u32.to_be_bytes()[..], &[18, 1, 2, 3]].concat();
    assert_eq!(decoder.read(&mut &claims[..]), Ok(None));
    assert!(!decoder.is_between_frames());
    let counted = raw(18, &[&[0; 8][..], &[0, 0], &[4, 0]].concat());
    let cut = FrameError::Malformed("the body ends in the middle");
    assert_eq!(decoded(Stream::Table, &counted), Err(cut));
}

#[test]
fn a_frame_on_another_stream_is_refused() {
    let ping = encoded(&Frame::Ping { nonce: 1 });
    assert_eq!(decoded(Stream::Table, &ping), Err(FrameError::Kind { kind: 3 }));
    assert_eq!(decoded(Stream::Urgent, &raw(99, &[])), Err(FrameError::Kind { kind: 99 }));
    assert_eq!(
        decoded(Stream::Control, &[0, 0, 0, 0, 3]),
        Err(FrameError::Malformed("a frame without a kind"))
    );
}

#[test]
fn what_follows_a_body_is_refused_but_after_a_hello() {
    let extra = |frame: &Frame| {
        let bytes = encoded(frame);
        raw(bytes[4], &[&bytes[5..], &[7]].concat())
    };
    let ping = extra(&Frame::Ping { nonce: 1 });
    assert_eq!(decoded(Stream::Control, &ping), Err(FrameError::Malformed("bytes after the body")));
    let hello = Frame::Hello(Hello {
        protocol: (1, 1),
        island: "north".into(),
        island_id: Some(7),
        instance: 9,
        software: "0.1.0".into(),
        invite: None,
    });
    assert_eq!(decoded(Stream::Control, &extra(&hello)), Ok(vec![hello]));
}

#[test]
fn lists_above_their_limits_are_refused() {
    let count = |count: usize| u16::try_from(count).unwrap().to_be_bytes();
    let too_many = Err(FrameError::Malformed("too many items"));
    let words = raw(18, &[&[0; 8][..], &[0, 0], &count(BATCH_WORDS_MAX + 1)].concat());
    assert_eq!(decoded(Stream::Table, &words), too_many);
    let ages = raw(18, &[&[0; 8][..], &[0, 0], &[0, 0], &count(BATCH_WORDS_MAX + 1)].concat());
    assert_eq!(decoded(Stream::Table, &ages), too_many);
    let ages = raw(32, &[&[0; 8][..], &[0, 1, 0, 1, 7], &[0, 2]].concat());
    assert_eq!(decoded(Stream::Urgent, &ages), too_many);
    let withdrawn = raw(18, &[&[0; 8][..], &count(WITHDRAWN_MAX + 1)].concat());
    assert_eq!(decoded(Stream::Table, &withdrawn), too_many);
    assert_eq!(decoded(Stream::Urgent, &raw(33, &count(ROUTES_MAX + 1))), too_many);
    assert_eq!(decoded(Stream::Control, &raw(5, &count(LOADS_MAX + 1))), too_many);
    let word = [&count(1200)[..], &[1; 1200]].concat();
    let heavy = raw(18, &[&[0; 8][..], &[0, 0], &count(219), &word.repeat(219)].concat());
    assert_eq!(decoded(Stream::Table, &heavy), Err(FrameError::Malformed("a batch of too many bytes")));
}

#[test]
fn the_largest_frames_fit_their_streams() {
    let word = Bytes::from(vec![1; BATCH_BYTES_MAX / BATCH_WORDS_MAX]);
    let changes = Changes {
        through: 1,
        withdrawn: vec![MemberId([1; 32]); WITHDRAWN_MAX],
        words: vec![word; BATCH_WORDS_MAX],
        gone: vec![(MemberId([1; 32]), Duration::MAX); BATCH_WORDS_MAX],
    };
    let buckets = 1 << BUCKET_BITS_MAX;
    let one_each = |bucket| Wanted { bucket, held: vec![1, 2] };
    let request = DigestRequest { wanted: (0..buckets).map(one_each).collect(), more: true };
    let long = |index: usize| format!("{index}{}", "x".repeat(62));
    let path = Path::new((0..8).map(long).collect()).unwrap();
    let reach = Reach { path, cost: Duration::MAX, load: IslandLoad::default() };
    for frame in [
        Frame::Changes(changes),
        Frame::Digest(Digest { index: 1, buckets: vec![1; buckets.into()] }),
        Frame::DigestRequest(request),
        Frame::Routes(vec![Route::Reach(reach); ROUTES_MAX]),
        Frame::Load(vec![(long(1), IslandLoad::default()); LOADS_MAX]),
    ] {
        assert_eq!(decoded(frame.stream(), &encoded(&frame)).map(|frames| frames.len()), Ok(1));
    }
}

#[test]
fn a_way_in_a_circle_opens_no_tunnel() {
    let hop = |island: &str| Hop { island: island.into(), bridge: None };
    let open = |hops| Open { hops, target: MemberId([1; 32]), port: 1233, nonce: [0; 16] };
    let mut bytes = Vec::new();
    tunnel::encode(&TunnelFrame::Open(open(vec![hop("a"), hop("b"), hop("a")])), &mut bytes);
    let looped = Err(FrameError::Malformed("the way has no island or a loop"));
    assert_eq!(Decoder::tunnel().read(&mut &bytes[..]), looped);
}

#[test]
fn every_refusal_has_a_number_of_its_own() {
    for refusal in Refusal::ALL {
        assert_eq!(Refusal::of_code(refusal.code()), Some(refusal));
    }
    assert_eq!(Refusal::of_code(0), None);
}
