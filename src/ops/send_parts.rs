//! Sends the bytes of a snapshot's file as the parts of an object: copied by the store where it has them, else uploaded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::{TryStreamExt, stream};
use tokio::sync::Semaphore;

use snapdeck_bucket::{Bucket, KeptPart, MultipartObject, UploadStart};
use snapdeck_host::FileReader;
use snapdeck_model::{BLOCK_BYTES, BufferPool, Digest, Error, Kind, Result};

use crate::block_digests::BlockDigests;
use crate::block_index::{BlockIndex, PartPlace};
use crate::direct_upload::{DirectUpload, MAX_PARTS};
use crate::local_snapshot::LocalSnapshot;
use crate::remote_object::is_unchanged;
use crate::transfer_plan::ZERO_BLOCK;

/// All parts of an object.
pub(crate) struct SentParts {
    /// Digests of its blocks; those of copied parts are the snapshot's.
    pub digests: Vec<Digest>,
    /// Whether digests are only the word of the host: it has sent parts itself, or the store has copied such ones.
    pub is_claimed: bool,
    pub uploaded_bytes: u64,
    pub copied_bytes: u64,
}

pub(crate) struct PartSender<'a> {
    bucket: &'a Bucket,
    multipart: &'a MultipartObject<'a>,
    reader: FileReader,
    /// The parts that the host sends itself, if it does.
    direct: Option<DirectUpload<'a>>,
    size_bytes: u64,
    stored: &'a BlockIndex,
    /// Parts that the store has, by index.
    copies: BTreeMap<u64, PartPlace>,
    /// Digests of the file's blocks, if they are known.
    expected: Option<Vec<Digest>>,
    digests: BlockDigests,
    buffers: BufferPool,
    /// A part of zeros.
    zeros: OnceLock<Bytes>,
    /// Limits the parts in memory.
    slots: Semaphore,
    uploaded_bytes: AtomicU64,
    /// Indexes of the parts that the store copied.
    copied_parts: Mutex<BTreeSet<u64>>,
}

impl<'a> PartSender<'a> {
    /// Sends what `reader` reads of `source`; `copies` are the parts that objects of `stored` have.
    pub(crate) fn new(
        bucket: &'a Bucket,
        multipart: &'a MultipartObject<'a>,
        (reader, direct): (FileReader, Option<DirectUpload<'a>>),
        source: &LocalSnapshot<'_>,
        stored: &'a BlockIndex,
        copies: BTreeMap<u64, PartPlace>,
    ) -> Self {
        let expected = source.digests().map(<[Digest]>::to_vec);
        Self {
            bucket,
            multipart,
            reader,
            direct,
            size_bytes: source.size_bytes(),
            stored,
            copies,
            expected,
            digests: BlockDigests::default(),
            buffers: BufferPool::default(),
            zeros: OnceLock::new(),
            slots: Semaphore::new(multipart.max_parts_in_memory()),
            uploaded_bytes: AtomicU64::new(0),
            copied_parts: Mutex::default(),
        }
    }

    /// Sends all parts.
    ///
    /// # Errors
    /// Those of the host and the store.
    pub(crate) async fn send(self) -> Result<SentParts> {
        let count = self.size_bytes.div_ceil(self.multipart.part_bytes());
        let kept: BTreeMap<u64, &KeptPart> = match self.multipart.start() {
            UploadStart::Continued(kept) => kept.iter().map(|part| (part.index, part)).collect(),
            UploadStart::New | UploadStart::Restarted(_) => BTreeMap::new(),
        };
        for (index, part) in &kept {
            self.digests.set(self.part_offset(*index), &part.digests);
        }
        let (copied, uploaded): (Vec<u64>, Vec<u64>) = (0..count)
            .filter(|index| !kept.contains_key(index))
            .partition(|index| self.copies.contains_key(index));
        let copying = self.copy_parts(copied);
        let uploading = self.upload_parts(uploaded);
        // Boxed: the futures are large.
        tokio::try_join!(Box::pin(copying), Box::pin(uploading))?;
        Box::pin(self.resend_stale_copies()).await?;
        let copied = self.lock_copied().clone();
        let is_claimed = |index: &u64| {
            let part = self.copies.get(index);
            part.is_some_and(|part| self.stored.is_claimed(part.object))
        };
        let is_direct = self.direct.as_ref().is_some_and(DirectUpload::has_tried);
        let is_claimed = is_direct
            || copied.iter().any(is_claimed)
            || kept.values().any(|part| part.is_claimed)
            || self.multipart.may_have_requests_of_hosts();
        let copied_bytes = copied
            .into_iter()
            .map(|index| self.part_length(index))
            .sum();
        let digests = self
            .digests
            .all(self.size_bytes)
            .ok_or_else(|| Error::new(Kind::Failed, "cannot hash all blocks of the snapshot"))?;
        Ok(SentParts {
            digests,
            is_claimed,
            uploaded_bytes: self.uploaded_bytes.into_inner(),
            copied_bytes,
        })
    }

    /// Has the store copy a part, or uploads it if the store does not.
    async fn copy_part(&self, index: u64) -> Result<()> {
        let (offset, length) = (self.part_offset(index), self.part_length(index));
        if let (Some(part), Some(expected)) = (self.copies.get(&index), &self.expected)
            && let Some(object) = self.stored.object(part.object)
            && self
                .multipart
                .copy_part(index, object, part.offset, length)
                .await?
        {
            let end = (offset + length).next_multiple_of(BLOCK_BYTES);
            self.digests.inherit(offset..end, expected);
            self.lock_copied().insert(index);
            return Ok(());
        }
        self.upload_part(index).await
    }

    /// Uploads a part and hashes it meanwhile.
    async fn upload_part(&self, index: u64) -> Result<()> {
        let (offset, length) = (self.part_offset(index), self.part_length(index));
        self.uploaded_bytes.fetch_add(length, Relaxed);
        let range = offset..offset + length;
        if let Some(direct) = &self.direct
            && let Some(_slot) = direct.acquire_slot().await
            && let Some(digests) = direct
                .send(&self.reader, index, std::slice::from_ref(&range))
                .await?
        {
            self.digests.set(offset, &digests);
            self.multipart.record_part(index, &digests, true);
            return Ok(());
        }
        let _slot = self.slots.acquire().await.map_err(|closed| {
            Error::new(Kind::Failed, "the upload has ended").with_cause(closed)
        })?;
        if let Some(digests) = self.zero_digests(index) {
            self.digests.set(offset, digests);
            let zeros = self
                .zeros
                .get_or_init(|| BytesMut::zeroed(self.multipart.part_bytes() as usize).freeze());
            let bytes = zeros.slice(..length as usize);
            self.multipart.upload_part(index, bytes).await?;
            self.multipart.record_part(index, digests, false);
            return Ok(());
        }
        let read = self.reader.read_at(&self.buffers, offset, length as usize);
        let bytes = read.await?;
        let hashing = self.digests.begin(offset, bytes.clone());
        self.multipart.upload_part(index, bytes).await?;
        let digests = hashing.finish().await?;
        self.multipart.record_part(index, &digests, false);
        Ok(())
    }

    /// Returns the digests of the blocks of a part that is known to have only zeros.
    fn zero_digests(&self, index: u64) -> Option<&[Digest]> {
        let first = self.part_offset(index) / BLOCK_BYTES;
        let count = self.part_length(index).div_ceil(BLOCK_BYTES);
        let blocks = self.expected.as_ref()?;
        let blocks = blocks.get(first as usize..(first + count) as usize)?;
        blocks
            .iter()
            .all(|digest| *digest == ZERO_BLOCK)
            .then_some(blocks)
    }

    /// Uploads the copied parts whose object was replaced meanwhile: not every store honours the condition of a copy.
    async fn resend_stale_copies(&self) -> Result<()> {
        let copied = self.lock_copied().clone();
        let mut by_object: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for index in copied {
            if let Some(part) = self.copies.get(&index) {
                by_object.entry(part.object).or_default().push(index);
            }
        }
        for (object, parts) in by_object {
            let Some(object) = self.stored.object(object) else {
                continue;
            };
            if is_unchanged(self.bucket, object).await? {
                continue;
            }
            let reason = format!("{} was replaced", object.key);
            self.multipart
                .disable_copies(Error::new(Kind::Failed, reason));
            for index in &parts {
                self.lock_copied().remove(index);
            }
            self.upload_parts(parts).await?;
        }
        Ok(())
    }

    async fn copy_parts(&self, indexes: Vec<u64>) -> Result<()> {
        stream::iter(indexes.into_iter().map(Ok))
            .try_for_each_concurrent(self.multipart.max_concurrent_copies(), |index| {
                self.copy_part(index)
            })
            .await
    }

    async fn upload_parts(&self, indexes: Vec<u64>) -> Result<()> {
        let of_host = self.direct.as_ref().map_or(0, |_| MAX_PARTS);
        let limit = self.multipart.max_parts_in_memory() + of_host;
        stream::iter(indexes.into_iter().map(Ok))
            .try_for_each_concurrent(limit, |index| self.upload_part(index))
            .await
    }

    fn part_offset(&self, index: u64) -> u64 {
        index * self.multipart.part_bytes()
    }

    fn part_length(&self, index: u64) -> u64 {
        let remaining = self.size_bytes.saturating_sub(self.part_offset(index));
        remaining.min(self.multipart.part_bytes())
    }

    fn lock_copied(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.copied_parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
