//! Shares to a whole, and a whole to shares.

use crate::figures::figure::{Figure, FigureError, Hash, Piece, Tally};
use crate::figures::name::{FigureName, SHARES_MAX, Share};

/// Puts the shares of a figure together, in any order: pieces summed by part and colour. A whole figure alone is
/// its own merger.
///
/// Shares that name the hash of their whole are checked against it, so what comes out then is what was split.
///
/// # Errors
/// When the shares are not those of one figure, each there once; see [`MergeError`].
pub fn merge(shares: &[Figure]) -> Result<Figure, MergeError> {
    let first = shares.first().ok_or(MergeError::NoShares)?;
    let (name, of, of_hash) = (first.name(), first.share().of, first.of_hash());
    let mut there = vec![false; usize::from(of)];
    for share in shares {
        if share.name() != name {
            return Err(MergeError::Name { one: name.clone(), other: share.name().clone() });
        }
        if share.share().of != of {
            return Err(MergeError::Of { one: first.share(), other: share.share() });
        }
        if share.of_hash() != of_hash {
            return Err(MergeError::OfHash { one: first.share(), other: share.share() });
        }
        if std::mem::replace(&mut there[usize::from(share.share().index) - 1], true) {
            return Err(MergeError::Twice { share: share.share() });
        }
    }
    let missing: Vec<Share> =
        (1..=of).filter(|&index| !there[usize::from(index) - 1]).map(|index| Share { index, of }).collect();
    if !missing.is_empty() {
        return Err(MergeError::Missing { missing });
    }
    let mut tally = Tally::default();
    for piece in shares.iter().flat_map(Figure::pieces) {
        tally.add(piece.clone())?;
    }
    let whole = tally.into_figure(name.clone(), Share::WHOLE, None)?;
    match of_hash {
        Some(expected) if expected != whole.hash() => {
            Err(MergeError::WrongWhole { expected, found: whole.hash() })
        }
        _ => Ok(whole),
    }
}

/// Why shares do not make a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// There are none.
    #[error("no shares")]
    NoShares,
    /// They are of different figures.
    #[error("shares of {one} and of {other}")]
    Name {
        /// Of the first.
        one: FigureName,
        /// Of another.
        other: FigureName,
    },
    /// The figure was split in different ways.
    #[error("shares {one} and {other} are of different splits")]
    Of {
        /// The first.
        one: Share,
        /// Another.
        other: Share,
    },
    /// They name different wholes, or only one of them names one.
    #[error("shares {one} and {other} are of different wholes")]
    OfHash {
        /// The first.
        one: Share,
        /// Another.
        other: Share,
    },
    /// One is there more than once.
    #[error("share {share} is there twice")]
    Twice {
        /// Which.
        share: Share,
    },
    /// Some are not there; ask for them.
    #[error("missing {}", list(missing))]
    Missing {
        /// Which, ascending.
        missing: Vec<Share>,
    },
    /// Together they are no figure: too large, or too many pieces.
    #[error("together: {0}")]
    Together(#[from] FigureError),
    /// Together they are another figure than the one that they say was split.
    #[error("the whole hashes to {found}, its shares say {expected}")]
    WrongWhole {
        /// What the shares say.
        expected: Hash,
        /// What they make.
        found: Hash,
    },
}

fn list(shares: &[Share]) -> String {
    shares.iter().map(Share::to_string).collect::<Vec<_>>().join(", ")
}

/// Splits a whole figure into shares that differ by at most one in their number of pieces and name the hash of the
/// whole: the inverse of [`merge()`], for whoever writes the files of several piece servers.
///
/// # Errors
/// When the figure is a share itself, or has too few pieces for so many shares.
pub fn split(figure: &Figure, shares: u16) -> Result<Vec<Figure>, SplitError> {
    if !figure.share().is_whole() {
        return Err(SplitError::NotWhole { share: figure.share() });
    }
    if !(1..=SHARES_MAX).contains(&shares) || u32::from(shares) > figure.total() {
        return Err(SplitError::Shares { shares, total: figure.total() });
    }
    let mut parts: Vec<Vec<Piece>> = vec![Vec::new(); usize::from(shares)];
    let mut next = 0; // Dealt like cards: who gets the next piece.
    for piece in figure.pieces() {
        let (each, over) = (piece.quantity() / u32::from(shares), piece.quantity() % u32::from(shares));
        for turn in 0..shares {
            let quantity = each + u32::from(u32::from(turn) < over);
            if quantity > 0 {
                let piece = Piece::new(piece.part(), piece.color(), quantity)?;
                parts[(next + usize::from(turn)) % usize::from(shares)].push(piece);
            }
        }
        next = (next + over as usize) % usize::from(shares);
    }
    let hash = figure.hash();
    (1..=shares)
        .zip(parts)
        .map(|(index, pieces)| {
            let share = Share { index, of: shares };
            Ok(Figure::new(figure.name().clone(), share, Some(hash), pieces)?)
        })
        .collect()
}

/// Why a figure cannot be split so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// It is a share already.
    #[error("is share {share} already")]
    NotWhole {
        /// Which.
        share: Share,
    },
    /// No shares, too many, or more than there are pieces.
    #[error("{shares} shares of {total} pieces: 1 to {SHARES_MAX}, and each needs a piece")]
    Shares {
        /// Asked for.
        shares: u16,
        /// What there is.
        total: u32,
    },
    /// A share would be no figure: with the hash of the whole it is larger than 1 MiB.
    #[error("a share: {0}")]
    Share(#[from] FigureError),
}

#[cfg(test)]
mod tests;
