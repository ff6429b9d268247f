//! Which island we count ourselves to, and whose words are another island's.
//!
//! A name that was given is kept. Whoever was given none takes over one that it hears, and a bridge makes one meanwhile, so
//! that its links have something to say: such a name yields to a given one and to a smaller one of its kind.
//!
//! Source: NETWORK.md, "Whose words count".

use std::time::{Duration, Instant};

use super::Membership;
use crate::island::{is_like_made, made_by};
use crate::member::{MemberId, Record};
use crate::verify::Refused;

/// Name of the island of nodes that were given none and hear none.
pub(super) const UNNAMED: &str = "local";
/// Whoever counts itself to an island whose made name yields to ours has this long to follow before it is of another
/// island. Several copies of the word that it waits for. Guessed.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(5);

impl Membership {
    /// Nodes of another given island on the same wire are none of our business.
    pub(super) fn check_island(&self, id: &MemberId, record: &Record) -> Result<(), Refused> {
        let known = self.table.get(id).is_some_and(|entry| entry.record.is_some());
        // A member that took another name is no longer ours, but it must be seen to go.
        if self.is_home_island(*id, record)
            || !self.is_firm()
            || (!record.island_given && record.island == UNNAMED)
            || known
        {
            Ok(())
        } else {
            Err(Refused::Island)
        }
    }

    /// Whether a record that is heard on the wire is of our island, or of one whose name is to be ours.
    pub(super) fn is_home_island(&self, id: MemberId, record: &Record) -> bool {
        record.island == self.record.island
            || record.island_given && self.is_better_island(id, &record.island)
    }

    /// Whether we have a name that was given, to us or to whom we have it from.
    pub(super) fn is_firm(&self) -> bool {
        self.island_given.is_some() || self.island_from.is_some()
    }

    /// Whether the name that `id` gives is rather to be ours than the one we have.
    pub(super) fn is_better_island(&self, id: MemberId, name: &str) -> bool {
        let ours = &self.record.island;
        match (&self.island_given, self.island_from, &self.island_made) {
            (Some(_), _, _) => false,
            (None, None, None) => true,
            (None, Some(from), _) if made_by(from) != *ours => false,
            _ => made_by(id) != name || name < ours.as_str(),
        }
    }

    /// Whether this listed member counts itself to another island than we do, and neither of us is about to follow the other.
    pub(super) fn has_moved_away(&self, now: Instant, id: &MemberId) -> bool {
        if !self.is_firm() {
            return false;
        }
        let ours = &self.record;
        let record = self.table.record(id).map(|said| &said.value);
        let Some(theirs) = record.filter(|theirs| theirs.island != ours.island && theirs.island != UNNAMED)
        else {
            return false;
        };
        let follows = yields(theirs, *id, &ours.island) || yields(ours, self.id(), &theirs.island);
        // We part when either of us takes another name, however long ago the other has said its own.
        let parted = self.peers.get(id).map(|peer| peer.recorded.max(self.named));
        let has_time = parted.is_some_and(|at| now.saturating_duration_since(at) < FOLLOWS_WITHIN);
        !(follows && has_time)
    }

    /// A record has come: perhaps it brings us a name, or its owner has moved to another island.
    pub(super) fn consider_island(&mut self, now: Instant, id: MemberId, directly: bool) {
        if self.island_given.is_some() {
            return;
        }
        let Some(record) = self.table.record(&id).map(|r| r.value.clone()) else {
            return;
        };
        if directly && record.island_given && self.is_better_island(id, &record.island) {
            self.take_island(now, &record.island, Some(id));
        } else if self.island_from == Some(id)
            && (!record.island_given || record.island != self.record.island)
        {
            let follows = is_like_made(&self.record.island) && record.island != UNNAMED;
            self.choose_island(now, follows.then_some(&record.island));
        }
    }

    /// A member was heard whose record may have come from others.
    pub(super) fn consider_name_of(&mut self, now: Instant, id: MemberId) {
        let record = self.table.record(&id).map(|said| &said.value);
        let is_another = record.is_some_and(|theirs| {
            theirs.island_given
                && theirs.island != self.record.island
                && self.is_better_island(id, &theirs.island)
        });
        if is_another {
            self.consider_island(now, id, true);
        }
    }

    /// An offer names its author's island: the same, sooner.
    pub(super) fn consider_offered_island(&mut self, now: Instant, id: MemberId, name: &str, given: bool) {
        if given && self.is_better_island(id, name) {
            self.take_island(now, name, Some(id));
        }
    }

    /// Whoever brought our name may be gone: somebody else of that name keeps it for us, or another name is heard.
    pub(super) fn reconsider_island(&mut self, now: Instant) {
        let listed =
            self.island_from.is_some_and(|id| self.table.get(&id).is_some_and(|e| e.record.is_some()));
        if self.island_given.is_none() && !listed {
            self.choose_island(now, None);
        }
    }

    /// Chooses a name anew. `followed`: what whoever brought ours goes by now that it has another from somebody else; we may
    /// not hear that one, and stay with whom we know.
    fn choose_island(&mut self, now: Instant, followed: Option<&String>) {
        let ours = followed.unwrap_or(&self.record.island).clone();
        let named = self.table.iter().filter_map(|(id, entry)| {
            let record = &entry.record.as_ref()?.value;
            let usable = entry.proven && !entry.has_left() && record.island_given;
            usable.then(|| {
                (record.island != ours, made_by(*id) == record.island, record.island.clone(), Some(*id))
            })
        });
        let made = self.island_made.iter().map(|made| (*made != ours, true, made.clone(), None));
        let best = named.chain(made).min();
        let has_ours = best.as_ref().is_some_and(|(is_other, ..)| !is_other);
        match (best, self.island_from) {
            (_, Some(from)) if followed.is_some() && !has_ours => self.take_island(now, &ours, Some(from)),
            (Some((_, _, name, from)), _) => self.take_island(now, &name, from),
            (None, _) => self.take_island(now, UNNAMED, None),
        }
    }

    /// Our networks are others now: a name that was heard there is heard no more.
    pub(super) fn networks_changed(&mut self, now: Instant) {
        if self.island_given.is_none() && self.island_from.take().is_some() {
            self.choose_island(now, None);
        }
    }

    fn take_island(&mut self, now: Instant, name: &str, from: Option<MemberId>) {
        self.island_from = from;
        let before = self.record.clone();
        name.clone_into(&mut self.record.island);
        self.record.island_given = from.is_none() && self.island_made.is_some();
        if before.island != name {
            self.named = now;
        }
        self.drop_emigrants(now);
        if before.island != name {
            self.is_called(now, name);
        }
        self.say_if_changed(now, &before);
    }

    /// Takes out whoever counts itself to another island and will not follow us any more.
    pub(super) fn drop_emigrants(&mut self, now: Instant) {
        let away: Vec<MemberId> =
            self.peers.keys().filter(|id| self.has_moved_away(now, id)).copied().collect();
        for id in away {
            self.table.remove(&id);
            self.tell_withdrawn(now, id);
        }
    }
}

/// Whether the owner of this record counts itself to an island whose name yields to `ours`: it, or whoever brought it that
/// name, has only to hear ours.
fn yields(record: &Record, id: MemberId, ours: &str) -> bool {
    let is_made =
        if record.island_given { made_by(id) == record.island } else { is_like_made(&record.island) };
    is_made && (!is_like_made(ours) || ours < record.island.as_str())
}
