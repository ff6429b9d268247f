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

use crate::upstream::place::Place;
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
    /// An address of `member` where it has proved its key; asks for the proof where it has not yet.
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
        let epoch = member.stamp.epoch;
        let proven = {
            let known = self.lock();
            member.http_addresses.iter().copied().find(|at| known.contains(&(member.id, epoch, *at)))
        };
        if let Some(at) = proven {
            return Ok(at.into());
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
                    return Ok((*at).into());
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
