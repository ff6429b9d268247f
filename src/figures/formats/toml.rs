//! TOML: the keys of the JSON form; one figure, or several as `[[figures]]`.

use serde::de::{Deserialize, Deserializer, IgnoredAny};

use super::{FormatError, OneOrMany};
use crate::figures::figure::Figure;
use crate::figures::shelf::Shelved;

/// Longest TOML file, in bytes. Measured: while it is read it can take 80 times its size in memory.
const TOML_BYTES_MAX: usize = 1024 * 1024;

/// Reads the content of a `.toml` file.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub fn parse(bytes: &[u8]) -> Result<Vec<Shelved>, FormatError> {
    if bytes.len() > TOML_BYTES_MAX {
        return Err(FormatError::new(None, "larger than 1 MiB; use several files, or JSON"));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| FormatError::new(line_at(bytes, error.valid_up_to()), "not UTF-8"))?;
    let read = |error: toml::de::Error| {
        FormatError::new(error.span().map(|span| line_at(bytes, span.start)), error.message())
    };
    // Which of the two forms it is must be known first, for an error to be about the right one.
    if toml::from_str::<Probe>(text).map_err(read)?.figures.is_some() {
        Ok(toml::from_str::<Many>(text).map_err(read)?.figures.0)
    } else {
        Ok(vec![Shelved::from(&toml::from_str::<Figure>(text).map_err(read)?)])
    }
}

#[derive(serde::Deserialize)]
struct Probe {
    figures: Option<IgnoredAny>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Many {
    figures: List,
}

struct List(Vec<Shelved>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(OneOrMany).map(Self)
    }
}

fn line_at(bytes: &[u8], at: usize) -> usize {
    1 + bytes.iter().take(at).filter(|&&byte| byte == b'\n').count()
}
