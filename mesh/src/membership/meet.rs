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

use super::{Membership, Source, Timer};
use crate::member::{MemberId, Standing};
use crate::wire::Beacon;

/// Strangers remembered.
const STRANGERS_MAX: usize = 64;
/// One of them is greeted after up to this, and for each member there is so much more: when two large groups meet, not
/// everybody fetches at once.
const WAIT: Duration = Duration::from_millis(100);
const WAIT_EACH: Duration = Duration::from_millis(2);
const WAIT_MAX: Duration = Duration::from_secs(2);
/// As long as there are strangers the next is greeted after this.
const AGAIN: Duration = Duration::from_secs(1);
/// A record we lack is asked for after up to this: a copy may be on its way.
const RECORD_WAIT: Duration = Duration::from_millis(300);
/// A HELLO with this attempt is meant for whoever receives it, whatever the lots say.
pub(super) const FOR_YOU: u8 = u8::MAX;

/// Whoever spoke and is not in our table.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    heard: BTreeMap<MemberId, SocketAddr>,
    armed: bool,
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
            self.strangers.heard.insert(author, from.addr);
        }
        if !self.strangers.armed && self.record_said.is_some() {
            self.strangers.armed = true;
            let members = u32::try_from(self.table.len()).unwrap_or(u32::MAX);
            let most = (WAIT + WAIT_EACH.saturating_mul(members)).min(WAIT_MAX);
            let wait = self.up_to(most);
            self.timers.arm(now + wait, Timer::Meet);
        }
    }

    /// Greets one of those who are strangers still; its offer brings its table.
    pub(super) fn meet_strangers(&mut self, now: Instant) {
        self.strangers.armed = false;
        let table = &self.table;
        self.strangers.heard.retain(|id, _| table.get(id).is_none_or(|entry| entry.record.is_none()));
        let count = self.strangers.heard.len();
        if count == 0 || self.leaving {
            return;
        }
        let chosen = self.rng.random_range(0..count);
        if let Some(at) = self.strangers.heard.values().nth(chosen).copied() {
            let bytes = self.hello(FOR_YOU);
            self.send_to(at, bytes);
        }
        // Whoever is still there speaks again.
        self.strangers.heard.clear();
        self.strangers.armed = true;
        self.timers.arm(now + AGAIN, Timer::Meet);
    }

    /// A pulse names a record that we lack.
    pub(super) fn compare_record(&mut self, now: Instant, id: MemberId, beacon: &Beacon) {
        if self.lacks_record(&id, beacon) && !self.wanted.contains(&id) && self.wanted.len() < STRANGERS_MAX {
            self.wanted.insert(id);
            let wait = self.up_to(RECORD_WAIT);
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

    pub(super) fn ask_for_record(&mut self, id: MemberId) {
        self.wanted.remove(&id);
        let beacon = self.table.get(&id).and_then(|entry| entry.pulse.as_ref()).map(|said| said.value);
        if beacon.is_some_and(|beacon| self.lacks_record(&id, &beacon)) && !self.leaving {
            let nonce = self.rng.random();
            self.say_ping(&id, nonce, true);
        }
    }
}
