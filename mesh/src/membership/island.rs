//! Which island we count ourselves to, and whose words are another island's.

use std::time::Instant;

use super::Membership;
use crate::member::{MemberId, Record};
use crate::verify::Refused;

/// Name of the island of nodes that were given none and hear none.
pub(super) const UNNAMED: &str = "local";

impl Membership {
    /// Nodes of another given island on the same wire are none of our business.
    pub(super) fn check_island(&self, id: &MemberId, record: &Record) -> Result<(), Refused> {
        let ours = &self.record.island;
        let ours_is_given = self.island_given.is_some() || self.island_from.is_some();
        let known = self.table.get(id).is_some_and(|entry| entry.record.is_some());
        // A member that took another name is no longer ours, but it must be seen to go.
        if record.island == *ours
            || !ours_is_given
            || (!record.island_given && record.island == UNNAMED)
            || known
        {
            Ok(())
        } else {
            Err(Refused::Island)
        }
    }

    /// Whether this listed member counts itself to another island than we do.
    pub(super) fn has_moved_away(&self, id: &MemberId) -> bool {
        let ours = &self.record.island;
        let record = self.table.get(id).and_then(|entry| entry.record.as_ref()).map(|said| &said.value);
        *ours != UNNAMED && record.is_some_and(|theirs| theirs.island != *ours && theirs.island != UNNAMED)
    }

    /// A record has come: perhaps it brings us a name, or its owner has moved to another island.
    pub(super) fn consider_island(&mut self, now: Instant, id: MemberId, directly: bool) {
        let Some(record) =
            self.table.get(&id).and_then(|entry| entry.record.as_ref()).map(|r| r.value.clone())
        else {
            return;
        };
        if directly && record.island_given && self.island_given.is_none() && self.island_from.is_none() {
            self.take_island(now, &record.island, Some(id));
        } else if self.island_from == Some(id)
            && (!record.island_given || record.island != self.record.island)
        {
            self.island_from = None;
            self.reconsider_island(now);
        }
    }

    /// An offer names its author's island: the same, sooner.
    pub(super) fn consider_offered_island(&mut self, now: Instant, id: MemberId, name: &str, given: bool) {
        if given && self.island_given.is_none() && self.island_from.is_none() {
            self.take_island(now, name, Some(id));
        }
    }

    /// Whoever brought our name may be gone: somebody else of that name keeps it for us, or another name is heard.
    pub(super) fn reconsider_island(&mut self, now: Instant) {
        if self.island_given.is_some() {
            return;
        }
        let listed =
            self.island_from.is_some_and(|id| self.table.get(&id).is_some_and(|e| e.record.is_some()));
        if listed {
            return;
        }
        let ours = self.record.island.clone();
        let named = self.table.iter().filter_map(|(id, entry)| {
            let record = &entry.record.as_ref()?.value;
            let usable = entry.proven && !entry.has_left() && record.island_given;
            usable.then(|| (record.island != ours, record.island.clone(), *id))
        });
        match named.min() {
            Some((_, name, id)) => self.take_island(now, &name, Some(id)),
            None => self.take_island(now, UNNAMED, None),
        }
    }

    /// Our networks are others now: a name that was heard there is heard no more.
    pub(super) fn networks_changed(&mut self, now: Instant) {
        if self.island_given.is_none() && self.island_from.take().is_some() {
            self.reconsider_island(now);
        }
    }

    fn take_island(&mut self, now: Instant, name: &str, from: Option<MemberId>) {
        self.island_from = from;
        let before = self.record.clone();
        name.clone_into(&mut self.record.island);
        let away: Vec<MemberId> = self.peers.keys().filter(|id| self.has_moved_away(id)).copied().collect();
        for id in away {
            self.table.remove(&id);
            self.tell_withdrawn(now, id);
        }
        if before.island != name {
            self.is_called(now, name);
        }
        self.say_if_changed(now, &before);
    }
}
