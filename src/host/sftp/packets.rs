//! Checks the lengths of packets before the SFTP client takes memory for them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::invalid_data;

/// Length of the first packet behind its length, at least: a type and a version (draft-ietf-secsh-filexfer-02, section 4).
const MIN_FIRST_PACKET_BYTES: u32 = 5;
/// Length of the others: a type, an id, and a number, which the client subtracts without a check (sections 3 and 7).
const MIN_PACKET_BYTES: u32 = 9;
/// Length of the longest: OpenSSH sends 256 KiB (sftp-common.h, `SFTP_MAX_MSG_LENGTH`).
const MAX_PACKET_BYTES: u32 = 257 * 1024;

/// The output of an SFTP server, which fails at a packet of an invalid length.
pub(super) struct CheckedPackets<R> {
    inner: R,
    /// The bytes of a length that were read.
    length: [u8; 4],
    length_bytes: usize,
    /// Bytes of the packet that were not read.
    rest: usize,
    min_packet_bytes: u32,
}

impl<R> CheckedPackets<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            length: [0; 4],
            length_bytes: 0,
            rest: 0,
            min_packet_bytes: MIN_FIRST_PACKET_BYTES,
        }
    }

    /// Records the bytes of a length, or of a packet, that were read.
    fn record(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.rest > 0 {
            self.rest -= bytes.len();
            return Ok(());
        }
        let slots = self.length.iter_mut().skip(self.length_bytes);
        slots.zip(bytes).for_each(|(slot, byte)| *slot = *byte);
        self.length_bytes += bytes.len();
        if self.length_bytes < self.length.len() {
            return Ok(());
        }
        let length = u32::from_be_bytes(self.length);
        if !(self.min_packet_bytes..=MAX_PACKET_BYTES).contains(&length) {
            return Err(invalid_data(format!("a packet of {length} bytes")));
        }
        self.min_packet_bytes = MIN_PACKET_BYTES;
        (self.length_bytes, self.rest) = (0, length as usize);
        Ok(())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for CheckedPackets<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wanted = match self.rest {
            0 => self.length.len() - self.length_bytes,
            rest => rest,
        };
        let length = wanted.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(length));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        self.record(part.filled())?;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        let mut packets = CheckedPackets::new(bytes);
        packets.read_to_end(&mut read).await.map(|_| read)
    }

    #[tokio::test]
    async fn packets_pass_and_those_of_an_invalid_length_fail() {
        let packet = |length: u32| [&length.to_be_bytes()[..], &vec![7; length as usize]].concat();
        let valid = [packet(5), packet(MAX_PACKET_BYTES), packet(9)].concat();
        assert_eq!(read(&valid).await.unwrap(), valid);
        assert_eq!(
            read(&valid[..valid.len() - 3]).await.unwrap().len(),
            valid.len() - 3
        );
        assert!(read(&packet(4)).await.is_err());
        for length in [0, 4, 5, 8, MAX_PACKET_BYTES + 1, u32::MAX] {
            let bytes = [packet(6), length.to_be_bytes().to_vec(), vec![7; 100]].concat();
            let error = read(&bytes).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}");
        }
    }
}
