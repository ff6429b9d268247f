//! What must hold for any bytes at all. The fuzz targets search for a counterexample; `tests/compat` replays
//! the corpus through the same functions.

use std::path::Path;

use bytes::Bytes;
use isle::figures::formats::Format;
use isle::figures::{Catalogue, CatalogueParser, Figure, Hash, text};
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

/// A catalogue is read alike in one piece and in many, and its digest is the hash of what was read.
pub(crate) fn catalogue(bytes: &[u8]) {
    let (cut, text) = bytes.split_first().map_or((1, bytes), |(cut, text)| (usize::from(*cut).max(1), text));
    let read = Catalogue::parse(text);
    let mut parser = CatalogueParser::default();
    let pushed: Result<(), _> = text.chunks(cut).try_for_each(|chunk| parser.push(chunk));
    let in_pieces = pushed.and_then(|()| parser.finish());
    assert_eq!(read.is_ok(), in_pieces.is_ok());
    if let Ok(read) = read {
        assert_eq!(in_pieces.as_ref(), Ok(&read));
        assert_eq!(read.digest(), Hash::of(text));
        for (at, entry) in read.entries().iter().enumerate() {
            assert_eq!(read.position(&entry.name, entry.share), Some(at));
        }
    }
}

/// A body is read in its one spelling; a file gives bodies in that spelling.
pub(crate) fn figures_json(bytes: &[u8]) {
    if let Ok(figure) = Figure::from_body(bytes) {
        assert_eq!(figure.body(), bytes);
    }
    file("a.json", bytes);
    file("a.toml", bytes);
}

/// See `file`.
pub(crate) fn csv(bytes: &[u8]) {
    file("a.csv", bytes);
}

/// See `file`.
pub(crate) fn ldraw(bytes: &[u8]) {
    file("a.mpd", bytes);
}

/// A file gives figures whose bodies read back, or an error of one line that a terminal can be shown.
fn file(name: &str, bytes: &[u8]) {
    let path = Path::new(name);
    let format = Format::of(path).expect("a name with a known ending");
    match format.parse(path, bytes) {
        Ok(figures) => {
            for shelved in figures {
                assert!(shelved.entry().check(shelved.body()).is_ok());
            }
        }
        Err(error) => assert!(error.to_string().chars().all(text::is_plain), "{error}"),
    }
}
