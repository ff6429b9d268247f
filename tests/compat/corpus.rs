//! What the fuzzer found worth keeping, replayed through the public decoders on every `cargo test`.

use std::fs;
use std::path::PathBuf;

#[path = "../../fuzz/checks.rs"]
mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        check(&fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", folder.display());
}

#[test]
fn the_datagram_corpus_holds() {
    replay("datagram", checks::datagram);
}

#[test]
fn the_verify_corpus_holds() {
    replay("verify", checks::verify);
}

#[test]
fn the_transfer_corpus_holds() {
    replay("transfer", checks::transfer);
}

#[test]
fn the_proof_corpus_holds() {
    replay("proof", checks::proof);
}

#[test]
fn the_catalogue_corpus_holds() {
    replay("catalogue", checks::catalogue);
}

#[test]
fn the_csv_corpus_holds() {
    replay("csv", checks::csv);
}

#[test]
fn the_figures_json_corpus_holds() {
    replay("figures_json", checks::figures_json);
}

#[test]
fn the_ldraw_corpus_holds() {
    replay("ldraw", checks::ldraw);
}

#[test]
fn the_frames_corpus_holds() {
    replay("frames", checks::frames);
}

#[test]
fn the_tunnel_corpus_holds() {
    replay("tunnel", checks::tunnel);
}

#[test]
fn the_session_corpus_holds() {
    replay("session", checks::session);
}

#[test]
fn the_membership_corpus_holds() {
    replay("membership", checks::membership);
}
