//! Whom we watch: members that named us in their record send us a beacon every 100 ms, and we say so when they fall
//! silent. Also whoever lost all its watchers, if we are among the first to take their place.
//!
//! Before we blame others we look at ourselves: a late loop, or many silent together, withholds our votes for a while.
//!
//! Source: NETWORK.md, "Watchers".

use std::time::{Duration, Instant};

use super::ask::{FIRST_PINGS, FIRST_PINGS_APART};
use super::crowd::Surge;
use super::join::is_far_back;
use super::leave::head_of;
use super::peer::{Peer, marks};
use super::{Destination, Membership, Timer};
use crate::event::EventKind;
use crate::member::{MemberId, Stamp, Standing};

/// Bounds of the silence that makes a watcher vote: wired, and where more than a third of all beacons are lost.
/// Required by DESIGN, section 5; 600 ms are five lost beacons in a row.
const SILENCE_MIN: Duration = Duration::from_millis(600);
const SILENCE_MAX: Duration = Duration::from_millis(900);
const SILENCE_MAX_LOSSY: Duration = Duration::from_secs(3);
/// A mean gap above this, in milliseconds, means a lossy medium.
const LOSSY_GAP: f64 = 150.0;
/// Where the watchers do not agree those who stand in for them wait longer. They hear broadcasts alone, so they ask.
const SILENCE_UNDECIDED: Duration = Duration::from_millis(900);
/// With the port refused by its host, as by a host whose process died, so much silence is enough: two beacons.
const SILENCE_REFUSED: Duration = Duration::from_millis(250);
/// A refusal counts for so long.
const REFUSED_FOR: Duration = Duration::from_millis(500);
/// So long before the limit the silent one is asked in private.
const ASK_AHEAD: Duration = Duration::from_millis(200);
/// The same where nothing was heard for longer than the limit when we began to watch.
const ASK_BRIEFLY: Duration = Duration::from_millis(100);
/// A vote is said again after this, as long as the silence lasts.
const VOTE_AGAIN: Duration = Duration::from_secs(1);
/// So many take the place of watchers that are gone.
const SUBSTITUTES: usize = 4;
/// Later than this, our own loop is the likelier culprit.
const LATE: Duration = Duration::from_millis(100);
/// So long we trust nobody's silence after that, or after many fell silent at once.
const DOUBT: Duration = Duration::from_secs(1);
/// So long we spread votes, and say them once, after many fell silent at once.
const STORM: Duration = Duration::from_millis(500);
/// The last verdicts of a storm come so long after it.
const AFTERMATH: Duration = Duration::from_secs(1);
/// With so many targets or more, more than 30 % silent together are suspicious.
const TARGETS_MIN: usize = 4;
/// A watcher that is proven wrong although it hears nothing withholds its vote so long, doubling.
const WITHHELD_MIN: Duration = Duration::from_secs(10);
const WITHHELD_MAX: Duration = Duration::from_secs(60);
/// Nobody may stay silent for longer than this, or so many beacon periods, unasked: broadcasts of it may not reach us.
const UNHEARD_MIN: Duration = Duration::from_secs(3);
const UNHEARD_PERIODS: u32 = 4;
/// In a storm, where certificates are said less often.
const UNHEARD_MIN_IN_STORM: Duration = Duration::from_millis(1_500);
const UNHEARD_PERIODS_IN_STORM: f64 = 1.5;
/// How many of those are asked in one look.
const UNHEARD_ASKED_MAX: usize = 64;
/// How often we look.
const LOOK: Duration = Duration::from_millis(500);
/// Why we watch somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// It named us.
    Named,
    /// It has not named anybody yet, or all whom it named are gone.
    Forsaken,
    /// Its own watchers do not agree.
    Undecided,
}

/// What a watcher keeps of its target.
#[derive(Debug)]
pub(super) struct Watching {
    pub(super) role: Role,
    /// Number of its silence timer: others are stale.
    number: u64,
    /// Mean gap between beacons and mean deviation from it, in milliseconds (gain 1/16).
    gap: f64,
    deviation: f64,
    /// No vote before this, and how long it was withheld the last time.
    withheld_until: Option<Instant>,
    withheld: Duration,
    /// Its host said that nobody listens at its port.
    refused: Option<Instant>,
}

impl Watching {
    fn new(role: Role, number: u64) -> Self {
        let (gap, deviation) = (100.0, 10.0);
        let withheld = Duration::ZERO;
        Self { role, number, gap, deviation, withheld_until: None, withheld, refused: None }
    }

    fn note_gap(&mut self, gap: Duration) {
        let gap = gap.as_secs_f64() * 1000.0;
        let error = gap - self.gap;
        self.gap += error / 16.0;
        self.deviation += (error.abs() - self.deviation) / 16.0;
    }

    /// Mean plus six deviations, within the bounds of the medium.
    fn limit(&self) -> Duration {
        match self.role {
            Role::Named => {}
            Role::Forsaken => return SILENCE_MIN,
            Role::Undecided => return SILENCE_UNDECIDED,
        }
        let most = if self.gap > LOSSY_GAP { SILENCE_MAX_LOSSY } else { SILENCE_MAX };
        Duration::from_secs_f64((self.gap + 6.0 * self.deviation) / 1000.0).clamp(SILENCE_MIN, most)
    }
}

/// That many fall silent at once.
#[derive(Debug, Default)]
pub(super) struct Storm {
    /// When many of those that we watch were.
    silent: Option<Instant>,
    /// Whom others accuse.
    accused: Surge,
}

/// What the last look around found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// The last event before it.
    event: u64,
    /// Somebody was in doubt, or has been since.
    pub(super) doubted: bool,
    /// Somebody had no watchers, or we stand in for them.
    forsaken: bool,
    /// Nobody that was there then had given its last sign before this.
    earliest: Option<Instant>,
    /// Nor before this, also in words that a caller keeps back.
    signs: Option<Instant>,
}

impl Looked {
    /// Whether it found nothing that calls for another look but silence, and nothing has happened since.
    fn is_settled(&self, event: u64) -> bool {
        self.event == event && !self.doubted && !self.forsaken
    }
}

impl Membership {
    /// Whether we watch `id`, by its newest record and by who of its watchers is left.
    fn role_for(&self, now: Instant, id: &MemberId) -> Option<Role> {
        let peer = self.peers.get(id)?;
        let entry = self.table.get(id)?;
        let record = &entry.record.as_ref()?.value;
        if peer.standing.is_gone() || !entry.proven {
            return None;
        }
        if record.watchers.contains(&self.id()) {
            return Some(Role::Named);
        }
        let forsaken = !self.has_living(&record.watchers);
        let undecided = peer.doubt.as_ref().is_some_and(|doubt| self.is_undecided(now, id, doubt));
        if !(forsaken || undecided) || !self.is_substitute_for(id) {
            return None;
        }
        Some(if forsaken { Role::Forsaken } else { Role::Undecided })
    }

    /// How many of these are not known to be gone. Whoever we do not know may well be there.
    pub(super) fn living_watchers(&self, watchers: &[MemberId]) -> usize {
        watchers.iter().filter(|id| !self.is_known_gone(id)).count()
    }

    /// Whether there is one.
    pub(super) fn has_living(&self, watchers: &[MemberId]) -> bool {
        watchers.iter().any(|id| !self.is_known_gone(id))
    }

    pub(super) fn is_known_gone(&self, id: &MemberId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.standing.is_gone())
    }

    /// Everybody draws the same lots: the first few alive stand in.
    pub(super) fn is_substitute_for(&self, id: &MemberId) -> bool {
        let mine = lot(id, &self.id());
        if is_far_back(head_of(&mine), self.table.len(), SUBSTITUTES) {
            return false;
        }
        self.alive_besides(id).filter(|other| lot(id, other) < mine).take(SUBSTITUTES).count() < SUBSTITUTES
    }

    /// Whether it is for us to say that `id` is silent: as one of those it named, or who stand in for them.
    pub(super) fn speaks_for(&self, id: &MemberId) -> bool {
        self.is_watcher_of(&self.id(), id) || self.is_substitute_for(id)
    }

    /// The watchers that `id` names in its newest record; none where that is missing.
    pub(super) fn named_by(&self, id: &MemberId) -> &[MemberId] {
        self.table.record(id).map_or(&[], |said| &said.value.watchers)
    }

    /// Who watches `id`: those it named, or those who stand in for them. Without ourselves. O(members) in the second case.
    pub(super) fn watchers_of(&self, id: &MemberId) -> Vec<MemberId> {
        let (named, own) = (self.named_by(id), self.id());
        if self.has_living(named) {
            return named.iter().filter(|watcher| **watcher != own).copied().collect();
        }
        let mut lots: Vec<_> = self.alive_besides(id).map(|other| (lot(id, other), *other)).collect();
        lots.sort_unstable();
        lots.into_iter().take(SUBSTITUTES).map(|(_, other)| other).collect()
    }

    fn alive_besides(&self, id: &MemberId) -> impl Iterator<Item = &MemberId> {
        let alive =
            self.peers.iter().filter(move |(other, peer)| *other != id && peer.standing == Standing::Alive);
        alive.map(|(other, _)| other)
    }

    /// Begins, goes on or ends to watch `id`.
    pub(super) fn reconsider_watching(&mut self, now: Instant, id: MemberId) {
        if self.is_watcher_of(&self.id(), &id) && !self.table.is_proven(&id) {
            // It counts on us from now on.
            self.ask(now, id, FIRST_PINGS, FIRST_PINGS_APART);
        }
        let role = self.role_for(now, &id);
        self.watches += 1;
        let number = self.watches;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match (role, &mut peer.watching) {
            (None, watching) => *watching = None,
            (Some(role), Some(watching)) if watching.role == role => {}
            (Some(role), watching) => {
                self.looked.forsaken |= role != Role::Named;
                *watching = Some(Box::new(Watching::new(role, number)));
                let silent = now.saturating_duration_since(peer.silent_since()) > SILENCE_UNDECIDED;
                let (wait, asks) = match role {
                    // Silence before this is not what its beacons to us were late by.
                    Role::Named => (SILENCE_MIN, false),
                    Role::Forsaken | Role::Undecided if silent => (ASK_BRIEFLY, true),
                    Role::Forsaken | Role::Undecided => (ASK_AHEAD, false),
                };
                self.timers.arm(now + wait, Timer::Silence(id, number));
                if asks {
                    self.ask(now, id, 2, ASK_BRIEFLY / 3);
                }
            }
        }
    }

    /// Looks at all who might want watching, and asks those that nothing was heard of for long. O(members), but not more
    /// often than that finds anybody: where nothing has happened since the last look and nobody is in doubt, not before
    /// somebody can have been silent for long.
    pub(super) fn look_around(&mut self, now: Instant) {
        self.timers.arm(now + LOOK, Timer::Look);
        if !self.is_about_to_look_at_all(now) {
            return;
        }
        // Watchers come and go by events alone.
        let changed = std::mem::replace(&mut self.looked.event, self.event_number) != self.event_number;
        let most = self.unheard_most(now);
        let mut unheard = Vec::new();
        let mut forsaken = Vec::new();
        let gone = || self.peers.iter().filter(|(_, peer)| peer.standing.is_gone()).map(|(id, _)| id);
        let gone = if changed { marks(gone()) } else { 0 };
        let (mut doubted, mut stands_in) = (false, false);
        let mut earliest = now;
        for (id, peer) in &self.peers {
            if peer.standing.is_gone() {
                continue;
            }
            let stand_in = peer.watching.as_ref().is_some_and(|watching| watching.role != Role::Named);
            let lately =
                peer.sign.max(self.looked.signs).filter(|sign| now.saturating_duration_since(*sign) <= most);
            if let Some(sign) = lately
                && !changed
                && peer.doubt.is_none()
                && !stand_in
            {
                earliest = earliest.min(sign);
                continue;
            }
            let Some(view) = &peer.view else { continue };
            // Whoever names somebody that does not have the mark of any who is gone is not forsaken.
            let is_forsaken =
                || changed && peer.named & !gone == 0 && !self.has_living(&view.record.watchers);
            let sign = self.looked.signs.map_or(peer.last_sign(), |signs| signs.max(peer.last_sign()));
            earliest = earliest.min(sign);
            let silent = now.saturating_duration_since(sign) > most && !peer.mute;
            if silent && unheard.len() < UNHEARD_ASKED_MAX {
                unheard.push(*id);
            }
            let undecided = peer.doubt.as_ref().is_some_and(|doubt| self.is_undecided(now, id, doubt));
            doubted |= peer.doubt.is_some();
            stands_in |= stand_in;
            if stand_in || undecided || is_forsaken() {
                forsaken.push(*id);
            }
        }
        self.looked.doubted = doubted;
        self.looked.forsaken = stands_in || !forsaken.is_empty();
        self.looked.earliest = Some(earliest);
        for id in forsaken {
            self.reconsider_watching(now, id);
        }
        for id in unheard {
            self.doubt_unheard(now, id, most);
        }
    }

    /// For how long nothing may be heard of a member before it is asked.
    fn unheard_most(&self, now: Instant) -> Duration {
        if self.is_storm(now) {
            UNHEARD_MIN_IN_STORM.max(self.beacon_period().mul_f64(UNHEARD_PERIODS_IN_STORM))
        } else {
            UNHEARD_MIN.max(self.beacon_period() * UNHEARD_PERIODS)
        }
    }

    /// Whether somebody may have been silent for long, or something has changed on which watching depends: all members are looked
    /// at then, twice a second.
    fn is_about_to_look_at_all(&self, now: Instant) -> bool {
        let earliest = self.looked.earliest.max(self.looked.signs);
        !self.looked.is_settled(self.event_number) || !self.is_recent_sign(now, earliest)
    }

    fn is_recent_sign(&self, now: Instant, at: Option<Instant>) -> bool {
        at.is_some_and(|at| now.saturating_duration_since(at) <= self.unheard_most(now))
    }

    /// Whether something depends on the signs of members in words that a caller keeps back, when we look around now.
    #[must_use]
    pub fn looks_for_signs(&self, now: Instant) -> bool {
        let are_known = self.is_calm(now) && self.is_recent_sign(now, self.looked.signs);
        !are_known && self.is_about_to_look_at_all(now)
    }

    /// Whether nobody is in doubt, and not many have fallen lately.
    #[must_use]
    pub fn is_calm(&self, now: Instant) -> bool {
        !self.looked.doubted && !self.do_many_fall(now)
    }

    /// All members that are not gone have given a sign since then, or have become known since, in words that a caller keeps back:
    /// see [`lets_wait_until`](Self::lets_wait_until).
    pub fn all_gave_signs_since(&mut self, at: Instant) {
        self.looked.signs = self.looked.signs.max(Some(at));
    }

    /// Nothing was heard of `id` for long, and nobody else says that it is down: asked, and if that fails, accused by us
    /// alone, so that whoever hears it can say so.
    fn doubt_unheard(&mut self, now: Instant, id: MemberId, most: Duration) {
        self.settle_raw(now, id);
        let Some(peer) = self.peers.get(&id) else { return };
        let doubt = peer.doubt.as_ref();
        // In a storm it is enough that somebody has said so, unless that leads to nothing.
        let said = self.is_storm(now) && doubt.is_some_and(|doubt| !self.is_undecided(now, &id, doubt));
        if said || peer.watching.is_some() || doubt.is_some_and(|doubt| doubt.has_vote_of(&self.id())) {
            return;
        }
        if now.saturating_duration_since(peer.last_sign()) < most {
            return;
        }
        let unanswered = peer.unanswered.is_some_and(|at| now.saturating_duration_since(at) < UNHEARD_MIN);
        if unanswered && !self.is_in_doubt(now) {
            self.vote(now, id);
        } else {
            let (times, apart) = if self.is_storm(now) { (3, 50) } else { (4, 100) };
            self.ask(now, id, times, Duration::from_millis(apart));
        }
    }

    /// It has said its first words and does not answer: gone before anybody watched it, or never there. Or it named us in our
    /// life before this one.
    pub(super) fn doubt_unproven(&mut self, now: Instant, id: MemberId) {
        let unproven = self.table.get(&id).is_some_and(|entry| !entry.proven);
        let voted = |peer: &Peer| peer.doubt.as_ref().is_some_and(|doubt| doubt.has_vote_of(&self.id()));
        let settled = self.peers.get(&id).is_none_or(|peer| peer.standing.is_gone() || voted(peer));
        if unproven && !settled && !self.is_in_doubt(now) && self.speaks_for(&id) {
            self.vote(now, id);
        }
    }

    pub(super) fn is_in_doubt(&self, now: Instant) -> bool {
        self.doubted_until(now).is_some()
    }

    /// A silence timer. Votes once the silence has lasted its limit.
    pub(super) fn check_silence(&mut self, now: Instant, id: MemberId, number: u64) {
        let Some(watching) = self.watching(&id).filter(|watching| watching.number == number) else { return };
        let (limit, refused) = (watching.limit(), watching.refused);
        let Some(peer) = self.peers.get(&id) else { return };
        if peer.standing.is_gone() {
            return;
        }
        let limit = if peer.is_flapping(now) { limit * 2 } else { limit };
        let refused = refused.is_some_and(|at| now.saturating_duration_since(at) < REFUSED_FOR);
        let limit = if refused { SILENCE_REFUSED } else { limit };
        let again = Timer::Silence(id, number);
        if now < peer.silent_since() + limit {
            let due = peer.silent_since() + limit;
            let ahead = due.checked_sub(ASK_AHEAD).unwrap_or(due);
            if now >= ahead {
                self.ask(now, id, 3, Duration::from_millis(60));
            }
            self.timers.arm(if now < ahead { ahead } else { due }, again);
            return;
        }
        self.settle_raw(now, id);
        let Some(peer) = self.peers.get(&id) else { return };
        if now < peer.silent_since() + limit {
            self.timers.arm(now + ASK_AHEAD, again);
            return;
        }
        if self.many_fell_silent(now) {
            self.counters.many_silent += 1;
            self.storm.silent = Some(now);
        }
        if let Some(until) = self.doubted_until(now) {
            let spread = if self.is_storm(now) { self.up_to(STORM) } else { Duration::ZERO };
            self.timers.arm(until + spread, again);
            return;
        }
        let withheld = self.watching(&id).and_then(|watching| watching.withheld_until);
        if let Some(until) = withheld.filter(|until| *until > now) {
            self.timers.arm(until, again);
            return;
        }
        self.vote(now, id);
        self.timers.arm(now + VOTE_AGAIN, again);
    }

    fn watching(&self, id: &MemberId) -> Option<&Watching> {
        self.peers.get(id)?.watching.as_deref()
    }

    /// Many fall silent together.
    pub(super) fn do_many_fall(&self, now: Instant) -> bool {
        let silent = self.storm.silent.is_some_and(|at| now < at + DOUBT + STORM);
        silent || self.storm.accused.is_on(now)
    }

    /// They did a moment ago: their verdicts are on their way from everywhere, and those that need longest are still open.
    pub(super) fn is_storm(&self, now: Instant) -> bool {
        self.do_many_fall(now) || self.storm.accused.was_on_within(now, AFTERMATH)
    }

    /// There is a storm, and few have been accused for a moment: whoever is in doubt only now has missed what others heard.
    pub(super) fn is_wave_over(&self, now: Instant) -> bool {
        self.is_storm(now) && !self.storm.accused.is_swelling(now)
    }

    /// Until when our own ears are not to be trusted, if they are not.
    fn doubted_until(&self, now: Instant) -> Option<Instant> {
        let silent = self.storm.silent.filter(|_| !self.storm.accused.is_on(now)).map(|at| at + DOUBT);
        self.doubt_until.max(silent).filter(|until| *until > now)
    }

    /// A watcher of one more says that it is silent. Where they say so of many, it is not our ears: we say what we know.
    /// Only watchers count, for few have named any one of them: no liar makes a storm alone.
    pub(super) fn note_accused(&mut self, now: Instant) {
        let was_on = self.storm.accused.is_on(now);
        self.storm.accused.note(now);
        if was_on || !self.storm.accused.is_on(now) || self.storm.silent.is_none() {
            return;
        }
        let silent = self.peers.iter().filter(|(_, peer)| {
            peer.watching.is_some() && !peer.standing.is_gone() && peer.silent_since() + SILENCE_MIN <= now
        });
        let silent: Vec<MemberId> = silent.map(|(id, _)| *id).collect();
        for id in silent {
            self.watches += 1;
            let number = self.watches;
            let wait = self.up_to(STORM);
            if let Some(watching) = self.peers.get_mut(&id).and_then(|peer| peer.watching.as_mut()) {
                watching.number = number;
                self.timers.arm(now + wait, Timer::Silence(id, number));
            }
        }
    }

    /// More than 30 % of at least four targets silent together, and not yet doubted for it: we may be the deaf one.
    fn many_fell_silent(&self, now: Instant) -> bool {
        if self.storm.silent.is_some_and(|at| now < at + 6 * DOUBT) || self.is_in_doubt(now) {
            return false;
        }
        let targets = || {
            let named =
                |peer: &&Peer| peer.watching.as_ref().is_some_and(|watching| watching.role == Role::Named);
            self.peers.values().filter(|peer| !peer.standing.is_gone()).filter(named)
        };
        let silent = targets().filter(|peer| peer.silent_since() + SILENCE_MIN <= now).count();
        let all = targets().count();
        all >= TARGETS_MIN && silent * 10 > all * 3
    }

    /// Our own loop ran late: what we did not hear meanwhile is no evidence.
    pub(super) fn note_lateness(&mut self, now: Instant, due: Instant) {
        if now.saturating_duration_since(due) > LATE {
            self.counters.late += u64::from(!self.is_in_doubt(now));
            self.doubt_until = Some(now + DOUBT);
        }
    }

    /// Others prove that a member lives whom we do not hear: our vote is worth nothing for a while.
    pub(super) fn withhold(&mut self, now: Instant, id: MemberId) {
        let Some(watching) = self.peers.get_mut(&id).and_then(|peer| peer.watching.as_mut()) else { return };
        watching.withheld = (watching.withheld * 2).clamp(WITHHELD_MIN, WITHHELD_MAX);
        watching.withheld_until = Some(now + watching.withheld);
    }

    /// A pulse of `id` came from itself, `gap` after the one before.
    pub(super) fn note_gap(&mut self, id: &MemberId, gap: Duration) {
        if let Some(watching) = self.peers.get_mut(id).and_then(|peer| peer.watching.as_mut()) {
            watching.note_gap(gap);
            watching.refused = None;
            watching.withheld = Duration::ZERO;
            watching.withheld_until = None;
        }
    }

    /// The host of `id` says that nobody listens at its port. Votes early if the beacons stopped, too.
    pub(super) fn note_refused(&mut self, now: Instant, id: MemberId) {
        self.watches += 1;
        let number = self.watches;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let since = peer.silent_since();
        let Some(watching) = peer.watching.as_mut() else { return };
        watching.refused = Some(now);
        watching.number = number;
        self.timers.arm(now.max(since + SILENCE_REFUSED), Timer::Silence(id, number));
    }

    /// `id` was heard beyond doubt: a pong to our nonce, two beacons in order, or a proof at its listener.
    pub(super) fn prove(&mut self, now: Instant, id: MemberId) {
        if self.table.prove(&id) {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.asking = None;
            }
            self.note_known(&id);
            self.reconsider_watching(now, id);
            self.choose_watchers_soon(now);
            self.publish(now, id, Some(EventKind::Updated));
        }
    }

    /// It proved its key at its listener.
    pub fn proved(&mut self, now: Instant, id: MemberId) {
        self.prove(now, id);
    }

    /// Where the private socket of `id` is.
    pub(super) fn unicast_address(&self, id: &MemberId) -> Option<std::net::SocketAddr> {
        let record = &self.table.get(id)?.record.as_ref()?.value;
        let from = self.peers.get(id).and_then(|peer| peer.from);
        if let Some(mut at) = from.filter(|_| record.unicast_port != 0) {
            at.set_port(record.unicast_port);
            return Some(at);
        }
        self.addresses_of(record, None, record.unicast_port).into_iter().next()
    }

    /// A pulse or record of `id` came from itself: two in order prove it.
    pub(super) fn heard(&mut self, now: Instant, id: MemberId, stamp: Stamp) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let in_order = peer.last_pulse.is_some_and(|last| last < stamp && last.epoch == stamp.epoch);
        peer.last_pulse = Some(stamp);
        peer.checked = Some(now);
        if in_order {
            self.prove(now, id);
        }
    }

    /// It has begun a new life: timers of the last one mean nothing any more.
    pub(super) fn watch_new_life(&mut self, now: Instant, id: MemberId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.asking = None;
        peer.watching = None;
        peer.raw = None;
        peer.known = now;
        self.reconsider_watching(now, id);
    }

    /// Sends the same bytes to each of these that has an address.
    pub(super) fn send_to_each(&mut self, ids: &[MemberId], bytes: &bytes::Bytes) {
        for id in ids {
            if let Some(at) = self.unicast_address(id) {
                self.transmits
                    .push_back(super::Transmit { to: Destination::Unicast(at), bytes: bytes.clone() });
            }
        }
    }
}

/// The place of `other` among those who may stand in for the watchers of `id`.
fn lot(id: &MemberId, other: &MemberId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&id.0).update(&other.0);
    *hasher.finalize().as_bytes()
}
