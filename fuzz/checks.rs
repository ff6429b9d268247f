//! What must hold for any bytes at all. The fuzz targets search for a counterexample; `tests/compat` replays
//! the corpus through the same functions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use island_bridge::frame::tunnel::{self, TunnelFrame};
use island_bridge::frame::{self, Decoder, Frame, Stream};
use island_bridge::journal::{Change, Journal, What};
use island_bridge::session::{Admission, Event, PROTOCOL, Session, Settings};
use isle::figures::formats::Format;
use isle::figures::{Catalogue, CatalogueParser, Figure, Hash, text};
use isle_mesh::event::EventKind;
use isle_mesh::far::read_transfer;
use isle_mesh::identity::Identity;
use isle_mesh::member::{Address, Epoch, LeaveReason, Load, MemberId, Record, Seq};
use isle_mesh::membership::{self, Interface, Membership, Source};
use isle_mesh::transfer::{Transfer, TransferFloor, TransferWord};
use isle_mesh::wire::{self, Beacon, Down, Farewell, MeshTag, Message, Suspect};
use isle_mesh::{island, proof, transfer, verify};

/// Whatever decodes means the same after being encoded again.
pub(crate) fn datagram(bytes: &[u8]) {
    if let Ok((header, Some(message))) = wire::decode(bytes) {
        let again = wire::decode(&wire::encode(&header, &message));
        assert_eq!(again, Ok((header, Some(message))));
    }
}

/// A genuine datagram that was changed in any way is refused. Each three bytes of input change one byte:
/// two say where, one says how; what is left over lengthens the datagram.
pub(crate) fn verify(bytes: &[u8]) {
    let tag = MeshTag::of("isle");
    let farewell = Message::Farewell(Farewell { reason: LeaveReason::Stopped });
    let genuine = Identity::for_test(1).sign_word(tag, &farewell, Seq(26));
    let mut changed = genuine.to_vec();
    let mut changes = bytes.chunks_exact(3);
    for change in changes.by_ref() {
        let place = usize::from(u16::from_be_bytes([change[0], change[1]])) % genuine.len();
        changed[place] ^= change[2];
    }
    changed.extend_from_slice(changes.remainder());
    let verdict = verify::verify(tag, changed.clone().into());
    assert_eq!(verdict.is_ok(), changed == genuine, "{changed:x?}");
    let _ = verify::verify(tag, Bytes::copy_from_slice(bytes));
}

/// Whatever decodes means the same after being encoded again, and verifying it never fails as a whole. The same bytes are
/// read as what a bridge knows, too.
pub(crate) fn transfer(bytes: &[u8]) {
    let _ = read_transfer(MeshTag::of("isle"), bytes);
    if let Ok(decoded) = transfer::decode(bytes) {
        assert_eq!(transfer::decode(&transfer::encode(&decoded)), Ok(decoded.clone()));
        let offered = decoded.words.len() + decoded.floors.len();
        let verified = transfer::verify_transfer(MeshTag::of("isle"), decoded);
        assert_eq!(verified.words.len() + verified.floors.len() + verified.refused, offered);
    }
}

/// Whatever decodes means the same after being encoded again.
pub(crate) fn proof(bytes: &[u8]) {
    if let Ok(decoded) = proof::decode(bytes) {
        assert_eq!(proof::decode(&proof::encode(&decoded)), Ok(decoded));
    }
}

/// What comes on a link's streams is read alike in one piece and in many, and whatever decodes means the same after being
/// encoded again. The first byte says which stream it is, the second how it is cut.
pub(crate) fn frames(bytes: &[u8]) {
    let [which, cut, bytes @ ..] = bytes else { return };
    let stream = Stream::ALL[usize::from(*which) % Stream::ALL.len()];
    let whole = read_all(stream, bytes, bytes.len().max(1));
    assert_eq!(whole, read_all(stream, bytes, usize::from(*cut).max(1)));
    for frame in whole {
        assert_eq!(frame.stream(), stream);
        let mut again = Vec::new();
        frame::encode(&frame, &mut again);
        assert_eq!(read_all(stream, &again, again.len()), [frame]);
    }
}

/// All frames before the first that is refused, or not whole.
fn read_all(stream: Stream, bytes: &[u8], piece: usize) -> Vec<Frame> {
    let (mut decoder, mut frames) = (Decoder::new(stream), Vec::new());
    for mut piece in bytes.chunks(piece) {
        loop {
            match decoder.read(&mut piece) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return frames,
            }
        }
    }
    frames
}

/// Whatever decodes means the same after being encoded again, and what follows it is left alone.
pub(crate) fn tunnel(bytes: &[u8]) {
    let mut rest = bytes;
    if let Ok(Some(read)) = Decoder::tunnel().read(&mut rest) {
        let mut again = Vec::new();
        tunnel::encode(&read, &mut again);
        assert_eq!([&again, rest].concat(), bytes);
        if let TunnelFrame::Open(open) = read {
            assert!((1..=8).contains(&open.hops.len()) && open.port != 0);
        }
    }
}

/// A link's session is asked anything in any order by its caller and by the other side. It does not panic, says nothing
/// after it is over but its last words, and hands over no second batch while it merges the first. Each three bytes of input
/// are one step: what, and two bytes for it.
pub(crate) fn session(bytes: &[u8]) {
    let Some((first, steps)) = bytes.split_first() else { return };
    let mut now = Instant::now();
    let admission = if first & 1 == 0 { Admission::Known } else { Admission::ByInvite };
    let settings = Settings {
        peer: MemberId([2; 32]),
        admission,
        island: "north".to_owned(),
        island_id: None,
        software: String::new(),
        protocol: PROTOCOL,
        invite: None,
        bookmark: None,
    };
    let mut session = Session::new(now, settings);
    let mut journal = Journal::new(1, 64);
    // The other side is a session, too, whose frames come as they are or not at all; so steps reach far.
    let island = if first & 2 == 0 { "south" } else { "north" };
    let invite = (first & 4 != 0).then_some([5; 32]);
    let other = Settings {
        peer: MemberId([1; 32]),
        admission: Admission::Known,
        island: island.to_owned(),
        island_id: None,
        software: String::new(),
        protocol: PROTOCOL,
        invite,
        bookmark: None,
    };
    let mut other = Session::new(now, other);
    let mut theirs = Journal::new(2, 64);
    let mut merging = [false; 2];
    let mut is_over = false;
    for step in steps.chunks_exact(3).take(4096) {
        let [what, a, b] = [step[0], step[1], step[2]];
        let stream = Stream::ALL[usize::from(a) % Stream::ALL.len()];
        match what % 16 {
            0 => {
                now += Duration::from_millis(u64::from(a) * 20);
                session.handle_timeout(now);
                other.handle_timeout(now);
            }
            1 => learn(&mut journal, a, b),
            2 => learn(&mut theirs, a, b),
            3 => journal.withdraw(MemberId([a; 32])),
            4 => theirs.withdraw(MemberId([a; 32])),
            5 => theirs.forget(MemberId([a; 32])),
            6..=9 => {
                // What the other side says, in order, on a stream that is wanted.
                while session.wants(stream) {
                    let Some(frame) = other.poll_transmit(now, stream, &theirs) else { break };
                    let _ = session.handle_frame(now, frame);
                    is_over |= hand_over(&mut session, &mut merging);
                }
            }
            10 | 11 => {
                while other.wants(stream) {
                    let Some(frame) = session.poll_transmit(now, stream, &journal) else { break };
                    assert_eq!(frame.stream(), stream);
                    let _ = other.handle_frame(now, frame);
                }
                while let Some(event) = other.poll_event() {
                    if let Event::Words { stream, .. } = event {
                        other.merged(stream);
                    }
                }
            }
            12 => {
                let was = session.is_up();
                let _ = session.handle_frame(now, stray(a, b));
                assert!(was || !session.is_up() || matches!(stray(a, b), Frame::Hello(_)));
            }
            13 => {
                let is_urgent = a & 1 == 1;
                session.merged(if is_urgent { Stream::Urgent } else { Stream::Table });
                merging[usize::from(is_urgent)] = false;
            }
            14 if a & 1 == 0 => session.admit(),
            14 => session.refuse(frame::Refusal::InviteUsed),
            _ => session.goodbye(now, frame::Goodbye::Leaving),
        }
        is_over |= hand_over(&mut session, &mut merging);
        if is_over {
            assert!(!session.is_up() && session.poll_timeout().is_none());
            let last: usize = Stream::ALL
                .into_iter()
                .map(|stream| std::iter::from_fn(|| session.poll_transmit(now, stream, &journal)).count())
                .sum();
            assert!(last <= 1, "{last} frames after the end");
        }
    }
}

/// Takes the session's events; whether the last of all is among them.
fn hand_over(session: &mut Session, merging: &mut [bool; 2]) -> bool {
    let mut is_over = false;
    while let Some(event) = session.poll_event() {
        assert!(!is_over, "{event:?} after the end");
        match event {
            Event::Words { stream, .. } => {
                let merging = &mut merging[usize::from(stream == Stream::Urgent)];
                assert!(!*merging, "a second batch on {stream:?}");
                *merging = true;
            }
            Event::Down(_) => is_over = true,
            _ => {}
        }
    }
    is_over
}

fn learn(journal: &mut Journal, member: u8, version: u8) {
    let change = Change {
        member: MemberId([member; 32]),
        what: [What::Own, What::Down, What::Refuted][usize::from(version) % 3],
        bytes: Bytes::copy_from_slice(&[member, version]),
        is_urgent: version & 8 != 0,
    };
    // There may be no room.
    let _ = journal.record(change, None);
}

/// A frame that may well be out of turn.
fn stray(a: u8, b: u8) -> Frame {
    let index = u64::from(b);
    match a % 10 {
        0 => Frame::Hello(frame::Hello {
            protocol: (1, 1),
            island: "south".to_owned(),
            island_id: None,
            instance: index,
            software: String::new(),
            invite: (b & 1 == 1).then_some([5; 32]),
        }),
        1 => Frame::Refused(frame::Refusal::Version),
        2 => Frame::Pong { nonce: index },
        3 => Frame::Cursor(frame::Cursor { instance: 1, index, urgent: index }),
        4 => Frame::Ack { through: index },
        5 => Frame::Changes(frame::Changes { through: index, ..frame::Changes::default() }),
        6 => Frame::Digest(frame::Digest { index, buckets: vec![index] }),
        7 => {
            let wanted = vec![frame::Wanted { bucket: b.into(), held: vec![] }];
            Frame::DigestRequest(frame::DigestRequest { wanted, more: b & 1 == 1 })
        }
        8 => Frame::Urgent { index, words: vec![Bytes::from_static(b"w")], gone: vec![] },
        _ => Frame::Goodbye(frame::Goodbye::Unlinked),
    }
}

/// A node's machine is given words and times in any order: true ones, changed ones, votes and certificates, floors, and what
/// its own program asks. It does not panic, its events tell its table, and no timer is left that is due. Each three bytes
/// of input are one step: what, and two bytes for it.
pub(crate) fn membership(bytes: &[u8]) {
    let Some((first, steps)) = bytes.split_first() else { return };
    let tag = MeshTag::of("isle");
    let mut now = Instant::now();
    let roles = if first & 1 == 0 { vec![] } else { vec!["bridge".to_owned()] };
    let settings = membership::Settings {
        tag,
        island: (first & 2 != 0).then(|| "north".to_owned()),
        name: "n".to_owned(),
        roles,
        tags: Vec::new(),
        http_port: 1233,
        unicast_port: 4000,
        advertise: Vec::new(),
        catalogue: None,
        version: String::new(),
    };
    let mut node = Membership::new(settings, Identity::for_test(100), 1, now);
    let words = words();
    let mut told = BTreeMap::new();
    let mut number = 0;
    for step in steps.chunks_exact(3).take(1024) {
        let [what, a, b] = [step[0], step[1], step[2]];
        let word = &words[usize::from(a) % words.len()];
        let addr = SocketAddr::from(([10, 0, 0, 1 + b % 8], 4000));
        let from = Source { addr, shared: b & 1 == 0 };
        let id = Identity::for_test(u64::from(a % 8)).id();
        let is_timeout = what % 16 < 4;
        match what % 16 {
            0 => {
                // Just in time.
                if let Some(wakeup) = node.poll_timeout() {
                    now = now.max(wakeup.at);
                }
                node.handle_timeout(now);
            }
            1..=3 => {
                now += Duration::from_millis(u64::from(a) << (b % 12));
                node.handle_timeout(now);
            }
            4..=7 => drop(node.handle_datagram(now, from, word.clone())),
            8 => {
                let mut changed = word.to_vec();
                let place = usize::from(b) % changed.len();
                changed[place] ^= 1 << (a % 8);
                let _ = node.handle_datagram(now, from, changed.into());
            }
            9 | 10 => {
                let aged = |at: u8| TransferWord {
                    bytes: words[usize::from(at) % words.len()].clone(),
                    age: Duration::from_millis(u64::from(b)),
                };
                let floor = TransferFloor { bytes: word.clone(), age: Duration::from_secs(b.into()) };
                let words = (0..b % 16).map(|more| aged(a.wrapping_add(more))).collect();
                let table = Transfer { words, floors: vec![floor] };
                node.merge(now, id, &transfer::verify_transfer(tag, table));
            }
            11 => node.start(now),
            12 => {
                let addresses = vec![Address { ip: [10, 0, 0, 9].into(), prefix: b % 33 }];
                let interface = Interface { index: 1, name: "e".to_owned(), addresses, loopback: false };
                node.set_interfaces(now, vec![interface]);
            }
            13 if b & 1 == 0 => node.refused_connection(now, id),
            13 => node.proved(now, id),
            14 if b & 1 == 0 => node.set_foreign(now, BTreeSet::from([id])),
            14 => node.fetch_failed(now, id),
            _ if b == 0 => node.leave(now, LeaveReason::Stopped),
            _ => node.set_load(now, Load { in_flight: a.into(), capacity: b.into() }),
        }
        while let Some(transmit) = node.poll_transmit() {
            assert!(transmit.bytes.len() <= wire::DATAGRAM_BYTES_MAX);
        }
        while node.poll_change().is_some() || node.poll_fetch().is_some() {}
        while node.poll_far_fetch().is_some() {}
        while let Some(event) = node.poll_event() {
            number += 1;
            assert_eq!(event.number, number);
            let Some(member) = event.member() else { continue };
            if event.kind == EventKind::Forgotten {
                told.remove(&member.id);
            } else if !member.is_self {
                told.insert(member.id, member.standing);
            }
        }
        let listed: BTreeMap<_, _> =
            node.members().chain(node.far_members()).map(|member| (member.id, member.standing)).collect();
        assert_eq!(listed, told);
        if is_timeout && let Some(wakeup) = node.poll_timeout() {
            assert!(wakeup.at > now, "{} is due still", wakeup.why);
        }
    }
}

/// What six nodes that watch each other say: records of two lives, pulses, farewells, votes and certificates on each.
fn words() -> &'static [Bytes] {
    static WORDS: OnceLock<Vec<Bytes>> = OnceLock::new();
    WORDS.get_or_init(|| {
        let tag = MeshTag::of("isle");
        let key = |number| Identity::for_test(number);
        let mut words = Vec::new();
        for number in 1..=6u64 {
            let (identity, mut again) = (key(number), key(number));
            again.raise_epoch_above(Epoch(1)).expect("a key that is not kept");
            let bridge = number % 2 == 0;
            let made = island::made_by(key(number - number % 3).id());
            let record = Record {
                name: format!("n{number}"),
                roles: if bridge { vec!["bridge".to_owned()] } else { vec![] },
                addresses: vec![Address { ip: [10, 0, 0, number as u8].into(), prefix: 24 }],
                http_port: 1233,
                unicast_port: 4000,
                island: if number < 3 { "north".to_owned() } else { made },
                island_given: bridge,
                draining: false,
                catalogue: None,
                watchers: (1..=6).filter(|other| *other != number).map(|other| key(other).id()).collect(),
                protocol: (1, 1),
                version: String::new(),
                tags: vec![],
            };
            let pulse = |record_seq| {
                let load = Load { in_flight: 3, capacity: 256 };
                let far = bridge.then_some(number);
                Beacon {
                    record_seq: Seq(record_seq),
                    load,
                    full: false,
                    deaf: number == 5,
                    digest: number,
                    far,
                }
            };
            let vote = Suspect {
                target: identity.id(),
                epoch: Epoch(1),
                record_seq: Seq(7),
                last_seq: Seq(8),
                silence_ms: 700,
            };
            let votes: Vec<Bytes> = (1..=6)
                .filter(|voter| *voter != number)
                .take(3)
                .map(|voter| key(voter).sign_word(tag, &Message::Suspect(vote), Seq(100 + number)))
                .collect();
            words.push(identity.sign_word(tag, &Message::Announce(record.clone().into()), Seq(7)));
            words.push(identity.sign_word(tag, &Message::Beacon(pulse(7)), Seq(8)));
            words.push(identity.sign_word(tag, &Message::Beacon(pulse(7)), Seq(200)));
            let draining = Record { draining: true, ..record.clone() };
            words.push(identity.sign_word(tag, &Message::Announce(draining.into()), Seq(300)));
            let farewell = Farewell { reason: LeaveReason::Stopped };
            words.push(identity.sign_word(tag, &Message::Farewell(farewell), Seq(301)));
            words.push(again.sign_word(tag, &Message::Announce(record.into()), Seq(1)));
            words.push(again.sign_word(tag, &Message::Beacon(pulse(1)), Seq(2)));
            words.extend(votes.iter().cloned());
            words.push(key(7).sign_word(tag, &Message::Down(Down { votes }), Seq(number)));
        }
        words
    })
}

/// A catalogue is read alike in one piece and in many, and its digest is the hash of what was read.
pub(crate) fn catalogue(bytes: &[u8]) {
    let (cut, text) = bytes.split_first().map_or((1, bytes), |(cut, text)| (usize::from(*cut).max(1), text));
    let read = Catalogue::parse(text);
    let mut parser = CatalogueParser::default();
    let pushed: Result<(), _> = text.chunks(cut).try_for_each(|chunk| parser.push(chunk));
    let in_pieces = pushed.and_then(|()| parser.finish());
    assert_eq!(read.is_ok(), in_pieces.is_ok());
    if let Ok(read) = read {
        assert_eq!(in_pieces.as_ref(), Ok(&read));
        assert_eq!(read.digest(), Hash::of(text));
        for (at, entry) in read.entries().iter().enumerate() {
            assert_eq!(read.position(&entry.name, entry.share), Some(at));
        }
    }
}

/// A body is read in its one spelling; a file gives bodies in that spelling.
pub(crate) fn figures_json(bytes: &[u8]) {
    if let Ok(figure) = Figure::from_body(bytes) {
        assert_eq!(figure.body(), bytes);
    }
    file("a.json", bytes);
    file("a.toml", bytes);
}

/// See `file`.
pub(crate) fn csv(bytes: &[u8]) {
    file("a.csv", bytes);
}

/// See `file`.
pub(crate) fn ldraw(bytes: &[u8]) {
    file("a.mpd", bytes);
}

/// A file gives figures whose bodies read back, or an error of one line that a terminal can be shown.
fn file(name: &str, bytes: &[u8]) {
    let path = Path::new(name);
    let format = Format::of(path).expect("a name with a known ending");
    match format.parse(path, bytes) {
        Ok(figures) => {
            for shelved in figures {
                assert!(shelved.entry().check(shelved.body()).is_ok());
            }
        }
        Err(error) => assert!(error.to_string().chars().all(text::is_plain), "{error}"),
    }
}
