//! Every error that meets a client: its status, its word, its sentence and what to do. No default arms, so
//! that a new error must choose.

use http::StatusCode;

use crate::api::Denied;
use crate::api::events::Crowded;
use crate::api::members::NotFound;
use crate::http::gate::Refusal;
use crate::http::gate::head::METHODS_ALLOWED;
use crate::http::hosts::Foreign;
use crate::http::problem::Problem;

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, title) = match refusal {
            Refusal::LineEnd
            | Refusal::RequestLine
            | Refusal::FieldName
            | Refusal::FieldValue
            | Refusal::Folded
            | Refusal::TargetForm
            | Refusal::Escape
            | Refusal::DotSegment
            | Refusal::NoHost
            | Refusal::ManyHosts
            | Refusal::BadHost
            | Refusal::TransferEncoding
            | Refusal::BothFramings
            | Refusal::ContentLength
            | Refusal::ChunkForm => (StatusCode::BAD_REQUEST, "malformed request"),
            Refusal::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "this node is only read"),
            Refusal::HeadTooSlow | Refusal::BodyTooSlow => (StatusCode::REQUEST_TIMEOUT, "too slow"),
            Refusal::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body too large"),
            Refusal::TargetTooLong => (StatusCode::URI_TOO_LONG, "target too long"),
            Refusal::Expectation => (StatusCode::EXPECTATION_FAILED, "expectation not met"),
            Refusal::HeadTooLarge | Refusal::TooManyFields => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header fields too large")
            }
            Refusal::MethodUnknown => (StatusCode::NOT_IMPLEMENTED, "method unknown"),
            Refusal::Version => (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "HTTP version not supported"),
        };
        let mut problem = Self::new(status, refusal.as_str(), title, refusal.to_string()).closing();
        if status == StatusCode::METHOD_NOT_ALLOWED {
            problem.allow = Some(METHODS_ALLOWED);
        }
        problem
    }
}

impl From<Foreign> for Problem {
    fn from(foreign: Foreign) -> Self {
        match &foreign {
            Foreign::Host(name) => {
                let advice = format!(
                    "ask by IP address or by a local name; if {name} is meant to lead here, start the node \
                     with --allow-host {name}"
                );
                Self::new(
                    StatusCode::MISDIRECTED_REQUEST,
                    "foreign-host",
                    "asked under a foreign name",
                    foreign.to_string(),
                )
                .advise(advice)
            }
            Foreign::Origin => Self::new(
                StatusCode::FORBIDDEN,
                "foreign-origin",
                "asked by another site's page",
                foreign.to_string(),
            )
            .advise("open this address in the browser itself, or ask from a program"),
        }
    }
}

impl From<NotFound> for Problem {
    fn from(unfound: NotFound) -> Self {
        let (reason, title, advice) = match &unfound {
            NotFound::Nobody(_) => {
                ("no-such-member", "no such member", "see who is there with: isle members")
            }
            NotFound::Several { .. } => {
                ("ambiguous-member", "more than one such member", "add more of the id, as in p1~k7")
            }
        };
        Self::new(StatusCode::NOT_FOUND, reason, title, unfound.to_string()).advise(advice)
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let (status, reason, title) = match denied {
            Denied::NotOnLink => (StatusCode::FORBIDDEN, "not-on-link", "for nodes of this network only"),
            Denied::BadSince => (StatusCode::BAD_REQUEST, "bad-since", "malformed instance or since"),
            Denied::BadNonce => (StatusCode::BAD_REQUEST, "bad-nonce", "malformed nonce"),
        };
        Self::new(status, reason, title, denied.to_string()).advise("for the table as JSON see GET /members")
    }
}

impl From<Crowded> for Problem {
    fn from(crowded: Crowded) -> Self {
        let reason = match crowded {
            Crowded::Node => "too-many-streams",
            Crowded::Address => "too-many-streams-of-address",
        };
        let mut problem =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, reason, "too many event streams", crowded.to_string())
                .advise("close some, or follow another node: every node tells the same events");
        problem.retry_after = Some(5);
        problem
    }
}

/// This node is being stopped and begins nothing long.
#[must_use]
pub fn draining() -> Problem {
    let mut problem = Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "draining",
        "being stopped",
        "this node is being stopped",
    )
    .advise("ask another node; see isle members");
    problem.retry_after = Some(1);
    problem
}

/// The answer in place of one whose making panicked.
#[must_use]
pub fn panicked() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal-error",
        "a fault in this node",
        "answering this request failed because of a fault in this node; other requests are not affected",
    )
    .advise("the log of this node names the place; please report it")
}

/// No such path here.
#[must_use]
pub fn no_such_path(path: &str) -> Problem {
    let shown: String = path.chars().take(100).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-such-path",
        "no such path",
        format!("there is nothing at {shown}"),
    )
    .advise("see GET /members, /figures, /links, /events, /healthz, /readyz, /metrics")
}
