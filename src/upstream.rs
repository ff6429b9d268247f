//! Requests to other members: connections kept and reused, a kept one that turns out closed replaced at once.
//!
//! | module | is |
//! |---|---|
//! | [`place`] | where a listener is reached |
//! | [`passage`] | connections to members of other islands |
//! | `closed` | to whom none are kept |
//!
//! This is the forwarding core. What it needs to know of a request is its method, its target and its fields; who is
//! asked, and whether somebody else is asked after a failure, is decided by its callers.

use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use isle_mesh::member::{Member, MemberId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio::time::{timeout, timeout_at};
use tokio_util::task::TaskTracker;

use crate::http::body::BodyError;
use crate::upstream::closed::{Closed, Ended};
use crate::upstream::passage::{Early, Refused};
use crate::upstream::place::{Passage, Place};

mod closed;
pub mod passage;
pub mod place;

/// A member on the LAN that does not accept within this is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A kept connection is not used after this long: nodes keep theirs for 75 s, foreign services often for 5 s.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// The same for tunnels: at their ends are nodes, and a new one costs the member another proof.
const IDLE_FAR_MAX: Duration = Duration::from_secs(60);
/// Kept connections to one address; more are closed after use.
const IDLE_PER_ADDRESS_MAX: usize = 64;
/// Closed connections told at most to whoever is slow to listen.
const HUNG_UP_MAX: usize = 64;
/// After an answer's last byte its connection is free within this, or something is wrong with it.
const FREE_WITHIN: Duration = Duration::from_secs(1);
/// Ways remembered on which members have proved their keys; when full all are forgotten, which costs a round trip each.
const PROVEN_MAX: usize = 65_536;
/// A body that stands still this long is broken off.
const BODY_PROGRESS: Duration = Duration::from_secs(15);

/// Why an upstream gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// Nothing listens there, or it does not accept: nothing was sent, always safe to repeat.
    #[error("no connection to {at}")]
    Connect {
        /// Where.
        at: Place,
        /// Why.
        source: io::Error,
    },
    /// The connection broke before an answer came.
    #[error("{at} broke off")]
    Broken {
        /// Where.
        at: Place,
        /// Why.
        source: hyper::Error,
    },
    /// The deadline ran out first.
    #[error("no answer from {at} before the deadline")]
    Deadline {
        /// Where.
        at: Place,
    },
    /// The answer is longer than it may be.
    #[error("{at} sent more than {max} bytes")]
    TooLong {
        /// Where.
        at: Place,
        /// The bound.
        max: usize,
    },
    /// No bridge has it on the line: nothing was sent.
    #[error("{at} cannot be reached: {why}")]
    NoPassage {
        /// Where.
        at: Place,
        /// What the bridge said.
        why: String,
    },
}

impl UpstreamError {
    /// Whether the address itself seems dead: its member should be asked whether it lives.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Broken { .. })
    }
}

/// What is asked of an upstream. Has no body: all that passes here is read with GET and HEAD.
#[derive(Clone, Debug)]
pub struct Ask {
    /// GET or HEAD.
    pub method: Method,
    /// Path and query, in origin form.
    pub target: Uri,
    /// Its fields; `Host`, if it is left out, is the address.
    pub headers: HeaderMap,
}

impl Ask {
    /// GET of a path and query that this program made itself.
    ///
    /// # Panics
    /// If `target` is no valid target.
    #[must_use]
    pub fn get(target: &str) -> Self {
        let target = target.parse().expect("made of a path of ours and checked names");
        Self { method: Method::GET, target, headers: HeaderMap::new() }
    }

    fn request(&self, at: Place) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        if !self.headers.contains_key(header::HOST) {
            request.headers_mut().insert(header::HOST, at.host());
        }
        request
    }
}

type Sender = SendRequest<Empty<Bytes>>;

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
}

type Kept = Mutex<HashMap<Place, Vec<Idle>>>;

/// All connections to other members. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Upstreams {
    idle: Arc<Kept>,
    /// Where connections that we kept were closed by the other side.
    hung_up: broadcast::Sender<Place>,
    closed: Arc<Mutex<Closed>>,
    /// On which ways members of other islands have proved their keys.
    proven: Arc<Mutex<HashSet<Passage>>>,
    tasks: TaskTracker,
}

impl Default for Upstreams {
    fn default() -> Self {
        let (hung_up, _) = broadcast::channel(HUNG_UP_MAX);
        Self {
            idle: Arc::default(),
            hung_up,
            closed: Arc::default(),
            proven: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }
}

impl Upstreams {
    /// Places at which the other side closes connections that we keep: it wants no more of them, or is gone. Whoever does not
    /// keep up misses some.
    #[must_use]
    pub fn hung_up(&self) -> broadcast::Receiver<Place> {
        self.hung_up.subscribe()
    }

    /// Sends `ask` to `at` and waits for the head of the answer until `deadline`.
    ///
    /// A kept connection that breaks before any byte of the answer is replaced at once: the request is
    /// one that may be repeated. Dropping the future, or the reply, closes the connection.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn send(
        &self,
        at: impl Into<Place>,
        ask: &Ask,
        deadline: Instant,
    ) -> Result<Reply, UpstreamError> {
        let at = at.into();
        let exchange = async {
            while let Some(mut sender) = self.kept(at) {
                if let Ok(answer) = sender.send_request(ask.request(at)).await {
                    return Ok(Reply { answer, lease: self.lease(at, sender) });
                }
            }
            let mut sender = self.connect(at).await?;
            let answer = sender.send_request(ask.request(at)).await.map_err(|error| broken(at, error))?;
            Ok(Reply { answer, lease: self.lease(at, sender) })
        };
        let sent = timeout_at(deadline.into(), exchange).await;
        let sent = sent.unwrap_or(Err(UpstreamError::Deadline { at }));
        if let (Place::Far(passage), true) = (at, sent.is_err()) {
            lock(&self.proven).remove(&passage);
        }
        sent
    }

    /// Sends `ask` and collects the whole answer, at most `max` bytes, until `deadline`.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn fetch(
        &self,
        at: impl Into<Place>,
        ask: &Ask,
        max: usize,
        deadline: Instant,
    ) -> Result<Whole, UpstreamError> {
        let at = at.into();
        let mut reply = self.send(at, ask, deadline).await?;
        let mut body = BytesMut::new();
        loop {
            let next = timeout_at(deadline.into(), reply.answer.body_mut().frame());
            match next.await.map_err(|_| UpstreamError::Deadline { at })? {
                None => break,
                Some(Err(source)) => return Err(UpstreamError::Broken { at, source }),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if body.len() + data.len() > max {
                        return Err(UpstreamError::TooLong { at, max });
                    }
                    body.extend_from_slice(&data);
                }
            }
        }
        let (head, _) = reply.answer.into_parts();
        reply.lease.give_back();
        Ok(Whole { status: head.status, headers: head.headers, body: body.freeze() })
    }

    /// Closes connections that have been kept for too long. To be called every few seconds.
    pub fn sweep(&self) {
        lock(&self.closed).sweep(Instant::now());
        self.lock().retain(|place, kept| {
            let idle_max = idle_max(place);
            kept.retain(|idle| idle.since.elapsed() < idle_max && !idle.sender.is_closed());
            !kept.is_empty()
        });
    }

    /// Closes the connections kept to this member, and through it: it is gone.
    pub fn close(&self, member: &Member) {
        let ended = Ended::of(member);
        // First the note, then the pool: an exchange that ends in between sees one or the other.
        lock(&self.closed).close(Instant::now(), &ended);
        self.drop_kept(member, &ended);
    }

    /// The same for one that stops, and waits for connections otherwise: those that are in use, or are opened from now on, are
    /// not kept either, until it [`stays`](Self::stays), but for a minute at most.
    pub fn stops(&self, member: &Member) {
        let ended = Ended::of(member);
        lock(&self.closed).stops(Instant::now(), member.id, ended.clone());
        self.drop_kept(member, &ended);
    }

    /// This one does not stop, or is gone.
    pub fn stays(&self, member: &MemberId) {
        lock(&self.closed).stays(member);
    }

    /// Nobody else than these stops.
    pub fn stays_unless(&self, stops: impl Fn(&MemberId) -> bool) {
        lock(&self.closed).stays_unless(stops);
    }

    /// Whether a connection that is opened there now would be kept.
    #[cfg(test)]
    pub(crate) fn keeps(&self, at: &Place) -> bool {
        lock(&self.closed).may_be_kept(at, Instant::now())
    }

    fn drop_kept(&self, member: &Member, ended: &[Ended]) {
        if member.far {
            lock(&self.proven).retain(|passage| passage.member != member.id);
        }
        self.lock().retain(|place, _| !ended.iter().any(|what| what.concerns(place)));
    }

    fn kept(&self, at: Place) -> Option<Sender> {
        let mut pools = self.lock();
        let kept = pools.get_mut(&at)?;
        // The newest first: the older ones get to grow old and go.
        while let Some(idle) = kept.pop() {
            if idle.since.elapsed() < idle_max(&at) && idle.sender.is_ready() {
                return Some(idle.sender);
            }
        }
        None
    }

    async fn connect(&self, at: Place) -> Result<Sender, UpstreamError> {
        match at {
            Place::Direct(address) => self.speak(at, dial(at, address).await?).await,
            Place::Far(passage) if lock(&self.proven).contains(&passage) => {
                let stream = dial(at, passage.bridge).await?;
                self.speak(at, Early::new(stream, passage)).await
            }
            Place::Far(passage) => {
                let stream = passage::open(passage).await?;
                self.note_proven(passage);
                self.speak(at, stream).await
            }
        }
    }

    fn note_proven(&self, passage: Passage) {
        let mut proven = lock(&self.proven);
        if proven.len() >= PROVEN_MAX {
            proven.clear();
        }
        proven.insert(passage);
    }

    /// HTTP on a new connection.
    async fn speak<T>(&self, at: Place, stream: T) -> Result<Sender, UpstreamError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = Builder::new()
            .max_buf_size(64 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| UpstreamError::Broken { at, source })?;
        // Ends when the sender is dropped, and when the other side closes it; how it ended is seen at the sender.
        let (idle, hung_up) = (Arc::downgrade(&self.idle), self.hung_up.clone());
        self.tasks.spawn(async move {
            let _ = connection.await;
            if idle.upgrade().is_some_and(|idle| drop_closed(&idle, at)) {
                // Nobody may want to know.
                let _ = hung_up.send(at);
            }
        });
        Ok(sender)
    }

    fn lease(&self, at: Place, sender: Sender) -> Lease {
        Lease { at, sender, begun: Instant::now(), pool: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Vec<Idle>>> {
        lock(&self.idle)
    }
}

/// What the end of a connection means: of a tunnel that has not stood yet its bridge may have said why.
fn broken(at: Place, source: hyper::Error) -> UpstreamError {
    let io = source.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match io.and_then(io::Error::get_ref).and_then(|cause| cause.downcast_ref::<Refused>()) {
        Some(refused) => UpstreamError::NoPassage { at, why: refused.why.clone() },
        None => UpstreamError::Broken { at, source },
    }
}

fn idle_max(place: &Place) -> Duration {
    match place {
        Place::Direct(_) => IDLE_MAX,
        Place::Far(_) => IDLE_FAR_MAX,
    }
}

/// A connection to this address, on the way to `at`.
async fn dial(at: Place, address: SocketAddr) -> Result<TcpStream, UpstreamError> {
    let refused = |source| UpstreamError::Connect { at, source };
    let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(stream) => stream.map_err(refused)?,
        Err(_) => return Err(refused(io::ErrorKind::TimedOut.into())),
    };
    stream.set_nodelay(true).map_err(refused)?;
    Ok(stream)
}

/// Drops what is closed of the connections kept to `at`. Returns whether there was any.
fn drop_closed(idle: &Kept, at: Place) -> bool {
    let mut pools = lock(idle);
    let Some(kept) = pools.get_mut(&at) else { return false };
    let before = kept.len();
    kept.retain(|idle| !idle.sender.is_closed());
    let any = kept.len() < before;
    if kept.is_empty() {
        pools.remove(&at);
    }
    any
}

/// The state behind these locks is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub struct Reply {
    /// The head, and the body as it arrives.
    pub answer: http::Response<Incoming>,
    lease: Lease,
}

impl Reply {
    /// The head, and the body as a stream that keeps the connection until its end.
    #[must_use]
    pub fn into_parts(self) -> (http::response::Parts, Streamed) {
        let (head, body) = self.answer.into_parts();
        let patience = Box::pin(tokio::time::sleep(BODY_PROGRESS));
        let mut lease = Some(self.lease);
        if body.is_end_stream()
            && let Some(lease) = lease.take()
        {
            // There is nothing that anybody would read.
            lease.give_back();
        }
        (head, Streamed { body, lease, patience })
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Whole {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// The use of a connection for one exchange.
#[derive(Debug)]
struct Lease {
    at: Place,
    sender: Sender,
    /// When the head of its answer had come.
    begun: Instant,
    pool: Upstreams,
}

impl Lease {
    /// The answer was read to its end: the connection may be used again, unless its other side closes it.
    fn give_back(mut self) {
        if self.sender.is_ready() {
            return self.keep();
        }
        // hyper's side of it has not run since the last byte. That is a matter of microseconds, or it has been closed.
        self.pool.tasks.clone().spawn(async move {
            if let Ok(Ok(())) = timeout(FREE_WITHIN, self.sender.ready()).await {
                self.keep();
            }
        });
    }

    fn keep(self) {
        let mut pools = self.pool.lock();
        if !lock(&self.pool.closed).may_be_kept(&self.at, self.begun) {
            return;
        }
        let kept = pools.entry(self.at).or_default();
        if kept.len() >= IDLE_PER_ADDRESS_MAX {
            // The oldest, which is the one most likely to be closed soon.
            kept.remove(0);
        }
        kept.push(Idle { sender: self.sender, since: Instant::now() });
    }
}

/// A body on its way through. Ends with an error if it stands still.
#[derive(Debug)]
pub struct Streamed {
    body: Incoming,
    lease: Option<Lease>,
    patience: Pin<Box<tokio::time::Sleep>>,
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(next) => next,
            Poll::Pending => {
                ready!(self.patience.as_mut().poll(context));
                return Poll::Ready(Some(Err(BodyError::Stalled)));
            }
        };
        self.patience.as_mut().reset(tokio::time::Instant::now() + BODY_PROGRESS);
        let is_over = next.is_none() || self.body.is_end_stream();
        if is_over && let Some(lease) = self.lease.take() {
            lease.give_back();
        }
        Poll::Ready(next.map(|frame| frame.map_err(BodyError::Upstream)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
