//! What is known of every member, and which word counts.
//!
//! Three slots a member (record, pulse, end), each holding the newest word seen; only the member itself can
//! author them. So merging two tables is a join: in any order, any number of times, with the same result. There
//! is no clock in here: `now` only dates members that are gone. Who is silent is not decided here; *left* is,
//! because it follows from the words alone.
//!
//! Source: NETWORK.md, "Precedence" and "Caps and floors".

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::by_member::{ByMember, by_member};
use crate::member::{LeaveReason, Load, MemberId, Record, Stamp};
use crate::table::floors::{Floor, Floors};
use crate::table::room::Room;
use crate::verify::{Refused, Verified, Word, digest_of};
use crate::wire::{Beacon, Header, Message, kind};

mod floors;
mod room;

pub use floors::{DOUBTED_FLOORS_MAX, FLOOR_KEPT, FLOORS_MAX};
pub use room::{UNPROVEN_MAX, UNPROVEN_PER_SOURCE_MAX};

/// Most members listed: about 20 MB with their words. Required by DESIGN, section 5.
pub const MEMBERS_MAX: usize = 20_000;

/// How long a member that is gone stays listed. Required by DESIGN, section 3.
pub const GONE_LISTED: Duration = Duration::from_secs(600);

/// A word in its slot.
#[derive(Clone, Debug)]
pub struct Said<T> {
    /// When, by its author's counting.
    pub stamp: Stamp,
    /// The whole datagram.
    pub bytes: Bytes,
    /// What it says.
    pub value: T,
}

/// How a word reached us, for the caps on members that we have not proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// In a datagram from this address.
    Ears(IpAddr),
    /// In another member's transfer.
    Told,
}

/// All that is known of one member.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its newest ANNOUNCE. Without one the member is not listed, only remembered.
    pub record: Option<Said<Arc<Record>>>,
    /// Its newest BEACON or PONG.
    pub pulse: Option<Said<Beacon>>,
    /// Its newest FAREWELL.
    pub end: Option<Said<LeaveReason>>,
    /// Heard directly: see [`Table::prove`].
    pub proven: bool,
    /// Two different words with one stamp were seen.
    pub duplicate: bool,
    /// Since when it has left, been called down, or been known by its farewell alone.
    pub gone: Option<Instant>,
    /// Called down by the state machine.
    down: bool,
    /// Nobody can say whether it is.
    doubted: bool,
    /// What its record adds to the digest while it has not left.
    share: u64,
    via: Via,
    /// Counts insertions: the greatest came last.
    order: u64,
}

impl Entry {
    fn new(via: Via, order: u64) -> Self {
        Self {
            record: None,
            pulse: None,
            end: None,
            proven: false,
            duplicate: false,
            gone: None,
            down: false,
            doubted: false,
            share: 0,
            via,
            order,
        }
    }

    /// Whether its own farewell ended the epoch of its record, or all that is known of it.
    #[must_use]
    pub fn has_left(&self) -> bool {
        let Some(end) = &self.end else { return false };
        self.record.as_ref().is_none_or(|record| record.stamp.epoch <= end.stamp.epoch)
    }

    /// How busy it last said it is.
    #[must_use]
    pub fn load(&self) -> Load {
        self.pulse.as_ref().map(|said| said.value.load).unwrap_or_default()
    }

    /// What stays of it when it is listed no more: its farewell if that is its end, else its newest word.
    fn floor(&self, since: Instant) -> Option<Floor> {
        if self.has_left() {
            let end = self.end.as_ref()?;
            return Some(Floor::ended(end.stamp.epoch, end.bytes.clone(), since));
        }
        let record = self.record.as_ref().map(|said| (said.stamp, &said.bytes));
        let pulse = self.pulse.as_ref().map(|said| (said.stamp, &said.bytes));
        let (stamp, bytes) = [record, pulse].into_iter().flatten().max_by_key(|(stamp, _)| *stamp)?;
        Some(Floor { stamp, bytes: bytes.clone(), since })
    }

    fn is_gone(&self) -> bool {
        self.down || self.record.is_none() || self.has_left()
    }

    /// What it adds to the digest now.
    fn counted(&self) -> u64 {
        match (self.has_left() || self.record.is_none(), self.down, self.doubted) {
            (true, ..) => 0,
            (false, true, _) => digest_of_down(self.share),
            (false, false, true) => digest_of_down(digest_of_down(self.share)),
            (false, false, false) => self.share,
        }
    }
}

/// What a word changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advance {
    /// First record of this member, or its first in a life after the one it left.
    Joined,
    /// A newer record.
    Record,
    /// A newer pulse.
    Pulse,
    /// Its farewell: it has left.
    Left,
    /// A newer word of a life that is over, or a farewell of an earlier life: nothing is different now.
    Past,
}

/// The table of one node, its own entry included. Holds at most [`MEMBERS_MAX`] entries and [`FLOORS_MAX`] floors.
#[derive(Debug)]
pub struct Table {
    entries: ByMember<Entry>,
    /// Of members once proven: handed on with the table.
    floors: Floors,
    /// Of members never proven: only so that two nodes do not tell each other of them for ever.
    doubted: Floors,
    gone_by_age: BTreeSet<(Instant, MemberId)>,
    room: Room,
    evicted: VecDeque<(MemberId, Entry)>,
    inserted: u64,
    digest: u64,
}

impl Table {
    /// An empty one. `seed`: of its hashes, unknown to others.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            entries: by_member(seed),
            floors: Floors::proven(),
            doubted: Floors::doubted(),
            gone_by_age: BTreeSet::new(),
            room: Room::new(seed),
            evicted: VecDeque::new(),
            inserted: 0,
            digest: 0,
        }
    }

    /// One member.
    #[must_use]
    pub fn get(&self, id: &MemberId) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// Looks at what a pulse of this member changes, so that it comes from memory early.
    pub(crate) fn touch(&self, id: &MemberId) -> bool {
        let entry = self.entries.get(id);
        entry.is_some_and(|entry| {
            entry.record.is_some() ^ entry.pulse.is_some() ^ entry.end.is_some() ^ entry.gone.is_some()
        })
    }

    /// Its newest ANNOUNCE, if it is known by more than its farewell.
    #[must_use]
    pub fn record(&self, id: &MemberId) -> Option<&Said<Arc<Record>>> {
        self.get(id)?.record.as_ref()
    }

    /// All members, in no order that means something; also those of which only the farewell is known.
    pub fn iter(&self) -> impl Iterator<Item = (&MemberId, &Entry)> {
        self.entries.iter()
    }

    /// Whether a floor of this member is kept.
    #[must_use]
    pub fn remembers(&self, id: &MemberId) -> bool {
        self.floors.contains(id) || self.doubted.contains(id)
    }

    /// How many entries there are, listed or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether this member is there and proven.
    #[must_use]
    pub fn is_proven(&self, id: &MemberId) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.proven)
    }

    /// How many of them are proven.
    #[must_use]
    pub fn proven(&self) -> usize {
        self.entries.len().saturating_sub(self.room.taken())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sum over all members that are listed and have not left. Source: NETWORK.md, "The digest of a table".
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether a word with this header could change anything: asked before its signature is paid for. O(log n).
    ///
    /// # Errors
    /// `Stale`.
    pub fn check_fresh(&self, header: &Header, bytes: &[u8]) -> Result<(), Refused> {
        if self.floors.blocks(header) || self.doubted.blocks(header) {
            return Err(Refused::Stale);
        }
        let Some(entry) = self.entries.get(&header.author) else { return Ok(()) };
        let held = match header.kind {
            kind::ANNOUNCE => entry.record.as_ref().map(|said| (said.stamp, &said.bytes)),
            kind::BEACON | kind::PONG => entry.pulse.as_ref().map(|said| (said.stamp, &said.bytes)),
            kind::FAREWELL => entry.end.as_ref().map(|said| (said.stamp, &said.bytes)),
            _ => None,
        };
        match held {
            // The same stamp on other bytes is for `merge` to judge.
            Some((stamp, held)) if header.stamp < stamp || header.stamp == stamp && held == bytes => {
                Err(Refused::Stale)
            }
            _ => Ok(()),
        }
    }

    /// Takes a word into its slot if it is newer than what the slot holds; of two different words with one stamp
    /// the one with the greater hash stays, at everybody.
    ///
    /// While there is room, and for members that are known, this is commutative, associative and idempotent. O(log n).
    ///
    /// # Errors
    /// `Stale`: not newer. `Full`: no room for one more member. `Unasked`: a pulse of somebody unknown, or not a word
    /// of any slot. `Version`: of a kind that we do not know. The slots are as they were.
    ///
    /// Source: NETWORK.md, "Precedence".
    pub fn merge(&mut self, word: &Verified<Word>, via: Via, now: Instant) -> Result<Advance, Refused> {
        self.check_fresh(&word.header, &word.bytes)?;
        let id = word.header.author;
        let message = word.message.as_ref().ok_or(Refused::Version)?;
        if !matches!(word.header.kind, kind::ANNOUNCE | kind::BEACON | kind::PONG | kind::FAREWELL) {
            return Err(Refused::Unasked);
        }
        if matches!(word.header.kind, kind::BEACON | kind::PONG) && !self.entries.contains_key(&id) {
            // A pulse does not say who speaks, so it is not worth a place; but whoever was taken for gone lives.
            self.floors.lower(&id, word.header.stamp.epoch);
            self.doubted.lower(&id, word.header.stamp.epoch);
            return Err(Refused::Unasked);
        }
        self.insert(id, via, now)?;
        let entry = self.entries.get_mut(&id).expect("inserted above");
        let (counted, had_left) = (entry.counted(), entry.has_left());
        let (stamp, bytes) = (word.header.stamp, word.bytes.clone());
        let advance = match message {
            Message::Announce(record) => {
                let first = entry.record.is_none();
                let value = record.clone();
                put(&mut entry.record, &mut entry.duplicate, Said { stamp, bytes, value })?;
                entry.share = word.share;
                match (entry.has_left(), first || had_left) {
                    (true, _) => Advance::Past,
                    (false, true) => Advance::Joined,
                    (false, false) => Advance::Record,
                }
            }
            Message::Beacon(beacon) => {
                put(&mut entry.pulse, &mut entry.duplicate, Said { stamp, bytes, value: *beacon })?;
                if had_left { Advance::Past } else { Advance::Pulse }
            }
            Message::Pong(pong) => {
                put(&mut entry.pulse, &mut entry.duplicate, Said { stamp, bytes, value: pong.beacon })?;
                if had_left { Advance::Past } else { Advance::Pulse }
            }
            Message::Farewell(farewell) => {
                put(&mut entry.end, &mut entry.duplicate, Said { stamp, bytes, value: farewell.reason })?;
                if entry.has_left() && !had_left { Advance::Left } else { Advance::Past }
            }
            _ => return Err(Refused::Unasked),
        };
        if advance == Advance::Joined {
            // A new life: what was said of the old one does not hold.
            (entry.down, entry.doubted) = (false, false);
        }
        self.digest = self.digest.wrapping_sub(counted).wrapping_add(entry.counted());
        self.restate(id, now);
        if advance != Advance::Pulse {
            // Floors and entries exclude each other, and a pulse makes no entry.
            self.floors.lift(&id);
            self.doubted.lift(&id);
        }
        Ok(advance)
    }

    /// Marks a member as heard directly: two beacons in order, a pong to our nonce, or an endpoint proof.
    /// Returns whether that is news.
    pub fn prove(&mut self, id: &MemberId) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return false };
        if entry.proven {
            return false;
        }
        entry.proven = true;
        self.room.release(entry.via, entry.order);
        true
    }

    /// Notes that a member is called down since then (`Some`), or that it is not (`None`). Nothing changes for one
    /// that has left or has no record.
    pub fn set_down(&mut self, id: &MemberId, since: Option<Instant>, now: Instant) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let counted = entry.counted();
        (entry.down, entry.doubted) = (since.is_some(), false);
        self.digest = self.digest.wrapping_sub(counted).wrapping_add(entry.counted());
        self.restate(*id, now);
        if let Some(since) = since {
            self.date_gone(id, since);
        }
    }

    /// Notes whether nobody can say what became of a member that is not down: others are to find that out, so it counts in
    /// the digest.
    pub fn set_doubted(&mut self, id: &MemberId, is_doubted: bool) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let counted = entry.counted();
        entry.doubted = is_doubted;
        self.digest = self.digest.wrapping_sub(counted).wrapping_add(entry.counted());
    }

    /// Dates back since when a member is gone: whoever told us knew it for longer than we do.
    pub fn date_gone(&mut self, id: &MemberId, since: Instant) {
        if let Some(entry) = self.entries.get_mut(id)
            && let Some(old) = entry.gone
            && since < old
        {
            entry.gone = Some(since);
            self.gone_by_age.remove(&(old, *id));
            self.gone_by_age.insert((since, *id));
        }
    }

    /// The member that has been gone for longest.
    pub(crate) fn longest_gone(&self) -> Option<MemberId> {
        self.gone_by_age.first().map(|(_, id)| *id)
    }

    /// The member that has been gone for longest, if that is [`GONE_LISTED`] or more.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<MemberId> {
        self.gone_by_age.first().filter(|(since, _)| now >= *since + GONE_LISTED).map(|(_, id)| *id)
    }

    /// Drops a member; its floor stays. Of one that others told us of, as that of a table: never in place of one of ours.
    pub fn forget(&mut self, id: &MemberId, now: Instant) -> Option<Entry> {
        let entry = self.remove(id)?;
        if let Some(floor) = entry.floor(entry.gone.unwrap_or(now)) {
            match (entry.proven, entry.via) {
                (true, _) => self.floors.put(*id, floor),
                (false, Via::Told) => self.floors.put_if_room(*id, floor),
                (false, Via::Ears(_)) => self.doubted.put(*id, floor),
            }
        }
        Some(entry)
    }

    /// Drops a member as if it had never been heard of: it belongs elsewhere.
    pub fn remove(&mut self, id: &MemberId) -> Option<Entry> {
        let entry = self.entries.swap_remove(id)?;
        self.digest = self.digest.wrapping_sub(entry.counted());
        if let Some(since) = entry.gone {
            self.gone_by_age.remove(&(since, *id));
        }
        if !entry.proven {
            self.room.release(entry.via, entry.order);
        }
        Some(entry)
    }

    /// A member that was dropped to make room for another, if there is one.
    pub fn pop_evicted(&mut self) -> Option<(MemberId, Entry)> {
        self.evicted.pop_front()
    }

    /// Takes over the floor that another member keeps of somebody whom we do not list. It never drives out one of ours.
    pub fn merge_floor(&mut self, word: &Verified<Word>, age: Duration, now: Instant) {
        let header = &word.header;
        let since = now.checked_sub(age).unwrap_or(now);
        if let Some(entry) = self.entries.get(&header.author) {
            if entry.down && entry.floor(since).is_none_or(|ours| ours.stamp <= header.stamp) {
                // Both of us know that it is gone, the other for longer.
                self.date_gone(&header.author, since);
            }
            return;
        }
        if age >= FLOOR_KEPT {
            return;
        }
        let floor = if header.kind == kind::FAREWELL {
            Floor::ended(header.stamp.epoch, word.bytes.clone(), since)
        } else {
            Floor { stamp: header.stamp, bytes: word.bytes.clone(), since }
        };
        self.floors.put_if_room(header.author, floor);
    }

    /// The floors to hand on, with the time since their members went.
    pub fn floors(&self, now: Instant) -> impl Iterator<Item = (&Bytes, Duration)> {
        self.floors.iter(now)
    }

    /// How many floors are kept, those of members never proven included.
    #[must_use]
    pub fn floors_len(&self) -> usize {
        self.floors.len() + self.doubted.len()
    }

    /// Drops the floors whose time is over.
    pub fn expire_floors(&mut self, now: Instant) {
        self.floors.expire(now);
        self.doubted.expire(now);
    }

    fn insert(&mut self, id: MemberId, via: Via, now: Instant) -> Result<(), Refused> {
        if self.entries.contains_key(&id) {
            return Ok(());
        }
        if let Some(stranger) = self.room.in_the_way(via)
            && let Some(entry) = self.remove(&stranger)
        {
            self.evicted.push_back((stranger, entry));
        }
        if self.entries.len() >= MEMBERS_MAX {
            self.evict(via, now)?;
        }
        self.inserted += 1;
        self.room.take(id, via, self.inserted);
        self.entries.insert(id, Entry::new(via, self.inserted));
        Ok(())
    }

    /// Makes room: whoever is gone longest goes first, then whoever we only were told of, the latest first. A
    /// proven member never goes, and hearsay drives out nobody who is there.
    fn evict(&mut self, via: Via, now: Instant) -> Result<(), Refused> {
        let gone = self.longest_gone();
        let told = || if via == Via::Told { None } else { self.room.latest_told() };
        let id = gone.or_else(told).ok_or(Refused::Full)?;
        if let Some(entry) = self.forget(&id, now) {
            self.evicted.push_back((id, entry));
        }
        Ok(())
    }

    /// Brings dates in line after a change of one entry.
    fn restate(&mut self, id: MemberId, now: Instant) {
        let entry = self.entries.get_mut(&id).expect("the caller has just changed it");
        let gone = entry.is_gone();
        match (entry.gone, gone) {
            (None, true) => {
                entry.gone = Some(now);
                self.gone_by_age.insert((now, id));
            }
            (Some(since), false) => {
                entry.gone = None;
                self.gone_by_age.remove(&(since, id));
            }
            _ => {}
        }
    }
}

/// What a member adds that is down: told apart from what it adds while it is not.
#[must_use]
pub fn digest_of_down(share: u64) -> u64 {
    digest_of(&share.to_le_bytes())
}

fn put<T>(slot: &mut Option<Said<T>>, duplicate: &mut bool, said: Said<T>) -> Result<(), Refused> {
    if let Some(held) = slot {
        if said.stamp < held.stamp || said.stamp == held.stamp && said.bytes == held.bytes {
            return Err(Refused::Stale);
        }
        if said.stamp == held.stamp {
            *duplicate = true;
            if blake3::hash(&said.bytes).as_bytes() < blake3::hash(&held.bytes).as_bytes() {
                return Err(Refused::Stale);
            }
        }
    }
    *slot = Some(said);
    Ok(())
}

#[cfg(test)]
mod tests;
