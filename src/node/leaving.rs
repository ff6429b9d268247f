//! The order of leaving: nobody is turned away, nothing that was admitted is lost, everybody is told.
//!
//! 1. Announce *draining*: nobody chooses us any more. Event streams end.
//! 2. Go on accepting for a grace, every answer saying `Connection: close`; new requests go to peers.
//! 3. Empty the accept queue, close the listener and idle connections, finish what is in flight.
//! 4. A bridge waits for those who leave with it, and for the tunnels it carries.
//! 5. Say farewell; a bridge then says goodbye on its links, over which the farewell has gone.
//!
//! Source: DESIGN, "Leaving".

use std::time::Duration;

use isle_mesh::member::LeaveReason;
use isle_mesh::mesh::Mesh;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{info, warn};

use crate::http::connections::Connections;
use crate::roles::bridge::BridgeRole;

/// Requests that were sent before others heard that we drain arrive within this: one round on a LAN for
/// the announcement's first copies (0, 15, 40 ms), and what was on its way by then.
const GRACE_MIN: Duration = Duration::from_millis(60);
/// A client that keeps its connection but asks nothing is not waited for longer than this.
const GRACE_MAX: Duration = Duration::from_secs(2);

/// What became of the requests that were inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Left {
    /// Requests cut because `drain_timeout` ran out.
    pub cut: usize,
    /// How long it took, to the last copy of the farewell.
    pub took: Duration,
}

/// Leaves in order. `drain_timeout` bounds the wait for requests in flight. To be dropped for leaving at once: see [`at_once`].
///
/// Not cancel safe as a whole, but every step may be repeated: dropping it and calling [`at_once`] is right at any time.
pub async fn in_order(
    mesh: &Mesh,
    connections: &Connections,
    bridge: Option<&BridgeRole>,
    drain_timeout: Duration,
) -> Left {
    let started = Instant::now();
    mesh.drain().await;
    connections.start_closing();
    info!(in_flight = connections.in_flight(), connections = connections.open(), "draining");
    sleep_until(started + GRACE_MIN).await;
    // Whoever was talking to us lately gets an answer that says `Connection: close`, and reconnects elsewhere in peace.
    let _ = timeout_at(started + GRACE_MAX.min(drain_timeout), connections.all_told()).await;
    connections.stop();
    let cut = match timeout_at(started + drain_timeout, connections.finished()).await {
        Ok(()) => 0,
        Err(_) => {
            let cut = connections.abort();
            warn!(cut, "drain timeout: requests cut");
            cut
        }
    };
    if let Some(bridge) = bridge {
        bridge.linger(mesh, drain_timeout.saturating_sub(started.elapsed())).await;
    }
    say_farewell(mesh, bridge).await;
    Left { cut, took: started.elapsed() }
}

/// Says farewell and cuts everything. Returns how many requests that breaks off.
pub async fn at_once(mesh: &Mesh, connections: &Connections, bridge: Option<&BridgeRole>) -> usize {
    let cut = connections.abort();
    say_farewell(mesh, bridge).await;
    cut
}

async fn say_farewell(mesh: &Mesh, bridge: Option<&BridgeRole>) {
    mesh.leave(LeaveReason::Stopped).await;
    if let Some(bridge) = bridge {
        bridge.leave().await;
    }
}
