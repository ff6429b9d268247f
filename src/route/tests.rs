use super::*;

const MS: Duration = Duration::from_millis(1);

fn id(number: u8) -> MemberId {
    MemberId([number; 32])
}

fn candidates(count: u8) -> Vec<Candidate> {
    let of = |number| Candidate {
        id: id(number),
        capacity: 256,
        last: false,
        heard: None,
        way: None,
        full: false,
    };
    (0..count).map(of).collect()
}

/// A clock of our own; the real one is read once, as its origin.
fn origin() -> Instant {
    Instant::now()
}

/// Sends `count` requests, each answered by `latency`; returns how many each member got.
fn send(
    routes: &mut Routes,
    now: &mut Instant,
    pool: &[Candidate],
    count: usize,
    outcome: impl Fn(MemberId) -> Ended,
) -> BTreeMap<MemberId, usize> {
    let mut got = BTreeMap::new();
    for _ in 0..count {
        *now += MS;
        let chosen = routes.choose(pool, *now).unwrap();
        routes.ended(&chosen, outcome(chosen), *now);
        *got.entry(chosen).or_default() += 1;
    }
    got
}

fn answered(latency: Duration) -> Ended {
    Ended::Answered(latency)
}

#[test]
fn equals_share_the_work() {
    let (mut routes, mut now) = (Routes::new(1), origin());
    let got = send(&mut routes, &mut now, &candidates(4), 4000, |_| answered(MS));
    assert_eq!(got.len(), 4);
    assert!(got.values().all(|count| (600..1400).contains(count)), "{got:?}");
}

#[test]
fn the_slow_get_less_and_the_large_get_more() {
    let (mut routes, mut now) = (Routes::new(2), origin());
    let mut pool = candidates(3);
    pool[2].capacity = 2560;
    let got = send(&mut routes, &mut now, &pool, 9000, |chosen| {
        answered(if chosen == id(0) { MS * 50 } else { MS })
    });
    assert!(got[&id(0)] < got[&id(1)] / 4, "{got:?}");
    assert!(got[&id(2)] > got[&id(1)], "{got:?}");
}

#[test]
fn what_is_in_flight_counts() {
    let (mut routes, now) = (Routes::new(3), origin());
    let pool = candidates(2);
    for _ in 0..30 {
        routes.choose(&pool[..1], now);
    }
    for _ in 0..10 {
        assert_eq!(routes.choose(&pool, now), Some(id(1)));
    }
}

#[test]
fn a_member_that_was_slow_once_is_tried_again() {
    let (mut routes, mut now) = (Routes::new(4), origin());
    let pool = candidates(2);
    routes.choose(&pool[..1], now);
    routes.ended(&id(0), answered(MS * 2000), now);
    let soon = send(&mut routes, &mut now, &pool, 100, |_| answered(MS));
    assert_eq!(soon.get(&id(0)), None);
    now += Duration::from_secs(120);
    let later = send(&mut routes, &mut now, &pool, 2000, |_| answered(MS));
    assert!(later[&id(0)] > 500, "{later:?}");
}

#[test]
fn newcomers_start_slowly_but_at_once() {
    let (mut routes, mut now) = (Routes::new(5), origin());
    let quick = MS / 4;
    send(&mut routes, &mut now, &candidates(2), 20_000, |_| answered(quick));
    let pool = candidates(3);
    // The first answer of each connection takes longer.
    let cold = std::cell::Cell::new(5);
    let early = send(&mut routes, &mut now, &pool, 300, |chosen| {
        let slow = chosen == id(2) && cold.get() > 0;
        cold.set(cold.get() - u32::from(slow));
        answered(if slow { MS * 40 } else { quick })
    });
    let newest = early.get(&id(2)).copied().unwrap_or(0);
    assert!((5..50).contains(&newest), "{early:?}");
    now += Duration::from_secs(5);
    let late = send(&mut routes, &mut now, &pool, 3000, |_| answered(quick));
    assert!(late[&id(2)] > 600, "{late:?}");
}

#[test]
fn five_failures_in_a_row_leave_a_member_out_and_a_probe_brings_it_back() {
    let (mut routes, mut now) = (Routes::new(6), origin());
    let pool = candidates(4);
    for _ in 0..5 {
        routes.choose(&pool[..1], now);
        routes.ended(&id(0), Ended::Failed, now);
    }
    assert!(routes.is_out(&id(0), now));
    let got = send(&mut routes, &mut now, &pool, 1000, |_| answered(MS));
    assert_eq!(got.get(&id(0)), None);
    now += Duration::from_secs(5);
    assert_eq!(routes.choose(&pool, now), Some(id(0)), "probed at once");
    let others: Vec<_> = (0..20).filter_map(|_| routes.choose(&pool, now)).collect();
    assert!(!others.contains(&id(0)), "one probe at a time");
    routes.ended(&id(0), answered(MS), now);
    assert!(!routes.is_out(&id(0), now));
}

/// The first of these is left out, and after a second probed, which brings it back.
fn is_out_until_probed(routes: &mut Routes, mut now: Instant, pool: &[Candidate]) {
    let got = send(routes, &mut now, pool, 100, |_| answered(Duration::from_micros(10)));
    assert_eq!(got.get(&id(0)), None);
    now += Duration::from_secs(1);
    assert_eq!(routes.choose(pool, now), Some(id(0)), "probed");
    routes.ended(&id(0), answered(MS), now);
    assert!(!routes.is_out(&id(0), now));
}

#[test]
fn one_refused_connection_leaves_a_member_out_at_once() {
    let (mut routes, now) = (Routes::new(6), origin());
    let pool = candidates(4);
    routes.choose(&pool[..1], now);
    routes.ended(&id(0), Ended::Refused, now);
    is_out_until_probed(&mut routes, now, &pool);
}

#[test]
fn an_answer_that_was_under_way_when_it_vanished_does_not_bring_it_back() {
    let (mut routes, mut now) = (Routes::new(6), origin());
    let pool = candidates(4);
    routes.choose(&pool[..1], now);
    routes.vanished(&id(0), now + MS);
    now += 2 * MS;
    routes.ended(&id(0), answered(2 * MS), now);
    assert!(routes.is_out(&id(0), now));
    is_out_until_probed(&mut routes, now, &pool);
}

#[test]
fn whoever_refused_and_is_not_heard_since_is_not_asked_again() {
    let (mut routes, mut now) = (Routes::new(6), origin());
    let mut pool = candidates(4);
    pool[0].heard = Some(now);
    routes.choose(&pool[..1], now);
    routes.ended(&id(0), Ended::Refused, now);
    now += Duration::from_secs(3);
    let got = send(&mut routes, &mut now, &pool, 100, |_| answered(Duration::from_micros(10)));
    assert_eq!(got.get(&id(0)), None);
    pool[0].heard = Some(now);
    assert_eq!(routes.choose(&pool, now), Some(id(0)), "its process lives: probed");
}

#[test]
fn a_failed_probe_leaves_it_out_for_longer() {
    let (mut routes, mut now) = (Routes::new(7), origin());
    let pool = candidates(3);
    for _ in 0..5 {
        routes.choose(&pool[..1], now);
        routes.ended(&id(0), Ended::Failed, now);
    }
    now += Duration::from_secs(5);
    assert_eq!(routes.choose(&pool, now), Some(id(0)));
    routes.ended(&id(0), Ended::Failed, now);
    let probed = |routes: &mut Routes, now| (0..50).any(|_| routes.choose(&pool, now) == Some(id(0)));
    assert!(!probed(&mut routes, now + Duration::from_millis(9_999)));
    assert!(probed(&mut routes, now + Duration::from_secs(10)));
}

#[test]
fn never_more_than_half_are_left_out_and_never_the_last() {
    let (mut routes, now) = (Routes::new(8), origin());
    for count in [1, 2, 3, 4, 7] {
        let pool = candidates(count);
        for candidate in &pool {
            for _ in 0..5 {
                routes.choose(&[*candidate], now);
                routes.ended(&candidate.id, Ended::Failed, now);
            }
        }
        assert_eq!(routes.left_out(now, &pool).len(), usize::from(count / 2));
        assert!(routes.choose(&pool, now).is_some());
    }
}

#[test]
fn the_doubted_serve_when_nobody_else_can() {
    let (mut routes, now) = (Routes::new(9), origin());
    let mut pool = candidates(3);
    pool[0].last = true;
    assert!((0..50).all(|_| routes.choose(&pool, now) != Some(id(0))));
    assert_eq!(routes.choose(&pool[..1], now), Some(id(0)));
    assert_eq!(routes.choose(&[], now), None);
}

#[test]
fn capacity_divides_the_cost_and_who_has_not_said_is_taken_for_middling() {
    let (routes, now) = (Routes::new(11), origin());
    let of = |capacity| routes.cost(&Candidate { capacity, ..candidates(1)[0] }, now);
    assert!(of(1024) < of(0) && of(0) < of(8));
}

#[test]
fn a_seed_replays_every_choice() {
    let run = || {
        let (mut routes, mut now) = (Routes::new(10), origin());
        send(&mut routes, &mut now, &candidates(5), 500, |chosen| answered(MS * u32::from(chosen.0[0] + 1)))
    };
    assert_eq!(run(), run());
}

#[test]
fn the_own_island_comes_first_and_then_the_cheapest_way() {
    let chosen = |pool: &[Candidate]| {
        let (mut routes, mut now) = (Routes::new(7), origin());
        send(&mut routes, &mut now, pool, 100, |_| answered(MS)).into_keys().collect::<Vec<_>>()
    };
    let mut pool = candidates(5);
    (pool[2].way, pool[3].way, pool[4].way) = (Some(MS * 40), Some(MS * 20), Some(MS * 20));
    assert_eq!(chosen(&pool), [id(0), id(1)]);
    pool[0].full = true;
    assert_eq!(chosen(&pool), [id(0), id(1)], "one of ours has room");
    pool[1].full = true;
    assert_eq!(chosen(&pool), [id(3), id(4)]);
    assert_eq!(chosen(&pool[..2]), [id(0), id(1)], "nobody else has it");
    pool[3].last = true;
    assert_eq!(chosen(&pool[2..]), [id(4)]);
    assert_eq!(chosen(&pool[2..4]), [id(2)]);
}
