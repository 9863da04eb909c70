//! Large buffers, used again and again: fresh ones cost the kernel as much time as the copying of their bytes.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

/// Buffers that were shared once, to be used again when nobody has their bytes any more: as many, of the capacity (bytes)
/// beside each, as were in use at once.
#[derive(Clone, Default)]
pub struct BufferPool(Arc<Mutex<Vec<(usize, Bytes)>>>);

impl BufferPool {
    /// Shorter ones (bytes) are not worth the keeping.
    const MIN_CAPACITY: usize = 256 << 10;

    /// A buffer with room for `length` bytes, at most twice as many. Those in it, at most `length`, are left from its last
    /// use: memory that nobody fills is not touched.
    pub fn acquire(&self, length: usize) -> BytesMut {
        match self.remove_best_fit(length) {
            Some(mut buffer) if (length..=2 * length).contains(&buffer.capacity()) => {
                buffer.truncate(length);
                buffer
            }
            // The place of one that does not fit is free for one that does.
            _ => BytesMut::with_capacity(length),
        }
    }

    /// The bytes of a buffer, to be shared; it is used again after the last of who has them.
    pub fn share(&self, buffer: BytesMut) -> Bytes {
        let capacity = buffer.capacity();
        let bytes = buffer.freeze();
        if capacity >= Self::MIN_CAPACITY {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push((capacity, bytes.clone()));
        }
        bytes
    }

    /// Gives back the memory of those that nobody uses: what follows needs others.
    pub fn release_unused(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, bytes)| !bytes.is_unique());
    }

    /// The one that fits best of those that nobody uses.
    fn remove_best_fit(&self, length: usize) -> Option<BytesMut> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = kept
            .iter()
            .enumerate()
            .filter(|(_, (_, bytes))| bytes.is_unique());
        let (index, _) = unused.min_by_key(|(_, (capacity, _))| capacity.abs_diff(length))?;
        kept.swap_remove(index).1.try_into_mut().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 1 << 20;

    fn full(buffers: &BufferPool, length: usize) -> BytesMut {
        let mut buffer = buffers.acquire(length);
        buffer.resize(length, b'a');
        buffer
    }

    #[test]
    fn a_buffer_is_used_again_after_the_last_who_has_its_bytes() {
        let buffers = BufferPool::default();
        let buffer = full(&buffers, LENGTH);
        let at = buffer.as_ptr();
        let all = buffers.share(buffer);
        let part = all.slice(1..3);
        drop(all);
        assert_ne!(full(&buffers, LENGTH).as_ptr(), at, "somebody has it");
        assert_eq!(&part[..], b"aa");
        drop(part);
        let again = buffers.acquire(LENGTH - 1);
        assert_eq!((again.as_ptr(), again.len()), (at, LENGTH - 1));
    }

    #[test]
    fn one_that_was_cut_into_parts_is_used_again_whole() {
        let buffers = BufferPool::default();
        let mut buffer = full(&buffers, LENGTH);
        let at = buffer.as_ptr();
        let rest = buffer.split_off(LENGTH / 2);
        buffer.unsplit(rest);
        drop(buffers.share(buffer));
        let again = buffers.acquire(LENGTH);
        assert_eq!((again.as_ptr(), again.len()), (at, LENGTH));
    }

    #[test]
    fn one_that_does_not_fit_makes_place_for_one_that_does() {
        for length in [LENGTH / 4, LENGTH * 2] {
            let buffers = BufferPool::default();
            drop(buffers.share(full(&buffers, LENGTH)));
            let other = buffers.acquire(length);
            assert!((length..=2 * length).contains(&other.capacity()));
            assert!(buffers.0.lock().unwrap().is_empty());
        }
    }
}
