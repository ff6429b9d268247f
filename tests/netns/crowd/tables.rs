//! Whole tables: the crowd's for those who fetch it over TCP, and others' for the full members that wish for one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use isle_mesh::member::MemberId;
use isle_mesh::transfer::{self, VerifiedTransfer};
use isle_mesh::wire::MeshTag;

use crate::client;
use crate::network::Host;

/// Whoever does not say what it wants by then gets nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than a request of a node has.
const HEAD_BYTES_MAX: usize = 4096;

/// A table that the full member of `host` wished for; none if it could not be had.
pub(super) struct Fetched {
    pub(super) host: usize,
    pub(super) from: MemberId,
    pub(super) table: Option<VerifiedTransfer>,
}

/// Where a table comes from.
pub(super) enum From {
    /// The crowd's own.
    Crowd(Bytes),
    /// A real node's.
    Wire(Vec<SocketAddr>),
}

/// Answers one request on a thread of its own.
pub(super) fn serve(stream: TcpStream, table: Bytes) {
    thread::spawn(move || {
        // Whoever hangs up has what it wanted, or does not want it any more.
        let _ = answer(stream, &table);
    });
}

fn answer(mut stream: TcpStream, table: &[u8]) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut buffer)?;
        ensure!(length > 0 && head.len() < HEAD_BYTES_MAX, "no request");
        head.extend_from_slice(&buffer[..length]);
    }
    let (status, body) =
        if head.starts_with(b"GET /mesh/records ") { ("200 OK", table) } else { ("404 Not Found", &[][..]) };
    let length = body.len();
    let fields = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/msgpack\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(fields.as_bytes())?;
    stream.write_all(body)?;
    Ok(())
}

/// Fetches and verifies a table on a thread of its own.
pub(super) fn fetch(
    inside: Host,
    tag: MeshTag,
    (host, from): (usize, MemberId),
    source: From,
    done: Sender<Fetched>,
) {
    thread::spawn(move || {
        let body = match source {
            From::Crowd(body) => Some(body),
            From::Wire(at) => at.iter().find_map(|at| {
                let answer = client::expect(&inside, *at, "/mesh/records", 200).ok()?;
                Some(Bytes::from(answer.body))
            }),
        };
        drop(inside);
        let table = body.and_then(|body| transfer::decode(&body).ok());
        let table = table.map(|table| transfer::verify_transfer(tag, table));
        // The crowd may have ended meanwhile.
        let _ = done.send(Fetched { host, from, table });
    });
}
