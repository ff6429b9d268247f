//! The vectors of what bridges say to each other: frames of links, and the first frames of tunnels.

use std::time::Duration;

use bytes::Bytes;
use island_bridge::frame::tunnel::{self, Hop, Open, Opened, TunnelFailure, TunnelFrame};
use island_bridge::frame::{
    self, Changes, Cursor, Decoder, Digest, DigestRequest, Frame, Goodbye, Hello, Refusal, Route, Stream,
    Wanted,
};
use isle_mesh::far::{FarTransfer, read_transfer};
use isle_mesh::identity::Identity;
use isle_mesh::member::{LeaveReason, MemberId, Seq};
use isle_mesh::path::Path;
use isle_mesh::reach::{IslandLoad, Reach};
use isle_mesh::verify::verify;
use isle_mesh::wire::{Farewell, Message};

use crate::vectors::{Kind, NONCE, Vector, author, dialled, signed_proof, tag};

/// What came on a link's stream, as text.
pub(crate) fn meaning_of_frame(stream: Stream, bytes: &[u8]) -> String {
    let (mut decoder, mut rest) = (Decoder::new(stream), bytes);
    match decoder.read(&mut rest) {
        Err(error) => format!("refused: {error}"),
        Ok(None) => "not whole".to_owned(),
        Ok(Some(frame)) => {
            let on = format!("on the {stream:?} stream").to_lowercase();
            let then = if rest.is_empty() { "" } else { "\nand more" };
            let mut again = Vec::new();
            frame::encode(&frame, &mut again);
            let kept = if again == bytes { "" } else { "\nwritten otherwise by us" };
            format!("{on}\n{}{then}{kept}", text_of(&frame))
        }
    }
}

/// Words by what they are: their own vectors show their bytes.
fn text_of(frame: &Frame) -> String {
    match frame {
        Frame::Changes(Changes { through, withdrawn, words, gone }) => {
            let lost: Vec<_> = withdrawn.iter().map(MemberId::to_string).collect();
            let (words, gone) = (text_of_words(words), text_of_ages(gone));
            format!("Changes through {through}\nwithdrawn: {}\n{words}{gone}", lost.join(", "))
        }
        Frame::Urgent { index, words, gone } => {
            format!("Urgent {index}\n{}{}", text_of_words(words), text_of_ages(gone))
        }
        frame => format!("{frame:?}"),
    }
}

fn text_of_ages(gone: &[(MemberId, Duration)]) -> String {
    gone.iter().map(|(member, age)| format!("\n{member} is gone for {age:?}")).collect()
}

fn text_of_words(words: &[Bytes]) -> String {
    let of = |word: &Bytes| match verify(tag(), word.clone()) {
        Ok(word) => format!("word of {}, kind {}", word.header.author, word.header.kind),
        Err(refused) => format!("refused: {}", refused.as_str()),
    };
    words.iter().map(of).collect::<Vec<_>>().join("\n")
}

/// What a bridge knows of other islands, as text.
pub(crate) fn meaning_of_far_records(bytes: &[u8]) -> String {
    match read_transfer(tag(), bytes) {
        Err(error) => format!("refused: {error}"),
        Ok(FarTransfer { instance, through, words }) => {
            format!("instance {instance:#x}, through {through}, {} true words", words.len())
        }
    }
}

/// What a tunnel's stream begins with, as text.
pub(crate) fn meaning_of_tunnel(bytes: &[u8]) -> String {
    let (mut decoder, mut rest) = (Decoder::tunnel(), bytes);
    match decoder.read(&mut rest) {
        Err(error) => format!("refused: {error}"),
        Ok(None) => "not whole".to_owned(),
        Ok(Some(frame)) => {
            let mut again = Vec::new();
            tunnel::encode(&frame, &mut again);
            assert_eq!([&again, rest].concat(), bytes);
            let text = match frame {
                TunnelFrame::Open(open) => format!("{open:?}"),
                TunnelFrame::Opened(opened) => {
                    format!("Opened to {}, with a proof of {} bytes", opened.dialled, opened.proof.len())
                }
                TunnelFrame::Failed(failure) => format!("Failed: {failure}"),
            };
            let then = if rest.is_empty() { String::new() } else { format!("\nthen {} bytes", rest.len()) };
            text + &then
        }
    }
}

fn says(name: &'static str, about: &'static str, frame: &Frame) -> Vector {
    let mut bytes = Vec::new();
    frame::encode(frame, &mut bytes);
    Vector { name, about, kind: Kind::Frame(frame.stream()), bytes }
}

fn opens(name: &'static str, about: &'static str, frame: &TunnelFrame) -> Vector {
    let mut bytes = Vec::new();
    tunnel::encode(frame, &mut bytes);
    Vector { name, about, kind: Kind::Tunnel, bytes }
}

/// A frame by hand: length, kind, body.
fn raw(name: &'static str, about: &'static str, kind: Kind, frame: u8, body: &[u8]) -> Vector {
    let length = u32::try_from(body.len() + 1).unwrap();
    Vector { name, about, kind, bytes: [&length.to_be_bytes()[..], &[frame], body].concat() }
}

fn key(seed: u64) -> MemberId {
    Identity::for_test(seed).id()
}

fn hello() -> Hello {
    Hello {
        protocol: (1, 1),
        island: "north".into(),
        island_id: None,
        instance: 0x0102_0304_0506_0708,
        software: "0.1.0".into(),
        invite: None,
    }
}

fn farewell() -> Bytes {
    author().sign_word(tag(), &Message::Farewell(Farewell { reason: LeaveReason::Stopped }), Seq(26))
}

fn load() -> IslandLoad {
    IslandLoad { members: 12, in_flight: 3, capacity: 2048 }
}

fn way(islands: &[&str], micros: u64) -> Route {
    let path = Path::new(islands.iter().map(|&island| island.to_owned()).collect()).unwrap();
    Route::Reach(Reach { path, cost: Duration::from_micros(micros), load: load() })
}

pub(crate) fn all() -> Vec<Vector> {
    [vec![far_records()], link(), tunnels(), malformed()].into_iter().flatten().collect()
}

/// By hand: keys in the order of NETWORK.md, lengths in one byte.
fn far_records() -> Vector {
    let word = farewell();
    let length = u8::try_from(word.len()).unwrap();
    let bytes =
        [&b"\x83\xa1i\xcf\x01\x02\x03\x04\x05\x06\x07\x08\xa1t\x09\xa1w\x91\xc4"[..], &[length], &word];
    Vector {
        name: "records-far",
        about: "The answer to GET /mesh/records?instance=&since=: a farewell.",
        kind: Kind::FarRecords,
        bytes: bytes.concat(),
    }
}

fn link() -> Vec<Vector> {
    let invited = Hello { island_id: Some(7), invite: Some([5; 32]), ..hello() };
    let cursor = Cursor { instance: 0x1112_1314_1516_1718, index: 40, urgent: 44 };
    let changes = Changes { through: 41, withdrawn: vec![key(3)], words: vec![farewell()], gone: Vec::new() };
    let gone = vec![(key(1), Duration::from_secs(90))];
    let dated = Changes { gone: gone.clone(), withdrawn: Vec::new(), ..changes.clone() };
    let request = DigestRequest {
        wanted: vec![Wanted { bucket: 1, held: vec![3, 0x2122_2324_2526_2728] }],
        more: false,
    };
    let newer = [&[1, 2, 5][..], b"north", &[0; 8], &[0, 0], b"more"].concat();
    vec![
        says("frame-hello", "Who I am: the first frame of either side.", &Frame::Hello(hello())),
        says("frame-hello-invited", "The same with a number and an invite.", &Frame::Hello(invited)),
        raw(
            "frame-hello-newer",
            "A hello to which a later version has appended something.",
            Kind::Frame(Stream::Control),
            1,
            &newer,
        ),
        says("frame-refused", "Not with you.", &Frame::Refused(Refusal::SameName)),
        says("frame-ping", "Are you there?", &Frame::Ping { nonce: 77 }),
        says("frame-pong", "Yes.", &Frame::Pong { nonce: 77 }),
        says("frame-load", "How busy islands are.", &Frame::Load(vec![("north".into(), load())])),
        says("frame-cursor", "So far I have read your journal.", &Frame::Cursor(cursor)),
        says("frame-ack", "That batch is merged.", &Frame::Ack { through: 41 }),
        says(
            "frame-changes",
            "A batch: one who cannot be reached any more, one word.",
            &Frame::Changes(changes),
        ),
        says(
            "frame-changes-dated",
            "A batch of version 2: one word, of somebody who has been gone for 90 s.",
            &Frame::Changes(dated),
        ),
        says(
            "frame-digest",
            "A summary in two ranges.",
            &Frame::Digest(Digest { index: 41, buckets: vec![0, 0x3132_3334_3536_3738] }),
        ),
        says("frame-digest-request", "Of the second I have these.", &Frame::DigestRequest(request)),
        says(
            "frame-urgent",
            "A farewell.",
            &Frame::Urgent { index: 45, words: vec![farewell()], gone: Vec::new() },
        ),
        says(
            "frame-urgent-dated",
            "In version 2: a farewell of 90 s ago.",
            &Frame::Urgent { index: 45, words: vec![farewell()], gone },
        ),
        says(
            "frame-routes",
            "Two islands that are reached, one that is not any more.",
            &Frame::Routes(vec![
                way(&["north"], 0),
                way(&["north", "east"], 41_300),
                Route::Withdrawn("west".into()),
            ]),
        ),
        says("frame-goodbye", "I stop.", &Frame::Goodbye(Goodbye::Leaving)),
    ]
}

fn tunnels() -> Vec<Vector> {
    let hop = |island: &str, bridge| Hop { island: island.into(), bridge };
    let hops = vec![hop("east", None), hop("south", Some(key(3)))];
    let open = Open { hops, target: key(1), port: 1233, nonce: NONCE };
    let opened = Opened { dialled: dialled(), proof: signed_proof().into() };
    let v6 = Opened { dialled: "[fd77::2]:1233".parse().unwrap(), proof: signed_proof().into() };
    let mut vectors = vec![
        opens("tunnel-open", "Connect me to that member, through two islands.", &TunnelFrame::Open(open)),
        opens("tunnel-opened", "You are connected.", &TunnelFrame::Opened(opened)),
        opens("tunnel-opened-v6", "The same over IPv6.", &TunnelFrame::Opened(v6)),
        opens("tunnel-failed", "You are not.", &TunnelFrame::Failed(TunnelFailure::NoRoute)),
    ];
    let mut content =
        opens("tunnel-content", "What follows is the tunnel's.", &TunnelFrame::Failed(TunnelFailure::Busy));
    content.bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
    vectors.push(content);
    vectors
}

fn malformed() -> Vec<Vector> {
    let control = Kind::Frame(Stream::Control);
    let looped = [&[0, 2, 1][..], b"a\0", &[1], b"a\0", &key(1).0, &[0, 80], &NONCE].concat();
    let portless = [&[0, 1, 1][..], b"a\0", &key(1).0, &[0, 0], &NONCE].concat();
    vec![
        Vector {
            name: "frame-long",
            about: "Claims more than its stream takes.",
            kind: control,
            bytes: vec![0, 0, 0x80, 1, 3],
        },
        Vector { name: "frame-empty", about: "Has no kind.", kind: control, bytes: vec![0, 0, 0, 0, 3] },
        raw("frame-elsewhere", "Does not belong on this stream.", control, 18, &[0; 12]),
        raw("frame-trailing", "Goes on after its body.", control, 3, &[0; 9]),
        raw("frame-short", "Ends within its body.", control, 3, &[0; 7]),
        raw(
            "frame-versions",
            "A lowest version above the highest.",
            control,
            1,
            &[2, 1, 1, b'n', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        raw("frame-routes-loop", "A way through one island twice.", Kind::Frame(Stream::Urgent), 33, &{
            [&[0, 1, 2, 1][..], b"a", &[1], b"a", &[0; 16]].concat()
        }),
        raw("tunnel-loop", "A way through one island twice.", Kind::Tunnel, 48, &looped),
        raw("tunnel-portless", "Leads to port 0.", Kind::Tunnel, 48, &portless),
        raw("tunnel-reason", "An unknown reason.", Kind::Tunnel, 50, &[99]),
    ]
}
