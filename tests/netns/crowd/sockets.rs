//! The crowd's sockets: on each address one of the full member there and one that its voices share, and for all of them one
//! ear on the discovery port and one listener.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::HTTP_PORT;
use crate::network::Host;
use crate::tap::{self, DISCOVERY};

/// Private port of the full member of an address.
pub(super) const FULL_PORT: u16 = 20_000;
/// Private port of all voices of an address: a PING says whom it means.
pub(super) const VOICES_PORT: u16 = 20_001;
/// What one look takes from a socket, so that the others get their turn.
const READ_MAX: usize = 256;
/// As the nodes' own: NETWORK.md, section 1.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 52, 35);
/// Everybody in 10.77.0.0/16.
const DIRECTED: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 255);

/// Which socket: of whom a word is, or for whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Port {
    /// The discovery port.
    All,
    /// The full member of this host.
    Full(usize),
    /// The voices of this host.
    Voices(usize),
}

/// By which paths a word for everyone leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Paths {
    /// Each of NETWORK.md, section 1, but IPv6.
    All,
    /// The first of them, as for most beacons of a node.
    First,
}

pub(super) struct Sockets {
    addresses: Vec<Ipv4Addr>,
    ear: UdpSocket,
    fulls: Vec<UdpSocket>,
    voices: Vec<UdpSocket>,
    pub(super) listener: TcpListener,
}

impl Sockets {
    pub(super) fn open(host: &Host, addresses: Vec<Ipv4Addr>) -> Result<Self> {
        let ear = tap::shared_socket_on(host)?;
        ear.set_nonblocking(true)?;
        let open = |port: u16| {
            let private = |address: &Ipv4Addr| {
                let socket = tap::speaker_on(host, SocketAddr::from((*address, port)))?;
                socket.set_nonblocking(true)?;
                let options = SockRef::from(&socket);
                options.set_multicast_if_v4(address)?;
                // The crowd's own ear knows what the crowd says.
                options.set_multicast_loop_v4(false)?;
                options.set_recv_buffer_size(1 << 20)?;
                anyhow::Ok(socket)
            };
            addresses.iter().map(private).collect::<Result<Vec<_>>>()
        };
        let (fulls, voices) = (open(FULL_PORT)?, open(VOICES_PORT)?);
        SockRef::from(&ear).join_multicast_v4(&GROUP, &addresses[0]).context("the multicast group")?;
        let listener = host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, HTTP_PORT)))??;
        listener.set_nonblocking(true)?;
        Ok(Self { addresses, ear, fulls, voices, listener })
    }

    /// Where the full member of a host is.
    pub(super) fn full_at(&self, host: usize) -> SocketAddr {
        SocketAddr::from((self.addresses[host], FULL_PORT))
    }

    /// Whose socket this address is, if it is the crowd's.
    pub(super) fn port_at(&self, at: SocketAddr) -> Option<Port> {
        let host = self.addresses.iter().position(|address| at.ip() == *address)?;
        match at.port() {
            FULL_PORT => Some(Port::Full(host)),
            VOICES_PORT => Some(Port::Voices(host)),
            DISCOVERY => Some(Port::All),
            _ => None,
        }
    }

    /// Waits until there is something to read, or `until`.
    pub(super) fn wait(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now()).min(Duration::from_millis(10));
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        let sockets = std::iter::once(&self.ear).chain(&self.fulls).chain(&self.voices);
        let mut waiting: Vec<PollFd<'_>> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        waiting.push(PollFd::new(&self.listener, PollFlags::IN));
        // Interrupted by a signal is as good as a timeout.
        let _ = poll(&mut waiting, Some(&timeout));
    }

    /// What has come meanwhile.
    pub(super) fn read(&self, mut take: impl FnMut(Port, SocketAddr, &[u8])) {
        let mut buffer = [0; 2048];
        let fulls = self.fulls.iter().enumerate().map(|(host, socket)| (Port::Full(host), socket));
        let voices = self.voices.iter().enumerate().map(|(host, socket)| (Port::Voices(host), socket));
        for (port, socket) in std::iter::once((Port::All, &self.ear)).chain(fulls).chain(voices) {
            for _ in 0..READ_MAX {
                match socket.recv_from(&mut buffer) {
                    Ok((length, from)) => take(port, from, &buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // An ICMP answer to something that was sent.
                    Err(_) => {}
                }
            }
        }
    }

    /// Says something to everybody on the wire.
    pub(super) fn broadcast(&self, by: Port, paths: Paths, bytes: &[u8]) {
        let all = [DIRECTED, Ipv4Addr::BROADCAST, GROUP];
        let paths = match paths {
            Paths::All => &all[..],
            Paths::First => &all[..1],
        };
        for path in paths {
            self.send(by, SocketAddr::from((*path, DISCOVERY)), bytes);
        }
    }

    /// Says something to one. What does not fit into the kernel's buffers is lost, as a node's words are.
    pub(super) fn send(&self, by: Port, to: SocketAddr, bytes: &[u8]) {
        let socket = match by {
            Port::All => &self.ear,
            Port::Full(host) => &self.fulls[host],
            Port::Voices(host) => &self.voices[host],
        };
        let _ = socket.send_to(bytes, to);
    }
}
