//! What happens to fields on the way through: hop-by-hop ones end here, ours are added after.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use isle_mesh::member::{Load, MemberId};

use crate::http::request::Gated;
use crate::upstream::Ask;

/// How often a request has been handed over.
pub const HOPS: HeaderName = HeaderName::from_static("isle-hops");
/// What is left of its deadline.
pub const DEADLINE_MS: HeaderName = HeaderName::from_static("isle-deadline-ms");
/// Who made the answer, as `NAME@ISLAND`.
pub const SERVED_BY: HeaderName = HeaderName::from_static("isle-served-by");
/// How busy the node that answers is, as `in_flight/capacity`.
pub const LOAD: HeaderName = HeaderName::from_static("isle-load");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Fields that concern one connection only (RFC 9110, 7.6.1), and old ones that were meant so.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes what concerned the connection an answer came by; those named in `Connection` too.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The request as it is passed on to another node or service, to path and query `target`.
#[must_use]
pub fn onward(request: &Gated, target: http::Uri, own: MemberId, left: Duration) -> Ask {
    let mut headers = request.headers.clone();
    headers.remove(header::HOST);
    append_via(&mut headers, own);
    headers.insert(HOPS, HeaderValue::from(u16::from(request.hops) + 1));
    headers.insert(DEADLINE_MS, HeaderValue::from(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
    let client = match request.peer.ip() {
        std::net::IpAddr::V4(ip) => format!("for={ip}"),
        std::net::IpAddr::V6(ip) => format!("for=\"[{ip}]\""),
    };
    if let Ok(value) = HeaderValue::try_from(client) {
        headers.append(header::FORWARDED, value);
    }
    Ask { method: request.method.clone(), target, headers }
}

/// Appends us to the nodes that a message has passed.
pub fn append_via(headers: &mut HeaderMap, own: MemberId) {
    let value = HeaderValue::try_from(format!("1.1 {own}")).expect("digits and letters");
    headers.append(header::VIA, value);
}

/// Whether a message has passed this node before.
#[must_use]
pub fn has_passed(headers: &HeaderMap, own: MemberId) -> bool {
    let own = own.to_string();
    headers
        .get_all(header::VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|hop| hop.split_whitespace().nth(1) == Some(own.as_str()))
}

/// Nodes that a request has passed, as far as they can be told.
#[must_use]
pub fn passed(headers: &HeaderMap) -> Vec<MemberId> {
    headers
        .get_all(header::VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|hop| hop.split_whitespace().nth(1)?.parse().ok())
        .collect()
}

/// Says who answered, how long it took, and how busy we are.
pub fn sign(headers: &mut HeaderMap, own: MemberId, served_by: &str, took: Duration, load: Load) {
    append_via(headers, own);
    if let Ok(value) = HeaderValue::try_from(served_by) {
        headers.insert(SERVED_BY, value);
    }
    let timing = format!("total;dur={:.3}", took.as_secs_f64() * 1000.0);
    headers.append(SERVER_TIMING, HeaderValue::try_from(timing).expect("ASCII"));
    let load = format!("{}/{}", load.in_flight, load.capacity);
    headers.insert(LOAD, HeaderValue::try_from(load).expect("digits and a slash"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_one_connection_end_there_and_those_it_names_too() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, HeaderValue::from_static("close, X-Mine"));
        headers.append("x-mine", HeaderValue::from_static("1"));
        headers.append("keep-alive", HeaderValue::from_static("timeout=5"));
        headers.append("x-theirs", HeaderValue::from_static("2"));
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-theirs"]);
    }

    #[test]
    fn a_message_that_comes_back_is_recognised_among_others() {
        let (own, other) = (MemberId([1; 32]), MemberId([2; 32]));
        let mut headers = HeaderMap::new();
        headers.append(header::VIA, HeaderValue::from_static("1.0 fred, 1.1 p.example.net (Apache/1.1)"));
        append_via(&mut headers, other);
        assert!(!has_passed(&headers, own));
        append_via(&mut headers, own);
        assert!(has_passed(&headers, own));
        assert_eq!(passed(&headers), [other, own]);
    }
}
