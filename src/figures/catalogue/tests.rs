use proptest::prelude::*;

use super::*;
use crate::figures::shelf::{Shelf, Shelved};
use crate::figures::testing;

fn line(name: &str, share: &str, size: &str) -> String {
    format!("{name}\t{share}\t{size}\t{}\n", "0a".repeat(32))
}

#[test]
fn the_form_of_a_line_is_exact() {
    let good = line("a", "1/1", "10");
    assert_eq!(Catalogue::parse(good.as_bytes()).unwrap().entries().len(), 1);
    let malformed = [
        "\n".to_owned(),
        line("A", "1/1", "10"),
        line("", "1/1", "10"),
        line("a", "0/1", "10"),
        line("a", "1/1", "0"),
        line("a", "1/1", "010"),
        line("a", "1/1", "+10"),
        line("a", "1/1", "1048577"),
        line("a", "1/1", ""),
        good.to_uppercase(),
        good.replace('\n', "\r\n"),
        good.replace('\n', "\tx\n"),
        good.replace("0a\n", "\n"),
        format!(" {good}"),
    ];
    for text in malformed {
        assert_eq!(Catalogue::parse(text.as_bytes()), Err(CatalogueError::Malformed { line: 1 }), "{text:?}");
    }
    assert_eq!(Catalogue::parse(&good.as_bytes()[..50]), Err(CatalogueError::Unfinished { line: 1 }));
}

#[test]
fn lines_ascend_and_each_share_is_there_once() {
    let a = line("a", "1/1", "10");
    for (first, second) in [
        (a.clone(), a.clone()),
        (line("b", "1/1", "10"), a.clone()),
        (a.clone(), line("a", "1/1", "11")),
        (line("a", "2/12", "10"), line("a", "10/12", "10")),
    ] {
        let text = first + &second;
        assert_eq!(Catalogue::parse(text.as_bytes()), Err(CatalogueError::Order { line: 2 }), "{text}");
    }
    let text = a + &line("a-b", "1/1", "10");
    assert_eq!(Catalogue::parse(text.as_bytes()).unwrap().entries().len(), 2);
}

#[test]
fn a_line_without_end_is_refused_before_it_is_held() {
    let mut parser = CatalogueParser::default();
    parser.push(&[b'a'; 100]).unwrap();
    assert_eq!(parser.push(&[b'a'; 100]), Err(CatalogueError::Malformed { line: 1 }));
}

#[test]
fn entries_and_bytes_are_bounded() {
    let mut parser = CatalogueParser::default();
    for i in 0..ENTRIES_MAX {
        parser.push(line(&format!("{i:06}"), "1/1", "10").as_bytes()).unwrap();
    }
    assert_eq!(parser.push(line("a", "1/1", "10").as_bytes()), Err(CatalogueError::TooMany));
    let mut parser = CatalogueParser { bytes: CATALOGUE_BYTES_MAX, ..CatalogueParser::default() };
    assert_eq!(parser.push(b"a"), Err(CatalogueError::TooLong));
}

#[test]
fn a_body_passes_only_as_what_was_promised() {
    let shelf = Shelf::builtin();
    let (duck, body) = shelf.get(&"duck".parse().unwrap(), Share::WHOLE).unwrap();
    assert_eq!(duck.check(body).unwrap().total(), 9);
    let other = shelf.get(&"swan".parse().unwrap(), Share::WHOLE).unwrap();
    assert!(matches!(duck.check(other.1), Err(Mismatch::Size { .. })));
    let mut damaged = body.to_vec();
    damaged[20] ^= 1;
    assert!(matches!(duck.check(&damaged), Err(Mismatch::Hash { .. })));
    let renamed = Entry { name: "swan".parse().unwrap(), ..duck.clone() };
    assert!(matches!(renamed.check(body), Err(Mismatch::Other { .. })));
    let text = b"<script>alert(1)</script>";
    let lie = Entry { size: 25, hash: Hash::of(text), ..duck.clone() };
    assert!(matches!(lie.check(text), Err(Mismatch::NotAFigure(_))));
}

proptest! {
    #[test]
    fn it_reads_what_it_writes_however_it_is_cut(
        figures in proptest::collection::vec(testing::figures(), 0..12),
        cut in 1usize..200,
    ) {
        let shelved: Vec<Shelved> = figures.iter().map(Shelved::from).collect();
        let (shelf, _) = Shelf::new(&shelved);
        let mut parser = CatalogueParser::default();
        for chunk in shelf.catalogue_text().chunks(cut) {
            prop_assert!(parser.push(chunk).is_ok());
        }
        let read = parser.finish();
        prop_assert_eq!(read.as_ref(), Ok(shelf.catalogue()));
    }

    #[test]
    fn what_it_reads_it_would_write(bytes in proptest::collection::vec(any::<u8>(), 0..300), damage: Vec<(prop::sample::Index, u8)>) {
        let _ = Catalogue::parse(&bytes);
        let mut text = Shelf::builtin().catalogue_text().to_vec();
        for (at, byte) in damage.into_iter().take(4) {
            let at = at.index(text.len());
            text[at] = byte;
        }
        if let Ok(read) = Catalogue::parse(&text) {
            prop_assert_eq!(&Catalogue::of_sorted(read.entries().to_vec()).1, &text);
            prop_assert_eq!(read.digest(), Hash::of(&text));
        }
    }
}
