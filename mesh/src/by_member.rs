//! Maps from members to what is kept of them: looked up many times for each of a thousand datagrams a second.
//!
//! In the order of insertion, so that a seed replays everything. Who chooses keys does not know the hasher's seed.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::quality::FixedState;
use indexmap::IndexMap;

use crate::member::MemberId;

/// Places remembered: so many for each member, and at least so many.
const GUESSES_EACH: usize = 4;
const GUESSES_MIN: usize = 64;
/// Members whose keys begin alike share so many of them: of members at random one in fifty, at the most, shares with more. They
/// push each other out in turn, so with two it was one in eleven.
const SHARED: usize = 4;
/// Room is made for so large a part of those that are there, and so many.
const GROWTH: usize = 4;
const GROWTH_MIN: usize = 8;
/// Beside the place, what tells one of them from another: the rest of a guess is of the key.
const PLACE_BITS: u32 = 24;
const PLACE_MAX: u32 = (1 << PLACE_BITS) - 1;

/// A map by member. What is done with one word asks for its author again and again, and for our watchers besides, so where
/// members were found is remembered: that costs a comparison of keys and no hash, and in a large table, of which little is in the
/// processor's cache, one wait for memory less.
#[derive(Debug)]
pub(crate) struct ByMember<V> {
    map: IndexMap<MemberId, V, FixedState>,
    /// Where the last members whose keys begin alike were found. Only guesses: any number does no harm.
    guesses: Box<[[AtomicU32; SHARED]]>,
}

fn guesses(count: usize) -> Box<[[AtomicU32; SHARED]]> {
    std::iter::repeat_with(Default::default).take(count).collect()
}

/// An empty one.
pub(crate) fn by_member<V>(seed: u64) -> ByMember<V> {
    ByMember {
        map: IndexMap::with_hasher(FixedState::with_seed(seed)),
        guesses: guesses(GUESSES_MIN / SHARED),
    }
}

impl<V> ByMember<V> {
    /// Its place in the order, if it is there.
    #[inline]
    pub(crate) fn place_of(&self, id: &MemberId) -> Option<usize> {
        let guess = self.guess(id) as usize;
        if self.map.get_index(guess).is_some_and(|(found, _)| found == id) {
            return Some(guess);
        }
        let place = self.map.get_index_of(id)?;
        self.look_first_at(id, place);
        Some(place)
    }

    /// Where this one probably is, if it is there.
    #[inline]
    pub(crate) fn guess(&self, id: &MemberId) -> u32 {
        let (guesses, tag) = self.guesses_of(id);
        let guesses = guesses.each_ref().map(|guess| guess.load(Ordering::Relaxed));
        // No branch: which of them it is nobody can foresee.
        let tagged = |found, guess| if guess >> PLACE_BITS == tag { guess } else { found };
        guesses.into_iter().rev().fold(0, tagged) & PLACE_MAX
    }

    /// What is at a place that was guessed.
    #[inline]
    pub(crate) fn at(&self, guess: u32) -> Option<(&MemberId, &V)> {
        self.map.get_index(guess as usize)
    }

    /// Where guesses about it are, and how they begin.
    #[inline]
    fn guesses_of(&self, id: &MemberId) -> (&[AtomicU32; SHARED], u32) {
        let [first, second, third, fourth, tag, ..] = id.0;
        let start = u32::from_ne_bytes([first, second, third, fourth]) as usize;
        // Their number is a power of two.
        (&self.guesses[start & (self.guesses.len() - 1)], u32::from(tag))
    }

    #[inline]
    fn look_first_at(&self, id: &MemberId, place: usize) {
        let Some(place) = u32::try_from(place).ok().filter(|place| *place <= PLACE_MAX) else { return };
        let (guesses, tag) = self.guesses_of(id);
        let mut pushed = tag << PLACE_BITS | place;
        for guess in guesses {
            let out = guess.load(Ordering::Relaxed);
            guess.store(pushed, Ordering::Relaxed);
            if out >> PLACE_BITS == tag {
                return;
            }
            pushed = out;
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
        let place = self.place_of(&id).unwrap_or_else(|| self.put(id, value()).0);
        &mut self.map[place]
    }

    pub(crate) fn insert(&mut self, id: MemberId, value: V) -> Option<V> {
        self.put(id, value).1
    }

    fn put(&mut self, id: MemberId, value: V) -> (usize, Option<V>) {
        if self.map.len() == self.map.capacity() {
            // A member takes half a kilobyte: twice as many places as there are would be the better part of a table.
            self.map.reserve_exact(self.map.len() / GROWTH + GROWTH_MIN);
        }
        let (place, old) = self.map.insert_full(id, value);
        if self.map.len() * GUESSES_EACH > self.guesses.len() * SHARED {
            self.guesses = guesses(2 * self.guesses.len());
            for (place, id) in self.map.keys().enumerate() {
                self.look_first_at(id, place);
            }
        } else {
            self.look_first_at(&id, place);
        }
        (place, old)
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
        // The guesses of these share four places, and the first and the last have one tag.
        let mut like_two = id(2);
        like_two.0[31] = 0;
        let alike = [(id(2), 2), (id(66), 66), (id(34), 34), (id(18), 18), (id(50), 50), (like_two, 200)];
        for (key, value) in alike {
            assert_eq!(map.get(&key), None);
            assert_eq!(map.insert(key, value), None);
        }
        for (key, value) in alike.iter().chain(&alike) {
            assert_eq!(map.get(key), Some(value));
        }
    }

    #[test]
    fn all_are_found_where_they_are_guessed_as_the_map_grows() {
        let mut map = by_member(7);
        let id = |number: u32| MemberId(*blake3::hash(&number.to_ne_bytes()).as_bytes());
        for number in 0..1_000 {
            map.insert(id(number), number);
            let guessed = map.at(map.guess(&id(number)));
            assert_eq!(guessed, Some((&id(number), &number)));
        }
        let guessed =
            (0..1_000).filter(|number| map.at(map.guess(&id(*number))) == Some((&id(*number), number)));
        assert!(guessed.count() > 970);
        assert!((0..1_000).all(|number| map.get(&id(number)) == Some(&number)));
    }
}
