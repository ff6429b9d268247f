//! Signals, and what they ask for: the first to leave in order, the second to leave at once.
//!
//! The order of leaving itself is in [`crate::node`], where the parts are known.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGHUP, heard from the moment this exists: none ends the process by itself any more.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal is gone. `None` for whoever was started to outlive it, as by `nohup`.
    hangup: Option<Signal>,
}

impl StopSignals {
    /// Takes the signals over. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel refuses a signal handler; nothing can be done but to give up.
    pub fn listen() -> io::Result<Self> {
        let hangup = if ignores(SignalKind::hangup()) { None } else { Some(signal(SignalKind::hangup())?) };
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hangup })
    }

    /// Waits for the next of any.
    ///
    /// Cancel safe: a signal that arrives while nobody waits is delivered to the next call. Several
    /// that arrive before it are one.
    pub async fn next(&mut self) {
        // `recv` is `None` only when the runtime is being torn down, and then nobody waits here.
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            Some(_) = hung_up(&mut self.hangup) => {}
        }
    }
}

async fn hung_up(hangup: &mut Option<Signal>) -> Option<()> {
    match hangup {
        Some(hangup) => hangup.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether this process was started to ignore a signal; `false` where the system does not say.
fn ignores(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    is_ignored(&status, kind.as_raw_value())
}

/// By what proc(5) says of the process.
fn is_ignored(status: &str, number: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_told_by_its_bit() {
        let status = "Name:\tisle\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert!(is_ignored(status, 1) && is_ignored(status, 13));
        assert!(!is_ignored(status, 2) && !is_ignored("", 1) && !is_ignored("SigIgn: x", 1));
    }
}
