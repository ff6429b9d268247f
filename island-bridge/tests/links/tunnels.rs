//! Tunnels over one link and over several.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use island_bridge::bridge::Config;
use island_bridge::endpoint::{Closing, Endpoint};
use island_bridge::frame::tunnel::{Hop, Open, Opened, TunnelFailure};
use island_bridge::tls::Purpose;
use island_bridge::tunnel::{BoxFuture, Dial, Dialled, along};
use isle_mesh::member::MemberId;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::node::{MESH, Node, config, id, key, loopback, target};
use crate::refusals::OneInvite;

/// Ports that members of this test listen at, and how they behave.
const ECHO: u16 = 1;
const REFUSES: u16 = 2;
const MUTE: u16 = 3;
const READS_NOTHING: u16 = 4;
const SAYS_MUCH: u16 = 5;
/// Echoes what comes, but takes its time to be dialled.
const SLOW: u16 = 6;

const MEMBER: MemberId = MemberId([42; 32]);
const MUCH: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// An island with one member.
#[derive(Default)]
struct Island {
    dialled: AtomicUsize,
    /// Members that are being dialled, and how many were at once.
    dialling: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
    /// Where another bridge of this island takes tunnels on.
    others: BTreeMap<MemberId, island_bridge::bridge::Bridge>,
}

impl Dial for Island {
    fn member(
        &self,
        target: MemberId,
        port: u16,
        nonce: [u8; 16],
    ) -> BoxFuture<Result<Dialled, TunnelFailure>> {
        self.dialled.fetch_add(1, Ordering::SeqCst);
        let underway = Underway::begin(&self.dialling);
        self.at_once.fetch_max(self.dialling.load(Ordering::SeqCst), Ordering::SeqCst);
        Box::pin(async move {
            let _underway = underway;
            let (near, far) = duplex(64 << 10);
            match port {
                _ if target != MEMBER => return Err(TunnelFailure::Forbidden),
                ECHO => drop(tokio::spawn(echo(far))),
                REFUSES => return Err(TunnelFailure::ConnectionRefused),
                MUTE => return std::future::pending().await,
                READS_NOTHING => drop(tokio::spawn(async move {
                    let _kept = far;
                    tokio::time::sleep(PATIENCE).await;
                })),
                SAYS_MUCH => drop(tokio::spawn(say_much(far))),
                SLOW => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    drop(tokio::spawn(echo(far)));
                }
                _ => return Err(TunnelFailure::NotProven),
            }
            let opened = Opened { dialled: at(port), proof: Bytes::copy_from_slice(&nonce) };
            Ok(Dialled { io: Box::new(near), opened })
        })
    }

    fn bridge(
        &self,
        bridge: MemberId,
        open: Open,
        early: Bytes,
    ) -> BoxFuture<Result<Dialled, TunnelFailure>> {
        let other = self.others.get(&bridge).cloned();
        Box::pin(async move { other.ok_or(TunnelFailure::NoRoute)?.tunnel(open, early).await })
    }
}

/// A member that is being dialled, until it is dropped.
struct Underway(Arc<AtomicUsize>);

impl Underway {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn echo(mut far: DuplexStream) {
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    far.write_all(&all).await.unwrap();
}

async fn say_much(mut far: DuplexStream) {
    let piece = vec![7; 1 << 20];
    for _ in 0..MUCH >> 20 {
        if far.write_all(&piece).await.is_err() {
            return;
        }
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 77, 0, 9], port))
}

fn with_island(config: Config) -> (Config, Arc<Island>) {
    let island = Arc::<Island>::default();
    (Config { dialler: Some(island.clone()), ..config }, island)
}

/// North, linked to south, which has a member.
async fn pair() -> (Node, Node, Arc<Island>) {
    let (south_config, island) = with_island(config("south", &[1]));
    let mut north = Node::start(1, config("north", &[]));
    let south = Node::start(2, south_config);
    north.bridge.link(target(2, south.addr())).await;
    north.sees_up(2).await;
    (north, south, island)
}

fn open(islands: &[&str], port: u16) -> Open {
    let islands: Vec<String> = islands.iter().map(|&island| island.to_owned()).collect();
    along(&islands, MEMBER, port, [9; 16])
}

async fn ends_as_it_should(mut tunnel: Dialled) {
    assert_eq!((tunnel.opened.dialled, &*tunnel.opened.proof), (at(ECHO), [9; 16].as_slice()));
    tunnel.io.write_all(b"there and back").await.unwrap();
    // Only when its half is over does the member answer.
    tunnel.io.shutdown().await.unwrap();
    let mut all = String::new();
    timeout(PATIENCE, tunnel.io.read_to_string(&mut all)).await.unwrap().unwrap();
    assert_eq!(all, "there and back");
}

#[tokio::test]
async fn a_tunnel_closes_one_half_at_a_time() {
    let (north, south, _) = pair().await;
    for _ in 0..10 {
        ends_as_it_should(north.tunnel(open(&["south"], ECHO)).await.unwrap()).await;
    }
    let (there, here) = (south.shows(1, |_| true).await.tunnels, north.shows(2, |_| true).await.tunnels);
    assert_eq!((here.opened, here.failed, there.opened), (10, 0, 10));
    assert_eq!((here.bytes_sent, here.bytes_received), (140, 140));
}

#[tokio::test]
async fn whoever_was_called_opens_tunnels_the_other_way() {
    let (north_config, _island) = with_island(config("north", &[]));
    let north = Node::start(1, north_config);
    let mut south = Node::start(2, config("south", &[1]));
    north.bridge.link(target(2, south.addr())).await;
    south.sees_up(1).await;
    ends_as_it_should(south.tunnel(open(&["north"], ECHO)).await.unwrap()).await;
}

/// North - south - east in a line; the member is in the east.
async fn line() -> (Node, Node, Node) {
    let mut north = Node::start(1, config("north", &[]));
    let mut south = Node::start(2, config("south", &[1]));
    let (east_config, _island) = with_island(config("east", &[2]));
    let mut east = Node::start(3, east_config);
    north.bridge.link(target(2, south.addr())).await;
    south.bridge.link(target(3, east.addr())).await;
    south.sees_up(3).await;
    north.sees_up(2).await;
    east.sees_up(2).await;
    (north, south, east)
}

#[tokio::test]
async fn a_tunnel_passes_the_islands_that_it_names_and_no_others() {
    let (north, south, _east) = line().await;
    ends_as_it_should(north.tunnel(open(&["south", "east"], ECHO)).await.unwrap()).await;
    ends_as_it_should(south.tunnel(open(&["east"], ECHO)).await.unwrap()).await;
    for (way, why) in [
        (&["east"][..], TunnelFailure::NoRoute),
        (&["south", "west"], TunnelFailure::NoRoute),
        (&["south"], TunnelFailure::Forbidden),
        (&[], TunnelFailure::NoRoute),
    ] {
        assert_eq!(north.tunnel(open(way, ECHO)).await.unwrap_err(), why, "{way:?}");
    }
    let elsewhere =
        Open { hops: vec![Hop { island: "south".to_owned(), bridge: Some(id(7)) }], ..open(&[], ECHO) };
    assert_eq!(north.tunnel(elsewhere).await.unwrap_err(), TunnelFailure::NoRoute);
}

#[tokio::test]
async fn what_keeps_a_tunnel_from_standing_is_said() {
    let (north, _south, island) = pair().await;
    let refused = north.tunnel(open(&["south"], REFUSES)).await.unwrap_err();
    assert_eq!(refused, TunnelFailure::ConnectionRefused);
    let unknown = Open { target: MemberId([1; 32]), ..open(&["south"], ECHO) };
    assert_eq!(north.tunnel(unknown).await.unwrap_err(), TunnelFailure::Forbidden);
    assert_eq!(north.tunnel(open(&["south"], 9)).await.unwrap_err(), TunnelFailure::NotProven);
    // Given up on, it is given up on there, too.
    let waiting = timeout(Duration::from_millis(200), north.tunnel(open(&["south"], MUTE))).await;
    assert!(waiting.is_err());
    assert_eq!(island.dialled.load(Ordering::SeqCst), 4);
    assert_eq!(north.shows(2, |_| true).await.tunnels.failed, 3);
}

/// Asks for so many tunnels at once, and waits for them.
fn ask_many(node: &Node, count: usize, port: u16) -> JoinSet<Result<Dialled, TunnelFailure>> {
    let mut asking = JoinSet::new();
    for _ in 0..count {
        let bridge = node.bridge.clone();
        asking.spawn(async move { bridge.tunnel(open(&["south"], port), Bytes::new()).await });
    }
    asking
}

#[tokio::test]
async fn of_many_tunnels_asked_for_at_once_a_few_are_dialled_at_a_time_and_all_stand() {
    let (north, _south, island) = pair().await;
    let asked = timeout(PATIENCE, ask_many(&north, 400, SLOW).join_all()).await.unwrap();
    let failed: Vec<_> = asked.iter().filter_map(|asked| asked.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), asked.len());
    assert_eq!(island.at_once.load(Ordering::SeqCst), 64);
}

#[tokio::test]
async fn what_cannot_be_dialled_in_time_is_refused_and_no_other_link_waits() {
    let (south_config, island) = with_island(config("south", &[1, 3]));
    let south = Node::start(2, south_config);
    let (mut north, mut west) = (Node::start(1, config("north", &[])), Node::start(3, config("west", &[])));
    for node in [&mut north, &mut west] {
        node.bridge.link(target(2, south.addr())).await;
        node.sees_up(2).await;
    }
    let mut asking = ask_many(&north, 1300, MUTE);
    // As many as may wait do, and the others are told at once.
    let mut refused = 0;
    while let Ok(Some(asked)) = timeout(Duration::from_secs(1), asking.join_next()).await {
        assert_eq!(asked.unwrap().unwrap_err(), TunnelFailure::Busy);
        refused += 1;
    }
    assert!(refused >= 1300 - 64 - 1024, "{refused}");
    assert_eq!(island.dialled.load(Ordering::SeqCst), 64);
    let others = west.tunnel(open(&["south"], ECHO));
    ends_as_it_should(timeout(PATIENCE / 10, others).await.unwrap().unwrap()).await;
    // Whoever does not wait any more makes room, and is not dialled for.
    drop(asking);
    let given_up = async {
        while island.dialling.load(Ordering::SeqCst) > 0 {
            north.shows(2, |_| true).await;
        }
    };
    timeout(PATIENCE, given_up).await.unwrap();
    let again = north.tunnel(open(&["south"], ECHO));
    ends_as_it_should(timeout(PATIENCE, again).await.unwrap().unwrap()).await;
    assert!(island.dialled.load(Ordering::SeqCst) < 64 + 512, "they are dialled for all the same");
}

#[tokio::test]
async fn whoever_reads_nothing_holds_up_its_own_tunnel_alone() {
    let (north, south, _) = pair().await;
    let mut stuck = Vec::new();
    for _ in 0..6 {
        let mut tunnel = north.tunnel(open(&["south"], READS_NOTHING)).await.unwrap();
        let piece = vec![0; 1 << 20];
        let mut written = 0;
        while timeout(Duration::from_millis(300), tunnel.io.write_all(&piece)).await.is_ok() {
            written += piece.len();
            // A stream's windows on both sides, and what is copied.
            assert!(written < 48 << 20, "nothing stops it");
        }
        stuck.push(tunnel);
    }
    // The link does not notice.
    for number in 0..100 {
        north.say(number, number % 2 == 0);
    }
    south.hears(100).await;
}

#[tokio::test]
async fn what_is_sent_along_comes_first_and_once() {
    let (north, south, _east) = line().await;
    let way = open(&["south", "east"], ECHO);
    let mut tunnel = north.bridge.tunnel(way, Bytes::from_static(b"early ")).await.unwrap();
    tunnel.io.write_all(b"and late").await.unwrap();
    tunnel.io.shutdown().await.unwrap();
    let mut all = String::new();
    timeout(PATIENCE, tunnel.io.read_to_string(&mut all)).await.unwrap().unwrap();
    assert_eq!(all, "early and late");
    let here = north.shows(2, |_| true).await.tunnels;
    let (from, to) = (south.shows(1, |_| true).await.tunnels, south.shows(3, |_| true).await.tunnels);
    assert_eq!((here.bytes_sent, from.bytes_received, to.bytes_sent), (14, 14, 14));
}

/// Reads a little and then no more, while the member has more to say than the windows take.
async fn stuck(north: &Node) -> Dialled {
    let mut tunnel = north.tunnel(open(&["south"], SAYS_MUCH)).await.unwrap();
    tunnel.io.read_u8().await.unwrap();
    tunnel
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_are_not_read_do_not_hold_up_the_others() {
    let (north, south, _) = pair().await;
    let mut unread = Vec::new();
    for _ in 0..20 {
        // Each asks for its first byte beside all that hold what they have got.
        unread.push(timeout(PATIENCE, stuck(&north)).await.unwrap());
    }
    for _ in 0..10 {
        let echo = north.tunnel(open(&["south"], ECHO)).await.unwrap();
        timeout(PATIENCE, ends_as_it_should(echo)).await.unwrap();
    }
    // As many as may be behind stay whole, and the others are cut; one more for each of the ten that was slow for a moment.
    let left = south.shows(1, |link| link.tunnels.open <= 12).await.tunnels.open;
    assert!(left >= 2, "{left}");
    // Nobody takes half of it for the whole.
    let (mut whole, mut buffer) = (0, vec![0; 256 << 10]);
    for mut tunnel in unread {
        let mut read = 1;
        let broke = loop {
            match timeout(PATIENCE, tunnel.io.read(&mut buffer)).await.unwrap() {
                Ok(0) => break false,
                Ok(length) => read += length,
                Err(_) => break true,
            }
        };
        assert!(broke || read == MUCH, "{read} of {MUCH}");
        whole += usize::from(!broke);
    }
    assert!((2..=12).contains(&whole), "{whole}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_between_two_links_ends_what_the_far_one_cuts() {
    let (north, south, _east) = line().await;
    let way = open(&["south", "east"], READS_NOTHING);
    let mut writing = Vec::new();
    for _ in 0..20 {
        let mut tunnel = timeout(PATIENCE, north.tunnel(way.clone())).await.unwrap().unwrap();
        writing.push(tokio::spawn(async move { tunnel.io.write_all(&vec![0; MUCH]).await }));
    }
    // The window is full when those are cut that take nothing; whoever writes to them is to learn of it all the same.
    south.shows(3, |link| link.tunnels.open <= 12).await;
    north.shows(2, |link| link.tunnels.open <= 12).await;
    writing.iter().for_each(tokio::task::JoinHandle::abort);
    let echo = north.tunnel(open(&["south", "east"], ECHO)).await.unwrap();
    timeout(PATIENCE, ends_as_it_should(echo)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_comes_through_a_tunnel() {
    let (north, _south, _) = pair().await;
    let mut tunnel = north.tunnel(open(&["south"], SAYS_MUCH)).await.unwrap();
    let (began, mut buffer, mut read) = (Instant::now(), vec![0; 256 << 10], 0);
    loop {
        match tunnel.io.read(&mut buffer).await.unwrap() {
            0 => break,
            length => read += length,
        }
    }
    assert_eq!(read, MUCH);
    println!("{} MB/s", read as f64 / 1e6 / began.elapsed().as_secs_f64());
}

#[tokio::test]
async fn a_tunnel_breaks_with_its_link() {
    let (mut north, south, _) = pair().await;
    let mut tunnel = north.tunnel(open(&["south"], READS_NOTHING)).await.unwrap();
    south.kill().await;
    let read = timeout(PATIENCE, tunnel.io.read_u8()).await.unwrap();
    assert!(read.is_err());
    north.sees_down(2).await;
    let refused = timeout(PATIENCE, north.tunnel(open(&["south"], ECHO))).await.unwrap();
    assert_eq!(refused.unwrap_err(), TunnelFailure::NoRoute);
}

#[tokio::test]
async fn a_bridge_that_leaves_waits_for_the_tunnels_that_it_carries() {
    let (north, south, _) = pair().await;
    let mut tunnel = north.tunnel(open(&["south"], ECHO)).await.unwrap();
    let began = Instant::now();
    south.bridge.drain_tunnels(Duration::from_millis(100)).await;
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!(north.tunnel(open(&["south"], ECHO)).await.unwrap_err(), TunnelFailure::Busy);
    tunnel.io.write_all(b"last words").await.unwrap();
    tunnel.io.shutdown().await.unwrap();
    let mut all = Vec::new();
    tunnel.io.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"last words");
    timeout(PATIENCE, south.bridge.drain_tunnels(PATIENCE * 2)).await.unwrap();
}

#[tokio::test]
async fn strangers_have_no_tunnels() {
    let (_north, south, island) = pair().await;
    let stranger = Endpoint::open(&loopback(0), &key(3), MESH).unwrap();
    let connection = stranger.dial(id(2), south.addr(), Purpose::Tunnels).await.unwrap();
    let error = timeout(PATIENCE, connection.quic().closed()).await.unwrap();
    assert!(matches!(Closing::of(&error), Some(Closing::Refused(_))), "{error:?}");
    assert_eq!(island.dialled.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn who_may_show_an_invite_has_no_tunnels_yet() {
    let (mut config, island) = with_island(config("south", &[]));
    config.invites = Some(Arc::new(OneInvite::default()));
    let south = Node::start(2, config);
    let stranger = Endpoint::open(&loopback(0), &key(3), MESH).unwrap();
    // The link waits for what it says.
    let link = stranger.dial(id(2), south.addr(), Purpose::Link).await.unwrap();
    south.bridge.status().await;
    let connection = stranger.dial(id(2), south.addr(), Purpose::Tunnels).await.unwrap();
    let error = timeout(PATIENCE, connection.quic().closed()).await.unwrap();
    assert!(matches!(Closing::of(&error), Some(Closing::Refused(_))), "{error:?}");
    assert!(link.quic().close_reason().is_none());
    assert_eq!(island.dialled.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn connections_for_tunnels_are_few_and_end_with_the_link() {
    let (_north, south, _) = pair().await;
    let north_key = Endpoint::open(&loopback(0), &key(1), MESH).unwrap();
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(north_key.dial(id(2), south.addr(), Purpose::Tunnels).await.unwrap());
    }
    let error = timeout(PATIENCE, connections[0].quic().closed()).await.unwrap();
    assert_eq!(Closing::of(&error), Some(Closing::Replaced), "{error:?}");
    assert!(south.bridge.unlink(id(1)).await);
    for connection in &connections {
        timeout(PATIENCE, connection.quic().closed()).await.unwrap();
    }
    let late = north_key.dial(id(2), south.addr(), Purpose::Tunnels).await.unwrap();
    let error = timeout(PATIENCE, late.quic().closed()).await.unwrap();
    assert!(matches!(Closing::of(&error), Some(Closing::Refused(_))), "{error:?}");
}

#[tokio::test]
async fn what_is_no_wish_for_a_tunnel_ends_its_stream_alone() {
    let (north, south, island) = pair().await;
    let north_key = Endpoint::open(&loopback(0), &key(1), MESH).unwrap();
    let connection = north_key.dial(id(2), south.addr(), Purpose::Tunnels).await.unwrap();
    for bytes in
        [&[0x55; 4000][..], &[0xff, 0xff, 0xff, 0xff, 48], &[0, 0, 0, 1, 48], &[0, 0, 0, 2, 50, 1], &[]]
    {
        let (mut send, mut recv) = connection.quic().open_bi().await.unwrap();
        // It may be stopped while this is being sent.
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        assert!(timeout(PATIENCE, recv.read_to_end(100)).await.unwrap().is_err(), "{bytes:?}");
    }
    // Ten thousand streams that say nothing: more than are allowed wait at their maker.
    let mut streams = Vec::new();
    while let Ok(opened) = timeout(Duration::from_millis(50), connection.quic().open_bi()).await {
        let (mut send, recv) = opened.unwrap();
        send.write_all(&[0]).await.unwrap();
        streams.push((send, recv));
    }
    // Room that has become free is told to the other side a little later.
    assert!((4080..=4096).contains(&streams.len()), "{}", streams.len());
    assert_eq!(island.dialled.load(Ordering::SeqCst), 0);
    drop(streams);
    drop(connection);
    let again = async {
        loop {
            if let Ok(tunnel) = north.tunnel(open(&["south"], ECHO)).await {
                return tunnel;
            }
        }
    };
    ends_as_it_should(timeout(PATIENCE, again).await.unwrap()).await;
}
