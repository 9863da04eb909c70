//! Who may call.

use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::App;
use super::problem::{Problem, RequestInfo};
use snapdeck_model::{Error, Kind, Result};

/// Who may call.
#[derive(Clone, PartialEq, Eq)]
pub enum Access {
    /// Whoever shows this token.
    Token(Token),
    /// Everybody who reaches us.
    Open,
}

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token from a file's or a variable's text; blanks around it do not count.
    ///
    /// # Errors
    /// `InvalidInput` for an empty one, and for one that fits in no header (RFC 6750, section 2.1). It is not told.
    pub fn new(text: &str) -> Result<Self> {
        let token = text.trim();
        let fits = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
        if token.is_empty() || !token.bytes().all(fits) {
            return Err(
                Error::new(Kind::InvalidInput, "the API token is none").hint(
                    "use letters, digits and -._~+/= only; generate one with `openssl rand -hex 32`",
                ),
            );
        }
        Ok(Self(token.to_owned()))
    }

    /// Compares in a time that tells nothing but the length.
    fn matches(&self, shown: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(shown).into()
    }
}

/// Stands before every route: refuses strangers, and gives every error its body.
pub(crate) async fn authenticate(State(app): State<App>, request: Request, next: Next) -> Response {
    let told = RequestInfo::from_request(&request);
    let response = match authorize(&app.access, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    told.write_error_body(response)
}

fn authorize(access: &Access, request: &Request) -> Result<(), Problem> {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    if reads && request.uri().path() == super::health::HEALTHZ {
        return Ok(());
    }
    let token = match access {
        Access::Token(token) => token,
        // Any page that a browser on this machine shows could call us; browsers say so (Fetch, "Origin header").
        Access::Open if request.headers().contains_key(header::ORIGIN) => {
            return Err(Problem::origin_forbidden());
        }
        Access::Open => return Ok(()),
    };
    let Some(header) = request.headers().get(header::AUTHORIZATION) else {
        return Err(Problem::unauthorized("a token is missing"));
    };
    // The scheme's case does not matter (RFC 9110, section 11.1).
    let shown = match header.as_bytes().split_at_checked("Bearer ".len()) {
        Some((scheme, shown)) if scheme.eq_ignore_ascii_case(b"Bearer ") => shown.trim_ascii(),
        _ => return Err(Problem::unauthorized("a bearer token is wanted")),
    };
    match token.matches(shown) {
        true => Ok(()),
        false => Err(Problem::unauthorized("the token is wrong")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_fits_in_a_header_and_blanks_around_it_do_not_count() {
        assert!(Token::new(" s3cret+/=\n").unwrap().matches(b"s3cret+/="));
        for bad in ["", " \n", "two words", "ä", "a\0"] {
            assert!(Token::new(bad).is_err(), "{bad:?}");
        }
    }
}
