//! SHA-256 of blocks. One library that is widely used does it: golden images depend on it, and with the CPU's
//! instructions it is faster than any store.

use aws_lc_rs::digest::{Context, SHA256, digest};

use snapdeck_model::Digest;

/// Returns the digest of one block. Takes milliseconds per MiB: not for an async worker.
pub fn hash_block(block: &[u8]) -> Digest {
    to_digest(digest(&SHA256, block))
}

/// A block that is hashed piece by piece.
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
    let mut bytes = [0; 32];
    // The library gives the length by a slice only.
    for (byte, hashed) in bytes.iter_mut().zip(hashed.as_ref()) {
        *byte = *hashed;
    }
    Digest(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_same_in_one_piece_and_in_many() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut hasher = BlockHasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hash_block(b"abc").to_string(), hex);
        assert_eq!(hasher.finish().to_string(), hex);
    }
}
