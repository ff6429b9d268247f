//! The thread on which links are worked at and tunnels carried.
//!
//! A tunnel's bytes pass three tasks, of which two are quinn's. Where several threads share them, each piece is handed from
//! one core to another, and back; on one thread a gigabyte costs a sixth less. What the node does besides, its
//! membership above all, has threads of its own and does not wait behind bytes.

use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::Instrument;

/// The thread; ends soon after this is dropped, and what is left of the work on it is dropped with it.
#[derive(Debug)]
pub(super) struct WorkerThread {
    handle: Handle,
    _ends: oneshot::Sender<()>,
}

/// Gives work to the thread. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Worker(Handle);

/// The thread has ended.
#[derive(Debug, thiserror::Error)]
#[error("the links have ended")]
pub(super) struct Gone;

impl WorkerThread {
    /// Starts it; waits until it is there.
    pub(super) fn start() -> io::Result<Self> {
        let (ends, ended) = oneshot::channel::<()>();
        let (tell, told) = mpsc::sync_channel(1);
        // The runtime is made and dropped there: nobody may do that within another.
        thread::Builder::new().name("isle-links".to_owned()).spawn(move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(error))),
            };
            if tell.send(Ok(runtime.handle().clone())).is_ok() {
                // An error says that nobody holds it any more, which is all there is to hear.
                let _ = runtime.block_on(ended);
                // Whoever still asks a resolver or the disk is not waited for.
                runtime.shutdown_background();
            }
        })?;
        let handle = told.recv().map_err(io::Error::other)??;
        Ok(Self { handle, _ends: ends })
    }

    /// For work that is given to it later.
    pub(super) fn worker(&self) -> Worker {
        Worker(self.handle.clone())
    }

    /// Where tasks are spawned and sockets opened that are its own.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Worker {
    /// Has `work` done there. Dropped before it is done, the work is dropped; a panic of it goes on here.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Gone> {
        let mut working = JoinSet::new();
        working.spawn_on(work.in_current_span(), &self.0);
        match working.join_next().await {
            Some(Ok(done)) => Ok(done),
            Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
            _ => Err(Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use tokio::net::UdpSocket;
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn work_is_done_on_that_thread() {
        let thread = WorkerThread::start().unwrap();
        let worker = thread.worker();
        let name = worker.run(async { thread::current().name().map(str::to_owned) }).await.unwrap();
        assert_eq!(name.as_deref(), Some("isle-links"));
        // Sockets and time work there.
        let bound = worker.run(async { UdpSocket::bind("127.0.0.1:0").await.is_ok() }).await.unwrap();
        assert!(bound);
    }

    #[tokio::test]
    async fn a_panic_and_a_thread_that_is_gone_are_said() {
        let thread = WorkerThread::start().unwrap();
        let worker = thread.worker();
        let panics = tokio::spawn({
            let worker = worker.clone();
            async move { worker.run(async { panic!("by this test") }).await }
        });
        assert!(panics.await.unwrap_err().is_panic());
        assert!(worker.run(async {}).await.is_ok(), "others go on");
        let waiting = tokio::spawn({
            let worker = worker.clone();
            async move { worker.run(pending::<()>()).await }
        });
        drop(thread);
        assert!(timeout(PATIENCE, waiting).await.unwrap().unwrap().is_err());
        assert!(timeout(PATIENCE, worker.run(async {})).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn whoever_stops_waiting_ends_the_work() {
        let thread = WorkerThread::start().unwrap();
        let (held, dropped) = oneshot::channel::<()>();
        let work = async move {
            let _held = held;
            pending::<()>().await;
        };
        let worker = thread.worker();
        assert!(timeout(Duration::from_millis(1), worker.run(work)).await.is_err());
        assert!(timeout(PATIENCE, dropped).await.unwrap().is_err());
    }
}
