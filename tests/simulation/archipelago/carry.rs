//! Calls, connections, and what goes over them.

use std::time::Instant;

use island_bridge::frame::Stream;
use island_bridge::session::{Admission, Event, PROTOCOL, Session, Settings};
use isle_mesh::member::MemberId;
use rand::RngExt;

use super::link::{CALL_MAX, Content, KNOCKS, Packet, WINDOW, bytes_of, number_of};
use super::{Archipelago, Job};

/// A packet that is lost comes so much later than a round trip: when QUIC finds that it is.
const FOUND_LOST: std::time::Duration = std::time::Duration::from_millis(25);
/// Share of packets that are lost between islands.
const LOSS: f64 = 0.02;

/// Calls.
impl Archipelago {
    fn calls_still(&self, link: usize, life: Instant) -> bool {
        let place = self.links[link].ends[0].place;
        self.listens(place) && self.bridges.get(&place).is_some_and(|bridge| bridge.life == life)
    }

    /// A packet of a call goes out.
    pub fn knock(&mut self, link: usize, life: Instant, started_at: Instant, knock: usize) {
        if !self.calls_still(link, life) {
            return;
        }
        let round_trip = self.links[link].delay * 2;
        let is_lost = self.links[link].is_cut || self.random.random_bool(2.0 * LOSS);
        self.note(
            self.links[link].ends[0].place,
            format_args!(
                "knocks at i{}: {knock}{}",
                self.links[link].ends[1].place.island,
                if is_lost { ", lost" } else { "" }
            ),
        );
        if !is_lost && self.listens(self.links[link].ends[1].place) {
            return self.plan(round_trip, Job::Connect { link, life, started_at, knock });
        }
        self.knock_again(link, life, started_at, knock);
    }

    /// That packet is not answered.
    fn knock_again(&mut self, link: usize, life: Instant, started_at: Instant, knock: usize) {
        match KNOCKS.get(knock + 1) {
            Some(after) => {
                let at = (started_at + *after).max(self.now);
                self.plan(at - self.now, Job::Knock { link, life, started_at, knock: knock + 1 });
            }
            None => {
                let at = (started_at + CALL_MAX).max(self.now);
                self.plan(at - self.now, Job::CallFailed { link, life, started_at });
            }
        }
    }

    pub fn call_failed(&mut self, link: usize, life: Instant, started_at: Instant) {
        if !self.calls_still(link, life) {
            return;
        }
        let (place, peer) = (self.links[link].ends[0].place, self.peer(link, 0));
        if let Some(bridge) = self.bridges.get_mut(&place) {
            bridge.junction.call_failed(started_at, &peer);
        }
        self.settle(place);
        self.attend(place.island);
    }

    /// The handshake is over, unless something has come between.
    pub fn connect(&mut self, link: usize, life: Instant, started_at: Instant, knock: usize) {
        if !self.calls_still(link, life) {
            return;
        }
        let places = [0, 1].map(|end| self.links[link].ends[end].place);
        if self.links[link].is_cut || !self.listens(places[1]) {
            // The answer is lost, and QUIC repeats what is not answered; whoever has started anew takes it for the first.
            return self.knock_again(link, life, started_at, knock);
        }
        for end in [0, 1] {
            self.drop_session(link, end);
        }
        self.links[link].connection += 1;
        for end in [0, 1] {
            let (place, peer) = (places[end], self.peer(link, end));
            let Some(bridge) = self.bridges.get_mut(&place) else { return };
            let settings = Settings {
                peer,
                admission: Admission::Known,
                island: format!("i{}", place.island),
                island_id: None,
                software: String::new(),
                protocol: PROTOCOL,
                invite: None,
                bookmark: bridge.junction.connected(peer),
            };
            let this = &mut self.links[link].ends[end];
            this.streams = Default::default();
            this.session = Some(Session::new(self.now, settings));
        }
        for place in places {
            self.settle(place);
            self.attend(place.island);
        }
    }

    /// The connection is over at this end.
    fn drop_session(&mut self, link: usize, end: usize) {
        let this = &mut self.links[link].ends[end];
        let Some(session) = this.session.take() else { return };
        let (place, peer) = (this.place, self.peer(link, end));
        if let Some(bridge) = self.bridges.get_mut(&place) {
            bridge.junction.down(self.now, &peer, session.bookmark());
        }
        self.note(
            place,
            format_args!("has no link with i{} any more", self.links[link].ends[1 - end].place.island),
        );
    }

    pub fn peer(&self, link: usize, end: usize) -> MemberId {
        self.links[link].ends[1 - end].id
    }
}

/// What goes over them.
impl Archipelago {
    pub fn arrive(&mut self, packet: Packet) {
        let Packet { link, end, connection, .. } = packet;
        if self.links[link].is_cut {
            return self.links[link].held.push(packet);
        }
        let place = self.links[link].ends[end].place;
        if self.links[link].connection != connection || !self.runs(place) {
            return;
        }
        if self.links[link].ends[end].session.is_none() {
            // Whoever has started anew disowns the connections of the life before.
            if !matches!(packet.content, Content::Closed) {
                self.send(link, end, Content::Closed);
            }
            return;
        }
        match packet.content {
            Content::Closed => self.drop_session(link, end),
            Content::Frame(stream) => {
                let inbound = &mut self.links[link].ends[end].streams[stream];
                inbound.waiting.extend(inbound.on_way.pop_front());
                self.read(link, end);
            }
        }
        self.settle(place);
        self.attend(place.island);
    }

    /// Hands over what has come, as far as it is wanted.
    pub fn read(&mut self, link: usize, end: usize) {
        let mut was_full = false;
        for stream in [Stream::Urgent, Stream::Control, Stream::Table] {
            loop {
                let this = &mut self.links[link].ends[end];
                let Some(session) = this.session.as_mut().filter(|session| session.wants(stream)) else {
                    break;
                };
                let inbound = &mut this.streams[number_of(stream)];
                let Some(frame) = inbound.waiting.pop_front() else { break };
                was_full |= inbound.outstanding >= WINDOW;
                inbound.outstanding -= bytes_of(&frame);
                session.heard(self.now);
                session.handle_frame(self.now, frame).expect("an honest bridge keeps to the protocol");
                self.take_events(link, end);
            }
        }
        if was_full {
            let other = self.links[link].ends[1 - end].place;
            self.plan(self.links[link].delay, Job::Room(other));
        }
    }

    pub fn take_events(&mut self, link: usize, end: usize) {
        let (now, peer) = (self.now, self.peer(link, end));
        let (place, round_trip) = (self.links[link].ends[end].place, self.links[link].delay * 2);
        while let Some(event) = self.links[link].ends[end].session.as_mut().and_then(Session::poll_event) {
            let Some(bridge) = self.bridges.get_mut(&place) else { return };
            match event {
                Event::Invited { .. } => unreachable!("nobody here has an invite"),
                Event::Up(greeting) => {
                    self.note(place, format_args!("has a link with {}", greeting.island));
                    if let Some(bridge) = self.bridges.get_mut(&place) {
                        bridge.junction.up(now, peer, greeting.island, round_trip);
                    }
                }
                Event::Words { stream, withdrawn, words, .. } => {
                    self.hand_over((link, end), stream, withdrawn, words)
                }
                Event::Routes(routes) => bridge.junction.heard_routes(now, peer, routes),
                Event::Load(loads) => bridge.junction.heard_loads(now, peer, loads),
                Event::Down(reason) => {
                    self.note(place, format_args!("link over: {reason}"));
                    self.transmit(link, end);
                    self.send(link, end, Content::Closed);
                    self.drop_session(link, end);
                }
            }
        }
    }

    pub fn transmit(&mut self, link: usize, end: usize) {
        let place = self.links[link].ends[end].place;
        for stream in Stream::ALL {
            let number = number_of(stream);
            while self.links[link].ends[1 - end].streams[number].outstanding < WINDOW {
                let Some(bridge) = self.bridges.get(&place) else { return };
                let Some(session) = &mut self.links[link].ends[end].session else { return };
                let Some(frame) = session.poll_transmit(self.now, stream, &bridge.journal) else { break };
                let inbound = &mut self.links[link].ends[1 - end].streams[number];
                inbound.outstanding += bytes_of(&frame);
                inbound.on_way.push_back(frame);
                self.send(link, end, Content::Frame(number));
            }
        }
    }

    /// Puts something on its way to the other end, in the order of its stream.
    fn send(&mut self, link: usize, end: usize, content: Content) {
        let mut delay = self.links[link].delay.mul_f64(self.random.random_range(1.0..1.1));
        if self.random.random_bool(LOSS) {
            delay += self.links[link].delay * 2 + FOUND_LOST;
        }
        let streams = &mut self.links[link].ends[1 - end].streams;
        let mut at = self.now + delay;
        match &content {
            Content::Frame(stream) => {
                at = streams[*stream].last_arrival.map_or(at, |last| last.max(at));
                streams[*stream].last_arrival = Some(at);
            }
            Content::Closed => {
                at = streams.iter().filter_map(|stream| stream.last_arrival).fold(at, Instant::max);
            }
        }
        let packet = Packet { link, end: 1 - end, connection: self.links[link].connection, content };
        self.plan(at - self.now, Job::Arrive(packet));
    }

    /// What a cut held back is sent again.
    pub fn release(&mut self, link: usize) {
        for packet in std::mem::take(&mut self.links[link].held) {
            let delay = self.links[link].delay;
            self.plan(delay, Job::Arrive(packet));
        }
    }
}
