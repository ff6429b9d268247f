//! Bytes carried between a tunnel and a connection, each way without a copy of ours: what has come over QUIC is written as it
//! lies in memory, many packets at once, and what is read is handed over to QUIC as it was read.

use std::future::poll_fn;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::task::yield_now;

use super::stream::{Receiving, TunnelStream};
use super::{Duplex, Sending};

/// What is read at once. The rest waits at whoever sends it.
const READ_BYTES: usize = 64 << 10;
/// Less than this is copied, for the whole buffer is held until the other side has what is handed over.
const COPIED_BYTES: usize = 4 << 10;
/// After so much others on the same thread have their turn: a millisecond's work.
const TURN_BYTES: u64 = 1 << 20;
/// Packets written at once: as many as are read at once of a large batch.
const CHUNKS: usize = 48;

/// Until both sides have said all, or one breaks; how many bytes went into the tunnel, and came out.
pub(super) async fn carry(tunnel: &mut TunnelStream, near: &mut dyn Duplex) -> io::Result<(u64, u64)> {
    let (read, write) = tokio::io::split(near);
    let (sending, receiving) = tunnel.halves();
    let stopped = sending.stopped();
    let up = async {
        tokio::select! {
            biased;
            moved = up(read, sending) => moved,
            why = stopped => Err(why),
        }
    };
    let moved = tokio::try_join!(up, down(receiving, write))?;
    tunnel.is_over();
    Ok(moved)
}

async fn up(mut near: ReadHalf<&mut dyn Duplex>, sending: &mut Sending) -> io::Result<u64> {
    let (mut buffer, mut sum) = (BytesMut::new(), 0);
    loop {
        buffer.reserve(READ_BYTES);
        let length = near.read_buf(&mut buffer).await?;
        if length == 0 {
            sending.send.finish()?;
            return Ok(sum);
        }
        if length <= COPIED_BYTES {
            sending.send.write_all(&buffer).await?;
            buffer.clear();
        } else {
            sending.send.write_chunk(buffer.split().freeze()).await?;
        }
        sending.counts.sent(length);
        take_turns(&mut sum, length as u64).await;
    }
}

async fn down(mut receiving: Receiving<'_>, mut near: WriteHalf<&mut dyn Duplex>) -> io::Result<u64> {
    let (mut chunks, mut sum) = ([const { Bytes::new() }; CHUNKS], 0);
    loop {
        let count = poll_fn(|context| receiving.poll_chunks(context, &mut chunks)).await?;
        if count == 0 {
            near.shutdown().await?;
            return Ok(sum);
        }
        let chunks = &mut chunks[..count];
        let length = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        write_all(&mut near, chunks).await?;
        take_turns(&mut sum, length).await;
    }
}

/// Counts what was moved, and lets others go on now and then.
async fn take_turns(sum: &mut u64, length: u64) {
    let turn = *sum / TURN_BYTES;
    *sum += length;
    if *sum / TURN_BYTES > turn {
        yield_now().await;
    }
}

/// Writes all of these, and leaves nothing of them.
async fn write_all<W: AsyncWrite + Unpin>(near: &mut W, mut chunks: &mut [Bytes]) -> io::Result<()> {
    while let Some(first) = chunks.first() {
        if first.is_empty() {
            chunks = &mut chunks[1..];
            continue;
        }
        let mut slices = [IoSlice::new(&[]); CHUNKS];
        for (slice, chunk) in slices.iter_mut().zip(&*chunks) {
            *slice = IoSlice::new(chunk);
        }
        let count = chunks.len().min(CHUNKS);
        let mut written = near.write_vectored(&slices[..count]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        for chunk in chunks.iter_mut() {
            let length = chunk.len().min(written);
            chunk.advance(length);
            written -= length;
        }
    }
    near.flush().await
}
