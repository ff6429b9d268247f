//! Text that shows what it is: in a terminal, a log line and a page alike.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use isle_mesh::wire::text::is_visible;
use serde::de;

/// A plain space or a visible character, as the network's rule for texts has it: what passes cannot move a terminal's
/// cursor, turn a line around or hide itself.
///
/// Source: NETWORK.md, "Texts".
#[must_use]
pub fn is_plain(c: char) -> bool {
    c == ' ' || is_visible(c)
}

/// The text with everything that is not plain written as `\u{..}`: one line, safe to print. Not for parsing back.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_plain(c) { shown.push(c) } else { shown.extend(c.escape_unicode()) }
    }
    Cow::Owned(shown)
}

/// Deserializes a string and makes of it what `parse` says. Its error arises at the string, so that a reader of files
/// names the right line; an error of `#[serde(try_from)]` would arise at the end of what is around it.
pub(crate) fn parsed<'de, D, T, E>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, D::Error>
where
    D: de::Deserializer<'de>,
    E: fmt::Display,
{
    struct Visitor<T, P>(P, PhantomData<T>);

    impl<T, E: fmt::Display, P: FnOnce(&str) -> Result<T, E>> de::Visitor<'_> for Visitor<T, P> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<D: de::Error>(self, text: &str) -> Result<T, D> {
            (self.0)(text).map_err(D::custom)
        }
    }

    deserializer.deserialize_str(Visitor(parse, PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_what_can_be_seen() {
        assert!(matches!(visible("brick 2×4 ünïcode"), Cow::Borrowed(_)));
        assert_eq!(visible("a\u{1b}[2J\r\nb\u{202e}c\u{9b}"), r"a\u{1b}[2J\u{d}\u{a}b\u{202e}c\u{9b}");
    }
}
