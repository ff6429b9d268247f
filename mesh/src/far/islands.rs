//! The other islands, and which way to each is taken: by what all bridges of our own island say, so every node of it
//! chooses alike, but for ways that cost nearly the same.
//!
//! Source: NETWORK.md, "Ways to other islands".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::routes::RouteWords;
use super::shares::Bringer;
use crate::event::EventKind;
use crate::island::room::{Offer, left_out};
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
    /// Those that there was no room for when ways were last chosen.
    left_out: BTreeSet<String>,
    /// How many there have been.
    left_out_total: u64,
    /// Who has brought a member of one more and was refused, since anything changed here: so are others of the same bridge,
    /// whatever they are called. A flood of them costs no more than one look at all islands.
    full_for: BTreeSet<Bringer>,
    changed: bool,
}

/// What has come of choosing anew.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// What has happened to islands.
    pub(super) told: Vec<(EventKind, Arc<Island>)>,
    /// Those that are known no more: there was no room.
    pub(super) displaced: Vec<Arc<Island>>,
}

#[derive(Debug)]
struct State {
    chosen: Option<(MemberId, Path)>,
    /// Who brought it, and by which way: as it was last reached, else as its first member was brought.
    brought: (Bringer, Vec<String>),
    /// Without a way since a moment ago: given up then.
    doubted_until: Option<Instant>,
    view: Arc<Island>,
}

impl State {
    fn new(name: String, now: Instant, from: Bringer) -> Self {
        let load = IslandLoad::default();
        let view = Arc::new(Island { name, reachable: false, since: now, load, ways: Vec::new() });
        Self { chosen: None, brought: (from, Vec::new()), doubted_until: None, view }
    }

    /// Who brings it: as these ways say, or as it was brought if there are none.
    fn offers<'a>(&'a self, ways: &'a [Way]) -> impl Iterator<Item = Offer<'a, Bringer>> {
        let (by, path) = &self.brought;
        let brought = Offer { by: *by, path, island: &self.view.name };
        offers(ways).chain(ways.is_empty().then_some(brought))
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
        if let Some((bridge, path)) = &self.chosen {
            self.brought = (Some(*bridge), path.islands().to_vec());
        }
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

fn offers(ways: &[Way]) -> impl Iterator<Item = Offer<'_, Bringer>> {
    ways.iter().map(|way| Offer::of(Some(way.bridge), &way.reach.path))
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

    /// How often an island that a way leads to was left out, because there was no room for it.
    pub(super) fn left_out_total(&self) -> u64 {
        self.left_out_total
    }

    /// Whether ways are to be chosen anew: there was no room for all, and now there is for one more.
    pub(super) fn has_room_again(&self) -> bool {
        !self.left_out.is_empty() && self.known.len() < ISLANDS_MAX
    }

    /// Makes an island known that `from` has brought a member of. Where there are too many, others make room: as for
    /// [`choose`](Self::choose). Gives those.
    ///
    /// # Errors
    /// `Full`: it would have to make room itself.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        name: &str,
        from: Bringer,
        is_empty: impl Fn(&str) -> bool,
    ) -> Result<Vec<Arc<Island>>, Refused> {
        if self.known.contains_key(name) {
            return Ok(Vec::new());
        }
        // The first: a way leads there, and whoever says so brings too many.
        let is_refused = self.left_out.contains(name) || self.full_for.contains(&from);
        if is_refused && self.known.len() >= ISLANDS_MAX {
            return Err(Refused::Full);
        }
        let displaced = self.make_room(name, from, is_empty)?;
        self.left_out_total += displaced.len() as u64;
        self.known.insert(name.to_owned(), State::new(name.to_owned(), now, from));
        self.changed = true;
        self.full_for.clear();
        Ok(displaced)
    }

    fn make_room(
        &mut self,
        name: &str,
        from: Bringer,
        is_empty: impl Fn(&str) -> bool,
    ) -> Result<Vec<Arc<Island>>, Refused> {
        self.drop_useless(1, is_empty);
        if self.known.len() < ISLANDS_MAX {
            return Ok(Vec::new());
        }
        let new = [Offer { by: from, path: &[], island: name }];
        let known = self.known.values().flat_map(|state| state.offers(&state.view.ways));
        let left = self.without_room(known.chain(new).collect());
        if left.contains(name) {
            self.full_for.insert(from);
            return Err(Refused::Full);
        }
        Ok(self.displace(&left))
    }

    /// A known island has no members any more, so there may be room.
    pub(super) fn is_emptied(&mut self) {
        self.full_for.clear();
    }

    /// If there is no room for so many more: drops those that cannot be reached and have no members, as `is_empty` says.
    fn drop_useless(&mut self, more: usize, is_empty: impl Fn(&str) -> bool) {
        let count = self.known.len();
        if count + more > ISLANDS_MAX {
            self.known.retain(|name, state| state.view.reachable || !is_empty(name));
            self.changed |= self.known.len() != count;
        }
    }

    /// Which of those that are offered there is no room for.
    fn without_room(&self, offers: Vec<Offer<'_, Bringer>>) -> BTreeSet<String> {
        let left = left_out(offers, ISLANDS_MAX, |island| self.known.contains_key(island));
        left.into_iter().map(str::to_owned).collect()
    }

    /// Takes those out, and gives them as they were.
    fn displace(&mut self, left: &BTreeSet<String>) -> Vec<Arc<Island>> {
        let gone: Vec<_> = left.iter().filter_map(|name| self.known.remove(name)).collect();
        self.changed |= !gone.is_empty();
        gone.into_iter().map(|state| state.view).collect()
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
        self.full_for.clear();
        removed
    }

    /// Chooses anew, by the ROUTES words of these bridges. Where there are too many islands those go that cannot be reached
    /// and have no members, as `is_empty` says; then whoever has brought most makes room.
    pub(super) fn choose(
        &mut self,
        now: Instant,
        own: &str,
        bridges: &[MemberId],
        routes: &RouteWords,
        is_empty: impl Fn(&str) -> bool,
    ) -> Chosen {
        let mut ways: BTreeMap<&str, Vec<Way>> = BTreeMap::new();
        for bridge in bridges {
            for reach in routes.reaches(bridge).filter(|reach| !reach.path.contains(own)) {
                let way = Way { bridge: *bridge, reach: reach.clone() };
                ways.entry(reach.path.destination()).or_default().push(way);
            }
        }
        self.full_for.clear();
        let is_new = |name: &&&str| !self.known.contains_key(**name);
        self.drop_useless(ways.keys().filter(is_new).count(), |name| {
            is_empty(name) && !ways.contains_key(name)
        });
        let without_way = self.known.iter().filter(|(name, _)| !ways.contains_key(name.as_str()));
        let offered = ways.values().flat_map(|ways| offers(ways));
        let offered = offered.chain(without_way.flat_map(|(_, state)| state.offers(&[])));
        let left = self.without_room(offered.collect());
        let displaced = self.displace(&left);
        ways.retain(|name, _| !left.contains(*name));
        self.note_left_out(left);
        for (name, ways) in &ways {
            if let Some(first) = ways.first().filter(|_| !self.known.contains_key(*name)) {
                self.known
                    .insert((*name).to_owned(), State::new((*name).to_owned(), now, Some(first.bridge)));
                self.changed = true;
            }
        }
        let mut told = Vec::new();
        for (name, state) in &mut self.known {
            let before = state.view.clone();
            let kind = state.take(now, ways.remove(name.as_str()).unwrap_or_default());
            self.changed |= !Arc::ptr_eq(&before, &state.view);
            told.extend(kind.map(|kind| (kind, state.view.clone())));
        }
        Chosen { told, displaced }
    }

    fn note_left_out(&mut self, left: BTreeSet<String>) {
        self.left_out_total += left.difference(&self.left_out).count() as u64;
        self.left_out = left;
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
