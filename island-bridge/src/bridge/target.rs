//! A configured link: whom to call, and the call.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use isle_mesh::member::MemberId;
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::endpoint::{Connection, DialError, Endpoint};
use crate::tls::Purpose;

/// A name that is not found within this is tried again with the next attempt.
const LOOKUP_MAX: Duration = Duration::from_secs(2);

/// Where a bridge may be called: written `HOST:PORT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its name or address; a name is looked up again at every attempt.
    pub host: String,
    /// Its UDP port.
    pub port: u16,
}

/// A bridge to be called: written `KEY@HOST:PORT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The key it has to prove.
    pub key: MemberId,
    /// Where it may be; one after another is tried.
    pub places: Vec<Place>,
    /// What it gave us to be let in the first time.
    pub invite: Option<[u8; 32]>,
}

/// What is not written as a target, or as a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not KEY@HOST:PORT")]
pub struct TargetError(String);

impl FromStr for Place {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let parts = || {
            let (host, port) = text.rsplit_once(':')?;
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            let host = bare.unwrap_or(host);
            let is_address = bare.is_none() || host.parse::<std::net::Ipv6Addr>().is_ok();
            let is_name = bare.is_some() || !host.contains([':', '[', ']', '/', '@', ' ']);
            let is_host = !host.is_empty() && is_address && is_name;
            let port = port.parse().ok().filter(|port| *port != 0)?;
            is_host.then(|| Self { host: host.to_owned(), port })
        };
        parts().ok_or_else(|| TargetError(text.to_owned()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let parts = || {
            let (key, place) = text.split_once('@')?;
            Some(Self { key: key.parse().ok()?, places: vec![place.parse().ok()?], invite: None })
        };
        parts().ok_or_else(|| TargetError(text.to_owned()))
    }
}

impl fmt::Display for Target {
    /// As it is written; without the invite.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.place())
    }
}

impl Target {
    /// The bridge with this key, at this address.
    #[must_use]
    pub fn new(key: MemberId, addr: SocketAddr) -> Self {
        Self { key, places: vec![Place { host: addr.ip().to_string(), port: addr.port() }], invite: None }
    }

    /// All its places.
    pub(super) fn place(&self) -> String {
        let places: Vec<String> = self.places.iter().map(Place::to_string).collect();
        places.join(",")
    }
}

/// Why a call came to nothing. The next may not.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("{host} is not found")]
    Lookup {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("{host} has no address that can be called from here")]
    NoAddress { host: String },
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// Looks the host up and calls one of its addresses: the next at each attempt. At most four seconds. Dropped before it is
/// done, the attempt ends.
pub(super) async fn call(
    endpoint: Endpoint,
    target: Target,
    attempt: usize,
) -> Result<Connection, CallError> {
    let only_v4 = endpoint.local_addr().is_ok_and(|own| own.is_ipv4());
    let place = match target.places.get(attempt % target.places.len().max(1)) {
        Some(place) => place.clone(),
        None => return Err(CallError::NoAddress { host: String::new() }),
    };
    // All places once before any address of one is tried a second time.
    let round = attempt / target.places.len();
    let lookup = async {
        let found = lookup_host((place.host.as_str(), place.port)).await?;
        Ok::<Vec<_>, io::Error>(found.filter(|addr| addr.is_ipv4() || !only_v4).collect())
    };
    let found = timeout(LOOKUP_MAX, lookup).await.unwrap_or_else(|late| Err(late.into()));
    let host = place.host;
    match found.map_err(|source| CallError::Lookup { host: host.clone(), source })? {
        addresses if addresses.is_empty() => Err(CallError::NoAddress { host }),
        addresses => Ok(endpoint.dial(target.key, addresses[round % addresses.len()], Purpose::Link).await?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_written_as_it_is_read() {
        let key = MemberId([7; 32]);
        for place in ["10.0.0.1:5236", "bridge.example:1", "[fe80::1]:65535"] {
            let text = format!("{key}@{place}");
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in
            ["", "@", "x@a:1", &format!("{key}@:1"), &format!("{key}@a"), &format!("{key}@a:0"), "a:1"]
        {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        for place in ["a:b:1", "[a]:1", "a b:1", "a:70000", "[fe80::1:1"] {
            assert!(format!("{key}@{place}").parse::<Target>().is_err(), "{place}");
        }
    }
}
