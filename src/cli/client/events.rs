//! `/events` read as it comes: the lines of a stream made into events, and the stream found again when it breaks.

use std::collections::VecDeque;
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{sleep, timeout};

use crate::cli::client::{AskError, Client};

/// Longest line taken; a snapshot of 20,000 members is one of 10 MB.
const LINE_BYTES_MAX: usize = 64 << 20;
/// A node that says nothing for this long, not even its comment every 10 s, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(25);
/// Before coming back, unless the node says otherwise.
const RETRY: Duration = Duration::from_secs(1);
/// The longest wait that a node can ask for.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// One event.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SentEvent {
    /// Its id; with it a stream is resumed.
    pub id: String,
    /// Its name; `message` when it has none.
    pub name: String,
    /// Its data.
    pub data: String,
}

/// Lines to events, fed in pieces of any size.
///
/// Source: WHATWG HTML, 9.2.6 "Interpreting an event stream".
#[derive(Debug, Default)]
pub struct Parser {
    /// An unfinished line.
    rest: Vec<u8>,
    /// The last line ended with a carriage return: a line feed after it belongs to it.
    after_return: bool,
    event: SentEvent,
    has_data: bool,
    last_id: String,
    retry: Option<Duration>,
}

/// A line has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line of its events has no end")]
pub struct Endless;

impl Parser {
    /// The events that end in `bytes`.
    ///
    /// # Errors
    /// A line grows beyond all bounds; the parser is of no use then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<SentEvent>, Endless> {
        let mut events = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    let line = std::mem::take(&mut self.rest);
                    events.extend(self.line(&String::from_utf8_lossy(&line)));
                }
                _ => {
                    self.after_return = false;
                    if self.rest.len() == LINE_BYTES_MAX {
                        return Err(Endless);
                    }
                    self.rest.push(byte);
                }
            }
        }
        Ok(events)
    }

    /// How long the node wants to be left alone when the stream ends, if it said so.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn line(&mut self, line: &str) -> Option<SentEvent> {
        if line.is_empty() {
            let mut event = std::mem::take(&mut self.event);
            event.id.clone_from(&self.last_id);
            if event.name.is_empty() {
                event.name.push_str("message");
            }
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.last_id),
            "retry" => self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry),
            // Comments, and fields of later versions.
            _ => {}
        }
        None
    }
}

/// The events of a node, for as long as it is asked for more.
#[derive(Debug)]
pub struct Events {
    client: Client,
    parser: Parser,
    body: Option<Incoming>,
    ready: VecDeque<SentEvent>,
    /// Of the newest event handed out.
    last: Option<String>,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// An event.
    Event(SentEvent),
    /// The stream ended or broke, for this reason; the next call tries again after a while.
    Lost(AskError),
}

impl Events {
    /// Opens the stream.
    ///
    /// # Errors
    /// The node is not there, or does not want another reader.
    pub async fn open(client: Client) -> Result<Self, AskError> {
        let body = open(&client, "").await?;
        let (parser, ready) = Default::default();
        Ok(Self { client, parser, body: Some(body), ready, last: None })
    }

    /// Waits for what comes next. Cancel safe: nothing that was received is lost; a wait before a new attempt
    /// starts again.
    pub async fn next(&mut self) -> Next {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.last = Some(event.id.clone()).filter(|id| !id.is_empty());
                return Next::Event(event);
            }
            let Some(body) = &mut self.body else {
                sleep(self.parser.retry().unwrap_or(RETRY).min(RETRY_MAX)).await;
                let retry = self.parser.retry();
                match open(&self.client, self.last.as_deref().unwrap_or_default()).await {
                    Ok(body) => {
                        self.parser = Parser { retry, ..Parser::default() };
                        self.body = Some(body);
                        continue;
                    }
                    Err(error) => return Next::Lost(error),
                }
            };
            let lost = match timeout(SILENCE_MAX, body.frame()).await {
                Ok(Some(Ok(frame))) => match frame.into_data().map(|data| self.parser.feed(&data)) {
                    Ok(Ok(events)) => {
                        self.ready.extend(events);
                        continue;
                    }
                    Ok(Err(endless)) => self.client.strange(endless.to_string()),
                    // Trailers.
                    Err(_) => continue,
                },
                Ok(Some(Err(source))) => {
                    AskError::Broken { authority: self.client.authority.clone(), source }
                }
                Ok(None) => AskError::Ended { authority: self.client.authority.clone() },
                Err(_) => AskError::Late { authority: self.client.authority.clone() },
            };
            self.body = None;
            return Next::Lost(lost);
        }
    }
}

/// `last`: the id to resume from; empty: from a snapshot.
async fn open(client: &Client, last: &str) -> Result<Incoming, AskError> {
    let late = |_| AskError::Late { authority: client.authority.clone() };
    let answer = client.send("/events", "text/event-stream", Some(last));
    let (parts, body) = timeout(super::ANSWER_TIMEOUT, answer).await.map_err(late)??.into_parts();
    if parts.status != StatusCode::OK {
        let body = timeout(super::ANSWER_TIMEOUT, client.collect(body)).await.map_err(late)??;
        return Err(client.problem(parts.status, &body));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn event(id: &str, name: &str, data: &str) -> SentEvent {
        SentEvent { id: id.into(), name: name.into(), data: data.into() }
    }

    const STREAM: &str = "retry: 500\r\n: comment\r\n\r\nid: a-1\nevent: joined\ndata: {\"x\":\ndata: 1}\n\n\
        data\n\nevent: lost\n\nid: a-2\rdata:  two\r\rfuture: field\nid: a-3\ndata: cut off";

    #[test]
    fn a_stream_is_read_as_browsers_read_it() {
        let mut parser = Parser::default();
        assert_eq!(
            parser.feed(STREAM.as_bytes()).unwrap(),
            [
                event("a-1", "joined", "{\"x\":\n1}"),
                event("a-1", "message", ""),
                event("a-2", "message", " two")
            ]
        );
        assert_eq!(parser.retry(), Some(Duration::from_millis(500)));
    }

    proptest! {
        #[test]
        fn how_a_stream_is_cut_does_not_matter(cuts in prop::collection::vec(0..STREAM.len(), 0..8)) {
            let mut cuts = [cuts, vec![0, STREAM.len()]].concat();
            cuts.sort_unstable();
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for cut in cuts.windows(2) {
                events.extend(parser.feed(&STREAM.as_bytes()[cut[0]..cut[1]]).unwrap());
            }
            prop_assert_eq!(events, Parser::default().feed(STREAM.as_bytes()).unwrap());
        }
    }

    #[tokio::test]
    async fn a_stream_that_breaks_is_resumed_after_its_last_event() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = tokio::spawn(async move {
            let mut requests = Vec::new();
            for events in ["retry: 1\n\nid: a-7\ndata: one\n\n", "id: a-8\ndata: two\n\n"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                requests.push(String::from_utf8_lossy(&request[..read]).into_owned());
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
                stream.write_all([head, events].concat().as_bytes()).await.unwrap();
            }
            requests
        });
        let mut events = Events::open(Client::of(address)).await.unwrap();
        assert!(matches!(events.next().await, Next::Event(e) if e == event("a-7", "message", "one")));
        assert!(matches!(events.next().await, Next::Lost(_)));
        assert!(matches!(events.next().await, Next::Event(e) if e == event("a-8", "message", "two")));
        let requests = asked.await.unwrap();
        assert!(!requests[0].contains("a-7"), "{}", requests[0]);
        assert!(requests[1].to_ascii_lowercase().contains("last-event-id: a-7\r\n"), "{}", requests[1]);
    }
}
