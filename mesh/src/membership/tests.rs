//! A few machines on one wire that loses nothing, in virtual time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::event::EventKind;
use crate::far::read_transfer;
use crate::member::{Epoch, LeaveReason, Reason, Standing};
use crate::outward::News;
use crate::transfer::{self, VerifiedTransfer};
use crate::verify::Refused;
use crate::wire::{Message, SIGNATURE_BYTES, kind};

mod abroad;
mod anything;
mod crowds;
mod hostile;
mod names;
mod trouble;
mod verdicts;
mod waiting;

struct Wire {
    now: Instant,
    /// Another one is another timeline of the same nodes.
    seed: u64,
    nodes: Vec<Membership>,
    events: Vec<Vec<(EventKind, MemberId)>>,
    /// Nodes that neither send nor hear.
    cut: Vec<bool>,
    /// Nodes that hear only what is sent to them alone.
    deaf: Vec<bool>,
    /// Nodes that are heard only by those whom they speak to alone.
    mute: Vec<bool>,
    /// (from, to): nothing gets through that way.
    unheard: BTreeSet<(usize, usize)>,
    /// How many datagrams of each kind were sent.
    sent: BTreeMap<u8, usize>,
    /// Every datagram that was sent.
    recorded: Vec<Bytes>,
    /// What other islands would have been told, by node.
    news: Vec<Vec<News>>,
    /// How often somebody asked a bridge what it knows.
    pulls: usize,
}

fn address(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (node / 200) as u8, (node % 200 + 1) as u8], 4000))
}

fn is_for_all(to: Destination) -> bool {
    matches!(to, Destination::Everyone | Destination::EveryoneBriefly)
}

fn settings(node: usize) -> Settings {
    Settings {
        tag: MeshTag::of("test"),
        island: None,
        name: format!("n{node}"),
        roles: vec!["pieces".to_owned()],
        tags: Vec::new(),
        http_port: 1233,
        unicast_port: 4000,
        advertise: Vec::new(),
        catalogue: None,
        version: "0".to_owned(),
    }
}

/// The identity of a test key in its second life.
fn again(key: u64) -> Identity {
    let mut identity = Identity::for_test(key);
    identity.raise_epoch_above(Epoch(1)).unwrap();
    identity
}

/// A change of a record.
fn news() -> Announcement {
    Announcement { tags: Some(vec![("a".to_owned(), "b".to_owned())]), ..Announcement::default() }
}

impl Wire {
    fn of(count: usize) -> Self {
        let mut wire = Self {
            now: Instant::now(),
            seed: 0,
            nodes: Vec::new(),
            events: Vec::new(),
            cut: Vec::new(),
            deaf: Vec::new(),
            mute: Vec::new(),
            unheard: BTreeSet::new(),
            sent: BTreeMap::new(),
            recorded: Vec::new(),
            news: Vec::new(),
            pulls: 0,
        };
        for node in 0..count {
            wire.add(settings(node), Identity::for_test(node as u64));
        }
        wire
    }

    fn add(&mut self, settings: Settings, identity: Identity) -> usize {
        let at = self.nodes.len();
        let is_bridge = settings.roles.iter().any(|role| role == "bridge");
        let mut node = Membership::new(settings, identity, 1000 * self.seed + at as u64, self.now);
        if is_bridge {
            node.tell_outward();
        }
        let addresses = vec![Address { ip: address(at).ip(), prefix: 16 }];
        node.set_interfaces(
            self.now,
            vec![Interface { index: 1, name: "e".to_owned(), addresses, loopback: false }],
        );
        node.start(self.now);
        self.nodes.push(node);
        self.events.push(Vec::new());
        self.news.push(Vec::new());
        self.cut.push(false);
        self.deaf.push(false);
        self.mute.push(false);
        self.settle();
        // Till its first hello.
        self.run_for(Duration::from_millis(1));
        at
    }

    /// Another node, with another key, in the place of this one.
    fn begin_anew(&mut self, at: usize) {
        self.begin_as(at, Identity::for_test(1000 + at as u64));
    }

    fn begin_as(&mut self, at: usize, identity: Identity) {
        let addresses = vec![Address { ip: address(at).ip(), prefix: 16 }];
        let mut node = Membership::new(settings(at), identity, at as u64, self.now);
        node.set_interfaces(
            self.now,
            vec![Interface { index: 1, name: "e".to_owned(), addresses, loopback: false }],
        );
        node.start(self.now);
        self.nodes[at] = node;
        self.events[at].clear();
    }

    /// Delivers until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for at in 0..self.nodes.len() {
                while let Some(event) = self.nodes[at].poll_event() {
                    self.events[at].extend(event.member().map(|member| (event.kind, member.id)));
                }
                while self.nodes[at].poll_change().is_some() {}
                self.news[at].extend(std::iter::from_fn(|| self.nodes[at].poll_news()));
                while let Some(Transmit { to, bytes }) = self.nodes[at].poll_transmit() {
                    quiet = false;
                    *self.sent.entry(bytes[3]).or_default() += 1;
                    self.recorded.push(bytes.clone());
                    if self.cut[at] {
                        continue;
                    }
                    let from = Source { addr: address(at), shared: is_for_all(to) };
                    for other in (0..self.nodes.len()).filter(|other| *other != at && !self.cut[*other]) {
                        if self.unheard.contains(&(at, other)) {
                            continue;
                        }
                        if is_for_all(to) && !self.deaf[other] && !self.mute[at]
                            || matches!(to, Destination::Unicast(at) | Destination::Probe(at) if at == address(other))
                        {
                            let _ = self.nodes[other].handle_datagram(self.now, from, bytes.clone());
                        }
                    }
                }
                while let Some(FarFetch { from, instance, since, .. }) = self.nodes[at].poll_far_fetch() {
                    quiet = false;
                    self.pulls += 1;
                    let other = self.nodes.iter().position(|node| node.id() == from);
                    match other.filter(|other| !self.cut[*other] && !self.cut[at]) {
                        Some(other) => {
                            let body = self.nodes[other].far_records(self.now, instance, since);
                            let transfer = read_transfer(MeshTag::of("test"), &body).unwrap();
                            self.nodes[at].merge_far(self.now, from, &transfer);
                        }
                        None => self.nodes[at].far_fetch_failed(self.now, from),
                    }
                }
                while let Some(Fetch { from, .. }) = self.nodes[at].poll_fetch() {
                    quiet = false;
                    let now = self.now;
                    match self
                        .nodes
                        .iter()
                        .position(|node| node.id() == from)
                        .filter(|other| !self.cut[*other])
                    {
                        Some(other) if !self.cut[at] => {
                            let body = transfer::encode(&self.nodes[other].export(now));
                            let tag = MeshTag::of("test");
                            let table = transfer::verify_transfer(tag, transfer::decode(&body).unwrap());
                            self.nodes[at].merge(now, from, &table);
                        }
                        _ => self.nodes[at].fetch_failed(now, from),
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn run_for(&mut self, length: Duration) {
        let end = self.now + length;
        while let Some(at) =
            self.nodes.iter().filter_map(|n| n.poll_timeout()).map(|w| w.at).min().filter(|at| *at <= end)
        {
            self.now = self.now.max(at);
            let now = self.now;
            for node in &mut self.nodes {
                node.handle_timeout(now);
            }
            self.settle();
        }
        self.now = end;
    }

    fn standing(&self, at: usize, of: usize) -> Option<Standing> {
        let id = self.nodes[of].id();
        self.nodes[at].members().find(|member| member.id == id).map(|member| member.standing)
    }

    fn count(&self, at: usize, kind: EventKind, of: usize) -> usize {
        let id = self.nodes[of].id();
        self.events[at].iter().filter(|event| **event == (kind, id)).count()
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

#[test]
fn nodes_find_each_other_at_once_and_agree() {
    let mut wire = Wire::of(8);
    let digest = wire.nodes[0].digest();
    assert!(wire.nodes.iter().all(|node| node.digest() == digest && node.members().count() == 7));
    wire.run_for(2 * SECOND);
    assert!(
        wire.nodes.iter().all(|node| node.is_complete() && node.members().all(|m| m.proven && m.reachable))
    );
    assert!(wire.nodes.iter().all(|node| node.counters().suspicions == 0));
}

#[test]
fn a_farewell_is_heard_once_and_never_becomes_a_death() {
    let mut wire = Wire::of(5);
    wire.run_for(SECOND);
    let now = wire.now;
    wire.nodes[2].drain(now);
    wire.settle();
    wire.nodes[2].leave(now, LeaveReason::Stopped);
    wire.settle();
    for at in [0, 1, 3, 4] {
        assert_eq!(wire.standing(at, 2), Some(Standing::Left));
    }
    wire.run_for(60 * SECOND);
    assert!(wire.nodes[2].has_said_farewell());
    for at in [0, 1, 3, 4] {
        assert_eq!(wire.standing(at, 2), Some(Standing::Left));
        assert_eq!(wire.count(at, EventKind::Left, 2), 1);
        assert_eq!(wire.count(at, EventKind::Draining, 2), 1);
        assert_eq!(wire.count(at, EventKind::Suspect, 2), 0);
    }
    wire.run_for(600 * SECOND);
    assert_eq!(wire.standing(0, 2), None);
}

#[test]
fn a_crash_is_noticed_within_a_second_and_a_return_at_once() {
    let mut wire = Wire::of(5);
    wire.run_for(2 * SECOND);
    wire.cut[4] = true;
    wire.run_for(Duration::from_millis(800));
    assert!((0..4).all(|at| wire.standing(at, 4) == Some(Standing::Down)));
    assert!((0..4).all(|at| wire.standing(at, (at + 1) % 4) == Some(Standing::Alive)));
    wire.cut[4] = false;
    wire.run_for(SECOND);
    assert!((0..4).all(|at| wire.standing(at, 4) == Some(Standing::Alive)));
    assert_eq!(wire.count(0, EventKind::Back, 4), 1);
}

#[test]
fn an_unnamed_node_takes_the_name_it_hears_and_named_islands_ignore_each_other() {
    let mut wire = Wire::of(1);
    let north = wire.add(Settings { island: Some("north".to_owned()), ..settings(1) }, Identity::for_test(1));
    wire.run_for(SECOND);
    assert_eq!(wire.nodes[0].self_member().unwrap().record.island, "north");
    let south = wire.add(Settings { island: Some("south".to_owned()), ..settings(2) }, Identity::for_test(2));
    wire.run_for(5 * SECOND);
    assert_eq!(wire.nodes[0].self_member().unwrap().record.island, "north");
    assert_eq!(wire.standing(0, north), Some(Standing::Alive));
    assert_eq!(wire.standing(south, north), None);
    assert_eq!(wire.standing(north, south), None);
    assert_eq!(wire.standing(0, south), None);
    assert_eq!(wire.standing(south, 0), None);
}

#[test]
fn a_kept_key_that_lost_its_epoch_starts_above_its_old_words() {
    let mut wire = Wire::of(2);
    wire.run_for(SECOND);
    wire.cut[1] = true;
    // The same key once more, in epoch 1 again.
    let again = wire.add(settings(7), Identity::for_test(1));
    wire.run_for(SECOND);
    let id = wire.nodes[again].id();
    let seen = wire.nodes[0].members().find(|member| member.id == id).unwrap();
    assert_eq!(seen.record.name, "n7");
    assert!(wire.nodes[again].stopped().is_none());
    // The first one is heard again: it must stop.
    wire.cut[1] = false;
    wire.run_for(40 * SECOND);
    assert!(matches!(wire.nodes[1].stopped(), Some(StopReason::KeyInUse(_))));
}

#[test]
fn of_two_that_start_with_one_key_one_stops_at_once() {
    let mut wire = Wire::of(1);
    let both = [7, 8].map(|node| wire.add(settings(node), Identity::for_test(1)));
    wire.run_for(SECOND);
    let stopped = |node: &usize| matches!(wire.nodes[*node].stopped(), Some(StopReason::KeyInUse(_)));
    assert_eq!(both.iter().filter(|node| stopped(node)).count(), 1);
    let id = wire.nodes[both[0]].id();
    let seen = wire.nodes[0].members().find(|member| member.id == id).unwrap();
    assert!(seen.stamp.epoch <= Epoch(20), "{:?}", seen.stamp);
}

#[test]
fn a_copy_by_another_path_is_neither_verified_nor_answered_again() {
    let mut wire = Wire::of(1);
    let hello = Message::Hello(crate::wire::Hello {
        nonce: 1,
        attempt: 0,
        digest: 0,
        cookie: None,
        island: None,
        unicast_port: 4000,
        asking: false,
    });
    let identity = Identity::for_test(77);
    let record = Message::Announce(Record { name: "other".into(), ..wire.nodes[0].record.clone() }.into());
    let from = Source { addr: address(77), shared: true };
    let tag = MeshTag::of("test");
    for word in [identity.sign_word(tag, &hello, Seq(1)), identity.sign_word(tag, &record, Seq(2))] {
        let node = &mut wire.nodes[0];
        assert_eq!(node.handle_datagram(wire.now, from, word.clone()), Ok(()));
        assert_eq!(node.handle_datagram(wire.now, from, word), Err(Refused::Stale));
    }
    let answers = std::iter::from_fn(|| wire.nodes[0].poll_transmit()).filter(|transmit| {
        transmit.to == Destination::Unicast(address(77)) && transmit.bytes[3] == kind::OFFER
    });
    assert_eq!(answers.count(), 1);
}

#[test]
fn on_a_small_island_every_attempt_is_answered() {
    for count in 1..4 {
        let mut wire = Wire::of(count);
        wire.run_for(2 * SECOND);
        for attempt in 0..5 {
            let hello = Message::Hello(crate::wire::Hello {
                nonce: 1,
                attempt,
                digest: 0,
                cookie: None,
                island: None,
                unicast_port: 4000,
                asking: false,
            });
            let word =
                Identity::for_test(77).sign_word(MeshTag::of("test"), &hello, Seq(1 + u64::from(attempt)));
            let from = Source { addr: address(77), shared: true };
            for node in &mut wire.nodes {
                assert_eq!(node.handle_datagram(wire.now, from, word.clone()), Ok(()));
                let offers = std::iter::from_fn(|| node.poll_transmit()).filter(|transmit| {
                    transmit.to == Destination::Unicast(address(77)) && transmit.bytes[3] == kind::OFFER
                });
                assert_eq!(offers.count(), 1, "attempt {attempt} on an island of {count}");
            }
        }
    }
}

#[test]
fn a_flood_that_claims_a_proven_author_is_held_to_a_strangers_rate() {
    let mut wire = Wire::of(2);
    wire.run_for(2 * SECOND);
    let now = wire.now;
    let author = wire.nodes[1].id();
    assert!(wire.nodes[0].members().any(|member| member.id == author && member.proven));
    let from = Source { addr: address(77), shared: true };
    let mut paid = 0;
    for seq in 0..2000 {
        let farewell = Message::Farewell(crate::wire::Farewell { reason: LeaveReason::Stopped });
        let word = Identity::for_test(5).sign_word(MeshTag::of("test"), &farewell, Seq(1000 + seq));
        let mut claimed = word.to_vec();
        claimed[8..40].copy_from_slice(&author.0);
        match wire.nodes[0].handle_datagram(now, from, claimed.into()) {
            Err(Refused::Signature) => paid += 1,
            other => assert_eq!(other, Err(Refused::Rate)),
        }
    }
    assert!(paid <= 600, "{paid} signatures were checked");
}

/// A word for everyone that comes from this node's address.
fn broadcast_from(node: usize) -> Source {
    Source { addr: (address(node).ip(), 5235).into(), shared: true }
}

/// How often node 0 passes on the farewell of node 1, after hearing it once from each of these nodes' addresses.
fn relays_of_a_farewell_heard_from(nodes: &[usize]) -> u64 {
    let mut wire = Wire::of(2);
    wire.run_for(2 * SECOND);
    wire.nodes[1].leave(wire.now, LeaveReason::Stopped);
    let farewell = wire.nodes[1].poll_transmit().unwrap().bytes;
    wire.cut[1] = true;
    for node in nodes {
        let _ = wire.nodes[0].handle_datagram(wire.now, broadcast_from(*node), farewell.clone());
    }
    wire.run_for(SECOND);
    wire.nodes[0].counters().relayed
}

#[test]
fn a_farewell_is_passed_on_however_many_copies_its_author_sent() {
    assert_eq!(relays_of_a_farewell_heard_from(&[1]), 1);
    assert_eq!(relays_of_a_farewell_heard_from(&[1; 12]), 1);
    assert_eq!(relays_of_a_farewell_heard_from(&[1, 7]), 1);
    assert_eq!(relays_of_a_farewell_heard_from(&[1, 7, 1, 8]), 0);
    assert_eq!(relays_of_a_farewell_heard_from(&[7, 8]), 0);
}

#[test]
fn a_word_that_was_passed_on_does_not_move_its_author() {
    let mut wire = Wire::of(2);
    wire.run_for(2 * SECOND);
    let at = |wire: &Wire| wire.nodes[0].members().next().map(|member| member.http_addresses.clone());
    let before = at(&wire);
    wire.nodes[1].drain(wire.now);
    let draining = wire.nodes[1].poll_transmit().unwrap().bytes;
    assert_eq!(wire.nodes[0].handle_datagram(wire.now, broadcast_from(7), draining), Ok(()));
    assert_eq!(at(&wire), before);
}

#[test]
fn a_beacon_is_said_to_all_before_it_is_said_to_watchers() {
    let mut wire = Wire::of(3);
    wire.run_for(2 * SECOND);
    let node = &mut wire.nodes[0];
    let mut both = 0;
    for tick in 1..10 {
        node.handle_timeout(wire.now + tick * 100 * MS);
        let said: Vec<Transmit> = std::iter::from_fn(|| node.poll_transmit()).collect();
        let mut beacons = said.iter().filter(|said| said.bytes[3] == kind::BEACON).peekable();
        while let Some(first) = beacons.next() {
            let copies: Vec<_> =
                std::iter::from_fn(|| beacons.next_if(|next| next.bytes == first.bytes)).collect();
            assert!(!copies.iter().any(|copy| is_for_all(copy.to)), "{copies:?}");
            both += usize::from(is_for_all(first.to) && !copies.is_empty());
        }
    }
    assert!(both > 1, "{both}");
}

#[test]
fn a_newcomer_that_has_answered_is_not_asked_again() {
    let mut wire = Wire::of(8);
    wire.run_for(SECOND);
    assert!(wire.nodes[0].members().all(|member| member.proven));
    let pings = wire.recorded.iter().filter(|bytes| bytes[3] == kind::PING);
    let mut asked = BTreeSet::new();
    for bytes in pings {
        let (header, message) = crate::wire::decode(&bytes[..bytes.len() - SIGNATURE_BYTES]).unwrap();
        let Some(Message::Ping(ping)) = message else { unreachable!() };
        assert!(asked.insert((header.author, ping.target)), "asked twice");
    }
    assert!(!asked.is_empty());
}

#[test]
fn pings_end_when_they_are_answered() {
    let mut wire = Wire::of(4);
    wire.run_for(5 * SECOND);
    wire.sent.clear();
    wire.run_for(20 * SECOND);
    assert_eq!(wire.sent.get(&kind::PING), None, "{:?}", wire.sent);
}
