use proptest::prelude::*;

use super::*;
use crate::identity::Identity;
use crate::member::{LeaveReason, Seq};
use crate::wire::{Farewell, Message};

fn farewell(seed: u64) -> Bytes {
    let message = Message::Farewell(Farewell { reason: LeaveReason::Stopped });
    Identity::for_test(seed).sign_word(MeshTag::of("isle"), &message, Seq(9))
}

fn words() -> impl Strategy<Value = (Bytes, u32)> {
    (proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from), any::<u32>())
}

proptest! {
    #[test]
    fn what_is_encoded_comes_back(
        words in proptest::collection::vec(words(), 0..20),
        floors in proptest::collection::vec(words(), 0..20),
    ) {
        let words = words.into_iter().map(|(bytes, age)| TransferWord {
            bytes, age: Duration::from_millis(age.into()),
        }).collect();
        let floors = floors.into_iter().map(|(bytes, age)| TransferFloor {
            bytes, age: Duration::from_secs(age.into()),
        }).collect();
        let transfer = Transfer { words, floors };
        prop_assert_eq!(decode(&encode(&transfer)), Ok(transfer));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
        let _ = decode(&[b"\x81\xa1w", bytes.as_slice()].concat());
    }
}

#[test]
fn a_body_cut_anywhere_is_refused() {
    let word = TransferWord { bytes: farewell(1), age: Duration::from_millis(120) };
    let floor = TransferFloor { bytes: farewell(2), age: Duration::from_secs(4000) };
    let bytes = encode(&Transfer { words: vec![word.clone(), word], floors: vec![floor] });
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "{length}");
    }
}

#[test]
fn one_word_or_floor_too_many_is_refused() {
    let word = TransferWord { bytes: Bytes::new(), age: Duration::ZERO };
    let floor = TransferFloor { bytes: Bytes::new(), age: Duration::ZERO };
    let full = Transfer { words: vec![word.clone(); WORDS_MAX], floors: vec![floor.clone(); FLOORS_MAX] };
    assert!(decode(&encode(&full)).is_ok());
    let words = Transfer { words: vec![word; WORDS_MAX + 1], floors: vec![] };
    assert!(decode(&encode(&words)).is_err());
    let floors = Transfer { words: vec![], floors: vec![floor; FLOORS_MAX + 1] };
    assert!(decode(&encode(&floors)).is_err());
}

#[test]
fn a_word_longer_than_a_datagram_is_refused() {
    let word = |length| TransferWord { bytes: vec![0; length].into(), age: Duration::ZERO };
    assert!(decode(&encode(&Transfer { words: vec![word(1200)], floors: vec![] })).is_ok());
    assert!(decode(&encode(&Transfer { words: vec![word(1201)], floors: vec![] })).is_err());
}

#[test]
fn a_word_that_its_author_did_not_sign_is_dropped_and_counted() {
    let mut altered = farewell(1).to_vec();
    altered[20] ^= 1;
    let age = Duration::from_millis(5);
    let words = [farewell(1), altered.clone().into(), Bytes::from_static(b"noise")];
    let words = words.into_iter().map(|bytes| TransferWord { bytes, age }).collect();
    let floors = [farewell(2), altered.into()];
    let floors = floors.into_iter().map(|bytes| TransferFloor { bytes, age }).collect();
    let verified = verify_transfer(MeshTag::of("isle"), Transfer { words, floors });
    assert_eq!((verified.words.len(), verified.floors.len(), verified.refused), (1, 1, 3));
    assert_eq!(verified.words[0].0.bytes, farewell(1));
    assert_eq!(verified.floors[0].0.bytes, farewell(2));
}

#[test]
fn many_words_are_verified_side_by_side_and_stay_in_order() {
    let words: Vec<_> =
        (0..600u64).map(|n| TransferWord { bytes: farewell(n % 3), age: Duration::from_millis(n) }).collect();
    let verified = verify_transfer(MeshTag::of("isle"), Transfer { words: words.clone(), floors: vec![] });
    assert_eq!(verified.words.len(), words.len());
    for (word, (verified, age)) in words.iter().zip(&verified.words) {
        assert_eq!((&word.bytes, word.age), (&verified.bytes, *age));
    }
}

#[test]
fn what_a_later_version_adds_is_skipped() {
    let bytes = b"\x83\xa1z\x93\x01\x02\x81\xa1y\xc0\xa1w\x91\x83\xa1b\xc4\x03abc\xa1q\xc3\xa1a\x07\xa1f\x90";
    let word = TransferWord { bytes: Bytes::from_static(b"abc"), age: Duration::from_millis(7) };
    assert_eq!(decode(bytes), Ok(Transfer { words: vec![word], floors: vec![] }));
}
