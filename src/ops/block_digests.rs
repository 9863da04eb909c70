//! Digests of an object's blocks, collected while its parts are produced in any order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use snapdeck_host::hash_block;
use snapdeck_model::{BLOCK_BYTES, Digest, Error, Kind, Result, block_count};
use tokio::task::JoinHandle;

/// Digests by block number.
#[derive(Default)]
pub(crate) struct BlockDigests(Mutex<BTreeMap<u64, Digest>>);

/// Consecutive blocks that are being hashed.
pub(crate) struct PendingDigests<'a> {
    digests: &'a BlockDigests,
    first_block: u64,
    hashing: JoinHandle<Vec<Digest>>,
}

impl BlockDigests {
    /// Hashes `bytes` at `offset` of the object, which are whole blocks except the object's last.
    ///
    /// # Errors
    /// `Failed` if the program is exiting.
    pub(crate) async fn hash(&self, offset: u64, bytes: Bytes) -> Result<()> {
        self.begin(offset, bytes).finish().await.map(drop)
    }

    /// Starts [`BlockDigests::hash`] in the background.
    pub(crate) fn begin(&self, offset: u64, bytes: Bytes) -> PendingDigests<'_> {
        PendingDigests {
            digests: self,
            first_block: offset / BLOCK_BYTES,
            hashing: tokio::task::spawn_blocking(move || {
                bytes.chunks(BLOCK_BYTES as usize).map(hash_block).collect()
            }),
        }
    }

    /// Takes the digests of the whole blocks in `range` from another image that has the same bytes there.
    pub(crate) fn inherit(&self, range: Range<u64>, digests: &[Digest]) {
        let blocks = range.start / BLOCK_BYTES..range.end / BLOCK_BYTES;
        let inherited = blocks.filter_map(|block| {
            let index = usize::try_from(block).ok()?;
            Some((block, *digests.get(index)?))
        });
        self.lock().extend(inherited);
    }

    /// Sets the digests of consecutive blocks, of which the first is at `offset` of the object.
    pub(crate) fn set(&self, offset: u64, digests: &[Digest]) {
        let digests = digests.iter().copied();
        self.lock().extend((offset / BLOCK_BYTES..).zip(digests));
    }

    /// Returns the digests of all blocks of an object of `size_bytes`, or `None` if any is missing.
    pub(crate) fn all(self, size_bytes: u64) -> Option<Vec<Digest>> {
        let digests = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let is_complete = digests.keys().copied().eq(0..block_count(size_bytes));
        is_complete.then(|| digests.into_values().collect())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingDigests<'_> {
    /// Waits for the digests, records and returns them.
    ///
    /// # Errors
    /// `Failed` if the program is exiting.
    pub(crate) async fn finish(self) -> Result<Vec<Digest>> {
        let digests = (self.hashing.await)
            .map_err(|error| Error::new(Kind::Failed, "cannot hash an image").with_cause(error))?;
        self.digests.set(self.first_block * BLOCK_BYTES, &digests);
        Ok(digests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn digests_are_complete_only_with_every_block() {
        let block = BLOCK_BYTES as usize;
        let image = Bytes::from_iter((0..3 * block + 5).map(|offset| (offset / 7) as u8));
        let expected: Vec<Digest> = image.chunks(block).map(hash_block).collect();
        let collect = async |has_inherited: bool| {
            let digests = BlockDigests::default();
            digests
                .hash(2 * BLOCK_BYTES, image.slice(2 * block..))
                .await
                .unwrap();
            if has_inherited {
                digests.inherit(BLOCK_BYTES..2 * BLOCK_BYTES, &expected);
            }
            digests.hash(0, image.slice(..block)).await.unwrap();
            digests.all(image.len() as u64)
        };
        assert_eq!(collect(false).await, None);
        assert_eq!(collect(true).await, Some(expected));
    }
}
