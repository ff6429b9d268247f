//! A broadcast domain that loses, doubles, delays and so reorders datagrams, and can be cut between any two nodes
//! in one direction.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use isle_mesh::verify::{Verified, Word, verify};
use isle_mesh::wire::MeshTag;
use rand::RngExt;
use rand::rngs::SmallRng;

/// Port of every node's private socket, and of the shared one.
pub const PRIVATE: u16 = 40_000;
pub const SHARED: u16 = 5235;

/// The address of a node, by its number.
pub fn ip_of(node: usize) -> IpAddr {
    let number = u32::try_from(node).expect("a few thousand nodes") + 1;
    (0x0a00_0000 + number).to_be_bytes().into()
}

/// The node that has this address.
pub fn node_at(ip: IpAddr) -> Option<usize> {
    let IpAddr::V4(v4) = ip else { return None };
    usize::try_from(v4.to_bits().checked_sub(0x0a00_0001)?).ok()
}

pub fn private_of(node: usize) -> SocketAddr {
    SocketAddr::new(ip_of(node), PRIVATE)
}

/// What the wire does to datagrams.
pub struct Network {
    /// Share of deliveries that are lost, and that come twice.
    pub loss: f64,
    pub duplication: f64,
    /// Each delivery takes between these.
    pub delay: (Duration, Duration),
    /// (from, to): nothing gets through that way.
    pub cuts: BTreeSet<(usize, usize)>,
    verified: HashMap<Bytes, Verified<Word>>,
    /// A sample of all words ever said, to be said again.
    pub recorded: Vec<Bytes>,
}

const RECORDED_MAX: usize = 5_000;

impl Network {
    pub fn new() -> Self {
        let delay = (Duration::ZERO, Duration::from_millis(1));
        Self {
            loss: 0.0,
            duplication: 0.0,
            delay,
            cuts: BTreeSet::new(),
            verified: HashMap::new(),
            recorded: Vec::new(),
        }
    }

    /// After which times one delivery arrives: none if it is lost, two if it is doubled.
    pub fn arrivals(&self, random: &mut SmallRng, from: usize, to: usize) -> impl Iterator<Item = Duration> {
        let mut times = [None, None];
        if !self.cuts.contains(&(from, to)) && !random.random_bool(self.loss) {
            let (least, most) = self.delay;
            let mut takes = || least + (most - least).mul_f64(random.random_range(0.0..1.0));
            times[0] = Some(takes());
            if self.duplication > 0.0 {
                let again = takes();
                times[1] = random.random_bool(self.duplication).then_some(again);
            }
        }
        times.into_iter().flatten()
    }

    /// The word in these bytes. Its signature is checked once, however many hear it.
    pub fn word(&mut self, bytes: &Bytes) -> Verified<Word> {
        if let Some(word) = self.verified.get(bytes) {
            return word.clone();
        }
        let word = verify(MeshTag::of("isle"), bytes.clone()).expect("nodes sign what they say");
        if self.verified.len() > 50_000 {
            self.verified.clear();
        }
        self.verified.insert(bytes.clone(), word.clone());
        word
    }

    /// Keeps a sample of what was said.
    pub fn record(&mut self, random: &mut SmallRng, bytes: &Bytes) {
        if self.recorded.len() < RECORDED_MAX {
            self.recorded.push(bytes.clone());
        } else if random.random_bool(0.05) {
            let place = random.random_range(0..RECORDED_MAX);
            self.recorded[place] = bytes.clone();
        }
    }
}
