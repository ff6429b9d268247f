//! Values inside bodies, read with their bounds: nothing grows past its limit, whatever a length claims.
//!
//! serde's own `Vec` reserves up to 1 MiB on the word of a stranger, and its byte arrays also take lists of
//! numbers; these take exactly the form that NETWORK.md names.

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{DATAGRAM_BYTES_MAX, text};
use crate::member::Address;

/// Exactly `N` bytes, as msgpack bin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fixed<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> Serialize for Fixed<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Fixed<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Exactly<const N: usize>;
        impl<const N: usize> Visitor<'_> for Exactly<N> {
            type Value = Fixed<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{N} bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                bytes.try_into().map(Fixed).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Exactly)
    }
}

/// A text that obeys one of the rules of `text`.
pub(crate) trait Rule {
    /// What the rule asks for, for the error.
    const WANTED: &'static str;
    /// Whether `text` obeys.
    fn obeyed(text: &str) -> bool;
}

macro_rules! rule {
    ($name:ident, $check:path, $wanted:literal) => {
        pub(crate) struct $name;
        impl Rule for $name {
            const WANTED: &'static str = $wanted;
            fn obeyed(text: &str) -> bool {
                $check(text)
            }
        }
    };
}

rule!(Label, text::is_label, "a label of 1 to 63 visible bytes");
rule!(Role, text::is_role, "a role of a-z 0-9 -");
rule!(TagKey, text::is_tag_key, "a tag's key of a-z 0-9 . _ -");
rule!(TagValue, text::is_tag_value, "a tag's value of visible characters and spaces");
rule!(Version, text::is_version, "a version of at most 32 visible bytes");

/// A string that obeys `R`; nothing is copied before that is known.
pub(crate) struct Text<R>(pub(crate) String, PhantomData<R>);

impl<R> From<String> for Text<R> {
    fn from(text: String) -> Self {
        Self(text, PhantomData)
    }
}

impl<R> Default for Text<R> {
    fn default() -> Self {
        String::new().into()
    }
}

impl<R> Serialize for Text<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, R: Rule> Deserialize<'de> for Text<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Obeying<R>(PhantomData<R>);
        impl<R: Rule> Visitor<'_> for Obeying<R> {
            type Value = Text<R>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(R::WANTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                if R::obeyed(text) { Ok(text.to_owned().into()) } else { Err(E::custom(R::WANTED)) }
            }
        }
        deserializer.deserialize_str(Obeying(PhantomData))
    }
}

/// A list of at most `MAX` items; room is made as they come, and one too many is an error.
pub(crate) struct Few<T, const MAX: usize>(pub(crate) Vec<T>);

impl<T, const MAX: usize> Few<T, MAX> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T, const MAX: usize> Default for Few<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Serialize, const MAX: usize> Serialize for Few<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Few<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AtMost<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for AtMost<T, MAX> {
            type Value = Few<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    if list.len() == MAX {
                        return Err(A::Error::invalid_length(MAX + 1, &self));
                    }
                    list.push(item);
                }
                Ok(Few(list))
            }
        }
        deserializer.deserialize_seq(AtMost(PhantomData))
    }
}

/// An address with its prefix, as [bin of 4 or 16 bytes, number].
pub(crate) struct WireAddress(pub(crate) Address);

impl Serialize for WireAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let prefix = self.0.prefix;
        match self.0.ip {
            IpAddr::V4(ip) => (Fixed(ip.octets()), prefix).serialize(serializer),
            IpAddr::V6(ip) => (Fixed(ip.octets()), prefix).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for WireAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (WireIp(ip), prefix) = Deserialize::deserialize(deserializer)?;
        let address = Address { ip, prefix };
        if is_announceable(&address) {
            Ok(Self(address))
        } else {
            Err(D::Error::custom("an address of no host"))
        }
    }
}

/// Whether a host can have this address: not multicast, unspecified or broadcast, IPv4 not dressed as IPv6.
pub(crate) fn is_announceable(address: &Address) -> bool {
    let bits = match address.ip {
        IpAddr::V4(ip) if ip == Ipv4Addr::BROADCAST => return false,
        IpAddr::V4(_) => 32,
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => return false,
        IpAddr::V6(_) => 128,
    };
    !address.ip.is_multicast() && !address.ip.is_unspecified() && address.prefix <= bits
}

struct WireIp(IpAddr);

impl<'de> Deserialize<'de> for WireIp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Octets;
        impl Visitor<'_> for Octets {
            type Value = WireIp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("4 or 16 bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
                    return Ok(WireIp(Ipv4Addr::from(octets).into()));
                }
                let octets =
                    <[u8; 16]>::try_from(bytes).map_err(|_| E::invalid_length(bytes.len(), &self))?;
                Ok(WireIp(Ipv6Addr::from(octets).into()))
            }
        }
        deserializer.deserialize_bytes(Octets)
    }
}

/// Address and port in 18 bytes: IPv6 (IPv4 as mapped), then the port. Scope and flow label are not carried:
/// they mean something on the speaker's host only.
#[must_use]
pub(crate) fn endpoint_bytes(endpoint: SocketAddr) -> [u8; 18] {
    let ip = match endpoint.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&endpoint.port().to_be_bytes());
    bytes
}

/// The way back from [`endpoint_bytes`]; a mapped address becomes IPv4.
#[must_use]
pub(crate) fn endpoint_of(bytes: [u8; 18]) -> SocketAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[..16]);
    let port = u16::from_be_bytes([bytes[16], bytes[17]]);
    SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), port)
}

/// A whole datagram inside a larger body, as msgpack bin of at most a datagram's length.
pub(crate) struct Word(pub(crate) Bytes);

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Datagram;
        impl Visitor<'_> for Datagram {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a datagram of at most {DATAGRAM_BYTES_MAX} bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                if bytes.len() > DATAGRAM_BYTES_MAX {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                Ok(Word(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(Datagram)
    }
}
