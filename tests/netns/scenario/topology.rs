//! Networks as they are: several nodes on a host, several islands on a wire, odd prefixes, IPv6, late interfaces.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Claim;
use crate::client;
use crate::figures;
use crate::island::{Island, SETTLED_WITHIN};
use crate::network::{Host, Wire};
use crate::node::{self, Node, eventually};
use crate::runner::Run;

pub(super) const SCENARIOS: &[Claim] = &[
    ("topology::three_nodes_share_a_host", one_host),
    ("topology::a_taken_port_is_said_and_ends_with_status_1", taken_port),
    ("topology::two_meshes_and_two_islands_on_one_wire_ignore_each_other", strangers),
    ("topology::a_host_with_two_interfaces_hears_both_wires", two_interfaces),
    ("topology::an_interface_that_appears_later_is_used", late_interface),
    ("topology::an_address_that_changes_is_followed", changed_address),
    ("topology::a_small_network_is_reached_by_its_own_directed_broadcast", small_network),
    ("topology::without_broadcast_multicast_finds_the_others", multicast_only),
    ("topology::ipv6_alone_is_enough", ipv6_only),
    ("topology::a_table_is_fetched_over_link_local_addresses", first_words_lost),
];

/// A negative is believed after this much silence: several beacons of everybody.
const NOTHING_HAPPENS_FOR: Duration = Duration::from_millis(1500);

/// A record is repeated for so long after it was first said (150 ms), and then not for half a minute.
const FIRST_WORDS_FOR: Duration = Duration::from_millis(500);

fn one_host(run: &Run) -> Result<()> {
    let island = Island::start(run, &[("other", &["intermediary"])])?;
    let host = island.wire.host("shared", "10.77.0.30/24")?;
    let folder = run.folder.path();
    let mut first = Node::spawn_as(&host, "first", folder, &["pieces"])?;
    let mut second = Node::spawn_as(&host, "second", folder, &["pieces", "--listen", "[::]:0"])?;
    let mut third = Node::spawn_as(&host, "third", folder, &["intermediary"])?;
    for node in [&mut first, &mut second, &mut third] {
        node.ready()?;
    }
    node::agree(&[island.node("other")?, &first, &second, &third], 4, SETTLED_WITHIN)?;
    ensure!(second.http().port() != first.http().port(), "both at {}", first.http());
    for hub in [island.node("other")?, &third] {
        let answer = client::get(&island.client, hub.http(), "/figures/giraffe")?;
        figures::check("/figures/giraffe", &answer).map_err(anyhow::Error::msg)?;
    }
    first.interrupt()?;
    first.ended(Duration::from_secs(5))?;
    node::agree_on_living(&[island.node("other")?, &second, &third], 3, SETTLED_WITHIN)?;
    Ok(())
}

fn taken_port(run: &Run) -> Result<()> {
    let island = Island::start(run, &[("p1", &["pieces"])])?;
    let host = &island.node("p1")?.host;
    let mut refused = Node::spawn_as(host, "second", run.folder.path(), &["pieces"])?;
    let (status, _) = refused.ended(Duration::from_secs(5))?;
    ensure!(status.code() == Some(1), "exit {status}");
    let said = refused.log();
    ensure!(said.contains("1233") && said.contains("--listen"), "it only says: {said}");
    Ok(())
}

fn strangers(run: &Run) -> Result<()> {
    let mut island = Island::empty(run)?;
    let groups: [(&str, &[&str]); 3] = [
        ("other-mesh", &["--mesh", "other"]),
        ("north", &["--island", "north"]),
        ("south", &["--island", "south"]),
    ];
    let mut nodes: Vec<Vec<Node>> = Vec::new();
    for (group, options) in groups {
        let mut members = Vec::new();
        for role in ["pieces", "intermediary"] {
            let host = island.host(&format!("{group}-{role}"))?;
            members.push(Node::spawn(&host, run.folder.path(), &[&[role], options].concat())?);
        }
        nodes.push(members);
    }
    for node in nodes.iter_mut().flatten() {
        node.ready()?;
    }
    let agreed = |nodes: &[Vec<Node>]| {
        for group in nodes {
            let members: Vec<&Node> = group.iter().collect();
            node::agree(&members, 2, SETTLED_WITHIN)?;
            let listed = members[0].table()?.len();
            ensure!(listed == 2, "{} lists {listed} members", members[0].name());
        }
        anyhow::Ok(())
    };
    agreed(&nodes)?;
    thread::sleep(NOTHING_HAPPENS_FOR);
    agreed(&nodes)?;
    for (group, name) in nodes.iter_mut().zip(["local", "north", "south"]) {
        for node in group {
            let island = node.ready()?.island;
            ensure!(island == name, "{} is on island {island}", node.name());
        }
    }
    Ok(())
}

fn two_interfaces(run: &Run) -> Result<()> {
    let (left, right) = (Wire::new()?, Wire::new()?);
    let folder = run.folder.path();
    let at_left = left.host("left", "10.77.1.10/24")?;
    let at_right = right.host("right", "10.77.2.10/24")?;
    let both = Host::new("both")?;
    both.plug(&left, &["10.77.1.20/24"])?;
    both.plug(&right, &["10.77.2.20/24"])?;
    let between = Node::start(&both, folder, &["intermediary"])?;
    let one = Node::start(&at_left, folder, &["pieces"])?;
    let other = Node::start(&at_right, folder, &["pieces"])?;
    eventually("both wires' nodes at the host between", SETTLED_WITHIN, || {
        let page = between.ask("/members")?;
        let well = |id: &str| {
            page["members"].as_array().is_some_and(|members| {
                members.iter().any(|member| {
                    member["id"] == id && member["standing"] == "alive" && member["reachable"] == true
                })
            })
        };
        Ok(well(one.id()) && well(other.id()))
    })?;
    for (node, address) in [(&one, "10.77.1.20:5235"), (&other, "10.77.2.20:5235")] {
        let table = node.table()?;
        ensure!(table.contains_key(between.id()), "{} does not list the host between", node.name());
        let answer = client::get(&node.host, address.parse()?, "/figures/giraffe")?;
        figures::check("/figures/giraffe", &answer).map_err(anyhow::Error::msg)?;
    }
    // Whichever leaves, the other still serves.
    let log = between.events();
    one.interrupt()?;
    log.wait("left", Duration::from_secs(5), |seen| seen.is("left", one.id()))?;
    let answer = client::get(&at_right, "10.77.2.20:5235".parse()?, "/figures/giraffe")?;
    figures::check("/figures/giraffe", &answer).map_err(anyhow::Error::msg)
}

fn late_interface(run: &Run) -> Result<()> {
    let island = Island::start(run, &[("hub", &["intermediary"])])?;
    let log = island.node("hub")?.events();
    let host = Host::new("late")?;
    let node = Node::start(&host, run.folder.path(), &["pieces"])?;
    host.plug(&island.wire, &["10.77.0.40/24"])?;
    let plugged = Instant::now();
    let joined = log.wait("joined", Duration::from_secs(10), |seen| seen.is("joined", node.id()))?;
    run.measures
        .add("an interface that appears: its node known after", joined.at.saturating_duration_since(plugged));
    node::agree(&[island.node("hub")?, &node], 2, SETTLED_WITHIN)?;
    let hub = island.node("hub")?.http();
    eventually("its figures", Duration::from_secs(5), || {
        let answer = client::get(&island.client, hub, "/figures/giraffe")?;
        figures::check("/figures/giraffe", &answer).map_err(anyhow::Error::msg)?;
        Ok(true)
    })?;
    Ok(())
}

fn changed_address(run: &Run) -> Result<()> {
    let island = Island::start(run, &[("hub", &["intermediary"]), ("p1", &["pieces"])])?;
    let moving = &island.node("p1")?.host;
    let interface = moving.interfaces().pop().context("its interface")?;
    let (hub, id) = (island.node("hub")?, island.node("p1")?.id());
    // It was the second host: 10.77.0.11.
    moving.address("del", "10.77.0.11/24", &interface)?;
    moving.address("add", "10.77.0.99/24", &interface)?;
    let took = eventually("the new address in the table", Duration::from_secs(10), || {
        let member = hub.ask(&format!("/members/{id}"))?;
        let member = if member["member"].is_object() { &member["member"] } else { &member };
        Ok(member["address"] == "10.77.0.99")
    })?;
    run.measures.add("an address that changes: listed after", took);
    eventually("a figure from the new address", Duration::from_secs(10), || {
        let answer = client::get(&island.client, hub.http(), "/figures/giraffe")?;
        figures::check("/figures/giraffe", &answer).map_err(anyhow::Error::msg)?;
        Ok(true)
    })?;
    Ok(())
}

fn small_network(run: &Run) -> Result<()> {
    let wire = Wire::new()?;
    // Nothing else than 10.77.0.15 and unicast is left.
    for way in ["ip daddr 255.255.255.255", "ip daddr 224.0.0.0/4", "ether type ip6"] {
        wire.drop_matching(way, true)?;
    }
    pair_finds_itself(run, &wire, ["10.77.0.2/28", "10.77.0.14/28"])
}

fn multicast_only(run: &Run) -> Result<()> {
    let wire = Wire::new()?;
    for way in ["ip daddr 255.255.255.255", "ip daddr 10.77.0.255", "ether type ip6"] {
        wire.drop_matching(way, true)?;
    }
    pair_finds_itself(run, &wire, ["10.77.0.2/24", "10.77.0.3/24"])
}

fn ipv6_only(run: &Run) -> Result<()> {
    let wire = Wire::new()?;
    wire.drop_matching("ether type ip", true)?;
    pair_finds_itself(run, &wire, ["fd77::2/64", "fd77::3/64"])
}

/// All records of one are lost while its link comes up; the other, who hears it later, fetches its table from the address
/// it was heard from, which over IPv6 is link-local.
fn first_words_lost(run: &Run) -> Result<()> {
    let wire = Wire::new()?;
    wire.drop_matching("ether type ip", true)?;
    let folder = run.folder.path();
    let hosts = [wire.host("hub", "fd77::2/64")?, wire.host("p1", "fd77::3/64")?];
    wire.drop_said_to_all(&hosts[1], true)?;
    let mut pieces = Node::spawn(&hosts[1], folder, &["pieces"])?;
    pieces.ready()?;
    thread::sleep(FIRST_WORDS_FOR);
    wire.drop_said_to_all(&hosts[1], false)?;
    let hub = Node::start(&hosts[0], folder, &["intermediary"])?;
    let took = node::agree(&[&hub, &pieces], 2, SETTLED_WITHIN)?;
    run.measures.add("two nodes agree, after the second was ready", took);
    Ok(())
}

/// An intermediary and a piece server with these addresses find each other and serve.
fn pair_finds_itself(run: &Run, wire: &Wire, addresses: [&str; 2]) -> Result<()> {
    let folder = run.folder.path();
    let hosts = [wire.host("hub", addresses[0])?, wire.host("p1", addresses[1])?];
    let mut hub = Node::spawn(&hosts[0], folder, &["intermediary"])?;
    let mut pieces = Node::spawn(&hosts[1], folder, &["pieces"])?;
    let ready = hub.ready()?;
    pieces.ready()?;
    let took = node::agree(&[&hub, &pieces], 2, SETTLED_WITHIN)?;
    run.measures.add("two nodes agree, after both were ready", took);
    let address = addresses[0].split_once('/').context("a prefix")?.0;
    let at: SocketAddr = SocketAddr::new(address.parse()?, 5235);
    ensure!(ready.http == at, "ready at {} instead of {at}", ready.http);
    eventually("a figure", Duration::from_secs(5), || {
        let answer = client::get(&hosts[1], at, "/figures/giraffe")?;
        figures::check("/figures/giraffe", &answer).map_err(anyhow::Error::msg)?;
        Ok(true)
    })?;
    let log = hub.events();
    pieces.interrupt()?;
    log.wait("left", Duration::from_secs(5), |seen| seen.is("left", pieces.id()))?;
    Ok(())
}
