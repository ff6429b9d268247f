//! Small files of a bridge in its state directory: read whole, replaced whole, for their user's eyes alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// More is not read: 256 invites are 100 kB.
const BYTES_MAX: u64 = 1 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// The disk.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not what was written.
    #[error("{}: line {}: {source}; mend it or move it away", path.display(), source.line())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// Far larger than what was ever written.
    #[error("{}: larger than {BYTES_MAX} bytes; move it away", path.display())]
    Large {
        /// The file.
        path: PathBuf,
    },
}

/// What is in the file; `None` if there is none. Blocks.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, KeptError> {
    let failed = |source| KeptError::Io { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(found) if found.len() > BYTES_MAX => return Err(KeptError::Large { path: path.to_owned() }),
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(failed)?;
    let value = serde_json::from_slice(&bytes)
        .map_err(|source| KeptError::Damaged { path: path.to_owned(), source })?;
    Ok(Some(value))
}

/// Replaces the file: after a crash it holds the old or the new. On disk when this returns. Blocks.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), KeptError> {
    let replace = || {
        let new = path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    replace().map_err(|source| KeptError::Io { path: path.to_owned(), source })
}
