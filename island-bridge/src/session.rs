//! One link as a state machine: frames and times go in, frames and events come out.
//!
//! Both sides say hello; a version that both understand is chosen, and two islands of one name are refused. Then each
//! reads the other's [`Journal`]: it says how far it has read, and gets what is new in batches, one at a time, or a
//! digest first if its place is not known any more. Urgent words go past all that on a stream of their own. What is
//! read is the caller's to verify and merge; what advanced its table it records in the journal, from where every
//! link reads it. So a word is passed on only where it was news, and flooding ends by itself in any graph.
//!
//! Which keys may link, and who said which word, is decided elsewhere: the connection has proven the key, and
//! `isle_mesh::verify` proves words. After each input the caller drains [`poll_event`](Session::poll_event), and
//! [`poll_transmit`](Session::poll_transmit) for each stream that has room; so nothing waits here but what the
//! transport takes. What the other side can make us keep: one batch, one urgent word, one digest and one request, each as
//! large as a frame, and 4096 hashes.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use isle_mesh::member::MemberId;

use crate::frame::{Frame, Goodbye, Hello, IslandLoad, LOADS_MAX, ROUTES_MAX, Refusal, Route, Stream};
use crate::journal::Journal;

mod incoming;
mod outgoing;
mod pulse;
#[cfg(test)]
mod tests;
mod values;

use incoming::Incoming;
use outgoing::Outgoing;
use pulse::Pulse;
pub use values::{Admission, Bookmark, Breach, Counters, DownReason, Event, Greeting, Settings, Wakeup, Why};

/// Lowest and highest version of the protocol that this code speaks.
pub const PROTOCOL: (u8, u8) = (1, 2);

/// Loads are said at most so often.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);

/// A goodbye waits so long for its answer: the process that says it has a second in all.
const GOODBYE_LIMIT: Duration = Duration::from_millis(200);

/// One link to another island's bridge, from hello to goodbye. A link that comes back is a new session.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    phase: Phase,
    hello_due: bool,
    pong_due: Option<u64>,
    pulse: Pulse,
    incoming: Incoming,
    outgoing: Outgoing,
    /// The newest of each island that is still to be said.
    routes_due: BTreeMap<String, Vec<Route>>,
    load: Load,
    goodbye: Option<Parting>,
    /// What is still said when the link is over.
    last_words: Option<Frame>,
    events: VecDeque<Event>,
    counters: Counters,
}

#[derive(Debug)]
enum Phase {
    /// The other side has not said hello.
    Greeting,
    /// It has shown an invite; the caller looks at it.
    Invited(Hello),
    Up,
    Over,
}

/// The newest loads, and whether they may be said.
#[derive(Debug)]
struct Load {
    due: Vec<(String, IslandLoad)>,
    /// Not before; `None` for now.
    not_before: Option<Instant>,
}

/// Our own goodbye.
#[derive(Debug)]
struct Parting {
    reason: Goodbye,
    is_said: bool,
    ends_at: Instant,
}

impl Session {
    /// A link over a connection that has just been made.
    #[must_use]
    pub fn new(now: Instant, settings: Settings) -> Self {
        Self {
            phase: Phase::Greeting,
            hello_due: settings.admission == Admission::Known,
            pong_due: None,
            pulse: Pulse::new(now),
            incoming: Incoming::new(settings.bookmark),
            outgoing: Outgoing::new(settings.peer),
            routes_due: BTreeMap::new(),
            load: Load { due: Vec::new(), not_before: None },
            goodbye: None,
            last_words: None,
            events: VecDeque::new(),
            counters: Counters::default(),
            settings,
        }
    }

    /// Takes what came on a stream, in its order. What comes after the link is over is ignored.
    ///
    /// # Errors
    /// The other side broke the protocol. The link is over: the event `Down` says the same.
    pub fn handle_frame(&mut self, now: Instant, frame: Frame) -> Result<(), Breach> {
        self.heard(now);
        let handled = match (&self.phase, frame) {
            (Phase::Over, _) => Ok(()),
            (Phase::Greeting, Frame::Hello(hello)) => {
                self.handle_hello(hello);
                Ok(())
            }
            (_, Frame::Refused(refusal)) => {
                self.end(DownReason::RefusedByPeer(refusal));
                Ok(())
            }
            (Phase::Greeting | Phase::Invited(_), _) => Err(Breach::BeforeHello),
            (Phase::Up, frame) => self.handle_talk(now, frame),
        };
        if let Err(breach) = handled {
            self.end(DownReason::Breach(breach));
        }
        handled
    }

    /// Something came from the other side, be it only a part of a frame: it is there.
    pub fn heard(&mut self, now: Instant) {
        self.pulse.heard(now);
    }

    /// Whether frames of `stream` may be handed in now. While it is false the stream is not read, and the transport
    /// holds the other side back: it has sent more than we have merged, or has not said hello yet.
    #[must_use]
    pub fn wants(&self, stream: Stream) -> bool {
        match (&self.phase, stream) {
            (Phase::Over, _) => false,
            (_, Stream::Control) => true,
            (Phase::Up, Stream::Table) => !self.incoming.is_merging(),
            (Phase::Up, Stream::Urgent) => !self.incoming.is_merging_urgent(),
            (Phase::Greeting | Phase::Invited(_), _) => false,
        }
    }

    /// The words that came last on `stream` are in the table and what they changed is in the journal.
    pub fn merged(&mut self, stream: Stream) {
        match stream {
            Stream::Control => {}
            Stream::Table => self.incoming.merged(),
            Stream::Urgent => self.incoming.merged_urgent(),
        }
    }

    /// The invite that the event `Invited` showed is good, and is used. The link may still be refused for another reason.
    pub fn admit(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Invited(hello) => {
                self.hello_due = true;
                self.accept(&hello);
            }
            phase => self.phase = phase,
        }
    }

    /// Ends the link because it may not be; the other side is told why.
    pub fn refuse(&mut self, refusal: Refusal) {
        if !matches!(self.phase, Phase::Over) {
            self.end(DownReason::Refused(refusal));
            self.last_words = Some(Frame::Refused(refusal));
        }
    }

    /// Ends the link on purpose, once everything urgent has been sent and the other side has answered, or 200 ms after
    /// `now`.
    pub fn goodbye(&mut self, now: Instant, reason: Goodbye) {
        match self.phase {
            Phase::Up => {
                let ends_at = now + GOODBYE_LIMIT;
                self.goodbye.get_or_insert(Parting { reason, is_said: false, ends_at });
            }
            Phase::Greeting | Phase::Invited(_) => self.end(DownReason::Ended),
            Phase::Over => {}
        }
    }

    /// Which islands can be reached through us, as far as that has changed: of each of them all ways. Said as soon as the
    /// stream has room, all of one island in one frame; of each island only the newest.
    pub fn say_routes(&mut self, routes: impl IntoIterator<Item = Route>) {
        self.routes_due.extend(Route::by_island(routes));
    }

    /// How busy islands are: ours, and those that routes were said for; those beyond the first [`LOADS_MAX`] are left
    /// out. Said at most once a second; of several only the last.
    pub fn say_load(&mut self, mut loads: Vec<(String, IslandLoad)>) {
        loads.truncate(LOADS_MAX);
        self.load.due = loads;
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        if let Some(silence) = self.pulse.silence(now) {
            return self.end(DownReason::Silent(silence));
        }
        if self.goodbye.as_ref().is_some_and(|parting| parting.ends_at <= now) {
            return self.end(DownReason::Ended);
        }
        self.pulse.handle_timeout(now);
        self.outgoing.handle_timeout(now);
        self.load.not_before.take_if(|at| *at <= now);
    }

    /// When `handle_timeout` has work; `None` once the link is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Wakeup> {
        if matches!(self.phase, Phase::Over) {
            return None;
        }
        let is_up = matches!(self.phase, Phase::Up);
        let waiting_load = self.load.not_before.filter(|_| !self.load.due.is_empty());
        let timers = [
            (Why::SilenceEnds, Some(self.pulse.silence_ends())),
            (Why::PingDue, self.pulse.ask_at().filter(|_| is_up)),
            (Why::LoadDue, waiting_load),
            (Why::AdvanceDue, self.outgoing.advance_at()),
            (Why::GoodbyeEnds, self.goodbye.as_ref().map(|parting| parting.ends_at)),
        ];
        timers
            .into_iter()
            .filter_map(|(why, at)| Some(Wakeup { at: at?, why }))
            .min_by_key(|wakeup| wakeup.at)
    }

    /// The next frame for a stream that has room. `journal` is always the same one: all links of a bridge read it.
    pub fn poll_transmit(&mut self, now: Instant, stream: Stream, journal: &Journal) -> Option<Frame> {
        if let Some(frame) = self.last_words.take_if(|frame| frame.stream() == stream) {
            return Some(frame);
        }
        let frame = match (&self.phase, stream) {
            (Phase::Over, _) => None,
            (_, Stream::Control) => self.poll_control(now, journal),
            (Phase::Up, Stream::Table) if self.goodbye.is_none() => {
                self.incoming.poll(journal).or_else(|| self.outgoing.poll_table(now, journal))
            }
            (Phase::Up, Stream::Urgent) => self.poll_urgent(now, journal),
            _ => None,
        }?;
        let words = match &frame {
            Frame::Changes(changes) => changes.words.len() as u64,
            Frame::Urgent { words, .. } => words.len() as u64,
            _ => 0,
        };
        self.counters.words_sent += words;
        self.counters.urgent_sent += if stream == Stream::Urgent { words } else { 0 };
        self.counters.digests += u64::from(matches!(frame, Frame::Digest(_)));
        Some(frame)
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How far the other side's journal was read; to be given to the next session with the same peer.
    #[must_use]
    pub fn bookmark(&self) -> Option<Bookmark> {
        self.incoming.bookmark()
    }

    /// An island can be reached again: if our own table has lost something since it was read from the other side, all is
    /// compared anew. Not sooner, for whoever lost its members has lost them for want of a way to them.
    pub fn read_anew(&mut self) {
        self.incoming.read_anew();
    }

    /// What the link has carried.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The smoothed round trip, once measured.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.pulse.round_trip()
    }

    /// Whether the link carries.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up)
    }

    fn handle_hello(&mut self, hello: Hello) {
        match (self.settings.admission, hello.invite) {
            (Admission::Known, _) => self.accept(&hello),
            (Admission::ByInvite, None) => self.refuse(Refusal::UnknownKey),
            (Admission::ByInvite, Some(secret)) => {
                self.phase = Phase::Invited(hello);
                self.events.push_back(Event::Invited { secret });
            }
        }
    }

    fn accept(&mut self, hello: &Hello) {
        let (lowest, highest) = self.settings.protocol;
        let protocol = highest.min(hello.protocol.1);
        self.phase = Phase::Up;
        if protocol < lowest.max(hello.protocol.0) {
            return self.refuse(Refusal::Version);
        }
        let is_same_id = hello.island_id.is_some() && hello.island_id == self.settings.island_id;
        if is_same_id || hello.island == self.settings.island {
            return self.refuse(Refusal::SameName);
        }
        self.outgoing.speaks(protocol);
        self.incoming.of_instance(hello.instance);
        self.events.push_back(Event::Up(Greeting {
            island: hello.island.clone(),
            island_id: hello.island_id,
            software: hello.software.clone(),
            protocol,
        }));
    }

    /// What is said after the hellos.
    fn handle_talk(&mut self, now: Instant, frame: Frame) -> Result<(), Breach> {
        match frame {
            Frame::Hello(_) => return Err(Breach::SecondHello),
            Frame::Refused(refusal) => self.end(DownReason::RefusedByPeer(refusal)),
            Frame::Ping { nonce } => self.pong_due = Some(nonce),
            Frame::Pong { nonce } => self.pulse.answered(now, nonce),
            Frame::Load(loads) => self.events.push_back(Event::Load(loads)),
            Frame::Cursor(cursor) => self.outgoing.handle_cursor(cursor)?,
            Frame::Ack { through } => self.outgoing.handle_ack(through)?,
            Frame::Changes(changes) => {
                self.incoming.handle_changes(&changes)?;
                self.hand_over(Stream::Table, changes.withdrawn, changes.words, changes.gone);
            }
            Frame::Digest(digest) => {
                self.incoming.handle_digest(digest)?;
                self.counters.digests += 1;
            }
            Frame::DigestRequest(request) => self.outgoing.handle_request(request)?,
            Frame::Urgent { index, words, gone } => {
                self.incoming.handle_urgent(index)?;
                self.hand_over(Stream::Urgent, Vec::new(), words, gone);
            }
            Frame::Routes(routes) => self.events.push_back(Event::Routes(routes)),
            Frame::Goodbye(reason) => self.handle_goodbye(reason),
        }
        Ok(())
    }

    fn hand_over(
        &mut self,
        stream: Stream,
        withdrawn: Vec<MemberId>,
        words: Vec<Bytes>,
        gone: Vec<(MemberId, Duration)>,
    ) {
        for word in &words {
            self.outgoing.heard(word);
        }
        self.counters.words_heard += words.len() as u64;
        self.counters.urgent_heard += if stream == Stream::Urgent { words.len() as u64 } else { 0 };
        if withdrawn.is_empty() && words.is_empty() {
            self.merged(stream);
        } else {
            self.events.push_back(Event::Words { stream, withdrawn, words, gone });
        }
    }

    fn handle_goodbye(&mut self, reason: Goodbye) {
        let answer = match &self.goodbye {
            Some(parting) if parting.is_said => return self.end(DownReason::Ended),
            Some(parting) => parting.reason,
            None => reason,
        };
        self.end(DownReason::EndedByPeer(reason));
        self.last_words = Some(Frame::Goodbye(answer));
    }

    fn poll_control(&mut self, now: Instant, journal: &Journal) -> Option<Frame> {
        if std::mem::take(&mut self.hello_due) {
            return Some(Frame::Hello(self.hello(journal)));
        }
        if !self.is_up() {
            return None;
        }
        if let Some(nonce) = self.pong_due.take() {
            return Some(Frame::Pong { nonce });
        }
        if let Some(nonce) = self.pulse.ask(now) {
            return Some(Frame::Ping { nonce });
        }
        if self.load.due.is_empty() || self.load.not_before.is_some() {
            return None;
        }
        self.load.not_before = Some(now + LOAD_INTERVAL);
        Some(Frame::Load(std::mem::take(&mut self.load.due)))
    }

    fn poll_urgent(&mut self, now: Instant, journal: &Journal) -> Option<Frame> {
        if let Some(frame) = self.outgoing.poll_urgent(now, journal) {
            return Some(frame);
        }
        let mut routes = Vec::new();
        while let Some(island) = self.routes_due.first_entry()
            && routes.len() + island.get().len() <= ROUTES_MAX
        {
            routes.extend(island.remove());
        }
        if !routes.is_empty() {
            return Some(Frame::Routes(routes));
        }
        let parting = self.goodbye.as_mut().filter(|parting| !parting.is_said)?;
        parting.is_said = true;
        Some(Frame::Goodbye(parting.reason))
    }

    fn hello(&self, journal: &Journal) -> Hello {
        Hello {
            protocol: self.settings.protocol,
            island: self.settings.island.clone(),
            island_id: self.settings.island_id,
            instance: journal.instance(),
            software: self.settings.software.clone(),
            invite: self.settings.invite,
        }
    }

    fn end(&mut self, reason: DownReason) {
        self.phase = Phase::Over;
        self.events.push_back(Event::Down(reason));
    }
}
