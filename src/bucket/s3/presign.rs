//! Requests that a host sends itself, signed here: no key reaches it.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::presigning::{PresignedRequest as SignedRequest, PresigningConfig};

use jiff::Timestamp;

use super::client::{check_url, with_trailing_slash};
use super::{Store, StoreError, UploadHandle, part_number};
use snapdeck_model::{Error, Kind, PresignedRequest, Result};

impl Store {
    /// Signs a GetObject, with the condition that the object has the entity tag `if_match`. It may be sent with any `Range`,
    /// which is not signed. `endpoint` is the URL of the store for the host, if that is another than for this machine.
    ///
    /// # Errors
    /// `InvalidInput` for an endpoint that is not a URL; `Failed` without credentials, or if they expire within `valid_for`.
    pub(crate) async fn presign_get(
        &self,
        key: &str,
        if_match: Option<&str>,
        endpoint: Option<&str>,
        valid_for: Duration,
    ) -> Result<PresignedRequest, StoreError> {
        let action = "sign a download of";
        let call = signing_client(&self.reader, endpoint)?.get_object();
        let call = call.bucket(&self.bucket).key(key);
        let call = call.set_if_match(if_match.map(str::to_owned));
        let signed = call.presigned(self.presigning(action, key, valid_for)?);
        let signed = signed
            .await
            .map_err(|error| self.error(action, key, &error));
        Ok(into_request(&signed?))
    }

    /// Signs an UploadPart. It may be sent with any `Content-MD5`, which is not signed.
    ///
    /// # Errors
    /// As [`Store::presign_get`].
    pub(crate) async fn presign_part(
        &self,
        upload: &UploadHandle,
        index: u64,
        endpoint: Option<&str>,
        valid_for: Duration,
    ) -> Result<PresignedRequest, StoreError> {
        let (action, key) = ("sign an upload to", &*upload.key);
        let call = signing_client(&self.client, endpoint)?.upload_part();
        let call = call.bucket(&self.bucket).key(key).upload_id(&upload.id);
        let call = call.part_number(part_number(index));
        let signed = call.presigned(self.presigning(action, key, valid_for)?);
        let signed = signed
            .await
            .map_err(|error| self.error(action, key, &error));
        Ok(into_request(&signed?))
    }

    /// The SDK corrects the time of its own requests by the store's clock, and not that of these.
    fn presigning(&self, action: &str, key: &str, valid_for: Duration) -> Result<PresigningConfig> {
        let offset = self.large_clock_offset();
        let start = Timestamp::now().saturating_add(offset.unwrap_or_default());
        let config = PresigningConfig::builder().expires_in(valid_for);
        let config = config.start_time(start.unwrap_or(Timestamp::MAX).into());
        config
            .build()
            .map_err(|error| Error::new(Kind::Failed, self.summary(action, key)).with_cause(error))
    }
}

/// Returns a client for requests of a host, to which the store has the URL `endpoint`.
fn signing_client(client: &Client, endpoint: Option<&str>) -> Result<Client> {
    let config = client.config().to_builder();
    // Checksums would be signed headers.
    let mut config = config
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(url) = endpoint {
        check_url(url).map_err(|error| {
            error.hint("set bucket_endpoint of the host to http://HOST:PORT or https://HOST")
        })?;
        config = config
            .endpoint_url(with_trailing_slash(url))
            .force_path_style(true);
    }
    Ok(Client::from_conf(config.build()))
}

fn into_request(signed: &SignedRequest) -> PresignedRequest {
    let headers = signed.headers();
    PresignedRequest {
        url: signed.uri().to_owned(),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    }
}
