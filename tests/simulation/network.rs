//! A broadcast domain that loses, doubles, delays and so reorders datagrams, and can be cut between any two nodes
//! in one direction.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isle_mesh::verify::{Scheme, Verified, Word, verify_as};
use isle_mesh::wire::MeshTag;
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::invariants::{Evidence, Words};

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

/// A word as all who hear it share it.
pub type Heard = Arc<Verified<Word>>;

/// What the wire does to datagrams.
pub struct Network {
    /// Share of deliveries that are lost, and that come twice.
    pub loss: f64,
    pub duplication: f64,
    /// Mean length of the bursts in which one path loses what is said to one node; none: each delivery by itself.
    pub burst: Option<Duration>,
    /// The same, but in a burst the node hears nothing of anybody, nor what is said to all.
    pub deafness: Option<Duration>,
    /// Each delivery takes between these.
    pub delay: (Duration, Duration),
    /// (from, to): nothing gets through that way.
    pub cuts: BTreeSet<(usize, usize)>,
    /// Two halves, even and odd, that do not hear each other.
    pub halved: bool,
    paths: HashMap<(usize, usize), Path>,
    ears: Vec<Path>,
    latest: Option<(Bytes, Heard)>,
    /// By where their bytes are, which are kept with them.
    verified: HashMap<usize, Heard, BuildHasherDefault<Words>>,
    scheme: Scheme,
    pub evidence: Evidence,
    /// A sample of all words ever said, to be said again.
    pub recorded: Vec<Bytes>,
    /// The first words of each kind.
    kinds: [Vec<Bytes>; KINDS],
}

/// One way from one node to another: good or bad, until then (Gilbert and Elliott, with all lost while bad).
#[derive(Clone, Copy)]
struct Path {
    bad: bool,
    until: Instant,
}

impl Path {
    /// Whether it is bad now, if it is so for `mean` at a time and for a share of `loss` in all.
    fn is_bad(&mut self, random: &mut SmallRng, now: Instant, mean: Duration, loss: f64) -> bool {
        let good = mean.mul_f64((1.0 - loss) / loss);
        while self.until <= now {
            self.bad = !self.bad;
            let mean = if self.bad { mean } else { good };
            // Exponential: a state does not remember how long it has lasted.
            self.until += mean.mul_f64(-random.random_range(f64::MIN_POSITIVE..1.0_f64).ln());
        }
        self.bad
    }
}

const RECORDED_MAX: usize = 5_000;
/// Numbers of kinds are below this, and so many words of one are kept.
const KINDS: usize = 14;
const OF_KIND_MAX: usize = 200;
/// A word for all arrives at so many different times: one for each receiver would cost more than it tells.
pub const MOMENTS: usize = 4;

impl Network {
    pub fn new(scheme: Scheme) -> Self {
        let delay = (Duration::ZERO, Duration::from_millis(1));
        Self {
            loss: 0.0,
            duplication: 0.0,
            burst: None,
            deafness: None,
            delay,
            cuts: BTreeSet::new(),
            halved: false,
            paths: HashMap::new(),
            ears: Vec::new(),
            latest: None,
            verified: HashMap::default(),
            scheme,
            evidence: Evidence::default(),
            recorded: Vec::new(),
            kinds: [const { Vec::new() }; KINDS],
        }
    }

    /// Whether nothing gets through from one to the other.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.halved && from % 2 != to % 2 || !self.cuts.is_empty() && self.cuts.contains(&(from, to))
    }

    /// How long a delivery takes, by lot.
    pub fn takes(&self, random: &mut SmallRng) -> Duration {
        let (least, most) = self.delay;
        least + (most - least).mul_f64(random.random_range(0.0..1.0))
    }

    /// After which times one delivery to one node arrives: none if it is lost, two if it is doubled.
    pub fn arrivals(
        &mut self,
        random: &mut SmallRng,
        now: Instant,
        from: usize,
        to: usize,
    ) -> impl Iterator<Item = Duration> + use<> {
        let mut times = [None, None];
        if !self.is_cut(from, to) && !self.is_lost(random, now, from, to) {
            times[0] = Some(self.takes(random));
            if self.duplication > 0.0 {
                let again = self.takes(random);
                times[1] = random.random_bool(self.duplication).then_some(again);
            }
        }
        times.into_iter().flatten()
    }

    fn is_lost(&mut self, random: &mut SmallRng, now: Instant, from: usize, to: usize) -> bool {
        if let Some(mean) = self.deafness {
            return self.is_deaf(random, now, to, mean);
        }
        let Some(mean) = self.burst else { return random.random_bool(self.loss) };
        let path = self.paths.entry((from, to)).or_insert(Path { bad: true, until: now });
        path.is_bad(random, now, mean, self.loss)
    }

    fn is_deaf(&mut self, random: &mut SmallRng, now: Instant, node: usize, mean: Duration) -> bool {
        if node >= self.ears.len() {
            self.ears.resize(node + 1, Path { bad: true, until: now });
        }
        self.ears[node].is_bad(random, now, mean, self.loss)
    }

    /// Whether a word for all that arrives now is lost on its way to one node; `lots`: of that word.
    pub fn misses(&mut self, random: &mut SmallRng, now: Instant, lots: u64, from: usize, to: usize) -> bool {
        if let Some(mean) = self.deafness {
            return self.is_deaf(random, now, to, mean) || self.is_cut(from, to);
        }
        // SplitMix64 (Steele, Lea and Flood, 2014): a lot for each receiver without a generator's state.
        let mut lot = lots.wrapping_add((to as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        lot = (lot ^ (lot >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        lot = (lot ^ (lot >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((lot >> 40) as f64) < self.loss * f64::from(1 << 24) || self.is_cut(from, to)
    }

    /// Who of `0..nodes` receives a word that `from` says to all, by the times it arrives. Bursts of one path are
    /// not modelled here: each receiver loses it by itself.
    pub fn spread(
        &mut self,
        random: &mut SmallRng,
        now: Instant,
        from: usize,
        nodes: usize,
    ) -> [(Duration, Vec<u32>); MOMENTS] {
        let mut moments: [(Duration, Vec<u32>); MOMENTS] =
            std::array::from_fn(|_| (self.takes(random), Vec::with_capacity(nodes / MOMENTS + 8)));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares are below 1")]
        let below = |share: f64| (share * f64::from(1 << 24)) as u32;
        let (lost, doubled) = (below(self.loss), below(self.duplication));
        for to in (0..nodes).filter(|to| *to != from) {
            let dice: u64 = random.random();
            let [first, second] = [dice as u32 & 0xff_ffff, (dice >> 24) as u32 & 0xff_ffff];
            let is_lost = match self.deafness {
                Some(mean) => self.is_deaf(random, now, to, mean),
                None => first < lost,
            };
            if is_lost || self.is_cut(from, to) {
                continue;
            }
            let moment = (dice >> 60) as usize % MOMENTS;
            let number = u32::try_from(to).expect("a few thousand nodes");
            moments[moment].1.push(number);
            if second < doubled {
                moments[(moment + 1) % MOMENTS].1.push(number);
            }
        }
        moments
    }

    /// The word in these bytes. It is decoded and checked once, however many hear it.
    pub fn word(&mut self, bytes: &Bytes) -> Heard {
        if let Some((_, word)) = self.latest.as_ref().filter(|(latest, _)| latest.as_ptr() == bytes.as_ptr())
        {
            return word.clone();
        }
        let word =
            verify_as(self.scheme, MeshTag::of("isle"), bytes.clone()).expect("nodes sign what they say");
        let word = Arc::new(word);
        self.evidence.hear(&word);
        self.latest = Some((bytes.clone(), word.clone()));
        word
    }

    /// The same for words that are met again, as those of tables are.
    pub fn kept_word(&mut self, bytes: &Bytes) -> &Heard {
        let place = bytes.as_ptr().addr();
        if self.verified.get(&place).is_none_or(|word| word.bytes.len() != bytes.len()) {
            let word = self.word(bytes);
            if self.verified.len() > 50_000 {
                self.verified.clear();
            }
            self.verified.insert(place, word);
        }
        &self.verified[&place]
    }

    /// Keeps a sample of what was said.
    pub fn record(&mut self, random: &mut SmallRng, bytes: &Bytes) {
        if self.recorded.len() < RECORDED_MAX {
            self.recorded.push(bytes.clone());
        } else if random.random_ratio(1, 20) {
            let place = random.random_range(0..RECORDED_MAX);
            self.recorded[place] = bytes.clone();
        }
        let Some(said) = self.kinds.get_mut(usize::from(bytes[3])) else { return };
        if said.len() < OF_KIND_MAX {
            said.push(bytes.clone());
        }
    }

    /// Words of one kind that were said.
    pub fn of_kind(&self, kind: u8) -> &[Bytes] {
        &self.kinds[usize::from(kind)]
    }
}
