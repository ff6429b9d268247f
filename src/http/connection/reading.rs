//! Reading on a connection: the next request, and nothing that is not one.

use std::io::{self, Read as _};
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::sleep_until;

use super::Connection;
use crate::http::gate::discard::Discard;
use crate::http::gate::head::{Framing, Head};
use crate::http::gate::scan::Scanner;
use crate::http::gate::{FIELDS_BYTES_MAX, Refusal};

/// What a read asks for: most heads fit, and idle connections hold no buffer.
const READ_BYTES: usize = 4096;
/// When the listener has closed, a connection this young may have a request on its way.
const NEWCOMER: Duration = Duration::from_millis(50);
/// Most that is read ahead while an answer is under way.
pub(super) const READ_AHEAD_BYTES_MAX: usize = FIELDS_BYTES_MAX;

/// What came next on a connection.
pub(super) enum Next {
    Request(Box<Head>, Instant),
    Refused(Refusal),
    /// Closed by the client, broken, or no longer wanted.
    Over,
}

impl<A> Connection<A> {
    /// Waits for a request and reads it; `answered` says that the client has had an answer before.
    pub(super) async fn next_request(&mut self, answered: bool) -> Next {
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
pub(super) async fn read_some(stream: &mut TcpStream, inbox: &mut BytesMut) -> io::Result<usize> {
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
