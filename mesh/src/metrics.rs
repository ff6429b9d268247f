//! What a node has sent, heard and refused, as plain numbers for whoever exports them.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::membership::Counters;
use crate::verify::Refused;

/// Numbers since the node started; each only grows.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Datagrams given to the kernel.
    pub sent: u64,
    /// Their bytes of payload.
    pub sent_bytes: u64,
    /// Datagrams that the kernel did not take: a full buffer, or a path that does not exist.
    pub unsent: u64,
    /// What the state machine counted.
    pub machine: Counters,
}

impl Counts {
    /// Datagrams refused, each reason once, also those that never occurred.
    pub fn refused(&self) -> impl Iterator<Item = (Refused, u64)> {
        Refused::ALL.into_iter().zip(self.machine.refused)
    }
}

/// The counters, written by the driver and read by anybody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    shown: Arc<Mutex<Counts>>,
}

impl Metrics {
    /// The numbers as they are now.
    pub(crate) fn read(&self) -> Counts {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One datagram was given to the kernel, or not.
    pub(crate) fn sent(&self, outcome: &io::Result<usize>) {
        let mut counts = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(bytes) => {
                counts.sent += 1;
                counts.sent_bytes += u64::try_from(*bytes).unwrap_or(0);
            }
            // Other copies and other paths carry the word.
            Err(_) => counts.unsent += 1,
        }
    }

    /// What the machine has counted by now.
    pub(crate) fn show(&self, machine: &Counters) {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).machine.clone_from(machine);
    }
}
