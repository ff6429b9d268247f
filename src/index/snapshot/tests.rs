use super::*;
use crate::figures::{Figure, Piece, Share, Shelf, Shelved};

fn catalogue(names: impl IntoIterator<Item = String>) -> Arc<Catalogue> {
    let figures: Vec<Shelved> = names
        .into_iter()
        .map(|name| {
            let piece = Piece::new("brick", None, 1).unwrap();
            Shelved::from(&Figure::new(name.parse().unwrap(), Share::WHOLE, None, [piece]).unwrap())
        })
        .collect();
    Arc::new(Shelf::new(&figures).0.catalogue().clone())
}

fn member(number: u8) -> MemberId {
    MemberId([number; 32])
}

fn held(snapshot: &Snapshot, name: &str) -> Vec<Vec<MemberId>> {
    snapshot.offers(&name.parse().unwrap()).map(|offer| offer.holders.to_vec()).collect()
}

fn names(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|number| format!("figure-{number}"))
}

#[test]
fn a_figure_is_found_with_all_its_holders_and_gone_without_them() {
    let (one, two) = (catalogue(names(0..50)), catalogue(names(40..60)));
    let mut snapshot = Snapshot::default();
    for (catalogue, holders) in [(&one, vec![member(2), member(1)]), (&two, vec![member(3)])] {
        snapshot.add(catalogue.clone());
        snapshot.set_holders(&catalogue.digest(), holders);
    }
    assert_eq!(snapshot.len(), 70);
    assert_eq!(held(&snapshot, "figure-7"), [[member(1), member(2)]]);
    assert_eq!(held(&snapshot, "FIGURE-45"), [vec![member(1), member(2)], vec![member(3)]]);
    assert!(held(&snapshot, "figure-60").is_empty());
    let before = snapshot.clone();
    snapshot.remove(&one.digest());
    assert!(held(&snapshot, "figure-7").is_empty());
    assert_eq!(held(&snapshot, "figure-45"), [[member(3)]]);
    assert_eq!(held(&before, "figure-7").len(), 1, "a snapshot does not change");
    snapshot.remove(&two.digest());
    assert!(snapshot.is_empty() && snapshot.shards.iter().all(|shard| shard.is_empty()));
}

#[test]
fn the_same_catalogue_twice_is_one() {
    let mut snapshot = Snapshot::default();
    snapshot.add(catalogue(names(0..5)));
    snapshot.add(catalogue(names(0..5)));
    assert_eq!((snapshot.len(), snapshot.catalogues().count()), (5, 1));
}

#[test]
fn a_hundred_thousand_figures_are_indexed_in_two_seconds_and_found_as_fast_as_seventeen() {
    let (large, small) = (catalogue(names(0..100_000)), catalogue(names(0..17)));
    let mut snapshot = Snapshot::default();
    let started = std::time::Instant::now();
    snapshot.add(large.clone());
    let took = started.elapsed();
    assert!(took.as_secs_f64() < 2.0, "{took:?}");
    let mut few = Snapshot::default();
    few.add(small);
    let time = |snapshot: &Snapshot| {
        let asked: Vec<FigureName> = names(0..17).map(|name| name.parse().unwrap()).collect();
        let started = std::time::Instant::now();
        let found: usize = (0..2000).flat_map(|_| &asked).map(|name| snapshot.offers(name).count()).sum();
        assert_eq!(found, 34_000);
        started.elapsed().as_nanos() / 34_000
    };
    let started = std::time::Instant::now();
    let mut next = snapshot.clone();
    next.add(catalogue(names(200_000..200_017)));
    println!("index 100,000: {took:?}; 17 more: {:?}", started.elapsed());
    println!("a lookup: {} ns of 17, {} ns of 100,000", time(&few), time(&snapshot));
}

#[test]
fn names_come_sorted_and_in_pages() {
    let mut snapshot = Snapshot::default();
    snapshot.add(Arc::new(Shelf::builtin().catalogue().clone()));
    snapshot.add(catalogue(names(0..5)));
    let all = snapshot.names(None, "", 100);
    assert_eq!(all.len(), 22);
    assert!(all.is_sorted());
    let mut paged = Vec::new();
    while let page = snapshot.names(paged.last(), "", 5)
        && !page.is_empty()
    {
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert_eq!(snapshot.names(None, "giraf", 5), ["giraffe".parse().unwrap()]);
    assert_eq!(snapshot.similar("girafe"), ["giraffe".parse().unwrap()]);
    assert_eq!(distance("kitten", "sitting"), 3);
}
