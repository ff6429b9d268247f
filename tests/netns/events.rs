//! What a node says on `GET /events`, each event with the moment of its arrival here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::client::Connection;
use crate::network::Host;

/// One server-sent event.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// When its last line was read.
    pub(crate) at: Instant,
    /// Its name: `snapshot`, `joined`, `left`, ...
    pub(crate) kind: String,
    /// Its data.
    pub(crate) data: Value,
}

impl Seen {
    /// Whether it is of this kind and about the member with this id.
    pub(crate) fn is(&self, kind: &str, id: &str) -> bool {
        self.kind == kind && self.data["member"]["id"] == id
    }

    /// Kind and member in a few words.
    pub(crate) fn brief(&self) -> String {
        let member = &self.data["member"];
        format!("{} {} {}", self.kind, member["name"], member["reason"])
    }
}

#[derive(Default, Debug)]
struct Log {
    seen: Vec<Seen>,
    ended: Option<Instant>,
}

/// Everything one event stream has said so far; grows in the background until the stream ends.
#[derive(Clone, Debug)]
pub(crate) struct EventLog {
    whose: String,
    shared: Arc<(Mutex<Log>, Condvar)>,
}

impl EventLog {
    /// Follows the events of the node at `to`. Tries to connect until `patience` has passed, so that it may be
    /// called before the node listens.
    pub(crate) fn follow(whose: &str, from: &Host, to: SocketAddr, patience: Duration) -> Self {
        let log = Self { whose: whose.to_owned(), shared: Arc::default() };
        let (background, from) = (log.clone(), from.clone());
        thread::spawn(move || {
            let _ = background.read(from, to, Instant::now() + patience);
            let (state, changed) = &*background.shared;
            state.lock().expect("nothing panics while holding it").ended = Some(Instant::now());
            changed.notify_all();
        });
        log
    }

    fn read(&self, from: Host, to: SocketAddr, until: Instant) -> Result<()> {
        let mut connection = loop {
            match Connection::open(&from, to) {
                Ok(connection) => break connection,
                Err(error) if Instant::now() > until => bail!("no connection: {error}"),
                // Only a refusal comes back at once; a pause keeps the node's own start undisturbed.
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        };
        // The stream alone is kept, so that its host may go.
        drop(from);
        connection.send(
            format!("GET /events HTTP/1.1\r\nHost: {to}\r\nAccept: text/event-stream\r\n\r\n").as_bytes(),
        )?;
        let head = loop {
            let line = connection.line()?;
            if line.is_empty() || line.starts_with("HTTP/1.1 ") && !line.contains(" 200") {
                break line;
            }
        };
        if !head.is_empty() {
            bail!("/events answers {head}");
        }
        let (mut text, mut kind, mut data) = (String::new(), String::from("message"), String::new());
        // Heartbeats come every 10 s, within the connection's patience.
        while let Some(chunk) = connection.chunk()? {
            let at = Instant::now();
            text.push_str(&String::from_utf8_lossy(&chunk));
            while let Some(end) = text.find('\n') {
                let line: String = text.drain(..=end).collect();
                let line = line.trim_end();
                if let Some(name) = line.strip_prefix("event:") {
                    kind = name.trim().to_owned();
                } else if let Some(more) = line.strip_prefix("data:") {
                    data.push_str(more.trim_start());
                } else if line.is_empty() && !data.is_empty() {
                    let parsed = serde_json::from_str(&data).unwrap_or(Value::String(data.clone()));
                    self.push(Seen {
                        at,
                        kind: std::mem::replace(&mut kind, "message".into()),
                        data: parsed,
                    });
                    data.clear();
                }
            }
        }
        Ok(())
    }

    fn push(&self, seen: Seen) {
        let (state, changed) = &*self.shared;
        state.lock().expect("nothing panics while holding it").seen.push(seen);
        changed.notify_all();
    }

    /// Waits for the first event, old or new, that fits; what was asked for is named when it does not come.
    pub(crate) fn wait(
        &self,
        what: &str,
        patience: Duration,
        mut fits: impl FnMut(&Seen) -> bool,
    ) -> Result<Seen> {
        self.fold(what, patience, |seen| fits(seen).then(|| seen.clone()))
    }

    /// Waits until `done` says so, fed with each event in order, from the first on.
    pub(crate) fn fold<T>(
        &self,
        what: &str,
        patience: Duration,
        mut done: impl FnMut(&Seen) -> Option<T>,
    ) -> Result<T> {
        let until = Instant::now() + patience;
        let (state, changed) = &*self.shared;
        let mut log = state.lock().expect("nothing panics while holding it");
        let mut next = 0;
        loop {
            while let Some(seen) = log.seen.get(next) {
                if let Some(found) = done(seen) {
                    return Ok(found);
                }
                next += 1;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || log.ended.is_some() {
                let all: Vec<String> = log.seen.iter().map(Seen::brief).collect();
                let ended = if log.ended.is_some() { ", and its stream has ended" } else { "" };
                bail!(
                    "{} did not say {what:?} within {patience:?}{ended}; it said: {}",
                    self.whose,
                    all.join(", ")
                );
            }
            log = changed.wait_timeout(log, left).expect("nothing panics while holding it").0;
        }
    }

    /// Waits for the snapshot, which is always first.
    pub(crate) fn started(&self) -> Result<Seen> {
        self.wait("snapshot", Duration::from_secs(10), |seen| seen.kind == "snapshot")
    }

    /// Waits until this many members besides the node itself are listed and alive, as snapshot and events tell;
    /// returns when that was.
    pub(crate) fn listing(&self, others: usize, patience: Duration) -> Result<Instant> {
        let mut listed = BTreeSet::new();
        self.fold(&format!("{others} others listed"), patience, |seen| {
            if seen.kind == "snapshot" {
                let own = seen.data["self"]["id"].clone();
                let members = seen.data["members"].as_array().map(Vec::as_slice).unwrap_or_default();
                for member in members.iter().filter(|member| member["id"] != own && !is_gone(member)) {
                    listed.insert(member["id"].to_string());
                }
            } else if seen.data["member"].is_object() {
                let member = &seen.data["member"];
                if is_gone(member) {
                    listed.remove(&member["id"].to_string());
                } else {
                    listed.insert(member["id"].to_string());
                }
            }
            (listed.len() >= others).then_some(seen.at)
        })
    }

    /// Fails unless what was said of each member makes sense in its order: nobody leaves twice, comes back without
    /// having been doubted, or is doubted after its farewell.
    pub(crate) fn demand_sense(&self) -> Result<()> {
        let mut standings: BTreeMap<String, String> = BTreeMap::new();
        for seen in self.all() {
            if seen.kind == "snapshot" {
                let members = seen.data["members"].as_array().cloned().unwrap_or_default();
                standings
                    .extend(members.iter().map(|member| (text(&member["id"]), text(&member["standing"]))));
                continue;
            }
            let member = &seen.data["member"];
            let before = standings.get(&text(&member["id"])).map_or("unknown", String::as_str);
            let makes_sense = match seen.kind.as_str() {
                "joined" => matches!(before, "unknown" | "left"),
                "updated" | "draining" => !matches!(before, "unknown" | "left"),
                "suspect" => before == "alive",
                "down" => matches!(before, "alive" | "suspect"),
                "back" => matches!(before, "suspect" | "down"),
                "left" => matches!(before, "alive" | "suspect" | "down"),
                _ => true,
            };
            ensure!(makes_sense, "{} says {} of one that was {before}", self.whose, seen.brief());
            standings.insert(text(&member["id"]), text(&member["standing"]));
        }
        Ok(())
    }

    /// Everything so far.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.shared.0.lock().expect("nothing panics while holding it").seen.clone()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Down or left.
fn is_gone(member: &Value) -> bool {
    member["standing"] == "down" || member["standing"] == "left"
}
