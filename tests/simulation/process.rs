//! A node's process: the machine, and whether it runs, stands still, or is no more.

use std::time::Instant;

use isle_mesh::identity::Identity;
use isle_mesh::member::{Address, Epoch, MemberId};
use isle_mesh::membership::{Interface, Membership, Settings, Source};
use isle_mesh::verify::{Verified, Word};
use isle_mesh::wire::MeshTag;

use crate::invariants::Witness;
use crate::network::{PRIVATE, ip_of};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Running,
    /// Stands still until then; its sockets fill up meanwhile.
    Stalled(Instant),
    /// Gone without a word.
    Crashed,
    /// Gone after its farewell.
    Left,
    /// Says its farewell.
    Leaving,
}

pub struct Process {
    pub machine: Membership,
    pub state: State,
    /// Which key it has, to start with it again.
    pub key: u64,
    pub id: MemberId,
    pub epoch: Epoch,
    pub started: Instant,
    pub complete: bool,
    pub witness: Witness,
    /// When it is next to be woken, as noted in the world's agenda.
    pub wake: Option<Instant>,
    pub inbox: Vec<(Source, Verified<Word>)>,
}

impl Process {
    pub fn start(number: usize, key: u64, epoch: Epoch, seed: u64, now: Instant) -> Self {
        let mut identity = Identity::for_test(key);
        if epoch > Epoch(1) {
            identity.raise_epoch_above(Epoch(epoch.0 - 1)).expect("kept nowhere, so nothing can fail");
        }
        let id = identity.id();
        let settings = Settings {
            tag: MeshTag::of("isle"),
            island: None,
            name: format!("n{number}"),
            roles: vec!["pieces".to_owned()],
            tags: Vec::new(),
            http_port: 1233,
            unicast_port: PRIVATE,
            advertise: Vec::new(),
            catalogue: None,
            version: "0".to_owned(),
        };
        let mut machine = Membership::new(settings, identity, seed, now);
        let addresses = vec![Address { ip: ip_of(number), prefix: 8 }];
        machine.set_interfaces(
            now,
            vec![Interface { index: 2, name: "eth0".into(), addresses, loopback: false }],
        );
        machine.start(now);
        Self {
            machine,
            state: State::Running,
            key,
            id,
            epoch,
            started: now,
            complete: false,
            witness: Witness::default(),
            wake: None,
            inbox: Vec::new(),
        }
    }

    /// Whether it is a member now, as far as it can know.
    pub fn lives(&self) -> bool {
        matches!(self.state, State::Running | State::Stalled(_))
    }
}
