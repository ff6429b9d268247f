//! Several islands with overlapping networks, joined by bridges over a [`Sea`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::island::Island;
use crate::network::Host;
use crate::node::{self, Node};
use crate::runner::Run;
use crate::sea::{QUIC_PORT, Sea};

/// Every island calls its own network this.
const INSIDE: &str = "eth0";

/// Islands, by name.
#[derive(Debug)]
pub(crate) struct Archipelago {
    /// The islands; each has the wire, the hosts and the nodes that are no bridges.
    pub(crate) islands: BTreeMap<&'static str, Island>,
    /// Bridges, by label.
    pub(crate) bridges: BTreeMap<String, Bridge>,
    /// Between them.
    pub(crate) sea: Sea,
    folder: PathBuf,
}

/// A bridge that runs, or will.
#[derive(Debug)]
pub(crate) struct Bridge {
    /// Its process, once started.
    pub(crate) node: Option<Node>,
    /// Its host.
    pub(crate) host: Host,
    /// Its island.
    pub(crate) island: &'static str,
    /// Its key.
    pub(crate) key: String,
    /// Its address on the sea.
    pub(crate) address: std::net::Ipv4Addr,
    state: String,
}

impl Archipelago {
    /// Islands of these names, without any node.
    pub(crate) fn new(run: &Run, islands: &[&'static str]) -> Result<Self> {
        let of = |name: &&'static str| Ok((*name, Island::empty(run)?));
        Ok(Self {
            islands: islands.iter().map(of).collect::<Result<_>>()?,
            bridges: BTreeMap::new(),
            sea: Sea::new()?,
            folder: run.folder.path().to_owned(),
        })
    }

    /// One island.
    pub(crate) fn island(&mut self, name: &str) -> Result<&mut Island> {
        self.islands.get_mut(name).with_context(|| format!("no island {name}"))
    }

    /// Starts a node of that island in a host of its own, ready when this returns.
    pub(crate) fn node(&mut self, island: &'static str, label: &str, arguments: &[&str]) -> Result<()> {
        let there = self.island(island)?;
        let host = there.host(label)?;
        let node = there.join(&host, &[arguments, &["--island", island]].concat())?;
        there.nodes.push(node);
        Ok(())
    }

    /// A host for a bridge of that island, with its key; it does not run yet.
    pub(crate) fn bridge(&mut self, island: &'static str, label: &str) -> Result<()> {
        let host = self.island(island)?.host(label)?;
        let address = self.sea.plug(&host)?;
        let state = format!("{label}.state");
        let said = node::command(&host, &self.folder, &["key", "--state-dir", &state])?;
        ensure!(said.status.success(), "isle key: {}", String::from_utf8_lossy(&said.stderr));
        let key = String::from_utf8(said.stdout)?.trim().to_owned();
        let bridge = Bridge { node: None, host, island, key, address, state };
        self.bridges.insert(label.to_owned(), bridge);
        Ok(())
    }

    /// A bridge on north and one on south, the first with a link to the second.
    pub(crate) fn join(&mut self) -> Result<()> {
        self.bridge("north", "n-bridge")?;
        self.bridge("south", "s-bridge")?;
        let (north, south) = (self.bridges["n-bridge"].key.clone(), self.bridges["s-bridge"].key.clone());
        let at = SocketAddr::from((self.bridges["s-bridge"].address, QUIC_PORT));
        self.start("s-bridge", &allow(&north))?;
        self.start("n-bridge", &link(&south, at))
    }

    /// Starts a bridge with these `--link` and `--allow`.
    pub(crate) fn start(&mut self, label: &str, arguments: &[String]) -> Result<()> {
        let island = self.bridges.get(label).with_context(|| format!("no bridge {label}"))?.island;
        self.start_unnamed(label, &[&["--island".to_owned(), island.to_owned()], arguments].concat())
    }

    /// The same for a bridge that is not told what its island is called.
    pub(crate) fn start_unnamed(&mut self, label: &str, arguments: &[String]) -> Result<()> {
        let bridge = self.bridges.get_mut(label).with_context(|| format!("no bridge {label}"))?;
        let mut all = vec!["bridge", "--interface", INSIDE, "--state-dir", &bridge.state];
        all.extend(arguments.iter().map(String::as_str));
        bridge.node = Some(Node::start(&bridge.host, &self.folder, &all)?);
        Ok(())
    }

    /// Has the bridge of that label do something, as its host's user would; what it prints.
    pub(crate) fn tell(&self, label: &str, arguments: &[&str]) -> Result<String> {
        let bridge = self.bridges.get(label).with_context(|| format!("no bridge {label}"))?;
        let all = [arguments, &["--state-dir", &bridge.state]].concat();
        let said = node::command(&bridge.host, &self.folder, &all)?;
        ensure!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
        Ok(String::from_utf8(said.stdout)?.trim().to_owned())
    }

    /// The bridge of that label, which runs.
    pub(crate) fn running(&self, label: &str) -> Result<&Node> {
        let bridge = self.bridges.get(label).with_context(|| format!("no bridge {label}"))?;
        bridge.node.as_ref().with_context(|| format!("{label} does not run"))
    }

    /// Whatever runs, on every island.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        let others = self.islands.values().flat_map(|island| &island.nodes);
        others.chain(self.bridges.values().filter_map(|bridge| bridge.node.as_ref()))
    }

    /// Waits until every node lists so many members as alive, itself included; the time of the last.
    pub(crate) fn complete(&self, members: usize, within: Duration) -> Result<Duration> {
        let began = Instant::now();
        for node in self.nodes() {
            loop {
                let page = node.ask("/members")?;
                let listed = page["members"].as_array().context("/members without members")?;
                let alive = listed.iter().filter(|member| member["standing"] == "alive").count();
                if alive == members {
                    break;
                }
                if began.elapsed() > within {
                    let names: Vec<String> = listed
                        .iter()
                        .map(|member| format!("{} {}", member["name"], member["standing"]))
                        .collect();
                    bail!(
                        "{} lists {alive} of {members} after {within:?}: {}",
                        node.name(),
                        names.join(", ")
                    );
                }
            }
        }
        Ok(began.elapsed())
    }
}

/// `--link` for a bridge at this place.
pub(crate) fn link(key: &str, at: impl std::fmt::Display) -> [String; 2] {
    ["--link".to_owned(), format!("{key}@{at}")]
}

/// `--allow` for a key.
pub(crate) fn allow(key: &str) -> [String; 2] {
    ["--allow".to_owned(), key.to_owned()]
}
