//! Two sessions joined by two streams of frames, in virtual time, each with a journal and a table of versions.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use isle_mesh::member::MemberId;

use crate::frame::{Frame, Stream};
use crate::journal::{Change, Journal, What};
use crate::session::{Admission, DownReason, Event, PROTOCOL, Session, Settings};

pub(super) const DELAY: Duration = Duration::from_millis(10);

pub(super) fn member(number: u16) -> MemberId {
    MemberId(*blake3::hash(&number.to_be_bytes()).as_bytes())
}

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A word as these tests have it: who, which version, whether it is urgent.
pub(super) fn word(number: u16, version: u16, is_urgent: bool) -> Bytes {
    let (n, v) = (number.to_be_bytes(), version.to_be_bytes());
    Bytes::copy_from_slice(&[n[0], n[1], v[0], v[1], is_urgent.into()])
}

pub(super) struct Side {
    pub(super) session: Session,
    pub(super) journal: Journal,
    pub(super) table: BTreeMap<u16, u16>,
    pub(super) peer: MemberId,
    pub(super) events: Vec<Event>,
    /// Batches are left unmerged.
    pub(super) is_stuck: bool,
}

pub(super) fn settings(island: &str, peer: u16) -> Settings {
    Settings {
        peer: member(peer),
        admission: Admission::Known,
        island: island.into(),
        island_id: None,
        software: "0.1.0".into(),
        protocol: PROTOCOL,
        invite: None,
        bookmark: None,
    }
}

impl Side {
    pub(super) fn new(now: Instant, settings: Settings) -> Self {
        let instance = hash_of_text(&settings.island);
        Self {
            peer: settings.peer,
            session: Session::new(now, settings),
            journal: Journal::new(instance, 10_000),
            table: BTreeMap::new(),
            events: Vec::new(),
            is_stuck: false,
        }
    }

    pub(super) fn learn(&mut self, number: u16, version: u16, is_urgent: bool, from: Option<MemberId>) {
        if self.table.get(&number).is_some_and(|known| *known >= version) {
            return;
        }
        self.table.insert(number, version);
        let bytes = word(number, version, is_urgent);
        let change = Change { member: member(number), what: What::Own, bytes, is_urgent };
        self.journal.record(change, from).unwrap();
    }

    pub(super) fn take_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            if let Event::Words { stream, words, .. } = &event {
                for word in words {
                    let number = u16::from_be_bytes([word[0], word[1]]);
                    let version = u16::from_be_bytes([word[2], word[3]]);
                    self.learn(number, version, word[4] == 1, Some(self.peer));
                }
                if !self.is_stuck {
                    self.session.merged(*stream);
                }
            }
            self.events.push(event);
        }
    }

    pub(super) fn down(&self) -> Option<DownReason> {
        self.events
            .iter()
            .find_map(|event| if let Event::Down(reason) = event { Some(*reason) } else { None })
    }
}

pub(super) fn hash_of_text(text: &str) -> u64 {
    crate::journal::hash_of(text.as_bytes())
}

/// Two sides, and what is on its way: by arrival, to which side.
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) sides: [Side; 2],
    pub(super) on_way: VecDeque<(Instant, usize, Frame)>,
    /// Nothing arrives.
    pub(super) is_cut: bool,
    pub(super) said: Vec<(usize, Frame)>,
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::of(settings("north", 2), settings("south", 1))
    }

    pub(super) fn of(one: Settings, other: Settings) -> Self {
        let now = Instant::now();
        let sides = [Side::new(now, one), Side::new(now, other)];
        Self { now, sides, on_way: VecDeque::new(), is_cut: false, said: Vec::new() }
    }

    pub(super) fn transmit(&mut self) {
        for (index, side) in self.sides.iter_mut().enumerate() {
            side.take_events();
            for stream in Stream::ALL {
                while let Some(frame) = side.session.poll_transmit(self.now, stream, &side.journal) {
                    assert_eq!(frame.stream(), stream);
                    self.said.push((index, frame.clone()));
                    self.on_way.push_back((self.now + DELAY, 1 - index, frame));
                }
            }
        }
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.transmit();
            let wakeups = self.sides.iter().filter_map(|side| side.session.poll_timeout());
            let arrival = self.on_way.front().map(|(at, _, _)| *at);
            let next = wakeups.map(|wakeup| wakeup.at).chain(arrival).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            for side in &mut self.sides {
                side.session.handle_timeout(self.now);
            }
            self.deliver();
        }
        self.now = end;
    }

    pub(super) fn deliver(&mut self) {
        let due = |(at, _, _): &mut (Instant, usize, Frame)| *at <= self.now;
        while let Some((at, to, frame)) = self.on_way.pop_front_if(due) {
            let side = &mut self.sides[to].session;
            if self.is_cut {
                continue;
            }
            // A stream that is not wanted waits; what belongs to another stream does not.
            if !side.wants(frame.stream()) && side.poll_timeout().is_some() {
                self.on_way.push_back((at.max(self.now) + ms(1), to, frame));
                break;
            }
            side.handle_frame(self.now, frame).unwrap();
            self.sides[to].take_events();
        }
    }

    pub(super) fn words_said(&self) -> usize {
        let words = |(_, frame): &(usize, Frame)| match frame {
            Frame::Changes(changes) => changes.words.len(),
            Frame::Urgent { words, .. } => words.len(),
            _ => 0,
        };
        self.said.iter().map(words).sum()
    }
}
