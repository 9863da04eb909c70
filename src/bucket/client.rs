//! From settings to an S3 client, at the first use.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, ConfigBag, Credentials, Intercept, RuntimeComponents, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::BoxError;
use tokio::sync::OnceCell;

use snapdeck_model::settings::BucketSettings;
use snapdeck_model::{Error, Kind, Result};

/// Connecting: three tries end in 10 seconds when nobody answers, and a SYN may be lost once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// One try of a small call.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// A small call with all its tries.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Finding region and credentials (files, metadata service, sign-on).
const SETUP_TIMEOUT: Duration = Duration::from_secs(20);

/// Where everyone waits until the store is known.
pub(super) struct LazyClient {
    settings: BucketSettings,
    location: String,
    store: OnceCell<Store>,
}

/// A client and the bucket it speaks of.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) client: aws_sdk_s3::Client,
    pub(super) bucket: String,
    /// The endpoint as told in messages.
    pub(super) endpoint: String,
    server: ServerName,
}

impl Store {
    /// `s3://BUCKET/KEY_WIDTH`.
    pub(super) fn address(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    /// Does the store read a copied part once more, for the checksum of a whole object? SeaweedFS does (4.48: twice
    /// the time of the copy); it checks parts that are sent with a checksum whether or not one was asked for. Known
    /// from the first answer on.
    pub(super) fn rereads_copied_parts(&self) -> bool {
        self.is_seaweedfs()
    }

    /// How many copies of parts are best asked for at once. SeaweedFS reads and writes what it copies, and is slower the
    /// more it does at once.
    pub(super) fn max_concurrent_copies(&self) -> usize {
        match self.is_seaweedfs() {
            true => 6,
            false => 16,
        }
    }

    fn is_seaweedfs(&self) -> bool {
        let server = self.server.0.get();
        server.is_some_and(|name| name.starts_with("SeaweedFS"))
    }
}

/// What the store calls itself (RFC 9110, section 10.2.4), once it has answered.
#[derive(Debug, Clone, Default)]
struct ServerName(Arc<OnceLock<String>>);

impl Intercept for ServerName {
    fn name(&self) -> &'static str {
        "ServerName"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(name) = context.response().headers().get("server") {
            self.0.get_or_init(|| name.to_owned());
        }
        Ok(())
    }
}

impl LazyClient {
    pub(super) fn new(settings: BucketSettings) -> Self {
        let location = match &settings.name {
            Some(name) => format!("s3://{name}/{}", settings.prefix),
            None => "no bucket".to_owned(),
        };
        Self {
            settings,
            location,
            store: OnceCell::new(),
        }
    }

    pub(super) fn settings(&self) -> &BucketSettings {
        &self.settings
    }

    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// The store, made at the first call. `InvalidInput` where no bucket configured or the endpoint
    /// is no URL.
    pub(super) async fn get_store(&self) -> Result<&Store> {
        self.store.get_or_try_init(|| self.create_store()).await
    }

    async fn create_store(&self) -> Result<Store> {
        let settings = &self.settings;
        let Some(bucket) = settings.name.clone() else {
            return Err(Error::new(Kind::InvalidInput, "no bucket configured")
                .hint("set [bucket] name or AWS_DEFAULT_BUCKET"));
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
                .with_cause("region and credentials were not found in time")
                .hint("set [bucket] region, access_key_id and secret_access_key")
                .retryable()
            })?;
        let endpoint = config
            .endpoint_url()
            .map_or("AWS S3".to_owned(), redact_url);
        let server = ServerName::default();
        let config = Builder::from(&config)
            .force_path_style(config.endpoint_url().is_some())
            .interceptor(server.clone())
            .build();
        Ok(Store {
            client: aws_sdk_s3::Client::from_conf(config),
            bucket,
            endpoint,
            server,
        })
    }
}

/// What the settings leave open comes from the AWS chain.
async fn load_sdk_config(settings: &BucketSettings) -> aws_config::SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .timeout_config(default_timeouts())
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(3)
                .with_initial_backoff(Duration::from_millis(200))
                .with_max_backoff(Duration::from_secs(2)),
        )
        // Transfers have a watch of their own (`parts`): the SDK's does not see that an upload from
        // memory stands still.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .region(region(settings));
    if let Some(url) = &settings.endpoint {
        loader = loader.endpoint_url(url);
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

/// The metadata service is only asked where the store can be AWS: elsewhere the wait is for nothing.
fn region(settings: &BucketSettings) -> RegionProviderChain {
    let fixed = settings.region.clone().map(Region::new);
    let chain = RegionProviderChain::first_try(fixed);
    let chain = if settings.endpoint.is_none() && settings.region.is_none() {
        chain.or_default_provider()
    } else {
        chain
            .or_else(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
    };
    chain.or_else(Region::new("us-east-1"))
}

fn default_timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(CALL_TIMEOUT)
        .build()
}

/// Settings of one call that takes long and is tried again by its caller, not by the SDK.
pub(super) fn no_sdk_retry(limit: Duration) -> Builder {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(limit)
        .operation_timeout(limit)
        .build();
    Builder::default()
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
}

fn check_url(url: &str) -> Result<()> {
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
        format!("the bucket's endpoint {:?} is not a URL", redact_url(url)),
    )
    .hint("write [bucket] endpoint (AWS_ENDPOINT_URL) as http://HOST:PORT or https://HOST"))
}

/// A URL as it may be told: a user and password in it are left out.
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
    fn an_endpoint_is_told_without_its_password() {
        assert_eq!(
            redact_url("http://user:pass@10.0.0.1:9000/"),
            "http://10.0.0.1:9000"
        );
        assert_eq!(redact_url("https://s3.example"), "https://s3.example");
    }

    #[test]
    fn an_endpoint_must_be_a_url() {
        for good in ["http://127.0.0.1:9000", "https://s3.example/path"] {
            assert_eq!(check_url(good), Ok(()));
        }
        for bad in [
            "",
            "s3.example",
            "http://",
            "http://:9000",
            "ftp://a",
            "http://a b",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
