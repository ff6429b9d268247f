//! The two halves of a QUIC stream as one stream of bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::backlog::Inbound;
use super::carry::carry;
use super::{BoxFuture, Carrying, Duplex, Io, Sending};

/// What the tunnels over one link have carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TunnelCounters {
    /// Open now.
    pub open: u64,
    /// Opened since the start, those that the other side asked for included.
    pub opened: u64,
    /// Asked for in vain.
    pub failed: u64,
    /// Bytes sent in them.
    pub bytes_sent: u64,
    /// Bytes received in them.
    pub bytes_received: u64,
}

/// Those of one link, as its tunnels count them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    opened: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counts {
    pub(super) fn failed(&self) {
        self.0.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes went out with the wish for a tunnel.
    pub(super) fn sent(&self, length: usize) {
        self.0.sent.fetch_add(length as u64, Ordering::Relaxed);
    }

    /// Bytes came with the wish for a tunnel, and went on with it.
    pub(super) fn received(&self, length: usize) {
        self.0.received.fetch_add(length as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> TunnelCounters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (ended, opened) = (read(&self.0.ended), read(&self.0.opened));
        TunnelCounters {
            open: opened.saturating_sub(ended),
            opened,
            failed: read(&self.0.failed),
            bytes_sent: read(&self.0.sent),
            bytes_received: read(&self.0.received),
        }
    }
}

/// An open tunnel's stream on one link.
pub(super) struct TunnelStream {
    sending: Sending,
    /// See [`Sending::stopped`]; once writing has had to wait.
    stopped: Option<BoxFuture<io::Error>>,
    inbound: Arc<Inbound>,
    /// Came with the frame before.
    rest: Bytes,
    /// Our half is finished.
    is_shut: bool,
    /// The other side's half is.
    is_read: bool,
}

/// The half that is read.
pub(super) struct Receiving<'a> {
    inbound: &'a Inbound,
    rest: &'a mut Bytes,
    counts: Counts,
}

impl Receiving<'_> {
    /// What has come, as it came; none at the end.
    pub(super) fn poll_chunks(
        &mut self,
        context: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<io::Result<usize>> {
        let count = if self.rest.is_empty() {
            ready!(self.inbound.poll_chunks(context, chunks))?
        } else {
            chunks[0] = std::mem::take(self.rest);
            1
        };
        self.counts.received(chunks[..count].iter().map(Bytes::len).sum());
        Poll::Ready(Ok(count))
    }
}

impl TunnelStream {
    pub(super) fn new(sending: Sending, inbound: Arc<Inbound>, rest: Bytes) -> Self {
        sending.counts.0.opened.fetch_add(1, Ordering::Relaxed);
        Self { sending, stopped: None, inbound, rest, is_shut: false, is_read: false }
    }

    pub(super) fn halves(&mut self) -> (&mut Sending, Receiving<'_>) {
        let counts = self.sending.counts.clone();
        (&mut self.sending, Receiving { inbound: &self.inbound, rest: &mut self.rest, counts })
    }

    /// Waits until the other side has all that was written, once that is finished, or takes no more.
    pub(super) fn arrived(&self) -> impl Future<Output = ()> + Send + use<> {
        let stopped = self.sending.send.stopped();
        async {
            // The reason says nothing that anybody waits for.
            let _ = stopped.await;
        }
    }

    /// Both halves have come to an orderly end.
    pub(super) fn is_over(&mut self) {
        self.sending.is_over = true;
    }

    /// While we wait to write more: ready with the reason when nobody reads on.
    fn poll_stopped(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sending = &self.sending;
        let stopped = self.stopped.get_or_insert_with(|| Box::pin(sending.stopped()));
        let why = ready!(stopped.as_mut().poll(context));
        self.stopped = None;
        Poll::Ready(Err(why))
    }

    fn note_end(&mut self) {
        self.sending.is_over = self.is_shut && self.is_read;
    }

    fn read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.rest.is_empty() {
            let length = self.rest.len().min(buffer.remaining());
            buffer.put_slice(&self.rest[..length]);
            self.rest.advance(length);
            return Poll::Ready(Ok(()));
        }
        self.inbound.poll_read(context, buffer)
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let read = self.read(context, buffer);
        if let Poll::Ready(Ok(())) = read {
            let length = buffer.filled().len() - before;
            self.sending.counts.received(length);
            if length == 0 && room > 0 {
                self.is_read = true;
                self.note_end();
            }
        }
        read
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = AsyncWrite::poll_write(Pin::new(&mut self.sending.send), context, bytes);
        match written {
            Poll::Ready(Ok(length)) => self.sending.counts.sent(length),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => ready!(self.poll_stopped(context))?,
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.sending.send), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = AsyncWrite::poll_shutdown(Pin::new(&mut self.sending.send), context);
        if let Poll::Ready(Ok(())) = shut {
            self.is_shut = true;
            self.note_end();
        }
        shut
    }
}

impl Io for TunnelStream {
    fn carry<'a>(&'a mut self, near: &'a mut dyn Duplex) -> Carrying<'a> {
        Box::pin(carry(self, near))
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.sending.counts.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}
