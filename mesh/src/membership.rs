//! Membership of one island as a state machine: bytes, times and wishes go in, bytes and events come out.
//!
//! It reads no clock, draws no entropy, opens nothing and waits for nothing. After each input the caller drains
//! [`poll_transmit`](Membership::poll_transmit), [`poll_event`](Membership::poll_event),
//! [`poll_change`](Membership::poll_change) and [`poll_fetch`](Membership::poll_fetch) before the next.
//!
//! | module | subject |
//! |---|---|
//! | `receive` | what is done with a datagram |
//! | `announce` | what we say of ourselves: records, beacons |
//! | `join` | hello, offer, cookie, the table of others |
//! | `difference` | what our table lacks, by digests |
//! | `watch` | whom we watch: silence, self-doubt |
//! | `ask` | questions to a member and its answers |
//! | `watchers` | who watches us; our beacons |
//! | `votes` | votes: said, heard, kept, renewed |
//! | `verdict` | who is down by them |
//! | `certificate` | the votes that somebody is down by |
//! | `refute` | proofs, hints, refused connections |
//! | `lazy` | pulses that are not verified yet |
//! | `meet` | those who speak and are not in our table |
//! | `crowd` | so many newcomers at once that less is done for each |
//! | `peer` | what is kept of a member besides its words |
//! | `leave` | draining, farewells, passing them on |
//! | `island` | which island we count ourselves to |
//! | `sync` | whole tables, ours and theirs |
//! | `abroad` | members of other islands, ways to them, what other islands are told |
//! | `links` | our networks: who is a neighbour |
//! | `view` | a member as others see it, events |
//! | `values` | what goes in and comes out |
//! | `timers` | what is due when |
//!
//! Source: NETWORK.md, sections 5 to 9.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::by_member::{ByMember, by_member};
use crate::event::Event;
use crate::identity::Identity;
use crate::member::{Address, Load, Member, MemberId, Record, Seq, Stamp};
use crate::table::{Entry, Table};
use crate::wire::{MeshTag, Message, WIRE_VERSION};

mod abroad;
mod announce;
mod ask;
mod certificate;
mod crowd;
mod difference;
mod island;
mod join;
mod lazy;
mod leave;
mod links;
mod meet;
mod peer;
mod rate;
mod receive;
mod refute;
mod sync;
#[cfg(test)]
mod tests;
mod timers;
mod values;
mod verdict;
mod view;
mod votes;
mod watch;
mod watchers;

pub use links::{Neighbours, is_near};
pub use values::{
    Announcement, Counters, Destination, FarFetch, Fetch, Interface, Settings, Source, StopReason, Transmit,
    Wakeup,
};

use abroad::Abroad;
use crowd::{Crowd, Tally};
use difference::Difference;
use join::Joining;
use meet::Strangers;
use peer::Peer;
use rate::Rates;
use refute::Spoken;
use timers::{Timer, Timers};
use watch::{Looked, Storm};
use watchers::Watched;

/// The state machine of one node.
#[derive(Debug)]
pub struct Membership {
    tag: MeshTag,
    identity: Identity,
    seq: Seq,
    rng: StdRng,
    started: Instant,
    table: Table,
    peers: ByMember<Peer>,
    timers: Timers,
    /// Counts silence timers.
    watches: u64,
    rates: Rates,
    interfaces: Vec<Interface>,
    advertise: Vec<Address>,
    island_given: Option<String>,
    /// The name that we make where none is given to us or heard, if we are a bridge.
    island_made: Option<String>,
    /// Who brought the name we took over, if we did.
    island_from: Option<MemberId>,
    /// When our island was last called otherwise than before.
    named: Instant,
    record: Record,
    record_said: Option<(Stamp, Bytes)>,
    /// What our own record adds to the digest; 0 until it was said.
    record_digest: u64,
    me: Option<Arc<Member>>,
    load: Load,
    load_told: Load,
    /// Pulses verified lately for the sake of requests that we may hand over.
    attended: Tally,
    beacon_told: Option<Instant>,
    joining: Joining,
    difference: Difference,
    abroad: Abroad,
    strangers: Strangers,
    crowd: Crowd,
    /// Members whose records we ask for, and how often we have.
    wanted: BTreeMap<MemberId, u8>,
    watched: Watched,
    /// Whom to ask for the first time, by when.
    newcomers: BTreeMap<Instant, Vec<MemberId>>,
    spoken: Spoken,
    /// A beacon for newcomers is about to be said.
    greets: bool,
    /// We said that we hear no broadcasts.
    deaf_told: bool,
    /// Who said so of itself, and may hear them again since.
    deaf: BTreeSet<MemberId>,
    /// So long our own ears are not to be trusted.
    doubt_until: Option<Instant>,
    storm: Storm,
    neighbours_changed: bool,
    leaving: bool,
    /// Our farewell, and how many copies of it are still to be sent.
    farewell: Option<(Bytes, usize)>,
    stop: Option<StopReason>,
    /// How often we have taken a greater epoch because ours was in use.
    outlived: u32,
    counters: Counters,
    event_number: u64,
    looked: Looked,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    changes: VecDeque<Arc<Member>>,
    fetches: VecDeque<Fetch>,
}

impl Membership {
    /// A node that has not said a word yet. `seed` is all the randomness it will have.
    #[must_use]
    pub fn new(settings: Settings, identity: Identity, seed: u64, now: Instant) -> Self {
        let is_bridge = settings.roles.iter().any(|role| role == abroad::BRIDGE);
        let island_made =
            (is_bridge && settings.island.is_none()).then(|| crate::island::made_by(identity.id()));
        let island = settings.island.clone().or_else(|| island_made.clone());
        let record = Record {
            name: settings.name,
            roles: settings.roles,
            addresses: settings.advertise.clone(),
            http_port: settings.http_port,
            unicast_port: settings.unicast_port,
            island_given: island.is_some(),
            island: island.unwrap_or_else(|| island::UNNAMED.to_owned()),
            draining: false,
            catalogue: settings.catalogue,
            watchers: Vec::new(),
            protocol: (WIRE_VERSION, WIRE_VERSION),
            version: settings.version,
            tags: settings.tags,
        };
        let mut rng = StdRng::seed_from_u64(seed);
        // Of its own, so that a seed replays an island alike with and without others.
        let mut far = StdRng::seed_from_u64(!seed);
        Self {
            tag: settings.tag,
            identity,
            seq: Seq(0),
            started: now,
            table: Table::new(rng.random()),
            peers: by_member(rng.random()),
            timers: Timers::default(),
            watches: 0,
            rates: Rates::new(seed.rotate_left(32)),
            interfaces: Vec::new(),
            advertise: settings.advertise,
            island_given: settings.island,
            island_made,
            island_from: None,
            named: now,
            record_said: None,
            record_digest: 0,
            me: None,
            load: Load::default(),
            load_told: Load::default(),
            attended: Tally::default(),
            beacon_told: None,
            joining: Joining::new(rng.random(), rng.random()),
            difference: Difference::default(),
            abroad: Abroad::new(record.island.clone(), far.random(), far.random()),
            rng,
            record,
            strangers: Strangers::default(),
            crowd: Crowd::default(),
            wanted: BTreeMap::new(),
            watched: Watched::default(),
            newcomers: BTreeMap::new(),
            spoken: Spoken::default(),
            greets: false,
            deaf_told: false,
            deaf: BTreeSet::new(),
            doubt_until: None,
            storm: Storm::default(),
            neighbours_changed: true,
            leaving: false,
            farewell: None,
            stop: None,
            outlived: 0,
            counters: Counters::default(),
            event_number: 0,
            looked: Looked::default(),
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

    /// Our record as it would be with these changes.
    #[must_use]
    pub fn record_with(&self, news: &Announcement) -> Record {
        let mut record = self.record.clone();
        news.apply(&mut record);
        record
    }

    /// Every timer that is due by `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((due, timer)) = self.timers.take_due(now) {
            self.note_lateness(now, due);
            match timer {
                Timer::Hello(attempt) => self.say_hello_in_turn(now, attempt),
                Timer::NobodyThere => self.joining.give_up(),
                Timer::Greet => self.greet_newcomers(now),
                Timer::Tick => self.tick(now),
                Timer::ChooseWatchers => self.choose_watchers_in_turn(now),
                Timer::Defend => self.say_beacon(now),
                Timer::Refresh => self.refresh_record(now),
                Timer::Introduce => self.introduce(now),
                Timer::Copy(bytes) => self.send_copy(now, bytes),
                Timer::Remind(record, turn) => self.remind(now, record, turn),
                Timer::Relay(id) => self.relay(id),
                Timer::Silence(id, watch) => self.check_silence(now, id, watch),
                Timer::Look => self.look_around(now),
                Timer::FirstAsks => self.ask_newcomers(now),
                Timer::Ask(id, epoch, nonce) => self.ask_again(now, id, epoch, nonce),
                Timer::VoteCopy(id, bytes) => self.vote_copy(now, id, bytes),
                Timer::Consider(id, number) => self.consider_in_turn(now, id, number),
                Timer::Certify(id) => self.certify(now, id),
                Timer::CertificateCopy(id, bytes) => self.certificate_copy(now, id, bytes),
                Timer::Prove(id) => self.say_proof(id),
                Timer::Probe(id, since) => self.probe(id, since),
                Timer::WantRecord(id) => self.ask_for_record(now, id),
                Timer::AskStranger(id) => self.ask_stranger(now, id),
                Timer::Meet => self.meet_strangers(now),
                Timer::CatchUp => self.catch_up_in_turn(now),
                Timer::Overdue(id) => self.overdue(now, id),
                Timer::Forget => self.forget_gone(now),
                Timer::SayFar(id) => self.say_far(id),
                Timer::PullFar(id) => self.pull_far(now, id),
                Timer::TellBridges => self.tell_bridges(now),
                Timer::RoutesCopy(round) => self.routes_copy(round),
                Timer::RoutesAgain(round) => self.routes_again(now, round),
                Timer::GiveUpIslands => self.give_up_islands(now),
                Timer::Sweep => self.sweep(now),
            }
        }
    }

    /// Drops whoever has been gone for long enough.
    fn forget_gone(&mut self, now: Instant) {
        while let Some(id) = self.table.due(now) {
            self.table.forget(&id, now);
            self.tell_forgotten(now, id);
            self.reconsider_island(now);
        }
        self.forget_far(now);
        self.timers.arm(now + Duration::from_secs(1), Timer::Forget);
    }

    fn sweep(&mut self, now: Instant) {
        self.rates.sweep(now);
        self.joining.sweep(now);
        self.difference.sweep(now);
        self.table.expire_floors(now);
        self.sweep_accusers(now);
        self.sweep_abroad(now);
        self.drop_emigrants(now);
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
        self.timers.next().map(|(at, why)| Wakeup { at, why })
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

    fn send(&mut self, to: Destination, bytes: Bytes) {
        self.transmits.push_back(Transmit { to, bytes });
    }

    /// The next word of ours: signed, in order.
    fn sign(&mut self, message: &Message) -> Bytes {
        let seq = self.next_seq();
        self.identity.sign_word(self.tag, message, seq)
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
