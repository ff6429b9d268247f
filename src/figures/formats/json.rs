//! JSON: one figure or a list of them, as `GET /figures/{name}` answers.

use serde::de::Deserializer as _;

use super::{FormatError, OneOrMany};
use crate::figures::shelf::Shelved;

/// Reads the content of a `.json` file.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub fn parse(bytes: &[u8]) -> Result<Vec<Shelved>, FormatError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    json.deserialize_any(OneOrMany).and_then(|figures| json.end().map(|()| figures)).map_err(|error| {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = text.strip_suffix(&place).unwrap_or(&text);
        FormatError::new(Some(error.line()).filter(|&line| line > 0), reason)
    })
}
