//! To whom no connections are kept: who is gone, as far as they were begun before that, and who stops.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use isle_mesh::member::{Member, MemberId};

use crate::upstream::place::Place;

/// So long it is remembered that connections to an address were closed: longer than any exchange takes.
const CLOSED_REMEMBERED: Duration = Duration::from_secs(60);
/// Who says that it stops, and is still there after this, has connections kept to it again: anybody can say so for as long as
/// it likes, and of a bridge on another island that concerns all tunnels. Twice as long as a node waits for what is in flight
/// if it is not told otherwise.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// What connections lead to, or through.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Ended {
    Listener(SocketAddr),
    Member(MemberId),
    /// Every way to another island.
    Tunnels,
}

impl Ended {
    /// All that leads to this member, or through it.
    pub(super) fn of(member: &Member) -> Vec<Self> {
        let mut ended: Vec<Self> = member.http_addresses.iter().copied().map(Self::Listener).collect();
        if member.far {
            ended.push(Self::Member(member.id));
        }
        if member.far && member.has_role("bridge") {
            ended.push(Self::Tunnels);
        }
        ended
    }

    pub(super) fn concerns(&self, place: &Place) -> bool {
        Self::all_at(place).contains(&Some(*self))
    }

    /// All that a connection to this place leads to, or through.
    fn all_at(place: &Place) -> [Option<Self>; 3] {
        let listener = Some(Self::Listener(place.dialled()));
        match place {
            Place::Direct(_) => [listener, None, None],
            Place::Far(passage) => [listener, Some(Self::Member(passage.member)), Some(Self::Tunnels)],
        }
    }
}

/// What is remembered of that. As many stop as are listed at most.
#[derive(Default, Debug)]
pub(super) struct Closed {
    /// When connections there were last closed.
    closed: HashMap<Ended, Instant>,
    /// Who stops, since when, and what leads there.
    stopping: HashMap<MemberId, (Instant, Vec<Ended>)>,
    /// How many of those each leads to.
    stopping_there: HashMap<Ended, usize>,
}

impl Closed {
    /// Connections there have been closed.
    pub(super) fn close(&mut self, now: Instant, ended: &[Ended]) {
        self.closed.extend(ended.iter().map(|what| (*what, now)));
    }

    /// Connections there are not kept from now on.
    pub(super) fn stops(&mut self, now: Instant, member: MemberId, ended: Vec<Ended>) {
        let since = self.stopping.get(&member).map_or(now, |(since, _)| *since);
        self.stays(&member);
        for what in &ended {
            *self.stopping_there.entry(*what).or_default() += 1;
        }
        self.stopping.insert(member, (since, ended));
    }

    /// They are kept again, or it is gone.
    pub(super) fn stays(&mut self, member: &MemberId) {
        let Some((_, ended)) = self.stopping.remove(member) else { return };
        for what in ended {
            if let Some(count) = self.stopping_there.get_mut(&what) {
                *count -= 1;
                if *count == 0 {
                    self.stopping_there.remove(&what);
                }
            }
        }
    }

    /// The same for all but those.
    pub(super) fn stays_unless(&mut self, stops: impl Fn(&MemberId) -> bool) {
        let over: Vec<MemberId> = self.stopping.keys().filter(|id| !stops(id)).copied().collect();
        for id in over {
            self.stays(&id);
        }
    }

    /// Whether a connection there, of which the last exchange began then, may be used again.
    pub(super) fn may_be_kept(&self, place: &Place, begun: Instant) -> bool {
        Ended::all_at(place).into_iter().flatten().all(|what| {
            !self.stopping_there.contains_key(&what) && self.closed.get(&what).is_none_or(|at| *at < begun)
        })
    }

    /// Forgets what is old.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.closed.retain(|_, at| now.saturating_duration_since(*at) < CLOSED_REMEMBERED);
        let is_late = |since: Instant| now.saturating_duration_since(since) >= STOPS_WITHIN;
        let late: Vec<MemberId> =
            self.stopping.iter().filter(|(_, (since, _))| is_late(*since)).map(|(id, _)| *id).collect();
        for id in late {
            self.stays(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> MemberId {
        MemberId([number; 32])
    }

    fn place(port: u16) -> Place {
        Place::Direct(SocketAddr::from(([10, 77, 0, 2], port)))
    }

    fn at(port: u16) -> Vec<Ended> {
        vec![Ended::Listener(place(port).dialled())]
    }

    #[test]
    fn who_stops_has_nothing_kept_until_it_stays_and_only_as_long_as_that_takes() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut closed = Closed::default();
        closed.stops(now, id(1), at(1));
        closed.stops(now, id(2), at(1));
        assert!(!closed.may_be_kept(&place(1), later(9)) && closed.may_be_kept(&place(2), now));
        closed.stays(&id(1));
        assert!(!closed.may_be_kept(&place(1), later(9)), "another one there stops, too");
        // It moves, and says so again: that is no longer for it.
        closed.stops(later(59), id(2), at(2));
        assert!(closed.may_be_kept(&place(1), now) && !closed.may_be_kept(&place(2), now));
        closed.sweep(later(59));
        assert!(!closed.may_be_kept(&place(2), now));
        closed.sweep(later(60));
        assert!(closed.may_be_kept(&place(2), now));
        closed.stops(now, id(1), at(1));
        closed.stops(now, id(2), at(2));
        closed.stays_unless(|member| *member == id(2));
        assert!(closed.may_be_kept(&place(1), now) && !closed.may_be_kept(&place(2), now));
        closed.stays(&id(2));
        assert!(closed.stopping.is_empty() && closed.stopping_there.is_empty());
    }
}
