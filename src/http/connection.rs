//! One client connection: read a request, have it answered, write the answer, again.
//!
//! Requests are read here, by the [gate](crate::http::gate). Answers are written by hyper, which frames them,
//! streams them with back-pressure and knows what HTTP/1.0 and HEAD need. For each answer hyper gets a fresh
//! connection whose other end is [`Wire`]: it reads one constant request from it and writes its answer
//! through it. So hyper never interprets what a client sent.
//!
//! Every wait on the client is bounded, see [`Limits`].

use std::cell::Cell;
use std::convert::Infallible;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderValue, Method, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until};
use tracing::debug;

use crate::http::accept::App;
use crate::http::body::{Answer, Body, BodyError};
use crate::http::connections::{InFlight, OpenLine};
use crate::http::gate::discard::Discard;
use crate::http::gate::head::{Framing, Head};
use crate::http::gate::scan::Scanner;
use crate::http::gate::{HEAD_BYTES_MAX, Refusal};
use crate::http::hosts::HostRules;
use crate::http::meter::{Meter, RouteLabel};
use crate::http::problem::Problem;
use crate::http::respond;
use crate::http::wire::{Exchange, Wire};

/// How long a client may take for what.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A new connection may stay silent this long; then it is closed without a word. Guessed: browsers open
    /// connections ahead of need and are content to find them closed.
    pub silent: Duration,
    /// From the first byte of a request's head to its last; then 408. 10 s is what a person on a bad link needs.
    pub head: Duration,
    /// A connection may wait this long for its next request. Longer than any client's own limit that we know
    /// of (60 s), so that it is rarely us who closes while a request is on its way.
    pub idle: Duration,
    /// Within each such time a client must send or take `progress_bytes`, or the rest; 408 for a body, and
    /// the connection is cut for an answer.
    pub progress: Duration,
    /// See `progress`; together at least 1 KiB/s.
    pub progress_bytes: usize,
    /// A client that has closed its sending side may still be reading: its answer goes on until it has taken
    /// nothing for this long. A client that is gone looks the same, so it is short.
    pub half_closed: Duration,
    /// How long the rest of a refused request is read and thrown away, so that the client gets to see the
    /// refusal rather than a reset connection.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            silent: Duration::from_secs(10),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            progress: Duration::from_secs(10),
            progress_bytes: 10 * 1024,
            half_closed: Duration::from_secs(1),
            linger: Duration::from_secs(2),
        }
    }
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Door<A> {
    pub(super) app: Arc<A>,
    pub(super) hosts: HostRules,
    pub(super) limits: Limits,
    pub(super) meter: Meter,
    pub(super) builder: http1::Builder,
}

/// A mute reader costs at most this much of our memory, and as much of the kernel's (see `accept`).
const WRITE_BUFFER_BYTES: usize = 64 * 1024;
/// What a read asks for: most heads fit, and idle connections hold no buffer.
const READ_BYTES: usize = 4096;
/// Most bytes thrown away after a refusal.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// When the listener has closed, a connection this young may have a request on its way.
const NEWCOMER: Duration = Duration::from_millis(50);
/// When leaving, nobody lingers for longer.
const LEAVING_LINGER: Duration = Duration::from_millis(100);

/// The hyper side of answers.
pub(super) fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Without a timer hyper's limits are silently off. Its limit on heads is, on purpose: hyper reads only
    // the constant heads of `Wire`, which are there at once; the client's are timed below.
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(WRITE_BUFFER_BYTES);
    builder
}

/// Serves one connection until it ends.
pub(super) async fn run<A: App>(
    stream: TcpStream,
    peer: SocketAddr,
    dialled: SocketAddr,
    door: Arc<Door<A>>,
    line: OpenLine,
) {
    let mut connection = Connection { stream, inbox: BytesMut::new(), peer, dialled, door, line };
    let mut answered = false;
    let after = loop {
        let after = match connection.next_request(answered).await {
            Next::Request(head, arrived) => {
                // In a box of its own: an idle connection should not hold the room that an answer needs.
                Box::pin(connection.answer(*head, arrived)).await
            }
            Next::Refused(refusal) => {
                Box::pin(connection.refuse(refusal)).await;
                After::Linger
            }
            Next::Over => After::Drop,
        };
        answered = true;
        if after != After::Again {
            break after;
        }
    };
    connection.end(after).await;
}

struct Connection<A> {
    stream: TcpStream,
    /// What the client has sent and nobody has read yet.
    inbox: BytesMut,
    peer: SocketAddr,
    dialled: SocketAddr,
    door: Arc<Door<A>>,
    line: OpenLine,
}

/// What came next on a connection.
enum Next {
    Request(Box<Head>, Instant),
    Refused(Refusal),
    /// Closed by the client, broken, or no longer wanted.
    Over,
}

/// What happens to a connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum After {
    /// It waits for the next request.
    Again,
    /// It is closed in good order.
    Close,
    /// So is it, but the client may still be sending.
    Linger,
    /// The answer broke off: the connection is reset, or some would take half for whole.
    Reset,
    /// There is nobody left to be polite to.
    Drop,
}

impl<A: App> Connection<A> {
    async fn next_request(&mut self, answered: bool) -> Next {
        self.line.idle();
        if self.inbox.is_empty() && !self.first_bytes(answered).await {
            return Next::Over;
        }
        let deadline = tokio::time::Instant::now() + self.door.limits.head;
        let mut scanner = Scanner::default();
        let head = loop {
            match scanner.scan(&self.inbox) {
                Ok(Some(extent)) => {
                    let mut head = self.inbox.split_to(extent.end).freeze();
                    break Head::parse(&head.split_off(extent.start));
                }
                Err(refusal) => break Err(refusal),
                Ok(None) => match self.more(deadline).await {
                    More::Bytes(_) => {}
                    More::TooLate => break Err(Refusal::HeadTooSlow),
                    More::Over => return Next::Over,
                },
            }
        };
        let arrived = Instant::now();
        match head {
            Err(refusal) => Next::Refused(refusal),
            Ok(head) if head.waits_to_send() => Next::Request(Box::new(head), arrived),
            Ok(head) => match self.discard(head.framing).await {
                Ok(true) => Next::Request(Box::new(head), arrived),
                Ok(false) => Next::Over,
                Err(refusal) => Next::Refused(refusal),
            },
        }
    }

    /// Waits until something comes. `false`: nothing will, or the connection is not wanted any more.
    async fn first_bytes(&mut self, answered: bool) -> bool {
        // Nothing is allocated for a connection that only waits.
        self.inbox = BytesMut::new();
        let began = tokio::time::Instant::now();
        let limits = &self.door.limits;
        let mut until = began + if answered { limits.idle } else { limits.silent };
        let mut wait = pin!(sleep_until(until));
        loop {
            if self.line.is_unwanted() {
                // A last look: what has come already is served, and what a newcomer is about to send.
                match self.last_look() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    there => return matches!(there, Ok(1..)),
                }
                let may_speak = !answered && self.line.connections().is_stopped();
                if !may_speak || began.elapsed() >= NEWCOMER {
                    return false;
                }
                until = until.min(began + NEWCOMER);
                wait.as_mut().reset(until);
            }
            let wake = tokio::select! {
                biased;
                read = read_some(&mut self.stream, &mut self.inbox) => Wake::Read(read),
                () = self.line.woken() => Wake::Look,
                () = wait.as_mut() => Wake::Timeout,
            };
            match wake {
                Wake::Read(read) => return matches!(read, Ok(1..)),
                Wake::Look => {}
                Wake::Timeout => return false,
            }
        }
    }

    /// Reads what has come, asking the kernel itself: tokio may not have heard of it yet.
    fn last_look(&mut self) -> io::Result<usize> {
        let mut bytes = [0; READ_BYTES];
        let read = (&*socket2::SockRef::from(&self.stream)).read(&mut bytes)?;
        self.inbox.extend_from_slice(&bytes[..read]);
        Ok(read)
    }

    /// Reads a request's body and throws it away. `false`: the client went away.
    async fn discard(&mut self, framing: Framing) -> Result<bool, Refusal> {
        let mut discard = Discard::new(framing)?;
        let (mut deadline, mut left) = self.window();
        loop {
            let taken = discard.skip(&self.inbox)?;
            let _ = self.inbox.split_to(taken);
            if discard.is_done() {
                return Ok(true);
            }
            match self.more(deadline).await {
                More::Bytes(read) => left = left.saturating_sub(read),
                More::TooLate => return Err(Refusal::BodyTooSlow),
                More::Over => return Ok(false),
            }
            if left == 0 {
                (deadline, left) = self.window();
            }
        }
    }

    /// Reads more of a request that has begun.
    async fn more(&mut self, deadline: tokio::time::Instant) -> More {
        loop {
            let wake = tokio::select! {
                biased;
                read = read_some(&mut self.stream, &mut self.inbox) => Wake::Read(read),
                () = self.line.woken() => Wake::Look,
                () = sleep_until(deadline) => Wake::Timeout,
            };
            match wake {
                Wake::Read(Ok(read @ 1..)) => return More::Bytes(read),
                Wake::Read(Ok(0) | Err(_)) => return More::Over,
                // A node that stops serves what has begun. One short of descriptors does not: else a client
                // could hold them with requests that never end.
                Wake::Look if self.line.is_evicted() => return More::Over,
                Wake::Look => {}
                Wake::Timeout => return More::TooLate,
            }
        }
    }

    /// Until when how many bytes must have come.
    fn window(&self) -> (tokio::time::Instant, usize) {
        (tokio::time::Instant::now() + self.door.limits.progress, self.door.limits.progress_bytes)
    }

    async fn refuse(&mut self, refusal: Refusal) {
        self.door.meter.refused(refusal);
        debug!(peer = %self.peer, reason = refusal.as_str(), "request refused");
        let problem = Problem::from(refusal);
        let in_flight = self.line.request();
        let told = Told { route: RouteLabel::Refused, method: Method::GET, old: false, close: true };
        self.write(told, Instant::now(), in_flight, async move { problem.into_answer() }).await;
    }

    async fn answer(&mut self, head: Head, arrived: Instant) -> After {
        let unread = head.waits_to_send();
        let (old, close) = (head.old, !head.keep_alive || unread);
        let gated = head.into_gated(self.peer, self.dialled, arrived);
        let told = Told { route: RouteLabel::of(&gated.path), method: gated.method.clone(), old, close };
        let in_flight = self.line.request();
        let door = self.door.clone();
        let make = async move {
            if let Err(foreign) = door.hosts.check(&gated) {
                return Problem::from(foreign).into_answer();
            }
            match AssertUnwindSafe(door.app.answer(gated)).catch_unwind().await {
                Ok(answer) => answer,
                Err(_) => {
                    door.meter.panicked();
                    tracing::error!("a handler panicked; its request was answered with 500");
                    respond::panicked().into_answer()
                }
            }
        };
        match self.write(told, arrived, in_flight, make).await {
            After::Close if unread => After::Linger,
            after => after,
        }
    }

    /// Has `make`'s answer written by hyper.
    async fn write(
        &mut self,
        told: Told,
        arrived: Instant,
        in_flight: InFlight,
        make: impl Future<Output = Answer> + Send,
    ) -> After {
        let exchange = Arc::new(Exchange::default());
        let wire = Wire::new(
            &mut self.stream,
            &mut self.inbox,
            exchange.clone(),
            &self.door.limits,
            &told.method,
            told.old,
        );
        let meter = &self.door.meter;
        let finish = {
            let exchange = exchange.clone();
            async move {
                let mut answer = make.await;
                secure(&mut answer);
                let says_close = says_close(&answer);
                // HTTP/1.0 has no chunks: a body of unknown length ends with the connection.
                let endless = told.old && answer.body().size_hint().exact().is_none();
                if told.close || says_close || endless || in_flight.is_last() {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    exchange.close.store(true, Ordering::Relaxed);
                    in_flight.told();
                }
                let timer = meter.start(told.route, &told.method, answer.status(), arrived);
                let panics = meter.panics();
                answer.map(|body| Tracked { body, exchange, panics, _in_flight: in_flight, _timer: timer })
            }
        };
        let once = Cell::new(Some(finish));
        let service = hyper::service::service_fn(move |_: http::Request<hyper::body::Incoming>| {
            let finish = once.take().expect("hyper reads one request from a Wire");
            async move { Ok::<_, Infallible>(finish.await) }
        });
        let mut hyper = pin!(self.door.builder.serve_connection(wire, service));
        let result = std::future::poll_fn(|cx| match hyper.as_mut().poll(cx) {
            // It would wait for another request, which is not its business.
            Poll::Pending if exchange.flushed.load(Ordering::Relaxed) => Poll::Ready(Ok(())),
            other => other,
        })
        .await;
        let broken = exchange.broken.load(Ordering::Relaxed);
        match result {
            Ok(()) if exchange.close.load(Ordering::Relaxed) => After::Close,
            Ok(()) => After::Again,
            Err(_) if broken => After::Reset,
            Err(error) => {
                self.door.meter.disconnected(exchange.answered());
                debug!(peer = %self.peer, %error, "client went away");
                After::Drop
            }
        }
    }

    async fn end(mut self, after: After) {
        match after {
            After::Reset => {
                // Best effort: if it fails, the client sees an orderly end in the middle of a body.
                let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
            }
            After::Close | After::Linger => self.close(after == After::Linger).await,
            After::Again | After::Drop => {}
        }
    }

    /// Sends FIN; then, if the client may still be sending, reads that, because closing a socket with unread
    /// bytes resets the connection and can take our answer with it.
    async fn close(&mut self, more_expected: bool) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let connections = self.line.connections().clone();
        let linger = self.door.limits.linger;
        let mut left = LINGER_BYTES_MAX;
        let drain = async {
            loop {
                self.inbox.clear();
                match read_some(&mut self.stream, &mut self.inbox).await {
                    Ok(read @ 1..) if read < left => left -= read,
                    _ => break,
                }
            }
        };
        if !more_expected {
            drain.now_or_never();
            return;
        }
        // Whoever sends for longer than this is not interested in our answer.
        tokio::select! {
            () = drain => {}
            () = sleep(linger) => {}
            () = async { connections.stopped().await; sleep(LEAVING_LINGER).await } => {}
        }
    }
}

/// What is known of an answer before it is made.
struct Told {
    route: RouteLabel,
    method: Method,
    /// For a client of HTTP/1.0.
    old: bool,
    /// The connection is closed after it.
    close: bool,
}

/// What came of a request that has begun.
enum More {
    Bytes(usize),
    TooLate,
    /// The client went away, or must.
    Over,
}

enum Wake {
    Read(io::Result<usize>),
    Look,
    Timeout,
}

/// Reads what there is; no buffer is held while there is nothing.
///
/// Cancel safe: what was read is in `inbox`.
async fn read_some(stream: &mut TcpStream, inbox: &mut BytesMut) -> io::Result<usize> {
    std::future::poll_fn(|cx| poll_read_some(stream, inbox, cx)).await
}

pub(super) fn poll_read_some(
    stream: &mut TcpStream,
    inbox: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    ready!(stream.poll_read_ready(cx))?;
    inbox.reserve(READ_BYTES);
    let read = pin!(stream.read_buf(inbox)).poll(cx);
    if read.is_pending() && inbox.is_empty() {
        *inbox = BytesMut::new();
    }
    read
}

/// Most that is read ahead while an answer is under way.
pub(super) const READ_AHEAD_BYTES_MAX: usize = HEAD_BYTES_MAX;

fn says_close(answer: &Answer) -> bool {
    answer.headers().get_all(header::CONNECTION).iter().any(|value| {
        value.to_str().is_ok_and(|text| text.split(',').any(|word| word.trim().eq_ignore_ascii_case("close")))
    })
}

/// What every answer tells browsers: take it as what it is called, run nothing that is not from here, show
/// it in no frame, give it to no other page. An answer that needs other rules brings its own.
fn secure(answer: &mut Answer) {
    let headers = answer.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert_with(|| {
        HeaderValue::from_static(
            "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
    });
}

/// An answer's body that tells its connection when it is done.
struct Tracked {
    body: Body,
    exchange: Arc<Exchange>,
    panics: metrics::Counter,
    _in_flight: InFlight,
    _timer: crate::http::meter::Timer,
}

/// Why an answer broke off after its head.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the body's maker panicked")]
    Panic,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let body = &mut self.body;
        // A body that panicked is not polled again: hyper drops it after an error.
        let frame = std::panic::catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx)));
        let frame = match frame {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(frame)) => frame.map(|frame| frame.map_err(Broken::from)),
            Err(_) => {
                self.panics.increment(1);
                tracing::error!("a handler panicked in the middle of an answer, which was cut");
                Some(Err(Broken::Panic))
            }
        };
        if let Some(Err(_)) = &frame {
            self.exchange.broken.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.exchange.answered.store(true, Ordering::Relaxed);
    }
}
