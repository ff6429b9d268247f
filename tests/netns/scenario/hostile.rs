//! Bytes from strangers: nobody's table changes, nobody panics, nobody grows.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use isle_mesh::identity::Identity;
use isle_mesh::wire::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Claim;
use crate::client;
use crate::events::EventLog;
use crate::island::Island;
use crate::network::Host;
use crate::node::Node;
use crate::runner::Run;
use crate::tap::{DISCOVERY, FAREWELL, Heard, Tap, speaker};

pub(super) const SCENARIOS: &[Claim] = &[
    ("hostile::no_farewell_but_the_own_and_newest_counts", farewells),
    ("hostile::mutated_datagrams_change_nothing", mutated),
];

/// Everybody on the wire of an [`Island`].
const BROADCAST: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 0, 255), DISCOVERY);
/// Where EPOCH lies in a datagram, after the author's key (NETWORK.md, "Datagrams").
const EPOCH: std::ops::Range<usize> = 40..44;
/// Long enough for everything sent to be read, and for a wrong belief to show.
const SETTLES_IN: Duration = Duration::from_millis(1500);

fn farewells(run: &Run) -> Result<()> {
    let mut island =
        Island::start(run, &[("hub", &["intermediary"]), ("p1", &["pieces"]), ("p2", &["pieces"])])?;
    let tap = Tap::open(&island.client)?;
    // A real farewell of p3's first life, and then its second life under the same key.
    let host = island.host("p3")?;
    let arguments = ["pieces", "--state-dir", "state"];
    let mut first = island.join(&host, &arguments)?;
    let id = first.id().to_owned();
    first.interrupt()?;
    first.ended(Duration::from_secs(5))?;
    let farewell = tap.wait("p3's farewell", Duration::from_secs(5), |heard| {
        heard.kind() == FAREWELL && heard.author() == id
    })?;
    let second = island.join(&host, &arguments)?;
    ensure!(second.id() == id, "another key");
    island.nodes.push(second);
    island.agree()?;
    let victim_beacon = tap.wait("a word of its second life", Duration::from_secs(5), |heard| {
        heard.author() == id && heard.bytes[EPOCH] > farewell.bytes[EPOCH]
    })?;

    let stranger = speaker(&island.client, Ipv4Addr::new(10, 77, 0, 2))?;
    let forgeries = forgeries(&farewell, &victim_beacon);
    let kinds = forgeries.len();
    unmoved(&island, "forged farewells", || {
        for _ in 0..3 {
            for (what, bytes) in &forgeries {
                stranger.send_to(bytes, BROADCAST).with_context(|| format!("sending {what}"))?;
                for node in &island.nodes {
                    stranger.send_to(bytes, SocketAddr::new(node.http().ip(), DISCOVERY))?;
                }
            }
            // Paced below any limit per source, so that they are judged and not just dropped.
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    })?;
    run.measures.note(format!("{kinds} kinds of false farewells, 3 times each: no table changed"));
    Ok(())
}

/// Farewells that must not count, each with what is wrong with it.
fn forgeries(farewell: &Heard, newest: &Heard) -> Vec<(String, Vec<u8>)> {
    let real = &farewell.bytes;
    let mut made = vec![("the replayed farewell of an earlier life".to_owned(), real.clone())];
    for length in [0, 1, 2, 3, 8, 40, 52, real.len() - 64, real.len() - 1] {
        made.push((format!("cut to {length} bytes"), real[..length].to_vec()));
    }
    for byte in 0..real.len() {
        let mut flipped = real.clone();
        flipped[byte] ^= 1 << (byte % 8);
        made.push((format!("a flipped bit in byte {byte}"), flipped));
    }
    // In the present life's epoch, with a later seq: right but for the signature.
    let mut raised = real.clone();
    raised[EPOCH].copy_from_slice(&newest.bytes[EPOCH]);
    made.push(("the old signature on the present epoch".to_owned(), raised.clone()));
    raised[EPOCH.start + 4..EPOCH.start + 12].copy_from_slice(&u64::MAX.to_be_bytes());
    made.push(("the highest seq there is".to_owned(), raised));
    // Signed well, by a stranger, in the victim's name: the author's key is put in afterwards.
    let stranger = Identity::for_test(99);
    let tag = isle_mesh::wire::MeshTag::of("isle");
    let message =
        Message::Farewell(isle_mesh::wire::Farewell { reason: isle_mesh::member::LeaveReason::Stopped });
    let signed = stranger.sign_word(tag, &message, isle_mesh::member::Seq(1000));
    let mut renamed = signed.to_vec();
    renamed[8..40].copy_from_slice(&newest.bytes[8..40]);
    renamed[EPOCH].copy_from_slice(&newest.bytes[EPOCH]);
    made.push(("a stranger's signature".to_owned(), renamed));
    made.push(("a farewell of somebody never heard".to_owned(), signed.to_vec()));
    let mut longer = real.clone();
    longer.push(0);
    made.push(("a byte too many".to_owned(), longer));
    made
}

fn mutated(run: &Run) -> Result<()> {
    let island = Island::start(run, &[("hub", &["intermediary"]), ("p1", &["pieces"]), ("p2", &["pieces"])])?;
    let tap = Tap::open(&island.client)?;
    let corpus = corpus(&tap, &island)?;
    let private = private_ports(&island)?;
    let count = run.count(10_000, 1_000_000);
    let speakers = speakers(&island.client)?;
    let before = memory(&island)?;
    let spent = processor_time(&island)?;
    let began = Instant::now();
    // The seed is printed, and fixed: what fails once fails again.
    let seed = 2;
    let mut random = StdRng::seed_from_u64(seed);
    unmoved(&island, "mutated datagrams", || {
        for number in 0..count {
            let bytes = mutate(&corpus, &mut random);
            let socket = &speakers[number % speakers.len()];
            // Two of three to everybody, the third to the private port of one.
            match number % 3 {
                0 => socket.send_to(&bytes, private[number / 3 % private.len()])?,
                _ => socket.send_to(&bytes, BROADCAST)?,
            };
            if number % 50 == 49 {
                // About 10,000 per second: receivers keep up and nothing is lost in a full buffer.
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    })?;
    let took = began.elapsed();
    for (node, (start, spent)) in island.nodes.iter().zip(before.iter().zip(&spent)) {
        let now = node.memory_kib()?;
        run.measures.note(format!(
            "{}: {start} KiB before, {now} KiB after {count} mutated datagrams (seed {seed}) in {:.1} s; {:.1} us of processor each",
            node.name(),
            took.as_secs_f64(),
            (node.processor_time()? - *spent).as_secs_f64() * 1e6 / count as f64,
        ));
        ensure!(now < start + 16 * 1024, "{} grew from {start} to {now} KiB", node.name());
        let panics = node.log().matches("panicked").count();
        ensure!(panics == 0, "{} panicked: {}", node.name(), node.log_tail());
    }
    Ok(())
}

/// One real datagram of each kind that a short life on the wire shows.
fn corpus(tap: &Tap, island: &Island) -> Result<Vec<Vec<u8>>> {
    let host = island.wire.host("short", "10.77.0.50/24")?;
    let mut short = island.join(&host, &["pieces"])?;
    short.interrupt()?;
    short.ended(Duration::from_secs(5))?;
    tap.wait("a farewell", Duration::from_secs(5), |heard| heard.kind() == FAREWELL)?;
    let mut kinds: BTreeMap<u8, Vec<Vec<u8>>> = BTreeMap::new();
    for heard in tap.all() {
        let seen = kinds.entry(heard.kind()).or_default();
        if seen.len() < 4 {
            seen.push(heard.bytes);
        }
    }
    ensure!(kinds.len() >= 4, "only kinds {:?} were heard", kinds.keys());
    Ok(kinds.into_values().flatten().collect())
}

/// Where each node of the island is spoken to alone: the private port that it announces.
fn private_ports(island: &Island) -> Result<Vec<SocketAddr>> {
    let port = |node: &Node| {
        let records = client::expect(&island.client, node.http(), "/mesh/records", 200)?;
        let words = isle_mesh::transfer::decode(&records.body)?.words;
        let said = |bytes: &[u8]| {
            isle_mesh::wire::decode(&bytes[..bytes.len() - isle_mesh::wire::SIGNATURE_BYTES]).ok()
        };
        let announced = words.iter().find_map(|word| match said(&word.bytes)? {
            (header, Some(Message::Announce(record))) if header.author.to_string() == node.id() => {
                Some(record.unicast_port)
            }
            _ => None,
        });
        let port = announced.with_context(|| format!("{} does not hand out its own record", node.name()))?;
        Ok(SocketAddr::new(node.http().ip(), port))
    };
    island.nodes.iter().map(port).collect()
}

/// A real datagram with something wrong: bits, lengths, another one's tail, or another author's head.
fn mutate(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = corpus[random.random_range(0..corpus.len())].clone();
    match random.random_range(0..6) {
        0 => {
            for _ in 0..random.random_range(1..=8) {
                let at = random.random_range(0..bytes.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
        }
        1 => bytes.truncate(random.random_range(0..bytes.len())),
        2 => {
            let more = random.random_range(1..=1400 - bytes.len().min(1399));
            bytes.extend((0..more).map(|_| random.random::<u8>()));
        }
        3 => {
            let other = &corpus[random.random_range(0..corpus.len())];
            let at = random.random_range(0..bytes.len().min(other.len()));
            bytes.truncate(at);
            bytes.extend(&other[at..]);
            // Two copies of one original would make that original again, and true.
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }
        4 => {
            // The body alone, behind a header that passes every cheap check.
            let end = bytes.len().saturating_sub(64).max(53);
            for _ in 0..4 {
                let at = random.random_range(52..end);
                bytes[at] = random.random();
            }
        }
        _ => {
            // Extreme numbers: epoch, seq, and whatever lies behind them.
            let at = random.random_range(40..bytes.len() - 8);
            bytes[at..at + 8].copy_from_slice(&[0xff; 8]);
        }
    }
    bytes
}

/// Sockets at addresses of their own, for limits per source.
fn speakers(host: &Host) -> Result<Vec<UdpSocket>> {
    let interface = host.interfaces().pop().context("its interface")?;
    (100..116)
        .map(|last| {
            host.address("add", &format!("10.77.0.{last}/24"), &interface)?;
            speaker(host, Ipv4Addr::new(10, 77, 0, last))
        })
        .collect()
}

/// Runs `attack` and demands that afterwards every table is what it was, and that nothing was said meanwhile.
fn unmoved(island: &Island, what: &str, attack: impl FnOnce() -> Result<()>) -> Result<()> {
    let logs = island.events()?;
    let tables: Vec<_> = island.nodes.iter().map(Node::table).collect::<Result<_>>()?;
    let said: Vec<usize> = logs.iter().map(|log| changes(log).len()).collect();
    attack()?;
    thread::sleep(SETTLES_IN);
    for ((node, log), (table, said)) in island.nodes.iter().zip(&logs).zip(tables.iter().zip(said)) {
        let new = &changes(log)[said..];
        ensure!(new.is_empty(), "{what} made {} say: {}", node.name(), new.join(", "));
        let now = node.table()?;
        ensure!(now == *table, "{what} changed the table of {}: {table:#?}\n{now:#?}", node.name());
    }
    Ok(())
}

/// What a node has said but for load reports.
fn changes(log: &EventLog) -> Vec<String> {
    let all = log.all();
    all.iter()
        .filter(|seen| seen.kind != "updated" && seen.kind != "snapshot")
        .map(|seen| seen.brief())
        .collect()
}

fn memory(island: &Island) -> Result<Vec<u64>> {
    island.nodes.iter().map(Node::memory_kib).collect()
}

fn processor_time(island: &Island) -> Result<Vec<Duration>> {
    island.nodes.iter().map(Node::processor_time).collect()
}
