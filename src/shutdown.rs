//! Signals, and what they ask for: the first to leave in order, the second to leave at once.
//!
//! The order of leaving itself is in [`crate::node`], where the parts are known.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT and SIGTERM, heard from the moment this exists: neither ends the process by itself any more.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Takes both signals over. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel refuses a signal handler; nothing can be done but to give up.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next of either.
    ///
    /// Cancel safe: a signal that arrives while nobody waits is delivered to the next call. Several
    /// that arrive before it are one.
    pub async fn next(&mut self) {
        // `recv` is `None` only when the runtime is being torn down, and then nobody waits here.
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
