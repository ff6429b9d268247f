//! The island of a demonstration: two intermediaries and three piece servers, on loopback alone.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use crate::cli::demo::child::{ChildError, Common, Node};
use crate::figures::figure::Figure;
use crate::figures::{Shelf, split};

/// The intermediaries.
pub const HUBS: [&str; 2] = ["hub-1", "hub-2"];
/// The piece servers.
pub const PIECES: [&str; 3] = ["ann", "bob", "cat"];
/// The figure in three shares, one at each piece server: the one with the most pieces.
pub const SPLIT: &str = "unicorn";

/// A folder that goes when this is dropped, unless it is kept.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    kept: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The nodes, in the order of [`HUBS`] and [`PIECES`]. Dropped, all are killed.
#[derive(Debug)]
pub struct Island {
    nodes: Vec<Node>,
    common: Common,
    /// All figures, whole.
    figures: Vec<Figure>,
    folder: Folder,
}

/// Why there is no island.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IslandError {
    /// The system gives no folder or no port.
    #[error("no room for a demonstration")]
    System(#[from] io::Error),
    /// A node does not run.
    #[error(transparent)]
    Child(#[from] ChildError),
}

impl Island {
    /// Writes the figures' files and starts all nodes at once. Blocks on the disk for a moment.
    ///
    /// # Errors
    /// See [`IslandError`]; nothing is left behind.
    pub fn start() -> Result<Self, IslandError> {
        let number: u32 = rand::random();
        let mesh = format!("demo-{number:08x}");
        let path = std::env::temp_dir().join(format!("isle-{mesh}"));
        fs::create_dir(&path)?;
        let folder = Folder { path: path.clone(), kept: false };
        let discovery_port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        let common = Common { mesh, discovery_port, folder: path };
        let figures = figures();
        write(&folder.path, &figures)?;
        let mut island = Self { nodes: Vec::new(), common, figures, folder };
        for name in HUBS.into_iter().chain(PIECES) {
            let node = island.spawn(name)?;
            island.nodes.push(node);
        }
        Ok(island)
    }

    fn spawn(&self, name: &str) -> Result<Node, ChildError> {
        if HUBS.contains(&name) {
            return Node::start(&self.common, "intermediary", name, None);
        }
        Node::start(&self.common, "pieces", name, Some(&self.folder.path.join(name)))
    }

    /// Waits until all are ready.
    ///
    /// # Errors
    /// See [`ChildError`].
    pub async fn ready(&mut self) -> Result<(), ChildError> {
        for node in &mut self.nodes {
            node.ready().await?;
        }
        Ok(())
    }

    /// The nodes that have not been taken.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The nodes, to change.
    pub fn nodes_mut(&mut self) -> &mut Vec<Node> {
        &mut self.nodes
    }

    /// A node by its name.
    ///
    /// # Panics
    /// If it was taken.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name() == name).expect("nodes are asked for until they are taken")
    }

    /// Takes a node out, to see it end.
    ///
    /// # Panics
    /// If it was taken.
    pub fn take(&mut self, name: &str) -> Node {
        let at = self.nodes.iter().position(|node| node.name() == name);
        self.nodes.remove(at.expect("nodes are taken once"))
    }

    /// Starts one anew that was taken, and waits until it is ready.
    ///
    /// # Errors
    /// See [`ChildError`].
    pub async fn restart(&mut self, name: &str) -> Result<(), ChildError> {
        let mut node = self.spawn(name)?;
        node.ready().await?;
        self.nodes.push(node);
        Ok(())
    }

    /// All figures, whole, the split one too.
    #[must_use]
    pub fn figures(&self) -> &[Figure] {
        &self.figures
    }

    /// Leaves the logs where they are, and says where.
    pub fn keep_logs(&mut self) -> &Path {
        self.folder.kept = true;
        &self.folder.path
    }
}

fn figures() -> Vec<Figure> {
    let shelf = Shelf::builtin();
    let entries = shelf.catalogue().entries().iter();
    entries
        .filter_map(|entry| shelf.get(&entry.name, entry.share))
        .map(|(entry, body)| entry.check(body).expect("a shelf's bodies are those of its catalogue"))
        .collect()
}

/// A folder for each piece server: each figure at two of them, and one share of the split one at each.
fn write(folder: &Path, figures: &[Figure]) -> io::Result<()> {
    for name in PIECES {
        fs::create_dir(folder.join(name))?;
    }
    let at = |holder: usize, figure: &Figure| {
        let file = folder.join(PIECES[holder % PIECES.len()]).join(format!("{}.json", figure.name()));
        fs::write(file, figure.body())
    };
    for (index, figure) in figures.iter().enumerate() {
        if figure.name().as_str() == SPLIT {
            let shares = split(figure, 3).map_err(io::Error::other)?;
            shares.iter().enumerate().try_for_each(|(holder, share)| at(holder, share))?;
        } else {
            at(index, figure)?;
            at(index + 1, figure)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_any_one_piece_server_only_the_split_figure_is_incomplete() {
        let folder = tempfile::tempdir().unwrap();
        let all = figures();
        assert!(all.iter().any(|figure| figure.name().as_str() == SPLIT));
        write(folder.path(), &all).unwrap();
        for figure in &all {
            let file = format!("{}.json", figure.name());
            let holders = PIECES.iter().filter(|name| folder.path().join(name).join(&file).exists()).count();
            assert_eq!(holders, if figure.name().as_str() == SPLIT { 3 } else { 2 }, "{file}");
        }
    }
}
