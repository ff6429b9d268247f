//! Many bridges wired together in virtual time: lines, rings, meshes, stars and random graphs, with churn, cuts and
//! restarts. Each test prints its seeds; `ISLE_SEED=7` runs that one alone, `ISLE_SEEDS=1000` so many.

mod link;
mod table;
mod world;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use island_bridge::routes;
use isle_mesh::path::PATH_ISLANDS_MAX;
use rand::RngExt;
use table::Kind;
use world::World;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The seeds to run: so many, if the environment says nothing else.
fn seeds(count: u64) -> Vec<u64> {
    let number =
        |name| std::env::var(name).ok().map(|text: String| text.parse().expect("a seed is a number"));
    number("ISLE_SEED")
        .map_or_else(|| (1..=number("ISLE_SEEDS").unwrap_or(count)).collect(), |seed| vec![seed])
}

/// Islands of one bridge each, joined as `edges` says; run for 3 s, by when all tables are equal.
fn settled(seed: u64, islands: usize, members: usize, edges: &[(usize, usize)], delay: Duration) -> World {
    println!("seed {seed}");
    let mut world = World::new(seed).with_islands(islands, 1, members);
    for (one, other) in edges {
        world.link(*one, *other, delay);
    }
    world.run_for(ms(3000));
    assert!(world.is_equal() && world.links.iter().all(link::Link::is_up), "seed {seed}");
    world
}

fn line(islands: usize) -> Vec<(usize, usize)> {
    (1..islands).map(|island| (island - 1, island)).collect()
}

fn ring(islands: usize) -> Vec<(usize, usize)> {
    (0..islands).map(|island| (island, (island + 1) % islands)).collect()
}

fn full(islands: usize) -> Vec<(usize, usize)> {
    (0..islands).flat_map(|one| (0..one).map(move |other| (one, other))).collect()
}

fn star(islands: usize) -> Vec<(usize, usize)> {
    (1..islands).map(|island| (0, island)).collect()
}

/// A random tree with `more` further edges.
fn random(world: &mut World, islands: usize, more: usize) -> Vec<(usize, usize)> {
    let mut edges: Vec<_> = (1..islands).map(|island| (island, world.rng.random_range(0..island))).collect();
    for _ in 0..more {
        let (one, other) = (world.rng.random_range(0..islands), world.rng.random_range(0..islands));
        if one != other && !edges.contains(&(one, other)) && !edges.contains(&(other, one)) {
            edges.push((one, other));
        }
    }
    edges
}

/// The longest of the shortest ways, in links.
fn diameter(islands: usize, edges: &[(usize, usize)]) -> u32 {
    let far = |start: usize| {
        let (mut distance, mut queue) = (BTreeMap::from([(start, 0)]), VecDeque::from([start]));
        while let Some(at) = queue.pop_front() {
            let next = distance[&at] + 1;
            for (one, other) in edges.iter().flat_map(|(one, other)| [(*one, *other), (*other, *one)]) {
                if one == at && !distance.contains_key(&other) {
                    distance.insert(other, next);
                    queue.push_back(other);
                }
            }
        }
        distance.into_values().max().unwrap_or(0)
    };
    (0..islands).map(far).max().unwrap_or(0)
}

fn way(world: &World, from: usize, to: usize) -> String {
    world.way(from, to).map_or_else(|| "none".into(), |path| path.islands().join(" "))
}

/// Each island reaches each other over links that are up: the whole way exists. Paths have no loops by their type.
fn assert_ways(world: &World, seed: u64) {
    for from in 0..world.islands.len() {
        for to in (0..world.islands.len()).filter(|to| *to != from) {
            let path =
                world.way(from, to).unwrap_or_else(|| panic!("seed {seed}: no way from {from} to {to}"));
            let mut at = world.islands[from].name.clone();
            for next in path.islands() {
                let joins = |link: &link::Link| {
                    let names = [0, 1]
                        .map(|end| world.islands[world.bridges[link.ends[end].bridge].island].name.as_str());
                    link.is_up() && names.contains(&at.as_str()) && names.contains(&next.as_str())
                };
                assert!(world.links.iter().any(joins), "seed {seed}: no link from {at} to {next}");
                at.clone_from(next);
            }
            assert_eq!(at, world.islands[to].name);
        }
    }
}

/// No word crossed a link twice: both ways only if the second was sent before the first was read; the same way only a
/// record that goes along with verdicts as long as its batch is not acknowledged, which may wait for the one before.
fn assert_each_crossed_once(world: &World, seed: u64) {
    for ((link, word), crossing) in &world.crossings {
        let word = table::Word::of(word);
        let two_batches = world.links[*link].delay.mul_f64(4.4) + ms(4);
        for end in [0, 1] {
            match &crossing.sent[end][..] {
                [] | [_] => {}
                [first, .., last] if word.kind == Kind::Record && *last - *first <= two_batches => {}
                _ => panic!("seed {seed}: link {link}, {word:?}: {crossing:?}"),
            }
            if let (Some(sent), Some(read)) = (crossing.sent[end].first(), crossing.read[1 - end]) {
                assert!(*sent <= read, "seed {seed}: link {link}, {word:?} came back: {crossing:?}");
            }
        }
    }
}

fn downs(world: &World) -> usize {
    world.events.iter().filter(|(_, _, event)| matches!(event, routes::Event::IslandDown(_))).count()
}

#[test]
fn in_a_line_of_four_the_ends_reach_each_other() {
    for seed in seeds(5) {
        let mut world = settled(seed, 4, 50, &line(4), ms(20));
        assert_eq!((way(&world, 0, 3), way(&world, 3, 0)), ("i1 i2 i3".into(), "i2 i1 i0".into()));
        assert_ways(&world, seed);
        world.say(0, 7, Kind::Farewell);
        let took = world.run_until_equal(ms(200)).expect("a farewell crosses three links");
        assert!(took <= ms(100), "seed {seed}: {took:?}");
        assert_each_crossed_once(&world, seed);
    }
}

#[test]
fn the_table_is_complete_within_a_second_of_the_first_call() {
    for seed in seeds(5) {
        println!("seed {seed}");
        let mut world = World::new(seed).with_islands(2, 1, 1000);
        world.link(0, 1, ms(20));
        let took = world.run_until_equal(ms(1000));
        assert!(took.is_some(), "seed {seed}");
        assert_each_crossed_once(&world, seed);
    }
}

#[test]
fn in_a_ring_of_four_traffic_goes_the_other_way_round_when_a_link_is_cut() {
    for seed in seeds(5) {
        let mut world = settled(seed, 4, 20, &ring(4), ms(20));
        assert_eq!(way(&world, 0, 1), "i1");
        world.cut(0);
        world.run_for(ms(2000));
        assert_eq!((way(&world, 0, 1), way(&world, 1, 0)), ("i3 i2 i1".into(), "i2 i3 i0".into()));
        world.say(0, 0, Kind::Farewell);
        assert!(world.run_until_equal(ms(200)).is_some(), "seed {seed}");
        world.heal(0);
        world.run_for(ms(4000));
        assert_eq!((way(&world, 0, 1), downs(&world)), ("i1".into(), 0), "seed {seed}: {:?}", world.events);
        assert_ways(&world, seed);
    }
}

#[test]
fn a_cut_line_is_one_event_for_each_island_beyond_and_no_funeral() {
    for seed in seeds(5) {
        let mut world = settled(seed, 4, 20, &line(4), ms(20));
        let before = world.bridges.iter().map(|bridge| table::view(&bridge.table)).collect::<Vec<_>>();
        world.events.clear();
        let cut_at = world.now;
        world.cut(1);
        world.run_for(ms(4000));
        assert_eq!(world.events.len(), 8, "seed {seed}: {:?}", world.events);
        for (at, bridge, event) in &world.events {
            assert!(matches!(event, routes::Event::IslandDown(_)), "seed {seed}: {bridge} {event:?}");
            assert!(*at - cut_at <= ms(2000), "seed {seed}: after {:?}", *at - cut_at);
        }
        let after = world.bridges.iter().map(|bridge| table::view(&bridge.table)).collect::<Vec<_>>();
        assert_eq!(before, after);
        world.say(0, 0, Kind::Draining);
        world.say(3, 0, Kind::Farewell);
        world.run_for(ms(500));
        world.events.clear();
        world.heal(1);
        let took = world.run_until_equal(ms(3000)).unwrap_or_else(|| panic!("seed {seed}"));
        println!("seed {seed}: equal {took:?} after the cut healed");
        world.run_for(ms(1000));
        let ups = world.events.iter().filter(|(_, _, event)| matches!(event, routes::Event::IslandUp(_)));
        assert_eq!((ups.count(), world.events.len()), (8, 8), "seed {seed}: {:?}", world.events);
    }
}

#[test]
fn in_a_full_mesh_of_five_each_word_crosses_each_link_once() {
    for seed in seeds(10) {
        let mut world = settled(seed, 5, 20, &full(5), ms(20));
        for _ in 0..400 {
            world.churn();
            let pause = world.rng.random_range(0..20);
            world.run_for(ms(pause));
        }
        assert!(world.run_until_equal(ms(200)).is_some(), "seed {seed}");
        assert_each_crossed_once(&world, seed);
        assert_ways(&world, seed);
        assert_eq!(downs(&world), 0);
    }
}

#[test]
fn a_star_passes_everything_on_through_its_middle() {
    for seed in seeds(5) {
        let mut world = settled(seed, 9, 20, &star(9), ms(20));
        for _ in 0..400 {
            world.churn();
            let pause = world.rng.random_range(0..20);
            world.run_for(ms(pause));
        }
        assert!(world.run_until_equal(ms(200)).is_some(), "seed {seed}");
        assert_each_crossed_once(&world, seed);
        assert_ways(&world, seed);
    }
}

#[test]
fn twenty_who_leave_at_once_are_known_everywhere() {
    for seed in seeds(5) {
        let mut world = settled(seed, 6, 30, &ring(6), ms(20));
        for member in 0..20 {
            world.say(2, member, Kind::Farewell);
        }
        let took = world.run_until_equal(ms(500)).unwrap_or_else(|| panic!("seed {seed}"));
        assert!(took <= 3 * ms(22) + ms(100), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_site_that_leaves_at_once_is_heard_everywhere() {
    for seed in seeds(5) {
        let mut world = settled(seed, 3, 20, &line(3), ms(20));
        for member in 0..20 {
            world.say(0, member, Kind::Farewell);
        }
        world.run_for(ms(3));
        world.leave(0);
        world.run_for(ms(300));
        let far = &world.bridges[2].table;
        let left = world.islands[0].members.iter().filter(|member| far[*member].has_left()).count();
        assert_eq!((left, way(&world, 2, 0)), (20, "none".into()), "seed {seed}");
    }
}

#[test]
fn of_two_bridges_either_can_die_and_the_island_stays_reachable() {
    for seed in seeds(5) {
        println!("seed {seed}");
        let mut world = World::new(seed).with_islands(3, 2, 20);
        // Two ways between neighbours, over bridges of their own; the third island hangs on one bridge of the second.
        for (one, other) in [(0, 2), (1, 3), (3, 4)] {
            world.link(one, other, ms(20));
        }
        world.run_for(ms(3000));
        assert!(world.is_equal(), "seed {seed}");
        assert_eq!((way(&world, 0, 2), way(&world, 1, 0)), ("i1 i2".into(), "i0".into()));
        world.kill(2);
        world.run_for(ms(3000));
        world.say(2, 3, Kind::Farewell);
        assert!(world.run_until_equal(ms(300)).is_some(), "seed {seed}");
        assert_eq!(
            (way(&world, 0, 2), downs(&world)),
            ("i1 i2".into(), 0),
            "seed {seed}: {:?}",
            world.events
        );
        world.restart(2);
        assert!(world.run_until_equal(ms(2000)).is_some(), "seed {seed}");
    }
}

#[test]
fn ten_islands_of_a_hundred_agree_in_every_shape() {
    let shapes = [("line", line(10)), ("ring", ring(10)), ("star", star(10)), ("mesh", full(10))];
    for seed in seeds(2) {
        for (shape, edges) in &shapes {
            let mut world = settled(seed, 10, 100, edges, ms(20));
            for _ in 0..100 {
                world.churn_some();
                let pause = world.rng.random_range(0..20);
                world.run_for(ms(pause));
            }
            let limit = diameter(10, edges) * ms(44) + ms(100);
            let took = world.run_until_equal(limit);
            assert!(took.is_some(), "seed {seed}, {shape}: {}", world.difference());
            println!("seed {seed}, {shape}: equal after {took:?}");
            assert_each_crossed_once(&world, seed);
        }
    }
}

#[test]
fn random_graphs_agree_soon_after_the_last_fault() {
    let mut slowest = Duration::ZERO;
    for seed in seeds(30) {
        println!("seed {seed}");
        let mut world = World::new(seed);
        let (islands, more) = (world.rng.random_range(3..14), world.rng.random_range(0..10));
        let bridges = world.rng.random_range(1..4);
        world = world.with_islands(islands, bridges, 20);
        let edges = random(&mut world, islands, more);
        let delays: Vec<_> = edges.iter().map(|_| ms(world.rng.random_range(1..60))).collect();
        for ((one, other), delay) in edges.iter().zip(&delays) {
            let [one, other] = [*one, *other].map(|island| {
                let bridges = &world.islands[island].bridges;
                bridges[world.rng.random_range(0..bridges.len())]
            });
            world.link(one, other, *delay);
        }
        for _ in 0..300 {
            let link = world.rng.random_range(0..edges.len());
            match world.rng.random_range(0..30) {
                0 => world.cut(link),
                1..3 => world.heal(link),
                3 => {
                    let bridge = world.rng.random_range(0..world.bridges.len());
                    world.restart(bridge);
                }
                _ => world.churn_some(),
            }
            let pause = world.rng.random_range(0..120);
            world.run_for(ms(pause));
        }
        for link in 0..edges.len() {
            world.heal(link);
        }
        let round_trip = delays.iter().max().copied().unwrap_or_default() * 2;
        let limit = diameter(islands, &edges) * round_trip + ms(2000);
        let took = world.run_until_equal(limit);
        let took =
            took.unwrap_or_else(|| panic!("seed {seed}: differ after {limit:?}: {}", world.difference()));
        println!("seed {seed}: {islands} islands, {} links, equal after {took:?} of {limit:?}", edges.len());
        slowest = slowest.max(took);
        world.run_for(ms(8000));
        // Among more islands the cheapest way may be longer than a path can be.
        if islands <= PATH_ISLANDS_MAX + 1 {
            assert_ways(&world, seed);
        }
        assert!(world.is_equal(), "seed {seed}");
    }
    println!("slowest {slowest:?}");
}
