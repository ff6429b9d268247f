//! Which connections there are for tunnels, and which of them leads where.
//!
//! Shared by the task that owns the links, which writes, and by everybody who opens a tunnel, who reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use isle_mesh::member::MemberId;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::{
    Backlog, Carrier, Counts, DIALLED_MAX, Dial, Dialled, OPEN_MAX, Open, TunnelCounters, TunnelFailure,
    WAIT_MAX, WAITING_MAX, ask,
};
use crate::endpoint::{Closing, Connection};

/// Connections for tunnels that are kept of one peer: the newest, and the one before, whose tunnels go on.
const CARRIERS_MAX: usize = 2;
/// A connection that is being made is waited for so long.
const CARRIER_WAIT: Duration = Duration::from_secs(1);

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Lines {
    inner: Arc<Inner>,
}

struct Inner {
    id: MemberId,
    dialler: Option<Arc<dyn Dial>>,
    state: Mutex<State>,
    /// Moves with every change of `state`.
    version: watch::Sender<u64>,
    /// Tunnels that have come in and not ended.
    carried: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    /// Our own.
    island: String,
    /// Links that are up, by peer.
    lines: BTreeMap<MemberId, Line>,
    /// Connections for tunnels, by peer, the newest last; they may come before their link is up here.
    carriers: BTreeMap<MemberId, Vec<Carrier>>,
    counts: BTreeMap<MemberId, Counts>,
    /// Members that are dialled for a peer: of each link its own, so that none holds up another.
    diallings: BTreeMap<MemberId, Arc<Dialling>>,
    /// Islands that another bridge of ours has a link to.
    others: BTreeMap<String, MemberId>,
    is_closed: bool,
}

struct Line {
    island: String,
    cost: Duration,
}

/// How many members may be dialled for the other side of a link, and wait for that.
struct Dialling {
    now: Semaphore,
    now_or_later: Semaphore,
}

impl Default for Dialling {
    fn default() -> Self {
        Self { now: Semaphore::new(DIALLED_MAX), now_or_later: Semaphore::new(DIALLED_MAX + WAITING_MAX) }
    }
}

/// A tunnel that is carried; counted until it is dropped.
pub(super) struct Carried(Arc<Inner>);

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.carried.send_modify(|count| *count -= 1);
    }
}

/// Where a tunnel goes on.
enum Onward {
    Line(Carrier, Counts),
    Bridge(MemberId),
    /// There is a link, but no connection yet.
    Soon,
}

impl Lines {
    pub(crate) fn new(island: String, id: MemberId, dialler: Option<Arc<dyn Dial>>) -> Self {
        let (version, carried) = (watch::Sender::new(0), watch::Sender::new(0));
        let state = Mutex::new(State { island, ..State::default() });
        Self { inner: Arc::new(Inner { id, dialler, state, version, carried }) }
    }

    /// Our island is called so from now on.
    pub(crate) fn rename(&self, island: String) {
        self.change(|state| state.island = island);
    }

    /// A link to this bridge of that island is up, or its cost has changed.
    pub(crate) fn up(&self, peer: MemberId, island: &str, cost: Duration) {
        self.change(|state| {
            state.lines.insert(peer, Line { island: island.to_owned(), cost });
        });
    }

    /// That link is down: what goes over it has lost its other end, too.
    pub(crate) fn down(&self, peer: MemberId) {
        let carriers = self.change(|state| {
            state.lines.remove(&peer);
            state.carriers.remove(&peer)
        });
        for carrier in carriers.into_iter().flatten() {
            carrier.connection.close(Closing::Ended);
        }
    }

    /// All links are over.
    pub(crate) fn end(&self) {
        let carriers = self.change(|state| {
            state.lines.clear();
            std::mem::take(&mut state.carriers)
        });
        for carrier in carriers.into_values().flatten() {
            carrier.connection.close(Closing::Ended);
        }
    }

    /// Whoever has made connections for tunnels beside a link makes no more: without a link they are over.
    pub(crate) fn settle(&self, peer: MemberId) {
        if !self.lock().lines.contains_key(&peer) {
            self.down(peer);
        }
    }

    /// A connection for tunnels to or from a peer that has a link. In place of the one before, whose tunnels go on; those of
    /// earlier ones are cut.
    pub(crate) fn carry(&self, connection: Connection) -> Carrier {
        let carrier = Carrier { connection, backlog: Backlog::default() };
        let earlier = self.change(|state| {
            let carriers = state.carriers.entry(carrier.connection.peer()).or_default();
            carriers.push(carrier.clone());
            (carriers.len() > CARRIERS_MAX).then(|| carriers.remove(0))
        });
        if let Some(earlier) = earlier {
            earlier.connection.close(Closing::Replaced);
        }
        carrier
    }

    /// That connection is gone.
    pub(super) fn gone(&self, connection: &Connection) {
        self.change(|state| {
            let peer = connection.peer();
            let Some(carriers) = state.carriers.get_mut(&peer) else { return };
            carriers.retain(|kept| kept.connection.quic().stable_id() != connection.quic().stable_id());
            if carriers.is_empty() {
                state.carriers.remove(&peer);
            }
        });
    }

    /// Islands that other bridges of ours have links to.
    pub(crate) fn set_others(&self, others: BTreeMap<String, MemberId>) {
        let mut state = self.lock();
        if state.others != others {
            state.others = others;
            drop(state);
            self.inner.version.send_modify(|version| *version += 1);
        }
    }

    /// What the tunnels over the link with `peer` have carried.
    pub(crate) fn counters(&self, peer: &MemberId) -> TunnelCounters {
        self.lock().counts.get(peer).map(Counts::read).unwrap_or_default()
    }

    /// Opens no more tunnels, and waits until those that are carried have ended, at most so long.
    pub(crate) async fn drain(&self, most: Duration) {
        self.lock().is_closed = true;
        let mut carried = self.inner.carried.subscribe();
        if timeout(most, carried.wait_for(|count| *count == 0)).await.is_err() {
            debug!(left = *self.inner.carried.borrow(), "tunnels are cut");
        }
    }

    /// Opens a tunnel whose first hop is another island than ours; `early` is what comes first in it.
    pub(crate) async fn open(&self, open: Open, early: Bytes) -> Result<Dialled, TunnelFailure> {
        let now = Instant::now();
        let (soon, deadline) = (now + CARRIER_WAIT, now + OPEN_MAX);
        let late = |_| Err(TunnelFailure::Timeout);
        let mut versions = self.inner.version.subscribe();
        let mut busy = BTreeSet::new();
        loop {
            match self.onward(&open, &busy)? {
                Onward::Line(carrier, counts) => {
                    let asked = timeout_at(deadline, ask(&carrier, open.clone(), &early, &counts)).await;
                    match asked.unwrap_or_else(late).inspect_err(|_| counts.failed()) {
                        // It stops, perhaps: another bridge of that island may have room.
                        Err(TunnelFailure::Busy) => {
                            busy.insert(carrier.connection.peer());
                        }
                        dialled => return dialled,
                    }
                }
                Onward::Bridge(bridge) => {
                    let dialler = self.inner.dialler.as_ref().ok_or(TunnelFailure::NoRoute)?;
                    let asked = timeout_at(deadline, dialler.bridge(bridge, open, early)).await;
                    return asked.unwrap_or_else(late);
                }
                Onward::Soon => {
                    let changed = timeout_at(soon, versions.changed()).await;
                    if !matches!(changed, Ok(Ok(()))) {
                        return Err(TunnelFailure::NoRoute);
                    }
                }
            }
        }
    }

    /// Takes on a tunnel that `peer` has asked for over a link, and `early` with it. Gives back what of that is still to be
    /// sent: all where we dial the member ourselves, nothing where the tunnel goes on.
    pub(super) async fn take_on(
        &self,
        peer: MemberId,
        mut open: Open,
        early: Bytes,
    ) -> Result<(Dialled, Bytes), TunnelFailure> {
        let first = open.hops.first().ok_or(TunnelFailure::NoRoute)?;
        let is_for_us =
            first.island == self.lock().island && first.bridge.is_none_or(|id| id == self.inner.id);
        if !is_for_us {
            return Err(TunnelFailure::NoRoute);
        }
        open.hops.remove(0);
        if !open.hops.is_empty() {
            return Ok((self.open(open, early).await?, Bytes::new()));
        }
        let dialler = self.inner.dialler.as_ref().ok_or(TunnelFailure::Forbidden)?;
        // Only here, where nothing is waited for that might itself wait for a tunnel: so no ring of bridges can stand still.
        let dialling = self.lock().diallings.entry(peer).or_default().clone();
        let _place = dialling.now_or_later.try_acquire().map_err(|_| TunnelFailure::Busy)?;
        let turn = timeout(WAIT_MAX, dialling.now.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(TunnelFailure::Busy) };
        Ok((dialler.member(open.target, open.port, open.nonce).await?, early))
    }

    /// Counts a tunnel that has come in; `None` when no more are taken.
    pub(super) fn begin(&self) -> Option<Carried> {
        if self.lock().is_closed {
            return None;
        }
        self.inner.carried.send_modify(|count| *count += 1);
        Some(Carried(self.inner.clone()))
    }

    pub(super) fn counts(&self, peer: MemberId) -> Counts {
        self.lock().counts.entry(peer).or_default().clone()
    }

    fn onward(&self, open: &Open, busy: &BTreeSet<MemberId>) -> Result<Onward, TunnelFailure> {
        let hop = open.hops.first().ok_or(TunnelFailure::NoRoute)?;
        let mut state = self.lock();
        if state.is_closed {
            return Err(TunnelFailure::Busy);
        }
        let lines = state.lines.iter().filter(|(peer, line)| {
            let is_wanted = hop.bridge.is_none_or(|wanted| wanted == **peer);
            line.island == hop.island && is_wanted && !busy.contains(*peer)
        });
        let (ready, waiting): (Vec<_>, Vec<_>) =
            lines.partition(|(peer, _)| state.carriers.contains_key(*peer));
        let cheapest = ready.into_iter().min_by_key(|(_, line)| line.cost).map(|(peer, _)| *peer);
        if let Some(peer) = cheapest
            && let Some(carrier) = state.carriers.get(&peer).and_then(|carriers| carriers.last()).cloned()
        {
            return Ok(Onward::Line(carrier, state.counts.entry(peer).or_default().clone()));
        }
        if !waiting.is_empty() {
            return Ok(Onward::Soon);
        }
        let other = state.others.get(&hop.island).map(|bridge| Onward::Bridge(*bridge));
        other.ok_or(if busy.is_empty() { TunnelFailure::NoRoute } else { TunnelFailure::Busy })
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.inner.version.send_modify(|version| *version += 1);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole after every statement, so a panic elsewhere does not spoil it.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
