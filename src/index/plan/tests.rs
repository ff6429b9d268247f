use std::time::Instant;

use bytes::Bytes;
use isle_mesh::member::{CatalogueSummary, Load, Record, Stamp, Standing};

use super::*;
use crate::figures::{Catalogue, Figure, Piece, Share, Shelf, Shelved};

/// A member, the shares of the figure `f` that it holds, and of which content (a quantity).
struct Has(u8, Standing, &'static [(u16, u16, u32)]);

fn id(number: u8) -> MemberId {
    MemberId([number; 32])
}

fn member(number: u8, standing: Standing, digest: Hash) -> Arc<Member> {
    let now = Instant::now();
    Arc::new(Member {
        id: id(number),
        stamp: Stamp::new(1, 1),
        record: Arc::new(Record {
            name: format!("p{number}"),
            roles: vec!["pieces".to_owned()],
            addresses: Vec::new(),
            http_port: 1233,
            unicast_port: 1,
            island: "local".to_owned(),
            island_given: false,
            draining: false,
            catalogue: Some(CatalogueSummary { digest: digest.0, entries: 1 }),
            watchers: Vec::new(),
            protocol: (1, 1),
            version: String::new(),
            tags: Vec::new(),
        }),
        record_bytes: Bytes::new(),
        standing,
        proven: true,
        reachable: true,
        reason: None,
        since: now,
        heard: Some(now),
        load: Load::default(),
        http_addresses: vec![([127, 0, 0, number], 1233).into()],
        is_self: false,
        far: false,
    })
}

fn catalogue(shares: &[(u16, u16, u32)]) -> Arc<Catalogue> {
    let figures: Vec<Shelved> = shares
        .iter()
        .map(|(index, of, quantity)| {
            let piece = Piece::new("brick", None, *quantity).unwrap();
            let share = Share::new(*index, *of).unwrap();
            Shelved::from(&Figure::new("f".parse().unwrap(), share, None, [piece]).unwrap())
        })
        .collect();
    Arc::new(Shelf::new(&figures).0.catalogue().clone())
}

/// The shares as text: who has each, who has something else.
fn plan(has: &[Has]) -> String {
    let mut snapshot = Snapshot::default();
    let mut holders: BTreeMap<Hash, Vec<MemberId>> = BTreeMap::new();
    let mut members = BTreeMap::new();
    for Has(number, standing, shares) in has {
        let catalogue = catalogue(shares);
        let digest = catalogue.digest();
        snapshot.add(catalogue);
        holders.entry(digest).or_default().push(id(*number));
        members.insert(id(*number), member(*number, *standing, digest));
    }
    for (digest, holders) in holders {
        snapshot.set_holders(&digest, holders);
    }
    let names = |ids: &[MemberId]| ids.iter().map(|id| format!(" p{}", id.0[0])).collect::<String>();
    let mut text = String::new();
    for share in shares(&snapshot, &"f".parse().unwrap(), |id| members.get(id).cloned()) {
        text += &format!("{}{}", share.entry.share, names(&share.holders));
        if !share.conflicting.is_empty() {
            text += &format!(" but{}", names(&share.conflicting));
        }
        text += "; ";
    }
    text
}

use Standing::{Alive, Down, Left};

#[test]
fn shares_are_looked_for_at_all_who_have_them() {
    let has =
        [Has(1, Alive, &[(1, 2, 1)]), Has(2, Alive, &[(2, 2, 1)]), Has(3, Alive, &[(1, 2, 1), (2, 2, 1)])];
    assert_eq!(plan(&has), "1/2 p1 p3; 2/2 p2 p3; ");
}

#[test]
fn a_share_that_only_the_gone_had_is_still_known() {
    let has = [Has(1, Alive, &[(1, 3, 1)]), Has(2, Left, &[(2, 3, 1)]), Has(3, Alive, &[(3, 3, 1)])];
    assert_eq!(plan(&has), "1/3 p1; 2/3 p2; 3/3 p3; ");
    assert_eq!(plan(&[Has(1, Down, &[(1, 1, 1)])]), "1/1 p1; ");
    assert_eq!(plan(&[]), "");
}

#[test]
fn the_content_of_the_majority_counts_and_the_others_are_in_conflict() {
    let has = [Has(1, Alive, &[(1, 1, 7)]), Has(2, Alive, &[(1, 1, 8)]), Has(3, Alive, &[(1, 1, 8)])];
    assert_eq!(plan(&has), "1/1 p2 p3 but p1; ");
    // The gone have no vote.
    let has = [Has(1, Alive, &[(1, 1, 7)]), Has(2, Left, &[(1, 1, 8)]), Has(3, Down, &[(1, 1, 8)])];
    assert_eq!(plan(&has), "1/1 p1 but p2 p3; ");
}

#[test]
fn a_server_that_came_back_with_another_figure_is_not_outvoted_by_its_past() {
    for gone in [Left, Down] {
        let has = [Has(1, gone, &[(1, 1, 7)]), Has(2, Alive, &[(1, 1, 8)])];
        assert_eq!(plan(&has), "1/1 p2 but p1; ");
        let has = [Has(1, Alive, &[(1, 1, 7)]), Has(2, gone, &[(1, 1, 8)])];
        assert_eq!(plan(&has), "1/1 p1 but p2; ");
    }
}

#[test]
fn of_equally_many_the_smaller_hash_counts() {
    let smaller = |a: u32, b: u32| {
        let hash = |quantity| catalogue(&[(1, 1, quantity)]).entries()[0].hash;
        hash(a) < hash(b)
    };
    let expected = if smaller(7, 8) { "1/1 p1 but p2; " } else { "1/1 p2 but p1; " };
    assert_eq!(plan(&[Has(1, Alive, &[(1, 1, 7)]), Has(2, Alive, &[(1, 1, 8)])]), expected);
}

#[test]
fn a_complete_way_of_splitting_is_preferred_then_the_one_with_fewest_shares() {
    let has = [Has(1, Alive, &[(1, 2, 1)]), Has(2, Alive, &[(1, 3, 1), (2, 3, 1), (3, 3, 1)])];
    assert_eq!(plan(&has), "1/3 p2; 2/3 p2; 3/3 p2; ");
    // A whole figure in one place beats two of its thirds in two.
    let has = [Has(1, Alive, &[(1, 1, 1)]), Has(2, Alive, &[(1, 3, 1)]), Has(3, Alive, &[(2, 3, 1)])];
    assert_eq!(plan(&has), "1/1 p1; ");
    // What is there in part beats what is gone.
    let has = [Has(1, Left, &[(1, 1, 1)]), Has(2, Alive, &[(1, 3, 1)])];
    assert_eq!(plan(&has), "1/3 p2; ");
    let has = [Has(1, Alive, &[(1, 1, 1)]), Has(2, Alive, &[(1, 2, 1), (2, 2, 1)])];
    assert_eq!(plan(&has), "1/1 p1; ");
}
