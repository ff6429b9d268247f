//! What two sessions make of each other, and one of a stranger's frames.

use std::collections::BTreeMap;

use isle_mesh::outward::News;
use proptest::prelude::*;

use super::*;
use crate::frame::{Changes, Cursor, Digest, DigestRequest, Wanted};

mod pair;

use crate::journal::{Change, What};
use pair::{DELAY, Pair, Side, member, ms, settings, word};

#[test]
fn at_first_contact_each_gets_what_it_lacks_and_nothing_else() {
    let mut pair = Pair::new();
    for number in 0..300 {
        let side = usize::from(number % 3 == 0);
        pair.sides[side].learn(number, 1, false, None);
        if number % 5 == 0 {
            pair.sides[1 - side].learn(number, 1, false, None);
        }
    }
    pair.run_for(ms(200));
    assert_eq!(pair.sides[0].table.len(), 300);
    assert_eq!(pair.sides[0].table, pair.sides[1].table);
    assert_eq!(pair.words_said(), 240);
    assert!(matches!(&pair.sides[0].events[0], Event::Up(greeting) if greeting.island == "south"));
    pair.run_for(ms(5000));
    assert_eq!(pair.words_said(), 240);
    assert_eq!(pair.sides[1].session.round_trip(), Some(2 * DELAY));
}

#[test]
fn a_change_crosses_at_once_and_does_not_come_back() {
    let mut pair = Pair::new();
    pair.run_for(ms(100));
    pair.sides[0].learn(1, 1, false, None);
    pair.sides[1].learn(2, 1, true, None);
    pair.run_for(DELAY);
    assert_eq!(pair.sides[1].table, BTreeMap::from([(1, 1), (2, 1)]));
    assert_eq!(pair.sides[0].table, pair.sides[1].table);
    pair.run_for(ms(5000));
    assert_eq!(pair.words_said(), 2);
    let counted = Counters { words_sent: 1, words_heard: 1, urgent_sent: 0, urgent_heard: 1, digests: 2 };
    assert_eq!(pair.sides[0].session.counters(), counted);
}

#[test]
fn a_link_that_comes_back_goes_on_where_it_was() {
    let mut pair = Pair::new();
    for number in 0..100 {
        pair.sides[0].learn(number, 1, number % 7 == 0, None);
    }
    pair.run_for(ms(2000));
    pair.sides[0].learn(1, 2, false, None);
    pair.sides[0].learn(2, 2, true, None);
    for (index, side) in pair.sides.iter_mut().enumerate() {
        let island = ["north", "south"][index];
        let bookmark = side.session.bookmark();
        side.session = Session::new(pair.now, Settings { bookmark, ..settings(island, 2 - index as u16) });
    }
    pair.on_way.clear();
    pair.said.clear();
    pair.run_for(ms(500));
    assert_eq!(pair.sides[0].table, pair.sides[1].table);
    assert_eq!(pair.words_said(), 2);
    let digests = pair.said.iter().filter(|(_, frame)| matches!(frame, Frame::Digest(_)));
    assert_eq!(digests.map(|(side, _)| *side).collect::<Vec<_>>(), Vec::<usize>::new());
}

/// South drops a member of whom others may still know.
fn lose(pair: &mut Pair, number: u16) {
    assert!(pair.sides[1].table.remove(&number).is_some());
    pair.sides[1].journal.withdraw(member(number));
}

#[test]
fn what_was_dropped_since_it_was_read_comes_again_over_the_next_link() {
    let mut pair = Pair::new();
    for number in 0..100 {
        pair.sides[0].learn(number, 1, number % 7 == 0, None);
    }
    pair.run_for(ms(2000));
    let old = pair.sides[1].session.bookmark();
    lose(&mut pair, 7);
    lose(&mut pair, 8);
    pair.run_for(ms(2000));
    assert_eq!(pair.sides[1].table.len(), 98, "a link that goes on brings only changes");
    assert_eq!(pair.sides[1].session.bookmark().unwrap().losses, old.unwrap().losses);
    for (index, side) in pair.sides.iter_mut().enumerate() {
        let bookmark = side.session.bookmark();
        let settings = Settings { bookmark, ..settings(["north", "south"][index], 2 - index as u16) };
        side.session = Session::new(pair.now, settings);
    }
    pair.on_way.clear();
    pair.said.clear();
    pair.run_for(ms(500));
    assert_eq!(pair.sides[0].table, pair.sides[1].table);
    assert_eq!(pair.words_said(), 2, "and nothing else");
    assert_eq!(pair.sides[1].session.bookmark().unwrap().losses, 2);
}

#[test]
fn a_link_that_stands_is_read_anew_when_that_is_asked_for() {
    let mut pair = Pair::new();
    for number in 0..100 {
        pair.sides[0].learn(number, 1, false, None);
    }
    pair.run_for(ms(2000));
    pair.said.clear();
    pair.sides[1].session.read_anew();
    pair.run_for(ms(2000));
    assert_eq!(pair.words_said(), 0, "nothing was lost");
    lose(&mut pair, 7);
    pair.sides[1].session.read_anew();
    // While batches and urgent words are on their way.
    for number in 100..140 {
        pair.sides[0].learn(number, 1, number % 5 == 0, None);
        pair.run_for(DELAY / 8);
    }
    pair.run_for(ms(1000));
    assert_eq!(pair.sides[0].table, pair.sides[1].table);
    let bookmark = pair.sides[1].session.bookmark().unwrap();
    assert_eq!((bookmark.cursor.index, bookmark.losses), (pair.sides[0].journal.head(), 1));
    // And goes on as before.
    pair.said.clear();
    pair.sides[0].learn(200, 1, false, None);
    pair.sides[1].learn(201, 1, true, None);
    pair.run_for(ms(1000));
    assert_eq!((pair.words_said(), &pair.sides[0].table), (2, &pair.sides[1].table));
}

#[test]
fn a_batch_that_is_being_merged_does_not_stand_in_the_way_of_reading_anew() {
    let mut pair = Pair::new();
    pair.sides[0].learn(1, 1, false, None);
    pair.run_for(ms(2000));
    lose(&mut pair, 1);
    // The batch is on its way when south asks for everything.
    pair.sides[0].learn(2, 1, false, None);
    pair.transmit();
    pair.sides[1].session.read_anew();
    pair.sides[1].is_stuck = true;
    pair.run_for(ms(500));
    assert!(pair.sides.iter().all(|side| side.session.is_up()));
    pair.sides[1].is_stuck = false;
    pair.sides[1].session.merged(Stream::Table);
    pair.run_for(ms(500));
    assert_eq!(pair.sides[1].table, BTreeMap::from([(1, 1), (2, 1)]));
}

#[test]
fn a_restarted_journal_is_compared_not_sent_again() {
    let mut pair = Pair::new();
    for number in 0..100 {
        pair.sides[0].learn(number, 1, false, None);
    }
    pair.run_for(ms(500));
    let bookmarks = [0, 1].map(|side| pair.sides[side].session.bookmark());
    let mut again = Pair::of(
        Settings { bookmark: bookmarks[0], ..settings("north", 2) },
        Settings { bookmark: bookmarks[1], ..settings("south", 1) },
    );
    again.sides[0].journal = Journal::new(99, 10_000);
    for number in 0..100 {
        again.sides[0].learn(number, 1, false, None);
        again.sides[1].learn(number, 1, false, None);
    }
    again.sides[0].learn(7, 2, false, None);
    again.run_for(ms(500));
    // The older one crosses as well, the other way: hashes do not tell which is newer.
    assert_eq!((again.words_said(), again.sides[1].table[&7]), (2, 2));
}

#[test]
fn no_batch_follows_before_the_last_was_merged_but_urgent_words_do() {
    let mut pair = Pair::new();
    pair.run_for(ms(100));
    pair.sides[1].is_stuck = true;
    pair.sides[0].learn(1, 1, false, None);
    pair.run_for(ms(100));
    pair.sides[0].learn(2, 1, false, None);
    pair.sides[0].learn(3, 1, true, None);
    pair.run_for(ms(100));
    assert_eq!(pair.sides[1].table, BTreeMap::from([(1, 1), (3, 1)]));
    assert!(!pair.sides[1].session.wants(Stream::Table) && !pair.sides[1].session.wants(Stream::Urgent));
    pair.sides[1].is_stuck = false;
    pair.sides[1].session.merged(Stream::Table);
    pair.sides[1].session.merged(Stream::Urgent);
    pair.run_for(ms(100));
    assert_eq!(pair.sides[1].table, BTreeMap::from([(1, 1), (2, 1), (3, 1)]));
}

#[test]
fn a_verdict_does_not_overtake_the_word_it_is_judged_by() {
    let mut pair = Pair::new();
    pair.run_for(ms(100));
    pair.sides[1].is_stuck = true;
    pair.sides[0].learn(1, 1, false, None);
    pair.run_for(ms(100));
    pair.sides[0].learn(2, 1, false, None);
    let votes = Change { member: member(2), what: What::Down, bytes: word(9, 9, true), is_urgent: true };
    pair.sides[0].journal.record(votes.clone(), None).unwrap();
    pair.said.clear();
    pair.transmit();
    let words = vec![word(2, 1, false), word(9, 9, true)];
    assert_eq!(pair.said, [(0, Frame::Urgent { index: 3, words, gone: vec![] })]);
    pair.sides[1].is_stuck = false;
    pair.sides[1].session.merged(Stream::Table);
    pair.run_for(ms(2000));
    assert_eq!(pair.words_said(), 3);
    // Once it is known to have come, a verdict goes alone.
    pair.sides[0].journal.record(Change { what: What::Refuted, ..votes }, None).unwrap();
    pair.run_for(ms(100));
    assert_eq!(pair.words_said(), 4);
}

#[test]
fn a_verdict_takes_along_the_word_it_is_judged_by_to_whoever_told_us_that_in_another_life() {
    let mut pair = Pair::new();
    pair.sides[1].learn(2, 1, false, None);
    pair.run_for(ms(500));
    assert_eq!(pair.sides[0].table, BTreeMap::from([(2, 1)]));
    let mut anew = Side::new(pair.now, settings("south", 1));
    anew.journal = Journal::new(99, 10_000);
    pair.sides[1] = anew;
    let bookmark = pair.sides[0].session.bookmark();
    pair.sides[0].session = Session::new(pair.now, Settings { bookmark, ..settings("north", 2) });
    pair.said.clear();
    while !pair.said.iter().any(|(side, frame)| *side == 0 && matches!(frame, Frame::Digest(_))) {
        pair.run_for(ms(1));
    }
    let votes = Change { member: member(2), what: What::Down, bytes: word(9, 9, true), is_urgent: true };
    pair.sides[0].journal.record(votes, None).unwrap();
    pair.said.clear();
    pair.transmit();
    let words = vec![word(2, 1, false), word(9, 9, true)];
    assert_eq!(pair.said, [(0, Frame::Urgent { index: 2, words, gone: vec![] })]);
}

#[test]
fn for_how_long_somebody_has_been_gone_is_told_to_whoever_understands_that() {
    for (protocol, is_told) in [((1, 2), true), ((1, 1), false)] {
        let mut pair = Pair::of(settings("north", 2), Settings { protocol, ..settings("south", 1) });
        let left = |pair: &mut Pair, number: u16, ago: u64| {
            let gone = pair.now.checked_sub(Duration::from_secs(ago));
            let (member, bytes) = (member(number), word(number, 1, true));
            let (what, from) = (isle_mesh::outward::What::Own, None);
            let news = News::Said { member, what, bytes, is_urgent: true, from, gone };
            pair.sides[0].journal.tell(news).unwrap();
        };
        // Before there is a link, and while there is: learned of late, and when it happened.
        left(&mut pair, 5, 90);
        pair.run_for(ms(500));
        left(&mut pair, 6, 60);
        left(&mut pair, 7, 0);
        pair.run_for(ms(100));
        assert_eq!(pair.sides[1].table.len(), 3);
        let ages = pair.sides[1].events.iter().filter_map(|event| match event {
            Event::Words { gone, .. } => Some(gone.iter().map(|(member, age)| (*member, age.as_secs()))),
            _ => None,
        });
        let expected = if is_told { vec![(member(5), 90), (member(6), 60)] } else { Vec::new() };
        assert_eq!(ages.flatten().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_large_table_crosses_batch_by_batch_while_it_changes() {
    let mut pair = Pair::new();
    for number in 0..5000 {
        pair.sides[0].learn(number, 1, false, None);
    }
    for round in 0..20 {
        pair.run_for(ms(15));
        pair.sides[0].learn(round * 250, 2, round % 2 == 0, None);
        pair.sides[1].learn(6000 + round, 1, false, None);
    }
    pair.run_for(ms(2000));
    assert_eq!(pair.sides[0].table.len(), 5020);
    assert_eq!(pair.sides[0].table, pair.sides[1].table);
    assert!(pair.words_said() <= 5040, "{}", pair.words_said());
}

fn refusals(one: Settings, other: Settings) -> [Option<DownReason>; 2] {
    let mut pair = Pair::of(one, other);
    pair.run_for(ms(100));
    [0, 1].map(|side| pair.sides[side].down())
}

#[test]
fn two_islands_of_one_name_or_number_do_not_link() {
    let both = Some(DownReason::Refused(Refusal::SameName));
    assert_eq!(refusals(settings("north", 2), settings("north", 1)), [both, both]);
    let numbered = |island, peer| Settings { island_id: Some(7), ..settings(island, peer) };
    assert_eq!(refusals(numbered("north", 2), numbered("south", 1)), [both, both]);
}

#[test]
fn the_highest_common_version_is_spoken_or_none() {
    let speaks = |protocol, island, peer| Settings { protocol, ..settings(island, peer) };
    let both = Some(DownReason::Refused(Refusal::Version));
    assert_eq!(refusals(speaks((1, 2), "north", 2), speaks((3, 4), "south", 1)), [both, both]);
    let mut pair = Pair::of(speaks((1, 3), "north", 2), speaks((2, 5), "south", 1));
    pair.run_for(ms(100));
    for side in &pair.sides {
        assert!(matches!(&side.events[0], Event::Up(greeting) if greeting.protocol == 3));
    }
}

#[test]
fn an_unknown_key_learns_nothing_but_that_it_is_unknown() {
    let by_invite = Settings { admission: Admission::ByInvite, ..settings("south", 1) };
    let mut pair = Pair::of(settings("north", 2), by_invite.clone());
    pair.run_for(ms(100));
    assert_eq!(pair.sides[0].down(), Some(DownReason::RefusedByPeer(Refusal::UnknownKey)));
    assert_eq!(pair.sides[1].down(), Some(DownReason::Refused(Refusal::UnknownKey)));
    assert!(!pair.said.iter().any(|(side, frame)| *side == 1 && matches!(frame, Frame::Hello(_))));
}

#[test]
fn an_invite_admits_or_is_refused_by_the_caller() {
    let with_invite = Settings { invite: Some([5; 32]), ..settings("north", 2) };
    let by_invite = Settings { admission: Admission::ByInvite, ..settings("south", 1) };
    let mut pair = Pair::of(with_invite, by_invite);
    pair.run_for(ms(50));
    assert_eq!(pair.sides[1].events, [Event::Invited { secret: [5; 32] }]);
    let mut refused = Pair::of(
        Settings { invite: Some([5; 32]), ..settings("north", 2) },
        Settings { admission: Admission::ByInvite, ..settings("south", 1) },
    );
    pair.sides[1].session.admit();
    pair.run_for(ms(50));
    assert!(pair.sides[0].session.is_up() && pair.sides[1].session.is_up());
    refused.run_for(ms(50));
    refused.sides[1].session.refuse(Refusal::InviteUsed);
    refused.run_for(ms(50));
    assert_eq!(refused.sides[0].down(), Some(DownReason::RefusedByPeer(Refusal::InviteUsed)));
}

#[test]
fn silence_ends_a_link_after_one_second() {
    let mut pair = Pair::new();
    pair.run_for(ms(1000));
    pair.is_cut = true;
    pair.run_for(ms(700));
    assert_eq!(pair.sides[0].down(), None);
    pair.run_for(ms(300));
    for side in &pair.sides {
        assert!(matches!(side.down(), Some(DownReason::Silent(_))));
        assert_eq!(side.session.poll_timeout(), None);
    }
}

#[test]
fn a_far_side_may_be_silent_for_four_round_trips() {
    let mut pulse = Pulse::new(Instant::now());
    let start = pulse.silence_ends() - pulse.limit();
    let nonce = pulse.ask(start).unwrap();
    pulse.answered(start + ms(600), nonce + 1);
    assert_eq!(pulse.round_trip(), None);
    pulse.answered(start + ms(600), nonce);
    pulse.heard(start + ms(600));
    assert_eq!(pulse.limit(), ms(2400));
    assert_eq!(pulse.silence(start + ms(2999)), None);
    assert_eq!(pulse.silence(start + ms(3000)), Some(ms(2400)));
}

#[test]
fn who_wakes_up_late_listens_before_it_believes_in_silence() {
    let mut pair = Pair::new();
    pair.run_for(ms(1000));
    let woken = pair.now + ms(60_000);
    let session = &mut pair.sides[0].session;
    session.handle_timeout(woken);
    assert!(session.is_up());
    session.heard(woken + ms(1));
    session.handle_timeout(woken + ms(300));
    assert!(session.is_up());
    session.handle_timeout(woken + ms(1001));
    assert!(!session.is_up());
}

#[test]
fn a_timer_that_was_handled_does_not_fire_again() {
    let mut pair = Pair::new();
    pair.run_for(ms(1000));
    let side = &mut pair.sides[0];
    side.session.say_load(vec![("north".into(), IslandLoad::default())]);
    // The transport takes nothing: no frame is polled.
    for _ in 0..20 {
        let Some(wakeup) = side.session.poll_timeout() else { break };
        side.session.handle_timeout(wakeup.at);
        let next = side.session.poll_timeout().map(|next| (next.at, next.why));
        assert_ne!(next, Some((wakeup.at, wakeup.why)));
    }
    assert!(!side.session.is_up());
}

#[test]
fn goodbye_comes_after_everything_urgent_and_is_answered() {
    let mut pair = Pair::new();
    pair.run_for(ms(100));
    for number in 0..20 {
        pair.sides[0].learn(number, 1, true, None);
    }
    pair.sides[0].session.say_routes([Route::Withdrawn("west".into())]);
    pair.sides[0].session.goodbye(pair.now, Goodbye::Leaving);
    pair.run_for(ms(100));
    assert_eq!(pair.sides[1].table.len(), 20);
    assert!(pair.sides[1].events.contains(&Event::Routes(vec![Route::Withdrawn("west".into())])));
    assert_eq!(pair.sides[1].down(), Some(DownReason::EndedByPeer(Goodbye::Leaving)));
    assert_eq!(pair.sides[0].down(), Some(DownReason::Ended));
}

#[test]
fn a_goodbye_waits_200_ms_for_its_answer() {
    let mut pair = Pair::new();
    pair.run_for(ms(100));
    pair.is_cut = true;
    pair.sides[0].session.goodbye(pair.now, Goodbye::Unlinked);
    pair.run_for(ms(199));
    assert_eq!(pair.sides[0].down(), None);
    pair.run_for(ms(1));
    assert_eq!(pair.sides[0].down(), Some(DownReason::Ended));
}

#[test]
fn loads_are_said_once_a_second_and_routes_at_once() {
    let mut pair = Pair::new();
    pair.run_for(ms(100));
    for round in 1..=30 {
        let load = IslandLoad { members: round, ..IslandLoad::default() };
        pair.sides[0].session.say_load(vec![("north".into(), load)]);
        pair.run_for(ms(100));
    }
    let loads = pair.sides[1].events.iter().filter(|event| matches!(event, Event::Load(_)));
    assert_eq!(loads.count(), 3);
    pair.said.clear();
    pair.sides[0].session.say_routes([Route::Withdrawn("a".into()), Route::Withdrawn("b".into())]);
    pair.sides[0].session.say_routes([Route::Withdrawn("a".into())]);
    pair.transmit();
    let both = vec![Route::Withdrawn("a".into()), Route::Withdrawn("b".into())];
    assert_eq!(pair.said, [(0, Frame::Routes(both))]);
}

/// A session that is up, has sent its cursor and its digest.
fn up() -> (Side, Instant) {
    let mut pair = Pair::new();
    pair.sides[0].learn(1, 1, false, None);
    pair.run_for(2 * DELAY - ms(1));
    let [side, _] = pair.sides;
    (side, pair.now)
}

#[test]
fn breaking_the_protocol_ends_the_link() {
    let changes = |through| Frame::Changes(Changes { through, ..Changes::default() });
    let request = |bucket: Option<u16>, more| {
        let wanted = Vec::from_iter(bucket.map(|bucket| Wanted { bucket, held: Vec::new() }));
        Frame::DigestRequest(DigestRequest { wanted, more })
    };
    let digest = || Frame::Digest(Digest { index: 5, buckets: vec![3] });
    let cursor = || Frame::Cursor(Cursor::default());
    let hello = || Frame::Hello(up().0.session.hello(&Journal::new(1, 1)));
    let urgent = |index| Frame::Urgent { index, words: vec![word(1, 1, true)], gone: vec![] };
    for (frames, breach) in [
        (vec![hello()], Breach::SecondHello),
        (vec![Frame::Ack { through: 1 }], Breach::OutOfTurn("an acknowledgement")),
        (vec![cursor(), cursor()], Breach::OutOfTurn("a cursor")),
        (vec![digest(), digest()], Breach::OutOfTurn("a digest")),
        (vec![digest(), changes(5)], Breach::OutOfTurn("a batch")),
        (vec![changes(3), changes(4)], Breach::OutOfTurn("a batch")),
        (vec![changes(0)], Breach::Index),
        (vec![request(None, false)], Breach::OutOfTurn("a request")),
        (vec![urgent(4), urgent(5)], Breach::OutOfTurn("an urgent word")),
        (vec![urgent(0)], Breach::Index),
    ] {
        let (mut side, now) = up();
        let (last, before) = frames.split_last().unwrap();
        for frame in before {
            side.session.handle_frame(now, frame.clone()).unwrap();
        }
        assert_eq!(side.session.handle_frame(now, last.clone()), Err(breach), "{frames:?}");
        assert!(!side.session.is_up());
        side.take_events();
        assert_eq!(side.down(), Some(DownReason::Breach(breach)));
        assert_eq!(side.session.handle_frame(now, cursor()), Ok(()));
    }
    for (frame, breach) in [
        (request(Some(1), false), Breach::Bucket),
        (request(None, true), Breach::OutOfTurn("an empty request")),
    ] {
        let (mut side, now) = up();
        side.session.handle_frame(now, cursor()).unwrap();
        let table = side.session.poll_transmit(now, Stream::Table, &side.journal);
        assert!(matches!(table, Some(Frame::Digest(_))), "{table:?}");
        assert_eq!(side.session.handle_frame(now, frame), Err(breach));
    }
    let mut early = Session::new(Instant::now(), settings("north", 2));
    assert!(!early.wants(Stream::Table));
    assert_eq!(early.handle_frame(Instant::now(), cursor()), Err(Breach::BeforeHello));
}

proptest! {
    #[test]
    fn whatever_a_peer_says_is_survived(
        frames in proptest::collection::vec((crate::frame::tests::frames(), any::<bool>()), 1..60),
    ) {
        let (mut side, mut now) = up();
        for (frame, is_merged) in frames {
            now += ms(1);
            // Of a link's frames only those in turn get far; hellos and refusals would end most runs at once.
            if matches!(frame, Frame::Hello(_) | Frame::Refused(_) | Frame::Goodbye(_)) {
                continue;
            }
            let _ = side.session.handle_frame(now, frame);
            while let Some(event) = side.session.poll_event() {
                if let (Event::Words { stream, .. }, true) = (event, is_merged) {
                    side.session.merged(stream);
                }
            }
            for stream in Stream::ALL {
                for _ in 0..100 {
                    let polled = side.session.poll_transmit(now, stream, &side.journal);
                    let Some(frame) = polled else { break };
                    crate::frame::encode(&frame, &mut Vec::new());
                }
                prop_assert_eq!(side.session.poll_transmit(now, stream, &side.journal), None);
            }
        }
    }
}
