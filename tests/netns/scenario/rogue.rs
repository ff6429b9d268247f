//! A bridge of another island that lies, breaks the protocol and floods: two honest islands beside it believe none of it, do
//! not grow, and serve each other as quickly as before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use island_bridge::frame::tunnel::{self, Hop, Open, TunnelFrame};
use island_bridge::frame::{Cursor, Frame, Route};
use isle_mesh::member::{Epoch, MemberId};
use isle_mesh::path::Path;
use isle_mesh::reach::{IslandLoad, Reach};
use isle_mesh::wire::{Header, Message, SIGNATURE_BYTES};
use tokio::time::{sleep, timeout};

use super::Claim;
use crate::archipelago::{Archipelago, allow, link};
use crate::client::Connection;
use crate::events::EventLog;
use crate::figures;
use crate::measure::percentile;
use crate::network::Host;
use crate::node::Node;
use crate::rogue::{self, Rogue};
use crate::runner::Run;
use crate::sea::QUIC_PORT;

pub(super) const SCENARIOS: &[Claim] = &[
    ("rogue::what_a_lying_bridge_says_changes_nobody", lies),
    ("rogue::a_bridge_that_breaks_the_protocol_costs_only_its_own_link", breaches),
    ("rogue::tunnels_of_a_bridge_lead_nowhere_else_and_are_bounded", tunnels),
];

/// Long for anything that is to cross.
const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for a wrong belief to show.
const SETTLES_IN: Duration = Duration::from_millis(1500);
/// What only south has.
const OF_SOUTH: &str = "/figures/shark";
/// No node may have grown by more, whatever was said to it: less than 1 MiB was measured.
const GROWTH_MAX_KIB: u64 = 16 * 1024;
/// As many tunnels as a link may have at once, and what an idle one may take: 23 KiB were measured.
const TUNNELS_MAX: usize = 4096;
const TUNNEL_KIB_MAX: u64 = 32;

/// North and south, linked with each other, and both with a bridge that is not to be believed.
struct Beset {
    both: Archipelago,
    rogue: Rogue,
    client: Host,
    hub: SocketAddr,
    north: (SocketAddr, MemberId),
    south: (SocketAddr, MemberId),
    memory: Vec<(String, u64)>,
}

impl Beset {
    fn start(run: &Run) -> Result<Self> {
        let mut both = Archipelago::new(run, &["north", "south"])?;
        both.node("north", "n-hub", &["intermediary"])?;
        both.node("north", "n-p1", &["pieces", "--only", "giraffe"])?;
        both.node("south", "s-hub", &["intermediary"])?;
        for label in ["s-p1", "s-p2"] {
            both.node("south", label, &["pieces", "--only", "shark"])?;
        }
        both.bridge("north", "n-bridge")?;
        both.bridge("south", "s-bridge")?;
        let host = Host::new("rogue")?;
        let address = both.sea.plug(&host)?;
        let rogue = Rogue::new(host, address);
        let key = rogue.id().to_string();
        let (north, south) = (both.bridges["n-bridge"].key.clone(), both.bridges["s-bridge"].key.clone());
        let at = SocketAddr::from((both.bridges["s-bridge"].address, QUIC_PORT));
        both.start("n-bridge", &[link(&south, at).as_slice(), &allow(&key)].concat())?;
        both.start("s-bridge", &[allow(&north), allow(&key)].concat())?;
        both.complete(7, PATIENCE)?;
        let there = both.island("north")?;
        let (client, hub) = (there.client.clone(), there.node("n-hub")?.http());
        let place = |label: &str| -> Result<(SocketAddr, MemberId)> {
            let bridge = &both.bridges[label];
            Ok((SocketAddr::from((bridge.address, QUIC_PORT)), bridge.key.parse()?))
        };
        let (north, south) = (place("n-bridge")?, place("s-bridge")?);
        let mut beset = Self { both, rogue, client, hub, north, south, memory: Vec::new() };
        // Everything is warm before anybody counts.
        asks(&beset.client, beset.hub, 50)?;
        let sizes = beset.both.nodes().map(|node| Ok((node.name().to_owned(), node.memory_kib()?)));
        beset.memory = sizes.collect::<Result<_>>()?;
        Ok(beset)
    }

    /// Runs `attack`, has requests cross meanwhile, and demands that afterwards everybody believes of all members what it
    /// did, that nothing was said of them, that requests were as quick as before, and that nobody has grown.
    fn unmoved(
        &self,
        run: &Run,
        what: &str,
        growth_max_kib: u64,
        attack: impl AsyncFnOnce(&Rogue) -> Result<()> + Send,
    ) -> Result<()> {
        let logs: Vec<(&Node, EventLog)> = self.both.nodes().map(|node| (node, node.events())).collect();
        for (_, log) in &logs {
            log.started()?;
        }
        let tables: Vec<BTreeMap<String, String>> =
            self.both.nodes().map(Node::table).collect::<Result<_>>()?;
        let before = asks(&self.client, self.hub, 100)?;
        let over = AtomicBool::new(false);
        let (attacked, during) = thread::scope(|scope| {
            let rogue = &self.rogue;
            let (client, hub, over) = (&self.client, self.hub, &over);
            let asking = scope.spawn(move || {
                let mut took = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    took.push(asks(client, hub, 5));
                    thread::sleep(Duration::from_millis(20));
                }
                took.into_iter().collect::<Result<Vec<_>>>()
            });
            let attacked = self.rogue.run(async move || attack(rogue).await);
            over.store(true, Ordering::Relaxed);
            (attacked, asking.join().expect("it reports"))
        });
        attacked.with_context(|| what.to_owned())?;
        thread::sleep(SETTLES_IN);
        for ((node, log), table) in logs.iter().zip(&tables) {
            let ours = |seen: &crate::events::Seen| {
                let id = seen.data["member"]["id"].as_str().unwrap_or_default();
                let about_us = table.contains_key(id)
                    || seen.data["island"] == "north"
                    || seen.data["island"] == "south";
                about_us && !matches!(seen.kind.as_str(), "updated" | "snapshot")
            };
            let said: Vec<String> =
                log.all().iter().filter(|seen| ours(seen)).map(|seen| seen.brief()).collect();
            ensure!(said.is_empty(), "{what} made {} say: {}", node.name(), said.join(", "));
            let now = node.table()?;
            for (id, facts) in table {
                ensure!(
                    now.get(id) == Some(facts),
                    "{what}, at {}: {facts} became {:?}",
                    node.name(),
                    now.get(id)
                );
            }
            let panics = node.log().matches("panicked").count();
            ensure!(panics == 0, "{} panicked: {}", node.name(), node.log_tail());
        }
        for (label, start) in &self.memory {
            let node = self.both.nodes().find(|node| node.name() == label).context("it runs")?;
            let now = node.memory_kib()?;
            run.measures.note(format!("{what}: {label} {start} KiB before, {now} KiB after"));
            ensure!(now < start + growth_max_kib, "{what}: {label} grew from {start} to {now} KiB");
        }
        let during = percentile(&during?, 50);
        run.measures.note(format!("{what}: a far figure took {before:?} before and {during:?} meanwhile"));
        let limit = before * 2 + run.bound(Duration::from_millis(20), Duration::from_millis(2));
        ensure!(during <= limit, "{what}: {before:?} became {during:?}");
        Ok(())
    }
}

/// Asks for what the other island has; the median time.
fn asks(client: &Host, hub: SocketAddr, times: usize) -> Result<Duration> {
    let mut connection = Connection::open(client, hub)?;
    let began = Instant::now();
    let mut took = Vec::new();
    while took.len() < times {
        let answer = connection.get(OF_SOUTH)?;
        // Catalogues come after members.
        if answer.status == 200 || began.elapsed() > PATIENCE {
            figures::check(OF_SOUTH, &answer).map_err(anyhow::Error::msg)?;
            took.push(answer.took);
        }
        if answer.closes() {
            connection = Connection::open(client, hub)?;
        }
    }
    Ok(percentile(&took, 50))
}

fn read(word: &[u8]) -> Option<(Header, Option<Message>)> {
    isle_mesh::wire::decode(word.get(..word.len().checked_sub(SIGNATURE_BYTES)?)?).ok()
}

/// Everything that can be made of real words and made-up keys.
fn lies(run: &Run) -> Result<()> {
    let mut beset = Beset::start(run)?;
    // A life that is over, and another of the same key: what was true once is to count no more.
    let (south, stop) = (beset.south, Arc::new(AtomicBool::new(false)));
    let host = beset.both.island("south")?.host("s-again")?;
    let heard = thread::scope(|scope| {
        let stopping = stop.clone();
        let rogue = &beset.rogue;
        let listening =
            scope.spawn(move || rogue.run(async move || rogue.listen(south.0, south.1, stopping).await));
        let lived = (|| {
            let arguments = ["pieces", "--only", "shark", "--island", "south", "--state-dir", "again"];
            let there = beset.both.island("south")?;
            let mut first = there.join(&host, &arguments)?;
            thread::sleep(Duration::from_millis(500));
            first.interrupt()?;
            first.ended(PATIENCE)?;
            let second = there.join(&host, &arguments)?;
            there.nodes.push(second);
            beset.both.complete(8, PATIENCE).map(|_| ())
        })();
        thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        lived.and_then(|()| listening.join().expect("it reports"))
    })?;
    let real: Vec<Bytes> = heard.into_iter().filter(|word| read(word).is_some()).collect();
    let farewells = real.iter().filter(|word| word[3] == 8).count();
    ensure!(real.len() >= 8 && farewells >= 1, "{} words, {farewells} farewells", real.len());
    let newest = newest_records(&real);
    ensure!(newest.len() >= 7, "{} members", newest.len());
    // The rogue itself went, as it may.
    thread::sleep(Duration::from_millis(500));
    let north = beset.north;
    beset.unmoved(run, "lies", GROWTH_MAX_KIB, async |rogue| {
        let mut link = rogue.link(north.0, north.1).await?;
        let mut random = 1_u32;
        for word in &real {
            let mut altered = Vec::new();
            for _ in 0..40 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let mut bytes = word.to_vec();
                let at = random as usize / 8 % bytes.len();
                bytes[at] ^= 1 << (random % 8);
                altered.push(Bytes::from(bytes));
                altered.push(word.slice(..at.max(1)));
            }
            link.say(Vec::new(), altered).await?;
        }
        // What was said, again, the latest first.
        for _ in 0..3 {
            let again: Vec<Bytes> = real.iter().rev().cloned().collect();
            link.say_all(&again).await?;
            for word in &again {
                link.say_urgent(word.clone()).await?;
            }
        }
        // Made-up members of both islands that claim to be watched by everybody, and to watch each other.
        let everybody: Vec<MemberId> = newest.keys().copied().take(3).collect();
        let made_up = |number: u64| {
            let others = (2000..2003).map(rogue::made_up_id).filter(|id| *id != rogue::made_up_id(number));
            let island = if number.is_multiple_of(2) { "south" } else { "north" };
            rogue::made_up(number, island, everybody.iter().copied().chain(others).collect())
        };
        link.say_all(&(2000..2016).map(made_up).collect::<Vec<_>>()).await?;
        for (target, (epoch, record)) in &newest {
            for last in [*record, record + 1, 1 << 47] {
                for voters in [2000..2004, 2000..2010] {
                    let voters = voters.start..voters.end.min(voters.start + 6);
                    link.say_urgent(rogue::certificate(*target, *epoch, *record, last, voters)).await?;
                }
            }
            link.say_urgent(rogue::farewell_in_the_name_of(*target, *epoch, 2000)).await?;
        }
        // It is of south now, says its own record, and takes everybody back.
        let own = rogue::made_up(rogue::NUMBER, "south", everybody.clone());
        link.say(Vec::new(), vec![own]).await?;
        link.say(newest.keys().copied().collect(), Vec::new()).await?;
        // Ways that would be the best, if they were.
        let load = IslandLoad { members: u32::MAX, in_flight: 0, capacity: u32::MAX };
        let ways = ["west south", "west north south", "south", "north", "west nowhere"].map(|islands| {
            let path = Path::new(islands.split(' ').map(str::to_owned).collect()).expect("a path");
            Route::Reach(Reach { path, cost: Duration::ZERO, load })
        });
        link.say_routes(ways.to_vec()).await?;
        for _ in 0..200 {
            link.say_routes(vec![Route::Withdrawn("south".to_owned()), ways[0].clone()]).await?;
        }
        sleep(SETTLES_IN).await;
        ensure!(link.is_up().await, "lies alone end no link");
        Ok(())
    })?;
    run.measures.note(format!("{} real words, {} members", real.len(), newest.len()));
    Ok(())
}

/// Of each author its newest record.
fn newest_records(words: &[Bytes]) -> BTreeMap<MemberId, (Epoch, u64)> {
    let mut newest = BTreeMap::new();
    for word in words {
        if let Some((header, Some(Message::Announce(record)))) = read(word)
            && matches!(record.island.as_str(), "north" | "south")
        {
            let stamp = (header.stamp.epoch, header.stamp.seq.0);
            let held = newest.entry(header.author).or_insert(stamp);
            *held = stamp.max(*held);
        }
    }
    newest
}

/// Garbage, huge lengths, streams without number, silence, and nobody who reads.
fn breaches(run: &Run) -> Result<()> {
    let beset = Beset::start(run)?;
    let north = beset.north;
    let rounds = run.count(2, 20);
    beset.unmoved(run, "breaches", GROWTH_MAX_KIB, async |rogue| {
        for _ in 0..rounds {
            let garbage = vec![0x55; 100_000];
            let huge = [rogue::encoded(&[rogue::hello()]), vec![0xff, 0xff, 0xff, 0xff, 3]].concat();
            let empty = [rogue::encoded(&[rogue::hello()]), vec![0, 0, 0, 0, 3]].concat();
            let twice = rogue::encoded(&[rogue::hello(), rogue::hello()]);
            for (bytes, what) in
                [(garbage, "garbage"), (huge, "a huge length"), (empty, "no length"), (twice, "two hellos")]
            {
                let (_endpoint, connection) = rogue.dial(north.0, north.1).await?;
                let mut control = connection.quic().open_uni().await?;
                // It may be closed while this is being sent.
                let _ = control.write_all(&bytes).await;
                rogue::demand_breach(&connection, what).await?;
            }
            for (bytes, what) in [
                (vec![0xff; 64], "a huge batch"),
                (rogue::encoded(&[Frame::Cursor(Cursor::default())]), "a second cursor"),
            ] {
                let mut link = rogue.link(north.0, north.1).await?;
                link.say_bytes(&bytes).await;
                rogue::demand_breach(&link.connection, what).await?;
            }
        }
        let (_endpoint, connection) = rogue.dial(north.0, north.1).await?;
        let mut control = connection.quic().open_uni().await?;
        control.write_all(&rogue::encoded(&[rogue::hello()])).await?;
        let opened = async {
            for _ in 0..10_000 {
                let mut stream = connection.quic().open_uni().await?;
                let _ = stream.finish();
            }
            Ok::<_, quinn::ConnectionError>(())
        };
        let opened = timeout(PATIENCE, opened).await.context("10,000 streams")?;
        ensure!(opened.is_err(), "10,000 streams were taken");
        rogue::demand_breach(&connection, "10,000 streams").await?;
        // Nothing is read, and a hello comes byte by byte.
        let (_endpoint, silent) = rogue.dial(north.0, north.1).await?;
        let mut control = silent.quic().open_uni().await?;
        for byte in rogue::encoded(&[rogue::hello()]) {
            if control.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(300)).await;
        }
        rogue::closed(&silent).await?;
        Ok(())
    })
}

/// What a bridge says of a tunnel that is asked of it: 0 if it stands.
async fn ask_tunnel(carrier: &quinn::Connection, open: Open) -> Result<u8> {
    let (mut send, mut receive) = carrier.open_bi().await?;
    let mut bytes = Vec::new();
    tunnel::encode(&TunnelFrame::Open(open), &mut bytes);
    send.write_all(&bytes).await?;
    let mut head = [0; 6];
    timeout(PATIENCE, receive.read_exact(&mut head)).await.context("no answer")??;
    Ok(if head[4] == 50 { head[5] } else { 0 })
}

fn hops(islands: &[&str]) -> Vec<Hop> {
    islands.iter().map(|island| Hop { island: (*island).to_owned(), bridge: None }).collect()
}

fn tunnels(run: &Run) -> Result<()> {
    let mut beset = Beset::start(run)?;
    let north = beset.north;
    let id = |beset: &mut Beset, island: &str, label: &str| -> Result<MemberId> {
        Ok(beset.both.island(island)?.node(label)?.id().parse()?)
    };
    let near = id(&mut beset, "north", "n-p1")?;
    let far = id(&mut beset, "south", "s-p1")?;
    let flood = run.count(6000, 20_000);
    let growth_max = TUNNEL_KIB_MAX * TUNNELS_MAX as u64;
    beset.unmoved(run, "tunnels", growth_max, async |rogue| {
        let link = rogue.link(north.0, north.1).await?;
        let carrier = link.tunnels(north.0, north.1).await?;
        let open =
            |islands: &[&str], target, port| Open { hops: hops(islands), target, port, nonce: [7; 16] };
        let mut refused = 0;
        for port in [1, 22, 80, 1234, 5235, 5236, 9999] {
            for target in [near, far, rogue::made_up_id(2000), north.1] {
                if (target, port) == (north.1, 5236) {
                    continue;
                }
                let said = ask_tunnel(carrier.quic(), open(&["north"], target, port)).await?;
                ensure!(said != 0, "{target}:{port} was opened");
                refused += 1;
            }
        }
        for islands in [&["south"][..], &["nowhere"], &["north", "nowhere"], &["north", "west"]] {
            let said = ask_tunnel(carrier.quic(), open(islands, far, 1233)).await?;
            ensure!(said != 0, "{islands:?} was opened");
            refused += 1;
        }
        ensure!(ask_tunnel(carrier.quic(), open(&["north"], near, 1233)).await? == 0, "an honest one is not");
        // Frames that are none, and tunnels without number: as many as may be, and what is beyond waits.
        for bytes in [&[0xff; 64][..], &[0, 0, 0, 1, 99], &[0, 0, 0, 0, 48]] {
            let (mut send, mut receive) = carrier.quic().open_bi().await?;
            let _ = send.write_all(bytes).await;
            let mut rest = [0; 64];
            let _ = timeout(PATIENCE, receive.read(&mut rest)).await.context("a broken tunnel is kept")?;
        }
        let mut kept = Vec::new();
        for _ in 0..flood {
            let Ok(opened) = timeout(Duration::from_millis(200), carrier.quic().open_bi()).await else {
                break;
            };
            let Ok((mut send, receive)) = opened else { break };
            let mut bytes = Vec::new();
            tunnel::encode(&TunnelFrame::Open(open(&["north"], near, 1233)), &mut bytes);
            let _ = send.write_all(&bytes).await;
            kept.push((send, receive));
            if kept.len().is_multiple_of(8) {
                // Some 1,500 a second: each costs the bridge a dial, and the member a signature.
                sleep(Duration::from_millis(5)).await;
            }
        }
        ensure!(kept.len() <= TUNNELS_MAX, "{} tunnels at once", kept.len());
        sleep(SETTLES_IN).await;
        run.measures.note(format!("{refused} tunnels refused, {} kept open", kept.len()));
        Ok(())
    })
}
