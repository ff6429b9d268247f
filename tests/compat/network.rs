//! NETWORK.md prints some vectors: they must be the recorded ones.

use std::fs;
use std::path::Path;

use isle_mesh::identity::Identity;

use crate::recorded;
use crate::vectors::tag;

pub(crate) fn network() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("NETWORK.md")).unwrap()
}

#[test]
fn printed_vectors_are_the_recorded_ones() {
    let text = network();
    let mut printed = 0;
    for part in text.split("<!-- vector: ").skip(1) {
        let (name, rest) = part.split_once(" -->").unwrap();
        let block = rest.split("```").nth(1).unwrap().trim_start_matches("text");
        assert_eq!(recorded::bytes(block), recorded::bytes(&recorded::file(name)), "{name} in NETWORK.md");
        printed += 1;
    }
    assert!(printed >= 5, "NETWORK.md prints {printed} vectors");
}

#[test]
fn the_printed_test_keys_and_tag_are_right() {
    let text = network();
    for seed in [1, 2, 3] {
        let id = Identity::for_test(seed).id().to_string();
        assert!(text.contains(&id), "test key {seed} is {id}");
    }
    let hex = data_encoding::HEXLOWER.encode(&tag().0);
    assert!(text.contains(&format!("`{hex}`")), "the tag of `isle` is {hex}");
}
