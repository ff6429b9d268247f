//! Those who speak and are not in our table, and records that we lack: asked for, each once.
//!
//! A pulse does not say who speaks, so a stranger's is not worth its signature. That somebody is there is: two groups whose
//! wires were joined, or a member whose first words were lost, are found this way without waiting for the next
//! record.
//!
//! Source: NETWORK.md, "Strangers".

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::seq::IteratorRandom;

use super::crowd::{GROUP_MIN, Tally};
use super::{Membership, Source, Timer};
use crate::member::{MemberId, Standing};
use crate::wire::Beacon;

/// Strangers remembered.
const STRANGERS_MAX: usize = 64;
/// One of them is greeted after up to this, and for each member there is so much more: when two large groups meet, not
/// everybody fetches at once.
const WAIT: Duration = Duration::from_millis(100);
const WAIT_EACH: Duration = Duration::from_millis(2);
/// By then a group has shown itself: see `crowd`.
const LEAST_EACH: Duration = Duration::from_micros(250);
const WAIT_MAX: Duration = Duration::from_secs(2);
/// As long as there are strangers the next is greeted after this.
const AGAIN: Duration = Duration::from_secs(1);
/// So many are greeted at once where half of the island may be strangers: a tenth of the answers is lost at a loss of a twentieth,
/// and a second without them is long. Of two tables the second is fetched only if it lists many more.
const GREETED_IN_CROWD: usize = 2;
/// A stranger is asked for its record after up to this, and so often, so far apart. It gives it to whoever it knows.
const ASK_WAIT: Duration = Duration::from_millis(50);
const ASKS_MAX: u8 = 5;
const ASKS_APART: Duration = Duration::from_millis(100);
/// So many strangers are asked in a second, and in a crowd: an unverified beacon costs no more questions than that.
const ASKED_MAX: u32 = 4;
const ASKED_IN_CROWD_MAX: u32 = 128;
/// In a crowd so many strangers are those whose first words were lost.
const FEW: usize = 16;
/// A record we lack is asked for after up to this: a copy may be on its way.
const RECORD_WAIT: Duration = Duration::from_millis(300);
/// In a crowd, where no copies of it come.
const RECORD_WAIT_IN_CROWD: Duration = Duration::from_millis(100);
/// Of a thousand that start at once, fifty miss each record: one in a hundred thousand of those loses five answers in a row.
const RECORD_ASKS_MAX: u8 = 10;
/// A HELLO with this attempt is meant for whoever receives it, whatever the lots say.
pub(super) const FOR_YOU: u8 = u8::MAX;

/// Whoever spoke and is not in our table.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    heard: BTreeMap<MemberId, Stranger>,
    armed: bool,
    /// Those that are asked.
    asked: Tally,
}

#[derive(Debug)]
struct Stranger {
    at: SocketAddr,
    /// How often it was asked for its record, if it is.
    asked: Option<u8>,
}

impl Strangers {
    /// Whether one more may be asked; counts it.
    fn may_ask(&mut self, now: Instant, most: u32) -> bool {
        let may = self.asked.count(now) < most;
        if may {
            self.asked.note(now);
        }
        may
    }
}

impl Membership {
    /// Somebody speaks of whom we know nothing; what is said is not verified. Whoever knows nobody asks everybody again
    /// who is there: all that was to tell it at its start may have been lost.
    pub(super) fn hear_unknown(&mut self, now: Instant, from: Source, author: MemberId) {
        if !self.is_on_link(from.addr.ip()) || self.leaving {
            return;
        }
        let company =
            self.peers.values().any(|peer| peer.standing == Standing::Alive && peer.heard.is_some());
        if !company && self.ask_everybody_again(now) {
            return;
        }
        if self.strangers.heard.len() < STRANGERS_MAX {
            self.strangers.heard.entry(author).or_insert(Stranger { at: from.addr, asked: None });
        }
        self.ask_stranger_soon(now, author);
        if self.strangers.heard.len() >= GROUP_MIN {
            self.introduce_soon(now);
        }
        if !self.strangers.armed && self.record_said.is_some() {
            self.strangers.armed = true;
            let members = u32::try_from(self.table.len()).unwrap_or(u32::MAX);
            let most = (WAIT + WAIT_EACH.saturating_mul(members)).min(WAIT_MAX);
            let least = (LEAST_EACH * members).min(WAIT_MAX / 4);
            let wait = least + self.up_to(most);
            self.timers.arm(now + wait, Timer::Meet);
        }
    }

    fn ask_stranger_soon(&mut self, now: Instant, id: MemberId) {
        let most = if self.crowd.is_one(now) { ASKED_IN_CROWD_MAX } else { ASKED_MAX };
        let is_new = self.strangers.heard.get(&id).is_some_and(|stranger| stranger.asked.is_none());
        if !is_new
            || self.crowd.is_met(now)
            || self.record_said.is_none()
            || !self.strangers.may_ask(now, most)
        {
            return;
        }
        if let Some(stranger) = self.strangers.heard.get_mut(&id) {
            stranger.asked = Some(0);
            let wait = self.up_to(ASK_WAIT);
            self.timers.arm(now + wait, Timer::AskStranger(id));
        }
    }

    /// Asks it for its record, and once more soon if that has not come. In a crowd it does not know us either, perhaps.
    pub(super) fn ask_stranger(&mut self, now: Instant, id: MemberId) {
        let in_crowd = self.crowd.is_one(now);
        let Some(stranger) = self.strangers.heard.get_mut(&id) else { return };
        let asked = stranger.asked.unwrap_or_default();
        if asked == ASKS_MAX || self.leaving {
            if in_crowd {
                // Asked anew when it speaks again. Else it is greeted.
                self.strangers.heard.remove(&id);
            }
            return;
        }
        stranger.asked = Some(asked + 1);
        let at = stranger.at;
        self.ask_for_record_at(at, &id, asked > 0 && in_crowd);
        self.timers.arm(now + ASKS_APART, Timer::AskStranger(id));
    }

    /// Asks who is there for its record, and gives it ours before: it gives its own to those alone whom it knows.
    fn ask_for_record_at(&mut self, at: SocketAddr, id: &MemberId, gives_ours: bool) {
        if let Some((_, record)) = self.record_said.clone().filter(|_| gives_ours) {
            self.send_to(at, record);
        }
        let nonce = self.rng.random();
        let bytes = self.ping(id, nonce, true);
        self.send_to(at, bytes);
    }

    /// Its record has come.
    pub(super) fn is_no_stranger(&mut self, id: &MemberId) {
        self.strangers.heard.remove(id);
    }

    pub(super) fn has_few_strangers(&self) -> bool {
        self.strangers.heard.len() < FEW
    }

    /// Greets one of those who are strangers still, or two; an offer brings a table.
    pub(super) fn meet_strangers(&mut self, now: Instant) {
        self.strangers.armed = false;
        let table = &self.table;
        self.strangers.heard.retain(|id, _| table.get(id).is_none_or(|entry| entry.record.is_none()));
        let count = self.strangers.heard.len();
        if count == 0 || self.leaving {
            return;
        }
        self.strangers.armed = true;
        self.timers.arm(now + AGAIN, Timer::Meet);
        if self.crowd.is_met(now) || self.crowd.is_one(now) && count < GROUP_MIN {
            // Their records are on their way, one by one.
            return;
        }
        let greeted = if self.crowd.is_one(now) { GREETED_IN_CROWD } else { 1 };
        let heard = self.strangers.heard.values().map(|stranger| stranger.at);
        for at in heard.sample(&mut self.rng, greeted) {
            let bytes = self.hello(FOR_YOU);
            self.send_to(at, bytes);
        }
        // Whoever is still there speaks again.
        self.strangers.heard.clear();
    }

    /// A pulse names a record that we lack.
    pub(super) fn compare_record(&mut self, now: Instant, id: MemberId, beacon: &Beacon) {
        let room = self.wanted.len() < STRANGERS_MAX && !self.wanted.contains_key(&id);
        if room && self.lacks_record(&id, beacon) {
            self.wanted.insert(id, 0);
            let most = if self.is_crowded(now) { RECORD_WAIT_IN_CROWD } else { RECORD_WAIT };
            let wait = self.up_to(most);
            self.timers.arm(now + wait, Timer::WantRecord(id));
        }
    }

    fn lacks_record(&self, id: &MemberId, beacon: &Beacon) -> bool {
        let entry = self.table.get(id);
        let (Some(record), Some(pulse)) =
            (entry.and_then(|entry| entry.record.as_ref()), entry.and_then(|entry| entry.pulse.as_ref()))
        else {
            return false;
        };
        pulse.stamp.epoch > record.stamp.epoch
            || pulse.stamp.epoch == record.stamp.epoch && beacon.record_seq > record.stamp.seq
    }

    /// Asks it for its newest record, and once more soon if that has not come. It may not know us either, and then it does not
    /// answer: from the second question on our record goes along.
    pub(super) fn ask_for_record(&mut self, now: Instant, id: MemberId) {
        let asked = self.wanted.remove(&id).unwrap_or_default();
        let beacon = self.table.get(&id).and_then(|entry| entry.pulse.as_ref()).map(|said| said.value);
        let lacking = beacon.is_some_and(|beacon| self.lacks_record(&id, &beacon));
        if asked < RECORD_ASKS_MAX && lacking && !self.leaving {
            if let Some(at) = self.unicast_address(&id) {
                self.ask_for_record_at(at, &id, asked > 0);
            }
            self.wanted.insert(id, asked + 1);
            self.timers.arm(now + ASKS_APART, Timer::WantRecord(id));
        }
    }
}
