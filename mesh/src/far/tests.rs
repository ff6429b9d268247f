//! Precedence, verdicts and ways, by hand and in any order.

#![expect(clippy::disallowed_methods, reason = "a test starts its virtual time somewhere")]

use std::time::Duration;

use proptest::prelude::*;

use super::verdict::SPARED_FOR;
use super::*;
use crate::identity::Identity;
use crate::island::ISLANDS_MAX;
use crate::member::{Epoch, LeaveReason, Seq};
use crate::path::Path;
use crate::reach::{IslandLoad, Reach};
use crate::verify::Scheme;
use crate::wire::{Beacon, Down, Farewell, MeshTag, Routes, Suspect, routes};

fn tag() -> MeshTag {
    MeshTag::of("isle")
}

fn id(author: u64) -> MemberId {
    Identity::for_test(author).id()
}

fn word(author: u64, epoch: u32, seq: u64, message: &Message) -> FarWord {
    let mut identity = Identity::for_test(author);
    if epoch > 1 {
        identity.raise_epoch_above(Epoch(epoch - 1)).unwrap();
    }
    FarWord::verify(Scheme::Ed25519, tag(), identity.sign_word(tag(), message, Seq(seq))).unwrap()
}

fn record(island: &str, watchers: &[u64], draining: bool) -> Record {
    Record {
        name: "p".into(),
        roles: Vec::new(),
        addresses: Vec::new(),
        http_port: 1233,
        unicast_port: 1,
        island: island.into(),
        island_given: true,
        draining,
        catalogue: None,
        watchers: watchers.iter().map(|author| id(*author)).collect(),
        protocol: (1, 1),
        version: String::new(),
        tags: Vec::new(),
    }
}

fn announce(author: u64, seq: u64, island: &str, watchers: &[u64]) -> FarWord {
    word(author, 1, seq, &Message::Announce(record(island, watchers, false).into()))
}

fn pulse(author: u64, seq: u64) -> FarWord {
    let load = Load::default();
    let beacon = Beacon { record_seq: Seq(1), load, full: false, deaf: false, digest: 0, far: None };
    word(author, 1, seq, &Message::Beacon(beacon))
}

fn farewell(author: u64, seq: u64) -> FarWord {
    word(author, 1, seq, &Message::Farewell(Farewell { reason: LeaveReason::Stopped }))
}

/// What these voters say of `target`, judged by its record `record`, whose last word they heard was `last`.
fn certificate(target: u64, record: u64, last: u64, voters: &[u64]) -> FarWord {
    let vote = Suspect {
        target: id(target),
        epoch: Epoch(1),
        record_seq: Seq(record),
        last_seq: Seq(last),
        silence_ms: 700,
    };
    let sign = |voter: &u64| Identity::for_test(*voter).sign_word(tag(), &Message::Suspect(vote), Seq(50));
    let votes = voters.iter().map(sign).collect();
    word(voters[0], 1, 60, &Message::Down(Down { votes }))
}

fn reach(islands: &str, millis: u64) -> Reach {
    let path = Path::new(islands.split(' ').map(str::to_owned).collect()).unwrap();
    Reach { path, cost: Duration::from_millis(millis), load: IslandLoad::default() }
}

/// A far table of a node on "north".
struct Rig {
    far: Far,
    now: Instant,
    /// Words said by bridges so far.
    said: u64,
}

impl Rig {
    fn new() -> Self {
        Self { far: Far::new("north".to_owned(), 1, 7), now: Instant::now(), said: 0 }
    }

    /// With the members 1 to 5 of "south", all watched by 2, 3 and 4.
    fn south() -> Self {
        let mut rig = Self::new();
        for author in 1..=5 {
            let watchers: Vec<u64> = (2..=5).filter(|watcher| *watcher != author).take(3).collect();
            assert_eq!(rig.hear(&announce(author, 1, "south", &watchers)), Ok(()));
        }
        rig
    }

    fn hear(&mut self, word: &FarWord) -> Result<(), Refused> {
        let outcome = self.far.hear(self.now, None, word);
        self.far.settle(self.now);
        outcome
    }

    /// From the bridge with this key.
    fn bring(&mut self, from: u64, word: &FarWord) -> Result<(), Refused> {
        let outcome = self.far.hear(self.now, Some(id(from)), word);
        self.far.settle(self.now);
        outcome
    }

    fn standing(&self, author: u64) -> Option<Standing> {
        self.far.standing(&id(author))
    }

    fn view(&self, author: u64) -> Member {
        let found = self.far.members().find(|member| member.id == id(author));
        Member::clone(found.expect("it is listed"))
    }

    fn outs(&mut self) -> Vec<Out> {
        std::iter::from_fn(|| self.far.poll()).collect()
    }

    /// The events since the last time, and what was to be told to other islands.
    fn told(&mut self) -> (Vec<EventKind>, Vec<What>) {
        let (mut events, mut whats) = (Vec::new(), Vec::new());
        for out in self.outs() {
            match out {
                Out::Event(kind, _) | Out::Island(kind, _) => events.push(kind),
                Out::Said { what, .. } => whats.push(what),
                Out::Change(_) | Out::Withdrawn(_) | Out::Displaced(_) | Out::Forgotten(_) => {}
            }
        }
        (events, whats)
    }

    /// The bridge says that it reaches this, in one word if that suffices.
    fn route(&mut self, bridge: u64, reaches: &[Reach]) {
        for routes in routes::in_parts(reaches.to_vec()) {
            self.said += 1;
            let bytes =
                Identity::for_test(bridge).sign_word(tag(), &Message::Routes(routes.clone()), Seq(self.said));
            self.far.routes.take(id(bridge), Stamp::new(1, self.said), bytes, &routes).unwrap();
        }
    }

    fn choose(&mut self, bridges: &[u64]) {
        let bridges: Vec<MemberId> = bridges.iter().map(|bridge| id(*bridge)).collect();
        self.far.choose(self.now, &bridges);
    }

    fn island(&self, name: &str) -> Arc<Island> {
        self.far.islands.view(name).expect("it is known").clone()
    }

    /// The bridges and costs of the ways to an island, the chosen one first.
    fn ways(&self, name: &str) -> Vec<(MemberId, u128)> {
        self.island(name).ways.iter().map(|way| (way.bridge, way.reach.cost.as_millis())).collect()
    }

    fn pass(&mut self, length: Duration) {
        self.now += length;
        self.far.give_up(self.now);
        self.far.forget_due(self.now);
    }
}

#[test]
fn a_far_member_is_shown_without_what_only_its_island_knows() {
    let mut rig = Rig::south();
    let view = rig.view(1);
    assert!(view.far && !view.proven && !view.reachable && !view.is_choosable());
    assert_eq!((view.heard, view.load, view.http_addresses.len()), (None, Load::default(), 0));
    assert_eq!(view.reason, Some(Reason::IslandUnreachable));
    rig.route(90, &[reach("south", 10)]);
    rig.outs();
    rig.choose(&[90]);
    let (changes, others): (Vec<_>, Vec<_>) =
        rig.outs().into_iter().partition(|out| matches!(out, Out::Change(_)));
    assert_eq!((changes.len(), others.len()), (5, 1), "one event, and all are shown anew");
    assert!(matches!(&others[0], Out::Island(EventKind::IslandUp, island) if island.name == "south"));
    assert!(rig.view(1).reachable && rig.view(1).reason.is_none());
}

#[test]
fn only_what_advances_the_table_is_told() {
    let mut rig = Rig::new();
    let first = announce(1, 1, "south", &[]);
    let last = farewell(1, 9);
    assert_eq!(rig.hear(&first), Ok(()));
    assert_eq!(rig.told(), (vec![EventKind::Joined], vec![What::Own]));
    assert_eq!(rig.hear(&first), Err(Refused::Stale));
    assert_eq!(rig.hear(&announce(1, 3, "south", &[2])), Ok(()));
    assert_eq!(rig.told(), (vec![EventKind::Updated], vec![What::Own]));
    assert_eq!(rig.hear(&announce(1, 2, "south", &[])), Err(Refused::Stale));
    let draining = word(1, 1, 5, &Message::Announce(record("south", &[], true).into()));
    assert_eq!(rig.hear(&draining), Ok(()));
    assert_eq!(rig.told(), (vec![EventKind::Draining], vec![What::Own]));
    assert_eq!(rig.hear(&last), Ok(()));
    assert_eq!(rig.told(), (vec![EventKind::Left], vec![What::Own]));
    // A late record of that life is no news, and revives nobody.
    let _ = rig.hear(&announce(1, 8, "south", &[]));
    assert_eq!(rig.hear(&last), Err(Refused::Stale));
    assert_eq!((rig.told(), rig.standing(1)), ((vec![], vec![]), Some(Standing::Left)));
    let again = word(1, 2, 1, &Message::Announce(record("south", &[], false).into()));
    assert_eq!(rig.hear(&again), Ok(()));
    assert_eq!(rig.told(), (vec![EventKind::Joined], vec![What::Own]));
    assert_eq!(rig.standing(1), Some(Standing::Alive));
    // The farewell of an earlier life says nothing of this one.
    let _ = rig.hear(&farewell(1, 10));
    assert_eq!(rig.standing(1), Some(Standing::Alive));
}

#[test]
fn a_member_is_down_by_its_own_watchers_and_a_newer_pulse_brings_it_back() {
    let mut rig = Rig::south();
    rig.told();
    assert!(rig.hear(&certificate(1, 1, 7, &[2])).is_err(), "one of three watchers");
    assert_eq!(rig.standing(1), Some(Standing::Alive));
    assert_eq!(rig.hear(&certificate(1, 1, 7, &[2, 3])), Ok(()));
    assert_eq!(rig.view(1).reason, Some(Reason::NoAnswer));
    assert_eq!(rig.told(), (vec![EventKind::Down], vec![What::Down]));
    assert_eq!(rig.hear(&certificate(1, 1, 7, &[3, 4])), Err(Refused::Stale), "known already");
    let _ = rig.hear(&pulse(1, 7));
    assert_eq!(rig.standing(1), Some(Standing::Down), "its voters have heard that one");
    rig.told();
    assert_eq!(rig.hear(&pulse(1, 8)), Ok(()));
    assert_eq!(rig.told(), (vec![EventKind::Back], vec![What::Refuted]));
    assert_eq!(rig.standing(1), Some(Standing::Alive));
    // Whoever believes it still is told again.
    assert_eq!(rig.hear(&certificate(1, 1, 7, &[2, 3])), Err(Refused::Stale));
    assert_eq!(rig.told(), (vec![], vec![What::Refuted]));
    assert_eq!(rig.standing(1), Some(Standing::Alive));
}

#[test]
fn a_newer_record_brings_back_and_its_votes_are_others() {
    let mut rig = Rig::south();
    assert_eq!(rig.hear(&certificate(1, 1, 1, &[2, 3])), Ok(()));
    rig.told();
    assert_eq!(rig.hear(&announce(1, 9, "south", &[4])), Ok(()));
    assert_eq!(rig.told(), (vec![EventKind::Back], vec![What::Own]));
    assert_eq!(rig.hear(&certificate(1, 1, 1, &[3, 4])), Err(Refused::Stale));
    assert_eq!(rig.standing(1), Some(Standing::Alive));
    assert_eq!(rig.hear(&certificate(1, 9, 9, &[4])), Ok(()), "its only watcher now");
}

#[test]
fn votes_that_are_forged_or_foreign_count_nothing() {
    let mut rig = Rig::south();
    // 80 to 82 are of another island, 83 to 85 of none that is known.
    for author in 80..=82 {
        rig.hear(&announce(author, 1, "west", &[])).unwrap();
    }
    assert!(rig.hear(&certificate(1, 1, 7, &[80, 81, 82])).is_err());
    assert!(rig.hear(&certificate(1, 1, 7, &[83, 84, 85])).is_err());
    assert!(rig.hear(&certificate(1, 1, 7, &[2, 2])).is_err(), "the same one twice");
    // Votes whose signatures are not those of the watchers they name.
    let genuine = certificate(1, 1, 7, &[2, 80]);
    let Some(Message::Down(down)) = &genuine.word.message else { panic!("it is one") };
    let mut forged = down.votes[1].to_vec();
    forged[8..40].copy_from_slice(&id(3).0);
    let down = Down { votes: vec![down.votes[0].clone(), forged.into()] };
    let forged = word(80, 1, 61, &Message::Down(down));
    assert_eq!(forged.votes.len(), 1, "what is not true is not there");
    assert!(rig.hear(&forged).is_err());
    assert!(rig.hear(&certificate(1, 1, 7, &[1, 2])).is_err(), "nobody votes on itself");
    assert_eq!(rig.standing(1), Some(Standing::Alive));
    assert!(rig.hear(&certificate(77, 1, 7, &[2, 3])).is_err(), "nobody knows that one");
}

/// Every member is there and reachable by a way, or not, as `standing` and `reachable` say.
fn shown(rig: &Rig, author: u64) -> (Standing, bool) {
    let view = rig.view(author);
    (view.standing, view.reachable)
}

#[test]
fn made_up_keys_call_nobody_down_and_make_nobody_unreachable() {
    let mut rig = Rig::south();
    rig.route(90, &[reach("south", 10)]);
    rig.choose(&[90]);
    // They claim to be of the island, to watch each other, and to be watched by its members.
    for author in 80..=83 {
        let others: Vec<u64> = (80..=83).filter(|other| *other != author).chain([2, 3]).collect();
        rig.hear(&announce(author, 1, "south", &others)).unwrap();
    }
    rig.told();
    for last in [1, 1 << 40] {
        for accused in 1..=5 {
            assert!(rig.hear(&certificate(accused, 1, last, &[80, 81, 82, 83])).is_err());
        }
    }
    // Nor once real watchers have gone, as long as one is left.
    rig.hear(&farewell(2, 9)).unwrap();
    rig.hear(&farewell(3, 9)).unwrap();
    assert_eq!(rig.told(), (vec![EventKind::Left; 2], vec![What::Own; 2]));
    for accused in [1, 5] {
        assert_eq!(shown(&rig, accused), (Standing::Alive, true), "{accused}");
    }
    // Without any watcher nobody can tell. It is not down, and its next word ends even the doubt.
    rig.hear(&farewell(4, 9)).unwrap();
    assert_eq!(shown(&rig, 1), (Standing::Alive, false));
    assert_eq!(rig.view(1).reason, Some(Reason::Unilateral));
    rig.hear(&announce(1, 5, "south", &[5])).unwrap();
    assert_eq!((shown(&rig, 1), rig.view(1).reason), ((Standing::Alive, true), None));
}

#[test]
fn votes_of_whoever_it_vouches_for_suffice_where_all_its_watchers_have_gone() {
    let mut rig = Rig::new();
    // 1 was watched by 2 and 3, and these by 4, 5 and 6.
    rig.hear(&announce(1, 1, "south", &[2, 3])).unwrap();
    for (author, watchers) in [(2, [4, 5]), (3, [5, 6]), (4, [5, 6]), (5, [4, 6]), (6, [4, 5])] {
        rig.hear(&announce(author, 1, "south", &watchers)).unwrap();
    }
    for author in 80..=82 {
        rig.hear(&announce(author, 1, "south", &[])).unwrap();
    }
    assert!(rig.hear(&certificate(1, 1, 1, &[4, 5, 6])).is_err(), "its watchers may hear it");
    rig.hear(&certificate(2, 1, 1, &[4, 5])).unwrap();
    assert_eq!(rig.standing(1), Some(Standing::Alive));
    rig.hear(&certificate(3, 1, 1, &[5, 6])).unwrap();
    assert_eq!((rig.standing(1), rig.view(1).reason), (Some(Standing::Down), Some(Reason::Unilateral)));
    // It spoke again: for a minute nobody is believed but its watchers.
    rig.hear(&pulse(1, 2)).unwrap();
    assert_eq!(rig.standing(1), Some(Standing::Alive));
    assert!(rig.hear(&certificate(1, 1, 2, &[4, 5, 6])).is_err());
    rig.pass(SPARED_FOR - Duration::from_millis(1));
    rig.far.sweep(rig.now);
    rig.far.settle(rig.now);
    assert_eq!(rig.standing(1), Some(Standing::Alive));
    rig.pass(Duration::from_millis(1));
    rig.far.sweep(rig.now);
    rig.far.settle(rig.now);
    assert_eq!(rig.standing(1), Some(Standing::Down));
}

#[test]
fn one_survivor_of_seven_is_believed_once_all_others_are_accused() {
    let mut rig = Rig::new();
    for author in 1..=7 {
        let watchers: Vec<u64> = (1..=7).filter(|watcher| *watcher != author).collect();
        rig.hear(&announce(author, 1, "south", &watchers)).unwrap();
    }
    for accused in 1..=5 {
        assert!(rig.hear(&certificate(accused, 1, 1, &[7])).is_err());
    }
    assert_eq!(rig.standing(1), Some(Standing::Alive), "6 may hear it");
    rig.hear(&certificate(6, 1, 1, &[7])).unwrap();
    for accused in 1..=6 {
        assert_eq!(rig.standing(accused), Some(Standing::Down), "{accused}");
    }
    assert_eq!(rig.standing(7), Some(Standing::Alive));
}

#[test]
fn who_crashed_before_it_named_anybody_cannot_be_reached_and_is_listed_for_ten_minutes() {
    let mut rig = Rig::south();
    rig.route(90, &[reach("south", 10)]);
    rig.choose(&[90]);
    rig.hear(&announce(6, 1, "south", &[])).unwrap();
    assert!(rig.hear(&certificate(6, 1, 1, &[2, 3])).is_err());
    rig.told();
    assert_eq!(rig.hear(&certificate(6, 1, 1, &[2, 3, 4])), Ok(()));
    assert_eq!((shown(&rig, 6), rig.view(6).reason), ((Standing::Alive, false), Some(Reason::Unilateral)));
    assert_eq!(rig.told(), (vec![], vec![What::Down]), "others are to doubt it, too");
    let mut other = Rig::south();
    for heard in &read_transfer(tag(), &rig.far.records(rig.now, 0, 0)).unwrap().words {
        let _ = other.hear(heard);
    }
    assert_eq!(other.view(6).reason, Some(Reason::IslandUnreachable));
    assert!(other.far.certificate_on(&id(6)).is_some());
    assert_eq!(rig.hear(&pulse(6, 2)), Ok(()));
    assert_eq!(shown(&rig, 6), (Standing::Alive, true));
    assert_eq!(rig.hear(&certificate(6, 1, 2, &[2, 3, 4])), Ok(()));
    rig.pass(Duration::from_secs(600) - Duration::from_millis(1));
    assert!(rig.standing(6).is_some());
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.standing(6), None);
    assert_eq!(rig.hear(&announce(6, 1, "south", &[])), Ok(()), "it may have lived");
}

#[test]
fn who_missed_that_somebody_cannot_be_reached_sees_by_the_digest_that_it_lacks_something() {
    let [mut rig, mut other] = [Rig::south(), Rig::south()];
    for rig in [&mut rig, &mut other] {
        rig.hear(&announce(6, 1, "south", &[])).unwrap();
    }
    let before = other.far.digest();
    rig.hear(&certificate(6, 1, 1, &[2, 3, 4])).unwrap();
    assert_ne!(rig.far.digest(), before);
    for heard in &read_transfer(tag(), &rig.far.records(rig.now, 0, 0)).unwrap().words {
        let _ = other.hear(heard);
    }
    assert_eq!(rig.far.digest(), other.far.digest());
    rig.hear(&pulse(6, 2)).unwrap();
    assert_eq!(rig.far.digest(), before);
    other.pass(Duration::from_secs(600));
    assert_eq!(other.far.digest(), Rig::south().far.digest());
}

#[test]
fn who_comes_late_counts_the_votes_of_those_that_have_left_since() {
    let mut rig = Rig::south();
    rig.hear(&announce(6, 1, "south", &[])).unwrap();
    rig.hear(&certificate(6, 1, 1, &[2, 3, 4])).unwrap();
    rig.hear(&farewell(2, 9)).unwrap();
    rig.hear(&farewell(3, 9)).unwrap();
    let mut other = Rig::new();
    for heard in &read_transfer(tag(), &rig.far.records(rig.now, 0, 0)).unwrap().words {
        let _ = other.hear(heard);
    }
    assert!(other.far.certificate_on(&id(6)).is_some(), "it is doubted");
    assert_eq!(other.far.digest(), rig.far.digest());
}

#[test]
fn certificates_of_no_weight_fill_no_room_that_others_need() {
    let mut rig = Rig::new();
    for author in 1000..1300 {
        rig.hear(&announce(author, 1, "south", &[1001])).unwrap();
    }
    for author in 80..=82 {
        rig.hear(&announce(author, 1, "south", &[])).unwrap();
    }
    for accused in 1002..1300 {
        assert!(rig.hear(&certificate(accused, 1, 1, &[80, 81, 82])).is_err());
    }
    assert_eq!(rig.far.waiting.len(), 256);
    // By a record that has not come yet, nothing can be said of the votes.
    rig.hear(&announce(1, 1, "south", &[2, 3, 4])).unwrap();
    rig.hear(&announce(2, 1, "south", &[])).unwrap();
    assert!(rig.hear(&certificate(1, 1, 1, &[2])).is_err());
    assert!(rig.far.waiting.contains_key(&id(1)));
}

#[test]
fn a_certificate_waits_for_what_it_depends_on() {
    let mut rig = Rig::south();
    // Its watchers 3 and 4 have fallen, too, but that is not known here yet.
    assert!(rig.hear(&certificate(1, 1, 1, &[2])).is_err());
    rig.hear(&farewell(3, 9)).unwrap();
    assert_eq!(rig.standing(1), Some(Standing::Alive));
    rig.told();
    rig.hear(&certificate(4, 1, 1, &[2, 5])).unwrap();
    assert_eq!(rig.standing(1), Some(Standing::Down), "its last watcher has said so");
    assert_eq!(rig.told().1, [What::Down, What::Down]);
    // By a record that comes after it.
    assert!(rig.hear(&certificate(5, 4, 4, &[2])).is_err());
    assert_eq!(rig.standing(5), Some(Standing::Alive));
    rig.hear(&announce(5, 4, "south", &[2])).unwrap();
    assert_eq!(rig.standing(5), Some(Standing::Down));
}

#[test]
fn who_has_voted_and_gone_has_voted_whatever_comes_first() {
    let gone = [farewell(2, 9), certificate(3, 1, 1, &[4, 5])];
    let verdict = certificate(1, 1, 1, &[2, 3]);
    for first in [true, false] {
        let mut rig = Rig::south();
        if first {
            rig.hear(&verdict).unwrap();
        }
        gone.iter().for_each(|word| rig.hear(word).unwrap());
        if !first {
            rig.hear(&verdict).unwrap();
        }
        assert_eq!(rig.view(1).reason, Some(Reason::NoAnswer), "the votes came first: {first}");
    }
}

#[test]
fn votes_that_convinced_where_watchers_were_known_to_be_gone_give_way_to_such_as_convince_all() {
    let mut rig = Rig::new();
    for author in 1..=7 {
        let watchers: Vec<u64> = (2..=7).filter(|watcher| *watcher != author).collect();
        rig.hear(&announce(author, 1, "south", &watchers)).unwrap();
    }
    let (few, enough) = (certificate(1, 1, 1, &[2, 3]), certificate(1, 1, 1, &[2, 3, 4]));
    assert_eq!(rig.hear(&few), Err(Refused::Unasked), "two of six");
    rig.hear(&farewell(6, 9)).unwrap();
    rig.hear(&farewell(7, 9)).unwrap();
    assert_eq!(rig.standing(1), Some(Standing::Down), "two of the four that are left");
    let head = rig.far.head();
    rig.told();
    assert_eq!(rig.hear(&certificate(1, 1, 1, &[2, 9])), Err(Refused::Stale), "no more than there were");
    assert_eq!(rig.hear(&enough), Ok(()));
    assert_eq!(rig.told(), (vec![], vec![What::Down]), "no second event");
    let words = rig.far.words_of(&id(1));
    assert!(words.contains(&enough.word.bytes) && !words.contains(&few.word.bytes));
    assert_ne!(rig.far.head(), head, "who reads on is told");
    assert_eq!(rig.hear(&certificate(1, 1, 1, &[2, 3, 4, 5])), Err(Refused::Stale), "needed by nobody");
}

#[test]
fn the_gone_are_forgotten_after_ten_minutes_and_stale_words_do_not_bring_them_back() {
    let mut rig = Rig::south();
    rig.hear(&farewell(1, 9)).unwrap();
    rig.hear(&certificate(2, 1, 1, &[3, 4])).unwrap();
    rig.outs();
    rig.pass(Duration::from_secs(600));
    let gone: Vec<MemberId> = rig
        .outs()
        .into_iter()
        .filter_map(|out| if let Out::Forgotten(id) = out { Some(id) } else { None })
        .collect();
    assert_eq!(gone.len(), 2);
    assert_eq!((rig.standing(1), rig.standing(2)), (None, None));
    assert_eq!(rig.hear(&announce(1, 1, "south", &[])), Err(Refused::Stale));
    assert_eq!(rig.hear(&announce(2, 1, "south", &[])), Err(Refused::Stale));
    assert_eq!(rig.hear(&announce(2, 5, "south", &[])), Ok(()));
}

#[test]
fn the_cheapest_way_is_chosen_and_kept_until_another_is_clearly_cheaper() {
    let mut rig = Rig::new();
    rig.route(90, &[reach("west south", 60), reach("west", 20)]);
    rig.route(91, &[reach("south", 59)]);
    rig.choose(&[90]);
    rig.choose(&[90, 91]);
    assert_eq!(rig.ways("south"), [(id(90), 60), (id(91), 59)], "hardly cheaper");
    rig.route(91, &[reach("south", 51)]);
    rig.choose(&[90, 91]);
    assert_eq!(rig.ways("south"), [(id(90), 60), (id(91), 51)]);
    rig.route(91, &[reach("south", 50)]);
    rig.choose(&[90, 91]);
    assert_eq!(rig.ways("south"), [(id(91), 50), (id(90), 60)], "five sixths");
    assert_eq!(rig.ways("west"), [(id(90), 20)]);
    rig.choose(&[90]);
    assert_eq!(rig.ways("south"), [(id(90), 60)], "the other bridge is gone");
}

#[test]
fn a_way_that_leads_through_our_own_island_is_none() {
    let mut rig = Rig::new();
    rig.route(90, &[reach("west north south", 10), reach("north", 1)]);
    rig.choose(&[90]);
    assert_eq!(rig.far.take_islands(), None);
}

#[test]
fn an_island_is_down_when_no_way_has_come_for_200_ms() {
    let mut rig = Rig::south();
    rig.route(90, &[reach("south", 10)]);
    rig.choose(&[90]);
    rig.told();
    rig.choose(&[]);
    assert!(rig.island("south").reachable && rig.ways("south").is_empty());
    assert_eq!(rig.far.doubted_until(), Some(rig.now + Duration::from_millis(200)));
    rig.pass(Duration::from_millis(199));
    rig.choose(&[90]);
    assert_eq!((rig.told(), rig.far.doubted_until()), ((vec![], vec![]), None), "another came in time");
    rig.choose(&[]);
    rig.pass(Duration::from_millis(200));
    assert_eq!(rig.told(), (vec![EventKind::IslandDown], vec![]), "one event, no funerals");
    let view = rig.view(1);
    assert_eq!((view.standing, view.reachable), (Standing::Alive, false));
    assert_eq!(view.reason, Some(Reason::IslandUnreachable));
    rig.pass(Duration::from_secs(3600));
    rig.choose(&[90]);
    assert_eq!(rig.told(), (vec![EventKind::IslandUp], vec![]));
    assert!(rig.view(1).reachable);
}

#[test]
fn an_island_that_cannot_be_reached_for_a_day_is_dropped_and_may_come_back() {
    let mut rig = Rig::south();
    rig.route(90, &[reach("south", 10)]);
    rig.choose(&[90]);
    rig.choose(&[]);
    rig.pass(Duration::from_millis(200));
    rig.pass(Duration::from_secs(24 * 3600 - 1));
    rig.outs();
    assert!(rig.far.members().count() == 5);
    rig.pass(Duration::from_secs(1));
    let withdrawn = rig.outs().into_iter().filter(|out| matches!(out, Out::Withdrawn(_))).count();
    assert_eq!((withdrawn, rig.far.members().count(), rig.far.digest()), (5, 0, 0));
    assert!(rig.far.take_islands().unwrap().is_empty());
    assert_eq!(rig.hear(&announce(1, 1, "south", &[])), Ok(()), "no floor keeps it out");
}

#[test]
fn a_record_of_our_own_islands_name_is_listed_and_never_reachable() {
    let mut rig = Rig::new();
    assert_eq!(rig.hear(&announce(1, 1, "north", &[])), Ok(()));
    let view = rig.view(1);
    assert_eq!((view.reachable, view.reason), (false, Some(Reason::SameNameOrSplit)));
    assert_eq!(rig.far.take_islands(), None, "ours is no other island");
    rig.far.set_own_island(rig.now, "west");
    assert_eq!(rig.view(1).reason, Some(Reason::IslandUnreachable));
    assert!(rig.far.take_islands().unwrap().contains_key("north"));
    rig.far.set_own_island(rig.now, "north");
    assert_eq!(rig.view(1).reason, Some(Reason::SameNameOrSplit));
    assert!(rig.far.take_islands().unwrap().is_empty());
}

#[test]
fn there_are_no_more_islands_than_256() {
    let mut rig = Rig::new();
    for number in 0..ISLANDS_MAX as u64 {
        rig.hear(&announce(1000 + number, 1, &format!("i{number}"), &[])).unwrap();
    }
    assert_eq!(rig.hear(&announce(1, 1, "one-more", &[])), Err(Refused::Full));
    // One that is empty and cannot be reached makes room.
    rig.far.withdraw(&id(1000), &id(2));
    assert_eq!(rig.hear(&announce(1, 1, "one-more", &[])), Ok(()));
    assert_eq!(rig.far.take_islands().unwrap().len(), ISLANDS_MAX);
}

/// The islands of which a name begins so.
fn known(rig: &Rig, name: &str) -> usize {
    (0..400).filter(|number| rig.far.islands.view(&format!("{name}{number}")).is_some()).count()
}

#[test]
#[ignore = "a measurement: cargo test -p isle-mesh --lib what_an_island_too_many_takes -- --ignored --nocapture"]
fn what_an_island_too_many_takes() {
    let mut rig = Rig::new();
    let ways =
        (0..ISLANDS_MAX).map(|number| reach(&format!("h b c d e f g a{number}"), 10)).collect::<Vec<_>>();
    rig.route(90, &ways);
    rig.choose(&[90]);
    flood(&mut rig, 66, 1000..1300, 300);
    let words: Vec<FarWord> =
        (2000..7000).map(|author| announce(author, 1, &format!("i{author}"), &[])).collect();
    let began = Instant::now();
    for word in &words {
        assert_eq!(rig.bring(66, word), Err(Refused::Full));
    }
    println!("{:?} a member of one more", began.elapsed() / 5000);
    let began = Instant::now();
    for _ in 0..100 {
        rig.choose(&[90]);
    }
    println!("{:?} to choose among {}", began.elapsed() / 100, ISLANDS_MAX + ISLANDS_MAX / 2);
}

#[test]
fn made_up_islands_that_one_bridge_brings_members_of_make_room_for_those_that_others_bring() {
    let mut rig = Rig::new();
    let refused = flood(&mut rig, 66, 1000..1300, 300);
    assert_eq!(refused, 300 - ISLANDS_MAX);
    for author in 1..=20 {
        assert_eq!(rig.bring(71, &announce(author, 1, &format!("real-{author}"), &[])), Ok(()));
    }
    assert_eq!(flood(&mut rig, 66, 1000..1300, 300), 300 - ISLANDS_MAX + 20, "it tries again");
    assert_eq!((known(&rig, "real-"), known(&rig, "made-up-")), (20, ISLANDS_MAX - 20));
    assert_eq!((listed(&rig, 1..21), listed(&rig, 1000..1300)), (20, ISLANDS_MAX - 20));
    let displaced = rig.outs().into_iter().filter(|out| matches!(out, Out::Displaced(_)));
    assert_eq!((displaced.count(), rig.far.islands_left_out()), (20, 20));
    assert_eq!(rig.far.take_islands().unwrap().len(), ISLANDS_MAX);
}

#[test]
fn made_up_islands_that_one_link_leads_to_make_room_for_those_that_others_lead_to() {
    let mut rig = Rig::new();
    let ways = |before: &str, name: &str, count: usize| -> Vec<Reach> {
        (0..count).map(|number| reach(&format!("{before} {name}{number}"), 10)).collect()
    };
    rig.route(90, &ways("liar", "a", 300));
    rig.choose(&[90]);
    assert_eq!((known(&rig, "a"), rig.far.islands_left_out()), (ISLANDS_MAX, 44));
    for number in 0..300 {
        let _ = rig.hear(&announce(1000 + number, 1, &format!("a{number}"), &[]));
    }
    assert_eq!(listed(&rig, 1000..1300), ISLANDS_MAX);
    rig.outs();
    // Of the same bridge over another link, and of another bridge.
    rig.route(90, &[ways("liar", "a", 300), ways("honest", "b", 20)].concat());
    rig.route(91, &ways("other", "c", 20));
    rig.choose(&[90, 91]);
    assert_eq!((known(&rig, "a"), known(&rig, "b"), known(&rig, "c")), (ISLANDS_MAX - 40, 20, 20));
    let outs = rig.outs();
    let count = |is: fn(&Out) -> bool| outs.iter().filter(|out| is(out)).count();
    assert_eq!(count(|out| matches!(out, Out::Island(EventKind::IslandUp, _))), 40);
    assert_eq!(count(|out| matches!(out, Out::Island(EventKind::IslandDown, _))), 40);
    assert_eq!(count(|out| matches!(out, Out::Displaced(_))), 40);
    assert_eq!((listed(&rig, 1000..1300), rig.far.islands_left_out()), (ISLANDS_MAX - 40, 44 + 40));
    // Nothing takes turns, and who cannot be reached for a while keeps its place.
    rig.choose(&[90]);
    rig.pass(Duration::from_secs(60));
    for author in 1..=20 {
        assert_eq!(rig.bring(72, &announce(author, 1, &format!("c{}", author - 1), &[])), Ok(()));
    }
    for number in 0..300 {
        let _ = rig.hear(&announce(1000 + number, 1, &format!("a{number}"), &[]));
    }
    rig.choose(&[90]);
    assert_eq!((known(&rig, "b"), known(&rig, "c"), listed(&rig, 1..21)), (20, 20, 20));
    assert_eq!(known(&rig, "a"), ISLANDS_MAX - 40);
    rig.outs();
    rig.choose(&[90, 91]);
    let again = rig.told().0;
    assert_eq!(again, vec![EventKind::IslandUp; 20]);
    // As soon as there is room it is taken.
    assert!(!rig.far.has_room_for_islands());
    rig.choose(&[90]);
    rig.pass(Duration::from_millis(200));
    rig.pass(Duration::from_secs(24 * 3600));
    assert!(rig.far.has_room_for_islands());
    rig.choose(&[90]);
    assert_eq!((known(&rig, "a"), known(&rig, "c")), (ISLANDS_MAX - 20, 0));
}

#[test]
fn who_is_withdrawn_goes_unless_there_is_another_way() {
    let mut rig = Rig::south();
    rig.route(90, &[reach("south", 10)]);
    rig.choose(&[90]);
    rig.far.withdraw(&id(1), &id(70));
    assert_eq!(rig.standing(1), Some(Standing::Alive), "we have a way");
    rig.far.withdraw(&id(1), &id(5));
    assert_eq!(rig.standing(1), None, "a bridge of its own island says so");
    rig.choose(&[]);
    rig.pass(Duration::from_millis(200));
    rig.far.set_origin(&id(2), id(71));
    rig.far.withdraw(&id(2), &id(70));
    assert_eq!(rig.standing(2), Some(Standing::Alive), "another link has brought it");
    rig.far.withdraw(&id(2), &id(71));
    assert_eq!(rig.standing(2), None);
}

#[test]
fn newer_parts_replace_older_ones_and_fewer_parts_end_the_rest() {
    let mut rig = Rig::new();
    let mut take = |seq, part, parts, islands: &[&str]| {
        let reaches = islands.iter().map(|island| reach(island, 10)).collect();
        let routes = Routes { part, parts, reaches };
        let bytes = Identity::for_test(90).sign_word(tag(), &Message::Routes(routes.clone()), Seq(seq));
        rig.far.routes.take(id(90), Stamp::new(1, seq), bytes, &routes)
    };
    assert_eq!(take(1, 0, 2, &["a"]), Ok(()));
    assert_eq!(take(2, 1, 2, &["b"]), Ok(()));
    assert_eq!(take(1, 0, 2, &["a"]), Err(Refused::Stale));
    assert_eq!(take(3, 0, 1, &["c"]), Ok(()), "all there is now");
    assert_eq!(take(2, 1, 2, &["b"]), Err(Refused::Stale), "that part is over");
    rig.choose(&[90]);
    assert_eq!(rig.far.take_islands().unwrap().keys().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn who_reads_on_gets_what_changed_and_who_reads_anew_gets_everything() {
    let mut rig = Rig::south();
    rig.hear(&certificate(1, 1, 7, &[2, 3])).unwrap();
    let (instance, head) = rig.far.head();
    let read = |bytes: &Bytes| read_transfer(tag(), bytes).unwrap();
    let all = read(&rig.far.records(rig.now, 0, 0));
    assert_eq!((all.instance, all.through, all.words.len()), (instance, head, 6));
    let mut other = Rig::new();
    for heard in &all.words {
        let _ = other.hear(heard);
    }
    assert_eq!((other.far.digest(), other.standing(1)), (rig.far.digest(), Some(Standing::Down)));
    assert!(read(&rig.far.records(rig.now, instance, head)).words.is_empty());
    rig.hear(&pulse(1, 8)).unwrap();
    rig.hear(&farewell(2, 9)).unwrap();
    let news = read(&rig.far.records(rig.now, instance, head));
    assert_eq!(news.words.len(), 4, "record and pulse of one, record and farewell of the other");
    assert_eq!(read(&rig.far.records(rig.now, instance + 1, head)).words.len(), 7);
    for heard in &news.words {
        let _ = other.hear(heard);
    }
    assert_eq!(other.far.digest(), rig.far.digest());
    assert_eq!((other.standing(1), other.standing(2)), (Some(Standing::Alive), Some(Standing::Left)));
}

#[test]
fn who_is_gone_is_listed_for_ten_minutes_in_all_whoever_hears_of_it_late() {
    let mut rig = Rig::south();
    rig.hear(&farewell(1, 9)).unwrap();
    rig.hear(&certificate(2, 1, 1, &[3, 4])).unwrap();
    // One newcomer learns it from another.
    for minutes in [4, 5] {
        rig.pass(Duration::from_secs(minutes * 60));
        let mut newcomer = Rig { now: rig.now, ..Rig::new() };
        for heard in &read_transfer(tag(), &rig.far.records(rig.now, 0, 0)).unwrap().words {
            let _ = newcomer.hear(heard);
        }
        rig = newcomer;
        assert_eq!((rig.standing(1), rig.standing(2)), (Some(Standing::Left), Some(Standing::Down)));
    }
    let mut newcomer = rig;
    newcomer.pass(Duration::from_secs(59));
    assert!(newcomer.standing(1).is_some() && newcomer.standing(2).is_some());
    newcomer.pass(Duration::from_secs(2));
    assert_eq!((newcomer.standing(1), newcomer.standing(2)), (None, None));
    // Nobody who is there is touched by such a claim, and a claim of years is one of ten minutes.
    let claim = FarWord { gone: Some(Duration::from_secs(1 << 40)), ..pulse(3, 2) };
    let _ = newcomer.hear(&claim);
    newcomer.pass(Duration::ZERO);
    assert_eq!(newcomer.standing(3), Some(Standing::Alive));
    let claim = FarWord { gone: Some(Duration::from_secs(1 << 40)), ..farewell(3, 9) };
    assert_eq!(newcomer.hear(&claim), Ok(()));
    newcomer.pass(Duration::ZERO);
    assert_eq!(newcomer.standing(3), None);
    assert_eq!(newcomer.hear(&announce(3, 1, "south", &[])), Err(Refused::Stale), "its floor stays");
}

/// Everything that can be said of two members of an island of five, whose other three are there and stay.
fn any_words() -> Vec<FarWord> {
    let mut words = vec![certificate(1, 1, 4, &[3, 4]), certificate(2, 1, 1, &[3, 4])];
    for author in [1, 2] {
        words.push(announce(author, 1, "south", &[3, 4, 5]));
        words.push(announce(author, 6, "south", &[3, 4, 5]));
        words.push(pulse(author, 3));
        words.push(pulse(author, 5));
        words.push(certificate(author, 6, 6, &[4, 5]));
        words.push(word(author, 2, 1, &Message::Announce(record("west", &[], false).into())));
    }
    words.push(farewell(2, 8));
    words
}

proptest! {
    #[test]
    fn the_order_in_which_words_come_does_not_matter(
        kept in prop::collection::vec(any::<bool>(), 15),
        order in Just((0..15usize).collect::<Vec<_>>()).prop_shuffle(),
        again in Just((0..15usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let words = any_words();
        prop_assert_eq!(words.len(), 15);
        let after = |order: &[usize]| {
            let mut rig = Rig::new();
            for author in 3..=5 {
                rig.hear(&announce(author, 1, "south", &[])).unwrap();
            }
            // A word that depends on another comes again with the next digest.
            for _ in 0..3 {
                for index in order.iter().filter(|index| kept[**index]) {
                    let _ = rig.hear(&words[*index]);
                }
            }
            let view = |author| rig.far.members().find(|member| member.id == id(author)).map(|member| {
                (member.stamp, member.standing, member.record.island.clone())
            });
            let seen = (view(1), view(2), rig.far.digest());
            // Nothing is news any more.
            rig.told();
            for index in order.iter().filter(|index| kept[**index]) {
                let _ = rig.hear(&words[*index]);
            }
            let own = rig.outs().into_iter().filter(|out| {
                matches!(out, Out::Event(..) | Out::Said { what: What::Own | What::Down, .. })
            });
            (seen, own.count())
        };
        let (one, other) = (after(&order), after(&again));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.1, 0);
    }
}

#[test]
#[ignore = "a measurement: cargo test -p isle-mesh --lib what_a_word_takes -- --ignored --nocapture"]
fn what_a_word_takes() {
    let words: Vec<FarWord> =
        (1000..6000).map(|author| announce(author, 1, "south", &[1, 2, 3, 4, 5, 6])).collect();
    let mut rig = Rig::new();
    let began = Instant::now();
    for some in words.chunks(24) {
        for heard in some {
            rig.far.hear(rig.now, None, heard).unwrap();
        }
        rig.far.settle(rig.now);
        rig.outs();
    }
    println!("{:?} a word of {}", began.elapsed() / 5000, words.len());
}

/// Members of other islands by the bridge `from`: as many as it likes, each of an island of its own if `islands`.
fn flood(rig: &mut Rig, from: u64, authors: std::ops::Range<u64>, islands: u64) -> usize {
    let words = authors.map(|author| announce(author, 1, &format!("made-up-{}", author % islands), &[]));
    words.filter(|word| rig.bring(from, word) == Err(Refused::Full)).count()
}

fn listed(rig: &Rig, authors: std::ops::Range<u64>) -> usize {
    authors.filter(|author| rig.standing(*author).is_some()).count()
}

#[test]
fn who_floods_the_table_makes_room_for_others_and_they_never_for_it() {
    const HONEST: std::ops::Range<u64> = 1..21;
    const LATE: std::ops::Range<u64> = 21..41;
    const MADE_UP: std::ops::Range<u64> = 1000..1300;
    for islands in [1, 50] {
        let mut rig = Rig::new();
        rig.far.hold(100);
        for author in HONEST {
            assert_eq!(rig.bring(71, &announce(author, 1, "south", &[])), Ok(()));
        }
        // One of them is gone, and as long as it is listed it is listed.
        assert_eq!(rig.bring(71, &farewell(1, 2)), Ok(()));
        assert_eq!(flood(&mut rig, 66, MADE_UP, islands), 220);
        assert_eq!((listed(&rig, HONEST), listed(&rig, MADE_UP)), (20, 80));
        // Another bridge brings others, and more of the first come.
        for author in LATE {
            let from = if author % 2 == 0 { 71 } else { 72 };
            assert_eq!(rig.bring(from, &announce(author, 1, "west", &[])), Ok(()));
        }
        assert_eq!(flood(&mut rig, 66, MADE_UP, islands), 240, "it tries again");
        assert_eq!((listed(&rig, HONEST), listed(&rig, LATE), listed(&rig, MADE_UP)), (20, 20, 60));
        let displaced = std::iter::from_fn(|| rig.far.poll()).filter(|out| matches!(out, Out::Displaced(_)));
        assert_eq!(displaced.count(), 20);
        // What is known already is news as before.
        assert_eq!(rig.bring(71, &announce(2, 2, "south", &[])), Ok(()));
        assert_eq!(rig.bring(66, &announce(1000, 2, "made-up-0", &[])), Ok(()));
    }
}

#[test]
fn behind_one_bridge_the_largest_island_makes_room() {
    let mut rig = Rig::new();
    rig.far.hold(40);
    assert_eq!(flood(&mut rig, 71, 1000..1100, 1), 60);
    for author in 1..=20 {
        assert_eq!(rig.bring(71, &announce(author, 1, "south", &[])), Ok(()), "{author}");
    }
    assert_eq!((listed(&rig, 1..21), listed(&rig, 1000..1020)), (20, 20), "the latest went");
    // Neither drives out the other from here on.
    for author in 21..30 {
        assert_eq!(rig.bring(71, &announce(author, 1, "south", &[])), Err(Refused::Full));
        assert_eq!(rig.bring(71, &announce(2000 + author, 1, "made-up-0", &[])), Err(Refused::Full));
    }
    // Of their own those make room that have been gone for longest.
    assert_eq!(rig.bring(71, &farewell(1000, 2)), Ok(()));
    assert_eq!(rig.bring(71, &announce(21, 1, "south", &[])), Err(Refused::Full));
    assert_eq!(rig.bring(71, &announce(2000, 1, "made-up-0", &[])), Ok(()));
    assert_eq!(rig.standing(1000), None);
}

#[test]
fn who_brought_a_member_is_known_as_long_as_that_is_listed() {
    let mut rig = Rig::new();
    rig.far.hold(8);
    for author in 1..=4 {
        assert_eq!(rig.bring(71, &announce(author, 1, "south", &[])), Ok(()));
        // The other has it, too, and newer.
        assert_eq!(rig.bring(72, &announce(author, 2, "west", &[])), Ok(()));
    }
    assert_eq!(flood(&mut rig, 72, 1000..1010, 1), 6);
    assert_eq!(listed(&rig, 1..5), 4);
    for author in 1..=4 {
        rig.far.withdraw(&id(author), &id(70));
    }
    assert_eq!(listed(&rig, 1..5), 0);
    assert_eq!(flood(&mut rig, 72, 2000..2010, 1), 6, "there was room for four");
}
