//! Finding the others: hello, offer, cookie; their table at once, and again whenever ours turns out to lack something.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::crowd::{GROUP_MIN, Tally};
use super::meet::FOR_YOU;
use super::{Destination, Fetch, Membership, Source, Timer};
use crate::member::{MemberId, Stamp};
use crate::verify::Refused;
use crate::wire::{Cookie, Header, Hello, Message, Offer, kind};

/// The role of those who take requests.
pub(super) const INTERMEDIARY: &str = "intermediary";

/// For so long after its first word a node is starting: newer words of its key are those of an earlier life.
pub(super) const STARTING: Duration = Duration::from_secs(2);
/// When the hellos of a start go out: the first when one can tell that one starts in a crowd.
const HELLOS: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];
/// Nobody has answered by then: nobody is there.
const NOBODY: Duration = Duration::from_millis(500);
/// A node that knows nobody, but hears somebody, asks again this often.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// When a first table could not be had it is asked again after this, and after twice this. Guessed.
const ASK_SOON: Duration = Duration::from_millis(300);
/// After so long a start goes on without a table: the digests will bring it.
const START_MAX: Duration = Duration::from_secs(5);
/// A table that has not come within this is asked for elsewhere too: 20,000 members take half of it.
const FETCH_PATIENCE: Duration = Duration::from_secs(2);
/// So many tables are fetched for offers within a second.
const TAKEN_MAX: u32 = 2;
/// So many members answer each attempt.
const ANSWERS: usize = 3;
/// A cookie is good for one to two of these.
const COOKIE_PERIOD: Duration = Duration::from_secs(30);
/// Addresses admitted by cookie and offers remembered, at most.
const REMEMBERED_MAX: usize = 256;

/// Hellos remembered: copies of one come within milliseconds, and fifty nodes may start at once.
const ANSWERED_MAX: usize = 64;

/// State of finding the others.
#[derive(Debug)]
pub(super) struct Joining {
    nonce: u64,
    secret: u64,
    cookie: Option<[u8; 16]>,
    greeted: Vec<SocketAddr>,
    offered: bool,
    /// When the last round of hellos began.
    asked: Option<Instant>,
    complete: bool,
    offers: BTreeMap<MemberId, Offered>,
    /// Who said first that many come at once.
    told_of_crowd: Option<MemberId>,
    /// Tables fetched for offers.
    taken: Tally,
    pub(super) fetching: Option<MemberId>,
    admitted: BTreeMap<IpAddr, Instant>,
    /// The latest hellos, so that each is answered once, by however many paths it comes.
    answered: VecDeque<(MemberId, Stamp)>,
}

/// A table that somebody offers.
#[derive(Debug)]
struct Offered {
    digest: u64,
    members: usize,
    at: SocketAddr,
}

impl Joining {
    pub(super) fn new(nonce: u64, secret: u64) -> Self {
        Self {
            nonce,
            secret,
            cookie: None,
            greeted: Vec::new(),
            offered: false,
            asked: None,
            complete: false,
            offers: BTreeMap::new(),
            told_of_crowd: None,
            taken: Tally::default(),
            fetching: None,
            admitted: BTreeMap::new(),
            answered: VecDeque::new(),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn give_up(&mut self) {
        if !self.offered {
            self.complete = true;
        }
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        self.admitted.retain(|_, since| now.saturating_duration_since(*since) < 2 * COOKIE_PERIOD);
    }

    pub(super) fn has_answered(&self, header: &Header) -> bool {
        header.kind == kind::HELLO && self.answered.contains(&(header.author, header.stamp))
    }

    pub(super) fn answers(&mut self, header: &Header) {
        if self.answered.len() == ANSWERED_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back((header.author, header.stamp));
    }

    pub(super) fn admitted(&self) -> impl Iterator<Item = IpAddr> {
        self.admitted.keys().copied()
    }

    pub(super) fn is_admitted(&self, ip: IpAddr) -> bool {
        self.admitted.contains_key(&ip.to_canonical())
    }
}

impl Membership {
    /// Asks who is there, on every path.
    pub(super) fn begin_joining(&mut self, now: Instant) {
        self.joining.offered = false;
        self.joining.told_of_crowd = None;
        self.joining.asked = Some(now);
        self.timers.disarm(|timer| matches!(timer, Timer::Hello(_) | Timer::NobodyThere));
        for (attempt, after) in (0..).zip(&HELLOS) {
            self.timers.arm(now + *after, Timer::Hello(attempt));
        }
        self.timers.arm(now + NOBODY, Timer::NobodyThere);
    }

    /// Asks everybody again who is there, if that was not done lately. Returns whether it was done.
    pub(super) fn ask_everybody_again(&mut self, now: Instant) -> bool {
        let lately = self.joining.asked.is_some_and(|at| now < at + ASK_AGAIN);
        let may = self.joining.complete && !lately && self.joining.fetching.is_none();
        if may {
            self.begin_joining(now);
        }
        may
    }

    /// The first tables could not be had: asks again soon, and after a while goes on without.
    fn ask_again_soon(&mut self, now: Instant) {
        if now.saturating_duration_since(self.started) >= START_MAX {
            self.joining.complete = true;
            return;
        }
        self.joining.offered = false;
        self.timers.arm(now + ASK_SOON, Timer::Hello(0));
        self.timers.arm(now + 2 * ASK_SOON, Timer::Hello(1));
        self.timers.arm(now + 2 * ASK_SOON + NOBODY, Timer::NobodyThere);
    }

    /// Wishes for a table; whoever stands still and does not give it within a while is passed over.
    pub(super) fn wish(&mut self, now: Instant, from: MemberId, at: Vec<SocketAddr>) {
        self.joining.fetching = Some(from);
        self.timers.arm(now + FETCH_PATIENCE, Timer::Overdue(from));
        self.fetches.push_back(Fetch { from, at });
    }

    /// A table has not come yet; should it come later it is merged all the same.
    pub(super) fn overdue(&mut self, now: Instant, from: MemberId) {
        if self.joining.fetching == Some(from) {
            self.fetch_failed(now, from);
        }
    }

    /// Seeds and remembered members to be asked besides, at their discovery port.
    pub fn greet(&mut self, at: Vec<SocketAddr>) {
        self.joining.greeted = at;
        self.joining.greeted.truncate(REMEMBERED_MAX);
        if self.record_said.is_some() {
            let bytes = self.hello(0);
            for at in self.joining.greeted.clone() {
                self.send_to(at, bytes.clone());
            }
            if let Some((_, record)) = self.record_said.clone() {
                for at in self.joining.greeted.clone() {
                    self.send_to(at, record.clone());
                }
            }
        }
    }

    /// Whether the table has been fetched, or nobody answered.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.joining.is_complete()
    }

    /// Asks who is there. In a crowd everybody has just said so, unless there are many besides of whom nothing is known.
    pub(super) fn say_hello_in_turn(&mut self, now: Instant, attempt: u8) {
        let told = self.crowd.is_one(now) && self.has_few_strangers();
        if self.joining.offered || self.leaving || told && self.joining.greeted.is_empty() {
            return;
        }
        let bytes = self.hello(attempt);
        for at in self.joining.greeted.clone() {
            self.send_to(at, bytes.clone());
        }
        if !told {
            self.send(Destination::Everyone, bytes);
        }
    }

    pub(super) fn hello(&mut self, attempt: u8) -> bytes::Bytes {
        let hello = Message::Hello(Hello {
            nonce: self.joining.nonce,
            attempt,
            digest: self.digest(),
            cookie: self.joining.cookie,
            island: self.island_given.clone(),
            unicast_port: self.record.unicast_port,
            asking: false,
        });
        self.sign(&hello)
    }

    pub(super) fn hear_hello(&mut self, now: Instant, from: Source, hello: &Hello) -> Result<(), Refused> {
        if self.leaving || self.record_said.is_none() {
            return Err(Refused::Unasked);
        }
        let strangers =
            hello.island.as_ref().is_some_and(|island| *island != self.record.island && self.is_firm());
        if strangers {
            return Err(Refused::Island);
        }
        let ip = from.addr.ip().to_canonical();
        let mut to = from.addr;
        to.set_port(hello.unicast_port);
        if !self.is_on_link(ip) {
            let period = self.cookie_period(now);
            let good = hello.cookie.is_some_and(|cookie| {
                cookie == self.cookie_for(ip, period) || cookie == self.cookie_for(ip, period.wrapping_sub(1))
            });
            if !good {
                let answer = Cookie { nonce: hello.nonce, cookie: self.cookie_for(ip, period) };
                return self.answer(to, &Message::Cookie(answer));
            }
            if self.joining.admitted.len() < REMEMBERED_MAX {
                self.joining.admitted.insert(ip, now);
                self.neighbours_changed = true;
            }
        } else if !self.is_our_turn(now, hello) {
            return Ok(());
        }
        let offer = Offer {
            nonce: hello.nonce,
            observed: from.addr,
            digest: self.digest(),
            members: u32::try_from(self.table.len() + 1).unwrap_or(u32::MAX),
            http_port: self.record.http_port,
            island: self.record.island.clone(),
            island_given: self.record.island_given,
            intermediary: self.record.has_role(INTERMEDIARY) && !self.record.draining,
            crowd: self.crowd.is_one(now),
        };
        self.answer(to, &Message::Offer(offer))
    }

    fn answer(&mut self, to: SocketAddr, message: &Message) -> Result<(), Refused> {
        let bytes = self.sign(message);
        self.send_to(to, bytes);
        Ok(())
    }

    /// Everybody draws the same lots, so that three answer each attempt; after the last three it is the first three's
    /// turn again, for on a small island an answer that was lost has nobody else to come from. Who only asks for an intermediary gets one.
    fn is_our_turn(&self, now: Instant, hello: &Hello) -> bool {
        if hello.asking && self.record.draining {
            return false;
        }
        if hello.attempt == FOR_YOU {
            return true;
        }
        // Where many start others know more of each other.
        if !hello.asking && self.crowd.is_one(now) && !self.joining.complete {
            return false;
        }
        let lot = |id: &MemberId| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&hello.nonce.to_be_bytes()).update(&id.0);
            let mut first = [0; 8];
            first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
            (u64::from_le_bytes(first), *id)
        };
        let wanted = |member: &crate::member::Member| {
            !member.standing.is_gone()
                && (!hello.asking || member.has_role(INTERMEDIARY) && !member.record.draining)
        };
        if hello.asking && !self.record.has_role(INTERMEDIARY) {
            return false;
        }
        let mine = lot(&self.id());
        let attempt = usize::from(hello.attempt);
        // Every member of a large island hears every newcomer: most can tell at a glance that others come first.
        if !hello.asking && is_far_back(mine.0, self.table.len(), ANSWERS * (attempt + 1)) {
            return false;
        }
        // More than come before this attempt's three make no difference.
        let enough = ANSWERS * attempt + 1;
        let there = 1 + self.members().filter(|member| wanted(member)).take(enough).count();
        let turn = attempt % there.div_ceil(ANSWERS);
        let last = ANSWERS * (turn + 1);
        let earlier = self.peers.iter().filter(|(id, _)| lot(id) < mine);
        let earlier = earlier.filter_map(|(_, peer)| peer.view.as_ref());
        let before = earlier.filter(|member| wanted(member)).take(last).count();
        (last - ANSWERS..last).contains(&before)
    }

    fn cookie_period(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_secs() / COOKIE_PERIOD.as_secs()
    }

    fn cookie_for(&self, ip: IpAddr, period: u64) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(b"isle cookie")
            .update(&self.joining.secret.to_be_bytes())
            .update(&period.to_be_bytes());
        match ip {
            IpAddr::V4(ip) => hasher.update(&ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => hasher.update(&ip.octets()),
        };
        let mut cookie = [0; 16];
        cookie.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        cookie
    }

    pub(super) fn hear_cookie(&mut self, cookie: Cookie) -> Result<(), Refused> {
        if cookie.nonce != self.joining.nonce || self.joining.cookie == Some(cookie.cookie) {
            return Err(Refused::Unasked);
        }
        self.joining.cookie = Some(cookie.cookie);
        let bytes = self.hello(0);
        for at in self.joining.greeted.clone() {
            self.send_to(at, bytes.clone());
        }
        Ok(())
    }

    pub(super) fn hear_offer(
        &mut self,
        now: Instant,
        from: Source,
        id: MemberId,
        offer: &Offer,
    ) -> Result<(), Refused> {
        if offer.nonce != self.joining.nonce {
            return Err(Refused::Unasked);
        }
        if offer.island_given && self.island_given.as_ref().is_some_and(|ours| *ours != offer.island) {
            return Err(Refused::Island);
        }
        self.joining.offered = true;
        if offer.crowd {
            self.hear_of_crowd(now, id);
        }
        self.consider_offered_island(now, id, &offer.island, offer.island_given);
        if offer.http_port == 0 || self.joining.offers.len() >= REMEMBERED_MAX {
            return Ok(());
        }
        let at = SocketAddr::new(from.addr.ip(), offer.http_port);
        let at = match (at, from.addr) {
            (SocketAddr::V6(mut at), SocketAddr::V6(seen)) => {
                at.set_scope_id(seen.scope_id());
                SocketAddr::V6(at)
            }
            (at, _) => at,
        };
        let members = usize::try_from(offer.members).unwrap_or(usize::MAX);
        self.joining.offers.insert(id, Offered { digest: offer.digest, members, at });
        self.fetch_offered(now);
        Ok(())
    }

    /// Whoever answers says that many come at once: by the time that we had heard that ourselves, most that is said for each
    /// newcomer would be said. Believed when two say it, so that nobody alone makes us content with one table.
    fn hear_of_crowd(&mut self, now: Instant, id: MemberId) {
        if self.joining.told_of_crowd.get_or_insert(id) != &id {
            self.crowd.is_told_of(now);
        }
    }

    /// Fetches from the first offer, then from one more that differs from what we have by then, so that nobody alone can hide
    /// members from us. In a crowd all differ, and most know little: there a second table is worth it only from somebody who lists
    /// many more than we do by then; who is missing shows by its beacons.
    fn fetch_offered(&mut self, now: Instant) {
        if self.joining.fetching.is_some() {
            return;
        }
        if self.joining.complete {
            let (ours, members) = (self.digest(), self.table.len());
            let may_take = self.joining.taken.count(now) < TAKEN_MAX;
            let enough = self.crowd.is_one(now).then_some(members + GROUP_MIN.max(members / 4));
            let is_worth_it = |offer: &Offered| {
                may_take && offer.digest != ours && enough.is_none_or(|enough| offer.members > enough)
            };
            self.joining.offers.retain(|_, offer| is_worth_it(offer));
        }
        let best = self.joining.offers.iter().max_by_key(|(_, offer)| offer.members).map(|(id, _)| *id);
        if let Some((id, offer)) = best.and_then(|id| self.joining.offers.remove_entry(&id)) {
            self.joining.taken.note(now);
            self.wish(now, id, vec![offer.at]);
        }
    }

    pub(super) fn has_merged(&mut self, now: Instant, from: MemberId, news: usize) {
        self.joining.complete = true;
        if self.joining.fetching == Some(from) {
            self.joining.fetching = None;
        }
        if news == 0 {
            self.difference.was_unhelpful(now, from);
        } else {
            self.difference.was_helpful(&from);
        }
        self.fetch_offered(now);
    }

    /// A fetch came to nothing; the next in line is asked.
    pub fn fetch_failed(&mut self, now: Instant, from: MemberId) {
        if self.joining.fetching == Some(from) {
            self.joining.fetching = None;
        }
        self.difference.was_unhelpful(now, from);
        self.fetch_offered(now);
        if self.joining.fetching.is_none() && !self.joining.complete {
            self.ask_again_soon(now);
        }
    }
}

/// Whether a lot, evenly drawn from all numbers of 64 bits, is certainly not among the `first` lowest of `count`: where it is expected
/// is so far behind that one draw in a billion may be judged wrongly (of a Poisson distribution six deviations, and 14 for the few).
pub(super) fn is_far_back(lot: u64, count: usize, first: usize) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let expected = lot as f64 / u64::MAX as f64 * count as f64;
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let first = first as f64;
    expected > first + 6.0 * first.sqrt() + 14.0
}
