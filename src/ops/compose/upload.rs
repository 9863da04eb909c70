//! Uploads a composed image: copies, the bytes of the kept image and the tail in parallel, and the head last.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use futures_util::stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use snapdeck_bucket::{Bucket, MultipartObject};
use snapdeck_model::{BLOCK_BYTES, BufferPool, Digest, Error, Kind, Result};
use snapdeck_qcow2::{ComposedImage, Composer};

use super::abort::{ComposeAbort, internal_error};
use super::disk_chain::{BASE_LAYER, DiskChain};
use super::kept_image::KeptImage;
use super::part_writer::{PartContent, PartWriter, ReadyPart};
use super::pieces::Piece;
use crate::block_digests::BlockDigests;
use crate::block_index::BlockIndex;
use crate::direct_upload::DirectUpload;
use crate::remote_object::is_unchanged;

/// Room in a part's buffer for what one read adds past the part's end.
const PART_SLACK_BYTES: usize = 4 << 20;
/// Slots of the tail's writer: the current part, and the reads for it.
const TAIL_SLOTS: usize = 4;

pub(super) struct ComposedObject {
    pub digests: BlockDigests,
    pub uploaded_bytes: u64,
    pub copied_bytes: u64,
    /// Whether digests are only the word of the host: of parts that it has sent, or those of an object from which parts were copied.
    pub is_claimed: bool,
    /// Of which the next image can be composed.
    pub image: Option<ComposedImage>,
}

pub(super) struct ComposedUpload<'a> {
    bucket: &'a Bucket,
    multipart: &'a MultipartObject<'a>,
    pub(super) chain: &'a DiskChain,
    /// The parts that the host sends itself, if it does.
    pub(super) direct: Option<DirectUpload<'a>>,
    kept: KeptImage<'a>,
    /// Other objects that may have a part.
    pub(super) index: &'a BlockIndex,
    pub(super) part_bytes: u64,
    /// Offsets at which the object has the bytes of the kept image.
    kept_range: Range<u64>,
    pub(super) digests: BlockDigests,
    pub(super) buffers: BufferPool,
    /// Limits the parts in memory.
    slots: Arc<Semaphore>,
    pub(super) uploaded_bytes: AtomicU64,
    /// Indexes of the parts that the store copied from the object of the kept image.
    copied_parts: Mutex<BTreeSet<u64>>,
    /// Numbers of the objects of the index from which it copied others.
    copied_objects: Mutex<BTreeSet<usize>>,
    copied_bytes: AtomicU64,
}

struct FirstPart {
    head: Vec<u8>,
    /// `None` if all bytes after the head are those of the kept image.
    bytes: Option<BytesMut>,
    image: Option<ComposedImage>,
}

impl<'a> ComposedUpload<'a> {
    pub(super) fn new(
        bucket: &'a Bucket,
        multipart: &'a MultipartObject<'a>,
        (chain, direct): (&'a DiskChain, Option<DirectUpload<'a>>),
        kept: KeptImage<'a>,
        index: &'a BlockIndex,
        composer: &Composer,
    ) -> Self {
        Self {
            bucket,
            multipart,
            chain,
            direct,
            kept,
            index,
            part_bytes: multipart.part_bytes(),
            kept_range: composer.kept_range(),
            digests: BlockDigests::default(),
            buffers: chain.buffers.clone(),
            slots: Arc::new(Semaphore::new(multipart.max_parts_in_memory())),
            uploaded_bytes: AtomicU64::new(0),
            copied_parts: Mutex::default(),
            copied_objects: Mutex::default(),
            copied_bytes: AtomicU64::new(0),
        }
    }

    /// Uploads all parts.
    pub(super) async fn send(self, composer: Composer) -> Result<ComposedObject, ComposeAbort> {
        let (part_tx, part_rx) = unbounded_channel();
        // Boxed: together they overflow a thread's stack in an unoptimized build.
        let tail = Box::pin(self.build_tail(composer, part_tx));
        let sending = Box::pin(async { Ok(self.send_ready(part_rx).await?) });
        let body = Box::pin(async { Ok(self.send_kept_parts(self.kept_part_range()).await?) });
        let (first, image) = match self.kept.object() {
            Some(_) => {
                let first = async { self.build_first_part(tail.await?).await };
                tokio::try_join!(first, body, sending)?.0
            }
            // Parts that the store does not copy need slots: all are free once the tail is written.
            None => {
                let (first, ()) = tokio::try_join!(tail, sending)?;
                self.buffers.release_unused();
                body.await?;
                self.build_first_part(first).await?
            }
        };
        self.resend_stale_copies().await?;
        self.check_copied_objects().await?;
        self.put(0, first).await?;
        let copied = lock(&self.copied_objects).clone();
        let has_kept = !lock(&self.copied_parts).is_empty();
        let is_direct = self.direct.as_ref().is_some_and(DirectUpload::has_tried);
        let is_claimed = is_direct
            || copied
                .into_iter()
                .any(|number| self.index.is_claimed(number))
            || has_kept && self.kept.object().is_some_and(|proof| proof.is_claimed);
        Ok(ComposedObject {
            is_claimed,
            uploaded_bytes: self.uploaded_bytes.into_inner(),
            copied_bytes: self.copied_bytes.into_inner(),
            digests: self.digests,
            image,
        })
    }

    /// Indexes of the parts that have only bytes of the kept image.
    fn kept_part_range(&self) -> Range<u64> {
        // Without the part of the head.
        let first = self.kept_range.start.div_ceil(self.part_bytes);
        first..(self.kept_range.end / self.part_bytes).max(first)
    }

    /// Lets the store copy parts of the kept image, and uploads those it does not copy.
    async fn send_kept_parts(&self, parts: impl IntoIterator<Item = u64>) -> Result<()> {
        stream::iter(parts.into_iter().map(Ok))
            .try_for_each_concurrent(self.multipart.max_concurrent_copies(), |index| {
                self.send_kept_part(index)
            })
            .await
    }

    async fn send_kept_part(&self, index: u64) -> Result<()> {
        let range = index * self.part_bytes..(index + 1) * self.part_bytes;
        if let Some(proof) = self.kept.object()
            && self
                .multipart
                .copy_part(index, &proof.object, range.start, self.part_bytes)
                .await?
        {
            self.digests.inherit(range, &proof.blocks);
            lock(&self.copied_parts).insert(index);
            self.copied_bytes.fetch_add(self.part_bytes, Relaxed);
            return Ok(());
        }
        if let KeptImage::Previous(..) = self.kept {
            // Its bytes are not on the host, and to fetch them costs more than to begin again.
            return Err(internal_error("the previous object is not copied"));
        }
        let digests = self.kept.digests(range.clone());
        if let Some(digests) = digests
            && self.copy_known(index, digests).await?
        {
            self.digests.set(range.start, digests);
            return Ok(());
        }
        if let Some(direct) = &self.direct
            && let Some(_slot) = direct.acquire_slot().await
        {
            let ranges = (BASE_LAYER, std::slice::from_ref(&range));
            if self.send_ranges(index, ranges, digests.is_some()).await? {
                return Ok(());
            }
        }
        let _slot = self.acquire_slot().await?;
        let bytes = self.kept.read(range.start, self.part_bytes).await?;
        self.upload(index, bytes).await
    }

    /// Has the store copy a part with these blocks from an object of the index; returns whether it did.
    pub(super) async fn copy_known(&self, index: u64, digests: &[Digest]) -> Result<bool> {
        let length = digests.len() as u64 * BLOCK_BYTES;
        if length != self.part_bytes {
            return Ok(false);
        }
        let place = self.index.find(digests, BLOCK_BYTES, index * length);
        let Some((place, object)) =
            place.and_then(|place| Some((place, self.index.object(place.object)?)))
        else {
            return Ok(false);
        };
        let copy = self
            .multipart
            .copy_part(index, object, place.offset, length);
        if !copy.await? {
            return Ok(false);
        }
        lock(&self.copied_objects).insert(place.object);
        self.copied_bytes.fetch_add(length, Relaxed);
        Ok(true)
    }

    /// Fails if an object of the index from which parts were copied was replaced meanwhile.
    async fn check_copied_objects(&self) -> Result<(), ComposeAbort> {
        let numbers = lock(&self.copied_objects).clone();
        for object in numbers
            .into_iter()
            .filter_map(|number| self.index.object(number))
        {
            if !is_unchanged(self.bucket, object).await? {
                let reason = format!("{} was replaced meanwhile", object.key);
                return Err(ComposeAbort::CopiesUnusable(reason));
            }
        }
        Ok(())
    }

    /// Uploads the copied parts if the object they were copied from was replaced meanwhile.
    async fn resend_stale_copies(&self) -> Result<()> {
        let Some(proof) = self.kept.object() else {
            return Ok(());
        };
        let copied = lock(&self.copied_parts).clone();
        if copied.is_empty() || proof.is_still_valid(self.bucket).await? {
            return Ok(());
        }
        self.multipart.disable_copies(
            Error::new(Kind::Failed, format!("{} was replaced", proof.object.key))
                .with_cause("its bytes are no longer those of the base"),
        );
        lock(&self.copied_parts).clear();
        self.copied_bytes
            .fetch_sub(copied.len() as u64 * self.part_bytes, Relaxed);
        self.send_kept_parts(copied).await
    }

    /// Slots of the tail's writer; at least one remains for its parts.
    fn tail_slots(&self) -> usize {
        TAIL_SLOTS.min(self.multipart.max_parts_in_memory() - 1)
    }

    /// Waits for the slots of the tail's writer, then writes the tail.
    async fn build_tail(
        &self,
        composer: Composer,
        part_tx: UnboundedSender<ReadyPart>,
    ) -> Result<FirstPart, ComposeAbort> {
        let _slots = self
            .slots
            .acquire_many(self.tail_slots() as u32)
            .await
            .map_err(|closed| internal_error("the upload has ended").with_cause(closed))?;
        self.write_tail(composer, part_tx).await
    }

    /// Composes the tail and queues its full parts; returns the object's first part.
    async fn write_tail(
        &self,
        composer: Composer,
        part_tx: UnboundedSender<ReadyPart>,
    ) -> Result<FirstPart, ComposeAbort> {
        let first_index = self.kept_range.end / self.part_bytes;
        // The part in which the tail begins also has the last bytes of the kept image.
        let buffer = self.read_kept_bytes(first_index).await?;
        let mut parts = PartWriter::new(self, part_tx, first_index, buffer);
        let composer = Mutex::new(composer);
        let (batch_tx, batch_rx) = channel(1);
        tokio::try_join!(
            self.read_batches(&composer, batch_tx),
            self.compose_batches(&composer, batch_rx, &mut parts)
        )?;
        let composer = composer.into_inner();
        let composer = composer.unwrap_or_else(PoisonError::into_inner);
        let mut ending = composer.finish(&mut parts.buffer)?;
        self.multipart.set_total_bytes(ending.file_bytes());
        while ending.write(&mut parts.buffer) {
            parts.flush_full_parts().await?;
        }
        parts.flush_full_parts().await?;
        let head = ending.header_cluster().to_vec();
        let bytes = parts.finish().await?;
        // Without it the next push only sends more.
        let image = ending.into_image().ok();
        Ok(FirstPart { head, bytes, image })
    }

    /// Returns an empty buffer for a part.
    pub(super) fn acquire_buffer(&self) -> BytesMut {
        let length = self.part_bytes as usize + PART_SLACK_BYTES;
        let mut buffer = self.buffers.acquire(length);
        buffer.clear();
        buffer
    }

    /// Puts the head into the first part and hashes it.
    async fn build_first_part(
        &self,
        first: FirstPart,
    ) -> Result<(Bytes, Option<ComposedImage>), ComposeAbort> {
        // Those of the tail's parts are not needed any more.
        self.buffers.release_unused();
        let mut bytes = match first.bytes {
            Some(bytes) => bytes,
            None => self.read_kept_bytes(0).await?,
        };
        bytes
            .get_mut(..first.head.len())
            .ok_or_else(|| internal_error("the head is longer than the first part"))?
            .copy_from_slice(&first.head);
        let bytes = bytes.freeze();
        self.digests.hash(0, bytes.clone()).await?;
        Ok((bytes, first.image))
    }

    /// Reads the kept image's bytes at the beginning of a part, with zeros instead of the head.
    async fn read_kept_bytes(&self, index: u64) -> Result<BytesMut> {
        let start = index * self.part_bytes;
        let end = self.kept_range.end.min(start + self.part_bytes);
        let from = start.max(self.kept_range.start.min(end));
        let mut bytes = BytesMut::zeroed((from - start) as usize);
        if from < end {
            let kept = self.kept.read(from, end - from).await?;
            match bytes.is_empty() {
                true => bytes = kept.into(),
                false => bytes.extend_from_slice(&kept),
            }
        }
        Ok(bytes)
    }

    /// Uploads the queued parts.
    async fn send_ready(&self, part_rx: UnboundedReceiver<ReadyPart>) -> Result<()> {
        let next = |mut part_rx: UnboundedReceiver<ReadyPart>| async move {
            let part = part_rx.recv().await?;
            Some((Ok(part), part_rx))
        };
        stream::unfold(part_rx, next)
            // The slots limit their number.
            .try_for_each_concurrent(None, |part| self.send_part(part))
            .await
    }

    async fn send_part(&self, part: ReadyPart) -> Result<()> {
        let index = part.index;
        // Until its end: the bytes are in memory.
        let mut _slot = part.permit;
        let pieces = match part.content {
            PartContent::Bytes(bytes) => return self.upload(index, bytes).await,
            PartContent::Pieces(pieces) => pieces,
            PartContent::Ranges(layer, ranges) => {
                if self.send_ranges(index, (layer, &ranges), false).await? {
                    return Ok(());
                }
                _slot = self.acquire_slot().await?;
                let pieces = ranges.into_iter();
                pieces.map(|range| Piece::File { layer, range }).collect()
            }
        };
        let bytes = self.read_pieces(pieces).await?;
        self.upload(index, self.buffers.share(bytes)).await
    }

    /// Hashes a part while it is uploaded, or before if another object may have it.
    async fn upload(&self, index: u64, bytes: Bytes) -> Result<()> {
        let hashing = self.digests.begin(index * self.part_bytes, bytes.clone());
        if !self.index.is_empty() && bytes.len() as u64 == self.part_bytes {
            let digests = hashing.finish().await?;
            return match self.copy_known(index, &digests).await? {
                true => Ok(()),
                false => self.put(index, bytes).await,
            };
        }
        self.put(index, bytes).await?;
        hashing.finish().await.map(drop)
    }

    async fn put(&self, index: u64, bytes: Bytes) -> Result<()> {
        self.uploaded_bytes.fetch_add(bytes.len() as u64, Relaxed);
        self.multipart.upload_part(index, bytes).await
    }

    pub(super) async fn acquire_slot(&self) -> Result<OwnedSemaphorePermit> {
        let permit = self.slots.clone().acquire_owned().await;
        permit.map_err(|closed| internal_error("the upload has ended").with_cause(closed))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
