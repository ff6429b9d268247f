//! Names of figures, and which share of a figure something is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::figures::text::parsed;

/// Most shares that one figure is split into. Guessed: an intermediary holds all shares of a figure at once, so this
/// times the largest body (1 MiB) bounds what one request can make it hold.
pub const SHARES_MAX: u16 = 256;

/// Name of a figure: 1 to 64 of `a-z 0-9 . _ -`, kept in lower case, matched without regard to case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct FigureName(Box<str>);

/// Why a text is no figure name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a figure name is 1 to 64 of a-z, 0-9, '.', '_' and '-'")]
pub struct NotAFigureName;

impl FromStr for FigureName {
    type Err = NotAFigureName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        if fits { Ok(Self(text.to_ascii_lowercase().into())) } else { Err(NotAFigureName) }
    }
}

impl FigureName {
    /// The name, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FigureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for FigureName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, str::parse)
    }
}

/// Which part of a figure: `index` of `of`, counted from 1. A whole figure is 1/1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// 1 to `of`.
    pub index: u16,
    /// How many shares there are, 1 to [`SHARES_MAX`].
    pub of: u16,
}

/// Why two numbers, or a text, are no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a share is written i/n, with i from 1 to n and n at most {SHARES_MAX}")]
pub struct NotAShare;

impl Share {
    /// The whole figure.
    pub const WHOLE: Self = Self { index: 1, of: 1 };

    /// A share that keeps the ranges; the fields are open for matching, this is the way to make one.
    ///
    /// # Errors
    /// When `index` is not 1 to `of`, or `of` is more than [`SHARES_MAX`].
    pub fn new(index: u16, of: u16) -> Result<Self, NotAShare> {
        let fits = (1..=of).contains(&index) && of <= SHARES_MAX;
        if fits { Ok(Self { index, of }) } else { Err(NotAShare) }
    }

    /// Whether this is all of the figure.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self == Self::WHOLE
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Share {
    type Err = NotAShare;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (index, of) = text.split_once('/').ok_or(NotAShare)?;
        Self::new(plain_number(index)?, plain_number(of)?)
    }
}

/// One text per number: no sign, no leading zero.
fn plain_number(text: &str) -> Result<u16, NotAShare> {
    if text.starts_with(['0', '+']) { Err(NotAShare) } else { text.parse().map_err(|_| NotAShare) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_case_and_nothing_else() {
        assert_eq!("Giraffe-2.v_1".parse::<FigureName>().unwrap().as_str(), "giraffe-2.v_1");
        for bad in ["", "a b", "a/b", "ä", "\u{212a}elvin", "a\n", &"a".repeat(65)] {
            assert_eq!(bad.parse::<FigureName>(), Err(NotAFigureName), "{bad:?}");
        }
    }

    #[test]
    fn a_share_has_one_text() {
        assert_eq!("2/3".parse(), Ok(Share { index: 2, of: 3 }));
        for bad in ["", "/", "0/1", "2/1", "1/0", "01/3", "+1/3", "1/257", "1/3 ", "1/99999", "1", "1/2/3"] {
            assert_eq!(bad.parse::<Share>(), Err(NotAShare), "{bad:?}");
        }
    }
}
