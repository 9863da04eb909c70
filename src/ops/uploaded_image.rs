//! The object that composing or converting a disk has uploaded.

use std::time::Duration;

use bytes::Bytes;

use snapdeck_model::{Consistency, Digest, Object, TransferStats};
use snapdeck_qcow2::ComposedImage;

/// The base of the next image of a sandbox.
pub(crate) struct ImageState {
    /// [`content_digest`](crate::push_cache::content_digest) of the base.
    pub base: Digest,
    pub image: ComposedImage,
    /// Digests of the blocks of the overlay's file, if they were computed.
    pub overlay: Option<Vec<Digest>>,
}

/// An uploaded object, and the facts its manifest records.
pub(crate) struct UploadedImage {
    pub object: Object,
    pub transfer: TransferStats,
    /// `None` if the operation did not pause the guest.
    pub pause_duration: Option<Duration>,
    pub consistency: Consistency,
    /// Digests of the object's blocks, if all are known.
    pub digests: Option<Vec<Digest>>,
    /// Whether some are only the word of the host.
    pub has_claimed_digests: bool,
    pub virtual_size: Option<u64>,
    /// UEFI variables of the same point in time.
    pub variables: Option<Bytes>,
    /// Of which the next image of the sandbox can be composed.
    pub state: Option<ImageState>,
}

impl UploadedImage {
    pub(crate) fn paused_ms(&self) -> Option<u64> {
        self.pause_duration
            .map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}
