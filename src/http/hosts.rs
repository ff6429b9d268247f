//! Who may read what from a browser: `Host` against DNS rebinding, `Origin` and `Sec-Fetch-Site` against
//! other pages.
//!
//! A browser lets any page send a GET to us. It keeps the answer from that page unless we allow it (we never
//! do) or the page's own name was made to point at us (DNS rebinding), which shows in `Host`.
//! Programs other than browsers send what they like and are not held up by any of this.

use std::net::{IpAddr, SocketAddr};

use http::header::ORIGIN;
use http::{HeaderMap, HeaderValue};

use crate::http::request::Gated;

/// `Host` for a request to an address. Without its zone: that means something on this host alone, and no form of
/// `Host` has a place for it (RFC 9110, section 7.2).
#[must_use]
pub fn host_of(at: SocketAddr) -> HeaderValue {
    let without_zone = SocketAddr::new(at.ip(), at.port());
    HeaderValue::try_from(without_zone.to_string()).expect("digits, letters, dots, colons and brackets")
}

/// Names under which pages that show the table may be asked for.
#[derive(Clone, Debug, Default)]
pub struct HostRules {
    /// Lower case, without a final dot.
    allowed: Vec<String>,
}

/// Why a request from a page is turned away.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Foreign {
    /// A page that shows the table, asked for under a name that is not ours.
    #[error("this node does not answer as {0} here")]
    Host(String),
    /// A request made by a page from elsewhere.
    #[error("another site's page may not read this node")]
    Origin,
}

/// Endings that no public name has.
const PRIVATE_ENDINGS: [&str; 4] = [".local", ".lan", ".internal", ".home.arpa"];

/// Paths that anybody who knows any name of this node may read: they show figures, not the table.
const OPEN_PATHS: [&str; 6] = ["/figures", "/pieces/", "/local/", "/catalog", "/healthz", "/readyz"];

impl HostRules {
    /// `--allow-host` and the own host's name, if known.
    #[must_use]
    pub fn new(allow_hosts: &[String], own: Option<&str>) -> Self {
        let allowed = allow_hosts.iter().map(String::as_str).chain(own);
        Self { allowed: allowed.map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect() }
    }

    /// Whether this request may be answered.
    ///
    /// # Errors
    /// `Origin` for requests by a foreign page, `Host` for the table's pages under a foreign name.
    pub fn check(&self, request: &Gated) -> Result<(), Foreign> {
        if is_foreign_page(&request.headers, &request.host) {
            return Err(Foreign::Origin);
        }
        if shows_the_table(&request.path) && !self.is_ours(&request.host) {
            return Err(Foreign::Host(bare(&request.host).to_owned()));
        }
        Ok(())
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = bare(host);
        if name.starts_with('[') || name.parse::<IpAddr>().is_ok() {
            return true;
        }
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        !name.contains('.')
            || PRIVATE_ENDINGS.iter().any(|ending| name.ends_with(ending))
            || name.ends_with(".localhost")
            || self.allowed.contains(&name)
    }
}

/// The route of a figure names members and their addresses, so it is of the table.
fn shows_the_table(path: &str) -> bool {
    path.ends_with("/route") || !OPEN_PATHS.iter().any(|open| path.starts_with(open))
}

/// `Host` without its port.
fn bare(host: &str) -> &str {
    match host.rfind(']') {
        Some(end) => &host[..=end],
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

fn is_foreign_page(headers: &HeaderMap, host: &str) -> bool {
    let word = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    if headers.get_all(ORIGIN).iter().any(|origin| !is_own_origin(origin.to_str().unwrap_or(""), host)) {
        return true;
    }
    // "same-site" is foreign too: another port of this host is another server's page.
    let elsewhere = word("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let followed_a_link =
        word("sec-fetch-mode") == Some("navigate") && word("sec-fetch-dest") == Some("document");
    elsewhere && !followed_a_link
}

/// Whether an origin is the one this request is for. Its scheme may differ (TLS may end before us), so that
/// only decides which port is left out.
fn is_own_origin(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let without = |text: &str| text.strip_suffix(default_port).unwrap_or(text).to_ascii_lowercase();
    without(authority) == without(host.strip_suffix(':').unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use http::{HeaderValue, Method};

    use super::*;

    fn request(path: &str, host: &str, headers: &[(&'static str, &'static str)]) -> Gated {
        let here = SocketAddr::from(([127, 0, 0, 1], 1));
        Gated {
            method: Method::GET,
            path: path.into(),
            query: None,
            headers: headers.iter().map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v))).collect(),
            host: host.into(),
            peer: here,
            dialled: here,
            arrived: Instant::now(),
            hops: 0,
            deadline: None,
        }
    }

    #[test]
    fn the_table_is_shown_under_names_that_no_public_zone_can_hold() {
        let rules = HostRules::new(&["Isle.Example.org".into()], Some("box.example.net"));
        let foreign = |host: &str| rules.check(&request("/members", host, &[])).err();
        for ours in [
            "127.0.0.1:5235",
            "10.0.0.1",
            "[::1]:5235",
            "localhost",
            "LOCALHOST.:1",
            "a.localhost",
            "hub",
            "hub:5235",
            "hub.local",
            "hub.LAN",
            "a.b.internal",
            "x.home.arpa",
            "isle.example.ORG",
            "box.example.net.",
        ] {
            assert_eq!(foreign(ours), None, "{ours}");
        }
        for theirs in ["evil.example", "127.0.0.1.evil.example", "local.evil.example:5235", "x.example.org"] {
            assert_eq!(foreign(theirs), Some(Foreign::Host(bare(theirs).into())), "{theirs}");
        }
    }

    #[test]
    fn figures_are_shown_under_any_name_and_who_serves_them_is_not() {
        let foreign = |path| HostRules::default().check(&request(path, "evil.example", &[])).is_err();
        for open in ["/figures", "/figures/a", "/pieces/x.svg", "/healthz", "/local/catalog"] {
            assert!(!foreign(open), "{open}");
        }
        for table in ["/", "/members", "/events", "/metrics", "/links", "/mesh/records", "/figures/a/route"] {
            assert!(foreign(table), "{table}");
        }
    }

    #[test]
    fn pages_from_elsewhere_are_turned_away_and_links_to_us_work() {
        let foreign = |headers: &[_]| HostRules::default().check(&request("/figures/a", "hub:5235", headers));
        for own in [
            &[][..],
            &[("origin", "http://hub:5235")],
            &[("origin", "http://HUB:5235"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
            ],
        ] {
            assert_eq!(foreign(own), Ok(()), "{own:?}");
        }
        for other in [
            &[("origin", "http://evil.example")][..],
            &[("origin", "http://hub:8080")],
            &[("origin", "http://hub")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "http://hub:5235"), ("origin", "http://evil.example")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
        ] {
            assert_eq!(foreign(other), Err(Foreign::Origin), "{other:?}");
        }
    }

    #[test]
    fn an_origin_without_port_is_own_when_the_host_has_none_either() {
        assert!(is_own_origin("https://isle.example", "isle.example"));
        assert!(is_own_origin("http://isle.example", "isle.example:80"));
        assert!(!is_own_origin("http://isle.example", "isle.example:5235"));
        assert!(is_own_origin("http://[::1]:5235", "[::1]:5235"));
    }
}
