//! The QUIC socket of a bridge: dials nodes whose key it was given, accepts whoever proves one.
//!
//! A [`Connection`] that comes out of here has a proven key at its other end, and no more: whether that key may link is
//! for the caller to say. What crosses a connection is not looked at here.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use isle_mesh::member::MemberId;
use isle_mesh::wire::MeshTag;
use quinn::crypto::rustls::{HandshakeData, NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, MtuDiscoveryConfig, TokioRuntime, TransportConfig, VarInt};
use rustls::pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::timeout;
use tracing::debug;

use crate::frame::{Refusal, Stream};
use crate::tls::{Purpose, Tls, TlsError, proven};

mod refusals;
mod reset;
#[cfg(test)]
mod tests;

pub use refusals::Refusals;

/// What the kernel is asked to keep for the socket, each way; it may grant less. With its default of 208 KiB QUIC lost
/// thousands of packets a second to itself, with this none (measured on loopback).
const SOCKET_BYTES: usize = 4 << 20;
/// The largest datagram that is probed for and taken. Half the CPU per byte of 1452 where the path allows it; above this
/// a batch no longer fits the kernel's segmentation, and costs three times as much (measured).
const DATAGRAM_BYTES_MAX: u16 = 6500;
/// What one stream may have on its way: 8 MiB keep a gigabit busy over 64 ms.
const STREAM_WINDOW: u32 = 8 << 20;
/// What may have come on all streams of a connection and not been read: so much memory a linked node can take. Above
/// three streams' windows, so that a link's streams cannot hold each other up, however long one is not read.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// The same for all tunnels of a link whose readers keep up: 4 Gbit/s over 64 ms. Each reader that is behind adds a stream's
/// window, see [`Connection::make_room`].
const TUNNELS_WINDOW: u32 = 32 << 20;
/// The same before the other side's key is known to be welcome: a hello and a batch.
const STRANGER_WINDOW: u32 = 512 << 10;
/// What may be sent and not acknowledged.
const SEND_WINDOW: u64 = 32 << 20;
/// One packet in so long keeps the state of middleboxes; sessions say more while they are up.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// A connection that nothing is heard on for so long is dropped, should nobody else have noticed.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// The same for connections of tunnels, and how often something is said on them: requests wait for an answer while nobody
/// knows that the other side is gone.
const TUNNELS_IDLE_MAX: Duration = Duration::from_secs(3);
const TUNNELS_KEEP_ALIVE: Duration = Duration::from_millis(750);
/// Before anything is measured. With this a packet that is lost, or finds nobody, is sent again after 120, 360, 840 and 1800 ms:
/// an address that begins to answer is noticed within a second, and three losses in a row cost less than one. On ways that
/// take longer an attempt costs a packet or two more.
const ROUND_TRIP_GUESS: Duration = Duration::from_millis(40);
/// An attempt is given up after this: longer than any round trip on earth, and before the next packet of the row above.
const HANDSHAKE_MAX: Duration = Duration::from_secs(2);
/// Connections that have been asked for and not looked at; beyond that they are turned away.
const INCOMING_MAX: usize = 64;
/// Bytes that are kept of each of them.
const INCOMING_BYTES: u64 = 16 << 10;

/// What a program says of the socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where to listen; port 0 for any. The unspecified IPv6 address stands for IPv4, too.
    pub bind: SocketAddr,
    /// Whether the kernel may cut what is sent into datagrams. Sending costs four times the CPU without; some network
    /// drivers fail with it. On by default.
    pub segmentation_offload: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { bind: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 5236)), segmentation_offload: true }
    }
}

/// Why there is no endpoint. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The system gives no such socket.
    #[error("no UDP socket at {bind}")]
    Socket {
        /// What was asked for.
        bind: SocketAddr,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The key cannot be used.
    #[error("no TLS")]
    Tls(#[from] TlsError),
    /// The provider lacks what every QUIC handshake starts with.
    #[error("no QUIC")]
    Quic(#[from] NoInitialCipherSuite),
}

/// Why a node was not reached. It may be at the next attempt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nothing came back in time.
    #[error("no answer from {addr} in {waited:?}")]
    Timeout {
        /// Who was called.
        addr: SocketAddr,
        /// For how long.
        waited: Duration,
    },
    /// Whoever answered is of another mesh.
    #[error("{addr} is in another mesh")]
    OtherMesh {
        /// Who was called.
        addr: SocketAddr,
    },
    /// The handshake failed: another key, no QUIC, ...
    #[error("no connection to {addr}")]
    Handshake {
        /// Who was called.
        addr: SocketAddr,
        /// What failed.
        #[source]
        source: quinn::ConnectionError,
    },
    /// There is no such address to call from here.
    #[error("{addr} cannot be called")]
    Address {
        /// Who was to be called.
        addr: SocketAddr,
        /// Why not.
        #[source]
        source: quinn::ConnectError,
    },
    /// No TLS configuration for that key.
    #[error("no TLS")]
    Tls(#[from] TlsError),
    /// The provider lacks what every QUIC handshake starts with.
    #[error("no QUIC")]
    Quic(#[from] NoInitialCipherSuite),
}

/// The socket and what connections are made with. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Endpoint {
    quic: quinn::Endpoint,
    tls: Arc<Tls>,
    tag: MeshTag,
    transport: Arc<TransportConfig>,
    for_tunnels: Arc<TransportConfig>,
}

/// Somebody who called, before the handshake.
#[derive(Debug)]
pub struct Incoming {
    quic: Box<quinn::Incoming>,
    tag: MeshTag,
}

/// A connection whose other end has proven a key. Closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    quic: quinn::Connection,
    peer: MemberId,
    purpose: Purpose,
    is_dialled: bool,
}

/// Why a connection is closed, as the other side learns it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closing {
    /// All was said.
    Ended,
    /// The link may not be.
    Refused(Refusal),
    /// The other side broke the protocol.
    Breach,
    /// The same two nodes have another connection.
    Replaced,
    /// So many strangers are being looked at that this one is not; worth another try.
    Busy,
}

impl Closing {
    /// Its number on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ended => 0,
            Self::Refused(refusal) => refusal.code(),
            Self::Breach => 32,
            Self::Replaced => 33,
            Self::Busy => 34,
        }
    }

    /// What the other side meant when it closed the connection; `None` if it is gone without a word, or said something
    /// that we do not know.
    #[must_use]
    pub fn of(error: &quinn::ConnectionError) -> Option<Self> {
        let quinn::ConnectionError::ApplicationClosed(close) = error else { return None };
        let code = u8::try_from(close.error_code.into_inner()).ok()?;
        let others = [Self::Ended, Self::Breach, Self::Replaced, Self::Busy];
        let mut all = others.into_iter().chain(Refusal::ALL.map(Self::Refused));
        all.find(|closing| closing.code() == code)
    }
}

impl Endpoint {
    /// Opens the socket for the node with this key. To be called in a tokio runtime.
    ///
    /// # Errors
    /// No socket, or a key that cannot be used.
    pub fn open(settings: &Settings, key: &SigningKey, tag: MeshTag) -> Result<Self, OpenError> {
        let tls = Tls::new(key, tag)?;
        let for_tunnels = Arc::new(for_tunnels(settings));
        let transport = Arc::new(transport(settings));
        let mut server =
            quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls.server()?)?));
        server.transport_config(transport.clone());
        server.max_incoming(INCOMING_MAX).incoming_buffer_size(INCOMING_BYTES);
        server.incoming_buffer_size_total(INCOMING_BYTES * INCOMING_MAX as u64);
        let mut config = EndpointConfig::new(Arc::new(reset::ResetKey(tls.reset_key())));
        config.cid_generator(|| Box::new(reset::RandomIds));
        config.max_udp_payload_size(DATAGRAM_BYTES_MAX).expect("it is above QUIC's least");
        let quic = socket(settings.bind)
            .and_then(|socket| {
                quinn::Endpoint::new(config, Some(server), socket.into(), Arc::new(TokioRuntime))
            })
            .map_err(|source| OpenError::Socket { bind: settings.bind, source })?;
        Ok(Self { quic, tls: Arc::new(tls), tag, transport, for_tunnels })
    }

    /// Our key.
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.tls.id()
    }

    /// Where we listen.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// Connects to the node with the key `peer` at `addr`: one round trip, at most two seconds. Dropped before it is
    /// done, the attempt ends.
    ///
    /// # Errors
    /// Why not. That the other side does not know our key is no such error: it closes the connection afterwards.
    pub async fn dial(
        &self,
        peer: MemberId,
        addr: SocketAddr,
        purpose: Purpose,
    ) -> Result<Connection, DialError> {
        let tls = self.tls.client(peer, purpose)?;
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(match purpose {
            Purpose::Link => self.transport.clone(),
            Purpose::Tunnels => self.for_tunnels.clone(),
        });
        // The name is not looked at, but TLS wants one.
        let connecting = self
            .quic
            .connect_with(config, addr, "isle")
            .map_err(|source| DialError::Address { addr, source })?;
        match timeout(HANDSHAKE_MAX, connecting).await {
            Ok(Ok(quic)) => Ok(Connection { quic, peer, purpose, is_dialled: true }),
            Ok(Err(source)) if is_of_other_mesh(&source) => Err(DialError::OtherMesh { addr }),
            Ok(Err(source)) => Err(DialError::Handshake { addr, source }),
            Err(_) => Err(DialError::Timeout { addr, waited: HANDSHAKE_MAX }),
        }
    }

    /// The next who calls; `None` once the endpoint is closed. Cancel safe: who was not given out waits.
    pub async fn incoming(&self) -> Option<Incoming> {
        self.quic.accept().await.map(|incoming| Incoming { quic: Box::new(incoming), tag: self.tag })
    }

    /// Closes all connections at once and accepts no other.
    pub fn close(&self) {
        self.quic.close(VarInt::from(Closing::Ended.code()), b"");
    }

    /// Waits until the other sides know of all that was closed, but not longer than `limit`.
    pub async fn wait_closed(&self, limit: Duration) {
        if timeout(limit, self.quic.wait_idle()).await.is_err() {
            debug!(?limit, "not everybody knows that the connection is closed");
        }
    }
}

impl Incoming {
    /// Lets it prove its key: about one round trip, at most two seconds. `None` if it does not. Dropped before it is
    /// done, the attempt ends.
    pub async fn accept(self) -> Option<Connection> {
        let from = self.quic.remote_address();
        let quic = match timeout(HANDSHAKE_MAX, *self.quic).await {
            Ok(Ok(quic)) => quic,
            Ok(Err(error)) => {
                debug!(%from, %error, "no handshake");
                return None;
            }
            Err(_) => {
                debug!(%from, "no handshake in time");
                return None;
            }
        };
        let certificates = quic.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        let peer = proven(&certificates)?;
        let agreed = quic.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol?;
        let purpose = Purpose::ALL.into_iter().find(|purpose| purpose.protocol(self.tag) == agreed)?;
        Some(Connection { quic, peer, purpose, is_dialled: false })
    }

    /// Turns it away while many handshakes are under way: it is to show that it can be reached at its address, or, if it
    /// has, to come again later.
    pub fn defer(self) {
        if !self.quic.remote_address_validated() {
            // Without this a flood of made-up addresses would keep everybody out. Fails only for a validated one.
            let _ = self.quic.retry();
        }
    }
}

impl Connection {
    /// The key that the other side has proven.
    #[must_use]
    pub fn peer(&self) -> MemberId {
        self.peer
    }

    /// What it is for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Whether we called.
    #[must_use]
    pub fn is_dialled(&self) -> bool {
        self.is_dialled
    }

    /// Where the other side is now: that may change.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        let addr = self.quic.remote_address();
        SocketAddr::new(addr.ip().to_canonical(), addr.port())
    }

    /// Lets the other side use the whole window, and open so many streams in both directions.
    pub fn welcome(&self, bidirectional_max: u32) {
        self.quic.set_receive_window(VarInt::from(match self.purpose {
            Purpose::Link => CONNECTION_WINDOW,
            Purpose::Tunnels => TUNNELS_WINDOW,
        }));
        self.quic.set_max_concurrent_bi_streams(VarInt::from(bidirectional_max));
    }

    /// Makes the window larger by what so many streams can have on their way: they are not read, and hold that much. With
    /// none it is that of [`welcome`](Self::welcome) again, once what has come is read.
    pub(crate) fn make_room(&self, streams: usize) {
        let streams = u32::try_from(streams).unwrap_or(u32::MAX);
        let window = TUNNELS_WINDOW.saturating_add(streams.saturating_mul(STREAM_WINDOW));
        self.quic.set_receive_window(VarInt::from(window));
    }

    /// Closes it at once. What was written and has not arrived is lost.
    pub fn close(&self, closing: Closing) {
        self.quic.close(VarInt::from(closing.code()), b"");
    }

    /// The connection itself.
    #[must_use]
    pub fn quic(&self) -> &quinn::Connection {
        &self.quic
    }
}

fn transport(settings: &Settings) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(DATAGRAM_BYTES_MAX);
    let idle = IDLE_MAX.try_into().expect("ten seconds fit");
    transport
        .mtu_discovery_config(Some(discovery))
        .enable_segmentation_offload(settings.segmentation_offload)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(idle))
        .initial_rtt(ROUND_TRIP_GUESS)
        .stream_receive_window(VarInt::from(STREAM_WINDOW))
        .receive_window(VarInt::from(STRANGER_WINDOW))
        .send_window(SEND_WINDOW)
        .max_concurrent_uni_streams(VarInt::from(Stream::ALL.len() as u32))
        // None until the other side is known to be welcome.
        .max_concurrent_bidi_streams(VarInt::from(0u32))
        // Nothing is sent in datagrams.
        .datagram_receive_buffer_size(None);
    transport
}

fn for_tunnels(settings: &Settings) -> TransportConfig {
    let mut transport = transport(settings);
    let idle = TUNNELS_IDLE_MAX.try_into().expect("three seconds fit");
    transport.keep_alive_interval(Some(TUNNELS_KEEP_ALIVE)).max_idle_timeout(Some(idle));
    transport
}

/// A host without IPv6 has no socket for both, but may have one for IPv4.
fn socket(bind: SocketAddr) -> io::Result<Socket> {
    let is_any = bind.ip() == Ipv6Addr::UNSPECIFIED;
    socket_at(bind).or_else(|error| match is_any {
        true => socket_at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, bind.port()))),
        false => Err(error),
    })
}

fn socket_at(bind: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP))?;
    if bind.is_ipv6() {
        socket.set_only_v6(!bind.ip().is_unspecified())?;
    }
    // The kernel grants what it may; less than asked for costs throughput under load, and nothing else.
    for granted in [socket.set_recv_buffer_size(SOCKET_BYTES), socket.set_send_buffer_size(SOCKET_BYTES)] {
        if let Err(error) = granted {
            debug!(%error, "the socket keeps its default buffers");
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&bind.into())?;
    Ok(socket)
}

/// Whether the handshake failed because the two have no protocol in common (RFC 7301, alert 120).
fn is_of_other_mesh(error: &quinn::ConnectionError) -> bool {
    let code = quinn::TransportErrorCode::crypto(120);
    match error {
        quinn::ConnectionError::TransportError(error) => error.code == code,
        quinn::ConnectionError::ConnectionClosed(close) => close.error_code == code,
        _ => false,
    }
}
