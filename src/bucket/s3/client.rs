//! Makes the S3 client from the settings, at the first use.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextMut,
};
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, ConfigBag, Credentials, Intercept, RuntimeComponents, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use tokio::sync::OnceCell;

use super::Store;
use super::bounds::LimitResponses;
use crate::meter::ByteCounter;
use crate::retry::StoreRetry;
use crate::upload_record::UploadRecords;
use snapdeck_model::settings::BucketSettings;
use snapdeck_model::{Error, ImageIdentity, Kind, Object, Result};
use snapdeck_ownership::OwnershipRecords;

/// Three attempts end within 10 seconds without a response, and one SYN may be lost.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout of one attempt of a small call.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// Timeout of a small call with all attempts.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of loading region and credentials (files, metadata service, sign-on).
const SETUP_TIMEOUT: Duration = Duration::from_secs(20);
/// Objects that are remembered as complete snapshots.
const MAX_COMPLETE: usize = 100_000;
/// Bytes of a request's body that the connection gets at a time.
const SLICE_BYTES: usize = 256 * 1024;

pub(crate) struct LazyClient {
    settings: BucketSettings,
    location: String,
    store: OnceCell<Store>,
    /// Identities of objects that are complete snapshots, by key.
    complete: Mutex<HashMap<String, ImageIdentity>>,
}

/// Records headers of the store's responses.
#[derive(Debug, Clone, Default)]
pub(super) struct ResponseHeaders(Arc<Mutex<HeaderValues>>);

#[derive(Debug, Default)]
struct HeaderValues {
    server: Option<String>,
    date: Option<String>,
    /// Time of this machine when that response came.
    received: Option<Timestamp>,
}

impl ResponseHeaders {
    pub(super) fn server(&self) -> Option<String> {
        self.lock().server.clone()
    }

    /// Returns the date of the latest response, and the time of this machine when that came.
    pub(super) fn date(&self) -> Option<(String, Timestamp)> {
        let values = self.lock();
        Some((values.date.clone()?, values.received?))
    }

    fn lock(&self) -> MutexGuard<'_, HeaderValues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for ResponseHeaders {
    fn name(&self) -> &'static str {
        "ResponseHeaders"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        let mut values = self.lock();
        values.date = headers.get("date").map(str::to_owned);
        values.received = Some(Timestamp::now());
        if values.server.is_none() {
            values.server = headers.get("server").map(str::to_owned);
        }
        Ok(())
    }
}

impl LazyClient {
    pub(crate) fn new(settings: BucketSettings) -> Self {
        let location = match &settings.name {
            Some(name) => format!("s3://{name}/{}", settings.prefix),
            None => "no bucket".to_owned(),
        };
        Self {
            settings,
            location,
            store: OnceCell::new(),
            complete: Mutex::default(),
        }
    }

    /// Returns whether this very object was found to be a complete snapshot.
    pub(crate) fn is_known_complete(&self, object: &Object) -> bool {
        let complete = self.complete.lock().unwrap_or_else(PoisonError::into_inner);
        complete.get(&object.key) == Some(&object.identity())
    }

    /// Records that the object is a complete snapshot.
    pub(crate) fn record_complete(&self, object: &Object) {
        let mut complete = self.complete.lock().unwrap_or_else(PoisonError::into_inner);
        if complete.len() >= MAX_COMPLETE {
            complete.clear();
        }
        complete.insert(object.key.clone(), object.identity());
    }

    pub(crate) fn settings(&self) -> &BucketSettings {
        &self.settings
    }

    pub(crate) fn location(&self) -> &str {
        &self.location
    }

    /// Returns the store; makes it at the first call.
    ///
    /// # Errors
    /// `InvalidInput` if no bucket is configured or the endpoint is not a URL; `Unreachable`.
    pub(crate) async fn get_store(&self) -> Result<&Store> {
        self.store.get_or_try_init(|| self.create_store()).await
    }

    async fn create_store(&self) -> Result<Store> {
        let settings = &self.settings;
        let Some(bucket) = settings.name.clone() else {
            return Err(Error::new(Kind::InvalidInput, "no bucket configured")
                .hint("set [bucket] name or AWS_DEFAULT_BUCKET, or run snapdeck init"));
        };
        if let Some(url) = &settings.endpoint {
            check_url(url)?;
        }
        let config = tokio::time::timeout(SETUP_TIMEOUT, load_sdk_config(settings))
            .await
            .map_err(|_| {
                Error::new(
                    Kind::Unreachable,
                    format!("cannot set up a client for {}", self.location),
                )
                .with_cause(format!(
                    "region and credentials were not found within {} s",
                    SETUP_TIMEOUT.as_secs()
                ))
                .hint("set [bucket] region, access_key_id and secret_access_key")
                .retryable()
            })?;
        let endpoint = config
            .endpoint_url()
            .map_or("AWS S3".to_owned(), redact_url);
        let headers = ResponseHeaders::default();
        let config = Builder::from(&config)
            .force_path_style(config.endpoint_url().is_some())
            .interceptor(headers.clone());
        let limited = |has_objects| {
            let config = config.clone().interceptor(LimitResponses { has_objects });
            aws_sdk_s3::Client::from_conf(config.build())
        };
        Ok(Store {
            client: limited(false),
            reader: limited(true),
            bucket,
            endpoint,
            headers,
            timeout: None,
            storage: settings.storage.clone(),
            retry: StoreRetry::short(),
            records: OwnershipRecords::in_memory(),
            upload_records: UploadRecords::default(),
        })
    }
}

/// Counts the bytes of a request's body as they are written to the connection.
#[derive(Debug)]
pub(super) struct CountingInterceptor(pub(super) ByteCounter);

impl Intercept for CountingInterceptor {
    fn name(&self) -> &'static str {
        "Counting"
    }

    // Not earlier than before transmit: signing and checksums need the body in memory.
    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.request_mut().body_mut();
        let inner = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(CountingBody {
            inner,
            rest: Bytes::new(),
            count: self.0.clone(),
        });
        Ok(())
    }
}

struct CountingBody {
    inner: SdkBody,
    rest: Bytes,
    count: ByteCounter,
}

impl Body for CountingBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return Poll::Ready(other),
            }
        }
        let length = self.rest.len().min(SLICE_BYTES);
        let slice = self.rest.split_to(length);
        self.count.fetch_add(length as u64, Relaxed);
        Poll::Ready(Some(Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && Body::is_end_stream(&self.inner)
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, inner) = (self.rest.len() as u64, Body::size_hint(&self.inner));
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// Fills in missing settings from the AWS provider chain.
async fn load_sdk_config(settings: &BucketSettings) -> aws_config::SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .timeout_config(timeouts(ATTEMPT_TIMEOUT, CALL_TIMEOUT))
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(3)
                .with_initial_backoff(Duration::from_millis(200))
                .with_max_backoff(Duration::from_secs(2)),
        )
        // `Transfer` detects stalls: the SDK does not notice a stalled upload from memory.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .region(region(settings));
    if let Some(url) = &settings.endpoint {
        loader = loader.endpoint_url(with_trailing_slash(url));
    }
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(pair) = &settings.credentials {
        loader = loader.credentials_provider(Credentials::new(
            &pair.access_key_id,
            &pair.secret_access_key,
            None,
            None,
            "snapdeck",
        ));
    }
    loader.load().await
}

/// Queries the metadata service only if the store may be AWS: elsewhere the query only costs time.
fn region(settings: &BucketSettings) -> RegionProviderChain {
    let fixed = settings.region.clone().map(Region::new);
    let chain = RegionProviderChain::first_try(fixed);
    let chain = if settings.endpoint.is_none() && settings.region.is_none() {
        chain
            .or_else(EnvironmentVariableRegionProvider::new())
            .or_else(profile_region(settings))
            .or_default_provider()
    } else {
        chain
            .or_else(EnvironmentVariableRegionProvider::new())
            .or_else(profile_region(settings))
    };
    chain.or_else(Region::new("us-east-1"))
}

fn profile_region(settings: &BucketSettings) -> ProfileFileRegionProvider {
    let provider = ProfileFileRegionProvider::builder();
    match &settings.profile {
        Some(profile) => provider.profile_name(profile).build(),
        None => provider.build(),
    }
}

/// Configures calls that the caller retries, not the SDK.
pub(super) fn no_sdk_retry(config: Builder, timeout: Duration) -> Builder {
    config
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts(timeout, timeout))
}

fn timeouts(attempt: Duration, call: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(attempt)
        .operation_timeout(call)
        .build()
}

/// Returns the URL with a slash at its end: the SDK appends the bucket to a path as it is.
pub(super) fn with_trailing_slash(url: &str) -> String {
    format!("{}/", url.trim_end_matches('/'))
}

pub(super) fn check_url(url: &str) -> Result<()> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let valid = rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with(['/', ':'])
            && rest.bytes().all(|c| c.is_ascii_graphic())
    });
    if valid {
        return Ok(());
    }
    Err(Error::new(
        Kind::InvalidInput,
        format!("invalid bucket endpoint {:?}: not a URL", redact_url(url)),
    )
    .hint("set [bucket] endpoint (AWS_ENDPOINT_URL) to http://HOST:PORT or https://HOST"))
}

/// Removes user and password.
fn redact_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, h)| h);
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{host}{path}")
        .trim_end_matches('/')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacts_the_password_of_an_endpoint() {
        assert_eq!(
            redact_url("http://user:pass@10.0.0.1:9000/"),
            "http://10.0.0.1:9000"
        );
        assert_eq!(redact_url("https://s3.example"), "https://s3.example");
    }

    #[test]
    fn an_endpoint_with_a_path_ends_with_one_slash() {
        for url in ["http://a/storage/v1/s3", "http://a/storage/v1/s3/"] {
            assert_eq!(with_trailing_slash(url), "http://a/storage/v1/s3/");
        }
        assert_eq!(with_trailing_slash("http://a:1"), "http://a:1/");
    }

    #[test]
    fn refuses_an_endpoint_that_is_not_a_url() {
        for valid in ["http://127.0.0.1:9000", "https://s3.example/path"] {
            assert_eq!(check_url(valid), Ok(()));
        }
        for invalid in [
            "",
            "s3.example",
            "http://",
            "http://:9000",
            "ftp://a",
            "http://a b",
        ] {
            assert!(check_url(invalid).is_err(), "{invalid}");
        }
    }
}
