//! Which islands there is room for, where more are told of than are kept.
//!
//! Nobody can tell an island that is far away from one that is made up. So room is shared: among those who bring islands
//! first, then, where a share is too small for what was brought, among the islands next on the way, and so on to the end of it.
//! What one brings keeps out nothing that others bring, as long as those bring less than their share.
//!
//! This is pure: it keeps nothing, and depends on no order of what it is given.
//!
//! Source: NETWORK.md, "Room".

use std::collections::{BTreeMap, BTreeSet};

use crate::path::Path;

/// That somebody brings an island. Of one island there may be many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer<'a, B> {
    /// Who brings it.
    pub by: B,
    /// The islands on the way to it, the nearest first; none if no way is known.
    pub path: &'a [String],
    /// Its name.
    pub island: &'a str,
}

impl<'a, B> Offer<'a, B> {
    /// Of the island that this way leads to.
    #[must_use]
    pub fn of(by: B, path: &'a Path) -> Self {
        Self { by, path: path.islands(), island: path.destination() }
    }
}

/// Whose share an island is in, at some depth: at first that of somebody, then that of the island next on the way; of none
/// where the way has ended.
type Key<'a, B> = (Option<B>, Option<&'a str>);

/// The islands that there is no room for, if `room` are kept; none where fewer are brought.
///
/// Of a share that is too small those stay that are known. An island that several bring is in the share of the one that
/// brings fewest: nobody loses an island because somebody who brings more names it, too.
///
/// Cost: O(offers x longest way x log offers), and nothing but counting where there is room for all.
pub fn left_out<'a, B: Copy + Ord>(
    offers: Vec<Offer<'a, B>>,
    room: usize,
    is_known: impl Fn(&str) -> bool,
) -> BTreeSet<&'a str> {
    let mut left = islands(&offers);
    if left.len() <= room {
        return BTreeSet::new();
    }
    let mut kept = BTreeSet::new();
    keep(offers, room, 0, &is_known, &mut kept);
    left.retain(|island| !kept.contains(island));
    left
}

/// Keeps `room` of them at most; `depth`: 0 to share among those who bring them, else which island on the way counts.
fn keep<'a, B: Copy + Ord>(
    offers: Vec<Offer<'a, B>>,
    room: usize,
    depth: usize,
    is_known: &impl Fn(&str) -> bool,
    kept: &mut BTreeSet<&'a str>,
) {
    let all = islands(&offers);
    if all.len() <= room {
        kept.extend(all);
        return;
    }
    // There is nothing more to tell them apart by.
    if depth > 0 && offers.iter().all(|offer| offer.path.len() < depth) {
        let (known, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|island| is_known(island));
        kept.extend(known.into_iter().chain(others).take(room));
        return;
    }
    let mut shares: BTreeMap<Key<'a, B>, Vec<Offer<'a, B>>> = BTreeMap::new();
    for offer in offers {
        let key = match depth {
            0 => (Some(offer.by), None),
            _ => (None, offer.path.get(depth - 1).map(String::as_str)),
        };
        shares.entry(key).or_default().push(offer);
    }
    if shares.len() == 1 {
        let offers = shares.into_values().flatten().collect();
        return keep(offers, room, depth + 1, is_known, kept);
    }
    let mut owners: BTreeMap<&str, (usize, Key<'a, B>)> = BTreeMap::new();
    for (key, share) in &shares {
        let all = islands(share);
        for island in &all {
            let owner = owners.entry(island).or_insert((all.len(), *key));
            *owner = (*owner).min((all.len(), *key));
        }
    }
    for (key, share) in &mut shares {
        share.retain(|offer| owners.get(offer.island).is_some_and(|(_, owner)| owner == key));
    }
    let mut shares: Vec<(Vec<Offer<'a, B>>, usize)> = shares
        .into_values()
        .map(|share| (islands(&share).len(), share))
        .map(|(size, share)| (share, size))
        .collect();
    // If there is less room than shares, what is known stays.
    shares.sort_by_key(|(share, _)| !share.iter().any(|offer| is_known(offer.island)));
    let sizes: Vec<usize> = shares.iter().map(|(_, size)| *size).collect();
    for ((share, _), room) in shares.into_iter().zip(divide(&sizes, room)) {
        keep(share, room, depth + 1, is_known, kept);
    }
}

fn islands<'a, B>(offers: &[Offer<'a, B>]) -> BTreeSet<&'a str> {
    offers.iter().map(|offer| offer.island).collect()
}

/// Gives each what it wants, one after the other in turn, until there is no more.
fn divide(wanted: &[usize], mut room: usize) -> Vec<usize> {
    let mut given = vec![0; wanted.len()];
    while room > 0 && given != wanted {
        for (given, wanted) in given.iter_mut().zip(wanted) {
            if room > 0 && *given < *wanted {
                *given += 1;
                room -= 1;
            }
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Who brings it, and the way to it.
    type Way = (u8, Vec<String>);

    fn way(by: u8, path: &str) -> Way {
        (by, path.split_whitespace().map(str::to_owned).collect())
    }

    fn many(by: u8, before: &str, names: &str, count: usize) -> Vec<Way> {
        (0..count).map(|number| way(by, &format!("{before} {names}{number}"))).collect()
    }

    fn left<'a>(ways: &'a [Way], room: usize, known: &BTreeSet<&str>) -> BTreeSet<&'a str> {
        let offers = ways.iter().map(|(by, path)| Offer { by: *by, path, island: path.last().unwrap() });
        left_out(offers.collect(), room, |island| known.contains(island))
    }

    fn names(ways: &[Way]) -> BTreeSet<&str> {
        ways.iter().map(|(_, path)| path.last().unwrap().as_str()).collect()
    }

    #[test]
    fn where_there_is_room_nothing_is_left_out() {
        let ways = many(1, "a", "x", 20);
        assert!(left(&ways, 20, &BTreeSet::new()).is_empty());
        assert_eq!(left(&ways, 19, &BTreeSet::new()), BTreeSet::from(["x9"]));
    }

    #[test]
    fn who_brings_most_loses_first_whatever_names_it_makes_up() {
        for names in ["a", "z"] {
            let honest = [many(1, "m", "m", 10), many(2, "n", "n", 3)].concat();
            let ways = [honest.clone(), many(3, "l", names, 200)].concat();
            let left = left(&ways, 30, &BTreeSet::new());
            assert_eq!(left.len(), 200 + 13 - 30);
            assert!(honest.iter().all(|(_, path)| !left.contains(path.last().unwrap().as_str())));
        }
    }

    #[test]
    fn what_others_bring_is_not_lost_because_a_liar_names_it_too() {
        let honest = many(1, "m", "x", 10);
        let ways = [honest.clone(), many(2, "l", "x", 10), many(2, "l", "a", 200)].concat();
        let left = left(&ways, 20, &BTreeSet::new());
        assert!(left.iter().all(|island| island.starts_with('a')), "{left:?}");
        assert_eq!(left.len(), 190);
    }

    #[test]
    fn behind_one_neighbour_the_islands_next_on_the_way_share_what_it_has() {
        let honest = [many(1, "m good", "g", 10), many(1, "m good far", "h", 4)].concat();
        let ways = [honest, many(1, "m bad", "a", 200)].concat();
        let left = left(&ways, 40, &BTreeSet::new());
        assert!(left.iter().all(|island| island.starts_with('a')), "{left:?}");
    }

    #[test]
    fn what_is_known_stays_where_a_share_is_too_small() {
        let known = many(1, "m", "old", 10);
        let ways = [known.clone(), many(1, "m", "new", 10)].concat();
        assert_eq!(left(&ways, 10, &names(&known)), names(&many(1, "m", "new", 10)));
    }

    fn ways() -> impl Strategy<Value = Vec<Way>> {
        let path = proptest::sample::subsequence((0..12).collect::<Vec<u8>>(), 1..5).prop_shuffle();
        let way = (0..4u8, path).prop_map(|(by, path)| (by, path.iter().map(u8::to_string).collect()));
        proptest::collection::vec(way, 0..60)
    }

    proptest! {
        #[test]
        fn whoever_brings_no_more_than_its_share_loses_nothing(ways in ways(), room in 0..14usize) {
            let left = left(&ways, room, &BTreeSet::new());
            prop_assert_eq!(left.len(), names(&ways).len().saturating_sub(room));
            let bringers: BTreeSet<u8> = ways.iter().map(|(by, _)| *by).collect();
            for bringer in &bringers {
                let own: Vec<Way> = ways.iter().filter(|(by, _)| by == bringer).cloned().collect();
                if names(&own).len() <= room / bringers.len() {
                    prop_assert!(names(&own).is_disjoint(&left), "{bringer}");
                }
            }
        }

        #[test]
        fn nothing_takes_turns(ways in ways(), room in 0..14usize, known in proptest::collection::btree_set(0..12u8, 0..12)) {
            let known: BTreeSet<String> = known.iter().map(u8::to_string).collect();
            let mut kept: BTreeSet<&str> = known.iter().map(String::as_str).collect();
            let mut seen = Vec::new();
            for _ in 0..4 {
                let left = left(&ways, room, &kept);
                kept = names(&ways).difference(&left).copied().collect();
                seen.push(kept.clone());
            }
            prop_assert_eq!(&seen[2], &seen[3]);
        }
    }
}
