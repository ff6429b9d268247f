//! Islands of many nodes under one seed and in virtual time: the state machines of `isle-mesh` as they are, on a
//! network that loses, doubles, delays and cuts, in processes that stall, crash and come back.
//!
//! After every step of every node the invariants of `invariants` are checked; at the end of a scenario everybody
//! must know the same within a stated time. A failure prints its seed and the command that replays it.
//!
//! `ISLE_SIMULATION_SEED=N` runs the scenarios with that seed, `ISLE_SIMULATION_SEEDS=N` with N seeds one after the other.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failed unwrap is a failed test; nobody imports a test"
)]

mod archipelago;
mod beside;
mod ears;
mod few;
mod forged;
mod invariants;
mod large;
mod measures;
mod murmur;
mod network;
mod process;
mod story;
mod trace;
mod voice;
mod votes;
mod world;

use std::time::Duration;

use crate::world::{World, island, with_seeds};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn two_hundred_members_agree_although_a_fifth_of_all_words_is_lost() {
    with_seeds("two_hundred_members_agree", |seed| {
        let mut island =
            island(200, seed).loss(0.2).duplication(0.02).delay(ms(0), ms(3)).started_within(secs(1));
        island.run_for(secs(3));
        island.crash(3).farewell(5).restart_with_kept_key(2).restart_with_fresh_key(2);
        island.run_for(secs(1));
        island.join(3);
        island.agrees_within(secs(9));
        island.report("200 members, 20 % loss");
    });
}

#[test]
fn a_farewell_reaches_everybody_at_once() {
    with_seeds("a_farewell_reaches_everybody", |seed| {
        let mut island = island(100, seed).loss(0.05).delay(ms(0), ms(2)).started_within(ms(500));
        island.run_for(secs(3));
        for _ in 0..20 {
            island.farewell(1);
            island.run_for(ms(200));
        }
        island.agrees_within(secs(4));
        island.report("100 members, 5 % loss, farewells");
        island.measures.farewells_known.p99_is_below(ms(100));
    });
}

#[test]
fn a_newcomer_knows_everybody_and_everybody_it() {
    with_seeds("a_newcomer_knows_everybody", |seed| {
        let mut island = island(100, seed).loss(0.05).delay(ms(0), ms(2)).started_within(ms(500));
        island.run_for(secs(3));
        for _ in 0..20 {
            island.join(1);
            island.run_for(ms(300));
        }
        island.agrees_within(secs(4));
        island.report("100 members, 5 % loss, newcomers");
        island.measures.newcomers_complete.p99_is_below(ms(300));
        island.measures.newcomers_known.p99_is_below(ms(50));
    });
}

#[test]
fn a_crash_is_known_to_all_within_three_seconds() {
    with_seeds("a_crash_is_known_to_all", |seed| {
        let mut island = island(50, seed).loss(0.05).delay(ms(0), ms(2)).started_within(ms(500));
        island.run_for(secs(3));
        for _ in 0..10 {
            island.crash(1);
            island.run_for(ms(3300));
        }
        island.agrees_within(secs(2));
        island.report("50 members, 5 % loss, crashes");
        island.measures.crashes_known.p99_is_below(secs(3));
        assert_eq!(island.measures.false_downs, 0);
    });
}

#[test]
fn nobody_healthy_is_given_up_though_a_tenth_of_the_processes_stall() {
    with_seeds("nobody_healthy_is_given_up", |seed| {
        let mut island = island(40, seed).loss(0.05).delay(ms(0), ms(2)).started_within(ms(500));
        island.run_for(secs(3));
        for _ in 0..20 {
            island.stall(4, ms(200), ms(500));
            island.run_for(secs(1));
        }
        assert_eq!(island.measures.false_downs, 0);
        island.agrees_within(secs(6));
        island.report("40 members, 5 % loss, 10 % stalling");
    });
}

#[test]
fn one_way_cuts_heal_without_a_restart() {
    with_seeds("one_way_cuts_heal", |seed| {
        let mut island = island(30, seed).loss(0.05).delay(ms(0), ms(2)).started_within(ms(500));
        island.run_for(secs(3));
        for _ in 0..3 {
            island.cut_one_way(4);
            island.run_for(secs(4));
        }
        island.heal_cuts();
        island.agrees_within(secs(6));
        island.report("30 members, one-way cuts");
    });
}

#[test]
fn an_island_cut_in_two_is_one_again_after_it_heals() {
    with_seeds("an_island_cut_in_two", |seed| {
        let mut island = island(30, seed).loss(0.05).delay(ms(0), ms(2)).started_within(ms(500));
        island.run_for(secs(3));
        island.cut_in_two();
        island.run_for(secs(2));
        island.farewell(2).join(3).restart_with_kept_key(2);
        island.run_for(secs(6));
        island.heal_cuts();
        island.agrees_within(secs(8));
        island.report("30 members, cut in two");
    });
}

#[test]
fn the_gone_are_forgotten_and_never_come_back_while_members_come_and_go() {
    with_seeds("the_gone_are_forgotten", |seed| {
        let mut island = island(6, seed).loss(0.1).delay(ms(0), ms(3)).started_within(ms(500));
        for _ in 0..15 {
            island.farewell(1).crash(1).join(2);
            island.replay_old_words(20);
            island.run_for(secs(90));
        }
        island.agrees_within(secs(10));
        assert!(island.most_listed() < 40, "{} listed", island.most_listed());
        island.report("6 members for 20 minutes, all replaced again and again");
    });
}

#[test]
#[ignore = "takes minutes; run it when times or rates of the protocol change"]
fn five_hundred_members_agree() {
    with_seeds("five_hundred_members_agree", |seed| {
        let mut island = island(500, seed).loss(0.05).delay(ms(0), ms(2)).started_within(secs(3));
        island.run_for(secs(6));
        island.join(5).crash(2).farewell(5);
        island.agrees_within(secs(15));
        island.report("500 members, 5 % loss");
    });
}

#[test]
fn everything_at_once_and_then_peace() {
    with_seeds("everything_at_once", |seed| {
        let mut island =
            island(40, seed).loss(0.2).duplication(0.1).delay(ms(0), ms(30)).started_within(secs(2));
        for _ in 0..12 {
            any_trouble(&mut island);
            island.run_for(ms(700));
        }
        island.heal_cuts();
        island.agrees_within(secs(10));
        island.report("40 members, everything at once");
    });
}

/// One trouble, or two, by lot.
fn any_trouble(island: &mut World) {
    for _ in 0..2 {
        match island.lot(8) {
            0 => island.crash(1),
            1 => island.farewell(1),
            2 => island.restart_with_kept_key(1),
            3 => island.restart_with_fresh_key(1),
            4 => island.join(1),
            5 => island.cut_one_way(2),
            6 => island.stall(3, ms(100), secs(2)),
            _ => island.replay_old_words(50),
        };
    }
}
