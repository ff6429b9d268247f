//! Endpoint proof: before the first request goes to an address, whoever listens there signs our nonce with the
//! member's key. A signed record proves who speaks, not whose address it names; so nobody can point us at a router's page.
//!
//! Source: NETWORK.md, "Over TCP".

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use isle_mesh::member::{Epoch, Member, MemberId};
use isle_mesh::mesh::Mesh;
use isle_mesh::proof::{self, PROOF_BYTES_MAX};

use crate::upstream::place::{Passage, Place};
use crate::upstream::{Ask, UpstreamError, Upstreams};

/// A proof is one small answer: a member that needs longer is not one to wait for.
const PROOF_TIMEOUT: Duration = Duration::from_secs(1);
/// Proofs remembered; when full all are forgotten, which costs one question each.
const PROOFS_MAX: usize = 65_536;

/// Why an address may not be used for a member.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The member announces no address that counts here.
    #[error("no address of this member is on our networks")]
    NoAddress,
    /// It is of another island, and none of our bridges has a way there.
    #[error("no bridge has a way to its island")]
    NoWay,
    /// It could not be asked; another member may be.
    #[error("cannot be asked for its key")]
    Upstream(#[from] UpstreamError),
    /// Somebody else listens there: no request may go there.
    #[error("{at} is not this member: {found}")]
    WrongMember {
        /// Where.
        at: SocketAddr,
        /// What came instead of the proof.
        found: String,
    },
}

/// Which addresses are proven.
#[derive(Debug, Default)]
pub struct Endpoints {
    proven: Mutex<BTreeSet<(MemberId, Epoch, SocketAddr)>>,
}

impl Endpoints {
    /// An address of `member` where it has proved its key; asks for the proof where it has not yet. Of a member of another
    /// island: the way through a bridge of ours that has, on which the member proves its own with every connection.
    ///
    /// # Errors
    /// That of the last address tried.
    pub async fn of(
        &self,
        mesh: &Mesh,
        upstreams: &Upstreams,
        member: &Member,
        deadline: Instant,
    ) -> Result<Place, EndpointError> {
        if !member.far {
            return self.near(mesh, upstreams, member, deadline).await.map(Place::Direct);
        }
        let ways: Vec<MemberId> = {
            let islands = mesh.islands();
            let islands = islands.borrow();
            let island = islands.get(&member.record.island);
            island.into_iter().flat_map(|island| &island.ways).map(|way| way.bridge).collect()
        };
        let mut error = EndpointError::NoWay;
        for bridge in ways {
            let Some(bridge) = mesh.table().get(&bridge).filter(|bridge| !bridge.far) else { continue };
            match self.near(mesh, upstreams, &bridge, deadline).await {
                Ok(at) => {
                    let (id, epoch, port) = (member.id, member.stamp.epoch, member.record.http_port);
                    return Ok(Place::Far(Passage { bridge: at, mesh: mesh.tag(), member: id, epoch, port }));
                }
                Err(why) => error = why,
            }
        }
        Err(error)
    }

    async fn near(
        &self,
        mesh: &Mesh,
        upstreams: &Upstreams,
        member: &Member,
        deadline: Instant,
    ) -> Result<SocketAddr, EndpointError> {
        let epoch = member.stamp.epoch;
        let proven = {
            let known = self.lock();
            member.http_addresses.iter().copied().find(|at| known.contains(&(member.id, epoch, *at)))
        };
        if let Some(at) = proven {
            return Ok(at);
        }
        let mut error = EndpointError::NoAddress;
        for at in &member.http_addresses {
            match prove(mesh, upstreams, member, *at, deadline).await {
                Ok(()) => {
                    let mut known = self.lock();
                    if known.len() >= PROOFS_MAX {
                        known.clear();
                    }
                    known.insert((member.id, epoch, *at));
                    drop(known);
                    mesh.proved(member.id);
                    return Ok(*at);
                }
                Err(why) => error = why,
            }
        }
        if matches!(&error, EndpointError::Upstream(error) if error.is_refusal()) {
            mesh.connection_refused(member.id);
        }
        Err(error)
    }

    /// A connection to `at` was refused or broke: whoever listens there next must prove itself again.
    pub fn forget(&self, member: &Member, at: Place) {
        // On the way to another island every connection is proven for itself.
        if let Place::Direct(at) = at {
            self.lock().remove(&(member.id, member.stamp.epoch, at));
        }
    }

    /// Forgets proofs of members that `is_listed` no longer.
    pub fn sweep(&self, is_listed: impl Fn(&MemberId) -> bool) {
        self.lock().retain(|(id, _, _)| is_listed(id));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(MemberId, Epoch, SocketAddr)>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn prove(
    mesh: &Mesh,
    upstreams: &Upstreams,
    member: &Member,
    at: SocketAddr,
    deadline: Instant,
) -> Result<(), EndpointError> {
    let nonce: [u8; 16] = rand::random();
    let ask = Ask::get(&format!("/mesh/proof?nonce={}", data_encoding::HEXLOWER.encode(&nonce)));
    let deadline = deadline.min(Instant::now() + PROOF_TIMEOUT);
    let wrong = |found: String| EndpointError::WrongMember { at, found };
    let answer = match upstreams.fetch(at, &ask, PROOF_BYTES_MAX, deadline).await {
        Ok(answer) => answer,
        Err(UpstreamError::TooLong { .. }) => return Err(wrong("a long answer".to_owned())),
        Err(error) => return Err(error.into()),
    };
    if answer.status != StatusCode::OK {
        return Err(wrong(format!("status {}", answer.status.as_u16())));
    }
    let proof = proof::decode(&answer.body).map_err(|error| wrong(error.to_string()))?;
    let right = proof.id == member.id
        && proof.epoch == member.stamp.epoch
        && proof::verify_proof(mesh.tag(), proof.id, proof.epoch, at, &nonce, &proof.signature);
    if right { Ok(()) } else { Err(wrong("another key or epoch".to_owned())) }
}
