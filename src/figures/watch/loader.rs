//! What was seen of each file, and what it gave: decides what to read again, what to keep and what to withdraw.
//!
//! Plain blocking code that reads files; it knows neither notices nor time. Two scans in a row stand for "it has
//! settled", so the caller decides how long that is.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::PiecesConfig;
use crate::figures::catalogue::ENTRIES_MAX;
use crate::figures::formats::{FILE_BYTES_MAX, Format, FormatError};
use crate::figures::name::FigureName;
use crate::figures::shelf::{self, LeftOut, Shelf, Shelved, Why};
use crate::figures::text::visible;

/// Most problems that are named; the rest are counted. Enough to see what is wrong, too few to fill a log.
const PROBLEMS_MAX: usize = 100;

/// Something wrong with the files of figures, for logs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileProblem {
    /// Path of the file or folder, or the option that is wrong; one line, safe to print.
    pub file: String,
    /// Counted from 1; none when it is about the whole file.
    pub line: Option<usize>,
    /// One line, safe to print.
    pub reason: String,
    /// The file's figures from before are still served.
    pub kept: bool,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.reason)?;
        if self.kept { f.write_str(" (what it held before is still served)") } else { Ok(()) }
    }
}

/// What a scan found.
pub(super) struct Scan {
    /// Something is changing; look again soon.
    pub(super) pending: bool,
    /// The shelf or the problems may be others now.
    pub(super) changed: bool,
}

/// The files of figures as last seen, and the shelf made of them.
#[derive(Debug)]
pub(super) struct Loader {
    targets: Vec<PathBuf>,
    builtin: bool,
    only: Option<BTreeSet<FigureName>>,
    /// What is wrong with the settings themselves.
    settings: Vec<FileProblem>,
    /// What is wrong with folders, and with targets that are not there.
    places: Vec<FileProblem>,
    /// The same as the last scan saw it: like a file, it counts when it was seen twice.
    places_seen: Vec<FileProblem>,
    /// By path, as text: a `Path` is compared part by part, which takes longer with 100,000 of them.
    files: BTreeMap<OsString, Tracked>,
    shelf: Arc<Shelf>,
    problems: Arc<[FileProblem]>,
}

/// One file.
#[derive(Default, Debug)]
struct Tracked {
    /// As the last scan saw it; `None`: not there.
    seen: Option<Stamp>,
    /// As the scan before saw it.
    before: Option<Stamp>,
    /// As it was when it was last read, well or badly.
    read: Option<Stamp>,
    /// What it gave when it was last read well.
    figures: Vec<Shelved>,
    error: Option<FormatError>,
}

/// Changes whenever a file does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Loader {
    pub(super) fn new(config: &PiecesConfig) -> Self {
        let mut settings = Vec::new();
        let mut only = BTreeSet::new();
        for name in &config.only {
            match name.parse() {
                Ok(name) => {
                    only.insert(name);
                }
                Err(error) => settings.push(problem("--only", None, format!("{name:?}: {error}"))),
            }
        }
        let mut targets = BTreeSet::new();
        for path in config.figures.iter().filter(|path| *path != "builtin") {
            match std::path::absolute(path) {
                Ok(path) => {
                    targets.insert(path);
                }
                Err(error) => settings.push(problem("--figures", None, format!("{path:?}: {error}"))),
            }
        }
        Self {
            targets: targets.into_iter().collect(),
            builtin: match config.figures.as_slice() {
                [] => config.upstream.is_none(),
                paths => paths.iter().any(|path| path == "builtin"),
            },
            only: (!config.only.is_empty()).then_some(only),
            settings,
            places: Vec::new(),
            places_seen: Vec::new(),
            files: BTreeMap::new(),
            shelf: Arc::default(),
            problems: Arc::default(),
        }
    }

    /// The files and folders to look at, sorted.
    pub(super) fn targets(&self) -> &[PathBuf] {
        &self.targets
    }

    pub(super) fn shelf(&self) -> Arc<Shelf> {
        Arc::clone(&self.shelf)
    }

    pub(super) fn problems(&self) -> Arc<[FileProblem]> {
        Arc::clone(&self.problems)
    }

    /// Looks at all files and reads those that have changed and settled; with `first` those that have changed.
    pub(super) fn scan(&mut self, first: bool) -> Scan {
        let look = Look::at(&self.targets);
        let mut scan = Scan { pending: false, changed: first };
        if look.problems != self.places {
            if first || look.problems == self.places_seen {
                self.places.clone_from(&look.problems);
                scan.changed = true;
            } else {
                scan.pending = true;
            }
        }
        self.places_seen = look.problems;
        for tracked in self.files.values_mut() {
            tracked.before = tracked.seen.take();
        }
        for (path, stamp) in look.found {
            self.files.entry(path.into()).or_default().seen = Some(stamp);
        }
        self.files.retain(|path, tracked| {
            let path = Path::new(path);
            if look.unknown.contains(path)
                || path.parent().is_some_and(|folder| look.unknown.contains(folder))
            {
                tracked.seen = tracked.before;
                return true;
            }
            if tracked.seen == tracked.read && tracked.seen.is_some() {
                return true;
            }
            if !first && tracked.seen != tracked.before {
                scan.pending = true;
                return true;
            }
            let gone = tracked.seen.is_none();
            scan.changed |= gone || tracked.reload(path, &mut scan.pending);
            !gone
        });
        if scan.changed {
            self.fill();
        }
        scan
    }

    /// Makes shelf and problems anew from what the files gave.
    fn fill(&mut self) {
        let wanted =
            |shelved: &Shelved| self.only.as_ref().is_none_or(|only| only.contains(&shelved.entry().name));
        let mut figures = Vec::new();
        let mut origins: Vec<Option<&Path>> = Vec::new();
        for (path, tracked) in &self.files {
            figures.extend(tracked.figures.iter().filter(|&shelved| wanted(shelved)).cloned());
            origins.resize(figures.len(), Some(Path::new(path)));
        }
        if self.builtin {
            figures.extend(shelf::builtin().into_iter().filter(wanted));
            origins.resize(figures.len(), None);
        }
        let mut problems = self.settings.clone();
        problems.extend_from_slice(&self.places);
        problems.extend(self.files.iter().filter_map(|(path, tracked)| {
            let error = tracked.error.as_ref()?;
            let kept = !tracked.figures.is_empty();
            Some(FileProblem { kept, ..problem(&shown(Path::new(path)), error.line, error.reason.clone()) })
        }));
        let (shelf, left_out) = Shelf::new(&figures);
        let origin = |at: usize| origins[at].map_or_else(|| "builtin".to_owned(), shown);
        problems.extend(left_out.iter().take(PROBLEMS_MAX).map(|&LeftOut { at, why }| {
            let entry = figures[at].entry();
            let figure = format!("{} {}", entry.name, entry.share);
            let reason = match why {
                Why::Duplicate { of } if origins[of] == origins[at] => {
                    format!("figure {figure} is there twice; the first is served")
                }
                Why::Duplicate { of } => format!("figure {figure} is served from {}", origin(of)),
                Why::Full => format!("figure {figure} is not served: {ENTRIES_MAX} are, and no more can be"),
            };
            problem(&origin(at), None, reason)
        }));
        for name in self.only.iter().flatten() {
            if shelf.shares(name).next().is_none() {
                problems.push(problem("--only", None, format!("there is no figure {name}")));
            }
        }
        problems.sort();
        problems.dedup();
        let more = problems.len().saturating_sub(PROBLEMS_MAX) + left_out.len().saturating_sub(PROBLEMS_MAX);
        if more > 0 {
            problems.truncate(PROBLEMS_MAX);
            problems.push(problem("--figures", None, format!("{more} more problems")));
        }
        self.shelf = Arc::new(shelf);
        self.problems = problems.into();
    }
}

impl Tracked {
    /// Reads the file again and keeps what it gave before if that fails. Whether anything may be another now.
    fn reload(&mut self, path: &Path, pending: &mut bool) -> bool {
        let before = self.error.clone();
        match read(path) {
            Ok((bytes, stamp)) => {
                if Some(stamp) != self.seen {
                    self.seen = Some(stamp); // Replaced between the look and the reading, or still being written.
                    *pending = true;
                    return false;
                }
                self.read = Some(stamp);
                match parse(path, &bytes) {
                    Ok(figures) => {
                        self.error = None;
                        self.figures = figures;
                        true
                    }
                    Err(error) => {
                        self.error = Some(error);
                        self.error != before
                    }
                }
            }
            // `read` stays as it was: tried again at each scan.
            Err(error) => {
                let reason = error.to_string();
                self.error = Some(FormatError { line: None, reason });
                self.error != before
            }
        }
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Shelved>, FormatError> {
    match Format::of(path) {
        Some(format) => format.parse(path, bytes),
        None => Err(FormatError {
            line: None,
            reason: "ends neither in .json, .toml, .csv, .ldr nor .mpd".into(),
        }),
    }
}

/// Reads a file, at most one byte more than is allowed; with the stamp it has after that.
fn read(path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
    let mut file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    // One byte more than it holds: then the end is found without a larger buffer.
    let mut bytes = Vec::with_capacity(length.min(FILE_BYTES_MAX) + 1);
    Read::by_ref(&mut file).take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes, Stamp::from(&file.metadata()?)))
}

/// All files of figures as they are now.
#[derive(Default)]
struct Look {
    /// In no order; a file that was named and is in a folder that was named is there twice.
    found: Vec<(PathBuf, Stamp)>,
    /// Files and folders of which nothing can be said now: what they held stays.
    unknown: BTreeSet<PathBuf>,
    problems: Vec<FileProblem>,
}

impl Look {
    fn at(targets: &[PathBuf]) -> Self {
        let mut look = Self::default();
        for target in targets {
            match fs::metadata(target) {
                Ok(metadata) if metadata.is_dir() => look.folder(target),
                Ok(metadata) => look.file(target.clone(), &metadata),
                Err(error) => look.failed(target, &error),
            }
        }
        look
    }

    fn folder(&mut self, folder: &Path) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.failed(folder, &error),
        };
        let mut files: usize = 0;
        for entry in entries {
            let path = match entry {
                Ok(entry) => entry.path(),
                Err(error) => return self.failed(folder, &error),
            };
            let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden || Format::of(&path).is_none() {
                continue;
            }
            files += 1;
            if files > ENTRIES_MAX {
                let reason = format!("holds more than {ENTRIES_MAX} files; the rest are not read");
                self.problems.push(problem(&shown(folder), None, reason));
                return;
            }
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(metadata) => self.file(path, &metadata),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // Gone since it was listed.
                Err(error) => self.failed(&path, &error),
            }
        }
        if files == 0 {
            let reason = "holds no file that ends in .json, .toml, .csv, .ldr or .mpd".to_owned();
            self.problems.push(problem(&shown(folder), None, reason));
        }
    }

    /// Pipes and devices are not opened: that could wait for ever.
    fn file(&mut self, path: PathBuf, metadata: &Metadata) {
        if metadata.is_file() {
            self.found.push((path, Stamp::from(metadata)));
        } else {
            self.problems.push(problem(&shown(&path), None, "is no regular file".to_owned()));
        }
    }

    fn failed(&mut self, path: &Path, error: &io::Error) {
        let kept = error.kind() != io::ErrorKind::NotFound;
        if kept {
            self.unknown.insert(path.to_owned());
        }
        let later = if kept { "" } else { "; should it appear, it is read then" };
        self.problems.push(problem(&shown(path), None, format!("{}{later}", visible(&error.to_string()))));
    }
}

fn problem(file: &str, line: Option<usize>, reason: String) -> FileProblem {
    FileProblem { file: file.to_owned(), line, reason, kept: false }
}

fn shown(path: &Path) -> String {
    visible(&path.to_string_lossy()).into_owned()
}

#[cfg(test)]
mod tests;
