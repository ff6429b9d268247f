//! Real sockets on the loopback interface, several nodes in this process.

use std::collections::HashMap;
use std::sync::Mutex;

use super::*;
use crate::event::EventKind;
use crate::member::{LeaveReason, Standing};
use crate::mesh::{BoxFuture, Ended, FarWords, FetchError, News, What};
use crate::reserved::ReservedPort;

/// Tables are handed over within the process: each node is known by the HTTP port it announces.
#[derive(Default)]
struct Nearby {
    nodes: Mutex<HashMap<u16, Mesh>>,
}

impl TableFetch for Nearby {
    fn fetch(&self, at: SocketAddr) -> BoxFuture<Result<Bytes, FetchError>> {
        let node = self.nodes.lock().unwrap().get(&at.port()).cloned();
        Box::pin(async move { Ok(node.ok_or(FetchError("nobody there".to_owned()))?.records().await) })
    }

    fn fetch_far(&self, at: SocketAddr, instance: u64, since: u64) -> BoxFuture<Result<Bytes, FetchError>> {
        let node = self.nodes.lock().unwrap().get(&at.port()).cloned();
        Box::pin(async move {
            Ok(node.ok_or(FetchError("nobody there".to_owned()))?.far_records(instance, since).await)
        })
    }
}

struct Island {
    port: ReservedPort,
    nearby: Arc<Nearby>,
    tasks: JoinSet<Result<(), MeshError>>,
}

impl Island {
    fn new() -> Self {
        Self { port: ReservedPort::take().unwrap(), nearby: Arc::default(), tasks: JoinSet::new() }
    }

    fn join(&mut self, number: u16) -> Mesh {
        self.join_as(number, MeshConfig::default())
    }

    fn join_as(&mut self, number: u16, config: MeshConfig) -> Mesh {
        let config = MeshConfig {
            name: format!("n{number}"),
            mesh: "driver tests".to_owned(),
            http_port: number,
            discovery_port: self.port.number(),
            interfaces: vec!["lo".to_owned()],
            ..config
        };
        let (mesh, task) = Mesh::join(config, Identity::fresh().unwrap(), self.nearby.clone()).unwrap();
        self.nearby.nodes.lock().unwrap().insert(number, mesh.clone());
        self.tasks.spawn(task);
        mesh
    }
}

/// Waits for an event of this kind about `id`.
async fn until(events: &mut Subscription, kind: EventKind, id: MemberId) -> Event {
    let wait = async {
        loop {
            let event = events.next().await.unwrap();
            if event.kind == kind && event.member().is_some_and(|member| member.id == id) {
                return event;
            }
        }
    };
    timeout(Duration::from_secs(5), wait).await.unwrap_or_else(|_| panic!("no {kind:?} of {id:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_one_host_find_each_other_and_hear_a_farewell() {
    let mut island = Island::new();
    let first = island.join(1);
    let mut events = first.subscribe().await.unwrap();
    assert_eq!(events.snapshot.len(), 1);
    let second = island.join(2);
    let joined = until(&mut events, EventKind::Joined, second.id()).await;
    assert!(first.table().get(&second.id()).is_some(), "the table is written before its event is sent");
    // Where it was heard comes first; what else it announces on this host may follow.
    assert_eq!(joined.member().unwrap().http_addresses.first(), Some(&"127.0.0.1:2".parse().unwrap()));
    timeout(Duration::from_secs(2), second.complete()).await.unwrap();
    let third = island.join(3);
    timeout(Duration::from_secs(2), third.complete()).await.unwrap();
    let mut at_third = third.subscribe().await.unwrap();
    // On a busy machine the half second after which nobody is thought to be there may pass unheard.
    for other in [&first, &second] {
        if third.table().get(&other.id()).is_none() {
            until(&mut at_third, EventKind::Joined, other.id()).await;
        }
    }
    assert!(third.may_ask("127.0.0.1".parse().unwrap()));
    assert!(!third.may_ask("192.0.2.1".parse().unwrap()));

    second.leave(LeaveReason::Stopped).await;
    until(&mut events, EventKind::Left, second.id()).await;
    assert_eq!(first.table().get(&second.id()).unwrap().standing, Standing::Left);
    assert!(island.tasks.join_next().await.unwrap().unwrap().is_ok());
    assert!(second.subscribe().await.is_err());
}

#[tokio::test]
async fn a_reader_hears_of_the_end_of_its_own_node() {
    let mut island = Island::new();
    let mesh = island.join(1);
    let mut events = mesh.subscribe().await.unwrap();
    mesh.leave(LeaveReason::Stopped).await;
    until(&mut events, EventKind::Left, mesh.id()).await;
    assert!(matches!(events.next().await, Err(Ended::Left(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_at_one_socket_does_not_silence_a_node() {
    let mut island = Island::new();
    let mesh = island.join(1);
    mesh.complete().await;
    let private = SocketAddr::from(([127, 0, 0, 1], mesh.me().record.unicast_port));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flooders: Vec<_> = (0..2)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                for _ in 0..5_000_000 {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        return;
                    }
                    let _ = socket.send_to(&[0; 64], private);
                }
            })
        })
        .collect();
    let before = mesh.counts().sent;
    // Whoever comes meanwhile is heard on the other sockets, and beacons go out.
    let mut events = mesh.subscribe().await.unwrap();
    let other = island.join(2);
    until(&mut events, EventKind::Joined, other.id()).await;
    let beacons = async {
        while mesh.counts().sent < before + 20 {
            // Its own wake-ups show what it has sent; nothing else tells.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = timeout(Duration::from_secs(5), beacons).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for flooder in flooders {
        flooder.join().unwrap();
    }
    in_time.expect("it goes on saying that it lives");
}

/// What a bridge was told, in order.
#[derive(Default)]
struct Told(Mutex<Vec<News>>);

impl Outward for Told {
    fn tell(&self, news: News) {
        self.0.lock().unwrap().push(news);
    }
}

impl Told {
    /// The words about `member` that were told.
    fn about(&self, member: MemberId) -> Vec<(What, Bytes)> {
        let of = |news: &News| match news {
            News::Said { member: whom, what, bytes, .. } if *whom == member => Some((*what, bytes.clone())),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(of).collect()
    }
}

/// A bridge of an island with one member besides, and what the bridge was told.
fn bridged(name: &str) -> (Island, Mesh, Mesh, Arc<Told>) {
    let mut island = Island::new();
    let told = Arc::new(Told::default());
    let config = MeshConfig {
        island: Some(name.to_owned()),
        roles: vec!["bridge".to_owned()],
        outward: Some(told.clone()),
        ..MeshConfig::default()
    };
    let bridge = island.join_as(1, config);
    let member = island.join(2);
    (island, bridge, member, told)
}

async fn until_told(told: &Told, member: MemberId, what: What) -> Vec<Bytes> {
    let wait = async {
        loop {
            let about = told.about(member);
            if about.iter().any(|(said, _)| *said == what) {
                return about.into_iter().map(|(_, bytes)| bytes).collect();
            }
            // `tell` is not to wake anybody here, so it is looked for.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), wait).await.unwrap_or_else(|_| panic!("no {what:?} of {member:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_bridge_hears_of_another_island_reaches_every_node_of_its_own() {
    let (_south, far_bridge, far_member, told) = bridged("south");
    let (_north, bridge, member, told_north) = bridged("north");
    let mut at_bridge = bridge.subscribe().await.unwrap();
    let mut at_member = member.subscribe().await.unwrap();
    let mut words = until_told(&told, far_member.id(), What::Own).await;
    words.extend(until_told(&told, far_bridge.id(), What::Own).await);
    let hear = |words: Vec<Bytes>, is_urgent| {
        let from = far_bridge.id();
        bridge.hear_far(FarWords { from, withdrawn: Vec::new(), words, gone: Vec::new(), is_urgent })
    };
    // Many, so that they are verified elsewhere; one is not true.
    let mut mangled = words[0].to_vec();
    mangled[80] ^= 1;
    words.extend(vec![Bytes::from(mangled); 20]);
    hear(words, false).await.unwrap();
    let listed = bridge.table().get(&far_member.id()).expect("merged when it returns");
    assert!(listed.far && !listed.reachable);
    assert!(!told_north.about(far_member.id()).is_empty(), "its other links are told before it returns");
    until(&mut at_bridge, EventKind::Joined, far_member.id()).await;
    until(&mut at_member, EventKind::Joined, far_member.id()).await;

    let path = crate::path::Path::new(vec!["south".to_owned()]).unwrap();
    let cost = Duration::from_millis(7);
    let reach = crate::reach::Reach { path, cost, load: crate::reach::IslandLoad::default() };
    bridge.say_reaches(vec![reach.clone()]).await.unwrap();
    let mut islands = member.islands();
    let up = islands.wait_for(|islands| islands.get("south").is_some_and(|south| south.reachable));
    let south = timeout(Duration::from_secs(5), up).await.unwrap().unwrap()["south"].clone();
    assert_eq!((south.ways[0].bridge, &south.ways[0].reach), (bridge.id(), &reach));
    let reachable = async {
        while !member.table().get(&far_member.id()).is_some_and(|listed| listed.reachable) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), reachable).await.expect("the table says so, too");
    assert!(member.table().all().iter().filter(|listed| listed.far).count() == 2);

    far_member.leave(LeaveReason::Stopped).await;
    until_told(&told, far_member.id(), What::Own).await;
    let last = async {
        loop {
            let (_, bytes) = told.about(far_member.id()).pop().unwrap();
            if bytes[3] == crate::wire::kind::FAREWELL {
                return bytes;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let farewell = timeout(Duration::from_secs(5), last).await.unwrap();
    hear(vec![farewell], true).await.unwrap();
    until(&mut at_member, EventKind::Left, far_member.id()).await;
    bridge.set_foreign(BTreeSet::from([member.id()]));
    until(&mut at_bridge, EventKind::Forgotten, member.id()).await;
}

/// Signed records of made-up members of another island.
fn records_of(island: &str, count: usize, tag: MeshTag) -> Vec<Bytes> {
    let sign = |number: usize| {
        let record = crate::member::Record {
            name: format!("f{number}"),
            roles: vec!["pieces".to_owned()],
            addresses: vec![Address { ip: "10.1.2.3".parse().unwrap(), prefix: 24 }],
            http_port: 1233,
            unicast_port: 4000,
            island: island.to_owned(),
            island_given: true,
            draining: false,
            catalogue: None,
            watchers: (0..6).map(|other| Identity::for_test((number + other) as u64 % 64).id()).collect(),
            protocol: (1, 1),
            version: "1".to_owned(),
            tags: Vec::new(),
        };
        let seq = crate::member::Seq(1);
        Identity::for_test(5000 + number as u64).sign_word(
            tag,
            &crate::wire::Message::Announce(record.into()),
            seq,
        )
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| scope.spawn(move || (part..count).step_by(threads).map(sign).collect::<Vec<_>>()))
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    })
}

/// Asks this node again and again until `stop`; gives how often, and the longest that an answer took.
fn keep_asking(
    mesh: &Mesh,
    stop: Arc<std::sync::atomic::AtomicBool>,
) -> std::thread::JoinHandle<(u32, Duration)> {
    let (tag, target) = (mesh.tag(), mesh.id());
    let at = SocketAddr::from(([127, 0, 0, 1], mesh.me().record.unicast_port));
    std::thread::spawn(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (mut asked, mut longest) = (0, Duration::ZERO);
        let identity = Identity::fresh().unwrap();
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            asked += 1;
            std::thread::sleep(Duration::from_millis(1));
            let ping = crate::wire::Ping {
                nonce: asked.into(),
                target,
                unicast_port: socket.local_addr().unwrap().port(),
                wants_record: false,
            };
            let word =
                identity.sign_word(tag, &crate::wire::Message::Ping(ping), crate::member::Seq(asked.into()));
            let began = std::time::Instant::now();
            socket.send_to(&word, at).unwrap();
            socket.recv(&mut [0; 1500]).expect("it answers");
            longest = longest.max(began.elapsed());
        }
        (asked, longest)
    })
}

/// A link brings many members, and another node of the island fetches them all: neither stops answering meanwhile. Gives how
/// often they did while words were taken in.
async fn answers_during_merge(members: usize) -> [u32; 2] {
    let (_island, bridge, member, _) = bridged("north");
    let words = records_of("south", members, bridge.tag());
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asking = [&bridge, &member].map(|mesh| keep_asking(mesh, stop.clone()));
    let from = Identity::for_test(9).id();
    let began = Instant::now();
    // As one batch, larger than a link brings: nothing else holds it up.
    let heard = FarWords { from, withdrawn: Vec::new(), words, gone: Vec::new(), is_urgent: false };
    bridge.hear_far(heard).await.unwrap();
    let merged = began.elapsed();
    let far = |mesh: &Mesh| mesh.table().all().iter().filter(|listed| listed.far).count();
    assert_eq!(far(&bridge), members);
    let pulled = async {
        while far(&member) < members {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), pulled).await.expect("the other node has them, too");
    let pulled = began.elapsed();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut answers = [0; 2];
    for ((asking, whose), answers) in asking.into_iter().zip(["bridge", "member"]).zip(&mut answers) {
        let (asked, longest) = asking.join().unwrap();
        println!(
            "{whose}: {asked} answers, the longest after {longest:?}; merged {merged:?}, pulled {pulled:?}"
        );
        *answers = asked;
    }
    answers
}

/// Merged at once they would leave a question or two answered before, and the rest after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_far_members_come_in_while_nodes_go_on_answering() {
    let answers = answers_during_merge(2000).await;
    assert!(answers.iter().all(|answers| *answers >= 20), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "some seconds of both cores: cargo test --release -p isle-mesh --lib twenty_thousand -- --ignored --nocapture"]
async fn twenty_thousand_far_members_come_in_while_nodes_go_on_answering() {
    let answers = answers_during_merge(crate::table::MEMBERS_MAX).await;
    assert!(answers.iter().all(|answers| *answers >= 200), "{answers:?}");
}
