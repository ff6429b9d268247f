//! Questions to a member: PING, and what counts as its answer.
//!
//! Newcomers are asked once each, in steps, so that a node among a thousand wakes for several at a time.
//!
//! Source: NETWORK.md, "Watchers".

use std::time::{Duration, Instant};

use rand::RngExt;

use super::peer::Asking;
use super::{Membership, Source, Timer};
use crate::member::{Epoch, MemberId};
use crate::verify::Refused;
use crate::wire::limits::WATCHERS_MAX;
use crate::wire::{Message, Ping, Pong};

/// Newcomers are asked once after up to this for each member there is: not all at once, and few before two of their
/// beacons have proven them.
const FIRST_PING_EACH: Duration = Duration::from_millis(3);
/// First questions go out at multiples of this, or of so small a share of the time over which they are spread: one wake-up for
/// several where there are many.
const FIRST_PING_STEP: Duration = Duration::from_millis(20);
const FIRST_PING_STEPS: u32 = 32;
/// In a crowd newcomers are given so many beacon periods to prove themselves first, once so many members are proven that
/// there is a choice of watchers.
const PROVEN_BY_PERIODS: u32 = 2;
const PROVEN_ENOUGH: usize = 4 * WATCHERS_MAX;
/// How often, and how far apart: as long as the silence that a watcher waits for.
pub(super) const FIRST_PINGS: u8 = 3;
pub(super) const FIRST_PINGS_APART: Duration = Duration::from_millis(100);

impl Membership {
    /// A newcomer is to be asked, if it does not prove itself first.
    pub(super) fn arm_first_ping(&mut self, now: Instant, id: MemberId) {
        let spread = self.first_pings_spread();
        let wait = self.up_to(spread);
        self.ask_first_at(now + wait, id);
    }

    fn first_pings_spread(&self) -> Duration {
        FIRST_PING_EACH * u32::try_from(self.table.len()).unwrap_or(u32::MAX)
    }

    /// Asks for the first time at the next step after `at`.
    fn ask_first_at(&mut self, at: Instant, id: MemberId) {
        let step = FIRST_PING_STEP.min(self.first_pings_spread() / FIRST_PING_STEPS);
        let passed = at.saturating_duration_since(self.started);
        let steps = if step.is_zero() { 0.0 } else { passed.div_duration_f64(step).ceil() };
        let at = at.max(self.started + step.mul_f64(steps));
        let newcomers = self.newcomers.entry(at).or_default();
        newcomers.push(id);
        if newcomers.len() == 1 {
            self.timers.arm(at, Timer::FirstAsks);
        }
    }

    /// Newcomers whose step has come are asked once, unless they have proven themselves by then.
    pub(super) fn ask_newcomers(&mut self, now: Instant) {
        while let Some(step) = self.newcomers.first_entry().filter(|step| *step.key() <= now) {
            let mut newcomers = step.remove();
            newcomers.retain(|id| !self.table.is_proven(id));
            for id in newcomers {
                self.ask_first(now, id);
            }
        }
    }

    fn ask_first(&mut self, now: Instant, id: MemberId) {
        let patient = self.crowd.is_one(now) && self.table.proven() >= PROVEN_ENOUGH;
        let until = self.peers.get(&id).map(|peer| peer.known + self.beacon_period() * PROVEN_BY_PERIODS);
        match until.filter(|until| patient && now < *until) {
            Some(until) => {
                let wait = self.up_to(self.beacon_period());
                self.ask_first_at(until + wait, id);
            }
            None => self.ask(now, id, FIRST_PINGS, FIRST_PINGS_APART),
        }
    }

    fn epoch_of(&self, id: &MemberId) -> Option<Epoch> {
        Some(self.table.get(id)?.record.as_ref()?.stamp.epoch)
    }

    /// Asks `id` up to `most` times, `apart`, unless it is being asked already.
    pub(super) fn ask(&mut self, now: Instant, id: MemberId, most: u8, apart: Duration) {
        let nonce = self.rng.random();
        let Some(epoch) = self.epoch_of(&id) else { return };
        let gone = self.table.get(&id).is_some_and(super::Entry::has_left);
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.asking.is_none() && !gone) else {
            return;
        };
        peer.asking = Some(Asking { nonce, sent: 0, most, apart });
        self.ask_again(now, id, epoch, nonce);
    }

    /// The next question to `id`, if these have not been answered or given up.
    pub(super) fn ask_again(&mut self, now: Instant, id: MemberId, epoch: Epoch, nonce: u64) {
        if self.epoch_of(&id) != Some(epoch) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(asking) = peer.asking.as_mut().filter(|asking| asking.nonce == nonce) else { return };
        if asking.sent >= asking.most {
            peer.asking = None;
            peer.unanswered = Some(now);
            self.doubt_unproven(now, id);
            return;
        }
        asking.sent += 1;
        let apart = asking.apart * u32::from(asking.sent);
        if let Some(at) = self.unicast_address(&id) {
            let bytes = self.ping(&id, nonce, false);
            self.send_to(at, bytes);
        }
        self.timers.arm(now + apart, Timer::Ask(id, epoch, nonce));
    }

    pub(super) fn ping(&mut self, id: &MemberId, nonce: u64, wants_record: bool) -> bytes::Bytes {
        let unicast_port = self.record.unicast_port;
        let ping = Message::Ping(Ping { nonce, target: *id, unicast_port, wants_record });
        self.sign(&ping)
    }

    pub(super) fn hear_ping(
        &mut self,
        now: Instant,
        from: Source,
        author: MemberId,
        ping: &Ping,
    ) -> Result<(), Refused> {
        if ping.target != self.id() {
            return Err(Refused::NotForUs);
        }
        self.check_on_link(from.addr.ip())?;
        if self.leaving || self.record_said.is_none() {
            return Err(Refused::Unasked);
        }
        let pong = Message::Pong(Pong { nonce: ping.nonce, beacon: self.beacon(now) });
        let bytes = self.sign(&pong);
        let mut at = from.addr;
        at.set_port(ping.unicast_port);
        self.send_to(at, bytes);
        if ping.wants_record
            && self.table.get(&author).is_some_and(|entry| entry.record.is_some())
            && let Some((_, record)) = self.record_said.clone()
        {
            self.send_to(at, record);
        }
        Ok(())
    }

    /// A pong counts only as the answer to our question.
    pub(super) fn check_pong(&self, id: &MemberId, nonce: u64) -> Result<(), Refused> {
        let asked = self.peers.get(id).and_then(|peer| peer.asking.as_ref());
        if asked.is_some_and(|asking| asking.nonce == nonce) { Ok(()) } else { Err(Refused::Unasked) }
    }
}
