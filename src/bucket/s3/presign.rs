//! Requests that a host sends itself, signed here: no key reaches it.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::ResponseChecksumValidation;
use aws_sdk_s3::presigning::PresigningConfig;

use super::client::{check_url, with_trailing_slash};
use super::{Store, StoreError};
use snapdeck_model::{Error, Kind, PresignedRequest};

impl Store {
    /// Signs a GetObject. It may be sent with any `Range` and `If-Match`, which are not signed. `endpoint` is the URL of the
    /// store for the host, if that is another than for this machine.
    ///
    /// # Errors
    /// `InvalidInput` for an endpoint that is not a URL; `Failed` without credentials, or if they expire within `valid_for`.
    pub(crate) async fn presign_get(
        &self,
        key: &str,
        endpoint: Option<&str>,
        valid_for: Duration,
    ) -> Result<PresignedRequest, StoreError> {
        let config = self.reader.config().to_builder();
        // A checksum of the response would be a signed header.
        let mut config =
            config.response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(url) = endpoint {
            check_url(url).map_err(|error| {
                error.hint("set bucket_endpoint of the host to http://HOST:PORT or https://HOST")
            })?;
            config = config
                .endpoint_url(with_trailing_slash(url))
                .force_path_style(true);
        }
        let failed = |cause: &dyn std::fmt::Display| {
            Error::new(Kind::Failed, self.summary("sign a download of", key)).with_cause(cause)
        };
        let presigning = PresigningConfig::expires_in(valid_for).map_err(|error| failed(&error))?;
        let call = Client::from_conf(config.build())
            .get_object()
            .bucket(&self.bucket)
            .key(key);
        let signed = call.presigned(presigning).await;
        let signed = signed.map_err(|error| self.error("sign a download of", key, &error))?;
        let headers = signed.headers();
        Ok(PresignedRequest {
            url: signed.uri().to_owned(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        })
    }
}
