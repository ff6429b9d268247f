//! Who is down on another island: by certificates, judged by the member's own record and by who of its watchers is there, as
//! far as that is known here.
//!
//! A certificate that does not suffice yet is kept: its voters, or what became of other watchers, may become known after
//! it.
//!
//! Source: NETWORK.md, "Votes and certificates", "Members of other islands".

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use super::word::FarWord;
use super::{Far, Out};
use crate::event::EventKind;
use crate::member::{MemberId, Reason, Stamp, Standing};
use crate::outward::What;
use crate::table::Entry;
use crate::verify::Refused;
use crate::wire::{Message, Suspect};

/// Members of whom a certificate waits for more; of further ones none is kept. Their digests differ then. Guessed.
const WAITING_MAX: usize = 256;
/// So many members of its island decide without watchers, as there.
const UNILATERAL: usize = 3;

/// Votes about one member, all by one record of it.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub(super) bytes: Bytes,
    /// The record that they are judged by.
    pub(super) record: Stamp,
    /// By voter, the newest word of the accused that it knew.
    pub(super) votes: BTreeMap<MemberId, Stamp>,
}

impl Far {
    /// A certificate about a member whose record is known.
    pub(super) fn hear_certificate(&mut self, now: Instant, heard: &FarWord) -> Result<(), Refused> {
        let (id, certificate) = read(heard)?;
        let entry = self.table.get(&id).ok_or(Refused::Unasked)?;
        if entry.has_left() {
            return Err(Refused::Stale);
        }
        let (Some(record), Some(newest)) = (entry.record.as_ref().map(|said| said.stamp), entry.newest())
        else {
            return Err(Refused::Unasked);
        };
        if certificate.record < record {
            return Err(Refused::Stale);
        }
        let mut certificate = certificate;
        certificate.votes.retain(|_, last| *last >= newest);
        if certificate.votes.is_empty() {
            self.refute(id);
            return Err(Refused::Stale);
        }
        let Some(member) = self.members.get(&id) else { return Err(Refused::Unasked) };
        if member.standing == Standing::Down {
            return Err(Refused::Stale);
        }
        if let Some(reason) = self.judge(&id, &certificate) {
            self.go_down(now, id, reason, certificate);
            return Ok(());
        }
        // Anybody can sign votes of no weight: they do not take the place of others.
        let is_better = |held: &Certificate| {
            held.record < certificate.record || self.weight(&id, held) < self.weight(&id, &certificate)
        };
        let is_worth_keeping = self.waiting.contains_key(&id) || self.waiting.len() < WAITING_MAX;
        if is_worth_keeping && self.waiting.get(&id).is_none_or(is_better) {
            self.waiting.insert(id, certificate);
        }
        Err(Refused::Unasked)
    }

    /// Somebody may have come or gone: certificates that did not suffice may do so now.
    pub(crate) fn settle(&mut self, now: Instant) {
        while std::mem::take(&mut self.unsettled) {
            let judged = |(id, certificate): (&MemberId, &Certificate)| {
                Some((*id, self.judge(id, certificate)?, certificate.clone()))
            };
            let decided: Vec<_> = self.waiting.iter().filter_map(judged).collect();
            for (id, reason, certificate) in decided {
                self.go_down(now, id, reason, certificate);
            }
        }
    }

    /// Whether the votes on `id` suffice, and by whom.
    fn judge(&self, id: &MemberId, certificate: &Certificate) -> Option<Reason> {
        let said = self.table.get(id)?.record.as_ref()?;
        if certificate.record != said.stamp {
            return None;
        }
        let watchers = || said.value.watchers.iter().filter(|watcher| !self.is_gone(watcher));
        let living = watchers().count();
        let named = watchers().filter(|watcher| certificate.votes.contains_key(*watcher)).count();
        let quorum = match living {
            0 => usize::MAX,
            1 => 1,
            2..=4 => 2,
            _ => 3,
        };
        if named >= quorum {
            return Some(Reason::NoAnswer);
        }
        // Of watchers we may not know yet it is not known that they are gone.
        let there = self.there(&said.value.island).filter(|other| *other != id).take(UNILATERAL).count();
        let needed = there.max(living).clamp(1, UNILATERAL);
        (self.weight(id, certificate) >= needed).then_some(Reason::Unilateral)
    }

    /// How many of the voters are members of the same island that are there.
    fn weight(&self, id: &MemberId, certificate: &Certificate) -> usize {
        let Some(said) = self.table.get(id).and_then(|entry| entry.record.as_ref()) else { return 0 };
        let island = &said.value.island;
        let counts = |voter: &&MemberId| {
            let record = self.table.get(voter).and_then(|entry| entry.record.as_ref());
            !self.is_gone(voter) && record.is_some_and(|record| record.value.island == *island)
        };
        certificate.votes.keys().filter(counts).count()
    }

    fn is_gone(&self, id: &MemberId) -> bool {
        self.table.get(id).is_some_and(Entry::has_left)
            || self.members.get(id).is_some_and(|member| member.standing.is_gone())
    }

    fn there(&self, island: &str) -> impl Iterator<Item = &MemberId> {
        let is_there = move |id: &&MemberId| {
            let record = self.table.get(id).and_then(|entry| entry.record.as_ref());
            record.is_some_and(|said| said.value.island == island)
        };
        let alive = self.members.iter().filter(|(_, member)| member.standing == Standing::Alive);
        alive.map(|(id, _)| id).filter(is_there)
    }

    fn go_down(&mut self, now: Instant, id: MemberId, reason: Reason, certificate: Certificate) {
        self.waiting.remove(&id);
        let Some(member) = self.members.get_mut(&id) else { return };
        member.standing = Standing::Down;
        member.verdict = Some(reason);
        let bytes = certificate.bytes.clone();
        member.certificate = Some(certificate);
        self.table.set_down(&id, Some(now), now);
        self.changes.note(id);
        self.unsettled = true;
        self.publish(now, id, Some(EventKind::Down));
        self.say(id, What::Down, bytes, true);
    }

    /// A newer pulse of `id`: votes that do not know it are void. Whether it comes back by that.
    pub(super) fn has_beaten(&mut self, id: MemberId, stamp: Stamp) -> bool {
        if let Some(waits) = self.waiting.get_mut(&id) {
            waits.votes.retain(|_, last| *last >= stamp);
            if waits.votes.is_empty() {
                self.waiting.remove(&id);
            }
        }
        let Some(member) = self.members.get_mut(&id) else { return false };
        let Some(mut certificate) = member.certificate.take() else { return false };
        certificate.votes.retain(|_, last| *last >= stamp);
        let is_void = certificate.votes.is_empty() || self.judge(&id, &certificate).is_none();
        if !is_void && let Some(member) = self.members.get_mut(&id) {
            member.certificate = Some(certificate);
        }
        is_void && self.acquit(id)
    }

    /// `id` is not down any more. Whether it was.
    pub(super) fn acquit(&mut self, id: MemberId) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return false };
        member.certificate = None;
        member.verdict = None;
        let was_down = member.standing == Standing::Down;
        if was_down {
            member.standing = Standing::Alive;
        }
        was_down
    }

    /// Somebody still believes that `id` is down; its pulse says that it is not.
    fn refute(&mut self, id: MemberId) {
        let pulse = self.table.get(&id).and_then(|entry| entry.pulse.as_ref());
        if let Some(bytes) = pulse.map(|said| said.bytes.clone()) {
            self.outs.push_back(Out::Said { member: id, what: What::Refuted, bytes, is_urgent: true });
        }
    }
}

/// The votes in a certificate, if they are about one member.
fn read(heard: &FarWord) -> Result<(MemberId, Certificate), Refused> {
    let mut accused: Option<MemberId> = None;
    let mut found: BTreeMap<Stamp, BTreeMap<MemberId, Stamp>> = BTreeMap::new();
    for word in &heard.votes {
        let Some(Message::Suspect(vote)) = &word.message else { return Err(Refused::Malformed) };
        let Suspect { target, epoch, record_seq, last_seq, .. } = *vote;
        let voter = word.header.author;
        if voter == target || *accused.get_or_insert(target) != target {
            return Err(Refused::Malformed);
        }
        let (record, last) = (Stamp { epoch, seq: record_seq }, Stamp { epoch, seq: last_seq });
        found.entry(record).or_default().insert(voter, last);
    }
    let (Some(id), Some((record, votes))) = (accused, found.pop_last()) else {
        return Err(Refused::Signature);
    };
    Ok((id, Certificate { bytes: heard.word.bytes.clone(), record, votes }))
}
