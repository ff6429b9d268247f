//! Connections and what they carry: frames as bytes, in pieces, with delays.

use std::time::Instant;

use island_bridge::frame::{self, Stream};
use island_bridge::session::{Admission, PROTOCOL, Session, Settings};
use isle_mesh::member::MemberId;
use rand::RngExt;

use super::{Job, World, words};
use crate::link::{Content, Inbound, Packet, WINDOW};

impl World {
    pub(super) fn connect(&mut self, link: usize) {
        let bridges = [0, 1].map(|end| self.links[link].ends[end].bridge);
        if bridges.iter().any(|bridge| self.bridges[*bridge].is_dead) {
            return self.redial(link);
        }
        for end in [0, 1] {
            self.disconnect(link, end);
        }
        self.links[link].connection += 1;
        for end in [0, 1] {
            let island = self.islands[self.bridges[bridges[end]].island].name.clone();
            let bookmark = self.links[link].ends[end].bookmark;
            let settings = Settings {
                peer: self.bridges[bridges[1 - end]].id,
                admission: Admission::Known,
                island,
                island_id: None,
                software: String::new(),
                protocol: PROTOCOL,
                invite: None,
                bookmark,
            };
            let this = &mut self.links[link].ends[end];
            this.streams = Stream::ALL.map(Inbound::new);
            (this.session, this.wake_at) = (Some(Session::new(self.now, settings)), None);
        }
        for bridge in bridges {
            self.settle(bridge);
        }
    }

    /// The connection is gone at this end.
    pub(super) fn disconnect(&mut self, link: usize, end: usize) {
        let this = &mut self.links[link].ends[end];
        if let Some(session) = this.session.take() {
            this.bookmark = session.bookmark().or(this.bookmark);
            let (bridge, peer) = (this.bridge, self.peer(link, end));
            self.bridges[bridge].routes.link_down(self.now, peer);
        }
    }

    pub(super) fn peer(&self, link: usize, end: usize) -> MemberId {
        self.bridges[self.links[link].ends[1 - end].bridge].id
    }

    pub(super) fn arrive(&mut self, packet: Packet) {
        let Packet { link, end, connection, .. } = packet;
        if self.links[link].is_cut {
            return self.links[link].held.push(packet);
        }
        if self.links[link].connection != connection || self.links[link].ends[end].session.is_none() {
            return;
        }
        match packet.content {
            Content::Closed => {
                self.disconnect(link, end);
                if end == 0 {
                    self.redial(link);
                }
            }
            Content::Bytes(stream) => {
                let inbound = &mut self.links[link].ends[end].streams[stream];
                inbound.waiting.extend(inbound.on_way.pop_front().expect("each packet has its bytes"));
                self.read(link, end);
            }
        }
        self.settle(self.links[link].ends[end].bridge);
    }

    /// Hands over what has come, as far as it is wanted.
    pub(super) fn read(&mut self, link: usize, end: usize) {
        for (index, stream) in Stream::ALL.into_iter().enumerate() {
            loop {
                let this = &mut self.links[link].ends[end];
                let Some(session) = this.session.as_mut().filter(|session| session.wants(stream)) else {
                    break;
                };
                let inbound = &mut this.streams[index];
                let mut input = &*inbound.waiting.make_contiguous();
                let before = input.len();
                let frame = inbound.decoder.read(&mut input).expect("an honest bridge says only frames");
                let taken = before - input.len();
                inbound.waiting.drain(..taken);
                inbound.outstanding -= taken;
                let Some(frame) = frame else { break };
                session
                    .handle_frame(self.now, frame.clone())
                    .expect("an honest bridge keeps to the protocol");
                for word in words(&frame) {
                    let crossing = self.crossings.entry((link, word)).or_default();
                    crossing.read[1 - end].get_or_insert(self.now);
                }
                self.take_events(link, end);
            }
        }
    }

    pub(super) fn transmit(&mut self, link: usize, end: usize) {
        let bridge = self.links[link].ends[end].bridge;
        for (index, stream) in Stream::ALL.into_iter().enumerate() {
            while self.links[link].ends[1 - end].streams[index].outstanding < WINDOW {
                let Some(session) = &mut self.links[link].ends[end].session else { return };
                let journal = &self.bridges[bridge].journal;
                let Some(frame) = session.poll_transmit(self.now, stream, journal) else { break };
                for word in words(&frame) {
                    self.crossings.entry((link, word)).or_default().sent[end].push(self.now);
                }
                let mut bytes = Vec::new();
                frame::encode(&frame, &mut bytes);
                self.links[link].ends[1 - end].streams[index].outstanding += bytes.len();
                for piece in bytes.chunks(self.rng.random_range(100..20_000)) {
                    self.links[link].ends[1 - end].streams[index].on_way.push_back(piece.to_vec());
                    self.send(link, end, Content::Bytes(index));
                }
            }
        }
    }

    /// Puts something on its way from `end` to the other one; delays vary by a tenth.
    pub(super) fn send(&mut self, link: usize, end: usize, content: Content) {
        let delay = self.links[link].delay.mul_f64(self.rng.random_range(1.0..1.1));
        let streams = &mut self.links[link].ends[1 - end].streams;
        let mut at = self.now + delay;
        match &content {
            Content::Bytes(stream) => {
                at = streams[*stream].last_arrival.map_or(at, |last| last.max(at));
                streams[*stream].last_arrival = Some(at);
            }
            Content::Closed => {
                at = streams.iter().filter_map(|stream| stream.last_arrival).fold(at, Instant::max)
            }
        }
        let packet = Packet { link, end: 1 - end, connection: self.links[link].connection, content };
        self.plan(at - self.now, Job::Arrive(packet));
    }
}
