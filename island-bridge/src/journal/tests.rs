//! What readers get: everything once, the newest only, whatever they knew before.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::frame::Digest;

fn member(number: u8) -> MemberId {
    // Spread over the buckets as keys are.
    MemberId(*blake3::hash(&[number]).as_bytes())
}

fn own(number: u8, text: &str) -> Change {
    Change { member: member(number), what: What::Own, bytes: text.to_owned().into(), is_urgent: false }
}

fn about(number: u8, what: What, text: &str) -> Change {
    Change { what, is_urgent: true, ..own(number, text) }
}

fn journal(changes: impl IntoIterator<Item = Change>) -> Journal {
    let mut journal = Journal::new(7, 100);
    for change in changes {
        journal.record(change, None).unwrap();
    }
    journal
}

fn texts(words: &[Bytes]) -> Vec<&str> {
    words.iter().map(|word| std::str::from_utf8(word).unwrap()).collect()
}

#[test]
fn whoever_is_back_is_not_gone() {
    let mut journal = Journal::new(7, 10);
    let now = Instant::now();
    let mut tell = |what, text: &'static str, gone: Option<Instant>| {
        let (member, bytes) = (member(1), Bytes::from(text));
        journal.tell(News::Said { member, what, bytes, is_urgent: true, from: None, gone }).unwrap();
        journal.gone_for(&member, now + Duration::from_secs(9))
    };
    let nine = Some(Duration::from_secs(9));
    assert_eq!(tell(outward::What::Own, "record", None), None);
    assert_eq!(tell(outward::What::Down, "votes", Some(now)), nine);
    assert_eq!(tell(outward::What::Refuted, "pulse", None), None);
    assert_eq!(tell(outward::What::Own, "farewell", Some(now)), nine);
    assert_eq!(tell(outward::What::Own, "record of the next life", None), None);
}

#[test]
fn a_slow_reader_reads_only_the_newest_word() {
    let mut journal = journal([own(1, "a1"), own(2, "b1"), own(1, "a2"), own(1, "a3")]);
    let batch = journal.batch(0, |_| false);
    assert_eq!((texts(&batch.words), batch.through), (vec!["b1", "a3"], 4));
    assert_eq!(journal.batch(4, |_| false).words, Vec::<Bytes>::new());
    journal.record(own(2, "b2"), None).unwrap();
    assert_eq!(texts(&journal.batch(4, |_| false).words), ["b2"]);
}

#[test]
fn the_same_word_is_no_change() {
    let mut journal = journal([own(1, "a1")]);
    assert_eq!(journal.record(own(1, "a1"), None), Ok(None));
    journal.record(about(1, What::Down, "votes"), None).unwrap();
    assert_eq!(journal.record(about(1, What::Down, "votes"), None), Ok(None));
    journal.record(about(1, What::Refuted, "pulse"), None).unwrap();
    assert_eq!(journal.record(about(1, What::Refuted, "pulse"), None), Ok(None));
    assert_eq!(journal.head(), 3);
    // Other votes may convince where the first ones did not.
    journal.record(about(1, What::Down, "votes"), None).unwrap();
    assert_eq!(journal.record(about(1, What::Down, "other votes"), None), Ok(Some(5)));
}

#[test]
fn urgent_words_are_read_apart() {
    let journal = journal([own(1, "a1"), about(2, What::Own, "farewell"), own(3, "c1")]);
    assert_eq!(texts(&journal.batch(0, |_| false).words), ["a1", "c1"]);
    assert_eq!(journal.urgent_after(0).map(|(_, entry, _)| &entry.bytes[..]), Some(&b"farewell"[..]));
    assert!(journal.urgent_after(2).is_none());
}

#[test]
fn a_newer_word_ends_the_verdict() {
    let mut journal = journal([own(1, "a1"), about(1, What::Down, "votes")]);
    assert!(journal.urgent_after(0).is_some());
    journal.record(own(1, "a2"), None).unwrap();
    assert!(journal.urgent_after(0).is_none());
    assert_eq!(journal.record(about(9, What::Down, "votes"), None), Err(JournalError::Unknown));
}

#[test]
fn verdicts_are_equal_whatever_votes_they_were_made_by() {
    let one = journal([own(1, "a1"), about(1, What::Down, "votes")]);
    let other = journal([own(1, "a1"), about(1, What::Down, "other votes")]);
    assert_eq!(one.buckets(0), other.buckets(0));
    let refuted = journal([own(1, "a1"), about(1, What::Down, "votes"), about(1, What::Refuted, "pulse")]);
    assert_eq!(refuted.buckets(0), journal([own(1, "a1")]).buckets(0));
    assert_ne!(one.buckets(0), refuted.buckets(0));
}

#[test]
fn the_withdrawn_are_told_before_words_that_come_later() {
    let mut journal = journal([own(1, "a1"), own(2, "b1")]);
    journal.withdraw(member(1));
    journal.withdraw(member(9));
    journal.record(own(1, "a2"), None).unwrap();
    let batch = journal.batch(0, |_| false);
    assert_eq!((&batch.withdrawn[..], texts(&batch.words)), (&[member(1)][..], vec!["b1", "a2"]));
    assert_eq!(journal.batch(2, |_| false).withdrawn, [member(1)]);
    assert_eq!(journal.batch(3, |_| false).withdrawn, []);
    assert_eq!((journal.members(), batch.through), (2, 4));
}

#[test]
fn a_cursor_is_known_until_a_withdrawal_it_missed_is_dropped() {
    let mut journal = Journal::new(7, 10_000);
    let at = |index| Cursor { instance: 7, index, urgent: 0 };
    journal.record(own(1, "a1"), None).unwrap();
    for round in 0..=WITHDRAWN_KEPT {
        journal.record(own(2, &format!("b{round}")), None).unwrap();
        journal.withdraw(member(2));
    }
    assert!(!journal.knows(at(1)) && !journal.knows(at(2)));
    assert!(journal.knows(at(3)) && journal.knows(at(journal.head())));
    assert!(!journal.knows(at(journal.head() + 1)));
    assert!(!journal.knows(Cursor { instance: 8, ..at(3) }) && !journal.knows(Cursor::default()));
    assert_eq!(journal.withdrawn.len(), WITHDRAWN_KEPT);
}

#[test]
fn a_full_journal_takes_news_of_those_it_has() {
    let mut journal = Journal::new(7, 2);
    journal.record(own(1, "a1"), None).unwrap();
    journal.record(own(2, "b1"), None).unwrap();
    assert_eq!(journal.record(own(3, "c1"), None), Err(JournalError::Full { members: 2 }));
    assert!(journal.record(own(2, "b2"), None).unwrap().is_some());
    journal.forget(member(1));
    assert!(journal.record(own(3, "c1"), None).unwrap().is_some());
}

#[test]
fn a_batch_keeps_its_limits_and_the_next_goes_on() {
    let mut journal = Journal::new(7, 10_000);
    for number in 0..3000u32 {
        let id = MemberId(*blake3::hash(&number.to_be_bytes()).as_bytes());
        let bytes = Bytes::from(vec![1; if number < 1500 { 20 } else { 1200 }]);
        let bytes = [&number.to_be_bytes()[..], &bytes[4..]].concat().into();
        journal.record(Change { member: id, what: What::Own, bytes, is_urgent: false }, None).unwrap();
    }
    let (mut index, mut words) = (0, 0);
    while index < journal.head() {
        let batch = journal.batch(index, |_| false);
        let bytes: usize = batch.words.iter().map(Bytes::len).sum();
        assert!(batch.words.len() <= BATCH_WORDS_MAX && bytes <= BATCH_BYTES_MAX && batch.through > index);
        words += batch.words.len();
        index = batch.through;
    }
    assert_eq!(words, 3000);
}

/// Everything that `reader` gets of `writer` by digests, and in how many batches.
fn synchronise(writer: &Journal, reader: &Journal) -> Vec<Bytes> {
    let bits = writer.bucket_bits();
    let digest = Digest { index: writer.head(), buckets: writer.buckets(bits) };
    let (mut from, mut words) = (Some(0), Vec::new());
    while let Some(bucket) = from {
        let (request, next) = reader.request(&digest.buckets, bucket);
        assert_eq!(request.more, next.is_some());
        from = next;
        let mut position = Some(Position::default());
        while let Some(at) = position {
            let answer = writer.answer(Instant::now(), &request, bits, digest.index, at);
            words.extend(answer.words);
            position = answer.next;
        }
    }
    words
}

#[test]
fn whoever_believes_an_old_verdict_is_sent_what_ends_it() {
    let ours = journal([own(1, "a1"), about(1, What::Refuted, "pulse")]);
    let theirs = journal([own(1, "a1"), about(1, What::Down, "votes")]);
    assert_eq!(synchronise(&ours, &theirs), ["pulse"]);
    assert_eq!(synchronise(&ours, &journal([own(1, "a1")])), Vec::<Bytes>::new());
}

proptest! {
    #[test]
    fn digests_bring_what_is_lacking_and_nothing_else(
        ours in proptest::collection::btree_map(any::<u16>(), 0..3u8, 0..400),
        theirs in proptest::collection::btree_map(any::<u16>(), 0..3u8, 0..400),
    ) {
        let build = |versions: &BTreeMap<u16, u8>| {
            let mut journal = Journal::new(7, 10_000);
            for (number, version) in versions {
                let member = MemberId(*blake3::hash(&number.to_be_bytes()).as_bytes());
                let bytes = Bytes::from(format!("{number} {version}"));
                journal.record(Change { member, what: What::Own, bytes, is_urgent: false }, None).unwrap();
            }
            journal
        };
        let lacking = ours.iter().filter(|(number, version)| theirs.get(*number) != Some(*version));
        let mut expected: Vec<Bytes> =
            lacking.map(|(number, version)| Bytes::from(format!("{number} {version}"))).collect();
        let mut came = synchronise(&build(&ours), &build(&theirs));
        expected.sort();
        came.sort();
        prop_assert_eq!(came, expected);
    }
}

#[test]
fn a_large_table_crosses_in_several_requests() {
    let fill = |from: u32| {
        let mut journal = Journal::new(7, 100_000);
        for number in from..from + 20_000 {
            let member = MemberId(*blake3::hash(&number.to_be_bytes()).as_bytes());
            let bytes = Bytes::from(number.to_string());
            journal.record(Change { member, what: What::Own, bytes, is_urgent: false }, None).unwrap();
        }
        journal
    };
    let (ours, theirs) = (fill(0), fill(10_000));
    let (request, next) = theirs.request(&ours.buckets(ours.bucket_bits()), 0);
    assert!(next.is_some() && request.wanted.iter().map(|wanted| wanted.held.len()).sum::<usize>() <= HELD);
    assert_eq!(synchronise(&ours, &theirs).len(), 10_000);
}

const HELD: usize = crate::frame::HELD_MAX;
