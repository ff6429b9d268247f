use proptest::prelude::*;

use super::*;
use crate::identity::Identity;

proptest! {
    #[test]
    fn what_is_encoded_comes_back(id: [u8; 32], epoch: u32, signature: [u8; 64]) {
        let proof = Proof { id: MemberId(id), epoch: Epoch(epoch), signature };
        let bytes = encode(&proof);
        prop_assert!(bytes.len() <= PROOF_BYTES_MAX);
        prop_assert_eq!(decode(&bytes), Ok(proof));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
    }
}

#[test]
fn a_proof_holds_for_exactly_what_was_asked() {
    let identity = Identity::for_test(1);
    let (id, epoch) = (identity.id(), identity.epoch());
    let tag = MeshTag::of("isle");
    let dialled: SocketAddr = "10.0.0.1:1233".parse().unwrap();
    let nonce = [7; 16];
    let signature = identity.sign_proof(tag, dialled, &nonce);
    let holds = |tag, id, epoch, dialled: &str, nonce| {
        verify_proof(tag, id, epoch, dialled.parse().unwrap(), &nonce, &signature)
    };
    assert!(holds(tag, id, epoch, "10.0.0.1:1233", nonce));
    assert!(holds(tag, id, epoch, "[::ffff:10.0.0.1]:1233", nonce), "the same address in IPv6's dress");
    assert!(!holds(MeshTag::of("other"), id, epoch, "10.0.0.1:1233", nonce));
    assert!(!holds(tag, Identity::for_test(2).id(), epoch, "10.0.0.1:1233", nonce));
    assert!(!holds(tag, id, Epoch(2), "10.0.0.1:1233", nonce));
    assert!(!holds(tag, id, epoch, "10.0.0.2:1233", nonce));
    assert!(!holds(tag, id, epoch, "10.0.0.1:1234", nonce));
    assert!(!holds(tag, id, epoch, "10.0.0.1:1233", [8; 16]));
}

#[test]
fn the_scope_of_a_link_local_address_does_not_count() {
    let identity = Identity::for_test(1);
    let tag = MeshTag::of("isle");
    let scoped = "[fe80::1%7]:1233".parse().unwrap();
    let signature = identity.sign_proof(tag, scoped, &[7; 16]);
    let seen_elsewhere = "[fe80::1%3]:1233".parse().unwrap();
    assert!(verify_proof(tag, identity.id(), identity.epoch(), seen_elsewhere, &[7; 16], &signature));
}

#[test]
fn a_key_of_small_order_proves_nothing() {
    // With the neutral element as key and R, and S = 0, a lax verification accepts every text.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let dialled = "10.0.0.1:1233".parse().unwrap();
    assert!(!verify_proof(MeshTag([0; 4]), MemberId(neutral), Epoch(1), dialled, &[0; 16], &signature));
}
