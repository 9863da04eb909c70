//! The state of a composed image from which the next one of the same disk is composed: its tables, and for each cluster
//! whether it is the base's, or else a fingerprint of its bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use crate::entry::Geometry;
use crate::error::ComposeError;
use crate::layer_header::{LayerHeader, ParseStatus};
use crate::tables::{L2Table, Tables};
use snapdeck_model::Digest;

/// The first 16 bytes of the SHA-256 of a cluster.
pub(super) type Fingerprint = [u8; 16];

pub(super) fn fingerprint(cluster: &[u8]) -> Fingerprint {
    first_bytes(digest(&SHA256, cluster).as_ref())
}

/// Returns the fingerprint of the cluster with this digest.
pub(super) fn fingerprint_of(digest: &Digest) -> Fingerprint {
    first_bytes(&digest.0)
}

/// Returns the digest of a cluster of zeros.
pub(super) fn digest_of_zeros(cluster_bytes: u64) -> Digest {
    let zeros = vec![0; cluster_bytes as usize];
    Digest(first_bytes(digest(&SHA256, &zeros).as_ref()))
}

fn first_bytes<const N: usize>(hashed: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    for (byte, hashed) in bytes.iter_mut().zip(hashed) {
        *byte = *hashed;
    }
    bytes
}

/// A cluster of a composed image that is not the base's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrittenCluster {
    /// Disk offset.
    pub(super) offset: u64,
    pub(super) fingerprint: Fingerprint,
    /// Offset of its bytes in the file of the topmost layer, if they are there as they are.
    pub(super) source: Option<u64>,
}

/// An image that was composed earlier from the same base, whose bytes the next image of the disk keeps.
#[derive(Debug, Clone)]
pub struct ComposedImage {
    pub(super) tables: Tables,
    /// Ranges of the disk, in order and in whole clusters, that have the base's data.
    pub(super) base_ranges: Vec<Range<u64>>,
    /// The other clusters with data, in order.
    pub(super) written: Vec<WrittenCluster>,
}

impl ComposedImage {
    /// Returns the image with this header and these L2 tables.
    pub(super) fn new(
        header_cluster: &[u8],
        file_bytes: u64,
        l2: BTreeMap<u64, L2Table>,
        base_ranges: Vec<Range<u64>>,
        written: Vec<WrittenCluster>,
    ) -> Result<Self, ComposeError> {
        let ParseStatus::Complete(header) = LayerHeader::parse(header_cluster, file_bytes)? else {
            return Err(invalid("its header is truncated"));
        };
        let tables = Tables {
            geometry: Geometry::new(header.facts.cluster_size),
            facts: header.facts,
            file_bytes,
            header: header.header,
            feature_names: header.feature_names,
            l2: Arc::new(l2),
            zero_ranges: Arc::default(),
        };
        Ok(Self {
            tables,
            base_ranges,
            written,
        })
    }

    /// Returns the length of the image's file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.tables.file_bytes
    }

    /// Returns whether the cluster at a disk offset has the base's data.
    pub(super) fn is_base(&self, offset: u64) -> bool {
        let after = self
            .base_ranges
            .partition_point(|range| range.start <= offset);
        let range = after.checked_sub(1).and_then(|at| self.base_ranges.get(at));
        range.is_some_and(|range| range.contains(&offset))
    }

    pub(super) fn written_cluster(&self, offset: u64) -> Option<WrittenCluster> {
        let found = self
            .written
            .binary_search_by_key(&offset, |cluster| cluster.offset);
        found.ok().and_then(|at| self.written.get(at)).copied()
    }

    /// Returns its stored form, without a checksum: the L2 tables, and 32 bytes for each cluster that is not the base's.
    pub fn to_bytes(&self) -> Vec<u8> {
        let tables = &self.tables;
        let l2_bytes = tables.l2.len() * (tables.geometry.cluster_len() + 16);
        let lists_bytes = 16 * self.base_ranges.len() + 32 * self.written.len();
        // Growing would take twice the memory.
        let mut out =
            Vec::with_capacity(l2_bytes + lists_bytes + 2 * tables.geometry.cluster_len());
        let mut put = |numbers: &[u64]| {
            out.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        };
        put(&[
            tables.file_bytes,
            tables.header.len() as u64,
            tables
                .feature_names
                .as_ref()
                .map_or(0, |names| names.len() as u64),
            tables.l2.len() as u64,
            self.base_ranges.len() as u64,
            self.written.len() as u64,
        ]);
        for (index, table) in tables.l2.iter() {
            put(&[*index, table.host]);
            put(&table.entries);
        }
        for range in &self.base_ranges {
            put(&[range.start, range.end]);
        }
        for cluster in &self.written {
            // At 0 is the header.
            for number in [cluster.offset, cluster.source.unwrap_or(0)] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(&cluster.fingerprint);
        }
        out.extend_from_slice(&tables.header);
        out.extend_from_slice(tables.feature_names.as_deref().unwrap_or_default());
        out
    }

    /// Parses the output of [`to_bytes`](Self::to_bytes).
    ///
    /// # Errors
    /// [`ComposeError::InvalidHeader`] and the errors of [`TableReader`](crate::TableReader) for anything else.
    pub fn from_bytes(stored: &[u8]) -> Result<Self, ComposeError> {
        let mut reader = Reader(stored);
        let [
            file_bytes,
            header_bytes,
            names_bytes,
            l2_count,
            range_count,
            cluster_count,
        ] = reader.numbers()?;
        let (header_at, names_at) = {
            let names_at = reader.0.len().checked_sub(length(names_bytes)?);
            let names_at = names_at.ok_or_else(truncated)?;
            let header_at = names_at.checked_sub(length(header_bytes)?);
            (header_at.ok_or_else(truncated)?, names_at)
        };
        let (lists, header) = reader.0.split_at(header_at);
        let (header, names) = header.split_at(names_at - header_at);
        let facts = crate::header::read_header(header)
            .map_err(|_| invalid("its header is not a qcow2 header"))?;
        let geometry = Geometry::new(facts.cluster_size);
        reader = Reader(lists);
        let mut l2 = BTreeMap::new();
        for _ in 0..l2_count {
            let [index, host] = reader.numbers()?;
            let entries: Arc<[u64]> = reader.list(geometry.entries())?.into();
            for entry in entries.iter() {
                geometry.check(*entry, facts.version, file_bytes)?;
            }
            l2.insert(index, L2Table { host, entries });
        }
        let mut base_ranges = Vec::new();
        for _ in 0..range_count {
            let [start, end] = reader.numbers()?;
            base_ranges.push(start..end);
        }
        let mut written = Vec::new();
        for _ in 0..cluster_count {
            let [offset, source] = reader.numbers()?;
            written.push(WrittenCluster {
                offset,
                fingerprint: reader.array()?,
                source: (source != 0).then_some(source),
            });
        }
        if !reader.0.is_empty() {
            return Err(truncated());
        }
        let tables = Tables {
            geometry,
            facts,
            file_bytes,
            header: header.to_vec(),
            feature_names: (!names.is_empty()).then(|| names.to_vec()),
            l2: Arc::new(l2),
            zero_ranges: Arc::default(),
        };
        Ok(Self {
            tables,
            base_ranges,
            written,
        })
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ComposeError> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or_else(truncated)?;
        self.0 = rest;
        Ok(*array)
    }

    fn numbers<const N: usize>(&mut self) -> Result<[u64; N], ComposeError> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = u64::from_be_bytes(self.array()?);
        }
        Ok(numbers)
    }

    fn list(&mut self, count: usize) -> Result<Vec<u64>, ComposeError> {
        let (list, rest) = self.0.split_at_checked(8 * count).ok_or_else(truncated)?;
        self.0 = rest;
        let (numbers, _) = list.as_chunks::<8>();
        Ok(numbers
            .iter()
            .map(|number| u64::from_be_bytes(*number))
            .collect())
    }
}

fn length(number: u64) -> Result<usize, ComposeError> {
    usize::try_from(number).map_err(|_| truncated())
}

fn truncated() -> ComposeError {
    invalid("it is truncated")
}

fn invalid(reason: &str) -> ComposeError {
    ComposeError::InvalidHeader(format!("the stored state of an image is invalid: {reason}"))
}
