//! What a bridge decides about its links, without IO: whom to call and when, how far each journal was read and when it is to
//! be read anew, the ways to other islands, and what each link and our own island are to hear of them.
//!
//! The caller owns connections and sessions, says what becomes of them, and after each input and timeout carries out
//! what is given: calls, then what links are to say, then what our own island is.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isle_mesh::island::Island;
use isle_mesh::member::MemberId;

use crate::frame::{IslandLoad, Reach, Route};
use crate::redial::Redial;
use crate::routes::{Choice, Event, RouteTable};
use crate::session::Bookmark;

/// Loads are said, and costs looked at, so often.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);

/// Of one node.
#[derive(Debug)]
pub struct Junction {
    routes: RouteTable,
    /// Whom we call.
    calls: BTreeMap<MemberId, Call>,
    /// How far the journals of those were read that there was a link with.
    bookmarks: BTreeMap<MemberId, Bookmark>,
    /// Those that there is a connection with, and whether the link carries.
    links: BTreeMap<MemberId, bool>,
    loads_at: Instant,
    events: VecDeque<Event>,
    /// Links are to be read anew.
    anew: bool,
    leaving: bool,
}

#[derive(Debug)]
struct Call {
    redial: Redial,
    /// `None`: one is under way, or there is a link.
    due_at: Option<Instant>,
}

impl Junction {
    /// Of a bridge of `island` without links.
    #[must_use]
    pub fn new(now: Instant, island: String) -> Self {
        Self {
            routes: RouteTable::new(island),
            calls: BTreeMap::new(),
            bookmarks: BTreeMap::new(),
            links: BTreeMap::new(),
            loads_at: now,
            events: VecDeque::new(),
            anew: false,
            leaving: false,
        }
    }

    /// Calls `key` from now on, until there is a link, and again whenever it is over. `seed` decides the jitter.
    pub fn call(&mut self, now: Instant, key: MemberId, seed: u64) {
        self.calls.insert(key, Call { redial: Redial::new(seed), due_at: Some(now) });
    }

    /// Calls `key` no more, and forgets how far its journal was read.
    pub fn forget(&mut self, key: &MemberId) {
        self.calls.remove(key);
        self.bookmarks.remove(key);
    }

    /// Somebody who is to be called now. To be carried out; then [`connected`](Self::connected) or
    /// [`call_failed`](Self::call_failed) follows.
    pub fn poll_call(&mut self, now: Instant) -> Option<MemberId> {
        if self.leaving {
            return None;
        }
        for (key, call) in &mut self.calls {
            if call.due_at.take_if(|at| *at <= now).is_some() && !self.links.contains_key(key) {
                return Some(*key);
            }
        }
        None
    }

    /// The call that began then came to nothing. It counts from its start: it has been as good as a wait.
    pub fn call_failed(&mut self, started_at: Instant, key: &MemberId) {
        if let Some(call) = self.calls.get_mut(key) {
            call.due_at = Some(call.redial.next(started_at));
        }
    }

    /// There is a connection with `peer`, and a session begins. Where that is to go on reading.
    pub fn connected(&mut self, peer: MemberId) -> Option<Bookmark> {
        if let Some(call) = self.calls.get_mut(&peer) {
            call.due_at = None;
        }
        self.links.insert(peer, false);
        self.bookmarks.get(&peer).copied()
    }

    /// The link with `peer` carries; `round_trip` is the connection's.
    pub fn up(&mut self, now: Instant, peer: MemberId, island: String, round_trip: Duration) {
        let Some(is_up) = self.links.get_mut(&peer) else { return };
        *is_up = true;
        self.routes.link_up(now, peer, island, round_trip);
        if let Some(call) = self.calls.get_mut(&peer) {
            call.redial.up(now);
        }
    }

    /// The connection with `peer` is over; the next may go on reading at `bookmark`.
    pub fn down(&mut self, now: Instant, peer: &MemberId, bookmark: Option<Bookmark>) {
        let Some(was_up) = self.links.remove(peer) else { return };
        if let Some(bookmark) = bookmark {
            self.bookmarks.insert(*peer, bookmark);
        }
        if was_up {
            self.routes.link_down(now, *peer);
        }
        self.call_failed(now, peer);
    }

    /// What the other side of a link said of ways.
    pub fn heard_routes(&mut self, now: Instant, peer: MemberId, routes: Vec<Route>) {
        self.routes.link_routes(now, peer, routes);
    }

    /// What it said of loads.
    pub fn heard_loads(&mut self, now: Instant, peer: MemberId, loads: Vec<(String, IslandLoad)>) {
        self.routes.link_load(now, peer, loads);
    }

    /// All that another bridge of our own island can reach, by its newest ROUTES word; nothing, when it is gone.
    pub fn heard_bridge(&mut self, now: Instant, bridge: MemberId, reaches: Vec<Reach>) {
        self.routes.bridge_routes(now, bridge, reaches);
    }

    /// Our own island is called so from now on.
    pub fn rename(&mut self, now: Instant, island: String) {
        self.routes.rename(now, island);
    }

    /// From now on nothing can be reached through us, and nobody is called.
    pub fn leave(&mut self, now: Instant) {
        self.leaving = true;
        self.routes.leave(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.routes.handle_timeout(now);
    }

    /// When there is something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let calls = self.calls.values().filter_map(|call| call.due_at.filter(|_| !self.leaving));
        calls.chain(self.routes.poll_timeout()).fold(self.loads_at, Instant::min)
    }

    /// What each link that carries is to say of loads, if that is due: `own` is that of our island, `round_trip` what was
    /// last measured on a link.
    pub fn poll_loads(
        &mut self,
        now: Instant,
        own: impl FnOnce() -> IslandLoad,
        round_trip: impl Fn(&MemberId) -> Option<Duration>,
    ) -> Vec<(MemberId, Vec<(String, IslandLoad)>)> {
        if now < self.loads_at {
            return Vec::new();
        }
        self.loads_at = now + LOAD_INTERVAL;
        self.routes.own_load(own());
        let up: Vec<MemberId> = self.up_links().collect();
        let measured = up.iter().filter_map(|peer| Some((*peer, round_trip(peer)?)));
        self.routes.link_round_trips(now, measured);
        up.into_iter().map(|peer| (peer, self.routes.loads(peer))).collect()
    }

    /// What each link is to say of ways, if anything.
    pub fn poll_links(&mut self, now: Instant) -> Vec<(MemberId, Vec<Route>)> {
        let up: Vec<MemberId> = self.up_links().collect();
        let told = up.into_iter().map(|peer| (peer, self.routes.poll_link(now, peer)));
        told.filter(|(_, routes)| !routes.is_empty()).collect()
    }

    /// What our own island is to hear: all that our links reach, if that is something new.
    pub fn poll_own(&mut self, now: Instant) -> Option<Vec<Reach>> {
        self.routes.poll_own(now)
    }

    /// What has happened to an island.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.collect_events();
        self.events.pop_front()
    }

    /// Whose journals are to be read anew now: an island can be reached that could not be, and what was said of it meanwhile
    /// may have been dropped. Source: NETWORK.md, "Between islands".
    pub fn poll_anew(&mut self) -> Vec<MemberId> {
        self.collect_events();
        if std::mem::take(&mut self.anew) { self.links.keys().copied().collect() } else { Vec::new() }
    }

    fn collect_events(&mut self) {
        while let Some(event) = self.routes.poll_event() {
            self.anew |= matches!(event, Event::IslandUp(_));
            self.events.push_back(event);
        }
    }

    /// How often there was no room for an island that somebody speaks of.
    #[must_use]
    pub fn left_out_total(&self) -> u64 {
        self.routes.left_out_total()
    }

    /// All islands that can be reached, and how.
    pub fn islands(&self) -> impl Iterator<Item = (&str, &Choice)> {
        self.routes.islands()
    }

    fn up_links(&self) -> impl Iterator<Item = MemberId> {
        self.links.iter().filter(|(_, is_up)| **is_up).map(|(peer, _)| *peer)
    }
}

/// Whom of the other bridges of our island a [`Junction`] was told the ways of.
#[derive(Debug, Default)]
pub struct Siblings {
    told: BTreeSet<MemberId>,
}

impl Siblings {
    /// What `islands`, as the mesh has them now, says of the ways of the bridges besides `own`: for
    /// [`Junction::heard_bridge`]. Nothing, of those that have none any more.
    pub fn ways(
        &mut self,
        own: MemberId,
        islands: &BTreeMap<String, Arc<Island>>,
    ) -> BTreeMap<MemberId, Vec<Reach>> {
        let mut reaches: BTreeMap<MemberId, Vec<Reach>> =
            std::mem::take(&mut self.told).into_iter().map(|id| (id, Vec::new())).collect();
        for way in islands.values().flat_map(|island| &island.ways).filter(|way| way.bridge != own) {
            reaches.entry(way.bridge).or_default().push(way.reach.clone());
        }
        self.told = reaches.iter().filter(|(_, reaches)| !reaches.is_empty()).map(|(id, _)| *id).collect();
        reaches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Cursor;

    const PEER: MemberId = MemberId([7; 32]);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_peer_is_called_once_at_a_time_and_not_while_there_is_a_link() {
        let now = Instant::now();
        let mut junction = Junction::new(now, "here".into());
        junction.call(now, PEER, 1);
        assert_eq!((junction.poll_call(now), junction.poll_call(now)), (Some(PEER), None));
        junction.call_failed(now, &PEER);
        assert_eq!(junction.poll_call(now + ms(30)), None);
        // It has called us meanwhile.
        junction.connected(PEER);
        assert_eq!(junction.poll_call(now + ms(1000)), None);
        junction.down(now + ms(2000), &PEER, None);
        assert_eq!(junction.poll_call(now + ms(2300)), Some(PEER));
    }

    #[test]
    fn where_reading_stopped_is_kept_over_links_that_read_nothing() {
        let now = Instant::now();
        let mut junction = Junction::new(now, "here".into());
        assert_eq!(junction.connected(PEER), None);
        let bookmark = Bookmark { cursor: Cursor { instance: 1, index: 2, urgent: 3 }, losses: 4 };
        junction.down(now, &PEER, Some(bookmark));
        assert_eq!(junction.connected(PEER), Some(bookmark));
        junction.down(now, &PEER, None);
        assert_eq!(junction.connected(PEER), Some(bookmark));
        junction.forget(&PEER);
        assert_eq!(junction.connected(PEER), None);
    }

    #[test]
    fn an_island_that_can_be_reached_again_is_read_anew_over_all_links() {
        let now = Instant::now();
        let mut junction = Junction::new(now, "here".into());
        let other = MemberId([8; 32]);
        junction.connected(other);
        junction.connected(PEER);
        assert_eq!(junction.poll_anew(), []);
        junction.up(now, PEER, "there".into(), ms(10));
        assert_eq!((junction.poll_anew(), junction.poll_anew()), (vec![], vec![]), "it has said no way yet");
        let path = isle_mesh::path::Path::new(vec!["there".into()]).unwrap();
        let reach = Reach { path, cost: ms(0), load: IslandLoad::default() };
        junction.heard_routes(now, PEER, vec![Route::Reach(reach.clone())]);
        assert_eq!((junction.poll_anew(), junction.poll_anew()), (vec![PEER, other], vec![]));
        junction.heard_routes(now, PEER, vec![Route::Reach(reach)]);
        assert_eq!(junction.poll_anew(), []);
        assert_eq!(junction.poll_event(), Some(Event::IslandUp("there".into())));
    }

    #[test]
    fn who_leaves_calls_nobody() {
        let now = Instant::now();
        let mut junction = Junction::new(now, "here".into());
        junction.call(now, PEER, 1);
        junction.leave(now);
        assert_eq!(junction.poll_call(now + ms(5000)), None);
    }
}
