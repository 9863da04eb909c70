//! The S3-compatible bucket.

use std::future::Future;

use bytes::Bytes;
use futures_util::Stream;
use tokio_util::sync::CancellationToken;

use crate::model::settings::BucketSettings;
use crate::model::{Object, ProgressCell, Result, SnapshotName};

/// The bucket. Cheap to clone; no call is made until it is used.
#[derive(Clone)]
pub struct Bucket {}

impl Bucket {
    /// A handle for `settings`.
    pub async fn new(settings: &BucketSettings) -> Self {
        todo!()
    }
    /// `s3://NAME/PREFIX`, for messages and the header.
    pub fn location(&self) -> &str {
        todo!()
    }
    /// Key of a snapshot's object.
    pub fn key(&self, name: &SnapshotName) -> String {
        todo!()
    }
    /// The objects, a page at a time, in the order of their keys.
    pub fn list(&self) -> impl Stream<Item = Result<Vec<Object>>> + Send + use<> {
        futures_util::stream::empty()
    }
    /// The object, or `None`.
    pub async fn head(&self, name: &SnapshotName) -> Result<Option<Object>> {
        todo!()
    }
    /// Uploads `size_bytes` read by `read(offset, length)`; multipart, parts in parallel, each tried again.
    /// `Refused` where the object exists and `overwrite` is false; an upload that does not complete is aborted.
    pub async fn upload<R, F>(
        &self,
        name: &SnapshotName,
        size_bytes: u64,
        read: R,
        overwrite: bool,
        progress: &ProgressCell,
        cancel: &CancellationToken,
    ) -> Result<Object>
    where
        R: Fn(u64, usize) -> F + Send + Sync,
        F: Future<Output = Result<Bytes>> + Send,
    {
        todo!()
    }
    /// Downloads the object in parallel ranges, each given to `write(offset, bytes)`; fails where the object changes meanwhile.
    pub async fn download<W, F>(
        &self,
        object: &Object,
        write: W,
        progress: &ProgressCell,
        cancel: &CancellationToken,
    ) -> Result<()>
    where
        W: Fn(u64, Bytes) -> F + Send + Sync,
        F: Future<Output = Result<()>> + Send,
    {
        todo!()
    }
    /// Deletes the object. `NotFound` where there is none.
    pub async fn delete(&self, name: &SnapshotName) -> Result<()> {
        todo!()
    }
}
