//! Membership of one island as a state machine: bytes, times and wishes go in, bytes and events come out.
//!
//! It reads no clock, draws no entropy, opens nothing and waits for nothing. After each input the caller drains
//! [`poll_transmit`](Membership::poll_transmit), [`poll_event`](Membership::poll_event),
//! [`poll_change`](Membership::poll_change) and [`poll_fetch`](Membership::poll_fetch) before the next.
//!
//! | module | subject |
//! |---|---|
//! | `announce` | what we say of ourselves: records, beacons |
//! | `join` | hello, offer, cookie, the table of others |
//! | `watch` | who is silent, who answers |
//! | `leave` | draining, farewells, passing them on |
//! | `island` | which island we count ourselves to |
//! | `timers` | what is due when |
//!
//! Source: NETWORK.md, sections 5 to 9.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::event::{Event, EventKind};
use crate::identity::Identity;
use crate::member::{
    Address, CatalogueSummary, Epoch, Load, Member, MemberId, Reason, Record, Seq, Stamp, Standing,
};
use crate::table::{Advance, Entry, Table, Via};
use crate::transfer::{Transfer, TransferFloor, TransferWord, VerifiedTransfer};
use crate::verify::{Refused, Verified, Word, peek, verify};
use crate::wire::{Header, MeshTag, Message, WIRE_VERSION, kind};

mod announce;
mod island;
mod join;
mod leave;
mod rate;
#[cfg(test)]
mod tests;
mod timers;
mod watch;

use join::Joining;
use rate::Rates;
use timers::{Timer, Timers};
use watch::Peer;

/// What a node is when it starts. What it says of itself later: [`Membership::announce`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which mesh.
    pub tag: MeshTag,
    /// Island name it was given.
    pub island: Option<String>,
    /// Label for people.
    pub name: String,
    /// See [`Record::roles`].
    pub roles: Vec<String>,
    /// See [`Record::tags`].
    pub tags: Vec<(String, String)>,
    /// TCP port of its HTTP listener; 0 for none.
    pub http_port: u16,
    /// UDP port of its private socket.
    pub unicast_port: u16,
    /// Announced instead of the interfaces' addresses, if not empty.
    pub advertise: Vec<Address>,
    /// What it offers.
    pub catalogue: Option<CatalogueSummary>,
    /// Version of its software.
    pub version: String,
}

/// What a node may change of its record while it runs. `None`: as it is.
#[derive(Clone, Debug, Default)]
pub struct Announcement {
    /// Label for people.
    pub name: Option<String>,
    /// See [`Record::roles`].
    pub roles: Option<Vec<String>>,
    /// See [`Record::tags`].
    pub tags: Option<Vec<(String, String)>>,
    /// What it offers; `Some(None)` withdraws it.
    pub catalogue: Option<Option<CatalogueSummary>>,
}

impl Announcement {
    fn apply(&self, record: &mut Record) {
        let Self { name, roles, tags, catalogue } = self.clone();
        if let Some(name) = name {
            record.name = name;
        }
        if let Some(roles) = roles {
            record.roles = roles;
        }
        if let Some(tags) = tags {
            record.tags = tags;
        }
        if let Some(catalogue) = catalogue {
            record.catalogue = catalogue;
        }
    }
}

/// An interface that discovery uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// The kernel's number of it; the scope of its link-local addresses.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its addresses with their networks.
    pub addresses: Vec<Address>,
    /// Reaches this host alone.
    pub loopback: bool,
}

/// Where a datagram came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// Sender, IPv4-mapped addresses as IPv4.
    pub addr: SocketAddr,
    /// Interface it came in by; 0 if not known.
    pub interface: u32,
    /// Whether it came in on the shared discovery port.
    pub shared: bool,
}

/// Bytes to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// To whom.
    pub to: Destination,
    /// One datagram.
    pub bytes: Bytes,
}

/// To whom a datagram goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// By every broadcast and multicast path of every interface, to the discovery port.
    Everyone,
    /// One address.
    Unicast(SocketAddr),
}

/// A wish for another member's table; answered by [`Membership::merge`] or [`Membership::fetch_failed`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// Whose.
    pub from: MemberId,
    /// Its HTTP listener, best first.
    pub at: Vec<SocketAddr>,
}

/// When [`Membership::handle_timeout`] has work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wakeup {
    /// When.
    pub at: Instant,
    /// What for.
    pub why: &'static str,
}

/// Why this node must not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// Somebody else speaks with our key, in this later epoch.
    KeyInUse(Epoch),
    /// The key's epoch could not be raised above this one: disk, or no epoch above.
    NoEpochAbove(Epoch),
}

/// What the machine has counted since it started. Plain numbers; whoever drives it exports them.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Datagrams that were acted upon.
    pub accepted: u64,
    /// Datagrams refused, by reason in the order of [`Refused::ALL`].
    pub refused: [u64; Refused::ALL.len()],
    /// Suspicions raised.
    pub suspicions: u64,
    /// Suspicions that an answer ended.
    pub false_suspicions: u64,
    /// Words passed on for others.
    pub relayed: u64,
}

/// The state machine of one node.
#[derive(Debug)]
pub struct Membership {
    tag: MeshTag,
    identity: Identity,
    seq: Seq,
    rng: SmallRng,
    started: Instant,
    table: Table,
    peers: BTreeMap<MemberId, Peer>,
    timers: Timers,
    /// Counts silence timers.
    watches: u64,
    rates: Rates,
    interfaces: Vec<Interface>,
    advertise: Vec<Address>,
    island_given: Option<String>,
    /// Who brought the name we took over, if we did.
    island_from: Option<MemberId>,
    record: Record,
    record_said: Option<(Stamp, Bytes)>,
    me: Option<Arc<Member>>,
    load: Load,
    load_told: Load,
    beacon_told: Option<Instant>,
    joining: Joining,
    doubt_until: Option<Instant>,
    neighbours_changed: bool,
    leaving: bool,
    /// Our farewell, and how many copies of it are still to be sent.
    farewell: Option<(Bytes, usize)>,
    stop: Option<StopReason>,
    counters: Counters,
    event_number: u64,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    changes: VecDeque<Arc<Member>>,
    fetches: VecDeque<Fetch>,
}

impl Membership {
    /// A node that has not said a word yet. `seed` is all the randomness it will have.
    #[must_use]
    pub fn new(settings: Settings, identity: Identity, seed: u64, now: Instant) -> Self {
        let record = Record {
            name: settings.name,
            roles: settings.roles,
            addresses: settings.advertise.clone(),
            http_port: settings.http_port,
            unicast_port: settings.unicast_port,
            island: settings.island.clone().unwrap_or_else(|| island::UNNAMED.to_owned()),
            island_given: settings.island.is_some(),
            draining: false,
            catalogue: settings.catalogue,
            watchers: Vec::new(),
            protocol: (WIRE_VERSION, WIRE_VERSION),
            version: settings.version,
            tags: settings.tags,
        };
        let mut rng = SmallRng::seed_from_u64(seed);
        Self {
            tag: settings.tag,
            identity,
            seq: Seq(0),
            started: now,
            table: Table::default(),
            peers: BTreeMap::new(),
            timers: Timers::default(),
            watches: 0,
            rates: Rates::default(),
            interfaces: Vec::new(),
            advertise: settings.advertise,
            island_given: settings.island,
            island_from: None,
            record,
            record_said: None,
            me: None,
            load: Load::default(),
            load_told: Load::default(),
            beacon_told: None,
            joining: Joining::new(rng.random(), rng.random()),
            rng,
            doubt_until: None,
            neighbours_changed: true,
            leaving: false,
            farewell: None,
            stop: None,
            counters: Counters::default(),
            event_number: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            changes: VecDeque::new(),
            fetches: VecDeque::new(),
        }
    }

    /// This node's key.
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.identity.id()
    }

    /// This node's identity, for endpoint proofs.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes in one datagram.
    ///
    /// # Errors
    /// Why nothing came of it; nothing but counters has changed then.
    pub fn handle_datagram(&mut self, now: Instant, from: Source, bytes: Bytes) -> Result<(), Refused> {
        let outcome = self.screen(now, from, &bytes).and_then(|header| {
            let word = verify(self.tag, bytes)?;
            self.act_on(now, from, &header, &word)
        });
        self.count(outcome)
    }

    /// Takes in one word whose signature the caller has checked, with all other checks of
    /// [`handle_datagram`](Self::handle_datagram): so a simulation checks a signature once for all who hear it.
    ///
    /// # Errors
    /// As for [`handle_datagram`](Self::handle_datagram).
    pub fn handle_word(&mut self, now: Instant, from: Source, word: &Verified<Word>) -> Result<(), Refused> {
        let screened = self.screen(now, from, &word.bytes);
        let outcome = screened.and_then(|header| self.act_on(now, from, &header, word));
        self.count(outcome)
    }

    fn count(&mut self, outcome: Result<(), Refused>) -> Result<(), Refused> {
        match outcome {
            Ok(()) => self.counters.accepted += 1,
            Err(refused) => {
                if let Some(at) = Refused::ALL.iter().position(|reason| *reason == refused) {
                    self.counters.refused[at] += 1;
                }
            }
        }
        outcome
    }

    /// All that can be known without the signature, the cheapest first.
    fn screen(&mut self, now: Instant, from: Source, bytes: &Bytes) -> Result<Header, Refused> {
        if self.leaving {
            return Err(Refused::Unasked);
        }
        let header = peek(self.tag, bytes)?;
        if header.author == self.id() {
            let ours = Stamp { epoch: self.identity.epoch(), seq: self.seq };
            return if header.stamp > ours { Ok(header) } else { Err(Refused::Own) };
        }
        if matches!(header.kind, kind::ANNOUNCE | kind::FAREWELL) {
            self.heard_again(&header.author, bytes, from);
        }
        self.table.check_fresh(&header, bytes)?;
        // Each word comes once by each path: one signature is enough.
        if self.joining.has_answered(&header) {
            return Err(Refused::Stale);
        }
        if !self.is_heard_there(&header.author, from) {
            self.rates.admit(now, from.addr.ip())?;
        }
        Ok(header)
    }

    /// The word is true. What does it change?
    fn act_on(
        &mut self,
        now: Instant,
        from: Source,
        header: &Header,
        word: &Verified<Word>,
    ) -> Result<(), Refused> {
        if header.author == self.id() {
            // An old life's, or somebody else's who has our key.
            self.outlive(now, header.stamp.epoch);
            return Ok(());
        }
        match word.message.as_ref().ok_or(Refused::Version)? {
            Message::Hello(hello) => {
                self.joining.answers(header);
                self.hear_hello(now, from, hello)
            }
            Message::Offer(offer) => self.hear_offer(now, from, header.author, offer),
            Message::Cookie(cookie) => self.hear_cookie(*cookie),
            Message::Ping(ping) => self.hear_ping(from, ping),
            Message::Announce(record) => {
                self.check_island(&header.author, record)?;
                if self.table.get(&header.author).is_none_or(|entry| entry.record.is_none()) {
                    self.check_on_link(from.addr.ip())?;
                }
                self.accept(now, word, Some(from))
            }
            Message::Beacon(beacon) => {
                let accepted = self.accept(now, word, Some(from));
                if accepted == Err(Refused::Unasked) {
                    self.hear_unknown(now);
                }
                accepted?;
                self.compare_digest(now, header.author, beacon.digest);
                Ok(())
            }
            Message::Pong(pong) => {
                self.check_pong(&header.author, pong.nonce)?;
                self.accept(now, word, Some(from))?;
                self.prove(now, header.author);
                self.compare_digest(now, header.author, pong.beacon.digest);
                Ok(())
            }
            Message::Farewell(_) => self.accept(now, word, Some(from)),
        }
    }

    /// Whether a word that claims this author comes from where the author, proven, was heard last. Else the claim
    /// counts nothing before its signature is checked, and its source is held to a stranger's rate.
    fn is_heard_there(&self, author: &MemberId, from: Source) -> bool {
        let heard = self.peers.get(author).and_then(|peer| peer.from);
        heard.is_some_and(|heard| heard.ip() == from.addr.ip())
            && self.table.get(author).is_some_and(|entry| entry.proven)
    }

    /// Our key has said something in `epoch` that we did not: start above it, or stop.
    fn outlive(&mut self, now: Instant, epoch: Epoch) {
        if now.saturating_duration_since(self.started) > join::STARTING {
            self.stop = Some(StopReason::KeyInUse(epoch));
        } else if self.identity.raise_epoch_above(epoch).is_err() {
            self.stop = Some(StopReason::NoEpochAbove(epoch));
        } else {
            self.seq = Seq(0);
            self.say_record(now);
        }
    }

    /// Merges a word of a slot and does what follows from it. `from`: heard directly there, else in a transfer.
    fn accept(&mut self, now: Instant, word: &Verified<Word>, from: Option<Source>) -> Result<(), Refused> {
        let id = word.header.author;
        let was_duplicate = self.is_duplicate(&id);
        let merged =
            self.table.merge(word, from.map_or(Via::Told, |source| Via::Ears(source.addr.ip())), now);
        while let Some((evicted, _)) = self.table.pop_evicted() {
            self.tell_forgotten(evicted);
        }
        if !was_duplicate && self.is_duplicate(&id) {
            self.publish(now, id, Some(EventKind::DuplicateKey));
        }
        let advance = merged?;
        let peer = self.peers.entry(id).or_insert_with(|| Peer::new(now));
        // Draining and farewells are also passed on by others; first words and pulses come from their author alone.
        let is_authors = matches!(advance, Advance::Joined | Advance::Pulse);
        if let Some(source) = from.filter(|_| is_authors || peer.from.is_none()) {
            peer.from = Some(source.addr);
        }
        match advance {
            Advance::Joined => self.has_joined(now, id, from),
            Advance::Record => self.has_news(now, id, word, from),
            Advance::Pulse => {
                if from.is_some() {
                    self.heard(now, id, word.header.stamp);
                }
            }
            Advance::Left => self.has_left(now, id, word, from),
            Advance::Past => {}
        }
        Ok(())
    }

    fn is_duplicate(&self, id: &MemberId) -> bool {
        self.table.get(id).is_some_and(|entry| entry.duplicate)
    }

    fn has_joined(&mut self, now: Instant, id: MemberId, from: Option<Source>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            let source = peer.from;
            *peer = Peer::new(now);
            peer.from = source;
            peer.heard = from.map(|_| now);
        }
        self.consider_island(now, id, from.is_some());
        self.publish(now, id, Some(EventKind::Joined));
        self.arm_silence(now, id);
        self.arm_first_ping(now, id);
        // So that a newcomer knows us without waiting for our next turn; others' tables have us already.
        if from.is_some() {
            self.beacon_soon(now);
        }
    }

    fn has_news(&mut self, now: Instant, id: MemberId, word: &Verified<Word>, from: Option<Source>) {
        let draining =
            self.table.get(&id).and_then(|entry| entry.record.as_ref()).is_some_and(|r| r.value.draining);
        let was_draining =
            self.peers.get(&id).and_then(|peer| peer.view.as_ref()).is_some_and(|m| m.record.draining);
        if from.is_some() {
            self.alive_again(now, id);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.heard = Some(now);
            }
        }
        let epoch = word.header.stamp.epoch;
        if self.peers.get(&id).and_then(|peer| peer.view.as_ref()).is_some_and(|m| m.stamp.epoch != epoch) {
            self.watch_new_life(now, id);
        }
        self.consider_island(now, id, from.is_some());
        if self.has_moved_away(&id) {
            self.table.remove(&id);
            self.tell_forgotten(id);
            return;
        }
        let kind = if draining && !was_draining { EventKind::Draining } else { EventKind::Updated };
        self.publish(now, id, Some(kind));
        if let Some(from) = from.filter(|_| kind == EventKind::Draining) {
            self.consider_relay(now, id, &word.bytes, from);
        }
    }

    /// Makes the view of a member anew, and tells of it: as an event, or as a quiet change.
    fn publish(&mut self, now: Instant, id: MemberId, kind: Option<EventKind>) {
        let Some(member) = self.view(now, &id) else { return };
        let member = Arc::new(member);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.view = Some(member.clone());
        }
        self.tell(member, kind);
    }

    fn tell(&mut self, member: Arc<Member>, kind: Option<EventKind>) {
        match kind {
            Some(kind) => {
                self.event_number += 1;
                self.events.push_back(Event { number: self.event_number, kind, member });
            }
            None => self.changes.push_back(member),
        }
    }

    /// What the rest of the node sees of a member; `None` as long as it has no record.
    fn view(&self, now: Instant, id: &MemberId) -> Option<Member> {
        let entry = self.table.get(id)?;
        let peer = self.peers.get(id)?;
        let said = entry.record.as_ref()?;
        let http_addresses = self.addresses_of(&said.value, peer.from, said.value.http_port);
        let standing = if entry.has_left() { Standing::Left } else { peer.standing };
        let reason = match standing {
            Standing::Left => Some(Reason::Farewell),
            Standing::Down => Some(Reason::NoAnswer),
            Standing::Suspect => Some(Reason::Silent),
            Standing::Alive if entry.duplicate => Some(Reason::DuplicateKey),
            Standing::Alive if said.value.draining => Some(Reason::Draining),
            Standing::Alive if http_addresses.is_empty() && said.value.http_port != 0 => {
                Some(Reason::NoAddress)
            }
            Standing::Alive if !entry.proven => Some(Reason::Unproven),
            Standing::Alive => None,
        };
        let since = peer.view.as_ref().filter(|old| old.standing == standing && old.reason == reason);
        Some(Member {
            id: *id,
            stamp: said.stamp,
            record: said.value.clone(),
            record_bytes: said.bytes.clone(),
            standing,
            proven: entry.proven,
            reachable: entry.proven && !standing.is_gone() && !http_addresses.is_empty(),
            reason,
            since: since.map_or(now, |old| old.since),
            heard: peer.heard,
            load: entry.load(),
            http_addresses,
            is_self: false,
        })
    }

    /// Where a member can be dialled from here: where it was heard from, then its announced addresses that are on
    /// a link of ours. Others do not count: a signature proves the speaker, not the address.
    fn addresses_of(&self, record: &Record, from: Option<SocketAddr>, port: u16) -> Vec<SocketAddr> {
        let mut found: Vec<SocketAddr> = Vec::new();
        if port == 0 {
            return found;
        }
        if let Some(mut at) = from {
            at.set_port(port);
            found.push(at);
        }
        // Who announces nothing but loopback can only be on this host, or nowhere.
        let on_this_host = record.addresses.iter().all(|address| address.ip.is_loopback());
        for address in &record.addresses {
            // Else, of link-local and loopback addresses only the one it was heard from is known to be its own.
            let local = is_local_to_link(address.ip) && !(on_this_host && address.ip.is_loopback());
            if local || !self.is_on_link(address.ip) {
                continue;
            }
            let at = SocketAddr::new(address.ip, port);
            if !found.iter().any(|known| known.ip() == at.ip()) {
                found.push(at);
            }
        }
        found
    }

    /// Whether `ip` is in a network of one of our interfaces, or is this host.
    fn is_on_link(&self, ip: IpAddr) -> bool {
        self.interfaces.iter().any(|interface| is_near(&interface.addresses, ip))
            || ip.to_canonical().is_loopback()
    }

    /// Who may fetch our table, if that has changed since it was last asked.
    pub fn take_neighbours(&mut self) -> Option<Neighbours> {
        std::mem::take(&mut self.neighbours_changed).then(|| Neighbours {
            networks: self
                .interfaces
                .iter()
                .flat_map(|interface| interface.addresses.iter().copied())
                .collect(),
            admitted: self.joining.admitted().collect(),
        })
    }

    /// Where members heard by ourselves listen for greetings: the discovery `port` at the address each was heard from.
    #[must_use]
    pub fn proven_addresses(&self, port: u16) -> Vec<SocketAddr> {
        let proven = self.peers.iter().filter(|(id, _)| self.table.get(id).is_some_and(|entry| entry.proven));
        proven.filter_map(|(_, peer)| peer.from).map(|at| SocketAddr::new(at.ip(), port)).collect()
    }

    /// Our record as it would be with these changes.
    #[must_use]
    pub fn record_with(&self, news: &Announcement) -> Record {
        let mut record = self.record.clone();
        news.apply(&mut record);
        record
    }

    fn check_on_link(&self, ip: IpAddr) -> Result<(), Refused> {
        if self.is_on_link(ip) || self.joining.is_admitted(ip) { Ok(()) } else { Err(Refused::OffLink) }
    }

    /// Every timer that is due by `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((due, timer)) = self.timers.take_due(now) {
            self.note_lateness(now, due);
            match timer {
                Timer::Hello(attempt) => self.say_hello(attempt),
                Timer::NobodyThere => self.joining.give_up(),
                Timer::Beacon => self.say_beacon_in_turn(now),
                Timer::Refresh => self.refresh_record(now),
                Timer::Copy(bytes) => self.send_copy(bytes),
                Timer::Relay(id) => self.relay(id),
                Timer::Silence(id, watch) => self.check_silence(now, id, watch),
                Timer::FirstAsk(id) => self.ask_first(now, id),
                Timer::Ask(id, epoch, nonce) => self.ask_again(now, id, epoch, nonce),
                Timer::CatchUp => self.catch_up(now),
                Timer::Overdue(id) => self.overdue(now, id),
                Timer::Forget => self.forget_gone(now),
                Timer::Sweep => self.sweep(now),
            }
        }
    }

    /// Tells that a member, which is in the table no more, is listed no more.
    fn tell_forgotten(&mut self, id: MemberId) {
        if let Some(last) = self.peers.remove(&id).and_then(|peer| peer.view) {
            self.tell(last, Some(EventKind::Forgotten));
        }
    }

    /// Drops whoever has been gone for long enough.
    fn forget_gone(&mut self, now: Instant) {
        while let Some(id) = self.table.due(now) {
            self.table.forget(&id, now);
            self.tell_forgotten(id);
            self.reconsider_island(now);
        }
        self.timers.arm(now + Duration::from_secs(1), Timer::Forget);
    }

    fn sweep(&mut self, now: Instant) {
        self.rates.sweep(now);
        self.joining.sweep(now);
        self.table.expire_floors(now);
        self.timers.arm(now + Duration::from_secs(10), Timer::Sweep);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next member of which only load or time of hearing changed.
    pub fn poll_change(&mut self) -> Option<Arc<Member>> {
        self.changes.pop_front()
    }

    /// The next wish for another's table.
    pub fn poll_fetch(&mut self) -> Option<Fetch> {
        self.fetches.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Wakeup> {
        self.timers.next().map(|(at, timer)| Wakeup { at, why: timer.name() })
    }

    /// Why this node must stop, if it must.
    #[must_use]
    pub fn stopped(&self) -> Option<StopReason> {
        self.stop
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Digest of the table, this node included.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let own = self.record_said.as_ref().map_or(0, |(_, bytes)| crate::table::digest_of(bytes));
        self.table.digest().wrapping_add(own)
    }

    /// This node as it shows itself; `None` before [`start`](Self::start).
    #[must_use]
    pub fn self_member(&self) -> Option<Arc<Member>> {
        self.me.clone()
    }

    /// Everybody else who is listed, by id.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.peers.values().filter_map(|peer| peer.view.as_ref())
    }

    /// The table as the members' own words, for [`transfer::encode`](crate::transfer::encode).
    #[must_use]
    pub fn export(&self, now: Instant) -> Transfer {
        let mut words = Vec::with_capacity(2 * self.table.len() + 1);
        if let Some((_, bytes)) = &self.record_said {
            words.push(TransferWord { bytes: bytes.clone(), age: Duration::ZERO });
        }
        for (id, entry) in self.table.iter() {
            let peer = self.peers.get(id);
            let heard = peer.and_then(|peer| peer.heard.or(peer.told)).unwrap_or(self.started);
            let mut push = |bytes: &Bytes, since: Instant| {
                words.push(TransferWord { bytes: bytes.clone(), age: now.saturating_duration_since(since) });
            };
            if let Some(said) = &entry.record {
                push(&said.bytes, heard);
            }
            if let Some(said) = &entry.pulse {
                push(&said.bytes, heard);
            }
            if let Some(said) = &entry.end {
                push(&said.bytes, peer.map_or(heard, |peer| peer.since));
            }
        }
        let floors =
            self.table.floors(now).map(|(bytes, age)| TransferFloor { bytes: bytes.clone(), age }).collect();
        Transfer { words, floors }
    }

    /// Takes in another member's table.
    pub fn merge(&mut self, now: Instant, from: MemberId, transfer: &VerifiedTransfer) {
        let mut news = 0;
        for (word, age) in &transfer.floors {
            if word.header.author != self.id() {
                self.table.merge_floor(word, *age, now);
            }
        }
        for (word, age) in &transfer.words {
            let id = word.header.author;
            if id == self.id() {
                let ours = Stamp { epoch: self.identity.epoch(), seq: self.seq };
                if word.header.stamp > ours {
                    self.outlive(now, word.header.stamp.epoch);
                }
                continue;
            }
            if let Some(Message::Announce(record)) = &word.message
                && self.check_island(&id, record).is_err()
            {
                continue;
            }
            if self.accept(now, word, None).is_ok() {
                news += 1;
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.told = peer.told.max(now.checked_sub(*age));
                }
                if let Some(since) = now.checked_sub(*age).filter(|_| word.header.kind == kind::FAREWELL) {
                    self.table.date_gone(&id, since);
                }
            }
        }
        self.has_merged(now, from, news);
    }

    fn send(&mut self, to: Destination, bytes: Bytes) {
        self.transmits.push_back(Transmit { to, bytes });
    }

    fn next_seq(&mut self) -> Seq {
        self.seq = Seq(self.seq.0 + 1);
        self.seq
    }

    /// `length`, longer or shorter by up to a tenth: so that nodes do not speak in step.
    fn jittered(&mut self, length: Duration) -> Duration {
        length.mul_f64(self.rng.random_range(0.9..1.1))
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.rng.random_range(0.0..1.0))
    }
}

/// Who may ask us for what only neighbours get.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Neighbours {
    /// Networks of our interfaces.
    pub networks: Vec<Address>,
    /// Others, who have shown by a cookie that they are where they say.
    pub admitted: Vec<IpAddr>,
}

/// Whether `ip` is this host, is local to some link, or is in one of these networks.
#[must_use]
pub fn is_near(networks: &[Address], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || is_link_local(ip) || networks.iter().any(|network| same_network(network, ip))
}

fn same_network(network: &Address, ip: IpAddr) -> bool {
    let shared = u32::from(network.prefix);
    match (network.ip, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(32 - shared.min(32)).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(128 - shared.min(128)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_local_to_link(ip: IpAddr) -> bool {
    ip.is_loopback() || matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}
