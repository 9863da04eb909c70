//! The object that composing or converting a disk has uploaded.

use std::time::Duration;

use bytes::Bytes;

use snapdeck_model::{Consistency, Digest, Object, TransferStats};

/// An uploaded object, and the facts its manifest records.
pub(crate) struct UploadedImage {
    pub object: Object,
    pub transfer: TransferStats,
    /// `None` if the operation did not pause the guest.
    pub pause_duration: Option<Duration>,
    pub consistency: Consistency,
    /// Digests of the object's blocks, if all are known.
    pub digests: Option<Vec<Digest>>,
    pub virtual_size: Option<u64>,
    /// UEFI variables of the same point in time.
    pub variables: Option<Bytes>,
}

impl UploadedImage {
    pub(crate) fn paused_ms(&self) -> Option<u64> {
        self.pause_duration
            .map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}
