//! How 100,000 figures on one shelf behave: `cargo test --release -p isle --lib figures::measure -- --ignored --nocapture`.
//!
//! Each figure has 8 kinds of pieces, some 400 bytes. Two ways to keep them: one list, and a file each.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use crate::config::PiecesConfig;
use crate::figures::catalogue::{Catalogue, CatalogueParser, ENTRIES_MAX};
use crate::figures::name::{FigureName, Share};
use crate::figures::watch::watch_figures;

fn figure(number: usize) -> String {
    let mut text = format!("{{\"name\":\"figure-{number:06}\",\"pieces\":[");
    for kind in 0..8 {
        let comma = if kind == 0 { "" } else { "," };
        write!(
            text,
            "{comma}{{\"part\":\"brick 2x{kind}\",\"color\":\"red\",\"quantity\":{}}}",
            number % 7 + 1
        )
        .unwrap();
    }
    text + "]}"
}

/// A line of the process's own status, in MiB: `VmRSS`, what is resident; `VmHWM`, the most since `timed` began.
fn memory(what: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

fn timed<T>(what: &str, limit: Duration, work: impl FnOnce() -> T) -> T {
    fs::write("/proc/self/clear_refs", "5").unwrap(); // The peak starts anew (proc(5)).
    let (before, started) = (memory("VmRSS"), Instant::now());
    let done = work();
    let took = started.elapsed();
    let (peak, after) = (memory("VmHWM"), memory("VmRSS"));
    println!("{what}: {took:.1?}; {before} MiB resident before, {peak} at most, {after} after");
    assert!(took < limit, "{what} took {took:?}, the limit is {limit:?}");
    done
}

fn load(path: &std::path::Path) -> impl Future<Output = crate::figures::FigureWatch> {
    let config = PiecesConfig { figures: vec![path.to_str().unwrap().into()], ..PiecesConfig::default() };
    async move { watch_figures(&config).await.0 }
}

#[test]
#[ignore = "measures, in release"]
fn a_hundred_thousand_figures() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let list: Vec<String> = (0..ENTRIES_MAX).map(figure).collect();
    let one = dir.path().join("all.json");
    fs::write(&one, format!("[{}]", list.join(",\n"))).unwrap();
    drop(list);
    println!("the list: {} MB", fs::metadata(&one).unwrap().len() / 1_000_000);

    let watch = timed("load one list", Duration::from_secs(2), || runtime.block_on(load(&one)));
    assert!(watch.problems.borrow().is_empty());
    let shelf = watch.shelf.borrow().clone();
    assert_eq!(shelf.len(), ENTRIES_MAX);

    println!("the catalogue: {} MB", shelf.catalogue_text().len() / 1_000_000);
    let read = timed("parse the catalogue", Duration::from_secs(1), || {
        Catalogue::parse(shelf.catalogue_text()).unwrap()
    });
    assert_eq!(read.digest(), shelf.catalogue().digest());
    timed("parse it in pieces of 1400 bytes", Duration::from_secs(1), || {
        let mut parser = CatalogueParser::default();
        shelf.catalogue_text().chunks(1400).for_each(|bytes| parser.push(bytes).unwrap());
        parser.finish().unwrap()
    });
    let names: Vec<FigureName> = read.entries().iter().map(|entry| entry.name.clone()).collect();
    timed("find each of them", Duration::from_secs(1), || {
        for name in &names {
            assert!(shelf.get(name, Share::WHOLE).is_some());
        }
    });
    timed("check each body", Duration::from_secs(2), || {
        for (entry, body) in names.iter().map(|name| shelf.get(name, Share::WHOLE).unwrap()) {
            entry.check(body).unwrap();
        }
    });

    drop((watch, shelf, read, names));
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    for number in 0..ENTRIES_MAX {
        fs::write(folder.join(format!("{number}.json")), figure(number)).unwrap();
    }
    timed("only read them", Duration::from_secs(5), || {
        fs::read_dir(&folder).unwrap().for_each(|entry| drop(fs::read(entry.unwrap().path()).unwrap()));
    });
    let watch = timed("load a file each", Duration::from_secs(5), || runtime.block_on(load(&folder)));
    assert_eq!(watch.shelf.borrow().len(), ENTRIES_MAX);
}

#[test]
#[ignore = "measures, in release"]
fn hostile_files_are_refused_in_bounded_time_and_memory() {
    let at = "0 0 0 1 0 0 0 1 0 0 0 1";
    let models: String = (0..20)
        .map(|model| format!("0 FILE {model}\n") + &format!("1 16 {at} {}\n", model + 1).repeat(20_000))
        .collect();
    for (name, content) in [
        ("values.toml", format!("a = [{}]", "0,".repeat(500_000))),
        ("tables.toml", "[[a]]\n".repeat(170_000)),
        ("deep.toml", format!("a = {}", "[".repeat(1_000_000))),
        ("deep.json", "[".repeat(10_000_000)),
        ("models.mpd", models + "0 FILE 20\n"),
        (
            "kinds.csv",
            "Part,Quantity\n".to_owned() + &(0..3_000_000).map(|i| format!("{i},1\n")).collect::<String>(),
        ),
        ("quote.csv", format!("Part,Quantity\n\"{}", "x".repeat(30_000_000))),
    ] {
        let path = std::path::Path::new(name);
        let format = crate::figures::formats::Format::of(path).unwrap();
        let what = format!("{name} of {} MB", content.len() / 1_000_000);
        timed(&what, Duration::from_secs(2), || format.parse(path, content.as_bytes()).unwrap_err());
    }
}
