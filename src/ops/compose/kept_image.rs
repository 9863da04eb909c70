//! The bytes of the image that a composed one keeps: of the base's file on the host, or of the previous object.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use tokio_util::sync::CancellationToken;

use snapdeck_bucket::{Bucket, MultipartObject};
use snapdeck_model::{BLOCK_BYTES, BlockSet, Digest, Error, Kind, ProgressCell, Result};

use super::abort::internal_error;
use super::base_proof::BaseProof;
use super::disk_chain::DiskChain;
use crate::hash_blocks::hash_block_data;

#[derive(Clone, Copy)]
pub(super) enum KeptImage<'a> {
    /// The base, the object that has the same bytes, if there is one, and the digests of its blocks, if known.
    Base(&'a DiskChain, Option<&'a BaseProof>, Option<&'a [Digest]>),
    Previous(&'a Bucket, &'a BaseProof, &'a CancellationToken),
}

impl<'a> KeptImage<'a> {
    /// Returns the object from which the store can copy.
    pub(super) fn object(self) -> Option<&'a BaseProof> {
        match self {
            Self::Base(_, proof, _) => proof,
            Self::Previous(_, proof, _) => Some(proof),
        }
    }

    /// Returns the digests of the whole blocks in a range of the image, if they are known.
    pub(super) fn digests(self, range: Range<u64>) -> Option<&'a [Digest]> {
        let blocks = match self {
            Self::Base(_, proof, blocks) => proof.map(|proof| &*proof.blocks).or(blocks)?,
            Self::Previous(_, proof, _) => &proof.blocks,
        };
        let first = usize::try_from(range.start / BLOCK_BYTES).ok()?;
        let end = usize::try_from(range.end / BLOCK_BYTES).ok()?;
        blocks.get(first..end)
    }

    /// Returns why the previous object was of no use, after an upload based on it failed with `error`; `None` if that had
    /// another cause.
    pub(super) async fn unusable_reason(
        self,
        multipart: &MultipartObject<'_>,
        error: &Error,
    ) -> Option<String> {
        let Self::Previous(bucket, proof, _) = self else {
            return None;
        };
        if error.kind() == Kind::Cancelled {
            return None;
        }
        if let Some(refusal) = multipart.copy_error() {
            return Some(format!("the store did not copy it: {refusal}"));
        }
        if error.kind() == Kind::Damaged {
            return Some(error.to_string());
        }
        let is_replaced = matches!(proof.is_still_valid(bucket).await, Ok(false));
        is_replaced.then(|| format!("{} was replaced", proof.object.key))
    }

    /// Reads bytes of the image: from the host, or from the bucket in whole blocks that are checked.
    pub(super) async fn read(self, offset: u64, length: u64) -> Result<Bytes> {
        match self {
            Self::Base(chain, ..) => chain.read_base(offset, length).await,
            Self::Previous(bucket, proof, cancel) => {
                read_object(bucket, proof, offset, length, cancel).await
            }
        }
    }
}

async fn read_object(
    bucket: &Bucket,
    proof: &BaseProof,
    offset: u64,
    length: u64,
    cancel: &CancellationToken,
) -> Result<Bytes> {
    let object = &proof.object;
    let (first, end) = (
        offset / BLOCK_BYTES,
        (offset + length).div_ceil(BLOCK_BYTES),
    );
    let mut blocks = BlockSet::none(object.size_bytes);
    (first..end).for_each(|block| blocks.insert(block));
    let received = Mutex::new(BTreeMap::new());
    let receive = |block: u64, bytes: Bytes| {
        let received = &received;
        async move {
            let digest = hash_block_data(bytes.clone()).await?;
            let expected = usize::try_from(block).ok();
            if expected.and_then(|at| proof.blocks.get(at)) != Some(&digest) {
                let what = format!("cannot read block {block} of {}", object.key);
                return Err(Error::new(Kind::Damaged, what)
                    .with_cause("its bytes are not those that were uploaded"));
            }
            let mut received = received.lock().map_err(|_| internal_error("a panic"))?;
            received.insert(block, bytes);
            Ok(())
        }
    };
    // Not part of the progress: two blocks at most.
    let progress = ProgressCell::default();
    bucket
        .download(object, &blocks, receive, &progress, cancel)
        .await?;
    let received = received
        .into_inner()
        .map_err(|_| internal_error("a panic"))?;
    let mut bytes = BytesMut::with_capacity(length as usize);
    // Each is dropped as it is copied: of large parts, memory for both would be too much.
    for (block, data) in received {
        let start = block * BLOCK_BYTES;
        let from = offset.saturating_sub(start) as usize;
        let end = (offset + length - start).min(data.len() as u64) as usize;
        let range = data.get(from..end);
        bytes.extend_from_slice(range.ok_or_else(|| internal_error("a block is too short"))?);
    }
    match bytes.len() as u64 == length {
        true => Ok(bytes.freeze()),
        false => Err(internal_error("a block is too short")),
    }
}
