use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
#[cfg(feature = "simulation")]
use crate::verify::{Refused, verify, verify_as};
use crate::wire::{Farewell, Message};

fn place() -> (TempDir, PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("state/isle");
    (outer, dir)
}

fn mode(path: PathBuf) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_fresh_key_is_new_each_time_and_starts_at_epoch_1() {
    let (one, other) = (Identity::fresh().unwrap(), Identity::fresh().unwrap());
    assert_ne!(one.id(), other.id());
    assert_eq!((one.epoch(), other.epoch()), (Epoch(1), Epoch(1)));
}

#[test]
fn a_kept_key_stays_the_same_and_each_life_is_above_the_last() {
    let (_outer, dir) = place();
    assert_eq!(Identity::id_in(&dir).unwrap(), None);
    let first = Identity::open(&dir).unwrap();
    let id = first.id();
    assert_eq!(first.epoch(), Epoch(1));
    assert_eq!(Identity::id_in(&dir).unwrap(), Some(id), "also while it is in use");
    drop(first);
    for life in 2..5 {
        let identity = Identity::open(&dir).unwrap();
        assert_eq!((identity.id(), identity.epoch()), (id, Epoch(life)));
    }
}

#[test]
fn only_its_user_can_read_a_kept_key() {
    let (_outer, dir) = place();
    drop(Identity::open(&dir).unwrap());
    assert_eq!(mode(dir.clone()), 0o700);
    assert_eq!(mode(dir.join("key.pem")), 0o600);
    assert_eq!(mode(dir.join("epoch")), 0o600);

    fs::set_permissions(dir.join("key.pem"), Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Identity::open(&dir), Err(IdentityError::Exposed { mode: 0o640, .. })));
    assert!(matches!(Identity::id_in(&dir), Err(IdentityError::Exposed { .. })));
    fs::set_permissions(dir.join("key.pem"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(Identity::open(&dir), Err(IdentityError::Exposed { mode: 0o755, .. })));
}

#[test]
fn a_second_process_is_refused_while_the_first_lives() {
    let (_outer, dir) = place();
    let first = Identity::open(&dir).unwrap();
    assert!(matches!(Identity::open(&dir), Err(IdentityError::InUse { .. })));
    drop(first);
    assert_eq!(Identity::open(&dir).unwrap().epoch(), Epoch(2));
}

#[test]
fn an_epoch_raised_above_what_was_heard_is_on_disk_at_once() {
    let (_outer, dir) = place();
    let mut identity = Identity::open(&dir).unwrap();
    identity.raise_epoch_above(Epoch(41)).unwrap();
    assert_eq!(identity.epoch(), Epoch(42));
    identity.raise_epoch_above(Epoch(7)).unwrap();
    assert_eq!(identity.epoch(), Epoch(42), "never down");
    drop(identity);
    assert_eq!(Identity::open(&dir).unwrap().epoch(), Epoch(43));
}

#[test]
fn the_last_epoch_is_the_last() {
    let mut identity = Identity::for_test(1);
    identity.raise_epoch_above(Epoch(Epoch::MAX.0 - 1)).unwrap();
    assert!(matches!(identity.raise_epoch_above(Epoch::MAX), Err(IdentityError::UsedUp)));
    assert_eq!(identity.epoch(), Epoch::MAX);
}

#[test]
fn a_damaged_epoch_is_refused_and_not_guessed() {
    let damages: [&dyn Fn(String) -> Option<String>; 5] = [
        &|_| None,
        &|_| Some(String::new()),
        &|line| Some(line.replace("epoch 1 ", "epoch 2 ")),
        &|line| Some(line[..line.len() - 3].to_owned()),
        &|line| Some(line + "x"),
    ];
    for damage in damages {
        let (_outer, dir) = place();
        drop(Identity::open(&dir).unwrap());
        let path = dir.join("epoch");
        match damage(fs::read_to_string(&path).unwrap()) {
            Some(line) => fs::write(&path, line).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let refused = Identity::open(&dir).unwrap_err();
        assert!(matches!(refused, IdentityError::Damaged { .. }), "{refused}");
    }
}

#[test]
fn the_epoch_of_another_key_is_refused() {
    let (_outer, dir) = place();
    let (_other_outer, other) = place();
    drop(Identity::open(&dir).unwrap());
    drop(Identity::open(&other).unwrap());
    fs::copy(other.join("epoch"), dir.join("epoch")).unwrap();
    assert!(matches!(Identity::open(&dir), Err(IdentityError::Damaged { .. })));
}

#[test]
fn a_damaged_or_lost_key_is_refused_and_not_replaced() {
    let (_outer, dir) = place();
    drop(Identity::open(&dir).unwrap());
    let pem = fs::read_to_string(dir.join("key.pem")).unwrap();
    for damage in ["", "no key", &pem[..60]] {
        fs::write(dir.join("key.pem"), damage).unwrap();
        assert!(matches!(Identity::open(&dir), Err(IdentityError::Damaged { .. })), "{damage}");
    }
    fs::remove_file(dir.join("key.pem")).unwrap();
    assert!(matches!(Identity::open(&dir), Err(IdentityError::Damaged { .. })));
}

#[test]
fn a_crash_while_the_key_was_made_leaves_nothing_that_a_start_cannot_replace() {
    let (_outer, dir) = place();
    drop(Identity::open(&dir).unwrap());
    let never_used = kept::epoch_line(MemberId([9; 32]), Epoch(0));
    fs::remove_file(dir.join("key.pem")).unwrap();
    fs::write(dir.join("epoch"), never_used).unwrap();
    fs::write(dir.join("epoch.new"), "half a li").unwrap();
    fs::write(dir.join("key.new"), "-----BEGIN").unwrap();
    assert_eq!(Identity::open(&dir).unwrap().epoch(), Epoch(1));
}

#[test]
fn a_test_key_is_the_same_for_the_same_seed() {
    assert_eq!(Identity::for_test(3).id(), Identity::for_test(3).id());
    assert_ne!(Identity::for_test(3).id(), Identity::for_test(4).id());
}

#[test]
fn a_key_is_not_shown() {
    let identity = Identity::for_test(3);
    assert_eq!(
        format!("{identity:?}"),
        format!("Identity {{ id: {}, epoch: Epoch(1), .. }}", identity.id().short())
    );
}

#[test]
fn one_purpose_of_a_signature_never_serves_another() {
    let identity = Identity::for_test(3);
    let (tag, nonce, dialled) = (MeshTag::of("isle"), [5; 16], "10.0.0.1:1233".parse().unwrap());
    let signature = identity.sign_proof(tag, dialled, &nonce);
    let said = proof::said(tag, identity.id(), identity.epoch(), dialled, &nonce);
    let farewell = Message::Farewell(Farewell { reason: crate::member::LeaveReason::Stopped });
    let word = identity.sign_word(tag, &farewell, Seq(1));
    let (word_said, word_signature) = word.split_at(word.len() - SIGNATURE_BYTES);
    let signs = |said: &[u8], signature: &[u8]| {
        crate::verify::is_signed_by(identity.id(), &[said], signature.try_into().unwrap())
    };
    assert!(signs(&said, &signature));
    assert!(!signs(word_said, word_signature), "without the domain");
    assert!(!crate::verify::is_signed_by(identity.id(), &[DATAGRAM_DOMAIN, &said], &signature));
}

#[cfg(feature = "simulation")]
#[test]
fn a_hash_in_place_of_a_signature_convinces_no_real_key() {
    let (_outer, dir) = place();
    let tag = MeshTag::of("isle");
    let message = Message::Farewell(Farewell { reason: crate::member::LeaveReason::Stopped });
    let hashed = Identity::stand_in(3).sign_word(tag, &message, Seq(1));
    let real = [Identity::fresh().unwrap(), Identity::open(&dir).unwrap(), Identity::for_test(3)];
    for identity in real {
        assert_eq!(verify_as(identity.scheme(), tag, hashed.clone()), Err(Refused::Signature));
        let signed = identity.sign_word(tag, &message, Seq(1));
        assert!(verify_as(identity.scheme(), tag, signed.clone()).is_ok());
        let scheme = Identity::stand_in(4).scheme();
        assert_eq!(verify_as(scheme, tag, signed), Err(Refused::Signature));
    }
    assert_eq!(verify(tag, hashed.clone()), Err(Refused::Signature));
    let mut changed = hashed.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    assert!(verify_as(Identity::stand_in(4).scheme(), tag, hashed).is_ok());
    assert_eq!(verify_as(Identity::stand_in(4).scheme(), tag, changed.into()), Err(Refused::Signature));
}
