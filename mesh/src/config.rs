//! How a node takes part in a mesh. The default works on an unknown LAN.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::member::{CatalogueSummary, MemberId};
use crate::outward::Outward;

/// UDP port of discovery. Chosen with the service's TCP port 5235, so that people remember one number.
pub const DISCOVERY_PORT: u16 = 5235;

/// Settings of [`Mesh::join`](crate::mesh::Mesh::join).
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Label of this node, shown to people. 1 to 63 bytes of visible characters.
    pub name: String,
    /// Which mesh: nodes of others do not exist for us.
    pub mesh: String,
    /// Island name, if one is given. Else a name that is heard is taken over; a node with the role `bridge` gives one made
    /// from its key meanwhile.
    pub island: Option<String>,
    /// What this node does: see [`Record::roles`](crate::member::Record::roles).
    pub roles: Vec<String>,
    /// Labels of the application: at most 16, 512 bytes in all.
    pub tags: Vec<(String, String)>,
    /// Version of the software.
    pub version: String,
    /// TCP port where `GET /mesh/records` and `/mesh/proof` are answered; 0: nowhere (then others
    /// cannot fetch the table here).
    pub http_port: u16,
    /// Addresses to announce instead of those of the interfaces.
    pub advertise: Vec<IpAddr>,
    /// What this node offers.
    pub catalogue: Option<CatalogueSummary>,
    /// UDP port shared by all nodes; one may choose another to be alone.
    pub discovery_port: u16,
    /// Names of the interfaces to use; empty: all that are up.
    pub interfaces: Vec<String>,
    /// `HOST` or `HOST:PORT` to greet besides what broadcast reaches; resolved again every 30 s.
    pub seeds: Vec<String>,
    /// Where the addresses of members are remembered for the next start.
    pub state_dir: Option<PathBuf>,
    /// On a bridge: who takes what advances the table, for the links to other islands.
    pub outward: Option<Arc<dyn Outward>>,
    /// Keys of links: see [`Mesh::set_foreign`](crate::mesh::Mesh::set_foreign).
    pub foreign: BTreeSet<MemberId>,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            name: "node".to_owned(),
            mesh: "isle".to_owned(),
            island: None,
            roles: Vec::new(),
            tags: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            http_port: 0,
            advertise: Vec::new(),
            catalogue: None,
            discovery_port: DISCOVERY_PORT,
            interfaces: Vec::new(),
            seeds: Vec::new(),
            state_dir: None,
            outward: None,
            foreign: BTreeSet::new(),
        }
    }
}
