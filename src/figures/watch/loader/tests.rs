use std::fs;

use tempfile::TempDir;

use super::*;
use crate::figures::name::Share;

/// A folder of figures and the loader that looks at it.
struct Folder {
    dir: TempDir,
    loader: Loader,
}

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        Self::configured(files, |config| config)
    }

    fn configured(files: &[(&str, &str)], configure: impl FnOnce(PiecesConfig) -> PiecesConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        let config = configure(PiecesConfig { figures: vec![path], ..PiecesConfig::default() });
        let mut folder = Self { dir, loader: Loader::new(&config) };
        for (name, content) in files {
            folder.write(name, content);
        }
        folder.loader.scan(true);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Scans until nothing is pending.
    fn settle(&mut self) {
        while self.loader.scan(false).pending {}
    }

    fn total(&self, name: &str) -> Option<u32> {
        let shelf = self.loader.shelf();
        let (entry, body) = shelf.get(&name.parse().unwrap(), Share::WHOLE)?;
        Some(entry.check(body).unwrap().total())
    }

    fn names(&self) -> String {
        let shelf = self.loader.shelf();
        let names: Vec<&str> = shelf.catalogue().entries().iter().map(|entry| entry.name.as_str()).collect();
        names.join(" ")
    }

    /// Problems as text, the folder shown as `DIR`.
    fn problems(&self) -> Vec<String> {
        let dir = self.dir.path().to_str().unwrap();
        self.loader.problems().iter().map(|problem| problem.to_string().replace(dir, "DIR")).collect()
    }
}

fn figure(name: &str, quantity: u32) -> String {
    format!(r#"{{"name":"{name}","pieces":[{{"part":"a","quantity":{quantity}}}]}}"#)
}

#[test]
fn without_files_it_is_the_built_in_catalogue() {
    let loader = |figures: &[&str]| {
        let figures = figures.iter().map(|&path| path.to_owned()).collect();
        let mut loader = Loader::new(&PiecesConfig { figures, ..PiecesConfig::default() });
        loader.scan(true);
        (loader.shelf().len(), loader.problems().len())
    };
    assert_eq!(loader(&[]), (17, 0));
    assert_eq!(loader(&["builtin"]), (17, 0));
    assert_eq!(loader(&["/nowhere", "builtin"]), (17, 1));
    assert_eq!(loader(&["/nowhere"]), (0, 1));
    let beside = PiecesConfig { upstream: Some("http://127.0.0.1:8080".into()), ..PiecesConfig::default() };
    let mut beside = Loader::new(&beside);
    beside.scan(true);
    assert!(beside.shelf().is_empty());
}

#[test]
fn a_bad_file_is_named_and_the_others_load() {
    let folder = Folder::with(&[
        ("a.json", &figure("a", 1)),
        ("b.json", "[\n{\"name\":\"b\"\n"),
        ("c.CSV", "Part,Quantity\n3001,2\n"),
        (".hidden.json", "{"),
        ("notes.txt", "{"),
        ("d.json~", "{"),
    ]);
    fs::create_dir(folder.path("deeper.json")).unwrap();
    assert_eq!(folder.names(), "a c");
    assert_eq!(folder.problems(), ["DIR/b.json:3: EOF while parsing an object"]);
}

#[test]
fn a_file_half_written_keeps_its_last_good_figures() {
    let mut folder = Folder::with(&[("a.json", &figure("a", 1)), ("b.json", &figure("b", 1))]);
    folder.write("a.json", &figure("a", 2)[..20]);
    folder.settle();
    assert_eq!(folder.total("a"), Some(1));
    assert_eq!(
        folder.problems(),
        ["DIR/a.json:1: EOF while parsing an object (what it held before is still served)"]
    );
    folder.write("a.json", &figure("a", 2));
    folder.settle();
    assert_eq!((folder.total("a"), folder.problems().len()), (Some(2), 0));
}

#[test]
fn a_change_counts_when_it_has_been_seen_twice() {
    let mut folder = Folder::with(&[("a.json", &figure("a", 1))]);
    folder.write("a.json", &figure("a", 22));
    let scan = folder.loader.scan(false);
    assert_eq!((scan.pending, scan.changed, folder.total("a")), (true, false, Some(1)));
    // Still being written: another state each time.
    folder.write("a.json", &figure("a", 333));
    let scan = folder.loader.scan(false);
    assert_eq!((scan.pending, scan.changed, folder.total("a")), (true, false, Some(1)));
    let scan = folder.loader.scan(false);
    assert_eq!((scan.pending, scan.changed, folder.total("a")), (false, true, Some(333)));
    let scan = folder.loader.scan(false);
    assert_eq!((scan.pending, scan.changed), (false, false));
}

#[test]
fn write_then_rename_is_one_change_and_never_a_withdrawal() {
    let mut folder = Folder::with(&[("a.json", &figure("a", 1))]);
    fs::rename(folder.path("a.json"), folder.path("a.json~")).unwrap();
    let scan = folder.loader.scan(false);
    assert_eq!((scan.pending, folder.total("a")), (true, Some(1)));
    folder.write(".a.json.tmp", &figure("a", 2));
    fs::rename(folder.path(".a.json.tmp"), folder.path("a.json")).unwrap();
    let changes = (0..5).filter(|_| folder.loader.scan(false).changed).count();
    assert_eq!((changes, folder.total("a")), (1, Some(2)));
}

#[test]
fn a_deleted_file_withdraws_its_figures_and_its_problems() {
    let mut folder =
        Folder::with(&[("a.json", &figure("a", 1)), ("b.json", "{"), ("c.json", &figure("c", 1))]);
    fs::remove_file(folder.path("a.json")).unwrap();
    fs::remove_file(folder.path("b.json")).unwrap();
    folder.settle();
    assert_eq!((folder.names().as_str(), folder.problems().len()), ("c", 0));
    fs::remove_dir_all(folder.dir.path()).unwrap();
    folder.settle();
    assert_eq!(folder.names(), "");
    let missing = "DIR: No such file or directory (os error 2); should it appear, it is read then";
    assert_eq!(folder.problems(), [missing]);
    fs::create_dir(folder.dir.path()).unwrap();
    folder.write("a.json", &figure("a", 5));
    folder.settle();
    assert_eq!((folder.total("a"), folder.problems().len()), (Some(5), 0));
}

#[test]
fn of_two_figures_with_one_name_the_first_by_path_is_served() {
    let mut folder = Folder::configured(
        &[("b.json", &figure("duck", 2)), ("a.json", &format!("[{},{}]", figure("x", 1), figure("x", 2)))],
        |mut config| {
            config.figures.push("builtin".into());
            config
        },
    );
    assert_eq!((folder.total("x"), folder.total("duck")), (Some(1), Some(2)));
    assert_eq!(
        folder.problems(),
        [
            "DIR/a.json: figure x 1/1 is there twice; the first is served",
            "builtin: figure duck 1/1 is served from DIR/b.json"
        ]
    );
    folder.write("a.json", &figure("duck", 3));
    folder.settle();
    assert_eq!(folder.total("duck"), Some(3));
    assert_eq!(
        folder.problems(),
        [
            "DIR/b.json: figure duck 1/1 is served from DIR/a.json",
            "builtin: figure duck 1/1 is served from DIR/a.json"
        ]
    );
}

#[test]
fn only_serves_what_it_names_and_says_what_is_not_there() {
    let folder =
        Folder::configured(&[("a.json", &figure("a", 1)), ("b.json", &figure("b", 1))], |mut config| {
            config.only = vec!["A".into(), "giraffe".into(), "x y".into()];
            config
        });
    assert_eq!(folder.names(), "a");
    assert_eq!(
        folder.problems(),
        [
            "--only: \"x y\": a figure name is 1 to 64 of a-z, 0-9, '.', '_' and '-'",
            "--only: there is no figure giraffe"
        ]
    );
}

#[test]
fn links_to_files_are_followed_and_pipes_are_not_opened() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("real"), figure("a", 1)).unwrap();
    let mut folder = Folder::with(&[]);
    assert_eq!(folder.problems(), ["DIR: holds no file that ends in .json, .toml, .csv, .ldr or .mpd"]);
    std::os::unix::fs::symlink(outside.path().join("real"), folder.path("link.json")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path("zero.json")).unwrap();
    std::os::unix::fs::symlink("gone", folder.path("dangling.json")).unwrap();
    folder.settle();
    assert_eq!(folder.names(), "a");
    assert_eq!(folder.problems(), ["DIR/zero.json: is no regular file"]);
    fs::write(outside.path().join("real"), figure("a", 22)).unwrap();
    folder.settle();
    assert_eq!(folder.total("a"), Some(22));
}

#[test]
fn what_names_a_file_is_safe_to_print() {
    let folder = Folder::with(&[("a\u{1b}[2J\n.json", "{")]);
    assert_eq!(folder.problems(), [r"DIR/a\u{1b}[2J\u{a}.json:1: EOF while parsing an object"]);
}

#[test]
fn a_hundred_problems_are_named_and_the_rest_counted() {
    let twice: Vec<String> = (0..150).map(|i| figure(&format!("f{i}"), 1)).collect();
    let folder = Folder::with(&[
        ("a.json", &format!("[{}]", twice.join(","))),
        ("b.json", &format!("[{}]", twice.join(","))),
    ]);
    assert_eq!(folder.loader.shelf().len(), 150);
    assert_eq!(folder.problems().len(), 101);
    assert_eq!(folder.problems()[100], "--figures: 50 more problems");
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let folder = Folder::with(&[]);
    let file = File::create(folder.path("a.json")).unwrap();
    file.set_len(FILE_BYTES_MAX as u64 + 1).unwrap();
    let mut folder = folder;
    folder.settle();
    assert_eq!(folder.problems(), ["DIR/a.json: larger than 64 MiB; use several files"]);
}
