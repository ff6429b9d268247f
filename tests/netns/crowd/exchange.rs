//! Carries words between the members of the crowd and the wire, and gives each its turn. One thread.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use bytes::Bytes;
use isle_mesh::member::{MemberId, Stamp};
use isle_mesh::membership::{Destination, Fetch, Interface, Membership, Source};
use isle_mesh::transfer::{self, Transfer, VerifiedTransfer};
use isle_mesh::verify::{Verified, Word, peek, verify};
use isle_mesh::wire::{Header, Hello, MeshTag, Message, SIGNATURE_BYTES, Suspect, kind};
use rand::RngExt;
use rand::seq::SliceRandom;

use super::sockets::{Paths, Port, Sockets};
use super::tables;
use super::voice::{Due, Island, Voice};
use super::{Cast, WATCHERS, settings};

/// Number of the crowd's interface, as its full members see it.
const INTERFACE: u32 = 2;
/// So many answer a HELLO at a time (NETWORK.md, "Who answers a HELLO").
const ANSWERS: usize = 3;
/// HELLOs remembered: each comes once by each path.
const HELLOS_MAX: usize = 256;
/// The table as others fetch it is made anew this often at most, unless it changed; as a node does.
const EXPORT_AGE_MAX: Duration = Duration::from_secs(1);

/// How often the members are counted.
const LOOK: Duration = Duration::from_millis(100);

/// What the crowd is told to do; each is answered by the moment it was done.
#[derive(Debug)]
pub(super) enum Order {
    NameRealWatchers(Vec<MemberId>, Sender<Instant>),
    FallSilent(MemberId, Sender<Instant>),
    End,
}

/// A member by its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Full(usize),
    Voice(usize),
}

/// A word on its way within the crowd.
enum Carried {
    /// To everybody, and by whom.
    All(Who, Bytes),
    /// From an address to an address of the crowd.
    One(SocketAddr, SocketAddr, Bytes),
}

pub(super) struct Exchange {
    tag: MeshTag,
    sockets: Sockets,
    /// One for each host.
    fulls: Vec<Membership>,
    voices: Vec<Voice>,
    members: HashMap<MemberId, Who>,
    due: BinaryHeap<Reverse<(Instant, usize, Due)>>,
    carried: VecDeque<Carried>,
    /// The word verified last: one to several watchers is verified once.
    verified: Option<Verified<Word>>,
    /// Of each author and kind what was last said to all.
    heard: HashMap<(MemberId, u8), Verified<Word>>,
    answered: VecDeque<(MemberId, Stamp)>,
    island: Island,
    exported: Option<(Instant, u64, Bytes)>,
    random: rand::rngs::StdRng,
    looked: Option<Instant>,
    /// The longest that anything due had to wait, in microseconds.
    late: Arc<AtomicU64>,
}

impl Exchange {
    pub(super) fn new(sockets: Sockets, cast: Cast, late: Arc<AtomicU64>) -> Self {
        let Cast { tag, fulls, voices, watched: _, mut random } = cast;
        let now = Instant::now();
        let fulls: Vec<Membership> = fulls
            .into_iter()
            .enumerate()
            .map(|(host, identity)| {
                let mut machine = Membership::new(settings(tag, host), identity, random.random(), now);
                let addresses = settings(tag, host).advertise;
                let (index, name) = (INTERFACE, "eth0".to_owned());
                machine.set_interfaces(now, vec![Interface { index, name, addresses, loopback: false }]);
                machine
            })
            .collect();
        let full = fulls.iter().enumerate().map(|(host, machine)| (machine.id(), Who::Full(host)));
        let voice = voices.iter().enumerate().map(|(number, voice)| (voice.id(), Who::Voice(number)));
        let members: HashMap<MemberId, Who> = full.chain(voice).collect();
        let island = Island { digest: 0, members: u32::try_from(members.len()).unwrap_or(u32::MAX) };
        Self {
            tag,
            sockets,
            fulls,
            voices,
            members,
            due: BinaryHeap::new(),
            carried: VecDeque::new(),
            verified: None,
            heard: HashMap::new(),
            answered: VecDeque::new(),
            island,
            exported: None,
            random,
            looked: None,
            late,
        }
    }

    /// Makes every full member know everybody, as if it had fetched the table of all voices, each had proven its key at its
    /// listener, and had said a beacon since. What it hears of strangers is limited, so by hearing alone it would miss some.
    pub(super) fn introduce(&mut self) {
        let mut table = VerifiedTransfer::default();
        for number in 0..self.voices.len() {
            let voice = &mut self.voices[number];
            for bytes in [voice.said(), voice.beacon(self.island)] {
                let word = self.verify_once(&bytes);
                self.remember(&word);
                table.words.push((word, Duration::ZERO));
            }
        }
        let voices: Vec<MemberId> = self.voices.iter().map(Voice::id).collect();
        for host in 0..self.fulls.len() {
            let (now, full) = (Instant::now(), &mut self.fulls[host]);
            full.start(now);
            full.merge(now, voices[0], &table);
            for voice in &voices {
                full.proved(now, *voice);
            }
            self.carry_out(host);
        }
        for number in 0..self.voices.len() {
            let beacon = self.voices[number].beacon(self.island);
            self.tell_fulls(Who::Voice(number), &beacon);
        }
        self.settle();
        for full in &self.fulls {
            assert_eq!(
                full.members().count() + 1,
                self.members.len(),
                "{} does not know everybody",
                full.id()
            );
        }
        self.look_at_island();
        let now = Instant::now();
        for number in 0..self.voices.len() {
            for (at, what) in self.voices[number].first_due(now, self.island) {
                self.due.push(Reverse((at, number, what)));
            }
        }
    }

    /// Goes on until told to end.
    pub(super) fn run(&mut self, orders: &Receiver<Order>) {
        loop {
            let fulls =
                self.fulls.iter().filter_map(|machine| machine.poll_timeout()).map(|wakeup| wakeup.at);
            let voices = self.due.peek().map(|Reverse((at, ..))| *at);
            let next = fulls.chain(voices).min().unwrap_or_else(Instant::now);
            self.sockets.wait(next);
            self.read();
            while let Ok(order) = orders.try_recv() {
                match order {
                    Order::End => return,
                    Order::FallSilent(id, done) => {
                        if let Some(Who::Voice(number)) = self.members.get(&id) {
                            self.voices[*number].silent = true;
                            let _ = done.send(Instant::now());
                        }
                    }
                    Order::NameRealWatchers(real, done) => {
                        self.name_real_watchers(&real);
                        let _ = done.send(Instant::now());
                    }
                }
            }
            self.take_turns();
            self.accept();
            self.settle();
        }
    }

    fn read(&mut self) {
        let mut heard = Vec::new();
        self.sockets.read(|port, from, bytes| heard.push((port, from, Bytes::copy_from_slice(bytes))));
        for (port, from, bytes) in heard {
            match port {
                Port::All => self.hear_all(from, bytes),
                Port::Full(host) => {
                    let source = Source { addr: from, shared: false };
                    // Refused is what a node would refuse.
                    let _ = self.fulls[host].handle_datagram(Instant::now(), source, bytes);
                    self.carry_out(host);
                }
                Port::Voices(host) => self.tell_voices(host, from, &bytes),
            }
        }
        self.settle();
    }

    /// A real node, or our own echo, says something to all.
    fn hear_all(&mut self, from: SocketAddr, bytes: Bytes) {
        let Ok(header) = peek(self.tag, &bytes) else { return };
        if self.members.contains_key(&header.author) {
            return;
        }
        let Ok(word) = verify(self.tag, bytes) else { return };
        if let Some(Message::Hello(hello)) = &word.message {
            self.answer_hello(&word, from, hello);
            return;
        }
        self.tell_accused(&word);
        self.remember(&word);
        let source = Source { addr: from, shared: true };
        for host in 0..self.fulls.len() {
            let _ = self.fulls[host].handle_word(Instant::now(), source, &word);
            self.carry_out(host);
        }
    }

    /// A voice that is accused says that it lives: to everybody, and to the accuser.
    fn tell_accused(&mut self, word: &Verified<Word>) {
        let accused: Vec<(MemberId, Suspect)> = match &word.message {
            Some(Message::Suspect(vote)) => vec![(word.header.author, *vote)],
            Some(Message::Down(down)) => down.votes.iter().filter_map(vote_in).collect(),
            _ => return,
        };
        for (accuser, vote) in accused {
            let Some(Who::Voice(number)) = self.members.get(&vote.target).copied() else { continue };
            let now = Instant::now();
            let Some(again) = self.voices[number].is_accused(now, vote.epoch) else { continue };
            self.due.push(Reverse((again, number, Due::Defence)));
            let voice = &mut self.voices[number];
            let (beacon, at) = (voice.beacon(self.island), voice.at);
            self.say_to_all(Who::Voice(number), Paths::All, beacon.clone());
            if let Some(to) = self.private_address(&accuser) {
                self.say_to_one(at, to, beacon);
            }
        }
    }

    /// Says a word of the crowd to everybody: onto the wire, and to the full members.
    fn say_to_all(&mut self, by: Who, paths: Paths, bytes: Bytes) {
        self.sockets.broadcast(self.port_of(by), paths, &bytes);
        self.carried.push_back(Carried::All(by, bytes));
    }

    fn tell_fulls(&mut self, by: Who, bytes: &Bytes) {
        let word = self.verify_once(bytes);
        let from = self.address_of(by);
        if let Some(Message::Hello(hello)) = &word.message {
            self.answer_hello(&word, from, hello);
            return;
        }
        self.tell_accused(&word);
        self.remember(&word);
        let source = Source { addr: from, shared: true };
        for host in (0..self.fulls.len()).filter(|host| by != Who::Full(*host)) {
            let _ = self.fulls[host].handle_word(Instant::now(), source, &word);
            self.carry_out(host);
        }
    }

    /// Carries what members said to members, until nobody has anything more to say.
    fn settle(&mut self) {
        while let Some(carried) = self.carried.pop_front() {
            match carried {
                Carried::All(by, bytes) => self.tell_fulls(by, &bytes),
                Carried::One(from, to, bytes) => match self.sockets.port_at(to) {
                    Some(Port::Full(host)) => {
                        let word = self.verify_once(&bytes);
                        let source = Source { addr: from, shared: false };
                        let _ = self.fulls[host].handle_word(Instant::now(), source, &word);
                        self.carry_out(host);
                    }
                    Some(Port::Voices(host)) => self.tell_voices(host, from, &bytes),
                    Some(Port::All) | None => {}
                },
            }
        }
    }

    fn verify_once(&mut self, bytes: &Bytes) -> Verified<Word> {
        match self.verified.take().filter(|word| word.bytes == *bytes) {
            Some(word) => self.verified = Some(word),
            None => self.verified = Some(verify(self.tag, bytes.clone()).expect("the crowd signs well")),
        }
        self.verified.clone().expect("just put there")
    }

    /// Something came to the socket that the voices of a host share.
    fn tell_voices(&mut self, host: usize, from: SocketAddr, bytes: &Bytes) {
        let Some((header, message)) = decode(bytes) else { return };
        match message {
            Message::Ping(ping) => {
                let Some(Who::Voice(number)) = self.members.get(&ping.target).copied() else { return };
                let voice = &mut self.voices[number];
                if voice.silent || voice.host != host {
                    return;
                }
                let (pong, at) = (voice.pong(&ping, self.island), voice.at);
                let to = SocketAddr::new(from.ip(), ping.unicast_port);
                let record = ping.wants_record.then(|| voice.said());
                for bytes in [pong].into_iter().chain(record) {
                    self.say_to_one(at, to, bytes);
                }
            }
            Message::Suspect(_) => {
                if let Ok(word) = verify(self.tag, bytes.clone()) {
                    self.tell_accused(&word);
                }
            }
            // It says not whom it means: any of the host may answer.
            Message::Hello(hello) if !hello.asking && !self.members.contains_key(&header.author) => {
                let there = |voice: &&mut Voice| voice.host == host && !voice.silent;
                let Some(voice) = self.voices.iter_mut().find(there) else { return };
                let (offer, at) = (voice.offer(&hello, from, self.island), voice.at);
                self.say_to_one(at, SocketAddr::new(from.ip(), hello.unicast_port), offer);
            }
            _ => {}
        }
    }

    fn say_to_one(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        if self.sockets.port_at(to).is_some() {
            self.carried.push_back(Carried::One(from, to, bytes));
        } else if let Some(by) = self.sockets.port_at(from) {
            self.sockets.send(by, to, &bytes);
        }
    }

    /// Those whose turn it is answer; the lots are drawn once for all of the crowd.
    fn answer_hello(&mut self, word: &Verified<Word>, from: SocketAddr, hello: &Hello) {
        let asked = (word.header.author, word.header.stamp);
        // Nobody here is an intermediary, so nobody here answers one who only asks for those.
        if hello.asking || self.answered.contains(&asked) {
            return;
        }
        if self.answered.len() == HELLOS_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(asked);
        let lot = |id: MemberId| {
            let hash = blake3::hash(&[hello.nonce.to_be_bytes().as_slice(), &id.0].concat());
            let mut first = [0; 8];
            first.copy_from_slice(&hash.as_bytes()[..8]);
            (u64::from_le_bytes(first), id)
        };
        let ear = &self.fulls[0];
        let there = ear.members().filter(|member| !member.standing.is_gone()).map(|member| member.id);
        let mut lots: Vec<_> = there.chain([ear.id()]).map(lot).collect();
        lots.sort_unstable();
        let turn = usize::from(hello.attempt) % lots.len().div_ceil(ANSWERS);
        let answering: Vec<Who> = lots
            .iter()
            .skip(turn * ANSWERS)
            .take(ANSWERS)
            .filter_map(|(_, id)| self.members.get(id).copied())
            .collect();
        for who in answering {
            match who {
                Who::Full(host) => {
                    let source = Source { addr: from, shared: true };
                    let _ = self.fulls[host].handle_word(Instant::now(), source, word);
                    self.carry_out(host);
                }
                Who::Voice(number) if !self.voices[number].silent => {
                    let voice = &mut self.voices[number];
                    let (offer, at) = (voice.offer(hello, from, self.island), voice.at);
                    self.say_to_one(at, SocketAddr::new(from.ip(), hello.unicast_port), offer);
                }
                Who::Voice(_) => {}
            }
        }
    }

    /// Does what a full member wants.
    fn carry_out(&mut self, host: usize) {
        while let Some(wish) = self.fulls[host].poll_fetch() {
            self.grant(host, &wish);
        }
        let at = self.address_of(Who::Full(host));
        while let Some(transmit) = self.fulls[host].poll_transmit() {
            match transmit.to {
                Destination::Everyone => self.say_to_all(Who::Full(host), Paths::All, transmit.bytes),
                Destination::EveryoneBriefly => {
                    self.say_to_all(Who::Full(host), Paths::First, transmit.bytes);
                }
                // Nobody here is refused: who falls silent leaves its host behind.
                Destination::Unicast(to) | Destination::Probe(to) => {
                    self.say_to_one(at, to, transmit.bytes);
                }
            }
        }
        while self.fulls[host].poll_event().is_some() {}
        while self.fulls[host].poll_change().is_some() {}
    }

    /// Gives a full member the table that it wishes for. Those of real nodes are not fetched: in a flood each would bring
    /// all that these were told, and the crowd would spend its time on asking who that is.
    fn grant(&mut self, host: usize, wish: &Fetch) {
        if self.members.contains_key(&wish.from) {
            let table = self.own_table();
            self.fulls[host].merge(Instant::now(), wish.from, &table);
        } else {
            self.fulls[host].fetch_failed(Instant::now(), wish.from);
        }
    }

    /// Whatever is due.
    fn take_turns(&mut self) {
        for host in 0..self.fulls.len() {
            let now = Instant::now();
            if let Some(wakeup) = self.fulls[host].poll_timeout().filter(|wakeup| wakeup.at <= now) {
                let late = u64::try_from((now - wakeup.at).as_micros()).unwrap_or(u64::MAX);
                self.late.fetch_max(late, Ordering::Relaxed);
                self.fulls[host].handle_timeout(now);
                self.carry_out(host);
                self.settle();
            }
        }
        self.look_at_island();
        while let Some(Reverse((at, number, what))) = self.due.peek().copied() {
            if at > Instant::now() {
                break;
            }
            self.due.pop();
            self.take_turn(number, what);
            self.settle();
        }
    }

    fn take_turn(&mut self, number: usize, what: Due) {
        let voice = &mut self.voices[number];
        if voice.silent {
            return;
        }
        let now = Instant::now();
        if let Some(next) = voice.next_due(now, what, self.island) {
            self.due.push(Reverse((next, number, what)));
        }
        match what {
            Due::Beacon => {
                let beacon = voice.beacon(self.island);
                let paths = voice.beacon_paths();
                self.say_to_all(Who::Voice(number), paths, beacon);
            }
            Due::Defence => {
                let beacon = voice.beacon(self.island);
                self.say_to_all(Who::Voice(number), Paths::All, beacon);
            }
            Due::Refresh => {
                let record = voice.said();
                self.say_to_all(Who::Voice(number), Paths::All, record);
            }
            Due::Copy(record) if voice.is_current(record) => {
                let record = voice.said();
                self.say_to_all(Who::Voice(number), Paths::All, record);
            }
            Due::Copy(_) => {}
            Due::Tick => {
                let (beacon, at, watchers) = (voice.beacon(self.island), voice.at, voice.watchers().to_vec());
                for watcher in watchers {
                    if let Some(to) = self.private_address(&watcher) {
                        self.say_to_one(at, to, beacon.clone());
                    }
                }
            }
        }
    }

    /// Where a watcher hears what is said to it alone; none for those that do not listen.
    fn private_address(&self, id: &MemberId) -> Option<SocketAddr> {
        match self.members.get(id) {
            Some(who @ Who::Full(_)) => Some(self.address_of(*who)),
            Some(Who::Voice(_)) => None,
            None => {
                let ear = &self.fulls[0];
                let member = ear.members().find(|member| member.id == *id)?;
                let address = member.record.addresses.iter().find(|address| address.ip.is_ipv4())?;
                Some(SocketAddr::new(address.ip, member.record.unicast_port))
            }
        }
    }

    fn name_real_watchers(&mut self, real: &[MemberId]) {
        let mut unattended: Vec<usize> =
            (0..self.voices.len()).filter(|number| !self.voices[*number].attended).collect();
        unattended.shuffle(&mut self.random);
        let members: Vec<_> = self.fulls[0].members().cloned().collect();
        let lacking = real.iter().flat_map(|id| {
            let naming = members.iter().filter(|member| member.record.watchers.contains(id)).count();
            std::iter::repeat_n(id, WATCHERS.saturating_sub(naming))
        });
        for (number, id) in unattended.into_iter().zip(lacking) {
            self.voices[number].name_watcher(*id);
            let record = self.voices[number].said();
            self.say_to_all(Who::Voice(number), Paths::All, record);
            for (at, what) in self.voices[number].news_due(Instant::now()) {
                self.due.push(Reverse((at, number, what)));
            }
        }
    }

    /// What the first full member knows, for the voices; how many there are is looked up now and then.
    fn look_at_island(&mut self) {
        let (ear, now) = (&self.fulls[0], Instant::now());
        self.island.digest = ear.digest();
        if self.looked.is_none_or(|at| now.saturating_duration_since(at) > LOOK) {
            self.looked = Some(now);
            self.island.members = u32::try_from(ear.members().count() + 1).unwrap_or(u32::MAX);
        }
    }

    /// Whoever connected is served.
    fn accept(&mut self) {
        while let Ok((stream, _)) = self.sockets.listener.accept() {
            tables::serve(stream, self.export());
        }
    }

    fn export(&mut self) -> Bytes {
        let (now, digest) = (Instant::now(), self.fulls[0].digest());
        if let Some((at, of, bytes)) = &self.exported
            && *of == digest
            && now.saturating_duration_since(*at) < EXPORT_AGE_MAX
        {
            return bytes.clone();
        }
        let bytes = Bytes::from(transfer::encode(&self.fulls[0].export(now)));
        self.exported = Some((now, digest, bytes.clone()));
        bytes
    }

    /// What a member of the crowd fetches of another: the same, but each word is verified once and not by each that fetches.
    fn own_table(&mut self) -> VerifiedTransfer {
        let Transfer { words, floors } = self.fulls[0].export(Instant::now());
        let offered = words.len() + floors.len();
        let words = words.into_iter().filter_map(|word| Some((self.known(word.bytes)?, word.age)));
        let words: Vec<_> = words.collect();
        let floors = floors.into_iter().filter_map(|floor| Some((self.known(floor.bytes)?, floor.age)));
        let floors: Vec<_> = floors.collect();
        let refused = offered - words.len() - floors.len();
        VerifiedTransfer { words, floors, refused }
    }

    fn known(&self, bytes: Bytes) -> Option<Verified<Word>> {
        let header = peek(self.tag, &bytes).ok()?;
        let heard = self.heard.get(&(header.author, header.kind)).filter(|word| word.bytes == bytes);
        heard.cloned().or_else(|| verify(self.tag, bytes).ok())
    }

    fn remember(&mut self, word: &Verified<Word>) {
        if matches!(word.header.kind, kind::ANNOUNCE | kind::BEACON) {
            self.heard.insert((word.header.author, word.header.kind), word.clone());
        }
    }

    fn port_of(&self, who: Who) -> Port {
        match who {
            Who::Full(host) => Port::Full(host),
            Who::Voice(number) => Port::Voices(self.voices[number].host),
        }
    }

    fn address_of(&self, who: Who) -> SocketAddr {
        match who {
            Who::Full(host) => self.sockets.full_at(host),
            Who::Voice(number) => self.voices[number].at,
        }
    }
}

/// What a datagram says; nothing of it is known to be true.
fn decode(bytes: &[u8]) -> Option<(Header, Message)> {
    let said = bytes.get(..bytes.len().checked_sub(SIGNATURE_BYTES)?)?;
    let (header, message) = isle_mesh::wire::decode(said).ok()?;
    Some((header, message?))
}

fn vote_in(bytes: &Bytes) -> Option<(MemberId, Suspect)> {
    match decode(bytes)? {
        (header, Message::Suspect(vote)) => Some((header.author, vote)),
        _ => None,
    }
}
