use proptest::prelude::*;

use super::*;
use crate::figures::testing;

fn share(name: &str, index: u16, of: u16, of_hash: Option<Hash>) -> Figure {
    let piece = Piece::new("brick", Some("red"), u32::from(index)).unwrap();
    Figure::new(name.parse().unwrap(), Share::new(index, of).unwrap(), of_hash, [piece]).unwrap()
}

#[test]
fn shares_add_up_without_a_hash_of_the_whole() {
    let whole = merge(&[share("a", 2, 2, None), share("a", 1, 2, None)]).unwrap();
    assert_eq!(
        *whole.body(),
        r#"{"name":"a","total":3,"pieces":[{"part":"brick","color":"red","quantity":3}]}"#
    );
}

#[test]
fn only_all_shares_of_one_split_make_a_whole() {
    let hash = Hash([7; 32]);
    let cases = [
        (vec![], "no shares"),
        (vec![share("a", 1, 2, None), share("b", 2, 2, None)], "shares of a and of b"),
        (vec![share("a", 1, 2, None), share("a", 2, 3, None)], "shares 1/2 and 2/3 are of different splits"),
        (
            vec![share("a", 1, 2, None), share("a", 2, 2, Some(hash))],
            "shares 1/2 and 2/2 are of different wholes",
        ),
        (vec![share("a", 1, 2, None), share("a", 1, 2, None)], "share 1/2 is there twice"),
        (vec![share("a", 2, 4, None), share("a", 3, 4, None)], "missing 1/4, 4/4"),
        (
            vec![share("a", 1, 2, Some(hash)), share("a", 2, 2, Some(hash))],
            "the whole hashes to 580a3a90f091ba9576d63d8c15e3f135e918e27b4c5a4f1fa703855b2d217d15, its shares say \
             0707070707070707070707070707070707070707070707070707070707070707",
        ),
    ];
    for (shares, reason) in cases {
        assert_eq!(merge(&shares).unwrap_err().to_string(), reason);
    }
}

#[test]
fn a_share_cannot_be_split_and_no_share_is_empty() {
    let whole = share("a", 1, 1, None);
    assert_eq!(split(&whole, 2), Err(SplitError::Shares { shares: 2, total: 1 }));
    assert_eq!(split(&whole, 0), Err(SplitError::Shares { shares: 0, total: 1 }));
    assert_eq!(split(&whole, 1).as_deref(), Ok(&[whole][..]));
    let part = share("a", 1, 2, None);
    assert_eq!(split(&part, 2), Err(SplitError::NotWhole { share: part.share() }));
}

proptest! {
    #[test]
    fn merging_a_split_in_any_order_gives_the_original(
        (whole, mut shares) in testing::wholes().prop_flat_map(|whole| {
            let most = whole.total().min(u32::from(SHARES_MAX)) as u16;
            (Just(whole), 1..=most)
        }).prop_flat_map(|(whole, n)| {
            let shares = split(&whole, n).unwrap();
            (Just(whole), Just(shares).prop_shuffle())
        }),
    ) {
        prop_assert_eq!(merge(&shares), Ok(whole.clone()));
        let least = shares.iter().map(Figure::total).min();
        let most = shares.iter().map(Figure::total).max();
        prop_assert!(most <= least.map(|least| least + 1));
        // One share from elsewhere, with one piece more, is noticed.
        if shares.len() > 1 {
            let one = shares.pop().unwrap();
            let extra = one.pieces().iter().cloned().chain([Piece::new("stray", None, 1).unwrap()]);
            shares.push(Figure::new(one.name().clone(), one.share(), one.of_hash(), extra).unwrap());
            let noticed = matches!(merge(&shares), Err(MergeError::WrongWhole { .. }));
            prop_assert!(noticed);
        }
    }

    #[test]
    fn any_hand_made_split_adds_up(pieces in testing::pieces(), owners in proptest::collection::vec(0usize..3, 40)) {
        let whole = Figure::new("a".parse().unwrap(), Share::WHOLE, None, pieces.clone()).unwrap();
        let mut parts = [vec![], vec![], vec![]];
        for (piece, owner) in pieces.into_iter().zip(owners) {
            parts[owner].push(piece);
        }
        prop_assume!(parts.iter().all(|part| !part.is_empty()));
        let shares: Vec<Figure> = (1..).zip(parts)
            .map(|(index, part)| Figure::new(whole.name().clone(), Share { index, of: 3 }, Some(whole.hash()), part).unwrap())
            .collect();
        prop_assert_eq!(merge(&shares), Ok(whole));
    }
}
