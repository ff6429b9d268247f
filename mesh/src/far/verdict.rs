//! Who is down on another island: by certificates, judged by the member's own record and by who of its watchers is there, as
//! far as that is known here.
//!
//! Nobody here hears the voters, so it cannot be known whether they are more than keys that claim to be of that island.
//! Named watchers are named by the accused itself. Where those cannot decide, others count whom the accused vouches for: it
//! names members that it has heard beyond doubt, those name others, and so on. A made-up key is named by nobody.
//!
//! A certificate that does not suffice yet is kept: its voters, or what became of other watchers, may become known after
//! it.
//!
//! Source: NETWORK.md, "Votes and certificates", "Members of other islands"; docs/adr/0006.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

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
/// Members that are looked at to find out whom one vouches for: 0.2 ms. On a larger island some are not found. Guessed.
const VOUCHED_MAX: usize = 2048;
/// And so many for all certificates that wait, before others get their turn.
const LOOKED_AT_MAX: usize = 2 * VOUCHED_MAX;
/// Who was called down without its watchers and spoke again is not called down so for this long: nobody can make it
/// come and go. Guessed: as long as a wrong accusation is remembered on its island.
pub(super) const SPARED_FOR: Duration = Duration::from_secs(60);

/// Votes about one member, all by one record of it.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub(super) bytes: Bytes,
    /// The record that they are judged by.
    pub(super) record: Stamp,
    /// By voter, the newest word of the accused that it knew.
    pub(super) votes: BTreeMap<MemberId, Stamp>,
    /// The accused vouches for one of the voters, as far as was known when that was last looked at.
    is_vouched: bool,
}

/// What a newer word has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cleared {
    Nothing,
    /// It could only not be reached.
    Doubt,
    Down,
}

/// What the votes on a member come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Judgement {
    Down(Reason),
    /// Nobody is left who could say with certainty what became of it.
    Doubted,
}

/// What is found by following who names whom.
#[derive(Debug, Default)]
struct Vouched {
    /// Voters among those, as many as matter; also such as have gone since.
    votes: usize,
    /// Voters, and others that are there and of whom nobody says anything else, as many as matter.
    there: usize,
    looked_at: usize,
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
            return self.replace(now, id, certificate);
        }
        certificate.is_vouched = self.vouched(&id, &certificate, 1).votes > 0;
        match self.judge(now, &id, &certificate) {
            (Some(Judgement::Down(reason)), _) => {
                self.go_down(now, id, reason, certificate);
                return Ok(());
            }
            (Some(Judgement::Doubted), _) if member.doubted.is_none() => {
                self.wait(id, certificate.clone());
                self.doubt(now, id, &certificate);
                return Ok(());
            }
            _ => {
                let bytes = certificate.bytes.clone();
                let is_doubted = self.members.get(&id).is_some_and(|member| member.doubted.is_some());
                if self.wait(id, certificate) && is_doubted {
                    self.changes.note(id);
                    self.say(id, What::Down, bytes, true);
                    return Ok(());
                }
            }
        }
        Err(Refused::Unasked)
    }

    /// More votes on somebody who is down: they convince those whom the ones before do not. Where those convince everybody,
    /// further ones are no news, so each certificate is replaced a few times at most.
    fn replace(&mut self, now: Instant, id: MemberId, certificate: Certificate) -> Result<(), Refused> {
        let held = self.members.get(&id).and_then(|member| member.certificate.as_ref());
        let rank = |certificate: &Certificate| {
            (self.named(&id, certificate), self.vouched(&id, certificate, UNILATERAL).votes)
        };
        let is_better = held.is_some_and(|held| {
            !self.is_conclusive(&id, held)
                && rank(&certificate) > rank(held)
                && matches!(self.judge(now, &id, &certificate).0, Some(Judgement::Down(_)))
        });
        let Some(member) = self.members.get_mut(&id).filter(|_| is_better) else {
            return Err(Refused::Stale);
        };
        let bytes = certificate.bytes.clone();
        member.certificate = Some(certificate);
        self.changes.note(id);
        self.say(id, What::Down, bytes, true);
        Ok(())
    }

    /// How many of the watchers that the accused names have voted. Whoever has gone since it voted has voted: else it would
    /// hang on what comes first, the votes or that it has gone, and islands would differ for good.
    fn named(&self, id: &MemberId, certificate: &Certificate) -> usize {
        let Some(said) = self.table.record(id) else { return 0 };
        said.value.watchers.iter().filter(|watcher| certificate.votes.contains_key(*watcher)).count()
    }

    /// Whether nobody who knows the record can doubt it, whoever else goes or comes.
    fn is_conclusive(&self, id: &MemberId, certificate: &Certificate) -> bool {
        let Some(said) = self.table.record(id) else { return false };
        self.named(id, certificate) >= quorum(said.value.watchers.len())
    }

    /// Keeps a certificate for later; whether it does. Anybody can sign votes of no weight: they do not take the place of others.
    fn wait(&mut self, id: MemberId, certificate: Certificate) -> bool {
        let rank = |held: &Certificate| {
            (held.record, self.named(&id, held), held.is_vouched, self.weight(&id, held))
        };
        if self.waiting.get(&id).is_some_and(|held| rank(held) >= rank(&certificate)) {
            return false;
        }
        if self.waiting.len() >= WAITING_MAX && !self.waiting.contains_key(&id) {
            let weightless = self.waiting.iter().find(|(_, held)| !held.is_vouched).map(|(id, _)| *id);
            match weightless.filter(|_| certificate.is_vouched) {
                Some(other) => self.waiting.remove(&other),
                None => return false,
            };
        }
        // Others may hang on whether this one is accused.
        self.unsettled |= certificate.is_vouched;
        self.waiting.insert(id, certificate);
        true
    }

    /// Somebody may have come or gone: certificates that did not suffice may do so now. Does a bounded part of the work;
    /// the rest is done the next time.
    pub(crate) fn settle(&mut self, now: Instant) {
        let mut left = LOOKED_AT_MAX;
        while self.unsettled && left > 0 {
            self.unsettled = false;
            let Some(start) = self.waiting.keys().next().copied() else { return };
            let start = self.settled_to.take().unwrap_or(start);
            let (later, earlier): (Vec<MemberId>, Vec<MemberId>) =
                self.waiting.keys().copied().partition(|id| *id >= start);
            for id in later.into_iter().chain(earlier) {
                left = left.saturating_sub(self.judge_waiting(now, id));
                if left == 0 {
                    self.unsettled = true;
                    self.settled_to = Some(id);
                    return;
                }
            }
        }
    }

    /// Judges a certificate that waits; gives how many members were looked at.
    fn judge_waiting(&mut self, now: Instant, id: MemberId) -> usize {
        let Some(certificate) = self.waiting.get(&id).cloned() else { return 1 };
        let mut looked_at = 1;
        if !certificate.is_vouched {
            let vouched = self.vouched(&id, &certificate, 1);
            looked_at += vouched.looked_at;
            if vouched.votes > 0
                && let Some(waits) = self.waiting.get_mut(&id)
            {
                waits.is_vouched = true;
                self.unsettled = true;
            }
        }
        let (judgement, more) = self.judge(now, &id, &certificate);
        match judgement {
            Some(Judgement::Down(reason)) => self.go_down(now, id, reason, certificate),
            Some(Judgement::Doubted) => self.doubt(now, id, &certificate),
            None => {}
        }
        looked_at + more
    }

    /// What the votes on `id` come to, and how many members were looked at for that.
    fn judge(&self, now: Instant, id: &MemberId, certificate: &Certificate) -> (Option<Judgement>, usize) {
        let Some(said) = self.table.record(id) else { return (None, 0) };
        if certificate.record != said.stamp {
            return (None, 0);
        }
        let watchers = || said.value.watchers.iter().filter(|watcher| !self.is_gone(watcher));
        // Who is left only makes fewer votes enough: more news never end a verdict.
        if self.named(id, certificate) >= quorum(watchers().count()) {
            return (Some(Judgement::Down(Reason::NoAnswer)), 0);
        }
        let spared = self.members.get(id).and_then(|member| member.spared);
        if spared.is_some_and(|at| now.saturating_duration_since(at) < SPARED_FOR) {
            return (None, 0);
        }
        // A watcher that is there and says nothing against it may well hear it.
        let may_hear =
            |watcher: &MemberId| !certificate.votes.contains_key(watcher) && !self.is_accused(watcher);
        if watchers().any(may_hear) {
            return (None, 0);
        }
        let vouched = self.vouched(id, certificate, UNILATERAL);
        let looked_at = vouched.looked_at;
        if vouched.votes >= vouched.there.clamp(1, UNILATERAL) {
            return (Some(Judgement::Down(Reason::Unilateral)), looked_at);
        }
        let there = self.there(&said.value.island).filter(|other| *other != id).take(UNILATERAL).count();
        let is_enough = self.weight(id, certificate) >= there.clamp(1, UNILATERAL);
        (is_enough.then_some(Judgement::Doubted), looked_at)
    }

    /// Follows who names whom as a watcher, from `id` on: how many of the voters are found so, and how many others who are
    /// there. Whoever has gone since it voted has voted. Counts up to `most` voters.
    fn vouched(&self, id: &MemberId, certificate: &Certificate, most: usize) -> Vouched {
        let mut found = Vouched::default();
        let record = |id: &MemberId| self.table.get(id)?.record.as_ref().map(|said| &said.value);
        let Some(accused) = record(id).filter(|_| !certificate.votes.is_empty()) else { return found };
        let mut seen: BTreeSet<MemberId> = BTreeSet::from([*id]);
        let mut next: VecDeque<MemberId> = accused.watchers.iter().copied().collect();
        while let Some(member) = next.pop_front() {
            if found.looked_at >= VOUCHED_MAX || found.votes >= most {
                break;
            }
            if !seen.insert(member) {
                continue;
            }
            found.looked_at += 1;
            let Some(named) = record(&member).filter(|named| named.island == accused.island) else {
                continue;
            };
            let votes = certificate.votes.contains_key(&member);
            found.votes += usize::from(votes);
            found.there += usize::from(votes || !self.is_gone(&member) && !self.is_accused(&member));
            next.extend(named.watchers.iter().filter(|watcher| !seen.contains(*watcher)));
        }
        found
    }

    /// Whether anybody says that this member is not there.
    pub(crate) fn is_accused_or_down(&self, id: &MemberId) -> bool {
        self.waiting.contains_key(id) || self.standing(id) == Some(Standing::Down)
    }

    /// Whether somebody whom it vouches for says that this member is silent, too.
    fn is_accused(&self, id: &MemberId) -> bool {
        self.waiting.get(id).is_some_and(|certificate| certificate.is_vouched)
    }

    /// How many of the voters claim to be of the same island, or did until they went.
    fn weight(&self, id: &MemberId, certificate: &Certificate) -> usize {
        let Some(said) = self.table.record(id) else { return 0 };
        let island = &said.value.island;
        let counts = |voter: &&MemberId| {
            let record = self.table.record(voter);
            record.is_some_and(|record| record.value.island == *island)
        };
        certificate.votes.keys().filter(counts).count()
    }

    fn is_gone(&self, id: &MemberId) -> bool {
        self.table.get(id).is_some_and(Entry::has_left)
            || self.members.get(id).is_some_and(|member| member.standing.is_gone())
    }

    fn there(&self, island: &str) -> impl Iterator<Item = &MemberId> {
        let is_there = move |id: &&MemberId| {
            let record = self.table.record(id);
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
        member.doubted = None;
        self.doubted.retain(|(_, doubted)| *doubted != id);
        let bytes = certificate.bytes.clone();
        member.certificate = Some(certificate);
        self.table.set_down(&id, Some(now), now);
        self.changes.note(id);
        self.unsettled = true;
        self.publish(now, id, Some(EventKind::Down));
        self.say(id, What::Down, bytes, true);
    }

    /// `id` is shown as one that cannot be reached, for nobody can say with certainty that it is down.
    fn doubt(&mut self, now: Instant, id: MemberId, certificate: &Certificate) {
        let Some(member) = self.members.get_mut(&id).filter(|member| member.doubted.is_none()) else {
            return;
        };
        member.doubted = Some(now);
        self.doubted.insert((now, id));
        self.table.set_doubted(&id, true);
        self.changes.note(id);
        self.publish(now, id, None);
        self.say(id, What::Down, certificate.bytes.clone(), true);
    }

    /// What `id` is down or doubted by, for others to judge.
    pub(super) fn certificate_on(&self, id: &MemberId) -> Option<&Certificate> {
        let member = self.members.get(id)?;
        match member.standing {
            Standing::Down => member.certificate.as_ref(),
            _ => self.waiting.get(id).filter(|_| member.doubted.is_some()),
        }
    }

    /// A newer pulse of `id`: votes that do not know it are void. What has come of that.
    pub(super) fn has_beaten(&mut self, now: Instant, id: MemberId, stamp: Stamp) -> Cleared {
        if let Some(waits) = self.waiting.get_mut(&id) {
            waits.votes.retain(|_, last| *last >= stamp);
            if waits.votes.is_empty() {
                self.waiting.remove(&id);
            }
        }
        let Some(member) = self.members.get_mut(&id) else { return Cleared::Nothing };
        let doubted = member.doubted.is_some() && !self.waiting.contains_key(&id);
        let Some(mut certificate) = member.certificate.take() else {
            return if doubted { self.acquit(now, id) } else { Cleared::Nothing };
        };
        certificate.votes.retain(|_, last| *last >= stamp);
        let stands = !certificate.votes.is_empty()
            && matches!(self.judge(now, &id, &certificate).0, Some(Judgement::Down(_)));
        if stands {
            if let Some(member) = self.members.get_mut(&id) {
                member.certificate = Some(certificate);
            }
            return Cleared::Nothing;
        }
        self.acquit(now, id)
    }

    /// `id` is not down any more, and not doubted. What it was.
    pub(super) fn acquit(&mut self, now: Instant, id: MemberId) -> Cleared {
        let Some(member) = self.members.get_mut(&id) else { return Cleared::Nothing };
        member.certificate = None;
        let verdict = member.verdict.take();
        let doubted = member.doubted.take();
        if let Some(at) = doubted {
            self.doubted.remove(&(at, id));
            self.table.set_doubted(&id, false);
        }
        if verdict == Some(Reason::Unilateral) {
            member.spared = Some(now);
        }
        match (member.standing == Standing::Down, doubted) {
            (true, _) => {
                member.standing = Standing::Alive;
                Cleared::Down
            }
            (false, Some(_)) => Cleared::Doubt,
            (false, None) => Cleared::Nothing,
        }
    }

    /// Somebody still believes that `id` is down; its pulse says that it is not.
    fn refute(&mut self, id: MemberId) {
        let pulse = self.table.get(&id).and_then(|entry| entry.pulse.as_ref());
        if let Some(bytes) = pulse.map(|said| said.bytes.clone()) {
            self.outs.push_back(Out::Said { member: id, what: What::Refuted, bytes, is_urgent: true });
        }
    }
}

/// So many votes of named watchers are enough where so many of them are not known to be gone.
pub(crate) fn quorum(watchers: usize) -> usize {
    match watchers {
        0 | 1 => 1,
        2..=4 => 2,
        _ => 3,
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
    Ok((id, Certificate { bytes: heard.word.bytes.clone(), record, votes, is_vouched: false }))
}
