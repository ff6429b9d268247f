//! An HTTP/1.1 client that hides nothing: blocking, one connection, every failure told apart.
//!
//! Sockets are opened inside a [`Host`]. It never retries, follows or reuses on its own.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::network::Host;

/// Longest wait for a connection, and for each read of an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// Field names in lower case, in order.
    pub(crate) headers: Vec<(String, String)>,
    /// Its body.
    pub(crate) body: Vec<u8>,
    /// From the first byte sent to the last received.
    pub(crate) took: Duration,
}

impl Answer {
    /// First value of a field, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Its body as JSON.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.text()))
    }

    /// Its body as text, shortened.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(600)]).into_owned()
    }

    /// Whether the connection ends with this answer.
    pub(crate) fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"))
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    to: SocketAddr,
}

impl Connection {
    /// Connects from inside a host.
    pub(crate) fn open(from: &Host, to: SocketAddr) -> io::Result<Self> {
        let stream = from.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).map_err(io::Error::other)??;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream), to })
    }

    /// Sends these bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Asks for a path and waits for the whole answer.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<Answer> {
        let began = Instant::now();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\n\r\n", self.to);
        self.send(request.as_bytes())?;
        let mut answer = self.read_answer()?;
        answer.took = began.elapsed();
        Ok(answer)
    }

    /// Reads one answer, by its length, its chunks or to the end.
    pub(crate) fn read_answer(&mut self) -> io::Result<Answer> {
        let began = Instant::now();
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| broken(&format!("no status line: {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| broken("a field without colon"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new(), took: Duration::ZERO };
        answer.body = self.read_body(&answer)?;
        answer.took = began.elapsed();
        Ok(answer)
    }

    fn read_body(&mut self, head: &Answer) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if let Some(length) = head.header("content-length") {
            body.resize(length.parse().map_err(|_| broken("a bad length"))?, 0);
            self.stream.read_exact(&mut body)?;
        } else if head.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk()? {
                body.extend(chunk);
            }
        } else if head.status != 204 && head.status != 304 {
            self.stream.read_to_end(&mut body)?;
        }
        Ok(body)
    }

    /// The next chunk of a chunked body, `None` at its end.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16);
        let mut chunk = vec![0; size.map_err(|_| broken("a bad chunk size"))?];
        self.stream.read_exact(&mut chunk)?;
        self.line()?;
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    /// One line without its end. An end of the connection before any byte is `UnexpectedEof`.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        Ok(line)
    }

    /// How long reads wait from now on.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.stream.get_ref().set_read_timeout(Some(patience))
    }
}

/// Asks once over a connection of its own.
pub(crate) fn get(from: &Host, to: SocketAddr, path: &str) -> Result<Answer> {
    let asked = || format!("GET {path} at {to}");
    let mut connection = Connection::open(from, to).with_context(asked)?;
    connection.get(path).with_context(asked)
}

/// Asks once and demands this status.
pub(crate) fn expect(from: &Host, to: SocketAddr, path: &str, status: u16) -> Result<Answer> {
    let answer = get(from, to, path)?;
    ensure!(
        answer.status == status,
        "GET {path} at {to}: {} instead of {status}: {}",
        answer.status,
        answer.text()
    );
    Ok(answer)
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
