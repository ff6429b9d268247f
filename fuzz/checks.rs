//! What must hold for any bytes at all. The fuzz targets search for a counterexample; `tests/compat` replays
//! the corpus through the same functions.

use bytes::Bytes;
use isle_mesh::identity::Identity;
use isle_mesh::member::{LeaveReason, Seq};
use isle_mesh::wire::{self, Farewell, MeshTag, Message};
use isle_mesh::{proof, transfer, verify};

/// Whatever decodes means the same after being encoded again.
pub(crate) fn datagram(bytes: &[u8]) {
    if let Ok((header, Some(message))) = wire::decode(bytes) {
        let again = wire::decode(&wire::encode(&header, &message));
        assert_eq!(again, Ok((header, Some(message))));
    }
}

/// A genuine datagram that was changed in any way is refused. Each three bytes of input change one byte:
/// two say where, one says how; what is left over lengthens the datagram.
pub(crate) fn verify(bytes: &[u8]) {
    let tag = MeshTag::of("isle");
    let farewell = Message::Farewell(Farewell { reason: LeaveReason::Stopped });
    let genuine = Identity::for_test(1).sign_word(tag, &farewell, Seq(26));
    let mut changed = genuine.to_vec();
    let mut changes = bytes.chunks_exact(3);
    for change in changes.by_ref() {
        let place = usize::from(u16::from_be_bytes([change[0], change[1]])) % genuine.len();
        changed[place] ^= change[2];
    }
    changed.extend_from_slice(changes.remainder());
    let verdict = verify::verify(tag, changed.clone().into());
    assert_eq!(verdict.is_ok(), changed == genuine, "{changed:x?}");
    let _ = verify::verify(tag, Bytes::copy_from_slice(bytes));
}

/// Whatever decodes means the same after being encoded again, and verifying it never fails as a whole.
pub(crate) fn transfer(bytes: &[u8]) {
    if let Ok(decoded) = transfer::decode(bytes) {
        assert_eq!(transfer::decode(&transfer::encode(&decoded)), Ok(decoded.clone()));
        let offered = decoded.words.len() + decoded.floors.len();
        let verified = transfer::verify_transfer(MeshTag::of("isle"), decoded);
        assert_eq!(verified.words.len() + verified.floors.len() + verified.refused, offered);
    }
}

/// Whatever decodes means the same after being encoded again.
pub(crate) fn proof(bytes: &[u8]) {
    if let Ok(decoded) = proof::decode(bytes) {
        assert_eq!(proof::decode(&proof::encode(&decoded)), Ok(decoded));
    }
}
