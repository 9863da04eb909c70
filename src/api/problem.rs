//! Errors over HTTP: the mapping of kinds to statuses, and the body of all errors.

use std::net::SocketAddr;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use snapdeck_engine::error_code;
use snapdeck_model::{Error, Kind};

/// Body of a failed call.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorBody {
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status_code: u16,
    /// Error code: `invalidInput`, `unauthorized`, `forbidden`, `notFound`,
    /// `misdirected`, `methodNotAllowed`, `timeout`, `conflict`, `cancelled`, `tooLarge`, `keyReused`, `failed`, `unreachable`,
    /// `damaged`, `shuttingDown`, `busy`, `noSpace`.
    code: String,
    /// Description with the cause.
    message: String,
    /// Advice, if known.
    hint: Option<String>,
    /// Path of the request.
    path: String,
    /// Method of the request.
    method: String,
    /// Time.
    timestamp: Timestamp,
}

/// An error response before its body is written.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: Option<String>,
    header: Option<(HeaderName, &'static str)>,
}

pub(crate) type ApiResult = Result<Response, Problem>;

/// Returns the HTTP status of a kind. An unreachable host or bucket, and damaged data there, is a bad upstream response
/// (RFC 9110, section 15.6.3). A cancelled job is a conflict: another caller cancelled it.
pub(crate) fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::InvalidInput => StatusCode::BAD_REQUEST,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict | Kind::Cancelled => StatusCode::CONFLICT,
        Kind::Unreachable | Kind::Damaged => StatusCode::BAD_GATEWAY,
        Kind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        Kind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            hint: None,
            header: None,
        }
    }

    pub(crate) fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }

    fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(crate) fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalidInput", message)
    }

    /// RFC 6750, section 3.
    pub(crate) fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
            .hint("send the header Authorization: Bearer TOKEN")
            .header(header::WWW_AUTHENTICATE, "Bearer realm=\"snapdeck\"")
    }

    pub(crate) fn origin_forbidden() -> Self {
        let message = "requests from web pages are refused when the server has no token";
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// The Host header is not a name of this server, which listens on `address`.
    pub(crate) fn misdirected(address: SocketAddr) -> Self {
        let message = "the Host header is not a name of this server, which has no token";
        let hint = format!("call it as http://{address}, or start it with a token");
        Self::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", message)
            .hint(&hint)
            .header(header::CONNECTION, "close")
    }

    pub(crate) fn token_in_url() -> Self {
        Self::invalid_input("a token in the URL is refused: logs and proxies show it")
            .hint("send the header Authorization: Bearer TOKEN, and make a new token")
    }

    pub(crate) fn too_many_connections() -> Self {
        let message = "too many connections are in use";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
            .header(header::RETRY_AFTER, "10")
    }

    pub(crate) fn too_many_waits(waits: usize) -> Self {
        let message = format!("{waits} calls already wait for jobs or follow them");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
            .hint("send Prefer: respond-async and ask for the job later")
            .header(header::RETRY_AFTER, "60")
    }

    pub(crate) fn route_not_found() -> Self {
        Self::not_found("no route at this path").hint("GET /openapi.json lists all routes")
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "notFound", message)
    }

    /// The router adds `Allow`.
    pub(crate) fn method_not_allowed() -> Self {
        let message = "method not allowed for this path";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "methodNotAllowed", message)
    }

    pub(crate) fn request_timeout() -> Self {
        let message = "timed out reading the request body";
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
            .header(header::CONNECTION, "close")
    }

    pub(crate) fn payload_too_large(limit: usize) -> Self {
        let message = format!("the request body is longer than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "tooLarge", message)
    }

    /// The key's job was dismissed.
    pub(crate) fn key_expired() -> Self {
        let message = "this Idempotency-Key was used, and the result of its job is no longer known";
        Self::new(StatusCode::CONFLICT, "conflict", message)
            .hint("check the current state and use a new key")
    }

    pub(crate) fn key_reused() -> Self {
        let message = "this Idempotency-Key was used for a different request";
        Self::new(StatusCode::CONFLICT, "keyReused", message).hint("use a new key")
    }

    pub(crate) fn shutting_down(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shuttingDown", message)
            .header(header::RETRY_AFTER, "10")
    }

    pub(crate) fn busy(jobs: usize) -> Self {
        let message = format!("{jobs} jobs are already queued or running");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
            .header(header::RETRY_AFTER, "60")
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self {
            hint: error.hint_text().map(str::to_owned),
            ..Self::new(
                status(error.kind()),
                error_code(error.kind()),
                error.message(),
            )
        }
    }
}

/// [`RequestInfo::write_error_body`] adds the body.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some((name, value)) = &self.header {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The part of a request that its error shows.
pub(crate) struct RequestInfo {
    path: String,
    method: String,
}

impl RequestInfo {
    pub(crate) fn from_request(request: &Request) -> Self {
        Self {
            path: request.uri().path().to_owned(),
            method: request.method().to_string(),
        }
    }

    /// Adds the body to the response of a failed call.
    pub(crate) fn write_error_body(self, response: Response) -> Response {
        let Some(problem) = response.extensions().get::<Problem>().cloned() else {
            return response;
        };
        let body = ErrorBody {
            status_code: problem.status.as_u16(),
            code: problem.code.to_owned(),
            message: problem.message,
            hint: problem.hint,
            path: self.path,
            method: self.method,
            timestamp: Timestamp::now(),
        };
        let (mut parts, _) = response.into_parts();
        let (with_body, body) = super::json_response(problem.status, &body).into_parts();
        parts.headers.extend(with_body.headers);
        Response::from_parts(parts, body)
    }
}

/// Errors of all calls.
#[derive(IntoResponses)]
#[allow(dead_code)]
pub(crate) enum CommonErrors {
    /// A name, field or parameter is invalid; the message names it.
    #[response(status = 400)]
    InvalidInput(ErrorBody),
    /// The token is missing or wrong.
    #[response(status = 401, headers(("WWW-Authenticate" = String, description = "`Bearer`")))]
    Unauthorized(ErrorBody),
    /// A web page called a server without a token.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The Host header is not a name of a server without a token.
    #[response(status = 421)]
    Misdirected(ErrorBody),
    /// Internal error.
    #[response(status = 500)]
    Failed(ErrorBody),
}

/// Errors of calls that read from the host or the bucket, beside [`CommonErrors`].
#[derive(IntoResponses)]
#[allow(dead_code)]
pub(crate) enum QueryErrors {
    /// A name or parameter is invalid.
    #[response(status = 400)]
    InvalidInput(ErrorBody),
    /// Not found.
    #[response(status = 404)]
    NotFound(ErrorBody),
    /// The host or the bucket is unreachable.
    #[response(status = 502)]
    Unreachable(ErrorBody),
}

/// Errors of calls that run a job, beside [`CommonErrors`].
#[derive(IntoResponses)]
#[allow(dead_code)]
pub(crate) enum JobErrors {
    /// A field is missing or invalid; the message names it.
    #[response(status = 400)]
    InvalidInput(ErrorBody),
    /// Unknown sandbox, snapshot or object.
    #[response(status = 404)]
    NotFound(ErrorBody),
    /// The body did not arrive in time.
    #[response(status = 408)]
    RequestTimeout(ErrorBody),
    /// Wrong state, in use, or it exists (`conflict`); the Idempotency-Key was used for another request (`keyReused`); or
    /// the job was cancelled (`cancelled`).
    #[response(status = 409)]
    Conflict(ErrorBody),
    /// The body is too long.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The host or the bucket is unreachable (`unreachable`), or its data is damaged (`damaged`).
    #[response(status = 502)]
    BadGateway(ErrorBody),
    /// snapdeck shuts down (`shuttingDown`; accepted jobs are resumed at its next start) or has too many jobs (`busy`).
    #[response(status = 503, headers(("Retry-After" = u32, description = "Seconds")))]
    ServiceUnavailable(ErrorBody),
    /// A disk or the bucket is full.
    #[response(status = 507)]
    NoSpace(ErrorBody),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_the_documented_ones() {
        for (kind, expected) in [
            (Kind::InvalidInput, 400),
            (Kind::NotFound, 404),
            (Kind::Conflict, 409),
            (Kind::Cancelled, 409),
            (Kind::Unreachable, 502),
            (Kind::Damaged, 502),
            (Kind::NoSpace, 507),
            (Kind::Failed, 500),
        ] {
            assert_eq!(status(kind).as_u16(), expected, "{kind:?}");
        }
    }
}
