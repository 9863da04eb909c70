//! Compressed clusters: raw deflate, or one zstd frame ("Compressed Clusters Descriptor").

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use snapdeck_model::Compression;

/// Window of a zstd frame, as a power of two. A cluster has 2 MiB at most; QEMU writes no frame that needs more.
const WINDOW_LOG: u32 = 23;
/// QEMU's level.
const ZSTD_LEVEL: i32 = 3;

#[derive(Default)]
pub(super) struct Decoder {
    plain: Vec<u8>,
    zstd: Option<ZstdDecoder<'static>>,
    deflate: Option<Decompress>,
}

pub(super) struct DecodedCluster<'a> {
    /// Exactly one cluster.
    pub(super) plain: &'a [u8],
    /// Length of the compressed data, if it ends with the cluster: it can be stored again as it is.
    pub(super) compressed_bytes: Option<usize>,
}

impl Decoder {
    /// Decodes the data that `stored` begins with and ignores what follows it. `None` if it does not decode to
    /// exactly one cluster.
    pub(super) fn decode(
        &mut self,
        kind: Compression,
        stored: &[u8],
        cluster: usize,
    ) -> Option<DecodedCluster<'_>> {
        // One byte more, to distinguish data that continues past the cluster from data that ends with it.
        self.plain.resize(cluster + 1, 0);
        let (decoded, length) = match kind {
            Compression::Zlib => self.inflate(stored)?,
            Compression::Zstd => self.decode_zstd(stored)?,
            Compression::Unknown => return None,
        };
        // As QEMU: deflate data that does not end with the cluster is accepted, a zstd frame that does not is not.
        let is_whole = match kind {
            Compression::Zlib => decoded >= cluster,
            _ => decoded == cluster && length.is_some(),
        };
        let plain = self.plain.get(..cluster)?;
        let length = length.filter(|_| decoded == cluster);
        is_whole.then_some(DecodedCluster {
            plain,
            compressed_bytes: length,
        })
    }

    /// Returns the decoded bytes, and the consumed bytes if the data has ended.
    fn inflate(&mut self, stored: &[u8]) -> Option<(usize, Option<usize>)> {
        let inflate = self.deflate.get_or_insert_with(|| Decompress::new(false));
        inflate.reset(false);
        loop {
            // Neither counter exceeds a length in memory.
            let before = (inflate.total_in() as usize, inflate.total_out() as usize);
            let free = self.plain.get_mut(before.1..)?;
            let status = inflate.decompress(stored.get(before.0..)?, free, FlushDecompress::None);
            let (consumed, decoded) = (inflate.total_in() as usize, inflate.total_out() as usize);
            match status {
                Ok(Status::StreamEnd) => return Some((decoded, Some(consumed))),
                Ok(_) if (consumed, decoded) != before => {}
                // Invalid data behind a whole cluster does not matter.
                _ => return Some((decoded, None)),
            }
        }
    }

    fn decode_zstd(&mut self, stored: &[u8]) -> Option<(usize, Option<usize>)> {
        if self.zstd.is_none() {
            let mut zstd = ZstdDecoder::new().ok()?;
            zstd.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
                .ok()?;
            self.zstd = Some(zstd);
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

/// Compresses clusters to zstd frames.
pub(super) struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    buffer: Vec<u8>,
}

impl Encoder {
    /// Returns `None` without enough memory: clusters are then stored uncompressed.
    pub(super) fn new() -> Option<Self> {
        Some(Self {
            zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL).ok()?,
            buffer: Vec::new(),
        })
    }

    /// Returns the frame; `None` if it is not smaller than the cluster.
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
        (0..length).map(|index| (index / 7 % 23) as u8).collect()
    }

    #[test]
    fn decodes_a_frame_with_other_data_behind_it() {
        let cluster = text(65536);
        let mut encoder = Encoder::new().unwrap();
        let frame = encoder.encode(&cluster).unwrap();
        let mut stored = frame.to_vec();
        stored.extend([0x5a; 300]);
        let mut decoder = Decoder::default();
        let decoded = decoder.decode(Compression::Zstd, &stored, 65536).unwrap();
        assert!(decoded.plain == cluster);
        assert_eq!(decoded.compressed_bytes, Some(frame.len()));
    }

    #[test]
    fn refuses_data_that_is_not_one_cluster() {
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
    fn does_not_compress_random_bytes() {
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
        fn accepts_any_bytes(stored in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::default();
            decoder.decode(Compression::Zlib, &stored, 4096);
            decoder.decode(Compression::Zstd, &stored, 4096);
            let framed = [&[0x28, 0xb5, 0x2f, 0xfd], stored.as_slice()].concat();
            decoder.decode(Compression::Zstd, &framed, 4096);
        }
    }

    #[test]
    fn fuzz_compressed_clusters() {
        let mut encoder = Encoder::new().unwrap();
        let cluster = text(65536);
        let frame = encoder.encode(&cluster).unwrap().to_vec();
        let mut deflate = flate2::Compress::new(flate2::Compression::default(), false);
        let mut deflated = Vec::with_capacity(65536);
        deflate
            .compress_vec(&cluster, &mut deflated, flate2::FlushCompress::Finish)
            .unwrap();
        snapdeck_fuzz::FuzzTarget::new("qcow2 compressed clusters")
            .seed(frame)
            .seed(deflated)
            // The window of a frame.
            .memory(32 << 20, 0)
            .run(|stored| {
                for kind in [Compression::Zlib, Compression::Zstd, Compression::Unknown] {
                    let mut decoder = Decoder::default();
                    if let Some(decoded) = decoder.decode(kind, stored, 65536) {
                        assert_eq!(decoded.plain.len(), 65536);
                        assert!(decoded.compressed_bytes.unwrap_or(0) <= stored.len());
                    }
                }
            });
    }
}
