//! Errors over HTTP: the one place where kinds become statuses, and the one form all of them have.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use snapdeck_engine::error_code;
use snapdeck_model::{Error, Kind};

/// What a failed call answers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Error)]
pub(crate) struct ErrorBody {
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status_code: u16,
    /// What sort of failure it is, for programs: `invalidInput`, `unauthorized`, `forbidden`, `notFound`,
    /// `methodNotAllowed`, `timeout`, `conflict`, `cancelled`, `tooLarge`, `keyReused`, `failed`, `unreachable`,
    /// `damaged`, `shuttingDown`, `busy`, `noSpace`.
    code: String,
    /// What failed, on what, and why.
    message: String,
    /// What to do about it, if that is known.
    hint: Option<String>,
    /// Path of the call.
    path: String,
    /// Method of the call.
    method: String,
    /// When.
    timestamp: Timestamp,
}

/// A failure on its way to the caller.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: Option<String>,
    header: Option<(HeaderName, &'static str)>,
}

/// A handler's answer.
pub(crate) type ApiResult = Result<Response, Problem>;

/// The status of a failure. What a host or the bucket holds and is broken (`Damaged`) is a bad answer of somebody
/// behind us (RFC 9110, section 15.6.3), as one out of reach is; a job that somebody cancelled is a conflict of two
/// callers.
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

    fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }

    fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    /// 400: what was sent cannot be meant.
    pub(crate) fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalidInput", message)
    }

    /// 401 (RFC 6750, section 3).
    pub(crate) fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
            .hint("send the header Authorization: Bearer TOKEN")
            .header(header::WWW_AUTHENTICATE, "Bearer realm=\"snapdeck\"")
    }

    /// 403: a page in a browser, where nobody has to show a token.
    pub(crate) fn origin_forbidden() -> Self {
        let message = "requests from web pages are refused when the server has no token";
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 404 for a path that leads nowhere.
    pub(crate) fn route_not_found() -> Self {
        Self::not_found("no route at this path").hint("GET /openapi.json lists all routes")
    }

    /// 404.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "notFound", message)
    }

    /// 405; the router adds `Allow`.
    pub(crate) fn method_not_allowed() -> Self {
        let message = "method not allowed for this path";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "methodNotAllowed", message)
    }

    /// 408: a body that does not come.
    pub(crate) fn request_timeout() -> Self {
        let message = "timed out reading the request body";
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
            .header(header::CONNECTION, "close")
    }

    /// 413.
    pub(crate) fn payload_too_large(limit: usize) -> Self {
        let message = format!("the request body is longer than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "tooLarge", message)
    }

    /// 409: a key whose job nobody remembers.
    pub(crate) fn key_expired() -> Self {
        let message = "this Idempotency-Key was used, and the result of its job is no longer known";
        Self::new(StatusCode::CONFLICT, "conflict", message)
            .hint("check the current state and use a new key")
    }

    /// 409: a key used for something else before.
    pub(crate) fn key_reused() -> Self {
        let message = "this Idempotency-Key was used for a different request";
        Self::new(StatusCode::CONFLICT, "keyReused", message).hint("use a new key")
    }

    /// 503 while we end; what runs is taken up again.
    pub(crate) fn shutting_down(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shuttingDown", message)
            .header(header::RETRY_AFTER, "10")
    }

    /// 503: more jobs wait than is sane.
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

/// Without a body: that is put in by [`Told::fill`], which knows the call.
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

/// What of a call is told in its error.
pub(crate) struct RequestInfo {
    path: String,
    method: String,
}

impl RequestInfo {
    /// Of a request that is about to be served.
    pub(crate) fn from_request(request: &Request) -> Self {
        Self {
            path: request.uri().path().to_owned(),
            method: request.method().to_string(),
        }
    }

    /// Gives the answer of a failed call its body.
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

/// What any call may answer.
#[derive(IntoResponses)]
#[allow(dead_code)]
pub(crate) enum CommonErrors {
    /// The token is missing or wrong.
    #[response(status = 401, headers(("WWW-Authenticate" = String, description = "`Bearer`")))]
    Unauthorized(#[to_schema] ErrorBody),
    /// Served without a token, and called by a page in a browser.
    #[response(status = 403)]
    Forbidden(#[to_schema] ErrorBody),
    /// It failed here.
    #[response(status = 500)]
    Failed(#[to_schema] ErrorBody),
}

/// What a question about the host or the bucket may answer beside [`Any`].
#[derive(IntoResponses)]
#[allow(dead_code)]
pub(crate) enum QueryErrors {
    /// A name or parameter cannot be meant.
    #[response(status = 400)]
    InvalidInput(#[to_schema] ErrorBody),
    /// There is no such thing.
    #[response(status = 404)]
    NotFound(#[to_schema] ErrorBody),
    /// The host or the bucket is out of reach.
    #[response(status = 502)]
    Unreachable(#[to_schema] ErrorBody),
}

/// What a call that works as a job may answer beside [`Any`].
#[derive(IntoResponses)]
#[allow(dead_code)]
pub(crate) enum JobErrors {
    /// A field is missing, of a wrong type, or cannot be meant; it is named.
    #[response(status = 400)]
    InvalidInput(#[to_schema] ErrorBody),
    /// There is no such sandbox, snapshot or object.
    #[response(status = 404)]
    NotFound(#[to_schema] ErrorBody),
    /// The body did not come in time.
    #[response(status = 408)]
    RequestTimeout(#[to_schema] ErrorBody),
    /// Wrong state, in use, or there already (`conflict`); the Idempotency-Key was used for another request
    /// (`keyReused`); or somebody cancelled the job (`cancelled`).
    #[response(status = 409)]
    Conflict(#[to_schema] ErrorBody),
    /// The body is too long.
    #[response(status = 413)]
    TooLarge(#[to_schema] ErrorBody),
    /// The host or the bucket is out of reach (`unreachable`), or what it holds is broken (`damaged`).
    #[response(status = 502)]
    BadGateway(#[to_schema] ErrorBody),
    /// snapdeck is ending (`shuttingDown`: a job that was taken on goes on at the next start), or has too much to do
    /// (`busy`).
    #[response(status = 503, headers(("Retry-After" = u32, description = "Seconds")))]
    ServiceUnavailable(#[to_schema] ErrorBody),
    /// A disk or the bucket is full.
    #[response(status = 507)]
    NoSpace(#[to_schema] ErrorBody),
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
