//! JSON, text or a page: what a client says it takes (RFC 9110, 12.5.1), JSON if it does not care.

use http::{HeaderMap, HeaderValue, header};

use crate::api::figures::{FigureBody, SourceView};
use crate::figures::figure::Figure;
use crate::figures::render;
use crate::http::body::Answer;
use crate::roles::pieces::typed;

/// A form in which a figure is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Json,
    Text,
    Page,
}

impl Form {
    /// What the client likes best of what there is.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let accepts: Vec<(&str, f32)> = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(range)
            .collect();
        if accepts.is_empty() {
            return Self::Json;
        }
        // The most exact range that fits a form decides about it; of equally liked forms the first wins.
        let liking = |kind: &str| {
            let (group, _) = kind.split_once('/').unwrap_or((kind, ""));
            let wide = format!("{group}/*");
            [kind, wide.as_str(), "*/*"]
                .into_iter()
                .find_map(|wanted| accepts.iter().find(|(range, _)| range.eq_ignore_ascii_case(wanted)))
                .map_or(0.0, |(_, liking)| *liking)
        };
        let forms = [(Self::Json, "application/json"), (Self::Page, "text/html"), (Self::Text, "text/plain")];
        let mut best = (Self::Json, 0.0);
        for (form, kind) in forms {
            let liked = liking(kind);
            if liked > best.1 {
                best = (form, liked);
            }
        }
        best.0
    }
}

/// `text/html;q=0.8` as type and liking.
fn range(text: &str) -> (&str, f32) {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let liking = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
    (kind, liking)
}

/// The figure in this form.
pub(super) fn answer(figure: &Figure, sources: Vec<SourceView>, form: Form) -> Answer {
    let mut answer = match form {
        Form::Json => {
            let body = FigureBody {
                name: figure.name().to_string(),
                total: figure.total(),
                pieces: figure.pieces().to_vec(),
                sources,
            };
            typed("application/json", serde_json::to_vec(&body).expect("strings and numbers only"))
        }
        Form::Text => typed("text/plain; charset=utf-8", render::table(figure)),
        Form::Page => {
            let mut answer = typed("text/html; charset=utf-8", render::page(figure));
            let policy = HeaderValue::from_static(render::PAGE_POLICY);
            answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            answer
        }
    };
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_what_the_client_likes_best() {
        let wanted = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            Form::wanted(&headers)
        };
        assert_eq!(Form::wanted(&HeaderMap::new()), Form::Json);
        assert_eq!(wanted("*/*"), Form::Json);
        assert_eq!(wanted("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), Form::Page);
        assert_eq!(wanted("text/plain"), Form::Text);
        assert_eq!(wanted("text/*;q=0.5, application/json;q=0.1"), Form::Page);
        assert_eq!(wanted("image/png"), Form::Json);
    }
}
