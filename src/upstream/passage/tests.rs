use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use isle_mesh::identity::Identity;
use isle_mesh::member::Epoch;
use isle_mesh::proof::Proof;
use isle_mesh::wire::MeshTag;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::http::accept::{self, App, Limits, Opened};
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
        let nonce = self.nonce.or(request.nonce).unwrap();
        let far = TcpStream::connect(self.member).await.unwrap();
        let signature = self.identity.sign_proof(tag(), self.member, &nonce);
        let proof = Proof { id: self.identity.id(), epoch: Epoch(1), signature };
        let mut headers = HeaderMap::new();
        put_proof(&mut headers, self.member, &proof::encode(&proof));
        Some(Ok(Opened { far: Box::new(far), headers }))
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
}

async fn rig(nonce: Option<[u8; 16]>) -> Rig {
    let identity = Identity::for_test(1);
    let (member, opened) = (serve(Greeter).await, Arc::<AtomicUsize>::default());
    let id = identity.id();
    let bridge = serve(Bridge { member, identity, nonce, opened: opened.clone() }).await;
    let passage = Passage { bridge, mesh: tag(), member: id, epoch: Epoch(1), port: 1233 };
    Rig { passage, opened }
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
    let opened = Arc::default();
    let bridge =
        serve(Bridge { member, identity: Identity::for_test(1), nonce: Some([0; 16]), opened }).await;
    let mut stream = TcpStream::connect(bridge).await.unwrap();
    stream.write_all(b"CONNECT k7:1233 HTTP/1.1\r\nHost: x\r\n\r\nfirst ").await.unwrap();
    stream.write_all(b"and second").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 200 Connected\r\n"), "{all}");
    assert!(all.ends_with("\r\n\r\nfirst and second"), "{all}");
}
