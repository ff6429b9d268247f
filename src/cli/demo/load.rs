//! Clients that ask for figures at a steady rate and keep their connections, as browsers and services do, and
//! that believe nothing: an answer counts only if it is the figure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use crate::cli::client::Told;
use crate::figures::figure::Figure;

/// Clients at once. 8 at 25 requests/s each leave none of them idle for long.
const CLIENTS: u32 = 8;
/// A client that waits longer than this for an answer calls it failed: what a node waits for is 10 s.
const PATIENCE: Duration = Duration::from_secs(12);
/// Examples of failures that are remembered.
const EXAMPLES_MAX: usize = 3;

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Requests made.
    pub asked: usize,
    /// Requests that did not bring the figure asked for.
    pub failed: usize,
    /// Answers that said that the connection closes: the node is leaving, and says so.
    pub closing: usize,
    /// Requests that another than the first intermediary answered.
    pub moved: usize,
    /// Why the first of them failed.
    pub examples: Vec<String>,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    clients: JoinSet<()>,
    stop: CancellationToken,
    outcome: Arc<Mutex<Outcome>>,
}

impl Load {
    /// Starts asking: `a_second` requests in all, at the first of `nodes` that takes a connection.
    #[must_use]
    pub fn start(nodes: &[SocketAddr], figures: &[Figure], a_second: u32) -> Self {
        let stop = CancellationToken::new();
        let outcome: Arc<Mutex<Outcome>> = Arc::default();
        let mut clients = JoinSet::new();
        let wanted: Arc<[(String, u32)]> =
            figures.iter().map(|figure| (figure.name().to_string(), figure.total())).collect();
        let period = Duration::from_secs(1) * CLIENTS / a_second.max(1);
        for number in 0..CLIENTS {
            let client = Asker { nodes: nodes.to_vec(), outcome: outcome.clone(), open: None };
            let first = Instant::now() + period * number / CLIENTS;
            clients.spawn(client.work(wanted.clone(), number as usize, first, period, stop.clone()));
        }
        Self { clients, stop, outcome }
    }

    /// How many requests were made so far.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).asked
    }

    /// Asks no more, waits for the answers that are under way, and says what came of it all.
    pub async fn stop(mut self) -> Outcome {
        self.stop.cancel();
        while self.clients.join_next().await.is_some() {}
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One client: at most one connection, at most one request at a time.
struct Asker {
    nodes: Vec<SocketAddr>,
    outcome: Arc<Mutex<Outcome>>,
    /// The connection, and to which of the nodes.
    open: Option<(SendRequest<Empty<Bytes>>, usize)>,
}

/// What of a figure shows that it is the one asked for; its hash was checked on the way.
#[derive(Deserialize)]
struct Body {
    name: String,
    total: u32,
}

impl Asker {
    async fn work(
        mut self,
        wanted: Arc<[(String, u32)]>,
        first: usize,
        at: Instant,
        period: Duration,
        stop: CancellationToken,
    ) {
        let mut ticks = interval_at(at, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for (name, total) in wanted.iter().cycle().skip(first) {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let answer = timeout(PATIENCE, self.ask(name, *total)).await;
            let failure = match answer {
                Ok(Ok(())) => None,
                Ok(Err(failure)) => Some(failure),
                Err(_) => Some(format!("no answer within {PATIENCE:?}")),
            };
            self.count(|outcome| {
                outcome.asked += 1;
                if let Some(failure) = &failure {
                    outcome.failed += 1;
                    if outcome.examples.len() < EXAMPLES_MAX {
                        outcome.examples.push(format!("{name}: {failure}"));
                    }
                }
            });
            if failure.is_some() {
                self.open = None;
            }
        }
    }

    fn count(&self, change: impl FnOnce(&mut Outcome)) {
        change(&mut self.outcome.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn ask(&mut self, name: &str, total: u32) -> Result<(), String> {
        // A connection that the node has closed while it was idle is no connection; one that breaks under a
        // request is a failure.
        let usable = match self.open.take() {
            Some((mut sender, node)) => sender.ready().await.is_ok().then_some((sender, node)),
            None => None,
        };
        let (mut sender, node) = match usable {
            Some(open) => open,
            None => self.connect().await?,
        };
        let request = Request::get(format!("/figures/{name}"))
            .header(header::HOST, self.nodes[node].to_string())
            .header(header::ACCEPT, "application/json")
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(|error| format!("broke off: {error}"))?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| format!("broke off: {error}"))?.to_bytes();
        if parts.status != 200 {
            let told = serde_json::from_slice::<Told>(&body).unwrap_or_default();
            return Err(format!("{}: {}", parts.status, told.detail));
        }
        let figure: Body = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        if figure.name != name || figure.total != total {
            return Err(format!("is {} with {} pieces", figure.name, figure.total));
        }
        let closing = parts.headers.get(header::CONNECTION).is_some_and(|value| value == "close");
        self.count(|outcome| {
            outcome.closing += usize::from(closing);
            outcome.moved += usize::from(node > 0);
        });
        if !closing {
            self.open = Some((sender, node));
        }
        Ok(())
    }

    /// To the first that takes a connection: one that is refused was not asked anything, so the next may be.
    async fn connect(&self) -> Result<(SendRequest<Empty<Bytes>>, usize), String> {
        let mut why = String::new();
        for (index, node) in self.nodes.iter().enumerate() {
            match TcpStream::connect(node).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    let (sender, connection) =
                        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
                    tokio::spawn(connection);
                    return Ok((sender, index));
                }
                Err(error) => why = format!("{node}: {error}"),
            }
        }
        Err(why)
    }
}
