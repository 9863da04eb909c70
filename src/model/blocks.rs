//! Sets of an image's blocks.

use super::BLOCK_BYTES;

/// How many blocks an image of `size_bytes` has.
pub fn block_count(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(BLOCK_BYTES)
}

/// Bytes of one block of an image of `size_bytes`; 0 past its end.
pub fn block_bytes(block: u64, size_bytes: u64) -> u64 {
    let offset = block.saturating_mul(BLOCK_BYTES);
    size_bytes.saturating_sub(offset).min(BLOCK_BYTES)
}

/// Some of the blocks of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSet {
    size_bytes: u64,
    words: Vec<u64>,
}

impl BlockSet {
    /// None of the blocks of an image of `size_bytes`.
    pub fn none(size_bytes: u64) -> Self {
        let words = block_count(size_bytes).div_ceil(64);
        Self {
            size_bytes,
            words: vec![0; usize::try_from(words).unwrap_or(0)],
        }
    }

    /// All of them.
    pub fn all(size_bytes: u64) -> Self {
        let mut set = Self::none(size_bytes);
        for block in 0..block_count(size_bytes) {
            set.insert(block);
        }
        set
    }

    /// Those that `wanted` wants.
    pub fn from_predicate(size_bytes: u64, wanted: impl Fn(u64) -> bool) -> Self {
        let mut set = Self::none(size_bytes);
        for block in (0..block_count(size_bytes)).filter(|block| wanted(*block)) {
            set.insert(block);
        }
        set
    }

    /// Takes a block in; what is past the image's end is passed over.
    pub fn insert(&mut self, block: u64) {
        if block < block_count(self.size_bytes)
            && let Some(word) = self.words.get_mut((block / 64) as usize)
        {
            *word |= 1 << (block % 64);
        }
    }

    /// Takes a block out.
    pub fn remove(&mut self, block: u64) {
        if let Some(word) = self.words.get_mut((block / 64) as usize) {
            *word &= !(1 << (block % 64));
        }
    }

    /// Takes all of another set of the same image in.
    pub fn extend(&mut self, other: &Self) {
        other.iter().for_each(|block| self.insert(block));
    }

    /// Is it in?
    pub fn contains(&self, block: u64) -> bool {
        let word = self.words.get((block / 64) as usize);
        word.is_some_and(|word| word & (1 << (block % 64)) != 0)
    }

    /// Is none in?
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// How many are in.
    pub fn len(&self) -> u64 {
        let ones = self.words.iter().map(|word| u64::from(word.count_ones()));
        ones.sum()
    }

    /// Bytes of those that are in; the last block of an image may be shorter than the others.
    pub fn bytes(&self) -> u64 {
        let bytes = self.iter().map(|block| block_bytes(block, self.size_bytes));
        bytes.sum()
    }

    /// Length of the image, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Those that are in, in their order.
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
        let told: Vec<String> = runs
            .iter()
            .take(8)
            .map(|(first, last)| match first == last {
                true => first.to_string(),
                false => format!("{first}-{last}"),
            })
            .collect();
        out.write_str(&told.join(", "))?;
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
    fn blocks_of_an_image_and_no_others_are_in() {
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
    fn is_told_in_runs() {
        let set = |blocks: &[u64]| {
            BlockSet::from_predicate(SIZE, |block| blocks.contains(&block)).to_string()
        };
        assert_eq!(set(&[7]), "7");
        assert_eq!(set(&[0, 3, 4, 5, 9]), "0, 3-5, 9");
        let even = BlockSet::from_predicate(SIZE, |block| block.is_multiple_of(2));
        assert_eq!(even.to_string(), "0, 2, 4, 6, 8, 10, 12, 14 and 57 more");
    }
}
