//! The networks this node is on: who is a neighbour, and who else may ask.

use std::net::{IpAddr, SocketAddr};

use super::Membership;
use crate::member::Address;
use crate::verify::Refused;

impl Membership {
    /// Whether `ip` is in a network of one of our interfaces, or is this host.
    pub(super) fn is_on_link(&self, ip: IpAddr) -> bool {
        self.interfaces.iter().any(|interface| is_near(&interface.addresses, ip))
            || ip.to_canonical().is_loopback()
    }

    pub(super) fn check_on_link(&self, ip: IpAddr) -> Result<(), Refused> {
        if self.is_on_link(ip) || self.joining.is_admitted(ip) { Ok(()) } else { Err(Refused::OffLink) }
    }

    /// Who may fetch our table, if that has changed since it was last asked.
    pub fn take_neighbours(&mut self) -> Option<Neighbours> {
        std::mem::take(&mut self.neighbours_changed).then(|| Neighbours {
            networks: self
                .interfaces
                .iter()
                .flat_map(|interface| interface.addresses.iter().copied())
                .collect(),
            admitted: self.joining.admitted().collect(),
        })
    }

    /// Where members heard by ourselves listen for greetings: the discovery `port` at the address each was heard from.
    #[must_use]
    pub fn proven_addresses(&self, port: u16) -> Vec<SocketAddr> {
        let proven = self.peers.iter().filter(|(id, _)| self.table.is_proven(id));
        proven.filter_map(|(_, peer)| peer.from).map(|at| SocketAddr::new(at.ip(), port)).collect()
    }
}

/// Who may ask us for what only neighbours get.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Neighbours {
    /// Networks of our interfaces.
    pub networks: Vec<Address>,
    /// Others, who have shown by a cookie that they are where they say.
    pub admitted: Vec<IpAddr>,
}

/// Whether `ip` is this host, is local to some link, or is in one of these networks.
#[must_use]
pub fn is_near(networks: &[Address], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || is_link_local(ip) || networks.iter().any(|network| same_network(network, ip))
}

fn same_network(network: &Address, ip: IpAddr) -> bool {
    let shared = u32::from(network.prefix);
    match (network.ip, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(32 - shared.min(32)).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(128 - shared.min(128)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

pub(super) fn is_local_to_link(ip: IpAddr) -> bool {
    ip.is_loopback() || matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}
