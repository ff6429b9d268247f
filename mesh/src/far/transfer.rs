//! What a bridge knows of other islands as one body, `GET /mesh/records?instance=&since=`: words verbatim, from the first
//! change that the asker has not read.
//!
//! Source: NETWORK.md, "Far records".

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::word::FarWord;
use crate::member::MemberId;
use crate::transfer::{TRANSFER_BYTES_MAX, WORDS_MAX};
use crate::wire::fields::{Few, Fixed, Word as WireWord};
use crate::wire::{DATAGRAM_BYTES_MAX, DecodeError, MeshTag, body, shape};

/// What a word takes besides its own bytes, and the body besides its words.
const WORD_FRAME_BYTES: usize = 3;
/// What it takes to say since when somebody is gone.
const GONE_BYTES: usize = 44;
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
    #[serde(default, skip_serializing_if = "Few::is_empty")]
    g: Few<Gone, WORDS_MAX>,
}

impl FarBody {
    /// Its words as `verify` finds them to be true, each with the age of its member if that is gone.
    fn verified(self, verify: impl FnOnce(Vec<Bytes>) -> Vec<FarWord>) -> FarTransfer {
        let Self { i: instance, t: through, w: Few(words), g: Few(gone) } = self;
        let mut words = verify(words.into_iter().map(|word| word.0).collect());
        let ages = gone.into_iter().map(|gone| (MemberId(gone.i.0), Duration::from_secs(gone.a.into())));
        FarWord::date(&mut words, ages);
        FarTransfer { instance, through, words }
    }
}

/// A member that is down or has left, and for how many seconds.
#[derive(Serialize, Deserialize)]
struct Gone {
    i: Fixed<32>,
    a: u32,
}

/// A body that is being filled: it keeps to the bounds of a transfer.
pub(super) struct Filling {
    words: Vec<Bytes>,
    gone: Vec<Gone>,
    bytes: usize,
}

impl Filling {
    pub(super) fn new() -> Self {
        Self { words: Vec::new(), gone: Vec::new(), bytes: FRAME_BYTES }
    }

    /// Adds all these about one member, or none and says so. `gone`: it is, for so long.
    pub(super) fn push_all(&mut self, id: MemberId, words: Vec<Bytes>, gone: Option<Duration>) -> bool {
        let bytes: usize = words.iter().map(|word| word.len() + WORD_FRAME_BYTES).sum();
        let bytes = bytes + gone.map_or(0, |_| GONE_BYTES);
        if self.words.len() + words.len() > WORDS_MAX || self.bytes + bytes > TRANSFER_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.words.extend(words);
        let seconds = gone.map(|age| u32::try_from(age.as_secs()).unwrap_or(u32::MAX));
        self.gone.extend(seconds.map(|a| Gone { i: Fixed(id.0), a }));
        true
    }

    pub(super) fn encode(self, instance: u64, through: u64) -> Bytes {
        let mut bytes = Vec::with_capacity(self.bytes);
        let words = self.words.into_iter().map(WireWord).collect();
        body::put(&FarBody { i: instance, t: through, w: Few(words), g: Few(self.gone) }, &mut bytes);
        bytes.into()
    }
}

/// Reads and verifies the body of `GET /mesh/records?instance=&since=`. Blocks: 40 µs of CPU a word, spread over the cores
/// that there are.
///
/// # Errors
/// More than a transfer may have, or not of the form. Words that are not true are left out.
pub fn read_transfer(tag: MeshTag, bytes: &[u8]) -> Result<FarTransfer, DecodeError> {
    decode(bytes).map(|body| body.verified(|words| FarWord::verify_spread(tag, &words)))
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
    decode(bytes).map(|body| body.verified(|words| words.into_iter().filter_map(verify).collect()))
}

fn decode(bytes: &[u8]) -> Result<FarBody, DecodeError> {
    if bytes.len() > TRANSFER_BYTES_MAX {
        return Err(DecodeError::Size);
    }
    shape::check(bytes)?;
    body::take(bytes)
}

const _: () = assert!(DATAGRAM_BYTES_MAX <= u16::MAX as usize, "a word's length takes two bytes");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_comes_back() {
        let mut filling = Filling::new();
        let words = vec![Bytes::from_static(b"one"), Bytes::from(vec![7; DATAGRAM_BYTES_MAX])];
        assert!(filling.push_all(MemberId([1; 32]), words, Some(Duration::from_secs(599))));
        let bytes = filling.encode(u64::MAX, 9);
        let read = decode(&bytes).unwrap();
        assert_eq!(
            (read.i, read.t, read.w.0.len(), read.w.0[1].0.len()),
            (u64::MAX, 9, 2, DATAGRAM_BYTES_MAX)
        );
        assert_eq!((read.g.0[0].i.0, read.g.0[0].a), ([1; 32], 599));
        let read = read_transfer(MeshTag::of("isle"), &bytes).unwrap();
        assert_eq!((read.through, read.words.len()), (9, 0), "nobody has signed these");
    }

    #[test]
    fn a_body_keeps_to_its_bounds() {
        let mut filling = Filling::new();
        let word = Bytes::from(vec![7; DATAGRAM_BYTES_MAX]);
        while filling.push_all(MemberId([1; 32]), vec![word.clone(); 3], Some(Duration::MAX)) {}
        let bytes = filling.encode(u64::MAX, u64::MAX);
        assert!(bytes.len() <= TRANSFER_BYTES_MAX && decode(&bytes).is_ok());
        assert_eq!(decode(&vec![0x80; TRANSFER_BYTES_MAX + 1]).err(), Some(DecodeError::Size));
        assert!(decode(b"\x81\xa1w\x91\x01").is_err() && decode(b"\x80").is_err());
    }
}
