//! What every node tells about itself and its table over HTTP: only reading, nothing that changes state.
//!
//! | module | is |
//! |---|---|
//! | [`view`] | the JSON, and what every reason means |
//! | [`members`] | the table, and the member a person means |
//! | [`figures`] | the JSON of figures |
//! | [`events`] | what happens, as a stream |
//! | [`ready`] | whether this node should be asked |
//! | [`gauges`] | metrics that are read off the node |
//!
//! Whoever knows the table is a [`Source`], so that all of this is tested without a network.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, StatusCode, header};
use isle_mesh::event::{Event, Subject};
use isle_mesh::member::Member;
use isle_mesh::mesh::Islands;
use isle_mesh::metrics::Counts;
use isle_mesh::shared::SharedTable;
use serde::Serialize;
use tokio::sync::Mutex;
use tracing::info;

use crate::api::events::Feed;
use crate::api::ready::{Service, State};
use crate::api::view::{IslandEvent, LinkView, LinksPage, MemberEvent, MemberView};
use crate::http::body::{Answer, empty, full};
use crate::http::connections::Connections;
use crate::http::problem::Problem;
use crate::http::request::Gated;
use crate::http::respond;
use crate::telemetry::exposition::Exposition;

pub mod events;
pub mod figures;
pub mod gauges;
pub mod members;
pub mod ready;
pub mod view;

/// Rendering a member takes about 2 µs: larger tables are rendered away from the tasks that serve, and at
/// most once per [`FRESH`] unless something changed.
const INLINE_MEMBERS_MAX: usize = 50;
/// How old a rendered page may be, as far as ages and loads in it go; changes show at once.
const FRESH: Duration = Duration::from_millis(50);

const JSON: &str = "application/json";
const MSGPACK: &str = "application/msgpack";
const TEXT: &str = "text/plain; charset=utf-8";
/// The exposition format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const EVENT_STREAM: &str = "text/event-stream";

/// What the API needs to know of a mesh.
pub trait Source: Send + Sync + 'static {
    /// This node as the table has it.
    fn me(&self) -> Arc<Member>;
    /// The table.
    fn table(&self) -> &SharedTable;
    /// Whether the table was fetched, or nobody was there to fetch it from.
    fn is_complete(&self) -> bool;
    /// Whether a node at this address may fetch records and proofs.
    fn may_ask(&self, asker: IpAddr) -> bool;
    /// What it has sent, heard and refused so far.
    fn counts(&self) -> Counts;
    /// Body of `/mesh/records`.
    fn records(&self) -> BoxFuture<'_, Bytes>;
    /// Body of `/mesh/records?instance=&since=`: what it knows of other islands.
    fn far_records(&self, instance: u64, since: u64) -> BoxFuture<'_, Bytes> {
        let _ = (instance, since);
        Box::pin(async { Bytes::new() })
    }
    /// The service beside it.
    fn service(&self) -> Service {
        Service::None
    }
    /// The other islands that it knows.
    fn islands(&self) -> Islands {
        Islands::default()
    }
    /// Its links to other islands, if it is a bridge.
    fn links(&self) -> BoxFuture<'_, Vec<LinkView>> {
        Box::pin(async { Vec::new() })
    }
    /// Body of `/mesh/proof`.
    fn proof(&self, nonce: &[u8; 16], dialled: SocketAddr) -> Vec<u8>;
}

/// Why a node's question is not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denied {
    /// Records and proofs are for nodes of the same network.
    #[error("this is for nodes on the same network, or that have just said hello with a cookie")]
    NotOnLink,
    /// A part of the records was asked for that cannot be told.
    #[error("instance and since must both be numbers")]
    BadSince,
    /// A proof was asked for without something to sign.
    #[error("nonce must be 32 hexadecimal digits")]
    BadNonce,
}

/// Answers `/members`, `/links`, `/events`, `/healthz`, `/readyz`, `/metrics` and `/mesh/*`. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

struct Shared {
    started: Instant,
    source: Arc<dyn Source>,
    connections: Connections,
    feed: Feed,
    metrics: Exposition,
    page: Mutex<Option<Rendered>>,
    exposition: Mutex<Option<Rendered>>,
}

/// A body that serves everybody who asks at about the same time.
#[derive(Clone)]
struct Rendered {
    /// The newest event when it was begun: it shows at least everything up to it.
    version: u64,
    at: Instant,
    body: Bytes,
}

impl Rendered {
    fn is_fresh(&self, version: u64) -> bool {
        self.version == version && self.at.elapsed() < FRESH
    }
}

impl Api {
    /// `connections` says when streams must end, `metrics` renders `/metrics`.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, connections: Connections, metrics: Exposition) -> Self {
        gauges::describe();
        crate::http::meter::describe();
        let feed = Feed::new(connections.closing());
        let (page, exposition) = (Mutex::default(), Mutex::default());
        let started = Instant::now();
        Self { shared: Arc::new(Shared { started, source, connections, feed, metrics, page, exposition }) }
    }

    /// Passes a change of the table on to the readers of `/events` and to the metrics.
    pub fn tell(&self, event: &Event) {
        gauges::count(event.kind);
        let Some(name) = view::event_name(event.kind) else { return };
        match &event.subject {
            Subject::Member(member) => {
                let member = MemberView::of(member, Instant::now());
                self.shared.feed.publish(name, &MemberEvent { member });
            }
            Subject::Island(island) => {
                self.shared.feed.publish(name, &IslandEvent { island: island.name.clone() });
            }
        }
    }

    /// Some changes were missed: readers of `/events` start again from a snapshot.
    pub fn missed(&self) {
        info!("events were missed; readers of /events start again");
        self.shared.feed.restart();
    }

    /// Answers a request for one of the API's paths; `None` for others.
    pub async fn answer(&self, request: &Gated) -> Option<Answer> {
        let path = request.path.strip_prefix('/')?;
        Some(match path.split_once('/').unwrap_or((path, "")) {
            ("members", "") if path == "members" => page(JSON, self.members().await.body),
            ("members", word) if !word.is_empty() => self.member(word),
            ("links", "") if path == "links" => {
                json(StatusCode::OK, &LinksPage { links: self.shared.source.links().await })
            }
            ("events", "") if path == "events" => self.events(request).await,
            ("healthz", "") if path == "healthz" => page(TEXT, "ok\n"),
            ("readyz", "") if path == "readyz" => self.ready(request),
            ("metrics", "") if path == "metrics" => page(METRICS, self.exposition().await),
            ("mesh", "records") => match self.asker(request) {
                Ok(()) => match since(request) {
                    None => page(MSGPACK, self.shared.source.records().await),
                    Some(Ok((instance, since))) => {
                        page(MSGPACK, self.shared.source.far_records(instance, since).await)
                    }
                    Some(Err(denied)) => Problem::from(denied).into_answer(),
                },
                Err(denied) => Problem::from(denied).into_answer(),
            },
            ("mesh", "proof") => match self.asker(request).and_then(|()| nonce(request)) {
                Ok(nonce) => page(MSGPACK, self.shared.source.proof(&nonce, request.dialled)),
                Err(denied) => Problem::from(denied).into_answer(),
            },
            _ => return None,
        })
    }

    fn asker(&self, request: &Gated) -> Result<(), Denied> {
        let allowed = self.shared.source.may_ask(request.peer.ip());
        if allowed { Ok(()) } else { Err(Denied::NotOnLink) }
    }

    /// The page, with the number of the newest event that it is known to contain.
    async fn members(&self) -> Rendered {
        let large = self.shared.source.table().len() > INLINE_MEMBERS_MAX;
        if !large {
            return self.shared.render_members();
        }
        let mut kept = self.shared.page.lock().await;
        if let Some(page) = kept.as_ref().filter(|page| page.is_fresh(self.shared.feed.latest())) {
            return page.clone();
        }
        let shared = self.shared.clone();
        let page = tokio::task::spawn_blocking(move || shared.render_members()).await;
        let page = page.expect("rendering views does not panic, and is never cancelled");
        kept.insert(page).clone()
    }

    fn member(&self, word: &str) -> Answer {
        match members::find(&self.shared.source.table().all(), word) {
            Ok(member) => json(StatusCode::OK, &MemberView::of(&member, Instant::now())),
            Err(unfound) => Problem::from(unfound).into_answer(),
        }
    }

    async fn events(&self, request: &Gated) -> Answer {
        if self.shared.connections.is_closing() {
            return respond::draining().into_answer();
        }
        let body = if request.method == Method::HEAD {
            empty()
        } else {
            let seat = match self.shared.feed.seat(request.peer.ip()) {
                Ok(seat) => seat,
                Err(crowded) => return Problem::from(crowded).into_answer(),
            };
            let last = request.headers.get("last-event-id").and_then(|value| value.to_str().ok());
            match self.shared.feed.resume(last) {
                Some(position) => self.shared.feed.body(seat, position, None),
                None => {
                    let page = self.members().await;
                    let text = std::str::from_utf8(&page.body).expect("JSON is UTF-8");
                    self.shared.feed.body(seat, page.version, Some(text))
                }
            }
        };
        let mut answer = page_of(EVENT_STREAM, body);
        // Nothing can follow a stream; so its end is the connection's, and leaving need not wait for more.
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        answer
    }

    fn ready(&self, request: &Gated) -> Answer {
        let state = self.shared.state();
        let status = if state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut answer = json(status, &state.view(request.parameter("verbose").is_some()));
        if !state.is_ready() {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }

    async fn exposition(&self) -> Bytes {
        let mut kept = self.shared.exposition.lock().await;
        if let Some(text) = kept.as_ref().filter(|text| text.is_fresh(0)) {
            return text.body.clone();
        }
        let shared = self.shared.clone();
        let rendered = tokio::task::spawn_blocking(move || {
            let at = Instant::now();
            let (members, islands) = (shared.source.table().all(), shared.source.islands());
            gauges::set(&members, &islands, shared.state(), shared.feed.readers());
            gauges::export(&shared.source.counts());
            Rendered { version: 0, at, body: shared.metrics.render().into() }
        });
        let rendered = rendered.await.expect("rendering numbers does not panic, and is never cancelled");
        kept.insert(rendered).body.clone()
    }
}

impl Shared {
    fn render_members(&self) -> Rendered {
        // The number first: what happens while we look may be shown and told again, but is not lost.
        let version = self.feed.latest();
        let at = Instant::now();
        let page = members::page(&self.source.me(), self.source.table().all(), &self.source.islands(), at);
        let body = serde_json::to_vec(&page).expect("views are strings and numbers only").into();
        Rendered { version, at, body }
    }

    fn state(&self) -> State {
        let draining = self.connections.closing_since().map(|since| since.elapsed());
        let me = self.source.me();
        State {
            fetching: (!self.source.is_complete()).then(|| self.started.elapsed()),
            // The mesh may have been told first.
            draining: draining.or_else(|| me.record.draining.then(|| me.since.elapsed())),
            service: self.source.service(),
        }
    }
}

/// What `?instance=&since=` names, if it is there.
fn since(request: &Gated) -> Option<Result<(u64, u64), Denied>> {
    let (instance, since) = (request.parameter("instance"), request.parameter("since"));
    if instance.is_none() && since.is_none() {
        return None;
    }
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).ok_or(Denied::BadSince);
    Some(number(instance).and_then(|instance| Ok((instance, number(since)?))))
}

/// The nonce of a proof: 32 hex digits.
fn nonce(request: &Gated) -> Result<[u8; 16], Denied> {
    let text = request.parameter("nonce").unwrap_or_default();
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap_or_default();
    bytes.try_into().map_err(|_| Denied::BadNonce)
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut answer = page(JSON, serde_json::to_vec(value).expect("views are strings and numbers only"));
    *answer.status_mut() = status;
    answer
}

fn page(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    page_of(content_type, full(body))
}

fn page_of(content_type: &'static str, body: crate::http::body::Body) -> Answer {
    let mut answer = http::Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests;
