//! The crowd's table, for those who fetch it over TCP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;

/// Whoever does not say what it wants by then gets nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than a request of a node has.
const HEAD_BYTES_MAX: usize = 4096;

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
