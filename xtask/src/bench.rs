//! Isle beside its rivals: each plays the same scenario, and one table shows what was measured.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::run::{cargo, demand};
use crate::scenarios;
use crate::sim::SIMULATION;

/// What to compare.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// How soon crashes, farewells and newcomers are known, what is imagined, and what it costs.
    Detection(Detection),
    /// What a tunnel between islands carries beside a bare QUIC stream between the same hosts, and what that costs (release build;
    /// needs root, iproute2, nftables).
    Tunnel,
}

/// In virtual time: Isle's state machine and foca's, untuned and tuned. With --real, in network namespaces: Isle and serf.
#[derive(Args)]
pub(crate) struct Detection {
    /// Members of the simulated island.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(8..=5000))]
    members: u32,
    /// So many crash, so many leave, twice as many come; one at a time. At most a quarter of the members.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    crashes: u32,
    /// Share of all datagrams that are lost.
    #[arg(long, default_value_t = 0.05)]
    loss: f64,
    /// Share of the members that stand still now and then: 0.2 to 1.5 s, after 0.5 to 3.5 s.
    #[arg(long, default_value_t = 0.0)]
    stalls: f64,
    /// The same seed gives the same numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Real processes too: so many hosts on one bridge that loses 5 % (needs root, iproute2, nftables, serf; takes up to an hour).
    #[arg(long, value_name = "HOSTS", value_parser = clap::value_parser!(u32).range(2..=200))]
    real: Option<u32>,
}

pub(crate) fn run(what: &Bench) -> Result<()> {
    match what {
        Bench::Detection(detection) => detection.run(),
        Bench::Tunnel => in_a_folder(beside_bare_quic),
    }
}

/// Has `work` done with a folder that is gone afterwards.
fn in_a_folder(work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("isle-bench-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let outcome = work(&folder);
    fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    outcome
}

fn beside_bare_quic(folder: &Path) -> Result<()> {
    let report = folder.join("tunnel");
    let mut command = scenarios::trial();
    // What was measured before a bound was missed is shown, too.
    let outcome = demand(command.arg("tunnels::beside_bare_quic").env("ISLE_SIMULATION_REPORT", &report));
    println!(
        "\nOne download of 1 GiB; eight clients that ask for 1 KiB. Medians of rounds that take turns.\n"
    );
    print!("{}", table(&read(&report)?));
    outcome
}

impl Detection {
    fn run(&self) -> Result<()> {
        ensure!(self.crashes <= self.members / 4, "--crashes is more than a quarter of --members");
        ensure!((0.0..1.0).contains(&self.loss), "--loss is a share: 0 to less than 1");
        ensure!((0.0..1.0).contains(&self.stalls), "--stalls is a share: 0 to less than 1");
        in_a_folder(|folder| self.compare(folder))
    }

    fn compare(&self, folder: &Path) -> Result<()> {
        let simulated = folder.join("simulated");
        self.simulate(&simulated)?;
        let mut lines = read(&simulated)?;
        lines.extend(self.foca()?);
        println!(
            "In virtual time: {} members, {} % loss, 0 to 2 ms delay, {} crashes, seed {}, {} % stalling; payloads without headers.\n",
            self.members,
            self.loss * 100.0,
            self.crashes,
            self.seed,
            self.stalls * 100.0
        );
        print!("{}", table(&lines));
        if let Some(hosts) = self.real {
            let real = folder.join("real");
            // What was measured before a bound was missed is shown, too.
            let outcome = trial(hosts, &real);
            println!("\nReal processes: {hosts} hosts, 5 % loss; packets with headers, as sent by a host.\n");
            print!("{}", table(&read(&real)?));
            outcome?;
        }
        Ok(())
    }

    /// What both play: a variable of the environment for one, an option for the other.
    fn settings(&self) -> [(&'static str, String); 5] {
        [
            ("members", self.members.to_string()),
            ("crashes", self.crashes.to_string()),
            ("loss", self.loss.to_string()),
            ("stalls", self.stalls.to_string()),
            ("seed", self.seed.to_string()),
        ]
    }

    /// Isle's own state machine.
    fn simulate(&self, report: &Path) -> Result<()> {
        let mut command = cargo(&SIMULATION);
        command.args(["beside_rivals", "--include-ignored"]);
        for (name, value) in self.settings() {
            command.env(format!("ISLE_SIMULATION_{}", name.to_uppercase()), value);
        }
        demand(command.env("ISLE_SIMULATION_REPORT", report))
    }

    /// The rivals' workspace prints a line for each configuration.
    fn foca(&self) -> Result<Vec<Value>> {
        let mut command =
            cargo(&["run", "--release", "--quiet", "--manifest-path", "rivals/Cargo.toml", "--"]);
        for (name, value) in self.settings() {
            command.args([format!("--{name}"), value]);
        }
        let output = command.stderr(std::process::Stdio::inherit()).output().context("starting cargo")?;
        ensure!(output.status.success(), "the rivals failed ({})", output.status);
        parse(&String::from_utf8_lossy(&output.stdout))
    }
}

/// Isle and serf on real wires, on the release build.
fn trial(hosts: u32, report: &Path) -> Result<()> {
    let mut command = scenarios::trial();
    command.arg("detection::beside_serf").env("ISLE_TRIAL_MEMBERS", hosts.to_string());
    demand(command.env("ISLE_SIMULATION_REPORT", report))
}

fn read(report: &Path) -> Result<Vec<Value>> {
    // A trial that could not begin has written nothing.
    let text = if report.exists() { fs::read_to_string(report)? } else { String::new() };
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<Value>> {
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a line of a report: {line}")))
        .collect()
}

/// Milliseconds of each of these, where it was measured.
const TIMES: [(&str, [&str; 3]); 4] = [
    ("crash known to another", ["crash_p50_ms", "crash_p99_ms", "crash_max_ms"]),
    ("unplugged known to another", ["unplug_p50_ms", "unplug_p99_ms", "unplug_max_ms"]),
    ("left known to another", ["leave_p50_ms", "leave_p99_ms", "leave_max_ms"]),
    ("newcomer has the table", ["newcomer_p50_ms", "newcomer_p99_ms", "newcomer_max_ms"]),
];
/// The rest, with as many decimals.
const RATES: [(&str, &str, usize); 9] = [
    ("newcomers without", "newcomers_incomplete", 0),
    ("words that never came", "missed", 0),
    ("false downs", "false_downs", 0),
    ("node-days", "node_days", 3),
    ("bytes/s", "bytes_per_second", 0),
    ("packets/s", "packets_per_second", 1),
    ("MB/s", "megabytes_per_second", 0),
    ("processor s/GB", "seconds_per_gigabyte", 2),
    ("requests/s", "requests_per_second", 0),
];

/// A table in Markdown: a line for each product. A column of which nobody measured anything is left out.
fn table(lines: &[Value]) -> String {
    let mut columns = vec![(
        "product".to_owned(),
        lines.iter().map(|line| line["product"].as_str().unwrap_or("?").to_owned()).collect::<Vec<_>>(),
    )];
    for (title, keys) in TIMES {
        let cells = lines.iter().map(|line| {
            let cell = |key: &str| number(&line[key], 0);
            keys.map(cell).join(" / ")
        });
        columns.push((format!("{title}, ms: p50 / p99 / worst"), cells.collect()));
    }
    for (title, key, decimals) in RATES {
        columns.push((title.to_owned(), lines.iter().map(|line| number(&line[key], decimals)).collect()));
    }
    let is_empty = |cell: &String| cell.split(" / ").all(|part| part == NOTHING);
    columns.retain(|(_, cells)| !cells.iter().all(is_empty));
    let row = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut table = row(columns.iter().map(|(title, _)| title.as_str()).collect());
    let _ = writeln!(table, "|{}", "---|".repeat(columns.len()));
    for line in 0..lines.len() {
        table += &row(columns.iter().map(|(_, cells)| cells[line].as_str()).collect());
    }
    table
}

/// What stands where nothing was measured, or some never came at all.
const NOTHING: &str = "–";

fn number(value: &Value, decimals: usize) -> String {
    value.as_f64().map_or_else(|| NOTHING.to_owned(), |number| format!("{number:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_for_each_product_and_no_column_without_a_number() {
        let lines = [
            json!({"product": "a", "crash_p50_ms": 1.4, "crash_p99_ms": 2, "crash_max_ms": null, "node_days": 0.5}),
            json!({"product": "b", "node_days": 1}),
        ];
        assert_eq!(
            table(&lines),
            "| product | crash known to another, ms: p50 / p99 / worst | node-days |\n|---|---|---|\n\
             | a | 1 / 2 / – | 0.500 |\n| b | – / – / – | 1.000 |\n"
        );
    }

    #[test]
    fn a_report_that_is_none_says_which_line() {
        let error = parse("{}\nrubbish").expect_err("the second line is no JSON");
        assert!(error.to_string().contains("rubbish"), "{error}");
    }
}
