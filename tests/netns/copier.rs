//! Two stand-ins for bridges that only copy: a TCP connection's bytes into datagrams and back.
//!
//! No keys, no order, no loss made up for, one thread each way: what a request pays for on such a way, the machine takes
//! for being woken, for crossing the same wires and for two more sockets. What a tunnel takes beyond it is the bridges' own.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::network::Host;

/// TCP port of the near one, and UDP port of the far one.
pub(crate) const PORT: u16 = 6100;
/// Long for anything to be copied; whoever waits longer ends.
const PATIENCE: Duration = Duration::from_secs(60);
/// Copied at once: fits a datagram.
const PIECE: usize = 32 << 10;

/// Copies between who connects to `near` at `inside`, and `member` beyond `far`, whose datagrams a relay at `relay` passes on; for
/// one connection. Returns where to connect. The threads end with the connection, or when nothing moves for a minute.
pub(crate) fn copy(
    (near, inside): (&Host, IpAddr),
    relay: SocketAddr,
    far: &Host,
    member: SocketAddr,
) -> Result<SocketAddr> {
    let at = SocketAddr::new(inside, PORT);
    let listener = near.enter(|| TcpListener::bind(at))??;
    let there = near.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
    there.connect(relay)?;
    there.set_read_timeout(Some(PATIENCE))?;
    let back = far.enter(|| UdpSocket::bind(("0.0.0.0", PORT)))??;
    back.set_read_timeout(Some(PATIENCE))?;
    let answers = far.enter(|| TcpStream::connect(member))??;
    answers.set_nodelay(true)?;
    answers.set_read_timeout(Some(PATIENCE))?;
    thread::spawn(move || {
        let (mut asks, _) = listener.accept()?;
        asks.set_nodelay(true)?;
        asks.set_read_timeout(Some(PATIENCE))?;
        let (mut tcp, udp) = (asks.try_clone()?, there.try_clone()?);
        thread::spawn(move || pump(|piece| udp.recv(piece), |bytes| tcp.write_all(bytes)));
        pump(|piece| asks.read(piece), |bytes| there.send(bytes).map(drop))
    });
    thread::spawn(move || {
        let (mut first, udp) = (vec![0; PIECE], back.try_clone()?);
        let (length, from) = back.recv_from(&mut first)?;
        let (mut reads, mut writes) = (answers.try_clone()?, answers);
        writes.write_all(&first[..length])?;
        thread::spawn(move || pump(|piece| reads.read(piece), |bytes| udp.send_to(bytes, from).map(drop)));
        pump(|piece| back.recv(piece), |bytes| writes.write_all(bytes))
    });
    Ok(at)
}

fn pump(
    mut read: impl FnMut(&mut [u8]) -> std::io::Result<usize>,
    mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match read(&mut piece)? {
            0 => return Ok(()),
            length => write(&piece[..length])?,
        }
    }
}
