//! What lies between islands: a wire that carries no broadcast, and relays on it that take their time.
//!
//! A relay is a host that passes datagrams on to one other after a fixed delay, each way: the kernels that this must run
//! on have no netem. Who is dialled through it sees the relay's address.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::measure::percentile;
use crate::network::{Host, Wire};

/// UDP port of bridges.
pub(crate) const QUIC_PORT: u16 = 5236;
/// A relay that is this far behind drops what comes, as a router would.
const UNDER_WAY_MAX: usize = 4096;
/// The largest datagram.
const DATAGRAM_BYTES: usize = 65_536;
/// Long for a datagram there and back.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a relay looks whether it has ended.
const LOOK: Duration = Duration::from_millis(50);

/// The wire between the islands' bridges.
#[derive(Debug)]
pub(crate) struct Sea {
    wire: Wire,
    hosts: u8,
}

impl Sea {
    /// An empty one. What is said to all on it is heard by nobody.
    pub(crate) fn new() -> Result<Self> {
        let wire = Wire::new()?;
        wire.drop_matching("ether type ip meta pkttype { broadcast, multicast }", true)?;
        wire.drop_matching("ether type ip6", true)?;
        Ok(Self { wire, hosts: 0 })
    }

    /// Plugs a host in: its address there.
    pub(crate) fn plug(&mut self, host: &Host) -> Result<Ipv4Addr> {
        self.hosts += 1;
        let address = Ipv4Addr::new(10, 99, 0, self.hosts);
        host.plug(&self.wire, &[&format!("{address}/24")])?;
        Ok(address)
    }

    /// Nothing comes from or reaches this host over the sea any more; or again.
    pub(crate) fn cut_off(&self, host: &Host, cut: bool) -> Result<()> {
        self.wire.cut_off(host, cut)
    }

    /// Nothing goes between these two any more, either way; or again.
    pub(crate) fn cut_between(&self, one: &Host, other: &Host, cut: bool) -> Result<()> {
        self.wire.cut_one_way(one, other, cut)?;
        self.wire.cut_one_way(other, one, cut)
    }

    /// A host that is on the sea alone.
    pub(crate) fn host(&mut self, label: &str) -> Result<Host> {
        let host = Host::new(label)?;
        self.plug(&host)?;
        Ok(host)
    }

    /// A relay to the bridge at `to`: datagrams take `delay` longer, each way.
    pub(crate) fn relay(&mut self, to: Ipv4Addr, delay: Duration) -> Result<Relay> {
        self.relay_to(SocketAddr::from((to, QUIC_PORT)), delay)
    }

    /// The same to any port.
    pub(crate) fn relay_to(&mut self, to: SocketAddr, delay: Duration) -> Result<Relay> {
        let host = Host::new("relay")?;
        let address = self.plug(&host)?;
        Relay::start(host, address, to, delay)
    }

    /// What a datagram takes there and back between two hosts, one of which has the address `there`, over a relay with this
    /// delay; the median of some. Like whoever asks now and then, each begins on a machine that has gone to sleep.
    pub(crate) fn round_trip(
        &mut self,
        near: &Host,
        (far, there): (&Host, Ipv4Addr),
        delay: Duration,
    ) -> Result<Duration> {
        let echo = far.enter(|| UdpSocket::bind((there, 0)))??;
        echo.set_read_timeout(Some(PATIENCE))?;
        let relay = self.relay_to(echo.local_addr()?, delay)?;
        thread::spawn(move || {
            let mut bytes = [0; 64];
            while let Ok((length, from)) = echo.recv_from(&mut bytes) {
                let _ = echo.send_to(&bytes[..length], from);
            }
        });
        let asking = near.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
        asking.set_read_timeout(Some(PATIENCE))?;
        let mut took = Vec::new();
        for _ in 0..21 {
            thread::sleep(delay);
            let began = Instant::now();
            asking.send_to(b"there and back", relay.at)?;
            asking.recv(&mut [0; 64])?;
            took.push(began.elapsed());
        }
        Ok(percentile(&took, 50))
    }
}

/// Passes datagrams on, late. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Where to dial instead.
    pub(crate) at: SocketAddr,
    ended: Arc<AtomicBool>,
}

/// A datagram on its way: when it is due, from which socket, to whom.
struct Letter {
    due: Instant,
    socket: UdpSocket,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Relay {
    fn start(host: Host, address: Ipv4Addr, to: SocketAddr, delay: Duration) -> Result<Self> {
        let at = SocketAddr::from((address, QUIC_PORT));
        let near = host.enter(|| UdpSocket::bind(at))??;
        near.set_read_timeout(Some(LOOK))?;
        let ended = Arc::new(AtomicBool::new(false));
        let (letters, post) = sync_channel::<Letter>(UNDER_WAY_MAX);
        thread::spawn(move || {
            // All take equally long, so they stay in order.
            let mut waiting: VecDeque<Letter> = VecDeque::new();
            loop {
                let wait =
                    waiting.front().map_or(LOOK, |next| next.due.saturating_duration_since(Instant::now()));
                match post.recv_timeout(wait) {
                    Ok(letter) => waiting.push_back(letter),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                while let Some(letter) = waiting.pop_front_if(|next| next.due <= Instant::now()) {
                    // Whoever is gone misses it.
                    let _ = letter.socket.send_to(&letter.bytes, letter.to);
                }
            }
        });
        let over = ended.clone();
        thread::spawn(move || {
            let mut backs: HashMap<SocketAddr, UdpSocket> = HashMap::new();
            let mut bytes = vec![0; DATAGRAM_BYTES];
            while !over.load(Ordering::Relaxed) {
                let Ok((length, from)) = near.recv_from(&mut bytes) else { continue };
                let socket = match backs.entry(from) {
                    Entry::Occupied(known) => known.get().try_clone(),
                    Entry::Vacant(new) => {
                        let opened = host.enter(|| UdpSocket::bind((address, 0)));
                        let Ok(Ok(far)) = opened else { continue };
                        let (Ok(back), Ok(near)) = (far.try_clone(), near.try_clone()) else { continue };
                        answer(back, near, from, delay, letters.clone(), over.clone());
                        new.insert(far).try_clone()
                    }
                };
                let Ok(socket) = socket else { continue };
                let letter =
                    Letter { due: Instant::now() + delay, socket, to, bytes: bytes[..length].to_vec() };
                let _ = letters.try_send(letter);
            }
        });
        Ok(Self { at, ended })
    }
}

/// The way back to one client.
fn answer(
    back: UdpSocket,
    near: UdpSocket,
    client: SocketAddr,
    delay: Duration,
    letters: SyncSender<Letter>,
    over: Arc<AtomicBool>,
) {
    thread::spawn(move || {
        let _ = back.set_read_timeout(Some(LOOK));
        let mut bytes = vec![0; DATAGRAM_BYTES];
        while !over.load(Ordering::Relaxed) {
            let Ok((length, _)) = back.recv_from(&mut bytes) else { continue };
            let Ok(socket) = near.try_clone() else { continue };
            let letter =
                Letter { due: Instant::now() + delay, socket, to: client, bytes: bytes[..length].to_vec() };
            let _ = letters.try_send(letter);
        }
    });
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
