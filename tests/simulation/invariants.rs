//! What must hold at every node after every step.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use isle_mesh::event::{Event, EventKind};
use isle_mesh::member::{Epoch, MemberId, Reason, Stamp, Standing};
use isle_mesh::verify::Word;
use isle_mesh::wire::{self, DATAGRAM_BYTES_MAX, Message, SIGNATURE_BYTES};

/// What one node has told so far, replayed as an application would.
#[derive(Default)]
pub struct Witness {
    events: u64,
    told: Members<Told>,
}

/// Of one member.
#[derive(Default)]
struct Told {
    /// While it is listed.
    standing: Option<Standing>,
    /// The newest record, also if it is listed no more.
    newest: Option<Stamp>,
    /// The last epoch that was told to have ended by a farewell.
    left: Option<Epoch>,
}

/// By member, in no order that means something.
pub type Members<V> = HashMap<MemberId, V, BuildHasherDefault<Words>>;

/// For what is random already and needs no other hash: the words of a key put together, or the end of a signature.
#[derive(Default)]
pub struct Words(u64);

impl Hasher for Words {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let end = bytes.last_chunk().map_or(bytes.len() as u64, |end| u64::from_ne_bytes(*end));
        self.write_u64(end);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = self.0.rotate_left(7) ^ word;
    }

    fn write_usize(&mut self, place: usize) {
        // Places end alike, and tables are ordered by both ends of a hash.
        self.write_u64((place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
}

/// Who really said farewell, and in which epoch last.
pub type Farewells = BTreeMap<MemberId, Epoch>;

impl Witness {
    /// One more event of the node whose own id is `own`.
    pub fn hear(&mut self, own: MemberId, event: &Event, farewells: &Farewells, said: &Evidence) {
        let member = event.member().expect("this is about members");
        let id = member.id;
        self.count(event);
        if id == own {
            return;
        }
        let outcome =
            if event.kind == EventKind::Down { self.is_borne_out(event, farewells, said) } else { Ok(()) };
        let told = self.told.entry(id).or_default();
        let before = told.standing;
        let what = || format!("{own:?} told {} about {id:?}, which was {before:?}", event.kind.as_str());
        match event.kind {
            EventKind::Joined => assert!(matches!(before, None | Some(Standing::Left)), "{}", what()),
            EventKind::Suspect => assert_eq!(before, Some(Standing::Alive), "{}", what()),
            EventKind::Down => {
                assert_eq!(before, Some(Standing::Suspect), "{}", what());
                assert_eq!(outcome, Ok(()), "{}", what());
            }
            EventKind::Back => {
                assert!(matches!(before, Some(Standing::Suspect | Standing::Down)), "{}", what());
            }
            EventKind::Left => {
                assert!(before.is_some_and(|before| before != Standing::Left), "{}", what());
                let said = farewells.get(&id).is_some_and(|epoch| *epoch >= member.stamp.epoch);
                assert!(said, "{}, but it never said farewell", what());
            }
            EventKind::Updated | EventKind::Draining | EventKind::Forgotten => {
                assert!(before.is_some(), "{}", what());
            }
            EventKind::DuplicateKey => {}
            EventKind::IslandUp | EventKind::IslandDown => panic!("{}: that is no member", what()),
        }
        if let Some(newest) = told.newest.replace(member.stamp) {
            assert!(member.stamp >= newest, "{}: by {:?} after {newest:?}", what(), member.stamp);
        }
        if event.kind == EventKind::Left {
            told.left = Some(member.stamp.epoch);
        }
        if event.kind == EventKind::Forgotten {
            told.standing = None;
            return;
        }
        if member.standing != Standing::Left {
            let ended = told.left.is_some_and(|left| member.stamp.epoch <= left);
            assert!(!ended, "{}: a life that it had told the end of", what());
        }
        told.standing = Some(member.standing);
    }

    /// Whether somebody is rightly called down, as this node sees those who voted.
    fn is_borne_out(&self, event: &Event, farewells: &Farewells, said: &Evidence) -> Result<(), String> {
        let standing = |id: &MemberId| self.told.get(id).and_then(|told| told.standing);
        let gone = |id: &MemberId| standing(id).is_some_and(Standing::is_gone);
        // Of whom a node knows the farewell alone, it tells nothing; nor must it know of every farewell yet.
        let gone_or_left = |id: &MemberId| gone(id) || farewells.contains_key(id);
        said.bears_out(event, gone).or_else(|_| said.bears_out(event, gone_or_left))
    }

    /// One more event, whatever it is about.
    pub fn count(&mut self, event: &Event) {
        self.events += 1;
        assert_eq!(event.number, self.events, "events are numbered without gaps");
    }

    /// Replaying the events gives the table.
    pub fn agrees_with<'a>(&self, own: MemberId, members: impl Iterator<Item = (&'a MemberId, Standing)>) {
        let mut count = 0;
        for (id, standing) in members.filter(|(id, _)| **id != own) {
            let told = self.told.get(id).and_then(|told| told.standing);
            assert_eq!(told, Some(standing), "what the events of {own:?} tell of {id:?}, and what it lists");
            count += 1;
        }
        let told = self.told.values().filter(|told| told.standing.is_some()).count();
        assert_eq!(told, count, "the events of {own:?} tell of others than it lists");
    }
}

/// What all nodes have said, as far as others are judged by it.
#[derive(Default)]
pub struct Evidence {
    /// Who voted against whom, in which of its lives.
    votes: HashMap<(MemberId, Epoch), BTreeSet<MemberId>>,
    /// Hashes of the records that were said.
    records: BTreeSet<u64>,
}

impl Evidence {
    /// One more word on the wire. It fits a datagram, and reading and writing it again gives the same bytes.
    pub fn hear(&mut self, word: &Word) {
        assert!(word.bytes.len() <= DATAGRAM_BYTES_MAX, "{} bytes: {word:?}", word.bytes.len());
        let Some(message) = &word.message else { return };
        let again = wire::encode(&word.header, message);
        assert_eq!(again, word.bytes[..word.bytes.len() - SIGNATURE_BYTES], "{message:?} in other bytes");
        if let Message::Suspect(vote) = message {
            self.votes.entry((vote.target, vote.epoch)).or_default().insert(word.header.author);
        }
        if let Message::Announce(_) = message {
            self.records.insert(hash_of(&word.bytes));
        }
    }

    /// Whether its author has really said this record.
    pub fn has_said(&self, record: &[u8]) -> bool {
        self.records.contains(&hash_of(record))
    }

    /// Whether anybody has voted against this life of a member.
    pub fn is_accused(&self, id: MemberId, epoch: Epoch) -> bool {
        self.votes.contains_key(&(id, epoch))
    }

    /// A node calls somebody down: then enough of its watchers, as that node sees them, have really said so; or
    /// somebody has, if it is a verdict for want of watchers.
    fn bears_out(&self, event: &Event, is_gone: impl Fn(&MemberId) -> bool) -> Result<(), String> {
        let Some(member) = event.member() else { return Err("nobody".to_owned()) };
        let none = BTreeSet::new();
        let votes = self.votes.get(&(member.id, member.stamp.epoch)).unwrap_or(&none);
        if member.reason == Some(Reason::Unilateral) {
            return if votes.is_empty() { Err("nobody voted".to_owned()) } else { Ok(()) };
        }
        let there: Vec<_> = member.record.watchers.iter().filter(|watcher| !is_gone(watcher)).collect();
        let needed = match there.len() {
            0 | 1 => 1,
            2..=4 => 2,
            _ => 3,
        };
        let voters = there.iter().filter(|watcher| votes.contains(**watcher)).count();
        if voters >= needed {
            return Ok(());
        }
        Err(format!("{voters} votes of {needed}: watchers that are there {there:?}, all votes {votes:?}"))
    }
}

fn hash_of(bytes: &[u8]) -> u64 {
    blake3::hash(bytes).as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}
