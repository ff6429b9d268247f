//! Listens to what is said on a wire, and says things: a stranger's socket on the discovery port.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::network::Host;

/// The discovery port.
pub(crate) const DISCOVERY: u16 = 5235;

/// The number of FAREWELL among the kinds of datagrams (NETWORK.md, "Messages").
pub(crate) const FAREWELL: u8 = 8;

/// Where the author's key lies in a datagram, and the byte that says its kind (NETWORK.md, "Datagrams").
const AUTHOR: std::ops::Range<usize> = 8..40;
const KIND: usize = 3;

/// One datagram heard.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// When it was read.
    pub(crate) at: Instant,
    /// All of it.
    pub(crate) bytes: Vec<u8>,
}

impl Heard {
    /// The number of its kind; 0 if it has none.
    pub(crate) fn kind(&self) -> u8 {
        self.bytes.get(KIND).copied().unwrap_or(0)
    }

    /// Its author's key as ids are shown.
    pub(crate) fn author(&self) -> String {
        let key = self.bytes.get(AUTHOR).unwrap_or_default();
        data_encoding::BASE32_NOPAD.encode(key).to_ascii_lowercase()
    }
}

/// Records every datagram that reaches the discovery port of a host.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    shared: Arc<(Mutex<Vec<Heard>>, Condvar)>,
}

impl Tap {
    /// Starts listening, until the last clone of this tap is dropped.
    pub(crate) fn open(host: &Host) -> Result<Self> {
        let socket = shared_socket_on(host)?;
        let tap = Self { shared: Arc::default() };
        let background = tap.clone();
        // The thread looks this often whether anybody still holds the tap.
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while Arc::strong_count(&background.shared) > 1 {
                if let Ok(length) = socket.recv(&mut buffer) {
                    let heard = Heard { at: Instant::now(), bytes: buffer[..length].to_vec() };
                    let (log, changed) = &*background.shared;
                    log.lock().expect("nothing panics while holding it").push(heard);
                    changed.notify_all();
                }
            }
        });
        Ok(tap)
    }

    /// Everything heard so far.
    pub(crate) fn all(&self) -> Vec<Heard> {
        self.shared.0.lock().expect("nothing panics while holding it").clone()
    }

    /// Waits for the first datagram, old or new, that fits.
    pub(crate) fn wait(
        &self,
        what: &str,
        patience: Duration,
        mut fits: impl FnMut(&Heard) -> bool,
    ) -> Result<Heard> {
        let until = Instant::now() + patience;
        let (log, changed) = &*self.shared;
        let mut heard = log.lock().expect("nothing panics while holding it");
        let mut next = 0;
        loop {
            if let Some(found) = heard[next..].iter().find(|datagram| fits(datagram)) {
                return Ok(found.clone());
            }
            next = heard.len();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{what} was not heard within {patience:?} ({next} datagrams were)");
            }
            heard = changed.wait_timeout(heard, left).expect("nothing panics while holding it").0;
        }
    }
}

/// A socket of a host on the discovery port, which its nodes share.
pub(crate) fn shared_socket_on(host: &Host) -> Result<UdpSocket> {
    host.enter(shared_socket)?.context("a socket on the discovery port")
}

/// A socket on the discovery port that others may share, and that may broadcast.
fn shared_socket() -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_broadcast(true)?;
    let _ = socket.set_recv_buffer_size(4 << 20);
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, DISCOVERY)).into())?;
    Ok(socket.into())
}

/// A socket of a host on any free port, allowed to broadcast, bound to one of its addresses.
pub(crate) fn speaker(host: &Host, address: Ipv4Addr) -> Result<UdpSocket> {
    speaker_on(host, SocketAddr::from((address, 0)))
}

/// The same on a port of one's choice.
pub(crate) fn speaker_on(host: &Host, at: SocketAddr) -> Result<UdpSocket> {
    host.enter(|| {
        let socket = UdpSocket::bind(at)?;
        socket.set_broadcast(true)?;
        Ok(socket)
    })?
}
