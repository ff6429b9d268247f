//! What goes into the state machine and comes out of it, besides words and members.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use crate::member::{Address, CatalogueSummary, Epoch, MemberId, Record};
use crate::verify::Refused;
use crate::wire::MeshTag;

/// What a node is when it starts. What it says of itself later: [`announce`](super::Membership::announce).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which mesh.
    pub tag: MeshTag,
    /// Island name it was given.
    pub island: Option<String>,
    /// Label for people.
    pub name: String,
    /// See [`Record::roles`].
    pub roles: Vec<String>,
    /// See [`Record::tags`].
    pub tags: Vec<(String, String)>,
    /// TCP port of its HTTP listener; 0 for none.
    pub http_port: u16,
    /// UDP port of its private socket.
    pub unicast_port: u16,
    /// Announced instead of the interfaces' addresses, if not empty.
    pub advertise: Vec<Address>,
    /// What it offers.
    pub catalogue: Option<CatalogueSummary>,
    /// Version of its software.
    pub version: String,
}

/// What a node may change of its record while it runs. `None`: as it is.
#[derive(Clone, Debug, Default)]
pub struct Announcement {
    /// Label for people.
    pub name: Option<String>,
    /// See [`Record::roles`].
    pub roles: Option<Vec<String>>,
    /// See [`Record::tags`].
    pub tags: Option<Vec<(String, String)>>,
    /// What it offers; `Some(None)` withdraws it.
    pub catalogue: Option<Option<CatalogueSummary>>,
}

impl Announcement {
    pub(super) fn apply(&self, record: &mut Record) {
        let Self { name, roles, tags, catalogue } = self.clone();
        if let Some(name) = name {
            record.name = name;
        }
        if let Some(roles) = roles {
            record.roles = roles;
        }
        if let Some(tags) = tags {
            record.tags = tags;
        }
        if let Some(catalogue) = catalogue {
            record.catalogue = catalogue;
        }
    }
}

/// An interface that discovery uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// The kernel's number of it; the scope of its link-local addresses.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its addresses with their networks.
    pub addresses: Vec<Address>,
    /// Reaches this host alone.
    pub loopback: bool,
}

/// Where a datagram came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// Sender, IPv4-mapped addresses as IPv4.
    pub addr: SocketAddr,
    /// Whether it came in on the shared discovery port.
    pub shared: bool,
}

/// Bytes to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// To whom.
    pub to: Destination,
    /// One datagram.
    pub bytes: Bytes,
}

/// To whom a datagram goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// By every broadcast and multicast path of every interface, to the discovery port.
    Everyone,
    /// By the best path of each interface alone: for what is said again and again.
    EveryoneBriefly,
    /// One address.
    Unicast(SocketAddr),
    /// One address, from a socket of its own that shows whether the host refuses it (ICMP port unreachable). Then
    /// [`handle_refused`](super::Membership::handle_refused) is to be called.
    Probe(SocketAddr),
}

/// A wish for another member's table; answered by [`merge`](super::Membership::merge) or [`fetch_failed`](super::Membership::fetch_failed).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// Whose.
    pub from: MemberId,
    /// Its HTTP listener, best first.
    pub at: Vec<SocketAddr>,
}

/// A wish for what a bridge knows of other islands; answered by [`merge_far`](super::Membership::merge_far) or
/// [`far_fetch_failed`](super::Membership::far_fetch_failed).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FarFetch {
    /// Whose.
    pub from: MemberId,
    /// Its HTTP listener, best first.
    pub at: Vec<SocketAddr>,
    /// By whose counting `since` is; 0 for everything.
    pub instance: u64,
    /// What changed after this.
    pub since: u64,
}

/// When [`handle_timeout`](super::Membership::handle_timeout) has work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wakeup {
    /// When.
    pub at: Instant,
    /// What for.
    pub why: &'static str,
}

/// Why this node must not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// Somebody else speaks with our key, in this later epoch.
    KeyInUse(Epoch),
    /// The key's epoch could not be raised above this one: disk, or no epoch above.
    NoEpochAbove(Epoch),
}

impl Counters {
    pub(super) fn refuse(&mut self, refused: Refused) {
        if let Some(at) = Refused::ALL.iter().position(|reason| *reason == refused) {
            self.refused[at] += 1;
        }
    }
}

/// What the machine has counted since it started. Plain numbers; whoever drives it exports them.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Datagrams that were acted upon.
    pub accepted: u64,
    /// Datagrams refused, by reason in the order of [`Refused::ALL`].
    pub refused: [u64; Refused::ALL.len()],
    /// Suspicions raised.
    pub suspicions: u64,
    /// Suspicions that an answer ended.
    pub false_suspicions: u64,
    /// Times that our own loop ran so late that we believed nobody's silence for a while.
    pub late: u64,
    /// Times that so many were silent together that we doubted our own ears.
    pub many_silent: u64,
    /// Words passed on for others.
    pub relayed: u64,
    /// Words of other islands refused because whoever brought them has brought too many members.
    pub far_refused: u64,
    /// Members of other islands dropped to make room for those of whom less had been brought.
    pub far_displaced: u64,
    /// Times that there was no room for another island that was known, or that a way leads to: who brings it brings most.
    pub islands_left_out: u64,
}
