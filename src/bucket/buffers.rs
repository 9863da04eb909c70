//! Buffers for the blocks of a download, used again and again: fresh ones cost the kernel as much time as the copying of
//! their bytes, and leave holes in the heap.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers that nobody uses at the moment.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// An empty buffer with room for `length` bytes.
    pub(super) fn take(&self, length: usize) -> Buffer {
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = buffers.pop().unwrap_or_default();
        bytes.clear();
        bytes.reserve_exact(length);
        Buffer {
            bytes,
            home: self.clone(),
        }
    }
}

/// A buffer that comes back when it is dropped.
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    home: Buffers,
}

impl Buffer {
    /// Its bytes, to be shared; it comes back with the last of who has them.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut buffers = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_the_last_who_has_its_bytes() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take(4);
        buffer.bytes.extend_from_slice(b"abcd");
        let all = buffer.freeze();
        let part = all.slice(1..3);
        drop(all);
        assert!(buffers.take(4).bytes.is_empty(), "another one");
        assert_eq!(&part[..], b"bc");
        let at = part.as_ptr();
        drop(part);
        let mut again: Vec<Buffer> = (0..2).map(|_| buffers.take(4)).collect();
        assert!(
            again
                .iter()
                .any(|one| one.bytes.as_ptr() == at.wrapping_sub(1))
        );
        assert!(
            again
                .pop()
                .is_some_and(|one| one.bytes.is_empty() && one.bytes.capacity() >= 4)
        );
    }
}
