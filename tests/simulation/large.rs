//! Large islands and long runs: what the figures in docs/benchmarks.md come from.
//!
//! Two of them run in every `cargo test`; the others are run by `cargo xtask sim`. `ISLE_SIMULATION_MEMBERS=N` changes
//! the size of all of them.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::process::Command;
use std::time::Duration;
use std::{env, thread};

use crate::world::{World, given, large_island, with_seed, with_seeds};
use crate::{ms, secs};

/// A node's share of the broadcasts of a thousand (1,000 beacons of 150 bytes a second) and its unicasts. DESIGN,
/// section 5, and the figures that it rests on.
const STEADY_BYTES: u64 = 200_000;
const UNICAST_BYTES: u64 = 22_000; // 11 kB each way

fn size(usual: usize) -> usize {
    given("ISLE_SIMULATION_MEMBERS").unwrap_or(usual)
}

/// An island that has settled: all know all, and have named their watchers.
pub fn settled(members: usize, seed: u64, loss: f64) -> World {
    let mut island = large_island(members, seed).loss(loss).delay(ms(0), ms(2)).started_within(secs(5));
    island.run_for(secs(5));
    island.agrees_within(secs(10));
    island.run_for(secs(3));
    island.measures.restart_traffic();
    island
}

fn crashes_are_noticed(members: usize, seed: u64) {
    let mut island = settled(members, seed, 0.05);
    island.run_for(secs(3));
    let (unicast, for_all) = island.measures.bytes_per_second();
    for _ in 0..8 {
        island.crash(1);
        island.run_for(secs(1));
    }
    island.run_for(secs(1));
    island.report(&format!("{members} members, 5 % loss, crashes"));
    assert_eq!(island.measures.crashes_unnoticed(), 0);
    assert_eq!(island.measures.false_downs, 0);
    island.measures.crashes_known.p99_is_below(ms(800));
    island.measures.crashes_known_to_all().max_is_below(secs(1));
    assert!(unicast <= UNICAST_BYTES && unicast + for_all <= STEADY_BYTES, "{unicast} + {for_all} B/s");
}

#[test]
fn two_hundred_members_notice_crashes_within_a_second() {
    with_seeds("two_hundred_members_notice", |seed| crashes_are_noticed(size(200), seed));
}

#[test]
#[ignore = "takes a minute: cargo xtask sim --scenario a_thousand_members_notice"]
fn a_thousand_members_notice_crashes_within_a_second() {
    with_seeds("a_thousand_members_notice", |seed| crashes_are_noticed(size(1000), seed));
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario two_hundred_crashes"]
fn two_hundred_crashes() {
    with_seeds("two_hundred_crashes", |seed| {
        let mut island = settled(size(1000), seed, 0.05);
        for _ in 0..200 {
            island.crash(1);
            island.run_for(ms(700));
            island.join(1);
            island.run_for(ms(300));
        }
        island.run_for(secs(2));
        island.report("1,000 members, 5 % loss, 200 crashes, 200 newcomers");
        assert_eq!((island.measures.crashes_unnoticed(), island.measures.false_downs), (0, 0));
        island.measures.crashes_known.p99_is_below(ms(800));
        island.measures.crashes_known_to_all().max_is_below(secs(1));
    });
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario ten_node_days"]
fn ten_node_days_without_a_death() {
    with_seeds("ten_node_days", |seed| {
        let mut island = settled(size(1000), seed, 0.05);
        island.run_for(secs(864));
        island.report("1,000 members, 5 % loss, nobody dies");
        assert_eq!(island.measures.false_downs, 0);
    });
}

fn stalling(seed: u64, share: f64, what: &str) {
    let mut island = settled(size(1000), seed, 0.05);
    island.stalls_of(share);
    for _ in 0..30 {
        island.crash(1);
        island.run_for(secs(2));
    }
    island.report(what);
    assert_eq!(island.measures.false_downs, 0);
    assert_eq!(island.measures.crashes_unnoticed(), 0);
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario a_twentieth_stalls"]
fn a_twentieth_stalls() {
    with_seeds("a_twentieth_stalls", |seed| stalling(seed, 0.05, "1,000 members, 5 % loss, 5 % stalling"));
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario a_fifth_stalls"]
fn a_fifth_stalls() {
    with_seeds("a_fifth_stalls", |seed| stalling(seed, 0.2, "1,000 members, 5 % loss, 20 % stalling"));
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario losses_in_bursts"]
fn losses_in_bursts() {
    with_seeds("losses_in_bursts", |seed| {
        let mut island = large_island(size(1000), seed)
            .loss(0.05)
            .in_bursts(ms(200))
            .delay(ms(0), ms(2))
            .started_within(secs(5));
        island.run_for(secs(10));
        island.measures.restart_traffic();
        island.run_for(secs(864));
        island.report("1,000 members, 5 % loss in bursts of 200 ms");
        let verdicts = island.measures.false_verdicts_per_node_day();
        assert!(verdicts < 0.1, "{verdicts} false verdicts a node and day");
    });
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario a_fifth_of_all_words_lost"]
fn a_fifth_of_all_words_lost() {
    with_seeds("a_fifth_of_all_words_lost", |seed| {
        // With so much loss somebody is in doubt somewhere at any moment, so it settles before.
        let mut island = settled(size(1000), seed, 0.05).loss(0.2);
        island.run_for(secs(173));
        island.report("1,000 members, 20 % loss, nobody dies");
        let verdicts = island.measures.false_verdicts_per_node_day();
        assert!(verdicts < 1.0, "{verdicts} false verdicts a node and day");
    });
}

/// Within three seconds everybody lists everybody who is there, has given up everybody who is not, and holds the same records; and
/// nobody was busier than three times its steady budget in any second.
fn converges(mut island: World, what: &str) {
    let end = island.now + secs(3);
    island.run_for(ms(100));
    island.lists_within(ms(2_800));
    island.agrees_within(end - island.now + ms(1));
    island.report(what);
    assert!(
        island.measures.worst_mean <= 3 * STEADY_BYTES,
        "{} B a node in a second",
        island.measures.worst_mean
    );
}

#[test]
#[ignore = "takes a minute: cargo xtask sim --scenario half_of_all_crash"]
fn half_of_all_crash() {
    with_seeds("half_of_all_crash", |seed| {
        let mut island = settled(size(1000), seed, 0.05);
        island.crash(size(1000) / 2);
        converges(island, "500 of 1,000 crash at once");
    });
}

#[test]
#[ignore = "takes a minute: cargo xtask sim --scenario all_restart"]
fn all_restart() {
    with_seeds("all_restart", |seed| {
        let island = large_island(size(1000), seed).loss(0.05).delay(ms(0), ms(2));
        converges(island, "1,000 start at once");
    });
}

/// Those of a large island whose power comes back start within moments or seconds of each other. Within three seconds of the last
/// one all hold the same; no second costs more than this.
fn starts_within(members: usize, length: Duration, bytes: u64, seed: u64) {
    let mut island = large_island(members, seed).loss(0.05).delay(ms(0), ms(2)).started_within(length);
    island.run_for(length);
    island.lists_within(secs(3));
    island.agrees_within(secs(3));
    island.report(&format!("{members} start within {length:?}"));
    assert_eq!(island.measures.false_downs, 0);
    let worst = island.measures.worst_mean;
    assert!(worst <= bytes, "{worst} B a node in a second");
}

#[test]
fn two_hundred_start_within_moments() {
    with_seeds("two_hundred_start_within_moments", |seed| {
        starts_within(size(200), ms(300), 3 * STEADY_BYTES, seed);
    });
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario all_start_within_seconds"]
fn all_start_within_seconds() {
    with_seeds("all_start_within_seconds", |seed| {
        for length in [ms(100), ms(300), secs(1), secs(2)] {
            starts_within(size(1000), length, 5 * STEADY_BYTES, seed);
        }
        starts_within(size(1000), secs(5), 3 * STEADY_BYTES, seed);
    });
}

#[test]
#[ignore = "takes a minute: cargo xtask sim --scenario two_halves_meet"]
fn two_halves_meet() {
    with_seeds("two_halves_meet", |seed| {
        let mut island =
            large_island(size(1000), seed).loss(0.05).delay(ms(0), ms(2)).started_within(secs(5));
        island.cut_in_two();
        island.run_for(secs(12));
        island.measures.restart_traffic();
        island.heal_cuts();
        converges(island, "two halves of 500 are plugged together");
    });
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario deaf_for_moments"]
fn deaf_for_moments() {
    with_seeds("deaf_for_moments", |seed| {
        let mut island = large_island(size(1000), seed)
            .loss(0.05)
            .with_deaf_moments(ms(200))
            .delay(ms(0), ms(2))
            .started_within(secs(5));
        island.run_for(secs(10));
        island.measures.restart_traffic();
        island.run_for(secs(90));
        island.report("1,000 members, deaf for 5 % of the time, 200 ms at once");
        assert!(island.measures.false_downs < 1000, "{} in a node-day", island.measures.false_downs);
    });
}

#[test]
#[ignore = "takes minutes: cargo xtask sim --scenario members_come_and_go"]
fn members_come_and_go() {
    with_seeds("members_come_and_go", |seed| {
        let mut island = settled(size(1000), seed, 0.05);
        for _ in 0..30 {
            island.farewell(2).crash(2).join(4).restart_with_kept_key(2).restart_with_fresh_key(2);
            island.cut_one_way(5);
            island.run_for(ms(700));
            island.heal_cuts().replay_old_words(20);
            island.run_for(ms(300));
        }
        island.agrees_within(secs(10));
        island.report("1,000 members, 5 % loss, 12 of them replaced in every second");
        island.measures.farewells_known.p99_is_below(ms(100));
    });
}

/// `ISLE_SIMULATION_ISLANDS` of a thousand for `ISLE_SIMULATION_SECONDS`, as many at once as there are cores.
#[test]
#[ignore = "takes minutes: cargo xtask sim --members 10000 --seconds 60"]
fn islands_of_a_thousand() {
    let islands: u64 = given("ISLE_SIMULATION_ISLANDS").unwrap_or(10);
    let seconds = given("ISLE_SIMULATION_SECONDS").unwrap_or(60);
    if env::var_os(ONE_OF_SEVERAL).is_some() {
        let mut seeds = File::open("/dev/stdin").expect("a pipe");
        let mut seed = [0; 8];
        // The next one that no other process has taken: so many bytes are read at once, or none.
        while seeds.read(&mut seed).expect("a pipe can be read") == seed.len() {
            with_seed("islands_of_a_thousand", u64::from_ne_bytes(seed), |seed| {
                one_of_many(seed, secs(seconds))
            });
        }
        return;
    }
    with_seeds("islands_of_a_thousand", |seed| {
        if islands == 1 {
            return one_of_many(seed, secs(seconds));
        }
        let at_once = thread::available_parallelism()
            .map_or(1, usize::from)
            .min(usize::try_from(islands).unwrap_or(usize::MAX));
        let (seeds, mut queue) = io::pipe().expect("a pipe");
        for seed in seed..seed + islands {
            queue.write_all(&seed.to_ne_bytes()).expect("room for some thousands");
        }
        drop(queue);
        thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| in_a_process_of_their_own(&seeds));
            }
        });
    });
}

/// Tells a process that it is one of several, and takes its seeds from standard input.
const ONE_OF_SEVERAL: &str = "ISLE_SIMULATION_ONE_OF_SEVERAL";
/// One heap, of huge pages, that grows by 64 MiB and of which nothing is given back (below 16 GiB). Large blocks are of it, too:
/// mappings of their own would be of small pages.
const HEAP: &str = concat!(
    "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:",
    "glibc.malloc.top_pad=67108864:glibc.malloc.trim_threshold=17179869184",
);

/// One island after the other with all memory in one heap, where the allocator is glibc's:
/// of the gigabytes that an island fills that is a fifth of the time.
fn in_a_process_of_their_own(seeds: &PipeReader) {
    let program = env::current_exe().expect("the path of this program");
    let output = Command::new(program)
        .args(["large::islands_of_a_thousand", "--exact", "--include-ignored", "--nocapture"])
        .env("GLIBC_TUNABLES", HEAP)
        .env(ONE_OF_SEVERAL, "1")
        .stdin(seeds.try_clone().expect("a pipe"))
        .output()
        .expect("this program can be started again");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn one_of_many(seed: u64, length: Duration) {
    let mut island = large_island(1000, seed).loss(0.05).delay(ms(0), ms(2)).started_within(secs(5));
    island.run_for(length / 2);
    island.crash(5);
    island.run_for(length - length / 2);
    island.agrees_within(secs(3));
    island.report(&format!("island {seed} of many, 1,000 members"));
    assert_eq!(island.measures.false_downs, 0);
}
