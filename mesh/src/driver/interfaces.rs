//! The interfaces of this host, and when they change.

use std::time::Duration;

use netwatcher::AsyncWatch;
use netwatcher::async_adapter::Tokio;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::debug;

use crate::member::Address;
use crate::membership::Interface;

/// One looks oneself this often, too: the kernel may tell nothing, and a list made while an interface vanishes fails.
const POLL: Duration = Duration::from_secs(10);

/// Follows the interfaces that discovery may use.
pub(crate) struct Interfaces {
    wanted: Vec<String>,
    watch: Option<AsyncWatch>,
    /// Outlives the waits, which end with every datagram.
    poll: Interval,
}

impl std::fmt::Debug for Interfaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interfaces").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl Interfaces {
    /// Of these names alone, or of all if there are none. Needs a tokio runtime.
    #[must_use]
    pub(crate) fn new(wanted: Vec<String>) -> Self {
        let watch = netwatcher::watch_interfaces_async::<Tokio>()
            .inspect_err(|error| debug!(%error, "interfaces are polled"))
            .ok();
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll.reset();
        Self { wanted, watch, poll }
    }

    /// Those that are up now, loopback first. None if the kernel will not tell: that is not to say there are none.
    #[must_use]
    pub(crate) fn list(&self) -> Option<Vec<Interface>> {
        netwatcher::list_interfaces()
            .inspect_err(|error| debug!(%error, "interfaces cannot be listed"))
            .ok()
            .map(|found| self.reduced(found.into_values()))
    }

    /// Waits for a change, or ten seconds, and gives all that are up then. The first call may return at once.
    ///
    /// Cancel safe: a change that is missed shows in the next list, and the ten seconds run on.
    pub(crate) async fn changed(&mut self) -> Vec<Interface> {
        loop {
            let told = async {
                match &mut self.watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                update = told => return self.reduced(update.interfaces.into_values()),
                _ = self.poll.tick() => {}
            }
            if let Some(found) = self.list() {
                return found;
            }
        }
    }

    fn reduced(&self, found: impl Iterator<Item = netwatcher::Interface>) -> Vec<Interface> {
        let mut interfaces: Vec<Interface> = found
            .filter(|interface| self.wanted.is_empty() || self.wanted.contains(&interface.name))
            .map(|interface| {
                let addresses: Vec<Address> = interface
                    .ips
                    .iter()
                    .map(|record| Address { ip: record.ip, prefix: record.prefix_len })
                    .collect();
                let loopback =
                    !addresses.is_empty() && addresses.iter().all(|address| address.ip.is_loopback());
                Interface { index: interface.index, name: interface.name, addresses, loopback }
            })
            .filter(|interface| !interface.addresses.is_empty())
            .collect();
        // Loopback first: members of this host are then first heard, and dialled, there.
        interfaces.sort_by_key(|interface| (!interface.loopback, interface.index));
        interfaces
    }
}
