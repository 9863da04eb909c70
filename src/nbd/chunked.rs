//! Long reads and writes at offsets, made as several requests at once.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;

use snapdeck_model::BufferPool;

/// Fails for what is not wholly within the first `size_bytes`.
///
/// # Errors
/// `InvalidInput`.
pub fn check_bounds(size_bytes: u64, offset: u64, length: usize) -> io::Result<()> {
    match offset.checked_add(length as u64) {
        Some(end) if end <= size_bytes => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{length} bytes at {offset} end behind the last of {size_bytes}"),
        )),
    }
}

/// Reads `length` bytes at `offset` by calls of `read` for at most `step` (not 0) bytes each: an offset, a length, and
/// an empty buffer with room for just that, which it returns filled. All are parts of one of `buffers`, so nothing is
/// copied.
///
/// # Errors
/// The first of `read`.
pub async fn read_chunked<F>(
    buffers: &BufferPool,
    offset: u64,
    length: usize,
    step: usize,
    read: impl Fn(u64, usize, BytesMut) -> F,
) -> io::Result<Bytes>
where
    F: Future<Output = io::Result<BytesMut>>,
{
    let mut free = buffers.acquire(length);
    free.clear();
    let parts = (0..length).step_by(step).map(|start| {
        let part_length = step.min(length - start);
        let rest = free.split_off(part_length);
        let part = std::mem::replace(&mut free, rest);
        read(offset + start as u64, part_length, part)
    });
    let mut whole = BytesMut::new();
    for part in try_join_all(parts).await? {
        whole.unsplit(part);
    }
    Ok(buffers.share(whole))
}

/// Writes `data` at `offset` by calls of `write` for at most `step` (not 0) bytes each.
///
/// # Errors
/// The first of `write`; others may have been carried out.
pub async fn write_chunked<F>(
    offset: u64,
    data: Bytes,
    step: usize,
    write: impl Fn(u64, Bytes) -> F,
) -> io::Result<()>
where
    F: Future<Output = io::Result<()>>,
{
    let parts = (0..data.len()).step_by(step).map(|start| {
        let end = data.len().min(start + step);
        write(offset + start as u64, data.slice(start..end))
    });
    try_join_all(parts).await.map(|_| ())
}
