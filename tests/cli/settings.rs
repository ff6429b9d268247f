//! Flags, environment and file, as a node and `isle config` take them.

use std::net::TcpListener;

use crate::harness::{Running, Said, http, isle, node, run};

#[test]
fn settings_come_from_flags_then_environment_then_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("isle.toml");
    std::fs::write(&file, "name = 'file'\nisland = 'file'\n\nmesh = 'file'\n").unwrap();
    let mut command = isle(&["config", "--json", "--name", "flag", "--config", file.to_str().unwrap()]);
    command.env("ISLE_NAME", "env").env("ISLE_ISLAND", "env").env("ISLE_OF_MAN", "unknown");
    let said = Said::of(&command.output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let all: Vec<serde_json::Value> = serde_json::from_str(&said.stdout).unwrap();
    let of = |name: &str| {
        let setting = all.iter().find(|setting| setting["name"] == name).unwrap();
        format!("{} {}", setting["values"][0], setting["origin"])
    };
    assert_eq!(of("name"), "\"flag\" \"flag\"");
    assert_eq!(of("island"), "\"env\" \"env\"");
    assert_eq!(of("mesh"), "\"file\" \"file\"");
    assert_eq!(of("drain-timeout"), "\"30s\" \"default\"");
    let at = all.iter().find(|setting| setting["name"] == "mesh").unwrap()["at"].as_str().unwrap();
    assert!(at.ends_with("isle.toml:4"), "{at}");
}

#[test]
fn what_means_nothing_is_2_and_named_where_it_stands() {
    let said = run(&["up", "--listen", "localhost:80"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    assert!(said.stderr.starts_with("isle: --listen: \"localhost:80\" is not IP:PORT"), "{}", said.stderr);
    let output = isle(&["pieces"]).env("ISLE_DRAIN_TIMEOUT", "soon").output().unwrap();
    let said = Said::of(&output);
    assert_eq!(said.code, Some(2));
    assert!(
        said.stderr.starts_with("isle: ISLE_DRAIN_TIMEOUT: \"soon\" is not a length of time"),
        "{}",
        said.stderr
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("isle.toml");
    std::fs::write(&file, "name = 'a'\nlisten-on = '[::]:0'\n").unwrap();
    let said = run(&["intermediary", "--config", file.to_str().unwrap()]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("isle.toml:2: there is no setting \"listen-on\""), "{}", said.stderr);
    assert_eq!(run(&["up", "--config", "/nonexistent/isle.toml"]).code, Some(2));
}

#[test]
fn a_taken_port_is_said_with_its_holder_and_a_way_out() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let said = Said::of(&node("pieces", &["--listen", &address]).output().unwrap());
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""));
    assert!(said.stderr.contains(&format!("isle: {address} is taken by ")), "{}", said.stderr);
    assert!(said.stderr.contains("--listen 127.0.0.1:0"), "{}", said.stderr);
}

#[test]
fn a_node_says_when_it_is_ready_and_leaves_with_0() {
    let mut running = Running::start(node("up", &["--listen", "127.0.0.1:0", "--name", "kitchen"]));
    let ready = running.line();
    assert!(ready.starts_with("ready name=kitchen id="), "{ready}");
    assert!(http(&ready).starts_with("http://127.0.0.1:"), "{ready}");
    assert_eq!(running.interrupted(), Some(0));
}

#[test]
fn a_tethered_node_ends_with_whoever_started_it() {
    let mut command = node("pieces", &["--listen", "127.0.0.1:0", "--tether"]);
    command.stdin(std::process::Stdio::piped());
    let mut running = Running::start(command);
    assert!(running.line().starts_with("ready "));
    assert_eq!(running.let_go(), Some(1));
}
