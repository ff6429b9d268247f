//! A catalogue: the figures and shares that one member holds, as text that hashes to the digest it announces.
//!
//! One line each, `name TAB i/n TAB size TAB hash LF`, sorted as bytes, each (name, share) once. The text is read in
//! whatever pieces the network brings it, and refused as soon as it leaves its form or its bounds.
//!
//! Source: NETWORK.md, "Figures".

use std::ops::Range;

use bytes::Bytes;

use crate::figures::figure::{BODY_BYTES_MAX, Figure, FigureError, Hash};
use crate::figures::name::{FigureName, Share};

/// Most entries of one catalogue. Required by DESIGN, "Caps".
pub const ENTRIES_MAX: usize = 100_000;

/// Longest catalogue, in bytes. Required by DESIGN, "Caps"; the longest that keeps its form is about 15 MB.
pub const CATALOGUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest line, in bytes, without its end: a name of 64, a share `256/256`, a size `1048576`, a hash, three tabs.
const LINE_BYTES_MAX: usize = 64 + 7 + 7 + 64 + 3;

/// One line of a catalogue: what a body must be to be the truth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The figure.
    pub name: FigureName,
    /// Which share of it.
    pub share: Share,
    /// Length of the body in bytes, 1 to [`BODY_BYTES_MAX`]; 0 when it is passed on, see [`Entry::passed_on`].
    pub size: u32,
    /// Hash of the body; all zero when it is passed on.
    pub hash: Hash,
}

/// Why a body is not what the catalogue promised. Nobody must be given it; ask another member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// Another length.
    #[error("{found} bytes, the catalogue says {expected}")]
    Size {
        /// Of the catalogue.
        expected: u32,
        /// Of the body.
        found: usize,
    },
    /// The same length, other bytes.
    #[error("hashes to {found}, the catalogue says {expected}")]
    Hash {
        /// Of the catalogue.
        expected: Hash,
        /// Of the body.
        found: Hash,
    },
    /// The promised bytes, but no figure in its one form: the member's catalogue itself is wrong.
    #[error("not a figure")]
    NotAFigure(#[source] FigureError),
    /// The promised bytes, but another figure or share than the line says.
    #[error("holds {name} {share}")]
    Other {
        /// What the body names.
        name: FigureName,
        /// The share it says it is.
        share: Share,
    },
}

impl Entry {
    /// The entry of a figure.
    #[must_use]
    pub fn of(figure: &Figure) -> Self {
        let size = u32::try_from(figure.body().len()).expect("a body is at most 1 MiB");
        Self { name: figure.name().clone(), share: figure.share(), size, hash: figure.hash() }
    }

    /// A figure that its member does not hold but passes on from a service beside it: any bytes, any length, which
    /// nobody can check. Its size is 0 and its hash all zero, which no body has.
    #[must_use]
    pub fn passed_on(name: FigureName) -> Self {
        Self { name, share: Share::WHOLE, size: 0, hash: Hash([0; 32]) }
    }

    /// Whether it is [passed on](Entry::passed_on).
    #[must_use]
    pub fn is_passed_on(&self) -> bool {
        self.size == 0
    }

    /// Checks that a body is the one that was promised: length, hash, form, name and share. Takes
    /// 10 µs per KiB: bodies past 10 KiB are not for an async task.
    ///
    /// # Errors
    /// Says what differs; see [`Mismatch`].
    pub fn check(&self, body: &[u8]) -> Result<Figure, Mismatch> {
        if body.len() != self.size as usize {
            return Err(Mismatch::Size { expected: self.size, found: body.len() });
        }
        let found = Hash::of(body);
        if found != self.hash {
            return Err(Mismatch::Hash { expected: self.hash, found });
        }
        let figure = Figure::from_body(body).map_err(Mismatch::NotAFigure)?;
        if *figure.name() != self.name || figure.share() != self.share {
            return Err(Mismatch::Other { name: figure.name().clone(), share: figure.share() });
        }
        Ok(figure)
    }

    /// The line, without its end.
    pub(crate) fn line(&self) -> String {
        format!("{}\t{}\t{}\t{}", self.name, self.share, self.size, self.hash)
    }

    /// Reads a line without its end; `None` when it has not the one form that [`Entry::line`] writes.
    fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let mut fields = line.split('\t');
        let (name, share, size, hash) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let digits = size.bytes().all(|b| b.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        if fields.next().is_some() || !digits || name.bytes().any(|b| b.is_ascii_uppercase()) {
            return None;
        }
        let size = size.parse().ok().filter(|&size| size as usize <= BODY_BYTES_MAX)?;
        let entry =
            Self { name: name.parse().ok()?, share: share.parse().ok()?, size, hash: hash.parse().ok()? };
        // What is passed on has one line, too.
        let is_whole = entry == Self::passed_on(entry.name.clone());
        (entry.is_passed_on() == is_whole).then_some(entry)
    }
}

/// What one member holds: entries sorted by name, then by the text of the share. At most [`ENTRIES_MAX`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Catalogue {
    entries: Vec<Entry>,
    digest: Hash,
}

impl Catalogue {
    /// Reads a whole text; see [`CatalogueParser`].
    ///
    /// # Errors
    /// As [`CatalogueParser::push`] and [`CatalogueParser::finish`].
    pub fn parse(text: &[u8]) -> Result<Self, CatalogueError> {
        let mut parser = CatalogueParser::default();
        parser.push(text)?;
        parser.finish()
    }

    /// Of entries that are sorted by their lines and each there once, as a shelf keeps them; with the text.
    pub(crate) fn of_sorted(entries: Vec<Entry>) -> (Self, Bytes) {
        let mut text = String::new();
        for entry in &entries {
            text.push_str(&entry.line());
            text.push('\n');
        }
        (Self { entries, digest: Hash::of(text.as_bytes()) }, text.into())
    }

    /// Hash of the text: equal digests are equal catalogues.
    #[must_use]
    pub fn digest(&self) -> Hash {
        self.digest
    }

    /// All entries, sorted.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where in [`Catalogue::entries`] the shares of a figure are; empty when there are none. O(log n).
    #[must_use]
    pub fn range(&self, name: &FigureName) -> Range<usize> {
        let start = self.entries.partition_point(|entry| entry.name < *name);
        let shares = self.entries[start..].partition_point(|entry| entry.name == *name);
        start..start + shares
    }

    /// Place of one share of a figure in [`Catalogue::entries`].
    #[must_use]
    pub fn position(&self, name: &FigureName, share: Share) -> Option<usize> {
        self.range(name).find(|&at| self.entries[at].share == share)
    }
}

/// Why a text is no catalogue. Refused as a whole: its digest was announced for all of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// Longer than [`CATALOGUE_BYTES_MAX`].
    #[error("longer than 64 MiB")]
    TooLong,
    /// More than [`ENTRIES_MAX`] lines.
    #[error("more than {ENTRIES_MAX} figures")]
    TooMany,
    /// A line that has not the form.
    #[error("line {line}: not name, share, size and hash")]
    Malformed {
        /// Counted from 1.
        line: usize,
    },
    /// A line that does not sort after the one before it, or names the same share again.
    #[error("line {line}: out of order, or the same figure again")]
    Order {
        /// Counted from 1.
        line: usize,
    },
    /// The text ends within a line.
    #[error("ends within line {line}")]
    Unfinished {
        /// Counted from 1.
        line: usize,
    },
}

/// Reads a catalogue as it arrives: feed it with `push`, then `finish`. Holds the entries read so far and less than one
/// line of text. 100,000 lines take some 30 ms of CPU: not for an async task.
#[derive(Default)]
pub struct CatalogueParser {
    entries: Vec<Entry>,
    hasher: blake3::Hasher,
    bytes: usize,
    /// Start of a line whose end has not come yet.
    begun: Vec<u8>,
    /// The line before, to see that lines ascend.
    previous: Vec<u8>,
}

impl CatalogueParser {
    /// Takes the next bytes of the text, cut anywhere.
    ///
    /// # Errors
    /// When the text has left its form or its bounds; the parser is of no use then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), CatalogueError> {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > CATALOGUE_BYTES_MAX {
            return Err(CatalogueError::TooLong);
        }
        self.hasher.update(bytes);
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            if self.begun.is_empty() {
                self.line(&rest[..end])?;
            } else {
                let mut line = std::mem::take(&mut self.begun);
                line.extend_from_slice(&rest[..end]);
                self.line(&line)?;
            }
            rest = &rest[end + 1..];
        }
        if self.begun.len() + rest.len() > LINE_BYTES_MAX {
            return Err(CatalogueError::Malformed { line: self.entries.len() + 1 });
        }
        self.begun.extend_from_slice(rest);
        Ok(())
    }

    /// The catalogue, after the last bytes.
    ///
    /// # Errors
    /// When the text ends within a line.
    pub fn finish(self) -> Result<Catalogue, CatalogueError> {
        if !self.begun.is_empty() {
            return Err(CatalogueError::Unfinished { line: self.entries.len() + 1 });
        }
        Ok(Catalogue { entries: self.entries, digest: Hash(self.hasher.finalize().into()) })
    }

    fn line(&mut self, line: &[u8]) -> Result<(), CatalogueError> {
        let number = self.entries.len() + 1;
        if number > ENTRIES_MAX {
            return Err(CatalogueError::TooMany);
        }
        let entry = Entry::parse(line).ok_or(CatalogueError::Malformed { line: number })?;
        // Lines of one (name, share) begin alike, so they stand together: looking at the neighbour is enough.
        let again =
            self.entries.last().is_some_and(|last| last.name == entry.name && last.share == entry.share);
        if again || (number > 1 && self.previous.as_slice() >= line) {
            return Err(CatalogueError::Order { line: number });
        }
        self.previous.clear();
        self.previous.extend_from_slice(line);
        self.entries.push(entry);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
