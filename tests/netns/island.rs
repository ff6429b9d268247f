//! One wire with nodes on it, each in a host of its own, and a host for clients: what most scenarios start from.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::events::EventLog;
use crate::neighbours;
use crate::network::{Host, Wire};
use crate::node::{self, Node};
use crate::runner::Run;

/// Longest wait for tables to be complete and alike: nothing here is about its speed.
pub(crate) const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// Nodes on one wire.
#[derive(Debug)]
pub(crate) struct Island {
    /// The wire.
    pub(crate) wire: Wire,
    /// A host without node, at 10.77.0.2: clients and strangers.
    pub(crate) client: Host,
    /// The nodes in the order given.
    pub(crate) nodes: Vec<Node>,
    folder: PathBuf,
    hosts: u8,
}

impl Island {
    /// Starts all nodes at once, each as (name, arguments), and waits until all list all alike.
    pub(crate) fn start(run: &Run, nodes: &[(&str, &[&str])]) -> Result<Self> {
        let mut island = Self::empty(run)?;
        let hosts = nodes.iter().map(|(name, _)| island.host(name)).collect::<Result<Vec<_>>>()?;
        neighbours::acquaint_many(&hosts.iter().chain([&island.client]).collect::<Vec<_>>())?;
        for (host, (_, arguments)) in hosts.iter().zip(nodes) {
            let node = Node::spawn(host, &island.folder, arguments)?;
            island.nodes.push(node);
        }
        for node in &mut island.nodes {
            node.ready()?;
        }
        island.agree()?;
        Ok(island)
    }

    /// A wire and a host for clients.
    pub(crate) fn empty(run: &Run) -> Result<Self> {
        let wire = Wire::new()?;
        let client = wire.host("client", "10.77.0.2/24")?;
        Ok(Self { wire, client, nodes: Vec::new(), folder: run.folder.path().to_owned(), hosts: 0 })
    }

    /// Another host on the wire: 10.77.0.10, .11, ...
    pub(crate) fn host(&mut self, label: &str) -> Result<Host> {
        let address = format!("10.77.0.{}/24", 10 + self.hosts);
        self.hosts += 1;
        self.wire.host(label, &address)
    }

    /// Starts one more node in a host and waits until it is ready; the caller keeps it.
    pub(crate) fn join(&self, host: &Host, arguments: &[&str]) -> Result<Node> {
        Node::start(host, &self.folder, arguments)
    }

    /// Waits until every node lists every node, alive and alike.
    pub(crate) fn agree(&self) -> Result<Duration> {
        let nodes: Vec<&Node> = self.nodes.iter().collect();
        node::agree(&nodes, nodes.len(), SETTLED_WITHIN)
    }

    /// The same where some that were there before are still listed as gone: only the living count.
    pub(crate) fn agree_alive(&self, alive: usize) -> Result<Duration> {
        let nodes: Vec<&Node> = self.nodes.iter().collect();
        node::agree_on_living(&nodes, alive, SETTLED_WITHIN)
    }

    /// The node of this name.
    pub(crate) fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name() == name).with_context(|| format!("no node {name}"))
    }

    /// Takes the node of this name out of the island's list, still running.
    pub(crate) fn take(&mut self, name: &str) -> Result<Node> {
        let at = self.nodes.iter().position(|node| node.name() == name);
        Ok(self.nodes.remove(at.with_context(|| format!("no node {name}"))?))
    }

    /// Follows the events of every node; returns when all snapshots are there.
    pub(crate) fn events(&self) -> Result<Vec<EventLog>> {
        let logs: Vec<EventLog> = self.nodes.iter().map(Node::events).collect();
        for log in &logs {
            log.started()?;
        }
        Ok(logs)
    }
}
