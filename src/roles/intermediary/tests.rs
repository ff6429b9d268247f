//! An intermediary among members of a real mesh on loopback, some of which are not what they should be.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, HeaderValue, Method};
use http_body_util::BodyExt;
use isle_mesh::config::MeshConfig;
use isle_mesh::identity::Identity;
use isle_mesh::member::CatalogueSummary;
use isle_mesh::reserved::ReservedPort;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::config::Shed;
use crate::figures::{Figure, Shelf, Shelved, split};
use crate::node::tables::Tables;

/// Longer than anything here takes on a busy machine; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a member does when it is asked for a figure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Honest,
    /// Another body, just as long.
    Lies,
    /// Reads and says nothing.
    Mute,
    /// Closes without a word.
    BreaksOff,
    /// Sends half of it and closes.
    Half,
    /// Something that is not HTTP.
    Garbage,
    /// 503.
    Busy,
    /// 404.
    Empty,
    /// Cannot prove its key.
    SomebodyElse,
}

/// A piece server in a few lines.
struct Server {
    mesh: Mesh,
    manner: StdMutex<Manner>,
    shelf: Shelf,
    /// Times that a figure was asked for.
    asked: AtomicUsize,
}

impl Server {
    async fn serve(self: Arc<Self>, mut stream: TcpStream) -> Option<()> {
        let dialled = stream.local_addr().ok()?;
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.ok()?);
            }
            let head = String::from_utf8(head).ok()?;
            let target = head.split(' ').nth(1)?.to_owned();
            let manner = *self.manner.lock().unwrap();
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let (status, body) = match path {
                "/mesh/records" => (200, self.mesh.records().await.to_vec()),
                "/mesh/proof" => {
                    let nonce = query.strip_prefix("nonce=")?.as_bytes();
                    let mut nonce: [u8; 16] = data_encoding::HEXLOWER.decode(nonce).ok()?.try_into().ok()?;
                    nonce[0] ^= u8::from(manner == Manner::SomebodyElse);
                    (200, self.mesh.proof(&nonce, dialled))
                }
                "/local/catalog" => (200, self.shelf.catalogue_text().to_vec()),
                path => {
                    self.asked.fetch_add(1, Ordering::SeqCst);
                    let name = path.strip_prefix("/local/figures/")?.parse().ok()?;
                    let body = self.shelf.shares(&name).next()?.1.to_vec();
                    match manner {
                        Manner::Honest | Manner::SomebodyElse => (200, body),
                        Manner::Lies => (200, String::from_utf8(body).ok()?.replace('1', "2").into_bytes()),
                        Manner::Mute => std::future::pending().await,
                        Manner::BreaksOff => return None,
                        Manner::Half => {
                            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                            stream.write_all(head.as_bytes()).await.ok()?;
                            stream.write_all(&body[..body.len() / 2]).await.ok()?;
                            return None;
                        }
                        Manner::Garbage => {
                            stream.write_all(b"220 smtp.example ESMTP\r\n\r\n").await.ok()?;
                            return None;
                        }
                        Manner::Busy => (503, Vec::new()),
                        Manner::Empty => (404, Vec::new()),
                    }
                }
            };
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.ok()?;
            stream.write_all(&body).await.ok()?;
        }
    }

    fn behaves(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A mesh of this test alone. Ends with it.
struct Island {
    discovery_port: ReservedPort,
    tasks: JoinSet<()>,
    members: usize,
}

impl Island {
    fn new() -> Self {
        Self { discovery_port: ReservedPort::take().unwrap(), tasks: JoinSet::new(), members: 0 }
    }

    fn join(&mut self, role: &str, http_port: u16, shelf: Option<&Shelf>) -> Mesh {
        self.members += 1;
        let catalogue = shelf.map(|shelf| CatalogueSummary {
            digest: shelf.catalogue().digest().0,
            entries: u32::try_from(shelf.len()).unwrap(),
        });
        let config = MeshConfig {
            name: format!("m{}", self.members),
            mesh: "intermediary tests".to_owned(),
            roles: vec![role.to_owned()],
            http_port,
            catalogue,
            discovery_port: self.discovery_port.number(),
            interfaces: vec!["lo".to_owned()],
            ..MeshConfig::default()
        };
        let (mesh, task) = Mesh::join(config, Identity::fresh().unwrap(), Arc::new(Tables)).unwrap();
        self.tasks.spawn(async move {
            let _ = task.await;
        });
        mesh
    }

    async fn server(&mut self, manner: Manner, figures: &[Figure]) -> Arc<Server> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shelved: Vec<Shelved> = figures.iter().map(Shelved::from).collect();
        let shelf = Shelf::new(&shelved).0;
        let mesh = self.join("pieces", listener.local_addr().unwrap().port(), Some(&shelf));
        let server =
            Arc::new(Server { mesh, manner: StdMutex::new(manner), shelf, asked: AtomicUsize::new(0) });
        let serving = server.clone();
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serving.clone().serve(stream));
            }
        });
        server
    }

    /// An intermediary that knows all servers. Nobody but the test asks it, so it needs no listener.
    async fn intermediary(&mut self, request_timeout: Duration) -> Intermediary {
        let config = IntermediaryConfig {
            max_in_flight: 64,
            request_timeout,
            wait: Duration::from_secs(2),
            shed: Shed::Forward,
        };
        let servers = self.members;
        let mesh = self.join("intermediary", 1, None);
        let (intermediary, task) =
            Intermediary::new(mesh.clone(), config, Upstreams::default(), Connections::new(), None);
        self.tasks.spawn(task.run());
        let all_known = async {
            let mut changes = intermediary.shared.index.changes();
            loop {
                changes.mark_unchanged();
                let snapshot = intermediary.shared.index.snapshot();
                let known: usize = snapshot.catalogues().map(|(_, holders)| holders.len()).sum();
                let proven = mesh.table().all().iter().filter(|member| member.proven).count();
                if known == servers && proven >= servers {
                    return;
                }
                let _ = timeout(Duration::from_millis(50), changes.changed()).await;
            }
        };
        timeout(PATIENCE, all_known).await.expect("every catalogue is read in time");
        intermediary
    }
}

fn request(name: &str, headers: &[(&'static str, &str)]) -> Gated {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect();
    Gated {
        method: Method::GET,
        path: format!("/figures/{name}").into(),
        query: None,
        headers,
        host: "localhost".into(),
        peer: SocketAddr::from(([127, 0, 0, 1], 9)),
        dialled: SocketAddr::from(([127, 0, 0, 1], 5235)),
        arrived: Instant::now(),
        hops: 0,
        deadline: None,
    }
}

/// Status and body as JSON.
async fn ask(intermediary: &Intermediary, name: &str) -> (u16, Value) {
    let answer = intermediary.answer(&request(name, &[])).await.expect("a path of its own");
    for name in ["via", "isle-served-by", "server-timing"] {
        assert!(answer.headers().contains_key(name), "{name}");
    }
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

fn builtin(name: &str) -> Figure {
    let shelf = Shelf::builtin();
    let (_, body) = shelf.shares(&name.parse().unwrap()).next().unwrap();
    Figure::from_body(body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_figure_is_whole_and_says_where_it_came_from() {
    let mut island = Island::new();
    let server = island.server(Manner::Honest, &[builtin("giraffe")]).await;
    let intermediary = island.intermediary(PATIENCE).await;
    let (status, body) = ask(&intermediary, "GIRAFFE").await;
    assert_eq!((status, &body["total"]), (200, &Value::from(28)));
    assert_eq!(body["sources"][0]["id"], server.mesh.id().to_string());
    let (status, body) = ask(&intermediary, "giraf").await;
    assert_eq!((status, &body["reason"]), (404, &Value::from("no-such-figure")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_a_member_are_not_kept_from_when_it_drains_until_it_is_gone() {
    let mut island = Island::new();
    let server = island.server(Manner::Honest, &[builtin("giraffe")]).await;
    let intermediary = island.intermediary(PATIENCE).await;
    let shared = intermediary.shared.clone();
    let at = shared.mesh.table().get(&server.mesh.id()).unwrap().http_addresses[0].into();
    let becomes = async |kept: bool| {
        while shared.upstreams.keeps(&at) != kept {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(shared.upstreams.keeps(&at));
    server.mesh.drain().await;
    timeout(PATIENCE, becomes(false)).await.expect("an event tells it");
    // Whoever has missed events reads the table.
    shared.upstreams.stays(&server.mesh.id());
    shared.take_all(&shared.mesh.table().all());
    assert!(!shared.upstreams.keeps(&at));
    server.mesh.leave(isle_mesh::member::LeaveReason::Stopped).await;
    timeout(PATIENCE, becomes(true)).await.expect("whoever comes there next is another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_one_holder_does_the_other_serves() {
    for manner in [
        Manner::Lies,
        Manner::BreaksOff,
        Manner::Half,
        Manner::Garbage,
        Manner::Busy,
        Manner::Empty,
        Manner::Mute,
        Manner::SomebodyElse,
    ] {
        let mut island = Island::new();
        let bad = island.server(manner, &[builtin("duck")]).await;
        let good = island.server(Manner::Honest, &[builtin("duck")]).await;
        let intermediary = island.intermediary(Duration::from_secs(4)).await;
        for _ in 0..30 {
            let (status, body) = ask(&intermediary, "duck").await;
            assert_eq!(status, 200, "{manner:?}: {body}");
            assert_eq!(body["total"], 9, "{manner:?}");
            assert_eq!(body["sources"][0]["id"], good.mesh.id().to_string(), "{manner:?}");
        }
        let most = if manner == Manner::SomebodyElse { 0 } else { 10 };
        assert!(bad.asked() <= most, "{manner:?}: asked {} times", bad.asked());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_figure_is_never_passed_on_and_its_status_says_what_happened() {
    let mut island = Island::new();
    let server = island.server(Manner::Lies, &[builtin("duck")]).await;
    let intermediary = island.intermediary(Duration::from_millis(300)).await;
    for (manner, expected) in [
        (Manner::Lies, (502, "upstream-broke")),
        (Manner::BreaksOff, (502, "upstream-broke")),
        (Manner::Garbage, (502, "upstream-broke")),
        (Manner::Mute, (504, "deadline")),
    ] {
        server.behaves(manner);
        let (status, body) = ask(&intermediary, "duck").await;
        assert_eq!((status, body["reason"].as_str().unwrap()), expected, "{manner:?}");
    }
    server.behaves(Manner::Honest);
    assert_eq!(ask(&intermediary, "duck").await.0, 200, "the last one is asked whatever it did");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_of_several_members_make_the_whole_and_a_missing_one_is_named() {
    let mut island = Island::new();
    let whole = builtin("dragon");
    let shares = split(&whole, 3).unwrap();
    let mut servers = BTreeMap::new();
    for (number, share) in (1..).zip(&shares) {
        servers.insert(number, island.server(Manner::Honest, std::slice::from_ref(share)).await);
    }
    let intermediary = island.intermediary(PATIENCE).await;
    let (status, body) = ask(&intermediary, "dragon").await;
    assert_eq!((status, &body["total"]), (200, &Value::from(23)));
    assert_eq!(body["pieces"], serde_json::to_value(whole.pieces()).unwrap());
    assert_eq!(body["sources"].as_array().unwrap().len(), 3);
    servers[&2].mesh.leave(isle_mesh::member::LeaveReason::Stopped).await;
    let started = Instant::now();
    let (status, body) = ask(&intermediary, "dragon").await;
    assert_eq!((status, &body["missing"]), (503, &serde_json::json!(["2/3"])));
    assert!(started.elapsed() < Duration::from_secs(4), "waits 2 s for it to come back");
    let _back = island.server(Manner::Honest, &shares[1..2]).await;
    let whole_again = async {
        let mut changes = intermediary.shared.index.changes();
        while ask(&intermediary, "dragon").await.0 != 200 {
            changes.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, whole_again).await.expect("what is back is served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_back_is_a_loop() {
    let mut island = Island::new();
    let intermediary = island.intermediary(PATIENCE).await;
    let via = format!("1.1 {}", intermediary.shared.mesh.id());
    let answer = intermediary.answer(&request("duck", &[("via", &via)])).await.unwrap();
    assert_eq!(answer.status(), StatusCode::LOOP_DETECTED);
}
