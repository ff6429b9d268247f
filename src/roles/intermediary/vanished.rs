//! Members whose process has vanished: the kernel closes its connections at once, long before anybody misses its beacons.
//!
//! A service may also close connections that it keeps because it is tired of them. So one connection is tried: if that
//! is refused, nothing more is sent there, and its watchers are told to ask it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use isle_mesh::member::Member;
use tokio::net::TcpStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::{Shared, lock};
use crate::upstream::UpstreamError;
use crate::upstream::place::Place;

/// One address is tried once in this.
const ONCE_IN: Duration = Duration::from_secs(1);
/// Addresses tried at a time.
const TRIED_MAX: usize = 64;
/// A host that is there refuses sooner; of one that is not nothing can be said.
const PATIENCE: Duration = Duration::from_millis(500);

impl Shared {
    /// Tries wherever connections that we kept are closed. Ends with the process.
    pub(super) async fn follow_closed_connections(&self) {
        let mut closed = self.upstreams.hung_up();
        let mut tries = JoinSet::new();
        let mut tried: HashMap<SocketAddr, Instant> = HashMap::new();
        loop {
            tokio::select! {
                at = closed.recv() => match at {
                    Ok(Place::Far(_)) => {}
                    Ok(Place::Direct(at)) => {
                        tried.retain(|_, when| when.elapsed() < ONCE_IN);
                        if tried.len() < TRIED_MAX && tried.insert(at, Instant::now()).is_none() {
                            tries.spawn(async move { refuses(at).await.then_some(at) });
                        }
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                Some(outcome) = tries.join_next() => {
                    if let Ok(Some(at)) = outcome {
                        self.nobody_listens(at);
                    }
                }
            }
        }
    }

    fn nobody_listens(&self, at: SocketAddr) {
        let now = Instant::now();
        for member in self.mesh.table().all() {
            if !member.is_self && member.http_addresses.contains(&at) && member.is_choosable() {
                debug!(member = %member.id.short(), %at, "its connections were closed, and it refuses others");
                lock(&self.routes).vanished(&member.id, now);
                self.has_refused(&member, at.into());
            }
        }
    }

    /// Where a request failed because nobody listens there, its watchers are to know.
    pub(super) fn note_refusal(&self, member: &Member, at: Place, error: &UpstreamError) {
        if error.is_refusal() {
            self.has_refused(member, at);
        }
    }

    /// Whoever listens at this address next has to prove its key anew; the member's watchers are told to ask it.
    fn has_refused(&self, member: &Member, at: Place) {
        self.endpoints.forget(member, at);
        if at.direct().is_some() {
            self.mesh.connection_refused(member.id);
        }
    }
}

async fn refuses(at: SocketAddr) -> bool {
    let outcome = timeout(PATIENCE, TcpStream::connect(at)).await;
    matches!(outcome, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
}
