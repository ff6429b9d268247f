//! Members that author words and keep no table: of the work of a node, what others notice of it. So a hundred islands
//! of a hundred fit into one simulation.
//!
//! A voice signs, announces, beacons, says farewell, answers who asks or accuses it, votes (see `votes`), and is asked for
//! its table like everybody: it has that of a member of its island that keeps one.

use std::time::{Duration, Instant};

use bytes::Bytes;
use isle_mesh::identity::Identity;
use isle_mesh::member::{Address, Epoch, LeaveReason, Load, MemberId, Record, Seq};
use isle_mesh::verify::{Verified, Word};
use isle_mesh::wire::{self, Beacon, Farewell, Hello, MeshTag, Message, Offer, Pong, WIRE_VERSION};
use rand::RngExt;

use crate::network::{PRIVATE, SHARED, ip_of};
use crate::process::State;
use crate::votes::LastWords;
use crate::world::{Due, World};

/// Addresses from this number on are those of voices.
const VOICES: usize = 2_000;
/// NETWORK.md, section 6: copies of a record, and of a farewell.
const NEWS: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(150)];
const URGENT: [Duration; 2] = [Duration::from_millis(15), Duration::from_millis(40)];
const REFRESH: Duration = Duration::from_secs(30);
/// To watchers.
const TICK: Duration = Duration::from_millis(100);
/// Accused, it says twice that it lives.
const DEFEND_AGAIN: Duration = Duration::from_millis(30);
/// So many answer each HELLO.
const ANSWERS: usize = 3;

/// What it says next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Say {
    FirstWord,
    Beacon,
    /// To its watchers.
    Tick,
    Refresh,
    /// Of this record once more.
    Copy(Seq),
    Defence,
    Farewell,
}

pub struct Voice {
    pub state: State,
    identity: Identity,
    key: u64,
    record: Record,
    record_seq: Seq,
    recorded: Instant,
    seq: Seq,
    said: Bytes,
    farewell: Option<Bytes>,
}

/// Which voice has this address.
pub fn voice_at(node: usize) -> Option<usize> {
    node.checked_sub(VOICES)
}

impl Voice {
    pub fn id(&self) -> MemberId {
        self.identity.id()
    }

    pub fn lives(&self) -> bool {
        self.state == State::Running
    }

    pub fn epoch(&self) -> Epoch {
        self.identity.epoch()
    }

    /// A new life of this key.
    fn begin(
        now: Instant,
        key: u64,
        epoch: Epoch,
        number: usize,
        island: &str,
        watchers: Vec<MemberId>,
    ) -> Self {
        let mut identity = Identity::stand_in(key);
        if epoch > Epoch(1) {
            identity.raise_epoch_above(Epoch(epoch.0 - 1)).expect("kept nowhere, so nothing can fail");
        }
        let record = Record {
            name: format!("v{number}"),
            roles: vec!["pieces".to_owned()],
            addresses: vec![Address { ip: ip_of(VOICES + number), prefix: 8 }],
            http_port: 1233,
            unicast_port: PRIVATE,
            island: island.to_owned(),
            island_given: true,
            draining: false,
            catalogue: None,
            watchers,
            protocol: (WIRE_VERSION, WIRE_VERSION),
            version: "0".to_owned(),
            tags: Vec::new(),
        };
        let (said, farewell) = (Bytes::new(), None);
        let (record_seq, seq) = (Seq(0), Seq(0));
        Self { state: State::Running, identity, key, record, record_seq, recorded: now, seq, said, farewell }
    }

    fn sign(&mut self, message: &Message) -> Bytes {
        self.seq = Seq(self.seq.0 + 1);
        self.identity.sign_word(MeshTag::of("isle"), message, self.seq)
    }

    fn sign_record(&mut self, now: Instant) {
        self.said = self.sign(&Message::Announce(self.record.clone().into()));
        (self.record_seq, self.recorded) = (self.seq, now);
    }

    fn last_words(&self) -> LastWords {
        LastWords {
            epoch: self.epoch(),
            record: self.said.clone(),
            record_seq: self.record_seq,
            recorded: self.recorded,
            last: self.seq,
            watchers: self.record.watchers.clone(),
        }
    }

    fn pulse(&self, digest: u64) -> Beacon {
        let load = Load { in_flight: 0, capacity: 256 };
        Beacon { record_seq: self.record_seq, load, full: false, deaf: false, digest, far: None }
    }
}

/// What befalls them.
impl World {
    /// So many start at random times within this.
    pub fn start_voices(&mut self, count: usize, within: Duration) {
        for _ in 0..count {
            self.keys += 1;
            let voice = self.begin_voice(self.keys, Epoch(1), self.voices.len());
            self.voice_by_id.insert(voice.id(), self.voices.len());
            self.voices.push(voice);
            let after = within.mul_f64(self.random.random_range(0.0..1.0));
            self.due(self.voices.len() - 1, after, Say::FirstWord);
        }
    }

    /// Some name those who keep a table as their watchers; the others, whom they please: nobody.
    fn begin_voice(&self, key: u64, epoch: Epoch, number: usize) -> Voice {
        let mut watchers: Vec<MemberId> = Vec::new();
        if number.is_multiple_of(16) {
            watchers.extend(self.processes.iter().filter(|it| it.lives()).map(|it| it.id).take(6));
            watchers.sort_unstable();
        }
        let island = self.site.island.as_deref().expect("only named islands have voices");
        Voice::begin(self.now, key, epoch, number, island, watchers)
    }

    pub fn voices_that_live(&self) -> Vec<usize> {
        (0..self.voices.len()).filter(|voice| self.voices[*voice].lives()).collect()
    }

    pub fn crash_voice(&mut self, voice: usize) {
        self.note_of_all(format_args!("v{voice} is gone without a word"));
        let this = &mut self.voices[voice];
        this.state = State::Crashed;
        let (id, words) = (this.id(), this.last_words());
        if words.record_seq > Seq(0) {
            self.falls_silent(id, words);
        }
    }

    pub fn farewell_of_voice(&mut self, voice: usize) {
        self.note_of_all(format_args!("v{voice} says farewell"));
        let this = &mut self.voices[voice];
        this.state = State::Left;
        let bytes = this.sign(&Message::Farewell(Farewell { reason: LeaveReason::Stopped }));
        this.farewell = Some(bytes);
        let (id, epoch) = (this.id(), this.epoch());
        self.farewells.insert(id, epoch);
        self.farewell_at.insert(id, self.now);
        self.speak(voice, Say::Farewell);
        for after in URGENT {
            self.due(voice, after, Say::Farewell);
        }
    }

    /// It is there again, with the key that it had.
    pub fn restart_voice(&mut self, voice: usize) {
        let (key, epoch) = (self.voices[voice].key, self.voices[voice].identity.epoch());
        self.voices[voice] = self.begin_voice(key, Epoch(epoch.0 + 1), voice);
        self.silent.remove(&self.voices[voice].id());
        self.speak(voice, Say::FirstWord);
    }

    /// It says something new of itself.
    pub fn news_of_voice(&mut self, voice: usize) {
        let news = self.random.random_range(0..1_000_000);
        let now = self.now;
        let this = &mut self.voices[voice];
        this.record.version = format!("0.{news}");
        this.sign_record(now);
        self.say_record_of(voice);
    }

    fn say_record_of(&mut self, voice: usize) {
        let (said, seq) = (self.voices[voice].said.clone(), self.voices[voice].record_seq);
        self.send_to_everyone(VOICES + voice, &said);
        for after in NEWS {
            self.due(voice, after, Say::Copy(seq));
        }
    }
}

/// What they say.
impl World {
    pub fn speak(&mut self, voice: usize, say: Say) {
        let now = self.now;
        let this = &mut self.voices[voice];
        if say == Say::Farewell {
            if let Some(bytes) = this.farewell.clone().filter(|_| this.state == State::Left) {
                self.send_to_everyone(VOICES + voice, &bytes);
            }
            return;
        }
        if this.state != State::Running {
            return;
        }
        match say {
            Say::FirstWord => {
                this.sign_record(now);
                self.say_record_of(voice);
                self.first_dues(voice);
            }
            Say::Beacon | Say::Defence => {
                let bytes = self.beacon_of(voice);
                self.send_to_everyone(VOICES + voice, &bytes);
                if say == Say::Beacon {
                    self.again(voice, say, self.beacon_period());
                }
            }
            Say::Tick => {
                let bytes = self.beacon_of(voice);
                let watchers = self.voices[voice].record.watchers.clone();
                for node in watchers.iter().filter_map(|id| self.node_of(id)).collect::<Vec<_>>() {
                    self.send(VOICES + voice, node, false, &bytes);
                }
                self.again(voice, say, TICK);
            }
            Say::Refresh => {
                let said = this.said.clone();
                self.send_to_everyone(VOICES + voice, &said);
                self.again(voice, say, REFRESH);
            }
            Say::Copy(seq) if seq == this.record_seq => {
                let said = this.said.clone();
                self.send_to_everyone(VOICES + voice, &said);
            }
            Say::Copy(_) | Say::Farewell => {}
        }
    }

    /// A word to all.
    pub fn say_of_voice(&mut self, voice: usize, bytes: &Bytes) {
        self.send_to_everyone(VOICES + voice, bytes);
    }

    pub fn signed_by_voice(&mut self, voice: usize, message: &Message) -> Bytes {
        self.voices[voice].sign(message)
    }

    fn first_dues(&mut self, voice: usize) {
        let dues = [(Say::Beacon, self.beacon_period()), (Say::Refresh, REFRESH), (Say::Tick, TICK)];
        for (say, within) in dues {
            if say != Say::Tick || !self.voices[voice].record.watchers.is_empty() {
                let after = within.mul_f64(self.random.random_range(0.0..1.0));
                self.due(voice, after, say);
            }
        }
    }

    fn again(&mut self, voice: usize, say: Say, after: Duration) {
        let after = after.mul_f64(self.random.random_range(0.9..1.1));
        self.due(voice, after, say);
    }

    fn due(&mut self, voice: usize, after: Duration, say: Say) {
        let epoch = self.voices[voice].identity.epoch();
        self.at(self.now + after, Due::Voice(voice, epoch, say));
    }

    /// NETWORK.md, section 6, BEACON.
    fn beacon_period(&self) -> Duration {
        let members = self.processes.len() + self.voices.len();
        Duration::from_millis((members as u64).clamp(200, 5_000))
    }

    fn beacon_of(&mut self, voice: usize) -> Bytes {
        let digest = self.digest_told();
        let beacon = self.voices[voice].pulse(digest);
        self.voices[voice].sign(&Message::Beacon(beacon))
    }

    /// What voices say of the table that they do not keep.
    fn digest_told(&self) -> u64 {
        self.elder(|_| true).map_or(0, |node| self.processes[node].machine.digest())
    }
}

/// What they hear.
impl World {
    /// Something is said to all.
    pub fn voices_hear(&mut self, from: usize, bytes: &Bytes) {
        if self.voices.is_empty() {
            return;
        }
        let word = self.network.word(bytes);
        match &word.message {
            Some(Message::Hello(hello)) => self.answer_hello(from, &word, hello),
            Some(Message::Suspect(vote)) => {
                self.is_accused(from, vote.target, vote.epoch);
                self.voices_hear_vote(vote.target, vote.epoch);
            }
            Some(Message::Down(down)) => {
                for vote in &down.votes {
                    if let Ok((_, Some(Message::Suspect(vote)))) = said(vote) {
                        self.is_accused(from, vote.target, vote.epoch);
                    }
                }
            }
            _ => {}
        }
    }

    /// Something is said to this address.
    pub fn ask_voice(&mut self, from: usize, to: usize, bytes: &Bytes) {
        let Some(voice) = voice_at(to).filter(|voice| *voice < self.voices.len()) else { return };
        let is_lost = self.random.random_bool(self.network.loss);
        if is_lost || self.voices[voice].state != State::Running {
            return;
        }
        let word = self.network.word(bytes);
        match &word.message {
            Some(Message::Ping(ping)) if ping.target == self.voices[voice].id() => {
                let digest = self.digest_told();
                let this = &mut self.voices[voice];
                let beacon = this.pulse(digest);
                let pong = this.sign(&Message::Pong(Pong { nonce: ping.nonce, beacon }));
                let said = this.said.clone();
                self.send(to, from, false, &pong);
                if ping.wants_record {
                    self.send(to, from, false, &said);
                }
            }
            Some(Message::Suspect(vote)) => self.is_accused(from, vote.target, vote.epoch),
            _ => {}
        }
    }

    fn is_accused(&mut self, by: usize, id: MemberId, epoch: Epoch) {
        let is_it =
            |voice: &usize| self.voices[*voice].identity.epoch() == epoch && self.voices[*voice].lives();
        let Some(voice) = self.voice_of(&id).filter(is_it) else { return };
        if self.random.random_bool(self.network.loss) {
            return;
        }
        let bytes = self.beacon_of(voice);
        self.send(VOICES + voice, by, false, &bytes);
        self.due(voice, Duration::ZERO, Say::Defence);
        self.due(voice, DEFEND_AGAIN, Say::Defence);
    }

    /// Those whose turn it is answer, as everybody draws the lots.
    fn answer_hello(&mut self, from: usize, word: &Verified<Word>, hello: &Hello) {
        if hello.asking {
            return;
        }
        let lot = |id: MemberId| {
            let hash = blake3::hash(&[hello.nonce.to_be_bytes().as_slice(), &id.0].concat());
            (hash.as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first)), id)
        };
        let living = self.living();
        let mut lots: Vec<_> = living.into_iter().filter(|id| *id != word.header.author).map(lot).collect();
        lots.sort_unstable();
        let turn = usize::from(hello.attempt) % lots.len().div_ceil(ANSWERS).max(1);
        let answering: Vec<_> = lots.into_iter().skip(turn * ANSWERS).take(ANSWERS).collect();
        for (_, id) in answering {
            let Some(voice) = self.voice_of(&id) else { continue };
            let mut observed = crate::network::private_of(from);
            observed.set_port(SHARED);
            let offer = Offer {
                nonce: hello.nonce,
                observed,
                digest: self.digest_told(),
                members: u32::try_from(self.voices.len()).expect("a few"),
                http_port: 1233,
                island: self.voices[voice].record.island.clone(),
                island_given: true,
                intermediary: false,
                crowd: false,
            };
            let bytes = self.voices[voice].sign(&Message::Offer(offer));
            self.send(VOICES + voice, from, false, &bytes);
        }
    }

    pub fn voice_of(&self, id: &MemberId) -> Option<usize> {
        self.voice_by_id.get(id).copied()
    }

    /// Whose table is fetched in place of a voice's.
    pub fn stands_in_for(&self, id: &MemberId, asker: usize) -> Option<usize> {
        self.voice_of(id).filter(|voice| self.voices[*voice].lives())?;
        self.elder(|node| node != asker)
    }

    /// Who of those that keep a table has kept it for longest.
    pub fn elder(&self, may: impl Fn(usize) -> bool) -> Option<usize> {
        let living = (0..self.processes.len()).filter(|node| self.processes[*node].lives() && may(*node));
        living.min_by_key(|node| self.processes[*node].started)
    }
}

/// What a vote within a certificate says.
fn said(vote: &Bytes) -> Result<(wire::Header, Option<Message>), wire::DecodeError> {
    wire::decode(&vote[..vote.len() - wire::SIGNATURE_BYTES])
}
