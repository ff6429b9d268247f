//! A node as the tests see it: a bridge with a small program around it, whose table holds words as they come.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use island_bridge::bridge::{self, Bridge, Config, Event, LinkStatus, Target};
use island_bridge::endpoint::Settings;
use island_bridge::frame::tunnel::TunnelFailure;
use island_bridge::journal::{Change, What};
use island_bridge::routes::Choice;
use island_bridge::tunnel::{Dialled, Open};
use isle_mesh::member::MemberId;
use isle_mesh::outward::{self, News};
use isle_mesh::wire::MeshTag;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) const MESH: MeshTag = MeshTag([1, 2, 3, 4]);

/// Long for anything that is to happen on loopback.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Node {
    pub(crate) bridge: Bridge,
    pub(crate) events: broadcast::Receiver<Event>,
    pub(crate) ways: watch::Receiver<BTreeMap<String, Choice>>,
    /// While this is held its program does nothing.
    pub(crate) work: Arc<tokio::sync::Mutex<()>>,
    table: Table,
    task: JoinHandle<()>,
    program: JoinHandle<()>,
}

#[derive(Clone)]
struct Table {
    words: Arc<Mutex<BTreeSet<Bytes>>>,
    /// For how long members had been gone, as the other sides said.
    gone: Arc<Mutex<Vec<(MemberId, Duration)>>>,
    count: Arc<watch::Sender<usize>>,
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn id(seed: u8) -> MemberId {
    MemberId(key(seed).verifying_key().to_bytes())
}

pub(crate) fn loopback(port: u16) -> Settings {
    Settings { bind: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ..Settings::default() }
}

/// Of a bridge that lets the nodes with these seeds in.
pub(crate) fn config(island: &str, allowed: &[u8]) -> Config {
    Config {
        endpoint: loopback(0),
        allowed: allowed.iter().map(|seed| id(*seed)).collect(),
        ..Config::new(island.to_owned())
    }
}

/// The way to the bridge with this seed at this address.
pub(crate) fn target(seed: u8, addr: SocketAddr) -> Target {
    format!("{}@{addr}", id(seed)).parse().unwrap()
}

pub(crate) fn word(number: u32) -> Bytes {
    let mut word = format!("word {number} ").into_bytes();
    word.resize(300, b'.');
    word.into()
}

impl Node {
    pub(crate) fn start(seed: u8, config: Config) -> Self {
        let (bridge, mut feeds, running) = bridge::start(config, &key(seed), MESH).unwrap();
        let count = Arc::new(watch::Sender::new(0));
        let table = Table { words: Arc::default(), gone: Arc::default(), count };
        let task = tokio::spawn(async { running.await.unwrap() });
        let (journal, learned) = (bridge.journal().clone(), table.clone());
        let work = Arc::new(tokio::sync::Mutex::new(()));
        let may_work = work.clone();
        let program = tokio::spawn(async move {
            while let Some(words) = feeds.words.recv().await {
                let _working = may_work.lock().await;
                learned.gone.lock().unwrap().extend(words.gone.iter().copied());
                for word in &words.words {
                    if learned.learn(word) {
                        journal.record(change(word, words.is_urgent), Some(words.from)).unwrap();
                    }
                }
                words.merged();
            }
        });
        Self { bridge, events: feeds.events, ways: feeds.ways, work, table, task, program }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.bridge.addr()
    }

    /// Its own island says something.
    /// Opens a tunnel into which nothing was said yet.
    pub(crate) async fn tunnel(&self, open: Open) -> Result<Dialled, TunnelFailure> {
        self.bridge.tunnel(open, Bytes::new()).await
    }

    pub(crate) fn say(&self, number: u32, is_urgent: bool) {
        let word = word(number);
        assert!(self.table.learn(&word));
        self.bridge.journal().record(change(&word, is_urgent), None).unwrap();
    }

    /// Somebody of its own island has left so long ago.
    pub(crate) fn says_farewell(&self, number: u32, ago: Duration) {
        let bytes = word(number);
        assert!(self.table.learn(&bytes));
        let (member, what) = (change(&bytes, true).member, outward::What::Own);
        let gone = std::time::Instant::now().checked_sub(ago);
        let news = News::Said { member, what, bytes, is_urgent: true, from: None, gone };
        self.bridge.journal().tell(news).unwrap();
    }

    /// What it was told for how long members have been gone, in whole seconds.
    pub(crate) fn ages(&self) -> Vec<(MemberId, u64)> {
        let gone = self.table.gone.lock().unwrap();
        gone.iter().map(|(member, age)| (*member, age.as_secs())).collect()
    }

    /// It drops a member whom others still have, as an island that could not be reached for a day.
    pub(crate) fn lose(&self, number: u32) {
        let word = word(number);
        assert!(self.table.words.lock().unwrap().remove(&word));
        self.table.count.send_modify(|count| *count -= 1);
        self.bridge.journal().withdraw(change(&word, false).member);
    }

    pub(crate) fn has(&self, number: u32) -> bool {
        self.table.words.lock().unwrap().contains(&word(number))
    }

    /// Waits until its table has so many words.
    pub(crate) async fn hears(&self, count: usize) {
        let mut counts = self.table.count.subscribe();
        let heard = timeout(PATIENCE, counts.wait_for(|heard| *heard >= count)).await;
        assert!(heard.is_ok(), "{} of {count} words came", *self.table.count.borrow());
    }

    /// Waits for an event that `wanted` gives something for.
    pub(crate) async fn sees<T>(&mut self, wanted: impl Fn(Event) -> Option<T>) -> T {
        let found = timeout(PATIENCE, async {
            loop {
                if let Some(found) = wanted(self.events.recv().await.unwrap()) {
                    return found;
                }
            }
        });
        found.await.expect("the event does not come")
    }

    pub(crate) async fn sees_up(&mut self, seed: u8) {
        self.sees(|event| matches!(event, Event::LinkUp { peer, .. } if peer == id(seed)).then_some(()))
            .await;
    }

    pub(crate) async fn sees_down(&mut self, seed: u8) -> bridge::EndReason {
        self.sees(|event| match event {
            Event::LinkDown { peer, reason } if peer == id(seed) => Some(reason),
            _ => None,
        })
        .await
    }

    /// Whether a link was lost that no event was taken of yet; takes them.
    pub(crate) fn was_down(&mut self) -> bool {
        let events = std::iter::from_fn(|| self.events.try_recv().ok());
        events.fold(false, |is_down, event| is_down | matches!(event, Event::LinkDown { .. }))
    }

    /// Asks for the link's status until it is as `wanted`.
    pub(crate) async fn shows(&self, seed: u8, wanted: impl Fn(&LinkStatus) -> bool) -> LinkStatus {
        let mut last = None;
        let found = timeout(PATIENCE, async {
            loop {
                let status = self.bridge.status().await;
                match status.links.into_iter().find(|link| link.peer == id(seed)) {
                    Some(link) if wanted(&link) => return link,
                    link => last = link,
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("the status does not come; the last is {last:?}"))
    }

    /// The process ends as if killed; who sees its packets hears that its connections are closed.
    pub(crate) async fn kill(self) {
        self.program.abort();
        self.task.abort();
        let _ = self.task.await;
    }

    /// The process ends in order.
    pub(crate) async fn leave(self) {
        self.bridge.leave().await;
        self.task.await.unwrap();
    }
}

impl Table {
    fn learn(&self, word: &Bytes) -> bool {
        let is_news = self.words.lock().unwrap().insert(word.clone());
        self.count.send_modify(|count| *count += usize::from(is_news));
        is_news
    }
}

fn change(word: &Bytes, is_urgent: bool) -> Change {
    let member = MemberId(*blake3::hash(word).as_bytes());
    Change { member, what: What::Own, bytes: word.clone(), is_urgent }
}
