//! Keys that this bridge links with besides those that it was started with: learned while it ran.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use island_bridge::bridge::{Place, Target};
use isle_mesh::member::MemberId;
use serde::{Deserialize, Serialize};

use super::kept::{KeptError, read, write};

const FILE: &str = "links.json";

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    file: PathBuf,
    pins: Arc<Mutex<BTreeMap<MemberId, Pin>>>,
}

/// What is known of a key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Pin {
    /// Where it is called; nowhere, if it calls.
    places: Vec<Place>,
    /// What lets us in the first time; of no meaning once it has.
    invite: Option<[u8; 32]>,
}

/// The same as it is kept.
#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    at: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    invite: Option<String>,
}

impl Line {
    fn read(self) -> Option<(MemberId, Pin)> {
        let places = self.at.iter().map(|place| place.parse().ok()).collect::<Option<_>>()?;
        let invite = match self.invite {
            Some(digits) => Some(data_encoding::HEXLOWER.decode(digits.as_bytes()).ok()?.try_into().ok()?),
            None => None,
        };
        Some((self.key.parse().ok()?, Pin { places, invite }))
    }
}

impl Pins {
    /// Those kept in the state directory `dir`. Blocks on the disk.
    ///
    /// # Errors
    /// The file is damaged, or cannot be read.
    pub(super) fn open(dir: &Path) -> Result<Self, KeptError> {
        let file = dir.join(FILE);
        let lines: Vec<Line> = read(&file)?.unwrap_or_default();
        let pins: Option<BTreeMap<_, _>> = lines.into_iter().map(Line::read).collect();
        let pins = pins.ok_or_else(|| KeptError::Damaged {
            path: file.clone(),
            source: serde::de::Error::custom("not a key, or not where it is called"),
        })?;
        Ok(Self { file, pins: Arc::new(Mutex::new(pins)) })
    }

    /// Whom to call.
    #[must_use]
    pub(super) fn targets(&self) -> Vec<Target> {
        let pins = self.lock();
        let called = pins.iter().filter(|(_, pin)| !pin.places.is_empty());
        called
            .map(|(key, pin)| Target { key: *key, places: pin.places.clone(), invite: pin.invite })
            .collect()
    }

    /// All keys.
    #[must_use]
    pub(super) fn keys(&self) -> Vec<MemberId> {
        self.lock().keys().copied().collect()
    }

    /// A key may call from now on. Blocks on the disk.
    ///
    /// # Errors
    /// It is not kept, then, but holds while we run.
    pub(super) fn allow(&self, key: MemberId) -> Result<(), KeptError> {
        self.change(|pins| {
            pins.entry(key).or_default();
        })
    }

    /// A bridge is called from now on. Blocks on the disk.
    ///
    /// # Errors
    /// As [`allow`](Self::allow).
    pub(super) fn link(&self, target: &Target) -> Result<(), KeptError> {
        let pin = Pin { places: target.places.clone(), invite: target.invite };
        self.change(|pins| {
            pins.insert(target.key, pin);
        })
    }

    /// Forgets a key. Blocks on the disk.
    ///
    /// # Errors
    /// As [`allow`](Self::allow).
    pub(super) fn unlink(&self, key: &MemberId) -> Result<(), KeptError> {
        self.change(|pins| {
            pins.remove(key);
        })
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<MemberId, Pin>)) -> Result<(), KeptError> {
        let mut pins = self.lock();
        let before = pins.clone();
        change(&mut pins);
        if *pins == before {
            return Ok(());
        }
        let lines: Vec<Line> = pins
            .iter()
            .map(|(key, pin)| Line {
                key: key.to_string(),
                at: pin.places.iter().map(Place::to_string).collect(),
                invite: pin.invite.map(|secret| data_encoding::HEXLOWER.encode(&secret)),
            })
            .collect();
        write(&self.file, &lines)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MemberId, Pin>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::open(dir.path()).unwrap();
        let key = MemberId([3; 32]);
        let target = Target {
            key: MemberId([4; 32]),
            places: vec!["[fd77::1]:5236".parse().unwrap(), "gate:1".parse().unwrap()],
            invite: Some([8; 32]),
        };
        pins.allow(key).unwrap();
        pins.link(&target).unwrap();
        let again = Pins::open(dir.path()).unwrap();
        assert_eq!(again.keys(), [key, target.key]);
        assert_eq!(again.targets(), std::slice::from_ref(&target));
        again.unlink(&target.key).unwrap();
        assert_eq!(Pins::open(dir.path()).unwrap().keys(), [key]);
    }

    #[test]
    fn a_damaged_file_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["[\n{", "[{\"key\":\"short\"}]", "{}"] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let error = Pins::open(dir.path()).unwrap_err().to_string();
            assert!(error.contains("links.json: line "), "{error}");
        }
    }
}
