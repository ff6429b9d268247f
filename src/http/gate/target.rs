//! Path and query of a request's target: checked, decoded once.

use super::Refusal;
use crate::http::request::percent_decode;

/// Splits an origin-form target into its decoded path and its query as sent.
///
/// # Errors
/// `TargetForm` for what is not a path in visible ASCII; `Escape` and `DotSegment` for what a file
/// system or another HTTP parser could read as another path than we do.
pub fn split(target: &str) -> Result<(Box<str>, Option<Box<str>>), Refusal> {
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Refusal::TargetForm);
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    if !query.is_none_or(escapes_are_whole) {
        return Err(Refusal::Escape);
    }
    let decoded: Box<str> = if path.contains('%') { decode(path)? } else { path.into() };
    if decoded.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Refusal::DotSegment);
    }
    Ok((decoded, query.map(Into::into)))
}

/// Decodes a path once. An escaped `/` is refused: behind the gate it could not be told from a separator.
fn decode(path: &str) -> Result<Box<str>, Refusal> {
    let separators = path.bytes().filter(|byte| *byte == b'/').count();
    let decoded = percent_decode(path).ok_or(Refusal::Escape)?;
    let hides = decoded.chars().any(char::is_control)
        || decoded.bytes().filter(|byte| *byte == b'/').count() != separators;
    if hides { Err(Refusal::Escape) } else { Ok(decoded.into()) }
}

fn escapes_are_whole(text: &str) -> bool {
    text.split('%')
        .skip(1)
        .all(|after| after.len() >= 2 && after.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_a_query_stays_as_sent() {
        let (path, query) = split("/figures/gir%61ffe%2553?a=%2f&b").unwrap();
        assert_eq!((&*path, query.as_deref()), ("/figures/giraffe%53", Some("a=%2f&b")));
    }

    #[test]
    fn what_another_parser_could_read_as_another_path_is_refused() {
        for (target, refusal) in [
            ("figures", Refusal::TargetForm),
            ("http://x/figures", Refusal::TargetForm),
            ("*", Refusal::TargetForm),
            ("/a#b", Refusal::TargetForm),
            ("/a\tb", Refusal::TargetForm),
            ("/gir\u{e4}ffe", Refusal::TargetForm),
            ("/a%", Refusal::Escape),
            ("/a%0", Refusal::Escape),
            ("/a%zz", Refusal::Escape),
            ("/a%+1", Refusal::Escape),
            ("/a%00", Refusal::Escape),
            ("/a%0d%0a", Refusal::Escape),
            ("/a%ff", Refusal::Escape),
            ("/a%c0%af", Refusal::Escape),
            ("/figures%2fx", Refusal::Escape),
            ("/figures/..%2f..", Refusal::Escape),
            ("/a?b=%", Refusal::Escape),
            ("/a?b=%g0", Refusal::Escape),
            ("/figures/../x", Refusal::DotSegment),
            ("/figures/%2e%2E/x", Refusal::DotSegment),
            ("/figures/.%2e", Refusal::DotSegment),
            ("/.", Refusal::DotSegment),
        ] {
            assert_eq!(split(target), Err(refusal), "{target}");
        }
    }

    #[test]
    fn dots_within_a_name_are_only_dots() {
        assert_eq!(&*split("/figures/a..b").unwrap().0, "/figures/a..b");
        assert_eq!(&*split("/figures/...").unwrap().0, "/figures/...");
    }
}
