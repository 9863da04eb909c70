//! Authentication of callers.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Extension;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use subtle::ConstantTimeEq;
use url::form_urlencoded;

use super::App;
use super::browser::check_not_from_browser;
use super::connections::{Connection, RequestGuard};
use super::health::HEALTHZ;
use super::metrics::METRICS;
use super::problem::{Problem, RequestInfo};
use super::runner::ROOT;
use snapdeck_model::{Error, Kind, Result};

/// Fewer could be guessed.
const MIN_TOKEN_CHARS: usize = 16;
/// Parameters that would be a token in the URL, where proxies and logs show it (RFC 6750, section 5.3).
const TOKEN_PARAMETERS: &[&str] = &[
    "access_token",
    "api_key",
    "apikey",
    "auth",
    "authorization",
    "token",
];

/// Headers of all responses: they are JSON for programs, and never kept or shown as a page.
const RESPONSE_HEADERS: &[(&str, &str)] = &[
    ("cache-control", "no-store"),
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-content-type-options", "nosniff"),
];

/// Rule that grants access.
#[derive(Clone, PartialEq, Eq)]
pub enum Access {
    /// Callers with this bearer token.
    Token(Token),
    /// All callers.
    Open,
}

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Parses the text of a file or variable, without surrounding whitespace.
    ///
    /// # Errors
    /// `InvalidInput` for an empty or short token, or invalid characters (RFC 6750, section 2.1); the message does not show
    /// the token.
    pub fn new(text: &str) -> Result<Self> {
        let token = text.trim();
        let is_valid = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
        let invalid = |message: &str| {
            Error::new(Kind::InvalidInput, message).hint(
                "use letters, digits and -._~+/= only; generate one with `openssl rand -hex 32`",
            )
        };
        if token.is_empty() || !token.bytes().all(is_valid) {
            return Err(invalid("the API token is empty or has invalid characters"));
        }
        if token.len() < MIN_TOKEN_CHARS {
            return Err(invalid(&format!(
                "the API token is shorter than {MIN_TOKEN_CHARS} characters"
            )));
        }
        Ok(Self(token.to_owned()))
    }

    /// Compares in a time that tells nothing about the token, not even its length.
    fn matches(&self, candidate: &[u8]) -> bool {
        let hash = |bytes: &[u8]| digest(&SHA256, bytes);
        let (token, candidate) = (hash(self.0.as_bytes()), hash(candidate));
        token.as_ref().ct_eq(candidate.as_ref()).into()
    }
}

/// Middleware of all routes: rejects unauthorized requests, and writes the body of every error and the headers of all
/// responses.
pub(crate) async fn authenticate(
    State(app): State<App>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
    next: Next,
) -> Response {
    let info = RequestInfo::from_request(&request);
    let response = match authorize(&app, &request, &connection) {
        Ok(guard) => hold_until_sent(next.run(request).await, guard),
        Err(problem) => problem.into_response(),
    };
    let mut response = info.write_error_body(response);
    for (name, value) in RESPONSE_HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(*name, value);
    }
    response
}

/// A stream of events is a request in progress until its end.
fn hold_until_sent(response: Response, guard: Option<RequestGuard>) -> Response {
    if guard.is_none() || response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| {
        let stream = body.into_data_stream();
        Body::from_stream(stream.inspect(move |_| {
            let _ = &guard;
        }))
    })
}

/// Returns the guard of the request; `None` for one that needs no token.
fn authorize(
    app: &App,
    request: &Request,
    connection: &Arc<Connection>,
) -> Result<Option<RequestGuard>, Problem> {
    if app.access == Access::Open {
        check_not_from_browser(app.address, request)?;
    }
    let query = request.uri().query().unwrap_or_default();
    let mut names = form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
    if names.any(|name| TOKEN_PARAMETERS.contains(&&*name.to_ascii_lowercase())) {
        return Err(Problem::token_in_url());
    }
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    if is_read && is_public(request.uri().path(), app.has_public_metrics) {
        return Ok(None);
    }
    if let Access::Token(token) = &app.access {
        check_token(token, request.headers())?;
    }
    Connection::begin_request(connection)
        .map(Some)
        .ok_or_else(Problem::too_many_connections)
}

/// Returns whether a path needs no token. Its response comes from memory.
fn is_public(path: &str, has_public_metrics: bool) -> bool {
    match path {
        HEALTHZ | ROOT => true,
        METRICS => has_public_metrics,
        _ => false,
    }
}

fn check_token(token: &Token, headers: &HeaderMap) -> Result<(), Problem> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let header = match (all.next(), all.next()) {
        (Some(header), None) => header,
        (None, _) => return Err(Problem::unauthorized("the token is missing")),
        _ => {
            return Err(Problem::unauthorized(
                "there are several Authorization headers",
            ));
        }
    };
    // The scheme's case does not matter (RFC 9110, section 11.1).
    let token_bytes = match header.as_bytes().split_at_checked("Bearer ".len()) {
        Some((scheme, bytes)) if scheme.eq_ignore_ascii_case(b"Bearer ") => bytes.trim_ascii(),
        _ => {
            return Err(Problem::unauthorized(
                "the Authorization header has no bearer token",
            ));
        }
    };
    match token.matches(token_bytes) {
        true => Ok(()),
        false => Err(Problem::unauthorized("the token is wrong")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn surrounding_whitespace_is_trimmed_and_invalid_characters_are_rejected() {
        let token = Token::new(" s3cret+/=0123456\n").unwrap();
        assert!(token.matches(b"s3cret+/=0123456"));
        for wrong in [
            "",
            "s3cret+/=012345",
            "s3cret+/=01234567",
            "S3cret+/=0123456",
        ] {
            assert!(!token.matches(wrong.as_bytes()), "{wrong:?}");
        }
        for bad in [
            "",
            " \n",
            "two words of some length",
            "äääääääääääääääää",
            "a\0aaaaaaaaaaaaaaaa",
            "123456789012345",
            "        123456789012345         ",
        ] {
            assert!(Token::new(bad).is_err(), "{bad:?}");
        }
    }
}
