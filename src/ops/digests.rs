//! The digests of an object's blocks, gathered while its parts are made in any order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use snapdeck_model::{
    BLOCK_BYTES, Digest, Error, Kind, PendingDigest, Result, begin_hash, hash_full_batch,
};

/// Digests by their block's number.
#[derive(Default)]
pub(super) struct Digests(Mutex<BTreeMap<u64, Digest>>);

/// Bytes that are being hashed. Dropped, nobody wants their digests any more.
pub(super) struct Hashed<'a> {
    digests: &'a Digests,
    /// The first block's number.
    first: u64,
    blocks: Vec<PendingDigest>,
}

impl Digests {
    /// Hashes `bytes`, which stand at `offset` of the object, the beginning of a block; all whole blocks but perhaps
    /// the object's last. The caller has at most `at_once` of such bytes hashed at the same time.
    ///
    /// # Errors
    /// `Failed` where the program is ending.
    pub(crate) async fn hash(&self, offset: u64, bytes: Bytes, at_once: usize) -> Result<()> {
        self.begin(offset, bytes, at_once).end().await
    }

    /// As [`Digests::hash`], for who has other things to do with the bytes first: until the end is asked for they may
    /// wait, to be hashed with others.
    pub(crate) fn begin(&self, offset: u64, bytes: Bytes, at_once: usize) -> Hashed<'_> {
        let starts = (0..bytes.len()).step_by(BLOCK_BYTES as usize);
        let at_once = at_once * starts.len();
        let blocks = starts.map(|at| {
            let block = bytes.slice(at..bytes.len().min(at + BLOCK_BYTES as usize));
            begin_hash(block, at_once)
        });
        let hashed = Hashed {
            digests: self,
            first: offset / BLOCK_BYTES,
            blocks: blocks.collect(),
        };
        // Nobody waits for it here.
        drop(tokio::task::spawn_blocking(hash_full_batch));
        hashed
    }

    /// Takes over what is known of the blocks in `range`, which is whole blocks, from another image with the same bytes
    /// there.
    pub(crate) fn inherit(&self, range: Range<u64>, from: &[Digest]) {
        let blocks = range.start / BLOCK_BYTES..range.end / BLOCK_BYTES;
        let known = blocks.filter_map(|block| {
            let at = usize::try_from(block).ok()?;
            Some((block, *from.get(at)?))
        });
        self.lock().extend(known);
    }

    /// All of an object of so many bytes, or `None` where some are missing.
    pub(crate) fn all(self, size_bytes: u64) -> Option<Vec<Digest>> {
        let digests = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let whole = digests
            .keys()
            .copied()
            .eq(0..size_bytes.div_ceil(BLOCK_BYTES));
        whole.then(|| digests.into_values().collect())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hashed<'_> {
    /// Waits for the digests.
    ///
    /// # Errors
    /// `Failed` where the program is ending.
    pub(crate) async fn end(self) -> Result<()> {
        let blocks = self.blocks;
        let digests = move || blocks.into_iter().map(PendingDigest::digest).collect();
        let hashed: Vec<Digest> = tokio::task::spawn_blocking(digests)
            .await
            .map_err(|error| Error::new(Kind::Failed, "cannot hash an image").with_cause(error))?;
        self.digests.lock().extend((self.first..).zip(hashed));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_come_in_any_order_and_a_missing_one_is_noticed() {
        let block = BLOCK_BYTES as usize;
        let image = Bytes::from_iter((0..3 * block + 5).map(|at| (at / 7) as u8));
        let wanted: Vec<Digest> = image.chunks(block).map(Digest::compute).collect();
        let made = async |with_copy: bool| {
            let digests = Digests::default();
            digests
                .hash(2 * BLOCK_BYTES, image.slice(2 * block..), 1)
                .await
                .unwrap();
            if with_copy {
                digests.inherit(BLOCK_BYTES..2 * BLOCK_BYTES, &wanted);
            }
            digests.hash(0, image.slice(..block), 2).await.unwrap();
            digests.all(image.len() as u64)
        };
        assert_eq!(made(true).await, Some(wanted.clone()));
        assert_eq!(made(false).await, None);
    }
}
