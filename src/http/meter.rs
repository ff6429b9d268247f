//! Counts what happens at the HTTP listener. Handles are looked up once, not for each request.

use std::sync::OnceLock;
use std::time::Instant;

use http::{Method, StatusCode};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::http::gate::Refusal;

/// What a request was for, as a metric's label: a small set whatever clients ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RouteLabel {
    /// Turned away at the gate.
    Refused,
    /// `/figures/{name}`
    Figure,
    /// `/figures`
    Figures,
    /// `/figures/{name}/route`
    FigureRoute,
    /// `/pieces/*`
    Pieces,
    /// `/local/*`: between nodes.
    Local,
    /// `/catalog`
    Catalog,
    /// `/mesh/*`: between nodes.
    Mesh,
    /// `/members` and one of them.
    Members,
    /// `/links`
    Links,
    /// `/events`
    Events,
    /// `/healthz`, `/readyz`
    Health,
    /// `/metrics`
    Metrics,
    /// `/`
    Dashboard,
    /// CONNECT.
    Tunnel,
    /// Everything else.
    Other,
}

const ROUTES: usize = RouteLabel::Other as usize + 1;

impl RouteLabel {
    /// The route of a path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let rest = path.strip_prefix('/').unwrap_or(path);
        let (first, rest) = rest.split_once('/').unwrap_or((rest, ""));
        match (first, rest) {
            ("figures", "") => Self::Figures,
            ("figures", rest) if rest.ends_with("/route") => Self::FigureRoute,
            ("figures", _) => Self::Figure,
            ("local", _) => Self::Local,
            ("mesh", _) => Self::Mesh,
            ("members", _) => Self::Members,
            ("pieces", _) => Self::Pieces,
            ("catalog", "") => Self::Catalog,
            ("links", "") => Self::Links,
            ("events", "") => Self::Events,
            ("healthz" | "readyz", "") => Self::Health,
            ("metrics", "") => Self::Metrics,
            ("", "") => Self::Dashboard,
            _ => Self::Other,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Figure => "/figures/{name}",
            Self::Figures => "/figures",
            Self::FigureRoute => "/figures/{name}/route",
            Self::Pieces => "/pieces",
            Self::Local => "/local",
            Self::Catalog => "/catalog",
            Self::Mesh => "/mesh",
            Self::Members => "/members",
            Self::Links => "/links",
            Self::Events => "/events",
            Self::Health => "/healthz",
            Self::Metrics => "/metrics",
            Self::Dashboard => "/",
            Self::Tunnel => "connect",
            Self::Other => "other",
        }
    }
}

/// Statuses with a series of their own; others are counted as the first of their class.
const STATUSES: [u16; 26] = [
    200, 206, 304, 307, 300, 400, 403, 404, 405, 408, 413, 414, 417, 421, 431, 500, 501, 502, 503, 504, 505,
    508, 100, 204, 301, 302,
];

/// The listener's metrics.
#[derive(Debug)]
pub(super) struct Meter {
    durations: Box<[[[OnceLock<Histogram>; STATUSES.len()]; 2]; ROUTES]>,
    active: Gauge,
    connections: Gauge,
    panics: Counter,
    evicted: Counter,
    accept_errors: Counter,
    disconnects: [Counter; 2],
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            durations: Box::default(),
            active: gauge!("http_server_active_requests"),
            connections: gauge!("isle_connections"),
            panics: counter!("isle_handler_panics_total"),
            evicted: counter!("isle_connections_evicted_total"),
            accept_errors: counter!("isle_accept_errors_total"),
            disconnects: [
                counter!("isle_client_disconnects_total", "when" => "before"),
                counter!("isle_client_disconnects_total", "when" => "during"),
            ],
        }
    }

    /// An answer's head is made; the returned value measures until its body has been taken over by hyper.
    pub(super) fn start(
        &self,
        route: RouteLabel,
        method: &Method,
        status: StatusCode,
        arrived: Instant,
    ) -> Timer {
        let class = status.as_u16() / 100 * 100;
        let exact = STATUSES.iter().position(|known| *known == status.as_u16());
        let column = exact.or_else(|| STATUSES.iter().position(|known| *known == class)).unwrap_or(0);
        let head = usize::from(method == Method::HEAD);
        let duration = self.durations[route as usize][head][column].get_or_init(|| {
            histogram!(
                "http_server_request_duration_seconds",
                "http_request_method" => if head == 1 { "HEAD" } else { "GET" },
                "http_route" => route.as_str(),
                "http_response_status_code" => STATUSES[column].to_string(),
            )
        });
        self.active.increment(1.0);
        Timer { duration: duration.clone(), active: self.active.clone(), arrived }
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        counter!("isle_requests_refused_total", "reason" => refusal.as_str()).increment(1);
    }

    pub(super) fn panicked(&self) {
        self.panics.increment(1);
    }

    pub(super) fn panics(&self) -> Counter {
        self.panics.clone()
    }

    /// A client left before or during its answer.
    pub(super) fn disconnected(&self, during: bool) {
        self.disconnects[usize::from(during)].increment(1);
    }

    pub(super) fn evicted(&self, count: usize) {
        self.evicted.increment(count as u64);
    }

    pub(super) fn accept_failed(&self) {
        self.accept_errors.increment(1);
    }

    pub(super) fn connections(&self, open: usize) {
        self.connections.set(open as f64);
    }
}

/// Measures one answer until dropped.
pub(super) struct Timer {
    duration: Histogram,
    active: Gauge,
    arrived: Instant,
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.duration.record(self.arrived.elapsed().as_secs_f64());
        self.active.decrement(1.0);
    }
}

/// Says what each metric of this module is and when it moves.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_histogram!(
        "http_server_request_duration_seconds",
        Unit::Seconds,
        "From a request's complete head to the last byte of its answer handed to the connection"
    );
    describe_gauge!("http_server_active_requests", "Answers that are being sent");
    describe_gauge!("isle_connections", "Open HTTP connections");
    describe_counter!("isle_handler_panics_total", "Requests answered with 500 because a handler panicked");
    describe_counter!(
        "isle_connections_evicted_total",
        "Idle connections asked to close because descriptors ran short"
    );
    describe_counter!("isle_accept_errors_total", "Connections that could not be accepted");
    describe_counter!(
        "isle_client_disconnects_total",
        "Clients that left before or during their answer, or took it too slowly"
    );
    describe_counter!("isle_requests_refused_total", "Requests turned away at the gate");
}
