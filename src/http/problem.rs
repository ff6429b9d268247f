//! Every error a client sees: status, type, reason and what to do, as RFC 9457 problem+json.

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::http::body::{Answer, full};

/// A problem details object.
///
/// `reason` is a stable word for programs, `do` a sentence with a command for people.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// `/problems/REASON`: names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short, the same for all problems of the kind.
    pub title: &'static str,
    /// HTTP status, repeated.
    pub status: u16,
    /// What happened here, in one sentence.
    pub detail: String,
    /// A stable word.
    pub reason: &'static str,
    /// What the reader can do about it.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Shares that nobody can serve, as `2/3`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Seconds for `Retry-After`.
    #[serde(skip)]
    pub retry_after: Option<u32>,
    /// Methods for `Allow`.
    #[serde(skip)]
    pub allow: Option<&'static str>,
    /// Whether the connection is closed after this answer.
    #[serde(skip)]
    pub close: bool,
}

impl Problem {
    /// A problem with its stable word.
    #[must_use]
    pub fn new(
        status: StatusCode,
        reason: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind: format!("/problems/{reason}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            reason,
            advice: None,
            missing: Vec::new(),
            retry_after: None,
            allow: None,
            close: false,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Closes the connection after the answer.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// As an answer.
    #[must_use]
    pub fn into_answer(self) -> Answer {
        let status = StatusCode::from_u16(self.status).expect("made from a StatusCode in `new`");
        let body = serde_json::to_vec(&self).expect("strings and numbers only");
        let mut answer = http::Response::new(full(body));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(methods) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}
