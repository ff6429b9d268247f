//! Addresses of members that were proven, for the next start of this node: they are greeted like seeds.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

/// Most addresses remembered.
const REMEMBERED_MAX: usize = 64;
/// How often they are written down while the node runs.
const EVERY: Duration = Duration::from_secs(60);
const FILE: &str = "peers";

/// The file of remembered addresses; without a directory, nothing is remembered.
#[derive(Debug)]
pub(super) struct Peers {
    path: Option<PathBuf>,
    known: Vec<SocketAddr>,
    due: Instant,
}

impl Peers {
    /// Reads what an earlier run left. A file that cannot be read is as good as none: it is only a hint.
    pub(super) fn open(dir: Option<PathBuf>) -> Self {
        let path = dir.map(|dir| dir.join(FILE));
        let text = path.as_deref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let known = text.lines().filter_map(|line| line.parse().ok()).take(REMEMBERED_MAX).collect();
        Self { path, known, due: Instant::now() + EVERY }
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.known.clone()
    }

    pub(super) fn is_due(&self) -> bool {
        self.path.is_some() && Instant::now() >= self.due
    }

    /// Writes `now` down in the background, if it is news.
    pub(super) fn remember_later(&mut self, now: Vec<SocketAddr>) {
        if let Some((path, text)) = self.news(now) {
            tokio::task::spawn_blocking(move || report(write(&path, &text)));
        }
    }

    /// Writes `now` down, if it is news, and waits for it.
    pub(super) async fn remember(&mut self, now: Vec<SocketAddr>) {
        if let Some((path, text)) = self.news(now) {
            // A panic there has nothing to do with us.
            let _ = tokio::task::spawn_blocking(move || report(write(&path, &text))).await;
        }
    }

    fn news(&mut self, mut now: Vec<SocketAddr>) -> Option<(PathBuf, String)> {
        self.due = Instant::now() + EVERY;
        now.sort_unstable();
        now.dedup();
        now.truncate(REMEMBERED_MAX);
        // To have met nobody is no reason to forget whom we met before.
        if now.is_empty() || now == self.known {
            return None;
        }
        self.known = now;
        let text = self.known.iter().map(|address| format!("{address}\n")).collect();
        Some((self.path.clone()?, text))
    }
}

fn report(written: io::Result<()>) {
    if let Err(error) = written {
        debug!(%error, "addresses of members not remembered");
    }
}

/// Whole or not at all: a crash leaves the old file.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_one_run_wrote_the_next_one_reads() {
        let dir = tempfile::tempdir().unwrap();
        let met: Vec<SocketAddr> = vec!["10.0.0.1:5235".parse().unwrap(), "[fd00::1]:5235".parse().unwrap()];
        let mut peers = Peers::open(Some(dir.path().to_owned()));
        peers.remember(met.clone()).await;
        peers.remember(Vec::new()).await;
        assert_eq!(Peers::open(Some(dir.path().to_owned())).addresses(), met);
    }
}
