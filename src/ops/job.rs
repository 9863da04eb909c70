//! The fixed arguments of the steps of an operation.

use std::sync::Arc;

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;

use crate::context::Context;
use crate::image_source::ImageSource;
use crate::remote_object::RemoteObject;
use crate::request::SnapshotRequest;
use crate::sandbox_disk::SandboxDisk;

/// A create or push: the disk `source` of a host becomes the object of `request`.
#[derive(Clone, Copy)]
pub(crate) struct SnapshotJob<'a> {
    pub host: &'a Host,
    pub bucket: &'a Bucket,
    pub source: &'a SandboxDisk,
    pub request: &'a SnapshotRequest,
    pub ctx: &'a Context,
}

/// A pull, copy or repair: the image `source` becomes a snapshot of a host.
#[derive(Clone, Copy)]
pub(crate) struct PullJob<'a> {
    pub host: &'a Host,
    /// Where its blocks come from.
    pub from: &'a ImageSource,
    pub source: &'a Arc<RemoteObject>,
    /// Whether the operator has asked to replace what has the name.
    pub overwrite: bool,
    pub ctx: &'a Context,
}
