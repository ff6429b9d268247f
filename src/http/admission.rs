//! Who is let in: permits for requests served here, a short queue before them, and a limit of its own for requests that
//! are handed over.

use std::sync::Arc;
use std::time::Duration;

use isle_mesh::member::Load;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

/// A full node lets a quarter of its limit wait, this long: longer waits only make everybody late.
const QUEUE_WAIT: Duration = Duration::from_millis(20);
/// Requests handed over and not answered yet, for each request served here.
const HANDED_OVER_PER_SERVED: usize = 4;

/// The right to be in flight. Given back when dropped.
#[derive(Debug)]
pub struct Permit {
    held: Option<OwnedSemaphorePermit>,
    admission: Admission,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.held = None;
        self.admission.tell();
    }
}

/// What is admitted at once. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Admission {
    limit: usize,
    served: Arc<Semaphore>,
    queued: Arc<Semaphore>,
    handed_over: Arc<Semaphore>,
    told: watch::Sender<Load>,
}

impl Admission {
    /// At most `limit` requests served at once, at least one.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS / HANDED_OVER_PER_SERVED);
        Self {
            limit,
            served: Arc::new(Semaphore::new(limit)),
            queued: Arc::new(Semaphore::new((limit / 4).max(1))),
            handed_over: Arc::new(Semaphore::new(limit * HANDED_OVER_PER_SERVED)),
            told: watch::Sender::new(Load {
                in_flight: 0,
                capacity: u32::try_from(limit).unwrap_or(u32::MAX),
            }),
        }
    }

    /// A permit, if one is free.
    #[must_use]
    pub fn admit(&self) -> Option<Permit> {
        self.served.clone().try_acquire_owned().ok().map(|held| self.permit(held))
    }

    /// A permit, after a short wait if need be; `None` when the queue is full or the wait was in vain.
    ///
    /// Cancel safe: whoever stops waiting leaves the queue.
    pub async fn queue(&self) -> Option<Permit> {
        let _place = self.queued.clone().try_acquire_owned().ok()?;
        let held = timeout(QUEUE_WAIT, self.served.clone().acquire_owned()).await.ok()?.ok()?;
        Some(self.permit(held))
    }

    /// A permit to pass a request on to a peer, if one is free.
    #[must_use]
    pub fn hand_over(&self) -> Option<Permit> {
        self.handed_over.clone().try_acquire_owned().ok().map(|held| self.permit(held))
    }

    fn permit(&self, held: OwnedSemaphorePermit) -> Permit {
        self.tell();
        Permit { held: Some(held), admission: self.clone() }
    }

    fn tell(&self) {
        let load = self.load();
        self.told.send_if_modified(|told| std::mem::replace(told, load) != load);
    }

    /// The load, and every change of it; the newest counts.
    #[must_use]
    pub fn loads(&self) -> watch::Receiver<Load> {
        self.told.subscribe()
    }

    /// Requests being served here, of how many.
    #[must_use]
    pub fn load(&self) -> Load {
        let in_flight = self.limit - self.served.available_permits().min(self.limit);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Load { in_flight: count(in_flight), capacity: count(self.limit) }
    }

    /// At 80 % of the limit a request is better served by a peer that has room.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let load = self.load();
        u64::from(load.in_flight) * 5 >= u64::from(load.capacity) * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_node_queues_shortly_and_no_more_than_a_quarter() {
        let admission = Admission::new(4);
        let held: Vec<_> = (0..4).map(|_| admission.admit().unwrap()).collect();
        assert!(admission.admit().is_none());
        assert_eq!(admission.load(), Load { in_flight: 4, capacity: 4 });
        let waiting = tokio::spawn({
            let admission = admission.clone();
            async move { admission.queue().await.is_some() }
        });
        tokio::task::yield_now().await;
        assert!(admission.queue().await.is_none(), "the queue holds one");
        drop(held);
        assert!(waiting.await.unwrap());
    }

    #[test]
    fn what_is_handed_over_does_not_count_as_served() {
        let admission = Admission::new(2);
        let handed: Vec<_> = (0..8).map(|_| admission.hand_over().unwrap()).collect();
        assert!(admission.hand_over().is_none());
        assert_eq!(admission.load().in_flight, 0);
        drop(handed);
    }
}
