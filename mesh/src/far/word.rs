//! Words that bridges carry, verified where that does not hold up the driver.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use crate::member::MemberId;
use crate::verify::{Refused, Scheme, Verified, Word, verify_as};
use crate::wire::{MeshTag, Message};

/// So few words are verified where they are needed: that takes a millisecond.
const WORDS_INLINE_MAX: usize = 16;
/// Fewer words than this are not worth a thread: 256 take 10 ms.
const WORDS_PER_THREAD_MIN: usize = 256;

/// A word that its author really said; of a certificate, the votes that are true besides.
#[derive(Clone, Debug)]
pub struct FarWord {
    pub(crate) word: Verified<Word>,
    pub(crate) votes: Vec<Verified<Word>>,
    /// For how long whoever hands it on knew that the member is gone, if it says so. A claim.
    pub(crate) gone: Option<Duration>,
}

impl FarWord {
    /// Checks the signature of a datagram, and those of the votes in it if it is a DOWN. 40 µs of CPU each.
    ///
    /// # Errors
    /// As for [`verify_as`]; a vote that is not true is left out.
    pub fn verify(scheme: Scheme, tag: MeshTag, bytes: Bytes) -> Result<Self, Refused> {
        verify_as(scheme, tag, bytes).map(|word| Self::of(scheme, tag, word))
    }

    /// Of a word that is verified already.
    pub(crate) fn of(scheme: Scheme, tag: MeshTag, word: Verified<Word>) -> Self {
        let votes = match &word.message {
            Some(Message::Down(down)) => {
                down.votes.iter().filter_map(|vote| verify_as(scheme, tag, vote.clone()).ok()).collect()
            }
            _ => Vec::new(),
        };
        Self { word, votes, gone: None }
    }

    /// Whom it is about: the accused of a certificate, else its author.
    pub(crate) fn subject(&self) -> Option<MemberId> {
        match &self.word.message {
            Some(Message::Down(_)) => match &self.votes.first()?.message {
                Some(Message::Suspect(vote)) => Some(vote.target),
                _ => None,
            },
            _ => Some(self.word.header.author),
        }
    }

    /// Notes of each word for how long its member has been gone, if that is said here.
    pub(crate) fn date(words: &mut [Self], gone: impl IntoIterator<Item = (MemberId, Duration)>) {
        let ages: BTreeMap<MemberId, Duration> = gone.into_iter().collect();
        for word in words {
            word.gone = word.subject().and_then(|id| ages.get(&id).copied());
        }
    }

    /// Whether others wait for it: a farewell, a verdict, draining.
    pub(crate) fn is_urgent(&self) -> bool {
        match &self.word.message {
            Some(Message::Announce(record)) => record.draining,
            Some(Message::Farewell(_) | Message::Down(_)) => true,
            _ => false,
        }
    }

    /// Whether it says that its author lives, and nothing else.
    pub(crate) fn is_pulse(&self) -> bool {
        matches!(&self.word.message, Some(Message::Beacon(_) | Message::Pong(_)))
    }

    /// Those of these datagrams that are true; many are verified on blocking threads.
    pub(crate) async fn verify_all(tag: MeshTag, words: Vec<Bytes>) -> Vec<Self> {
        if words.len() <= WORDS_INLINE_MAX {
            return verify_some(tag, &words);
        }
        // A panic is a fault of ours; what was lost shows in digests.
        tokio::task::spawn_blocking(move || Self::verify_spread(tag, &words)).await.unwrap_or_default()
    }

    /// The same, spread over the cores that there are. Blocks.
    pub(crate) fn verify_spread(tag: MeshTag, words: &[Bytes]) -> Vec<Self> {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let share = words.len().div_ceil(threads).max(WORDS_PER_THREAD_MIN);
        if words.len() <= share {
            return verify_some(tag, words);
        }
        thread::scope(|scope| {
            let shares: Vec<_> =
                words.chunks(share).map(|some| scope.spawn(move || verify_some(tag, some))).collect();
            shares.into_iter().flat_map(|share| share.join().expect("verifying does not panic")).collect()
        })
    }
}

fn verify_some(tag: MeshTag, words: &[Bytes]) -> Vec<FarWord> {
    words.iter().filter_map(|bytes| FarWord::verify(Scheme::Ed25519, tag, bytes.clone()).ok()).collect()
}
