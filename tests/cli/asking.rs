//! Commands that ask a node.

use std::net::TcpListener;

use serde_json::Value;

use crate::harness::{Running, answering, http, isle, node, run};

#[test]
fn members_status_and_watch_tell_of_a_node_and_its_farewell() {
    let mut kitchen = Running::start(node("up", &["--listen", "127.0.0.1:0", "--name", "kitchen"]));
    let at = http(&kitchen.line());
    let members = run(&["members", "--at", &at]);
    assert_eq!(members.code, Some(0), "{}", members.stderr);
    let words: Vec<_> = members.stdout.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((words.len(), &words[..4]), (8, &["kitchen", "local", "pieces,intermediary", "alive"][..]));
    assert!(!members.stdout.contains('\u{1b}'), "no colours in a pipe");
    let colored = run(&["members", "--at", &at, "--color", "always"]);
    assert!(colored.stdout.contains("\u{1b}[32malive\u{1b}[0m"), "{}", colored.stdout);
    let json = run(&["members", "--json", "--at", &at]);
    let page: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(page["self"]["name"], "kitchen");
    let one = run(&["members", "kitchne", "--at", &at]);
    assert_eq!(one.code, Some(1));
    assert!(one.stderr.contains("did you mean kitchen?"), "{}", one.stderr);
    let status = run(&["status", "--check", "--at", &at]);
    assert_eq!(status.code, Some(0), "{}{}", status.stdout, status.stderr);

    let mut watch = Running::start(isle(&["watch", "--json", "--at", &at]));
    let snapshot: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!(snapshot["event"], "snapshot");
    assert_eq!(snapshot["data"]["self"]["name"], "kitchen");
    assert_eq!(kitchen.interrupted(), Some(0));
    assert_eq!(watch.interrupted(), Some(0), "it waits for the node until it is told to stop");
}

#[test]
fn a_figure_that_does_not_exist_is_3_with_one_that_does() {
    let address = answering(&[(
        "/figures?",
        r#"{"figures":[{"name":"duck","total":9,"shares":"1/1","sources":2},
            {"name":"giraffe","total":28,"shares":"1/1","sources":2}],"next":null}"#,
    )]);
    let said = run(&["get", "girafe", "--at", &address.to_string()]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(3), ""));
    assert!(said.stderr.contains("there is no figure \"girafe\"; did you mean giraffe?"), "{}", said.stderr);
    let said = run(&["get", "no such name", "--at", &address.to_string()]);
    assert_eq!(said.code, Some(3));
}

#[test]
fn a_figure_goes_into_a_pipe_or_a_file_as_it_was_asked_for() {
    const DUCK: &str =
        r#"{"name":"duck","total":3,"pieces":[{"part":"brick 2x2","color":"y\u001b[2J","quantity":3}]}"#;
    let at = answering(&[("/figures/duck", DUCK)]).to_string();
    let said = run(&["get", "duck", "--at", &at]);
    assert_eq!(said.stdout, "QTY  PART       COLOUR\n  3  brick_2x2  y\\u{1b}[2J\n");
    assert!(said.stderr.contains(" ms"), "{}", said.stderr);
    let said = run(&["get", "DUCK", "--json", "--at", &at]);
    assert_eq!(said.stdout, format!("{DUCK}\n"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("duck.json");
    let said = run(&["get", "duck", "--json", "-o", file.to_str().unwrap(), "--at", &at]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), ""));
    assert_eq!(std::fs::read_to_string(file).unwrap(), format!("{DUCK}\n"));
}

#[test]
fn nobody_there_is_1_and_says_where_and_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    for command in ["members", "figures", "status", "watch"] {
        let said = run(&[command, "--at", &address]);
        assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{command}");
        assert!(said.stderr.starts_with(&format!("isle: nobody answers at {address}")), "{}", said.stderr);
        assert!(said.stderr.lines().count() == 2, "{}", said.stderr);
    }
}

#[test]
fn a_node_alone_serves_the_built_in_figures() {
    let mut kitchen = Running::start(node("up", &["--listen", "127.0.0.1:0", "--name", "kitchen"]));
    let at = http(&kitchen.line());
    let giraffe = run(&["get", "giraffe", "--at", &at]);
    assert_eq!(giraffe.code, Some(0), "{}", giraffe.stderr);
    let quantities = giraffe.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    assert_eq!(quantities.map(|quantity| quantity.parse::<u32>().unwrap()).sum::<u32>(), 28);
    assert!(giraffe.stderr.starts_with("giraffe from kitchen on local, in "), "{}", giraffe.stderr);
    let figures = run(&["figures", "--at", &at]);
    assert_eq!(figures.stdout.lines().count(), 1 + 17, "{}", figures.stdout);
    let wrong = run(&["get", "girafe", "--at", &at]);
    assert_eq!(wrong.code, Some(3));
    assert!(wrong.stderr.contains("did you mean giraffe?"), "{}", wrong.stderr);
    let explained = run(&["explain", "giraffe", "--at", &at]);
    assert!(explained.stdout.contains("kitchen  local   yes"), "{}{}", explained.stdout, explained.stderr);
    assert_eq!(run(&["explain", "girafe", "--at", &at]).code, Some(3));
    let page = run(&["get", "giraffe", "--html", "--at", &at]);
    assert!(page.stdout.starts_with("<!doctype html>"), "{}", page.stdout);
}
