use proptest::prelude::*;

use super::*;
use crate::figures::testing;

fn piece(part: &str, color: Option<&str>, quantity: u32) -> Piece {
    Piece::new(part, color, quantity).unwrap()
}

fn duck(share: Share, of_hash: Option<Hash>) -> Figure {
    let pieces = [
        piece("brick 2x4", Some("yellow"), 2),
        piece("brick \"2\\4\"", None, 1),
        piece("brick 2x4", None, 1),
        piece("brick 2x4", Some("yellow"), 1),
    ];
    Figure::new("Duck".parse().unwrap(), share, of_hash, pieces).unwrap()
}

/// The bytes are the protocol: a change here changes every hash, and NETWORK.md.
#[test]
fn the_body_has_one_spelling() {
    let pieces = r#""pieces":[{"part":"brick \"2\\4\"","quantity":1},{"part":"brick 2x4","quantity":1},{"part":"brick 2x4","color":"yellow","quantity":3}]"#;
    let whole = duck(Share::WHOLE, None);
    assert_eq!(*whole.body(), format!(r#"{{"name":"duck","total":5,{pieces}}}"#));
    assert_eq!(whole.hash().to_string(), "b7792ff7e4449cc50c51ecaae4b3c4e87f31e05ed570e0695de46aee8fdec303");
    let share = duck(Share { index: 2, of: 3 }, Some(Hash([0xab; 32])));
    let ab = "ab".repeat(32);
    assert_eq!(
        *share.body(),
        format!(r#"{{"name":"duck","total":5,"share":{{"index":2,"of":3}},"of_hash":"{ab}",{pieces}}}"#)
    );
}

#[test]
fn only_the_one_spelling_is_read_from_the_network() {
    let body = duck(Share::WHOLE, None).body().clone();
    let text = std::str::from_utf8(&body).unwrap();
    assert!(Figure::from_body(&body).is_ok());
    for (from, to) in [
        ("\"total\":5,", ""),
        ("\"total\":5", "\"total\": 5"),
        ("duck", "Duck"),
        ("yellow", "y\\u0065llow"),
        ("yellow", " yellow"),
        ("}]}", "}],\"sources\":[]}"),
    ] {
        let other = text.replacen(from, to, 1);
        assert_ne!(other, text);
        assert_eq!(Figure::from_body(other.as_bytes()), Err(FigureError::NotCanonical), "{other}");
    }
}

#[test]
fn a_whole_figure_knows_its_own_hash_or_is_refused() {
    let whole = duck(Share::WHOLE, None);
    assert_eq!(duck(Share::WHOLE, Some(whole.hash())), whole);
    let other = Hash([1; 32]);
    let error =
        Figure::new("duck".parse().unwrap(), Share::WHOLE, Some(other), whole.pieces().to_vec()).unwrap_err();
    assert_eq!(error, FigureError::WrongOfHash { stated: other, found: whole.hash() });
}

#[test]
fn texts_that_deceive_are_refused() {
    for bad in ["a\u{202e}b", "a\tb", "a\u{1b}[31m", "a\u{85}b", "a\u{2028}b", "\u{feff}a", "a\u{200b}b"] {
        let error = Piece::new(bad, None, 1).unwrap_err();
        assert!(matches!(error, FigureError::NotPlain { what: "part", .. }), "{bad:?}: {error}");
        assert!(error.to_string().chars().all(|c| c.is_ascii_graphic() || c == ' '), "{error}");
        let error = Piece::new("a", Some(bad), 1).unwrap_err();
        assert!(matches!(error, FigureError::NotPlain { what: "colour", .. }), "{bad:?}: {error}");
    }
    assert!(Piece::new("بلوك 2×4 <b>&\"", Some("grün"), 1).is_ok());
}

#[test]
fn bounds_are_kept() {
    assert_eq!(Piece::new("  ", None, 1), Err(FigureError::NoPart));
    assert_eq!(Piece::new("a", None, 0), Err(FigureError::NoQuantity { part: "a".into() }));
    assert!(Piece::new(&"ä".repeat(128), Some(&"ö".repeat(64)), 1).is_ok());
    assert_eq!(
        Piece::new(&"a".repeat(129), None, 1),
        Err(FigureError::TooLong { what: "part", chars_max: 128 })
    );
    let name: FigureName = "a".parse().unwrap();
    assert_eq!(Figure::new(name.clone(), Share::WHOLE, None, []), Err(FigureError::NoPieces));
    let many = [piece("a", None, u32::MAX), piece("b", None, 1)];
    assert_eq!(Figure::new(name.clone(), Share::WHOLE, None, many), Err(FigureError::TooMany));
    let share = Share { index: 3, of: 2 };
    assert_eq!(Figure::new(name, share, None, [piece("a", None, 1)]), Err(FigureError::Share(NotAShare)));
}

#[test]
fn exactly_one_mebibyte_fits() {
    let with_last = |count: usize, last: usize| {
        let pieces = (0..count).map(|i| piece(&format!("{i:0100}"), None, 1));
        let last = piece(&"z".repeat(last), None, 1);
        Figure::new("a".parse().unwrap(), Share::WHOLE, None, pieces.chain([last]))
    };
    let count = (BODY_BYTES_MAX - 64) / (PIECE_FORM + 100 + ",".len());
    let room = BODY_BYTES_MAX - with_last(count, 1).unwrap().body().len();
    assert_eq!(with_last(count, 1 + room).unwrap().body().len(), BODY_BYTES_MAX);
    assert_eq!(with_last(count, 2 + room), Err(FigureError::TooLarge));
    assert_eq!(with_last(10_000_000, 1), Err(FigureError::TooLarge));
}

#[test]
fn a_stated_total_is_checked() {
    let error =
        serde_json::from_str::<Figure>(r#"{"name":"a","total":3,"pieces":[{"part":"b","quantity":2}]}"#)
            .unwrap_err();
    assert!(error.to_string().starts_with("total is 3, but the quantities add up to 2"), "{error}");
}

#[test]
fn a_saved_answer_can_be_served_and_a_misspelled_key_cannot() {
    let answer = r#"{"name":"A","total":2,"pieces":[{"part":"b","quantity":2}],"sources":[{"id":"k7"}]}"#;
    assert_eq!(serde_json::from_str::<Figure>(answer).unwrap().name().as_str(), "a");
    for bad in [answer.replace("sources", "source"), answer.replace("\"part\"", "\"coler\":\"red\",\"part\"")]
    {
        assert!(serde_json::from_str::<Figure>(&bad).unwrap_err().to_string().contains("unknown field"));
    }
    let british = r#"{"name":"A","pieces":[{"part":"b","colour":"red","quantity":2}]}"#;
    assert_eq!(serde_json::from_str::<Figure>(british).unwrap().pieces()[0].color(), Some("red"));
}

proptest! {
    #[test]
    fn a_body_reads_back_as_its_figure(figure in testing::figures()) {
        prop_assert!(figure.body().len() <= BODY_BYTES_MAX);
        prop_assert_eq!(Figure::from_body(figure.body()), Ok(figure.clone()));
        prop_assert_eq!(u64::from(figure.total()), figure.pieces().iter().map(|p| u64::from(p.quantity())).sum::<u64>());
    }

    #[test]
    fn the_order_of_the_pieces_does_not_matter(figure in testing::figures()) {
        let turned = figure.pieces().iter().rev().cloned();
        prop_assert_eq!(Figure::new(figure.name().clone(), figure.share(), figure.of_hash(), turned), Ok(figure.clone()));
    }

    #[test]
    fn hostile_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Figure::from_body(&body);
    }

    #[test]
    fn damaged_bodies_are_refused_or_other_figures(figure in testing::figures(), at: prop::sample::Index, byte: u8) {
        let mut body = figure.body().to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(other) = Figure::from_body(&body) {
            prop_assert_eq!(other.body(), &body);
        }
    }
}
