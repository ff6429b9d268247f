//! A node that was restarted disowns the connections of its last life, so that the other side need not wait for silence:
//! QUIC's stateless reset, with a key that follows from the node's.

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator};

/// Makes the tokens that resets are known by.
pub(super) struct ResetKey(pub(super) [u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let signature = signature.try_into().map_err(|_| CryptoError)?;
        // Compared in constant time.
        if blake3::keyed_hash(&self.0, data) == blake3::Hash::from_bytes(signature) {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}

/// Connection ids that do not tell which process made them: those of the last life are answered, not dropped.
pub(super) struct RandomIds;

const ID_BYTES: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; ID_BYTES]>())
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}
