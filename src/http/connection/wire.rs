//! What hyper has in place of the client's connection while it writes one answer.
//!
//! Read side: one constant request, then nothing. It notices when the client goes away, and keeps what the
//! client sends ahead for the next request.
//! Write side: the client's socket, with a watch on a client that does not take what we send.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use http::Method;
use hyper::rt::ReadBufCursor;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::Limits;
use super::reading::{READ_AHEAD_BYTES_MAX, poll_read_some};

/// What the two ends of one answer tell each other.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// hyper has let go of the body: all of it is in hyper's buffer.
    pub(super) answered: AtomicBool,
    /// Nor is any of it there any more.
    pub(super) flushed: AtomicBool,
    /// The answer says `Connection: close`.
    pub(super) close: AtomicBool,
    /// The body ended with an error.
    pub(super) broken: AtomicBool,
}

impl Exchange {
    pub(super) fn answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }
}

/// See the module.
pub(super) struct Wire<'a> {
    stream: &'a mut TcpStream,
    inbox: &'a mut BytesMut,
    exchange: Arc<Exchange>,
    limits: &'a Limits,
    /// What is left of the constant request.
    request: &'static [u8],
    /// Set when the client has ended its side while its answer is under way; put off by what it takes.
    half_closed: Option<Pin<Box<Sleep>>>,
    /// Set while the client takes less than we have.
    stalled: Option<Pin<Box<Sleep>>>,
    /// What it took in the current window.
    taken: usize,
}

impl<'a> Wire<'a> {
    pub(super) fn new(
        stream: &'a mut TcpStream,
        inbox: &'a mut BytesMut,
        exchange: Arc<Exchange>,
        limits: &'a Limits,
        method: &Method,
        old: bool,
    ) -> Self {
        // hyper needs to know only what decides the form of an answer.
        let request: &[u8] = match (method == Method::HEAD, old) {
            (false, false) => b"GET / HTTP/1.1\r\n\r\n",
            (false, true) => b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            (true, false) => b"HEAD / HTTP/1.1\r\n\r\n",
            (true, true) => b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        };
        Self { stream, inbox, exchange, limits, request, half_closed: None, stalled: None, taken: 0 }
    }

    /// Looks after the client while its answer is under way. `Ready(Ok)`: it has been gone for long enough.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.half_closed.is_none() {
            if self.inbox.len() >= READ_AHEAD_BYTES_MAX {
                return Poll::Pending;
            }
            if ready!(poll_read_some(self.stream, self.inbox, cx))? == 0 {
                self.half_closed = Some(Box::pin(sleep(self.limits.half_closed)));
            }
        }
        match &mut self.half_closed {
            Some(over) => over.as_mut().poll(cx).map(Ok),
            None => Poll::Pending,
        }
    }

    /// Notes what the client took; an error when it takes too little for too long.
    fn note(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(count)) => {
                self.taken = self.taken.saturating_add(count);
                if let Some(over) = &mut self.half_closed {
                    over.as_mut().reset(Instant::now() + self.limits.half_closed);
                }
                written
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => {
                let window = self.limits.progress;
                let Some(stalled) = &mut self.stalled else {
                    self.taken = 0;
                    let stalled = self.stalled.insert(Box::pin(sleep(window)));
                    // Polled once so that it wakes us.
                    let _ = stalled.as_mut().poll(cx);
                    return Poll::Pending;
                };
                while stalled.as_mut().poll(cx).is_ready() {
                    if self.taken < self.limits.progress_bytes {
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    }
                    self.taken = 0;
                    stalled.as_mut().reset(Instant::now() + window);
                }
                Poll::Pending
            }
        }
    }
}

impl hyper::rt::Read for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.request.is_empty() {
            let (now, later) = this.request.split_at(this.request.len().min(buffer.remaining()));
            buffer.put_slice(now);
            this.request = later;
            return Poll::Ready(Ok(()));
        }
        // Nothing read is the end for hyper: it drops the answer.
        this.poll_client(cx)
    }
}

impl hyper::rt::Write for Wire<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream).poll_write(cx, bytes);
        self.note(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream).poll_write_vectored(cx, slices);
        self.note(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when its buffer is empty: the kernel has taken everything.
        self.stalled = None;
        if self.exchange.answered() {
            self.exchange.flushed.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection outlives this answer; `connection` ends it.
        Poll::Ready(Ok(()))
    }
}
