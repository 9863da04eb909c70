//! The calls to the store as plain functions over plain data.
//!
//! Only this module uses the SDK: another backend would implement the functions of [`Store`].

mod bounds;
mod checksums;
mod client;
mod errors;
mod integrity;
mod odd_answer;
mod presign;
#[cfg(test)]
mod tests;
mod versions;

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart,
    ServerSideEncryption, StorageClass,
};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::capabilities::Capabilities;
use super::meter::ByteCounter;
use super::retry::StoreRetry;
use super::upload_record::UploadRecords;
use bounds::MAX_KEY_BYTES;
use client::{CountingInterceptor, ResponseHeaders, no_sdk_retry};
use integrity::content_md5;
use odd_answer::RenameRoot;
use snapdeck_model::settings::{Encryption, ObjectStorage};
use snapdeck_model::{Error, ExpectedVariables, Kind, Object, Result, SnapshotName, SnapshotParts};
use snapdeck_ownership::OwnershipRecords;

pub(crate) use bounds::printable;
pub(crate) use checksums::StoredChecksums;
pub(crate) use client::LazyClient;
pub(crate) use errors::{Reason, StoreError};

/// Timeout of a GetObject until its first byte.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of a PutObject of a few MiB over a slow connection.
const PUT_TIMEOUT: Duration = Duration::from_secs(120);
/// Timeout of an attempt to send or copy a part; a stalled attempt is abandoned much earlier.
const PART_TIMEOUT: Duration = Duration::from_secs(3600);
/// Timeout of an attempt to complete an upload: some stores write the object only then.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(300);
/// Pages of up to 1,000 entries of one listing of uploads or parts. An upload has at most 10,000 parts (S3 user guide,
/// "Amazon S3 multipart upload limits").
const MAX_PAGES: usize = 20;
/// Key of the metadata that identifies the upload of an object.
const UPLOAD_TAG_KEY: &str = "snapdeck-upload";
/// Keys of the metadata of an image that say what belongs to it.
const VARIABLES_KEY: &str = "snapdeck-variables";
const MANIFEST_KEY: &str = "snapdeck-manifest";
/// Bytes of a key in `x-amz-copy-source` that stay as they are (RFC 3986, section 2.3, and the slashes).
const COPY_SOURCE_SET: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Difference of the clocks up to which the own one is used: the store's `Date` may be that of a proxy. S3 accepts one of 15 minutes.
const MAX_CLOCK_OFFSET: Duration = Duration::from_secs(4 * 60);

/// One bucket of a store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    client: Client,
    /// For GetObject.
    reader: Client,
    bucket: String,
    endpoint: String,
    headers: ResponseHeaders,
    timeout: Option<Duration>,
    storage: ObjectStorage,
    pub(crate) retry: StoreRetry,
    pub(crate) records: OwnershipRecords,
    pub(crate) upload_records: UploadRecords,
}

#[derive(Debug, Clone)]
pub(crate) struct ObjectInfo {
    pub(crate) key: String,
    pub(crate) size_bytes: u64,
    pub(crate) modified: Option<Timestamp>,
    pub(crate) etag: Option<String>,
    /// The tag given to [`Store::create_multipart`]; never in a listing.
    pub(crate) upload_tag: Option<String>,
    /// The other parts of the snapshot, as given to [`Store::create_multipart`]; never in a listing.
    pub(crate) parts: Option<SnapshotParts>,
}

impl ObjectInfo {
    pub(crate) fn into_object(self, name: SnapshotName) -> Object {
        Object {
            name,
            key: self.key,
            size_bytes: self.size_bytes,
            modified: self.modified,
            etag: self.etag,
            problem: None,
        }
    }
}

/// Metadata of a new object.
#[derive(Debug, Clone)]
pub(crate) struct NewMetadata {
    pub(crate) upload_tag: String,
    pub(crate) parts: Option<SnapshotParts>,
}

impl NewMetadata {
    fn to_map(&self) -> HashMap<String, String> {
        let mut map = HashMap::from([(UPLOAD_TAG_KEY.to_owned(), self.upload_tag.clone())]);
        if let Some(parts) = self.parts {
            let manifest = if parts.has_manifest {
                "required"
            } else {
                "none"
            };
            map.insert(VARIABLES_KEY.to_owned(), parts.variables.to_string());
            map.insert(MANIFEST_KEY.to_owned(), manifest.to_owned());
        }
        map
    }
}

fn parse_parts(metadata: &HashMap<String, String>) -> Option<SnapshotParts> {
    Some(SnapshotParts {
        variables: ExpectedVariables::parse(metadata.get(VARIABLES_KEY)?)?,
        has_manifest: metadata
            .get(MANIFEST_KEY)
            .is_some_and(|text| text != "none"),
    })
}

pub(crate) struct ListPage {
    pub(crate) objects: Vec<ObjectInfo>,
    pub(crate) is_last: bool,
    pub(crate) next_token: Option<String>,
}

/// The response to a GetObject, with an unread body.
pub(crate) struct ObjectBody {
    pub(crate) etag: Option<String>,
    pub(crate) content_range: Option<String>,
    pub(crate) content_length: Option<i64>,
    stream: ByteStream,
}

impl ObjectBody {
    pub(crate) async fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        self.stream.try_next().await.map_err(io::Error::other)
    }
}

/// Condition of a PutObject.
pub(crate) enum PutCondition {
    Always,
    Absent,
    ETag(String),
}

/// CRC64NVME checksums of an upload that the store verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Checksums {
    /// None: the store does not support them.
    None,
    /// Checksum of each uploaded part, whose payload is not signed then.
    Parts,
    /// Checksum of each uploaded part and of the whole object.
    Object,
}

/// A multipart upload in the store.
#[derive(Debug, Clone)]
pub(crate) struct UploadHandle {
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) checksums: Checksums,
}

/// A part as the store acknowledged it.
#[derive(Debug, Clone)]
pub(crate) struct UploadedPart {
    pub(crate) number: i32,
    pub(crate) etag: Option<String>,
    pub(crate) crc64nvme: Option<String>,
}

impl UploadedPart {
    /// Returns a part as it was acknowledged to an earlier process.
    pub(crate) fn new(index: u64, etag: Option<String>, crc64nvme: Option<String>) -> Self {
        Self {
            number: part_number(index),
            etag: bounds::tag(etag),
            crc64nvme: bounds::tag(crc64nvme),
        }
    }

    /// Returns whether a listing has this part, with `length` bytes.
    pub(crate) fn is_listed_as(&self, length: u64, listed: &PartInfo) -> bool {
        // Some stores leave out the quotes there.
        let bare =
            |etag: &Option<String>| etag.as_ref().map(|etag| etag.trim_matches('"').to_owned());
        listed.number == self.number
            && listed.size_bytes == length
            && self.etag.is_some()
            && bare(&listed.etag) == bare(&self.etag)
    }

    /// Returns a part that a host has sent, with the entity tag of the answer.
    pub(crate) fn sent(index: u64, etag: &str) -> Self {
        Self {
            number: part_number(index),
            etag: Some(format!("\"{etag}\"")),
            crc64nvme: None,
        }
    }
}

pub(crate) struct PendingUpload {
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) initiated: Option<Timestamp>,
    /// The store's name for the client that began it.
    pub(crate) initiator: Option<String>,
}

pub(crate) struct PartInfo {
    /// From 1.
    pub(crate) number: i32,
    pub(crate) etag: Option<String>,
    pub(crate) size_bytes: u64,
    pub(crate) modified: Option<Timestamp>,
}

impl Store {
    pub(crate) fn with_retry(&self, retry: StoreRetry) -> Self {
        Self {
            retry,
            ..self.clone()
        }
    }

    /// Returns the store, with `records` of the uploads that are begun in it, and of those that can be continued.
    pub(crate) fn with_records(
        self,
        records: OwnershipRecords,
        upload_records: UploadRecords,
    ) -> Self {
        Self {
            records,
            upload_records,
            ..self
        }
    }

    /// Returns the name of the bucket in the records of its uploads.
    pub(crate) fn location(&self) -> String {
        format!("{}/{}", self.endpoint, self.bucket)
    }

    /// Returns whether this installation has begun the upload.
    pub(crate) fn is_own_upload(&self, key: &str, id: &str) -> bool {
        self.records.contains(&self.location(), key, id)
    }

    /// Returns until when the upload can be continued; `None` if it cannot.
    pub(crate) fn continuable_until(&self, key: &str, id: &str) -> Option<Timestamp> {
        let records = &self.upload_records;
        records.continuable_until(&self.location(), key, id)
    }

    /// Ends that an upload can be continued; `false` if a job has just begun to.
    pub(crate) fn release_upload(&self, key: &str, id: &str) -> bool {
        self.upload_records.release(&self.location(), key, id)
    }

    /// Removes the record of an upload that was completed or aborted.
    pub(crate) fn forget_upload(&self, key: &str, id: &str) {
        self.records.remove(&self.location(), key, id);
    }

    /// Returns the store with calls that are attempted once, for at most `timeout` each.
    pub(crate) fn with_timeout(&self, timeout: Duration) -> Self {
        let with_timeout = |client: &Client| {
            let config = no_sdk_retry(client.config().to_builder(), timeout);
            Client::from_conf(config.build())
        };
        Self {
            client: with_timeout(&self.client),
            reader: with_timeout(&self.reader),
            timeout: Some(timeout),
            retry: StoreRetry::none(),
            ..self.clone()
        }
    }

    /// Returns `s3://BUCKET/KEY`.
    pub(crate) fn address(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    /// Returns the properties that new objects get.
    pub(crate) fn storage(&self) -> &ObjectStorage {
        &self.storage
    }

    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Returns the endpoint for messages, without credentials.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        Capabilities::from_server_name(self.headers.server().as_deref())
    }

    /// Returns the time in the latest response's `Date` header (RFC 9110, section 6.6.1), in whole seconds.
    pub(crate) fn server_time(&self) -> Option<Timestamp> {
        self.latest_times().map(|(time, _)| time)
    }

    /// Returns by how much the store's clock was ahead of this machine's at the latest response, if the SDK, too, corrects that.
    fn large_clock_offset(&self) -> Option<SignedDuration> {
        let (time, received) = self.latest_times()?;
        let offset = time.duration_since(received);
        Some(offset).filter(|offset| offset.unsigned_abs() > MAX_CLOCK_OFFSET)
    }

    fn latest_times(&self) -> Option<(Timestamp, Timestamp)> {
        let (date, received) = self.headers.date()?;
        let date = DateTime::from_str(&date, DateTimeFormat::HttpDate).ok()?;
        Some((to_timestamp(&date)?, received))
    }

    /// Lists a page of the objects directly under `prefix`.
    pub(crate) async fn list(
        &self,
        prefix: &str,
        token: Option<String>,
    ) -> Result<ListPage, StoreError> {
        let list = self.retry.call(|| self.try_list(prefix, token.clone()));
        self.retry
            .until_cancelled("the listing", Box::pin(list))
            .await
    }

    async fn try_list(&self, prefix: &str, token: Option<String>) -> Result<ListPage, StoreError> {
        let page = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            // Keeps keys in deeper folders out of the listing.
            .delimiter("/")
            .set_continuation_token(token)
            .send()
            .await
            .map_err(|error| self.error("list", prefix, &error))?;
        let objects = page.contents.unwrap_or_default().into_iter();
        let objects = objects.filter_map(|object| {
            Some(ObjectInfo {
                key: object.key.filter(|key| key.len() <= MAX_KEY_BYTES)?,
                size_bytes: bounds::size(object.size),
                modified: object.last_modified.as_ref().and_then(to_timestamp),
                etag: bounds::tag(object.e_tag),
                upload_tag: None,
                parts: None,
            })
        });
        Ok(ListPage {
            objects: objects.collect(),
            is_last: page.is_truncated != Some(true),
            next_token: bounds::token(page.next_continuation_token),
        })
    }

    /// Looks an object up; `NotFound` if the bucket itself is missing.
    pub(crate) async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        let head = self.retry.call(|| self.try_head(key));
        self.retry
            .until_cancelled("the lookup", Box::pin(head))
            .await
    }

    async fn try_head(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        let call = self.client.head_object().bucket(&self.bucket).key(key);
        let mut answer = Box::pin(call.clone().send()).await;
        // It has no code by which the SDK would repeat it with the store's time, which it knows by now.
        if answer.as_ref().is_err_and(errors::is_denied) && self.large_clock_offset().is_some() {
            answer = Box::pin(call.send()).await;
        }
        match answer {
            Ok(object) => {
                let mut metadata = object.metadata.unwrap_or_default();
                Ok(Some(ObjectInfo {
                    key: key.to_owned(),
                    size_bytes: bounds::size(object.content_length),
                    modified: object.last_modified.as_ref().and_then(to_timestamp),
                    etag: bounds::tag(object.e_tag),
                    parts: parse_parts(&metadata),
                    upload_tag: metadata.remove(UPLOAD_TAG_KEY),
                }))
            }
            Err(error) => {
                let error = self.error("look up", key, &error);
                match error.reason {
                    Reason::AccessDenied => Err(errors::maybe_missing(error)),
                    // A 404 of HeadObject has no body that distinguishes a missing object from a missing bucket.
                    Reason::NotFound => self.check_bucket(key).await.map(|()| None),
                    _ => Err(error),
                }
            }
        }
    }

    async fn check_bucket(&self, key: &str) -> Result<(), StoreError> {
        let call = self.client.head_bucket().bucket(&self.bucket);
        let Err(error) = call.send().await else {
            return Ok(());
        };
        let error = self.error("look up", key, &error);
        match error.reason {
            Reason::NotFound => Err(StoreError {
                reason: Reason::NotFound,
                error: errors::no_such_bucket(self, self.summary("look up", key)),
            }),
            // Without the right to look up the bucket, the 404 counts as that of the object.
            Reason::AccessDenied => Ok(()),
            _ => Err(error),
        }
    }

    /// Returns whether the store keeps the CRC64NVME of the whole object.
    pub(crate) async fn has_full_checksum(&self, key: &str) -> bool {
        let call = self.client.head_object().bucket(&self.bucket).key(key);
        let call = call.checksum_mode(ChecksumMode::Enabled);
        call.send().await.is_ok_and(|object| {
            object.checksum_crc64_nvme().is_some()
                && object.checksum_type() == Some(&ChecksumType::FullObject)
        })
    }

    /// Requests an object or a range of it, once. Not every store honours `if_match` or supports ranges.
    pub(crate) async fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        if_match: Option<String>,
    ) -> Result<ObjectBody, StoreError> {
        let mut config = self.single_attempt(FIRST_BYTE_TIMEOUT);
        if range.is_some() {
            // Some stores send the checksum of the whole object with a range of it; blocks have digests of their own.
            let required = ResponseChecksumValidation::WhenRequired;
            config = config.response_checksum_validation(required);
        }
        let call = self.reader.get_object().bucket(&self.bucket).key(key);
        let call = call.set_range(range.map(format_range));
        let call = call.set_if_match(if_match);
        let send = || {
            let call = call.clone().customize();
            Box::pin(call.config_override(config.clone()).send())
        };
        let mut answer = send().await;
        // The SDK, which makes one attempt, knows the store's time by now.
        if answer.as_ref().is_err_and(errors::is_denied) && self.large_clock_offset().is_some() {
            answer = send().await;
        }
        let response = answer.map_err(|error| self.error("download", key, &error))?;
        Ok(ObjectBody {
            etag: bounds::tag(response.e_tag),
            content_range: response.content_range,
            content_length: response.content_length,
            stream: response.body,
        })
    }

    /// Writes a small object, once. With its MD5: a bucket with Object Lock refuses it otherwise (API reference,
    /// PutObject).
    pub(crate) async fn put(
        &self,
        key: &str,
        bytes: Bytes,
        content_type: &str,
        condition: PutCondition,
    ) -> Result<(), StoreError> {
        let call = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_type(content_type)
            .content_md5(content_md5(&bytes))
            .set_server_side_encryption(self.encryption())
            .set_ssekms_key_id(self.kms_key())
            .body(ByteStream::from(bytes));
        let call = match condition {
            PutCondition::Always => call,
            PutCondition::Absent => call.if_none_match("*"),
            PutCondition::ETag(etag) => call.if_match(etag),
        };
        let config = self.single_attempt(PUT_TIMEOUT);
        let config = config.request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        let write = async {
            let written = call.customize().config_override(config).send().await;
            written.map_err(|error| self.error("write", key, &error))?;
            Ok(())
        };
        self.retry
            .until_cancelled("the write", Box::pin(write))
            .await
    }

    /// Deletes an object, if it still has this entity tag. Succeeds if it does not exist. Not every store honours the
    /// condition: look up the object immediately before. Returns whether the bucket keeps it as an old version.
    ///
    /// # Errors
    /// `PreconditionFailed` for another object.
    pub(crate) async fn delete_version(&self, key: &str, etag: &str) -> Result<bool, StoreError> {
        match self.try_delete(key, Some(etag)).await {
            Err(error) if error.reason == Reason::Unsupported => self.try_delete(key, None).await,
            result => result,
        }
    }

    /// Deletes an object. Succeeds if it does not exist. Returns whether the bucket keeps it as an old version.
    ///
    /// Not repeated for minutes: another client may have created an object of that name by then.
    pub(crate) async fn delete(&self, key: &str) -> Result<bool, StoreError> {
        self.try_delete(key, None).await
    }

    async fn try_delete(&self, key: &str, etag: Option<&str>) -> Result<bool, StoreError> {
        let call = self.client.delete_object().bucket(&self.bucket).key(key);
        let call = call.set_if_match(etag.map(str::to_owned));
        let delete = async {
            match call.send().await {
                Ok(deleted) => Ok(deleted.delete_marker == Some(true)),
                Err(error) => match self.error("delete", key, &error) {
                    error if error.reason == Reason::NotFound => Ok(false),
                    error => Err(error),
                },
            }
        };
        self.retry
            .until_cancelled("the deletion", Box::pin(delete))
            .await
    }

    /// Begins a multipart upload, with `checksums` if the store supports them.
    pub(crate) async fn create_multipart(
        &self,
        key: &str,
        metadata: &NewMetadata,
        checksums: Checksums,
    ) -> Result<UploadHandle, StoreError> {
        self.retry
            .call(|| self.try_create_multipart(key, metadata, checksums))
            .await
    }

    async fn try_create_multipart(
        &self,
        key: &str,
        metadata: &NewMetadata,
        checksums: Checksums,
    ) -> Result<UploadHandle, StoreError> {
        let call = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .content_type("application/octet-stream")
            .set_server_side_encryption(self.encryption())
            .set_ssekms_key_id(self.kms_key())
            .set_storage_class(self.storage.class.as_deref().map(StorageClass::from))
            .set_metadata(Some(metadata.to_map()));
        let full = checksums == Checksums::Object;
        let with_checksum = call
            .clone()
            .set_checksum_algorithm(full.then_some(ChecksumAlgorithm::Crc64Nvme))
            .set_checksum_type(full.then_some(ChecksumType::FullObject));
        let with_checksum = with_checksum.customize().interceptor(RenameRoot).send();
        let (response, checksums) = match with_checksum.await {
            Err(error) if full && matches!(errors::status(&error), Some(400 | 501)) => {
                let call = call.customize().interceptor(RenameRoot);
                (call.send().await, Checksums::None)
            }
            response => (response, checksums),
        };
        let response = response.map_err(|error| match errors::status(&error) {
            Some(200..=299) => self.odd_answer_error(key),
            _ => self.error("upload", key, &error),
        })?;
        let Some(id) = bounds::token(response.upload_id) else {
            return Err(self.invalid_response(
                "upload",
                key,
                "the store returned no valid upload ID",
            ));
        };
        self.records.record(&self.location(), key, &id);
        Ok(UploadHandle {
            key: key.to_owned(),
            id,
            checksums,
        })
    }

    /// Sends a part, once, and counts its bytes as they are written to the connection.
    pub(crate) async fn upload_part(
        &self,
        upload: &UploadHandle,
        index: u64,
        bytes: Bytes,
        count: ByteCounter,
    ) -> Result<UploadedPart, StoreError> {
        let call = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .part_number(part_number(index))
            .body(ByteStream::from(bytes.clone()));
        let config = self.single_attempt(PART_TIMEOUT);
        let call = if upload.checksums != Checksums::None {
            // The checksum protects the bytes: hashing them for the signature too only costs time.
            call.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
                .customize()
                .disable_payload_signing()
                .config_override(config)
        } else {
            let required = RequestChecksumCalculation::WhenRequired;
            call.content_md5(content_md5(&bytes))
                .customize()
                .config_override(config.request_checksum_calculation(required))
        };
        let uploaded = call.interceptor(CountingInterceptor(count)).send().await;
        let uploaded = uploaded.map_err(|error| self.error("upload", &upload.key, &error))?;
        Ok(UploadedPart {
            number: part_number(index),
            etag: bounds::tag(uploaded.e_tag),
            crc64nvme: bounds::tag(uploaded.checksum_crc64_nvme),
        })
    }

    /// Has the store copy a part from another object, once. Not every store honours `if_match`.
    pub(crate) async fn copy_part(
        &self,
        upload: &UploadHandle,
        index: u64,
        source_key: &str,
        range: Range<u64>,
        if_match: Option<String>,
    ) -> Result<UploadedPart, StoreError> {
        let source = utf8_percent_encode(source_key, COPY_SOURCE_SET);
        let copied = self
            .client
            .upload_part_copy()
            .bucket(&self.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .part_number(part_number(index))
            .copy_source(format!("{}/{source}", self.bucket))
            .copy_source_range(format_range(range))
            .set_copy_source_if_match(if_match)
            .customize()
            .config_override(self.single_attempt(PART_TIMEOUT))
            // Ceph answers a PUT without a length with 411.
            .mutate_request(|request| {
                request.headers_mut().insert("content-length", "0");
            })
            .send()
            .await
            .map_err(|error| self.error("copy a part of", source_key, &error))?;
        // A store that does not support the call handles it as an empty part and acknowledges no copy.
        let part = copied.copy_part_result;
        let (etag, crc64nvme) = part.map_or((None, None), |part| {
            (
                bounds::tag(part.e_tag),
                bounds::tag(part.checksum_crc64_nvme),
            )
        });
        let Some(etag) = etag else {
            let cause = "UploadPartCopy returned no valid ETag";
            return Err(self.invalid_response("copy a part of", source_key, cause));
        };
        Ok(UploadedPart {
            number: part_number(index),
            etag: Some(etag),
            crc64nvme,
        })
    }

    /// Completes an object of `size_bytes` from the parts, once; with `only_new` no object is replaced.
    pub(crate) async fn complete_multipart(
        &self,
        upload: &UploadHandle,
        parts: &[UploadedPart],
        size_bytes: u64,
        only_new: bool,
    ) -> Result<(), StoreError> {
        let parts = parts.iter().cloned().map(|part| {
            CompletedPart::builder()
                .part_number(part.number)
                .set_e_tag(part.etag)
                .set_checksum_crc64_nvme(part.crc64nvme)
                .build()
        });
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts.collect()));
        let full = upload.checksums == Checksums::Object;
        self.client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .multipart_upload(list.build())
            .set_checksum_type(full.then_some(ChecksumType::FullObject))
            .set_mpu_object_size(i64::try_from(size_bytes).ok())
            .set_if_none_match(only_new.then(|| "*".to_owned()))
            .customize()
            .config_override(self.single_attempt(COMPLETE_TIMEOUT))
            .send()
            .await
            .map_err(|error| self.error("upload", &upload.key, &error))?;
        Ok(())
    }

    /// Aborts a multipart upload; `false` if it does not exist any more.
    pub(crate) async fn abort_multipart(&self, key: &str, id: &str) -> Result<bool, StoreError> {
        self.retry.call(|| self.try_abort_multipart(key, id)).await
    }

    async fn try_abort_multipart(&self, key: &str, id: &str) -> Result<bool, StoreError> {
        let call = self.client.abort_multipart_upload().bucket(&self.bucket);
        match call.key(key).upload_id(id).send().await {
            Ok(_) => Ok(true),
            Err(error) => match self.error("abort the upload to", key, &error) {
                error if error.reason == Reason::NotFound => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Lists the multipart uploads under `prefix` that are neither completed nor aborted.
    pub(crate) async fn list_uploads(
        &self,
        prefix: &str,
    ) -> Result<Vec<PendingUpload>, StoreError> {
        let list = self.retry.call(|| self.try_list_uploads(prefix));
        self.retry
            .until_cancelled("the listing", Box::pin(list))
            .await
    }

    async fn try_list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>, StoreError> {
        let verb = "list the unfinished uploads to";
        let (mut uploads, mut key_marker, mut id_marker) = (Vec::new(), None, None);
        for _ in 0..MAX_PAGES {
            let page = self
                .client
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .prefix(prefix)
                .set_key_marker(key_marker)
                .set_upload_id_marker(id_marker)
                .send()
                .await
                .map_err(|error| self.error(verb, prefix, &error))?;
            let listed = page.uploads.unwrap_or_default().into_iter();
            uploads.extend(listed.filter_map(|upload| {
                Some(PendingUpload {
                    key: upload.key.filter(|key| key.len() <= MAX_KEY_BYTES)?,
                    id: bounds::token(upload.upload_id)?,
                    initiated: upload.initiated.as_ref().and_then(to_timestamp),
                    initiator: upload
                        .initiator
                        .and_then(|initiator| initiator.display_name.or(initiator.id)),
                })
            }));
            if page.is_truncated != Some(true) || page.next_key_marker.is_none() {
                return Ok(uploads);
            }
            (key_marker, id_marker) = (page.next_key_marker, page.next_upload_id_marker);
        }
        Err(self.invalid_response(verb, prefix, "the listing does not end"))
    }

    /// Lists the parts that a multipart upload has.
    pub(crate) async fn list_parts(
        &self,
        key: &str,
        id: &str,
    ) -> Result<Vec<PartInfo>, StoreError> {
        let list = self.retry.call(|| self.try_list_parts(key, id));
        self.retry
            .until_cancelled("the listing", Box::pin(list))
            .await
    }

    async fn try_list_parts(&self, key: &str, id: &str) -> Result<Vec<PartInfo>, StoreError> {
        let (mut parts, mut marker) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let call = self.client.list_parts().bucket(&self.bucket).key(key);
            let call = call.upload_id(id).set_part_number_marker(marker);
            let page = call
                .send()
                .await
                .map_err(|error| self.error("list the parts of the upload to", key, &error))?;
            parts.extend(page.parts().iter().map(|part| PartInfo {
                number: part.part_number().unwrap_or_default(),
                etag: bounds::tag(part.e_tag().map(str::to_owned)),
                size_bytes: bounds::size(part.size),
                modified: part.last_modified().and_then(to_timestamp),
            }));
            marker = page.next_part_number_marker;
            if page.is_truncated != Some(true) || marker.is_none() {
                break;
            }
        }
        Ok(parts)
    }

    fn encryption(&self) -> Option<ServerSideEncryption> {
        match self.storage.encryption {
            Encryption::Bucket => None,
            Encryption::S3 => Some(ServerSideEncryption::Aes256),
            Encryption::Kms { .. } => Some(ServerSideEncryption::AwsKms),
        }
    }

    fn kms_key(&self) -> Option<String> {
        match &self.storage.encryption {
            Encryption::Kms { key } => key.clone(),
            Encryption::Bucket | Encryption::S3 => None,
        }
    }

    fn single_attempt(&self, timeout: Duration) -> Builder {
        no_sdk_retry(Builder::default(), self.timeout.unwrap_or(timeout))
    }

    fn summary(&self, verb: &str, key: &str) -> String {
        format!("cannot {verb} {}", self.address(key))
    }

    fn error<E>(&self, verb: &str, key: &str, error: &SdkError<E>) -> StoreError
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        errors::convert(self, self.summary(verb, key), error)
    }

    /// Returns the error of an answer to CreateMultipartUpload that cannot be read.
    fn odd_answer_error(&self, key: &str) -> StoreError {
        let server = self.headers.server();
        let server = server.map_or(String::new(), |name| {
            format!(" ({})", bounds::printable(&name))
        });
        let cause = format!(
            "{}{server} answers CreateMultipartUpload in a form that is not S3's",
            self.endpoint
        );
        let error = Error::new(Kind::Failed, self.summary("upload", key)).with_cause(cause);
        StoreError {
            reason: Reason::Other,
            error: error
                .hint("check [bucket] endpoint, or use a store that is tried (docs/stores.md)"),
        }
    }

    fn invalid_response(&self, verb: &str, key: &str, cause: &str) -> StoreError {
        StoreError {
            reason: Reason::Other,
            error: Error::new(Kind::Failed, self.summary(verb, key)).with_cause(cause),
        }
    }
}

/// S3 counts parts from 1.
fn part_number(index: u64) -> i32 {
    i32::try_from(index + 1).unwrap_or(i32::MAX)
}

/// Both ends are part of an HTTP range.
fn format_range(range: Range<u64>) -> String {
    format!("bytes={}-{}", range.start, range.end - 1)
}

fn to_timestamp(time: &DateTime) -> Option<Timestamp> {
    let nanoseconds = i32::try_from(time.subsec_nanos()).ok()?;
    Timestamp::new(time.secs(), nanoseconds).ok()
}
