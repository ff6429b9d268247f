//! Writing on a connection: one answer, framed and streamed by hyper.

use std::cell::Cell;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use tracing::debug;

use super::wire::{Exchange, Wire};
use super::{After, Connection};
use crate::http::body::{Answer, Body, BodyError};
use crate::http::connections::InFlight;
use crate::http::meter::{RouteLabel, Timer};

/// A mute reader costs at most this much of our memory, and as much of the kernel's (see `accept`).
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// The hyper side of answers.
pub(in crate::http) fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Without a timer hyper's limits are silently off. Its limit on heads is, on purpose: hyper reads only
    // the constant heads of `Wire`, which are there at once; the client's are timed below.
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(WRITE_BUFFER_BYTES);
    builder
}

/// What is known of an answer before it is made.
pub(super) struct Told {
    pub(super) route: RouteLabel,
    pub(super) method: Method,
    /// For a client of HTTP/1.0.
    pub(super) old: bool,
    /// The connection is closed after it.
    pub(super) close: bool,
}

impl<A> Connection<A> {
    /// Has `make`'s answer written by hyper.
    pub(super) async fn write(
        &mut self,
        told: Told,
        arrived: Instant,
        in_flight: InFlight,
        make: impl Future<Output = Answer> + Send,
    ) -> After {
        let exchange = Arc::new(Exchange::default());
        let wire = Wire::new(
            &mut self.stream,
            &mut self.inbox,
            exchange.clone(),
            &self.door.limits,
            &told.method,
            told.old,
        );
        let meter = &self.door.meter;
        let finish = {
            let exchange = exchange.clone();
            async move {
                let mut answer = make.await;
                secure(&mut answer);
                let says_close = says_close(&answer);
                // HTTP/1.0 has no chunks: a body of unknown length ends with the connection.
                let endless = told.old && answer.body().size_hint().exact().is_none();
                let closes = told.close || says_close || endless || in_flight.is_last();
                // Ours, whatever the service behind it speaks. To a client of HTTP/1.0 hyper adds to any other than that that the
                // connection is kept.
                *answer.version_mut() = if told.old && closes { Version::HTTP_10 } else { Version::HTTP_11 };
                if closes {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    exchange.close.store(true, Ordering::Relaxed);
                    in_flight.told();
                }
                let timer = meter.start(told.route, &told.method, answer.status(), arrived);
                let panics = meter.panics();
                answer.map(|body| Tracked { body, exchange, panics, _in_flight: in_flight, _timer: timer })
            }
        };
        let once = Cell::new(Some(finish));
        let service = hyper::service::service_fn(move |_: http::Request<hyper::body::Incoming>| {
            let finish = once.take().expect("hyper reads one request from a Wire");
            async move { Ok::<_, Infallible>(finish.await) }
        });
        let mut hyper = pin!(self.door.builder.serve_connection(wire, service));
        let result = std::future::poll_fn(|cx| match hyper.as_mut().poll(cx) {
            // It would wait for another request, which is not its business.
            Poll::Pending if exchange.flushed.load(Ordering::Relaxed) => Poll::Ready(Ok(())),
            other => other,
        })
        .await;
        let broken = exchange.broken.load(Ordering::Relaxed);
        match result {
            Ok(()) if exchange.close.load(Ordering::Relaxed) => After::Close,
            Ok(()) => After::Again,
            Err(_) if broken => After::Reset,
            Err(error) => {
                self.door.meter.disconnected(exchange.answered());
                debug!(peer = %self.peer, %error, "client went away");
                After::Drop
            }
        }
    }
}

fn says_close(answer: &Answer) -> bool {
    answer.headers().get_all(header::CONNECTION).iter().any(|value| {
        value.to_str().is_ok_and(|text| text.split(',').any(|word| word.trim().eq_ignore_ascii_case("close")))
    })
}

/// What every answer tells browsers: take it as what it is called, run nothing that is not from here, show
/// it in no frame, give it to no other page. An answer that needs other rules brings its own.
fn secure(answer: &mut Answer) {
    let headers = answer.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert_with(|| {
        HeaderValue::from_static(
            "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
    });
}

/// An answer's body that tells its connection when it is done.
struct Tracked {
    body: Body,
    exchange: Arc<Exchange>,
    panics: metrics::Counter,
    _in_flight: InFlight,
    _timer: Timer,
}

/// Why an answer broke off after its head.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the body's maker panicked")]
    Panic,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let body = &mut self.body;
        // A body that panicked is not polled again: hyper drops it after an error.
        let frame = std::panic::catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx)));
        let frame = match frame {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(frame)) => frame.map(|frame| frame.map_err(Broken::from)),
            Err(_) => {
                self.panics.increment(1);
                tracing::error!("a handler panicked in the middle of an answer, which was cut");
                Some(Err(Broken::Panic))
            }
        };
        if let Some(Err(_)) = &frame {
            self.exchange.broken.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.exchange.answered.store(true, Ordering::Relaxed);
    }
}
