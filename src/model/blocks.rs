//! Blocks of an image and sets of them.

/// Length in bytes of a block, the unit in which images are hashed, compared and fetched; the last one may be shorter.
pub const BLOCK_BYTES: u64 = 8 << 20;

/// Maximum length in bytes of an image: the largest object of most stores (S3 user guide, "Amazon S3 multipart upload
/// limits"), whose digests fit into a manifest. What an operation has in memory per block is bounded by it.
pub const MAX_IMAGE_BYTES: u64 = 5 << 40;

/// Returns the number of blocks of an image of `size_bytes`.
pub fn block_count(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(BLOCK_BYTES)
}

/// Returns the length in bytes of a block of an image of `size_bytes`; 0 past its end.
pub fn block_bytes(block: u64, size_bytes: u64) -> u64 {
    let offset = block.saturating_mul(BLOCK_BYTES);
    size_bytes.saturating_sub(offset).min(BLOCK_BYTES)
}

/// A set of blocks of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSet {
    size_bytes: u64,
    words: Vec<u64>,
}

impl BlockSet {
    /// Returns the empty set of an image of `size_bytes`.
    pub fn none(size_bytes: u64) -> Self {
        let words = block_count(size_bytes).div_ceil(64);
        Self {
            size_bytes,
            words: vec![0; usize::try_from(words).unwrap_or(0)],
        }
    }

    /// Returns the set of all blocks.
    pub fn all(size_bytes: u64) -> Self {
        Self::from_predicate(size_bytes, |_| true)
    }

    /// Returns the set of the blocks for which `includes` is true.
    pub fn from_predicate(size_bytes: u64, includes: impl Fn(u64) -> bool) -> Self {
        let mut set = Self::none(size_bytes);
        for block in (0..block_count(size_bytes)).filter(|block| includes(*block)) {
            set.insert(block);
        }
        set
    }

    /// Adds a block; one past the image's end is ignored.
    pub fn insert(&mut self, block: u64) {
        if block < block_count(self.size_bytes)
            && let Some(word) = self.words.get_mut((block / 64) as usize)
        {
            *word |= 1 << (block % 64);
        }
    }

    /// Removes a block.
    pub fn remove(&mut self, block: u64) {
        if let Some(word) = self.words.get_mut((block / 64) as usize) {
            *word &= !(1 << (block % 64));
        }
    }

    /// Adds all blocks of another set of the same image.
    pub fn extend(&mut self, other: &Self) {
        other.iter().for_each(|block| self.insert(block));
    }

    /// Returns whether the set has the block.
    pub fn contains(&self, block: u64) -> bool {
        let word = self.words.get((block / 64) as usize);
        word.is_some_and(|word| word & (1 << (block % 64)) != 0)
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Maximum length in bytes of an image: the largest object of most stores (S3 user guide, "Amazon S3 multipart upload
    /// limits"), whose digests fit into a manifest. What an operation has in memory per block is bounded by it.
    pub const MAX_IMAGE_BYTES: u64 = 5 << 40;

    /// Returns the number of blocks in the set.
    pub fn len(&self) -> u64 {
        let ones = self.words.iter().map(|word| u64::from(word.count_ones()));
        ones.sum()
    }

    /// Returns the bytes of the blocks in the set; the last block of an image may be shorter.
    pub fn bytes(&self) -> u64 {
        let bytes = self.iter().map(|block| block_bytes(block, self.size_bytes));
        bytes.sum()
    }

    /// Returns the length of the image in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Iterates over the blocks in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        let words = self
            .words
            .iter()
            .enumerate()
            .filter(|(_, word)| **word != 0);
        words.flat_map(|(index, word)| {
            (0..64)
                .filter(move |bit| word & (1 << bit) != 0)
                .map(move |bit| index as u64 * 64 + bit)
        })
    }
}

/// `0, 3-5 and 12 more`: at most 8 runs are named.
impl std::fmt::Display for BlockSet {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for block in self.iter() {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == block => *last = block,
                _ => runs.push((block, block)),
            }
        }
        let texts: Vec<String> = runs
            .iter()
            .take(8)
            .map(|(first, last)| match first == last {
                true => first.to_string(),
                false => format!("{first}-{last}"),
            })
            .collect();
        out.write_str(&texts.join(", "))?;
        let more: u64 = runs
            .iter()
            .skip(8)
            .map(|(first, last)| last - first + 1)
            .sum();
        match more {
            0 => Ok(()),
            more => write!(out, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 129 * BLOCK_BYTES + 1;

    #[test]
    fn only_blocks_of_the_image_are_added() {
        let mut set = BlockSet::none(SIZE);
        assert!(set.is_empty());
        for block in [0, 63, 64, 129, 130, u64::MAX] {
            set.insert(block);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!((set.len(), set.bytes()), (4, 3 * BLOCK_BYTES + 1));
        set.remove(63);
        assert!(!set.contains(63) && set.contains(129) && !set.contains(130));
        let all = BlockSet::all(SIZE);
        assert_eq!((all.len(), all.bytes()), (130, SIZE));
        set.extend(&all);
        assert_eq!(set, all);
        assert!(BlockSet::all(0).is_empty());
    }

    #[test]
    fn display_shows_runs() {
        let set = |blocks: &[u64]| {
            BlockSet::from_predicate(SIZE, |block| blocks.contains(&block)).to_string()
        };
        assert_eq!(set(&[7]), "7");
        assert_eq!(set(&[0, 3, 4, 5, 9]), "0, 3-5, 9");
        let even = BlockSet::from_predicate(SIZE, |block| block.is_multiple_of(2));
        assert_eq!(even.to_string(), "0, 2, 4, 6, 8, 10, 12, 14 and 57 more");
    }
}
