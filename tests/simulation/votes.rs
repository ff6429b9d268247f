//! How members that keep no table do their duty as watchers. Others name them, for nothing tells them apart, and what is
//! judged waits for their votes; so they say what a watcher or who stands in for one says of whoever is gone without a word.
//!
//! Who that is they know from the simulator: no voice is wrong about it, and none asks before it votes. Everything else is as
//! in NETWORK.md, section 6, "Watchers" and "Votes and certificates".

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isle_mesh::member::{Epoch, MemberId, Seq};
use isle_mesh::wire::{Message, Suspect};

use crate::world::{Due, World};

/// A watcher votes after this silence, and again as long as nothing is decided.
const SILENCE: Duration = Duration::from_millis(600);
const VOTE_AGAIN: Duration = Duration::from_secs(1);
/// The second copy of a vote.
const VOTE_COPY: Duration = Duration::from_millis(30);
/// Watchers that do not agree for so long after their first votes are helped out.
const UNDECIDED: Duration = Duration::from_secs(2);
/// So many stand in for watchers that are gone.
const SUBSTITUTES: usize = 4;
/// All copies of a record have been sent after this.
const COPIED_WITHIN: Duration = Duration::from_millis(150);
/// By then all is decided, or never will be by further votes.
const GIVEN_UP: Duration = Duration::from_secs(15);

/// What a member said before it was gone without a word.
#[derive(Clone)]
pub struct LastWords {
    pub epoch: Epoch,
    pub record: Bytes,
    pub record_seq: Seq,
    /// Since when it said that record.
    pub recorded: Instant,
    /// The number of the last word of all.
    pub last: Seq,
    pub watchers: Vec<MemberId>,
}

/// Somebody who is gone without a word.
pub struct Silent {
    words: LastWords,
    since: Instant,
    /// Which voices have voted, and when they last did.
    votes: BTreeMap<usize, Instant>,
}

impl World {
    /// Nothing is heard of `id` any more: voices will say so.
    pub fn falls_silent(&mut self, id: MemberId, words: LastWords) {
        if self.voices.is_empty() {
            return;
        }
        let epoch = words.epoch;
        self.silent.insert(id, Silent { words, since: self.now, votes: BTreeMap::new() });
        self.at(self.now + SILENCE, Due::Silence(id, epoch));
    }

    /// A silence has lasted for as long as a watcher waits, or a second longer.
    pub fn judge_silence(&mut self, id: MemberId, epoch: Epoch) {
        let Some(silent) = self.silent.get(&id).filter(|silent| silent.words.epoch == epoch) else { return };
        let is_down = self.is_listed_down(&id);
        let undecided = !is_down && self.now >= silent.since + SILENCE + UNDECIDED;
        for voice in self.voices_to_vote(&id, undecided) {
            if !(is_down && self.silent[&id].votes.contains_key(&voice)) {
                self.vote(voice, id);
            }
        }
        if self.now < self.silent[&id].since + GIVEN_UP {
            self.at(self.now + VOTE_AGAIN, Due::Silence(id, epoch));
        }
    }

    /// Somebody says that `id` is silent: whoever is not sure finds it out by new votes.
    pub fn voices_hear_vote(&mut self, id: MemberId, epoch: Epoch) {
        let Some(silent) = self.silent.get(&id) else { return };
        if silent.words.epoch != epoch || !self.is_listed_down(&id) {
            return;
        }
        for voice in self.voices_to_vote(&id, false) {
            let lately = |at: &Instant| self.now < *at + VOTE_AGAIN;
            if !self.silent[&id].votes.get(&voice).is_some_and(lately) {
                self.vote(voice, id);
            }
        }
    }

    /// Which voices are to say that `id` is silent: those of its watchers, or of those who stand in for them.
    fn voices_to_vote(&self, id: &MemberId, undecided: bool) -> Vec<usize> {
        let living = self.living();
        let named: Vec<MemberId> = self.silent[id]
            .words
            .watchers
            .iter()
            .filter(|watcher| living.contains(watcher))
            .copied()
            .collect();
        let mut chosen = named.clone();
        if named.is_empty() || undecided {
            let lot = |other: &MemberId| *blake3::hash(&[id.0, other.0].concat()).as_bytes();
            let mut lots: Vec<_> = living.iter().map(|other| (lot(other), *other)).collect();
            lots.sort_unstable();
            chosen.extend(
                lots.into_iter().map(|(_, other)| other).filter(|other| other != id).take(SUBSTITUTES),
            );
        }
        let mut voices: Vec<usize> = chosen.iter().filter_map(|other| self.voice_of(other)).collect();
        voices.sort_unstable();
        voices.dedup();
        voices
    }

    fn vote(&mut self, voice: usize, id: MemberId) {
        let now = self.now;
        let Some(silent) = self.silent.get_mut(&id) else { return };
        silent.votes.insert(voice, now);
        let LastWords { epoch, record_seq, last, recorded, .. } = silent.words;
        // Votes are worth nothing where the record is missing.
        let young = (silent.since < recorded + COPIED_WITHIN).then(|| silent.words.record.clone());
        let silence_ms = u32::try_from((now - silent.since).as_millis()).expect("not for so long");
        let vote = Suspect { target: id, epoch, record_seq, last_seq: last, silence_ms };
        self.note_of_all(format_args!("v{voice} votes against {}", self.number_of(&id)));
        let bytes = self.signed_by_voice(voice, &Message::Suspect(vote));
        for bytes in young.into_iter().chain([bytes.clone()]) {
            self.say_of_voice(voice, &bytes);
        }
        let life = self.voices[voice].epoch();
        self.at(now + VOTE_COPY, Due::VoiceAgain(voice, life, bytes));
    }

    fn is_listed_down(&self, id: &MemberId) -> bool {
        let table = self.elder(|_| true).map(|node| &self.processes[node].machine);
        table.is_some_and(|table| table.members().any(|member| member.id == *id && member.standing.is_gone()))
    }
}
