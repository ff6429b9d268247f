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
