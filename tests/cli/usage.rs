//! Help, wrong use, and readers that go away.

use std::io::pipe;

use crate::harness::{isle, run};

#[test]
fn isle_alone_says_five_lines() {
    let said = run(&[]);
    assert_eq!(said.code, Some(0));
    assert_eq!(said.stdout.lines().count(), 5, "{}", said.stdout);
    assert!(said.stdout.starts_with("isle demo --tour "), "{}", said.stdout);
}

#[test]
fn help_begins_with_examples_and_names_every_command() {
    let said = run(&["--help"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert!(said.stdout.starts_with("Examples:\n  isle demo --tour "), "{}", said.stdout);
    let commands =
        ["up", "pieces", "intermediary", "get", "figures", "members", "watch", "status", "explain", "config"];
    for command in commands.iter().chain(&["key", "completions", "man", "demo"]) {
        assert!(said.stdout.contains(&format!("\n  {command} ")), "{command}");
        let help = run(&["help", command]);
        assert_eq!(help.code, Some(0), "{command}");
        assert!(help.stdout.starts_with("Examples:\n  isle "), "{command}: {}", help.stdout);
    }
}

#[test]
fn wrong_use_is_2_and_says_what_was_meant() {
    let said = run(&["members", "--jsno"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    assert!(said.stderr.contains("--json"), "{}", said.stderr);
    let said = run(&["membres"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("members"), "{}", said.stderr);
    assert_eq!(run(&["get"]).code, Some(2));
    assert_eq!(run(&["get", "a", "--at", "https://x"]).code, Some(2));
    assert_eq!(run(&["demo", "--json"]).code, Some(2));
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    for arguments in [&["completions", "bash"][..], &["config"], &["config", "--json"], &[], &["--help"]] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let output = isle(arguments).stdout(writer).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stderr.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn shells_and_manuals_get_their_files() {
    for shell in ["bash", "zsh", "fish"] {
        let said = run(&["completions", shell]);
        assert!(said.code == Some(0) && said.stdout.contains("max-in-flight"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert_eq!(run(&["man", pages.to_str().unwrap()]).code, Some(0));
    let page = std::fs::read_to_string(pages.join("isle-up.1")).unwrap();
    assert!(page.contains("drain") && !page.contains("tether"), "{page}");
}
