//! A tunnel that is used before it stands: what is said first travels with CONNECT, and saves a round trip between islands.
//!
//! Only for requests that may be repeated, for whether one has reached the member is not known when the tunnel breaks; and
//! only where the member has proved its key this way before, so that nothing goes where nobody has ever seen it. What
//! comes back is held until the member's proof for this very tunnel is checked.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Asked, OPEN_TIMEOUT, UpstreamError, ask_over, check};
use crate::http::request::EARLY_BYTES_MAX;
use crate::upstream::place::Passage;

/// Why a tunnel does not stand, as whoever reads from it learns it.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(in crate::upstream) struct Refused {
    pub(in crate::upstream) why: String,
}

/// Bytes both ways, the first of them before the tunnel stands.
pub(in crate::upstream) struct Early {
    state: State,
}

enum State {
    /// What is to be said first is collected until it is flushed.
    Speaking {
        stream: TcpStream,
        passage: Passage,
        first: Vec<u8>,
    },
    Opening(Pin<Box<dyn Future<Output = io::Result<Open>> + Send>>),
    Open(Open),
    /// Told once; then it is over.
    Failed(Option<io::Error>),
}

struct Open {
    stream: TcpStream,
    /// Came with the bridge's answer.
    rest: Bytes,
}

impl Early {
    /// `stream` leads to the bridge, which was asked for nothing yet.
    pub(in crate::upstream) fn new(stream: TcpStream, passage: Passage) -> Self {
        Self { state: State::Speaking { stream, passage, first: Vec::new() } }
    }

    /// Goes on with opening it.
    fn go_on(&mut self, context: &mut Context<'_>) {
        if let State::Opening(opening) = &mut self.state
            && let Poll::Ready(opened) = opening.as_mut().poll(context)
        {
            self.state = opened.map_or_else(|error| State::Failed(Some(error)), State::Open);
        }
    }

    /// Ready when it is open.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&mut Open>> {
        self.go_on(context);
        match &mut self.state {
            State::Open(open) => Poll::Ready(Ok(open)),
            State::Failed(error) => {
                Poll::Ready(Err(error.take().unwrap_or_else(|| io::ErrorKind::NotConnected.into())))
            }
            // Nobody listens before something is said.
            State::Speaking { .. } | State::Opening(_) => Poll::Pending,
        }
    }
}

async fn open(stream: TcpStream, passage: Passage, first: Vec<u8>) -> io::Result<Open> {
    let nonce: [u8; 16] = rand::random();
    // A bridge would hold no more; so long a head waits until the tunnel stands.
    let (early, late) = if first.len() <= EARLY_BYTES_MAX { (&*first, &[][..]) } else { (&[][..], &*first) };
    let opening = async {
        let Asked { mut stream, headers, rest } = ask_over(stream, passage, &nonce, &[], early).await?;
        check(&passage, &nonce, &headers)?;
        stream
            .write_all(late)
            .await
            .map_err(|source| UpstreamError::Connect { at: passage.into(), source })?;
        Ok(Open { stream, rest })
    };
    match timeout(OPEN_TIMEOUT, opening).await {
        Ok(Ok(open)) => Ok(open),
        Ok(Err(UpstreamError::NoPassage { why, .. })) => Err(io::Error::other(Refused { why })),
        Ok(Err(error)) => Err(io::Error::new(io::ErrorKind::ConnectionReset, error)),
        Err(_) => Err(io::Error::other(Refused { why: "no answer from there in time".to_owned() })),
    }
}

impl AsyncRead for Early {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let open = ready!(self.poll_open(context))?;
        if !open.rest.is_empty() {
            let length = open.rest.len().min(buffer.remaining());
            buffer.put_slice(&open.rest.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut open.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Early {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let State::Speaking { first, .. } = &mut self.state {
            first.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let open = ready!(self.poll_open(context))?;
        Pin::new(&mut open.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let State::Open(open) = &mut self.state {
            return Pin::new(&mut open.stream).poll_write_vectored(context, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        self.poll_write(context, first)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match std::mem::replace(&mut self.state, State::Failed(None)) {
            State::Speaking { stream, passage, first } if !first.is_empty() => {
                self.state = State::Opening(Box::pin(open(stream, passage, first)));
            }
            state => self.state = state,
        }
        // It has to be under way. How it ends is for the reader to see.
        self.go_on(context);
        match &mut self.state {
            State::Open(open) => Pin::new(&mut open.stream).poll_flush(context),
            State::Speaking { .. } | State::Opening(_) | State::Failed(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Open(open) => Pin::new(&mut open.stream).poll_shutdown(context),
            State::Speaking { stream, .. } => Pin::new(stream).poll_shutdown(context),
            // What it leads to learns of it when everything is dropped.
            State::Opening(_) | State::Failed(_) => Poll::Ready(Ok(())),
        }
    }
}
