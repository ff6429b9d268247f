//! Links between bridges over real sockets on loopback.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at the first surprise, as tests do")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use island_bridge::bridge::{Config, EndReason, State};
use island_bridge::frame::Goodbye;
use island_bridge::routes::Choice;
use island_bridge::session::{DownReason, PROTOCOL};

mod hostile;
mod node;
mod refusals;
mod relay;
mod tunnels;

use node::{Node, config, id, target};
use relay::Relay;

/// North, and south, where north is allowed.
fn pair() -> (Node, Node) {
    (Node::start(1, config("north", &[])), Node::start(2, config("south", &[1])))
}

/// The same, linked over a relay.
async fn linked_over_relay() -> (Node, Node, Relay) {
    let (mut north, mut south) = pair();
    let relay = Relay::start(south.addr()).await;
    north.bridge.link(target(2, relay.addr)).await;
    north.sees_up(2).await;
    south.sees_up(1).await;
    // Before a round trip was measured the silence limit is longer.
    north.shows(2, |link| link.round_trip.is_some()).await;
    south.shows(1, |link| link.round_trip.is_some()).await;
    (north, south, relay)
}

#[tokio::test]
async fn words_cross_both_ways() {
    let (mut north, mut south) = pair();
    for number in 0..500 {
        if number % 2 == 0 { &north } else { &south }.say(number, number % 10 == 3);
    }
    north.bridge.link(target(2, south.addr())).await;
    north.hears(500).await;
    south.hears(500).await;
    north.sees_up(2).await;
    south.sees_up(1).await;
    north.say(1000, false);
    south.say(1001, true);
    north.hears(502).await;
    south.hears(502).await;
    let link = north.shows(2, |link| link.round_trip.is_some()).await;
    assert_eq!((link.state, link.island.as_deref()), (State::Up, Some("south")));
    assert_eq!((link.counters.words_sent, link.counters.words_heard), (251, 251));
    assert_eq!(south.bridge.status().await.links[0].state, State::Up);
}

#[tokio::test]
async fn words_are_passed_on_along_a_line() {
    let (north, south) = pair();
    let east = Node::start(3, config("east", &[2]));
    north.bridge.link(target(2, south.addr())).await;
    south.bridge.link(target(3, east.addr())).await;
    north.say(1, false);
    east.say(2, true);
    for node in [&north, &south, &east] {
        node.hears(2).await;
    }
    let mut ways = north.ways.clone();
    let ways = tokio::time::timeout(Duration::from_secs(5), ways.wait_for(|ways| ways.len() == 2));
    let ways = ways.await.unwrap().unwrap();
    assert_eq!(ways["east"].reach.path.islands(), ["south", "east"]);
}

#[tokio::test]
async fn what_was_dropped_comes_again_when_an_island_comes_back_or_a_link() {
    let (north, mut south) = pair();
    north.bridge.link(target(2, south.addr())).await;
    for number in 0..20 {
        north.say(number, false);
    }
    south.hears(20).await;
    south.lose(3);
    // East can be reached through north from now on.
    let east = Node::start(3, config("east", &[1]));
    north.bridge.link(target(3, east.addr())).await;
    south.hears(20).await;
    south.lose(4);
    north.bridge.unlink(id(2)).await;
    south.sees_down(1).await;
    north.bridge.link(target(2, south.addr())).await;
    south.hears(20).await;
    assert!(south.has(3) && south.has(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_ring_of_four_agrees_on_a_large_table() {
    let names = ["north", "east", "south", "west"];
    let node = |seed: u8| Node::start(seed, config(names[usize::from(seed)], &[(seed + 3) % 4]));
    let nodes: Vec<_> = (0..4).map(node).collect();
    for (index, node) in (0_u32..).zip(&nodes) {
        for number in 0..2000 {
            node.say(index * 10_000 + number, number % 9 == 0);
        }
    }
    for seed in 0..4_u8 {
        let next = (seed + 1) % 4;
        nodes[usize::from(seed)].bridge.link(target(next, nodes[usize::from(next)].addr())).await;
    }
    for node in &nodes {
        node.hears(8000).await;
    }
}

#[tokio::test]
async fn a_program_that_stalls_does_not_cost_the_link() {
    let (mut north, mut south, _relay) = linked_over_relay().await;
    let stalled = south.work.clone().lock_owned().await;
    for number in 0..5000 {
        north.say(number, true);
    }
    // Longer than the silence limit, with more on the way than a stranger's window.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!north.was_down() && !south.was_down());
    drop(stalled);
    south.hears(5000).await;
}

#[tokio::test]
async fn a_cut_is_noticed_within_the_silence_limit_and_heals() {
    let (mut north, mut south, relay) = linked_over_relay().await;
    relay.cut();
    let cut_at = Instant::now();
    for reason in [north.sees_down(2).await, south.sees_down(1).await] {
        assert!(matches!(reason, EndReason::Session(DownReason::Silent(_))), "{reason:?}");
    }
    // A second, a ping's interval, and a little for a busy machine.
    assert!(cut_at.elapsed() < Duration::from_millis(2500), "{:?}", cut_at.elapsed());
    north.say(1, false);
    south.say(2, true);
    relay.heal();
    north.hears(2).await;
    south.hears(2).await;
}

#[tokio::test]
async fn a_link_survives_a_new_address() {
    let (mut north, mut south, relay) = linked_over_relay().await;
    // A second one behind the first: south hears from a port that it has never seen, as when a NAT forgets.
    let rebound = Relay::start(south.addr()).await;
    relay.lead_to(rebound.addr);
    for number in 0..100 {
        north.say(number, false);
        south.say(100 + number, true);
    }
    north.hears(200).await;
    south.hears(200).await;
    assert!(!north.was_down() && !south.was_down());
}

#[tokio::test]
async fn a_link_comes_back_when_the_other_side_has_restarted() {
    let (mut north, south, relay) = linked_over_relay().await;
    north.say(1, false);
    south.hears(1).await;
    relay.cut();
    south.kill().await;
    north.sees_down(2).await;
    let south = Node::start(2, config("south", &[1]));
    relay.lead_to(south.addr());
    relay.heal();
    north.sees_up(2).await;
    south.hears(1).await;
    assert!(south.has(1));
}

#[tokio::test]
async fn for_how_long_somebody_has_been_gone_crosses_a_link() {
    for protocol in [PROTOCOL, (1, 1)] {
        let (north, old) = (Node::start(1, config("north", &[])), config("south", &[1]));
        let south = Node::start(2, Config { protocol, ..old });
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        north.says_farewell(1, minute);
        north.bridge.link(target(2, south.addr())).await;
        south.hears(1).await;
        north.says_farewell(2, hour);
        south.hears(2).await;
        let ages: Vec<u64> = south.ages().into_iter().map(|(_, age)| age / 60).collect();
        assert_eq!(ages, if protocol == PROTOCOL { vec![1, 60] } else { vec![] });
    }
}

#[tokio::test]
async fn goodbye_comes_after_all_urgent_words() {
    let (mut north, mut south) = pair();
    let by_name = format!("{}@localhost:{}", id(2), south.addr().port());
    north.bridge.link(by_name.parse().unwrap()).await;
    north.sees_up(2).await;
    south.sees_up(1).await;
    for number in 0..200 {
        north.say(number, true);
    }
    north.leave().await;
    let reason = south.sees_down(1).await;
    assert!(matches!(reason, EndReason::Session(DownReason::EndedByPeer(Goodbye::Leaving))), "{reason:?}");
    assert!((0..200).all(|number| south.has(number)));
}

#[tokio::test]
async fn a_link_is_taken_away_and_given_again_while_running() {
    let (mut north, mut south) = pair();
    north.bridge.link(target(2, south.addr())).await;
    north.sees_up(2).await;
    south.sees_up(1).await;
    assert!(north.bridge.unlink(id(2)).await);
    let reason = south.sees_down(1).await;
    assert!(matches!(reason, EndReason::Session(DownReason::EndedByPeer(Goodbye::Unlinked))), "{reason:?}");
    let reason = north.sees_down(2).await;
    assert!(matches!(reason, EndReason::Session(DownReason::Ended)), "{reason:?}");
    assert!(north.bridge.status().await.links.is_empty());
    assert!(!north.bridge.unlink(id(2)).await);
    south.say(1, false);
    assert!(!north.has(1));
    north.bridge.link(target(2, south.addr())).await;
    north.hears(1).await;
}

#[tokio::test]
async fn an_island_that_takes_another_name_is_known_by_that_alone() {
    for caller_renames in [true, false] {
        let (mut north, mut south) = pair();
        north.bridge.link(target(2, south.addr())).await;
        north.sees_up(2).await;
        south.sees_up(1).await;
        let (old, renamed, other) =
            if caller_renames { ("north", &north, &mut south) } else { ("south", &south, &mut north) };
        renamed.say(1, false);
        other.ways.wait_for(|ways| ways.contains_key(old)).await.unwrap();
        renamed.bridge.rename("east".to_owned()).await;
        // By our goodbye, or because the next link has come before the answer to it was heard.
        other.sees_down(if caller_renames { 1 } else { 2 }).await;
        let is_east = |ways: &BTreeMap<String, Choice>| ways.keys().eq(["east"]);
        other.ways.wait_for(is_east).await.unwrap();
        let known = renamed.ways.borrow().keys().cloned().collect::<Vec<_>>();
        assert!(!known.contains(&"east".to_owned()), "{known:?}");
        renamed.say(2, true);
        other.hears(2).await;
    }
}

#[tokio::test]
async fn two_nodes_that_call_each_other_have_one_link() {
    let (mut north, mut south) = (Node::start(1, config("north", &[])), Node::start(2, config("south", &[])));
    let (to_south, to_north) = (target(2, south.addr()), target(1, north.addr()));
    tokio::join!(north.bridge.link(to_south), south.bridge.link(to_north));
    north.say(1, false);
    south.say(2, true);
    north.hears(2).await;
    south.hears(2).await;
    // Both have settled on the same connection once a ping has gone round.
    north.shows(2, |link| link.state == State::Up && link.round_trip.is_some()).await;
    south.shows(1, |link| link.state == State::Up && link.round_trip.is_some()).await;
    let _settled = (north.was_down(), south.was_down());
    north.say(3, false);
    south.hears(3).await;
    south.say(4, false);
    north.hears(4).await;
    assert!(!north.was_down() && !south.was_down());
}
