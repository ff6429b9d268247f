//! The three streams of a link, each way: bytes of the connection to frames and back, no more of either than one frame
//! and one piece.

use std::future::pending;

use bytes::{Buf, Bytes};
use quinn::{ReadError, RecvStream, SendStream, WriteError};

use crate::frame::{self, Decoder, Frame, FrameError, Stream};

/// Most bytes taken from a stream at once.
const PIECE_BYTES: usize = 64 << 10;

/// Frames are gathered up to here before they are written, so that many small ones share packets.
const GATHER_BYTES: usize = 16 << 10;

/// Why a stream cannot be read on.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a stream was reset")]
    Reset,
    #[error("a stream ends in a frame")]
    Cut,
    #[error("a stream that a link does not have")]
    Surplus,
    #[error(transparent)]
    Lost(#[from] quinn::ConnectionError),
}

/// What comes on one stream.
#[derive(Debug)]
pub(super) struct Inbound {
    /// `None` before the other side has opened it, and after it has ended it.
    stream: Option<RecvStream>,
    decoder: Decoder,
    /// Has come and was not looked at.
    bytes: Bytes,
}

/// What goes on one stream.
#[derive(Debug)]
pub(super) struct Outbound {
    stream: SendStream,
    bytes: Bytes,
}

impl Inbound {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream: None, decoder: Decoder::new(stream), bytes: Bytes::new() }
    }

    /// Waits until something has come that was not there before; for ever unless it is `wanted` and nothing is left to
    /// be looked at. Cancel safe: what is taken from the stream is kept here in the same step.
    async fn read(&mut self, wanted: bool) -> Result<(), Broken> {
        let Some(stream) = self.stream.as_mut().filter(|_| wanted && self.bytes.is_empty()) else {
            return pending().await;
        };
        match stream.read_chunk(PIECE_BYTES, true).await {
            Ok(Some(chunk)) => self.bytes = chunk.bytes,
            Ok(None) if self.decoder.is_between_frames() => self.stream = None,
            Ok(None) => return Err(Broken::Cut),
            Err(ReadError::ConnectionLost(error)) => return Err(error.into()),
            Err(_) => return Err(Broken::Reset),
        }
        Ok(())
    }

    /// The next whole frame of what has come.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let mut rest = &*self.bytes;
        let frame = self.decoder.read(&mut rest)?;
        let taken = self.bytes.len() - rest.len();
        self.bytes.advance(taken);
        Ok(frame)
    }

    /// Whether something has come that was not looked at.
    pub(super) fn has_bytes(&self) -> bool {
        !self.bytes.is_empty()
    }
}

impl Outbound {
    pub(super) fn new(stream: SendStream) -> Self {
        Self { stream, bytes: Bytes::new() }
    }

    /// Takes frames while there is room.
    pub(super) fn fill(&mut self, mut next: impl FnMut() -> Option<Frame>) {
        if !self.bytes.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        while bytes.len() < GATHER_BYTES
            && let Some(frame) = next()
        {
            frame::encode(&frame, &mut bytes);
        }
        self.bytes = bytes.into();
    }

    /// Waits until the stream has taken something; for ever if there is nothing to write. Cancel safe: what it has
    /// taken is gone from here in the same step.
    async fn write(&mut self) -> Result<(), WriteError> {
        if self.bytes.is_empty() {
            return pending().await;
        }
        let taken = self.stream.write(&self.bytes).await?;
        self.bytes.advance(taken);
        Ok(())
    }

    /// Writes the rest, as far as the connection lasts.
    pub(super) async fn flush(&mut self) {
        while !self.bytes.is_empty() && self.write().await.is_ok() {}
    }

    /// Writes the rest and ends the stream.
    pub(super) async fn finish(&mut self) {
        self.flush().await;
        // It can only have ended already.
        let _ = self.stream.finish();
    }
}

/// In the order of [`Stream::ALL`], which is also the order in which either side opens them.
#[derive(Debug)]
pub(super) struct Streams {
    inbound: [Inbound; 3],
    outbound: [Outbound; 3],
}

impl Streams {
    /// Opens ours. Waits if the other side does not allow as many.
    pub(super) async fn open(connection: &quinn::Connection) -> Result<Self, quinn::ConnectionError> {
        let control = connection.open_uni().await?;
        let table = connection.open_uni().await?;
        let urgent = connection.open_uni().await?;
        for (stream, priority) in [(&control, 2), (&table, 1), (&urgent, 3)] {
            // It can only have been closed with the connection, which is noticed elsewhere.
            let _ = stream.set_priority(priority);
        }
        let outbound = [control, table, urgent].map(Outbound::new);
        Ok(Self { inbound: Stream::ALL.map(Inbound::new), outbound })
    }

    /// Takes a stream that the other side has opened.
    pub(super) fn accept(&mut self, stream: RecvStream) -> Result<(), Broken> {
        let index = usize::try_from(stream.id().index()).unwrap_or(usize::MAX);
        self.inbound.get_mut(index).ok_or(Broken::Surplus)?.stream = Some(stream);
        Ok(())
    }

    pub(super) fn inbound(&mut self, stream: Stream) -> &mut Inbound {
        &mut self.inbound[index(stream)]
    }

    pub(super) fn outbound(&mut self, stream: Stream) -> &mut Outbound {
        &mut self.outbound[index(stream)]
    }

    /// Waits until something has come on a stream that is wanted, or a stream has taken something; says which. Cancel
    /// safe, as the two above.
    pub(super) async fn progress(&mut self, wants: impl Fn(Stream) -> bool) -> Result<Progress, Broken> {
        let [control, table, urgent] = &mut self.inbound;
        let [to_control, to_table, to_urgent] = &mut self.outbound;
        // What is written is bounded by what was read, so writing first starves nobody.
        let (progress, read) = tokio::select! {
            biased;
            written = to_urgent.write() => (Progress::Written, write_result(written)),
            written = to_control.write() => (Progress::Written, write_result(written)),
            written = to_table.write() => (Progress::Written, write_result(written)),
            read = urgent.read(wants(Stream::Urgent)) => (Progress::Read, read),
            read = control.read(wants(Stream::Control)) => (Progress::Read, read),
            read = table.read(wants(Stream::Table)) => (Progress::Read, read),
        };
        read.map(|()| progress)
    }
}

/// What has moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    Read,
    Written,
}

fn write_result(written: Result<(), WriteError>) -> Result<(), Broken> {
    match written {
        Ok(()) => Ok(()),
        Err(WriteError::ConnectionLost(error)) => Err(error.into()),
        Err(_) => Err(Broken::Reset),
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Control => 0,
        Stream::Table => 1,
        Stream::Urgent => 2,
    }
}
