//! The whole table as one body, `GET /mesh/records`: every word verbatim with its author's signature, so that
//! whoever hands it over can leave something out but cannot invent, alter or revive.
//!
//! Source: NETWORK.md, "Records".

use std::num::NonZero;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::verify::{Verified, Word, verify};
use crate::wire::fields::{Few, Word as WireWord};
use crate::wire::{DecodeError, MeshTag, body, shape};

/// Most bytes of a transfer; more is not read.
pub const TRANSFER_BYTES_MAX: usize = 64 << 20;

/// Most members in a transfer.
pub const MEMBERS_MAX: usize = 20_000;

/// Most words in a transfer: record, pulse and end of every member.
pub const WORDS_MAX: usize = 3 * MEMBERS_MAX;

/// Most floors in a transfer.
pub const FLOORS_MAX: usize = 65_536;

/// What one node knows, for another to merge.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transfer {
    /// The words of the listed members: records, pulses, farewells.
    pub words: Vec<TransferWord>,
    /// The last words of members that are listed no more.
    pub floors: Vec<TransferFloor>,
}

/// One word as it was heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransferWord {
    /// The whole datagram.
    pub bytes: Bytes,
    /// How long ago the sender of the transfer heard it; a claim, good for nothing but display.
    pub age: Duration,
}

/// The newest word of a member that is gone: nothing older counts. Being the member's own signed word, it
/// cannot be made up to silence somebody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransferFloor {
    /// The whole datagram: a farewell, else the newest record or pulse.
    pub bytes: Bytes,
    /// How long it has been gone.
    pub age: Duration,
}

/// A transfer whose every word is what its author said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifiedTransfer {
    /// Words with their age.
    pub words: Vec<(Verified<Word>, Duration)>,
    /// Last words of members that are gone, with the time since.
    pub floors: Vec<(Verified<Word>, Duration)>,
    /// How many were dropped because they did not verify.
    pub refused: usize,
}

#[derive(Serialize, Deserialize)]
struct TransferBody {
    #[serde(default)]
    w: Few<WordBody, WORDS_MAX>,
    #[serde(default)]
    f: Few<FloorBody, FLOORS_MAX>,
}

#[derive(Serialize, Deserialize)]
struct WordBody {
    b: WireWord,
    /// Milliseconds.
    #[serde(default)]
    a: u64,
}

#[derive(Serialize, Deserialize)]
struct FloorBody {
    b: WireWord,
    /// Seconds.
    #[serde(default)]
    a: u32,
}

/// The body. The caller keeps to the caps: what is above them would be refused by everybody.
#[must_use]
pub fn encode(transfer: &Transfer) -> Vec<u8> {
    let body = TransferBody {
        w: Few(transfer.words.iter().map(WordBody::from).collect()),
        f: Few(transfer.floors.iter().map(FloorBody::from).collect()),
    };
    let mut bytes = Vec::with_capacity(256 * (transfer.words.len() + transfer.floors.len()) + 16);
    body::put(&body, &mut bytes);
    bytes
}

impl From<&TransferWord> for WordBody {
    fn from(word: &TransferWord) -> Self {
        let millis = u64::try_from(word.age.as_millis()).unwrap_or(u64::MAX);
        Self { b: WireWord(word.bytes.clone()), a: millis }
    }
}

impl From<&TransferFloor> for FloorBody {
    fn from(floor: &TransferFloor) -> Self {
        let seconds = u32::try_from(floor.age.as_secs()).unwrap_or(u32::MAX);
        Self { b: WireWord(floor.bytes.clone()), a: seconds }
    }
}

/// Reads the body. Each word is copied, so none keeps the whole body in memory. About 10 ms for 20,000 members.
///
/// # Errors
/// More than [`TRANSFER_BYTES_MAX`], [`WORDS_MAX`] or [`FLOORS_MAX`], a word larger than a datagram, or not
/// the form. Nothing of it is known to be true: see [`verify_transfer`].
pub fn decode(bytes: &[u8]) -> Result<Transfer, DecodeError> {
    if bytes.len() > TRANSFER_BYTES_MAX {
        return Err(DecodeError::Size);
    }
    shape::check(bytes)?;
    let body: TransferBody = body::take(bytes)?;
    let word = |word: WordBody| TransferWord { bytes: word.b.0, age: Duration::from_millis(word.a) };
    let floor =
        |floor: FloorBody| TransferFloor { bytes: floor.b.0, age: Duration::from_secs(floor.a.into()) };
    Ok(Transfer {
        words: body.w.0.into_iter().map(word).collect(),
        floors: body.f.0.into_iter().map(floor).collect(),
    })
}

/// Checks every signature and drops the words that fail. About 40 µs of CPU a word, spread over the cores
/// that there are (measured on two: 20,000 records and pulses in 0.9 s); blocks, so not for an event loop.
#[must_use]
pub fn verify_transfer(tag: MeshTag, transfer: Transfer) -> VerifiedTransfer {
    let offered = transfer.words.len() + transfer.floors.len();
    let words = transfer.words.into_iter().map(|word| (word.bytes, word.age)).collect();
    let floors = transfer.floors.into_iter().map(|floor| (floor.bytes, floor.age)).collect();
    let (words, floors) = (verify_all(tag, words), verify_all(tag, floors));
    let refused = offered - words.len() - floors.len();
    VerifiedTransfer { words, floors, refused }
}

/// Fewer words than this are not worth a thread: 256 take 10 ms.
const WORDS_PER_THREAD_MIN: usize = 256;

fn verify_all(tag: MeshTag, words: Vec<(Bytes, Duration)>) -> Vec<(Verified<Word>, Duration)> {
    let verify_some = |words: &[(Bytes, Duration)]| -> Vec<_> {
        words.iter().filter_map(|(bytes, age)| Some((verify(tag, bytes.clone()).ok()?, *age))).collect()
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = words.len().div_ceil(threads).max(WORDS_PER_THREAD_MIN);
    if words.len() <= share {
        return verify_some(&words);
    }
    thread::scope(|scope| {
        let shares: Vec<_> = words.chunks(share).map(|some| scope.spawn(|| verify_some(some))).collect();
        let joined = shares.into_iter().flat_map(|share| share.join().expect("verifying does not panic"));
        joined.collect()
    })
}

#[cfg(test)]
mod tests;
