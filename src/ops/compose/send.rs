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

use super::Break;
use super::base::Proof;
use super::layers::Layers;
use super::moment::Taken;
use crate::block_digests::BlockDigests;

/// Reads of the overlays on their way, of some MiB at most each.
const READS: usize = 6;

/// What a read may make more of than fits into a part.
const ROOM: usize = 4 << 20;
/// Places that making the tail takes: the part at hand, and what is read for it.
const MAKING: usize = 4;

/// What was sent.
pub(super) struct Made {
    pub digests: BlockDigests,
    pub uploaded_bytes: u64,
    pub copied_bytes: u64,
}

pub(super) struct Sender<'a> {
    bucket: &'a Bucket,
    assembly: &'a MultipartObject<'a>,
    layers: &'a Layers,
    proof: Option<&'a Proof>,
    /// Bytes of a part.
    part: u64,
    /// What is the base's.
    kept: Range<u64>,
    digests: BlockDigests,
    buffers: BufferPool,
    /// Parts in memory.
    places: Arc<Semaphore>,
    uploaded: AtomicU64,
    /// Indexes of the parts that the store copied.
    copied: Mutex<BTreeSet<u64>>,
}

/// A part in memory.
struct Ready {
    index: u64,
    bytes: Bytes,
    place: OwnedSemaphorePermit,
}

/// What the object's first part is made of.
struct First {
    head: Vec<u8>,
    /// `None` where all but the head is the base's.
    bytes: Option<BytesMut>,
}

impl<'a> Sender<'a> {
    pub(super) fn new(
        bucket: &'a Bucket,
        assembly: &'a MultipartObject<'a>,
        layers: &'a Layers,
        proof: Option<&'a Proof>,
        composer: &Composer,
    ) -> Self {
        Self {
            bucket,
            assembly,
            layers,
            proof,
            part: assembly.part_bytes(),
            kept: composer.kept_range(),
            digests: BlockDigests::default(),
            buffers: layers.buffers().clone(),
            places: Arc::new(Semaphore::new(assembly.max_parts_in_memory())),
            uploaded: AtomicU64::new(0),
            copied: Mutex::default(),
        }
    }

    /// Sends all of it.
    pub(super) async fn send(self, composer: Composer) -> Result<Made, Break> {
        let (to_send, parts) = unbounded_channel();
        // Boxed: together they are more than a thread's stack has room for in an unoptimized program.
        let tail = Box::pin(self.made_tail(composer, to_send));
        let sending = Box::pin(async { Ok(self.send_ready(parts).await?) });
        let body = Box::pin(async { Ok(self.base_parts(self.body()).await?) });
        let first = match self.proof {
            Some(_) => {
                let first = async { self.first_part(tail.await?).await };
                tokio::try_join!(first, body, sending)?.0
            }
            // What the store does not copy takes places: they are all there once the tail is made.
            None => {
                let (first, ()) = tokio::try_join!(tail, sending)?;
                self.buffers.release_unused();
                body.await?;
                self.first_part(first).await?
            }
        };
        self.copies_hold().await?;
        self.put(0, first).await?;
        Ok(Made {
            uploaded_bytes: self.uploaded.into_inner(),
            copied_bytes: self
                .copied
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .len() as u64
                * self.part,
            digests: self.digests,
        })
    }

    /// Indexes of the parts that are the base's as they are.
    fn body(&self) -> Range<u64> {
        // The head's part is not.
        let first = self.kept.start.div_ceil(self.part);
        first..(self.kept.end / self.part).max(first)
    }

    /// Has parts of the base copied, and uploads those that are not.
    async fn base_parts(&self, parts: impl IntoIterator<Item = u64>) -> Result<()> {
        stream::iter(parts.into_iter().map(Ok))
            .try_for_each_concurrent(self.assembly.max_concurrent_copies(), |index| {
                self.base_part(index)
            })
            .await
    }

    async fn base_part(&self, index: u64) -> Result<()> {
        let range = index * self.part..(index + 1) * self.part;
        if let Some(proof) = self.proof
            && self
                .assembly
                .copy_part(index, &proof.object, range.start, self.part)
                .await?
        {
            self.digests.inherit(range, &proof.blocks);
            self.lock_copied().insert(index);
            return Ok(());
        }
        let _place = self.place().await?;
        let bytes = self.layers.read_base(range.start, self.part).await?;
        self.upload(index, bytes).await
    }

    /// Uploads after all what was copied from an object that was replaced meanwhile.
    async fn copies_hold(&self) -> Result<()> {
        let Some(proof) = self.proof else {
            return Ok(());
        };
        let copied = self.lock_copied().clone();
        if copied.is_empty() || proof.holds(self.bucket).await? {
            return Ok(());
        }
        self.assembly.disable_copies(
            Error::new(Kind::Failed, format!("{} was replaced", proof.object.key))
                .with_cause("its bytes are not the base's any more"),
        );
        self.lock_copied().clear();
        self.base_parts(copied).await
    }

    /// Places that making the tail takes; one at least is left for its parts.
    fn making(&self) -> usize {
        MAKING.min(self.assembly.max_parts_in_memory() - 1)
    }

    /// Makes the tail, with the places that takes.
    async fn made_tail(
        &self,
        composer: Composer,
        to_send: UnboundedSender<Ready>,
    ) -> Result<First, Break> {
        let _making = self
            .places
            .acquire_many(self.making() as u32)
            .await
            .map_err(|closed| super::broken("its parts are not taken").with_cause(closed))?;
        self.tail(composer, to_send).await
    }

    /// Composes the tail and hands its parts over as they get full; returns what comes at last.
    async fn tail(
        &self,
        mut composer: Composer,
        to_send: UnboundedSender<Ready>,
    ) -> Result<First, Break> {
        let mut parts = Parts {
            sender: self,
            to_send,
            // The part in which the tail begins also has the base's last bytes.
            index: self.kept.end / self.part,
            buffer: self.base_bytes(self.kept.end / self.part).await?,
            first: None,
        };
        let mut reads = FuturesOrdered::new();
        loop {
            while reads.len() < READS
                && let Some(read) = composer.next_read()
            {
                reads.push_back(async move {
                    let bytes = self.layers.read(&read).await;
                    (read, bytes)
                });
            }
            let Some((read, bytes)) = reads.next().await else {
                break;
            };
            match bytes? {
                Taken::Host(bytes) => composer.push(&read, &bytes, &mut parts.buffer)?,
                Taken::Guest(bytes) => composer.push_guest(&read, &bytes, &mut parts.buffer)?,
            }
            parts.hand_over_full().await?;
        }
        let mut ending = composer.finish(&mut parts.buffer)?;
        self.assembly.set_total_bytes(ending.file_bytes());
        while ending.write(&mut parts.buffer) {
            parts.hand_over_full().await?;
        }
        parts.hand_over_full().await?;
        parts.finish(ending.header_cluster()).await
    }

    /// The first part, hashed.
    async fn first_part(&self, first: First) -> Result<Bytes, Break> {
        let mut bytes = match first.bytes {
            Some(bytes) => bytes,
            None => self.base_bytes(0).await?,
        };
        match bytes.get_mut(..first.head.len()) {
            Some(place) => place.copy_from_slice(&first.head),
            None => return Err(super::broken("its head is longer than its first part").into()),
        }
        let bytes = bytes.freeze();
        self.digests.hash(0, bytes.clone()).await?;
        Ok(bytes)
    }

    /// The beginning of a part: the bytes of it that are the base's, zeros in the place of the head.
    async fn base_bytes(&self, index: u64) -> Result<BytesMut> {
        let start = index * self.part;
        let end = self.kept.end.min(start + self.part);
        let from = start.max(self.kept.start.min(end));
        let mut bytes = BytesMut::zeroed((from - start) as usize);
        if from < end {
            bytes.extend_from_slice(&self.layers.read_base(from, end - from).await?);
        }
        Ok(bytes)
    }

    /// Uploads what was handed over.
    async fn send_ready(&self, parts: UnboundedReceiver<Ready>) -> Result<()> {
        let next = |mut parts: UnboundedReceiver<Ready>| async move {
            let part = parts.recv().await?;
            Some((Ok(part), parts))
        };
        stream::unfold(parts, next)
            // There are no more of them than places.
            .try_for_each_concurrent(None, |part| async move {
                let Ready {
                    index,
                    bytes,
                    place,
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
        let offset = index * self.part;
        let hashed = self.digests.begin(offset, bytes.clone());
        self.put(index, bytes).await?;
        hashed.finish().await
    }

    async fn put(&self, index: u64, bytes: Bytes) -> Result<()> {
        self.uploaded.fetch_add(bytes.len() as u64, Relaxed);
        self.assembly.upload_part(index, bytes).await
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit> {
        let place = self.places.clone().acquire_owned().await;
        place.map_err(|closed| super::broken("its parts are not taken").with_cause(closed))
    }

    fn lock_copied(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parts from the one in which the tail begins on.
struct Parts<'a, 's> {
    sender: &'s Sender<'a>,
    to_send: UnboundedSender<Ready>,
    /// The one at hand, and its bytes so far.
    index: u64,
    buffer: BytesMut,
    /// The object's first part, where it is full: its head comes at last.
    first: Option<BytesMut>,
}

impl Parts<'_, '_> {
    /// Hands over what is full of the buffer.
    async fn hand_over_full(&mut self) -> Result<()> {
        // As `PART` in memory.
        let length = self.sender.part as usize;
        while self.buffer.len() >= length {
            let mut rest = self.sender.buffers.acquire(length + ROOM);
            rest.clear();
            rest.extend_from_slice(&self.buffer[length..]);
            self.buffer.truncate(length);
            let full = std::mem::replace(&mut self.buffer, rest);
            self.hand_over(full).await?;
        }
        Ok(())
    }

    async fn hand_over(&mut self, bytes: BytesMut) -> Result<()> {
        let index = self.index;
        self.index += 1;
        if index == 0 {
            self.first = Some(bytes);
            return Ok(());
        }
        let ready = Ready {
            index,
            bytes: self.sender.buffers.share(bytes),
            place: self.sender.place().await?,
        };
        let taken = self.to_send.send(ready);
        taken.map_err(|_| super::broken("its parts are not taken"))
    }

    /// Hands over what is left.
    async fn finish(mut self, head: &[u8]) -> Result<First, Break> {
        if !self.buffer.is_empty() {
            let last = std::mem::take(&mut self.buffer);
            self.hand_over(last).await?;
        }
        Ok(First {
            head: head.to_vec(),
            bytes: self.first,
        })
    }
}
