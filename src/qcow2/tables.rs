//! An image's header, L1 and L2 tables ("Cluster mapping"), read by the caller.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::entry::{COPIED, Cluster, Geometry, OFFSET};
use super::error::ComposeError;
use super::layer_header::{LayerHeader, ParseStatus};
use snapdeck_model::ImageFacts;

/// Bytes of the file's start that are requested first: they hold header, extensions and backing file name of
/// nearly every image.
const START_BYTES: u64 = 64 << 10;
/// Bytes requested at a time, over all ranges.
const BATCH_BYTES: u64 = 2 << 20;
/// Bytes of a single range.
const RANGE_BYTES: u64 = 1 << 20;
/// L2 tables in memory: those of 4 TiB with clusters of 64 KiB, of 256 GiB with 4 KiB.
const MAX_L2_BYTES: u64 = 512 << 20;

/// The bytes of L2 tables that all readers of one chain may keep: 512 MiB. Clones share it.
#[derive(Debug, Clone)]
pub struct TableBudget(Arc<AtomicU64>);

impl Default for TableBudget {
    fn default() -> Self {
        Self::new(MAX_L2_BYTES)
    }
}

impl TableBudget {
    pub(super) fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    fn take(&self, bytes: u64) -> Result<(), ComposeError> {
        let take = |rest: u64| rest.checked_sub(bytes);
        match self.0.fetch_update(Relaxed, Relaxed, take) {
            Ok(_) => Ok(()),
            Err(_) => Err(ComposeError::TooLarge(
                "the L2 tables of its chain have more than 512 MiB",
            )),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct L2Table {
    /// Offset in the file.
    pub(super) host: u64,
    pub(super) entries: Arc<[u64]>,
}

/// The tables of one image, read by [`TableReader`]. A clone shares the memory.
#[derive(Debug, Clone)]
pub struct Tables {
    pub(super) facts: ImageFacts,
    pub(super) geometry: Geometry,
    pub(super) file_bytes: u64,
    /// `header_length` bytes.
    pub(super) header: Vec<u8>,
    /// Data of the feature name table extension.
    pub(super) feature_names: Option<Vec<u8>>,
    /// L2 tables that have entries, by their index in the L1 table.
    pub(super) l2: Arc<BTreeMap<u64, L2Table>>,
    /// Ranges of the file that are known to have only zeros, in order.
    pub(super) zero_ranges: Arc<[Range<u64>]>,
}

impl Tables {
    /// Returns the facts in the header.
    pub fn facts(&self) -> &ImageFacts {
        &self.facts
    }

    /// Returns the length of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Returns the tables with ranges of the file that are known to have only zeros, in order: of a base,
    /// [`Layout::Compact`](crate::Layout::Compact) leaves them out without reading them.
    pub fn with_zero_ranges(self, ranges: &[Range<u64>]) -> Self {
        Self {
            zero_ranges: ranges.into(),
            ..self
        }
    }

    /// Returns whether a range of the file is known to have only zeros.
    pub(super) fn is_zero(&self, range: Range<u64>) -> bool {
        let after = self
            .zero_ranges
            .partition_point(|zeros| zeros.start <= range.start);
        let zeros = after.checked_sub(1).and_then(|at| self.zero_ranges.get(at));
        zeros.is_some_and(|zeros| range.end <= zeros.end)
    }

    /// Returns the image's mapping of the cluster at a disk offset.
    pub(super) fn cluster_at(&self, guest: u64) -> Cluster {
        let entries = self
            .l2
            .get(&(guest / self.geometry.l2_span()))
            .map(|l2| &l2.entries);
        // Below the number of entries, so it fits.
        let index = (guest / self.geometry.cluster_size()) as usize % self.geometry.entries();
        let entry = entries.and_then(|entries| entries.get(index)).copied();
        self.geometry.decode_entry(entry.unwrap_or(0))
    }
}

/// Reads the tables of one image: [`feed`](Self::feed) takes the bytes of [`pending_reads`](Self::pending_reads), until
/// none are pending and [`finish`](Self::finish) returns the tables.
///
/// Untrusted images do no harm: all reads lie within the file, no table is read twice, at most 2 MiB are requested at a
/// time, and memory grows with the tables that have entries, up to the budget.
#[derive(Debug)]
pub struct TableReader {
    file_bytes: u64,
    budget: TableBudget,
    pending_reads: Vec<Range<u64>>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Header,
    L1 {
        tables: Box<Tables>,
        /// Bytes of it that were not requested yet.
        remaining: Range<u64>,
        /// Index of the first pending entry.
        next: u64,
        /// Offset and L1 index of every L2 table.
        l2_offsets: Vec<(u64, u64)>,
    },
    L2 {
        tables: Box<Tables>,
        l2: BTreeMap<u64, L2Table>,
        /// Offset and L1 index of those that were not fed yet, the next one last.
        remaining: Vec<(u64, u64)>,
    },
    Done(Box<Tables>),
    Failed,
}

impl TableReader {
    /// Returns a reader for a file of `file_bytes`.
    pub fn new(file_bytes: u64, budget: &TableBudget) -> Self {
        Self {
            file_bytes,
            budget: budget.clone(),
            pending_reads: single_range(0..file_bytes.min(START_BYTES)),
            stage: Stage::Header,
        }
    }

    /// Returns the byte ranges of the file to read next, by offset; none when all tables were read.
    pub fn pending_reads(&self) -> &[Range<u64>] {
        &self.pending_reads
    }

    /// Takes the bytes of the [`pending_reads`](Self::pending_reads), one chunk for each.
    ///
    /// # Errors
    /// Why the image cannot be composed; the reader must be dropped then.
    pub fn feed(&mut self, chunks: &[impl AsRef<[u8]>]) -> Result<(), ComposeError> {
        let fits = |(range, chunk): (&Range<u64>, &_)| {
            AsRef::<[u8]>::as_ref(chunk).len() as u64 == range.end - range.start
        };
        if chunks.len() != self.pending_reads.len()
            || !self.pending_reads.iter().zip(chunks).all(fits)
        {
            let received = chunks.iter().map(|chunk| chunk.as_ref().len() as u64);
            return Err(self.wrong_length(received.sum()));
        }
        let ranges = std::mem::take(&mut self.pending_reads);
        self.stage = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Header => {
                self.feed_header(chunks.first().map_or(&[], |chunk| chunk.as_ref()))?
            }
            Stage::L1 {
                tables,
                remaining,
                mut next,
                mut l2_offsets,
            } => {
                for chunk in chunks {
                    next = parse_l1(&tables, &self.budget, chunk.as_ref(), next, &mut l2_offsets)?;
                }
                self.request_l1(tables, remaining, next, l2_offsets)?
            }
            Stage::L2 {
                tables,
                mut l2,
                mut remaining,
            } => {
                for (range, chunk) in ranges.iter().zip(chunks) {
                    parse_l2(
                        &tables,
                        range.start,
                        chunk.as_ref(),
                        &mut remaining,
                        &mut l2,
                    )?;
                }
                self.request_l2(tables, l2, remaining)
            }
            last @ (Stage::Done(_) | Stage::Failed) => last,
        };
        Ok(())
    }

    /// Returns the tables, once no reads are pending.
    ///
    /// # Errors
    /// [`ComposeError::WrongLength`] if reads are pending.
    pub fn finish(self) -> Result<Tables, ComposeError> {
        match self.stage {
            Stage::Done(tables) => Ok(*tables),
            _ => Err(self.wrong_length(0)),
        }
    }

    fn wrong_length(&self, received_bytes: u64) -> ComposeError {
        let lengths = self
            .pending_reads
            .iter()
            .map(|range| range.end - range.start);
        ComposeError::WrongLength {
            expected_bytes: lengths.sum(),
            received_bytes,
        }
    }

    fn feed_header(&mut self, bytes: &[u8]) -> Result<Stage, ComposeError> {
        let start = match LayerHeader::parse(bytes, self.file_bytes)? {
            ParseStatus::Complete(start) => *start,
            ParseStatus::Incomplete(end) => {
                self.pending_reads = single_range(0..end);
                return Ok(Stage::Header);
            }
        };
        let geometry = Geometry::new(start.facts.cluster_size);
        let tables = Tables {
            facts: start.facts,
            geometry,
            file_bytes: self.file_bytes,
            header: start.header,
            feature_names: start.feature_names,
            l2: Arc::default(),
            zero_ranges: Arc::default(),
        };
        self.request_l1(Box::new(tables), start.l1, 0, Vec::new())
    }

    fn request_l1(
        &mut self,
        tables: Box<Tables>,
        mut remaining: Range<u64>,
        next: u64,
        mut l2_offsets: Vec<(u64, u64)>,
    ) -> Result<Stage, ComposeError> {
        let batch_end = remaining.end.min(remaining.start + BATCH_BYTES);
        while remaining.start < batch_end {
            let end = batch_end.min(remaining.start + RANGE_BYTES);
            self.pending_reads.push(remaining.start..end);
            remaining.start = end;
        }
        if !self.pending_reads.is_empty() {
            return Ok(Stage::L1 {
                tables,
                remaining,
                next,
                l2_offsets,
            });
        }
        // The next one last: they are popped from the end.
        l2_offsets.sort_unstable_by(|one, other| other.cmp(one));
        let mut pairs = l2_offsets.windows(2);
        if let Some(pair) = pairs.find(|pair| pair[0].0 == pair[1].0) {
            return Err(ComposeError::Overlap {
                structure: "an L2 table",
                offset: pair[0].0,
            });
        }
        Ok(self.request_l2(tables, BTreeMap::new(), l2_offsets))
    }

    fn request_l2(
        &mut self,
        mut tables: Box<Tables>,
        l2: BTreeMap<u64, L2Table>,
        remaining: Vec<(u64, u64)>,
    ) -> Stage {
        let cluster = tables.geometry.cluster_size();
        let mut bytes = 0;
        for (host, _) in remaining.iter().rev() {
            if bytes + cluster > BATCH_BYTES {
                break;
            }
            bytes += cluster;
            match self.pending_reads.last_mut() {
                Some(last) if last.end == *host && host + cluster - last.start <= RANGE_BYTES => {
                    last.end += cluster;
                }
                _ => self.pending_reads.push(*host..host + cluster),
            }
        }
        if self.pending_reads.is_empty() {
            tables.l2 = Arc::new(l2);
            return Stage::Done(tables);
        }
        Stage::L2 {
            tables,
            l2,
            remaining,
        }
    }
}

/// Collects the offsets of L2 tables in a chunk of the L1 table; returns the index after its last entry.
fn parse_l1(
    tables: &Tables,
    budget: &TableBudget,
    bytes: &[u8],
    mut index: u64,
    l2_offsets: &mut Vec<(u64, u64)>,
) -> Result<u64, ComposeError> {
    let cluster = tables.geometry.cluster_size();
    for entry in decode_entries(bytes) {
        let host = entry & OFFSET;
        let aligned = host.is_multiple_of(cluster);
        if entry & !(COPIED | OFFSET) != 0 || !aligned || host == 0 && entry != 0 {
            return Err(ComposeError::BadEntry { table: "L1", entry });
        }
        if host != 0 {
            if host + cluster > tables.file_bytes {
                return Err(ComposeError::Truncated {
                    structure: "an L2 table",
                    offset: host,
                });
            }
            budget.take(cluster)?;
            l2_offsets.push((host, index));
        }
        index += 1;
    }
    Ok(index)
}

/// Takes the L2 tables in `bytes`, which lie at `host` and are the last of `remaining`.
fn parse_l2(
    tables: &Tables,
    mut host: u64,
    bytes: &[u8],
    remaining: &mut Vec<(u64, u64)>,
    l2: &mut BTreeMap<u64, L2Table>,
) -> Result<(), ComposeError> {
    for table in bytes.chunks_exact(tables.geometry.cluster_len()) {
        for entry in decode_entries(table) {
            tables
                .geometry
                .check(entry, tables.facts.version, tables.file_bytes)?;
        }
        if let Some((_, index)) = remaining.pop()
            && table.iter().any(|byte| *byte != 0)
        {
            let entries = decode_entries(table).collect();
            l2.insert(index, L2Table { host, entries });
        }
        host += tables.geometry.cluster_size();
    }
    Ok(())
}

fn decode_entries(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (entries, _) = bytes.as_chunks::<8>();
    entries.iter().map(|entry| u64::from_be_bytes(*entry))
}

fn single_range(range: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(range).collect()
}
