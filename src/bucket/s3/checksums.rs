//! The checksums that the store keeps of an object. Stores differ in what they keep and tell: all of it is optional.

use aws_sdk_s3::types::{ChecksumMode, ChecksumType, ObjectAttributes};

use super::{MAX_PAGES, Store, StoreError, bounds};
use snapdeck_model::{Kind, Result};

/// Parts of one page of GetObjectAttributes.
const PAGE_PARTS: i32 = 1000;

/// Checksums in the encodings of S3.
#[derive(Debug, Default)]
pub(crate) struct StoredChecksums {
    /// SHA-256 of the whole object in base64.
    pub(crate) sha256: Option<String>,
    /// CRC64NVME of the whole object in base64.
    pub(crate) crc64nvme: Option<String>,
    /// Length and SHA-256 in base64 of each part, in order; empty if unknown.
    pub(crate) sha256_parts: Vec<(u64, String)>,
    /// Length of the first part in bytes.
    pub(crate) first_part_bytes: Option<u64>,
}

impl Store {
    /// Returns the checksums of the object with this entity tag, as far as the store tells them.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(crate) async fn checksums(&self, key: &str, etag: &str) -> Result<StoredChecksums> {
        let mut found = StoredChecksums::default();
        if let Some(attributes) = self.attempt(self.try_attributes(key, etag)).await? {
            found = attributes;
        }
        if found.sha256.is_none()
            && found.crc64nvme.is_none()
            && let Some((sha256, crc64nvme)) =
                self.attempt(self.try_head_checksums(key, etag)).await?
        {
            (found.sha256, found.crc64nvme) = (sha256, crc64nvme);
        }
        found.first_part_bytes = self
            .attempt(self.try_first_part(key, etag))
            .await?
            .flatten();
        Ok(found)
    }

    /// Runs a call that not every store supports; `None` if it fails.
    async fn attempt<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<Option<T>> {
        match self
            .retry
            .until_cancelled("the lookup", Box::pin(call))
            .await
        {
            Ok(value) => Ok(Some(value)),
            Err(StoreError { error, .. }) if error.kind() == Kind::Cancelled => Err(error),
            Err(StoreError { error, .. }) => {
                tracing::debug!("{error}");
                Ok(None)
            }
        }
    }

    async fn try_attributes(&self, key: &str, etag: &str) -> Result<StoredChecksums, StoreError> {
        let verb = "read the checksums of";
        let mut found = StoredChecksums::default();
        let mut marker = None;
        for _ in 0..MAX_PAGES {
            let call = self.client.get_object_attributes().bucket(&self.bucket);
            let page = call
                .key(key)
                .object_attributes(ObjectAttributes::Etag)
                .object_attributes(ObjectAttributes::Checksum)
                .object_attributes(ObjectAttributes::ObjectParts)
                .max_parts(PAGE_PARTS)
                .set_part_number_marker(marker)
                .send()
                .await
                .map_err(|error| self.error(verb, key, &error))?;
            if !is_tag(page.e_tag.as_deref(), etag) {
                return Err(self.invalid_response(verb, key, "it was replaced meanwhile"));
            }
            if let Some(checksum) = page.checksum {
                let is_full = checksum.checksum_type != Some(ChecksumType::Composite);
                found.sha256 = bounds::tag(checksum.checksum_sha256).filter(|_| is_full);
                found.crc64nvme = bounds::tag(checksum.checksum_crc64_nvme).filter(|_| is_full);
            }
            let Some(list) = page.object_parts else {
                return Ok(found);
            };
            for part in list.parts.unwrap_or_default() {
                let Some(sha256) = bounds::tag(part.checksum_sha256) else {
                    found.sha256_parts.clear();
                    return Ok(found);
                };
                found.sha256_parts.push((bounds::size(part.size), sha256));
            }
            marker = bounds::token(list.next_part_number_marker);
            if list.is_truncated != Some(true) || marker.is_none() {
                return Ok(found);
            }
        }
        Err(self.invalid_response(verb, key, "the list of parts does not end"))
    }

    async fn try_head_checksums(
        &self,
        key: &str,
        etag: &str,
    ) -> Result<(Option<String>, Option<String>), StoreError> {
        let call = self.client.head_object().bucket(&self.bucket).key(key);
        let call = call.checksum_mode(ChecksumMode::Enabled);
        let object = call
            .send()
            .await
            .map_err(|error| self.error("read the checksums of", key, &error))?;
        let is_full = object.checksum_type != Some(ChecksumType::Composite);
        Ok(match is_full && is_tag(object.e_tag.as_deref(), etag) {
            true => (
                bounds::tag(object.checksum_sha256),
                bounds::tag(object.checksum_crc64_nvme),
            ),
            false => (None, None),
        })
    }

    /// Returns the length of the first part.
    async fn try_first_part(&self, key: &str, etag: &str) -> Result<Option<u64>, StoreError> {
        let call = self.client.head_object().bucket(&self.bucket).key(key);
        let part = call
            .part_number(1)
            .send()
            .await
            .map_err(|error| self.error("read the part length of", key, &error))?;
        let is_same = is_tag(part.e_tag.as_deref(), etag);
        Ok(is_same.then(|| bounds::size(part.content_length)))
    }
}

/// Compares entity tags, which GetObjectAttributes returns without quotes.
fn is_tag(found: Option<&str>, etag: &str) -> bool {
    found.is_some_and(|found| found.trim_matches('"') == etag.trim_matches('"'))
}
