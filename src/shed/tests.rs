use std::sync::Arc;

use bytes::Bytes;
use isle_mesh::member::{Record, Stamp, Standing};

use super::*;

fn origin() -> Instant {
    Instant::now()
}

fn peer(number: u8, in_flight: u32, heard: Instant) -> Member {
    Member {
        id: MemberId([number; 32]),
        stamp: Stamp::new(1, 1),
        record: Arc::new(Record {
            name: format!("i{number}"),
            roles: vec!["intermediary".to_owned()],
            addresses: Vec::new(),
            http_port: 5235,
            unicast_port: 1,
            island: "local".to_owned(),
            island_given: false,
            draining: false,
            catalogue: None,
            watchers: Vec::new(),
            protocol: (1, 1),
            version: String::new(),
            tags: Vec::new(),
        }),
        record_bytes: Bytes::new(),
        standing: Standing::Alive,
        proven: true,
        reachable: true,
        reason: None,
        since: heard,
        heard: Some(heard),
        load: Load { in_flight, capacity: 100 },
        http_addresses: vec![([127, 0, 0, number], 5235).into()],
        is_self: false,
        far: false,
    }
}

fn busy(in_flight: u32) -> Load {
    Load { in_flight, capacity: 100 }
}

#[test]
fn the_less_busy_of_two_gets_it() {
    let now = origin();
    let mut others = Peers::new(1);
    let peers = [peer(1, 50, now), peer(2, 10, now)];
    for _ in 0..20 {
        assert_eq!(others.peer(now, busy(90), Why::Full, &peers, &[]), Some(peers[1].id));
    }
    assert_eq!(others.peer(now, busy(90), Why::Full, &peers, &[peers[1].id]), Some(peers[0].id));
}

#[test]
fn nobody_gets_it_who_is_as_busy_as_we_are() {
    let now = origin();
    let mut others = Peers::new(2);
    let peers = [peer(1, 75, now)];
    assert_eq!(others.peer(now, busy(90), Why::Full, &peers, &[]), None);
    assert_eq!(others.peer(now, busy(1), Why::Draining, &peers, &[]), Some(peers[0].id));
    assert_eq!(others.peer(now, busy(1), Why::Draining, &[peer(1, 80, now)], &[]), None, "no room");
}

#[test]
fn old_news_and_the_doubtful_do_not_count() {
    let now = origin();
    let mut others = Peers::new(3);
    let later = now + FRESH + Duration::from_millis(1);
    let mut member = peer(1, 0, now);
    assert_eq!(others.peer(later, busy(90), Why::Full, [&member], &[]), None);
    others.told(later, member.id, Load { in_flight: 1, capacity: 100 });
    assert_eq!(
        others.peer(later, busy(90), Why::Full, [&member], &[]),
        Some(member.id),
        "its answer is news"
    );
    member.standing = Standing::Suspect;
    assert_eq!(others.peer(later, busy(90), Why::Full, [&member], &[]), None);
    let own = Member { is_self: true, ..peer(1, 0, now) };
    assert_eq!(others.peer(now, busy(90), Why::Full, [&own], &[]), None);
}

#[test]
fn what_we_handed_over_counts_until_it_returns() {
    let now = origin();
    let mut others = Peers::new(4);
    let idle = peer(1, 0, now);
    let mut sent = 0;
    while others.peer(now, busy(100), Why::Full, [&idle], &[]).is_some() {
        others.handed(idle.id);
        sent += 1;
    }
    assert_eq!(sent, 75, "no more than three quarters of our own load, whatever it last told");
    others.returned(idle.id);
    assert_eq!(others.peer(now, busy(100), Why::Full, [&idle], &[]), Some(idle.id));
}

#[test]
fn those_turned_away_come_back_at_different_times() {
    let mut others = Peers::new(5);
    let mut seen: Vec<_> = (0..100).map(|_| others.retry_after()).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [1, 2, 3]);
}

fn far(number: u8, island: &str) -> Member {
    let near = peer(number, 0, origin());
    let record = Record { island: island.to_owned(), ..(*near.record).clone() };
    Member {
        record: Arc::new(record),
        far: true,
        proven: false,
        heard: None,
        load: Load::default(),
        http_addresses: Vec::new(),
        ..near
    }
}

/// Islands as ROUTES tells of them: name, cost in milliseconds, in flight of a hundred.
fn islands<const N: usize>(all: [(&str, u64, u32); N]) -> BTreeMap<String, Arc<Island>> {
    let island = |(name, cost, in_flight): (&str, u64, u32)| {
        let load = IslandLoad { members: 3, in_flight, capacity: 100 };
        let path = isle_mesh::path::Path::new(vec![name.to_owned()]).unwrap();
        let reach = isle_mesh::reach::Reach { path, cost: Duration::from_millis(cost), load };
        let ways = vec![isle_mesh::island::Way { bridge: MemberId([200; 32]), reach }];
        let island = Island { name: name.to_owned(), reachable: true, since: origin(), load, ways };
        (name.to_owned(), Arc::new(island))
    };
    all.into_iter().map(island).collect()
}

#[test]
fn the_cheapest_island_with_clear_room_gets_what_ours_cannot_take() {
    let now = origin();
    let mut others = Peers::new(5);
    let members = [far(1, "south"), far(2, "west"), far(3, "east")];
    let mut chosen = |islands, avoid: &[MemberId]| others.far_peer(now, busy(100), &members, &islands, avoid);
    let all = || islands([("south", 40, 10), ("west", 20, 10), ("east", 10, 80)]);
    assert_eq!(chosen(all(), &[]), Some(members[1].id), "east is nearer, but full");
    assert_eq!(chosen(all(), &[members[1].id]), Some(members[0].id));
    assert_eq!(chosen(all(), &[members[0].id, members[1].id]), None);
    assert_eq!(chosen(islands([("south", 40, 78)]), &[]), None, "hardly less busy than we are");
    let mut cut = all();
    for island in cut.values_mut() {
        *island = Arc::new(Island { reachable: false, ..(**island).clone() });
    }
    assert_eq!(chosen(cut, &[]), None);
}

#[test]
fn far_intermediaries_are_not_buried_before_their_island_says_so() {
    let now = origin();
    let mut others = Peers::new(6);
    let members = [far(1, "south")];
    let quiet = islands([("south", 40, 0)]);
    let mut handed = 0;
    while let Some(id) = others.far_peer(now, busy(100), &members, &quiet, &[]) {
        others.handed(id);
        handed += 1;
    }
    assert_eq!(handed, 75);
    for _ in 0..handed {
        others.returned(members[0].id);
    }
    others.told(now, members[0].id, busy(100));
    assert_eq!(
        others.far_peer(now, busy(100), &members, &quiet, &[]),
        None,
        "it has just said that it is full"
    );
    let later = now + FRESH + Duration::from_millis(1);
    assert_eq!(others.far_peer(later, busy(100), &members, &quiet, &[]), Some(members[0].id));
}

#[test]
fn none_of_another_island_is_a_peer_of_ours_and_the_other_way_round() {
    let now = origin();
    let mut others = Peers::new(7);
    let members = [Member { heard: Some(now), proven: true, ..far(1, "south") }];
    assert_eq!(others.peer(now, busy(100), Why::Draining, &members, &[]), None);
    let near = [peer(2, 0, now)];
    assert_eq!(others.far_peer(now, busy(100), &near, &islands([("local", 1, 0)]), &[]), None);
    let draining = Record { draining: true, ..(*far(3, "south").record).clone() };
    let drains = [Member { record: Arc::new(draining), ..far(3, "south") }];
    assert_eq!(others.far_peer(now, busy(100), &drains, &islands([("south", 1, 0)]), &[]), None);
}
