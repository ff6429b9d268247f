//! Figures: what they are, how they are counted, split and put together.

use std::fmt;
use std::str::FromStr;

/// Name of a figure: 1 to 64 of `a-z 0-9 . _ -`, kept in lower case, matched without regard to case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FigureName(Box<str>);

/// Why a text is no figure name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a figure name is 1 to 64 of a-z, 0-9, '.', '_' and '-'")]
pub struct NotAFigureName;

impl FromStr for FigureName {
    type Err = NotAFigureName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let fits = (1..=64).contains(&lower.len())
            && lower.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        if fits { Ok(Self(lower.into())) } else { Err(NotAFigureName) }
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

/// Which part of a figure: `index` of `of`, counted from 1. A whole figure is 1/1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Share {
    /// 1 to `of`.
    pub index: u16,
    /// How many shares there are.
    pub of: u16,
}

impl Share {
    /// The whole figure.
    pub const WHOLE: Self = Self { index: 1, of: 1 };
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}
