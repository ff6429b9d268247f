//! The JSON of members, links and events, as served here and read by the command line; and what every
//! `reason` means.

use std::time::{Duration, Instant};

use isle_mesh::event::EventKind;
use isle_mesh::member::{Member, Reason};
use serde::{Deserialize, Serialize};

/// Body of `GET /members` and of the event `snapshot`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MembersPage {
    /// Who answers.
    #[serde(rename = "self")]
    pub me: SelfView,
    /// The islands known, own first, then by name.
    pub islands: Vec<IslandView>,
    /// The members, by name, then id. Down and left ones stay for 10 minutes.
    pub members: Vec<MemberView>,
}

/// The node that answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SelfView {
    /// Its key, base32.
    pub id: String,
    /// Its label.
    pub name: String,
    /// Its island.
    pub island: String,
}

/// One island.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IslandView {
    /// Its name.
    pub name: String,
    /// Whether requests can reach it now.
    pub reachable: bool,
    /// How many of its members are alive or suspect.
    pub members: usize,
    /// The islands on the way, ours first, it last.
    pub path: Vec<String>,
}

/// One member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberView {
    /// Its key, base32.
    pub id: String,
    /// Its bare label; not unique.
    pub name: String,
    /// What it does.
    pub roles: Vec<String>,
    /// The island it counts itself to.
    pub island: String,
    /// `alive`, `suspect`, `down` or `left`.
    pub standing: String,
    /// It said that it stops soon.
    pub draining: bool,
    /// Whether we believe that we can reach it.
    pub reachable: bool,
    /// Where its HTTP listener is dialled from here; `null` if nowhere.
    pub address: Option<String>,
    /// TCP port of its HTTP listener; 0 for none.
    pub port: u16,
    /// How busy it last said it is; `null` when that is not known (other islands).
    pub load: Option<LoadView>,
    /// How many figures (shares) it announces; `null` when it announces no catalogue.
    pub figures: Option<u32>,
    /// Milliseconds since we heard it; `null` when we never did.
    pub heard_ms: Option<u64>,
    /// Version of its software.
    pub version: String,
    /// Highest protocol version it speaks.
    pub protocol: u8,
    /// Milliseconds since standing and reason are as they are.
    pub since_ms: u64,
    /// Why it is not plainly well: a stable word.
    pub reason: Option<String>,
    /// What to do about it, a sentence with a command.
    #[serde(rename = "do")]
    pub advice: Option<String>,
}

/// How busy a member is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoadView {
    /// Requests in flight.
    pub in_flight: u32,
    /// The most it takes at once; 0 when it takes none or has not said.
    pub capacity: u32,
}

/// Body of `GET /links`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LinksPage {
    /// The links of bridges; the same from both ends.
    pub links: Vec<LinkView>,
}

/// One link between two islands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LinkView {
    /// The bridges at its ends, by id; the second is empty where only the bridge at the first knows it.
    pub ends: [String; 2],
    /// Their islands, in the same order.
    pub islands: [String; 2],
    /// `up`, `greeting`, `calling`, `waiting` (for the other side to call) or `refused`.
    pub state: String,
    /// Measured round trip.
    pub round_trip_ms: Option<u64>,
    /// Milliseconds since the state is as it is.
    pub since_ms: u64,
    /// Why it is not up: a stable word.
    pub reason: Option<String>,
    /// What to do about it.
    #[serde(rename = "do")]
    pub advice: Option<String>,
}

/// Data of an event about a member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberEvent {
    /// The member after the change.
    pub member: MemberView,
}

/// Data of an event about another island.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IslandEvent {
    /// Its name.
    pub island: String,
}

/// Body of `GET /readyz?verbose`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadyView {
    /// Whether requests should be sent here: the table is complete, and the node does not stop.
    pub ready: bool,
    /// The checks; left out without `verbose`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckView>,
}

/// One check of readiness.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CheckView {
    /// `table-complete`, `not-draining`, or, where a service stands beside the node, `service-there`.
    pub check: String,
    /// Whether it passed.
    pub ok: bool,
    /// Milliseconds since it stopped passing; `null` when it passed.
    pub since_ms: Option<u64>,
    /// Why it did not: a stable word.
    pub reason: Option<String>,
    /// What to do about it.
    #[serde(rename = "do")]
    pub advice: Option<String>,
}

impl MemberView {
    /// A member as of `now`.
    #[must_use]
    pub fn of(member: &Member, now: Instant) -> Self {
        let record = &*member.record;
        let shown = record.addresses.first().map(|address| address.ip);
        let dialled = member.http_addresses.first().map(std::net::SocketAddr::ip);
        Self {
            id: member.id.to_string(),
            name: record.name.clone(),
            roles: record.roles.clone(),
            island: record.island.clone(),
            standing: member.standing.as_str().to_owned(),
            draining: record.draining,
            reachable: member.reachable,
            address: dialled.or(shown).map(|ip| ip.to_string()),
            port: record.http_port,
            load: (!member.far)
                .then_some(LoadView { in_flight: member.load.in_flight, capacity: member.load.capacity }),
            figures: record.catalogue.map(|catalogue| catalogue.entries),
            heard_ms: member.heard.map(|heard| millis(now.saturating_duration_since(heard))),
            version: record.version.clone(),
            protocol: record.protocol.1,
            since_ms: millis(now.saturating_duration_since(member.since)),
            reason: member.reason.map(|reason| reason.as_str().to_owned()),
            advice: member.reason.and_then(advice).map(str::to_owned),
        }
    }

    /// `HOST:PORT` of its HTTP listener, if it has one that can be dialled from here.
    #[must_use]
    pub fn http(&self) -> Option<String> {
        let address = self.address.as_deref().filter(|_| self.port != 0)?;
        Some(if address.contains(':') {
            format!("[{address}]:{}", self.port)
        } else {
            format!("{address}:{}", self.port)
        })
    }
}

/// The name of the event in `/events` for a change of the table; `None` for changes that are not told.
#[must_use]
pub fn event_name(kind: EventKind) -> Option<&'static str> {
    match kind {
        EventKind::Joined
        | EventKind::Updated
        | EventKind::Draining
        | EventKind::Suspect
        | EventKind::Down
        | EventKind::Back
        | EventKind::Left
        | EventKind::IslandUp
        | EventKind::IslandDown => Some(kind.as_str()),
        // Its reason says so.
        EventKind::DuplicateKey => Some(EventKind::Updated.as_str()),
        // It has been down or left for 10 minutes, and readers were told then.
        EventKind::Forgotten => None,
    }
}

/// What a reason means, for people: one clause, after "because" or a colon.
#[must_use]
pub fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::Silent => "nothing has been heard from it for longer than usual",
        Reason::NoAnswer => "it has fallen silent and does not answer pings",
        Reason::Unilateral => "it and its watchers have fallen silent, and it does not answer pings",
        Reason::Unheard => "others hear it, this node does not",
        Reason::Unproven => "it is known from others only and has not been heard here yet",
        Reason::Farewell => "it was stopped and said farewell",
        Reason::Draining => "it is being stopped and finishes what it has",
        Reason::NewerVersion => "it speaks a newer protocol than this node",
        Reason::DuplicateKey => "two nodes use its key",
        Reason::NoAddress => "it announces no address that can be reached from here",
        Reason::IslandUnreachable => "no bridge has a way to its island",
        Reason::SameNameOrSplit => "its island has the name of this one, or this one has split",
    }
}

/// What to do about a reason: a sentence with a command; `None` when there is nothing to do.
#[must_use]
pub fn advice(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::Silent => Some("Wait a few seconds; if it stays, look at that host with: isle status"),
        Reason::NoAnswer | Reason::Unilateral => Some("Start it again, or check its host and its cable."),
        Reason::Unheard => {
            Some("Something between lets words through one way only: check cables, switches and firewalls.")
        }
        Reason::Unproven => {
            Some("If it stays, unicast UDP may be filtered on the way: compare isle members here and there.")
        }
        Reason::Farewell | Reason::Draining => None,
        Reason::NewerVersion => Some("Update this node; compare with isle --version here and there."),
        Reason::DuplicateKey => {
            Some("Give one of the two a --state-dir of its own: a copied directory holds a copied key.")
        }
        Reason::NoAddress => Some("Start it with --advertise IP, an address that this host can reach."),
        Reason::IslandUnreachable => Some("Look at its links on each bridge's host with: isle bridge links"),
        Reason::SameNameOrSplit => Some(
            "Give one of the two islands another name with --island NAME, or mend the network between the halves.",
        ),
    }
}

/// Milliseconds, as JSON has them.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
