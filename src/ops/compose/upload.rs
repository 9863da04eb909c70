//! Sending a composed image: copies, the base's bytes and the tail at the same time, and the head at last.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, FuturesOrdered};
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use snapdeck_bucket::{Bucket, MultipartObject};
use snapdeck_model::{BufferPool, Error, Kind, Result};
use snapdeck_qcow2::Composer;

use super::ComposeAbort;
use super::base_proof::BaseProof;
use super::disk_chain::DiskChain;
use super::point_in_time::ClusterData;
use crate::block_digests::BlockDigests;

/// Reads of the overlays on their way, of some MiB at most each.
const MAX_OVERLAY_READS: usize = 6;

/// What a read may make more of than fits into a part.
const PART_SLACK_BYTES: usize = 4 << 20;
/// Places that making the tail takes: the part at hand, and what is read for it.
const TAIL_SLOTS: usize = 4;

/// What was sent.
pub(super) struct ComposedObject {
    pub digests: BlockDigests,
    pub uploaded_bytes: u64,
    pub copied_bytes: u64,
}

pub(super) struct ComposedUpload<'a> {
    bucket: &'a Bucket,
    multipart: &'a MultipartObject<'a>,
    chain: &'a DiskChain,
    base_object: Option<&'a BaseProof>,
    /// Bytes of a part.
    part_bytes: u64,
    /// What is the base's.
    base_range: Range<u64>,
    digests: BlockDigests,
    buffers: BufferPool,
    /// Parts in memory.
    slots: Arc<Semaphore>,
    uploaded_bytes: AtomicU64,
    /// Indexes of the parts that the store copied.
    copied_parts: Mutex<BTreeSet<u64>>,
}

/// A part in memory.
struct ReadyPart {
    index: u64,
    bytes: Bytes,
    permit: OwnedSemaphorePermit,
}

/// What the object's first part is made of.
struct FirstPart {
    head: Vec<u8>,
    /// `None` where all but the head is the base's.
    bytes: Option<BytesMut>,
}

impl<'a> ComposedUpload<'a> {
    pub(super) fn new(
        bucket: &'a Bucket,
        assembly: &'a MultipartObject<'a>,
        layers: &'a DiskChain,
        proof: Option<&'a BaseProof>,
        composer: &Composer,
    ) -> Self {
        Self {
            bucket,
            multipart: assembly,
            chain: layers,
            base_object: proof,
            part_bytes: assembly.part_bytes(),
            base_range: composer.kept_range(),
            digests: BlockDigests::default(),
            buffers: layers.buffers().clone(),
            slots: Arc::new(Semaphore::new(assembly.max_parts_in_memory())),
            uploaded_bytes: AtomicU64::new(0),
            copied_parts: Mutex::default(),
        }
    }

    /// Sends all of it.
    pub(super) async fn send(self, composer: Composer) -> Result<ComposedObject, ComposeAbort> {
        let (to_send, parts) = unbounded_channel();
        // Boxed: together they are more than a thread's stack has room for in an unoptimized program.
        let tail = Box::pin(self.build_tail(composer, to_send));
        let sending = Box::pin(async { Ok(self.send_ready(parts).await?) });
        let body = Box::pin(async { Ok(self.send_base_parts(self.base_part_range()).await?) });
        let first = match self.base_object {
            Some(_) => {
                let first = async { self.build_first_part(tail.await?).await };
                tokio::try_join!(first, body, sending)?.0
            }
            // What the store does not copy takes places: they are all there once the tail is made.
            None => {
                let (first, ()) = tokio::try_join!(tail, sending)?;
                self.buffers.release_unused();
                body.await?;
                self.build_first_part(first).await?
            }
        };
        self.resend_stale_copies().await?;
        self.put(0, first).await?;
        Ok(ComposedObject {
            uploaded_bytes: self.uploaded_bytes.into_inner(),
            copied_bytes: self
                .copied_parts
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .len() as u64
                * self.part_bytes,
            digests: self.digests,
        })
    }

    /// Indexes of the parts that are the base's as they are.
    fn base_part_range(&self) -> Range<u64> {
        // The head's part is not.
        let first = self.base_range.start.div_ceil(self.part_bytes);
        first..(self.base_range.end / self.part_bytes).max(first)
    }

    /// Has parts of the base copied, and uploads those that are not.
    async fn send_base_parts(&self, parts: impl IntoIterator<Item = u64>) -> Result<()> {
        stream::iter(parts.into_iter().map(Ok))
            .try_for_each_concurrent(self.multipart.max_concurrent_copies(), |index| {
                self.send_base_part(index)
            })
            .await
    }

    async fn send_base_part(&self, index: u64) -> Result<()> {
        let range = index * self.part_bytes..(index + 1) * self.part_bytes;
        if let Some(proof) = self.base_object
            && self
                .multipart
                .copy_part(index, &proof.object, range.start, self.part_bytes)
                .await?
        {
            self.digests.inherit(range, &proof.blocks);
            self.lock_copied().insert(index);
            return Ok(());
        }
        let _place = self.acquire_slot().await?;
        let bytes = self.chain.read_base(range.start, self.part_bytes).await?;
        self.upload(index, bytes).await
    }

    /// Uploads after all what was copied from an object that was replaced meanwhile.
    async fn resend_stale_copies(&self) -> Result<()> {
        let Some(proof) = self.base_object else {
            return Ok(());
        };
        let copied = self.lock_copied().clone();
        if copied.is_empty() || proof.is_still_valid(self.bucket).await? {
            return Ok(());
        }
        self.multipart.disable_copies(
            Error::new(Kind::Failed, format!("{} was replaced", proof.object.key))
                .with_cause("its bytes are no longer those of the base"),
        );
        self.lock_copied().clear();
        self.send_base_parts(copied).await
    }

    /// Places that making the tail takes; one at least is left for its parts.
    fn tail_parts_in_memory(&self) -> usize {
        TAIL_SLOTS.min(self.multipart.max_parts_in_memory() - 1)
    }

    /// Makes the tail, with the places that takes.
    async fn build_tail(
        &self,
        composer: Composer,
        to_send: UnboundedSender<ReadyPart>,
    ) -> Result<FirstPart, ComposeAbort> {
        let _making = self
            .slots
            .acquire_many(self.tail_parts_in_memory() as u32)
            .await
            .map_err(|closed| {
                super::broken_plan_error("its parts are not taken").with_cause(closed)
            })?;
        self.write_tail(composer, to_send).await
    }

    /// Composes the tail and hands its parts over as they get full; returns what comes at last.
    async fn write_tail(
        &self,
        mut composer: Composer,
        to_send: UnboundedSender<ReadyPart>,
    ) -> Result<FirstPart, ComposeAbort> {
        let mut parts = PartWriter {
            uploader: self,
            part_tx: to_send,
            // The part in which the tail begins also has the base's last bytes.
            index: self.base_range.end / self.part_bytes,
            buffer: self
                .read_base_bytes(self.base_range.end / self.part_bytes)
                .await?,
            first_part: None,
        };
        let mut reads = FuturesOrdered::new();
        loop {
            while reads.len() < MAX_OVERLAY_READS
                && let Some(read) = composer.next_read()
            {
                reads.push_back(async move {
                    let bytes = self.chain.read(&read).await;
                    (read, bytes)
                });
            }
            let Some((read, bytes)) = reads.next().await else {
                break;
            };
            match bytes? {
                ClusterData::Host(bytes) => composer.push(&read, &bytes, &mut parts.buffer)?,
                ClusterData::Guest(bytes) => {
                    composer.push_guest(&read, &bytes, &mut parts.buffer)?
                }
            }
            parts.flush_full_parts().await?;
        }
        let mut ending = composer.finish(&mut parts.buffer)?;
        self.multipart.set_total_bytes(ending.file_bytes());
        while ending.write(&mut parts.buffer) {
            parts.flush_full_parts().await?;
        }
        parts.flush_full_parts().await?;
        parts.finish(ending.header_cluster()).await
    }

    /// The first part, hashed.
    async fn build_first_part(&self, first: FirstPart) -> Result<Bytes, ComposeAbort> {
        let mut bytes = match first.bytes {
            Some(bytes) => bytes,
            None => self.read_base_bytes(0).await?,
        };
        match bytes.get_mut(..first.head.len()) {
            Some(place) => place.copy_from_slice(&first.head),
            None => {
                return Err(
                    super::broken_plan_error("its head is longer than its first part").into(),
                );
            }
        }
        let bytes = bytes.freeze();
        self.digests.hash(0, bytes.clone()).await?;
        Ok(bytes)
    }

    /// The beginning of a part: the bytes of it that are the base's, zeros in the place of the head.
    async fn read_base_bytes(&self, index: u64) -> Result<BytesMut> {
        let start = index * self.part_bytes;
        let end = self.base_range.end.min(start + self.part_bytes);
        let from = start.max(self.base_range.start.min(end));
        let mut bytes = BytesMut::zeroed((from - start) as usize);
        if from < end {
            bytes.extend_from_slice(&self.chain.read_base(from, end - from).await?);
        }
        Ok(bytes)
    }

    /// Uploads what was handed over.
    async fn send_ready(&self, parts: UnboundedReceiver<ReadyPart>) -> Result<()> {
        let next = |mut parts: UnboundedReceiver<ReadyPart>| async move {
            let part = parts.recv().await?;
            Some((Ok(part), parts))
        };
        stream::unfold(parts, next)
            // There are no more of them than places.
            .try_for_each_concurrent(None, |part| async move {
                let ReadyPart {
                    index,
                    bytes,
                    permit: place,
                } = part;
                let uploaded = self.upload(index, bytes).await;
                // Not before: its bytes are in memory until here.
                drop(place);
                uploaded
            })
            .await
    }

    /// Hashes a part and sends it.
    async fn upload(&self, index: u64, bytes: Bytes) -> Result<()> {
        let offset = index * self.part_bytes;
        let hashed = self.digests.begin(offset, bytes.clone());
        self.put(index, bytes).await?;
        hashed.finish().await
    }

    async fn put(&self, index: u64, bytes: Bytes) -> Result<()> {
        self.uploaded_bytes.fetch_add(bytes.len() as u64, Relaxed);
        self.multipart.upload_part(index, bytes).await
    }

    async fn acquire_slot(&self) -> Result<OwnedSemaphorePermit> {
        let place = self.slots.clone().acquire_owned().await;
        place.map_err(|closed| {
            super::broken_plan_error("its parts are not taken").with_cause(closed)
        })
    }

    fn lock_copied(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.copied_parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parts from the one in which the tail begins on.
struct PartWriter<'a, 's> {
    uploader: &'s ComposedUpload<'a>,
    part_tx: UnboundedSender<ReadyPart>,
    /// The one at hand, and its bytes so far.
    index: u64,
    buffer: BytesMut,
    /// The object's first part, where it is full: its head comes at last.
    first_part: Option<BytesMut>,
}

impl PartWriter<'_, '_> {
    /// Hands over what is full of the buffer.
    async fn flush_full_parts(&mut self) -> Result<()> {
        // As `PART` in memory.
        let length = self.uploader.part_bytes as usize;
        while self.buffer.len() >= length {
            let mut rest = self.uploader.buffers.acquire(length + PART_SLACK_BYTES);
            rest.clear();
            rest.extend_from_slice(&self.buffer[length..]);
            self.buffer.truncate(length);
            let full = std::mem::replace(&mut self.buffer, rest);
            self.flush_part(full).await?;
        }
        Ok(())
    }

    async fn flush_part(&mut self, bytes: BytesMut) -> Result<()> {
        let index = self.index;
        self.index += 1;
        if index == 0 {
            self.first_part = Some(bytes);
            return Ok(());
        }
        let ready = ReadyPart {
            index,
            bytes: self.uploader.buffers.share(bytes),
            permit: self.uploader.acquire_slot().await?,
        };
        let taken = self.part_tx.send(ready);
        taken.map_err(|_| super::broken_plan_error("its parts are not taken"))
    }

    /// Hands over what is left.
    async fn finish(mut self, head: &[u8]) -> Result<FirstPart, ComposeAbort> {
        if !self.buffer.is_empty() {
            let last = std::mem::take(&mut self.buffer);
            self.flush_part(last).await?;
        }
        Ok(FirstPart {
            head: head.to_vec(),
            bytes: self.first_part,
        })
    }
}
