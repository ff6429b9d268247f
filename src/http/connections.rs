//! Every open connection, and the order in which they end when the node leaves.
//!
//! The node decides when each step comes (src/shutdown.rs); this is what the steps do:
//!
//! | step | effect |
//! |---|---|
//! | [`start_closing`](Connections::start_closing) | every answer from now on says `Connection: close`; event streams end |
//! | [`all_told`](Connections::all_told) | waits until each connection that was in use has had such an answer |
//! | [`stop`](Connections::stop) | the accept queue is emptied, the listener closed, silent and idle connections closed |
//! | [`finished`](Connections::finished) | waits until no connection is left |
//! | [`abort`](Connections::abort) | cuts the rest |
//!
//! The same register knows whom to close first when descriptors run short.

use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// A connection that carried a request so lately is likely to carry the next one.
const IN_USE: Duration = Duration::from_secs(1);

/// Drain control and register of a node's HTTP connections. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Connections {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    closing: CancellationToken,
    closing_since: OnceLock<Instant>,
    stopped: CancellationToken,
    /// Set by the accept loop once its listener is closed and its queue empty.
    shut: CancellationToken,
    aborted: CancellationToken,
    in_flight: AtomicUsize,
    open: watch::Sender<usize>,
    /// Connections that were in use when closing began and have not been told yet.
    owed: watch::Sender<usize>,
    register: Mutex<Register>,
}

#[derive(Debug, Default)]
struct Register {
    next: u64,
    lines: HashMap<u64, Arc<Line>>,
}

/// What is known of one connection.
#[derive(Debug)]
struct Line {
    peer: IpAddr,
    wake: Notify,
    state: Mutex<LineState>,
}

#[derive(Debug)]
struct LineState {
    /// Since when it waits for a complete request; `None` while one is being answered.
    idle_since: Option<Instant>,
    last_request: Option<Instant>,
    /// Has had an answer that said `Connection: close`.
    told: bool,
    /// Counted in `Shared::owed`.
    owed: bool,
    /// Is to close as soon as it is idle.
    unwanted: bool,
}

impl Default for Connections {
    fn default() -> Self {
        Self::new()
    }
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                closing: CancellationToken::new(),
                closing_since: OnceLock::new(),
                stopped: CancellationToken::new(),
                shut: CancellationToken::new(),
                aborted: CancellationToken::new(),
                in_flight: AtomicUsize::new(0),
                open: watch::Sender::new(0),
                owed: watch::Sender::new(0),
                register: Mutex::default(),
            }),
        }
    }

    /// Makes every answer from now on say `Connection: close`, and event streams end. Connections are
    /// still accepted and requests served. Further calls change nothing.
    pub fn start_closing(&self) {
        if self.is_closing() {
            return;
        }
        // First the sign, then the debts: an answer made in between has told its client already. A debt is
        // noted and counted under the line's lock, so that it cannot be paid between the two.
        self.shared.closing.cancel();
        let now = *self.shared.closing_since.get_or_init(Instant::now);
        for line in self.lines() {
            let mut state = lock(&line.state);
            let in_use = state.idle_since.is_none()
                || state.last_request.is_some_and(|at| now.saturating_duration_since(at) < IN_USE);
            if in_use && state.last_request.is_some() && !state.told && !state.owed {
                state.owed = true;
                self.shared.owed.send_modify(|count| *count += 1);
            }
        }
    }

    /// Whether answers say `Connection: close`.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.shared.closing.is_cancelled()
    }

    /// Since when answers say `Connection: close`; `None` while they do not.
    #[must_use]
    pub fn closing_since(&self) -> Option<Instant> {
        self.shared.closing_since.get().copied()
    }

    /// Cancelled when closing starts: event streams end on it.
    #[must_use]
    pub fn closing(&self) -> CancellationToken {
        self.shared.closing.clone()
    }

    /// Waits until every connection that carried a request in the second before closing began has had an
    /// answer with `Connection: close`, or is gone. Clients need not ask again, so the caller sets a limit.
    ///
    /// Cancel safe: it only watches a count.
    pub async fn all_told(&self) {
        let mut owed = self.shared.owed.subscribe();
        // The sender lives as long as `self`; an error cannot come.
        let _ = owed.wait_for(|count| *count == 0).await;
    }

    /// Ends accepting: what waits in the accept queue is still served, the listener is closed, and
    /// connections without a request are closed. Implies [`start_closing`](Self::start_closing).
    pub fn stop(&self) {
        self.start_closing();
        self.shared.stopped.cancel();
        for line in self.lines() {
            lock(&line.state).unwanted = true;
            line.wake.notify_one();
        }
    }

    /// Waits until, after [`stop`](Self::stop), the listener is closed and no connection is left.
    ///
    /// Cancel safe: it only watches.
    pub async fn finished(&self) {
        self.shared.shut.cancelled().await;
        let mut open = self.shared.open.subscribe();
        let _ = open.wait_for(|count| *count == 0).await;
    }

    /// Cuts every connection; returns how many requests that breaks off.
    pub fn abort(&self) -> usize {
        let cut = self.in_flight();
        self.stop();
        self.shared.aborted.cancel();
        cut
    }

    /// Requests whose answers are not complete. Event streams count.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    /// Open connections.
    #[must_use]
    pub fn open(&self) -> usize {
        *self.shared.open.borrow()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.shared.stopped.is_cancelled()
    }

    pub(super) async fn stopped(&self) {
        self.shared.stopped.cancelled().await;
    }

    pub(super) async fn aborted(&self) {
        self.shared.aborted.cancelled().await;
    }

    pub(super) fn listener_is_shut(&self) {
        self.shared.shut.cancel();
    }

    /// Notes a new connection.
    pub(super) fn open_line(&self, peer: IpAddr) -> OpenLine {
        let line = Arc::new(Line {
            peer,
            wake: Notify::new(),
            state: Mutex::new(LineState {
                idle_since: Some(Instant::now()),
                last_request: None,
                told: false,
                owed: false,
                unwanted: false,
            }),
        });
        let mut register = lock(&self.shared.register);
        let number = register.next;
        register.next += 1;
        register.lines.insert(number, line.clone());
        drop(register);
        self.shared.open.send_modify(|count| *count += 1);
        OpenLine { connections: self.clone(), number, line }
    }

    /// Closes up to `count` idle connections: always the oldest idle one of the address that holds most.
    /// Returns how many were asked to close. O(n log n) over the open connections.
    pub(super) fn evict(&self, count: usize) -> usize {
        struct Holder {
            held: usize,
            /// Idle ones, the oldest last.
            idle: Vec<(Instant, Arc<Line>)>,
        }
        let mut holders: HashMap<IpAddr, Holder> = HashMap::new();
        for line in self.lines() {
            let holder = holders.entry(line.peer).or_insert_with(|| Holder { held: 0, idle: Vec::new() });
            let state = lock(&line.state);
            let (idle_since, unwanted) = (state.idle_since, state.unwanted);
            drop(state);
            if !unwanted {
                holder.held += 1;
                holder.idle.extend(idle_since.map(|since| (since, line)));
            }
        }
        for holder in holders.values_mut() {
            holder.idle.sort_unstable_by_key(|(since, _)| std::cmp::Reverse(*since));
        }
        let mut order: BinaryHeap<(usize, IpAddr)> =
            holders.iter().map(|(peer, holder)| (holder.held, *peer)).collect();
        let mut evicted = 0;
        while evicted < count {
            let Some((held, peer)) = order.pop() else { break };
            // One whose connections are all at work is passed over.
            let Some((_, line)) = holders.get_mut(&peer).and_then(|holder| holder.idle.pop()) else {
                continue;
            };
            lock(&line.state).unwanted = true;
            line.wake.notify_one();
            order.push((held - 1, peer));
            evicted += 1;
        }
        evicted
    }

    fn lines(&self) -> Vec<Arc<Line>> {
        lock(&self.shared.register).lines.values().cloned().collect()
    }
}

/// One connection's entry in the register; leaves it when dropped.
#[derive(Debug)]
pub(super) struct OpenLine {
    connections: Connections,
    number: u64,
    line: Arc<Line>,
}

impl OpenLine {
    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// It waits for a request. One that has begun but is not complete changes nothing: beginning is cheap.
    pub(super) fn idle(&self) {
        lock(&self.line.state).idle_since = Some(Instant::now());
    }

    /// A request is complete. It is in flight until the returned value is dropped.
    pub(super) fn request(&self) -> InFlight {
        let mut state = lock(&self.line.state);
        state.idle_since = None;
        state.last_request = Some(Instant::now());
        drop(state);
        self.connections.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { connections: self.connections.clone(), line: self.line.clone() }
    }

    /// Whether it is to close once idle.
    pub(super) fn is_unwanted(&self) -> bool {
        self.connections.is_stopped() || lock(&self.line.state).unwanted
    }

    /// Whether it is to close because descriptors ran short.
    pub(super) fn is_evicted(&self) -> bool {
        !self.connections.is_stopped() && lock(&self.line.state).unwanted
    }

    /// Waits for a reason to look at [`is_unwanted`](Self::is_unwanted) again.
    ///
    /// Cancel safe: a wake-up that finds nobody is kept.
    pub(super) async fn woken(&self) {
        self.line.wake.notified().await;
    }
}

impl Drop for OpenLine {
    fn drop(&mut self) {
        self.line.pay(&self.connections.shared);
        lock(&self.connections.shared.register).lines.remove(&self.number);
        self.connections.shared.open.send_modify(|count| *count -= 1);
    }
}

impl Line {
    /// Settles what is owed to this connection, if anything.
    fn pay(&self, shared: &Shared) {
        let mut state = lock(&self.state);
        state.told = true;
        if std::mem::take(&mut state.owed) {
            drop(state);
            shared.owed.send_modify(|count| *count -= 1);
        }
    }
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    connections: Connections,
    line: Arc<Line>,
}

impl InFlight {
    /// Whether its connection should end with its answer.
    pub(super) fn is_last(&self) -> bool {
        self.connections.is_closing() || lock(&self.line.state).unwanted
    }

    /// Its answer says `Connection: close`.
    pub(super) fn told(&self) {
        self.line.pay(&self.connections.shared);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.connections.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The state behind these locks is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[tokio::test]
    async fn only_connections_that_were_in_use_are_waited_for() {
        let connections = Connections::new();
        let _silent = connections.open_line(address(1));
        let used = connections.open_line(address(1));
        drop(used.request());
        connections.start_closing();
        let waiting = tokio::spawn({
            let connections = connections.clone();
            async move { connections.all_told().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        used.request().told();
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_goes_away_is_waited_for_no_more() {
        let connections = Connections::new();
        let used = connections.open_line(address(1));
        let _in_flight = used.request();
        connections.start_closing();
        drop(used);
        connections.all_told().await;
        connections.stop();
        connections.listener_is_shut();
        connections.finished().await;
    }

    #[test]
    fn the_oldest_idle_connection_of_the_largest_holder_goes_first() {
        let connections = Connections::new();
        let lone = connections.open_line(address(1));
        let hoard: Vec<_> = (0..4).map(|_| connections.open_line(address(2))).collect();
        let _in_flight = hoard[0].request();
        drop(hoard[1].request());
        hoard[1].idle();
        assert_eq!(connections.evict(2), 2);
        let gone: Vec<_> = hoard.iter().map(OpenLine::is_unwanted).collect();
        assert_eq!(gone, [false, false, true, true]);
        assert!(!lone.is_unwanted());
        assert_eq!(connections.evict(9), 2, "the busy one stays");
    }
}
