//! What is known of other islands and their members, as bridges carry their words.
//!
//! Far members have a table of their own, with the precedence, the floors and the caps of that of our island. Nobody here
//! watches them: they are alive, down by a certificate of their own island, or left by their own farewell. An island that
//! no way leads to is one event, and none for its members. This knows no sockets, no clock, no timers, and nothing of the
//! members of our own island: whoever holds both sees to it that those win.
//!
//! Source: NETWORK.md, "Members of other islands".
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::by_member::{ByMember, by_member};
use crate::event::EventKind;
use crate::island::Island;
use crate::member::{Load, Member, MemberId, Reason, Record, Stamp, Standing};
use crate::outward::What;
use crate::table::{Advance, GONE_LISTED, MEMBERS_MAX, Table, Via};
use crate::verify::{Refused, Verified, Word};
use crate::wire::{Header, Message};

mod changes;
mod islands;
mod routes;
mod shares;
#[cfg(test)]
mod tests;
mod transfer;
mod verdict;
mod word;

pub(crate) use routes::RouteWords;
#[cfg(feature = "simulation")]
pub use transfer::read_transfer_with;
pub use transfer::{FarTransfer, read_transfer};
pub(crate) use verdict::quorum;
pub use word::FarWord;

use changes::Changes;
use islands::Islands;
use shares::{Bringer, Share, Shares};
use transfer::Filling;
use verdict::{Certificate, Cleared};

/// Other islands and their members. Holds as many members as a [`Table`], and 256 islands.
#[derive(Debug)]
pub(crate) struct Far {
    own_island: String,
    table: Table,
    /// Most members there.
    members_max: usize,
    shares: Shares,
    /// The listed ones: those whose record is known.
    members: ByMember<FarMember>,
    /// Certificates that do not suffice, or not yet.
    waiting: BTreeMap<MemberId, Certificate>,
    /// Somebody has come or gone since those were last judged.
    unsettled: bool,
    /// Where judging them stopped.
    settled_to: Option<MemberId>,
    /// Who cannot be reached, as far as anybody can say, by since when.
    doubted: BTreeSet<(Instant, MemberId)>,
    islands: Islands,
    pub(crate) routes: RouteWords,
    changes: Changes,
    outs: VecDeque<Out>,
}

#[derive(Debug)]
struct FarMember {
    standing: Standing,
    verdict: Option<Reason>,
    /// The certificate that it is down by.
    certificate: Option<Certificate>,
    /// Since when nobody can say whether it is down.
    doubted: Option<Instant>,
    /// When a verdict without its watchers was last shown to be wrong.
    spared: Option<Instant>,
    /// The bridge whose link brought it.
    origin: Option<MemberId>,
    view: Option<Arc<Member>>,
}

/// What has come of an input.
#[derive(Clone, Debug)]
pub(crate) enum Out {
    /// Something happened to a member.
    Event(EventKind, Arc<Member>),
    /// A member is to be shown otherwise, and nothing has happened to it.
    Change(Arc<Member>),
    /// Something happened to an island.
    Island(EventKind, Arc<Island>),
    /// A word advanced the table.
    Said { member: MemberId, what: What, bytes: Bytes, is_urgent: bool },
    /// Listed no more, because it cannot be reached.
    Withdrawn(MemberId),
    /// Listed no more, because there was no room for one of whom less had been brought.
    Displaced(MemberId),
    /// Listed no more, because its time is over.
    Forgotten(MemberId),
}

impl Far {
    /// Nothing is known yet. `seed`: of hashes, unknown to others. `instance`: random, for readers of
    /// [`records`](Self::records).
    pub(crate) fn new(own_island: String, seed: u64, instance: u64) -> Self {
        Self {
            own_island,
            table: Table::new(seed),
            members_max: MEMBERS_MAX,
            shares: Shares::new(seed),
            members: by_member(seed),
            waiting: BTreeMap::new(),
            unsettled: false,
            settled_to: None,
            doubted: BTreeSet::new(),
            islands: Islands::default(),
            routes: RouteWords::default(),
            changes: Changes::new(seed, instance),
            outs: VecDeque::new(),
        }
    }

    /// Takes no more members than so many.
    #[cfg(test)]
    pub(crate) fn hold(&mut self, members_max: usize) {
        self.members_max = members_max;
    }

    /// What has come of the last input, in order.
    pub(crate) fn poll(&mut self) -> Option<Out> {
        self.outs.pop_front()
    }

    /// Over all members that are listed and have not left, as that of our own island's table.
    pub(crate) fn digest(&self) -> u64 {
        self.table.digest()
    }

    /// Whether nobody is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The record of a member.
    pub(crate) fn record(&self, id: &MemberId) -> Option<(Stamp, &Arc<Record>)> {
        self.table.record(id).map(|said| (said.stamp, &said.value))
    }

    pub(crate) fn standing(&self, id: &MemberId) -> Option<Standing> {
        self.members.get(id).map(|member| member.standing)
    }

    /// Since when somebody is gone.
    pub(crate) fn gone_since(&self, id: &MemberId) -> Option<Instant> {
        self.table.get(id)?.gone
    }

    /// All who are listed.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.values().filter_map(|member| member.view.as_ref())
    }

    /// Whether a word with this header could change anything: asked before its signature is paid for.
    pub(crate) fn check_fresh(&self, header: &Header, bytes: &[u8]) -> Result<(), Refused> {
        self.table.check_fresh(header, bytes)
    }

    /// Takes in a word that `from` has brought: a record, a farewell, a pulse, or a certificate. After one or many of them
    /// the caller lets it [`settle`](Self::settle).
    ///
    /// # Errors
    /// Why it did not advance the table; `Full`: `from` has brought too many. A certificate may be kept nevertheless, for
    /// later.
    pub(crate) fn hear(&mut self, now: Instant, from: Bringer, heard: &FarWord) -> Result<(), Refused> {
        let outcome = self.hear_undated(now, from, heard);
        // Nobody is listed for longer than 10 minutes because it is heard of late. Who lies about that shortens what it
        // could have kept to itself.
        if let (Some(age), Some(id)) = (heard.gone, heard.subject()) {
            let since = now.checked_sub(age.min(GONE_LISTED)).unwrap_or(now);
            self.table.date_gone(&id, since);
        }
        outcome
    }

    fn hear_undated(&mut self, now: Instant, from: Bringer, heard: &FarWord) -> Result<(), Refused> {
        let (word, id) = (&heard.word, heard.word.header.author);
        match word.message.as_ref().ok_or(Refused::Version)? {
            Message::Announce(record) => {
                self.table.check_fresh(&word.header, &word.bytes)?;
                self.admit_island(now, &record.island, from)?;
                self.make_room(now, id, from, &record.island)?;
            }
            Message::Farewell(_) => {
                self.table.check_fresh(&word.header, &word.bytes)?;
                self.make_room(now, id, from, "")?;
            }
            // Nobody is made known by a pulse.
            Message::Beacon(_) | Message::Pong(_) => {}
            Message::Down(_) => return self.hear_certificate(now, heard),
            _ => return Err(Refused::Unasked),
        }
        self.merge(now, from, word)
    }

    /// Room for one more of this island that `from` has brought, if the word that is about to be merged makes somebody
    /// known. Of the share that has to give way the one that has been gone for longest goes, if nobody of another has been
    /// for longer, else the latest.
    ///
    /// # Errors
    /// `Full`: that would be the newcomer itself.
    fn make_room(&mut self, now: Instant, id: MemberId, from: Bringer, island: &str) -> Result<(), Refused> {
        if self.table.len() < self.members_max || self.table.get(&id).is_some() {
            return Ok(());
        }
        let own = Share { bringer: from, island: island.to_owned() };
        let fullest = self.shares.fullest(&own);
        if let Some(gone) = self.table.longest_gone().filter(|gone| self.shares.is_in(gone, &fullest)) {
            self.table.forget(&gone, now);
            self.unlist(gone, Out::Forgotten(gone));
            return Ok(());
        }
        let latest = if fullest == own { None } else { self.shares.latest(&fullest) };
        let latest = latest.ok_or(Refused::Full)?;
        // Without a floor: it may live, and come again.
        self.table.remove(&latest);
        self.unlist(latest, Out::Displaced(latest));
        Ok(())
    }

    fn merge(&mut self, now: Instant, from: Bringer, word: &Verified<Word>) -> Result<(), Refused> {
        let (id, stamp, bytes) = (word.header.author, word.header.stamp, word.bytes.clone());
        let advance = self.table.merge(word, Via::Told, now)?;
        self.changes.note(id);
        if advance != Advance::Pulse {
            let island = self.table.record(&id).map_or("", |said| &said.value.island);
            self.shares.place(id, from, island);
        }
        match advance {
            Advance::Joined | Advance::Record => self.has_news(now, id, bytes, advance == Advance::Joined),
            Advance::Pulse => {
                match self.has_beaten(now, id, stamp) {
                    Cleared::Down => {
                        self.table.set_down(&id, None, now);
                        self.publish(now, id, Some(EventKind::Back));
                    }
                    Cleared::Doubt => self.publish(now, id, None),
                    Cleared::Nothing => {}
                }
                self.say(id, What::Refuted, bytes, true);
            }
            Advance::Left => {
                self.acquit(now, id);
                self.waiting.remove(&id);
                if let Some(member) = self.members.get_mut(&id) {
                    member.standing = Standing::Left;
                    self.publish(now, id, Some(EventKind::Left));
                }
                self.say(id, What::Own, bytes, true);
            }
            // Of a life that is over: it may have to be shown, but no other island need be told.
            Advance::Past => {
                if self.table.get(&id).is_some_and(|entry| entry.record.is_some() && entry.has_left()) {
                    let is_listed = self.members.contains_key(&id);
                    self.members.get_or_insert_with(id, FarMember::new).standing = Standing::Left;
                    self.publish(now, id, (!is_listed).then_some(EventKind::Left));
                }
            }
        }
        self.unsettled |= !matches!(advance, Advance::Pulse | Advance::Past);
        Ok(())
    }

    /// A newer record.
    fn has_news(&mut self, now: Instant, id: MemberId, bytes: Bytes, joined: bool) {
        let record = self.record(&id).map(|(stamp, record)| (stamp, record.draining));
        let Some((stamp, draining)) = record else { return };
        let member = self.members.get_or_insert_with(id, FarMember::new);
        let was_draining = member.view.as_ref().is_some_and(|view| view.record.draining && !joined);
        let was_down = self.acquit(now, id) == Cleared::Down;
        // Votes are judged by one record alone; those that came before theirs have waited for it.
        if self.waiting.get(&id).is_some_and(|certificate| certificate.record < stamp) {
            self.waiting.remove(&id);
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.standing = Standing::Alive;
        }
        self.table.set_down(&id, None, now);
        let kind = match (joined, draining && !was_draining, was_down) {
            (true, ..) => EventKind::Joined,
            (false, true, _) => EventKind::Draining,
            (false, false, true) => EventKind::Back,
            (false, false, false) => EventKind::Updated,
        };
        self.publish(now, id, Some(kind));
        self.say(id, What::Own, bytes, draining);
    }

    fn say(&mut self, member: MemberId, what: What, bytes: Bytes, is_urgent: bool) {
        self.outs.push_back(Out::Said { member, what, bytes, is_urgent });
    }

    /// The link with the bridge `from` brought this member first.
    pub(crate) fn set_origin(&mut self, id: &MemberId, from: MemberId) {
        if let Some(member) = self.members.get_mut(id) {
            member.origin = Some(from);
        }
    }

    /// Somebody can be reached over a link no more, says the bridge `from` at its other end. That counts if it had brought
    /// that member, and if we have no other way or it is of that bridge's own island: nobody takes away what others gave.
    pub(crate) fn withdraw(&mut self, id: &MemberId, from: &MemberId) {
        let island = |id: &MemberId| self.record(id).map(|(_, record)| record.island.clone());
        let Some(theirs) = island(id) else { return };
        if self.members.get(id).is_some_and(|member| member.origin.is_some_and(|origin| origin != *from)) {
            return;
        }
        if !self.islands.is_reachable(&theirs) || island(from).is_some_and(|island| island == theirs) {
            self.table.remove(id);
            self.unlist(*id, Out::Withdrawn(*id));
        }
    }

    /// Takes out somebody of whom only the farewell is known: it is of our own island, or that knows it no more.
    pub(crate) fn forget_end(&mut self, id: &MemberId) {
        if self.table.get(id).is_some_and(|entry| entry.record.is_none()) {
            self.give_home(id);
        }
    }

    /// Takes out a member that is of our own island after all.
    pub(crate) fn give_home(&mut self, id: &MemberId) {
        self.table.remove(id);
        if self.shares.remove(id).is_some_and(|share| self.shares.is_empty(&share.island)) {
            self.islands.is_emptied();
        }
        self.changes.remove(id);
        self.waiting.remove(id);
        let Some(member) = self.members.swap_remove(id) else { return };
        if let Some(at) = member.doubted {
            self.doubted.remove(&(at, *id));
        }
        if let Some(view) = member.view {
            self.outs.push_back(Out::Event(EventKind::Forgotten, view));
        }
    }

    /// A member, which is in the table no more, is listed no more.
    fn unlist(&mut self, id: MemberId, why: Out) {
        self.give_home(&id);
        self.outs.push_back(why);
    }

    /// Drops who has been gone for long enough, and islands that could not be reached for long enough.
    pub(crate) fn forget_due(&mut self, now: Instant) {
        while let Some(id) = self.table.due(now) {
            self.table.forget(&id, now);
            self.unlist(id, Out::Forgotten(id));
        }
        // Without a floor: it may live, and come again over another link.
        while let Some((_, id)) = self.doubted.first().copied().filter(|(at, _)| now >= *at + GONE_LISTED) {
            self.table.remove(&id);
            self.unlist(id, Out::Withdrawn(id));
        }
        while let Some(island) = self.islands.due(now) {
            for id in self.members_of(&island) {
                self.table.remove(&id);
                self.unlist(id, Out::Withdrawn(id));
            }
            self.islands.remove(&island);
        }
        self.drop_empty_islands();
    }

    /// O(members) where an island cannot be reached, else O(islands).
    fn drop_empty_islands(&mut self) {
        let record = |id| self.table.get(id)?.record.as_ref();
        self.islands
            .drop_empty(self.members.keys().filter_map(record).map(|said| said.value.island.as_str()));
    }

    pub(crate) fn sweep(&mut self, now: Instant) {
        self.table.expire_floors(now);
        // Nobody is spared for ever.
        self.unsettled |= !self.waiting.is_empty();
    }

    /// The members of each of these islands, if there are any islands: O(members) in all.
    fn members_of_all<'a>(&self, islands: impl Iterator<Item = &'a str>) -> BTreeMap<String, Vec<MemberId>> {
        let mut found: BTreeMap<String, Vec<MemberId>> =
            islands.map(|island| (island.to_owned(), Vec::new())).collect();
        if !found.is_empty() {
            for id in self.members.keys() {
                let island = self.record(id).map(|(_, record)| &record.island);
                if let Some(members) = island.and_then(|island| found.get_mut(island)) {
                    members.push(*id);
                }
            }
        }
        found
    }

    fn members_of(&self, island: &str) -> Vec<MemberId> {
        self.members_of_all(std::iter::once(island)).remove(island).unwrap_or_default()
    }
}

/// Islands and ways.
impl Far {
    /// The other islands, if they have changed since this was last asked.
    pub(crate) fn take_islands(&mut self) -> Option<Arc<BTreeMap<String, Arc<Island>>>> {
        self.islands.take_changed()
    }

    /// Our own island is called so now.
    pub(crate) fn set_own_island(&mut self, now: Instant, name: &str) {
        let before = std::mem::replace(&mut self.own_island, name.to_owned());
        if before == name {
            return;
        }
        self.islands.remove(name);
        for island in [before.as_str(), name] {
            for id in self.members_of(island) {
                if island != name {
                    // There is room: one has just been taken out, or there is none for anybody.
                    let _ = self.admit_island(now, island, None);
                }
                self.publish(now, id, None);
            }
        }
    }

    /// Makes room for this island, of which `from` has brought a member. O(log n) where it is known, or `from` was refused
    /// one since anything changed; else O(islands), and O(members) if one makes room.
    fn admit_island(&mut self, now: Instant, name: &str, from: Bringer) -> Result<(), Refused> {
        if name == self.own_island {
            return Ok(());
        }
        let shares = &self.shares;
        let displaced = self.islands.admit(now, name, from, |island| shares.is_empty(island))?;
        self.displace_islands(now, displaced);
        Ok(())
    }

    /// Chooses the ways anew: these bridges of our own island are there. O(ways), and O(members) if islands can be reached
    /// again or make room.
    pub(crate) fn choose(&mut self, now: Instant, bridges: &[MemberId]) {
        let shares = &self.shares;
        let is_empty = |island: &str| shares.is_empty(island);
        let chosen = self.islands.choose(now, &self.own_island, bridges, &self.routes, is_empty);
        self.displace_islands(now, chosen.displaced);
        self.tell_islands(now, chosen.told);
    }

    /// Those are known no more, nor their members: there was no room.
    fn displace_islands(&mut self, now: Instant, displaced: Vec<Arc<Island>>) {
        let mut members = self.members_of_all(displaced.iter().map(|island| island.name.as_str()));
        for island in displaced {
            for id in members.remove(&island.name).unwrap_or_default() {
                // Without a floor: it may live, and come again.
                self.table.remove(&id);
                self.unlist(id, Out::Displaced(id));
            }
            if island.reachable {
                let Island { name, load, .. } = &*island;
                let (name, load) = (name.clone(), *load);
                let gone = Island { name, reachable: false, since: now, load, ways: Vec::new() };
                self.outs.push_back(Out::Island(EventKind::IslandDown, Arc::new(gone)));
            }
        }
    }

    /// Whether to [`choose`](Self::choose) anew, because there is room for islands that were left out.
    pub(crate) fn has_room_for_islands(&self) -> bool {
        self.islands.has_room_again()
    }

    /// How often there was no room for an island that was known, or that a way leads to.
    pub(crate) fn islands_left_out(&self) -> u64 {
        self.islands.left_out_total()
    }

    /// Gives up islands whose last way has been gone for long enough.
    pub(crate) fn give_up(&mut self, now: Instant) {
        let told = self.islands.give_up(now);
        self.tell_islands(now, told);
    }

    /// When [`give_up`](Self::give_up) has something to do.
    pub(crate) fn doubted_until(&self) -> Option<Instant> {
        self.islands.doubted_until()
    }

    fn tell_islands(&mut self, now: Instant, told: Vec<(EventKind, Arc<Island>)>) {
        let mut members = self.members_of_all(told.iter().map(|(_, island)| island.name.as_str()));
        for (kind, island) in told {
            for id in members.remove(&island.name).unwrap_or_default() {
                self.publish(now, id, None);
            }
            self.outs.push_back(Out::Island(kind, island));
        }
    }
}

/// For others.
impl Far {
    /// By whose counting [`records`](Self::records) is, and how far it goes.
    pub(crate) fn head(&self) -> (u64, u64) {
        (self.changes.instance(), self.changes.head())
    }

    /// The words of the members that changed after `since`, by the counting of `instance`, as one body. Everything if that
    /// is not ours. What does not fit is left for the next request.
    pub(crate) fn records(&self, now: Instant, instance: u64, since: u64) -> Bytes {
        let since = if instance == self.changes.instance() { since } else { 0 };
        let mut filling = Filling::new();
        let mut through = since;
        for (index, id) in self.changes.after(since) {
            let gone = self.table.get(&id).and_then(|entry| entry.gone);
            let gone = gone.map(|since| now.saturating_duration_since(since));
            if !filling.push_all(id, self.words_of(&id), gone) {
                return filling.encode(self.changes.instance(), through);
            }
            through = index;
        }
        filling.encode(self.changes.instance(), self.changes.head())
    }

    /// All that others need to come to the same view of a member, in the order in which it is to be heard.
    fn words_of(&self, id: &MemberId) -> Vec<Bytes> {
        let Some(entry) = self.table.get(id) else { return Vec::new() };
        let record = entry.record.as_ref().map(|said| said.bytes.clone());
        let end = entry.end.as_ref().map(|said| said.bytes.clone());
        if entry.has_left() {
            return record.into_iter().chain(end).collect();
        }
        let pulse = entry.pulse.as_ref().map(|said| said.bytes.clone());
        let verdict = self.certificate_on(id).map(|certificate| certificate.bytes.clone());
        end.into_iter().chain(record).chain(verdict).chain(pulse).collect()
    }
}

/// Members as others see them.
impl Far {
    /// Makes the view of a member anew, and tells of it: as an event, or as a quiet change if it is one.
    fn publish(&mut self, now: Instant, id: MemberId, kind: Option<EventKind>) {
        let Some(view) = self.view(now, &id) else { return };
        let view = Arc::new(view);
        if let Some(member) = self.members.get_mut(&id) {
            member.view = Some(view.clone());
        }
        self.outs.push_back(match kind {
            Some(kind) => Out::Event(kind, view),
            None => Out::Change(view),
        });
    }

    fn view(&self, now: Instant, id: &MemberId) -> Option<Member> {
        let entry = self.table.get(id)?;
        let member = self.members.get(id)?;
        let said = entry.record.as_ref()?;
        let is_same_name = said.value.island == self.own_island;
        let reachable = !is_same_name && self.islands.is_reachable(&said.value.island);
        let standing = member.standing;
        let reason = match standing {
            Standing::Left => Some(Reason::Farewell),
            Standing::Down => member.verdict.or(Some(Reason::NoAnswer)),
            _ if is_same_name => Some(Reason::SameNameOrSplit),
            _ if !reachable => Some(Reason::IslandUnreachable),
            _ if member.doubted.is_some() => Some(Reason::Unilateral),
            _ if entry.duplicate => Some(Reason::DuplicateKey),
            _ if said.value.draining => Some(Reason::Draining),
            _ => None,
        };
        let since = member.view.as_ref().filter(|old| old.standing == standing && old.reason == reason);
        Some(Member {
            id: *id,
            stamp: said.stamp,
            record: said.value.clone(),
            record_bytes: said.bytes.clone(),
            standing,
            proven: false,
            reachable: reachable && !standing.is_gone() && member.doubted.is_none(),
            reason,
            since: since.map_or(now, |old| old.since),
            heard: None,
            load: Load::default(),
            http_addresses: Vec::new(),
            is_self: false,
            far: true,
        })
    }
}

impl FarMember {
    fn new() -> Self {
        Self {
            standing: Standing::Alive,
            verdict: None,
            certificate: None,
            doubted: None,
            spared: None,
            origin: None,
            view: None,
        }
    }
}
