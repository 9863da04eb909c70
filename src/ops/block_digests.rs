//! The digests of an object's blocks, gathered while its parts are made in any order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use snapdeck_host::hash_block;
use snapdeck_model::{BLOCK_BYTES, Digest, Error, Kind, Result};
use tokio::task::JoinHandle;

/// Digests by their block's number.
#[derive(Default)]
pub(crate) struct BlockDigests(Mutex<BTreeMap<u64, Digest>>);

/// A run of blocks that is being hashed.
pub(crate) struct PendingDigests<'a> {
    digests: &'a BlockDigests,
    /// The first block's number.
    first_block: u64,
    blocks: JoinHandle<Vec<Digest>>,
}

impl BlockDigests {
    /// Hashes `bytes` at `offset` of the object, the beginning of a block: whole blocks, except the object's last.
    ///
    /// # Errors
    /// `Failed` where the program is ending.
    pub(crate) async fn hash(&self, offset: u64, bytes: Bytes) -> Result<()> {
        self.begin(offset, bytes).finish().await
    }

    /// Begins what [`BlockDigests::hash`] does, beside other work on the same bytes.
    pub(crate) fn begin(&self, offset: u64, bytes: Bytes) -> PendingDigests<'_> {
        PendingDigests {
            digests: self,
            first_block: offset / BLOCK_BYTES,
            blocks: tokio::task::spawn_blocking(move || {
                bytes.chunks(BLOCK_BYTES as usize).map(hash_block).collect()
            }),
        }
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

impl PendingDigests<'_> {
    /// Waits for the digests and records them.
    ///
    /// # Errors
    /// `Failed` where the program is ending.
    pub(crate) async fn finish(self) -> Result<()> {
        let digests = (self.blocks.await)
            .map_err(|error| Error::new(Kind::Failed, "cannot hash an image").with_cause(error))?;
        self.digests
            .lock()
            .extend((self.first_block..).zip(digests));
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
        let wanted: Vec<Digest> = image.chunks(block).map(hash_block).collect();
        let made = async |with_copy: bool| {
            let digests = BlockDigests::default();
            digests
                .hash(2 * BLOCK_BYTES, image.slice(2 * block..))
                .await
                .unwrap();
            if with_copy {
                digests.inherit(BLOCK_BYTES..2 * BLOCK_BYTES, &wanted);
            }
            digests.hash(0, image.slice(..block)).await.unwrap();
            digests.all(image.len() as u64)
        };
        assert_eq!(made(true).await, Some(wanted.clone()));
        assert_eq!(made(false).await, None);
    }
}
