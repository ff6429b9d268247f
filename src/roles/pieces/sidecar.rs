//! A service beside this node: its figures are announced while it can be reached, and passed on as they are.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, Uri, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::figures::catalogue::Catalogue;
use crate::figures::name::FigureName;
use crate::figures::shelf::{Shelf, Shelved};
use crate::http::admission::Permit;
use crate::http::body::{Answer, Body, BodyError};
use crate::http::forward;
use crate::http::problem::Problem;
use crate::http::request::Gated;
use crate::upstream::{Ask, Streamed, UpstreamError, Upstreams};

/// How often the service is looked for.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A service on this host or beside it that does not accept within this is away.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);
/// So many failed looks in a row withdraw its figures.
const FAILURES_MAX: u32 = 2;
/// A request whose first node has set no deadline.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why there is nothing to stand beside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SidecarError {
    /// Not `http://HOST[:PORT][/PATH]`.
    #[error("--upstream {url}: not of the form http://HOST:PORT")]
    Url {
        /// What was given.
        url: String,
    },
    /// No figure can have this name.
    #[error("--offers: \"{name}\" cannot be a figure: names are 1 to 64 of a-z, 0-9, '.', '_' and '-'")]
    Name {
        /// What was given.
        name: String,
    },
    /// Nothing would ever be asked of it.
    #[error("--upstream needs --offers: the names of the figures it serves")]
    NoOffers,
}

/// The service and whether it is there.
#[derive(Debug)]
pub(super) struct Sidecar {
    /// `host:port`, for looking up and for `Host`.
    authority: String,
    /// Path before `/figures/`, without a slash at its end.
    base: String,
    catalogue: Catalogue,
    text: Bytes,
    found: watch::Sender<Found>,
    upstreams: Upstreams,
}

/// Where it was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    at: Option<SocketAddr>,
    /// Since when it is there, or away.
    since: Instant,
}

impl Sidecar {
    pub(super) fn new(url: &str, offers: &[String], upstreams: Upstreams) -> Result<Self, SidecarError> {
        let malformed = || SidecarError::Url { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| malformed())?;
        let host = uri
            .host()
            .filter(|_| uri.scheme_str() == Some("http") && uri.query().is_none())
            .ok_or_else(malformed)?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let base = uri.path().trim_end_matches('/').to_owned();
        let mut entries = Vec::new();
        for name in offers {
            let name: FigureName =
                name.trim().parse().map_err(|_| SidecarError::Name { name: name.clone() })?;
            entries.push(name);
        }
        if entries.is_empty() {
            return Err(SidecarError::NoOffers);
        }
        let lines: Vec<Shelved> = entries.into_iter().map(Shelved::passed_on).collect();
        let (shelf, _) = Shelf::new(&lines);
        let (catalogue, text) = (shelf.catalogue().clone(), shelf.catalogue_text().clone());
        let (found, _) = watch::channel(Found { at: None, since: Instant::now() });
        Ok(Self { authority, base, catalogue, text, found, upstreams })
    }

    pub(super) fn is_up(&self) -> bool {
        self.found.borrow().at.is_some()
    }

    /// How long it has been away, if it is.
    pub(super) fn away_for(&self) -> Option<Duration> {
        let found = *self.found.borrow();
        found.at.is_none().then(|| found.since.elapsed())
    }

    pub(super) fn watch(&self) -> watch::Receiver<Found> {
        self.found.subscribe()
    }

    pub(super) fn catalogue(&self) -> (Catalogue, Bytes) {
        (self.catalogue.clone(), self.text.clone())
    }

    /// Looks for the service every second, for ever.
    pub(super) async fn keep_checking(&self) {
        let mut ticks = interval(CHECK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0;
        loop {
            ticks.tick().await;
            match self.reach().await {
                Some(at) => {
                    failures = 0;
                    self.set(Some(at));
                }
                None => {
                    failures += 1;
                    if failures >= FAILURES_MAX {
                        self.set(None);
                    }
                }
            }
        }
    }

    async fn reach(&self) -> Option<SocketAddr> {
        let addresses = timeout(CHECK_TIMEOUT, lookup_host(&self.authority)).await.ok()?.ok()?;
        for at in addresses {
            if matches!(timeout(CHECK_TIMEOUT, TcpStream::connect(at)).await, Ok(Ok(_))) {
                return Some(at);
            }
        }
        None
    }

    fn set(&self, at: Option<SocketAddr>) {
        self.found.send_if_modified(|found| {
            let (was, is) = (found.at.is_some(), at.is_some());
            if is && !was {
                info!(upstream = self.authority, "upstream is there: its figures are announced");
            } else if was && !is {
                warn!(upstream = self.authority, "upstream is away: its figures are withdrawn");
            }
            if was != is {
                found.since = Instant::now();
            }
            std::mem::replace(&mut found.at, at) != at
        });
    }

    /// Passes a request on and its answer back. The permit is held until the answer's last byte.
    pub(super) async fn answer(&self, request: &Gated, name: &FigureName, permit: Permit) -> Answer {
        if self.catalogue.range(name).is_empty() {
            return super::no_such_figure(name.as_str(), &[]).into_answer();
        }
        let at = self.found.borrow().at;
        let Some(at) = at else { return self.away().into_answer() };
        let query = request.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
        let target = format!("{}/figures/{name}{query}", self.base);
        let Ok(target) = target.parse() else { return super::bad_name(name.as_str()).into_answer() };
        let deadline = request.arrived + request.deadline.unwrap_or(DEADLINE).min(DEADLINE);
        let mut ask = Ask { method: request.method.clone(), target, headers: request.headers.clone() };
        ask.headers.insert(
            header::HOST,
            HeaderValue::try_from(self.authority.as_str()).expect("parsed as a URL's authority"),
        );
        match self.upstreams.send(at, &ask, deadline).await {
            Ok(reply) => {
                let (head, body) = reply.into_parts();
                passed_on(head, body, permit)
            }
            Err(error) => {
                if matches!(error, UpstreamError::Connect { .. }) {
                    self.set(None);
                }
                self.failed(&error).into_answer()
            }
        }
    }

    fn away(&self) -> Problem {
        let mut problem = Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "upstream-away",
            "the service behind this node is away",
            format!("nothing accepts connections at {}", self.authority),
        )
        .advise("start it; its figures are announced again within a second");
        problem.retry_after = Some(1);
        problem
    }

    fn failed(&self, error: &UpstreamError) -> Problem {
        match error {
            UpstreamError::Deadline { .. } => Problem::new(
                StatusCode::GATEWAY_TIMEOUT,
                "deadline",
                "no answer in time",
                format!("{} did not answer before the deadline", self.authority),
            ),
            UpstreamError::Connect { .. }
            | UpstreamError::Broken { .. }
            | UpstreamError::TooLong { .. }
            | UpstreamError::NoPassage { .. } => Problem::new(
                StatusCode::BAD_GATEWAY,
                "upstream-broke",
                "the service behind this node broke off",
                format!("{}: {error}", self.authority),
            ),
        }
    }
}

/// A stranger's answer, made harmless for browsers that take it for ours.
fn passed_on(mut head: http::response::Parts, body: Streamed, permit: Permit) -> Answer {
    forward::strip_hop_by_hop(&mut head.headers);
    head.headers.remove(header::SET_COOKIE);
    head.headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    head.headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let body: Body = WithPermit { body, _permit: permit }.boxed_unsync();
    Answer::from_parts(head, body)
}

/// A body that keeps its request's permit, or the like, until it ends.
pub(crate) struct WithPermit<P> {
    pub(crate) body: Streamed,
    pub(crate) _permit: P,
}

impl<P: Unpin> http_body::Body for WithPermit<P> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
