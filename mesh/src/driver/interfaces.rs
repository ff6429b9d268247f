//! The interfaces of this host, and when they change.

use std::time::Duration;

use netwatcher::AsyncWatch;
use netwatcher::async_adapter::Tokio;
use tokio::time::sleep;
use tracing::debug;

use crate::member::Address;
use crate::membership::Interface;

/// Where the kernel tells nothing, one looks oneself this often.
const POLL: Duration = Duration::from_secs(10);

/// Follows the interfaces that discovery may use.
pub(crate) struct Interfaces {
    wanted: Vec<String>,
    watch: Option<AsyncWatch>,
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
        Self { wanted, watch }
    }

    /// Those that are up now, by number. Empty if the kernel will not tell.
    #[must_use]
    pub(crate) fn list(&self) -> Vec<Interface> {
        let found = netwatcher::list_interfaces()
            .inspect_err(|error| debug!(%error, "interfaces cannot be listed"))
            .unwrap_or_default();
        self.reduced(found.into_values())
    }

    /// Waits for a change (the first call may return at once) and gives all that are up then.
    ///
    /// Cancel safe: a change that is missed shows in the next list.
    pub(crate) async fn changed(&mut self) -> Vec<Interface> {
        match &mut self.watch {
            Some(watch) => {
                let update = watch.changed().await;
                self.reduced(update.interfaces.into_values())
            }
            None => {
                sleep(POLL).await;
                self.list()
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
