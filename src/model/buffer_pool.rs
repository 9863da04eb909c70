//! Pool of large buffers: the kernel needs as much time to map a fresh one as it takes to copy its bytes.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

/// Shared buffers with their capacity in bytes; one is reused when no other handle to its bytes remains.
#[derive(Clone, Default)]
pub struct BufferPool(Arc<Mutex<Vec<(usize, Bytes)>>>);

impl BufferPool {
    /// Capacity in bytes from which a buffer is pooled.
    const MIN_CAPACITY: usize = 256 << 10;

    /// Returns a buffer with a capacity of `length` to `2 * length` bytes. It contains at most `length` bytes of its last
    /// use, which are not cleared.
    pub fn acquire(&self, length: usize) -> BytesMut {
        match self.remove_best_fit(length) {
            Some(mut buffer) if (length..=2 * length).contains(&buffer.capacity()) => {
                buffer.truncate(length);
                buffer
            }
            // A buffer that does not fit is dropped in favour of one that does.
            _ => BytesMut::with_capacity(length),
        }
    }

    /// Returns the bytes of a buffer, which is reused after the last handle to them is dropped.
    pub fn share(&self, buffer: BytesMut) -> Bytes {
        let capacity = buffer.capacity();
        let bytes = buffer.freeze();
        if capacity >= Self::MIN_CAPACITY {
            let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            pool.push((capacity, bytes.clone()));
        }
        bytes
    }

    /// Frees unused buffers.
    pub fn release_unused(&self) {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.retain(|(_, bytes)| !bytes.is_unique());
    }

    fn remove_best_fit(&self, length: usize) -> Option<BytesMut> {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = pool
            .iter()
            .enumerate()
            .filter(|(_, (_, bytes))| bytes.is_unique());
        let (index, _) = unused.min_by_key(|(_, (capacity, _))| capacity.abs_diff(length))?;
        pool.swap_remove(index).1.try_into_mut().ok()
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
    fn buffer_is_reused_after_its_last_handle() {
        let buffers = BufferPool::default();
        let buffer = full(&buffers, LENGTH);
        let at = buffer.as_ptr();
        let all = buffers.share(buffer);
        let part = all.slice(1..3);
        drop(all);
        assert_ne!(full(&buffers, LENGTH).as_ptr(), at, "still in use");
        assert_eq!(&part[..], b"aa");
        drop(part);
        let again = buffers.acquire(LENGTH - 1);
        assert_eq!((again.as_ptr(), again.len()), (at, LENGTH - 1));
    }

    #[test]
    fn buffer_that_was_split_is_reused_whole() {
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
    fn buffer_that_does_not_fit_is_replaced() {
        for length in [LENGTH / 4, LENGTH * 2] {
            let buffers = BufferPool::default();
            drop(buffers.share(full(&buffers, LENGTH)));
            let other = buffers.acquire(length);
            assert!((length..=2 * length).contains(&other.capacity()));
            assert!(buffers.0.lock().unwrap().is_empty());
        }
    }
}
