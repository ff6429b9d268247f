//! A connection to a member of another island: CONNECT at a bridge of ours, which has it carried there.
//!
//! The bridges on the way are not believed: the member's own signature over our nonce comes back with the answer, and
//! not a byte of what follows counts before it is checked. Where the member has never proved its key this way, nothing is
//! sent before; where it has, the first request travels with CONNECT and saves a round trip (see `early`). The far bridge
//! passes nothing on to whoever has not proved the key either way.
//!
//! Source: NETWORK.md, "Over TCP".

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use isle_mesh::proof;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::place::{Passage, Place};
use super::{UpstreamError, dial};
use followed::Followed;

pub(super) use early::{Early, Refused};

/// What the member's proof is to be made for: 32 hexadecimal digits.
pub const NONCE: HeaderName = HeaderName::from_static("isle-nonce");
/// The member's endpoint proof, in hexadecimal digits.
pub const PROOF: HeaderName = HeaderName::from_static("isle-proof");
/// Where the member was dialled, which its proof is over: `IP:PORT`.
pub const DIALLED: HeaderName = HeaderName::from_static("isle-dialled");

/// The islands that a tunnel passes, the nearest first, where whoever asks has chosen them.
pub const PATH: HeaderName = HeaderName::from_static("isle-path");

/// Bridges give up a tunnel that does not stand after ten seconds; a request has rarely that much time.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A bridge's reason for refusing is a small JSON object.
const PROBLEM_BYTES_MAX: usize = 4096;

/// Connects to the member. Dropped before it is done, everything on the way is closed.
pub(super) async fn open(passage: Passage) -> Result<TcpStream, UpstreamError> {
    match timeout(OPEN_TIMEOUT, connect(passage)).await {
        Ok(opened) => opened,
        Err(_) => Err(refused(passage, "no answer from there in time")),
    }
}

async fn connect(passage: Passage) -> Result<TcpStream, UpstreamError> {
    let nonce: [u8; 16] = rand::random();
    let Asked { stream, headers, rest } = ask(passage, &nonce, &[], &[]).await?;
    check(&passage, &nonce, &headers)?;
    if !rest.is_empty() {
        // Whoever listens there speaks only when asked.
        return Err(refused(passage, "the member spoke first"));
    }
    Ok(stream)
}

/// A tunnel, as a bridge has answered. Nothing of that is checked.
pub(crate) struct Asked {
    /// Leads to the member.
    pub(crate) stream: TcpStream,
    /// What the bridge said.
    pub(crate) headers: HeaderMap,
    /// Came behind, from the member.
    pub(crate) rest: Bytes,
}

/// Asks the bridge for a tunnel, through `islands` if any are named. `early` is the first that is to go through, and
/// travels along; without any nothing comes back before something is sent.
pub(crate) async fn ask(
    passage: Passage,
    nonce: &[u8; 16],
    islands: &[String],
    early: &[u8],
) -> Result<Asked, UpstreamError> {
    let stream = dial(Place::Far(passage), passage.bridge).await?;
    ask_over(stream, passage, nonce, islands, early).await
}

async fn ask_over(
    stream: TcpStream,
    passage: Passage,
    nonce: &[u8; 16],
    islands: &[String],
    early: &[u8],
) -> Result<Asked, UpstreamError> {
    let at = Place::Far(passage);
    let stream = Followed::new(stream, early);
    let broken = |source| UpstreamError::Broken { at, source };
    let (mut sender, connection) =
        Builder::new().handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(broken)?;
    let authority = passage.authority();
    let mut request = Request::connect(&authority)
        .header(http::header::HOST, &authority)
        .header(NONCE, data_encoding::HEXLOWER.encode(nonce))
        .body(Empty::new())
        .expect("an id and a port are an authority");
    if let Ok(path) = HeaderValue::try_from(islands.join(","))
        && !islands.is_empty()
    {
        request.headers_mut().insert(PATH, path);
    }
    let exchange = async move {
        let mut answer = sender.send_request(request).await.map_err(broken)?;
        if answer.status() != StatusCode::OK {
            return Err(UpstreamError::NoPassage { at, why: why_not(answer).await });
        }
        let headers = std::mem::take(answer.headers_mut());
        Ok((hyper::upgrade::on(answer).await.map_err(broken)?, headers))
    };
    let (upgraded, connection) = tokio::join!(exchange, connection.with_upgrades());
    let (upgraded, headers) = upgraded?;
    connection.map_err(broken)?;
    let parts = upgraded.downcast::<TokioIo<Followed>>().map_err(|_| refused(passage, "no tunnel"))?;
    Ok(Asked { stream: parts.io.into_inner().into_inner(), headers, rest: parts.read_buf })
}

/// What a bridge's answer carries of the member's proof: where it was dialled, and the proof as it gave it.
pub(crate) fn proof_in(headers: &HeaderMap) -> Option<(SocketAddr, Vec<u8>)> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let proof = data_encoding::HEXLOWER_PERMISSIVE.decode(text(PROOF)?.as_bytes()).ok()?;
    Some((text(DIALLED)?.parse().ok()?, proof))
}

/// The fields that carry it.
pub(crate) fn put_proof(headers: &mut HeaderMap, dialled: SocketAddr, proof: &[u8]) {
    let hex = data_encoding::HEXLOWER.encode(proof);
    headers.insert(PROOF, HeaderValue::try_from(hex).expect("digits"));
    headers.insert(DIALLED, HeaderValue::try_from(dialled.to_string()).expect("an address"));
}

/// Whether the member itself listens at the other end.
fn check(passage: &Passage, nonce: &[u8; 16], headers: &HeaderMap) -> Result<(), UpstreamError> {
    let read = || {
        let (dialled, proof) = proof_in(headers)?;
        Some((dialled, proof::decode(&proof).ok()?))
    };
    let is_right = read().is_some_and(|(dialled, proof)| {
        proof.id == passage.member
            && proof.epoch == passage.epoch
            && proof::verify_proof(passage.mesh, proof.id, proof.epoch, dialled, nonce, &proof.signature)
    });
    if is_right { Ok(()) } else { Err(refused(*passage, "whoever listens there is not this member")) }
}

fn refused(passage: Passage, why: &str) -> UpstreamError {
    UpstreamError::NoPassage { at: Place::Far(passage), why: why.to_owned() }
}

/// What the bridge says about it.
async fn why_not(answer: Response<Incoming>) -> String {
    #[derive(Deserialize)]
    struct Problem {
        reason: String,
    }
    let status = answer.status();
    let body = Limited::new(answer.into_body(), PROBLEM_BYTES_MAX).collect().await.ok();
    let problem = body.and_then(|body| serde_json::from_slice::<Problem>(&body.to_bytes()).ok());
    match problem {
        Some(problem) => format!("the bridge answered {}, {}", status.as_u16(), problem.reason),
        None => format!("the bridge answered {}", status.as_u16()),
    }
}

mod early;
mod followed;
#[cfg(test)]
mod tests;
