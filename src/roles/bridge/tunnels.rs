//! Tunnels: for members of our island, who ask by CONNECT, and for those of others, whose come over links.

use std::io;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use island_bridge::bridge::Bridge;
use island_bridge::frame::tunnel::{Opened as Proved, TunnelFailure};
use island_bridge::tunnel::{self, Dial, Dialled, Io, Open, along};
use isle_mesh::member::{Member, MemberId};
use isle_mesh::mesh::Mesh;
use isle_mesh::path::Path;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::dial::{self, Proven};
use super::worker::Worker;
use crate::endpoint::Endpoints;
use crate::http::accept::{Far, Opened};
use crate::http::body::Answer;
use crate::http::problem::Problem;
use crate::http::request::Connect;
use crate::upstream::Upstreams;
use crate::upstream::passage;
use crate::upstream::place::{Passage, Place};

/// Tunnels that other bridges may be asked at once to take on. Guessed: one answers within a few round trips.
const HANDED_MAX: usize = 64;
/// Another bridge that has to prove its key first gets this long for it.
const PROOF_WAIT: Duration = Duration::from_secs(1);

/// Opens tunnels. Knows the mesh once that is joined.
#[derive(Default)]
pub(super) struct Tunnels {
    parts: OnceLock<Parts>,
}

#[derive(Clone)]
struct Parts {
    mesh: Mesh,
    bridge: Bridge,
    upstreams: Upstreams,
    endpoints: Arc<Endpoints>,
    worker: Worker,
    /// Tunnels that other bridges are asked to take on.
    handing: Arc<Semaphore>,
}

impl std::fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tunnels")
    }
}

impl Tunnels {
    pub(super) fn attach(&self, mesh: Mesh, bridge: Bridge, worker: Worker) {
        let (upstreams, endpoints) = (Upstreams::default(), Arc::default());
        let handing = Arc::new(Semaphore::new(HANDED_MAX));
        let parts = Parts { mesh, bridge, upstreams, endpoints, worker, handing };
        // It is attached once, when it begins to run.
        let _ = self.parts.set(parts);
    }

    /// CONNECT.
    pub(super) async fn connect(&self, request: &Connect) -> Result<Opened, Box<Answer>> {
        let answer = |problem: Problem| Box::new(problem.into_answer());
        let parts = self.parts.get().ok_or_else(|| answer(starting()))?;
        if !parts.mesh.may_ask(request.peer.ip()) {
            return Err(answer(not_on_link()));
        }
        let opening = {
            let (parts, request) = (parts.clone(), request.clone());
            async move { parts.connect(&request).await }
        };
        // There, so that the far end belongs to whoever carries.
        let opened = parts.worker.run(opening).await.unwrap_or(Err(TunnelFailure::NoRoute));
        let (Dialled { io, opened }, unsent) = opened.map_err(|failure| answer(problem(failure, request)))?;
        let mut headers = HeaderMap::new();
        passage::put_proof(&mut headers, opened.dialled, &opened.proof);
        Ok(Opened { far: Box::new(FarEnd { io, worker: parts.worker.clone() }), unsent, headers })
    }
}

/// The far end, for whoever holds the near one.
struct FarEnd {
    io: Box<dyn Io>,
    worker: Worker,
}

impl Far for FarEnd {
    fn carry(self: Box<Self>, first: Bytes, near: TcpStream) -> BoxFuture<'static, io::Result<(u64, u64)>> {
        Box::pin(async move {
            let Self { mut io, worker } = *self;
            let near = near.into_std()?;
            // Until all has been said it is reset when it is closed, whoever closes it and why.
            SockRef::from(&near).set_linger(Some(Duration::ZERO))?;
            let carrying = async move {
                let mut near = TcpStream::from_std(near)?;
                io.write_all(&first).await?;
                let moved = io.carry(&mut near).await?;
                SockRef::from(&near).set_linger(None)?;
                Ok(moved)
            };
            worker.run(carrying).await.map_err(io::Error::other)?
        })
    }
}

impl Parts {
    /// The tunnel, and what of the early bytes is still to go into it.
    async fn connect(&self, request: &Connect) -> Result<(Dialled, Bytes), TunnelFailure> {
        let (target, port) = request.target.rsplit_once(':').ok_or(TunnelFailure::Forbidden)?;
        let target: MemberId = target.parse().map_err(|_| TunnelFailure::Forbidden)?;
        let port = port.parse().map_err(|_| TunnelFailure::Forbidden)?;
        let nonce = request.nonce.unwrap_or_else(rand::random);
        let member = dial::announced(&self.mesh, &target, port)?;
        if !member.far {
            return Ok((self.member(&member, &nonce).await?, request.early.clone()));
        }
        let islands = match request.islands.as_slice() {
            [] => self.way(&member).ok_or(TunnelFailure::NoRoute)?,
            chosen => Path::new(chosen.to_vec()).map_err(|_| TunnelFailure::Forbidden)?.islands().to_vec(),
        };
        let dialled = self.bridge.tunnel(along(&islands, target, port, nonce), request.early.clone()).await?;
        Ok((dialled, Bytes::new()))
    }

    /// The islands on the best way of our own links to a member's island.
    fn way(&self, member: &Member) -> Option<Vec<String>> {
        let islands = self.mesh.islands();
        let islands = islands.borrow();
        let island = islands.get(&member.record.island)?;
        let own = island.ways.iter().find(|way| way.bridge == self.mesh.id())?;
        Some(own.reach.path.islands().to_vec())
    }

    async fn member(&self, member: &Member, nonce: &[u8; 16]) -> Result<Dialled, TunnelFailure> {
        let Proven { stream, proof, dialled } = dial::dial(&self.mesh, member, nonce).await?;
        Ok(Dialled { io: Box::new(dial::Carried::new(stream)), opened: Proved { dialled, proof } })
    }

    /// Asks another bridge of our own island to take a tunnel on.
    async fn through(&self, bridge: MemberId, open: Open, early: Bytes) -> Result<Dialled, TunnelFailure> {
        // Of two that have both lost their link each may ask the other, until they hear of it.
        let _turn = self.handing.try_acquire().map_err(|_| TunnelFailure::Busy)?;
        let other = self.mesh.table().get(&bridge).filter(|member| !member.far && member.is_choosable());
        let other = other.ok_or(TunnelFailure::NoRoute)?;
        let deadline = Instant::now() + PROOF_WAIT;
        let at = self.endpoints.of(&self.mesh, &self.upstreams, &other, deadline).await;
        let at = at.ok().and_then(|at| at.direct()).ok_or(TunnelFailure::NoRoute)?;
        let passage = Passage {
            bridge: at,
            mesh: self.mesh.tag(),
            member: open.target,
            epoch: other.stamp.epoch,
            port: open.port,
        };
        let islands: Vec<String> = open.hops.into_iter().map(|hop| hop.island).collect();
        let asked = passage::ask(passage, &open.nonce, &islands, &early).await;
        let passage::Asked { stream, headers, rest } = asked.map_err(|error| {
            self.endpoints.forget(&other, Place::Direct(at));
            tracing::debug!(%error, "another bridge does not take a tunnel on");
            TunnelFailure::NoRoute
        })?;
        let (dialled, proof) = passage::proof_in(&headers).ok_or(TunnelFailure::NotProven)?;
        let opened = Proved { dialled, proof: proof.into() };
        Ok(Dialled { io: Box::new(dial::Carried::new(stream).behind(rest)), opened })
    }
}

/// Where tunnels of others end. It does not keep the bridge, which has it.
pub(super) struct Dialler(Weak<Tunnels>);

impl Dialler {
    pub(super) fn of(tunnels: &Arc<Tunnels>) -> Self {
        Self(Arc::downgrade(tunnels))
    }

    fn parts(&self) -> Result<Parts, TunnelFailure> {
        let tunnels = self.0.upgrade().ok_or(TunnelFailure::NoRoute)?;
        tunnels.parts.get().cloned().ok_or(TunnelFailure::NoRoute)
    }
}

impl Dial for Dialler {
    fn member(
        &self,
        target: MemberId,
        port: u16,
        nonce: [u8; 16],
    ) -> tunnel::BoxFuture<Result<Dialled, TunnelFailure>> {
        let parts = self.parts();
        Box::pin(async move {
            let parts = parts?;
            let member = dial::announced(&parts.mesh, &target, port)?;
            // From here on nobody's way leads on but that of whoever began it.
            if member.far { Err(TunnelFailure::Forbidden) } else { parts.member(&member, &nonce).await }
        })
    }

    fn bridge(
        &self,
        bridge: MemberId,
        open: Open,
        early: Bytes,
    ) -> tunnel::BoxFuture<Result<Dialled, TunnelFailure>> {
        let parts = self.parts();
        Box::pin(async move { parts?.through(bridge, open, early).await })
    }
}

fn starting() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "starting",
        "not yet",
        "this bridge has not joined its mesh yet",
    )
}

fn not_on_link() -> Problem {
    let detail = "tunnels are for nodes on the same network";
    Problem::new(StatusCode::FORBIDDEN, "not-on-link", "not for you", detail)
}

/// What a failure is to whoever asked.
fn problem(failure: TunnelFailure, request: &Connect) -> Problem {
    let status = match failure {
        TunnelFailure::Forbidden => StatusCode::FORBIDDEN,
        TunnelFailure::NoRoute | TunnelFailure::Busy => StatusCode::SERVICE_UNAVAILABLE,
        TunnelFailure::ConnectionRefused | TunnelFailure::NotProven => StatusCode::BAD_GATEWAY,
        TunnelFailure::Timeout => StatusCode::GATEWAY_TIMEOUT,
    };
    let detail = format!("no tunnel to {}: {failure}", request.target);
    let problem = Problem::new(status, failure.as_str(), "no tunnel", detail);
    match failure {
        TunnelFailure::Forbidden => problem.advise(
            "tunnels lead to members of the table alone, and to the port that they announce: isle members",
        ),
        TunnelFailure::NoRoute => {
            problem.advise("look at its links on this bridge's host with: isle bridge links")
        }
        _ => problem,
    }
}
