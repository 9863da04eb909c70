//! Compressed clusters: raw deflate, or one zstd frame ("Compressed Clusters Descriptor").

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use snapdeck_model::Compression;

/// Window of a zstd frame, as a power of two. A cluster has 2 MiB at most; a frame that asks for more is not QEMU's.
const WINDOW_LOG: u32 = 23;
/// The level QEMU uses.
const ZSTD_LEVEL: i32 = 3;

/// Takes compressed clusters apart, one after the other.
#[derive(Default)]
pub(super) struct Decoder {
    plain: Vec<u8>,
    zstd: Option<ZstdDecoder<'static>>,
    deflate: Option<Decompress>,
}

/// A cluster taken apart.
pub(super) struct DecodedCluster<'a> {
    /// Exactly one cluster.
    pub(super) plain: &'a [u8],
    /// Bytes the compressed data takes, where it has an end of its own: such bytes can be used again as they are.
    pub(super) compressed_bytes: Option<usize>,
}

impl Decoder {
    /// `stored` begins with the compressed data; what follows it is not looked at. `None` where it does not make
    /// exactly one cluster of that many bytes.
    pub(super) fn decode(
        &mut self,
        kind: Compression,
        stored: &[u8],
        cluster: usize,
    ) -> Option<DecodedCluster<'_>> {
        // One byte more: data that goes on past the cluster is told from data that ends with it.
        self.plain.resize(cluster + 1, 0);
        let (made, length) = match kind {
            Compression::Zlib => self.inflate(stored)?,
            Compression::Zstd => self.unpack_zstd(stored)?,
            Compression::Unknown => return None,
        };
        // As QEMU: deflate data that does not end with the cluster is accepted, a zstd frame that does not is not.
        let whole = match kind {
            Compression::Zlib => made >= cluster,
            _ => made == cluster && length.is_some(),
        };
        let plain = self.plain.get(..cluster)?;
        let length = length.filter(|_| made == cluster);
        whole.then_some(DecodedCluster {
            plain,
            compressed_bytes: length,
        })
    }

    /// Bytes made, and bytes taken where the data's end was met.
    fn inflate(&mut self, stored: &[u8]) -> Option<(usize, Option<usize>)> {
        let inflate = self.deflate.get_or_insert_with(|| Decompress::new(false));
        inflate.reset(false);
        loop {
            // Neither counter exceeds a length in memory.
            let (taken, made) = (inflate.total_in() as usize, inflate.total_out() as usize);
            let room = self.plain.get_mut(made..)?;
            let status = inflate.decompress(stored.get(taken..)?, room, FlushDecompress::None);
            let (now_taken, now_made) = (inflate.total_in() as usize, inflate.total_out() as usize);
            match status {
                Ok(Status::StreamEnd) => return Some((now_made, Some(now_taken))),
                Ok(_) if (now_taken, now_made) != (taken, made) => {}
                // Rubbish behind a whole cluster is none of ours.
                _ => return Some((now_made, None)),
            }
        }
    }

    fn unpack_zstd(&mut self, stored: &[u8]) -> Option<(usize, Option<usize>)> {
        if self.zstd.is_none() {
            let mut fresh = ZstdDecoder::new().ok()?;
            fresh
                .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
                .ok()?;
            self.zstd = Some(fresh);
        }
        let zstd = self.zstd.as_mut()?;
        zstd.reinit().ok()?;
        let mut input = InBuffer::around(stored);
        let mut output = OutBuffer::around(self.plain.as_mut_slice());
        loop {
            let before = (input.pos(), output.pos());
            let more = zstd.run(&mut input, &mut output).ok()?;
            if more == 0 {
                return Some((output.pos(), Some(input.pos())));
            }
            if (input.pos(), output.pos()) == before {
                return Some((output.pos(), None));
            }
        }
    }
}

/// Packs clusters as zstd frames.
pub(super) struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    buffer: Vec<u8>,
}

impl Encoder {
    /// `None` where there is no memory for it: clusters then stay as they are.
    pub(super) fn new() -> Option<Self> {
        Some(Self {
            zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL).ok()?,
            buffer: Vec::new(),
        })
    }

    /// The frame, or `None` where it would not be smaller than the cluster.
    pub(super) fn encode(&mut self, cluster: &[u8]) -> Option<&[u8]> {
        self.buffer.resize(cluster.len().saturating_sub(1), 0);
        let length = self
            .zstd
            .compress_to_buffer(cluster, self.buffer.as_mut_slice())
            .ok()?;
        self.buffer.get(..length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 7 % 23) as u8).collect()
    }

    #[test]
    fn a_frame_is_found_within_what_is_stored_around_it() {
        let cluster = text(65536);
        let mut encoder = Encoder::new().unwrap();
        let frame = encoder.encode(&cluster).unwrap();
        let mut stored = frame.to_vec();
        stored.extend([0x5a; 300]);
        let mut decoder = Decoder::default();
        let told = decoder.decode(Compression::Zstd, &stored, 65536).unwrap();
        assert!(told.plain == cluster);
        assert_eq!(told.compressed_bytes, Some(frame.len()));
    }

    #[test]
    fn what_makes_no_whole_cluster_is_not_accepted() {
        let cluster = text(8192);
        let mut encoder = Encoder::new().unwrap();
        let frame = encoder.encode(&cluster).unwrap();
        let mut decoder = Decoder::default();
        let cut = &frame[..frame.len() - 1];
        assert!(decoder.decode(Compression::Zstd, frame, 8192).is_some());
        assert!(decoder.decode(Compression::Zstd, cut, 8192).is_none());
        assert!(decoder.decode(Compression::Zstd, frame, 4096).is_none());
        assert!(decoder.decode(Compression::Zstd, frame, 16384).is_none());
        assert!(decoder.decode(Compression::Zlib, frame, 8192).is_none());
        assert!(decoder.decode(Compression::Unknown, frame, 8192).is_none());
    }

    #[test]
    fn random_bytes_are_left_as_they_are() {
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(4096)
        .collect();
        assert_eq!(Encoder::new().unwrap().encode(&noise), None);
    }

    proptest! {
        #[test]
        fn takes_any_bytes(stored in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::default();
            decoder.decode(Compression::Zlib, &stored, 4096);
            decoder.decode(Compression::Zstd, &stored, 4096);
            let framed = [&[0x28, 0xb5, 0x2f, 0xfd], stored.as_slice()].concat();
            decoder.decode(Compression::Zstd, &framed, 4096);
        }
    }
}
