//! Requests that cross bridges: what they cost beside local ones, and who serves them when something is full or breaks.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Claim;
use super::bridges::{DELAY, OF_NORTH, OF_SOUTH, PATIENCE, Pair, asking, found};
use crate::archipelago::Archipelago;
use crate::client::Connection;
use crate::copier;
use crate::figures;
use crate::load::{Load, Plan};
use crate::measure::percentile;
use crate::network::Host;
use crate::runner::Run;
use crate::service::Service;

mod carrying;

pub(super) const SCENARIOS: &[Claim] = &[
    ("tunnels::what_new_tunnels_cost", new_tunnels),
    ("tunnels::beside_bridges_that_only_copy", beside_copiers),
    ("tunnels::what_one_island_cannot_admit_another_serves", handed_over),
    ("tunnels::one_that_breaks_before_an_answer_is_made_up_for_elsewhere", broken),
    ("tunnels::beside_bare_quic", carrying::beside_bare_quic),
    ("tunnels::farewells_do_not_wait_for_downloads", carrying::farewells_beside_downloads),
];

/// How long the service behind the sidecars takes.
const SLOW: Duration = Duration::from_millis(200);

/// One tunnel, asked for by hand as an intermediary would.
struct Tunnel(BufReader<TcpStream>);

impl Tunnel {
    /// No tunnel: a connection that leads straight there.
    fn direct(from: &Host, to: SocketAddr) -> Result<Self> {
        let stream = from.enter(|| TcpStream::connect(to))??;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks the bridge for a tunnel to that member and sends what is to go along.
    fn ask(from: &Host, bridge: SocketAddr, target: &str, early: &str) -> Result<Self> {
        let mut tunnel = Self::direct(from, bridge)?;
        let nonce = "0".repeat(32);
        let wish = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nIsle-Nonce: {nonce}\r\n\r\n");
        tunnel.send(&format!("{wish}{early}"))?;
        Ok(tunnel)
    }

    fn send(&mut self, request: &str) -> Result<()> {
        Ok(self.0.get_mut().write_all(request.as_bytes())?)
    }

    /// The length of what comes behind a head that says 200.
    fn head(&mut self) -> Result<usize> {
        let (mut status, mut length) = (String::new(), 0);
        self.0.read_line(&mut status)?;
        ensure!(status.starts_with("HTTP/1.1 200 "), "{status}");
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse()?
                }
                Some(_) => {}
                None if line.trim_end().is_empty() => return Ok(length),
                None => bail!("no field: {line:?}"),
            }
        }
    }

    fn answer(&mut self) -> Result<()> {
        let mut body = vec![0; self.head()?];
        Ok(self.0.read_exact(&mut body)?)
    }
}

/// For a member's own figures.
fn local(path: &str, host: &str) -> String {
    format!("GET /local{path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn new_tunnels(run: &Run) -> Result<()> {
    let mut pair = Pair::start(run)?;
    let (client, hub) = pair.asking("north")?;
    found(&client, hub, OF_SOUTH)?;
    found(&client, hub, OF_NORTH)?;
    let round_trip = pair.round_trip()?;
    by_bridges(run, &mut pair, &client, round_trip)?;
    by_intermediary(run, &client, hub, round_trip)
}

/// The bridges' part: tunnels asked for by hand.
fn by_bridges(run: &Run, pair: &mut Pair, client: &Host, round_trip: Duration) -> Result<()> {
    let bridge = pair.both.running("n-bridge")?.http();
    let near = pair.node("north", "n-p1")?.http();
    let target = format!("{}:1233", pair.node("south", "s-p1")?.id());
    let (near_ask, far_ask) = (local(OF_NORTH, &near.to_string()), local(OF_SOUTH, &target));
    let (mut locals, mut firsts, mut earlies, mut warms) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..run.count(10, 100) {
        let began = Instant::now();
        let mut direct = Tunnel::direct(client, near)?;
        direct.send(&near_ask)?;
        direct.answer()?;
        locals.push(began.elapsed());

        let began = Instant::now();
        let mut tunnel = Tunnel::ask(client, bridge, &target, "")?;
        tunnel.head()?;
        tunnel.send(&far_ask)?;
        tunnel.answer()?;
        firsts.push(began.elapsed());

        let began = Instant::now();
        let mut tunnel = Tunnel::ask(client, bridge, &target, &far_ask)?;
        tunnel.head()?;
        tunnel.answer()?;
        earlies.push(began.elapsed());

        let began = Instant::now();
        tunnel.send(&far_ask)?;
        tunnel.answer()?;
        warms.push(began.elapsed());
    }
    let [local, first, early, warm] = [locals, firsts, earlies, warms].map(|took| percentile(&took, 50));
    let added = |took: Duration| took.saturating_sub(local);
    run.measures.note(format!(
        "by hand, medians: round trip {round_trip:?}; local {local:?}; added by a first contact {:?}, by a new tunnel with the request along {:?}, by a warm one {:?}",
        added(first),
        added(early),
        added(warm)
    ));
    let limit = run.bound(Duration::from_millis(15), Duration::from_millis(5));
    ensure!(added(first) <= round_trip * 2 + limit, "a first contact adds {:?}", added(first));
    ensure!(added(early) <= round_trip + limit, "a new tunnel adds {:?}", added(early));
    let limit = run.bound(Duration::from_millis(5), Duration::from_micros(300));
    ensure!(added(warm) <= round_trip + limit, "a warm tunnel adds {:?}", added(warm));
    Ok(())
}

/// The whole way: a client asks an intermediary.
fn by_intermediary(run: &Run, client: &Host, hub: SocketAddr, round_trip: Duration) -> Result<()> {
    let mut connection = Connection::open(client, hub)?;
    let mut locals = Vec::new();
    for _ in 0..run.count(20, 100) {
        locals.push(connection.get(OF_NORTH)?.took);
    }
    let near = percentile(&locals, 50);
    // Three members hold it; the one that was asked first is known.
    let (mut seen, mut firsts) = (BTreeSet::new(), Vec::new());
    for _ in 0..200 {
        let answer = connection.get(OF_SOUTH)?;
        figures::check(OF_SOUTH, &answer).map_err(anyhow::Error::msg)?;
        let page = answer.json()?;
        let who = page["sources"][0]["name"].as_str().context("no source")?.to_owned();
        if seen.insert(who) {
            firsts.push(answer.took.saturating_sub(near));
        }
        if seen.len() == 3 {
            break;
        }
    }
    let first = percentile(&firsts, 50);
    // In each round one more asks at once than ever before: one new tunnel at least, to a member that is known.
    let (mut asking, mut news) = (vec![connection], Vec::new());
    for _ in 0..run.count(5, 8) {
        asking.push(Connection::open(client, hub)?);
        let took: Vec<Duration> = thread::scope(|scope| {
            let all: Vec<_> = asking
                .iter_mut()
                .map(|client| scope.spawn(|| client.get(OF_SOUTH).map(|answer| answer.took)))
                .collect();
            all.into_iter().map(|asked| asked.join().expect("a client reports")).collect::<Result<_, _>>()
        })?;
        news.push(took.into_iter().max().context("nobody asked")?.saturating_sub(near));
    }
    let new = percentile(&news, 50);
    run.measures.note(format!(
        "through an intermediary, medians: local {near:?}; added by a first contact {first:?}, by the slowest of some at once {new:?}"
    ));
    let limit = run.bound(Duration::from_millis(30), Duration::from_millis(5));
    ensure!(first <= round_trip * 2 + limit, "a first contact adds {first:?}");
    ensure!(new <= round_trip + limit, "a new tunnel adds {new:?}");
    Ok(())
}

/// A request over a kept tunnel, and over the same way by stand-ins that only copy, each beside one to a member nearby.
fn beside_copiers(run: &Run) -> Result<()> {
    let mut pair = Pair::start(run)?;
    let (client, hub) = pair.asking("north")?;
    found(&client, hub, OF_SOUTH)?;
    let bridge = pair.both.running("n-bridge")?.http();
    let near = pair.node("north", "n-p1")?.http();
    let (member, id) = {
        let there = pair.node("south", "s-p1")?;
        (there.http(), there.id().to_owned())
    };
    let there = SocketAddr::from((pair.both.bridges["s-bridge"].address, copier::PORT));
    let relay = pair.both.sea.relay_to(there, DELAY)?;
    let hosts = ["n-bridge", "s-bridge"].map(|label| &pair.both.bridges[label].host);
    let at = copier::copy((hosts[0], bridge.ip()), relay.at, hosts[1], member)?;
    let target = format!("{id}:{}", member.port());
    let (near_ask, far_ask) = (local(OF_NORTH, &near.to_string()), local(OF_SOUTH, &target));
    let (mut nearby, mut copied) = (Tunnel::direct(&client, near)?, Tunnel::direct(&client, at)?);
    let mut tunnel = Tunnel::ask(&client, bridge, &target, "")?;
    tunnel.head()?;
    let round_trip = pair.round_trip()?;
    let mut took = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..run.count(20, 200) {
        let all = [(&mut nearby, &near_ask), (&mut tunnel, &far_ask), (&mut copied, &far_ask)];
        for ((connection, ask), took) in all.into_iter().zip(&mut took) {
            // Each begins on a machine that has gone to sleep, as it has when the sea's round trip is over.
            thread::sleep(DELAY);
            let began = Instant::now();
            connection.send(ask)?;
            connection.answer()?;
            took.push(began.elapsed());
        }
    }
    let [near, tunnel, copied] = took.map(|took| percentile(&took, 50));
    let over = |took: Duration| took.saturating_sub(near).saturating_sub(round_trip);
    run.measures.note(format!(
        "a round trip of {round_trip:?}; beyond it and a local request of {near:?}, medians: a kept tunnel {:?}, bridges that only copy {:?}",
        over(tunnel),
        over(copied),
    ));
    let limit = over(copied) + run.bound(Duration::from_millis(5), Duration::from_micros(500));
    ensure!(over(tunnel) <= limit, "the bridges' own part is {:?}", over(tunnel) - over(copied));
    Ok(())
}

/// North has an intermediary with these arguments; south has another, and two slow sidecars that offer the same.
fn slow_south(run: &Run, arguments: &[&str]) -> Result<(Archipelago, Vec<Service>)> {
    let mut both = Archipelago::new(run, &["north", "south"])?;
    both.node("north", "n-hub", &[&["intermediary"], arguments].concat())?;
    both.node("south", "s-hub", &["intermediary"])?;
    let mut services = Vec::new();
    for label in ["s-1", "s-2"] {
        let there = both.island("south")?;
        let host = there.host(label)?;
        let service = Service::start(&host, SLOW)?;
        let offers = ["pieces", "--upstream", &service.url(), "--offers", "slow", "--island", "south"];
        let sidecar = there.join(&host, &offers)?;
        there.nodes.push(sidecar);
        services.push(service);
    }
    both.join()?;
    both.complete(6, PATIENCE)?;
    let (client, hub) = asking(&mut both, "north")?;
    found(&client, hub, "/figures/slow")?;
    Ok((both, services))
}

fn plan(hub: SocketAddr, clients: u32) -> Plan {
    let check = |_: &str, answer: &crate::client::Answer| match answer.status {
        200 => Ok(()),
        status => Err(format!("{status} {}", answer.text())),
    };
    Plan {
        targets: vec![hub],
        paths: vec!["/figures/slow".to_owned()],
        per_second: clients * 5,
        clients,
        check,
    }
}

fn handed_over(run: &Run) -> Result<()> {
    let (mut both, services) = slow_south(run, &["--max-in-flight", "4"])?;
    let (client, hub) = asking(&mut both, "north")?;
    let storm = |lasting: Duration| {
        let load = Load::start(&client, &plan(hub, 12));
        thread::sleep(lasting);
        load.stop()
    };
    let passed = |via: &String| via.split(',').filter(|entry| !entry.trim().is_empty()).count();
    let hops = || services.iter().flat_map(Service::vias).map(|via| passed(&via)).collect::<Vec<_>>();
    // How busy another island is, one learns some seconds after it can be reached.
    let until = Instant::now() + PATIENCE;
    while !hops().contains(&2) {
        ensure!(Instant::now() < until, "nothing is ever handed over");
        storm(Duration::from_millis(300));
    }
    let (began, before) = (Instant::now(), hops().iter().filter(|passed| **passed == 2).count());
    let outcome = storm(Duration::from_secs(2));
    outcome.demand_flawless(began)?;
    let hops = hops();
    let handed = hops.iter().filter(|passed| **passed == 2).count() - before;
    run.measures.note(format!(
        "{} served of 12 clients at the only intermediary of an island, with --max-in-flight 4: {handed} by one of another island",
        outcome.right
    ));
    ensure!(hops.iter().all(|passed| *passed <= 2), "a request passed more than two: {hops:?}");
    ensure!(handed > 10, "only {handed} were handed over");
    Ok(())
}

fn broken(run: &Run) -> Result<()> {
    for _ in 0..run.count(1, 5) {
        let (mut both, services) = slow_south(run, &[])?;
        let (client, hub) = asking(&mut both, "north")?;
        let began = Instant::now();
        let load = Load::start(&client, &plan(hub, 8));
        thread::sleep(Duration::from_secs(1));
        // Of eight requests under way some are there, in tunnels that break.
        let mut dying = both.island("south")?.take("s-1")?;
        let before = services[1].served();
        dying.kill()?;
        dying.ended(PATIENCE)?;
        thread::sleep(Duration::from_secs(1));
        let outcome = load.stop();
        outcome.demand_flawless(began)?;
        ensure!(services[0].served() > 0, "nothing was asked of the one that was killed");
        ensure!(services[1].served() > before, "the other was not asked");
        run.measures.note(format!("{} served around the death of one of two far members", outcome.right));
    }
    Ok(())
}
