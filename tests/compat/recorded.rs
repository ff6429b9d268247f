//! A vector as a file: comment lines that say what it means, then hex.

use std::fs;
use std::path::PathBuf;

use data_encoding::HEXLOWER;

use crate::vectors::{self, Vector};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/compat/vectors")
}

/// The recorded file of a vector.
pub(crate) fn file(name: &str) -> String {
    let path = directory().join(name).with_extension("hex");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The bytes in a text of hex digits and white space, where `#` starts a comment.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let digits = text.lines().filter_map(|line| line.split('#').next());
    let digits: String = digits.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    HEXLOWER.decode(digits.as_bytes()).unwrap()
}

fn write(vector: &Vector, meaning: &str) -> String {
    let comments = [vector.about, meaning].join("\n");
    let mut text: String = comments.lines().map(|line| format!("# {line}\n")).collect();
    for row in vector.bytes.chunks(32) {
        text.push_str(&HEXLOWER.encode(row));
        text.push('\n');
    }
    text
}

#[test]
fn recorded_bytes_keep_their_meaning() {
    let recording = std::env::var_os("ISLE_RECORD").is_some();
    for vector in vectors::all() {
        if recording {
            let text = write(&vector, &vector.kind.meaning(&vector.bytes));
            fs::write(directory().join(vector.name).with_extension("hex"), text).unwrap();
        }
        let text = file(vector.name);
        let recorded = bytes(&text);
        assert_eq!(
            HEXLOWER.encode(&recorded),
            HEXLOWER.encode(&vector.bytes),
            "{}: other bytes",
            vector.name
        );
        let meaning = vector.kind.meaning(&recorded);
        assert_eq!(text, write(&vector, &meaning), "{}: another meaning", vector.name);
    }
}

#[test]
fn every_recorded_file_is_checked() {
    let known: Vec<_> = vectors::all().into_iter().map(|vector| format!("{}.hex", vector.name)).collect();
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name), "{name} belongs to no vector");
    }
}
