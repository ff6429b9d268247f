//! When we have no room: which peer has, and how the client is told that nobody has.
//!
//! Pure: two intermediaries are drawn, and the less busy is taken if it is clearly less busy than we are. Never the least
//! busy of all, which everybody would pick at once.

use std::sync::Arc;

use isle_mesh::member::{Load, Member, MemberId, Standing};
use rand::RngExt;
use rand::rngs::SmallRng;

/// A peer is clearly less busy if its load is below this share of ours.
const CLEARLY: f64 = 0.8;

/// Why a request was not served here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Why {
    /// As many requests as are admitted are in flight.
    Full,
    /// This node is being stopped.
    Draining,
}

impl Why {
    /// The word used in problems and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Draining => "draining",
        }
    }
}

/// An intermediary to hand a request to; `None` when nobody is clearly less busy. `avoid`: nodes that have seen the
/// request. While draining, any peer with room will do.
#[must_use]
pub fn peer(
    peers: &[Arc<Member>],
    ours: Load,
    draining: bool,
    avoid: &[MemberId],
    rng: &mut SmallRng,
) -> Option<Arc<Member>> {
    let able: Vec<&Arc<Member>> = peers
        .iter()
        .filter(|peer| {
            !peer.is_self
                && peer.has_role("intermediary")
                && peer.is_choosable()
                && peer.standing == Standing::Alive
                && !avoid.contains(&peer.id)
                && peer.load.in_flight < peer.load.capacity
        })
        .collect();
    let chosen = match able.len() {
        0 => return None,
        1 => able[0],
        count => {
            let first = rng.random_range(0..count);
            let second = (first + rng.random_range(1..count)) % count;
            if share(able[second].load) < share(able[first].load) { able[second] } else { able[first] }
        }
    };
    (draining || share(chosen.load) < CLEARLY * share(ours)).then(|| chosen.clone())
}

/// Load as a share of capacity; a node that admits nothing is full.
#[must_use]
pub fn share(load: Load) -> f64 {
    if load.capacity == 0 { 1.0 } else { f64::from(load.in_flight) / f64::from(load.capacity) }
}
