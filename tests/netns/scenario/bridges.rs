//! Islands joined by bridges, with the same addresses on each.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Claim;
use crate::archipelago::{Archipelago, allow, link};
use crate::client::{self, Answer, Connection};
use crate::events::EventLog;
use crate::figures;
use crate::load::{Load, Plan};
use crate::measure::percentile;
use crate::network::Host;
use crate::node::Node;
use crate::runner::Run;
use crate::sea::{QUIC_PORT, Relay};

pub(super) const SCENARIOS: &[Claim] = &[
    ("bridges::two_islands_list_each_other_and_serve_each_others_figures", two_islands),
    ("bridges::farewells_and_verdicts_cross", farewells),
    ("bridges::a_cut_link_takes_an_island_away_and_nobody_down", cut),
    ("bridges::a_bridge_killed_beside_another_fails_no_request_for_long", killed_beside),
    ("bridges::the_ends_of_a_line_reach_each_other", line),
    ("bridges::a_ring_goes_the_other_way_round_when_it_is_cut", ring),
    ("bridges::a_whole_site_that_stops_is_heard_to_the_last", whole_site),
    ("bridges::a_bridge_that_stops_does_not_wait_for_idle_tunnels", idle_tunnels),
    ("bridges::tunnels_lead_to_members_alone", forbidden),
    ("bridges::a_refused_link_says_why_on_both_sides", refused),
    ("bridges::an_invite_lets_one_island_in_for_good", invited),
    ("bridges::two_bridges_without_a_name_settle_on_one_that_others_see_alone", unnamed),
    ("bridges::five_islands_all_linked_hear_a_storm_of_farewells_once", mesh_of_five),
];

/// How long datagrams take over the sea, each way.
pub(super) const DELAY: Duration = Duration::from_millis(20);
/// Long for anything that is to cross.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The figures that only one island has.
pub(super) const OF_NORTH: &str = "/figures/giraffe";
pub(super) const OF_SOUTH: &str = "/figures/shark";

/// Two islands of five on the same addresses, one link with [`DELAY`]. Each has a figure that the other lacks.
pub(super) struct Pair {
    pub(super) both: Archipelago,
    /// Between them; ends with this.
    _relay: Relay,
}

impl Pair {
    pub(super) fn start(run: &Run) -> Result<Self> {
        let mut both = Archipelago::new(run, &["north", "south"])?;
        for (island, letter, only) in [("north", "n", "giraffe"), ("south", "s", "shark")] {
            both.node(island, &format!("{letter}-hub"), &["intermediary"])?;
            for number in 1..=3 {
                both.node(island, &format!("{letter}-p{number}"), &["pieces", "--only", only])?;
            }
            both.bridge(island, &format!("{letter}-bridge"))?;
        }
        let (north, south) = (both.bridges["n-bridge"].key.clone(), both.bridges["s-bridge"].key.clone());
        let relay = both.sea.relay(both.bridges["s-bridge"].address, DELAY)?;
        both.start("n-bridge", &link(&south, relay.at))?;
        both.start("s-bridge", &allow(&north))?;
        let took = both.complete(10, run.bound(Duration::from_secs(5), Duration::from_secs(1)))?;
        run.measures.add("tables complete after the second of two bridges is ready", took);
        Ok(Self { both, _relay: relay })
    }

    /// A client of an island, and its intermediary.
    pub(super) fn asking(&mut self, island: &str) -> Result<(Host, SocketAddr)> {
        asking(&mut self.both, island)
    }

    /// Over the sea, between the hosts of the two bridges.
    pub(super) fn round_trip(&mut self) -> Result<Duration> {
        let Archipelago { sea, bridges, .. } = &mut self.both;
        let (north, south) = (&bridges["n-bridge"], &bridges["s-bridge"]);
        sea.round_trip(&north.host, (&south.host, south.address), DELAY)
    }

    pub(super) fn node(&mut self, island: &str, label: &str) -> Result<&Node> {
        self.both.island(island)?.node(label)
    }
}

pub(super) fn asking(islands: &mut Archipelago, island: &str) -> Result<(Host, SocketAddr)> {
    let there = islands.island(island)?;
    let hub = format!("{}-hub", &island[..1]);
    Ok((there.client.clone(), there.node(&hub)?.http()))
}

/// Asks until the answer is 200: catalogues cross after members.
pub(super) fn found(host: &Host, at: SocketAddr, path: &str) -> Result<Answer> {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = client::get(host, at, path)?;
        match answer.status {
            200 => return Ok(answer),
            _ if Instant::now() > until => bail!("{path}: {} {}", answer.status, answer.text()),
            _ => {}
        }
    }
}

fn two_islands(run: &Run) -> Result<()> {
    let mut pair = Pair::start(run)?;
    let (client, hub) = pair.asking("north")?;
    // The first answer waits for catalogues, too.
    found(&client, hub, OF_SOUTH)?;
    let mut connection = Connection::open(&client, hub)?;
    let round_trip = pair.round_trip()?;
    let (mut nears, mut fars, mut hots) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..run.count(20, 200) {
        // Whoever waits for the sea comes back to a machine that has gone to sleep: both begin on one that has.
        for (path, all) in [(OF_NORTH, &mut nears), (OF_SOUTH, &mut fars)] {
            thread::sleep(DELAY);
            let answer = connection.get(path)?;
            figures::check(path, &answer).map_err(anyhow::Error::msg)?;
            all.push(answer.took);
        }
    }
    for _ in 0..run.count(20, 200) {
        hots.push(connection.get(OF_NORTH)?.took);
    }
    let [near, far, hot] = [nears, fars, hots].map(|took| percentile(&took, 50));
    let added = far.saturating_sub(near);
    run.measures.note(format!(
        "near {near:?} ({hot:?} at once after another), far {far:?}, round trip over the sea {round_trip:?}"
    ));
    let limit = round_trip + run.bound(Duration::from_millis(5), Duration::from_micros(300));
    ensure!(added <= limit, "{added:?} longer than near, with a round trip of {round_trip:?}");
    // One request more at a time than there were before: a tunnel for each.
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Connection::open(&client, hub)?);
    }
    let took: Vec<Duration> = thread::scope(|scope| {
        let asking: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(|| client.get(OF_SOUTH).map(|answer| answer.took)))
            .collect();
        asking.into_iter().map(|asked| asked.join().expect("a client reports")).collect::<Result<_, _>>()
    })?;
    let slowest = took.into_iter().max().context("nobody asked")?;
    run.measures.note(format!("the slowest of four at once, a new tunnel for some: {slowest:?}"));
    let limit = round_trip * 2 + run.bound(Duration::from_millis(50), Duration::from_millis(5));
    ensure!(slowest <= limit, "{slowest:?}");
    let page = pair.node("north", "n-hub")?.ask("/members")?;
    let south =
        page["islands"].as_array().and_then(|all| all.iter().find(|island| island["name"] == "south"));
    ensure!(south.is_some_and(|south| south["reachable"] == true), "{}", page["islands"]);
    let links =
        [pair.both.running("n-bridge")?.ask("/links")?, pair.both.running("s-bridge")?.ask("/links")?];
    ensure!(links[0]["links"][0]["ends"] == links[1]["links"][0]["ends"], "{links:?}");
    Ok(())
}

fn farewells(run: &Run) -> Result<()> {
    let mut pair = Pair::start(run)?;
    let logs = events(&pair.both)?;
    for round in 0..run.count(2, 10) {
        let south = pair.both.island("south")?;
        let mut leaving = south.take("s-p1")?;
        let (id, host) = (leaving.id().to_owned(), leaving.host.clone());
        let (what, kind) = if round % 2 == 0 { ("farewell", "left") } else { ("crash", "down") };
        if kind == "left" {
            leaving.interrupt()?;
        } else {
            leaving.kill()?;
        }
        leaving.ended(PATIENCE)?;
        let mut heard = [Vec::new(), Vec::new()];
        for (name, log) in &logs {
            if name == "s-p1" {
                continue;
            }
            let seen = log.wait(kind, PATIENCE, |seen| seen.is(kind, &id))?;
            heard[usize::from(name.starts_with('n'))].push(seen.at);
        }
        let near = heard[0].iter().max().context("nobody near heard")?;
        let far = heard[1].iter().max().context("nobody far heard")?;
        let crossing = far.saturating_duration_since(*near);
        run.measures.add(&format!("a {what} is known on the other island, after on its own"), crossing);
        ensure!(crossing <= DELAY + Duration::from_millis(100), "{what}: {crossing:?}");
        let south = pair.both.island("south")?;
        let back = south.join(&host, &["pieces", "--only", "shark", "--island", "south"])?;
        south.nodes.push(back);
        pair.both.complete(10, PATIENCE)?;
        // Elsewhere nobody is down whose watchers are not known there: who falls in its first moments is in doubt.
        let back = pair.both.nodes().find(|node| node.name() == "s-p1").context("s-p1 is back")?;
        let until = Instant::now() + PATIENCE;
        for node in pair.both.nodes().filter(|node| node.name().starts_with('n')) {
            while !knows_watchers_of(node, back)? {
                ensure!(Instant::now() < until, "{} does not know the watchers of s-p1", node.name());
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
    Ok(())
}

/// Whether a node has the record in which a member of another island names its watchers.
fn knows_watchers_of(node: &Node, member: &Node) -> Result<bool> {
    let (bytes, record) = member.record()?;
    if record.watchers.is_empty() {
        return Ok(false);
    }
    let far = client::expect(&node.host, node.http(), "/mesh/records?instance=0&since=0", 200)?;
    Ok(far.body.windows(bytes.len()).any(|held| held == bytes))
}

/// The events of all nodes, by label.
fn events(islands: &Archipelago) -> Result<Vec<(String, EventLog)>> {
    let logs: Vec<_> = islands.nodes().map(|node| (node.name().to_owned(), node.events())).collect();
    for (_, log) in &logs {
        log.started()?;
    }
    Ok(logs)
}

fn cut(run: &Run) -> Result<()> {
    let mut pair = Pair::start(run)?;
    let (client, hub) = pair.asking("north")?;
    found(&client, hub, OF_SOUTH)?;
    for _ in 0..run.count(1, 5) {
        let logs = events(&pair.both)?;
        let bridge = pair.both.bridges["s-bridge"].host.clone();
        let began = Instant::now();
        pair.both.sea.cut_off(&bridge, true)?;
        for (name, log) in &logs {
            let other = if name.starts_with('n') { "south" } else { "north" };
            let seen = log.wait("island-down", PATIENCE, |seen| {
                seen.kind == "island-down" && seen.data["island"] == other
            })?;
            run.measures.add("cut to island-down", seen.at.saturating_duration_since(began));
        }
        figures::check(OF_NORTH, &client::get(&client, hub, OF_NORTH)?).map_err(anyhow::Error::msg)?;
        let refused = client::get(&client, hub, OF_SOUTH)?;
        ensure!(refused.status == 503, "{} {}", refused.status, refused.text());
        run.measures.note(format!(
            "asked for a figure beyond the cut: {:?}, {}",
            refused.took,
            refused.text()
        ));
        let healed = Instant::now();
        pair.both.sea.cut_off(&bridge, false)?;
        for (_, log) in &logs {
            let seen = log.wait("island-up", PATIENCE, |seen| seen.kind == "island-up")?;
            run.measures.add("healed to island-up", seen.at.saturating_duration_since(healed));
            let downs = log.all().iter().filter(|seen| seen.kind == "island-down").count();
            ensure!(downs == 1, "island-down {downs} times");
            let gone = log.all().into_iter().find(|seen| matches!(seen.kind.as_str(), "down" | "left"));
            ensure!(gone.is_none(), "a member is gone: {gone:?}");
        }
        pair.both.complete(10, PATIENCE)?;
        found(&client, hub, OF_SOUTH)?;
    }
    let limit = run.bound(Duration::from_secs(4), Duration::from_secs(2));
    ensure!(run.measures.percentile("cut to island-down", 100) <= limit);
    let limit = run.bound(Duration::from_secs(4), Duration::from_secs(1) + DELAY * 2);
    ensure!(run.measures.percentile("healed to island-up", 100) <= limit);
    Ok(())
}

fn killed_beside(run: &Run) -> Result<()> {
    let mut both = Archipelago::new(run, &["north", "south"])?;
    both.node("north", "n-hub", &["intermediary"])?;
    both.node("south", "s-p1", &["pieces", "--only", "shark"])?;
    both.node("south", "s-p2", &["pieces", "--only", "shark"])?;
    for label in ["n-1", "n-2"] {
        both.bridge("north", label)?;
    }
    both.bridge("south", "s-1")?;
    let south = (both.bridges["s-1"].key.clone(), both.bridges["s-1"].address);
    let mut allowed = Vec::new();
    for label in ["n-1", "n-2"] {
        allowed.extend(allow(&both.bridges[label].key));
    }
    both.start("s-1", &allowed)?;
    for label in ["n-1", "n-2"] {
        both.start(label, &link(&south.0, SocketAddr::from((south.1, QUIC_PORT))))?;
    }
    both.complete(6, PATIENCE)?;
    let (client, hub) = asking(&mut both, "north")?;
    found(&client, hub, OF_SOUTH)?;
    for round in 0..run.count(1, 5) {
        let label = ["n-1", "n-2"][round % 2];
        let plan = Plan {
            targets: vec![hub],
            paths: vec![OF_SOUTH.to_owned()],
            per_second: 100,
            clients: 8,
            check: figures::check,
        };
        let load = Load::start(&client, &plan);
        thread::sleep(Duration::from_secs(1));
        let bridge = both.bridges.get_mut(label).context("no such bridge")?;
        let mut dying = bridge.node.take().context("not running")?;
        let killed = Instant::now();
        dying.kill()?;
        dying.ended(PATIENCE)?;
        thread::sleep(Duration::from_millis(2500));
        let outcome = load.stop();
        let late = outcome.failures_after(killed + Duration::from_secs(1));
        run.measures.note(format!(
            "{} requests around the death of one of two bridges, {} failed, {late} of them later than a second",
            outcome.sent(),
            outcome.sent() - outcome.right
        ));
        ensure!(late == 0, "{late} requests failed later than a second after");
        both.start(label, &link(&south.0, SocketAddr::from((south.1, QUIC_PORT))))?;
        both.complete(6, PATIENCE)?;
    }
    Ok(())
}

/// Islands named `a`, `b`, ... each with a hub, a piece server and a bridge, linked in a line.
fn chain(run: &Run, names: &[&'static str]) -> Result<Archipelago> {
    let mut all = Archipelago::new(run, names)?;
    for (name, figure) in names.iter().zip(["giraffe", "shark", "dragon", "lion", "duck"]) {
        all.node(name, &format!("{}-hub", &name[..1]), &["intermediary"])?;
        all.node(name, &format!("{name}-p"), &["pieces", "--only", figure])?;
        all.bridge(name, &format!("{name}-b"))?;
    }
    Ok(all)
}

/// Starts the bridges; each pair names who calls whom.
fn link_all(all: &mut Archipelago, pairs: &[(&str, &str)]) -> Result<()> {
    let labels: Vec<String> = all.bridges.keys().cloned().collect();
    for label in labels {
        let mut arguments = Vec::new();
        for (caller, called) in pairs {
            let (caller, called) = (format!("{caller}-b"), format!("{called}-b"));
            if label == caller {
                let there = &all.bridges[&called];
                arguments.extend(link(&there.key, SocketAddr::from((there.address, QUIC_PORT))));
            } else if label == called {
                arguments.extend(allow(&all.bridges[&caller].key));
            }
        }
        all.start(&label, &arguments)?;
    }
    Ok(())
}

fn line(run: &Run) -> Result<()> {
    let mut all = chain(run, &["a", "b", "c", "d"])?;
    link_all(&mut all, &[("a", "b"), ("b", "c"), ("c", "d")])?;
    let took = all.complete(12, PATIENCE)?;
    run.measures.add("a line of four islands lists all", took);
    for (island, path) in [("a", "/figures/lion"), ("d", OF_NORTH)] {
        let (client, hub) = asking(&mut all, island)?;
        let answer = found(&client, hub, path)?;
        figures::check(path, &answer).map_err(anyhow::Error::msg)?;
    }
    let page = all.island("a")?.node("a-hub")?.ask("/members")?;
    let far = page["islands"].as_array().and_then(|all| all.iter().find(|island| island["name"] == "d"));
    ensure!(far.is_some_and(|far| far["path"].as_array().is_some_and(|path| path.len() == 4)), "{page}");
    let logs = events(&all)?;
    let mut leaving = all.island("d")?.take("d-p")?;
    let (id, began) = (leaving.id().to_owned(), Instant::now());
    leaving.interrupt()?;
    leaving.ended(PATIENCE)?;
    for (name, log) in logs.iter().filter(|(name, _)| name != "d-p") {
        let seen = log.wait("left", PATIENCE, |seen| seen.is("left", &id))?;
        if name.starts_with('a') {
            run.measures
                .add("a farewell three links away, from Ctrl+C", seen.at.saturating_duration_since(began));
        }
    }
    Ok(())
}

fn ring(run: &Run) -> Result<()> {
    let mut all = chain(run, &["a", "b", "c", "d"])?;
    link_all(&mut all, &[("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")])?;
    all.complete(12, PATIENCE)?;
    let (client, hub) = asking(&mut all, "a")?;
    found(&client, hub, OF_SOUTH)?;
    // Between a and b alone: the longer way stays.
    let (a, b) = (all.bridges["a-b"].host.clone(), all.bridges["b-b"].host.clone());
    let cut_at = Instant::now();
    all.sea.cut_between(&a, &b, true)?;
    let until = cut_at + PATIENCE;
    loop {
        let page = all.island("a")?.node("a-hub")?.ask("/members")?;
        let islands = page["islands"].as_array().context("no islands")?;
        let b = islands.iter().find(|island| island["name"] == "b").context("no island b")?;
        if b["path"].as_array().is_some_and(|path| path.len() == 4) && b["reachable"] == true {
            break;
        }
        ensure!(Instant::now() < until, "{}", page["islands"]);
    }
    run.measures.add("a ring is cut, and the other way round is taken", cut_at.elapsed());
    let answer = found(&client, hub, OF_SOUTH)?;
    figures::check(OF_SOUTH, &answer).map_err(anyhow::Error::msg)
}

fn whole_site(run: &Run) -> Result<()> {
    let mut pair = Pair::start(run)?;
    let logs = events(&pair.both)?;
    let south = pair.both.islands.remove("south").context("no south")?;
    let mut leaving = south.nodes;
    leaving.extend(pair.both.bridges.get_mut("s-bridge").and_then(|bridge| bridge.node.take()));
    let ids: Vec<String> = leaving.iter().map(|node| node.id().to_owned()).collect();
    let began = Instant::now();
    for node in &leaving {
        node.terminate()?;
    }
    for node in &mut leaving {
        let (status, ended) = node.ended(PATIENCE)?;
        ensure!(status.code() == Some(0), "{} exits with {status}", node.name());
        let took = ended.saturating_duration_since(began);
        let whose = if node.name() == "s-bridge" { "bridge" } else { "others" };
        run.measures.add(&format!("a whole site gets SIGTERM: exit of {whose}"), took);
    }
    for (name, log) in logs.iter().filter(|(name, _)| name.starts_with('n')) {
        for id in &ids {
            let seen = log.wait("left", PATIENCE, |seen| seen.is("left", id));
            let seen = seen.with_context(|| format!("{name} does not hear that {id} has left"))?;
            run.measures.add(
                "a whole site gets SIGTERM: left on the other island",
                seen.at.saturating_duration_since(began),
            );
        }
    }
    Ok(())
}

/// What a bridge answers to a CONNECT, and whether it opened anything.
fn connect(host: &Host, bridge: SocketAddr, target: &str) -> Result<String> {
    let mut stream: TcpStream = host.enter(|| TcpStream::connect(bridge))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\nhello").as_bytes())?;
    let mut answer = [0; 512];
    let length = stream.read(&mut answer)?;
    let _ = stream.shutdown(Shutdown::Both);
    Ok(String::from_utf8_lossy(&answer[..length]).lines().next().unwrap_or_default().to_owned())
}

fn forbidden(run: &Run) -> Result<()> {
    let mut pair = Pair::start(run)?;
    let canary_host = pair.both.island("north")?.host("canary")?;
    let canary = canary_host.enter(|| std::net::TcpListener::bind("0.0.0.0:9999"))??;
    canary.set_nonblocking(true)?;
    let at = pair.both.running("n-bridge")?.http();
    let (client, _) = pair.asking("north")?;
    let (near, far) =
        (pair.node("north", "n-p1")?.id().to_owned(), pair.node("south", "s-p1")?.id().to_owned());
    let unknown = "a".repeat(52);
    let mut targets = Vec::new();
    for host in ["10.77.0.15", "127.0.0.1", "169.254.169.254", "localhost", "[::1]", "example.org", &unknown]
    {
        for port in [22, 80, 1233, 9999] {
            targets.push(format!("{host}:{port}"));
        }
    }
    for id in [&near, &far] {
        for port in [1, 22, 1234, 5235, 5236, 9999] {
            targets.push(format!("{id}:{port}"));
        }
    }
    ensure!(targets.len() >= 40);
    for target in &targets {
        let answer = connect(&client, at, target)?;
        ensure!(answer.starts_with("HTTP/1.1 403 "), "{target}: {answer}");
    }
    for id in [&near, &far] {
        let answer = connect(&client, at, &format!("{id}:1233"))?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{id}:1233: {answer}");
    }
    // From where the bridge has no network, over the sea, nobody gets anything.
    let outside = pair.both.sea.host("outside")?;
    let over_sea = SocketAddr::from((pair.both.bridges["n-bridge"].address, at.port()));
    let from_outside = connect(&outside, over_sea, &format!("{near}:1233"))?;
    run.measures.note(format!("{} targets refused; over the sea: {from_outside}", targets.len()));
    ensure!(canary.accept().is_err(), "the canary was called");
    Ok(())
}

/// Waits until the only link of a bridge is refused for that reason, and has its log say so.
fn refused_for(node: &Node, reason: &str) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let page = node.ask("/links")?;
        let link = &page["links"][0];
        if link["state"] == "refused" {
            ensure!(link["reason"] == reason, "{link}");
            ensure!(link["do"].as_str().is_some_and(|advice| !advice.is_empty()), "{link}");
            break;
        }
        ensure!(Instant::now() < until, "{} is not refused: {page}", node.name());
    }
    let log = node.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("link refused")).collect();
    ensure!(lines.len() == 1 && lines[0].contains(reason) && lines[0].contains("WARN"), "{lines:?}");
    Ok(())
}

fn refused(run: &Run) -> Result<()> {
    // Two sites that call their islands the same.
    let mut both = Archipelago::new(run, &["north", "south"])?;
    both.bridge("north", "n-bridge")?;
    both.bridge("south", "s-bridge")?;
    let south = both.bridges.get_mut("s-bridge").context("no bridge")?;
    south.island = "north";
    let (key, at) = (south.key.clone(), SocketAddr::from((south.address, QUIC_PORT)));
    let north_key = both.bridges["n-bridge"].key.clone();
    both.start("s-bridge", &allow(&north_key))?;
    both.start("n-bridge", &link(&key, at))?;
    for label in ["n-bridge", "s-bridge"] {
        refused_for(both.running(label)?, "same-name")?;
    }
    // One that nobody allowed.
    let mut both = Archipelago::new(run, &["east", "west"])?;
    both.bridge("east", "e-bridge")?;
    both.bridge("west", "w-bridge")?;
    let west = &both.bridges["w-bridge"];
    let (key, at) = (west.key.clone(), SocketAddr::from((west.address, QUIC_PORT)));
    both.start("w-bridge", &[])?;
    both.start("e-bridge", &link(&key, at))?;
    refused_for(both.running("e-bridge")?, "unknown-key")?;
    let log = both.running("w-bridge")?.log();
    ensure!(log.contains("link refused") && log.contains(&both.bridges["e-bridge"].key), "{log}");
    Ok(())
}

fn mesh_of_five(run: &Run) -> Result<()> {
    let names = ["a", "b", "c", "d", "e"];
    let mut all = chain(run, &names)?;
    let mut pairs = Vec::new();
    for (index, caller) in names.iter().enumerate() {
        pairs.extend(names[index + 1..].iter().map(|called| (*caller, *called)));
    }
    link_all(&mut all, &pairs)?;
    run.measures.add("five islands, all linked with all, list all", all.complete(15, PATIENCE)?);
    let logs = events(&all)?;
    let mut leaving = Vec::new();
    for name in &names[1..] {
        leaving.push(all.island(name)?.take(&format!("{name}-p"))?);
    }
    let ids: Vec<String> = leaving.iter().map(|node| node.id().to_owned()).collect();
    let began = Instant::now();
    for node in &leaving {
        node.interrupt()?;
    }
    for node in &mut leaving {
        node.ended(PATIENCE)?;
    }
    for (_, log) in logs.iter().filter(|(name, _)| !name.ends_with("-p") || name == "a-p") {
        for id in &ids {
            let seen = log.wait("left", PATIENCE, |seen| seen.is("left", id))?;
            run.measures
                .add("one farewell of four at once, from Ctrl+C", seen.at.saturating_duration_since(began));
        }
    }
    for (name, log) in &logs {
        for id in &ids {
            let times = log.all().iter().filter(|seen| seen.is("left", id)).count();
            ensure!(times <= 1, "{name} hears one farewell {times} times");
        }
    }
    Ok(())
}

fn invited(run: &Run) -> Result<()> {
    let mut all = chain(run, &["a", "b", "c", "d"])?;
    for label in ["a-b", "b-b", "c-b", "d-b"] {
        all.start(label, &[])?;
    }
    let address = format!("{}:{QUIC_PORT}", all.bridges["a-b"].address);
    let token = all.tell("a-b", &["invite", "--address", &address])?;
    all.tell("b-b", &["bridge", "link", &token])?;
    all.tell("c-b", &["bridge", "link", &token])?;
    refused_for(all.running("c-b")?, "invite-used")?;
    // The two list six; the others stay alone.
    let joined = |all: &Archipelago| -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let page = all.running("a-b")?.ask("/members")?;
            let alive = page["members"].as_array().context("no members")?;
            if alive.iter().filter(|member| member["standing"] == "alive").count() == 6 {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{page}");
        }
    };
    joined(&all)?;
    // Both have kept each other's keys: no token is needed any more.
    for label in ["a-b", "b-b"] {
        let mut node =
            all.bridges.get_mut(label).and_then(|bridge| bridge.node.take()).context("not running")?;
        node.interrupt()?;
        let (status, _) = node.ended(PATIENCE)?;
        ensure!(status.code() == Some(0), "{label} exits with {status}");
    }
    for label in ["a-b", "b-b"] {
        all.start(label, &[])?;
    }
    joined(&all)?;
    let key = all.bridges["b-b"].key.clone();
    all.tell("a-b", &["bridge", "unlink", &key])?;
    let page = all.tell("a-b", &["bridge", "links", "--json"])?;
    ensure!(!page.contains("\"state\":\"up\""), "{page}");
    let expired = all.tell("a-b", &["invite", "--expires", "1s", "--address", &address])?;
    thread::sleep(Duration::from_millis(1100));
    all.tell("d-b", &["bridge", "link", &expired])?;
    refused_for(all.running("d-b")?, "invite-expired")
}

fn idle_tunnels(run: &Run) -> Result<()> {
    for label in ["s-bridge", "n-bridge"] {
        let mut pair = Pair::start(run)?;
        let (client, hub) = pair.asking("north")?;
        found(&client, hub, OF_SOUTH)?;
        let bridge = pair.both.bridges.get_mut(label).context("no such bridge")?;
        let mut leaving = bridge.node.take().context("not running")?;
        let began = Instant::now();
        leaving.interrupt()?;
        let (status, ended) = leaving.ended(PATIENCE)?;
        ensure!(status.code() == Some(0), "exit {status}");
        let took = ended.saturating_duration_since(began);
        run.measures.add("a bridge with an idle tunnel: Ctrl+C to exit", took);
        let limit = run.bound(Duration::from_secs(3), Duration::from_millis(1200));
        ensure!(took <= limit, "{label}: {took:?}");
    }
    Ok(())
}

/// What a node says the islands are, and of which it counts itself: names, sorted, its own first.
fn known(node: &Node) -> Result<Vec<String>> {
    let page = node.ask("/members")?;
    let own = page["self"]["island"].as_str().context("no island")?.to_owned();
    let islands = page["islands"].as_array().context("no islands")?;
    let mut names: Vec<_> = islands.iter().filter_map(|island| island["name"].as_str()).collect();
    names.sort_unstable();
    Ok(std::iter::once(own.as_str()).chain(names).map(str::to_owned).collect())
}

fn unnamed(run: &Run) -> Result<()> {
    let mut all = Archipelago::new(run, &["north", "south"])?;
    all.node("north", "n-hub", &["intermediary"])?;
    all.bridge("north", "n-bridge")?;
    for label in ["s-one", "s-two"] {
        all.bridge("south", label)?;
    }
    let made = |all: &Archipelago, label: &str| format!("isle-{}", &all.bridges[label].key[..6]);
    let (mut first, mut second) = ("s-one", "s-two");
    if made(&all, first) < made(&all, second) {
        (first, second) = (second, first);
    }
    let (first_name, name) = (made(&all, first), made(&all, second));
    let keys = [first, second].map(|label| all.bridges[label].key.clone());
    all.start("n-bridge", &keys.iter().flat_map(|key| allow(key)).collect::<Vec<_>>())?;
    let target =
        link(&all.bridges["n-bridge"].key, format_args!("{}:{QUIC_PORT}", all.bridges["n-bridge"].address));
    let there = all.island("south")?;
    for label in ["s-hub", "s-p"] {
        let host = there.host(label)?;
        let arguments: &[&str] =
            if label == "s-hub" { &["intermediary"] } else { &["pieces", "--only", "shark"] };
        let node = there.join(&host, arguments)?;
        there.nodes.push(node);
    }
    // The one whose name does not last comes first, and has a link by then.
    all.start_unnamed(first, &target)?;
    all.complete(5, PATIENCE)?;
    let logs = events(&all)?;
    let expected = |of_south: bool, name: &str| {
        let own = if of_south { name } else { "north" };
        vec![own.to_owned(), name.to_owned(), "north".to_owned()]
    };
    let settled = |all: &Archipelago, name: &str| -> Result<Duration> {
        let began = Instant::now();
        for node in all.nodes() {
            let expected = expected(node.name().starts_with('s'), name);
            loop {
                let known = known(node)?;
                if known == expected {
                    break;
                }
                ensure!(began.elapsed() < PATIENCE, "{} knows {known:?}, not {expected:?}", node.name());
            }
        }
        Ok(began.elapsed())
    };
    settled(&all, &first_name)?;
    all.start_unnamed(second, &target)?;
    run.measures
        .add("a smaller name is heard: everybody on both islands knows it alone", settled(&all, &name)?);
    all.complete(6, PATIENCE)?;
    let (client, hub) = asking(&mut all, "north")?;
    found(&client, hub, OF_SOUTH)?;
    for (node, log) in logs {
        let lost = log.all();
        let lost = lost.iter().find(|seen| matches!(&*seen.kind, "down" | "suspect" | "left"));
        ensure!(lost.is_none(), "{node}: {lost:?}");
    }
    Ok(())
}
