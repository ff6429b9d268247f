//! One-shot questions to a node, and its stream of events: a client small enough to read, over hyper.
//!
//! No pool, no redirects, no TLS: a command asks one node of its own network once or twice.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub mod events;

/// Longest wait for a connection to each address. Required: a person waits.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for an answer from its request to its last byte: beyond the node's own deadline of 10 s, whose
/// problem says more than ours.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer taken: 20,000 members are 10 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A node that can be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// `HOST:PORT` as it stands in `Host`.
    authority: String,
    /// What is looked up: a name, or an address, with its zone if it has one.
    host: String,
    port: u16,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The address is none that we can ask.
    #[error("\"{0}\" is not an address to ask, such as http://127.0.0.1:5235")]
    NotAnAddress(String),
    /// The name has no address.
    #[error("{host} has no address")]
    Unknown {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody listens there, or nothing came back.
    #[error("nobody answers at {authority}")]
    Unreachable {
        /// Where.
        authority: String,
        /// What the system said.
        source: io::Error,
    },
    /// A connection was there and broke, or what came over it is not HTTP.
    #[error("{authority} broke off")]
    Broken {
        /// Where.
        authority: String,
        /// What hyper said.
        source: hyper::Error,
    },
    /// It has ended its events in good order, as a node does that stops.
    #[error("{authority} ended its events: it stops, or is asked by too many")]
    Ended {
        /// Where.
        authority: String,
    },
    /// It did not answer in time.
    #[error("{authority} did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Late {
        /// Where.
        authority: String,
    },
    /// It answers something that a node would not.
    #[error("{authority} does not answer like an isle node: {what}")]
    Strange {
        /// Where.
        authority: String,
        /// What is strange.
        what: String,
    },
    /// It answers with a problem.
    #[error("{}", problem.detail)]
    Problem {
        /// Where.
        authority: String,
        /// What it says.
        problem: Box<Told>,
    },
}

/// A problem as a node tells it; see [`crate::http::problem::Problem`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Told {
    /// HTTP status.
    pub status: u16,
    /// The kind, in few words.
    pub title: String,
    /// What happened.
    pub detail: String,
    /// A stable word.
    pub reason: String,
    /// What to do.
    #[serde(rename = "do")]
    pub advice: Option<String>,
    /// Shares that nobody can serve.
    pub missing: Vec<String>,
}

/// An answer that is no problem.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its header fields.
    pub headers: HeaderMap,
    /// All of it.
    pub body: Bytes,
}

impl Reply {
    /// A header field, if it is there and text.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the body says of itself that it is of this media type.
    #[must_use]
    pub fn is(&self, media: &str) -> bool {
        let of = self.field("content-type").and_then(|value| value.split(';').next());
        of.is_some_and(|of| of.trim().eq_ignore_ascii_case(media))
    }
}

impl Client {
    /// For `http://HOST[:PORT]` or `HOST[:PORT]`; without port that of an intermediary.
    ///
    /// # Errors
    /// Anything else.
    pub fn at(url: &str) -> Result<Self, AskError> {
        let refused = || AskError::NotAnAddress(url.to_owned());
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        // A bare IPv6 address is understood, too.
        let authority = match authority.parse::<std::net::Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]"),
            Err(_) => authority.to_owned(),
        };
        let uri = Uri::builder().scheme("http").authority(&*authority).path_and_query("/").build();
        let uri = uri.map_err(|_| refused())?;
        let host =
            uri.host().filter(|host| !host.is_empty() && !authority.contains('@')).ok_or_else(refused)?;
        let port = match (uri.port_u16(), authority.rsplit_once(':')) {
            (Some(0), _) => return Err(refused()),
            (Some(port), _) => port,
            (None, Some((_, rest))) if !rest.contains(']') => return Err(refused()),
            (None, _) => 5235,
        };
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { authority: format!("{host}:{port}"), host: name, port })
    }

    /// For an address.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        let host = match address {
            SocketAddr::V6(six) if six.scope_id() != 0 => format!("{}%{}", six.ip(), six.scope_id()),
            _ => address.ip().to_string(),
        };
        let authority = SocketAddr::new(address.ip(), address.port()).to_string();
        Self { authority, host, port: address.port() }
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Asks for a path. Cancel safe in that the connection is then closed.
    ///
    /// # Errors
    /// See [`AskError`]; a status of 400 or above is one.
    pub async fn get(&self, path: &str, accept: &str) -> Result<Reply, AskError> {
        let late = |_| AskError::Late { authority: self.authority.clone() };
        let (status, reply) = timeout(ANSWER_TIMEOUT, self.ask(path, accept)).await.map_err(late)??;
        if status.is_client_error() || status.is_server_error() {
            return Err(self.problem(status, &reply.body));
        }
        if status != StatusCode::OK {
            return Err(self.strange(status.to_string()));
        }
        Ok(reply)
    }

    /// Asks for a path and takes every status for an answer.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn get_any(&self, path: &str, accept: &str) -> Result<Reply, AskError> {
        let late = |_| AskError::Late { authority: self.authority.clone() };
        timeout(ANSWER_TIMEOUT, self.ask(path, accept)).await.map_err(late)?.map(|(_, reply)| reply)
    }

    /// Asks for JSON of a known form.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        let reply = self.get(path, "application/json").await?;
        self.parse(&reply.body)
    }

    /// Reads a body as JSON of a known form.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, AskError> {
        serde_json::from_slice(body).map_err(|error| self.strange(error.to_string()))
    }

    /// Whether somebody listens there.
    pub async fn is_there(&self) -> bool {
        self.connect().await.is_ok()
    }

    fn strange(&self, what: impl Into<String>) -> AskError {
        AskError::Strange { authority: self.authority.clone(), what: what.into() }
    }

    async fn ask(&self, path: &str, accept: &str) -> Result<(StatusCode, Reply), AskError> {
        let (parts, body) = self.send(path, accept, None).await?.into_parts();
        let body = self.collect(body).await?;
        Ok((parts.status, Reply { headers: parts.headers, body }))
    }

    /// `last`: the event to resume after, if events are asked for; empty: none.
    async fn send(
        &self,
        path: &str,
        accept: &str,
        last: Option<&str>,
    ) -> Result<http::Response<Incoming>, AskError> {
        let stream = self.connect().await?;
        let broken = |source| AskError::Broken { authority: self.authority.clone(), source };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends when its answer has been read or dropped; what goes wrong shows there.
        tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, &self.authority)
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, concat!("isle/", env!("CARGO_PKG_VERSION")));
        let request = match last {
            Some("") => request,
            Some(id) => request.header("last-event-id", id),
            None => request.header(header::CONNECTION, "close"),
        };
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| self.strange(error.to_string()))?;
        sender.send_request(request).await.map_err(broken)
    }

    async fn connect(&self) -> Result<TcpStream, AskError> {
        let found = tokio::net::lookup_host((&*self.host, self.port)).await;
        let addresses: Vec<_> =
            found.map_err(|source| AskError::Unknown { host: self.host.clone(), source })?.collect();
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Questions are one small write; waiting for more would only delay them.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(AskError::Unreachable { authority: self.authority.clone(), source: failed })
    }

    async fn collect(&self, mut body: Incoming) -> Result<Bytes, AskError> {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|source| AskError::Broken { authority: self.authority.clone(), source })?;
            if let Ok(data) = frame.into_data() {
                if whole.len() + data.len() > ANSWER_BYTES_MAX {
                    return Err(self.strange("its answer has no end"));
                }
                whole.extend_from_slice(&data);
            }
        }
        Ok(whole.freeze())
    }

    fn problem(&self, status: StatusCode, body: &[u8]) -> AskError {
        let told = serde_json::from_slice::<Told>(body).ok().filter(|told| !told.detail.is_empty());
        let problem = told.unwrap_or_else(|| Told {
            status: status.as_u16(),
            detail: format!("{} answers {status}", self.authority),
            ..Told::default()
        });
        AskError::Problem { authority: self.authority.clone(), problem: Box::new(problem) }
    }
}

/// A text as one part of a path: everything but letters, digits and `-._~` as `%XX`.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        let at = |url| Client::at(url).map(|client| client.authority).map_err(|_| ());
        assert_eq!(at("http://10.0.0.1:80"), Ok("10.0.0.1:80".into()));
        assert_eq!(at("http://kitchen/"), Ok("kitchen:5235".into()));
        assert_eq!(at("kitchen:1233"), Ok("kitchen:1233".into()));
        assert_eq!(at("[::1]:80"), Ok("[::1]:80".into()));
        assert_eq!(at("::1"), Ok("[::1]:5235".into()));
        for bad in
            ["", "https://a", "http://", "a b", "a:0", "a:x", "u@a", "http://a/figures", "a:99999", "a\r\nb"]
        {
            assert_eq!(at(bad), Err(()), "{bad}");
        }
    }

    #[test]
    fn names_cannot_leave_their_part_of_the_path() {
        assert_eq!(escaped("../a b?ü"), "..%2Fa%20b%3F%C3%BC");
    }

    async fn answering(answer: &'static str) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::of(listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        client
    }

    #[tokio::test]
    async fn a_problem_is_told_in_the_nodes_own_words() {
        let client = answering(
            "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\n\
             {\"status\":503,\"detail\":\"share 2/3 is missing\",\"reason\":\"no-holder\",\"missing\":[\"2/3\"],\"new\":1}",
        )
        .await;
        let error = client.get("/figures/dragon", "application/json").await.unwrap_err();
        assert_eq!(error.to_string(), "share 2/3 is missing");
        assert!(matches!(error, AskError::Problem { problem, .. } if problem.missing == ["2/3"]));
    }

    #[tokio::test]
    async fn somebody_who_is_no_node_is_not_believed() {
        let client = answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
        let error = client.json::<crate::api::view::MembersPage>("/members").await.unwrap_err();
        assert!(error.to_string().contains("does not answer like an isle node"), "{error}");
        let client = answering("SSH-2.0-OpenSSH_9.9\r\n").await;
        assert!(matches!(client.get("/", "*/*").await, Err(AskError::Broken { .. })));
    }

    #[tokio::test]
    async fn nobody_at_home_is_said_with_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::of(listener.local_addr().unwrap());
        drop(listener);
        let error = client.get("/", "*/*").await.unwrap_err();
        assert!(error.to_string().starts_with("nobody answers at 127.0.0.1:"), "{error}");
    }
}
