//! A member that speaks and answers, but keeps no table: of the work of a node, what others notice of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isle_mesh::identity::Identity;
use isle_mesh::member::{Epoch, Load, MemberId, Record, Seq};
use isle_mesh::wire::{Beacon, Hello, MeshTag, Message, Offer, Ping, Pong};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::sockets::Paths;

/// NETWORK.md, section 6: a record that is new is said again after these, and again and again after the last.
const NEWS: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(150)];
const REFRESH: Duration = Duration::from_secs(30);
/// To watchers.
const TICK: Duration = Duration::from_millis(100);
/// Accused, it says twice that it lives, and not for each copy of the accusation.
const DEFEND_AGAIN: Duration = Duration::from_millis(30);
const DEFEND_EVERY: Duration = Duration::from_millis(25);
/// One in so many beacons goes by all paths, as a node's.
const ALL_PATHS_EVERY: u32 = 5;

/// What a voice does next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    Beacon,
    Tick,
    Refresh,
    Copy(Seq),
    Defence,
}

/// What of the island all voices are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Island {
    pub(super) digest: u64,
    pub(super) members: u32,
}

impl Island {
    /// NETWORK.md, section 6, BEACON.
    fn beacon_period(self) -> Duration {
        Duration::from_millis(u64::from(self.members).clamp(200, 5_000))
    }
}

pub(super) struct Voice {
    tag: MeshTag,
    identity: Identity,
    record: Record,
    record_seq: Seq,
    said: Bytes,
    seq: Seq,
    random: StdRng,
    beacons: u32,
    defended: Option<Instant>,
    pub(super) host: usize,
    pub(super) at: SocketAddr,
    /// Its watchers are worth a beacon every 100 ms.
    pub(super) attended: bool,
    pub(super) silent: bool,
}

impl Voice {
    pub(super) fn new(
        tag: MeshTag,
        identity: Identity,
        record: Record,
        host: usize,
        at: SocketAddr,
        attended: bool,
        seed: u64,
    ) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let (record_seq, seq, said) = (Seq(0), Seq(0), Bytes::new());
        let mut voice = Self {
            tag,
            identity,
            record,
            record_seq,
            said,
            seq,
            random,
            beacons: 0,
            defended: None,
            host,
            at,
            attended,
            silent: false,
        };
        voice.sign_record();
        voice
    }

    pub(super) fn id(&self) -> MemberId {
        self.identity.id()
    }

    pub(super) fn watchers(&self) -> &[MemberId] {
        &self.record.watchers
    }

    /// Its record as last said.
    pub(super) fn said(&self) -> Bytes {
        self.said.clone()
    }

    /// Names this watcher in place of one of its own.
    pub(super) fn name_watcher(&mut self, id: MemberId) {
        self.record.watchers.pop();
        self.record.watchers.push(id);
        self.record.watchers.sort_unstable();
        self.attended = true;
        self.sign_record();
    }

    fn sign_record(&mut self) {
        self.said = self.sign(&Message::Announce(self.record.clone().into()));
        self.record_seq = self.seq;
    }

    fn sign(&mut self, message: &Message) -> Bytes {
        self.seq = Seq(self.seq.0 + 1);
        self.identity.sign_word(self.tag, message, self.seq)
    }

    /// When it says a word for the first time, and then again.
    pub(super) fn first_due(&mut self, now: Instant, island: Island) -> Vec<(Instant, Due)> {
        let mut due = vec![
            (now + island.beacon_period().mul_f64(self.random.random_range(0.0..1.0)), Due::Beacon),
            (now + REFRESH.mul_f64(self.random.random_range(0.0..1.0)), Due::Refresh),
        ];
        if self.attended {
            due.push((now + TICK.mul_f64(self.random.random_range(0.0..1.0)), Due::Tick));
        }
        due
    }

    pub(super) fn next_due(&mut self, now: Instant, due: Due, island: Island) -> Option<Instant> {
        let length = match due {
            Due::Beacon => island.beacon_period(),
            Due::Tick => TICK,
            Due::Refresh => REFRESH,
            Due::Copy(_) | Due::Defence => return None,
        };
        Some(now + length.mul_f64(self.random.random_range(0.9..1.1)))
    }

    /// When the copies of a record that was changed `now` are due, and its first beacon to new watchers.
    pub(super) fn news_due(&self, now: Instant) -> Vec<(Instant, Due)> {
        let mut due: Vec<_> = NEWS.iter().map(|after| (now + *after, Due::Copy(self.record_seq))).collect();
        due.push((now + TICK, Due::Tick));
        due
    }

    /// Whether this copy is still news.
    pub(super) fn is_current(&self, record: Seq) -> bool {
        self.record_seq == record
    }

    pub(super) fn beacon(&mut self, island: Island) -> Bytes {
        let beacon = self.pulse(island);
        self.sign(&Message::Beacon(beacon))
    }

    /// By which paths its next beacon to all goes.
    pub(super) fn beacon_paths(&mut self) -> Paths {
        self.beacons = self.beacons.wrapping_add(1);
        if self.beacons.is_multiple_of(ALL_PATHS_EVERY) { Paths::All } else { Paths::First }
    }

    /// Somebody says that it is silent: when it is to say once more that it is not, if it has not done so just now.
    pub(super) fn is_accused(&mut self, now: Instant, epoch: Epoch) -> Option<Instant> {
        let lately = self.defended.is_some_and(|at| now.saturating_duration_since(at) < DEFEND_EVERY);
        if self.silent || lately || epoch != self.identity.epoch() {
            return None;
        }
        self.defended = Some(now);
        Some(now + DEFEND_AGAIN)
    }

    fn pulse(&self, island: Island) -> Beacon {
        Beacon {
            record_seq: self.record_seq,
            load: Load { in_flight: 0, capacity: 256 },
            full: false,
            deaf: false,
            digest: island.digest,
            far: None,
        }
    }

    pub(super) fn pong(&mut self, ping: &Ping, island: Island) -> Bytes {
        let beacon = self.pulse(island);
        self.sign(&Message::Pong(Pong { nonce: ping.nonce, beacon }))
    }

    pub(super) fn offer(&mut self, hello: &Hello, from: SocketAddr, island: Island) -> Bytes {
        let offer = Offer {
            nonce: hello.nonce,
            observed: from,
            digest: island.digest,
            members: island.members,
            http_port: self.record.http_port,
            island: self.record.island.clone(),
            island_given: false,
            intermediary: false,
            crowd: false,
        };
        self.sign(&Message::Offer(offer))
    }
}
