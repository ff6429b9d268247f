//! Where a request's head ends, while it is still arriving: each byte is looked at once.

use super::{FIELDS_BYTES_MAX, FIELDS_MAX, Refusal, TARGET_BYTES_MAX};

/// Longest method and version around a target of full length.
const AROUND_TARGET: usize = 64;

/// Looks for the empty line that ends a head in a buffer that grows.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Bytes already looked at.
    seen: usize,
    /// Where the current line begins.
    line_start: usize,
    /// Where the request line begins: 0, or 2 after the one empty line that may come before it.
    start: usize,
    /// Complete lines.
    lines: usize,
    /// Where the fields begin, once the request line is complete.
    fields_start: usize,
}

/// A complete head within the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Where the request line begins.
    pub start: usize,
    /// Just behind the empty line.
    pub end: usize,
}

impl Scanner {
    /// Looks at what is new in `buffer`. `None`: not complete yet.
    ///
    /// # Errors
    /// What can be refused before the end is there: foreign protocols by their first bytes, bare line
    /// feeds, and everything too long, so that nobody has to send megabytes to learn it.
    pub fn scan(&mut self, buffer: &[u8]) -> Result<Option<Extent>, Refusal> {
        self.check_first(buffer)?;
        while let Some(offset) = buffer[self.seen..].iter().position(|byte| *byte == b'\n') {
            let at = self.seen + offset;
            if at == self.line_start || buffer[at - 1] != b'\r' {
                return Err(Refusal::LineEnd);
            }
            let line = &buffer[self.line_start..at - 1];
            self.seen = at + 1;
            self.line_start = at + 1;
            match (line.is_empty(), self.lines) {
                // RFC 9112 2.2: a server ignores at least one empty line before the request line.
                (true, 0) if self.start == 0 => {
                    self.start = at + 1;
                    self.check_first(buffer)?;
                }
                (true, 0) => return Err(Refusal::RequestLine),
                (true, _) => return Ok(Some(Extent { start: self.start, end: at + 1 })),
                (false, 0) => {
                    self.lines = 1;
                    self.fields_start = at + 1;
                }
                (false, _) => self.lines += 1,
            }
            if self.lines == 1 && line == b"PRI * HTTP/2.0" {
                return Err(Refusal::Version);
            }
            self.check_size(at + 1)?;
        }
        self.seen = buffer.len();
        self.check_size(buffer.len())?;
        Ok(None)
    }

    /// A TLS client hello begins with 0x16; no request begins with a control character.
    fn check_first(&self, buffer: &[u8]) -> Result<(), Refusal> {
        let foreign =
            buffer.get(self.start).is_some_and(|first| !matches!(first, b'!'..=b'~' | b'\r' | b'\n'));
        if foreign { Err(Refusal::RequestLine) } else { Ok(()) }
    }

    fn check_size(&self, length: usize) -> Result<(), Refusal> {
        let line_end = if self.lines == 0 { length } else { self.fields_start };
        if line_end > TARGET_BYTES_MAX + AROUND_TARGET {
            Err(Refusal::TargetTooLong)
        } else if self.lines > FIELDS_MAX + 1 {
            Err(Refusal::TooManyFields)
        } else if length - line_end > FIELDS_BYTES_MAX {
            Err(Refusal::HeadTooLarge)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8]) -> Result<Option<Extent>, Refusal> {
        Scanner::default().scan(bytes)
    }

    #[test]
    fn a_head_ends_at_the_empty_line_however_it_arrives() {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET";
        assert_eq!(scan(head), Ok(Some(Extent { start: 0, end: head.len() - 3 })));
        let mut scanner = Scanner::default();
        for end in 0..head.len() - 3 {
            assert_eq!(scanner.scan(&head[..end]), Ok(None), "{end}");
        }
        assert_eq!(scanner.scan(head), Ok(Some(Extent { start: 0, end: head.len() - 3 })));
    }

    #[test]
    fn one_empty_line_before_the_request_is_ignored_and_two_are_not() {
        assert_eq!(scan(b"\r\nGET / HTTP/1.1\r\n\r\n"), Ok(Some(Extent { start: 2, end: 20 })));
        assert_eq!(scan(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"), Err(Refusal::RequestLine));
    }

    #[test]
    fn foreign_protocols_and_bare_line_feeds_are_refused_at_once() {
        assert_eq!(scan(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Err(Refusal::Version));
        assert_eq!(scan(b"\x16\x03\x01"), Err(Refusal::RequestLine));
        assert_eq!(scan(b"GET / HTTP/1.1\n"), Err(Refusal::LineEnd));
        assert_eq!(scan(b"\n"), Err(Refusal::LineEnd));
    }

    #[test]
    fn what_is_too_long_is_refused_before_its_end_is_there() {
        assert_eq!(scan(&[b'A'; 9000]), Err(Refusal::TargetTooLong));
        let line = format!("GET /{} HTTP/1.1\r\n", "t".repeat(8000));
        let mut long = [line.as_bytes(), b"X: "].concat();
        long.resize(line.len() + FIELDS_BYTES_MAX, b'a');
        assert_eq!(scan(&long), Ok(None), "a long target leaves the fields their room");
        long.push(b'a');
        assert_eq!(scan(&long), Err(Refusal::HeadTooLarge));
        let mut many = b"GET / HTTP/1.1\r\n".to_vec();
        many.extend(b"A: b\r\n".repeat(FIELDS_MAX));
        assert_eq!(scan(&many), Ok(None));
        many.extend(b"A: b\r\n");
        assert_eq!(scan(&many), Err(Refusal::TooManyFields));
    }
}
