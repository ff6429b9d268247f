//! Endpoint proof: who listens at an address. A signed record proves its speaker, not the address it names;
//! before a request goes to an address for the first time, whoever listens there signs our nonce with the
//! member's key. So nobody can point a node at somebody else's port.
//!
//! This is the body of `GET /mesh/proof?nonce=` and the bytes that are signed; asking is for the data plane.
//!
//! Source: NETWORK.md, "Endpoint proof".

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::member::{Epoch, MemberId};
use crate::verify::is_signed_by;
use crate::wire::fields::{Fixed, endpoint_bytes};
use crate::wire::{DecodeError, MeshTag, SIGNATURE_BYTES, body, shape};

/// Most bytes that an answer may have; more is not read.
pub const PROOF_BYTES_MAX: usize = 256;

/// What is signed: this, then mesh tag, id, epoch, address and port, nonce.
const DOMAIN: &[u8; 13] = b"isle proof 1\0";

/// The answer: "I am this member, at the address that you dialled".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proof {
    /// Who answers.
    pub id: MemberId,
    /// In which of its lives.
    pub epoch: Epoch,
    /// Over the bytes that NETWORK.md names.
    pub signature: [u8; SIGNATURE_BYTES],
}

#[derive(Serialize, Deserialize)]
struct ProofBody {
    id: Fixed<32>,
    epoch: u32,
    sig: Fixed<64>,
}

/// The body of the answer.
#[must_use]
pub fn encode(proof: &Proof) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    let body = ProofBody { id: Fixed(proof.id.0), epoch: proof.epoch.0, sig: Fixed(proof.signature) };
    body::put(&body, &mut bytes);
    bytes
}

/// Reads the body of an answer. Whether it is true is for [`verify_proof`].
///
/// # Errors
/// Longer than [`PROOF_BYTES_MAX`], or not the form.
pub fn decode(bytes: &[u8]) -> Result<Proof, DecodeError> {
    if bytes.len() > PROOF_BYTES_MAX {
        return Err(DecodeError::Size);
    }
    shape::check(bytes)?;
    let body: ProofBody = body::take(bytes)?;
    Ok(Proof { id: MemberId(body.id.0), epoch: Epoch(body.epoch), signature: body.sig.0 })
}

/// Whether member `id` in its life `epoch` signed that it listens at `dialled`, in answer to our `nonce`.
/// `dialled` is the address as we dialled it; scope and flow label do not count. About 40 µs of CPU.
#[must_use]
pub fn verify_proof(
    tag: MeshTag,
    id: MemberId,
    epoch: Epoch,
    dialled: SocketAddr,
    nonce: &[u8; 16],
    signature: &[u8; SIGNATURE_BYTES],
) -> bool {
    is_signed_by(id, &[&said(tag, id, epoch, dialled, nonce)], signature)
}

/// The bytes that are signed.
pub(crate) fn said(
    tag: MeshTag,
    id: MemberId,
    epoch: Epoch,
    dialled: SocketAddr,
    nonce: &[u8; 16],
) -> Vec<u8> {
    [DOMAIN.as_slice(), &tag.0, &id.0, &epoch.0.to_be_bytes(), &endpoint_bytes(dialled), nonce].concat()
}

#[cfg(test)]
mod tests;
