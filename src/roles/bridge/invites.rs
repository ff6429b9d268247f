//! The invites that this bridge has given out.
//!
//! The file holds a hash of each secret, never the secret: who reads it cannot get in. What is used up stays until a day
//! after it has expired, so that whoever tries again learns why not.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use island_bridge::bridge::{Admitting, Invites};
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

    /// Notes that `peer` uses the invite with this secret, once however often it comes; gives what people call it. Not
    /// written yet.
    fn take(&self, peer: MemberId, secret: &[u8; 32]) -> Result<String, Refusal> {
        let (hash, key) = (hash(secret), peer.to_string());
        let mut invites = self.lock();
        let invite = invites.iter_mut().find(|invite| invite.hash == hash).ok_or(Refusal::UnknownKey)?;
        if !invite.used_by.contains(&key) {
            match (invite.uses_left, invite.expires > now()) {
                (0, _) => return Err(Refusal::InviteUsed),
                (_, false) => return Err(Refusal::InviteExpired),
                (_, true) => {}
            }
            invite.uses_left -= 1;
            invite.used_by.push(key);
        }
        Ok(invite.id.clone())
    }

    fn give_back(&self, peer: MemberId, secret: &[u8; 32]) {
        let (hash, key) = (hash(secret), peer.to_string());
        if let Some(invite) = self.lock().iter_mut().find(|invite| invite.hash == hash) {
            let before = invite.used_by.len();
            invite.used_by.retain(|used_by| *used_by != key);
            invite.uses_left += u32::from(invite.used_by.len() < before);
        }
    }

    /// No invite that this key has used lets it in again. Blocks on the disk.
    ///
    /// # Errors
    /// It could not be written: it does after the next start.
    pub(super) fn disown(&self, peer: &MemberId) -> Result<(), KeptError> {
        let key = peer.to_string();
        let mut is_known = false;
        for invite in self.lock().iter_mut() {
            let before = invite.used_by.len();
            invite.used_by.retain(|used_by| *used_by != key);
            is_known |= invite.used_by.len() < before;
        }
        if is_known { self.save() } else { Ok(()) }
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

    fn admit(&self, peer: MemberId, secret: [u8; 32]) -> Admitting {
        let (pins, book) = (self.pins.clone(), self.book.clone());
        Box::pin(async move {
            let admitted = tokio::task::spawn_blocking(move || admit(&book, &pins, peer, &secret));
            admitted.await.unwrap_or_else(|error| {
                warn!(%error, "an invite could not be looked up");
                Err(Refusal::UnknownKey)
            })
        })
    }
}

/// Uses an invite up once and keeps the key, both on disk when this returns. Blocks.
fn admit(book: &InviteBook, pins: &Pins, peer: MemberId, secret: &[u8; 32]) -> Result<(), Refusal> {
    let id = book.take(peer, secret)?;
    // The use comes first: what a crash in between leaves lets in the same key again, and nobody else.
    let kept = book.save().map_err(|error| (error, true)).and_then(|()| {
        let allowed = pins.allow(peer);
        allowed.map_err(|error| (error, false))
    });
    match kept {
        Ok(()) => {
            info!(invite = id, key = %peer, "invite used");
            Ok(())
        }
        Err((error, is_unused)) => {
            warn!(%error, invite = id, key = %peer, "not let in, for that an invite was used could not be kept");
            if is_unused {
                book.give_back(peer, secret);
            }
            Err(Refusal::UnknownKey)
        }
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

    const OTHER: MemberId = MemberId([2; 32]);

    #[tokio::test]
    async fn an_invite_lets_in_as_often_as_it_says_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = door(dir.path());
        assert!(!first.any_open());
        let (invite, secret) = first.book.make(Duration::from_secs(900), 2).unwrap();
        assert!(!fs::read_to_string(dir.path().join(FILE)).unwrap().contains(&hash(&[0; 32])));
        assert_eq!(first.admit(PEER, secret).await, Ok(()));
        // The process ends right after the answer.
        let second = door(dir.path());
        assert_eq!((second.book.all()[0].uses_left, second.pins.keys()), (1, vec![PEER]));
        assert_eq!(second.admit(PEER, secret).await, Ok(()), "once for each key");
        assert_eq!(second.admit(OTHER, secret).await, Ok(()));
        assert_eq!(second.admit(MemberId([3; 32]), secret).await, Err(Refusal::InviteUsed));
        assert_eq!(second.admit(OTHER, [0; 32]).await, Err(Refusal::UnknownKey));
        second.book.disown(&PEER).unwrap();
        assert_eq!(door(dir.path()).admit(PEER, secret).await, Err(Refusal::InviteUsed), "it was unlinked");
        assert!(second.book.revoke(&invite.id).unwrap() && !second.book.revoke(&invite.id).unwrap());
        assert_eq!(second.admit(OTHER, secret).await, Err(Refusal::UnknownKey));
    }

    #[tokio::test]
    async fn what_a_crash_between_both_files_leaves_lets_in_the_same_key_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let first = door(dir.path());
        let (_, secret) = first.book.make(Duration::from_secs(900), 1).unwrap();
        first.book.take(PEER, &secret).unwrap();
        first.book.save().unwrap();
        let second = door(dir.path());
        assert!(second.pins.keys().is_empty());
        assert_eq!(second.admit(OTHER, secret).await, Err(Refusal::InviteUsed));
        assert_eq!(second.admit(PEER, secret).await, Ok(()));
        assert_eq!(door(dir.path()).pins.keys(), [PEER]);
    }

    #[tokio::test]
    async fn whoever_cannot_be_kept_is_not_let_in_and_has_used_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let door = door(dir.path());
        let (_, secret) = door.book.make(Duration::from_secs(900), 1).unwrap();
        let state = dir.path().to_owned();
        // Nothing can be written where there is no folder.
        dir.close().unwrap();
        assert_eq!(door.admit(PEER, secret).await, Err(Refusal::UnknownKey));
        assert_eq!(door.book.all()[0].uses_left, 1);
        fs::create_dir(&state).unwrap();
        assert_eq!(door.admit(OTHER, secret).await, Ok(()));
        fs::remove_dir_all(&state).unwrap();
    }

    #[tokio::test]
    async fn an_expired_invite_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let door = door(dir.path());
        let (_, secret) = door.book.make(Duration::ZERO, 1).unwrap();
        assert_eq!(door.admit(PEER, secret).await, Err(Refusal::InviteExpired));
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
