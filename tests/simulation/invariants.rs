//! What must hold at every node after every step.

use std::collections::BTreeMap;

use isle_mesh::event::{Event, EventKind};
use isle_mesh::member::{Epoch, MemberId, Standing};

/// What one node has told so far, replayed as an application would.
#[derive(Default)]
pub struct Witness {
    events: u64,
    standing: BTreeMap<MemberId, Standing>,
    /// The last epoch of each that this node told to have left.
    left: BTreeMap<MemberId, Epoch>,
}

/// Who really said farewell, and in which epoch last.
pub type Farewells = BTreeMap<MemberId, Epoch>;

impl Witness {
    /// One more event of the node whose own id is `own`.
    pub fn hear(&mut self, own: MemberId, event: &Event, farewells: &Farewells) {
        let (id, member) = (event.member.id, &event.member);
        self.events += 1;
        assert_eq!(event.number, self.events, "events are numbered without gaps");
        if id == own {
            return;
        }
        let before = self.standing.get(&id).copied();
        let what = format!("{:?} told {} about {id:?}, which was {before:?}", own, event.kind.as_str());
        match event.kind {
            EventKind::Joined => assert!(matches!(before, None | Some(Standing::Left)), "{what}"),
            EventKind::Suspect => assert_eq!(before, Some(Standing::Alive), "{what}"),
            EventKind::Down => assert_eq!(before, Some(Standing::Suspect), "{what}"),
            EventKind::Back => {
                assert!(matches!(before, Some(Standing::Suspect | Standing::Down)), "{what}");
            }
            EventKind::Left => {
                assert!(before.is_some_and(|before| before != Standing::Left), "{what}");
                let said = farewells.get(&id).is_some_and(|epoch| *epoch >= member.stamp.epoch);
                assert!(said, "{what}, but it never said farewell");
                self.left.insert(id, member.stamp.epoch);
            }
            EventKind::Updated | EventKind::Draining | EventKind::Forgotten => {
                assert!(before.is_some(), "{what}");
            }
            EventKind::DuplicateKey => {}
        }
        if event.kind == EventKind::Forgotten {
            self.standing.remove(&id);
            return;
        }
        if member.standing != Standing::Left {
            let ended = self.left.get(&id).is_some_and(|left| member.stamp.epoch <= *left);
            assert!(!ended, "{what}: a life that it had told the end of");
        }
        self.standing.insert(id, member.standing);
    }

    /// Replaying the events gives the table.
    pub fn agrees_with<'a>(&self, own: MemberId, members: impl Iterator<Item = (&'a MemberId, Standing)>) {
        let listed: BTreeMap<MemberId, Standing> =
            members.filter(|(id, _)| **id != own).map(|(id, standing)| (*id, standing)).collect();
        assert_eq!(self.standing, listed, "the events of {own:?} tell another table than it has");
    }
}
