//! Generators of figures for property tests.

use proptest::prelude::*;

use crate::figures::figure::{Figure, Hash, Piece};
use crate::figures::name::Share;

/// Pieces with parts and colours that repeat, and texts that need escaping.
pub(crate) fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let part = prop_oneof!["[ab]", "brick [12]x[1-4]", "[\"\\\\<>&'äß\u{1f9f1}/,;]{1,4}"];
    let color = proptest::option::of(prop_oneof!["red|blue", "[\"\\\\äß]{1,3}"]);
    let piece = (part, color, 1u32..2000)
        .prop_map(|(part, color, quantity)| Piece::new(&part, color.as_deref(), quantity).unwrap());
    proptest::collection::vec(piece, 1..40)
}

/// Whole figures.
pub(crate) fn wholes() -> impl Strategy<Value = Figure> {
    ("[A-Za-z0-9._-]{1,64}", pieces())
        .prop_map(|(name, pieces)| Figure::new(name.parse().unwrap(), Share::WHOLE, None, pieces).unwrap())
}

/// Figures and shares, with and without the hash of their whole.
pub(crate) fn figures() -> impl Strategy<Value = Figure> {
    let share = prop_oneof![Just((1, 1)), (1u16..=256).prop_flat_map(|of| (1..=of, Just(of)))];
    (wholes(), share, any::<Option<[u8; 32]>>()).prop_map(|(whole, (index, of), of_hash)| {
        let share = Share::new(index, of).unwrap();
        let of_hash = of_hash.map(Hash).filter(|_| !share.is_whole());
        Figure::new(whole.name().clone(), share, of_hash, whole.pieces().to_vec()).unwrap()
    })
}
