//! Splits the tail of a composed image into parts: bytes, and ranges of the files of the chain that the host may send itself.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use snapdeck_model::Result;

use super::abort::internal_error;
use super::pieces::{Piece, ranges_of_one_layer};
use super::upload::ComposedUpload;

/// A part, to be sent.
pub(super) struct ReadyPart {
    pub index: u64,
    pub content: PartContent,
    /// A slot of the memory; for a part that the host sends, one of [`DirectUpload`](crate::direct_upload::DirectUpload).
    pub permit: OwnedSemaphorePermit,
}

pub(super) enum PartContent {
    Bytes(Bytes),
    Pieces(Vec<Piece>),
    /// Only ranges of the file of a layer.
    Ranges(usize, Vec<Range<u64>>),
}

/// Splits the tail into parts, beginning with the part in which it starts.
pub(super) struct PartWriter<'a, 's> {
    uploader: &'s ComposedUpload<'a>,
    part_tx: UnboundedSender<ReadyPart>,
    /// Index of the current part.
    index: u64,
    /// The first bytes of the current part, if it has ranges of files.
    pieces: Vec<Piece>,
    pieces_bytes: u64,
    /// The bytes behind them.
    pub buffer: BytesMut,
    /// The object's first part once it is full: its head is written last.
    first_part: Option<BytesMut>,
}

impl<'a, 's> PartWriter<'a, 's> {
    /// Begins with the part `index`, of which `buffer` has the first bytes.
    pub(super) fn new(
        uploader: &'s ComposedUpload<'a>,
        part_tx: UnboundedSender<ReadyPart>,
        index: u64,
        buffer: BytesMut,
    ) -> Self {
        Self {
            uploader,
            part_tx,
            index,
            pieces: Vec::new(),
            pieces_bytes: 0,
            buffer,
            first_part: None,
        }
    }

    /// Appends a range of the file of a layer; queues the parts that are full.
    pub(super) async fn add_range(&mut self, layer: usize, mut range: Range<u64>) -> Result<()> {
        while !range.is_empty() {
            self.flush_full_parts().await?;
            if !self.buffer.is_empty() {
                self.pieces_bytes += self.buffer.len() as u64;
                // A copy: it may be short, and the buffer has room for a part.
                let bytes = BytesMut::from(&self.buffer[..]);
                self.buffer.clear();
                self.pieces.push(Piece::Bytes(bytes));
            }
            let room = self.uploader.part_bytes - self.pieces_bytes;
            let end = range.end.min(range.start + room);
            self.pieces_bytes += end - range.start;
            match self.pieces.last_mut() {
                Some(Piece::File {
                    layer: last_layer,
                    range: last,
                }) if *last_layer == layer && last.end == range.start => last.end = end,
                _ => self.pieces.push(Piece::File {
                    layer,
                    range: range.start..end,
                }),
            }
            range.start = end;
        }
        self.flush_full_parts().await
    }

    /// Queues the full parts in the buffer.
    pub(super) async fn flush_full_parts(&mut self) -> Result<()> {
        let part_bytes = self.uploader.part_bytes as usize;
        loop {
            // Less than a part: `add_range` adds no more.
            let length = part_bytes - self.pieces_bytes as usize;
            if self.buffer.len() < length {
                return Ok(());
            }
            if length == 0 {
                self.flush_part(BytesMut::new()).await?;
                continue;
            }
            // The next part has no buffer of its own until the full one has a slot: large parts would take too much memory.
            let rest = Bytes::copy_from_slice(&self.buffer[length..]);
            self.buffer.truncate(length);
            let full = std::mem::take(&mut self.buffer);
            self.flush_part(full).await?;
            self.buffer = self.uploader.acquire_buffer();
            self.buffer.extend_from_slice(&rest);
        }
    }

    /// Queues a part that has the pieces, and then `bytes`.
    async fn flush_part(&mut self, bytes: BytesMut) -> Result<()> {
        let index = self.index;
        self.index += 1;
        self.pieces_bytes = 0;
        let mut pieces = std::mem::take(&mut self.pieces);
        if index == 0 {
            pieces.push(Piece::Bytes(bytes));
            self.first_part = Some(self.uploader.read_pieces(pieces).await?);
            return Ok(());
        }
        let ranges = ranges_of_one_layer(&pieces).filter(|_| bytes.is_empty());
        let direct = self.uploader.direct.as_ref().zip(ranges);
        let ready = if let Some((direct, (layer, ranges))) = direct
            && let Some(permit) = direct.acquire_slot().await
        {
            ReadyPart {
                index,
                content: PartContent::Ranges(layer, ranges),
                permit,
            }
        } else {
            let content = match pieces.is_empty() {
                true => PartContent::Bytes(self.uploader.buffers.share(bytes)),
                false => {
                    if !bytes.is_empty() {
                        pieces.push(Piece::Bytes(bytes));
                    }
                    PartContent::Pieces(pieces)
                }
            };
            ReadyPart {
                index,
                content,
                permit: self.uploader.acquire_slot().await?,
            }
        };
        let queued = self.part_tx.send(ready);
        queued.map_err(|_| internal_error("the upload has ended"))
    }

    /// Queues the last part; returns the first one, if the tail begins in it.
    pub(super) async fn finish(mut self) -> Result<Option<BytesMut>> {
        if !self.buffer.is_empty() || !self.pieces.is_empty() {
            let last = std::mem::take(&mut self.buffer);
            self.flush_part(last).await?;
        }
        Ok(self.first_part)
    }
}
