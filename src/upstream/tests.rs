use std::sync::atomic::{AtomicUsize, Ordering};

use isle_mesh::member::Standing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::api::members::tests::member;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// What a listener does with the requests of one connection.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Answers so many, then closes.
    Answers(usize),
    /// Answers so many, then reads the next one and closes without a word.
    BreaksOffAfter(usize),
    /// Reads and says nothing.
    Mute,
    /// Answers something else than HTTP.
    Garbage,
    /// Announces more than it sends, then closes.
    Half,
    /// Sends a head and the start of a body, and nothing more.
    Stalls,
}

struct Listener {
    at: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    /// Connections that ended by the other side's doing.
    cut: Arc<AtomicUsize>,
}

impl Listener {
    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            at: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
            cut: Arc::default(),
        };
        let (connections, requests, cut) =
            (this.connections.clone(), this.requests.clone(), this.cut.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, manner, requests.clone(), cut.clone()));
            }
        });
        this
    }

    fn member(&self) -> Member {
        Member { http_addresses: vec![self.at], ..Member::clone(&member(1, "p1", Standing::Alive)) }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, manner: Manner, requests: Arc<AtomicUsize>, cut: Arc<AtomicUsize>) {
    let mut answered = 0;
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => {
                    cut.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
        }
        requests.fetch_add(1, Ordering::SeqCst);
        match manner {
            Manner::Answers(most) => {
                stream.write_all(ANSWER).await.unwrap();
                answered += 1;
                if answered == most {
                    return;
                }
            }
            Manner::BreaksOffAfter(most) => {
                if answered == most {
                    return;
                }
                stream.write_all(ANSWER).await.unwrap();
                answered += 1;
            }
            Manner::Mute => {}
            Manner::Garbage => {
                stream.write_all(b"220 smtp.example ESMTP\r\n\r\n").await.unwrap();
                return;
            }
            Manner::Half => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello").await.unwrap();
                return;
            }
            Manner::Stalls => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello").await.unwrap();
            }
        }
    }
}

fn get() -> Ask {
    Ask::get("/")
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A whole answer of at most 100 bytes.
async fn fetch(upstreams: &Upstreams, listener: &Listener) -> Result<Bytes, UpstreamError> {
    upstreams.fetch(listener.at, &get(), 100, soon()).await.map(|whole| whole.body)
}

fn idle(upstreams: &Upstreams) -> usize {
    upstreams.lock().values().map(Vec::len).sum()
}

#[tokio::test]
async fn one_connection_serves_request_after_request() {
    let listener = Listener::start(Manner::Answers(usize::MAX)).await;
    let upstreams = Upstreams::default();
    for _ in 0..50 {
        assert_eq!(fetch(&upstreams, &listener).await.unwrap(), "hello");
        while idle(&upstreams) == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(listener.connections(), 1);
}

/// The race that hyper-util's client loses: measured there, 15 of 400.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_kept_connections_are_closed() {
    for manner in
        [Manner::Answers(1), Manner::Answers(3), Manner::BreaksOffAfter(1), Manner::BreaksOffAfter(2)]
    {
        let listener = Listener::start(manner).await;
        let upstreams = Upstreams::default();
        let lost = AtomicUsize::new(0);
        let client = async || {
            for _ in 0..50 {
                let is_lost = fetch(&upstreams, &listener).await.is_err();
                lost.fetch_add(usize::from(is_lost), Ordering::SeqCst);
            }
        };
        futures_util::future::join_all((0..8).map(|_| client())).await;
        assert_eq!(lost.into_inner(), 0, "of 400, lost to {manner:?}");
    }
}

#[tokio::test]
async fn a_fresh_connection_that_breaks_off_is_an_error_and_not_tried_for_ever() {
    let listener = Listener::start(Manner::BreaksOffAfter(0)).await;
    let upstreams = Upstreams::default();
    let error = upstreams.send(listener.at, &get(), soon()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Broken { .. }), "{error:?}");
    assert!(error.is_refusal());
    assert_eq!(listener.connections(), 1);
}

#[tokio::test]
async fn what_is_not_http_is_an_error_and_nobody_home_is_another() {
    let listener = Listener::start(Manner::Garbage).await;
    let upstreams = Upstreams::default();
    let error = upstreams.send(listener.at, &get(), soon()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Broken { .. }), "{error:?}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = upstreams.send(nobody, &get(), soon()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn a_mute_listener_costs_its_deadline_and_is_told_that_we_left() {
    let listener = Listener::start(Manner::Mute).await;
    let upstreams = Upstreams::default();
    let deadline = Instant::now() + Duration::from_millis(50);
    let error = upstreams.send(listener.at, &get(), deadline).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Deadline { .. }), "{error:?}");
    while listener.cut.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(idle(&upstreams), 0);
}

#[tokio::test]
async fn half_a_body_is_an_error_and_its_connection_is_not_kept() {
    let listener = Listener::start(Manner::Half).await;
    let upstreams = Upstreams::default();
    let error = fetch(&upstreams, &listener).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Broken { .. }), "{error:?}");
    assert_eq!(idle(&upstreams), 0);
}

#[tokio::test]
async fn a_body_without_progress_is_given_up() {
    let listener = Listener::start(Manner::Stalls).await;
    let upstreams = Upstreams::default();
    let reply = upstreams.send(listener.at, &get(), soon()).await.unwrap();
    let (_, mut body) = reply.into_parts();
    assert!(body.frame().await.unwrap().is_ok());
    body.patience.as_mut().reset(tokio::time::Instant::now() + Duration::from_millis(30));
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(matches!(error, BodyError::Stalled), "{error:?}");
}

#[tokio::test]
async fn who_drops_an_answer_cancels_it() {
    let listener = Listener::start(Manner::Stalls).await;
    let upstreams = Upstreams::default();
    drop(upstreams.send(listener.at, &get(), soon()).await.unwrap());
    while listener.cut.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let listener = Listener::start(Manner::Answers(usize::MAX)).await;
    let error = Upstreams::default().fetch(listener.at, &get(), 4, soon()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::TooLong { max: 4, .. }), "{error:?}");
}

#[test]
fn a_host_has_no_scope() {
    for (at, host) in [("[fe80::1%3]:80", "[fe80::1]:80"), ("10.0.0.1:5235", "10.0.0.1:5235")] {
        assert_eq!(get().request(Place::Direct(at.parse().unwrap())).headers()["host"], host);
    }
}

#[tokio::test]
async fn what_was_begun_before_a_close_is_not_kept_after_it() {
    let listener = Listener::start(Manner::Answers(9)).await;
    let upstreams = Upstreams::default();
    let deadline = Instant::now() + Duration::from_secs(5);
    let reply = upstreams.send(listener.at, &Ask::get("/"), deadline).await.unwrap();
    upstreams.close(&listener.member());
    let (_, body) = reply.into_parts();
    body.collect().await.unwrap();
    upstreams.fetch(listener.at, &Ask::get("/"), 5, deadline).await.unwrap();
    assert_eq!(listener.connections(), 2, "the one that stops would wait for us");
    upstreams.fetch(listener.at, &Ask::get("/"), 5, deadline).await.unwrap();
    assert_eq!(listener.connections(), 2, "later ones are kept as ever");
}

#[tokio::test]
async fn to_who_stops_no_connection_is_kept_whenever_it_was_opened() {
    let listener = Listener::start(Manner::Answers(usize::MAX)).await;
    let upstreams = Upstreams::default();
    let member = listener.member();
    let reply = upstreams.send(listener.at, &get(), soon()).await.unwrap();
    upstreams.stops(&member);
    reply.into_parts().1.collect().await.unwrap();
    for connections in 2..5 {
        fetch(&upstreams, &listener).await.unwrap();
        assert_eq!(listener.connections(), connections, "it waits for each");
    }
    upstreams.stays(&member.id);
    fetch(&upstreams, &listener).await.unwrap();
    assert_eq!(listener.connections(), 5);
    while idle(&upstreams) == 0 {
        tokio::task::yield_now().await;
    }
    fetch(&upstreams, &listener).await.unwrap();
    assert_eq!(listener.connections(), 5);
}

#[tokio::test]
async fn whoever_closes_a_kept_connection_is_told_of() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (close, closing) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(ANSWER).await.unwrap();
        let _ = closing.await;
    });
    let upstreams = Upstreams::default();
    let mut hung_up = upstreams.hung_up();
    upstreams.fetch(at, &get(), 100, soon()).await.unwrap();
    while upstreams.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    close.send(()).unwrap();
    let told = timeout(Duration::from_secs(5), hung_up.recv()).await.unwrap();
    assert_eq!(told.unwrap(), Place::Direct(at));
    assert!(upstreams.lock().is_empty(), "nothing closed is kept");
}
