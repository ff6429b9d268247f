//! The gate: from a client's bytes to a request that everything behind may rely on, or a refusal.
//!
//! Pure: no IO, no clock, no policy about who may ask what (that is [`hosts`](crate::http::hosts)).
//! It reads every request itself, strictly, and hyper never sees a client's bytes (see
//! [`connection`](crate::http::connection)): two readers of one request can disagree, and that is how
//! requests are smuggled. hyper 1.12 alone would let pass: no or several `Host`, bare line feeds,
//! `Content-Length` beside `Transfer-Encoding`, doubled `chunked`, userinfo, targets in other forms.
//!
//! | module | is |
//! |---|---|
//! | [`scan`] | where a head ends, while it is still arriving |
//! | [`head`] | a complete head: request line, fields, framing |
//! | [`target`] | path and query |
//! | [`discard`] | skips a body that nobody wants |
//!
//! Sources: RFC 9110, RFC 9112, RFC 3986.

pub mod discard;
pub mod head;
pub mod scan;
pub mod target;

/// Most bytes of a request's header fields, with the empty line.
pub const FIELDS_BYTES_MAX: usize = 32 * 1024;
/// Most header fields of a request.
pub const FIELDS_MAX: usize = 100;
/// Most bytes of a request's target.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Most bytes of a body that are read and thrown away; a longer one is refused. GET and HEAD have no use
/// for a body, but some clients send an empty form or a stray JSON object.
pub const DISCARDED_BYTES_MAX: u64 = 64 * 1024;

/// Why a request was turned away at the gate. The connection is closed after the answer: what follows
/// in the stream cannot be trusted to begin where we think it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, thiserror::Error)]
pub enum Refusal {
    /// A line that does not end in CR LF, or a CR elsewhere.
    #[error("lines of a request end in CR LF, and only there may these characters appear")]
    LineEnd,
    /// Not `METHOD SP TARGET SP HTTP/1.x`.
    #[error("the first line is not a request line")]
    RequestLine,
    /// Another version than HTTP/1.0 and HTTP/1.1, the HTTP/2 preface among them.
    #[error("this node speaks HTTP/1.1 without TLS")]
    Version,
    /// A field name that is no token, is empty, or is followed by a space.
    #[error("a header field has no valid name")]
    FieldName,
    /// A field value with control characters.
    #[error("a header field's value contains control characters")]
    FieldValue,
    /// A field continued on a second line.
    #[error("a header field goes on in a second line")]
    Folded,
    /// Neither origin-form (`/path?query`) in visible ASCII, nor what CONNECT and OPTIONS may use.
    #[error("the target is not a path in visible ASCII")]
    TargetForm,
    /// `%` without two hex digits, or escapes that hide `/`, control characters or broken UTF-8.
    #[error("the target contains a percent-escape that is broken or hides a separator or control character")]
    Escape,
    /// A segment `.` or `..`, escaped or not.
    #[error("the path contains . or .. as a segment")]
    DotSegment,
    /// No `Host`.
    #[error("the request has no Host field")]
    NoHost,
    /// More than one `Host`.
    #[error("the request has more than one Host field")]
    ManyHosts,
    /// A `Host` that is not `host[:port]`.
    #[error("the Host field is not host[:port]")]
    BadHost,
    /// A `Transfer-Encoding` other than exactly one `chunked`, or any in HTTP/1.0.
    #[error("the only Transfer-Encoding understood is a single chunked, in HTTP/1.1")]
    TransferEncoding,
    /// Both ways to say how long the body is.
    #[error("the request has both Content-Length and Transfer-Encoding")]
    BothFramings,
    /// Several `Content-Length`, or one that is not digits only.
    #[error("the request's Content-Length is not a single number")]
    ContentLength,
    /// A chunk that is not size, line, data, line.
    #[error("the request's chunked body is malformed")]
    ChunkForm,
    /// A method nobody knows.
    #[error("the method is not known")]
    MethodUnknown,
    /// A known method that this node does not offer: its API only reads.
    #[error("this node is only read: GET and HEAD")]
    MethodNotAllowed,
    /// The head did not arrive in time.
    #[error("the request's head did not arrive in time")]
    HeadTooSlow,
    /// The body did not arrive in time.
    #[error("the request's body did not arrive in time")]
    BodyTooSlow,
    /// A body longer than [`DISCARDED_BYTES_MAX`].
    #[error("requests here need no body, and this one is longer than 64 KiB")]
    BodyTooLarge,
    /// A target longer than [`TARGET_BYTES_MAX`].
    #[error("the target is longer than 8 KiB")]
    TargetTooLong,
    /// `Expect` with anything but `100-continue`.
    #[error("the only expectation understood is 100-continue")]
    Expectation,
    /// Fields longer than [`FIELDS_BYTES_MAX`].
    #[error("the header fields are longer than 32 KiB")]
    HeadTooLarge,
    /// More than [`FIELDS_MAX`] fields.
    #[error("there are more than 100 header fields")]
    TooManyFields,
}

impl Refusal {
    /// The word used in problems, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LineEnd => "line-end",
            Self::RequestLine => "request-line",
            Self::Version => "http-version",
            Self::FieldName => "field-name",
            Self::FieldValue => "field-value",
            Self::Folded => "field-folded",
            Self::TargetForm => "target-form",
            Self::Escape => "target-escape",
            Self::DotSegment => "target-dot-segment",
            Self::NoHost => "host-missing",
            Self::ManyHosts => "host-repeated",
            Self::BadHost => "host-malformed",
            Self::TransferEncoding => "transfer-encoding",
            Self::BothFramings => "length-and-chunked",
            Self::ContentLength => "content-length",
            Self::ChunkForm => "chunk-form",
            Self::MethodUnknown => "method-unknown",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::HeadTooSlow => "head-too-slow",
            Self::BodyTooSlow => "body-too-slow",
            Self::BodyTooLarge => "body-too-large",
            Self::TargetTooLong => "target-too-long",
            Self::Expectation => "expectation",
            Self::HeadTooLarge => "head-too-large",
            Self::TooManyFields => "too-many-fields",
        }
    }
}
