//! The islands of a demonstration, on loopback alone: the north with two intermediaries and three piece servers, the south
//! with one of each, and a bridge on either.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use isle_mesh::identity::{Identity, IdentityError};
use isle_mesh::member::MemberId;
use isle_mesh::reserved::ReservedPort;

use crate::cli::demo::child::{ChildError, Common, Node};
use crate::figures::figure::Figure;
use crate::figures::{Shelf, split};

/// The islands.
pub const ISLANDS: [&str; 2] = ["north", "south"];
/// The intermediaries of the north.
pub const HUBS: [&str; 2] = ["hub-1", "hub-2"];
/// The piece servers of the north.
pub const PIECES: [&str; 3] = ["ann", "bob", "cat"];
/// The intermediary of the south.
pub const SOUTH_HUB: &str = "hub-s";
/// The piece server of the south.
pub const SOUTH_PIECES: &str = "dan";
/// The figure that only the south has.
pub const SOUTH_FIGURE: &str = "whitesheep";
/// The bridges, by island.
pub const BRIDGES: [&str; 2] = ["gate-n", "gate-s"];
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

/// The nodes: [`HUBS`], [`PIECES`], those of the south, [`BRIDGES`]. Dropped, all are killed.
#[derive(Debug)]
pub struct Island {
    nodes: Vec<Node>,
    common: Common,
    /// Keys of [`BRIDGES`].
    keys: [MemberId; 2],
    /// UDP port of the southern one.
    quic_port: u16,
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
    /// A bridge has no key.
    #[error(transparent)]
    Key(#[from] IdentityError),
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
        let discovery_port = ReservedPort::take()?;
        let common = Common { mesh, discovery_port, folder: path };
        let figures = figures();
        write(&folder.path, &figures)?;
        let key = |name: &str| {
            Ok::<_, IdentityError>(Identity::open(&folder.path.join(format!("{name}.state")))?.id())
        };
        let keys = [key(BRIDGES[0])?, key(BRIDGES[1])?];
        let quic_port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut island = Self { nodes: Vec::new(), common, keys, quic_port, figures, folder };
        for name in HUBS.into_iter().chain(PIECES).chain([SOUTH_HUB, SOUTH_PIECES]).chain(BRIDGES) {
            let node = island.spawn(name)?;
            island.nodes.push(node);
        }
        Ok(island)
    }

    fn spawn(&self, name: &str) -> Result<Node, ChildError> {
        let is_southern = [SOUTH_HUB, SOUTH_PIECES, BRIDGES[1]].contains(&name);
        let mut arguments: Vec<OsString> = vec!["--island".into(), ISLANDS[usize::from(is_southern)].into()];
        let mut add = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
        let role = role_of(name);
        match role {
            "pieces" => add("--figures", self.folder.path.join(name).into()),
            "bridge" => {
                add("--state-dir", self.folder.path.join(format!("{name}.state")).into());
                let ([north, south], port) = (self.keys, self.quic_port);
                if is_southern {
                    add("--quic", format!("127.0.0.1:{port}").into());
                    add("--allow", north.to_string().into());
                } else {
                    add("--quic", "127.0.0.1:0".into());
                    add("--link", format!("{south}@127.0.0.1:{port}").into());
                }
            }
            _ => {}
        }
        Node::start(&self.common, role, name, &arguments)
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

/// What a node of that name does.
#[must_use]
pub fn role_of(name: &str) -> &'static str {
    match name {
        _ if HUBS.contains(&name) || name == SOUTH_HUB => "intermediary",
        _ if BRIDGES.contains(&name) => "bridge",
        _ => "pieces",
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

/// A folder for each piece server: each figure at two of the north, one share of the split one at each, and one figure in
/// the south alone.
fn write(folder: &Path, figures: &[Figure]) -> io::Result<()> {
    for name in PIECES.into_iter().chain([SOUTH_PIECES]) {
        fs::create_dir(folder.join(name))?;
    }
    let at = |holder: usize, figure: &Figure| {
        let file = folder.join(PIECES[holder % PIECES.len()]).join(format!("{}.json", figure.name()));
        fs::write(file, figure.body())
    };
    for (index, figure) in figures.iter().enumerate() {
        if figure.name().as_str() == SOUTH_FIGURE {
            fs::write(folder.join(SOUTH_PIECES).join(format!("{SOUTH_FIGURE}.json")), figure.body())?;
        } else if figure.name().as_str() == SPLIT {
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
            let wanted = match figure.name().as_str() {
                SPLIT => 3,
                SOUTH_FIGURE => 0,
                _ => 2,
            };
            assert_eq!(holders, wanted, "{file}");
        }
    }
}
