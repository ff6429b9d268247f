//! A node's process: the machine, and whether it runs, stands still, or is no more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use isle_mesh::event::Event;
use isle_mesh::identity::Identity;
use isle_mesh::member::{Address, Epoch, MemberId, Seq};
use isle_mesh::membership::{Interface, Membership, Settings, Source};
use isle_mesh::verify::Scheme;
use isle_mesh::wire::{Header, MeshTag, kind};

use crate::ears::Ears;
use crate::invariants::Witness;
use crate::measures::Traffic;
use crate::murmur::Letter;
use crate::network::{Heard, PRIVATE, ip_of};

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

/// What an island is among others.
#[derive(Default)]
pub struct Site {
    /// Its name; none where it is alone.
    pub island: Option<String>,
    /// Its bridges, by number, and the keys that they link with.
    pub bridges: BTreeMap<usize, BTreeSet<MemberId>>,
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
    pub inbox: Vec<(Source, Heard)>,
    /// The number of its newest record, and when it first said that.
    pub recorded: (Seq, Instant),
    /// The number of its newest record or pulse.
    pub last: Seq,
    /// Number of the murmur that it is to hear next.
    pub heard: u64,
    pub ears: Ears,
    /// Beacons to it alone that wait until it listens, in order.
    pub letters: VecDeque<Letter>,
    /// Since when it runs without standing still: it got to nothing before.
    pub resumed: Instant,
    /// Stands still now and then.
    pub stalls: bool,
    /// From when to when it last stood still.
    pub stood_still: Option<(Instant, Instant)>,
    pub traffic: Traffic,
    /// What it told of other islands and of their members, until somebody looks.
    pub beyond: Vec<Event>,
}

/// Nobody's silence limit is shorter: whoever stood still for less never was silent for it, with a beacon's time to spare.
const NEVER_SILENT: Duration = Duration::from_millis(450);
/// A process that stood still may say so for a while after.
const AFTERMATH: Duration = Duration::from_secs(2);

impl Process {
    pub fn start(
        number: usize,
        key: u64,
        epoch: Epoch,
        seed: u64,
        now: Instant,
        scheme: Scheme,
        site: &Site,
    ) -> Self {
        let mut identity = match scheme {
            Scheme::Ed25519 => Identity::for_test(key),
            Scheme::StandIn => Identity::stand_in(key),
        };
        if epoch > Epoch(1) {
            identity.raise_epoch_above(Epoch(epoch.0 - 1)).expect("kept nowhere, so nothing can fail");
        }
        let id = identity.id();
        let links = site.bridges.get(&number);
        let settings = Settings {
            tag: MeshTag::of("isle"),
            island: site.island.clone(),
            name: format!("n{number}"),
            roles: vec![if links.is_some() { "bridge" } else { "pieces" }.to_owned()],
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
        if let Some(keys) = links {
            machine.set_foreign(now, keys.clone());
            machine.tell_outward();
        }
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
            recorded: (Seq(0), now),
            last: Seq(0),
            heard: 0,
            ears: Ears::default(),
            letters: VecDeque::new(),
            resumed: now,
            stalls: false,
            stood_still: None,
            traffic: Traffic::default(),
            beyond: Vec::new(),
        }
    }

    /// It says a word: notes what others last know of it. Words of others, which it hands on, are none of its own.
    pub fn says(&mut self, now: Instant, header: &Header) {
        if header.author != self.id || header.stamp.epoch != self.epoch {
            return;
        }
        let seq = header.stamp.seq;
        match header.kind {
            kind::ANNOUNCE if seq > self.recorded.0 => self.recorded = (seq, now),
            kind::BEACON | kind::PONG => {}
            _ => return,
        }
        self.last = self.last.max(seq);
    }

    /// A word comes to its sockets.
    pub fn receives(&mut self, source: Source, word: &Heard) {
        self.traffic.received(word.header.kind, source.shared, word.bytes.len());
    }

    /// It tells of another island, or of a member of one.
    pub fn hear_beyond(&mut self, event: Event) {
        self.witness.count(&event);
        self.beyond.push(event);
    }

    /// Whether it stands or stood still for so long that others may rightly have heard nothing of it.
    pub fn stood_still_lately(&self, now: Instant) -> bool {
        self.stood_still.is_some_and(|(from, to)| to - from > NEVER_SILENT && now < to + AFTERMATH)
    }

    /// Replaying what it told gives the table that it has.
    pub fn replays(&self) {
        let members = self.machine.members().map(|member| (&member.id, member.standing));
        self.witness.agrees_with(self.id, members);
    }

    /// Whether it is a member now, as far as it can know.
    pub fn lives(&self) -> bool {
        matches!(self.state, State::Running | State::Stalled(_))
    }
}
