//! What we say of ourselves: the record, and beacons that say we still are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Announcement, Destination, Interface, Membership, Timer, Transmit};
use crate::event::EventKind;
use crate::member::{Load, Member, Reason, Stamp, Standing};
use crate::wire::limits::ADDRESSES_MAX;
use crate::wire::{Beacon, Message};

/// A record that changed is sent at once and after these: three copies miss one listener in 8,000 at 5 % loss, and
/// the second comes soon enough for 99 of 100 to know within 50 ms (simulated: p99 27 ms; with 50 ms, 52 ms).
const NEWS: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(150)];
/// The same for words that others wait for: draining, farewell.
pub(super) const URGENT: [Duration; 2] = [Duration::from_millis(15), Duration::from_millis(40)];
/// The record is repeated this often, for whoever missed all copies.
const REFRESH: Duration = Duration::from_secs(30);
/// Up to so many members a newcomer makes everybody say a beacon: as many as beacon every 200 ms anyway.
pub(super) const GREETING_MEMBERS_MAX: usize = 200;
/// By then one knows whether the newcomer is alone.
const GREET_AFTER: Duration = Duration::from_millis(1);
/// Shortest time between two beacons that a change of load causes.
const LOAD_NEWS: Duration = Duration::from_millis(200);

impl Membership {
    /// Says the first words: who we are, and who is there? Interfaces should be known by now.
    pub fn start(&mut self, now: Instant) {
        self.started = now;
        self.say_record(now);
        self.begin_joining(now);
        let soon = self.up_to(self.beacon_period());
        self.timers.arm(now + soon, Timer::Tick);
        let look = self.up_to(Duration::from_millis(500));
        self.timers.arm(now + look, Timer::Look);
        self.timers.arm(now + Duration::from_secs(1), Timer::Forget);
        self.timers.arm(now + Duration::from_secs(10), Timer::Sweep);
    }

    /// Changes what we say of ourselves, and says it if it changed. The caller has checked it with
    /// [`check_record`](crate::wire::check_record).
    pub fn announce(&mut self, now: Instant, news: &Announcement) {
        let before = self.record.clone();
        news.apply(&mut self.record);
        self.say_if_changed(now, &before);
    }

    /// The interfaces that discovery uses are these now.
    pub fn set_interfaces(&mut self, now: Instant, interfaces: Vec<Interface>) {
        if self.interfaces == interfaces {
            return;
        }
        let grown = !self.interfaces.is_empty();
        self.interfaces = interfaces;
        self.neighbours_changed = true;
        if self.advertise.is_empty() {
            // Others can use these sooner than loopback; the order is the one shown to people.
            let mut addresses: Vec<_> =
                self.interfaces.iter().flat_map(|i| i.addresses.iter().copied()).collect();
            addresses.sort_by_key(|address| (address.ip.is_loopback(), address.ip.is_ipv6()));
            addresses.dedup();
            addresses.truncate(ADDRESSES_MAX);
            self.record.addresses = addresses;
        }
        self.networks_changed(now);
        self.publish_all(now);
        if self.record_said.is_some() {
            // Said even if nothing changed in it: who is on a new network has not heard it.
            self.say_record(now);
            if grown {
                self.begin_joining(now);
            }
        }
    }

    pub(super) fn say_if_changed(&mut self, now: Instant, before: &crate::member::Record) {
        if *before != self.record && self.record_said.is_some() && !self.leaving {
            self.say_record(now);
        }
    }

    /// Signs the record anew and sends it to everyone, with its copies.
    pub(super) fn say_record(&mut self, now: Instant) {
        let bytes = self.sign(&Message::Announce(self.record.clone().into()));
        let stamp = Stamp { epoch: self.identity.epoch(), seq: self.seq };
        let first = self.record_said.is_none();
        self.record_digest = crate::verify::digest_of(&bytes);
        self.record_said = Some((stamp, bytes.clone()));
        self.tell_own_word(&bytes, self.record.draining);
        let copies = if self.record.draining { URGENT } else { NEWS };
        self.tell_for_the_deaf(&bytes);
        if !self.record.draining {
            self.remind_soon(now, bytes.clone(), 1);
        }
        self.say_thrice(now, bytes, copies);
        self.timers.disarm(|timer| *timer == Timer::Refresh);
        let refresh = self.jittered(REFRESH);
        self.timers.arm(now + refresh, Timer::Refresh);
        let kind = if first {
            EventKind::Joined
        } else if self.record.draining {
            EventKind::Draining
        } else {
            EventKind::Updated
        };
        self.publish_self(now, Some(kind));
    }

    pub(super) fn say_thrice(&mut self, now: Instant, bytes: Bytes, copies: [Duration; 2]) {
        for after in copies {
            self.timers.arm(now + after, Timer::Copy(bytes.clone()));
        }
        self.send(Destination::Everyone, bytes);
    }

    /// One more copy, unless its word has been replaced by a newer one meanwhile.
    pub(super) fn send_copy(&mut self, now: Instant, bytes: Bytes) {
        // Whoever missed it asks for it where much is said.
        let is_asked_for = self.is_crowded(now) && !self.record.draining;
        if self.pay_farewell(&bytes) || (self.is_our_record(&bytes) && !is_asked_for) {
            self.send(Destination::Everyone, bytes);
        }
    }

    /// Whether these bytes are our record as it is now, and we are here to stay.
    pub(super) fn is_our_record(&self, bytes: &Bytes) -> bool {
        !self.leaving && self.record_said.as_ref().is_some_and(|(_, said)| said == bytes)
    }

    pub(super) fn refresh_record(&mut self, now: Instant) {
        if self.leaving {
            return;
        }
        if let Some((_, bytes)) = self.record_said.clone() {
            self.send(Destination::Everyone, bytes);
        }
        let refresh = self.jittered(REFRESH);
        self.timers.arm(now + refresh, Timer::Refresh);
    }

    /// How often everybody is told that we still are: all nodes together stay at 1,000 datagrams a second.
    pub(super) fn beacon_period(&self) -> Duration {
        let nodes = u64::try_from(self.table.len() + 1).unwrap_or(u64::MAX);
        Duration::from_millis(nodes.clamp(200, 5_000))
    }

    /// A newcomer was heard: so that it knows us without waiting for our next turn; others' tables have us already. Not on
    /// large islands: if a thousand nodes start together, each would hear five thousand beacons a second.
    pub(super) fn greet_soon(&mut self, now: Instant) {
        if !self.greets && self.table.len() < GREETING_MEMBERS_MAX {
            self.greets = true;
            self.timers.arm(now + GREET_AFTER, Timer::Greet);
        }
    }

    /// The beacon for them, unless they are a crowd by now.
    pub(super) fn greet_newcomers(&mut self, now: Instant) {
        self.greets = false;
        if !self.crowd.is_one(now) {
            self.beacon_soon(now);
        }
    }

    /// A beacon out of turn, but not more than one in `LOAD_NEWS`.
    pub(super) fn beacon_soon(&mut self, now: Instant) {
        if self.beacon_told.is_none_or(|at| now.saturating_duration_since(at) >= LOAD_NEWS) {
            self.say_beacon(now);
        }
    }

    /// A beacon to everyone by every path.
    pub(super) fn say_beacon(&mut self, now: Instant) {
        if self.leaving || self.record_said.is_none() {
            return;
        }
        let bytes = self.signed_beacon(now);
        self.broadcast(now, bytes, true);
    }

    pub(super) fn beacon(&self, now: Instant) -> Beacon {
        let (record, _) = self.record_said.as_ref().expect("beacons are said after the record");
        Beacon {
            record_seq: record.seq,
            load: self.load,
            full: is_full(self.load),
            deaf: self.is_deaf(now),
            digest: self.digest(),
            far: self.far_digest(),
        }
    }

    /// How busy we are now. Told at once when it changed by a quarter of the capacity or crossed full.
    pub fn set_load(&mut self, now: Instant, load: Load) {
        self.load = load;
        let told = self.load_told;
        let step = (load.capacity / 4).max(1);
        let crossed = is_full(load) != is_full(told) || load.capacity != told.capacity;
        if crossed || load.in_flight.abs_diff(told.in_flight) >= step {
            self.beacon_soon(now);
            self.publish_self(now, None);
        }
    }

    pub(super) fn publish_self(&mut self, now: Instant, kind: Option<EventKind>) {
        let Some((stamp, bytes)) = &self.record_said else { return };
        let standing = if self.leaving { Standing::Left } else { Standing::Alive };
        let reason = match (self.leaving, self.record.draining) {
            (true, _) => Some(Reason::Farewell),
            (false, true) => Some(Reason::Draining),
            (false, false) => None,
        };
        let since =
            self.me.as_ref().filter(|me| me.standing == standing && me.reason == reason).map(|me| me.since);
        let http_addresses = self.own_http_addresses();
        let me = Arc::new(Member {
            id: self.id(),
            stamp: *stamp,
            record: Arc::new(self.record.clone()),
            record_bytes: bytes.clone(),
            standing,
            proven: true,
            reachable: !self.leaving,
            reason,
            since: since.unwrap_or(now),
            heard: None,
            load: self.load,
            http_addresses,
            is_self: true,
            far: false,
        });
        self.me = Some(me.clone());
        self.tell(me, kind);
    }

    fn own_http_addresses(&self) -> Vec<std::net::SocketAddr> {
        if self.record.http_port == 0 {
            return Vec::new();
        }
        let port = self.record.http_port;
        self.record.addresses.iter().map(|address| (address.ip, port).into()).collect()
    }

    /// Bytes to one address.
    pub(super) fn send_to(&mut self, at: std::net::SocketAddr, bytes: Bytes) {
        self.transmits.push_back(Transmit { to: Destination::Unicast(at), bytes });
    }
}

pub(super) fn is_full(load: Load) -> bool {
    load.capacity > 0 && load.in_flight >= load.capacity
}
