//! One client connection: read a request, have it answered, write the answer, again.
//!
//! Requests are read here, by the [gate](crate::http::gate). Answers are written by hyper, which frames them,
//! streams them with back-pressure and knows what HTTP/1.0 and HEAD need. For each answer hyper gets a fresh
//! connection whose other end is `wire`: it reads one constant request from it and writes its answer through
//! it. So hyper never interprets what a client sent.
//!
//! Every wait on the client is bounded, see [`Limits`].

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::FutureExt;
use http::Method;
use hyper::server::conn::http1;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tracing::{debug, error};

use crate::http::accept::App;
use crate::http::connections::OpenLine;
use crate::http::gate::Refusal;
use crate::http::gate::head::Head;
use crate::http::hosts::HostRules;
use crate::http::meter::{Meter, RouteLabel};
use crate::http::problem::Problem;
use crate::http::respond;

mod reading;
mod tunnel;
mod wire;
mod writing;

use reading::{Next, read_some};
use tunnel::Wish;
use writing::Told;
pub(super) use writing::builder;

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

/// Most bytes thrown away after a refusal.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// When leaving, nobody lingers for longer.
const LEAVING_LINGER: Duration = Duration::from_millis(100);

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
            Next::Request(head, arrived) if head.method == Method::CONNECT => {
                match Box::pin(connection.tunnel(*head, arrived)).await {
                    Wish::Granted(opened, in_flight) => {
                        return Box::pin(connection.carry(opened, in_flight)).await;
                    }
                    Wish::Refused(after) => after,
                }
            }
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
                    error!("a handler panicked; its request was answered with 500");
                    respond::panicked().into_answer()
                }
            }
        };
        match self.write(told, arrived, in_flight, make).await {
            After::Close if unread => After::Linger,
            after => after,
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
