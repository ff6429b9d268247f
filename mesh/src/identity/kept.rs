//! A key in a directory: `key.pem` (PKCS#8, mode 0600), `epoch` (one checked line), `lock`.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};

use crate::member::{Epoch, MemberId};

/// Why a kept key cannot be used. Each says what to do; none is worth a retry by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Reading or writing failed.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process uses this directory.
    #[error("{path} is in use by another process; every node needs a state directory of its own")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Other users could read or change the key.
    #[error("{path} has mode {mode:o}, which lets other users in; `chmod {wanted:o}` it")]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        wanted: u32,
    },
    /// The contents are not what we wrote.
    #[error("{path} is damaged: {why}; restore it, or remove the directory to become a new member")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The key was used in its last epoch.
    #[error("the last epoch of this key is used up; remove its directory to become a new member")]
    UsedUp,
    /// No randomness for a new key.
    #[error("no randomness from the operating system: {0}")]
    Entropy(String),
}

/// The epoch after `epoch`.
pub(super) fn above(epoch: Epoch) -> Result<Epoch, IdentityError> {
    if epoch >= Epoch::MAX { Err(IdentityError::UsedUp) } else { Ok(Epoch(epoch.0 + 1)) }
}

/// The directory of an open key, locked.
pub(super) struct Kept {
    dir: PathBuf,
    /// Held only so that the lock is.
    _lock: File,
}

impl Kept {
    /// Opens or makes the directory and raises the epoch.
    pub(super) fn open(dir: &Path) -> Result<(SigningKey, Epoch, Self), IdentityError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("make", dir))?;
        refuse_exposed(dir, 0o700)?;
        let kept = Self { _lock: lock(dir)?, dir: dir.to_owned() };
        let key = match read_key(dir)? {
            Some(key) => key,
            None => kept.make_key()?,
        };
        let id = super::id_of(&key);
        let last = kept.read_epoch(id)?;
        let epoch = above(last)?;
        kept.write_epoch(id, epoch)?;
        Ok((key, epoch, kept))
    }

    /// Makes key and epoch 0. The epoch is written first: a crash in between leaves an epoch 0 without a
    /// key, which the next start replaces, and never a key without an epoch.
    fn make_key(&self) -> Result<SigningKey, IdentityError> {
        let epoch_path = self.epoch_path();
        if epoch_path.exists() && !fs::read(&epoch_path).is_ok_and(|text| text.starts_with(b"epoch 0 ")) {
            let why = "it was used with a key that is not there any more";
            return Err(IdentityError::Damaged { path: epoch_path, why });
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| IdentityError::Entropy(error.to_string()))?;
        let key = SigningKey::from_bytes(&seed);
        self.write_epoch(super::id_of(&key), Epoch(0))?;
        let path = key_path(&self.dir);
        let pem = key
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|_| IdentityError::Damaged { path: path.clone(), why: "the new key has no PEM form" })?;
        self.replace(&path, pem.as_bytes())?;
        Ok(key)
    }

    fn read_epoch(&self, id: MemberId) -> Result<Epoch, IdentityError> {
        let path = self.epoch_path();
        let damaged = |why| IdentityError::Damaged { path: path.clone(), why };
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("it is missing")),
            read => read.map_err(io_error("read", &path))?,
        };
        let text = str::from_utf8(&text).map_err(|_| damaged("it is no text"))?;
        let number = text.split(' ').nth(1).and_then(|number| number.parse().ok());
        let epoch = Epoch(number.ok_or_else(|| damaged("it has no number"))?);
        if text == epoch_line(id, epoch) {
            Ok(epoch)
        } else {
            Err(damaged("its checksum does not fit this key"))
        }
    }

    /// Puts `epoch` on disk: file and directory are synced when this returns.
    pub(super) fn write_epoch(&self, id: MemberId, epoch: Epoch) -> Result<(), IdentityError> {
        self.replace(&self.epoch_path(), epoch_line(id, epoch).as_bytes())
    }

    /// Replaces a file as a whole: a reader after a crash finds the old contents or the new.
    fn replace(&self, path: &Path, contents: &[u8]) -> Result<(), IdentityError> {
        let new = path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &new)(error));
            }
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true) // O_EXCL: nobody can have put a link or an open file in its place
            .mode(0o600)
            .open(&new)
            .map_err(io_error("create", &new))?;
        file.write_all(contents).and_then(|()| file.sync_all()).map_err(io_error("write", &new))?;
        fs::rename(&new, path).map_err(io_error("replace", path))?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", &self.dir))
    }

    fn epoch_path(&self) -> PathBuf {
        self.dir.join("epoch")
    }
}

/// The key in `dir`, if there is one.
pub(super) fn read_key(dir: &Path) -> Result<Option<SigningKey>, IdentityError> {
    let path = key_path(dir);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(IdentityError::Damaged { path, why: "it is no text" })
        }
        read => {
            let pem = read.map_err(io_error("read", &path))?;
            refuse_exposed(&path, 0o600)?;
            let key = SigningKey::from_pkcs8_pem(&pem);
            key.map(Some)
                .map_err(|_| IdentityError::Damaged { path, why: "it is no ed25519 key in PKCS#8 PEM" })
        }
    }
}

fn key_path(dir: &Path) -> PathBuf {
    dir.join("key.pem")
}

/// The number, then a checksum that binds it to the key: a cut line or another key's file is noticed.
pub(super) fn epoch_line(id: MemberId, epoch: Epoch) -> String {
    let text = format!("epoch {}", epoch.0);
    let sum = blake3::hash(&[id.0.as_slice(), text.as_bytes()].concat()).to_hex();
    format!("{text} {}\n", &sum[..16])
}

fn lock(dir: &Path) -> Result<File, IdentityError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(IdentityError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
    }
}

fn refuse_exposed(path: &Path, wanted: u32) -> Result<(), IdentityError> {
    let mode = fs::metadata(path).map_err(io_error("look at", path))?.mode() & 0o777;
    if mode & !wanted == 0 {
        Ok(())
    } else {
        Err(IdentityError::Exposed { path: path.to_owned(), mode, wanted })
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Io { doing, path, source }
}
