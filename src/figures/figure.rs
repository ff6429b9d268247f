//! A figure as a value that cannot be wrong: pieces summed and sorted, totals checked, one exact body, one hash.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::figures::name::{FigureName, NotAShare, Share};
use crate::figures::text::{is_plain, parsed};

/// Longest body of a figure or share, in bytes. Required by DESIGN: an intermediary holds a whole body to check it.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Longest name of a part, in characters. Guessed: the longest that Rebrickable lists is near 100.
pub const PART_CHARS_MAX: usize = 128;

/// Longest name of a colour, in characters. Guessed: the longest that LDraw lists is near 40.
pub const COLOR_CHARS_MAX: usize = 64;

/// BLAKE3 of something, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        HEXLOWER.encode_mut(&self.0, &mut digits);
        f.write_str(std::str::from_utf8(&digits).expect("hexadecimal digits"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 of 0-9 and a-f")]
pub struct NotAHash;

impl FromStr for Hash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The length first: `decode_mut` demands a buffer that fits.
        let mut bytes = [0; 32];
        if text.len() != 64 || HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).is_err() {
            return Err(NotAHash);
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, str::parse)
    }
}

/// So many of one part in one colour.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(from = "PieceForm")]
pub struct Piece {
    part: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    color: Option<Box<str>>,
    quantity: u32,
}

impl Piece {
    /// A piece; white space around part and colour is dropped, an empty colour is none.
    ///
    /// # Errors
    /// When part or colour is too long or holds characters that are not plain text, the part is empty, or the
    /// quantity is 0.
    pub fn new(part: &str, color: Option<&str>, quantity: u32) -> Result<Self, FigureError> {
        let (part, color) = (part_text(part)?, color.map(color_text).transpose()?.flatten());
        if quantity == 0 {
            return Err(FigureError::NoQuantity { part });
        }
        Ok(Self { part, color, quantity })
    }

    /// What it is: 1 to [`PART_CHARS_MAX`] characters of plain text.
    #[must_use]
    pub fn part(&self) -> &str {
        &self.part
    }

    /// Its colour, at most [`COLOR_CHARS_MAX`] characters of plain text; `None`: any colour.
    #[must_use]
    pub fn color(&self) -> Option<&str> {
        self.color.as_deref()
    }

    /// How many, at least 1.
    #[must_use]
    pub fn quantity(&self) -> u32 {
        self.quantity
    }
}

/// A figure, or one share of it. Its pieces are summed by part and colour and sorted by both (no colour first), so
/// equal figures are equal bytes.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "FigureForm")]
pub struct Figure {
    name: FigureName,
    total: u32,
    share: Share,
    of_hash: Option<Hash>,
    pieces: Vec<Piece>,
    body: Bytes,
}

impl Figure {
    /// A figure of these pieces, in any order and with repetitions.
    ///
    /// `of_hash` is the hash of the whole figure that a share is part of. A whole figure is its own whole: there
    /// `of_hash` is checked and then dropped.
    ///
    /// # Errors
    /// When there are no pieces or more than a body or a `u32` can hold, the share is out of range, or `of_hash` of a
    /// whole figure is not its hash.
    pub fn new(
        name: FigureName,
        share: Share,
        of_hash: Option<Hash>,
        pieces: impl IntoIterator<Item = Piece>,
    ) -> Result<Self, FigureError> {
        let mut tally = Tally::default();
        for piece in pieces {
            tally.add(piece)?;
        }
        tally.into_figure(name, share, of_hash)
    }

    /// Reads a body as [`Figure::body`] makes it, and nothing else: every other spelling of the same figure is refused,
    /// so what passes has one hash.
    ///
    /// # Errors
    /// When it is too large, no figure, or not written in the one way.
    pub fn from_body(body: &[u8]) -> Result<Self, FigureError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(FigureError::TooLarge);
        }
        let figure: Self =
            serde_json::from_slice(body).map_err(|error| FigureError::Malformed(error.to_string()))?;
        if figure.body == body { Ok(figure) } else { Err(FigureError::NotCanonical) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &FigureName {
        &self.name
    }

    /// How many pieces it has, all kinds together, at least 1.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Which share of the figure this is.
    #[must_use]
    pub fn share(&self) -> Share {
        self.share
    }

    /// Hash of the whole that this share is part of, if its file says; never there when this is the whole.
    #[must_use]
    pub fn of_hash(&self) -> Option<Hash> {
        self.of_hash
    }

    /// The kinds of pieces, each part and colour once, sorted.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The exact JSON that a piece server sends, at most [`BODY_BYTES_MAX`] long. Cheap to clone.
    ///
    /// `name`, `total`, `share` (only if it is one), `of_hash` (only if known), `pieces`, in this order and without
    /// white space; in strings only `"` and `\` are escaped.
    ///
    /// Source: NETWORK.md, "Figures".
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Hash of the body: the truth about this figure. Computed anew at each call.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(&self.body)
    }
}

/// Why something is no figure; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FigureError {
    /// A piece without a part.
    #[error("a piece has no part")]
    NoPart,
    /// A piece of which there are none.
    #[error("quantity of {part:?} is 0")]
    NoQuantity {
        /// The part.
        part: Box<str>,
    },
    /// A part or colour that is too long.
    #[error("{what} is longer than {chars_max} characters")]
    TooLong {
        /// `part` or `colour`.
        what: &'static str,
        /// The limit.
        chars_max: usize,
    },
    /// A part or colour that a terminal or a page could show as something else.
    #[error("{what} {text:?} has characters that cannot be seen")]
    NotPlain {
        /// `part` or `colour`.
        what: &'static str,
        /// The text.
        text: Box<str>,
    },
    /// A figure without pieces.
    #[error("there are no pieces")]
    NoPieces,
    /// More pieces than a `u32` counts.
    #[error("more than {} pieces", u32::MAX)]
    TooMany,
    /// The body would be longer than [`BODY_BYTES_MAX`].
    #[error("larger than 1 MiB as JSON")]
    TooLarge,
    /// A stated total that is not the sum of the quantities.
    #[error("total is {stated}, but the quantities add up to {counted}")]
    WrongTotal {
        /// What the file says.
        stated: u32,
        /// What its pieces say.
        counted: u32,
    },
    /// A share outside its range.
    #[error(transparent)]
    Share(#[from] NotAShare),
    /// A whole figure that names another whole.
    #[error("of_hash of a whole figure is {stated}, but it hashes to {found}")]
    WrongOfHash {
        /// What was stated.
        stated: Hash,
        /// The hash of the figure.
        found: Hash,
    },
    /// Not JSON, or not the form of a figure.
    #[error("{0}")]
    Malformed(String),
    /// A figure, but not spelled as its hash demands.
    #[error("not in canonical form")]
    NotCanonical,
}

/// Pieces as they are counted: bounded at each step, so that a long list cannot fill the memory first.
#[derive(Default)]
pub(crate) struct Tally {
    counts: BTreeMap<(Box<str>, Option<Box<str>>), u32>,
    total: u32,
    /// Never more than what the body will need: so no figure that fits is refused before the body is made.
    bytes: usize,
}

impl Tally {
    /// Counts a piece.
    pub(crate) fn add(&mut self, piece: Piece) -> Result<(), FigureError> {
        self.total = self.total.checked_add(piece.quantity).ok_or(FigureError::TooMany)?;
        let length = piece.part.len() + piece.color.as_deref().map_or(0, |color| COLOR_FORM + color.len());
        let count = self.counts.entry((piece.part, piece.color)).or_insert(0);
        if *count == 0 {
            self.bytes += PIECE_FORM + length;
        }
        *count += piece.quantity; // At most the total, which was checked.
        if self.bytes > BODY_BYTES_MAX { Err(FigureError::TooLarge) } else { Ok(()) }
    }

    /// The figure of what was counted.
    pub(crate) fn into_figure(
        self,
        name: FigureName,
        share: Share,
        of_hash: Option<Hash>,
    ) -> Result<Figure, FigureError> {
        if self.total == 0 {
            return Err(FigureError::NoPieces);
        }
        let share = Share::new(share.index, share.of)?;
        let pieces: Vec<Piece> = self
            .counts
            .into_iter()
            .map(|((part, color), quantity)| Piece { part, color, quantity })
            .collect();
        let split = !share.is_whole();
        let form = BodyForm {
            name: &name,
            total: self.total,
            share: split.then_some(share),
            of_hash: of_hash.filter(|_| split),
            pieces: &pieces,
        };
        let body = Bytes::from(serde_json::to_vec(&form).expect("strings and numbers only"));
        if body.len() > BODY_BYTES_MAX {
            return Err(FigureError::TooLarge);
        }
        let of_hash = match of_hash {
            Some(stated) if !split => {
                let found = Hash::of(&body);
                if stated != found {
                    return Err(FigureError::WrongOfHash { stated, found });
                }
                None
            }
            other => other,
        };
        Ok(Figure { name, total: self.total, share, of_hash, pieces, body })
    }
}

/// Length of `{"part":"","quantity":1}`.
const PIECE_FORM: usize = 24;
/// Length of `"color":"",`.
const COLOR_FORM: usize = 11;

/// How a body is written.
#[derive(Serialize)]
struct BodyForm<'a> {
    name: &'a FigureName,
    total: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<Share>,
    #[serde(skip_serializing_if = "Option::is_none")]
    of_hash: Option<Hash>,
    pieces: &'a [Piece],
}

/// How a figure is written by people and by answers of an intermediary: more freely than a body. Unknown keys are
/// refused, because a misspelled `color` would silently mean "any colour".
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a figure")]
struct FigureForm {
    name: FigureName,
    total: Option<u32>,
    share: Option<Share>,
    of_hash: Option<Hash>,
    #[serde(deserialize_with = "tally")]
    pieces: Tally,
    /// What an intermediary adds to an answer, so that a saved answer can be served.
    #[serde(default, rename = "sources")]
    _sources: de::IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a piece")]
struct PieceForm {
    #[serde(deserialize_with = "part")]
    part: Box<str>,
    #[serde(default, alias = "colour", deserialize_with = "color")]
    color: Option<Box<str>>,
    quantity: NonZeroU32,
}

impl From<PieceForm> for Piece {
    fn from(PieceForm { part, color, quantity }: PieceForm) -> Self {
        Self { part, color, quantity: quantity.get() }
    }
}

fn part<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    parsed(deserializer, part_text)
}

fn color<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<str>>, D::Error> {
    struct Text(Option<Box<str>>);

    impl<'de> Deserialize<'de> for Text {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            parsed(deserializer, color_text).map(Self)
        }
    }

    // `null` is no colour, too.
    Ok(Option::<Text>::deserialize(deserializer)?.and_then(|text| text.0))
}

impl TryFrom<FigureForm> for Figure {
    type Error = FigureError;

    fn try_from(form: FigureForm) -> Result<Self, Self::Error> {
        let counted = form.pieces.total;
        match form.total {
            Some(stated) if stated != counted => Err(FigureError::WrongTotal { stated, counted }),
            _ => form.pieces.into_figure(form.name, form.share.unwrap_or(Share::WHOLE), form.of_hash),
        }
    }
}

/// Counts a list of pieces while it is read, so that its length costs time but no memory.
fn tally<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tally, D::Error> {
    struct Visitor;

    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Tally;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of pieces")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Tally, A::Error> {
            let mut tally = Tally::default();
            while let Some(piece) = list.next_element()? {
                tally.add(piece).map_err(de::Error::custom)?;
            }
            Ok(tally)
        }
    }

    deserializer.deserialize_seq(Visitor)
}

fn part_text(text: &str) -> Result<Box<str>, FigureError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(FigureError::NoPart);
    }
    plain(text, "part", PART_CHARS_MAX)?;
    Ok(text.into())
}

fn color_text(text: &str) -> Result<Option<Box<str>>, FigureError> {
    let text = text.trim();
    plain(text, "colour", COLOR_CHARS_MAX)?;
    Ok((!text.is_empty()).then(|| text.into()))
}

/// Refuses texts that are too long, or that could make a terminal or a page show something else than is there.
fn plain(text: &str, what: &'static str, chars_max: usize) -> Result<(), FigureError> {
    if text.chars().take(chars_max + 1).count() > chars_max {
        return Err(FigureError::TooLong { what, chars_max });
    }
    if text.chars().all(is_plain) { Ok(()) } else { Err(FigureError::NotPlain { what, text: text.into() }) }
}

#[cfg(test)]
mod tests;
