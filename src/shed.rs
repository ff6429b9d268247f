//! What happens to a request that arrives: served here, handed over to a less busy intermediary, or refused.
//!
//! Pure: time and randomness are given. Handing over happens once per request, and only to a member that told us lately
//! that it has room; so no request passes more than two intermediaries, and nobody is buried under what others shed.
//! Intermediaries of other islands come after those of our own. They do not tell us their load, but their island does.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isle_mesh::island::Island;
use isle_mesh::member::{Load, Member, MemberId};
use isle_mesh::reach::IslandLoad;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// A peer that uses this part of its limit asks for help itself.
const BUSY: f64 = 0.8;
/// A peer is "clearly less busy" below this part of our own load. Guessed: less than that is within what changes
/// while the news travels.
const CLEARLY_LESS: f64 = 0.75;
/// News older than this says nothing about room. Beacons come every 200 ms in a small island, every second at 1,000.
const FRESH: Duration = Duration::from_secs(2);

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

/// Load as a share of capacity; a node that admits nothing is full.
#[must_use]
pub fn share(load: Load) -> f64 {
    if load.capacity == 0 { 1.0 } else { f64::from(load.in_flight) / f64::from(load.capacity) }
}

/// What we know of the other intermediaries, and what we have sent them.
#[derive(Debug)]
pub struct Peers {
    rng: SmallRng,
    /// Requests handed over to each that it still has.
    handed: BTreeMap<MemberId, u32>,
    /// Load as its newest answer told it, and when.
    told: BTreeMap<MemberId, (Instant, Load)>,
}

impl Peers {
    /// Has handed over nothing. `seed` decides all draws.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), handed: BTreeMap::new(), told: BTreeMap::new() }
    }

    /// The intermediary that should have a request in our place, if any is clearly less busy: the less busy of two
    /// drawn at random from those with room. None of `avoid`, never ourselves. While draining anybody with room will do.
    pub fn peer<'a>(
        &mut self,
        now: Instant,
        ours: Load,
        why: Why,
        members: impl IntoIterator<Item = &'a Member>,
        avoid: &[MemberId],
    ) -> Option<MemberId> {
        let room: Vec<(f64, MemberId)> = members
            .into_iter()
            .filter(|member| is_peer(member) && !avoid.contains(&member.id))
            .filter_map(|member| Some((self.room(now, member)?, member.id)))
            .collect();
        let (load, id) = match room.len() {
            0 => return None,
            1 => room[0],
            count => {
                let first = self.rng.random_range(0..count);
                let second = (first + self.rng.random_range(1..count)) % count;
                if room[second].0 < room[first].0 { room[second] } else { room[first] }
            }
        };
        (why == Why::Draining || load < share(ours) * CLEARLY_LESS).then_some(id)
    }

    /// The intermediary of another island that should have a request when nobody of our own has room: of the cheapest
    /// island that is clearly less busy than we are, one drawn at random. An island's load is that of all its members, so
    /// what an intermediary there has told us lately counts besides, and so does what it still has of us.
    pub fn far_peer<'a>(
        &mut self,
        now: Instant,
        ours: Load,
        members: impl IntoIterator<Item = &'a Member>,
        islands: &BTreeMap<String, Arc<Island>>,
        avoid: &[MemberId],
    ) -> Option<MemberId> {
        let mut there: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
        for member in members.into_iter().filter(|member| is_far_peer(member)) {
            there.entry(&member.record.island).or_default().push(member);
        }
        let mut ways: Vec<(Duration, &str, Vec<&Member>)> = there
            .into_iter()
            .filter_map(|(name, peers)| {
                let island = islands.get(name).filter(|island| island.reachable)?;
                let cost = island.ways.first()?.reach.cost;
                let handed = peers.iter().filter_map(|peer| self.handed.get(&peer.id)).sum::<u32>();
                let IslandLoad { in_flight, capacity, .. } = island.load;
                let ratio = share(Load { in_flight: in_flight.saturating_add(handed), capacity });
                (ratio < BUSY && ratio < share(ours) * CLEARLY_LESS).then_some((cost, name, peers))
            })
            .collect();
        ways.sort_by_key(|(cost, name, _)| (*cost, *name));
        ways.into_iter().find_map(|(_, _, mut peers)| {
            peers.retain(|peer| !avoid.contains(&peer.id) && !self.is_known_busy(now, &peer.id));
            let drawn = (!peers.is_empty()).then(|| self.rng.random_range(0..peers.len()))?;
            Some(peers[drawn].id)
        })
    }

    /// Whether a member that tells us its load with its answers alone has told lately that it has no room.
    fn is_known_busy(&self, now: Instant, id: &MemberId) -> bool {
        let handed = self.handed.get(id).copied().unwrap_or(0);
        self.told.get(id).is_some_and(|(at, load)| {
            let load = Load { in_flight: load.in_flight.saturating_add(handed), ..*load };
            now.saturating_duration_since(*at) <= FRESH && share(load) >= BUSY
        })
    }

    /// How busy a peer is, with what we have sent it; `None` when it has no room, or has not told lately.
    fn room(&self, now: Instant, member: &Member) -> Option<f64> {
        let beacon = member.heard.map(|at| (at, member.load));
        let answer = self.told.get(&member.id).copied();
        let (at, load) = beacon.into_iter().chain(answer).max_by_key(|(at, _)| *at)?;
        if now.saturating_duration_since(at) > FRESH {
            return None;
        }
        // Our own are perhaps in its number already; counted twice is on the safe side.
        let handed = self.handed.get(&member.id).copied().unwrap_or(0);
        let ratio = share(Load { in_flight: load.in_flight.saturating_add(handed), ..load });
        (ratio < BUSY).then_some(ratio)
    }

    /// A request is handed over. Every one is to be [`returned`](Self::returned).
    pub fn handed(&mut self, id: MemberId) {
        *self.handed.entry(id).or_default() += 1;
    }

    /// A request handed over has ended, somehow.
    pub fn returned(&mut self, id: MemberId) {
        if let Some(count) = self.handed.get_mut(&id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.handed.remove(&id);
            }
        }
    }

    /// An answer of a peer told its load.
    pub fn told(&mut self, now: Instant, id: MemberId, load: Load) {
        self.told.insert(id, (now, load));
        self.told.retain(|_, (at, _)| now.saturating_duration_since(*at) <= FRESH);
    }

    /// Seconds for `Retry-After`: 1 to 3, so that those who are turned away together do not come back together.
    pub fn retry_after(&mut self) -> u32 {
        self.rng.random_range(1..=3)
    }
}

/// Another intermediary of our own island that may be asked.
fn is_peer(member: &Member) -> bool {
    !member.is_self
        && !member.far
        && member.has_role("intermediary")
        && member.is_choosable()
        && member.standing == isle_mesh::member::Standing::Alive
        && member.proven
}

/// One of another island that may be asked. It proves its key with every tunnel.
fn is_far_peer(member: &Member) -> bool {
    member.far && member.has_role("intermediary") && member.is_choosable()
}

#[cfg(test)]
mod tests;
