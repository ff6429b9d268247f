//! Texts of values to what they mean, or why they cannot. Each error completes "X is not …".

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use isle_mesh::wire::text::is_label;
use jiff::SignedDuration;

use island_bridge::bridge::Target;
use isle_mesh::member::MemberId;

use crate::config::Shed;
use crate::roles::bridge::control;

/// Why a text is no such value: what it should have been, with an example.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Wanted(pub &'static str);

/// Name of a node, an island or a mesh: a label as it goes over the wire.
///
/// # Errors
/// Too long, or with blanks or unprintable characters.
pub fn label(text: &str) -> Result<String, Wanted> {
    if is_label(text) {
        Ok(text.to_owned())
    } else {
        Err(Wanted("1 to 63 bytes of visible characters without spaces"))
    }
}

/// `IP:PORT`, where port 0 is any free one.
///
/// # Errors
/// Anything else, host names too: which of its addresses would it be?
pub fn listen(text: &str) -> Result<SocketAddr, Wanted> {
    text.parse().map_err(|_| Wanted("IP:PORT, such as 0.0.0.0:1233 or [::1]:0"))
}

/// `KEY@HOST:PORT`, or an invite.
///
/// # Errors
/// Anything else.
pub fn link(text: &str) -> Result<Target, Wanted> {
    control::target(text).map_err(|_| {
        Wanted("KEY@HOST:PORT, with the KEY that 'isle key' prints there, nor an invite as a whole")
    })
}

/// A public key.
///
/// # Errors
/// Anything else.
pub fn key(text: &str) -> Result<MemberId, Wanted> {
    text.parse().map_err(|_| Wanted("a key: 52 characters of a-z and 2-7, as 'isle key' prints it"))
}

/// An address that others can dial.
///
/// # Errors
/// No address, or one that means nobody or everybody.
pub fn advertised(text: &str) -> Result<IpAddr, Wanted> {
    let ip: IpAddr = text.parse().map_err(|_| Wanted("an IP address, such as 192.168.1.20"))?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(Wanted("an address that others can dial"));
    }
    Ok(ip)
}

/// A port other than 0.
///
/// # Errors
/// Anything else.
pub fn port(text: &str) -> Result<u16, Wanted> {
    text.parse().ok().filter(|&port| port != 0).ok_or(Wanted("a port, 1 to 65535"))
}

/// `HOST[:PORT]`; an IPv6 address with a port stands in brackets.
///
/// # Errors
/// A form that names no host.
pub fn seed(text: &str) -> Result<String, Wanted> {
    const WANTED: Wanted = Wanted("HOST[:PORT], such as 10.0.0.5, attic:5235 or [fe80::1%eth0]:5235");
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok(text.to_owned());
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(WANTED)?;
            let address = host.split('%').next().unwrap_or_default();
            address.parse::<Ipv6Addr>().map_err(|_| WANTED)?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(WANTED)?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_%:".contains(&b));
    if host.is_empty() || host.len() > 253 || !plain {
        return Err(WANTED);
    }
    port.map_or(Ok(0), self::port).map_err(|_| WANTED)?;
    Ok(text.to_owned())
}

/// Name of a network interface, whether or not there is one now.
///
/// # Errors
/// A name that Linux gives to none.
pub fn interface(text: &str) -> Result<String, Wanted> {
    let fits = (1..=15).contains(&text.len())
        && text.chars().all(|c| c != '/' && !c.is_whitespace() && !c.is_control());
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Wanted("the name of an interface, such as eth0; see: ip link"))
    }
}

/// A host name in lower case, without port.
///
/// # Errors
/// Anything else.
pub fn host(text: &str) -> Result<String, Wanted> {
    let fits = (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    if fits {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Wanted("a host name without port, such as shop.example.com"))
    }
}

/// `http://HOST[:PORT][/PATH]`, without a slash at its end.
///
/// # Errors
/// Anything else; TLS too, since what stands beside us needs none.
pub fn upstream(text: &str) -> Result<String, Wanted> {
    const WANTED: Wanted = Wanted("an http URL, such as http://127.0.0.1:8080");
    let uri: http::Uri = text.parse().map_err(|_| WANTED)?;
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if uri.scheme_str() != Some("http")
        || uri.host().is_none_or(str::is_empty)
        || has_user
        || uri.query().is_some()
    {
        return Err(WANTED);
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A length of time as people write it: `10s`, `1m 30s`, `250ms`, `PT10S`; `wanted` says so with the bounds.
///
/// # Errors
/// No such text, or outside the bounds.
pub fn time(text: &str, least: Duration, most: Duration, wanted: &'static str) -> Result<Duration, Wanted> {
    let signed: Option<SignedDuration> = text.parse().ok();
    let time = signed.and_then(|signed| Duration::try_from(signed).ok());
    time.filter(|time| (least..=most).contains(time)).ok_or(Wanted(wanted))
}

/// How many requests at once.
///
/// # Errors
/// Not 1 to 1,000,000.
pub fn in_flight(text: &str) -> Result<usize, Wanted> {
    text.parse().ok().filter(|n| (1..=1_000_000).contains(n)).ok_or(Wanted("a number from 1 to 1000000"))
}

/// How to shed.
///
/// # Errors
/// None of the three words.
pub fn shed(text: &str) -> Result<Shed, Wanted> {
    match text {
        "forward" => Ok(Shed::Forward),
        "redirect" => Ok(Shed::Redirect),
        "refuse" => Ok(Shed::Refuse),
        _ => Err(Wanted("forward, redirect or refuse")),
    }
}

/// On or off.
///
/// # Errors
/// None of `true`, `false`, `1` and `0`.
pub fn switch(text: &str) -> Result<bool, Wanted> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Wanted("true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_hosts_with_or_without_a_port() {
        for good in ["10.0.0.5", "attic", "attic.lan:5235", "[fe80::1%eth0]:5235", "[::1]", "fe80::1"] {
            assert!(seed(good).is_ok(), "{good}");
        }
        for bad in ["", ":5235", "a:0", "a:b", "a:70000", "http://a", "a b", "[::1", "[x]:1", "[::1]5"] {
            assert!(seed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_written_as_people_do() {
        let within = |text| time(text, Duration::from_millis(1), Duration::from_secs(3600), "a time");
        assert_eq!(within("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(within("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(within("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["10", "", "-1s", "0s", "2h", "1 fortnight"] {
            assert!(within(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_upstream_is_a_plain_http_url() {
        assert_eq!(upstream("http://127.0.0.1:8080/").as_deref(), Ok("http://127.0.0.1:8080"));
        assert_eq!(upstream("http://[::1]:80/api").as_deref(), Ok("http://[::1]:80/api"));
        for bad in ["127.0.0.1:8080", "https://a", "http://", "http://u@a", "http://a/?q", "http://a b"] {
            assert!(upstream(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_addresses_and_names_are_checked_before_anything_starts() {
        assert!(port("0").is_err() && port("65536").is_err() && port("5235").is_ok());
        assert!(listen("localhost:80").is_err() && listen("80").is_err() && listen("[::]:0").is_ok());
        assert!(
            advertised("0.0.0.0").is_err()
                && advertised("224.0.0.1").is_err()
                && advertised("10.0.0.1").is_ok()
        );
        assert!(interface("eth0").is_ok() && interface("").is_err() && interface("a/b").is_err());
        assert!(label("two words").is_err() && label("küche").is_ok() && label("").is_err());
        assert_eq!(host("Shop.Example.COM").as_deref(), Ok("shop.example.com"));
        assert!(host("a:80").is_err());
    }
}
