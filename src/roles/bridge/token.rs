//! An invite as one word: what a bridge of another island needs to be let in.
//!
//! `isle1`, then lower-case base32 without padding of the bridge's key (32 bytes), the secret (32), when it expires
//! (seconds since 1970, 8 bytes), the number of places (1) and each as length (1) and `HOST:PORT`, then the first four
//! bytes of the BLAKE3 hash of all that, against typing errors. Numbers are big-endian.

use std::fmt;
use std::str::FromStr;

use island_bridge::bridge::{Place, Target};
use isle_mesh::member::MemberId;

const PREFIX: &str = "isle1";
const CHECK_BYTES: usize = 4;
/// Places where the bridge may be called.
pub const PLACES_MAX: usize = 4;
/// Longer words are not looked at.
const LENGTH_MAX: usize = 2048;

/// An invite as its maker gives it away.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The bridge that made it.
    pub key: MemberId,
    /// What lets its bearer in.
    pub secret: [u8; 32],
    /// When it expires: seconds since 1970, by its maker's clock. For people; the maker decides.
    pub expires: u64,
    /// Where that bridge may be called: 1 to [`PLACES_MAX`].
    pub places: Vec<Place>,
}

impl fmt::Debug for Token {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("key", &self.key).field("places", &self.places).finish_non_exhaustive()
    }
}

/// A word that is no invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Does not begin as invites do.
    #[error("an invite begins with {PREFIX}")]
    Prefix,
    /// A part of it is missing, or mistyped.
    #[error("the invite is not complete, or mistyped: copy it as a whole")]
    Damaged,
}

impl Token {
    /// Whom and where to call with it.
    #[must_use]
    pub fn target(&self) -> Target {
        Target { key: self.key, places: self.places.clone(), invite: Some(self.secret) }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [&self.key.0[..], &self.secret, &self.expires.to_be_bytes()].concat();
        bytes.push(u8::try_from(self.places.len()).unwrap_or(u8::MAX));
        for place in &self.places {
            let place = place.to_string();
            bytes.push(u8::try_from(place.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(place.as_bytes());
        }
        bytes.extend_from_slice(&blake3::hash(&bytes).as_bytes()[..CHECK_BYTES]);
        write!(f, "{PREFIX}{}", data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let read = || {
            let text = Some(encoded.to_ascii_uppercase()).filter(|text| text.len() <= LENGTH_MAX)?;
            let bytes = data_encoding::BASE32_NOPAD.decode(text.as_bytes()).ok()?;
            let (said, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
            if blake3::hash(said).as_bytes()[..CHECK_BYTES] != *check {
                return None;
            }
            let (key, rest) = said.split_first_chunk::<32>()?;
            let (secret, rest) = rest.split_first_chunk::<32>()?;
            let (expires, rest) = rest.split_first_chunk::<8>()?;
            let (count, mut rest) = rest.split_first()?;
            let mut places = Vec::new();
            for _ in 0..*count {
                let (length, after) = rest.split_first()?;
                let (place, after) = after.split_at_checked(usize::from(*length))?;
                places.push(std::str::from_utf8(place).ok()?.parse().ok()?);
                rest = after;
            }
            let is_whole = rest.is_empty() && (1..=PLACES_MAX).contains(&places.len());
            let expires = u64::from_be_bytes(*expires);
            is_whole.then_some(Self { key: MemberId(*key), secret: *secret, expires, places })
        };
        read().ok_or(TokenError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        let places =
            ["10.0.0.1:5236", "[fd77::1]:5236", "gate.example.org:1"].map(|place| place.parse().unwrap());
        Token { key: MemberId([7; 32]), secret: [9; 32], expires: 1_800_000_000, places: places.into() }
    }

    #[test]
    fn an_invite_is_read_as_it_was_written() {
        let text = token().to_string();
        assert!(text.starts_with("isle1") && text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(text.parse::<Token>().unwrap(), token());
        assert_eq!(text.parse::<Token>().unwrap().target().invite, Some([9; 32]));
    }

    #[test]
    fn what_is_cut_or_mistyped_is_refused() {
        let text = token().to_string();
        assert_eq!("isle2".parse::<Token>(), Err(TokenError::Prefix));
        for end in 5..text.len() {
            assert_eq!(text[..end].parse::<Token>(), Err(TokenError::Damaged), "{end}");
        }
        for at in 5..text.len() {
            let mut typed = text.clone().into_bytes();
            typed[at] = if typed[at] == b'a' { b'b' } else { b'a' };
            assert!(String::from_utf8(typed).unwrap().parse::<Token>().is_err(), "{at}");
        }
        let nowhere = Token { places: Vec::new(), ..token() };
        assert_eq!(nowhere.to_string().parse::<Token>(), Err(TokenError::Damaged));
    }
}
