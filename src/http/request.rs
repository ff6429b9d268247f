//! A request that has passed the gate: everything behind it may rely on its form.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method};

/// A request as the node's parts see it. Has no body: all that we serve is read with GET and HEAD,
/// and what a client sends with those is read and thrown away at the gate.
#[derive(Clone, Debug)]
pub struct Gated {
    /// GET or HEAD.
    pub method: Method,
    /// Path, percent-decoded once, valid UTF-8 without control characters; begins with `/`.
    pub path: Box<str>,
    /// Query as sent, without `?`.
    pub query: Option<Box<str>>,
    /// End-to-end fields only: hop-by-hop, doubtful and foreign `Isle-*` fields are gone.
    pub headers: HeaderMap,
    /// The one `Host`, as sent.
    pub host: Box<str>,
    /// The client's address, IPv4-mapped ones as IPv4.
    pub peer: SocketAddr,
    /// Our address that it dialled, IPv4-mapped ones as IPv4.
    pub dialled: SocketAddr,
    /// When its head was complete.
    pub arrived: Instant,
    /// `Isle-Hops`: how often it has been handed over so far (0 from clients, saturates at 255).
    pub hops: u8,
    /// `Isle-Deadline-Ms`: what is left of the first intermediary's deadline.
    pub deadline: Option<Duration>,
}

/// Most that is sent along with the wish for a tunnel, before it stands: a request's head fits. Each bridge on the way holds
/// so much of a tunnel that may never be.
pub const EARLY_BYTES_MAX: usize = 4096;

/// A wish for a tunnel that has passed the gate.
#[derive(Clone, Debug)]
pub struct Connect {
    /// `HOST:PORT`, as sent.
    pub target: Box<str>,
    /// As those of [`Gated`].
    pub headers: HeaderMap,
    /// `Isle-Nonce`: what whoever is reached is to sign.
    pub nonce: Option<[u8; 16]>,
    /// `Isle-Path`: the islands still to be passed, if the asker has chosen them. At most a header's worth, unchecked.
    pub islands: Vec<String>,
    /// What came right behind: the beginning of what is to go through the tunnel. At most [`EARLY_BYTES_MAX`].
    pub early: Bytes,
    /// The client's address, IPv4-mapped ones as IPv4.
    pub peer: SocketAddr,
    /// When its head was complete.
    pub arrived: Instant,
}

impl Gated {
    /// First value of a query parameter, percent-decoded; `None` when absent or not UTF-8.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.query.as_deref()?.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key)? == name).then(|| percent_decode(value))?
        })
    }
}

/// Decodes `%XX` once and leaves `+` alone. `None` for broken escapes and for what is not UTF-8 then.
#[must_use]
pub fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push(u8::try_from(high * 16 + low).expect("two hex digits"));
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once_and_broken_ones_refused() {
        assert_eq!(percent_decode("a%2fb").as_deref(), Some("a/b"));
        assert_eq!(percent_decode("%252f").as_deref(), Some("%2f"));
        assert_eq!(percent_decode("%2"), None);
        assert_eq!(percent_decode("%zz"), None);
        assert_eq!(percent_decode("%ff"), None);
    }
}
