use std::fs;

use tokio::time::timeout;

use super::*;

/// Long enough for a busy machine; the tests end as soon as what they wait for is there.
const DEADLINE: Duration = Duration::from_secs(20);

fn figure(name: &str, quantity: u32) -> String {
    format!(r#"{{"name":"{name}","pieces":[{{"part":"a","quantity":{quantity}}}]}}"#)
}

async fn until(watch: &mut FigureWatch, holds: impl FnMut(&Arc<Shelf>) -> bool) {
    timeout(DEADLINE, watch.shelf.wait_for(holds)).await.expect("in time").expect("the task runs");
}

#[tokio::test]
async fn everything_is_read_when_it_returns() {
    let (watch, _task) = watch_figures(&PiecesConfig::default()).await;
    assert_eq!(watch.shelf.borrow().len(), 17);
    assert!(watch.problems.borrow().is_empty());
}

#[tokio::test]
async fn changes_in_folders_and_of_single_files_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, single) = (dir.path().join("folder"), dir.path().join("single.json"));
    fs::create_dir(&folder).unwrap();
    fs::write(&single, figure("single", 1)).unwrap();
    let figures = vec![folder.to_str().unwrap().into(), single.to_str().unwrap().into()];
    let (mut watch, task) = watch_figures(&PiecesConfig { figures, ..PiecesConfig::default() }).await;
    let task = tokio::spawn(task.run());
    assert_eq!(watch.shelf.borrow().len(), 1);

    fs::write(folder.join("a.json"), figure("a", 1)).unwrap();
    until(&mut watch, |shelf| shelf.len() == 2).await;

    fs::write(dir.path().join(".new"), figure("other", 1)).unwrap();
    fs::rename(dir.path().join(".new"), &single).unwrap();
    let other = "other".parse().unwrap();
    until(&mut watch, |shelf| shelf.shares(&other).next().is_some()).await;
    assert_eq!(watch.shelf.borrow().len(), 2);

    fs::write(folder.join("a.json"), "{").unwrap();
    timeout(DEADLINE, watch.problems.wait_for(|problems| problems.len() == 1)).await.unwrap().unwrap();
    assert!(watch.problems.borrow()[0].kept);
    assert_eq!(watch.shelf.borrow().len(), 2);

    fs::remove_dir_all(&folder).unwrap();
    until(&mut watch, |shelf| shelf.len() == 1).await;
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("b.json"), figure("b", 1)).unwrap();
    until(&mut watch, |shelf| shelf.len() == 2).await;
    task.abort();
}

#[test]
fn reading_a_file_is_no_change() {
    let targets = BTreeSet::from([PathBuf::from("/x/figures"), PathBuf::from("/y/a.json")]);
    let event = |kind, path: &str| notify::Event::new(kind).add_path(path.into());
    let write = EventKind::Access(AccessKind::Close(AccessMode::Write));
    let relevant = |kind, path| is_relevant(&event(kind, path), &targets);
    assert!(relevant(write, "/x/figures/a.json"));
    assert!(relevant(EventKind::Any, "/y/a.json"));
    assert!(relevant(EventKind::Any, "/x/figures"));
    assert!(!relevant(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/x/figures/a.json"));
    assert!(!relevant(EventKind::Any, "/y/b.json"));
    assert!(!relevant(EventKind::Any, "/x/figures/deeper/a.json"));
}
