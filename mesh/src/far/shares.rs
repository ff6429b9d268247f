//! Who has brought the members of other islands. Where there is no room for one more, somebody goes of those that the bridge
//! has brought which has brought most: nobody can tell a large island from one that is made up, but whoever floods the table
//! has brought more than others.
//!
//! Source: NETWORK.md, "Room".

use std::collections::{BTreeMap, BTreeSet};

use crate::by_member::{ByMember, by_member};
use crate::member::MemberId;

/// The bridge that brought a word: that at the other end of a link, or one of our own island that it was fetched from.
/// `None`: it was heard on our wire.
pub(crate) type Bringer = Option<MemberId>;

/// The members of one island that one bridge has brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Share {
    pub(super) bringer: Bringer,
    /// Empty for those of whom only the farewell is known.
    pub(super) island: String,
}

/// Whose share everybody is in. As large as the table.
#[derive(Debug)]
pub(super) struct Shares {
    brought: BTreeMap<Bringer, Brought>,
    places: ByMember<(Share, u64)>,
    /// Counts those who came: the greatest came last.
    came: u64,
}

/// All that one bridge has brought.
#[derive(Default, Debug)]
struct Brought {
    count: usize,
    /// By island, in the order in which they came.
    islands: BTreeMap<String, BTreeSet<(u64, MemberId)>>,
}

impl Shares {
    /// Nobody has come yet. `seed`: of its hashes, unknown to others.
    pub(super) fn new(seed: u64) -> Self {
        Self { brought: BTreeMap::new(), places: by_member(seed), came: 0 }
    }

    /// Notes that this member is of that island, and that `bringer` has brought it, if nobody had before.
    pub(super) fn place(&mut self, id: MemberId, bringer: Bringer, island: &str) {
        let (bringer, order) = match self.places.get(&id) {
            Some((held, _)) if held.island == island => return,
            Some((held, order)) => (held.bringer, *order),
            None => {
                self.came += 1;
                (bringer, self.came)
            }
        };
        self.remove(&id);
        let brought = self.brought.entry(bringer).or_default();
        brought.count += 1;
        brought.islands.entry(island.to_owned()).or_default().insert((order, id));
        self.places.insert(id, (Share { bringer, island: island.to_owned() }, order));
    }

    /// Gives the share that this member was in.
    pub(super) fn remove(&mut self, id: &MemberId) -> Option<Share> {
        let (share, order) = self.places.swap_remove(id)?;
        let Some(brought) = self.brought.get_mut(&share.bringer) else { return Some(share) };
        brought.count -= 1;
        if let Some(ids) = brought.islands.get_mut(&share.island) {
            ids.remove(&(order, *id));
            if ids.is_empty() {
                brought.islands.remove(&share.island);
            }
        }
        if brought.count == 0 {
            self.brought.remove(&share.bringer);
        }
        Some(share)
    }

    /// Whether nobody of this island is known.
    pub(super) fn is_empty(&self, island: &str) -> bool {
        !self.brought.values().any(|brought| brought.islands.contains_key(island))
    }

    pub(super) fn is_in(&self, id: &MemberId, share: &Share) -> bool {
        self.places.get(id).is_some_and(|(held, _)| held == share)
    }

    /// Who came last to this share.
    pub(super) fn latest(&self, share: &Share) -> Option<MemberId> {
        let ids = self.brought.get(&share.bringer)?.islands.get(&share.island)?;
        ids.last().map(|(_, id)| *id)
    }

    /// Whose share is to become smaller so that one more can come to `own`: of the bridge that brought most, its largest
    /// island; `own`, unless that is smaller by two at least, so that two shares do not take turns. O(bridges + islands).
    pub(super) fn fullest(&self, own: &Share) -> Share {
        let count = self.brought.get(&own.bringer).map_or(0, |brought| brought.count);
        let most = self.brought.iter().max_by_key(|(_, brought)| brought.count);
        let most = most.filter(|(_, brought)| brought.count > count + 1);
        let bringer = most.map_or(own.bringer, |(bringer, _)| *bringer);
        let Some(Brought { islands, .. }) = self.brought.get(&bringer) else { return own.clone() };
        let least = match islands.get(&own.island) {
            _ if bringer != own.bringer => 0,
            held => held.map_or(0, BTreeSet::len) + 1,
        };
        let largest = islands.iter().max_by_key(|(_, ids)| ids.len()).filter(|(_, ids)| ids.len() > least);
        let island = largest.map_or(&own.island, |(island, _)| island).clone();
        Share { bringer, island }
    }
}
