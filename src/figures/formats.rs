//! Figures in files. Each reader takes the bytes of one file and gives all its figures, or one error with its line.

pub mod csv;
pub mod json;
pub mod ldraw;
pub mod toml;

use std::fmt;
use std::path::Path;

use serde::de;

use crate::figures::catalogue::ENTRIES_MAX;
use crate::figures::figure::{Figure, FigureError, Tally};
use crate::figures::name::{FigureName, Share};
use crate::figures::shelf::Shelved;
use crate::figures::text::visible;

/// Longest file that is read, in bytes. Guessed: 100,000 figures of 640 bytes; more belong in several files.
pub const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How a file is written, by the end of its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// `.json`: one figure or a list.
    Json,
    /// `.toml`: one figure, or several as `[[figures]]`.
    Toml,
    /// `.csv`: a part list of Rebrickable, one figure named by its file.
    Csv,
    /// `.ldr` and `.mpd`: an LDraw model, one figure named by its file.
    Ldraw,
}

impl Format {
    /// The format of a file with this name; upper and lower case are the same. `None` for all other files.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "toml" => Some(Self::Toml),
            "csv" => Some(Self::Csv),
            "ldr" | "mpd" => Some(Self::Ldraw),
            _ => None,
        }
    }

    /// Reads a whole file. `path` only names the figure where the content does not; nothing is opened.
    ///
    /// Takes 20 ms per MB of JSON, TOML more: not for an async task.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse(self, path: &Path, bytes: &[u8]) -> Result<Vec<Shelved>, FormatError> {
        if bytes.len() > FILE_BYTES_MAX {
            return Err(FormatError::new(None, "larger than 64 MiB; use several files"));
        }
        // A mark that some editors put before UTF-8.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let tally = match self {
            Self::Json => return json::parse(bytes),
            Self::Toml => return toml::parse(bytes),
            Self::Csv => csv::parse(bytes)?,
            Self::Ldraw => ldraw::parse(bytes)?,
        };
        let whole = |name| tally.into_figure(name, Share::WHOLE, None);
        let figure = whole(name_of(path)?).map_err(|error| FormatError::new(None, error))?;
        Ok(vec![Shelved::from(&figure)])
    }
}

/// Name of the figure that a file of one unnamed figure holds: the name of the file without its last ending, in lower
/// case, each run of characters that a name cannot have as one `-`.
fn name_of(path: &Path) -> Result<FigureName, FormatError> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut name = String::new();
    let mut in_run = false;
    for c in stem.chars() {
        let fits = c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if fits {
            name.push(c.to_ascii_lowercase());
        } else if !in_run {
            name.push('-');
        }
        in_run = !fits;
    }
    name.parse().map_err(|error| FormatError::new(None, format_args!("the file names the figure: {error}")))
}

/// Why a file was not read. Nothing of it counts then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", Line(.line))]
pub struct FormatError {
    /// Counted from 1; none when it is about the whole file. For a value that spans lines: where it ends, or begins.
    pub line: Option<usize>,
    /// One line of text, safe to print.
    pub reason: String,
}

impl FormatError {
    fn new(line: impl Into<Option<usize>>, reason: impl fmt::Display) -> Self {
        Self { line: line.into(), reason: visible(&reason.to_string()).into_owned() }
    }
}

struct Line<'a>(&'a Option<usize>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, "line {line}: "))
    }
}

/// Counts one more piece, and says the line if that cannot be.
fn count(
    tally: &mut Tally,
    line: usize,
    (part, color, quantity): (&str, Option<&str>, u32),
) -> Result<(), FormatError> {
    let error = |error: FigureError| FormatError::new(line, error);
    tally.add(crate::figures::figure::Piece::new(part, color, quantity).map_err(error)?).map_err(error)
}

/// Visitor of one figure or a list of them; each becomes its body at once, so that a long list stays small.
struct OneOrMany;

impl<'de> de::Visitor<'de> for OneOrMany {
    type Value = Vec<Shelved>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a figure or a list of figures")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let figure: Figure = de::Deserialize::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(vec![Shelved::from(&figure)])
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut figures = Vec::new();
        while let Some(figure) = list.next_element::<Figure>()? {
            if figures.len() == ENTRIES_MAX {
                return Err(de::Error::custom(format_args!("more than {ENTRIES_MAX} figures")));
            }
            figures.push(Shelved::from(&figure));
        }
        Ok(figures)
    }
}

#[cfg(test)]
mod tests;
