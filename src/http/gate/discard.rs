//! Skips a body that nobody wants, strictly: only then is it known where the next request begins.

use super::head::Framing;
use super::{DISCARDED_BYTES_MAX, Refusal};

/// Most bytes around the data of a chunked body: sizes, extensions, trailers.
const OVERHEAD_BYTES_MAX: u64 = 16 * 1024;

/// How much of a body is still to come.
#[derive(Debug)]
pub struct Discard {
    state: State,
    data: u64,
    overhead: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Length(u64),
    Size { digits: u8, value: u64 },
    Extension { value: u64 },
    SizeEnd { value: u64 },
    Data(u64),
    DataCr,
    DataEnd,
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastEnd,
    Done,
}

impl Discard {
    /// For a body of this framing.
    ///
    /// # Errors
    /// `BodyTooLarge` when that is known already.
    pub fn new(framing: Framing) -> Result<Self, Refusal> {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) if length > DISCARDED_BYTES_MAX => return Err(Refusal::BodyTooLarge),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { digits: 0, value: 0 },
        };
        Ok(Self { state, data: 0, overhead: 0 })
    }

    /// Whether nothing of the body is left.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes what belongs to the body from the front of `bytes`; returns how much that was.
    ///
    /// # Errors
    /// `ChunkForm` and `BodyTooLarge`.
    pub fn skip(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            at += match self.state {
                State::Length(left) => {
                    let (taken, rest) = take(left, bytes.len() - at);
                    self.state = if rest == 0 { State::Done } else { State::Length(rest) };
                    taken
                }
                State::Data(left) => {
                    let (taken, rest) = take(left, bytes.len() - at);
                    self.state = if rest == 0 { State::DataCr } else { State::Data(rest) };
                    taken
                }
                state => {
                    self.overhead += 1;
                    if self.overhead > OVERHEAD_BYTES_MAX {
                        return Err(Refusal::BodyTooLarge);
                    }
                    self.state = self.step(state, bytes[at])?;
                    1
                }
            };
        }
        Ok(at)
    }

    fn step(&mut self, state: State, byte: u8) -> Result<State, Refusal> {
        Ok(match (state, byte) {
            // Eight digits are 4 GiB: far past what is refused below, and far from an overflow.
            (State::Size { digits: digits @ 0..8, value }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).expect("checked by the guard");
                State::Size { digits: digits + 1, value: value * 16 + u64::from(digit) }
            }
            (State::Size { digits: 1.., value }, b';' | b'\r') => {
                self.data += value;
                if self.data > DISCARDED_BYTES_MAX {
                    return Err(Refusal::BodyTooLarge);
                }
                if byte == b';' { State::Extension { value } } else { State::SizeEnd { value } }
            }
            (State::Extension { value }, b'\r') => State::SizeEnd { value },
            (State::Extension { .. }, b'\t' | b' '..=b'~' | 0x80..) => state,
            (State::SizeEnd { value: 0 }, b'\n') => State::TrailerStart,
            (State::SizeEnd { value }, b'\n') => State::Data(value),
            (State::DataCr, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => State::Size { digits: 0, value: 0 },
            (State::TrailerStart, b'\r') => State::LastEnd,
            (State::LastEnd, b'\n') => State::Done,
            (State::TrailerStart, b'!'..=b'~') => State::Trailer,
            (State::Trailer, b'\r') => State::TrailerEnd,
            (State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => State::Trailer,
            (State::TrailerEnd, b'\n') => State::TrailerStart,
            _ => return Err(Refusal::ChunkForm),
        })
    }
}

fn take(left: u64, there: usize) -> (usize, u64) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(there);
    (taken, left - taken as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(bytes: &[u8]) -> Result<(usize, bool), Refusal> {
        let mut discard = Discard::new(Framing::Chunked)?;
        let taken = discard.skip(bytes)?;
        Ok((taken, discard.is_done()))
    }

    #[test]
    fn a_body_ends_where_its_framing_says_however_it_arrives() {
        let body = b"4;a=b\r\nwiki\r\n00a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nGET /";
        assert_eq!(skip(body), Ok((body.len() - 5, true)));
        let mut discard = Discard::new(Framing::Chunked).unwrap();
        for (at, byte) in body[..body.len() - 5].iter().enumerate() {
            assert!(!discard.is_done(), "{at}");
            assert_eq!(discard.skip(&[*byte]), Ok(1));
        }
        assert!(discard.is_done());
        let mut discard = Discard::new(Framing::Length(3)).unwrap();
        assert_eq!(discard.skip(b"abcGET"), Ok(3));
        assert!(discard.is_done());
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for body in [
            &b"x\r\n"[..],
            b"\r\n",
            b";a\r\n",
            b"-1\r\n",
            b"0x4\r\nwiki",
            b" 4\r\nwiki",
            b"4 \r\nwiki",
            b"4\nwiki",
            b"4\rwiki",
            b"4\r\nwikia",
            b"4\r\nwiki\n",
            b"4;\n\r\n",
            b"123456789\r\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\n\rx",
        ] {
            assert_eq!(skip(body), Err(Refusal::ChunkForm), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn a_body_past_the_bound_is_refused_whether_in_data_or_around_it() {
        assert_eq!(Discard::new(Framing::Length(65_537)).unwrap_err(), Refusal::BodyTooLarge);
        assert_eq!(skip(b"10001\r\n"), Err(Refusal::BodyTooLarge));
        assert_eq!(skip(&b"1\r\na\r\n".repeat(10_000)), Err(Refusal::BodyTooLarge));
        let trailers = [b"0\r\n".to_vec(), b"A: b\r\n".repeat(10_000)].concat();
        assert_eq!(skip(&trailers), Err(Refusal::BodyTooLarge));
    }
}
