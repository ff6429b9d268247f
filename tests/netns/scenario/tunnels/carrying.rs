//! What a tunnel carries beside a bare QUIC stream between the same two hosts, what that costs, and that links do not wait for it.
//!
//! The bare stream is made with the very sockets and settings of the links: the crate's own endpoint, with nothing above
//! it. Both take turns. The processor time of a tunnel is that of the two bridge processes, which read and write TCP
//! besides; of a bare stream that of its two threads.

use std::env;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use island_bridge::endpoint::{Endpoint, Settings};
use island_bridge::tls::Purpose;
use isle::embed;
use isle::http::accept::App;
use isle::http::body::Answer;
use isle::http::request::Gated;
use isle_mesh::config::MeshConfig;
use isle_mesh::identity::Identity;
use isle_mesh::wire::MeshTag;
use rustix::time::ClockId;
use serde_json::json;
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;

use super::{PATIENCE, Tunnel};
use crate::archipelago::Archipelago;
use crate::network::Host;
use crate::node::Node;
use crate::runner::Run;

/// UDP port of the bare stream.
const BARE_PORT: u16 = 6000;
/// What is read at once.
const PIECE: usize = 256 << 10;
/// Many ask at a time.
const CLIENTS: usize = 8;
/// For so long.
const ASKING: Duration = Duration::from_secs(1);
/// A farewell is known on the other island so long after on its own, where the way takes no time.
const FAREWELL_MAX: Duration = Duration::from_millis(100);

/// A member that gives as many bytes as it is asked for: `/bytes/N`.
struct Giver(Bytes);

impl App for Giver {
    async fn answer(&self, request: Gated) -> Answer {
        let length = request.path.strip_prefix("/bytes/").and_then(|length| length.parse().ok()).unwrap_or(0);
        let body = Full::new(self.0.slice(..self.0.len().min(length)));
        http::Response::new(body.map_err(|never| match never {}).boxed_unsync())
    }
}

/// A giver in a thread of its own; leaves when dropped.
struct Member {
    at: SocketAddr,
    id: String,
    _leave: oneshot::Sender<()>,
}

impl Member {
    fn join(host: &Host, island: &str, bytes: Bytes) -> Result<Self> {
        let (told, ready) = channel();
        let (leave, leaves) = oneshot::channel();
        let config = MeshConfig {
            name: host.label().to_owned(),
            roles: vec!["giving".to_owned()],
            island: Some(island.to_owned()),
            ..MeshConfig::default()
        };
        let host = host.clone();
        thread::spawn(move || host.enter(|| live(config, bytes, &told, leaves)));
        let (at, id) = ready.recv_timeout(PATIENCE).context("the member does not join")??;
        Ok(Self { at, id, _leave: leave })
    }
}

type Told = Result<(SocketAddr, String)>;

fn live(config: MeshConfig, bytes: Bytes, told: &Sender<Told>, leaves: oneshot::Receiver<()>) {
    let joined = async {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Ok(embed::join(config, Some(any), Giver(bytes)).await?)
    };
    let Ok(runtime) = alone() else { return };
    runtime.block_on(async {
        match joined.await {
            Ok(member) => {
                let _ = told.send(Ok((member.listens_at(), member.mesh().id().to_string())));
                // Dropped says the same.
                let _ = leaves.await;
            }
            Err(error) => drop(told.send(Err(error))),
        }
    });
}

fn alone() -> Result<Runtime> {
    Ok(runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Gigabytes carried, how long it took, and the processor time of those who carried them.
#[derive(Clone, Copy)]
struct Carried {
    bytes: usize,
    took: Duration,
    cost: Duration,
}

impl Carried {
    fn megabytes_per_second(self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64()
    }

    fn seconds_per_gigabyte(self) -> f64 {
        self.cost.as_secs_f64() / (self.bytes as f64 / 1e9)
    }
}

/// Two islands, a bridge on each, and a member that gives on each.
struct Rig {
    both: Archipelago,
    client: Host,
    near: Member,
    far: Member,
}

impl Rig {
    fn start(run: &Run, bytes: &Bytes) -> Result<Self> {
        let mut both = Archipelago::new(run, &["north", "south"])?;
        both.join()?;
        let (near, far) = (both.island("north")?.host("n-giver")?, both.island("south")?.host("s-giver")?);
        let near = Member::join(&near, "north", bytes.clone())?;
        let far = Member::join(&far, "south", bytes.clone())?;
        both.complete(4, PATIENCE)?;
        let client = both.island("north")?.client.clone();
        Ok(Self { both, client, near, far })
    }

    fn target(&self) -> String {
        format!("{}:{}", self.far.id, self.far.at.port())
    }

    fn tunnel(&self) -> Result<Tunnel> {
        let bridge = self.both.running("n-bridge")?.http();
        let mut tunnel = Tunnel::ask(&self.client, bridge, &self.target(), "")?;
        tunnel.head()?;
        Ok(tunnel)
    }

    fn cost(&self) -> Result<Duration> {
        let bridges =
            ["n-bridge", "s-bridge"].map(|label| self.both.running(label).and_then(Node::processor_time));
        bridges.into_iter().sum()
    }

    /// One download through a tunnel.
    fn through_tunnel(&self, bytes: usize) -> Result<Carried> {
        let mut tunnel = self.tunnel()?;
        let (before, began) = (self.cost()?, Instant::now());
        download(&mut tunnel, bytes, |_| ())?;
        let took = began.elapsed();
        // What is being tidied up belongs to it.
        thread::sleep(Duration::from_millis(50));
        Ok(Carried { bytes, took, cost: self.cost()?.saturating_sub(before) })
    }

    /// The same over a stream between the bridges' hosts with nothing around it.
    fn bare(&self, bytes: usize) -> Result<Carried> {
        let tag = MeshTag::of("bare");
        let (giver, taker) = (Identity::fresh()?, Identity::fresh()?);
        let of = |label: &str| {
            let bridge = &self.both.bridges[label];
            (bridge.host.clone(), SocketAddr::from((bridge.address, BARE_PORT)))
        };
        let ((gives, at), (takes, bind)) = (of("s-bridge"), of("n-bridge"));
        let id = giver.id();
        let cost = Mutex::new(Duration::ZERO);
        let spent = &|before: Duration| {
            *cost.lock().expect("nothing panics while holding it") += processor_time() - before;
        };
        let (open, is_open) = channel();
        let took = thread::scope(|scope| -> Result<Duration> {
            let giving = scope.spawn(move || {
                gives.enter(move || {
                    alone()?.block_on(async {
                        let settings = Settings { bind: at, ..Settings::default() };
                        let endpoint = Endpoint::open(&settings, giver.signing_key(), tag)?;
                        open.send(())?;
                        let incoming = endpoint.incoming().await.context("closed")?;
                        let connection = incoming.accept().await.context("no handshake")?;
                        connection.welcome(16);
                        let (mut send, mut recv) = connection.quic().accept_bi().await?;
                        recv.read_to_end(16).await?;
                        let before = processor_time();
                        let piece = vec![7; PIECE];
                        let mut left = bytes;
                        while left > 0 {
                            let length = left.min(PIECE);
                            send.write_all(&piece[..length]).await?;
                            left -= length;
                        }
                        send.finish()?;
                        // Until it is all there.
                        let _ = send.stopped().await;
                        spent(before);
                        connection.quic().closed().await;
                        anyhow::Ok(())
                    })
                })
            });
            let taking = scope.spawn(move || {
                takes.enter(move || {
                    alone()?.block_on(async {
                        is_open.recv_timeout(PATIENCE)?;
                        let settings = Settings { bind, ..Settings::default() };
                        let endpoint = Endpoint::open(&settings, taker.signing_key(), tag)?;
                        let connection = endpoint.dial(id, at, Purpose::Tunnels).await?;
                        connection.welcome(16);
                        // As old as the bridges' connection: the path's largest datagram has been found.
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        let (mut send, mut recv) = connection.quic().open_bi().await?;
                        let (before, began) = (processor_time(), Instant::now());
                        send.write_all(b"all").await?;
                        send.finish()?;
                        let (mut read, mut piece) = (0, vec![0; PIECE]);
                        while let Some(length) = recv.read(&mut piece).await? {
                            read += length;
                        }
                        ensure!(read == bytes, "{read} of {bytes}");
                        let took = began.elapsed();
                        spent(before);
                        endpoint.close();
                        endpoint.wait_closed(PATIENCE).await;
                        Ok(took)
                    })
                })
            });
            giving.join().expect("a thread reports")??;
            taking.join().expect("a thread reports")?
        })?;
        let cost = *cost.lock().expect("nothing panics while holding it");
        Ok(Carried { bytes, took, cost })
    }

    /// Requests answered in a second over kept connections, each by a client of its own.
    fn per_second(&self, open: impl Fn() -> Result<Tunnel>) -> Result<f64> {
        let mut connections = (0..CLIENTS).map(|_| open()).collect::<Result<Vec<_>>>()?;
        let counted: Result<Vec<usize>> = thread::scope(|scope| {
            let all: Vec<_> = connections
                .iter_mut()
                .map(|connection| {
                    scope.spawn(|| {
                        let (until, mut count) = (Instant::now() + ASKING, 0);
                        while Instant::now() < until {
                            connection.send(&asked(1024))?;
                            connection.answer()?;
                            count += 1;
                        }
                        Ok(count)
                    })
                })
                .collect();
            all.into_iter().map(|asking| asking.join().expect("a client reports")).collect()
        });
        Ok(counted?.into_iter().sum::<usize>() as f64 / ASKING.as_secs_f64())
    }
}

fn asked(bytes: usize) -> String {
    format!("GET /bytes/{bytes} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Of the calling thread.
fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

pub(super) fn beside_bare_quic(run: &Run) -> Result<()> {
    let bytes = if run.long { 1 << 30 } else { 32 << 20 };
    let all = Bytes::from(vec![7; bytes]);
    let rig = Rig::start(run, &all)?;
    // The first finds out how large datagrams may be.
    rig.through_tunnel(bytes / 16)?;
    let (mut tunnels, mut bares, mut far, mut near) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let direct = || {
        let to = SocketAddr::from((near_address(&rig)?, rig.near.at.port()));
        Tunnel::direct(&rig.client, to)
    };
    for _ in 0..run.count(1, 7) {
        tunnels.push(rig.through_tunnel(bytes)?);
        bares.push(rig.bare(bytes)?);
        far.push(rig.per_second(|| rig.tunnel())?);
        near.push(rig.per_second(direct)?);
    }
    let of = |all: &[Carried], read: fn(Carried) -> f64| median(all.iter().copied().map(read).collect());
    let speeds = [&tunnels, &bares].map(|all| of(all, Carried::megabytes_per_second));
    let costs = [&tunnels, &bares].map(|all| of(all, Carried::seconds_per_gigabyte));
    let rates = [median(far), median(near)];
    run.measures.note(format!(
        "one download: {:.0} MB/s through a tunnel, {:.0} bare ({:.2}); processor {:.2} s/GB of both bridges, {:.2} bare ({:.2}); {CLIENTS} clients: {:.0} requests/s through warm tunnels, {:.0} local ({:.2})",
        speeds[0], speeds[1], speeds[0] / speeds[1], costs[0], costs[1], costs[0] / costs[1], rates[0], rates[1], rates[0] / rates[1],
    ));
    if let Some(report) = env::var_os("ISLE_SIMULATION_REPORT") {
        let mut file = File::options().create(true).append(true).open(report)?;
        for (index, product) in ["isle's tunnel", "bare quinn, or local"].into_iter().enumerate() {
            let line = json!({
                "scenario": "tunnels::beside_bare_quic",
                "product": product,
                "megabytes_per_second": speeds[index],
                "seconds_per_gigabyte": costs[index],
                "requests_per_second": rates[index],
            });
            writeln!(file, "{line}")?;
        }
    }
    Ok(())
}

/// Links have the one thread and the one socket that tunnels have: what members say must not wait for what they carry.
pub(super) fn farewells_beside_downloads(run: &Run) -> Result<()> {
    const BYTES: usize = 32 << 20;
    const AT_ONCE: usize = 4;
    const PIECES: &[&str] = &["pieces", "--island", "south"];
    let mut rig = Rig::start(run, &Bytes::from(vec![7; BYTES]))?;
    let south = rig.both.island("south")?;
    let host = south.host("s-p1")?;
    for (when, downloads) in [("alone", 0), ("beside four downloads", AT_ONCE)] {
        let logs = ["n-bridge", "s-bridge"].map(|label| rig.both.running(label).map(Node::events));
        let [north, south] = logs;
        let (north, south) = (north?, south?);
        north.started()?;
        south.started()?;
        let (carried, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| -> Result<()> {
            let ends = Ends(&is_over);
            let load: Vec<_> = (0..downloads)
                .map(|_| {
                    let mut tunnel = rig.tunnel()?;
                    let (carried, is_over) = (&carried, &is_over);
                    Ok(scope.spawn(move || {
                        while !is_over.load(Relaxed) {
                            download(&mut tunnel, BYTES, |length| _ = carried.fetch_add(length, Relaxed))?;
                        }
                        anyhow::Ok(())
                    }))
                })
                .collect::<Result<_>>()?;
            let began = Instant::now();
            for _ in 0..run.count(3, 40) {
                let mut leaving = rig.both.islands["south"].join(&host, PIECES)?;
                let id = leaving.id().to_owned();
                north.wait("joined", PATIENCE, |seen| seen.is("joined", &id))?;
                let before = carried.load(Relaxed);
                leaving.interrupt()?;
                let [far, near] =
                    [&north, &south].map(|log| log.wait("left", PATIENCE, |seen| seen.is("left", &id)));
                let crossing = far?.at.saturating_duration_since(near?.at);
                leaving.ended(PATIENCE)?;
                run.measures
                    .add(&format!("a farewell known on the other island after on its own, {when}"), crossing);
                let is_busy = carried.load(Relaxed) > before || downloads == 0;
                ensure!(is_busy, "nothing was carried meanwhile");
                ensure!(crossing <= FAREWELL_MAX, "{when}: {crossing:?}");
            }
            let rate = carried.load(Relaxed) as f64 / 1e6 / began.elapsed().as_secs_f64();
            run.measures.note(format!("{when}: {rate:.0} MB/s through tunnels meanwhile"));
            drop(ends);
            load.into_iter().try_for_each(|load| load.join().expect("a client reports"))
        })?;
    }
    Ok(())
}

/// Says that it is over, on every way out.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// One download; `came` is told of the bytes as they come.
fn download(tunnel: &mut Tunnel, bytes: usize, mut came: impl FnMut(usize)) -> Result<()> {
    tunnel.send(&asked(bytes))?;
    ensure!(tunnel.head()? == bytes, "another length");
    let (mut left, mut piece) = (bytes, vec![0; PIECE]);
    while left > 0 {
        let length = tunnel.0.read(&mut piece)?;
        ensure!((1..=left).contains(&length), "{left} bytes are missing, and {length} came");
        left -= length;
        came(length);
    }
    Ok(())
}

fn near_address(rig: &Rig) -> Result<Ipv4Addr> {
    let page = rig.both.running("n-bridge")?.ask("/members")?;
    let members = page["members"].as_array().context("no members")?;
    let near = members.iter().find(|member| member["id"] == rig.near.id.as_str()).context("not listed")?;
    Ok(near["address"].as_str().context("no address")?.parse()?)
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
