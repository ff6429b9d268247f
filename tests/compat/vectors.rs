//! The vectors: how each is made, and how its bytes are read.
//!
//! Headers and odd bodies are put together by hand here, not by the encoder: a second opinion on the format.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use island_bridge::frame::Stream;
use isle_mesh::identity::Identity;
use isle_mesh::member::{Address, CatalogueSummary, Epoch, LeaveReason, Load, MemberId, Record, Seq};
use isle_mesh::path::Path;
use isle_mesh::proof::{self, Proof, verify_proof};
use isle_mesh::reach::{IslandLoad, Reach};
use isle_mesh::transfer::{self, Transfer, TransferFloor, TransferWord, verify_transfer};
use isle_mesh::verify::verify;
use isle_mesh::wire::{
    self, Beacon, Cookie, Down, Farewell, Hello, Hint, MeshTag, Message, Offer, Ping, Pong, Routes, Suspect,
};

use crate::links;

/// Recorded bytes.
pub(crate) struct Vector {
    /// Name of its file.
    pub(crate) name: &'static str,
    /// What it is there to show.
    pub(crate) about: &'static str,
    pub(crate) kind: Kind,
    pub(crate) bytes: Vec<u8>,
}

/// What the bytes are.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Datagram,
    Proof,
    Records,
    FarRecords,
    /// What comes on this stream of a link.
    Frame(Stream),
    /// What a tunnel's stream begins with.
    Tunnel,
}

impl Kind {
    /// What the public decoders say about `bytes`, as text.
    pub(crate) fn meaning(self, bytes: &[u8]) -> String {
        match self {
            Self::Datagram => meaning_of_datagram(bytes),
            Self::Proof => match proof::decode(bytes) {
                Err(error) => format!("refused: {error}"),
                Ok(Proof { id, epoch, signature }) => {
                    let holds = verify_proof(tag(), id, epoch, dialled(), &NONCE, &signature);
                    format!("id {id}\nepoch {}\nfor {} and nonce 07 x 16: {holds}", epoch.0, dialled())
                }
            },
            Self::Records => match transfer::decode(bytes) {
                Err(error) => format!("refused: {error}"),
                Ok(transfer) => meaning_of_transfer(transfer),
            },
            Self::FarRecords => links::meaning_of_far_records(bytes),
            Self::Frame(stream) => links::meaning_of_frame(stream, bytes),
            Self::Tunnel => links::meaning_of_tunnel(bytes),
        }
    }
}

fn meaning_of_datagram(bytes: &[u8]) -> String {
    match verify(tag(), Bytes::copy_from_slice(bytes)) {
        Err(refused) => format!("refused: {}", refused.as_str()),
        Ok(word) => {
            let header = word.header;
            let said = match &word.message {
                Some(message) => format!("{message:?}"),
                None => format!("unknown: version {}, kind {}", header.version, header.kind),
            };
            let stamp = header.stamp;
            format!("author {}\nepoch {}, seq {}\n{said}", header.author, stamp.epoch.0, stamp.seq.0)
        }
    }
}

fn meaning_of_transfer(transfer: Transfer) -> String {
    let verified = verify_transfer(tag(), transfer);
    let mut lines = Vec::new();
    for (word, age) in &verified.words {
        lines.push(format!("word of {}, kind {}, {age:?} ago", word.header.author, word.header.kind));
    }
    for (word, age) in &verified.floors {
        lines.push(format!("floor of {}, kind {}, {age:?} ago", word.header.author, word.header.kind));
    }
    lines.push(format!("{} refused", verified.refused));
    lines.join("\n")
}

/// All of them.
pub(crate) fn all() -> Vec<Vector> {
    [accepted(), newer(), untrue(), malformed(), bodies(), links::all()].into_iter().flatten().collect()
}

pub(crate) fn tag() -> MeshTag {
    MeshTag::of("isle")
}

pub(crate) const NONCE: [u8; 16] = [7; 16];

pub(crate) fn dialled() -> SocketAddr {
    "10.77.0.2:1233".parse().unwrap()
}

/// The author of most vectors: test key 1 in its third life.
pub(crate) fn author() -> Identity {
    let mut identity = Identity::for_test(1);
    identity.raise_epoch_above(Epoch(2)).unwrap();
    identity
}

/// The answer of [`author`] to `GET /mesh/proof` at [`dialled`].
pub(crate) fn signed_proof() -> Vec<u8> {
    let own = author();
    let signature = own.sign_proof(tag(), dialled(), &NONCE);
    proof::encode(&Proof { id: own.id(), epoch: own.epoch(), signature })
}

fn datagram(name: &'static str, about: &'static str, bytes: impl Into<Vec<u8>>) -> Vector {
    Vector { name, about, kind: Kind::Datagram, bytes: bytes.into() }
}

fn says(name: &'static str, about: &'static str, seq: u64, message: Message) -> Vector {
    datagram(name, about, author().sign_word(tag(), &message, Seq(seq)))
}

fn record() -> Record {
    Record {
        name: "p1".into(),
        roles: vec!["pieces".into(), "intermediary".into()],
        addresses: vec![
            Address { ip: [10, 77, 0, 2].into(), prefix: 24 },
            Address { ip: [0xfe80, 0, 0, 0, 0, 0, 0, 2].into(), prefix: 64 },
        ],
        http_port: 1233,
        unicast_port: 40_001,
        island: "north".into(),
        island_given: true,
        draining: false,
        catalogue: Some(CatalogueSummary { digest: [0xca; 32], entries: 17 }),
        watchers: vec![Identity::for_test(2).id(), Identity::for_test(3).id()],
        protocol: (1, 1),
        version: "0.1.0".into(),
        tags: vec![("rack".into(), "third floor".into())],
    }
}

fn least_record() -> Record {
    Record {
        name: "x".into(),
        roles: vec![],
        addresses: vec![],
        http_port: 0,
        unicast_port: 40_001,
        island: "local".into(),
        island_given: false,
        draining: false,
        catalogue: None,
        watchers: vec![],
        protocol: (1, 1),
        version: String::new(),
        tags: vec![],
    }
}

fn beacon() -> Beacon {
    let load = Load { in_flight: 3, capacity: 256 };
    Beacon { record_seq: Seq(17), load, full: false, deaf: false, digest: 0x0102_0304_0506_0708, far: None }
}

fn routes() -> Routes {
    let way = |islands: &[&str], cost| Reach {
        path: Path::new(islands.iter().map(|&island| island.to_owned()).collect()).unwrap(),
        cost: Duration::from_micros(cost),
        load: IslandLoad { members: 12, in_flight: 3, capacity: 2048 },
    };
    Routes { part: 0, parts: 1, reaches: vec![way(&["south"], 41_300), way(&["south", "east"], 90_000)] }
}

fn farewell() -> Message {
    Message::Farewell(Farewell { reason: LeaveReason::Stopped })
}

fn vote() -> Suspect {
    let target = Identity::for_test(2).id();
    Suspect { target, epoch: Epoch(1), record_seq: Seq(7), last_seq: Seq(40), silence_ms: 612 }
}

/// The same vote by another.
fn vote_of(voter: u64, seq: u64) -> Bytes {
    Identity::for_test(voter).sign_word(tag(), &Message::Suspect(vote()), Seq(seq))
}

fn pulse_of(author: u64, seq: u64) -> Bytes {
    Identity::for_test(author).sign_word(
        tag(),
        &Message::Beacon(Beacon { record_seq: Seq(7), ..beacon() }),
        Seq(seq),
    )
}

fn accepted() -> Vec<Vector> {
    let hello = Hello {
        nonce: 0x1122_3344_5566_7788,
        attempt: 0,
        digest: 0,
        cookie: None,
        island: None,
        unicast_port: 40_001,
        asking: false,
    };
    let asking =
        Hello { attempt: 2, cookie: Some([9; 16]), island: Some("north".into()), asking: true, ..hello };
    let offer = Offer {
        nonce: hello.nonce,
        observed: "10.77.0.9:40001".parse().unwrap(),
        digest: 0x0102_0304_0506_0708,
        members: 5,
        http_port: 1233,
        island: "north".into(),
        island_given: true,
        intermediary: false,
        crowd: false,
    };
    let offer_v6 = Offer {
        observed: "[fe80::9]:40001".parse().unwrap(),
        island: "local".into(),
        island_given: false,
        intermediary: true,
        ..offer.clone()
    };
    let offer_in_crowd = Offer { crowd: true, ..offer.clone() };
    let cookie = Cookie { nonce: hello.nonce, cookie: [9; 16] };
    let ping =
        Ping { nonce: 77, target: Identity::for_test(2).id(), unicast_port: 40_001, wants_record: false };
    let wanting = Ping { wants_record: true, ..ping };
    let vote = vote();
    let down = Down { votes: vec![vote_of(3, 30), vote_of(4, 8), vote_of(5, 200)] };
    let draining = Record { draining: true, ..record() };
    let busy = Beacon { full: true, deaf: true, ..beacon() };
    let bridging = Beacon { far: Some(0x1112_1314_1516_1718), ..beacon() };
    vec![
        says("announce", "A full record.", 17, Message::Announce(record().into())),
        says("announce-least", "The least that a record says.", 17, Message::Announce(least_record().into())),
        says("announce-draining", "Stops soon.", 18, Message::Announce(draining.into())),
        says("beacon", "A pulse.", 19, Message::Beacon(beacon())),
        says("beacon-busy", "A pulse of a node that is full and deaf.", 20, Message::Beacon(busy)),
        says("beacon-bridge", "A pulse of a bridge.", 30, Message::Beacon(bridging)),
        says("routes", "What a bridge's links reach.", 31, Message::Routes(routes())),
        says(
            "routes-none",
            "Nothing any more.",
            32,
            Message::Routes(Routes { part: 0, parts: 1, reaches: Vec::new() }),
        ),
        says("hello", "The first question of a node.", 1, Message::Hello(hello.clone())),
        says("hello-asking", "A client's third question, with a cookie.", 3, Message::Hello(asking)),
        says("offer", "The answer to `hello`.", 21, Message::Offer(offer)),
        says("offer-v6", "An answer over IPv6.", 22, Message::Offer(offer_v6)),
        says("offer-crowd", "An answer where many start at once.", 34, Message::Offer(offer_in_crowd)),
        says("cookie", "The answer to a question from another network.", 23, Message::Cookie(cookie)),
        says("ping", "Are you there?", 24, Message::Ping(ping)),
        says("ping-wanting", "Are you there, and what is your record?", 24, Message::Ping(wanting)),
        says("pong", "Yes.", 25, Message::Pong(Pong { nonce: 77, beacon: beacon() })),
        says("farewell", "I leave on purpose.", 26, farewell()),
        says("hint", "A connection to it was refused.", 27, Message::Hint(Hint { target: vote.target })),
        says("suspect", "It is silent.", 28, Message::Suspect(vote)),
        says("down", "Three have said so.", 29, Message::Down(down)),
        says(
            "proof-of-life",
            "It has said this since.",
            30,
            Message::Proof(wire::Proof { pulse: pulse_of(2, 41) }),
        ),
    ]
}

/// Header by hand, in the order of NETWORK.md.
fn header(version: u8, kind: u8, id: MemberId, epoch: u32, seq: u64) -> Vec<u8> {
    let start = [b'I', b'S', version, kind];
    [&start[..], &tag().0, &id.0, &epoch.to_be_bytes(), &seq.to_be_bytes()].concat()
}

/// A datagram of any kind with any body, rightly signed.
fn signed(version: u8, kind: u8, body: &[u8]) -> Bytes {
    author().sign_said([&header(version, kind, author().id(), 3, 30), body].concat())
}

fn newer() -> Vec<Vector> {
    let announce = b"\x87\xa1n\xa1x\xa1u\x07\xa1i\xa5local\xa2pl\x01\xa2ph\x02\xa2zz\x81\xa1q\x93\x01\xc0\xcb\x40\x09\x21\xfb\x54\x44\x2d\x18\xa3new\xc7\x02\x05ab";
    vec![
        datagram("newer-key", "Keys of a later version are skipped.", signed(1, 1, announce)),
        datagram(
            "newer-reason",
            "An unknown reason counts as `stopped`: it is a farewell all the same.",
            signed(1, 8, b"\x81\xa1r\xcc\xc8"),
        ),
        datagram(
            "newer-flag",
            "Unknown flag bits are ignored.",
            signed(1, 2, b"\x83\xa1s\x11\xa1x\xcd\xff\xf1\xa1d\x05"),
        ),
        datagram("newer-kind", "A kind of a later version: kept as bytes.", signed(1, 99, b"anything")),
        datagram("newer-version", "A later version: kept as bytes.", signed(2, 8, b"\xc1\xc1")),
    ]
}

fn untrue() -> Vec<Vector> {
    let (own, other) = (author(), Identity::for_test(2));
    let genuine = own.sign_word(tag(), &farewell(), Seq(26)).to_vec();
    let said = genuine[..genuine.len() - 64].to_vec();
    let mut altered = genuine.clone();
    altered[51] ^= 1;
    let mut unsigned_domain = said.clone();
    unsigned_domain.extend_from_slice(&own.sign_proof(tag(), dialled(), &NONCE));
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut small = [header(1, 8, MemberId(neutral), 1, 1), vec![0x80]].concat();
    small.extend_from_slice(&neutral);
    small.extend_from_slice(&[0; 32]);
    let stamped = |epoch, seq| own.sign_said([header(1, 8, own.id(), epoch, seq), vec![0x80]].concat());
    vec![
        datagram("forged", "Somebody else's signature.", other.sign_said(said)),
        datagram("altered", "`farewell` with the last bit of seq flipped.", altered),
        datagram("cut", "`farewell` without its last byte.", &genuine[..genuine.len() - 1]),
        datagram("lengthened", "`farewell` and one byte.", [&genuine[..], &[0]].concat()),
        datagram(
            "other-purpose",
            "A signature of ours that was made for an endpoint proof.",
            unsigned_domain,
        ),
        datagram("small-order", "A key with which one signature would fit every text.", small),
        datagram(
            "other-mesh",
            "Another mesh on the same wire.",
            own.sign_word(MeshTag::of("other"), &farewell(), Seq(26)),
        ),
        datagram("epoch-zero", "Epochs start at 1.", stamped(0, 1)),
        datagram("epoch-high", "Epochs end at 2^31 - 1.", stamped(1 << 31, 1)),
        datagram("seq-zero", "Seqs start at 1.", stamped(1, 0)),
        datagram("seq-high", "Seqs end at 2^48 - 1.", stamped(1, 1 << 48)),
    ]
}

/// The least ANNOUNCE with other pairs beside or in place of its own.
fn announce_with(pairs: &[&[u8]]) -> Bytes {
    let count = 0x80 + pairs.len() as u8;
    signed(1, 1, &[&[count], pairs.concat().as_slice()].concat())
}

fn malformed() -> Vec<Vector> {
    let least: [&[u8]; 5] = [b"\xa1n\xa1x", b"\xa1u\x07", b"\xa1i\xa5local", b"\xa2pl\x01", b"\xa2ph\x01"];
    let [n, u, i, pl, ph] = least;
    let with = |pair: &[u8]| announce_with(&[n, u, i, pl, ph, pair]);
    let bidi = "\u{202e}gpj";
    let bidi = [b"\xa1n", &[0xa0 + bidi.len() as u8][..], bidi.as_bytes()].concat();
    let address = b"\x92\xc4\x04\x0a\x4d\x00\x02\x18";
    let nine = [&b"\xa1a\x99"[..], &address.repeat(9)].concat();
    let deep = [&b"\xa1z"[..], &[0x91; 16], &[0xc0]].concat();
    let huge = b"\xa1r\xdd\xff\xff\xff\xff";
    let multicast = b"\xa1a\x91\x92\xc4\x04\xe0\x00\x00\x01\x18";
    let mapped = b"\xa1a\x91\x92\xc4\x10\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\x4d\x00\x02\x78";
    let hello = header(1, 3, author().id(), 3, 30);
    let short_hello = [hello, b"\x83\xa1n\x01\xa1d\x02\xa1u\x07".to_vec()].concat();
    vec![
        datagram("body-array", "A body is a map, not an array.", signed(1, 8, b"\x91\x01")),
        datagram("body-key", "Keys are strings, not numbers.", signed(1, 8, b"\x81\x00\x01")),
        datagram("body-twice", "A key comes once.", announce_with(&[n, n, u, i, pl, ph])),
        datagram("body-missing", "The name is required.", announce_with(&[u, i, pl, ph])),
        datagram("body-trailing", "Nothing follows the body.", signed(1, 8, b"\x80\x00")),
        datagram("body-deep", "Seventeen levels, even of what is skipped.", with(&deep)),
        datagram("body-lie", "A list that claims 2^32 - 1 items.", with(huge)),
        datagram("body-type", "A port is a number.", announce_with(&[n, b"\xa1u\xa17", i, pl, ph])),
        datagram("name-bidi", "A name that turns a line around.", announce_with(&[&bidi, u, i, pl, ph])),
        datagram(
            "name-control",
            "A name with an escape.",
            announce_with(&[b"\xa1n\xa3\x1b[m", u, i, pl, ph]),
        ),
        datagram("role-grammar", "Roles are lower case.", with(b"\xa1r\x91\xa3Hub")),
        datagram("address-multicast", "No host has a multicast address.", with(multicast)),
        datagram("address-mapped", "IPv4 is not said as IPv6.", with(mapped)),
        datagram("address-nine", "At most eight addresses.", with(&nine)),
        datagram("hello-short", "A question shorter than its answer.", author().sign_said(short_hello)),
        datagram(
            "suspect-backwards",
            "A last word before the record that it is judged by.",
            signed(1, 10, &[b"\x84\xa1e\x01\xa1r\x09\xa1p\x08\xa1t\xc4\x20".as_slice(), &[1; 32]].concat()),
        ),
        datagram("down-empty", "A certificate without a vote.", signed(1, 11, b"\x81\xa1v\x90")),
        datagram(
            "down-six",
            "At most five votes.",
            signed(1, 11, b"\x81\xa1v\x96\xc4\0\xc4\0\xc4\0\xc4\0\xc4\0\xc4\0"),
        ),
        datagram(
            "ping-portless",
            "Nowhere to answer to.",
            signed(1, 6, &[b"\x83\xa1n\x01\xa1u\x00\xa1t\xc4\x20".as_slice(), &[1; 32]].concat()),
        ),
    ]
}

fn bodies() -> Vec<Vector> {
    let own = author();
    let other = Identity::for_test(2);
    let word = |bytes, millis| TransferWord { bytes, age: Duration::from_millis(millis) };
    let words = vec![
        word(own.sign_word(tag(), &Message::Announce(least_record().into()), Seq(17)), 29_000),
        word(own.sign_word(tag(), &Message::Beacon(beacon()), Seq(19)), 120),
    ];
    let floor =
        TransferFloor { bytes: other.sign_word(tag(), &farewell(), Seq(4)), age: Duration::from_secs(3600) };
    vec![
        Vector {
            name: "proof",
            about: "The answer to GET /mesh/proof at 10.77.0.2:1233.",
            kind: Kind::Proof,
            bytes: signed_proof(),
        },
        Vector {
            name: "records",
            about: "The answer to GET /mesh/records: a record, its pulse, and the floor of one that left.",
            kind: Kind::Records,
            bytes: transfer::encode(&Transfer { words, floors: vec![floor] }),
        },
    ]
}
