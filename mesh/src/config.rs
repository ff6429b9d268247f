//! How a node takes part in a mesh. The default works on an unknown LAN.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use socket2::{Domain, Socket, Type};

use crate::member::{CatalogueSummary, MemberId};
use crate::outward::Outward;

/// UDP port of discovery. Chosen with the service's TCP port 5235, so that people remember one number.
pub const DISCOVERY_PORT: u16 = 5235;

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

/// Settings of [`Mesh::join`](crate::mesh::Mesh::join).
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Label of this node, shown to people. 1 to 63 bytes of visible characters.
    pub name: String,
    /// Which mesh: nodes of others do not exist for us.
    pub mesh: String,
    /// Island name, if one is given. Else a name that is heard is taken over; a node with the role `bridge` gives one made
    /// from its key meanwhile.
    pub island: Option<String>,
    /// What this node does: see [`Record::roles`](crate::member::Record::roles).
    pub roles: Vec<String>,
    /// Labels of the application: at most 16, 512 bytes in all.
    pub tags: Vec<(String, String)>,
    /// Version of the software.
    pub version: String,
    /// TCP port where `GET /mesh/records` and `/mesh/proof` are answered; 0: nowhere (then others
    /// cannot fetch the table here).
    pub http_port: u16,
    /// Addresses to announce instead of those of the interfaces.
    pub advertise: Vec<IpAddr>,
    /// What this node offers.
    pub catalogue: Option<CatalogueSummary>,
    /// UDP port shared by all nodes; one may choose another to be alone.
    pub discovery_port: u16,
    /// Names of the interfaces to use; empty: all that are up.
    pub interfaces: Vec<String>,
    /// `HOST` or `HOST:PORT` to greet besides what broadcast reaches; resolved again every 30 s.
    pub seeds: Vec<String>,
    /// Where the addresses of members are remembered for the next start.
    pub state_dir: Option<PathBuf>,
    /// On a bridge: who takes what advances the table, for the links to other islands.
    pub outward: Option<Arc<dyn Outward>>,
    /// Keys of links: see [`Mesh::set_foreign`](crate::mesh::Mesh::set_foreign).
    pub foreign: BTreeSet<MemberId>,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            name: "node".to_owned(),
            mesh: "isle".to_owned(),
            island: None,
            roles: Vec::new(),
            tags: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            http_port: 0,
            advertise: Vec::new(),
            catalogue: None,
            discovery_port: DISCOVERY_PORT,
            interfaces: Vec::new(),
            seeds: Vec::new(),
            state_dir: None,
            outward: None,
            foreign: BTreeSet::new(),
        }
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
