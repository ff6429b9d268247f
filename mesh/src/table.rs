//! What is known of every member, and which word counts: three slots a member, newest word wins.
//!
//! Merging is a join: any order, any number of times, same result. Only a member itself can author its slots. No
//! clock of its own: `now` only dates tombstones. Standing (who is silent) is not decided here but for *left*, which
//! follows from the words alone.
//!
//! Source: NETWORK.md, "Precedence", "Caps and floors".

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::member::{LeaveReason, Load, MemberId, Record, Stamp};
use crate::verify::{Refused, Verified, Word};
use crate::wire::{Beacon, Header, Message, kind};

/// Most members listed. Required by DESIGN; 20,000 records are about 10 MB.
pub const MEMBERS_MAX: usize = 20_000;
/// Most members never heard by ourselves.
pub const UNPROVEN_MAX: usize = 1024;
/// Of these, most that one source address may bring (loopback exempt).
pub const UNPROVEN_PER_SOURCE_MAX: usize = 64;
/// Most floors.
pub const FLOORS_MAX: usize = 65_536;
/// How long a gone member stays listed.
pub const GONE_LISTED: Duration = Duration::from_secs(600);
/// How long a floor is kept.
pub const FLOOR_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// A word in its slot.
#[derive(Clone, Debug)]
pub struct Said<T> {
    /// When, by its author's counting.
    pub stamp: Stamp,
    /// The datagram it came in.
    pub bytes: Bytes,
    /// What it says.
    pub value: T,
}

/// All that is known of one member.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Its newest ANNOUNCE.
    pub record: Option<Said<Arc<Record>>>,
    /// Its newest BEACON or PONG.
    pub pulse: Option<Said<Beacon>>,
    /// Its newest FAREWELL.
    pub end: Option<Said<LeaveReason>>,
    /// Heard directly: see [`Table::prove`].
    pub proven: bool,
    /// Two different words with one stamp were seen.
    pub duplicate: bool,
    /// Who brought it, while unproven.
    source: Option<IpAddr>,
    /// Since when it is left or called down.
    gone: Option<Instant>,
}

impl Entry {
    /// Whether its own farewell ended the epoch of its record.
    #[must_use]
    pub fn has_left(&self) -> bool {
        let record = self.record.as_ref().map(|said| said.stamp.epoch);
        self.end.as_ref().is_some_and(|end| record.is_none_or(|record| end.stamp.epoch >= record))
    }

    /// How busy it last said it is.
    #[must_use]
    pub fn load(&self) -> Load {
        self.pulse.as_ref().map(|said| said.value.load).unwrap_or_default()
    }

    /// Its newest word of any slot.
    #[must_use]
    pub fn newest(&self) -> Option<(Stamp, &Bytes)> {
        let record = self.record.as_ref().map(|said| (said.stamp, &said.bytes));
        let pulse = self.pulse.as_ref().map(|said| (said.stamp, &said.bytes));
        let end = self.end.as_ref().map(|said| (said.stamp, &said.bytes));
        [record, pulse, end].into_iter().flatten().max_by_key(|(stamp, _)| *stamp)
    }
}

#[derive(Clone, Debug)]
struct Floor {
    stamp: Stamp,
    bytes: Bytes,
    since: Instant,
}

/// What a word changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advance {
    /// First record of this member, or its first after it had left.
    Joined,
    /// A newer record.
    Record,
    /// A newer pulse.
    Pulse,
    /// Its farewell.
    Left,
}

/// The table of one node. Holds at most `MEMBERS_MAX` entries and `FLOORS_MAX` floors.
#[derive(Debug, Default)]
pub struct Table {
    entries: BTreeMap<MemberId, Entry>,
    floors: BTreeMap<MemberId, Floor>,
    floors_by_age: BTreeSet<(Instant, MemberId)>,
    unproven: BTreeMap<IpAddr, usize>,
    unproven_total: usize,
    digest: u64,
}

impl Table {
    /// One member.
    #[must_use]
    pub fn get(&self, id: &MemberId) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// All members, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&MemberId, &Entry)> {
        self.entries.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sum over members that have a record and have not left; NETWORK.md section 7.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether a word with this header could change anything: to be asked before its signature is paid for.
    ///
    /// # Errors
    /// `Stale`.
    pub fn check_fresh(&self, header: &Header) -> Result<(), Refused> {
        let stamp = header.stamp;
        if self.floors.get(&header.author).is_some_and(|floor| stamp <= floor.stamp) {
            return Err(Refused::Stale);
        }
        let Some(entry) = self.entries.get(&header.author) else { return Ok(()) };
        if entry.end.as_ref().is_some_and(|end| stamp.epoch < end.stamp.epoch)
            || (header.kind != kind::FAREWELL
                && entry.end.as_ref().is_some_and(|end| stamp.epoch == end.stamp.epoch))
        {
            return Err(Refused::Stale);
        }
        let held = match header.kind {
            kind::ANNOUNCE => entry.record.as_ref().map(|said| said.stamp),
            kind::BEACON | kind::PONG => entry.pulse.as_ref().map(|said| said.stamp),
            kind::FAREWELL => entry.end.as_ref().map(|said| said.stamp),
            _ => None,
        };
        // An equal stamp may be other bytes: that is for `accept` to see.
        if held.is_some_and(|held| stamp < held) { Err(Refused::Stale) } else { Ok(()) }
    }

    /// Whether exactly this word is in one of its author's slots: one more copy of it, by another path.
    #[must_use]
    pub fn holds(&self, author: &MemberId, bytes: &[u8]) -> bool {
        let Some(entry) = self.entries.get(author) else { return false };
        entry.record.as_ref().is_some_and(|said| said.bytes == bytes)
            || entry.pulse.as_ref().is_some_and(|said| said.bytes == bytes)
            || entry.end.as_ref().is_some_and(|said| said.bytes == bytes)
    }

    /// Merges a word into its slot. `source` is who brought it, for the caps on members never heard by ourselves.
    ///
    /// # Errors
    /// `Stale`: it is no news. `Full`: no room for one more member. `Unasked`: not a word of any slot. The table is as it was.
    pub fn accept(
        &mut self,
        word: &Verified<Word>,
        source: Option<IpAddr>,
        now: Instant,
    ) -> Result<Advance, Refused> {
        self.check_fresh(&word.header)?;
        let id = word.header.author;
        let message = word.message.as_ref().ok_or(Refused::Version)?;
        if !matches!(
            message,
            Message::Announce(_) | Message::Beacon(_) | Message::Pong(_) | Message::Farewell(_)
        ) {
            return Err(Refused::Unasked);
        }
        if !self.entries.contains_key(&id) {
            // A pulse says nothing of who speaks; without a record it is not worth a place.
            if matches!(message, Message::Beacon(_) | Message::Pong(_)) {
                return Err(Refused::Unasked);
            }
            self.make_room(source)?;
            self.count_unproven(source, 1);
            self.entries.insert(id, Entry { source, ..Entry::default() });
        }
        let before = self.share_of_digest(&id);
        let entry = self.entries.get_mut(&id).expect("inserted above");
        let said = |bytes: &Bytes| (word.header.stamp, bytes.clone());
        let (stamp, bytes) = said(&word.bytes);
        let was_left = entry.has_left();
        let had_record = entry.record.is_some();
        let advance = match message {
            Message::Announce(record) => {
                put(
                    &mut entry.record,
                    &mut entry.duplicate,
                    Said { stamp, bytes, value: Arc::new(record.clone()) },
                )?;
                if !had_record || was_left { Advance::Joined } else { Advance::Record }
            }
            Message::Beacon(beacon) => {
                put(&mut entry.pulse, &mut entry.duplicate, Said { stamp, bytes, value: *beacon })?;
                Advance::Pulse
            }
            Message::Pong(pong) => {
                put(&mut entry.pulse, &mut entry.duplicate, Said { stamp, bytes, value: pong.beacon })?;
                Advance::Pulse
            }
            Message::Farewell(farewell) => {
                put(&mut entry.end, &mut entry.duplicate, Said { stamp, bytes, value: farewell.reason })?;
                Advance::Left
            }
            _ => return Err(Refused::Unasked),
        };
        if entry.has_left() {
            entry.gone.get_or_insert(now);
        } else if was_left {
            entry.gone = None;
        }
        self.change_digest(&id, before);
        Ok(advance)
    }

    /// Marks a member as heard by ourselves. Returns whether that is news.
    pub fn prove(&mut self, id: &MemberId) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return false };
        if std::mem::replace(&mut entry.proven, true) {
            return false;
        }
        let source = entry.source.take();
        self.count_unproven(source, -1);
        true
    }

    /// Notes since when a member is called down (`Some`), or that it is not (`None`). A left member's date stays.
    pub fn set_down(&mut self, id: &MemberId, since: Option<Instant>) {
        if let Some(entry) = self.entries.get_mut(id)
            && !entry.has_left()
        {
            entry.gone = since;
        }
    }

    /// When this member is to be forgotten, if it is gone.
    #[must_use]
    pub fn forget_at(&self, id: &MemberId) -> Option<Instant> {
        Some(self.entries.get(id)?.gone? + GONE_LISTED)
    }

    /// Dates a member's going back: whoever told us knew it for longer than we do.
    pub fn gone_for(&mut self, id: &MemberId, age: Duration, now: Instant) {
        if let Some(entry) = self.entries.get_mut(id)
            && entry.gone.is_some()
            && let Some(since) = now.checked_sub(age.min(GONE_LISTED))
        {
            entry.gone = entry.gone.min(Some(since));
        }
    }

    /// Drops a member; of a proven one a floor stays.
    pub fn forget(&mut self, id: &MemberId, now: Instant) -> Option<Entry> {
        let before = self.share_of_digest(id);
        let entry = self.entries.remove(id)?;
        self.digest = self.digest.wrapping_sub(before);
        if entry.proven {
            if let Some((stamp, bytes)) = entry.newest() {
                self.set_floor(*id, stamp, bytes.clone(), now);
            }
        } else {
            self.count_unproven(entry.source, -1);
        }
        Some(entry)
    }

    /// Takes over a floor that another member keeps: its own signed word, since when.
    pub fn accept_floor(&mut self, word: &Verified<Word>, age: Duration, now: Instant) {
        let id = word.header.author;
        let stamp = word.header.stamp;
        let known =
            self.entries.contains_key(&id) || self.floors.get(&id).is_some_and(|floor| floor.stamp >= stamp);
        if !known && age < FLOOR_KEPT {
            self.set_floor(id, stamp, word.bytes.clone(), now.checked_sub(age).unwrap_or(now));
        }
    }

    /// Floors with the time since their member went.
    pub fn floors(&self, now: Instant) -> impl Iterator<Item = (&Bytes, Duration)> {
        self.floors.values().map(move |floor| (&floor.bytes, now.saturating_duration_since(floor.since)))
    }

    fn set_floor(&mut self, id: MemberId, stamp: Stamp, bytes: Bytes, since: Instant) {
        if let Some(old) = self.floors.insert(id, Floor { stamp, bytes, since }) {
            self.floors_by_age.remove(&(old.since, id));
        }
        self.floors_by_age.insert((since, id));
        while self.floors.len() > FLOORS_MAX {
            let Some((_, oldest)) = self.floors_by_age.pop_first() else { break };
            self.floors.remove(&oldest);
        }
    }

    /// Drops floors older than their time.
    pub fn expire_floors(&mut self, now: Instant) {
        while let Some((since, id)) = self.floors_by_age.first().copied() {
            if now.saturating_duration_since(since) < FLOOR_KEPT {
                break;
            }
            self.floors_by_age.pop_first();
            self.floors.remove(&id);
        }
    }

    /// Whether one more unproven member may come from `source`.
    fn make_room(&mut self, source: Option<IpAddr>) -> Result<(), Refused> {
        let from_there = source.and_then(|ip| self.unproven.get(&ip)).copied().unwrap_or(0);
        let local = source.is_some_and(|ip| ip.to_canonical().is_loopback());
        if self.entries.len() >= MEMBERS_MAX
            || self.unproven_total >= UNPROVEN_MAX
            || (!local && from_there >= UNPROVEN_PER_SOURCE_MAX)
        {
            return Err(Refused::Full);
        }
        Ok(())
    }

    fn count_unproven(&mut self, source: Option<IpAddr>, step: isize) {
        // Members that a verified transfer brings have no source and are bounded by `MEMBERS_MAX` alone.
        let Some(ip) = source else { return };
        self.unproven_total = self.unproven_total.saturating_add_signed(step);
        let count = self.unproven.entry(ip).or_default();
        *count = count.saturating_add_signed(step);
        if *count == 0 {
            self.unproven.remove(&ip);
        }
    }

    fn share_of_digest(&self, id: &MemberId) -> u64 {
        match self.entries.get(id) {
            Some(entry) if !entry.has_left() => {
                entry.record.as_ref().map_or(0, |said| digest_of(&said.bytes))
            }
            _ => 0,
        }
    }

    fn change_digest(&mut self, id: &MemberId, before: u64) {
        let after = self.share_of_digest(id);
        self.digest = self.digest.wrapping_sub(before).wrapping_add(after);
    }
}

/// What one record adds to the digest.
#[must_use]
pub fn digest_of(record: &[u8]) -> u64 {
    let hash = blake3::hash(record);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// Newer replaces older; of two different words with one stamp the one with the greater hash stays, everywhere.
fn put<T>(slot: &mut Option<Said<T>>, duplicate: &mut bool, said: Said<T>) -> Result<(), Refused> {
    if let Some(held) = slot {
        if said.stamp < held.stamp || said.bytes == held.bytes {
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
