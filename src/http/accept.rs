//! The listener: takes connections in, keeps descriptors free, stops in the right order.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use crate::http::body::Answer;
use crate::http::connection::{self, Door};
use crate::http::connections::Connections;
use crate::http::hosts::HostRules;
use crate::http::listen;
use crate::http::meter::Meter;
use crate::http::request::{Connect, Gated};

pub use crate::http::connection::Limits;

/// What answers requests.
pub trait App: Send + Sync + 'static {
    /// Answers one request. Dropped when the client goes away. A panic becomes a 500 for this request alone.
    ///
    /// HEAD is asked like GET: the body is left out later, its length kept. A body that ends with an error
    /// resets the connection.
    fn answer(&self, request: Gated) -> impl Future<Output = Answer> + Send;

    /// Opens the tunnel that CONNECT asks for, or says why not. `None`: this node opens none. Dropped when the node stops.
    fn connect(&self, request: Connect) -> impl Future<Output = Option<Result<Opened, Answer>>> + Send {
        let _ = request;
        std::future::ready(None)
    }
}

/// A tunnel that stands.
pub struct Opened {
    /// Its other end.
    pub far: Box<dyn Far>,
    /// What of [`Connect::early`] has not been sent yet.
    pub unsent: Bytes,
    /// What the answer says besides.
    pub headers: HeaderMap,
}

/// The far end of a tunnel.
pub trait Far: Send {
    /// Sends `first`, and then carries bytes both ways until both ends have said all, or one breaks. How many went there,
    /// and came from there. If it breaks, or is dropped before, `near` is reset: nobody is to take half for the whole.
    fn carry(self: Box<Self>, first: Bytes, near: TcpStream) -> BoxFuture<'static, io::Result<(u64, u64)>>;
}

/// After a failed `accept` the next try waits this long: descriptors come back when connections end, and a
/// tighter loop would only burn the CPU that could end them.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Strangers can make `accept` fail as often as they like; the log hears of it this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);
/// Connections that have begun when the listener stops are established within this on a LAN.
const HANDSHAKE: Duration = Duration::from_millis(5);
/// What one connection may leave unsent in the kernel: enough for a fast link, little for a mute reader.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;
/// A client that has vanished without a word is noticed after this long, if we have sent it anything.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// Serves HTTP on `listener` until [`Connections::stop`], then until the last connection has ended or
/// [`Connections::abort`].
///
/// Dropping the future cuts all connections.
pub async fn serve<A: App>(
    listener: TcpListener,
    app: Arc<A>,
    hosts: HostRules,
    limits: Limits,
    connections: Connections,
) {
    let door = Arc::new(Door { app, hosts, limits, meter: Meter::new(), builder: connection::builder() });
    let mut accepting = Accepting {
        door,
        connections,
        tasks: JoinSet::new(),
        descriptors: Descriptors::new(),
        complained: None,
    };
    accepting.until_stopped(&listener).await;
    if listen::begin_no_more(&listener).is_ok() {
        tokio::time::sleep(HANDSHAKE).await;
    }
    // Closing a listener resets what waits in its queue, so that is taken out first.
    while let Ok((stream, peer)) = accept_waiting(&listener) {
        accepting.take_in(stream, peer);
    }
    drop(listener);
    accepting.connections.listener_is_shut();
    while let Some(ended) = accepting.tasks.join_next().await {
        accepting.ended(ended);
    }
}

struct Accepting<A> {
    door: Arc<Door<A>>,
    connections: Connections,
    tasks: JoinSet<()>,
    descriptors: Descriptors,
    /// When a failed `accept` was last logged.
    complained: Option<Instant>,
}

enum Wake {
    Stop,
    Ended(Result<(), tokio::task::JoinError>),
    Accepted(io::Result<(TcpStream, SocketAddr)>),
}

impl<A: App> Accepting<A> {
    async fn until_stopped(&mut self, listener: &TcpListener) {
        loop {
            let wake = tokio::select! {
                biased;
                () = self.connections.stopped() => Wake::Stop,
                Some(ended) = self.tasks.join_next() => Wake::Ended(ended),
                accepted = listener.accept() => Wake::Accepted(accepted),
            };
            match wake {
                Wake::Stop => return,
                Wake::Ended(ended) => self.ended(ended),
                Wake::Accepted(Ok((stream, peer))) => self.take_in(stream, peer),
                Wake::Accepted(Err(error)) => {
                    self.door.meter.accept_failed();
                    if is_about_one_connection(&error) {
                        continue;
                    }
                    // EMFILE, ENFILE, ENOBUFS, ENOMEM: the connection stays in the queue.
                    let evicted = self.evict(self.descriptors.excess_when_full());
                    self.complain(&error, evicted);
                    tokio::select! {
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                        () = self.connections.stopped() => return,
                    }
                }
            }
        }
    }

    fn take_in(&mut self, stream: TcpStream, peer: SocketAddr) {
        let excess = self.descriptors.excess(&stream, Instant::now());
        if excess > 0 {
            let evicted = self.evict(excess);
            debug!(evicted, "descriptors run short");
        }
        let Ok(dialled) = stream.local_addr() else { return };
        prepare(&stream);
        let (peer, dialled) = (unmapped(peer), unmapped(dialled));
        let line = self.connections.open_line(peer.ip());
        self.door.meter.connections(self.connections.open());
        let (door, connections) = (self.door.clone(), self.connections.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = connection::run(stream, peer, dialled, door, line) => {}
                () = connections.aborted() => {}
            }
        });
    }

    fn ended(&mut self, ended: Result<(), tokio::task::JoinError>) {
        self.door.meter.connections(self.connections.open());
        if ended.is_err_and(|error| error.is_panic()) {
            self.door.meter.panicked();
            error!("a connection's task panicked; its connection was cut");
        }
    }

    /// Every failure is counted; one in a while is logged.
    fn complain(&mut self, error: &io::Error, evicted: usize) {
        let now = Instant::now();
        if self.complained.is_none_or(|at| now.duration_since(at) >= COMPLAINT_INTERVAL) {
            self.complained = Some(now);
            warn!(%error, evicted, open = self.connections.open(), "cannot accept connections");
        }
    }

    fn evict(&self, count: usize) -> usize {
        let evicted = self.connections.evict(count);
        self.door.meter.evicted(evicted);
        evicted
    }
}

/// How near the process is to its limit of open files.
struct Descriptors {
    limit: usize,
    counted: Option<Instant>,
    /// The last count was above 85 %.
    near: bool,
}

impl Descriptors {
    /// Counting walks a directory of /proc (4 ms for 20,000), so it is done this often at most.
    const COUNT_INTERVAL: Duration = Duration::from_millis(200);

    fn new() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        Self { limit, counted: None, near: false }
    }

    /// How many connections should close now that `newest` has been opened: when more than 90 % of the
    /// descriptors are used, as many as bring that down to 85 %.
    fn excess(&mut self, newest: &impl AsRawFd, now: Instant) -> usize {
        // A new descriptor is the lowest one free, so at least as many as its number are in use. That costs
        // no system call, but once some have been closed below it says little: then we count.
        let at_least = usize::try_from(newest.as_raw_fd()).unwrap_or(0);
        if !self.near && at_least < self.share(90) {
            return 0;
        }
        if self.counted.is_some_and(|counted| now.duration_since(counted) < Self::COUNT_INTERVAL) {
            return 0;
        }
        self.counted = Some(now);
        let used = std::fs::read_dir("/proc/self/fd").map_or(at_least, Iterator::count);
        self.near = used > self.share(85);
        if used > self.share(90) { used - self.share(85) } else { 0 }
    }

    /// How many should close when not one descriptor is left.
    fn excess_when_full(&self) -> usize {
        (self.limit - self.share(85)).max(1)
    }

    fn share(&self, percent: usize) -> usize {
        self.limit / 100 * percent + self.limit % 100 * percent / 100
    }
}

/// Takes one connection from the queue, asking the kernel itself: tokio may not have heard of it yet.
fn accept_waiting(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = socket2::SockRef::from(listener).accept()?;
    socket.set_nonblocking(true)?;
    let peer = peer.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    Ok((TcpStream::from_std(socket.into())?, peer))
}

/// Options of a connection. None of them is worth refusing a client for.
fn prepare(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
}

/// Errors of a connection that ended before it was accepted, see accept(2).
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// `::ffff:a.b.c.d` of a dual-stack listener as the IPv4 address it is.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}
