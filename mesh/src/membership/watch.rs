//! Who is silent, who answers: own ears first, then questions, and only then a verdict.
//!
//! Every node judges for itself. A member that has been silent for its limit is suspect and is asked; only one that
//! answers nothing is down. The verdict is ours alone (`unilateral` to others), and ends with the member's next word.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::leave::Relay;
use super::{Membership, Source, Timer};
use crate::event::EventKind;
use crate::member::{Epoch, Member, MemberId, Stamp, Standing};
use crate::verify::Refused;
use crate::wire::{Message, Ping, Pong};

/// Shortest silence that makes suspect: five beacons of the shortest period may be lost.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// So many beacon periods of silence make suspect.
const SILENCE_PERIODS: u32 = 6;
/// A suspect is asked so often, evenly, over `ASKING`: at 20 % loss each way all are lost once in 3,500.
const ASKS: u8 = 8;
const ASKING: Duration = Duration::from_millis(1500);
/// Later than this, our own loop is the likelier culprit.
const LATE: Duration = Duration::from_millis(100);
/// So long we trust nobody's silence after that, or after many fell silent at once.
const DOUBT: Duration = Duration::from_secs(1);
/// Newcomers are asked once after up to this for each member there is: not all at once.
const FIRST_PING_EACH: Duration = Duration::from_millis(1);

/// What we know of a member besides its words.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) standing: Standing,
    pub(super) since: Instant,
    /// When it was last heard by ourselves.
    pub(super) heard: Option<Instant>,
    /// Number of its silence timer: others are stale.
    watch: u64,
    /// When others say to have heard it last; for dates alone.
    pub(super) told: Option<Instant>,
    /// Where its last word came from.
    pub(super) from: Option<SocketAddr>,
    pub(super) asking: Option<Asking>,
    pub(super) relay: Option<Relay>,
    pub(super) view: Option<Arc<Member>>,
    /// When it became known: silence counts from here as long as nothing is heard.
    known: Instant,
    last_pulse: Option<Stamp>,
}

/// Questions to a member that are not answered yet.
#[derive(Debug)]
pub(super) struct Asking {
    nonce: u64,
    sent: u8,
}

impl Peer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            standing: Standing::Alive,
            since: now,
            heard: None,
            watch: 0,
            told: None,
            from: None,
            asking: None,
            relay: None,
            view: None,
            known: now,
            last_pulse: None,
        }
    }
}

impl Membership {
    fn silence_limit(&self) -> Duration {
        SILENCE_MIN.max(self.beacon_period() * SILENCE_PERIODS)
    }

    /// Starts to listen for silence; what was armed for this member before is stale from here on.
    pub(super) fn arm_silence(&mut self, now: Instant, id: MemberId) {
        let at = now + self.silence_limit() / 2;
        self.watches += 1;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.watch = self.watches;
            self.timers.arm(at, Timer::Silence(id, self.watches));
        }
    }

    pub(super) fn arm_first_ping(&mut self, now: Instant, id: MemberId) {
        let spread = FIRST_PING_EACH * u32::try_from(self.table.len()).unwrap_or(u32::MAX);
        let wait = self.up_to(spread);
        self.timers.arm(now + wait, Timer::FirstAsk(id));
    }

    /// A pulse of `id` came from itself.
    pub(super) fn heard(&mut self, now: Instant, id: MemberId, stamp: Stamp) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.heard = Some(now);
        let in_order = peer.last_pulse.is_some_and(|last| last < stamp && last.epoch == stamp.epoch);
        peer.last_pulse = Some(stamp);
        if in_order {
            self.prove(now, id);
        }
        if !self.alive_again(now, id) {
            self.publish(now, id, None);
        }
    }

    /// A word of a doubted member: it is back. Returns whether that was told.
    pub(super) fn alive_again(&mut self, now: Instant, id: MemberId) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        peer.asking = None;
        let was = peer.standing;
        if !matches!(was, Standing::Suspect | Standing::Down) {
            return false;
        }
        peer.standing = Standing::Alive;
        peer.since = now;
        if was == Standing::Suspect {
            self.counters.false_suspicions += 1;
        }
        self.table.set_down(&id, None, now);
        self.arm_silence(now, id);
        self.publish(now, id, Some(EventKind::Back));
        true
    }

    /// `id` was heard beyond doubt: a pong to our nonce, two beacons in order, or a proof at its listener.
    pub(super) fn prove(&mut self, now: Instant, id: MemberId) {
        if self.table.prove(&id) {
            self.publish(now, id, Some(EventKind::Updated));
        }
    }

    /// It proved its key at its listener.
    pub fn proved(&mut self, now: Instant, id: MemberId) {
        self.prove(now, id);
    }

    /// A connection to it was refused or reset: asked at once, but never given up for that alone.
    pub fn refused_connection(&mut self, now: Instant, id: MemberId) {
        self.ask(now, id);
    }

    /// It has begun a new life: timers of the last one mean nothing any more.
    pub(super) fn watch_new_life(&mut self, now: Instant, id: MemberId) {
        self.arm_silence(now, id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.asking = None;
        if peer.standing == Standing::Suspect {
            self.ask(now, id);
        }
    }

    fn epoch_of(&self, id: &MemberId) -> Option<Epoch> {
        Some(self.table.get(id)?.record.as_ref()?.stamp.epoch)
    }

    /// Whether a timer for this life of `id` still concerns us.
    fn concerns(&self, id: &MemberId, epoch: Epoch) -> bool {
        self.epoch_of(id) == Some(epoch)
            && !self.table.get(id).is_some_and(super::Entry::has_left)
            && self.peers.get(id).is_some_and(|peer| !peer.standing.is_gone())
    }

    pub(super) fn check_silence(&mut self, now: Instant, id: MemberId, watch: u64) {
        let watched = |peer: &&Peer| peer.watch == watch && peer.standing == Standing::Alive;
        if self.peers.get(&id).filter(watched).is_none() {
            return;
        }
        let limit = self.silence_limit();
        let Some(peer) = self.peers.get(&id) else { return };
        let since = peer.heard.unwrap_or(peer.known);
        if now < since + limit / 2 {
            self.timers.arm(since + limit / 2, Timer::Silence(id, watch));
            return;
        }
        if now < since + limit {
            // Asked in private before it is doubted in public: whoever hears no broadcasts lives on this.
            self.ask(now, id);
            self.timers.arm(since + limit, Timer::Silence(id, watch));
            return;
        }
        if let Some(until) = self.doubt_until.filter(|until| *until > now) {
            self.timers.arm(until, Timer::Silence(id, watch));
            return;
        }
        if self.many_fell_silent(now, limit) {
            self.doubt_until = Some(now + DOUBT);
            self.timers.arm(now + DOUBT, Timer::Silence(id, watch));
            return;
        }
        self.counters.suspicions += 1;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.standing = Standing::Suspect;
            peer.since = now;
            peer.asking = None;
        }
        self.publish(now, id, Some(EventKind::Suspect));
        self.ask(now, id);
    }

    /// More than 30 % of at least four silent together, and not yet doubted for it: we may be the deaf one.
    fn many_fell_silent(&self, now: Instant, limit: Duration) -> bool {
        if self.doubt_until.is_some_and(|until| now < until + 5 * DOUBT) {
            return false;
        }
        let alive = || self.peers.values().filter(|peer| !peer.standing.is_gone() && peer.view.is_some());
        let silent = alive().filter(|peer| peer.heard.unwrap_or(peer.known) + limit <= now).count();
        let all = alive().count();
        all >= 4 && silent * 10 > all * 3
    }

    /// Our own loop ran late: what we did not hear meanwhile is no evidence.
    pub(super) fn note_lateness(&mut self, now: Instant, due: Instant) {
        if now.saturating_duration_since(due) > LATE {
            self.doubt_until = Some(now + DOUBT);
        }
    }

    /// A newcomer is asked once, unless it has proven itself by then.
    pub(super) fn ask_first(&mut self, now: Instant, id: MemberId) {
        if !self.table.get(&id).is_some_and(|entry| entry.proven) {
            self.ask(now, id);
        }
    }

    /// The first question to `id`, unless it is being asked already.
    fn ask(&mut self, now: Instant, id: MemberId) {
        let nonce = self.rng.random();
        let Some(epoch) = self.epoch_of(&id) else { return };
        if !self.concerns(&id, epoch) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.asking.is_none()) else { return };
        peer.asking = Some(Asking { nonce, sent: 0 });
        self.ask_again(now, id, epoch, nonce);
    }

    /// The next question to `id`, or the verdict after the last. Nothing if an answer ended these questions.
    pub(super) fn ask_again(&mut self, now: Instant, id: MemberId, epoch: Epoch, nonce: u64) {
        if !self.concerns(&id, epoch) {
            return;
        }
        let proven = self.table.get(&id).is_some_and(|entry| entry.proven);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let suspect = peer.standing == Standing::Suspect;
        let Some(asking) = peer.asking.as_mut().filter(|asking| asking.nonce == nonce) else { return };
        if asking.sent >= ASKS {
            peer.asking = None;
            if suspect {
                self.give_up(now, id);
            }
            return;
        }
        asking.sent += 1;
        let sent = asking.sent;
        self.say_ping(&id, nonce);
        // Whoever is only unproven is asked with growing patience; a suspect is in a hurry.
        let wait = if suspect || proven { ASKING / u32::from(ASKS) } else { ASKING * u32::from(sent) / 4 };
        self.timers.arm(now + wait, Timer::Ask(id, epoch, nonce));
    }

    fn give_up(&mut self, now: Instant, id: MemberId) {
        // While we doubt our own ears no verdict falls; the questions begin anew.
        if self.doubt_until.is_some_and(|until| until > now) {
            self.ask(now, id);
            return;
        }
        let limit = self.silence_limit();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.standing = Standing::Down;
        peer.since = now;
        // Of whom we were only told, others have known for longer: all are to forget it at about the same time.
        let told = peer.told.filter(|_| peer.heard.is_none()).map(|told| told + limit + ASKING);
        self.table.set_down(&id, Some(told.map_or(now, |told| told.min(now))), now);
        self.publish(now, id, Some(EventKind::Down));
    }

    fn say_ping(&mut self, id: &MemberId, nonce: u64) {
        let Some(entry) = self.table.get(id) else { return };
        let Some(record) = entry.record.as_ref().map(|said| said.value.clone()) else { return };
        let from = self.peers.get(id).and_then(|peer| peer.from);
        let Some(at) = self.addresses_of(&record, from, record.unicast_port).into_iter().next() else {
            return;
        };
        let ping = Message::Ping(Ping { nonce, target: *id, unicast_port: self.record.unicast_port });
        let seq = self.next_seq();
        let bytes = self.identity.sign_word(self.tag, &ping, seq);
        self.send_to(at, bytes);
    }

    pub(super) fn hear_ping(&mut self, from: Source, ping: &Ping) -> Result<(), Refused> {
        if ping.target != self.id() {
            return Err(Refused::NotForUs);
        }
        self.check_on_link(from.addr.ip())?;
        if self.leaving || self.record_said.is_none() {
            return Err(Refused::Unasked);
        }
        let pong = Message::Pong(Pong { nonce: ping.nonce, beacon: self.beacon() });
        let seq = self.next_seq();
        let bytes = self.identity.sign_word(self.tag, &pong, seq);
        let mut at = from.addr;
        at.set_port(ping.unicast_port);
        self.send_to(at, bytes);
        Ok(())
    }

    /// A pong counts only as the answer to our question.
    pub(super) fn check_pong(&self, id: &MemberId, nonce: u64) -> Result<(), Refused> {
        let asked = self.peers.get(id).and_then(|peer| peer.asking.as_ref());
        if asked.is_some_and(|asking| asking.nonce == nonce) { Ok(()) } else { Err(Refused::Unasked) }
    }
}
