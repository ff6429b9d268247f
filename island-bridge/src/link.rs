//! One link over one connection: the task that moves bytes between the connection's streams and a [`Session`].
//!
//! The task owns the session; the journal it reads is shared by all links (see [`shared`](crate::shared)). A stream is
//! read only while the session wants its frames and all events have been taken, and a frame is made only when its stream
//! has taken the one before: what waits here is a piece and a frame of each stream, and the words that are being merged.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::RecvStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::endpoint::Connection;
use crate::frame::{IslandLoad, Route, Stream};
use crate::session::{self, Bookmark, Counters, DownReason, Greeting, Session, Settings};
use crate::shared::SharedJournal;

mod orders;
mod streams;
mod values;

pub(crate) use orders::{End, Orders};
use streams::{Broken, Progress, Streams};
pub use values::{EndReason, Words};

/// Who has not said a hello that can be accepted after this is sent away: slow hellos must not fill the room for
/// strangers. Guessed: three round trips of any path, and an invite looked up.
const UP_MAX: Duration = Duration::from_secs(5);

/// The answer to a goodbye may take so long: as long as whoever said it waits.
const PARTING_MAX: Duration = Duration::from_millis(200);

/// What has happened on a link, for whoever owns it.
#[derive(Debug)]
pub(crate) enum Event {
    /// An answer is expected as an order.
    Invited([u8; 32]),
    Up(Greeting),
    Routes(Vec<Route>),
    Load(Vec<(String, IslandLoad)>),
    /// The last one, with where the next link with the same peer may go on.
    Down(EndReason, Option<Bookmark>),
}

/// What can be seen of a link from outside.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shown {
    pub(crate) counters: Counters,
    pub(crate) round_trip: Option<Duration>,
    /// Where another link with the same peer may go on.
    pub(crate) bookmark: Option<Bookmark>,
}

/// Where a link hands things over. Events come with the link's number. Whoever takes them has to go on taking: a link
/// with an event that is not taken hears nothing.
#[derive(Clone, Debug)]
pub(crate) struct Outlets {
    pub(crate) events: mpsc::Sender<(u64, Event)>,
    pub(crate) words: mpsc::Sender<Words>,
}

/// What is needed to run a link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) connection: Connection,
    pub(crate) settings: Settings,
    pub(crate) journal: SharedJournal,
    pub(crate) orders: Orders,
    pub(crate) shown: Arc<Mutex<Shown>>,
    pub(crate) outlets: Outlets,
}

impl Link {
    /// Carries the link until it is over; the connection is closed then. Dropped before, the connection is closed, too.
    pub(crate) async fn run(self) {
        let (number, outlets, connection) = (self.number, self.outlets.clone(), self.connection.clone());
        let (reason, bookmark) = match timeout(UP_MAX, Streams::open(connection.quic())).await {
            Ok(Ok(streams)) => Task::new(self, streams).run().await,
            Ok(Err(error)) => (Broken::from(error).into(), self.settings.bookmark),
            Err(_) => (EndReason::NoHello(UP_MAX), self.settings.bookmark),
        };
        connection.close(reason.closing());
        debug!(%reason, "link over");
        // Nobody is there to hear it while everything stops.
        let _ = outlets.events.send((number, Event::Down(reason, bookmark))).await;
    }
}

/// A link whose streams are open.
struct Task {
    link: Link,
    session: Session,
    streams: Streams,
    heads: watch::Receiver<u64>,
    up_by: Instant,
    /// Not taken yet. Nothing is read while there are any.
    events: VecDeque<Event>,
    /// Not taken yet: one of each kind, for the session wants no others.
    words: VecDeque<Words>,
    /// Until the words that came last have been merged.
    merging: [Option<oneshot::Receiver<()>>; 2],
    over: Option<DownReason>,
}

enum Wake {
    Orders,
    Merged(Stream, bool),
    Journal,
    /// Words were taken, or never will be.
    WordsTaken(bool),
    /// An event was taken, or never will be.
    EventTaken(bool),
    Accepted(Result<RecvStream, quinn::ConnectionError>),
    Progress(Result<Progress, Broken>),
    Timeout,
}

impl Task {
    fn new(link: Link, streams: Streams) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(now.into_std(), link.settings.clone()),
            streams,
            heads: link.journal.heads(),
            up_by: now + UP_MAX,
            events: VecDeque::new(),
            words: VecDeque::new(),
            merging: [None, None],
            over: None,
            link,
        }
    }

    async fn run(mut self) -> (EndReason, Option<Bookmark>) {
        let reason = loop {
            self.transmit();
            let wake = self.wait().await;
            if let Err(reason) = self.take(wake) {
                break reason;
            }
            self.show();
            tokio::task::consume_budget().await;
        };
        if matches!(reason, EndReason::Session(DownReason::EndedByPeer(_))) {
            self.answer_goodbye().await;
        }
        self.show();
        (reason, self.session.bookmark().or(self.link.settings.bookmark))
    }

    /// Waits for a reason to do something. Loses nothing. Deadlines come last: what came before them is looked at first,
    /// so that a process that slept does not take its own sleep for the other side's silence.
    async fn wait(&mut self) -> Wake {
        let deadline = self.deadline();
        let Self { link, session, streams, heads, events, words, merging: [table, urgent], .. } = self;
        let listens = events.is_empty();
        tokio::select! {
            biased;
            () = link.orders.given() => Wake::Orders,
            is_merged = merged(table) => Wake::Merged(Stream::Table, is_merged),
            is_merged = merged(urgent) => Wake::Merged(Stream::Urgent, is_merged),
            permit = link.outlets.words.reserve(), if !words.is_empty() => {
                Wake::WordsTaken(permit.is_ok_and(|permit| {
                    words.pop_front().map(|words| permit.send(words)).is_some()
                }))
            }
            permit = link.outlets.events.reserve(), if !events.is_empty() => {
                Wake::EventTaken(permit.is_ok_and(|permit| {
                    events.pop_front().map(|event| permit.send((link.number, event))).is_some()
                }))
            }
            Ok(()) = heads.changed() => Wake::Journal,
            accepted = link.connection.quic().accept_uni() => Wake::Accepted(accepted),
            progress = streams.progress(|stream| listens && session.wants(stream)) => Wake::Progress(progress),
            () = sleep_until(deadline), if listens => Wake::Timeout,
        }
    }

    fn take(&mut self, wake: Wake) -> Result<(), EndReason> {
        let now = Instant::now();
        match wake {
            Wake::Orders => self.obey(now)?,
            Wake::Merged(_, false) | Wake::WordsTaken(false) | Wake::EventTaken(false) => {
                return Err(EndReason::Abandoned);
            }
            Wake::Merged(stream, true) => self.session.merged(stream),
            // While nobody listened the other side cannot be said to have been silent.
            Wake::EventTaken(true) => self.session.heard(now.into_std()),
            Wake::WordsTaken(true) | Wake::Journal | Wake::Timeout => {}
            Wake::Accepted(stream) => self.streams.accept(stream.map_err(Broken::from)?)?,
            Wake::Progress(progress) => {
                if progress? == Progress::Read {
                    self.session.heard(now.into_std());
                }
            }
        }
        self.hand_in(now)?;
        if self.events.is_empty() {
            self.session.handle_timeout(now.into_std());
            self.collect();
        }
        if let Some(reason) = self.over {
            return Err(reason.into());
        }
        if !self.session.is_up() && now >= self.up_by {
            return Err(EndReason::NoHello(UP_MAX));
        }
        Ok(())
    }

    fn obey(&mut self, now: Instant) -> Result<(), EndReason> {
        let orders = self.link.orders.take();
        self.session.say_routes(orders.routes.into_values().flatten());
        if let Some(loads) = orders.loads {
            self.session.say_load(loads);
        }
        if orders.read_anew {
            self.session.read_anew();
        }
        match orders.invite {
            None => {}
            Some(Ok(())) => self.session.admit(),
            Some(Err(refusal)) => self.session.refuse(refusal),
        }
        match orders.end {
            None => {}
            Some(End::Goodbye(reason)) => self.session.goodbye(now.into_std(), reason),
            Some(End::Replaced) => return Err(EndReason::Replaced),
        }
        self.collect();
        Ok(())
    }

    /// Hands in what has come, as far as it is wanted.
    fn hand_in(&mut self, now: Instant) -> Result<(), EndReason> {
        for stream in [Stream::Urgent, Stream::Control, Stream::Table] {
            while self.events.is_empty()
                && self.session.wants(stream)
                && self.streams.inbound(stream).has_bytes()
                && let Some(frame) = self.streams.inbound(stream).next()?
            {
                // A breach comes as an event, too.
                let _ = self.session.handle_frame(now.into_std(), frame);
                self.collect();
            }
        }
        Ok(())
    }

    fn collect(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                session::Event::Invited { secret } => self.events.push_back(Event::Invited(secret)),
                session::Event::Up(greeting) => self.events.push_back(Event::Up(greeting)),
                session::Event::Routes(routes) => self.events.push_back(Event::Routes(routes)),
                session::Event::Load(loads) => self.events.push_back(Event::Load(loads)),
                session::Event::Words { stream, withdrawn, words, gone } => {
                    let is_urgent = stream == Stream::Urgent;
                    let (merged, done) = oneshot::channel();
                    self.merging[usize::from(is_urgent)] = Some(done);
                    let from = self.link.connection.peer();
                    self.words.push_back(Words { from, withdrawn, words, gone, is_urgent, merged });
                }
                session::Event::Down(reason) => self.over = Some(reason),
            }
        }
    }

    /// Makes frames for all streams that have room.
    fn transmit(&mut self) {
        let now = Instant::now().into_std();
        let Self { link, session, streams, .. } = self;
        link.journal.read(|journal| {
            for stream in [Stream::Urgent, Stream::Control, Stream::Table] {
                streams.outbound(stream).fill(|| session.poll_transmit(now, stream, journal));
            }
        });
    }

    /// Says goodbye, too, and leaves it to the other side to close the connection, for only that knows when it has heard it.
    async fn answer_goodbye(&mut self) {
        let parting = async {
            self.streams.outbound(Stream::Urgent).flush().await;
            self.transmit();
            self.streams.outbound(Stream::Urgent).finish().await;
            self.link.connection.quic().closed().await;
        };
        if timeout(PARTING_MAX, parting).await.is_err() {
            debug!("goodbye not answered in time");
        }
    }

    fn deadline(&self) -> Instant {
        let session = self.session.poll_timeout().map(|wakeup| Instant::from_std(wakeup.at));
        let up_by = (!self.session.is_up()).then_some(self.up_by);
        session.into_iter().chain(up_by).min().unwrap_or(self.up_by)
    }

    fn show(&self) {
        let session = &self.session;
        let shown = Shown {
            counters: session.counters(),
            round_trip: session.round_trip(),
            bookmark: session.bookmark().or(self.link.settings.bookmark),
        };
        *self.link.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }
}

/// Waits until the words are merged, or dropped; for ever if there are none. Cancel safe.
async fn merged(merging: &mut Option<oneshot::Receiver<()>>) -> bool {
    let Some(done) = merging else { return pending().await };
    let is_merged = done.await.is_ok();
    *merging = None;
    is_merged
}
