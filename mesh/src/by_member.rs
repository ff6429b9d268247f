//! Maps from members to what is kept of them: looked up many times for each of a thousand datagrams a second.
//!
//! In the order of insertion, so that a seed replays everything. Who chooses keys does not know the hasher's seed.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::quality::FixedState;
use indexmap::IndexMap;

use crate::member::MemberId;

/// Places remembered; a power of two.
const GUESSES: usize = 64;

/// A map by member. What is done with one word asks for its author again and again, and for our watchers besides, so where some
/// members were found is remembered: that costs a comparison of keys and no hash.
#[derive(Debug)]
pub(crate) struct ByMember<V> {
    map: IndexMap<MemberId, V, FixedState>,
    /// Where the last member whose key begins alike was found. Only guesses: any number does no harm.
    guesses: [AtomicU32; GUESSES],
}

/// An empty one.
pub(crate) fn by_member<V>(seed: u64) -> ByMember<V> {
    ByMember {
        map: IndexMap::with_hasher(FixedState::with_seed(seed)),
        guesses: [const { AtomicU32::new(0) }; GUESSES],
    }
}

impl<V> ByMember<V> {
    /// Its place in the order, if it is there.
    #[inline]
    pub(crate) fn place_of(&self, id: &MemberId) -> Option<usize> {
        let guess = self.guess_of(id).load(Ordering::Relaxed) as usize;
        if self.map.get_index(guess).is_some_and(|(found, _)| found == id) {
            return Some(guess);
        }
        let place = self.map.get_index_of(id)?;
        self.look_first_at(id, place);
        Some(place)
    }

    #[inline]
    fn guess_of(&self, id: &MemberId) -> &AtomicU32 {
        &self.guesses[usize::from(id.0[0]) % GUESSES]
    }

    /// Looks at what is kept of all of these, so that it comes from memory with one wait for all and not one for each.
    pub(crate) fn touch<'a>(&self, ids: impl Iterator<Item = &'a MemberId>, look: impl Fn(&V) -> bool) {
        let found = ids.filter_map(|id| {
            let (place, _, value) = self.map.get_full(id)?;
            self.look_first_at(id, place);
            Some(value)
        });
        std::hint::black_box(found.filter(|value| look(value)).count());
    }

    /// Where this one probably is: maps that are filled in the same order have a member at the same place.
    #[inline]
    pub(crate) fn look_first_at(&self, id: &MemberId, place: usize) {
        if let Ok(place) = u32::try_from(place) {
            self.guess_of(id).store(place, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn get(&self, id: &MemberId) -> Option<&V> {
        self.map.get_index(self.place_of(id)?).map(|(_, value)| value)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: &MemberId) -> Option<&mut V> {
        let place = self.place_of(id)?;
        self.map.get_index_mut(place).map(|(_, value)| value)
    }

    #[inline]
    pub(crate) fn contains_key(&self, id: &MemberId) -> bool {
        self.place_of(id).is_some()
    }

    pub(crate) fn get_or_insert_with(&mut self, id: MemberId, value: impl FnOnce() -> V) -> &mut V {
        let place = self.place_of(&id).unwrap_or_else(|| self.map.insert_full(id, value()).0);
        &mut self.map[place]
    }

    pub(crate) fn insert(&mut self, id: MemberId, value: V) -> Option<V> {
        self.map.insert(id, value)
    }

    pub(crate) fn swap_remove(&mut self, id: &MemberId) -> Option<V> {
        self.map.swap_remove(id)
    }
}

/// For all that only reads it as a whole.
impl<V> Deref for ByMember<V> {
    type Target = IndexMap<MemberId, V, FixedState>;

    fn deref(&self) -> &Self::Target {
        &self.map
    }
}

impl<'a, V> IntoIterator for &'a ByMember<V> {
    type Item = (&'a MemberId, &'a V);
    type IntoIter = indexmap::map::Iter<'a, MemberId, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.map.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_remembered_is_no_more_than_a_guess() {
        let id = |number: u8| MemberId([number; 32]);
        let mut map = by_member(7);
        for number in 0..3 {
            *map.get_or_insert_with(id(number), || 0) += number;
        }
        assert_eq!((map.get(&id(2)), map.get(&id(3))), (Some(&2), None));
        assert_eq!(map.swap_remove(&id(2)), Some(2));
        assert_eq!((map.get(&id(2)), map.get(&id(1))), (None, Some(&1)));
        assert_eq!(map.swap_remove(&id(0)), Some(0));
        assert_eq!((map.get(&id(1)), map.get(&id(0))), (Some(&1), None));
        assert_eq!(map.get_mut(&id(1)), Some(&mut 1));
        assert!(!map.contains_key(&id(2)));
        // The guesses of these two share a place.
        map.insert(id(66), 66);
        assert_eq!((map.get(&id(66)), map.get(&id(2))), (Some(&66), None));
        map.insert(id(2), 2);
        map.touch([id(66), id(2)].iter(), |_| true);
        assert_eq!((map.get(&id(66)), map.get(&id(2))), (Some(&66), Some(&2)));
    }
}
