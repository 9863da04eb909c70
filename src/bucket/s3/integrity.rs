//! Checksums by which the store verifies what it receives.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use md5::{Digest as _, Md5};

use aws_sdk_s3::primitives::ByteStream;

use super::{Checksums, Store, StoreError, UploadHandle, part_number};

/// Returns the value of the header `Content-MD5` (RFC 1864).
pub(super) fn content_md5(bytes: &[u8]) -> String {
    BASE64.encode(Md5::digest(bytes))
}

impl Store {
    /// Sends a part with a wrong checksum of the kind that the upload has; returns whether the store refuses it.
    ///
    /// # Errors
    /// Those of a store that does not answer.
    pub(crate) async fn refuses_wrong_checksum(
        &self,
        upload: &UploadHandle,
        index: u64,
        bytes: Bytes,
    ) -> Result<bool, StoreError> {
        let other: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
        let call = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .part_number(part_number(index))
            .body(ByteStream::from(bytes));
        let call = match upload.checksums {
            Checksums::None => call.content_md5(content_md5(&other)),
            // Of no part of these probes.
            Checksums::Parts | Checksums::Object => call.checksum_crc64_nvme("AAAAAAAAAAA="),
        };
        match call.send().await {
            Ok(_) => Ok(false),
            Err(error) if super::errors::status(&error).is_some_and(|status| status < 500) => {
                Ok(true)
            }
            Err(error) => Err(self.error("upload", &upload.key, &error)),
        }
    }
}
