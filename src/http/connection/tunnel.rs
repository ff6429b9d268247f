//! CONNECT: the connection becomes one end of a tunnel.

use std::time::Instant;

use bytes::BytesMut;
use http::{HeaderMap, Method};
use tokio::io::AsyncWriteExt;
use tracing::debug;

use super::writing::Told;
use super::{After, Connection};
use crate::http::accept::{App, Opened};
use crate::http::connections::InFlight;
use crate::http::gate::Refusal;
use crate::http::gate::head::Head;
use crate::http::meter::RouteLabel;
use crate::http::problem::Problem;
use crate::http::request::EARLY_BYTES_MAX;

/// What became of a wish for a tunnel.
pub(super) enum Wish {
    /// It stands: the connection is one end of it. It counts as a request while it lasts.
    Granted(Opened, InFlight),
    /// It was refused.
    Refused(After),
}

impl<A: App> Connection<A> {
    /// Has the tunnel opened, or says why it is not.
    pub(super) async fn tunnel(&mut self, head: Head, arrived: Instant) -> Wish {
        let in_flight = self.line.request();
        let early = self.inbox.split_to(self.inbox.len().min(EARLY_BYTES_MAX)).freeze();
        let opened = self.door.app.connect(head.into_connect(early, self.peer, arrived)).await;
        let refusal = match opened {
            Some(Ok(opened)) => return Wish::Granted(opened, in_flight),
            Some(Err(answer)) => answer,
            None => Problem::from(Refusal::MethodNotAllowed).into_answer(),
        };
        // What came behind, and may still come, was meant for somebody else: it is never taken for a request to us.
        let told = Told { route: RouteLabel::Tunnel, method: Method::GET, old: false, close: true };
        match self.write(told, arrived, in_flight, async move { refusal }).await {
            After::Close => Wish::Refused(After::Linger),
            after => Wish::Refused(after),
        }
    }

    /// Carries a tunnel to its end: until both sides have said all, or one breaks.
    pub(super) async fn carry(mut self, opened: Opened, in_flight: InFlight) {
        let Opened { far, unsent, headers } = opened;
        // It cannot be told to close: whoever asked for it hears that we stop.
        in_flight.told();
        if let Err(error) = self.stream.write_all(&head_of(&headers)).await {
            debug!(peer = %self.peer, %error, "nobody there for the tunnel any more");
            return self.end(After::Reset).await;
        }
        // What came along with the request belongs to the tunnel.
        let mut first = BytesMut::from(unsent);
        first.unsplit(self.inbox);
        match far.carry(first.freeze(), self.stream).await {
            Ok((up, down)) => debug!(peer = %self.peer, up, down, "tunnel over"),
            Err(error) => debug!(peer = %self.peer, %error, "tunnel broke"),
        }
    }
}

fn head_of(headers: &HeaderMap) -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 Connected\r\n".to_vec();
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}
