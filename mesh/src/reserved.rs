//! A discovery port that is held for a mesh of this host alone.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A discovery port for the nodes of one mesh on this host alone, as demonstrations and tests want it. Nobody else
/// is given its number while this lives, and nodes that are told it can open it.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    /// What arrives here fills its small buffer and is dropped. A unicast goes to the nodes, whose sockets are bound to
    /// an interface.
    _held: Socket,
}

impl ReservedPort {
    /// Takes a port that is free.
    ///
    /// # Errors
    /// The kernel gives no socket or no port.
    pub fn take() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        // Not before it is bound: a shared port would be given to two at once.
        socket.set_reuse_address(true)?;
        socket.set_recv_buffer_size(0)?;
        let number = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
        Ok(Self { number, _held: socket })
    }

    /// The port.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_given_to_nobody_else_and_opens_for_nodes() {
        let port = ReservedPort::take().unwrap();
        let exclusive = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, port.number()));
        assert_eq!(exclusive.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let nodes = [(); 2].map(|()| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.number())).into()).unwrap();
            socket
        });
        drop(nodes);
    }
}
