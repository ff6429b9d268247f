//! Who this node is: an ed25519 key, and the epoch of this life of it.
//!
//! A key that is kept lives in a directory of its own, readable by its user alone, beside the epoch it was
//! last used in. The epoch is raised and on disk before anything can be signed with it: else a node that
//! crashed could say two different things with one number. A damaged directory is refused, never repaired in
//! silence, for a lower epoch would make every word of this node stale to those who know it.
//!
//! Source: NETWORK.md, "Identity".

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};

use crate::identity::kept::Kept;
use crate::member::{Epoch, MemberId, Seq, Stamp};
pub use crate::proof::verify_proof;
use crate::proof::{self, Proof};
#[cfg(feature = "simulation")]
use crate::verify::stand_in;
use crate::verify::{DATAGRAM_DOMAIN, Scheme};
use crate::wire::{self, DATAGRAM_BYTES_MAX, Header, MeshTag, Message, SIGNATURE_BYTES};

mod kept;

pub use kept::IdentityError;

/// A node's key in one of its lives. Only this can say something in the node's name.
pub struct Identity {
    key: Arc<SigningKey>,
    id: MemberId,
    epoch: Epoch,
    /// The same, for those who sign proofs.
    shown: Arc<AtomicU32>,
    kept: Option<Kept>,
    scheme: Scheme,
}

/// Signs endpoint proofs with a node's key, always in its current epoch. Cannot say anything else. Cheap to clone.
#[derive(Clone)]
pub struct Prover {
    key: Arc<SigningKey>,
    id: MemberId,
    epoch: Arc<AtomicU32>,
}

impl fmt::Debug for Prover {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prover").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Prover {
    /// The public key.
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// That this node listens at `dialled`, in answer to `nonce`. 20 µs of CPU.
    #[must_use]
    pub fn prove(&self, tag: MeshTag, dialled: SocketAddr, nonce: &[u8; 16]) -> Proof {
        let epoch = Epoch(self.epoch.load(Ordering::Acquire));
        let said = proof::said(tag, self.id, epoch, dialled, nonce);
        Proof { id: self.id, epoch, signature: self.key.sign(&said).to_bytes() }
    }
}

impl fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Identity {
    /// A new key in its first life, kept nowhere.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub fn fresh() -> Result<Self, IdentityError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| IdentityError::Entropy(error.to_string()))?;
        Ok(Self::of(SigningKey::from_bytes(&seed), Epoch(1), None))
    }

    /// The key kept in `dir`, in a new life: its epoch is one higher than ever before, and on disk when this
    /// returns. Makes directory and key if there are none. Blocks on the disk.
    ///
    /// The directory stays locked against other processes until this value is dropped.
    ///
    /// # Errors
    /// The directory is in use, damaged, or open to other users; or the disk fails. Then nothing may be signed.
    pub fn open(dir: &Path) -> Result<Self, IdentityError> {
        let (key, epoch, kept) = Kept::open(dir)?;
        Ok(Self::of(key, epoch, Some(kept)))
    }

    /// The id of the key kept in `dir`, or `None` if there is none. Changes nothing and needs no lock.
    ///
    /// # Errors
    /// The key is damaged or open to other users; or the disk fails.
    pub fn id_in(dir: &Path) -> Result<Option<MemberId>, IdentityError> {
        Ok(kept::read_key(dir)?.map(|key| id_of(&key)))
    }

    /// The same key for the same seed: for tests and simulations only, since everybody can make it.
    #[must_use]
    pub fn for_test(seed: u64) -> Self {
        let secret = blake3::hash(&[b"isle test key ".as_slice(), &seed.to_be_bytes()].concat());
        Self::of(SigningKey::from_bytes(secret.as_bytes()), Epoch(1), None)
    }

    fn of(key: SigningKey, epoch: Epoch, kept: Option<Kept>) -> Self {
        let shown = Arc::new(AtomicU32::new(epoch.0));
        Self { id: id_of(&key), key: Arc::new(key), epoch, shown, kept, scheme: Scheme::Ed25519 }
    }

    /// As [`for_test`](Self::for_test), with words that are not signed but hashed: see [`Scheme`].
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn stand_in(seed: u64) -> Self {
        let mut identity = Self::for_test(0);
        identity.id =
            MemberId(*blake3::hash(&[b"isle stand-in ".as_slice(), &seed.to_be_bytes()].concat()).as_bytes());
        identity.scheme = Scheme::StandIn;
        identity
    }

    /// How its words are signed, and those of others that it takes.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The public key.
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// The current life.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Starts a life above `heard`, when somebody knows a newer word of this key than we could have said; on
    /// disk when this returns, if the key is kept. Does nothing if the current epoch is above it. Seq starts anew.
    ///
    /// # Errors
    /// The disk failed, or there is no epoch above; the current epoch is as it was.
    pub fn raise_epoch_above(&mut self, heard: Epoch) -> Result<(), IdentityError> {
        if self.epoch > heard {
            return Ok(());
        }
        let next = kept::above(heard)?;
        if let Some(kept) = &self.kept {
            kept.write_epoch(self.id, next)?;
        }
        self.epoch = next;
        self.shown.store(next.0, Ordering::Release);
        Ok(())
    }

    /// A whole datagram that says `message` under (current epoch, `seq`). 20 µs of CPU. The caller never
    /// uses a seq twice in an epoch, nor one outside 1 to [`Seq::MAX`].
    ///
    /// # Panics
    /// If the message does not fit a datagram; one whose record passed [`wire::check_record`] does.
    #[must_use]
    pub fn sign_word(&self, tag: MeshTag, message: &Message, seq: Seq) -> Bytes {
        let header = Header::of(tag, self.id, Stamp { epoch: self.epoch, seq }, message);
        self.sign_said(wire::encode(&header, message))
    }

    /// Adds the signature of a datagram to its header and body, whatever they are: also words of kinds and
    /// versions that this code does not know, for tests of those who must bear them.
    ///
    /// # Panics
    /// If the result would be longer than a datagram.
    #[must_use]
    pub fn sign_said(&self, mut said: Vec<u8>) -> Bytes {
        assert!(said.len() + SIGNATURE_BYTES <= DATAGRAM_BYTES_MAX, "{} bytes do not fit", said.len());
        let signature = match self.scheme {
            Scheme::Ed25519 => self.key.sign(&[DATAGRAM_DOMAIN.as_slice(), &said].concat()).to_bytes(),
            #[cfg(feature = "simulation")]
            Scheme::StandIn => stand_in(self.id, &said),
        };
        said.extend_from_slice(&signature);
        said.into()
    }

    /// The key itself, for the one other thing that speaks in this node's name: the certificate of its links.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// Signs endpoint proofs with this key while the identity itself is elsewhere.
    #[must_use]
    pub fn prover(&self) -> Prover {
        Prover { key: self.key.clone(), id: self.id, epoch: self.shown.clone() }
    }

    /// Signs that this node listens at `dialled`, in answer to `nonce` (see [`proof`]).
    #[must_use]
    pub fn sign_proof(&self, tag: MeshTag, dialled: SocketAddr, nonce: &[u8; 16]) -> [u8; SIGNATURE_BYTES] {
        self.key.sign(&proof::said(tag, self.id, self.epoch, dialled, nonce)).to_bytes()
    }
}

fn id_of(key: &SigningKey) -> MemberId {
    MemberId(key.verifying_key().to_bytes())
}

#[cfg(test)]
mod tests;
