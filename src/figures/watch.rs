//! Figures from files and folders, reloaded as these change.
//!
//! Changes are found by looking: a scan compares each file with what was seen of it before. The system's notices
//! only say when to look, so that nothing depends on their order, on their being complete, or on a file system that
//! has none (then changes are found within seconds). A change counts when two scans have seen the same: a file that is
//! being written, or is away for a moment while it is replaced, is not read.
//!
//! Links are followed, to files and, in `--figures`, to folders; changes behind a link are found by the slower scan.
//! Deeper folders and hidden files are left alone.

mod loader;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

pub use self::loader::FileProblem;
use self::loader::Loader;
use crate::config::PiecesConfig;
use crate::figures::shelf::Shelf;

/// How long a file must stay the same before it is read. Guessed: longer than the pauses of a program that writes a
/// file in pieces, too short for a person to wait for.
const SETTLE: Duration = Duration::from_millis(100);

/// How often to look without a notice. Guessed: within patience where notices fail, 0.2 % of a core for 1,000 files.
const RESCAN: Duration = Duration::from_secs(2);

/// A scan may take this part of the time at most, so that 100,000 files do not keep a core busy.
const SCAN_SHARE: u32 = 50;

/// What is held now, and what is wrong with the files; both are replaced as a whole, and the newest wins.
#[derive(Clone, Debug)]
pub struct FigureWatch {
    /// What the piece server holds.
    pub shelf: watch::Receiver<Arc<Shelf>>,
    /// What is wrong, sorted by file; empty when all is well.
    pub problems: watch::Receiver<Arc<[FileProblem]>>,
}

/// Follows the files for as long as it is polled.
#[derive(Debug)]
pub struct WatchTask {
    work: Work,
    notice: Arc<Notify>,
    pending: bool,
    scan_took: Duration,
    shelf: watch::Sender<Arc<Shelf>>,
    problems: watch::Sender<Arc<[FileProblem]>>,
}

/// Reads all figures and says how to follow them. Returns when everything is read, whatever is wrong with it.
///
/// Without `figures` these are the built-in ones, or none if there is an `upstream`. Reading and later scans
/// run on the blocking pool, one at a time. Must be called within a tokio runtime.
pub async fn watch_figures(config: &PiecesConfig) -> (FigureWatch, WatchTask) {
    let loader = Loader::new(config);
    let notice = Arc::new(Notify::new());
    let folders = Folders::new(loader.targets(), Arc::clone(&notice));
    let (work, scan) = Work { loader, folders }.scan(true).await;
    let (shelf, shelf_seen) = watch::channel(work.loader.shelf());
    let (problems, problems_seen) = watch::channel(Arc::default());
    let watch = FigureWatch { shelf: shelf_seen, problems: problems_seen };
    let task = WatchTask { work, notice, pending: scan.pending, scan_took: scan.took, shelf, problems };
    task.publish();
    (watch, task)
}

impl WatchTask {
    /// Follows the files; never returns. Cancel safe in the sense that dropping it just ends the following.
    pub async fn run(mut self) {
        if self.work.loader.targets().is_empty() {
            // The built-in figures stay as they are; the senders must live on for the receivers.
            return std::future::pending().await;
        }
        loop {
            let wait = if self.pending {
                SETTLE.max(self.scan_took)
            } else {
                RESCAN.max(self.scan_took * SCAN_SHARE)
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.notice.notified(), if !self.pending => {}
            }
            let (work, scan) = self.work.scan(false).await;
            self.work = work;
            (self.pending, self.scan_took) = (scan.pending, scan.took);
            if scan.changed {
                self.publish();
            }
        }
    }

    fn publish(&self) {
        let shelf = self.work.loader.shelf();
        self.shelf.send_if_modified(|held| {
            let changed = held.catalogue().digest() != shelf.catalogue().digest();
            if changed {
                info!(figures = shelf.len(), digest = %shelf.catalogue().digest(), "figures changed");
                *held = shelf;
            }
            changed
        });
        let problems = self.work.loader.problems();
        self.problems.send_if_modified(|known| {
            for problem in problems.iter().filter(|problem| !known.contains(problem)) {
                warn!(
                    file = problem.file,
                    line = problem.line,
                    reason = problem.reason,
                    "figures not loaded"
                );
            }
            let changed = *known != problems;
            *known = problems;
            changed
        });
    }
}

/// What a scan works on; moves to the blocking pool and back.
#[derive(Debug)]
struct Work {
    loader: Loader,
    folders: Folders,
}

struct Scan {
    pending: bool,
    changed: bool,
    took: Duration,
}

impl Work {
    /// `first`: take every file as it is, without waiting for it to settle.
    async fn scan(self, first: bool) -> (Self, Scan) {
        let Self { mut loader, mut folders } = self;
        let scan = move || {
            let started = Instant::now();
            // Before looking, so that what changes after the look is noticed.
            folders.refresh(loader.targets());
            let loader::Scan { pending, changed } = loader.scan(first);
            (Self { loader, folders }, Scan { pending, changed, took: started.elapsed() })
        };
        match tokio::task::spawn_blocking(scan).await {
            Ok(done) => done,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only when the runtime stops, which drops this task as well.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// The folders of which the system gives notice.
struct Folders {
    watcher: Option<RecommendedWatcher>,
    /// By path, with the device and inode it had: a folder made anew needs a new watch.
    watched: BTreeMap<PathBuf, (u64, u64)>,
}

impl std::fmt::Debug for Folders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folders").field("watched", &self.watched).finish_non_exhaustive()
    }
}

impl Folders {
    fn new(targets: &[PathBuf], notice: Arc<Notify>) -> Self {
        let relevant: BTreeSet<PathBuf> = targets.iter().cloned().collect();
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_relevant(&event, &relevant)) {
                notice.notify_one();
            }
        };
        let watcher = if targets.is_empty() { None } else { notify::recommended_watcher(on_event).ok() };
        if watcher.is_none() && !targets.is_empty() {
            debug!("the system gives no notice of changed files; looking every {RESCAN:?}");
        }
        Self { watcher, watched: BTreeMap::new() }
    }

    /// Watches the folders of the targets that exist now. What cannot be watched is still scanned.
    fn refresh(&mut self, targets: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        for target in targets {
            let folder = if target.is_dir() { target.as_path() } else { target.parent().unwrap_or(target) };
            let Ok(metadata) = folder.metadata() else {
                if self.watched.remove(folder).is_some() {
                    let _ = watcher.unwatch(folder);
                }
                continue;
            };
            let identity = (metadata.dev(), metadata.ino());
            if self.watched.get(folder) == Some(&identity) {
                continue;
            }
            if self.watched.remove(folder).is_some() {
                let _ = watcher.unwatch(folder); // Fails when it went with the old folder, which is as well.
            }
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder.to_owned(), identity);
                }
                Err(error) => {
                    debug!(folder = ?folder, %error, "no notice of changes; looking every {RESCAN:?}")
                }
            }
        }
    }
}

/// Whether an event is about a target, or about a file in one. Reading is no change: our own would wake us for ever.
fn is_relevant(event: &notify::Event, targets: &BTreeSet<PathBuf>) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        EventKind::Access(_) => return false,
        _ => {}
    }
    let among = |path: &Path| targets.contains(path);
    event.need_rescan() || event.paths.iter().any(|path| among(path) || path.parent().is_some_and(among))
}

#[cfg(test)]
mod tests;
