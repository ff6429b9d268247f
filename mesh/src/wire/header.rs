//! The fixed start of every datagram, the same in all versions.
//!
//! Source: NETWORK.md, "Header".

use super::{DecodeError, Header, MeshTag};
use crate::member::{MemberId, Stamp};

/// First bytes of every datagram.
pub(crate) const MAGIC: [u8; 2] = *b"IS";

/// Length of the header: magic 2, version 1, kind 1, mesh 4, author 32, epoch 4, seq 8.
pub const HEADER_BYTES: usize = 52;

/// Appends the header to `out`.
pub(crate) fn write(header: &Header, out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    out.push(header.version);
    out.push(header.kind);
    out.extend_from_slice(&header.mesh.0);
    out.extend_from_slice(&header.author.0);
    out.extend_from_slice(&header.stamp.epoch.0.to_be_bytes());
    out.extend_from_slice(&header.stamp.seq.0.to_be_bytes());
}

/// Splits `bytes` into the header and what follows it.
pub(crate) fn read(bytes: &[u8]) -> Result<(Header, &[u8]), DecodeError> {
    let mut rest = bytes;
    let magic: [u8; 2] = take(&mut rest)?;
    if magic != MAGIC {
        return Err(DecodeError::Magic);
    }
    let [version, kind] = take(&mut rest)?;
    let mesh = MeshTag(take(&mut rest)?);
    let author = MemberId(take(&mut rest)?);
    let epoch = u32::from_be_bytes(take(&mut rest)?);
    let seq = u64::from_be_bytes(take(&mut rest)?);
    let stamp = Stamp::new(epoch, seq);
    if !stamp.is_valid() {
        return Err(DecodeError::Ceiling);
    }
    Ok((Header { version, kind, mesh, author, stamp }, rest))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (taken, after) = rest.split_first_chunk().ok_or(DecodeError::Size)?;
    *rest = after;
    Ok(*taken)
}
