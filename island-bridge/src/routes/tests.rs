//! Ways between islands: found, replaced, withdrawn, never in a circle.

use proptest::prelude::*;

use super::*;

fn bridge(number: u8) -> MemberId {
    MemberId([number; 32])
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn reach(path: &str, cost: u64) -> Reach {
    let path = Path::new(path.split_whitespace().map(str::to_owned).collect()).unwrap();
    Reach { path, cost: ms(cost), load: IslandLoad::default() }
}

fn routes(reaches: &[(&str, u64)]) -> Vec<Route> {
    reaches.iter().map(|(path, cost)| Route::Reach(reach(path, *cost))).collect()
}

/// Island "a" with links to "b" (bridge 1, 9 ms away) and "c" (bridge 2, 19 ms away), and the time.
fn two_links() -> (RouteTable, Instant) {
    let (mut table, now) = (RouteTable::new("a".into()), Instant::now());
    table.link_up(now, bridge(1), "b".into(), ms(9));
    table.link_up(now, bridge(2), "c".into(), ms(19));
    table.link_routes(now, bridge(1), routes(&[("b", 0)]));
    table.link_routes(now, bridge(2), routes(&[("c", 0)]));
    (table, now)
}

fn way(table: &RouteTable, island: &str) -> Option<(String, u128)> {
    let choice = table.best(island)?;
    Some((choice.reach.path.islands().join(" "), choice.reach.cost.as_millis()))
}

fn said(table: &mut RouteTable, now: Instant, peer: u8) -> Vec<String> {
    let text = |route: Route| match route {
        Route::Reach(reach) => reach.path.islands().join(" "),
        Route::Withdrawn(island) => format!("no {island}"),
    };
    table.poll_link(now, bridge(peer)).into_iter().map(text).collect()
}

fn events(table: &mut RouteTable) -> Vec<Event> {
    std::iter::from_fn(|| table.poll_event()).collect()
}

#[test]
fn the_cheapest_way_is_taken_round_trips_added() {
    let (mut table, now) = two_links();
    assert_eq!(way(&table, "b"), Some(("b".into(), 10)));
    table.link_routes(now, bridge(1), routes(&[("b d", 50)]));
    assert_eq!(way(&table, "d"), Some(("b d".into(), 60)));
    table.link_routes(now, bridge(2), routes(&[("c d", 10)]));
    assert_eq!(way(&table, "d"), Some(("c d".into(), 30)));
}

#[test]
fn a_little_cheaper_is_not_worth_a_change() {
    let (mut table, now) = two_links();
    table.link_routes(now, bridge(1), routes(&[("b d", 50)]));
    table.link_routes(now, bridge(2), routes(&[("c d", 31)]));
    assert_eq!(way(&table, "d"), Some(("b d".into(), 60)));
    table.link_round_trips(now, [(bridge(2), ms(17))]);
    assert_eq!(way(&table, "d"), Some(("c d".into(), 49)));
}

#[test]
fn a_path_that_leads_back_is_no_path() {
    let (mut table, now) = two_links();
    table.link_routes(now, bridge(1), routes(&[("b d", 50)]));
    table.link_routes(now, bridge(1), routes(&[("b a d", 1)]));
    assert_eq!(way(&table, "d"), None);
    table.link_routes(now, bridge(1), routes(&[("x d", 1)]));
    assert_eq!(way(&table, "d"), None);
    table.bridge_routes(now, bridge(3), vec![reach("e a d", 1), reach("e", 5)]);
    assert_eq!((way(&table, "d"), way(&table, "e")), (None, Some(("e".into(), 5))));
}

#[test]
fn each_link_is_told_of_our_island_and_of_ways_not_through_its_own() {
    let (mut table, now) = two_links();
    table.link_routes(now, bridge(1), routes(&[("b d", 0)]));
    table.link_routes(now, bridge(2), routes(&[("c d", 30)]));
    assert_eq!(said(&mut table, now, 1), ["a", "a c", "a c d"]);
    assert_eq!(said(&mut table, now, 2), ["a", "a b", "a b d"]);
    assert_eq!(said(&mut table, now + ms(5000), 2), Vec::<String>::new());
}

#[test]
fn our_island_is_told_only_what_our_own_links_bring() {
    let (mut table, now) = two_links();
    table.bridge_routes(now, bridge(3), vec![reach("b", 1), reach("e", 5)]);
    assert_eq!(way(&table, "b"), Some(("b".into(), 1)));
    let told = table.poll_own(now).unwrap();
    assert_eq!(told, [reach("b", 10), reach("c", 20)]);
    assert_eq!(said(&mut table, now, 2), ["a", "a b", "a e"]);
    table.bridge_routes(now, bridge(3), Vec::new());
    assert_eq!((way(&table, "b").map(|way| way.1), way(&table, "e")), (Some(10), None));
}

#[test]
fn a_path_has_at_most_eight_islands() {
    let (mut table, now) = two_links();
    table.link_routes(now, bridge(1), routes(&[("b 2 3 4 5 6 7 8", 0), ("b 2 3 4 5 6 7", 0)]));
    assert!(way(&table, "8").is_some() && way(&table, "7").is_some());
    let told = said(&mut table, now, 2);
    table.link_up(now, bridge(4), "e".into(), ms(500));
    table.link_routes(now, bridge(4), routes(&[("e 8", 1)]));
    assert_eq!(way(&table, "8").map(|way| way.0), Some("b 2 3 4 5 6 7 8".into()));
    assert!(said(&mut table, now + ms(50), 2).contains(&"a e 8".into()));
    assert!(told.contains(&"a b 2 3 4 5 6 7".into()) && !told.iter().any(|path| path.ends_with('8')));
}

#[test]
fn a_cheap_way_that_is_too_long_to_lead_further_does_not_hide_a_short_one() {
    let (mut table, now) = two_links();
    table.link_up(now, bridge(4), "e".into(), ms(500));
    table.link_routes(now, bridge(1), routes(&[("b 2 3 4 5 6 x", 0)]));
    table.link_routes(now, bridge(4), routes(&[("e", 0), ("e x", 1)]));
    assert_eq!(way(&table, "x").map(|way| way.0), Some("b 2 3 4 5 6 x".into()));
    let told = said(&mut table, now, 2);
    assert_eq!(told[told.len() - 2..], ["a b 2 3 4 5 6 x", "a e x"], "the cheapest and the shortest");
    let own = table.poll_own(now).unwrap().into_iter().filter(|reach| reach.path.destination() == "x");
    assert_eq!(own.count(), 2, "other bridges hand on the short one");
    // The next one takes the cheapest, and hands on the other.
    let mut next = RouteTable::new("c".into());
    next.link_up(now, bridge(1), "a".into(), ms(9));
    next.link_up(now, bridge(2), "d".into(), ms(9));
    next.link_routes(now, bridge(1), routes(&[("a", 0), ("a b 2 3 4 5 6 x", 10), ("a e x", 502)]));
    assert_eq!(way(&next, "x").map(|way| way.0), Some("a b 2 3 4 5 6 x".into()));
    assert_eq!(said(&mut next, now, 2), ["c a", "c", "c a e x"]);
    // All that is said of an island at once is all there is.
    next.link_routes(now, bridge(1), routes(&[("a e x", 502)]));
    assert_eq!(way(&next, "x").map(|way| way.0), Some("a e x".into()));
}

#[test]
fn a_loss_is_told_at_once_and_what_is_only_better_once_a_second() {
    let (mut table, now) = two_links();
    said(&mut table, now, 2);
    table.link_routes(now + ms(60), bridge(1), routes(&[("b d", 10)]));
    assert_eq!(said(&mut table, now + ms(60), 2), ["a b d"]);
    // Dearer: still true.
    table.link_routes(now + ms(200), bridge(1), routes(&[("b d", 100)]));
    assert_eq!(said(&mut table, now + ms(200), 2), Vec::<String>::new());
    assert_eq!(table.links[&bridge(2)].told.due_at(), Some(now + ms(1060)));
    table.link_routes(now + ms(300), bridge(1), vec![Route::Withdrawn("d".into())]);
    assert_eq!(said(&mut table, now + ms(300), 2), ["no d"]);
    table.link_routes(now + ms(310), bridge(1), routes(&[("b d", 10)]));
    assert_eq!(said(&mut table, now + ms(310), 2), Vec::<String>::new());
    assert_eq!(said(&mut table, now + ms(350), 2), ["a b d"]);
}

#[test]
fn small_steps_of_cost_add_up() {
    let (mut table, now) = two_links();
    said(&mut table, now, 2);
    let mut told = 0;
    for step in 1..=50 {
        table.link_round_trips(now + ms(step * 2000), [(bridge(1), ms(9 + step))]);
        told += said(&mut table, now + ms(step * 2000), 2).len();
    }
    assert!((10..25).contains(&told), "{told}");
}

#[test]
fn an_island_is_down_once_when_its_last_way_is_gone_and_up_once() {
    let (mut table, now) = two_links();
    table.link_routes(now, bridge(2), routes(&[("c b", 10)]));
    let up = |island: &str| Event::IslandUp(island.into());
    assert_eq!(events(&mut table), [up("b"), up("c")]);
    assert!(table.poll_own(now).is_some());
    table.link_down(now, bridge(1));
    assert_eq!(way(&table, "b"), Some(("c b".into(), 30)));
    table.link_down(now, bridge(2));
    table.handle_timeout(now + ms(199));
    assert_eq!(events(&mut table), []);
    assert_eq!(table.poll_timeout(), Some(now + ms(50)));
    assert_eq!(table.poll_own(now + ms(50)), Some(Vec::new()));
    assert_eq!(table.poll_timeout(), Some(now + ms(200)));
    table.handle_timeout(now + ms(200));
    let down = |island: &str| Event::IslandDown(island.into());
    assert_eq!(events(&mut table), [down("b"), down("c")]);
    table.link_up(now + ms(300), bridge(1), "b".into(), ms(9));
    table.link_routes(now + ms(300), bridge(1), routes(&[("b", 0)]));
    table.link_routes(now + ms(400), bridge(1), routes(&[("b", 0)]));
    assert_eq!(events(&mut table), [up("b")]);
}

#[test]
fn a_way_that_comes_back_soon_was_never_lost() {
    let (mut table, now) = two_links();
    events(&mut table);
    table.link_routes(now, bridge(1), vec![Route::Withdrawn("b".into())]);
    table.link_routes(now + ms(150), bridge(2), routes(&[("c b", 10)]));
    table.handle_timeout(now + ms(500));
    assert_eq!(events(&mut table), []);
}

#[test]
fn who_leaves_withdraws_everything() {
    let (mut table, now) = two_links();
    said(&mut table, now, 1);
    table.poll_own(now);
    table.leave(now + ms(60));
    assert_eq!(said(&mut table, now + ms(60), 1), ["no a", "no c"]);
    assert_eq!(table.poll_own(now + ms(60)), Some(Vec::new()));
    table.link_routes(now + ms(2000), bridge(2), routes(&[("c d", 10)]));
    assert_eq!(said(&mut table, now + ms(2000), 1), Vec::<String>::new());
}

#[test]
fn loads_follow_the_ways_that_were_told() {
    let (mut table, now) = two_links();
    let busy = IslandLoad { members: 5, in_flight: 3, capacity: 9 };
    table.link_load(now, bridge(1), vec![("b".into(), busy), ("unknown".into(), busy)]);
    table.own_load(IslandLoad { members: 1, ..busy });
    assert_eq!(table.loads(bridge(2)), []);
    said(&mut table, now, 2);
    assert_eq!(table.loads(bridge(2)), [("a".into(), IslandLoad { members: 1, ..busy }), ("b".into(), busy)]);
}

#[test]
fn a_link_speaks_of_at_most_256_islands() {
    let (mut table, now) = two_links();
    let many = |from: usize| (from..from + 300).map(|number| Route::Reach(reach(&format!("b {number}"), 1)));
    table.link_routes(now, bridge(1), many(0).collect());
    table.link_routes(now, bridge(1), many(300).collect());
    assert_eq!(table.links[&bridge(1)].heard.len(), ISLANDS_MAX);
    assert_eq!(table.islands().count(), ISLANDS_MAX - 1);
    assert!(table.best("c").is_some() && table.best("b").is_some());
    // What others are told has room where they keep it.
    let told = table.poll_link(now, bridge(2));
    assert_eq!(told.len(), ISLANDS_MAX - 1, "ours, and all others but theirs");
}

/// "a" tells "b" of islands behind "c", and of more behind "d" than may be.
#[test]
fn made_up_islands_behind_one_link_keep_out_none_behind_others() {
    for made_up in ["0", "z"] {
        let (mut table, mut now) = two_links();
        table.link_up(now, bridge(3), "d".into(), ms(1));
        let many = |link: &str, name: &str, count: usize| -> Vec<Route> {
            let path = |number| format!("{link} {name}{number}");
            (0..count).map(|number| Route::Reach(reach(&path(number), 1))).collect()
        };
        table.link_routes(now, bridge(3), many("d", made_up, ISLANDS_MAX));
        assert_eq!(table.islands().filter(|(island, _)| island.starts_with(made_up)).count(), 253);
        said(&mut table, now, 1);
        table.poll_own(now);
        // Later than those, of a link and of another bridge.
        table.link_routes(now, bridge(2), many("c", "y", 60));
        let siblings = many("e", "x", 60).into_iter().filter_map(Route::into_reach).collect();
        table.bridge_routes(now, bridge(4), siblings);
        let honest = |names: &mut dyn Iterator<Item = String>| {
            let (mut by_link, mut by_bridge, mut others) = (0, 0, 0);
            for name in names {
                match name.split_whitespace().last() {
                    Some(name) if name.starts_with('y') => by_link += 1,
                    Some(name) if name.starts_with('x') => by_bridge += 1,
                    _ => others += 1,
                }
            }
            (by_link, by_bridge, others)
        };
        assert_eq!(honest(&mut table.islands().map(|(island, _)| island.to_owned())), (60, 60, 135));
        now += ms(60);
        let told = said(&mut table, now, 1);
        let (gone, new): (Vec<_>, Vec<_>) = told.into_iter().partition(|route| route.starts_with("no "));
        assert_eq!((gone.len(), honest(&mut new.into_iter())), (120, (60, 60, 0)));
        let own = table.poll_own(now).unwrap();
        assert_eq!(honest(&mut own.iter().map(|reach| reach.path.islands().join(" "))).0, 60);
        assert_eq!(table.left_out_total(), 3 + 120);
        // Nothing takes turns.
        events(&mut table);
        for _ in 0..3 {
            now += ms(1000);
            table.handle_timeout(now);
            table.link_routes(now, bridge(3), many("d", made_up, ISLANDS_MAX));
            table.link_routes(now, bridge(2), many("c", "y", 60));
            assert_eq!(said(&mut table, now, 1), [""; 0]);
        }
        let down = events(&mut table).into_iter().filter(|event| matches!(event, Event::IslandDown(_)));
        assert_eq!(down.count(), 120);
    }
}

/// Something that happens to a bridge of island "a" with links to "b", "c" and "d".
#[derive(Clone, Debug)]
enum Step {
    Up(u8),
    Down(u8),
    Said(u8, Vec<Route>),
    Bridge(Vec<Reach>),
    RoundTrip(u8, u64),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    let islands = || proptest::sample::subsequence(vec!["a", "b", "c", "d", "e", "f"], 1..5).prop_shuffle();
    let reaches = move || (islands(), 0..100u64).prop_map(|(path, cost)| reach(&path.join(" "), cost));
    let withdrawn = proptest::sample::select(vec!["a", "b", "c", "d", "e", "f"])
        .prop_map(|island| Route::Withdrawn(island.into()));
    let routes = prop_oneof![3 => reaches().prop_map(Route::Reach), 1 => withdrawn];
    prop_oneof![
        2 => (0..3u8).prop_map(Step::Up),
        1 => (0..3u8).prop_map(Step::Down),
        6 => (0..3u8, proptest::collection::vec(routes, 1..4)).prop_map(|(link, said)| Step::Said(link, said)),
        1 => proptest::collection::vec(reaches(), 0..4).prop_map(Step::Bridge),
        1 => (0..3u8, 1..100u64).prop_map(|(link, millis)| Step::RoundTrip(link, millis)),
        4 => (1..700u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn what_links_are_told_adds_up_to_what_is_true(steps in proptest::collection::vec(steps(), 1..80)) {
        let (mut table, mut now) = (RouteTable::new("a".into()), Instant::now());
        let mut told: [Option<BTreeMap<String, Reach>>; 3] = [None, None, None];
        let mut reachable = BTreeSet::new();
        for step in steps.into_iter().chain([Step::Wait(1000), Step::Wait(1000)]) {
            match step {
                Step::Up(link) => {
                    told[usize::from(link)] = Some(BTreeMap::new());
                    table.link_up(now, bridge(link), ["b", "c", "d"][usize::from(link)].into(), ms(9));
                }
                Step::Down(link) => {
                    told[usize::from(link)] = None;
                    table.link_down(now, bridge(link));
                }
                Step::Said(link, said) => table.link_routes(now, bridge(link), said),
                Step::Bridge(reaches) => table.bridge_routes(now, bridge(9), reaches),
                Step::RoundTrip(link, millis) => table.link_round_trips(now, [(bridge(link), ms(millis))]),
                Step::Wait(millis) => now += ms(millis),
            }
            table.handle_timeout(now);
            table.poll_own(now);
            for (link, told) in (0u8..).zip(&mut told) {
                for route in table.poll_link(now, bridge(link)) {
                    let told = told.as_mut().expect("only links that are up are told");
                    match route {
                        Route::Withdrawn(island) => prop_assert!(told.remove(&island).is_some()),
                        Route::Reach(reach) => {
                            told.insert(reach.path.destination().to_owned(), reach);
                        }
                    }
                }
            }
            for event in events(&mut table) {
                match event {
                    Event::IslandUp(island) => prop_assert!(reachable.insert(island)),
                    Event::IslandDown(island) => prop_assert!(reachable.remove(&island)),
                }
            }
            prop_assert!(table.islands().all(|(_, choice)| !choice.reach.path.contains("a")));
        }
        prop_assert!(reachable.iter().map(String::as_str).eq(table.islands().map(|(island, _)| island)));
        for (told, island) in told.iter().zip(["b", "c", "d"]) {
            let Some(told) = told else { continue };
            for (to, reach) in told {
                prop_assert!(reach.path.next() == "a" && !reach.path.contains(island));
                prop_assert!(to == "a" || table.best(to).is_some());
            }
            let others = table.islands().filter(|(_, choice)| !choice.reach.path.contains(island));
            for (to, _) in others {
                prop_assert!(told.contains_key(to), "{to} was not told to {island}");
            }
        }
        prop_assert_eq!(table.poll_timeout(), None);
    }
}
