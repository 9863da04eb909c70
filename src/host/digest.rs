//! SHA-256 of blocks, by a widely used library: the integrity of golden images depends on it. With the CPU's SHA
//! instructions it is faster than any store.

use aws_lc_rs::digest::{Context, SHA256, digest};

use snapdeck_model::Digest;

/// Returns the digest of one block.
///
/// This takes milliseconds per MiB: do not call it on an async worker.
pub fn hash_block(block: &[u8]) -> Digest {
    to_digest(digest(&SHA256, block))
}

/// Hashes a block in chunks.
pub(crate) struct BlockHasher(Context);

impl Default for BlockHasher {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl BlockHasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        to_digest(self.0.finish())
    }
}

fn to_digest(hashed: aws_lc_rs::digest::Digest) -> Digest {
    // The library returns the 32 bytes as a slice.
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hashed.as_ref());
    Digest(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_the_digest_of_the_whole_block() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut hasher = BlockHasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hash_block(b"abc").to_string(), hex);
        assert_eq!(hasher.finish().to_string(), hex);
    }
}
