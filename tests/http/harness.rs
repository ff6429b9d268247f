//! A listener with a tiny application, and a client that sends what it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use isle::http::accept::{App, Limits, serve};
use isle::http::body::{Answer, BodyError, empty, full};
use isle::http::connections::Connections;
use isle::http::hosts::HostRules;
use isle::http::request::Gated;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the application has seen.
#[derive(Default)]
pub struct Seen {
    pub asked: AtomicUsize,
    /// Answers dropped before they were made.
    pub cancelled: AtomicUsize,
    pub release: tokio::sync::Notify,
}

struct Tiny(Arc<Seen>);

/// Counts being dropped as cancellation unless told otherwise.
struct Cancel<'a>(&'a Seen, bool);

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl App for Tiny {
    async fn answer(&self, request: Gated) -> Answer {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let mut cancel = Cancel(&self.0, true);
        let number = |name: &str| request.parameter(name).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
        let body = match &*request.path {
            "/panic" => panic!("asked to"),
            // Waits until the test says so, or for ever.
            "/wait" => {
                self.0.release.notified().await;
                full("waited")
            }
            "/big" => full(vec![b'x'; number("bytes")]),
            // Of unknown length.
            "/stream" => {
                let frames = stream::iter(0..number("frames")).map(|_| frame(&[b'x'; 1024]));
                StreamBody::new(frames).boxed_unsync()
            }
            "/panic-later" => {
                let frames = stream::iter([true, false]).map(|first| {
                    assert!(first, "asked to");
                    frame(b"half")
                });
                StreamBody::new(frames).boxed_unsync()
            }
            "/broken" => {
                let frames = stream::iter([frame(b"half"), Err(BodyError::Stalled)]);
                StreamBody::new(frames).boxed_unsync()
            }
            "/endless" => {
                StreamBody::new(stream::iter([frame(b"first")]).chain(stream::pending())).boxed_unsync()
            }
            "/empty" => empty(),
            _ => {
                let mut names: Vec<_> = request.headers.keys().map(|name| name.as_str()).collect();
                names.sort_unstable();
                let query = request.query.as_deref().unwrap_or("-");
                full(format!("{} {} {query} {} {names:?}", request.method, request.path, request.host))
            }
        };
        cancel.1 = false;
        http::Response::new(body)
    }
}

fn frame(bytes: &[u8]) -> Result<http_body::Frame<Bytes>, BodyError> {
    Ok(http_body::Frame::data(Bytes::copy_from_slice(bytes)))
}

/// A running listener; cut off when dropped.
pub struct Node {
    pub address: SocketAddr,
    pub connections: Connections,
    pub seen: Arc<Seen>,
    pub task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Limits that a test can wait for.
pub fn short() -> Limits {
    Limits {
        silent: Duration::from_millis(200),
        head: Duration::from_millis(300),
        idle: Duration::from_millis(200),
        progress: Duration::from_millis(300),
        progress_bytes: 1024,
        half_closed: Duration::from_millis(200),
        linger: Duration::from_millis(500),
    }
}

pub async fn start() -> Node {
    start_with(Limits::default()).await
}

pub async fn start_with(limits: Limits) -> Node {
    let listener = isle::http::listen::listen(Some(([127, 0, 0, 1], 0).into()), 0).unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Connections::new();
    let seen = Arc::new(Seen::default());
    let app = Arc::new(Tiny(seen.clone()));
    let task = tokio::spawn(serve(listener, app, HostRules::default(), limits, connections.clone()));
    Node { address, connections, seen, task }
}

impl Node {
    pub async fn connect(&self) -> Client {
        Client::over(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends these bytes on a fresh connection and returns all that comes back until the node closes it.
    pub async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.rest().await
    }

    /// Waits until a count reaches a value.
    pub async fn until(&self, what: &str, count: impl Fn(&Self) -> usize, value: usize) {
        let reached = async {
            while count(self) != value {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if timeout(PATIENCE, reached).await.is_err() {
            panic!("{what} is {} and not {value}", count(self));
        }
    }
}

pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn over(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The node may refuse and close before it has read everything.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Everything until the node closes; panics if it does not, or resets.
    pub async fn rest(&mut self) -> String {
        let read = async {
            let mut all = std::mem::take(&mut self.buffer);
            self.stream.read_to_end(&mut all).await.map(|_| all)
        };
        let all = timeout(PATIENCE, read).await.expect("the node closes").expect("without a reset");
        String::from_utf8(all).unwrap()
    }

    /// One answer with `Content-Length`; the connection stays.
    pub async fn answer(&mut self) -> String {
        let read = async {
            loop {
                if let Some(length) = whole(&self.buffer) {
                    let rest = self.buffer.split_off(length);
                    return String::from_utf8(std::mem::replace(&mut self.buffer, rest)).unwrap();
                }
                assert_ne!(self.stream.read_buf(&mut self.buffer).await.unwrap(), 0, "closed in an answer");
            }
        };
        timeout(PATIENCE, read).await.expect("an answer comes")
    }

    pub async fn get(&mut self, path: &str) -> String {
        self.send(get(path)).await;
        self.answer().await
    }
}

/// Length of the first answer in the buffer, if it is complete.
fn whole(buffer: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(buffer);
    let head = text.find("\r\n\r\n")? + 4;
    let lower = text[..head].to_ascii_lowercase();
    let (_, after) = lower.split_once("content-length: ")?;
    let length: usize = after.split("\r\n").next()?.parse().unwrap();
    (buffer.len() >= head + length).then_some(head + length)
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

pub fn status(answer: &str) -> u16 {
    answer
        .get(9..12)
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("no status: {answer:?}"))
}

pub fn has(answer: &str, field: &str) -> bool {
    answer.split("\r\n\r\n").next().unwrap().lines().any(|line| line.eq_ignore_ascii_case(field))
}
