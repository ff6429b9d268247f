//! Finding out what a reader lacks whose place in the journal is not known: sums of hashes over ranges of members,
//! then, for ranges that differ, the hashes that the reader holds. So every word that it has stays where it is.

use std::ops::Bound;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isle_mesh::member::MemberId;

use super::{Entry, Journal, Key, Part};
use crate::frame::{BATCH_BYTES_MAX, BATCH_WORDS_MAX, BUCKET_BITS_MAX, DigestRequest, HELD_MAX, Wanted};

/// Words that one bucket has on average. Guessed: a word that differs costs the hashes of eight.
const WORDS_PER_BUCKET: usize = 8;

/// How far a request has been answered: all before `wanted`, and of that one all up to `after`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Position {
    wanted: usize,
    after: Option<Key>,
}

/// A part of the answer to a request.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) words: Vec<Bytes>,
    /// For how long those have been gone that words are about.
    pub(crate) gone: Vec<(MemberId, Duration)>,
    /// Where the next part begins; `None` when this is the last.
    pub(crate) next: Option<Position>,
}

impl Journal {
    /// How finely a digest of this journal should be cut.
    pub(crate) fn bucket_bits(&self) -> u8 {
        let buckets = (self.entries.len() / WORDS_PER_BUCKET).max(1);
        u8::try_from(buckets.ilog2()).map_or(BUCKET_BITS_MAX, |bits| bits.min(BUCKET_BITS_MAX))
    }

    /// The sum of what the words mean, modulo 2^64, for each of the 2^`bits` ranges of members. O(n).
    pub(crate) fn buckets(&self, bits: u8) -> Vec<u64> {
        let mut sums = vec![0u64; 1 << bits];
        for ((member, _), entry) in &self.entries {
            let sum = &mut sums[usize::from(bucket_of(*member, bits))];
            *sum = sum.wrapping_add(entry.meaning);
        }
        sums
    }

    /// What to ask of somebody whose buckets are `theirs`, from bucket `from` on; and where the next request starts,
    /// if this one has no room for all.
    pub(crate) fn request(&self, theirs: &[u64], from: usize) -> (DigestRequest, Option<usize>) {
        let bits = u8::try_from(theirs.len().ilog2()).map_or(BUCKET_BITS_MAX, |bits| bits);
        let ours = self.buckets(bits);
        let mut request = DigestRequest::default();
        let mut room = HELD_MAX;
        // 0 is a bucket with nothing in it: there is nothing to ask for.
        let differing = (from..theirs.len()).filter(|bucket| ![0, ours[*bucket]].contains(&theirs[*bucket]));
        for number in differing {
            let bucket = u16::try_from(number).expect("a digest has at most 4096 buckets");
            // Pulses that end a verdict mean nothing by themselves, and are not named: they are sent to be safe.
            let meanings = self.bucket(bucket, bits, None).map(|(_, entry)| entry.meaning);
            let mut held: Vec<u64> = meanings.filter(|meaning| *meaning != 0).collect();
            // Only a stranger who picks its keys fills one bucket so; having that one whole again is no harm.
            if held.len() > HELD_MAX {
                held = Vec::new();
            }
            if held.len() > room {
                request.more = true;
                return (request, Some(number));
            }
            room -= held.len();
            held.sort_unstable();
            request.wanted.push(Wanted { bucket, held });
        }
        (request, None)
    }

    /// The words that are asked for, of those recorded up to `index`: later ones are read as changes.
    pub(crate) fn answer(
        &self,
        now: Instant,
        request: &DigestRequest,
        bits: u8,
        index: u64,
        from: Position,
    ) -> Answer {
        let mut answer = Answer::default();
        let mut bytes = 0;
        let mut after = from.after;
        for (number, wanted) in request.wanted.iter().enumerate().skip(from.wanted) {
            for (key, entry) in self.bucket(wanted.bucket, bits, after) {
                if entry.index <= index && wanted.held.binary_search(&entry.meaning).is_err() {
                    bytes += entry.bytes.len();
                    if answer.words.len() == BATCH_WORDS_MAX || bytes > BATCH_BYTES_MAX {
                        answer.next = Some(Position { wanted: number, after });
                        return answer;
                    }
                    answer.words.push(entry.bytes.clone());
                    // The words of one member follow each other.
                    let is_dated = answer.gone.last().is_some_and(|(member, _)| *member == key.0);
                    let age = self.gone_for(&key.0, now).filter(|_| !is_dated);
                    answer.gone.extend(age.map(|age| (key.0, age)));
                }
                after = Some(*key);
            }
            after = None;
        }
        answer
    }

    /// The entries of one bucket, those after `after` if it is given.
    fn bucket(&self, bucket: u16, bits: u8, after: Option<Key>) -> impl Iterator<Item = (&Key, &Entry)> {
        let start = match after {
            Some(key) => Bound::Excluded(key),
            None => Bound::Included((first_of(bucket, bits), Part::Own)),
        };
        let later = self.entries.range((start, Bound::Unbounded));
        later.take_while(move |((member, _), _)| bucket_of(*member, bits) == bucket)
    }
}

/// The first `bits` of the id.
fn bucket_of(member: MemberId, bits: u8) -> u16 {
    let first = u16::from_be_bytes([member.0[0], member.0[1]]);
    first.checked_shr(16 - u32::from(bits)).unwrap_or(0)
}

/// The least id in a bucket.
fn first_of(bucket: u16, bits: u8) -> MemberId {
    let first = bucket.checked_shl(16 - u32::from(bits)).unwrap_or(0);
    let mut id = [0; 32];
    id[..2].copy_from_slice(&first.to_be_bytes());
    MemberId(id)
}
