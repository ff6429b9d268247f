//! Hundreds of members in one host: what a real node meets on a large island, without a process for each of them.
//!
//! A thousand whole nodes would hear a million beacons a second, more than the machine that runs this can verify. So
//! the crowd is made of two kinds, each with a key, a record and a say of its own; [`HOST_MEMBERS`] share an address:
//!
//! | kind | how many | is | hears |
//! |---|---|---|---|
//! | full | the first of each address | the state machine of `isle-mesh` | everything that is said to all, by real nodes and by the crowd; what is said to it alone |
//! | voice | the others | an author ([`voice::Voice`]): announces, beacons, answers | PING, HELLO, and SUSPECT and DOWN of itself |
//!
//! What either says to all really goes onto the wire, by each IPv4 path that a node uses (the crowd has no IPv6); within the
//! crowd the full members are given it directly, its signature checked once. What is said to one goes onto the wire
//! only if that one is a real node. The digest in the words of voices, the table that all hand out over TCP and the
//! lots by which HELLO is answered are those of the first full member, which never falls silent.
//!
//! Watchers: a voice that may fall silent ([`Crowd::watched`]) names six full members; a few others
//! name a real node ([`Crowd::name_real_watchers`]), so that each of these watches six, the mean where all draw lots. These
//! also say a beacon every 100 ms to their watchers. The watchers of all other voices are voices, which neither listen nor vote,
//! so those beacons are not made.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use isle_mesh::identity::Identity;
use isle_mesh::member::{Address, MemberId, Record};
use isle_mesh::wire::{MeshTag, WIRE_VERSION};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::crowd::exchange::{Exchange, Order};
use crate::crowd::sockets::{FULL_PORT, VOICES_PORT};
use crate::crowd::voice::Voice;
use crate::network::{Host, Wire};

mod exchange;
pub(crate) mod flood;
pub(crate) mod meter;
mod sockets;
mod tables;
mod voice;

/// Members with one address: enough to keep neighbour tables small, fewer than the unproven that a node takes from one.
pub(crate) const HOST_MEMBERS: usize = 32;
/// So many watchers each member names (NETWORK.md, "ANNOUNCE").
const WATCHERS: usize = 6;
/// Where its tables are fetched.
const HTTP_PORT: u16 = 1233;
/// Prefix of its network and of the real nodes beside it.
pub(crate) const PREFIX: u8 = 16;
/// The crowd has answered an order by then, or hangs.
const OBEYS_WITHIN: Duration = Duration::from_secs(10);

/// A running crowd; ends when dropped.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// Its host.
    pub(crate) host: Host,
    watched: Vec<MemberId>,
    orders: Sender<Order>,
    late: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Puts `members` members on a wire, of which `watched` may fall silent, and returns when they all know each other.
    pub(crate) fn start(wire: &Wire, members: usize, watched: usize) -> Result<Self> {
        let addresses: Vec<Ipv4Addr> = (0..members.div_ceil(HOST_MEMBERS)).map(address).collect();
        let host = wire.host("crowd", &format!("{}/{PREFIX}", addresses[0]))?;
        for address in &addresses[1..] {
            host.address("add", &format!("{address}/{PREFIX}"), "eth0")?;
        }
        let sockets = sockets::Sockets::open(&host, addresses)?;
        let cast = Cast::of(members, watched);
        let ids = cast.watched.clone();
        let (orders, orders_in) = channel();
        let (ready, started) = channel();
        let late = Arc::new(AtomicU64::new(0));
        let noted = late.clone();
        let thread = thread::spawn(move || {
            let mut exchange = Exchange::new(sockets, cast, noted);
            exchange.introduce();
            let _ = ready.send(());
            exchange.run(&orders_in);
        });
        started.recv_timeout(Duration::from_secs(60)).context("the crowd does not start")?;
        Ok(Self { host, watched: ids, orders, late, thread: Some(thread) })
    }

    /// Members that may fall silent, in no particular order.
    pub(crate) fn watched(&self) -> &[MemberId] {
        &self.watched
    }

    /// So many voices name each of these real nodes as a watcher that it watches as many as the mean member: [`WATCHERS`].
    /// To be called when the real nodes have chosen theirs.
    pub(crate) fn name_real_watchers(&self, real: Vec<MemberId>) -> Result<()> {
        self.order(|done| Order::NameRealWatchers(real, done)).map(drop)
    }

    /// A member says and answers nothing any more; returns since when.
    pub(crate) fn fall_silent(&self, id: MemberId) -> Result<Instant> {
        self.order(|done| Order::FallSilent(id, done))
    }

    /// The longest that anything its full members had to do has waited since this was last asked: late ones doubt
    /// themselves and do not vote, so what is measured then is the machine.
    pub(crate) fn take_lateness(&self) -> Duration {
        Duration::from_micros(self.late.swap(0, Ordering::Relaxed))
    }

    fn order(&self, order: impl FnOnce(Sender<Instant>) -> Order) -> Result<Instant> {
        let (done, obeyed) = channel();
        self.orders.send(order(done)).ok().context("the crowd has ended")?;
        obeyed.recv_timeout(OBEYS_WITHIN).context("the crowd does not obey")
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // It may have ended by a panic, which is shown already.
        let _ = self.orders.send(Order::End);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// 10.77.1.1, 10.77.2.1, ...
fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, u8::try_from(1 + host).expect("fewer than 255 hosts"), 1)
}

/// Who is in the crowd, before anybody has said a word.
struct Cast {
    tag: MeshTag,
    /// One for each host, in order.
    fulls: Vec<Identity>,
    voices: Vec<Voice>,
    watched: Vec<MemberId>,
    random: StdRng,
}

impl Cast {
    fn of(members: usize, watched: usize) -> Self {
        let tag = MeshTag::of("isle");
        let mut random = StdRng::seed_from_u64(3);
        // The same keys each time, none that another test uses.
        let identity = |number: usize| Identity::for_test(1_000_000 + number as u64);
        let (fulls, others): (Vec<usize>, Vec<usize>) =
            (0..members).partition(|number| number % HOST_MEMBERS == 0);
        let fulls: Vec<Identity> = fulls.into_iter().map(identity).collect();
        let others: Vec<(usize, Identity)> =
            others.into_iter().map(|number| (number, identity(number))).collect();
        let full_ids: Vec<MemberId> = fulls.iter().map(Identity::id).collect();
        let voice_ids: Vec<MemberId> = others.iter().map(|(_, identity)| identity.id()).collect();
        let mut chosen: Vec<MemberId> = voice_ids.clone();
        rand::seq::SliceRandom::shuffle(chosen.as_mut_slice(), &mut random);
        chosen.truncate(watched);
        let attended: BTreeSet<MemberId> = chosen.iter().copied().collect();
        let mut voices = Vec::with_capacity(others.len());
        for (number, identity) in others {
            let id = identity.id();
            let pool = if attended.contains(&id) { &full_ids } else { &voice_ids };
            let mut watchers: Vec<MemberId> =
                pool.sample(&mut random, WATCHERS + 1).copied().filter(|other| *other != id).collect();
            watchers.truncate(WATCHERS);
            watchers.sort_unstable();
            let host = number / HOST_MEMBERS;
            let record = record(number, host, watchers);
            let at = SocketAddr::from((address(host), VOICES_PORT));
            let attended = attended.contains(&id);
            voices.push(Voice::new(tag, identity, record, host, at, attended, random.random()));
        }
        Self { tag, fulls, voices, watched: chosen, random }
    }
}

/// What a voice says of itself.
fn record(number: usize, host: usize, watchers: Vec<MemberId>) -> Record {
    Record {
        name: format!("crowd-{number}"),
        roles: vec!["pieces".to_owned()],
        addresses: vec![Address { ip: address(host).into(), prefix: PREFIX }],
        http_port: HTTP_PORT,
        unicast_port: VOICES_PORT,
        island: "local".to_owned(),
        island_given: false,
        draining: false,
        catalogue: None,
        watchers,
        protocol: (WIRE_VERSION, WIRE_VERSION),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tags: Vec::new(),
    }
}

/// The settings of the full member of a host.
fn settings(tag: MeshTag, host: usize) -> isle_mesh::membership::Settings {
    isle_mesh::membership::Settings {
        tag,
        island: None,
        name: format!("crowd-{}", host * HOST_MEMBERS),
        roles: vec!["pieces".to_owned()],
        tags: Vec::new(),
        http_port: HTTP_PORT,
        unicast_port: FULL_PORT,
        advertise: vec![Address { ip: address(host).into(), prefix: PREFIX }],
        catalogue: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
