//! An island of a few that is fed with forged words while it lives on.
//!
//! First it says words of every kind, and a stranger records them: among them are a crash and its votes and certificate,
//! a farewell, a life that is over, a proof of one who had been accused wrongly. From then on nothing
//! happens to its members, but between their words come others made from the recorded ones: with bits
//! turned, cut short, put together from two, lengthened, of another mesh, life, number, kind, version or
//! author, and as they were. They come from members' own addresses, from others on the link and from afar.
//! None may change anything at anybody.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isle_mesh::identity::Identity;
use isle_mesh::member::{Epoch, MemberId, Seq, Stamp, Standing};
use isle_mesh::membership::Source;
use isle_mesh::path::Path;
use isle_mesh::reach::{IslandLoad, Reach};
use isle_mesh::verify::{Refused, Scheme};
use isle_mesh::wire::{Hello, MeshTag, Message, Routes, kind};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::network::{PRIVATE, SHARED, ip_of};
use crate::world::{World, given, island, large_island, with_seeds};
use crate::{ms, secs};

/// Forged words in a virtual second: more than a link of 100 Mbit/s carries.
const A_SECOND: u64 = 100_000;
/// Other words may come after so many.
const AT_ONCE: u64 = 50;
const OFF_LINK: u32 = 0xc633_6400; // 198.51.100.0, RFC 5737.

/// Whoever recorded words and says others made from them.
struct Forger {
    random: SmallRng,
    /// By kind; none is empty.
    recorded: Vec<Vec<Bytes>>,
    members: usize,
    ids: Vec<MemberId>,
}

/// What a node holds of another.
type Row = (MemberId, Standing, Stamp, Epoch, bool);

#[test]
fn two_hundred_thousand_forged_words_change_nothing() {
    with_seeds("two_hundred_thousand_forged", |seed| {
        fed(island(6, seed), 100_000);
        fed(large_island(40, seed), 100_000);
    });
}

/// Half of them at an island of six, where each pulse is verified, half at one of forty, where pulses wait.
#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario hundred_million"]
fn hundred_million_forged_words_change_nothing() {
    let words: u64 = given("ISLE_SIMULATION_FORGED").unwrap_or(100_000_000);
    with_seeds("hundred_million_forged", |seed| {
        thread::scope(|scope| {
            scope.spawn(|| fed(large_island(6, seed), words / 2));
            scope.spawn(|| fed(large_island(40, seed), words / 2));
        });
    });
}

/// Lets it live for a while, then feeds it.
fn fed(island: World, words: u64) {
    let mut island = island.delay(ms(0), ms(2)).started_within(ms(500));
    let recorded = eventful_life(&mut island);
    let members = island.processes.len();
    let living: Vec<usize> = (0..members).filter(|node| island.processes[*node].lives()).collect();
    let ids = island.processes.iter().map(|process| process.id).collect();
    let mut forger = Forger { random: SmallRng::seed_from_u64(island.seed), recorded, members, ids };
    let rows = all_rows(&island);
    let told = island.measures.told_of_the_living;
    let refused = counted(&island);
    let began = clock();
    let mut left = words;
    while left > 0 {
        let some = left.min(AT_ONCE);
        for _ in 0..some {
            let to = living[forger.random.random_range(0..living.len())];
            let (source, bytes) = (forger.source(), forger.word());
            island.feed(to, source, bytes);
        }
        left -= some;
        island.run_for(Duration::from_secs_f64(some as f64 / A_SECOND as f64));
    }
    let took = began.elapsed();
    let what = format!("{} members, {words} forged words", living.len());
    island.report(&what);
    println!("  {}", account(&refused, &counted(&island)));
    println!("  took {took:.1?}");
    assert_eq!(island.measures.told_of_the_living, told, "events of the living");
    assert_eq!(all_rows(&island), rows, "what members know of each other");
    assert_eq!((island.measures.false_suspicions, island.measures.false_downs), (0, 0));
    for process in island.processes.iter().filter(|process| process.lives()) {
        let table = process.machine.export(island.now);
        assert!(table.words.len() <= 4 * members, "{} words in a table", table.words.len());
        assert!(table.floors.len() <= members, "{} floors", table.floors.len());
    }
    island.agrees_within(secs(3));
}

/// Everything happens that makes a member say something; returns what was said, by kind.
fn eventful_life(island: &mut World) -> Vec<Vec<Bytes>> {
    island.run_for(secs(3));
    let refuser = island.processes[1].id;
    let now = island.now;
    island.input(0, now, |machine| machine.refused_connection(now, refuser));
    // Long enough for votes and for the proof that they are wrong.
    island.stall(1, ms(640), ms(650));
    island.run_for(secs(3));
    // Until somebody accuses one whom others hear, and they prove it.
    for _ in 0..10 {
        if island.network.of_kind(kind::PROOF).is_empty() {
            island.cut_one_way(island.processes.len());
            island.run_for(secs(2));
            island.heal_cuts();
            island.run_for(secs(1));
        }
    }
    island.restart_with_kept_key(1);
    island.run_for(secs(1));
    island.crash(1).farewell(1).join(2);
    island.run_for(secs(1));
    // Whoever greets from afar gets a cookie.
    let hello = Hello {
        nonce: 1,
        attempt: 0,
        digest: 0,
        cookie: None,
        island: None,
        unicast_port: PRIVATE,
        asking: false,
    };
    let hello = of_a_stranger(island, &Message::Hello(hello));
    for node in 0..island.processes.len() {
        island.feed(node, from(OFF_LINK + 1, true), hello.clone());
    }
    island.agrees_within(secs(9));
    // All copies are said, and all names of watchers: what was recorded is past.
    island.run_for(secs(12));
    let mut recorded: Vec<Vec<Bytes>> = (kind::ANNOUNCE..kind::ROUTES)
        .map(|kind| {
            let said = island.network.of_kind(kind);
            assert!(!said.is_empty(), "nobody has said a word of kind {kind}");
            said.to_vec()
        })
        .collect();
    // There is no bridge here, so those who say what they reach are of another island on the same wire.
    let path = Path::new(vec!["elsewhere".to_owned()]).unwrap();
    let reaches = vec![Reach { path, cost: ms(3), load: IslandLoad::default() }];
    let routes = Message::Routes(Routes { part: 0, parts: 1, reaches });
    recorded.push(vec![of_a_stranger(island, &routes)]);
    recorded
}

/// A true word of somebody whom nobody here knows.
fn of_a_stranger(island: &World, message: &Message) -> Bytes {
    let key = island.keys + 1_000;
    let stranger = match island.scheme() {
        Scheme::Ed25519 => Identity::for_test(key),
        Scheme::StandIn => Identity::stand_in(key),
    };
    stranger.sign_word(MeshTag::of("isle"), message, Seq(7))
}

fn from(ip: u32, shared: bool) -> Source {
    let port = if shared { SHARED } else { PRIVATE };
    Source { addr: SocketAddr::new(IpAddr::from(ip.to_be_bytes()), port), shared }
}

impl Forger {
    fn source(&mut self) -> Source {
        let shared = self.random.random();
        let node = match self.random.random_range(0..4) {
            0 | 1 => self.random.random_range(0..self.members),
            2 => self.random.random_range(1_000..10_000),
            _ => return from(OFF_LINK + self.random.random_range(0..256), shared),
        };
        let port = if shared { SHARED } else { PRIVATE };
        Source { addr: SocketAddr::new(ip_of(node), port), shared }
    }

    fn recorded(&mut self) -> Bytes {
        let kind = self.random.random_range(0..self.recorded.len());
        let place = self.random.random_range(0..self.recorded[kind].len());
        self.recorded[kind][place].clone()
    }

    /// One word that nobody says, or says now.
    fn word(&mut self) -> Bytes {
        let original = self.recorded();
        let mut bytes = original.to_vec();
        let random = &mut self.random;
        match random.random_range(0..12) {
            0 => return original,
            1 => bytes.truncate(random.random_range(0..bytes.len())),
            2 => {
                let cut = random.random_range(0..bytes.len());
                let other = self.recorded();
                bytes.truncate(cut);
                bytes.extend(other.iter().skip(cut));
            }
            3 => bytes.extend((0..random.random_range(1..80)).map(|_| random.random::<u8>())),
            4 => bytes[4..8].copy_from_slice(&random.random::<[u8; 4]>()),
            5 => {
                let epochs = [0, 1, 2, 3, random.random(), Epoch::MAX.0, u32::MAX];
                let epoch = epochs[random.random_range(0..epochs.len())];
                bytes[40..44].copy_from_slice(&epoch.to_be_bytes());
            }
            6 => {
                let seq: u64 = random.random::<u64>() >> random.random_range(0..64);
                bytes[44..52].copy_from_slice(&seq.to_be_bytes());
            }
            7 => bytes[3] = random.random_range(0..16),
            8 => bytes[2] = random.random(),
            9 => {
                let id = self.ids[random.random_range(0..self.ids.len())];
                let author = if random.random() { id.0 } else { random.random() };
                bytes[8..40].copy_from_slice(&author);
            }
            _ => {
                for _ in 0..random.random_range(1..8) {
                    let place = random.random_range(0..bytes.len());
                    bytes[place] ^= 1 << random.random_range(0..8);
                }
            }
        }
        bytes.into()
    }
}

impl World {
    /// A datagram that no member sent comes to a node.
    fn feed(&mut self, to: usize, source: Source, bytes: Bytes) {
        let now = self.now;
        let _ = self.processes[to].machine.handle_datagram(now, source, bytes);
        self.after_input(to);
    }
}

/// What every node holds of every other, itself included.
fn all_rows(island: &World) -> Vec<Vec<Row>> {
    let living = island.processes.iter().filter(|process| process.lives());
    living
        .map(|process| {
            let members = process.machine.members().cloned().chain(process.machine.self_member());
            // Whoever is gone is forgotten in time.
            let listed = members.filter(|member| !member.standing.is_gone());
            let mut rows: Vec<Row> = listed
                .map(|member| {
                    (
                        member.id,
                        member.standing,
                        member.stamp,
                        process.machine.identity().epoch(),
                        member.proven,
                    )
                })
                .collect();
            rows.sort_unstable_by_key(|row| row.0);
            rows
        })
        .collect()
}

/// What all nodes have taken and refused.
fn counted(island: &World) -> (u64, Vec<u64>) {
    let mut refused = vec![0; Refused::ALL.len()];
    let mut accepted = 0;
    for counters in island.processes.iter().map(|process| process.machine.counters()) {
        accepted += counters.accepted;
        refused.iter_mut().zip(counters.refused).for_each(|(sum, more)| *sum += more);
    }
    (accepted, refused)
}

/// The difference of two counts, those of the island's own words included.
fn account(before: &(u64, Vec<u64>), after: &(u64, Vec<u64>)) -> String {
    let mut text = format!("acted upon {}, the island's own words included; refused:", after.0 - before.0);
    for (place, reason) in Refused::ALL.iter().enumerate() {
        let _ = write!(text, " {} {}", reason.as_str(), after.1[place] - before.1[place]);
    }
    text
}

fn clock() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "how long the machine takes is measured on its own clock")]
    Instant::now()
}
