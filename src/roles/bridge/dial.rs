//! The last step of a tunnel: a TCP connection to a member of our own island, which proves its key on it.
//!
//! A caller on another island cannot tell whom we have connected it with, so the member's signature over the caller's nonce
//! goes back to it. We look at it, too: nothing is passed on to whoever cannot give it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use island_bridge::frame::tunnel::TunnelFailure;
use island_bridge::tunnel::Io;
use isle_mesh::member::{Member, MemberId};
use isle_mesh::mesh::Mesh;
use isle_mesh::proof::{self, PROOF_BYTES_MAX};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use crate::http::hosts::host_of;

/// A member on our own LAN that does not accept within this is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A proof is one small answer.
const PROOF_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection on which a member has proved its key.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) stream: TcpStream,
    /// As the member gave it.
    pub(super) proof: Bytes,
    /// Where it was dialled, which the proof is over.
    pub(super) dialled: SocketAddr,
}

/// A TCP connection at one end of a tunnel. Dropped before it was shut down it is reset, so that nobody takes half of an
/// answer for the whole.
#[derive(Debug)]
pub(super) struct Carried {
    stream: TcpStream,
    /// Has been read of it, and comes first.
    rest: Bytes,
    is_shut: bool,
}

impl Carried {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, rest: Bytes::new(), is_shut: false }
    }

    /// The same where `rest` has been read of it already.
    pub(super) fn behind(mut self, rest: Bytes) -> Self {
        self.rest = rest;
        self
    }
}

impl AsyncRead for Carried {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.rest.is_empty() {
            let length = self.rest.len().min(buffer.remaining());
            buffer.put_slice(&self.rest.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Carried {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.is_shut |= matches!(shut, Poll::Ready(Ok(())));
        shut
    }
}

impl Io for Carried {}

impl Drop for Carried {
    fn drop(&mut self) {
        if !self.is_shut {
            // Best effort: without it the other side sees an orderly end.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// The member with this key, if it announced this port.
pub(super) fn announced(mesh: &Mesh, target: &MemberId, port: u16) -> Result<Arc<Member>, TunnelFailure> {
    let member = mesh.table().get(target).ok_or(TunnelFailure::Forbidden)?;
    match member.record.http_port == port && port != 0 && !member.standing.is_gone() {
        true => Ok(member),
        false => Err(TunnelFailure::Forbidden),
    }
}

/// Connects to a member of our own island and has it sign `nonce`.
pub(super) async fn dial(mesh: &Mesh, member: &Member, nonce: &[u8; 16]) -> Result<Proven, TunnelFailure> {
    let mut failure = TunnelFailure::Forbidden;
    for at in &member.http_addresses {
        match dial_at(mesh, member, *at, nonce).await {
            Ok(proven) => return Ok(proven),
            Err(why) => {
                debug!(member = %member.id.short(), %at, why = why.as_str(), "not connected");
                failure = why;
            }
        }
    }
    if failure == TunnelFailure::ConnectionRefused {
        mesh.connection_refused(member.id);
    }
    Err(failure)
}

async fn dial_at(
    mesh: &Mesh,
    member: &Member,
    at: SocketAddr,
    nonce: &[u8; 16],
) -> Result<Proven, TunnelFailure> {
    let stream =
        timeout(CONNECT_TIMEOUT, TcpStream::connect(at)).await.map_err(|_| TunnelFailure::Timeout)?;
    let stream = stream.map_err(|_| TunnelFailure::ConnectionRefused)?;
    stream.set_nodelay(true).map_err(|_| TunnelFailure::ConnectionRefused)?;
    let asked = timeout(PROOF_TIMEOUT, ask(stream, at, nonce)).await.map_err(|_| TunnelFailure::Timeout)?;
    let (stream, body) = asked.ok_or(TunnelFailure::NotProven)?;
    let proof = proof::decode(&body).map_err(|_| TunnelFailure::NotProven)?;
    let is_right = proof.id == member.id
        && proof.epoch == member.stamp.epoch
        && proof::verify_proof(mesh.tag(), proof.id, proof.epoch, at, nonce, &proof.signature);
    if !is_right {
        return Err(TunnelFailure::NotProven);
    }
    mesh.proved(member.id);
    // The scope of a link-local address means nothing elsewhere, and is no part of what is signed.
    Ok(Proven { stream, proof: body, dialled: SocketAddr::new(at.ip(), at.port()) })
}

/// `GET /mesh/proof` on a connection that goes on to be used; `None` if what came is no proof.
async fn ask(stream: TcpStream, at: SocketAddr, nonce: &[u8; 16]) -> Option<(TcpStream, Bytes)> {
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.ok()?;
    let nonce = data_encoding::HEXLOWER.encode(nonce);
    let request = Request::get(format!("/mesh/proof?nonce={nonce}"))
        .header(header::HOST, host_of(at))
        .body(Empty::new())
        .expect("a path of ours");
    let exchange = async move {
        let answer = sender.send_request(request).await.ok()?;
        let is_ok = answer.status() == StatusCode::OK;
        let body = Limited::new(answer.into_body(), PROOF_BYTES_MAX).collect().await.ok()?.to_bytes();
        // Only once the connection is free again is it out of the other's hands.
        sender.ready().await.ok()?;
        is_ok.then_some(body)
    };
    let (body, parts) = tokio::join!(exchange, connection.without_shutdown());
    let (body, parts) = (body?, parts.ok()?);
    parts.read_buf.is_empty().then(|| (parts.io.into_inner(), body))
}
