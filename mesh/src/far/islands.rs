//! The other islands, and which way to each is taken: by what all bridges of our own island say, so every node of it
//! chooses alike, but for ways that cost nearly the same.
//!
//! Source: NETWORK.md, "Ways to other islands".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::routes::RouteWords;
use crate::event::EventKind;
use crate::island::{ISLANDS_MAX, Island, Way};
use crate::member::MemberId;
use crate::path::Path;
use crate::reach::IslandLoad;
use crate::verify::Refused;

/// An island that no way leads to is given up after this: another may come as the answer to the loss of the last.
/// Required by DESIGN, section 6; bridges wait as long for each other.
const DOUBT: Duration = Duration::from_millis(200);
/// An island that could not be reached for so long is listed no more. Required by DESIGN, section 6.
pub(super) const UNREACHABLE_LISTED: Duration = Duration::from_secs(24 * 3600);
/// Another way is taken only if it costs at most 5 of 6 parts of the chosen one: required by DESIGN, section 6 (20 %).
const CHEAPER: (u32, u32) = (6, 5);

/// The islands that are known: those that a way leads to, and those that a listed member counts itself to.
#[derive(Debug, Default)]
pub(super) struct Islands {
    known: BTreeMap<String, State>,
    changed: bool,
}

#[derive(Debug)]
struct State {
    chosen: Option<(MemberId, Path)>,
    /// Without a way since a moment ago: given up then.
    doubted_until: Option<Instant>,
    view: Arc<Island>,
}

impl State {
    fn new(name: String, now: Instant) -> Self {
        let load = IslandLoad::default();
        let view = Arc::new(Island { name, reachable: false, since: now, load, ways: Vec::new() });
        Self { chosen: None, doubted_until: None, view }
    }

    /// Takes the ways there are now, and says whether that is the first one or the last one was lost.
    fn take(&mut self, now: Instant, mut ways: Vec<Way>) -> Option<EventKind> {
        ways.sort_by(|a, b| {
            (a.reach.cost, a.bridge, &a.reach.path).cmp(&(b.reach.cost, b.bridge, &b.reach.path))
        });
        let is_chosen = |way: &Way| {
            self.chosen
                .as_ref()
                .is_some_and(|(bridge, path)| way.bridge == *bridge && way.reach.path == *path)
        };
        if let Some(kept) = ways.iter().position(is_chosen)
            && ways[0].reach.cost * CHEAPER.0 > ways[kept].reach.cost * CHEAPER.1
        {
            ways[..=kept].rotate_right(1);
        }
        self.chosen = ways.first().map(|way| (way.bridge, way.reach.path.clone()));
        let was = self.view.reachable;
        match (was, ways.is_empty()) {
            (_, false) => self.doubted_until = None,
            (true, true) => {
                self.doubted_until.get_or_insert(now + DOUBT);
            }
            (false, true) => {}
        }
        let reachable = was || !ways.is_empty();
        let since = if reachable == was { self.view.since } else { now };
        let load = ways.first().map(|way| way.reach.load).unwrap_or_default();
        let view = Island { name: self.view.name.clone(), reachable, since, load, ways };
        if view != *self.view {
            self.view = Arc::new(view);
        }
        (reachable && !was).then_some(EventKind::IslandUp)
    }

    fn give_up(&mut self, now: Instant) {
        self.doubted_until = None;
        let Island { name, load, .. } = &*self.view;
        let (name, load) = (name.clone(), *load);
        self.view = Arc::new(Island { name, reachable: false, since: now, load, ways: Vec::new() });
    }
}

impl Islands {
    pub(super) fn view(&self, name: &str) -> Option<&Arc<Island>> {
        self.known.get(name).map(|state| &state.view)
    }

    pub(super) fn is_reachable(&self, name: &str) -> bool {
        self.view(name).is_some_and(|view| view.reachable)
    }

    /// All of them, if that has changed since it was last asked.
    pub(super) fn take_changed(&mut self) -> Option<Arc<BTreeMap<String, Arc<Island>>>> {
        std::mem::take(&mut self.changed).then(|| {
            Arc::new(self.known.iter().map(|(name, state)| (name.clone(), state.view.clone())).collect())
        })
    }

    /// Makes an island known. Where there are too many, one goes that cannot be reached and has no members, as `is_empty`
    /// says.
    ///
    /// # Errors
    /// `Full`.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        name: &str,
        is_empty: impl Fn(&str) -> bool,
    ) -> Result<(), Refused> {
        if self.known.contains_key(name) {
            return Ok(());
        }
        if self.known.len() >= ISLANDS_MAX {
            let useless = |(name, state): &(&String, &State)| !state.view.reachable && is_empty(name);
            let gone = self.known.iter().find(useless).map(|(name, _)| name.clone()).ok_or(Refused::Full)?;
            self.known.remove(&gone);
        }
        self.known.insert(name.to_owned(), State::new(name.to_owned(), now));
        self.changed = true;
        Ok(())
    }

    /// Drops islands that no way leads to and that nobody counts itself to: their last member has taken another name, or is
    /// over. `of_members`: the island of each, looked at once however many islands cannot be reached.
    pub(super) fn drop_empty<'a>(&mut self, mut of_members: impl Iterator<Item = &'a str>) {
        let out_of_reach = self.known.iter().filter(|(_, state)| !state.view.reachable);
        let mut empty: BTreeSet<&str> = out_of_reach.map(|(name, _)| name.as_str()).collect();
        while !empty.is_empty()
            && let Some(island) = of_members.next()
        {
            empty.remove(island);
        }
        let empty: Vec<String> = empty.into_iter().map(str::to_owned).collect();
        for island in empty {
            self.remove(&island);
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> bool {
        let removed = self.known.remove(name).is_some();
        self.changed |= removed;
        removed
    }

    /// Chooses anew, by the ROUTES words of these bridges. Gives the islands that can be reached now and could not before.
    pub(super) fn choose(
        &mut self,
        now: Instant,
        own: &str,
        bridges: &[MemberId],
        routes: &RouteWords,
        is_empty: impl Fn(&str) -> bool,
    ) -> Vec<(EventKind, Arc<Island>)> {
        let mut ways: BTreeMap<&str, Vec<Way>> = BTreeMap::new();
        for bridge in bridges {
            for reach in routes.reaches(bridge).filter(|reach| !reach.path.contains(own)) {
                let way = Way { bridge: *bridge, reach: reach.clone() };
                ways.entry(reach.path.destination()).or_default().push(way);
            }
        }
        for name in ways.keys() {
            // Without room for it an island stays unknown.
            let _ = self.admit(now, name, &is_empty);
        }
        let mut told = Vec::new();
        for (name, state) in &mut self.known {
            let before = state.view.clone();
            let kind = state.take(now, ways.remove(name.as_str()).unwrap_or_default());
            self.changed |= !Arc::ptr_eq(&before, &state.view);
            told.extend(kind.map(|kind| (kind, state.view.clone())));
        }
        told
    }

    /// Islands whose last way has been gone for long enough.
    pub(super) fn give_up(&mut self, now: Instant) -> Vec<(EventKind, Arc<Island>)> {
        let lost = |state: &&mut State| state.doubted_until.is_some_and(|until| until <= now);
        let mut told = Vec::new();
        for state in self.known.values_mut().filter(lost) {
            state.give_up(now);
            self.changed = true;
            told.push((EventKind::IslandDown, state.view.clone()));
        }
        told
    }

    /// When [`give_up`](Self::give_up) has something to do.
    pub(super) fn doubted_until(&self) -> Option<Instant> {
        self.known.values().filter_map(|state| state.doubted_until).min()
    }

    /// One that could not be reached for so long that it is listed no more.
    pub(super) fn due(&self, now: Instant) -> Option<String> {
        let is_due = |view: &Island| {
            !view.reachable && now.saturating_duration_since(view.since) >= UNREACHABLE_LISTED
        };
        self.known.values().find(|state| is_due(&state.view)).map(|state| state.view.name.clone())
    }
}
