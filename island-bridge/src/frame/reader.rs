//! Reads and writes the parts of a body: numbers big-endian, texts and lists behind their length.

use bytes::Bytes;
use isle_mesh::member::MemberId;
use isle_mesh::wire::text::{is_label, is_version};

use super::FrameError;

/// What is left of a body. Every length is compared with what is there before anything is built from it.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

const CUT: FrameError = FrameError::Malformed("the body ends in the middle");

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// Nothing may follow what was read: two programs never understand different things from one body.
    pub(super) fn finish(&self) -> Result<(), FrameError> {
        if self.is_empty() { Ok(()) } else { Err(FrameError::Malformed("bytes after the body")) }
    }

    /// Whether all has been read.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, FrameError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn short(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn word32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn word64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn flag(&mut self) -> Result<bool, FrameError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FrameError::Malformed("a flag is neither 0 nor 1")),
        }
    }

    pub(super) fn member(&mut self) -> Result<MemberId, FrameError> {
        self.array().map(MemberId)
    }

    pub(super) fn label(&mut self) -> Result<String, FrameError> {
        self.text(is_label, "not a label")
    }

    pub(super) fn version(&mut self) -> Result<String, FrameError> {
        self.text(is_version, "not a version")
    }

    fn text(&mut self, is_allowed: fn(&str) -> bool, why: &'static str) -> Result<String, FrameError> {
        let length = usize::from(self.byte()?);
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| FrameError::Malformed(why))?;
        if is_allowed(text) { Ok(text.to_owned()) } else { Err(FrameError::Malformed(why)) }
    }

    /// 1 to `most` bytes behind a length of two bytes. Copied, so that keeping one does not keep the whole frame.
    pub(super) fn blob(&mut self, most: usize) -> Result<Bytes, FrameError> {
        let length = usize::from(self.short()?);
        if !(1..=most).contains(&length) {
            return Err(FrameError::Malformed("a word is empty or too long"));
        }
        self.take(length).map(Bytes::copy_from_slice)
    }

    /// At most `most` items behind a count of two bytes. Room is made as they come, never by what is claimed.
    pub(super) fn list<T>(
        &mut self,
        most: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, FrameError>,
    ) -> Result<Vec<T>, FrameError> {
        let count = usize::from(self.short()?);
        if count > most {
            return Err(FrameError::Malformed("too many items"));
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}

pub(super) fn put_text(text: &str, out: &mut Vec<u8>) {
    out.push(u8::try_from(text.len()).expect("labels and versions are at most 63 bytes"));
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn put_blob(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(bytes.len()).expect("words are at most a datagram").to_be_bytes());
    out.extend_from_slice(bytes);
}

pub(super) fn put_list<T>(items: &[T], out: &mut Vec<u8>, mut put: impl FnMut(&T, &mut Vec<u8>)) {
    out.extend_from_slice(&u16::try_from(items.len()).expect("lists are within their limits").to_be_bytes());
    for item in items {
        put(item, out);
    }
}
