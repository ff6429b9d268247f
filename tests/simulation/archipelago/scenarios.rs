//! Islands joined in lines, rings, stars and at random, with churn and cuts.
//!
//! The short ones run in every `cargo test`; the others by `cargo xtask sim --scenario NAME`.

use std::time::Duration;

use super::graph::{Graph, line, random, ring, star};
use super::{Plan, archipelago};
use crate::world::with_seeds;
use crate::{ms, secs};

/// Troubles, then peace: all tables are equal in time, requests arrive, nobody was called down who was there.
fn troubles_and_peace(plan: Plan, troubles: usize, pause: Duration) {
    let mut islands = plan.begins();
    islands.settles();
    islands.troubles(troubles, pause);
    islands.heal();
    islands.agrees();
    islands.requests_arrive_within(secs(3));
    islands.run_for(secs(2));
    islands.agrees();
    islands.report();
    assert_eq!(islands.false_downs(), 0);
}

fn few(graph: impl Fn(u64) -> Graph, name: &'static str) {
    with_seeds(name, |seed| {
        troubles_and_peace(archipelago(graph(seed), seed).members(20), 40, ms(100));
    });
}

#[test]
fn five_islands_in_a_line_agree_after_churn_and_cuts() {
    few(|_| line(5), "five_islands_in_a_line");
}

#[test]
fn five_islands_in_a_ring_agree_after_churn_and_cuts() {
    few(|_| ring(5), "five_islands_in_a_ring");
}

#[test]
fn five_islands_in_a_star_agree_after_churn_and_cuts() {
    few(|_| star(5), "five_islands_in_a_star");
}

#[test]
fn five_islands_joined_at_random_agree_after_churn_and_cuts() {
    few(|seed| random(5, seed), "five_islands_joined_at_random");
}

#[test]
fn islands_of_two_bridges_and_many_voices_agree_after_churn_and_cuts() {
    with_seeds("islands_of_two_bridges", |seed| {
        let plan = archipelago(line(6), seed).bridges(2).voices(20).without_crashes();
        troubles_and_peace(plan, 60, ms(100));
    });
}

#[test]
#[ignore = "many seeds are its use: cargo xtask sim --scenario crashes_on_islands_of_voices --seeds 20"]
fn crashes_on_islands_of_voices() {
    with_seeds("crashes_on_islands_of_voices", |seed| {
        let plan = archipelago(line(6), seed).bridges(2).voices(20);
        troubles_and_peace(plan, 60, ms(100));
    });
}

/// A line is cut and healed: everybody tells of each island beyond once, and of nobody's end.
fn cut_and_healed(islands: usize, members: usize, seed: u64) {
    let (one, other) = (islands / 2 - 1, islands / 2);
    let mut islands = archipelago(line(islands), seed).members(members).begins();
    islands.settles();
    islands.forget_counts();
    let link = islands.link_between(one, other);
    islands.cut(one, other).run_for(secs(5));
    let near = islands.graph.beyond(link, one);
    let count = |one: usize, graph: &Graph| {
        let there = graph.distances(one, |_| true);
        let is_beyond = |other: &usize| near.contains(&one) != near.contains(other);
        let is_near = |other: &usize| there[*other].is_some_and(|distance| distance <= 8);
        u32::try_from((0..graph.islands).filter(|other| is_beyond(other) && is_near(other)).count())
            .expect("few")
    };
    let once = |island: usize| count(island, &islands.graph);
    assert_eq!(islands.counted(|witness| witness.downs.values().sum(), once), None);
    assert_eq!(islands.counted(|witness| witness.ups.values().sum(), |_| 0), None);
    islands.heal();
    islands.agrees();
    islands.run_for(secs(3));
    let once = |island: usize| count(island, &islands.graph);
    assert_eq!(islands.counted(|witness| witness.ups.values().sum(), once), None);
    assert_eq!(islands.counted(|witness| witness.downs.values().sum(), once), None);
    assert_eq!(islands.false_downs(), 0);
    islands.requests_arrive_within(ms(100));
    islands.report();
}

#[test]
fn a_cut_is_one_event_for_each_island_and_no_funeral() {
    with_seeds("a_cut_is_one_event", |seed| cut_and_healed(4, 10, seed));
}

/// Ten islands of a hundred, every member in full.
fn ten(graph: impl Fn(u64) -> Graph, name: &'static str) {
    with_seeds(name, |seed| {
        troubles_and_peace(archipelago(graph(seed), seed).members(99), 100, ms(120));
    });
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario ten_in_a_line"]
fn ten_in_a_line() {
    ten(|_| line(10), "ten_in_a_line");
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario ten_in_a_ring"]
fn ten_in_a_ring() {
    ten(|_| ring(10), "ten_in_a_ring");
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario ten_in_a_star"]
fn ten_in_a_star() {
    ten(|_| star(10), "ten_in_a_star");
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario ten_at_random"]
fn ten_at_random() {
    ten(|seed| random(10, seed), "ten_at_random");
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario ten_are_cut"]
fn ten_are_cut_and_healed() {
    with_seeds("ten_are_cut", |seed| cut_and_healed(10, 99, seed));
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario thirty_at_random"]
fn thirty_at_random() {
    hundred(|seed| random(30, seed), "thirty_at_random");
}

/// Islands of a hundred: two bridges and two members in full, the others author words alone.
fn hundred(graph: impl Fn(u64) -> Graph, name: &'static str) {
    with_seeds(name, |seed| {
        let plan = archipelago(graph(seed), seed).bridges(2).voices(96);
        troubles_and_peace(plan, 200, ms(60));
    });
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario hundred_in_a_line"]
fn hundred_in_a_line() {
    hundred(|_| line(100), "hundred_in_a_line");
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario hundred_in_a_ring"]
fn hundred_in_a_ring() {
    hundred(|_| ring(100), "hundred_in_a_ring");
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario hundred_in_a_star"]
fn hundred_in_a_star() {
    hundred(|_| star(100), "hundred_in_a_star");
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario hundred_at_random"]
fn hundred_at_random() {
    hundred(|seed| random(100, seed), "hundred_at_random");
}
