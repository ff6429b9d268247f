//! Sockets of a node: on each interface one receiver per family on the shared discovery port, and one private
//! socket per family for everything meant for this node alone.
//!
//! Several nodes of a host share the discovery port: a broadcast reaches all of their sockets, a unicast only one.
//! A receiver is bound to its interface, so a datagram tells which network it is from, and a broadcast
//! leaves by that interface whatever the routes say.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::task::{Context, Poll};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net;
use tracing::debug;

use crate::member::Address;
use crate::membership::Interface;

/// Group for IPv4 networks that pass multicast but no broadcast.
pub(crate) const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 52, 35);
/// Group for IPv6, which knows no broadcast.
pub(crate) const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x5235);
/// A burst of 5,000 beacons fits; the kernel may grant less.
const RECEIVE_BYTES: usize = 1 << 20;

/// One socket and what its datagrams mean.
#[derive(Debug)]
pub(crate) struct Port {
    socket: UdpSocket,
    /// The same, for the reactor to tell when there is something to read; `None` while it rests.
    watch: Option<net::UdpSocket>,
    /// Its interface; 0: any.
    pub(crate) interface: u32,
    /// Listens on the discovery port.
    pub(crate) shared: bool,
    /// Where a word for everyone is sent by it.
    pub(crate) paths: Vec<SocketAddr>,
}

impl Port {
    /// Of a socket that does not block. Its datagrams are waited for from now on.
    ///
    /// # Errors
    /// There are no more descriptors, or the reactor takes no more.
    fn new(socket: UdpSocket, interface: u32, shared: bool, paths: Vec<SocketAddr>) -> io::Result<Self> {
        let mut port = Self { socket, watch: None, interface, shared, paths };
        port.watch()?;
        Ok(port)
    }

    /// Waits for its datagrams again.
    ///
    /// # Errors
    /// As for a new one; it rests on.
    pub(crate) fn watch(&mut self) -> io::Result<()> {
        if self.watch.is_none() {
            self.watch = Some(net::UdpSocket::from_std(self.socket.try_clone()?)?);
        }
        Ok(())
    }

    /// Wakes nobody for its datagrams until [`watch`](Self::watch): they wait to be read.
    pub(crate) fn rest(&mut self) {
        self.watch = None;
    }

    /// Ready when there is something to read; never while it rests.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        match self.watch.as_ref().map(|watch| watch.poll_recv_ready(context)) {
            // An error is for whoever reads.
            Some(Poll::Ready(_)) => Poll::Ready(()),
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }

    /// Takes the next datagram: its length and where it is from.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; others are answers of hosts that could not be reached.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match &self.watch {
            Some(watch) => watch.try_recv_from(buffer),
            None => self.socket.recv_from(buffer),
        }
    }

    /// Whether it is of that family.
    pub(crate) fn is_ipv4(&self) -> bool {
        self.socket.local_addr().is_ok_and(|own| own.is_ipv4())
    }

    /// Sends at once, or not at all when the kernel's buffer is full.
    ///
    /// Without asking the reactor: until that has looked at a new socket for the first time it says `WouldBlock`, and a
    /// node's first words would be lost, those that newcomers are known by.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.socket.send_to(bytes, to)
    }
}

/// Opens the sockets for everyone on one interface: a family whose addresses it lacks is left out, what fails too.
#[must_use]
pub(crate) fn open_shared(interface: &Interface, port: u16) -> Vec<Port> {
    open_on(interface, port, port)
}

/// Opens sockets that say words to everyone on one interface and hear nothing: for those who only ask. They take no
/// unicast from the nodes of this host, which share the discovery port.
#[must_use]
pub(crate) fn open_asking(interface: &Interface, port: u16) -> Vec<Port> {
    open_on(interface, 0, port)
}

/// How many sockets an interface gets if all goes well: one for each family it has addresses of.
#[must_use]
pub(crate) fn families(interface: &Interface) -> usize {
    let has = |v4: bool| interface.addresses.iter().any(|address| address.ip.is_ipv4() == v4);
    usize::from(has(true)) + usize::from(has(false))
}

fn open_on(interface: &Interface, own_port: u16, port: u16) -> Vec<Port> {
    let mut ports = Vec::new();
    let (fours, sixes): (Vec<Address>, Vec<Address>) =
        interface.addresses.iter().copied().partition(|address| address.ip.is_ipv4());
    if !fours.is_empty() {
        let mut paths: Vec<SocketAddr> = Vec::new();
        for address in &fours {
            if let Some(directed) = directed_broadcast(address.ip, address.prefix) {
                paths.push((directed, port).into());
            }
        }
        if !interface.loopback {
            paths.push((Ipv4Addr::BROADCAST, port).into());
        }
        paths.push((GROUP_V4, port).into());
        paths.dedup();
        let first = fours.first().map(|address| address.ip);
        keep(&mut ports, open_v4(interface, own_port, first), interface, paths);
    }
    if !sixes.is_empty() {
        let paths = vec![SocketAddrV6::new(GROUP_V6, port, 0, interface.index).into()];
        keep(&mut ports, open_v6(interface, own_port), interface, paths);
    }
    ports
}

fn keep(ports: &mut Vec<Port>, opened: io::Result<UdpSocket>, interface: &Interface, paths: Vec<SocketAddr>) {
    match opened.and_then(|socket| Port::new(socket, interface.index, true, paths)) {
        Ok(port) => ports.push(port),
        Err(error) => debug!(interface = interface.name, %error, "no discovery socket"),
    }
}

fn open_v4(interface: &Interface, port: u16, own: Option<IpAddr>) -> io::Result<UdpSocket> {
    let socket = open(Domain::IPV4)?;
    socket.set_broadcast(true)?;
    bind_to(&socket, interface);
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    let by = InterfaceIndexOrAddress::Index(interface.index);
    if let Err(error) = socket.join_multicast_v4_n(&GROUP_V4, &by) {
        debug!(interface = interface.name, %error, "no IPv4 multicast");
    }
    if let Some(IpAddr::V4(own)) = own {
        let _ = socket.set_multicast_if_v4(&own);
    }
    socket.set_multicast_loop_v4(true)?;
    socket.set_multicast_ttl_v4(1)?;
    Ok(socket.into())
}

fn open_v6(interface: &Interface, port: u16) -> io::Result<UdpSocket> {
    let socket = open(Domain::IPV6)?;
    socket.set_only_v6(true)?;
    bind_to(&socket, interface);
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    if let Err(error) = socket.join_multicast_v6(&GROUP_V6, interface.index) {
        debug!(interface = interface.name, %error, "no IPv6 multicast");
    }
    socket.set_multicast_if_v6(interface.index)?;
    socket.set_multicast_loop_v6(true)?;
    socket.set_multicast_hops_v6(1)?;
    Ok(socket.into())
}

/// Opens the private sockets, with one port number for both families; returns them and the number.
///
/// # Errors
/// Neither family gives a socket.
pub(crate) fn open_private() -> io::Result<(Vec<Port>, u16)> {
    let any = |ip: IpAddr, port: u16| -> io::Result<UdpSocket> {
        let socket = Socket::new(
            if ip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 },
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        if ip.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        let _ = socket.set_recv_buffer_size(RECEIVE_BYTES);
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(ip, port).into())?;
        Ok(socket.into())
    };
    let private = |socket| Port::new(socket, 0, false, Vec::new());
    // The number that one family gives may be taken in the other: try a few.
    for _ in 0..16 {
        let four = any(Ipv4Addr::UNSPECIFIED.into(), 0);
        let Ok(four) = four else { break };
        let port = four.local_addr()?.port();
        match any(Ipv6Addr::UNSPECIFIED.into(), port) {
            Ok(six) => return Ok((vec![private(four)?, private(six)?], port)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            // No IPv6 on this host.
            Err(_) => return Ok((vec![private(four)?], port)),
        }
    }
    let six = any(Ipv6Addr::UNSPECIFIED.into(), 0)?;
    let port = six.local_addr()?.port();
    Ok((vec![private(six)?], port))
}

fn open(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    let _ = socket.set_recv_buffer_size(RECEIVE_BYTES);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Where the kernel does not allow it, the socket hears every interface: words are then heard
/// several times, which costs little, and broadcasts follow the routes.
fn bind_to(socket: &Socket, interface: &Interface) {
    if let Err(error) = socket.bind_device(Some(interface.name.as_bytes())) {
        debug!(interface = interface.name, %error, "socket not bound to its interface");
    }
}

/// The address that means everybody in the network of `ip`; none for IPv6, /31 and /32.
#[must_use]
pub(crate) fn directed_broadcast(ip: IpAddr, prefix: u8) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) if prefix <= 30 => Some(Ipv4Addr::from_bits(ip.to_bits() | (u32::MAX >> prefix))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broadcast_address_follows_from_the_real_prefix() {
        let of = |ip: [u8; 4], prefix| directed_broadcast(IpAddr::from(ip), prefix).map(|ip| ip.octets());
        assert_eq!(of([10, 0, 0, 3], 28), Some([10, 0, 0, 15]));
        assert_eq!(of([192, 168, 1, 7], 24), Some([192, 168, 1, 255]));
        assert_eq!(of([127, 0, 0, 1], 8), Some([127, 255, 255, 255]));
        assert_eq!(of([10, 0, 0, 3], 31), None);
        assert_eq!(of([10, 0, 0, 3], 32), None);
        assert_eq!(of([1, 2, 3, 4], 0), Some([255, 255, 255, 255]));
    }

    #[tokio::test]
    async fn a_socket_sends_before_the_reactor_has_seen_it() {
        let (ports, number) = open_private().unwrap();
        let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
        let four = ports.iter().find(|port| port.is_ipv4()).unwrap();
        assert_eq!(four.send(b"first", SocketAddr::new(loopback, number)).unwrap(), 5);
    }

    #[tokio::test]
    async fn what_comes_while_a_socket_rests_waits_and_wakes_whoever_watches_again() {
        let (mut ports, number) = open_private().unwrap();
        let four = ports.iter_mut().find(|port| port.is_ipv4()).unwrap();
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), number);
        let mut buffer = [0; 16];
        four.rest();
        four.send(b"one", to).unwrap();
        let mut readable = std::pin::pin!(std::future::poll_fn(|context| four.poll_readable(context)));
        let wait = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(wait, &mut readable).await.is_err());
        assert_eq!(four.receive(&mut buffer).unwrap().0, 3);
        assert_eq!(four.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        four.send(b"three", to).unwrap();
        four.watch().unwrap();
        std::future::poll_fn(|context| four.poll_readable(context)).await;
        assert_eq!(four.receive(&mut buffer).unwrap().0, 5);
        assert_eq!(four.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn the_private_port_is_one_number_for_both_families() {
        let (ports, number) = open_private().unwrap();
        assert!(ports.iter().all(|port| port.socket.local_addr().unwrap().port() == number));
    }
}
