//! Readers that do not keep up, and what of a connection's window they may hold.
//!
//! What has come for a tunnel and is not read counts against the window that all tunnels of the connection share. So the
//! window is as large as the others need, and a stream's more for each reader that is behind, up to a number of them. Of
//! more than those the ones that take nothing at all are cut, for what they hold is what others wait for.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::RecvStream;
use tokio::io::{AsyncRead, ReadBuf};
use tracing::debug;

use super::BROKEN;

/// How often one looks, and how long a reader may be at work on what it has before it counts as behind. As often as a
/// link pings.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// Readers that may be behind at once and lose nothing. With those the window is as large as it may be.
pub(super) const BEHIND_MAX: usize = 12;
/// Of more than those whoever has taken nothing for so long is cut. Guessed: a reader that is only slow has taken the 64
/// KiB that it has by then.
const NOTHING_TAKEN_MAX: Duration = Duration::from_secs(1);

/// The halves that are read of all tunnels over one connection. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(crate) struct Backlog(Arc<Mutex<Vec<Weak<Inbound>>>>);

/// The half of a tunnel's stream that is read.
pub(super) struct Inbound(Mutex<State>);

struct State {
    recv: RecvStream,
    /// Since when there has always been more to read; `None` while its reader waits.
    behind: Option<Instant>,
    /// When more was last asked for.
    asked: Instant,
    /// Nothing is read any more: to quinn that is an orderly end, and half of what was said would pass for the whole.
    is_cut: bool,
}

impl Backlog {
    pub(super) fn add(&self, recv: RecvStream) -> Arc<Inbound> {
        let now = Instant::now();
        let inbound =
            Arc::new(Inbound(Mutex::new(State { recv, behind: Some(now), asked: now, is_cut: false })));
        lock(&self.0).push(Arc::downgrade(&inbound));
        inbound
    }

    /// How many readers are behind now. If they are too many, those that take nothing are cut, the ones that have done so
    /// for longest first. To be called every [`LOOK`].
    pub(super) fn look(&self, now: Instant) -> usize {
        let mut behind = Vec::new();
        lock(&self.0).retain(|inbound| {
            let Some(inbound) = inbound.upgrade() else { return false };
            let state = lock(&inbound.0);
            let is_behind = state.behind.is_some_and(|since| now.saturating_duration_since(since) >= LOOK);
            let asked = state.asked;
            drop(state);
            if is_behind {
                behind.push((asked, inbound));
            }
            true
        });
        behind.sort_by_key(|(asked, _)| *asked);
        let excess = behind.len().saturating_sub(BEHIND_MAX);
        let idle =
            behind.iter().take_while(|(asked, _)| now.saturating_duration_since(*asked) >= NOTHING_TAKEN_MAX);
        let cut = idle.take(excess).map(|(_, inbound)| inbound.cut()).count();
        if cut > 0 {
            debug!(cut, behind = behind.len(), "tunnels that nobody reads are cut");
        }
        behind.len() - cut
    }
}

impl Inbound {
    pub(super) fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        state.check()?;
        let before = buffer.filled().len();
        let read = AsyncRead::poll_read(Pin::new(&mut state.recv), context, buffer);
        state.asked = Instant::now();
        state.behind = match &read {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => state.behind.or(Some(state.asked)),
            _ => None,
        };
        read
    }

    /// What has come, as it came; none at the end.
    pub(super) fn poll_chunks(
        &self,
        context: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0);
        state.check()?;
        // It holds nothing between two polls, so a new one each time goes on where the last has stopped.
        let read = pin!(state.recv.read_chunks(chunks)).poll(context);
        state.asked = Instant::now();
        state.behind = match &read {
            Poll::Ready(Ok(Some(_))) => state.behind.or(Some(state.asked)),
            _ => None,
        };
        read.map(|read| Ok(read?.unwrap_or(0)))
    }

    /// What has come and was not read is thrown away, and the other side told to send no more.
    fn cut(&self) {
        let mut state = lock(&self.0);
        (state.behind, state.is_cut) = (None, true);
        // Fails only for a stream that is over already.
        let _ = state.recv.stop(BROKEN.into());
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        if self.is_cut { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

/// The state behind these locks is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
