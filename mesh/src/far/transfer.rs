//! What a bridge knows of other islands as one body, `GET /mesh/records?instance=&since=`: words verbatim, from the first
//! change that the asker has not read.
//!
//! Source: NETWORK.md, "Far records".

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::word::FarWord;
use crate::transfer::{TRANSFER_BYTES_MAX, WORDS_MAX};
use crate::wire::fields::{Few, Word as WireWord};
use crate::wire::{DATAGRAM_BYTES_MAX, DecodeError, MeshTag, body, shape};

/// What a word takes besides its own bytes, and the body besides its words.
const WORD_FRAME_BYTES: usize = 3;
const FRAME_BYTES: usize = 64;

/// What a bridge knows of other islands, every word verified.
#[derive(Clone, Debug, Default)]
pub struct FarTransfer {
    /// By whose counting.
    pub instance: u64,
    /// How far it goes.
    pub through: u64,
    /// The words.
    pub words: Vec<FarWord>,
}

#[derive(Serialize, Deserialize)]
struct FarBody {
    i: u64,
    #[serde(default)]
    t: u64,
    #[serde(default)]
    w: Few<WireWord, WORDS_MAX>,
}

/// A body that is being filled: it keeps to the bounds of a transfer.
pub(super) struct Filling {
    words: Vec<Bytes>,
    bytes: usize,
}

impl Filling {
    pub(super) fn new() -> Self {
        Self { words: Vec::new(), bytes: FRAME_BYTES }
    }

    /// Adds all these, or none and says so.
    pub(super) fn push_all(&mut self, words: Vec<Bytes>) -> bool {
        let bytes: usize = words.iter().map(|word| word.len() + WORD_FRAME_BYTES).sum();
        if self.words.len() + words.len() > WORDS_MAX || self.bytes + bytes > TRANSFER_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.words.extend(words);
        true
    }

    pub(super) fn encode(self, instance: u64, through: u64) -> Bytes {
        let mut bytes = Vec::with_capacity(self.bytes);
        let words = self.words.into_iter().map(WireWord).collect();
        body::put(&FarBody { i: instance, t: through, w: Few(words) }, &mut bytes);
        bytes.into()
    }
}

/// Reads and verifies the body of `GET /mesh/records?instance=&since=`. Blocks: 40 µs of CPU a word, spread over the cores
/// that there are.
///
/// # Errors
/// More than a transfer may have, or not of the form. Words that are not true are left out.
pub fn read_transfer(tag: MeshTag, bytes: &[u8]) -> Result<FarTransfer, DecodeError> {
    let (instance, through, words) = decode(bytes)?;
    Ok(FarTransfer { instance, through, words: FarWord::verify_spread(tag, &words) })
}

/// The same with what `verify` makes of each word: for simulations, where nobody signs.
///
/// # Errors
/// As for [`read_transfer`].
#[cfg(feature = "simulation")]
pub fn read_transfer_with(
    bytes: &[u8],
    verify: impl FnMut(Bytes) -> Option<FarWord>,
) -> Result<FarTransfer, DecodeError> {
    let (instance, through, words) = decode(bytes)?;
    Ok(FarTransfer { instance, through, words: words.into_iter().filter_map(verify).collect() })
}

fn decode(bytes: &[u8]) -> Result<(u64, u64, Vec<Bytes>), DecodeError> {
    if bytes.len() > TRANSFER_BYTES_MAX {
        return Err(DecodeError::Size);
    }
    shape::check(bytes)?;
    let body: FarBody = body::take(bytes)?;
    Ok((body.i, body.t, body.w.0.into_iter().map(|word| word.0).collect()))
}

const _: () = assert!(DATAGRAM_BYTES_MAX <= u16::MAX as usize, "a word's length takes two bytes");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_comes_back() {
        let mut filling = Filling::new();
        assert!(filling.push_all(vec![Bytes::from_static(b"one"), Bytes::from(vec![7; DATAGRAM_BYTES_MAX])]));
        let bytes = filling.encode(u64::MAX, 9);
        let (instance, through, words) = decode(&bytes).unwrap();
        assert_eq!((instance, through, words.len(), words[1].len()), (u64::MAX, 9, 2, DATAGRAM_BYTES_MAX));
        let read = read_transfer(MeshTag::of("isle"), &bytes).unwrap();
        assert_eq!((read.through, read.words.len()), (9, 0), "nobody has signed these");
    }

    #[test]
    fn a_body_keeps_to_its_bounds() {
        let mut filling = Filling::new();
        let word = Bytes::from(vec![7; DATAGRAM_BYTES_MAX]);
        while filling.push_all(vec![word.clone(); 3]) {}
        let bytes = filling.encode(u64::MAX, u64::MAX);
        assert!(bytes.len() <= TRANSFER_BYTES_MAX && decode(&bytes).is_ok());
        assert_eq!(decode(&vec![0x80; TRANSFER_BYTES_MAX + 1]), Err(DecodeError::Size));
        assert!(decode(b"\x81\xa1w\x91\x01").is_err() && decode(b"\x80").is_err());
    }
}
