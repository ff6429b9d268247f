//! Tunnels: a stream of bytes from a member of one island to a TCP port of a member of another, along a way that whoever
//! starts it has chosen.
//!
//! Each is one QUIC stream of each link on its way. They have connections of their own beside the links', so that words do not
//! wait in their windows. The far end proves its key before a byte is passed on: see
//! [`Opened`].
//!
//! | module | is |
//! |---|---|
//! | `backlog` | readers that do not keep up |
//! | `carry` | bytes between a tunnel and a connection |
//! | `lines` | which connections there are, and who may use them |
//! | `serve` | what the other side asks for |
//! | `stream` | the two halves of a QUIC stream as one, counted |
//!
//! Source: NETWORK.md, "Tunnels".

use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use isle_mesh::member::MemberId;
use quinn::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, copy_bidirectional_with_sizes};
use tokio::time::timeout;

use crate::endpoint::Connection;
use crate::frame::Decoder;
use crate::frame::tunnel::{self, Opened, TunnelFailure, TunnelFrame};

mod backlog;
mod carry;
mod lines;
mod serve;
mod stream;

pub use crate::frame::tunnel::{Hop, Open};
use backlog::{Backlog, LOOK};
pub(crate) use lines::Lines;
pub(crate) use serve::serve;
pub use stream::TunnelCounters;
use stream::{Counts, TunnelStream};

/// Tunnels that the other side of a link may have open at once.
pub const TUNNELS_MAX: u32 = 4096;
/// Members that the other side of a link may have us dial at once: each is a connection for us and a signature for the
/// member, and with thousands at once a bridge has no time to say that it is there. At 10 ms each still 6,400 a second.
/// Guessed.
const DIALLED_MAX: usize = 64;
/// Its tunnels that wait for that; more are refused as busy. Guessed: what those before it take to dial at 100 ms each is
/// less than it may wait.
const WAITING_MAX: usize = 1024;
/// A tunnel that does not stand after this is given up.
const OPEN_MAX: Duration = Duration::from_secs(10);
/// One that could not be dialled for so long is refused as busy, while there is time left to try elsewhere.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// So long is waited for a stream when the other side allows no more of them.
const STREAM_WAIT: Duration = Duration::from_secs(1);
/// What is taken at once of a tunnel that is not open yet: of what is sent along with the wish for it, no more is in our
/// hands before it stands.
const PIECE_BYTES: usize = 4096;

/// A future that owns what it needs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> Duplex for T {}

/// The end of a tunnel. Dropped before it was shut down, its other end is to learn that it broke.
pub trait Io: Duplex {
    /// Carries bytes between this and `near` until both have said all, or one breaks: how many went into this, and came
    /// out of it.
    fn carry<'a>(&'a mut self, near: &'a mut dyn Duplex) -> Carrying<'a> {
        Box::pin(async move {
            let moved = copy_bidirectional_with_sizes(near, self, COPY_BYTES, COPY_BYTES).await?;
            Ok(moved)
        })
    }
}

/// See [`Io::carry`].
pub type Carrying<'a> = Pin<Box<dyn Future<Output = io::Result<(u64, u64)>> + Send + 'a>>;

/// What is under way inside us in each direction where bytes have to be copied.
const COPY_BYTES: usize = 64 << 10;

impl Io for DuplexStream {}

/// What the program does at the end of a tunnel, or where it leaves for another bridge of the same island.
pub trait Dial: Send + Sync + 'static {
    /// Connects to a member of our own island that announced this port, and has it sign `nonce`.
    fn member(
        &self,
        target: MemberId,
        port: u16,
        nonce: [u8; 16],
    ) -> BoxFuture<Result<Dialled, TunnelFailure>>;

    /// Has another bridge of our own island, which has a link to the next, take the tunnel on. `early` is what comes first
    /// in it, and is sent along: it is not to be sent again by whoever gets the tunnel.
    fn bridge(&self, bridge: MemberId, open: Open, early: Bytes)
    -> BoxFuture<Result<Dialled, TunnelFailure>>;
}

/// A tunnel that stands.
pub struct Dialled {
    /// Its far end.
    pub io: Box<dyn Io>,
    /// Who that is.
    pub opened: Opened,
}

impl std::fmt::Debug for Dialled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialled").field("opened", &self.opened).finish_non_exhaustive()
    }
}

/// Asks the other side of `carrier` for a tunnel, and sends `early` right behind: whoever dials the member passes
/// nothing on before that has proved its key. Dropped before it is done, the stream is reset.
async fn ask(
    carrier: &Carrier,
    open: Open,
    early: &Bytes,
    counts: &Counts,
) -> Result<Dialled, TunnelFailure> {
    let opening = timeout(STREAM_WAIT, carrier.connection.quic().open_bi()).await;
    let (send, mut recv) = opening.map_err(|_| TunnelFailure::Busy)?.map_err(|_| TunnelFailure::NoRoute)?;
    let mut sending = Sending::new(send, counts);
    let mut bytes = Vec::new();
    tunnel::encode(&TunnelFrame::Open(open), &mut bytes);
    // In one piece, so that they come in one.
    bytes.extend_from_slice(early);
    sending.send.write_all(&bytes).await.map_err(|_| TunnelFailure::NoRoute)?;
    let (frame, rest) = first_frame(&mut recv).await.ok_or(TunnelFailure::NoRoute)?;
    match frame {
        TunnelFrame::Opened(opened) => {
            counts.sent(early.len());
            let io = TunnelStream::new(sending, carrier.backlog.add(recv), rest);
            Ok(Dialled { io: Box::new(io), opened })
        }
        TunnelFrame::Failed(failure) => Err(failure),
        TunnelFrame::Open(_) => Err(TunnelFailure::NoRoute),
    }
}

/// The first frame of a stream, and what came with it; `None` if there is none.
async fn first_frame(recv: &mut RecvStream) -> Option<(TunnelFrame, Bytes)> {
    let mut decoder = Decoder::tunnel();
    loop {
        let chunk = recv.read_chunk(PIECE_BYTES, true).await.ok()??;
        let mut rest = &*chunk.bytes;
        if let Some(frame) = decoder.read(&mut rest).ok()? {
            let taken = chunk.bytes.len() - rest.len();
            return Some((frame, chunk.bytes.slice(taken..)));
        }
    }
}

/// A connection that tunnels go over.
#[derive(Clone)]
pub(crate) struct Carrier {
    connection: Connection,
    backlog: Backlog,
}

/// The half of a stream that we write. Unless the stream has come to an orderly end the other side learns that it broke.
struct Sending {
    send: SendStream,
    is_over: bool,
    counts: Counts,
}

/// Why a stream is reset; the same in all cases, for nobody acts on it.
const BROKEN: u32 = 1;

impl Sending {
    fn new(send: SendStream, counts: &Counts) -> Self {
        Self { send, is_over: false, counts: counts.clone() }
    }

    /// Why the other side reads no more; to be waited for by whoever writes. Writing does not always learn of it: quinn 0.11
    /// (quinn-proto 0.11.19, `write_source`) says that a stopped stream is blocked while the window of its connection is
    /// full, and wakes nobody later if the stream's own is full, too. To be removed once it says `Stopped` first.
    fn stopped(&self) -> impl Future<Output = io::Error> + Send + use<> {
        let stopped = self.send.stopped();
        async {
            match stopped.await {
                Ok(Some(_)) => io::ErrorKind::BrokenPipe.into(),
                Err(error) => error.into(),
                // It has all: whoever writes is done, or about to be.
                Ok(None) => pending().await,
            }
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.is_over {
            // Fails only for a stream that is over already.
            let _ = self.send.reset(BROKEN.into());
        }
    }
}

/// A tunnel along a way that starts here.
#[must_use]
pub fn along(islands: &[String], target: MemberId, port: u16, nonce: [u8; 16]) -> Open {
    let hops = islands.iter().map(|island| Hop { island: island.clone(), bridge: None }).collect();
    Open { hops, target, port, nonce }
}
