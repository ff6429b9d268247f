//! A stranger that sends as much as it can think of: well signed words of keys that nobody knows, the same with a wrong
//! signature, and noise.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use isle_mesh::identity::Identity;
use isle_mesh::member::{LeaveReason, Load, Seq};
use isle_mesh::wire::{Beacon, Farewell, Hello, MeshTag, Message};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{PREFIX, record};
use crate::network::{Host, Wire};
use crate::tap::{DISCOVERY, speaker};

/// Addresses it sends from, for limits that hold for each source.
const SOURCES: u8 = 16;
/// Keys it signs with.
const KEYS: u64 = 2_000;
/// So often it sends its part of a second.
const BATCH: Duration = Duration::from_millis(5);
const BROADCAST: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 255, 255), DISCOVERY);

/// A running flood; ends by itself.
#[derive(Debug)]
pub(crate) struct Flood(JoinHandle<Outcome>);

/// What a flood was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Datagrams sent.
    pub(crate) sent: u64,
    /// For so long.
    pub(crate) took: Duration,
}

/// A host on the wire and what it has prepared to say.
#[derive(Debug)]
pub(crate) struct Flooder {
    /// The host.
    pub(crate) host: Host,
    sockets: Vec<UdpSocket>,
    words: Vec<Vec<u8>>,
}

impl Flooder {
    /// Plugs it into a wire and makes its words.
    pub(crate) fn new(wire: &Wire) -> Result<Self> {
        let host = wire.host("flooder", &format!("10.77.250.1/{PREFIX}"))?;
        for last in 2..=SOURCES {
            host.address("add", &format!("10.77.250.{last}/{PREFIX}"), "eth0")?;
        }
        let speaker = |last| speaker(&host, Ipv4Addr::new(10, 77, 250, last));
        let sockets = (1..=SOURCES).map(speaker).collect::<Result<_>>()?;
        Ok(Self { host, sockets, words: words() })
    }

    /// Sends so many a second for so long, every second one to everybody, the others to `targets` in turn.
    pub(crate) fn start(self, per_second: u64, lasts: Duration, targets: Vec<SocketAddr>) -> Flood {
        let began = Instant::now();
        Flood(thread::spawn(move || {
            let mut random = StdRng::seed_from_u64(5);
            let mut sent = 0;
            while began.elapsed() < lasts {
                let due = began.elapsed().as_millis() as u64 * per_second / 1000;
                while sent < due {
                    let turn = usize::try_from(sent).unwrap_or_default();
                    let socket = &self.sockets[turn % self.sockets.len()];
                    let bytes = &self.words[random.random_range(0..self.words.len())];
                    // A full buffer loses it, as for everybody.
                    let _ = match turn % 2 {
                        0 => socket.send_to(bytes, BROADCAST),
                        _ => socket.send_to(bytes, targets[turn / 2 % targets.len()]),
                    };
                    sent += 1;
                }
                thread::sleep(BATCH);
            }
            Outcome { sent, took: began.elapsed() }
        }))
    }
}

impl Flood {
    /// Waits for its end.
    pub(crate) fn ended(self) -> Result<Outcome> {
        self.0.join().ok().context("the flood panicked")
    }
}

/// Four of each key, well signed; as many again with a wrong signature; and as much noise, half of it behind our header.
fn words() -> Vec<Vec<u8>> {
    let tag = MeshTag::of("isle");
    let mut random = StdRng::seed_from_u64(4);
    let mut words = Vec::new();
    for key in 0..KEYS {
        let identity = Identity::for_test(2_000_000 + key);
        let nonce = random.random();
        let load = Load { in_flight: 0, capacity: 256 };
        let beacon =
            Beacon { record_seq: Seq(1), load, full: false, deaf: false, digest: random.random(), far: None };
        let hello = Hello {
            nonce,
            attempt: 0,
            digest: 0,
            cookie: None,
            island: None,
            unicast_port: 9,
            asking: key % 2 == 0,
        };
        let said = [
            Message::Announce(record(usize::try_from(key).unwrap_or_default(), 0, Vec::new()).into()),
            Message::Beacon(beacon),
            Message::Hello(hello),
            Message::Farewell(Farewell { reason: LeaveReason::Stopped }),
        ];
        for (seq, message) in (1..).zip(&said) {
            let right = identity.sign_word(tag, message, Seq(seq)).to_vec();
            let mut wrong = right.clone();
            let last = wrong.len() - 1;
            wrong[last] ^= 1;
            let mut noise: Vec<u8> =
                (0..random.random_range(0..=1200)).map(|_| random.random::<u8>()).collect();
            if seq % 2 == 0 && noise.len() > 8 {
                noise[..8].copy_from_slice(&right[..8]);
            }
            words.extend([right, wrong, noise]);
        }
    }
    words
}
