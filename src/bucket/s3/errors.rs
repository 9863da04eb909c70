//! Converts the SDK's errors. Codes: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.

use std::error::Error as StdError;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::Store;
use super::bounds::{ResponseTooLong, printable};
use snapdeck_model::{Error, Kind};

const ENDPOINT_HINT: &str =
    "check [bucket] endpoint (AWS_ENDPOINT_URL) and that the store is running";
const KEYS_HINT: &str = "check [bucket] access_key_id and secret_access_key (AWS_ACCESS_KEY_ID, \
                         AWS_SECRET_ACCESS_KEY) or the AWS profile";
const LIST_HINT: &str = "check [bucket] access_key_id and secret_access_key (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or the AWS \
                         profile, and allow s3:ListBucket on the bucket and s3:GetObject: without the first the store also \
                         answers 403 for an object that does not exist";
const REGION_HINT: &str = "check [bucket] region (AWS_REGION)";

/// Codes for keys that are wrong or have no rights.
const ACCESS_DENIED_CODES: [&str; 12] = [
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "InvalidToken",
    "NotSignedUp",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnauthorizedAccess",
];
const STORAGE_FULL_CODES: [&str; 5] = [
    "QuotaExceeded",
    "QuotaExceededException",
    "InsufficientStorage",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
];
/// Phrases in the `InternalError` of a full store.
const STORAGE_FULL_PHRASES: [&str; 4] = [
    "no space left",
    "no free volumes",
    "no writable volumes",
    "disk full",
];
/// Codes below 500 of requests that were damaged or delayed in transit: a retry may succeed.
const TRANSIENT_CODES: [&str; 7] = [
    "BadDigest",
    "IncompleteBody",
    "RequestTimeout",
    "SlowDown",
    "ThrottlingException",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
];

/// The reason of a failed call, as far as callers act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// 429, 502 to 504, or a code such as `SlowDown`.
    Overloaded,
    /// 404, also for a missing bucket.
    NotFound,
    /// 403 for the call, not for the keys as such.
    AccessDenied,
    /// 409: another request changed the object at the same time.
    Conflict,
    /// 412.
    PreconditionFailed,
    /// 416: the object is shorter.
    InvalidRange,
    /// 501, or an argument of the call that the store does not support.
    Unsupported,
    /// The store did not respond.
    NoResponse,
    Other,
}

/// A failed call.
#[derive(Debug)]
pub(crate) struct StoreError {
    pub(crate) reason: Reason,
    pub(crate) error: Error,
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        Self {
            reason: Reason::Other,
            error,
        }
    }
}

impl From<StoreError> for Error {
    fn from(failed: StoreError) -> Self {
        failed.error
    }
}

/// Returns the HTTP status; `None` without a response.
pub(super) fn status<E>(error: &SdkError<E>) -> Option<u16> {
    Some(error.raw_response()?.status().as_u16())
}

/// Converts `error`, which made `summary` fail ("cannot list s3://lab/snapshots/").
pub(super) fn convert<E>(store: &Store, summary: String, error: &SdkError<E>) -> StoreError
where
    E: StdError + ProvideErrorMetadata + 'static,
{
    let code = error.as_service_error().and_then(|e| e.code());
    let reason = match (status(error), code.unwrap_or_default()) {
        (None, _) => Reason::NoResponse,
        (Some(429 | 502..=504), _)
        | (_, "SlowDown" | "ThrottlingException" | "ServiceUnavailable") => Reason::Overloaded,
        (Some(404), _) => Reason::NotFound,
        (Some(403), "" | "AccessDenied") => Reason::AccessDenied,
        (Some(409), _) => Reason::Conflict,
        (Some(412), _) => Reason::PreconditionFailed,
        (Some(416), _) => Reason::InvalidRange,
        (Some(501), _) | (_, "NotImplemented" | "InvalidArgument" | "InvalidRequest") => {
            Reason::Unsupported
        }
        _ => Reason::Other,
    };
    StoreError {
        reason,
        error: sdk_error(store, summary, error),
    }
}

/// Explains a refused lookup: the object may be missing (API reference, HeadObject, "Permissions").
pub(super) fn maybe_missing(failed: StoreError) -> StoreError {
    StoreError {
        error: failed.error.hint(LIST_HINT),
        ..failed
    }
}

fn sdk_error<E>(store: &Store, summary: String, error: &SdkError<E>) -> Error
where
    E: StdError + ProvideErrorMetadata + 'static,
{
    let endpoint = &store.endpoint;
    match error {
        SdkError::TimeoutError(_) => Error::new(Kind::Unreachable, summary)
            .with_cause(format!("{endpoint} did not answer in time"))
            .hint(ENDPOINT_HINT)
            .retryable(),
        SdkError::ServiceError(_) => service_error(store, summary, error),
        SdkError::ResponseError(_) if is_too_long(error) => Error::new(Kind::Failed, summary)
            .with_cause(format!("{endpoint} is not trusted: {ResponseTooLong}"))
            .hint(ENDPOINT_HINT),
        SdkError::ResponseError(_) => not_s3_error(endpoint, summary),
        // Dispatch failures, and requests that could not be signed without credentials.
        other => {
            let causes: Vec<String> = std::iter::successors(other.source(), |&e| e.source())
                .map(ToString::to_string)
                .collect();
            if causes.iter().any(|cause| cause.contains("credential")) {
                return Error::new(Kind::Unreachable, summary)
                    .with_cause("no usable credentials were found")
                    .hint(KEYS_HINT);
            }
            let innermost = causes.last().map_or("no connection", String::as_str);
            Error::new(Kind::Unreachable, summary)
                .with_cause(format!(
                    "cannot connect to {endpoint}: {}",
                    printable(innermost)
                ))
                .hint(ENDPOINT_HINT)
                .retryable()
        }
    }
}

/// Returns whether the store has refused the request.
pub(super) fn is_denied<E>(error: &SdkError<E>) -> bool {
    matches!(status(error), Some(401 | 403))
}

/// Returns whether the response was longer than it may be.
fn is_too_long(error: &(dyn StdError + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&cause| cause.source());
    causes.any(|cause| cause.is::<ResponseTooLong>())
}

/// The store returned an error.
fn service_error<E: ProvideErrorMetadata>(
    store: &Store,
    summary: String,
    error: &SdkError<E>,
) -> Error {
    let status = status(error).unwrap_or_default();
    let service = error.as_service_error();
    let code = service.and_then(|e| e.code()).unwrap_or_default();
    let response = match (code, service.and_then(|e| e.message())) {
        ("", None) => format!("HTTP status {status}"),
        ("", Some(message)) => message.to_owned(),
        (code, None) => code.to_owned(),
        (code, Some(message)) => format!("{code}: {message}"),
    };
    let response = printable(&response);
    let lower = response.to_lowercase();
    let endpoint = &store.endpoint;
    if status == 507
        || STORAGE_FULL_CODES.contains(&code)
        || STORAGE_FULL_PHRASES.iter().any(|w| lower.contains(w))
    {
        return Error::new(Kind::NoSpace, summary)
            .with_cause(format!("{endpoint} is full ({response})"))
            .hint("free space in the store or raise its quota");
    }
    match (status, code) {
        // A success whose body the SDK cannot read.
        (200..=299, "") => not_s3_error(endpoint, summary),
        (_, "NoSuchBucket") => no_such_bucket(store, summary),
        (_, "RequestTimeTooSkewed") => Error::new(Kind::Unreachable, summary)
            .with_cause(format!("{endpoint} denied access ({response})"))
            .hint("set this machine's clock"),
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect") | (301 | 307, _) => {
            Error::new(Kind::Unreachable, summary)
                .with_cause(format!(
                    "bucket {} is in another region ({response})",
                    store.bucket
                ))
                .hint(REGION_HINT)
        }
        (_, "InvalidObjectState") => Error::new(Kind::Failed, summary)
            .with_cause(format!("it is in an archive ({response})"))
            .hint("restore it from its storage class first (aws s3api restore-object)"),
        (status, code) if matches!(status, 401 | 403) || ACCESS_DENIED_CODES.contains(&code) => {
            let cause = format!("{endpoint} denied access ({response})");
            let error = Error::new(Kind::Unreachable, summary);
            match store.large_clock_offset() {
                Some(offset) => error
                    .with_cause(format!(
                        "{cause}; its clock differs by {} min",
                        offset.unsigned_abs().as_secs() / 60
                    ))
                    .hint("set this machine's clock"),
                None => error.with_cause(cause).hint(KEYS_HINT),
            }
        }
        (404, _) => Error::new(Kind::NotFound, summary)
            .with_cause(format!("not found at {endpoint} ({response})"))
            .hint("check [bucket] name and endpoint"),
        (409 | 412, _) => Error::new(Kind::Conflict, summary).with_cause(response),
        (501, _) => Error::new(Kind::Failed, summary).with_cause(format!(
            "{endpoint} does not support this call ({response})"
        )),
        (429 | 500.., _) => Error::new(Kind::Failed, summary)
            .with_cause(format!("{endpoint} is overloaded or failing ({response})"))
            .hint("try again later")
            .retryable(),
        (_, code) if TRANSIENT_CODES.contains(&code) => Error::new(Kind::Failed, summary)
            .with_cause(response)
            .retryable(),
        _ => {
            Error::new(Kind::Failed, summary).with_cause(format!("{endpoint} returned {response}"))
        }
    }
}

fn not_s3_error(endpoint: &str, summary: String) -> Error {
    Error::new(Kind::Unreachable, summary)
        .with_cause(format!("{endpoint} did not answer like an S3 store"))
        .hint(ENDPOINT_HINT)
        .retryable()
}

pub(super) fn no_such_bucket(store: &Store, summary: String) -> Error {
    Error::new(Kind::NotFound, summary)
        .with_cause(format!(
            "bucket {} does not exist at {}",
            store.bucket, store.endpoint
        ))
        .hint("create it, or check [bucket] name and endpoint")
}
