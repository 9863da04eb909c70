//! From the SDK's errors to ours: which kind, one sentence, what to do. Codes:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.

use std::error::Error as StdError;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::client::Store;
use snapdeck_model::{Error, Kind};

const ENDPOINT_HINT: &str =
    "check [bucket] endpoint (AWS_ENDPOINT_URL) and that the store is running";
const KEYS_HINT: &str = "check [bucket] access_key_id and secret_access_key (AWS_ACCESS_KEY_ID, \
                         AWS_SECRET_ACCESS_KEY) or the AWS profile";
const REGION_HINT: &str = "check [bucket] region (AWS_REGION)";

/// Codes that say who we are is the trouble.
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
/// Codes of a store that is full.
const STORAGE_FULL_CODES: [&str; 5] = [
    "QuotaExceeded",
    "QuotaExceededException",
    "InsufficientStorage",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
];
/// Words of a store that is full and says so in an `InternalError` only.
const STORAGE_FULL_PHRASES: [&str; 4] = [
    "no space left",
    "no free volumes",
    "no writable volumes",
    "disk full",
];
/// Codes below 500 that another try may help: the bytes were damaged or late on their way.
const TRANSIENT_CODES: [&str; 7] = [
    "BadDigest",
    "IncompleteBody",
    "RequestTimeout",
    "SlowDown",
    "ThrottlingException",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
];

/// What the store said: HTTP status and code; `None` where nothing was heard.
pub(super) fn status_and_code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<(u16, &str)> {
    let status = error.raw_response()?.status().as_u16();
    let code = error.as_service_error().and_then(|e| e.code());
    Some((status, code.unwrap_or_default()))
}

/// Tells `error`, which made `what` fail ("cannot list s3://lab/snapshots/").
pub(super) fn sdk_error<E>(store: &Store, what: String, error: &SdkError<E>) -> Error
where
    E: StdError + ProvideErrorMetadata + 'static,
{
    let endpoint = &store.endpoint;
    match error {
        SdkError::TimeoutError(_) => Error::new(Kind::Unreachable, what)
            .with_cause(format!("{endpoint} did not answer in time"))
            .hint(ENDPOINT_HINT)
            .retryable(),
        SdkError::ServiceError(_) => service_error(store, what, error),
        SdkError::ResponseError(_) => not_s3_error(endpoint, what),
        // Dispatch failures, and requests that could not be made for want of credentials.
        other => {
            let causes = causes(other);
            if causes.iter().any(|cause| cause.contains("credential")) {
                return Error::new(Kind::Unreachable, what)
                    .with_cause("no usable credentials were found")
                    .hint(KEYS_HINT);
            }
            let deepest = causes.last().map_or("no connection", String::as_str);
            Error::new(Kind::Unreachable, what)
                .with_cause(format!("cannot connect to {endpoint}: {deepest}"))
                .hint(ENDPOINT_HINT)
                .retryable()
        }
    }
}

/// The store answered with an error.
fn service_error<E>(store: &Store, what: String, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata,
{
    let (status, code) = status_and_code(error).unwrap_or_default();
    let message = error.as_service_error().and_then(|e| e.message());
    let said = match (code, message) {
        ("", None) => format!("HTTP status {status}"),
        ("", Some(message)) => message.to_owned(),
        (code, None) => code.to_owned(),
        (code, Some(message)) => format!("{code}: {message}"),
    };
    let lower = said.to_lowercase();
    let endpoint = &store.endpoint;
    if status == 507
        || STORAGE_FULL_CODES.contains(&code)
        || STORAGE_FULL_PHRASES.iter().any(|w| lower.contains(w))
    {
        return Error::new(Kind::NoSpace, what)
            .with_cause(format!("{endpoint} is full ({said})"))
            .hint("free space in the store or raise its quota");
    }
    match (status, code) {
        // A success whose body is none the SDK can read.
        (200..=299, "") => not_s3_error(endpoint, what),
        (_, "NoSuchBucket") => no_such_bucket_error(store, what),
        (_, "RequestTimeTooSkewed") => Error::new(Kind::Unreachable, what)
            .with_cause(format!("{endpoint} denied access ({said})"))
            .hint("set this machine's clock"),
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect") | (301 | 307, _) => {
            Error::new(Kind::Unreachable, what)
                .with_cause(format!(
                    "bucket {} is in another region ({said})",
                    store.bucket
                ))
                .hint(REGION_HINT)
        }
        (401 | 403, _) => access_denied_error(endpoint, what, &said),
        (_, code) if ACCESS_DENIED_CODES.contains(&code) => {
            access_denied_error(endpoint, what, &said)
        }
        (404, _) => Error::new(Kind::NotFound, what)
            .with_cause(format!("{endpoint}: not found ({said})"))
            .hint("check [bucket] name and endpoint"),
        (409 | 412, _) => Error::new(Kind::Conflict, what).with_cause(said),
        (501, _) => Error::new(Kind::Failed, what)
            .with_cause(format!("{endpoint} does not support this ({said})")),
        (429 | 500.., _) => Error::new(Kind::Failed, what)
            .with_cause(format!("{endpoint} reports an internal error ({said})"))
            .hint("try again in a while")
            .retryable(),
        (_, code) if TRANSIENT_CODES.contains(&code) => {
            Error::new(Kind::Failed, what).with_cause(said).retryable()
        }
        _ => Error::new(Kind::Failed, what).with_cause(format!("{endpoint} answered {said}")),
    }
}

fn not_s3_error(endpoint: &str, what: String) -> Error {
    Error::new(Kind::Unreachable, what)
        .with_cause(format!("{endpoint} did not answer like an S3 store"))
        .hint(ENDPOINT_HINT)
        .retryable()
}

fn access_denied_error(endpoint: &str, what: String, said: &str) -> Error {
    Error::new(Kind::Unreachable, what)
        .with_cause(format!("{endpoint} denied access ({said})"))
        .hint(KEYS_HINT)
}

/// The bucket itself is missing.
pub(super) fn no_such_bucket_error(store: &Store, what: String) -> Error {
    Error::new(Kind::NotFound, what)
        .with_cause(format!(
            "bucket {} does not exist at {}",
            store.bucket, store.endpoint
        ))
        .hint("create it, or check [bucket] name and endpoint")
}

/// The errors under `error`, outermost first, as they tell themselves.
fn causes(error: &dyn StdError) -> Vec<String> {
    std::iter::successors(error.source(), |&e| e.source())
        .map(ToString::to_string)
        .collect()
}
