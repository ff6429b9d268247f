//! The shape of a msgpack body, checked before anything is built from it: one map, string keys everywhere,
//! not too deep, every length within the bytes that are there, nothing after it.
//!
//! serde would take an array for a struct and an integer for a key; another program that follows NETWORK.md
//! would not. It also keeps the reader behind it from ever meeting a length that lies. One pass, no allocation.

use super::DecodeError;

/// Deepest nesting of maps and arrays, the outermost map included.
pub(crate) const DEPTH_MAX: usize = 16;

/// Checks that `bytes` are exactly one map of the shape above.
pub(crate) fn check(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut walk = Walk { rest: bytes };
    let mut open = [Open { items: 0, is_map: false }; DEPTH_MAX];
    let mut depth = match walk.value()? {
        Value::Map(pairs) => {
            open[0] = Open { items: u64::from(pairs) * 2, is_map: true };
            1
        }
        _ => return Err(DecodeError::Malformed("the body is not a map")),
    };
    while depth > 0 {
        let inner = &mut open[depth - 1];
        if inner.items == 0 {
            depth -= 1;
            continue;
        }
        let is_key = inner.is_map && inner.items % 2 == 0;
        inner.items -= 1;
        let next = match walk.value()? {
            Value::Text => continue,
            _ if is_key => return Err(DecodeError::Malformed("a key is not a string")),
            Value::Plain => continue,
            Value::Map(pairs) => Open { items: u64::from(pairs) * 2, is_map: true },
            Value::Array(items) => Open { items: u64::from(items), is_map: false },
        };
        if depth == DEPTH_MAX {
            return Err(DecodeError::Malformed("nested too deep"));
        }
        open[depth] = next;
        depth += 1;
    }
    if walk.rest.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes after the body")) }
}

/// A map or array that is being walked: how many items are still to come (keys count as items).
#[derive(Clone, Copy)]
struct Open {
    items: u64,
    is_map: bool,
}

/// What one step of the walk passed.
enum Value {
    Text,
    Plain,
    Map(u32),
    Array(u32),
}

struct Walk<'a> {
    rest: &'a [u8],
}

impl Walk<'_> {
    fn value(&mut self) -> Result<Value, DecodeError> {
        let marker = self.length(1)?;
        match marker as u8 {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Ok(Value::Plain),
            0x80..=0x8f => Ok(Value::Map(marker & 0x0f)),
            0x90..=0x9f => Ok(Value::Array(marker & 0x0f)),
            0xa0..=0xbf => self.skip(marker & 0x1f, Value::Text),
            0xc1 => Err(DecodeError::Malformed("a marker that msgpack never uses")),
            0xc4..=0xc6 => self.counted(marker - 0xc4, 0, Value::Plain),
            0xc7..=0xc9 => self.counted(marker - 0xc7, 1, Value::Plain),
            0xca => self.skip(4, Value::Plain),
            0xcb => self.skip(8, Value::Plain),
            0xcc..=0xcf => self.skip(1 << (marker - 0xcc), Value::Plain),
            0xd0..=0xd3 => self.skip(1 << (marker - 0xd0), Value::Plain),
            0xd4..=0xd8 => self.skip((1 << (marker - 0xd4)) + 1, Value::Plain),
            0xd9..=0xdb => self.counted(marker - 0xd9, 0, Value::Text),
            0xdc => Ok(Value::Array(self.length(2)?)),
            0xdd => Ok(Value::Array(self.length(4)?)),
            0xde => Ok(Value::Map(self.length(2)?)),
            0xdf => Ok(Value::Map(self.length(4)?)),
        }
    }

    /// A length of 1, 2 or 4 bytes (`width` 0, 1, 2), then so many bytes and `extra` more.
    fn counted(&mut self, width: u32, extra: u32, value: Value) -> Result<Value, DecodeError> {
        let length = self.length(1 << width)?;
        self.skip(length.saturating_add(extra), value)
    }

    fn length(&mut self, width: usize) -> Result<u32, DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(width).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken.iter().fold(0, |length, byte| length << 8 | u32::from(*byte)))
    }

    fn skip(&mut self, bytes: u32, value: Value) -> Result<Value, DecodeError> {
        self.rest = self.rest.get(bytes as usize..).ok_or(CUT)?;
        Ok(value)
    }
}

const CUT: DecodeError = DecodeError::Malformed("the body ends in the middle");

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> &'static str {
        match check(bytes) {
            Err(DecodeError::Malformed(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_one_map_with_string_keys_has_the_shape() {
        assert_eq!(check(&[0x80]), Ok(()));
        assert_eq!(check(b"\x82\xa1a\x93\x01\xc0\xc3\xa1b\x81\xa1c\xc4\x02xy"), Ok(()));
        assert_eq!(refusal(&[0x90]), "the body is not a map");
        assert_eq!(refusal(&[0x81, 0x01, 0x01]), "a key is not a string");
        assert_eq!(refusal(b"\x81\xa1a\x81\x01\x01"), "a key is not a string");
        assert_eq!(refusal(&[0x80, 0x00]), "bytes after the body");
        assert_eq!(refusal(b"\x81\xa1a\xc1"), "a marker that msgpack never uses");
    }

    #[test]
    fn a_length_that_lies_is_refused_without_looking_for_it() {
        for lie in [
            &b"\x81\xa1a\xdd\xff\xff\xff\xff"[..],
            b"\x81\xa1a\xdf\xff\xff\xff\xff",
            b"\x81\xa1a\xc6\xff\xff\xff\xff",
            b"\x81\xa1a\xc9\xff\xff\xff\xff",
            b"\x81\xa1a\xdb\xff\xff\xff\xffx",
            b"\xdf\xff\xff\xff\xff",
            b"",
        ] {
            assert_eq!(refusal(lie), "the body ends in the middle", "{lie:x?}");
        }
    }

    #[test]
    fn nesting_ends_at_sixteen() {
        let nested = |levels: usize| {
            let mut bytes = b"\x81\xa1a".to_vec();
            bytes.extend(std::iter::repeat_n(0x91, levels - 1));
            bytes.push(0xc0);
            bytes
        };
        assert_eq!(check(&nested(DEPTH_MAX)), Ok(()));
        assert_eq!(refusal(&nested(DEPTH_MAX + 1)), "nested too deep");
        assert_eq!(refusal(&nested(1000)), "nested too deep");
    }
}
