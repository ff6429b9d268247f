//! Full intermediaries hand over; when all are full, the client is told at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Claim;
use crate::client::Answer;
use crate::island::Island;
use crate::load::{Load, Outcome, Plan};
use crate::measure::{percentile, spread};
use crate::node::eventually;
use crate::runner::Run;
use crate::service::Service;

pub(super) const SCENARIOS: &[Claim] = &[
    ("overload::what_one_intermediary_cannot_admit_its_peers_serve", handed_over),
    ("overload::when_all_are_full_the_refusal_is_prompt_and_says_why", all_full),
];

/// How long the service behind the sidecars takes: 40 requests per second fill `--max-in-flight 8`.
const SLOW: Duration = Duration::from_millis(200);

/// Three intermediaries with these arguments and two slow sidecars.
fn three(run: &Run, limits: [&[&str]; 3]) -> Result<(Island, Vec<Service>)> {
    let mut island = Island::empty(run)?;
    let mut services = Vec::new();
    for name in ["s1", "s2"] {
        let host = island.host(name)?;
        let service = Service::start(&host, SLOW)?;
        let url = service.url();
        let sidecar = island.join(&host, &["pieces", "--upstream", &url, "--offers", "slow"])?;
        island.nodes.push(sidecar);
        services.push(service);
    }
    for (name, limit) in ["i1", "i2", "i3"].into_iter().zip(limits) {
        let host = island.host(name)?;
        island.nodes.push(island.join(&host, &[&["intermediary"], limit].concat())?);
    }
    island.agree()?;
    for name in ["i1", "i2", "i3"] {
        let node = island.node(name)?;
        eventually("both sidecars' figure", Duration::from_secs(5), || {
            Ok(node.ask("/figures")?["figures"][0]["sources"] == 2)
        })?;
    }
    Ok((island, services))
}

fn storm(island: &Island, targets: Vec<SocketAddr>, clients: u32, check: crate::load::Check) -> Outcome {
    let plan = Plan { targets, paths: vec!["/figures/slow".into()], per_second: clients * 5, clients, check };
    let load = Load::start(&island.client, &plan);
    thread::sleep(Duration::from_secs(3));
    load.stop()
}

fn handed_over(run: &Run) -> Result<()> {
    let (island, services) = three(run, [&["--max-in-flight", "8"], &[], &[]])?;
    let began = Instant::now();
    // 32 clients that ask one after another hold four times what the first admits.
    let outcome = storm(&island, vec![island.node("i1")?.http()], 32, served);
    outcome.demand_flawless(began)?;
    let mut hops = BTreeMap::new();
    for via in services.iter().flat_map(Service::vias) {
        *hops.entry(via.split(',').filter(|entry| !entry.trim().is_empty()).count()).or_insert(0) += 1;
    }
    let took = outcome.latencies.values().flatten().copied().collect::<Vec<_>>();
    run.measures.note(format!(
        "{} served of 32 clients at an intermediary with --max-in-flight 8: {}; intermediaries passed: {hops:?}",
        outcome.right,
        spread(&took)
    ));
    ensure!(hops.keys().all(|passed| *passed <= 2), "requests passed more than two intermediaries: {hops:?}");
    ensure!(hops.keys().len() >= 2, "nothing was handed over: {hops:?}");
    // Admitted work alone would be 40 per second.
    ensure!(outcome.right > 200, "only {} served in 3 s", outcome.right);
    Ok(())
}

fn all_full(run: &Run) -> Result<()> {
    let eight: &[&str] = &["--max-in-flight", "8"];
    let (island, services) = three(run, [eight; 3])?;
    let mut targets = Vec::new();
    for name in ["i1", "i2", "i3"] {
        targets.push(island.node(name)?.http());
    }
    let began = Instant::now();
    let outcome = storm(&island, targets, 96, served_or_refused);
    outcome.demand_flawless(began)?;
    let refusals = outcome.latencies.get(&503).cloned().unwrap_or_default();
    run.measures.note(format!(
        "{} served, {} refused of 96 clients at 3 x 8: refusals {}",
        outcome.count(200),
        refusals.len(),
        spread(&refusals)
    ));
    ensure!(!refusals.is_empty(), "nobody was refused");
    ensure!(outcome.count(200) > 60, "only {} were served", outcome.count(200));
    let bound = run.bound(Duration::from_secs(1), Duration::from_millis(100));
    let prompt = percentile(&refusals, 99);
    ensure!(prompt < bound, "a refusal took {prompt:?}");
    ensure!(services.iter().map(Service::served).sum::<usize>() > 60, "the services have hardly served");
    Ok(())
}

fn served(_: &str, answer: &Answer) -> Result<(), String> {
    if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
}

fn served_or_refused(_: &str, answer: &Answer) -> Result<(), String> {
    let reason = || answer.json().ok()?["reason"].as_str().map(str::to_owned);
    match answer.status {
        200 => Ok(()),
        503 if answer.header("retry-after").is_some() && reason().is_some() => Ok(()),
        status => Err(format!("{status} {:?} {}", answer.headers, answer.text())),
    }
}
