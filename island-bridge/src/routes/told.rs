//! What somebody was told of the ways to islands, and when to tell more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Via, Wanted, Ways};
use crate::frame::{Reach, Route};
use isle_mesh::path::Path;

/// What is still true, only no longer the best, is said so rarely.
const CHANGE_INTERVAL: Duration = Duration::from_secs(1);

/// What is not true any more, or new, is said at once, but one change so long after another: what a loss leads to comes
/// in one frame. A link that flaps costs twenty small frames a second at most.
const LOSS_INTERVAL: Duration = Duration::from_millis(50);

/// Told to a link, or to our own island.
#[derive(Debug)]
pub(super) struct Told {
    said: Wanted,
    said_at: Option<Instant>,
    /// What is to be said, since when.
    pending: Option<(Pending, Instant)>,
    /// Links hear of loads apart.
    with_load: bool,
}

/// How much what was told differs from what should be known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Pending {
    /// It is not the best any more.
    Better,
    /// It is not true any more, or lacks an island.
    False,
}

impl Told {
    pub(super) fn of_link() -> Self {
        Self { said: BTreeMap::new(), said_at: None, pending: None, with_load: false }
    }

    pub(super) fn of_island() -> Self {
        Self { with_load: true, ..Self::of_link() }
    }

    /// Through whom `island` is reached by the cheapest way that was told.
    pub(super) fn via(&self, island: &str) -> Option<Via> {
        self.said.get(island)?.first()?.0
    }

    pub(super) fn islands(&self) -> impl Iterator<Item = &String> {
        self.said.keys()
    }

    /// How it differs from `wanted`; `is_true` says whether a way still leads to an island through somebody by the end
    /// of a path.
    pub(super) fn compare(
        &self,
        wanted: &Wanted,
        is_true: impl Fn(&str, Via, &Path) -> bool,
    ) -> Option<Pending> {
        let gone = self.said.keys().any(|island| !wanted.contains_key(island));
        if gone {
            return Some(Pending::False);
        }
        let is_over = |island: &str, (via, said): &(Option<Via>, Reach)| {
            via.is_some_and(|via| !is_true(island, via, &said.path))
        };
        let differs = |(island, wanted): (&String, &Ways)| match self.said.get(island) {
            None => Some(Pending::False),
            Some(said) if !self.is_other(said, wanted) || self.via(island).is_none() => None,
            Some(said) if said.iter().any(|way| is_over(island, way)) => Some(Pending::False),
            Some(_) => Some(Pending::Better),
        };
        wanted.iter().filter_map(differs).max()
    }

    pub(super) fn set_pending(&mut self, now: Instant, pending: Option<Pending>) {
        self.pending = match (pending, self.pending) {
            (Some(pending), Some((_, since))) => Some((pending, since)),
            (pending, _) => pending.map(|pending| (pending, now)),
        };
    }

    /// When something is to be said.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let (pending, since) = self.pending?;
        let interval = if pending == Pending::False { LOSS_INTERVAL } else { CHANGE_INTERVAL };
        Some(self.said_at.map_or(since, |said_at| since.max(said_at + interval)))
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due_at().is_some_and(|at| at <= now)
    }

    /// Tells: from now on `wanted` has been said. Gives what of it was not said before.
    pub(super) fn tell(&mut self, now: Instant, wanted: Wanted) -> Vec<Route> {
        let gone = self.said.keys().filter(|island| !wanted.contains_key(*island));
        let mut routes: Vec<_> = gone.cloned().map(Route::Withdrawn).collect();
        for (island, ways) in &wanted {
            if self.said.get(island).is_none_or(|said| self.is_other(said, ways)) {
                routes.extend(ways.iter().map(|(_, reach)| Route::Reach(reach.clone())));
            }
        }
        // What was not worth saying stays as it was said, so that small steps add up to one that is.
        let said = std::mem::take(&mut self.said);
        self.said = wanted;
        for (island, before) in said {
            if let Some(now) = self.said.get_mut(&island)
                && !are_others(&before, now, self.with_load)
            {
                *now = before;
            }
        }
        (self.said_at, self.pending) = (Some(now), None);
        routes
    }

    fn is_other(&self, said: &Ways, wanted: &Ways) -> bool {
        are_others(said, wanted, self.with_load)
    }
}

/// Whether the difference between these ways to one island is worth saying.
fn are_others(said: &Ways, wanted: &Ways, with_load: bool) -> bool {
    let mut pairs = said.iter().zip(wanted);
    said.len() != wanted.len() || pairs.any(|((_, said), (_, wanted))| is_other(said, wanted, with_load))
}

/// Whether the difference is worth saying: another path, a cost that differs by over a tenth and a millisecond.
fn is_other(said: &Reach, wanted: &Reach, with_load: bool) -> bool {
    let difference = said.cost.abs_diff(wanted.cost);
    let is_dearer = difference > Duration::from_millis(1) && difference * 10 > said.cost;
    said.path != wanted.path || is_dearer || (with_load && said.load != wanted.load)
}
