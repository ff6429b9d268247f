//! A complete head: request line, fields, framing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method};

use super::{FIELDS_MAX, Refusal, TARGET_BYTES_MAX, target};
use crate::http::request::{Connect, Gated};

/// Methods that exist but that this node does not offer (RFC 9110 section 9, RFC 5789).
const FOREIGN_METHODS: [&str; 6] = ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"];

/// What `Allow` says in a 405.
pub const METHODS_ALLOWED: &str = "GET, HEAD";

/// How the body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is none.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A checked head.
#[derive(Debug)]
pub struct Head {
    /// GET or HEAD, or CONNECT: then it becomes no [`Gated`] but a [`Connect`].
    pub method: Method,
    /// HTTP/1.0 rather than HTTP/1.1.
    pub old: bool,
    /// The client will ask again on this connection.
    pub keep_alive: bool,
    /// How the body that follows is delimited.
    pub framing: Framing,
    /// `Expect: 100-continue`.
    pub expects_continue: bool,
    path: Box<str>,
    query: Option<Box<str>>,
    host: Box<str>,
    headers: HeaderMap,
    hops: u8,
    deadline: Option<Duration>,
    nonce: Option<[u8; 16]>,
    islands: Vec<String>,
}

impl Head {
    /// Reads a head, from the request line to the empty line.
    ///
    /// # Errors
    /// The first thing that is wrong with it: form first, then framing, method, target and `Host`, so that
    /// nothing is answered on the ground of something that was not understood.
    pub fn parse(bytes: &Bytes) -> Result<Self, Refusal> {
        let mut lines = Lines { bytes, at: 0 };
        let (method, raw_target, old) = request_line(lines.next().ok_or(Refusal::RequestLine)?.1)?;
        let mut fields = Fields::default();
        for (at, line) in lines.filter(|(_, line)| !line.is_empty()) {
            fields.add(bytes, at, line)?;
        }
        let framing = fields.framing(old)?;
        let method = known_method(method)?;
        if raw_target.len() > TARGET_BYTES_MAX {
            return Err(Refusal::TargetTooLong);
        }
        let raw_target = std::str::from_utf8(raw_target).map_err(|_| Refusal::TargetForm)?;
        let (path, query) = match method {
            Method::CONNECT if framing != Framing::None => return Err(Refusal::ContentLength),
            // RFC 9112 3.2.3: the port is always there.
            Method::CONNECT if is_host(raw_target) && raw_target.contains(':') => (raw_target.into(), None),
            Method::CONNECT => return Err(Refusal::TargetForm),
            _ => target::split(raw_target)?,
        };
        let host = fields.host.take().ok_or(Refusal::NoHost)?;
        let expects_continue = fields.expectation(old)?;
        let keep_alive = fields.keep_alive(old);
        let Ours { hops, deadline, nonce, islands } = fields.keep_end_to_end();
        Ok(Self {
            method,
            old,
            keep_alive,
            framing,
            expects_continue,
            path,
            query,
            host,
            headers: fields.headers,
            hops,
            deadline,
            nonce,
            islands,
        })
    }

    /// Whether the client sends its body only once it is told to. Nobody here wants the body, so it
    /// gets the final answer at once, and the connection is closed.
    #[must_use]
    pub fn waits_to_send(&self) -> bool {
        self.expects_continue && !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// The request as the node's parts see it.
    #[must_use]
    pub fn into_gated(self, peer: SocketAddr, dialled: SocketAddr, arrived: Instant) -> Gated {
        Gated {
            method: self.method,
            path: self.path,
            query: self.query,
            headers: self.headers,
            host: self.host,
            peer,
            dialled,
            arrived,
            hops: self.hops,
            deadline: self.deadline,
        }
    }
}

impl Head {
    /// A CONNECT as whoever opens tunnels sees it.
    #[must_use]
    pub fn into_connect(self, early: Bytes, peer: SocketAddr, arrived: Instant) -> Connect {
        let Self { path, headers, nonce, islands, .. } = self;
        Connect { target: path, headers, nonce, islands, early, peer, arrived }
    }
}

/// The lines of a head without their ends, each with its place. A carriage return within a line is left
/// in it and refused by whoever reads the line.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let length = self.bytes.get(at..)?.iter().position(|byte| *byte == b'\n')?;
        self.at = at + length + 1;
        let line = &self.bytes[at..at + length];
        Some((at, line.strip_suffix(b"\r").unwrap_or(line)))
    }
}

/// Splits `METHOD SP TARGET SP HTTP/1.x`: exactly one space each, RFC 9112 3.
fn request_line(line: &[u8]) -> Result<(&[u8], &[u8], bool), Refusal> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::RequestLine);
    };
    if target.is_empty() || method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(Refusal::RequestLine);
    }
    match version {
        b"HTTP/1.1" => Ok((method, target, false)),
        b"HTTP/1.0" => Ok((method, target, true)),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal::Version)
        }
        _ => Err(Refusal::RequestLine),
    }
}

fn known_method(method: &[u8]) -> Result<Method, Refusal> {
    match method {
        b"GET" => Ok(Method::GET),
        b"HEAD" => Ok(Method::HEAD),
        b"CONNECT" => Ok(Method::CONNECT),
        foreign if FOREIGN_METHODS.iter().any(|known| known.as_bytes() == foreign) => {
            Err(Refusal::MethodNotAllowed)
        }
        _ => Err(Refusal::MethodUnknown),
    }
}

/// RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Optional white space, RFC 9110 5.6.3: nothing else may be trimmed.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// What a request's own fields of ours said.
struct Ours {
    hops: u8,
    deadline: Option<Duration>,
    nonce: Option<[u8; 16]>,
    islands: Vec<String>,
}

/// The fields of one head while it is read.
#[derive(Default)]
struct Fields {
    headers: HeaderMap,
    count: usize,
    host: Option<Box<str>>,
}

impl Fields {
    /// Reads one line. `at` is its place in `bytes`, with which the value shares its memory.
    fn add(&mut self, bytes: &Bytes, at: usize, line: &[u8]) -> Result<(), Refusal> {
        self.count += 1;
        if self.count > FIELDS_MAX {
            return Err(Refusal::TooManyFields);
        }
        if matches!(line[0], b' ' | b'\t') {
            return Err(Refusal::Folded);
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Refusal::FieldName)?;
        let raw_name = &line[..colon];
        if raw_name.is_empty() || !raw_name.iter().copied().all(is_token) {
            return Err(Refusal::FieldName);
        }
        let raw_value = &line[colon + 1..];
        let leading = raw_value.iter().take_while(|byte| is_blank(**byte)).count();
        let trailing = raw_value[leading..].iter().rev().take_while(|byte| is_blank(**byte)).count();
        let value = &raw_value[leading..raw_value.len() - trailing];
        if !value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..)) {
            return Err(if value.contains(&b'\r') { Refusal::LineEnd } else { Refusal::FieldValue });
        }
        // `Transfer_Encoding` and `Transfer--Encoding` are read as `Transfer-Encoding` by some that map
        // names to variables; nobody needs them.
        if raw_name.contains(&b'_') || raw_name.windows(2).any(|pair| pair == b"--") {
            return Ok(());
        }
        let name = HeaderName::from_bytes(raw_name).map_err(|_| Refusal::FieldName)?;
        if name == header::HOST {
            let host = std::str::from_utf8(value).map_err(|_| Refusal::BadHost)?;
            return self.add_host(host);
        }
        let start = at + colon + 1 + leading;
        let value = HeaderValue::from_maybe_shared(bytes.slice(start..start + value.len()))
            .map_err(|_| Refusal::FieldValue)?;
        self.headers.append(name, value);
        Ok(())
    }

    fn add_host(&mut self, host: &str) -> Result<(), Refusal> {
        if self.host.is_some() {
            return Err(Refusal::ManyHosts);
        }
        if !is_host(host) {
            return Err(Refusal::BadHost);
        }
        self.host = Some(host.into());
        Ok(())
    }

    /// RFC 9112 6.3, without its leniency.
    fn framing(&self, old: bool) -> Result<Framing, Refusal> {
        let mut codings = self.headers.get_all(header::TRANSFER_ENCODING).iter();
        let mut lengths = self.headers.get_all(header::CONTENT_LENGTH).iter();
        match (codings.next(), lengths.next()) {
            (Some(_), Some(_)) => Err(Refusal::BothFramings),
            (Some(coding), None) => {
                let single = codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked");
                if single && !old { Ok(Framing::Chunked) } else { Err(Refusal::TransferEncoding) }
            }
            (None, Some(length)) if lengths.next().is_none() => {
                let digits = length.as_bytes();
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                    return Err(Refusal::ContentLength);
                }
                let text = std::str::from_utf8(digits).expect("digits only");
                // A number past u64 is a number all the same: too large rather than malformed.
                Ok(Framing::Length(text.parse().unwrap_or(u64::MAX)))
            }
            (None, Some(_)) => Err(Refusal::ContentLength),
            (None, None) => Ok(Framing::None),
        }
    }

    fn expectation(&self, old: bool) -> Result<bool, Refusal> {
        let mut expectations = self.headers.get_all(header::EXPECT).iter();
        let Some(first) = expectations.next() else { return Ok(false) };
        if expectations.next().is_some() || !first.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::Expectation);
        }
        // RFC 9110 10.1.1: a client of HTTP/1.0 cannot mean it.
        Ok(!old)
    }

    fn keep_alive(&self, old: bool) -> bool {
        let mut close = false;
        let mut keep = false;
        for option in self.connection_options() {
            close |= option.eq_ignore_ascii_case("close");
            keep |= option.eq_ignore_ascii_case("keep-alive");
        }
        !close && (!old || keep)
    }

    fn connection_options(&self) -> impl Iterator<Item = &str> {
        self.headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
    }

    /// Drops what is meant for this hop only, and every `Isle-*`; returns what those said that count from anyone.
    fn keep_end_to_end(&mut self) -> Ours {
        let named: Vec<HeaderName> = self
            .connection_options()
            .filter_map(|option| HeaderName::from_bytes(option.as_bytes()).ok())
            // A client must not rid itself of what finds loops: `Connection: via`.
            .filter(|name| name != header::VIA && name != header::FORWARDED)
            .collect();
        for name in named {
            self.headers.remove(name);
        }
        for name in HOP_BY_HOP {
            self.headers.remove(name);
        }
        let hops = self.numbers("isle-hops").map(|hops| u8::try_from(hops).unwrap_or(u8::MAX)).max();
        let deadline = self.numbers("isle-deadline-ms").min().map(Duration::from_millis);
        let nonce = self.text("isle-nonce").and_then(|digits| {
            let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?;
            bytes.try_into().ok()
        });
        let islands = self.text("isle-path").map(|path| path.split(',').map(|name| name.trim().to_owned()));
        let islands = islands.into_iter().flatten().collect();
        let ours: Vec<HeaderName> =
            self.headers.keys().filter(|name| name.as_str().starts_with("isle-")).cloned().collect();
        for name in ours {
            self.headers.remove(name);
        }
        Ours { hops: hops.unwrap_or(0), deadline, nonce, islands }
    }

    /// The first value of a field, if it is text.
    fn text(&self, name: &'static str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The values of a field that are numbers; what is none says nothing.
    fn numbers(&self, name: &'static str) -> impl Iterator<Item = u64> {
        self.headers.get_all(name).iter().filter_map(|value| {
            let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
            if digits.is_empty() { None } else { Some(digits.parse().unwrap_or(u64::MAX)) }
        })
    }
}

/// Fields that end at the next hop whoever names them: RFC 9110 7.6.1, and those older than it.
/// `Content-Length` goes too: behind the gate there is no body.
const HOP_BY_HOP: [&str; 12] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "http2-settings",
    "expect",
];

/// `uri-host [":" port]`, RFC 9110 7.2 with RFC 3986 3.2.2; not empty, no userinfo.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((inside, after)) = rest.split_once(']') else { return false };
            if inside.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match after.strip_prefix(':') {
                Some(port) => ("v6", port),
                None if after.is_empty() => ("v6", ""),
                None => return false,
            }
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let name_ok = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte));
    let port_ok =
        port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    name_ok && port_ok
}

#[cfg(test)]
mod tests;
