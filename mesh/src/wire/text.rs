//! Which texts may be said on the wire. Whoever shows a name to a person relies on these rules: what passes
//! cannot move a terminal's cursor, turn a line around or hide itself.
//!
//! Source: NETWORK.md, "Texts".

/// Most bytes of a label (a member's or an island's name).
pub const LABEL_BYTES_MAX: usize = 63;

/// Most bytes of a role or of a tag's key.
pub const WORD_BYTES_MAX: usize = 32;

/// Most bytes of a tag's value.
pub const VALUE_BYTES_MAX: usize = 128;

/// Whether `text` may name a member or an island: 1 to 63 bytes, only visible characters, no white space.
#[must_use]
pub fn is_label(text: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&text.len()) && text.chars().all(is_visible)
}

/// Whether `text` may be a role: 1 to 32 of `a-z 0-9 -`.
#[must_use]
pub fn is_role(text: &str) -> bool {
    (1..=WORD_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether `text` may be the key of a tag: 1 to 32 of `a-z 0-9 . _ -`.
#[must_use]
pub fn is_tag_key(text: &str) -> bool {
    (1..=WORD_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b))
}

/// Whether `text` may be the value of a tag: at most 128 bytes of visible characters and plain spaces.
#[must_use]
pub fn is_tag_value(text: &str) -> bool {
    text.len() <= VALUE_BYTES_MAX && text.chars().all(|c| c == ' ' || is_visible(c))
}

/// Whether `text` may be a version of software: at most 32 bytes of visible ASCII.
#[must_use]
pub fn is_version(text: &str) -> bool {
    text.len() <= WORD_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Neither white space, nor a control or format character, nor one that is drawn as nothing.
#[must_use]
pub fn is_visible(c: char) -> bool {
    !(c.is_whitespace() || c.is_control() || is_unseen(c))
}

/// Unicode's format characters (category Cf, among them all that turn text around), separators that
/// `is_whitespace` does not name, fillers without a glyph, variation selectors, non-characters and private use.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
        | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{ffff}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1345f}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_people_use_are_labels() {
        for name in ["p1", "Jürgens-Laptop", "東京-3", "hub.local", "a~b", "рабочий", "🦒"] {
            assert!(is_label(name), "{name}");
        }
    }

    #[test]
    fn what_could_deceive_a_reader_is_no_label() {
        let long = "x".repeat(64);
        let deceiving = [
            "",
            &long,
            "two words",
            "tab\t",
            "line\n",
            "\u{1b}[31mred",
            "bell\u{7}",
            "c1\u{9b}",
            "rtl\u{202e}gpj",
            "iso\u{2066}late",
            "zero\u{200b}width",
            "bom\u{feff}",
            "fill\u{3164}er",
            "blank\u{2800}",
            "tag\u{e0041}",
            "nbsp\u{a0}",
            "sep\u{2028}",
        ];
        for name in deceiving {
            assert!(!is_label(name), "{name:?}");
        }
    }

    #[test]
    fn roles_and_tags_keep_to_their_grammar() {
        assert!(is_role("pieces") && is_role("my-role-2"));
        assert!(!is_role("") && !is_role("Pieces") && !is_role("a b") && !is_role(&"x".repeat(33)));
        assert!(is_tag_key("rack.row_2") && !is_tag_key("Rack") && !is_tag_key(""));
        assert!(is_tag_value("") && is_tag_value("third floor") && !is_tag_value("a\nb"));
        assert!(is_version("0.1.0+x") && is_version("") && !is_version("a b") && !is_version("é"));
    }
}
