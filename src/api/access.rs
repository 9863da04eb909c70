//! Authentication of callers.

use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::App;
use super::problem::{Problem, RequestInfo};
use snapdeck_model::{Error, Kind, Result};

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
    /// `InvalidInput` for an empty token or invalid characters (RFC 6750, section 2.1); the message does not show the token.
    pub fn new(text: &str) -> Result<Self> {
        let token = text.trim();
        let is_valid = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
        if token.is_empty() || !token.bytes().all(is_valid) {
            return Err(Error::new(
                Kind::InvalidInput,
                "the API token is empty or has invalid characters",
            )
            .hint(
                "use letters, digits and -._~+/= only; generate one with `openssl rand -hex 32`",
            ));
        }
        Ok(Self(token.to_owned()))
    }

    /// Compares in constant time for a given length.
    fn matches(&self, candidate: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(candidate).into()
    }
}

/// Middleware of all routes: rejects unauthorized requests and writes the body of every error.
pub(crate) async fn authenticate(State(app): State<App>, request: Request, next: Next) -> Response {
    let info = RequestInfo::from_request(&request);
    let response = match authorize(&app.access, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    info.write_error_body(response)
}

fn authorize(access: &Access, request: &Request) -> Result<(), Problem> {
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    if is_read && request.uri().path() == super::health::HEALTHZ {
        return Ok(());
    }
    let token = match access {
        Access::Token(token) => token,
        // Any page in a browser on this machine could call the API; browsers send Origin then (Fetch, "Origin header").
        Access::Open if request.headers().contains_key(header::ORIGIN) => {
            return Err(Problem::origin_forbidden());
        }
        Access::Open => return Ok(()),
    };
    let Some(header) = request.headers().get(header::AUTHORIZATION) else {
        return Err(Problem::unauthorized("the token is missing"));
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
        assert!(Token::new(" s3cret+/=\n").unwrap().matches(b"s3cret+/="));
        for bad in ["", " \n", "two words", "ä", "a\0"] {
            assert!(Token::new(bad).is_err(), "{bad:?}");
        }
    }
}
