//! The invites that this bridge has given out.
//!
//! The file holds a hash of each secret, never the secret: who reads it cannot get in. What is used up stays until a day
//! after it has expired, so that whoever tries again learns why not.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use island_bridge::bridge::Invites;
use island_bridge::frame::Refusal;
use isle_mesh::member::MemberId;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::kept::{KeptError, read, write};
use super::pins::Pins;

/// Invites that may be open or remembered at once.
const INVITES_MAX: usize = 256;
/// For how long an expired invite is remembered, in seconds.
const REMEMBERED: u64 = 24 * 3600;
const FILE: &str = "invites.json";

/// One invite, as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Invite {
    /// What people call it.
    pub id: String,
    /// BLAKE3 of its secret, in hexadecimal digits.
    hash: String,
    /// When it expires: seconds since 1970.
    pub expires: u64,
    /// How often it may be used yet.
    pub uses_left: u32,
    /// The keys of those who have used it.
    #[serde(default)]
    pub used_by: Vec<String>,
}

/// Why an invite was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// Too many.
    #[error("{INVITES_MAX} invites are open or expired lately; revoke some")]
    Full,
    /// The system gives no randomness.
    #[error("no randomness")]
    Entropy,
    /// It could not be kept.
    #[error(transparent)]
    Kept(#[from] KeptError),
}

/// All invites. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct InviteBook {
    file: PathBuf,
    invites: Arc<Mutex<Vec<Invite>>>,
    /// Held by whoever writes the file: what is written last is what is newest.
    writing: Arc<Mutex<()>>,
}

impl InviteBook {
    /// Those kept in the state directory `dir`. Blocks on the disk.
    ///
    /// # Errors
    /// The file is damaged, or cannot be read.
    pub fn open(dir: &Path) -> Result<Self, KeptError> {
        let file = dir.join(FILE);
        let invites = read(&file)?.unwrap_or_default();
        Ok(Self { file, invites: Arc::new(Mutex::new(invites)), writing: Arc::default() })
    }

    /// A new one, kept when this returns: itself and its secret, which nobody can find out again. Blocks on the disk.
    ///
    /// # Errors
    /// See [`InviteError`]; then there is none.
    pub fn make(&self, expires_in: Duration, uses: u32) -> Result<(Invite, [u8; 32]), InviteError> {
        let secret: [u8; 32] = rand::random();
        let hash = hash(&secret);
        let now = now();
        let id = hash.get(..6).ok_or(InviteError::Entropy)?.to_owned();
        let invite =
            Invite { id, hash, expires: now + expires_in.as_secs(), uses_left: uses, used_by: Vec::new() };
        {
            let mut invites = self.lock();
            invites.retain(|kept| kept.expires + REMEMBERED > now);
            if invites.len() >= INVITES_MAX {
                return Err(InviteError::Full);
            }
            invites.push(invite.clone());
        }
        if let Err(error) = self.save() {
            self.lock().retain(|kept| kept.id != invite.id);
            return Err(error.into());
        }
        Ok((invite, secret))
    }

    /// All that are kept.
    #[must_use]
    pub fn all(&self) -> Vec<Invite> {
        self.lock().clone()
    }

    /// Takes an invite back; whether there was one of this id. Blocks on the disk.
    ///
    /// # Errors
    /// It could not be written: it lets nobody in until the next start, and then does again.
    pub fn revoke(&self, id: &str) -> Result<bool, KeptError> {
        let was_there = {
            let mut invites = self.lock();
            let before = invites.len();
            invites.retain(|invite| invite.id != id);
            invites.len() < before
        };
        if was_there {
            self.save()?;
        }
        Ok(was_there)
    }

    /// Writes the file as it should be now. Nobody who asks waits for the disk meanwhile. Blocks.
    fn save(&self) -> Result<(), KeptError> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.all();
        write(&self.file, &now)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Invite>> {
        self.invites.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets in whoever shows an invite, and keeps their keys.
pub(super) struct Door {
    book: InviteBook,
    pins: Pins,
}

impl Door {
    pub(super) fn new(book: InviteBook, pins: Pins) -> Self {
        Self { book, pins }
    }
}

impl Invites for Door {
    fn any_open(&self) -> bool {
        // One that is used up or expired lately is looked at, too: its bearer is to learn why.
        !self.book.lock().is_empty()
    }

    fn check(&self, _: MemberId, secret: &[u8; 32]) -> Result<(), Refusal> {
        let hash = hash(secret);
        let invites = self.book.lock();
        let invite = invites.iter().find(|invite| invite.hash == hash).ok_or(Refusal::UnknownKey)?;
        match (invite.uses_left, invite.expires > now()) {
            (0, _) => Err(Refusal::InviteUsed),
            (_, false) => Err(Refusal::InviteExpired),
            (_, true) => Ok(()),
        }
    }

    fn used(&self, peer: MemberId, secret: &[u8; 32]) {
        let hash = hash(secret);
        let mut invites = self.book.lock();
        let Some(invite) = invites.iter_mut().find(|invite| invite.hash == hash) else { return };
        invite.uses_left = invite.uses_left.saturating_sub(1);
        invite.used_by.push(peer.to_string());
        info!(invite = invite.id, key = %peer, "invite used");
        drop(invites);
        let (pins, book) = (self.pins.clone(), self.book.clone());
        tokio::task::spawn_blocking(move || {
            // First the key: what a crash in between leaves lets the same key in again.
            let kept = pins.allow(peer).and_then(|()| book.save());
            if let Err(error) = kept {
                warn!(%error, "that an invite was used is not kept");
            }
        });
    }
}

fn hash(secret: &[u8; 32]) -> String {
    blake3::hash(secret).to_hex().to_string()
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PEER: MemberId = MemberId([1; 32]);

    fn door(dir: &Path) -> Door {
        Door::new(InviteBook::open(dir).unwrap(), Pins::open(dir).unwrap())
    }

    #[tokio::test]
    async fn an_invite_lets_in_as_often_as_it_says_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = door(dir.path());
        assert!(!first.any_open());
        let (invite, secret) = first.book.make(Duration::from_secs(900), 2).unwrap();
        assert!(!fs::read_to_string(dir.path().join(FILE)).unwrap().contains(&hash(&[0; 32])));
        first.used(PEER, &secret);
        // Written on another thread.
        while InviteBook::open(dir.path()).unwrap().all()[0].uses_left == 2 {
            tokio::task::yield_now().await;
        }
        let second = door(dir.path());
        assert_eq!(second.check(PEER, &secret), Ok(()));
        second.used(PEER, &secret);
        assert_eq!(second.check(PEER, &secret), Err(Refusal::InviteUsed));
        assert_eq!(second.check(PEER, &[0; 32]), Err(Refusal::UnknownKey));
        assert!(second.book.revoke(&invite.id).unwrap() && !second.book.revoke(&invite.id).unwrap());
        assert_eq!(second.check(PEER, &secret), Err(Refusal::UnknownKey));
    }

    #[test]
    fn an_expired_invite_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let door = door(dir.path());
        let (_, secret) = door.book.make(Duration::ZERO, 1).unwrap();
        assert_eq!(door.check(PEER, &secret), Err(Refusal::InviteExpired));
    }

    #[test]
    fn there_is_an_end_of_invites() {
        let dir = tempfile::tempdir().unwrap();
        let book = InviteBook::open(dir.path()).unwrap();
        for _ in 0..INVITES_MAX {
            book.make(Duration::from_secs(900), 1).unwrap();
        }
        assert!(matches!(book.make(Duration::from_secs(900), 1), Err(InviteError::Full)));
    }
}
