//! The laws of merging, of floors and of caps.

#![expect(clippy::disallowed_methods, reason = "a test starts its virtual time somewhere")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::identity::Identity;
use crate::member::{Epoch, Seq};
use crate::verify::verify;
use crate::wire::{Farewell, MeshTag};

fn word(author: u64, epoch: u32, seq: u64, message: &Message) -> Verified<Word> {
    let mut identity = Identity::for_test(author);
    if epoch > 1 {
        identity.raise_epoch_above(Epoch(epoch - 1)).unwrap();
    }
    let tag = MeshTag::of("isle");
    verify(tag, identity.sign_word(tag, message, Seq(seq))).unwrap()
}

fn announce(author: u64, epoch: u32, seq: u64, name: &str) -> Verified<Word> {
    let record = Record {
        name: name.into(),
        roles: Vec::new(),
        addresses: Vec::new(),
        http_port: 0,
        unicast_port: 1,
        island: "local".into(),
        island_given: false,
        draining: false,
        catalogue: None,
        watchers: Vec::new(),
        protocol: (1, 1),
        version: String::new(),
        tags: Vec::new(),
    };
    word(author, epoch, seq, &Message::Announce(record.into()))
}

fn beacon(author: u64, epoch: u32, seq: u64) -> Verified<Word> {
    let load = Load::default();
    let beacon = Beacon { record_seq: Seq(1), load, full: false, deaf: false, digest: 0, far: None };
    word(author, epoch, seq, &Message::Beacon(beacon))
}

fn farewell(author: u64, epoch: u32, seq: u64) -> Verified<Word> {
    word(author, epoch, seq, &Message::Farewell(Farewell { reason: LeaveReason::Stopped }))
}

/// What two tables must agree on: all slots, who has left, and the digest.
type Belief = (Vec<(MemberId, [Option<Bytes>; 3], bool)>, u64);

fn belief(table: &Table) -> Belief {
    let slots = |entry: &Entry| {
        [
            entry.record.as_ref().map(|said| said.bytes.clone()),
            entry.pulse.as_ref().map(|said| said.bytes.clone()),
            entry.end.as_ref().map(|said| said.bytes.clone()),
        ]
    };
    let members = table.iter().map(|(id, entry)| (*id, slots(entry), entry.has_left())).collect();
    (members, table.digest())
}

fn after(words: &[Verified<Word>]) -> Table {
    let now = Instant::now();
    let mut table = Table::new(1);
    // Everybody is known, so that a pulse never comes before there is a place for it.
    for author in 0..AUTHORS {
        table.merge(&announce(author, 1, 1, "first"), Via::Told, now).unwrap();
    }
    for word in words {
        let _ = table.merge(word, Via::Told, now);
    }
    table
}

const AUTHORS: u64 = 3;

fn any_word() -> impl Strategy<Value = Verified<Word>> {
    (0..AUTHORS, 1..4u32, 1..6u64, 0..6u8).prop_map(|(author, epoch, seq, kind)| match kind {
        0 | 1 => beacon(author, epoch, seq),
        2 => farewell(author, epoch, seq),
        // Two names: equal stamps with different bytes.
        3 => announce(author, epoch, seq, "one"),
        _ => announce(author, epoch, seq, "two"),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn merging_is_the_same_in_any_order_and_number(
        words in prop::collection::vec(any_word(), 1..16),
        order in any::<prop::sample::Index>(),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..16),
    ) {
        let expected = belief(&after(&words));
        let mut shuffled = words.clone();
        shuffled.rotate_left(order.index(words.len()));
        shuffled.extend(again.iter().map(|index| index.get(&words).clone()));
        shuffled.reverse();
        prop_assert_eq!(belief(&after(&shuffled)), expected);
    }

    #[test]
    fn merging_two_tables_is_merging_all_their_words(
        ours in prop::collection::vec(any_word(), 0..10),
        theirs in prop::collection::vec(any_word(), 0..10),
    ) {
        let all = [ours.clone(), theirs.clone()].concat();
        // What a transfer carries is only the newest word of each slot.
        let tag = MeshTag::of("isle");
        let told = after(&theirs);
        let carried: Vec<_> = told
            .iter()
            .flat_map(|(_, entry)| belief_words(entry))
            .map(|bytes| verify(tag, bytes).unwrap())
            .collect();
        let joined = after(&[ours, carried].concat());
        prop_assert_eq!(belief(&joined), belief(&after(&all)));
    }

    #[test]
    fn any_sequence_of_operations_keeps_the_table_whole(
        steps in prop::collection::vec((any_word(), 0..8u8, 0..900u64), 1..60),
    ) {
        let mut now = Instant::now();
        let mut table = Table::new(1);
        let mut ended: BTreeMap<MemberId, Epoch> = BTreeMap::new();
        for (word, step, seconds) in steps {
            let id = word.header.author;
            match step {
                0 => table.set_down(&id, Some(now), now),
                1 => table.set_down(&id, None, now),
                2 => { table.prove(&id); }
                3 => {
                    now += Duration::from_secs(seconds);
                    while let Some(gone) = table.due(now) {
                        table.forget(&gone, now);
                    }
                    table.expire_floors(now);
                }
                4 => table.merge_floor(&word, Duration::from_secs(seconds), now),
                _ => {
                    // Of a member never proven only a short memory is kept.
                    let proven = table.get(&id).is_some_and(|entry| entry.proven);
                    let merged = table.merge(&word, Via::Told, now).is_ok();
                    if merged && proven && word.header.kind == kind::FAREWELL {
                        let last = ended.entry(id).or_insert(Epoch(0));
                        *last = (*last).max(word.header.stamp.epoch);
                    }
                }
            }
            let mut digest = 0_u64;
            for (id, entry) in table.iter() {
                let lives = entry.record.as_ref().filter(|_| !entry.has_left());
                let share = lives.map_or(0, |said| digest_of(&said.bytes));
                digest = digest.wrapping_add(if entry.down && lives.is_some() { digest_of_down(share) } else { share });
                prop_assert_eq!(entry.gone.is_some(), entry.is_gone());
                // Whoever has left lives again only in a later epoch.
                if let (Some(said), Some(end)) = (lives, ended.get(id)) {
                    prop_assert!(said.stamp.epoch > *end);
                }
            }
            prop_assert_eq!(table.digest(), digest);
        }
    }
}

fn belief_words(entry: &Entry) -> Vec<Bytes> {
    let words = [
        entry.record.as_ref().map(|said| said.bytes.clone()),
        entry.pulse.as_ref().map(|said| said.bytes.clone()),
        entry.end.as_ref().map(|said| said.bytes.clone()),
    ];
    words.into_iter().flatten().collect()
}

#[test]
fn a_farewell_that_comes_before_the_record_still_ends_it() {
    let now = Instant::now();
    let mut table = Table::new(1);
    assert_eq!(table.merge(&farewell(1, 1, 9), Via::Told, now), Ok(Advance::Left));
    assert_eq!(table.merge(&announce(1, 1, 1, "a"), Via::Told, now), Ok(Advance::Past));
    assert!(table.iter().all(|(_, entry)| entry.has_left()));
    assert_eq!(table.digest(), 0);
    assert_eq!(table.merge(&announce(1, 2, 1, "a"), Via::Told, now), Ok(Advance::Joined));
}

#[test]
fn the_stale_dead_never_revive() {
    let mut now = Instant::now();
    let mut table = Table::new(1);
    let id = announce(1, 2, 1, "a").header.author;
    table.merge(&announce(1, 2, 1, "a"), Via::Told, now).unwrap();
    table.merge(&beacon(1, 2, 7), Via::Told, now).unwrap();
    table.prove(&id);
    table.set_down(&id, Some(now), now);
    now += GONE_LISTED;
    assert_eq!(table.due(now), Some(id));
    table.forget(&id, now);
    for old in [announce(1, 2, 1, "a"), announce(1, 1, 500, "b"), beacon(1, 2, 7), farewell(1, 2, 6)] {
        assert_eq!(table.merge(&old, Via::Told, now), Err(Refused::Stale));
    }
    // A newcomer that is handed the floor refuses them too.
    let mut newcomer = Table::new(1);
    let tag = MeshTag::of("isle");
    for (bytes, age) in table.floors(now) {
        newcomer.merge_floor(&verify(tag, bytes.clone()).unwrap(), age, now);
    }
    assert_eq!(newcomer.merge(&announce(1, 2, 1, "a"), Via::Told, now), Err(Refused::Stale));
    now += FLOOR_KEPT;
    newcomer.expire_floors(now);
    assert_eq!(newcomer.floors_len(), 0);
}

#[test]
fn a_floor_ends_when_its_member_speaks_again() {
    let now = Instant::now();
    let mut table = Table::new(1);
    // Somebody hands over the newest pulse of a living member, as if it were gone.
    table.merge_floor(&beacon(1, 1, 7), Duration::ZERO, now);
    assert_eq!(table.merge(&announce(1, 1, 1, "a"), Via::Told, now), Err(Refused::Stale));
    assert_eq!(table.merge(&beacon(1, 1, 8), Via::Told, now), Err(Refused::Unasked));
    assert_eq!(table.merge(&announce(1, 1, 1, "a"), Via::Told, now), Ok(Advance::Joined));
}

#[test]
fn after_a_farewell_no_word_of_that_epoch_counts_however_late_its_number() {
    let mut now = Instant::now();
    let mut table = Table::new(1);
    let id = announce(1, 1, 1, "a").header.author;
    table.merge(&announce(1, 1, 1, "a"), Via::Told, now).unwrap();
    table.prove(&id);
    table.merge(&farewell(1, 1, 5), Via::Told, now).unwrap();
    assert_eq!(table.merge(&announce(1, 1, 90, "b"), Via::Told, now), Ok(Advance::Past));
    now += GONE_LISTED;
    table.forget(&id, now);
    assert_eq!(table.merge(&announce(1, 1, 99, "b"), Via::Told, now), Err(Refused::Stale));
    assert_eq!(table.merge(&announce(1, 2, 1, "b"), Via::Told, now), Ok(Advance::Joined));
}

#[test]
fn strangers_have_little_room_and_the_oldest_gives_way() {
    let now = Instant::now();
    let mut table = Table::new(1);
    let via = Via::Ears([192, 0, 2, 1].into());
    let id = |author| announce(author, 1, 1, "a").header.author;
    let most = u64::try_from(UNPROVEN_PER_SOURCE_MAX).unwrap();
    for author in 0..most {
        table.merge(&announce(author, 1, 1, "a"), via, now).unwrap();
    }
    assert!(table.prove(&id(0)));
    assert!(table.merge(&announce(most, 1, 1, "a"), via, now).is_ok(), "in the place that 0 gave back");
    assert!(table.pop_evicted().is_none());
    assert!(table.merge(&announce(most + 1, 1, 1, "a"), via, now).is_ok());
    assert_eq!(table.pop_evicted().map(|(evicted, _)| evicted), Some(id(1)));
    assert!(table.merge(&announce(most + 2, 1, 1, "a"), Via::Ears([127, 0, 0, 1].into()), now).is_ok());
    assert!(table.pop_evicted().is_none(), "this host's own nodes are exempt");
    assert!(table.get(&id(0)).is_some(), "who is proven stays");
}

#[test]
fn a_flood_of_strangers_is_bounded_and_touches_nobody_who_is_proven() {
    let now = Instant::now();
    let mut table = Table::new(1);
    let friend = announce(1_000_000, 1, 1, "friend");
    table.merge(&friend, Via::Ears([192, 0, 2, 1].into()), now).unwrap();
    table.prove(&friend.header.author);
    for author in 0..3000_u64 {
        let source = Via::Ears([10, 0, 0, (author % 100) as u8].into());
        table.merge(&announce(author, 1, 1, "a"), source, now).unwrap();
        while table.pop_evicted().is_some() {}
        assert!(table.len() <= UNPROVEN_MAX + 1);
    }
    assert!(table.get(&friend.header.author).is_some());
    assert!(table.get(&announce(2999, 1, 1, "a").header.author).is_some(), "the latest is in");
}

#[test]
fn floors_are_bounded_and_hearsay_drives_none_out() {
    let now = Instant::now();
    let id = |n: u64| MemberId(*blake3::hash(&n.to_be_bytes()).as_bytes());
    let floor = || Floor { stamp: Stamp::new(1, 1), bytes: Bytes::new(), since: now };
    let mut floors = Floors::doubted();
    for n in 0..3 * DOUBTED_FLOORS_MAX as u64 {
        floors.put(id(n), floor());
    }
    assert_eq!(floors.len(), DOUBTED_FLOORS_MAX);
    floors.put_if_room(id(u64::MAX), floor());
    assert_eq!(floors.len(), DOUBTED_FLOORS_MAX);
}
