//! From bytes to a word that its author really said: the only place that builds a [`Verified`].
//!
//! Cheap checks come first, for a signature costs a hundred times as much as all of them: [`peek`] reads the
//! fixed header, the caller compares floors and rates, and only then [`verify`] pays. Whether a word is news
//! is the table's business.
//!
//! Source: NETWORK.md, "Signatures".

use std::ops::Deref;

use bytes::Bytes;
use ed25519_dalek::{Signature, VerifyingKey};

use crate::member::MemberId;
use crate::wire::{
    self, DATAGRAM_BYTES_MAX, DecodeError, HEADER_BYTES, Header, MeshTag, Message, SIGNATURE_BYTES, kind,
};

/// What is put before a datagram's bytes when they are signed, so that a signature made for one purpose
/// never serves another.
pub(crate) const DATAGRAM_DOMAIN: &[u8; 16] = b"isle datagram 1\0";

/// One word: what somebody said, and the exact bytes, so that it can be handed on as it was said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word {
    /// Who and when.
    pub header: Header,
    /// What; `None` when its kind or version is newer than this code.
    pub message: Option<Message>,
    /// The whole datagram, signature included.
    pub bytes: Bytes,
    /// What it adds to the digest of a table whose member it describes: 0 but for a record.
    pub share: u64,
}

/// A value whose signature was checked. Only this module makes one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The value alone.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Why a datagram was not acted upon. A refused datagram is normal: it is counted and forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Shorter than a header and a signature, or longer than a datagram.
    #[error("too short or too long")]
    Size,
    /// Another protocol.
    #[error("another protocol")]
    Magic,
    /// Another mesh on the same wire.
    #[error("another mesh")]
    Mesh,
    /// A version or kind that we do not know, from somebody we have not proven.
    #[error("unknown version or kind from an unproven author")]
    Version,
    /// The body breaks the form.
    #[error("malformed")]
    Malformed,
    /// Epoch or seq is 0 or above its ceiling.
    #[error("epoch or seq out of range")]
    Ceiling,
    /// The author did not sign these bytes.
    #[error("wrong signature")]
    Signature,
    /// We know that or something newer already.
    #[error("not newer than what is known")]
    Stale,
    /// More from this source than it may send.
    #[error("more than this source may send")]
    Rate,
    /// Our own words come back.
    #[error("our own")]
    Own,
    /// From another island on the same wire.
    #[error("another island")]
    Island,
    /// No room is left for somebody unproven.
    #[error("no room")]
    Full,
    /// An answer to nothing that we asked.
    #[error("not asked for")]
    Unasked,
    /// Meant for somebody else.
    #[error("meant for another member")]
    NotForUs,
    /// From a network that is not ours, without our cookie.
    #[error("off-link without a cookie")]
    OffLink,
}

impl Refused {
    /// All reasons, for metrics that are to start at zero.
    pub const ALL: [Self; 15] = [
        Self::Size,
        Self::Magic,
        Self::Mesh,
        Self::Version,
        Self::Malformed,
        Self::Ceiling,
        Self::Signature,
        Self::Stale,
        Self::Rate,
        Self::Own,
        Self::Island,
        Self::Full,
        Self::Unasked,
        Self::NotForUs,
        Self::OffLink,
    ];

    /// The word used in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Magic => "magic",
            Self::Mesh => "mesh",
            Self::Version => "version",
            Self::Malformed => "malformed",
            Self::Ceiling => "ceiling",
            Self::Signature => "signature",
            Self::Stale => "stale",
            Self::Rate => "rate",
            Self::Own => "own",
            Self::Island => "island",
            Self::Full => "full",
            Self::Unasked => "unasked",
            Self::NotForUs => "not-for-us",
            Self::OffLink => "off-link",
        }
    }
}

impl From<DecodeError> for Refused {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Size => Self::Size,
            DecodeError::Magic => Self::Magic,
            DecodeError::Ceiling => Self::Ceiling,
            DecodeError::Malformed(_) => Self::Malformed,
        }
    }
}

/// The header, after the checks that cost next to nothing: size, magic, ceilings, mesh. Below 100 ns.
///
/// # Errors
/// `Size`, `Magic`, `Ceiling` or `Mesh`. Without an error the author is still only a claim.
pub fn peek(tag: MeshTag, bytes: &[u8]) -> Result<Header, Refused> {
    if !(HEADER_BYTES + SIGNATURE_BYTES..=DATAGRAM_BYTES_MAX).contains(&bytes.len()) {
        return Err(Refused::Size);
    }
    let (header, _) = wire::header::read(bytes)?;
    if header.mesh == tag { Ok(header) } else { Err(Refused::Mesh) }
}

/// How words are signed. Whoever is of one scheme takes no word of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scheme {
    /// ed25519: the only one that proves anything.
    #[default]
    Ed25519,
    /// A hash that anybody can make: so that a simulation of thousands of nodes spends its time on them.
    #[cfg(feature = "simulation")]
    StandIn,
}

/// What stands for a signature of `id` in a simulation.
#[cfg(feature = "simulation")]
pub(crate) fn stand_in(id: MemberId, said: &[u8]) -> [u8; SIGNATURE_BYTES] {
    let mut signature = [0; SIGNATURE_BYTES];
    blake3::Hasher::new_keyed(&id.0).update(said).finalize_xof().fill(&mut signature);
    signature
}

/// Checks a whole datagram: form first, then the signature. About 40 µs of CPU when the form is right.
///
/// # Errors
/// Those of [`peek`], `Malformed`, `Signature`.
pub fn verify(tag: MeshTag, bytes: Bytes) -> Result<Verified<Word>, Refused> {
    verify_as(Scheme::Ed25519, tag, bytes)
}

/// The same under a scheme.
///
/// # Errors
/// As for [`verify`].
pub fn verify_as(scheme: Scheme, tag: MeshTag, bytes: Bytes) -> Result<Verified<Word>, Refused> {
    peek(tag, &bytes)?;
    let (said, signature) = bytes.split_at(bytes.len() - SIGNATURE_BYTES);
    let (header, message) = wire::decode(said)?;
    let signature = signature.try_into().map_err(|_| Refused::Size)?;
    let genuine = match scheme {
        Scheme::Ed25519 => is_signed_by(header.author, &[DATAGRAM_DOMAIN, said], signature),
        #[cfg(feature = "simulation")]
        Scheme::StandIn => stand_in(header.author, said) == *signature,
    };
    if !genuine {
        return Err(Refused::Signature);
    }
    let share = if header.kind == kind::ANNOUNCE { digest_of(&bytes) } else { 0 };
    Ok(Verified(Word { header, message, bytes, share }))
}

/// What a record adds to the digest of a table: the first eight bytes of its hash, little-endian.
#[must_use]
pub fn digest_of(record: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(record).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// Whether the owner of `id` signed these parts, one after the other. Keys of small order, with which one
/// signature fits many texts, sign nothing.
pub(crate) fn is_signed_by(id: MemberId, parts: &[&[u8]], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    VerifyingKey::from_bytes(&id.0)
        .is_ok_and(|key| key.verify_strict(&parts.concat(), &Signature::from_bytes(signature)).is_ok())
}
