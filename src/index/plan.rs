//! Which version of each share counts, and who holds it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use isle_mesh::member::{Member, MemberId};

use crate::figures::{Entry, FigureName, Hash};
use crate::index::Snapshot;

/// One share of a figure, in the version that counts, and who holds it.
#[derive(Clone, Debug)]
pub struct ShareHolders {
    /// What the catalogues say of it.
    pub entry: Entry,
    /// Who holds exactly this, gone members included, by id.
    pub holders: Vec<MemberId>,
    /// Who holds something else under this name and share.
    pub conflicting: Vec<MemberId>,
}

/// A version of a share, while it is not decided yet which one counts.
struct Version {
    entry: Entry,
    holders: Vec<MemberId>,
    /// Of them, who is not gone: the gone have no vote, or a server that comes back with a new key and a changed figure
    /// would be outvoted by its own past.
    votes: usize,
    /// Whether any of them could be asked.
    is_there: bool,
}

/// All shares of `name` that anybody listed holds, by index; empty if nobody has heard of it. `member` reads the table.
///
/// If members disagree on a share, the version that more of them hold counts, then the smaller hash. If they disagree on how
/// many shares there are, a number whose shares are all there counts, then the smallest.
#[must_use]
pub fn shares(
    snapshot: &Snapshot,
    name: &FigureName,
    member: impl Fn(&MemberId) -> Option<Arc<Member>>,
) -> Vec<ShareHolders> {
    // By number of shares, index, hash.
    let mut splits: BTreeMap<u16, BTreeMap<u16, BTreeMap<Hash, Version>>> = BTreeMap::new();
    for offer in snapshot.offers(name) {
        let members: Vec<_> = offer.holders.iter().filter_map(&member).collect();
        if members.is_empty() {
            continue;
        }
        let share = offer.entry.share;
        let version = splits
            .entry(share.of)
            .or_default()
            .entry(share.index)
            .or_default()
            .entry(offer.entry.hash)
            .or_insert_with(|| Version {
                entry: offer.entry.clone(),
                holders: Vec::new(),
                votes: 0,
                is_there: false,
            });
        version.votes += members.iter().filter(|member| !member.standing.is_gone()).count();
        version.is_there |= members.iter().any(|member| member.is_choosable() || member.is_self);
        version.holders.extend(members.iter().map(|member| member.id));
    }
    let decided = splits.into_iter().map(|(of, shares)| {
        let shares: Vec<_> = shares.into_values().map(decide).collect();
        let is_complete = shares.len() == usize::from(of) && shares.iter().all(|(_, is_there)| *is_there);
        let is_there = shares.iter().any(|(_, is_there)| *is_there);
        let rank = if is_complete { 0 } else { 2 - u8::from(is_there) };
        (rank, of, shares)
    });
    let best = decided.min_by_key(|(rank, of, _)| (*rank, *of));
    best.map(|(.., shares)| shares.into_iter().map(|(share, _)| share).collect()).unwrap_or_default()
}

/// The version that counts, and whether anybody could be asked for it.
fn decide(versions: BTreeMap<Hash, Version>) -> (ShareHolders, bool) {
    let best = versions
        .iter()
        .min_by_key(|(hash, version)| {
            (usize::MAX - version.votes, usize::MAX - version.holders.len(), **hash)
        })
        .map(|(hash, _)| *hash)
        .expect("a share is listed because a version of it was seen");
    let mut conflicting = Vec::new();
    let mut counts = None;
    for (hash, mut version) in versions {
        if hash == best {
            version.holders.sort_unstable();
            counts = Some((version.entry, version.holders, version.is_there));
        } else {
            conflicting.extend(version.holders);
        }
    }
    let (entry, holders, is_there) = counts.expect("chosen among these");
    conflicting.sort_unstable();
    (ShareHolders { entry, holders, conflicting }, is_there)
}

#[cfg(test)]
mod tests;
