//! The one body type of all answers.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};

/// Why a body ended early; the connection is then broken off, so that no client takes half for whole.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream broke off.
    #[error("upstream broke off")]
    Upstream(#[source] hyper::Error),
    /// It made no progress in time.
    #[error("no progress in time")]
    Stalled,
}

/// Body of an answer: streamed or whole.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// An answer.
pub type Answer = http::Response<Body>;

/// A whole body.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
