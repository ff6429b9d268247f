use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use isle_mesh::identity::Identity;
use isle_mesh::member::Epoch;
use isle_mesh::proof::Proof;
use isle_mesh::wire::MeshTag;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::http::accept::{self, App, Far, Limits, Opened};
use crate::http::body::{Answer, full};
use crate::http::connections::Connections;
use crate::http::hosts::HostRules;
use crate::http::problem::Problem;
use crate::http::request::{Connect, Gated};
use crate::http::respond;
use crate::upstream::{Ask, Upstreams};

/// What stands in for a bridge, a link and a far bridge.
struct Bridge {
    member: SocketAddr,
    identity: Identity,
    /// What it signs besides the right thing.
    nonce: Option<[u8; 16]>,
    opened: Arc<AtomicUsize>,
    doings: Arc<Mutex<Doings>>,
}

/// How it behaves, and what it has seen.
#[derive(Default)]
struct Doings {
    /// What came along with each wish.
    early: Vec<Bytes>,
    /// From now on it signs for this nonce, whatever it is asked.
    replays: bool,
    /// From now on it has no way.
    refuses: bool,
}

impl App for Bridge {
    async fn answer(&self, request: Gated) -> Answer {
        respond::no_such_path(&request.path).into_answer()
    }

    async fn connect(&self, request: Connect) -> Option<Result<Opened, Answer>> {
        if !request.target.ends_with(":1233") {
            let problem = Problem::new(StatusCode::FORBIDDEN, "forbidden", "forbidden", "not announced");
            return Some(Err(problem.into_answer()));
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        let (replays, refuses) = {
            let mut doings = self.doings.lock().unwrap();
            doings.early.push(request.early.clone());
            (doings.replays, doings.refuses)
        };
        if refuses {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-route", "no way", "none");
            return Some(Err(problem.into_answer()));
        }
        let replayed = replays.then_some([7; 16]);
        let nonce = self.nonce.or(replayed).or(request.nonce).unwrap();
        let far = TcpStream::connect(self.member).await.unwrap();
        let signature = self.identity.sign_proof(tag(), self.member, &nonce);
        let proof = Proof { id: self.identity.id(), epoch: Epoch(1), signature };
        let mut headers = HeaderMap::new();
        put_proof(&mut headers, self.member, &proof::encode(&proof));
        Some(Ok(Opened { far: Box::new(Direct(far)), unsent: request.early, headers }))
    }
}

struct Direct(TcpStream);

impl Far for Direct {
    fn carry(
        mut self: Box<Self>,
        first: Bytes,
        mut near: TcpStream,
    ) -> BoxFuture<'static, std::io::Result<(u64, u64)>> {
        Box::pin(async move {
            self.0.write_all(&first).await?;
            tokio::io::copy_bidirectional(&mut near, &mut self.0).await
        })
    }
}

/// A member that says hello to everybody.
struct Greeter;

impl App for Greeter {
    async fn answer(&self, request: Gated) -> Answer {
        http::Response::new(full(format!("hello {}", request.host)))
    }
}

fn tag() -> MeshTag {
    MeshTag::of("test")
}

async fn serve(app: impl App) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let rules = HostRules::default();
    tokio::spawn(accept::serve(listener, Arc::new(app), rules, Limits::default(), Connections::new()));
    at
}

struct Rig {
    passage: Passage,
    opened: Arc<AtomicUsize>,
    doings: Arc<Mutex<Doings>>,
}

impl Rig {
    fn early(&self) -> Vec<Bytes> {
        self.doings.lock().unwrap().early.clone()
    }
}

async fn rig(nonce: Option<[u8; 16]>) -> Rig {
    let identity = Identity::for_test(1);
    let (member, opened) = (serve(Greeter).await, Arc::<AtomicUsize>::default());
    let (id, doings) = (identity.id(), Arc::<Mutex<Doings>>::default());
    let bridge =
        serve(Bridge { member, identity, nonce, opened: opened.clone(), doings: doings.clone() }).await;
    let passage = Passage { bridge, mesh: tag(), member: id, epoch: Epoch(1), port: 1233 };
    Rig { passage, opened, doings }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[tokio::test]
async fn requests_go_through_a_kept_tunnel_to_whoever_has_proved_its_key() {
    let rig = rig(None).await;
    let upstreams = Upstreams::default();
    for _ in 0..3 {
        let whole = upstreams.fetch(Place::Far(rig.passage), &Ask::get("/"), 100, soon()).await.unwrap();
        assert_eq!(whole.body, format!("hello {}", rig.passage.authority()));
    }
    assert_eq!(rig.opened.load(Ordering::SeqCst), 1);
}

/// Two at once: the second needs a tunnel of its own.
async fn two_at_once(upstreams: &Upstreams, at: Passage) -> [Result<Bytes, UpstreamError>; 2] {
    let (first, ask) = (upstreams.send(at, &Ask::get("/"), soon()).await, Ask::get("/"));
    // While the reply is held its connection is not free.
    let second = upstreams.fetch(at, &ask, 100, soon()).await.map(|whole| whole.body);
    let first = match first {
        Ok(reply) => Ok(reply.into_parts().1.collect().await.unwrap().to_bytes()),
        Err(error) => Err(error),
    };
    [first, second]
}

#[tokio::test]
async fn a_request_travels_with_the_wish_where_the_member_has_proved_its_key_before() {
    let rig = rig(None).await;
    let upstreams = Upstreams::default();
    for answer in two_at_once(&upstreams, rig.passage).await {
        assert_eq!(answer.unwrap(), format!("hello {}", rig.passage.authority()));
    }
    let early = rig.early();
    assert_eq!(early.len(), 2);
    assert!(early[0].is_empty(), "sent to whoever listens there");
    assert!(early[1].starts_with(b"GET / HTTP/1.1\r\n"), "{early:?}");
    // Both are kept and serve on.
    for answer in two_at_once(&upstreams, rig.passage).await {
        answer.unwrap();
    }
    assert_eq!(rig.opened.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_answer_without_a_proof_counts_for_nothing_though_the_request_went_along() {
    let rig = rig(None).await;
    let upstreams = Upstreams::default();
    rig.doings.lock().unwrap().replays = false;
    let held = upstreams.send(rig.passage, &Ask::get("/"), soon()).await.unwrap();
    rig.doings.lock().unwrap().replays = true;
    let error = upstreams.send(rig.passage, &Ask::get("/"), soon()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::NoPassage { .. }), "{error:?}");
    assert!(error.to_string().ends_with("whoever listens there is not this member"), "{error}");
    assert!(!rig.early()[1].is_empty());
    // That way is one like any other again: nothing goes along until it is proven.
    rig.doings.lock().unwrap().replays = false;
    upstreams.send(rig.passage, &Ask::get("/"), soon()).await.unwrap();
    assert!(rig.early()[2].is_empty());
    drop(held);
}

#[tokio::test]
async fn a_bridge_that_refuses_a_request_that_went_along_is_quoted_and_takes_it_for_none_of_its_own() {
    let rig = rig(None).await;
    let upstreams = Upstreams::default();
    let _held = upstreams.send(rig.passage, &Ask::get("/"), soon()).await.unwrap();
    rig.doings.lock().unwrap().refuses = true;
    let error = upstreams.send(rig.passage, &Ask::get("/"), soon()).await.unwrap_err();
    assert!(error.to_string().ends_with("the bridge answered 503, no-route"), "{error}");
    // By hand: one answer, and the end.
    let mut stream = TcpStream::connect(rig.passage.bridge).await.unwrap();
    let wish = "CONNECT k7:1233 HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(wish.as_bytes()).await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 503 ") && all.matches("HTTP/1.1 ").count() == 1, "{all}");
}

#[tokio::test]
async fn a_head_that_is_too_long_to_go_along_follows_when_the_tunnel_stands() {
    let rig = rig(None).await;
    let upstreams = Upstreams::default();
    let _held = upstreams.send(rig.passage, &Ask::get("/"), soon()).await.unwrap();
    let mut ask = Ask::get("/");
    ask.headers.insert("x-long", "a".repeat(5000).try_into().unwrap());
    let whole = upstreams.fetch(rig.passage, &ask, 100, soon()).await.unwrap();
    assert_eq!(whole.body, format!("hello {}", rig.passage.authority()));
    assert!(rig.early()[1].is_empty());
}

#[tokio::test]
async fn without_the_members_own_signature_over_our_nonce_nothing_is_sent() {
    let upstreams = Upstreams::default();
    let replayed = rig(Some([7; 16])).await.passage;
    let honest = rig(None).await.passage;
    let others = [
        replayed,
        Passage { member: Identity::for_test(2).id(), ..honest },
        Passage { epoch: Epoch(2), ..honest },
        Passage { mesh: MeshTag::of("another"), ..honest },
    ];
    for passage in others {
        let error = upstreams.send(Place::Far(passage), &Ask::get("/"), soon()).await.unwrap_err();
        assert!(error.to_string().ends_with("whoever listens there is not this member"), "{error}");
    }
}

#[tokio::test]
async fn a_bridge_that_refuses_is_quoted() {
    let rig = rig(None).await;
    let upstreams = Upstreams::default();
    let forbidden = Place::Far(Passage { port: 22, ..rig.passage });
    let error = upstreams.send(forbidden, &Ask::get("/"), soon()).await.unwrap_err();
    assert!(error.to_string().ends_with("the bridge answered 403, forbidden"), "{error}");
    let no_bridge = Place::Far(Passage { bridge: serve(Greeter).await, ..rig.passage });
    let error = upstreams.send(no_bridge, &Ask::get("/"), soon()).await.unwrap_err();
    assert!(error.to_string().ends_with("the bridge answered 405, method-not-allowed"), "{error}");
}

#[tokio::test]
async fn a_tunnel_keeps_what_was_sent_along_and_closes_one_side_at_a_time() {
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let member = echo.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = echo.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
    });
    let (opened, doings) = (Arc::default(), Arc::default());
    let identity = Identity::for_test(1);
    let bridge = serve(Bridge { member, identity, nonce: Some([0; 16]), opened, doings }).await;
    let mut stream = TcpStream::connect(bridge).await.unwrap();
    stream.write_all(b"CONNECT k7:1233 HTTP/1.1\r\nHost: x\r\n\r\nfirst ").await.unwrap();
    stream.write_all(b"and second").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 200 Connected\r\n"), "{all}");
    assert!(all.ends_with("\r\n\r\nfirst and second"), "{all}");
}
