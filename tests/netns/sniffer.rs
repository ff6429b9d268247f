//! Sees every IPv4 packet that passes a host's network cards, both ways, with the moment: what its kernel hears and says
//! even when no process is there any more.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::network::Host;

/// Every protocol, in network order (`ETH_P_ALL`, packet(7)).
const EVERYTHING: u16 = 0x0003_u16.to_be();
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Of TCP's flags.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// One packet.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// When it was read.
    pub(crate) at: Instant,
    /// From where.
    pub(crate) from: SocketAddrV4,
    /// To where.
    pub(crate) to: SocketAddrV4,
    /// TCP's flags, or `None` for UDP.
    flags: Option<u8>,
    /// What follows the header of TCP or UDP.
    pub(crate) payload: Vec<u8>,
}

impl Packet {
    /// Whether it asks for a TCP connection, or for something over one.
    pub(crate) fn asks(&self) -> bool {
        self.flags.is_some_and(|flags| flags & (SYN | ACK) == SYN || !self.payload.is_empty())
    }

    /// UDP and TCP over IPv4; `None` for all else.
    fn parse(at: Instant, bytes: &[u8]) -> Option<Self> {
        let header = usize::from(bytes.first()? & 0x0f) * 4;
        if bytes.first()? >> 4 != 4 {
            return None;
        }
        // Short frames may be padded: what counts is the length that the packet itself says.
        let total = usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?));
        let (protocol, rest) = (*bytes.get(9)?, bytes.get(header..total)?);
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
        let port = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
        let (flags, payload) = match protocol {
            TCP => (Some(*rest.get(13)?), rest.get(usize::from(rest.get(12)? >> 4) * 4..)?.to_vec()),
            UDP => (None, rest.get(8..)?.to_vec()),
            _ => return None,
        };
        let (from, to) =
            (SocketAddrV4::new(address(12)?, port(0)?), SocketAddrV4::new(address(16)?, port(2)?));
        Some(Self { at, from, to, flags, payload })
    }
}

/// Records packets until the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Sniffer {
    seen: Arc<Mutex<Vec<Packet>>>,
}

impl Sniffer {
    /// Starts to record those that `wanted` names.
    pub(crate) fn open(host: &Host, wanted: impl Fn(&Packet) -> bool + Send + 'static) -> Result<Self> {
        let everything = Protocol::from(i32::from(EVERYTHING));
        let socket = host.enter(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(everything)))?;
        let socket = socket.context("a socket that sees packets")?;
        // The thread looks this often whether anybody still holds the sniffer.
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let sniffer = Self { seen: Arc::default() };
        let background = sniffer.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while Arc::strong_count(&background.seen) > 1 {
                let Ok(length) = std::io::Read::read(&mut &socket, &mut buffer) else { continue };
                let packet = Packet::parse(Instant::now(), &buffer[..length]);
                if let Some(packet) = packet.filter(|packet| wanted(packet)) {
                    background.seen.lock().expect("nothing panics while holding it").push(packet);
                }
            }
        });
        Ok(sniffer)
    }

    /// Everything recorded so far.
    pub(crate) fn all(&self) -> Vec<Packet> {
        self.seen.lock().expect("nothing panics while holding it").clone()
    }
}
