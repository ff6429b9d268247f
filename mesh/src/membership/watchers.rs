//! Who watches us: up to six members that we hear ourselves, named in our record, so that anybody can check
//! a certificate about us against our own signed list. They get our beacon every 100 ms.
//!
//! Source: NETWORK.md, "Watchers".

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::seq::SliceRandom;

use super::{Destination, Membership, Timer};
use crate::member::{MemberId, Seq, Standing};
use crate::wire::Message;
use crate::wire::limits::WATCHERS_MAX;

/// How often our watchers hear from us. Required by DESIGN, section 5.
const TICK: Duration = Duration::from_millis(100);
/// The list changes once in this at most.
const CHOOSE_EVERY: Duration = Duration::from_secs(1);
/// Where many fall at once the verdicts on nearly all of them are known so long after the first.
const CHOOSE_IN_STORM: Duration = Duration::from_millis(550);
/// Time for first beacons and answers to come before the first choice. Who falls before it is missed for seconds, so no
/// longer than it takes.
const CHOOSE_FIRST: Duration = Duration::from_millis(150);
/// Over how much it is spread for each member, so that not all who start together say their records at once.
const CHOOSE_FIRST_SPREAD_EACH: Duration = Duration::from_micros(100);
const CHOOSE_FIRST_SPREAD_EACH_IN_CROWD: Duration = Duration::from_micros(1_900);
/// And the later ones: of those who have lost the same watcher.
const CHOOSE_SPREAD_EACH: Duration = Duration::from_micros(200);
const CHOOSE_SPREAD_EACH_IN_CROWD: Duration = Duration::from_micros(500);
const CHOOSE_SPREAD_EACH_IN_STORM: Duration = Duration::from_micros(900);
/// There only those are chosen that gave a sign within so many beacon periods: the others may have fallen, too.
const HEARD_WITHIN_PERIODS_IN_STORM: f64 = 1.15;
/// Whoever has been here so long is taken first: it will stay.
const LONG_KNOWN: Duration = Duration::from_secs(10);
/// A watcher that accused us wrongly so often in `ACCUSED_FOR` does not hear us: another takes its place.
const ACCUSED_MAX: u32 = 2;
const ACCUSED_FOR: Duration = Duration::from_secs(60);
/// We answer accusations this often at most: an answer is heard by all accusers.
const DEFEND_EVERY: Duration = Duration::from_millis(25);
/// The second copy of the answer.
const DEFEND_AGAIN: Duration = Duration::from_millis(30);
/// So long without any broadcast, while unicast comes, is deaf. Required by DESIGN, section 5.
const DEAF: Duration = Duration::from_secs(3);

/// What we keep about being watched.
#[derive(Debug, Default)]
pub(super) struct Watched {
    chosen: Option<Instant>,
    pending: Option<Pending>,
    /// Wrong accusations lately, by who made them.
    accusers: BTreeMap<MemberId, (u32, Instant)>,
    defended: Option<Instant>,
    /// When we last said our record because somebody lied about us.
    belied: Option<Instant>,
    broadcast_due: Option<Instant>,
    broadcasts: u32,
    /// When we last heard something meant for all, and for us alone.
    pub(super) heard_all: Option<Instant>,
    pub(super) heard_alone: Option<Instant>,
}

/// A choice to come. How long the time is over which it and those of others are spread depends on how many there are.
#[derive(Clone, Copy, Debug)]
struct Pending {
    from: Instant,
    /// Its place in that time, from 0 to 1.
    lot: f64,
}

impl Watched {
    /// No beacon to all in turn before this.
    pub(super) fn put_off_broadcast(&mut self, due: Instant) {
        self.broadcast_due = self.broadcast_due.max(Some(due));
    }
}

/// By all paths once in so many beacons, else by the best path of each interface.
const ALL_PATHS_EVERY: u32 = 5;

impl Membership {
    /// Something changed that the choice of watchers depends on.
    pub(super) fn choose_watchers_soon(&mut self, now: Instant) {
        if self.watched.pending.is_some() || self.leaving {
            return;
        }
        let wanted = self.table.len().min(WATCHERS_MAX);
        let watchers = &self.record.watchers;
        let full = watchers.len() >= wanted && watchers.iter().all(|id| self.may_watch(now, id));
        if full && !self.is_accused(now) {
            return;
        }
        let from = match self.watched.chosen {
            // Once for all who fall.
            Some(_) if self.do_many_fall(now) => now + CHOOSE_IN_STORM,
            Some(last) => now.max(last + CHOOSE_EVERY),
            None => now.max(self.started + CHOOSE_FIRST),
        };
        let pending = Pending { from, lot: self.rng.random_range(0.0..1.0) };
        self.watched.pending = Some(pending);
        self.choose_watchers_at(now, self.choice_due(now, pending));
    }

    /// When the choice is due, with as many members as there are now.
    fn choice_due(&self, now: Instant, pending: Pending) -> Instant {
        let each = match (self.watched.chosen, self.is_crowded(now)) {
            (Some(_), _) if self.do_many_fall(now) => CHOOSE_SPREAD_EACH_IN_STORM,
            (Some(_), true) => CHOOSE_SPREAD_EACH_IN_CROWD,
            (Some(_), false) => CHOOSE_SPREAD_EACH,
            (None, true) => CHOOSE_FIRST_SPREAD_EACH_IN_CROWD,
            (None, false) => CHOOSE_FIRST_SPREAD_EACH,
        };
        let members = u32::try_from(self.table.len()).unwrap_or(u32::MAX);
        pending.from + (each * members).mul_f64(pending.lot)
    }

    /// They are chosen then.
    fn choose_watchers_at(&mut self, now: Instant, at: Instant) {
        self.timers.arm(at, Timer::ChooseWatchers);
        if self.watched.chosen.is_none() && self.crowd.is_one(now) {
            // The record that names them is said soon, and beacons follow it.
            self.watched.put_off_broadcast(at + self.beacon_period());
        }
    }

    /// It is time for the choice, unless it is the first, in a crowd that has grown meanwhile: then its turn comes later.
    pub(super) fn choose_watchers_in_turn(&mut self, now: Instant) {
        let first = self.watched.pending.filter(|_| self.watched.chosen.is_none());
        match first.map(|pending| self.choice_due(now, pending)) {
            Some(due) if due > now => self.choose_watchers_at(now, due),
            _ => self.choose_watchers(now),
        }
    }

    fn is_accused(&self, now: Instant) -> bool {
        let wrong = |id: &MemberId| {
            self.watched.accusers.get(id).is_some_and(|(times, at)| {
                *times >= ACCUSED_MAX && now.saturating_duration_since(*at) < ACCUSED_FOR
            })
        };
        self.record.watchers.iter().any(wrong)
    }

    /// Whether this member is one that we hear and that will do.
    fn may_watch(&self, now: Instant, id: &MemberId) -> bool {
        let Some(peer) = self.peers.get(id) else { return false };
        let Some(entry) = self.table.get(id).filter(|entry| entry.proven) else { return false };
        let Some(record) = entry.record.as_ref() else { return false };
        let wrong = self.watched.accusers.get(id).is_some_and(|(times, at)| {
            *times >= ACCUSED_MAX && now.saturating_duration_since(*at) < ACCUSED_FOR
        });
        peer.standing == Standing::Alive && !peer.mute && !record.value.draining && !wrong
    }

    /// Names our watchers: those we have as long as they will do, then the long known ones, drawn by lot.
    pub(super) fn choose_watchers(&mut self, now: Instant) {
        self.watched.pending = None;
        if self.leaving || self.record_said.is_none() {
            return;
        }
        let lately = self.beacon_period().mul_f64(HEARD_WITHIN_PERIODS_IN_STORM);
        let recent = self.do_many_fall(now).then(|| now.checked_sub(lately)).flatten();
        let will_do = |id: &MemberId| {
            let heard = |since| self.peers.get(id).is_some_and(|peer| peer.last_sign() >= since);
            recent.is_none_or(heard) && self.may_watch(now, id)
        };
        let kept: Vec<MemberId> = self.record.watchers.iter().filter(|id| will_do(id)).copied().collect();
        let (mut long, mut new): (Vec<_>, Vec<_>) = self
            .peers
            .iter()
            .filter(|(id, _)| !kept.contains(id) && will_do(id))
            .map(|(id, peer)| (*id, now.saturating_duration_since(peer.known) >= LONG_KNOWN))
            .partition(|(_, long)| *long);
        long.shuffle(&mut self.rng);
        new.shuffle(&mut self.rng);
        let mut watchers = kept;
        let room = WATCHERS_MAX.saturating_sub(watchers.len());
        watchers.extend(long.into_iter().chain(new).map(|(id, _)| id).take(room));
        if watchers.len() < WATCHERS_MAX {
            // Rather one that accuses us wrongly than none: it is where the island is small.
            let left = self.record.watchers.iter().filter(|id| !watchers.contains(id));
            let wrong: Vec<MemberId> = left.filter(|id| !self.is_known_gone(id)).copied().collect();
            watchers.extend(wrong.into_iter().take(WATCHERS_MAX - watchers.len()));
        }
        watchers.sort_unstable();
        self.watched.chosen = Some(now);
        if watchers != self.record.watchers {
            let before = self.record.clone();
            self.record.watchers = watchers;
            self.say_if_changed(now, &before);
        }
        self.choose_watchers_soon(now);
    }

    /// A beacon in turn: to our watchers each time, to all when that is due.
    pub(super) fn tick(&mut self, now: Instant) {
        let next = self.jittered(TICK);
        self.timers.arm(now + next, Timer::Tick);
        if self.leaving || self.record_said.is_none() {
            return;
        }
        self.note_deafness(now);
        if self.watched.broadcast_due.is_none() && self.crowd.is_one(now) {
            // Not all their first in the same moment.
            let wait = self.up_to(self.beacon_period());
            self.watched.broadcast_due = Some(now + wait);
        }
        let due = self.watched.broadcast_due.is_none_or(|due| due <= now);
        let watchers = self.record.watchers.clone();
        if watchers.is_empty() && !due {
            return;
        }
        let bytes = self.signed_beacon(now);
        if due {
            // First: by the copy that comes first it is known where we are. What is said to one alone goes where that one was
            // heard, so two who once heard each other by another path would keep to that.
            self.broadcast(now, bytes.clone(), false);
        }
        self.send_to_each(&watchers, &bytes);
    }

    /// A beacon to everyone; `news`: worth every path.
    pub(super) fn broadcast(&mut self, now: Instant, bytes: bytes::Bytes, news: bool) {
        let next = self.jittered(self.beacon_period());
        self.watched.broadcast_due = Some(now + next);
        self.watched.broadcasts = self.watched.broadcasts.wrapping_add(1);
        self.beacon_told = Some(now);
        self.load_told = self.load;
        let all = news || self.watched.broadcasts.is_multiple_of(ALL_PATHS_EVERY);
        self.send(if all { Destination::Everyone } else { Destination::EveryoneBriefly }, bytes);
    }

    /// Our beacon as it is now, signed.
    pub(super) fn signed_beacon(&mut self, now: Instant) -> bytes::Bytes {
        let message = Message::Beacon(self.beacon(now));
        self.sign(&message)
    }

    /// Somebody says that we are silent. Everybody hears that we are not, twice.
    pub(super) fn defend(&mut self, now: Instant, accuser: MemberId) {
        let (times, at) = self.watched.accusers.entry(accuser).or_insert((0, now));
        if now.saturating_duration_since(*at) >= ACCUSED_FOR {
            *times = 0;
        }
        // Copies of one vote come within milliseconds.
        if *times == 0 || now.saturating_duration_since(*at) >= CHOOSE_EVERY / 2 {
            *times += 1;
            *at = now;
        }
        self.choose_watchers_soon(now);
        if self.watched.defended.is_some_and(|at| now.saturating_duration_since(at) < DEFEND_EVERY) {
            return;
        }
        self.watched.defended = Some(now);
        self.say_beacon(now);
        let bytes = self.signed_beacon(now);
        self.send_to_each(&[accuser], &bytes);
        self.timers.arm(now + DEFEND_AGAIN, Timer::Defend);
    }

    /// A vote against us by this record of ours says that it knows a word that we have not said: no pulse would end it
    /// where it is believed, but a newer record does.
    pub(super) fn belie(&mut self, now: Instant, judged_by: Seq) {
        let is_current = self.record_said.as_ref().is_some_and(|(stamp, _)| stamp.seq == judged_by);
        let lately = self.watched.belied.is_some_and(|at| now.saturating_duration_since(at) < CHOOSE_EVERY);
        if is_current && !lately && !self.leaving {
            self.watched.belied = Some(now);
            self.say_record(now);
        }
    }

    pub(super) fn sweep_accusers(&mut self, now: Instant) {
        self.watched.accusers.retain(|_, (_, at)| now.saturating_duration_since(*at) < ACCUSED_FOR);
    }

    /// Whether we hear what is said to us alone but nothing that is said to all.
    pub(super) fn is_deaf(&self, now: Instant) -> bool {
        let since = self.watched.heard_all.unwrap_or(self.started).max(self.started);
        let alone = self.watched.heard_alone.is_some_and(|at| now.saturating_duration_since(at) < DEAF);
        alone && now.saturating_duration_since(since) >= DEAF
    }

    fn note_deafness(&mut self, now: Instant) {
        let deaf = self.is_deaf(now);
        if deaf != self.deaf_told {
            self.deaf_told = deaf;
            let bytes = self.signed_beacon(now);
            self.broadcast(now, bytes, true);
        }
    }

    /// News for those we watch who hear no broadcasts.
    pub(super) fn tell_the_deaf(&mut self, about: &MemberId, bytes: &bytes::Bytes) {
        let peers = &self.peers;
        self.deaf.retain(|id| peers.get(id).is_some_and(|peer| peer.deaf));
        let watched = |id: &&MemberId| peers.get(id).is_some_and(|peer| peer.watching.is_some());
        let told: Vec<MemberId> =
            self.deaf.iter().filter(|id| *id != about).filter(watched).copied().collect();
        self.send_to_each(&told, bytes);
    }

    /// If we hear no broadcasts, ours may not be heard either: our watchers say this word for us.
    pub(super) fn tell_for_the_deaf(&mut self, bytes: &bytes::Bytes) {
        if self.deaf_told {
            let watchers = self.record.watchers.clone();
            self.send_to_each(&watchers, bytes);
        }
    }
}
