//! Certificates: the votes that a member is down by, in one datagram. A certificate is nothing but enough votes, so it
//! says the same to everybody who holds the record that they are judged by.
//!
//! Source: NETWORK.md, "Votes and certificates".

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Destination, Membership, Source, Timer};
use crate::member::{MemberId, Stamp, Standing};
use crate::verify::{Refused, Verified, Word};
use crate::wire::{Down, Message, VOTES_MAX};

/// A voter waits up to this before it says the certificate, perhaps another does.
const CERTIFY_WAIT: Duration = Duration::from_millis(20);
/// So many votes suffice everywhere.
const VOTES_ENOUGH: usize = 3;
/// Copies of a certificate. Required by DESIGN, section 5.
const CERTIFICATE_COPIES: [Duration; 2] = [Duration::from_millis(15), Duration::from_millis(40)];

impl Membership {
    /// The votes that `id` is down by, as one datagram.
    pub(super) fn certificate(&mut self, id: &MemberId) -> Option<Bytes> {
        let doubt = self.peers.get(id)?.doubt.as_ref()?;
        let (named, others): (Vec<_>, Vec<_>) =
            doubt.votes.iter().partition(|(voter, _)| self.is_watcher_of(voter, id));
        // Of others those count nowhere that are gone.
        let (gone, there): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|(voter, _)| self.is_known_gone(voter));
        let votes = named.into_iter().chain(there).chain(gone).map(|(_, vote)| vote.bytes.clone());
        let votes: Vec<Bytes> = votes.take(VOTES_MAX).collect();
        Some(self.sign(&Message::Down(Down { votes })))
    }

    pub(super) fn certify_soon(&mut self, now: Instant, id: MemberId) {
        let own = self.id();
        let doubt = self.peers.get(&id).and_then(|peer| peer.doubt.as_ref());
        // In a storm the votes say it to all, twice, and a certificate goes to whoever asks.
        let wanted = doubt.is_some_and(|doubt| doubt.votes.contains_key(&own) && !doubt.certified);
        if wanted && !self.is_storm(now) {
            let wait = self.up_to(CERTIFY_WAIT);
            self.timers.arm(now + wait, Timer::Certify(id));
        }
    }

    /// Some have not heard enough: one of those who have says it to all.
    pub(super) fn certify_anew(&mut self, now: Instant, id: MemberId) {
        if let Some(doubt) = self.peers.get_mut(&id).and_then(|peer| peer.doubt.as_mut()) {
            doubt.certified = false;
            let wait = self.up_to(CERTIFY_WAIT);
            self.timers.arm(now + wait, Timer::Certify(id));
        }
    }

    /// Says the certificate, unless somebody has, or it no longer holds.
    pub(super) fn certify(&mut self, now: Instant, id: MemberId) {
        let open = self.peers.get(&id).and_then(|peer| peer.doubt.as_ref());
        if self.leaving || open.is_none_or(|doubt| doubt.certified || doubt.ready.is_none()) {
            return;
        }
        let Some(bytes) = self.certificate(&id) else { return };
        if let Some(doubt) = self.peers.get_mut(&id).and_then(|peer| peer.doubt.as_mut()) {
            doubt.certified = true;
        }
        self.send(Destination::Everyone, bytes.clone());
        if self.is_storm(now) {
            return;
        }
        for after in CERTIFICATE_COPIES {
            self.timers.arm(now + after, Timer::CertificateCopy(id, bytes.clone()));
        }
    }

    /// Another copy of a certificate, if its member has not spoken meanwhile.
    pub(super) fn certificate_copy(&mut self, now: Instant, id: MemberId, bytes: Bytes) {
        if !self.leaving
            && !self.is_storm(now)
            && self.peers.get(&id).is_some_and(|peer| peer.doubt.is_some())
        {
            self.send(Destination::Everyone, bytes);
        }
    }

    /// A certificate: votes that may be news to us.
    pub(super) fn hear_down(
        &mut self,
        now: Instant,
        from: Source,
        word: &Verified<Word>,
        down: &Down,
    ) -> Result<(), Refused> {
        let accused = down.votes.first().and_then(|vote| self.vote_in(vote)).map(|(_, id)| id);
        if let Some(id) = accused
            && self.judges_abroad(&id)?
        {
            return self.hear_urgent(now, word, Some((from, &word.bytes)));
        }
        let mut outcome = Err(Refused::Stale);
        let mut shared = 0;
        for bytes in &down.votes {
            let Some((voter, id)) = self.vote_in(bytes) else { return Err(Refused::Malformed) };
            let peer = self.peers.get_mut(&id);
            if let Some(doubt) = peer.and_then(|peer| peer.doubt.as_mut()) {
                let known = doubt.votes.get(&voter).is_some_and(|vote| vote.bytes == *bytes);
                if known {
                    shared += 1;
                    continue;
                }
            }
            if self.is_known_gone(&id) {
                continue;
            }
            let word = self.verified(bytes.clone())?;
            if let Some(Message::Suspect(vote)) = word.message {
                let heard = self.hear_vote(now, None, &word, &vote);
                shared += usize::from(heard.is_ok());
                outcome = outcome.or(heard);
            }
        }
        let doubt = accused.and_then(|id| self.peers.get_mut(&id)).and_then(|peer| peer.doubt.as_mut());
        if let Some(doubt) = doubt {
            // With fewer it would not say what ours does.
            doubt.certified |= doubt.ready.is_some() && shared >= doubt.votes.len().min(VOTES_ENOUGH);
        }
        outcome
    }

    /// Who votes about whom in these bytes, before anything of it is known to be true.
    fn vote_in(&self, bytes: &Bytes) -> Option<(MemberId, MemberId)> {
        let said = bytes.get(..bytes.len().checked_sub(crate::wire::SIGNATURE_BYTES)?)?;
        match crate::wire::decode(said).ok()? {
            (header, Some(Message::Suspect(vote))) => Some((header.author, vote.target)),
            _ => None,
        }
    }

    /// The votes that `id` is down by, for whoever fetches the table: of its watchers, and of others that are still there.
    pub(super) fn votes_in_force(&self, id: &MemberId) -> impl Iterator<Item = (&Bytes, Instant)> {
        let down = self.peers.get(id).filter(|peer| peer.standing == Standing::Down);
        let votes = down.and_then(|peer| peer.doubt.as_ref()).map(|doubt| &doubt.votes);
        let counts = |voter: &MemberId| !self.is_known_gone(voter) || self.is_watcher_of(voter, id);
        let votes = votes.into_iter().flatten().filter(move |(voter, _)| counts(voter));
        votes.map(|(_, vote)| (&vote.bytes, vote.at))
    }

    /// Whether this word of `id`, heard by another so long ago, is newer than all that was said against `id`: those who
    /// call it silent do not know it, and it came after they said so, not just before the silence.
    pub(super) fn is_after_votes(&self, now: Instant, id: &MemberId, stamp: Stamp, age: Duration) -> bool {
        let Some(doubt) = self.peers.get(id).and_then(|peer| peer.doubt.as_ref()) else { return true };
        let mut votes = doubt.votes.values();
        votes.all(|vote| vote.last < stamp && now.saturating_duration_since(vote.at) > age)
    }
}
