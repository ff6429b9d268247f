//! Islands of two, three and four, where nobody or few can watch besides those who crash.

use crate::measures::Lengths;
use crate::world::{island, with_seeds};
use crate::{ms, secs};

/// One crash in each of many islands of so many.
fn first_crash(members: usize, seed: u64, loss: f64) {
    let mut known = Lengths::default();
    for number in 0..20 {
        let mut island =
            island(members, seed * 100 + number).loss(loss).delay(ms(0), ms(2)).started_within(ms(200));
        island.run_for(secs(3));
        island.crash(1);
        island.run_for(secs(3));
        assert_eq!((island.measures.crashes_unnoticed(), island.measures.false_downs), (0, 0));
        known.extend(island.measures.crashes_known_to_all());
    }
    known.print(&format!("{members} members, {:.0} % loss: crash known to all", loss * 100.0));
    // At a fifth lost, silence alone takes longer.
    known.max_is_below(if loss > 0.1 { ms(1_500) } else { secs(1) });
}

#[test]
fn in_islands_of_two_to_four_a_crash_is_known_within_a_second() {
    with_seeds("in_islands_of_two_to_four", |seed| {
        for members in 2..=4 {
            first_crash(members, seed, 0.05);
            first_crash(members, seed, 0.2);
        }
    });
}

/// Crashes of one at a time, each replaced, so that the island stays as small as it is.
fn of(members: usize, seed: u64, loss: f64) {
    let mut island = island(members, seed).loss(loss).delay(ms(0), ms(2)).started_within(ms(200));
    island.run_for(secs(3));
    for _ in 0..10 {
        island.crash(1);
        island.run_for(secs(3));
        island.join(1);
        island.run_for(secs(2));
    }
    // A newcomer finds out for itself about those whose watchers have all crashed before it came.
    island.agrees_within(secs(10));
    island.report(&format!("{members} members, {:.0} % loss, crashes", loss * 100.0));
    assert_eq!((island.measures.crashes_unnoticed(), island.measures.false_downs), (0, 0));
    // At a fifth lost, silence alone takes longer where one or two watch.
    let most = if loss > 0.1 { ms(1_500) } else { secs(1) };
    island.measures.crashes_known_to_all().max_is_below(most);
}

#[test]
fn one_of_two_notices_the_others_crash() {
    with_seeds("one_of_two_notices", |seed| of(2, seed, 0.05));
}

#[test]
fn two_of_three_notice_the_third_ones_crash() {
    with_seeds("two_of_three_notice", |seed| of(3, seed, 0.05));
}

#[test]
fn three_of_four_notice_the_fourth_ones_crash() {
    with_seeds("three_of_four_notice", |seed| of(4, seed, 0.05));
}

#[test]
fn a_few_notice_crashes_although_a_fifth_of_all_words_is_lost() {
    with_seeds("a_few_notice_crashes_although", |seed| {
        for members in 2..=4 {
            of(members, seed, 0.2);
        }
    });
}

/// Crashes soon after starts, while everybody names its watchers anew.
#[test]
fn the_young_crash_too() {
    with_seeds("the_young_crash_too", |seed| {
        for members in [4, 8, 16] {
            let mut island = island(members, seed).loss(0.05).delay(ms(0), ms(2)).started_within(ms(200));
            island.run_for(ms(1_200));
            for _ in 0..30 {
                island.crash(1);
                let pause = 1_000 + u64::from(island.lot(800));
                island.run_for(ms(pause));
                island.join(1);
                let pause = 500 + u64::from(island.lot(1_000));
                island.run_for(ms(pause));
            }
            island.agrees_within(secs(10));
            island.report(&format!("{members} members, 5 % loss, crashes of the young"));
            assert_eq!(island.measures.false_downs, 0);
            island.measures.crashes_known_to_all().max_is_below(secs(1));
        }
    });
}

/// Crashes of newcomers that had hardly time to name their watchers, or none.
#[test]
fn newborns_crash_too() {
    with_seeds("newborns_crash_too", |seed| {
        for members in [1, 3, 8, 40] {
            let mut island = island(members, seed).loss(0.05).delay(ms(0), ms(2)).started_within(ms(200));
            island.run_for(secs(2));
            for _ in 0..20 {
                island.join(1);
                let age = 20 + u64::from(island.lot(800));
                island.run_for(ms(age));
                island.crash_newest();
                island.run_for(ms(1_500));
            }
            island.agrees_within(secs(3));
            island.report(&format!("{members} members, 5 % loss, newcomers crash"));
            assert_eq!((island.measures.crashes_unnoticed(), island.measures.false_downs), (0, 0));
            // Who missed its only words hears of it by the accusations, and asks for itself.
            island.measures.crashes_known_to_all().max_is_below(secs(2));
        }
    });
}

/// All start together, and before they have found each other's watchers one crashes.
#[test]
fn one_of_many_newborns_crashes() {
    with_seeds("one_of_many_newborns_crashes", |seed| {
        let mut known = Lengths::default();
        for number in 0..40 {
            let mut island =
                island(8, seed * 100 + number).loss(0.05).delay(ms(0), ms(2)).started_within(ms(100));
            let age = 150 + u64::from(island.lot(1_000));
            island.run_for(ms(age));
            island.crash(1);
            island.run_for(secs(5));
            assert_eq!((island.measures.crashes_unnoticed(), island.measures.false_downs), (0, 0));
            known.extend(island.measures.crashes_known_to_all());
        }
        known.print("8 members, 5 % loss, a crash soon after the start: known to all");
        known.max_is_below(ms(1_500));
    });
}

#[test]
fn all_of_four_crash_but_one_and_it_knows() {
    with_seeds("all_of_four_crash_but_one", |seed| {
        let mut island = island(4, seed).loss(0.05).delay(ms(0), ms(2)).started_within(ms(200));
        island.run_for(secs(3));
        island.crash(3);
        island.agrees_within(secs(4));
        island.report("3 of 4 members crash at once");
    });
}

#[test]
fn nobody_is_given_up_for_being_deaf_for_moments() {
    with_seeds("nobody_is_given_up_for_being_deaf", |seed| {
        let mut island = island(30, seed)
            .loss(0.05)
            .with_deaf_moments(ms(200))
            .delay(ms(0), ms(2))
            .started_within(ms(500));
        island.run_for(secs(60));
        island.agrees_within(secs(3));
        island.report("30 members, deaf for 5 % of the time, 200 ms at once");
        assert_eq!(island.measures.false_downs, 0);
    });
}
