//! `/events`: what happens, as server-sent events. One ring of the last events for all readers.
//!
//! A reader has a position in the ring and no queue of its own: what a mute reader costs does not grow. One
//! that falls behind the ring is cut, with `retry:`, and starts again from a snapshot.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::http::body::{Body, BodyError};

/// Events kept for readers that are late or come back with `Last-Event-ID`.
const RING_EVENTS: usize = 1_000;
/// Readers in all; a dashboard or two for each of a large class.
const READERS_MAX: usize = 256;
/// Readers of one address: a few tabs and tools of one person.
const READERS_PER_ADDRESS_MAX: usize = 8;
/// A comment this often shows both ends that the other is there.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// When a cut reader should come back. Spread by the readers' own jitter; one second is soon for people.
const RETRY: &str = "retry: 1000\n";

/// The ring that readers read and one task fills.
#[derive(Clone, Debug)]
pub struct Feed {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Tells this feed's ids from those of the node's former lives.
    instance: String,
    ring: Mutex<Ring>,
    /// Number of the newest event; wakes readers.
    latest: watch::Sender<u64>,
    readers: Mutex<HashMap<IpAddr, usize>>,
    closing: CancellationToken,
    heartbeat: Duration,
}

#[derive(Debug)]
struct Ring {
    /// Number of the oldest event kept.
    first: u64,
    frames: VecDeque<Bytes>,
}

/// What comes after a position.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Frame(Bytes),
    /// Not kept any more.
    Lost,
    /// Has not happened yet.
    Wait,
}

/// There are as many readers as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Crowded {
    /// On this node.
    #[error("{READERS_MAX} programs read this node's events already")]
    Node,
    /// From this address.
    #[error("{READERS_PER_ADDRESS_MAX} programs at this address read this node's events already")]
    Address,
}

impl Feed {
    /// An empty feed; its streams end when `closing` is cancelled.
    #[must_use]
    pub fn new(closing: CancellationToken) -> Self {
        Self::with(format!("{:08x}", rand::random::<u32>()), HEARTBEAT, closing)
    }

    fn with(instance: String, heartbeat: Duration, closing: CancellationToken) -> Self {
        Self {
            shared: Arc::new(Shared {
                instance,
                ring: Mutex::new(Ring { first: 1, frames: VecDeque::new() }),
                latest: watch::Sender::new(0),
                readers: Mutex::default(),
                closing,
                heartbeat,
            }),
        }
    }

    /// Appends an event; the oldest goes when the ring is full.
    pub fn publish(&self, name: &str, data: &impl Serialize) {
        let json = serde_json::to_string(data).expect("views are strings and numbers only");
        let mut ring = lock(&self.shared.ring);
        let number = ring.end();
        ring.frames.push_back(self.shared.frame(number, name, &json));
        if ring.frames.len() > RING_EVENTS {
            ring.frames.pop_front();
            ring.first += 1;
        }
        drop(ring);
        self.shared.latest.send_replace(number);
    }

    /// Forgets all events: some were missed. Every reader starts again from a snapshot.
    pub fn restart(&self) {
        let mut ring = lock(&self.shared.ring);
        let number = ring.end();
        ring.first = number + 1;
        ring.frames.clear();
        drop(ring);
        self.shared.latest.send_replace(number);
    }

    /// Number of the newest event.
    #[must_use]
    pub fn latest(&self) -> u64 {
        *self.shared.latest.borrow()
    }

    /// How many read.
    #[must_use]
    pub fn readers(&self) -> usize {
        lock(&self.shared.readers).values().sum()
    }

    /// Takes one of the readers' places; it is free again when dropped.
    ///
    /// # Errors
    /// See [`Crowded`].
    pub fn seat(&self, peer: IpAddr) -> Result<Seat, Crowded> {
        let mut readers = lock(&self.shared.readers);
        if readers.values().sum::<usize>() >= READERS_MAX {
            return Err(Crowded::Node);
        }
        let here = readers.entry(peer).or_insert(0);
        if *here >= READERS_PER_ADDRESS_MAX {
            return Err(Crowded::Address);
        }
        *here += 1;
        Ok(Seat { shared: self.shared.clone(), peer })
    }

    /// Where a reader that last saw `last_event_id` goes on; `None` when it needs a snapshot.
    #[must_use]
    pub fn resume(&self, last_event_id: Option<&str>) -> Option<u64> {
        let (instance, number) = last_event_id?.split_once('-')?;
        let number: u64 = number.parse().ok()?;
        let ring = lock(&self.shared.ring);
        let kept = number < ring.end() && number + 1 >= ring.first;
        (instance == self.shared.instance && kept).then_some(number)
    }

    /// The stream of a reader: `snapshot` (a JSON text with the number of the newest event known when it was
    /// made), if it needs one, then every event after `position`.
    #[must_use]
    pub fn body(&self, seat: Seat, position: u64, snapshot: Option<&str>) -> Body {
        let mut opening = RETRY.to_owned();
        match snapshot {
            Some(json) => {
                let frame = self.shared.frame(position, "snapshot", json);
                opening.push_str(std::str::from_utf8(&frame).expect("made of strings"));
            }
            None => opening.push('\n'),
        }
        let reader = Reader {
            latest: self.shared.latest.subscribe(),
            seat,
            position,
            opening: Some(opening.into()),
            over: false,
        };
        let frames = stream::unfold(reader, |mut reader| async {
            let bytes = reader.next().await?;
            Some((Ok::<_, BodyError>(Frame::data(bytes)), reader))
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

impl Shared {
    fn frame(&self, number: u64, name: &str, json: &str) -> Bytes {
        format!("id: {}-{number}\nevent: {name}\ndata: {json}\n\n", self.instance).into()
    }

    fn step(&self, position: u64) -> Step {
        let ring = lock(&self.ring);
        if position + 1 < ring.first {
            return Step::Lost;
        }
        let offset = usize::try_from(position + 1 - ring.first).unwrap_or(usize::MAX);
        ring.frames.get(offset).map_or(Step::Wait, |frame| Step::Frame(frame.clone()))
    }
}

impl Ring {
    /// Number of the next event.
    fn end(&self) -> u64 {
        self.first + self.frames.len() as u64
    }
}

/// A reader's place.
#[derive(Debug)]
pub struct Seat {
    shared: Arc<Shared>,
    peer: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut readers = lock(&self.shared.readers);
        if let Some(here) = readers.get_mut(&self.peer) {
            *here -= 1;
            if *here == 0 {
                readers.remove(&self.peer);
            }
        }
    }
}

struct Reader {
    seat: Seat,
    latest: watch::Receiver<u64>,
    position: u64,
    opening: Option<Bytes>,
    over: bool,
}

impl Reader {
    /// The next bytes of the stream; `None` at its end. Not called while the client does not read.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(opening) = self.opening.take() {
            return Some(opening);
        }
        let shared = &self.seat.shared;
        loop {
            if self.over {
                return None;
            }
            if shared.closing.is_cancelled() {
                self.over = true;
                return Some(format!(": this node is being stopped\n{RETRY}\n").into());
            }
            self.latest.borrow_and_update();
            match shared.step(self.position) {
                Step::Frame(frame) => {
                    self.position += 1;
                    return Some(frame);
                }
                Step::Lost => {
                    self.over = true;
                    return Some(format!(": too far behind\n{RETRY}\n").into());
                }
                Step::Wait => {}
            }
            tokio::select! {
                biased;
                () = shared.closing.cancelled() => {}
                changed = timeout(shared.heartbeat, self.latest.changed()) => {
                    if changed.is_err() {
                        return Some(Bytes::from_static(b":\n\n"));
                    }
                }
            }
        }
    }
}

/// The state behind these locks is whole after every statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> Feed {
        Feed::with("life".into(), Duration::from_millis(20), CancellationToken::new())
    }

    async fn next(body: &mut Body) -> Option<String> {
        let frame = timeout(Duration::from_secs(5), body.frame()).await.expect("something comes")?;
        Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
    }

    fn peer() -> IpAddr {
        IpAddr::from([10, 0, 0, 1])
    }

    #[tokio::test]
    async fn a_reader_gets_a_snapshot_then_every_event_then_heartbeats() {
        let feed = feed();
        feed.publish("joined", &1);
        let mut body = feed.body(feed.seat(peer()).unwrap(), feed.latest(), Some("{}"));
        feed.publish("left", &2);
        assert_eq!(next(&mut body).await.unwrap(), "retry: 1000\nid: life-1\nevent: snapshot\ndata: {}\n\n");
        assert_eq!(next(&mut body).await.unwrap(), "id: life-2\nevent: left\ndata: 2\n\n");
        assert_eq!(next(&mut body).await.unwrap(), ":\n\n");
        feed.publish("back", &3);
        assert_eq!(next(&mut body).await.unwrap(), "id: life-3\nevent: back\ndata: 3\n\n");
    }

    #[tokio::test]
    async fn a_reader_that_comes_back_goes_on_where_it_was() {
        let feed = feed();
        assert_eq!(feed.resume(Some("life-0")), Some(0));
        feed.publish("joined", &1);
        feed.publish("joined", &2);
        assert_eq!(feed.resume(Some("life-1")), Some(1));
        let mut body = feed.body(feed.seat(peer()).unwrap(), 1, None);
        assert_eq!(next(&mut body).await.unwrap(), "retry: 1000\n\n");
        assert_eq!(next(&mut body).await.unwrap(), "id: life-2\nevent: joined\ndata: 2\n\n");
        for strange in ["life-3", "other-1", "life-", "life", "-1", "life-18446744073709551615"] {
            assert_eq!(feed.resume(Some(strange)), None, "{strange}");
        }
        assert_eq!(feed.resume(None), None);
    }

    #[tokio::test]
    async fn a_reader_behind_the_ring_is_cut_and_told_to_come_back() {
        let feed = feed();
        let mut body = feed.body(feed.seat(peer()).unwrap(), 0, Some("{}"));
        for number in 0..=RING_EVENTS {
            feed.publish("updated", &number);
        }
        next(&mut body).await;
        assert_eq!(next(&mut body).await.unwrap(), ": too far behind\nretry: 1000\n\n");
        assert_eq!(next(&mut body).await, None);
        assert_eq!(feed.resume(Some("life-0")), None);
        assert_eq!(feed.resume(Some("life-1")), Some(1));
    }

    #[tokio::test]
    async fn missed_events_make_every_reader_start_again() {
        let feed = feed();
        feed.publish("joined", &1);
        let mut body = feed.body(feed.seat(peer()).unwrap(), 1, None);
        next(&mut body).await;
        feed.restart();
        assert_eq!(next(&mut body).await.unwrap(), ": too far behind\nretry: 1000\n\n");
        assert_eq!(feed.resume(Some("life-1")), None);
        assert_eq!(feed.resume(Some("life-2")), Some(2));
    }

    #[tokio::test]
    async fn streams_end_when_the_node_closes() {
        let feed = feed();
        let mut body = feed.body(feed.seat(peer()).unwrap(), 0, None);
        next(&mut body).await;
        feed.shared.closing.cancel();
        assert!(next(&mut body).await.unwrap().contains("retry: 1000"));
        assert_eq!(next(&mut body).await, None);
    }

    #[test]
    fn places_are_bounded_and_come_free() {
        let feed = feed();
        let mut seats: Vec<_> = (0..READERS_PER_ADDRESS_MAX).map(|_| feed.seat(peer()).unwrap()).collect();
        assert_eq!(feed.seat(peer()).unwrap_err(), Crowded::Address);
        seats.pop();
        assert!(feed.seat(peer()).is_ok());
        let others = (0..).map(|n: u32| IpAddr::from(n.to_be_bytes())).map_while(|ip| feed.seat(ip).ok());
        let others: Vec<_> = others.collect();
        assert_eq!(seats.len() + others.len(), READERS_MAX);
        assert_eq!(feed.seat(peer()).unwrap_err(), Crowded::Node);
        drop((seats, others));
        assert_eq!(feed.readers(), 0);
    }
}
