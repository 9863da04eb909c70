//! Parts that have ranges of the files of the chain: sent by the host itself, or read and sent from here.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use bytes::BytesMut;
use futures_util::{StreamExt, stream};

use snapdeck_model::{BLOCK_BYTES, Result};

use super::upload::ComposedUpload;

/// Ranges of a file that the host reads by one command.
pub(super) const MAX_RANGES: usize = 256;
/// Bytes of one read.
const READ_BYTES: u64 = 2 << 20;

/// Concurrent reads of a part.
const MAX_READS: usize = 4;

/// Bytes of a part: in memory, or a range of the file of a layer.
pub(super) enum Piece {
    Bytes(BytesMut),
    File { layer: usize, range: Range<u64> },
}

/// Returns the layer and the ranges of its file if a part has nothing else: the host can send it. More ranges are not one command.
pub(super) fn ranges_of_one_layer(pieces: &[Piece]) -> Option<(usize, Vec<Range<u64>>)> {
    let mut ranges = Vec::new();
    let mut only_layer = None;
    for piece in pieces {
        match piece {
            Piece::File { layer, range } if *only_layer.get_or_insert(*layer) == *layer => {
                ranges.push(range.clone());
            }
            _ => return None,
        }
    }
    let layer = only_layer.filter(|_| ranges.len() <= MAX_RANGES)?;
    Some((layer, ranges))
}

impl ComposedUpload<'_> {
    /// Has the host send a part that has only ranges of the file of a layer; returns whether the store has the part then. With
    /// `is_known_new` no other object has it.
    pub(super) async fn send_ranges(
        &self,
        index: u64,
        (layer, ranges): (usize, &[Range<u64>]),
        is_known_new: bool,
    ) -> Result<bool> {
        let Some(direct) = &self.direct else {
            return Ok(false);
        };
        let reader = self.chain.reader(layer)?;
        let offset = index * self.part_bytes;
        let length: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        if !is_known_new && !self.index.is_empty() && length == self.part_bytes {
            let Some(digests) = direct.hash(reader, ranges, BLOCK_BYTES).await? else {
                return Ok(false);
            };
            if self.copy_known(index, &digests).await? {
                self.digests.set(offset, &digests);
                return Ok(true);
            }
        }
        let Some(digests) = direct.send(reader, index, ranges).await? else {
            return Ok(false);
        };
        self.uploaded_bytes.fetch_add(length, Relaxed);
        self.digests.set(offset, &digests);
        Ok(true)
    }

    /// Returns the bytes of pieces.
    pub(super) async fn read_pieces(&self, pieces: Vec<Piece>) -> Result<BytesMut> {
        let mut bytes = self.acquire_buffer();
        let reads = pieces
            .into_iter()
            .flat_map(split)
            .map(async |piece| match piece {
                Piece::Bytes(bytes) => Ok(bytes.freeze()),
                Piece::File { layer, range } => {
                    let (reader, length) = (self.chain.reader(layer)?, range.end - range.start);
                    let read = reader.read_at(&self.buffers, range.start, length as usize);
                    read.await
                }
            });
        let mut reads = stream::iter(reads).buffered(MAX_READS);
        while let Some(read) = reads.next().await {
            bytes.extend_from_slice(&read?);
        }
        Ok(bytes)
    }
}

/// Splits a range of a file into reads.
fn split(piece: Piece) -> Vec<Piece> {
    let Piece::File { layer, range } = piece else {
        return vec![piece];
    };
    let starts = range.clone().step_by(READ_BYTES as usize);
    let reads = starts.map(|start| Piece::File {
        layer,
        range: start..range.end.min(start + READ_BYTES),
    });
    reads.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(layer: usize, start: u64) -> Piece {
        Piece::File {
            layer,
            range: start..start + 1,
        }
    }

    #[test]
    fn a_part_of_ranges_of_one_file_is_one_for_the_host() {
        let pieces = [file(1, 5), file(1, 0)];
        assert_eq!(ranges_of_one_layer(&pieces), Some((1, vec![5..6, 0..1])));
        assert_eq!(ranges_of_one_layer(&[file(1, 5), file(0, 0)]), None);
        let mixed = [file(1, 5), Piece::Bytes(BytesMut::zeroed(3))];
        assert_eq!(ranges_of_one_layer(&mixed), None);
        assert_eq!(ranges_of_one_layer(&[]), None);
        let pieces: Vec<Piece> = (0..=MAX_RANGES as u64).map(|at| file(0, 2 * at)).collect();
        assert_eq!(ranges_of_one_layer(&pieces), None);
        assert!(ranges_of_one_layer(&pieces[1..]).is_some());
    }
}
