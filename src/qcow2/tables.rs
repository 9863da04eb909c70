//! Reading an image's header, L1 and L2 tables ("Cluster mapping"), without doing the reading.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::ComposeError;
use super::entry::{COPIED, Cluster, Geometry, OFFSET};
use super::layer_header::{LayerHeader, ParseStatus};
use snapdeck_model::ImageFacts;

/// Bytes of the file's start that are asked for first: they hold header, extensions and backing file name of
/// nearly every image.
const START_BYTES: u64 = 64 << 10;
/// Bytes asked for at a time, over all ranges.
const BATCH_BYTES: u64 = 2 << 20;
/// Bytes of a single range.
const RANGE_BYTES: u64 = 1 << 20;
/// L2 tables this program holds in memory: those of 4 TiB at 64 KiB a cluster, of 256 GiB at 4 KiB.
const MAX_L2_BYTES: u64 = 512 << 20;

/// An L2 table in memory.
#[derive(Debug, Clone)]
pub(super) struct L2Table {
    /// Where it stands in the file.
    pub(super) host: u64,
    pub(super) entries: Arc<[u64]>,
}

/// The tables of one image: what [`TableReader`] read. A clone shares the memory.
#[derive(Debug, Clone)]
pub struct Tables {
    pub(super) facts: ImageFacts,
    pub(super) geometry: Geometry,
    pub(super) file_bytes: u64,
    /// The header, `header_length` bytes.
    pub(super) header: Vec<u8>,
    /// Data of the feature name table extension.
    pub(super) feature_names: Option<Vec<u8>>,
    /// L2 tables that have entries, by their place in the L1 table.
    pub(super) l2: Arc<BTreeMap<u64, L2Table>>,
}

impl Tables {
    /// What the header says.
    pub fn facts(&self) -> &ImageFacts {
        &self.facts
    }

    /// Length of the file, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// What the image says of the cluster at a disk offset.
    pub(super) fn cluster_at(&self, guest: u64) -> Cluster {
        let entries = self
            .l2
            .get(&(guest / self.geometry.l2_span()))
            .map(|l2| &l2.entries);
        // Below the number of entries, so it fits.
        let at = (guest / self.geometry.cluster_size()) as usize % self.geometry.entries();
        let entry = entries.and_then(|entries| entries.get(at)).copied();
        self.geometry.decode_entry(entry.unwrap_or(0))
    }
}

/// Reads the tables of one image: [`wanted`](Self::wanted) says which bytes it needs next,
/// [`take`](Self::take) takes them, until nothing is wanted and [`finish`](Self::finish) gives the tables.
///
/// An image nobody vouches for does no harm: what is asked for lies within the file, no table is read twice, at
/// most 2 MiB are asked for at a time, and memory grows with the tables that have entries, up to 512 MiB.
#[derive(Debug)]
pub struct TableReader {
    file_bytes: u64,
    pending_reads: Vec<Range<u64>>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Waiting for the file's start.
    Header,
    /// Waiting for pieces of the L1 table.
    L1 {
        tables: Box<Tables>,
        /// What of it was not asked for yet.
        remaining: Range<u64>,
        /// Index of the first entry that is wanted.
        next: u64,
        /// Offset and L1 index of every L2 table.
        l2_offsets: Vec<(u64, u64)>,
    },
    /// Waiting for L2 tables.
    L2 {
        tables: Box<Tables>,
        l2: BTreeMap<u64, L2Table>,
        /// Those not taken yet, by offset, the next one last.
        remaining: Vec<(u64, u64)>,
    },
    Done(Box<Tables>),
    Failed,
}

impl TableReader {
    /// For a file of that length.
    pub fn new(file_bytes: u64) -> Self {
        Self {
            file_bytes,
            pending_reads: single_range(0..file_bytes.min(START_BYTES)),
            stage: Stage::Header,
        }
    }

    /// Byte ranges of the file to read next, in order of offset; none when all was read.
    pub fn pending_reads(&self) -> &[Range<u64>] {
        &self.pending_reads
    }

    /// Takes the bytes of the ranges that were [`wanted`](Self::wanted), one for one.
    ///
    /// # Errors
    /// Why the image cannot be composed; the reader is of no use then.
    pub fn feed(&mut self, chunks: &[impl AsRef<[u8]>]) -> Result<(), ComposeError> {
        let wanted: u64 = self
            .pending_reads
            .iter()
            .map(|range| range.end - range.start)
            .sum();
        let fits = |(range, chunk): (&Range<u64>, &_)| {
            AsRef::<[u8]>::as_ref(chunk).len() as u64 == range.end - range.start
        };
        if chunks.len() != self.pending_reads.len()
            || !self.pending_reads.iter().zip(chunks).all(fits)
        {
            let got = chunks.iter().map(|chunk| chunk.as_ref().len() as u64).sum();
            return Err(ComposeError::WrongLength {
                expected_bytes: wanted,
                received_bytes: got,
            });
        }
        let asked = std::mem::take(&mut self.pending_reads);
        self.stage = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Header => {
                self.feed_header(chunks.first().map_or(&[], |chunk| chunk.as_ref()))?
            }
            Stage::L1 {
                tables,
                remaining: left,
                mut next,
                l2_offsets: mut found,
            } => {
                for chunk in chunks {
                    next = parse_l1(&tables, chunk.as_ref(), next, &mut found)?;
                }
                self.request_l1(tables, left, next, found)?
            }
            Stage::L2 {
                tables,
                mut l2,
                remaining: mut left,
            } => {
                for (range, chunk) in asked.iter().zip(chunks) {
                    parse_l2(&tables, range.start, chunk.as_ref(), &mut left, &mut l2)?;
                }
                self.request_l2(tables, l2, left)
            }
            last @ (Stage::Done(_) | Stage::Failed) => last,
        };
        Ok(())
    }

    /// The tables, once nothing is [`wanted`](Self::wanted).
    ///
    /// # Errors
    /// [`LockError::WrongLength`] where something is wanted still.
    pub fn finish(self) -> Result<Tables, ComposeError> {
        match self.stage {
            Stage::Done(tables) => Ok(*tables),
            _ => Err(ComposeError::WrongLength {
                expected_bytes: self
                    .pending_reads
                    .iter()
                    .map(|range| range.end - range.start)
                    .sum(),
                received_bytes: 0,
            }),
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
        };
        self.request_l1(Box::new(tables), start.l1, 0, Vec::new())
    }

    fn request_l1(
        &mut self,
        tables: Box<Tables>,
        mut left: Range<u64>,
        next: u64,
        mut found: Vec<(u64, u64)>,
    ) -> Result<Stage, ComposeError> {
        let batch_end = left.end.min(left.start + BATCH_BYTES);
        while left.start < batch_end {
            let end = batch_end.min(left.start + RANGE_BYTES);
            self.pending_reads.push(left.start..end);
            left.start = end;
        }
        if !self.pending_reads.is_empty() {
            return Ok(Stage::L1 {
                tables,
                remaining: left,
                next,
                l2_offsets: found,
            });
        }
        // The next one last: they are taken from the end.
        found.sort_unstable_by(|one, other| other.cmp(one));
        if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let what = "an L2 table";
            return Err(ComposeError::Overlap {
                structure: what,
                offset: pair[0].0,
            });
        }
        Ok(self.request_l2(tables, BTreeMap::new(), found))
    }

    fn request_l2(
        &mut self,
        mut tables: Box<Tables>,
        l2: BTreeMap<u64, L2Table>,
        left: Vec<(u64, u64)>,
    ) -> Stage {
        let cluster = tables.geometry.cluster_size();
        let mut bytes = 0;
        for (host, _) in left.iter().rev() {
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
            remaining: left,
        }
    }
}

/// Notes the L2 tables that a piece of the L1 table names; returns the index after its last entry.
fn parse_l1(
    tables: &Tables,
    bytes: &[u8],
    mut index: u64,
    found: &mut Vec<(u64, u64)>,
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
                let what = "an L2 table";
                return Err(ComposeError::Truncated {
                    structure: what,
                    offset: host,
                });
            }
            if (found.len() as u64 + 1) * cluster > MAX_L2_BYTES {
                return Err(ComposeError::TooLarge(
                    "its L2 tables have more than 512 MiB",
                ));
            }
            found.push((host, index));
        }
        index += 1;
    }
    Ok(index)
}

/// Takes the L2 tables in `bytes`, which lie at `host` and are the last of `left`.
fn parse_l2(
    tables: &Tables,
    mut host: u64,
    bytes: &[u8],
    left: &mut Vec<(u64, u64)>,
    l2: &mut BTreeMap<u64, L2Table>,
) -> Result<(), ComposeError> {
    for table in bytes.chunks_exact(tables.geometry.cluster_len()) {
        for entry in decode_entries(table) {
            tables
                .geometry
                .check(entry, tables.facts.version, tables.file_bytes)?;
        }
        if let Some((_, index)) = left.pop()
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
