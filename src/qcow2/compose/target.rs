//! The mapping of the composed image while it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::entry::{COPIED, Cluster, Geometry, ZERO};
use crate::error::ComposeError;
use crate::refcounts::Refcounts;
use crate::tables::{L2Table, Tables};

/// L2 tables by their index in the L1 table. The base's are shared until one is changed.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) geometry: Geometry,
    pub(super) tables: BTreeMap<u64, Arc<[u64]>>,
}

impl Target {
    pub(super) fn empty(geometry: Geometry) -> Self {
        Self {
            geometry,
            tables: BTreeMap::new(),
        }
    }

    /// Returns the mapping of the image whose bytes are kept.
    pub(super) fn from_kept(base: &Tables) -> Self {
        let share = |(index, l2): (&u64, &L2Table)| (*index, l2.entries.clone());
        Self {
            geometry: base.geometry,
            tables: base.l2.iter().map(share).collect(),
        }
    }

    /// Maps the guest cluster at a disk offset.
    pub(super) fn set(&mut self, guest: u64, entry: u64) {
        let entries = self.geometry.entries();
        let table = self
            .tables
            .entry(guest / self.geometry.l2_span())
            .or_insert_with(|| std::iter::repeat_n(0, entries).collect());
        let index = (guest / self.geometry.cluster_size()) as usize % entries;
        if let Some(slot) = Arc::make_mut(table).get_mut(index) {
            *slot = entry;
        }
    }

    /// Unmaps the guest cluster at a disk offset; returns the bytes of the file that it had.
    pub(super) fn unmap(&mut self, guest: u64) -> Option<Range<u64>> {
        let table = self.tables.get(&(guest / self.geometry.l2_span()))?;
        let index = (guest / self.geometry.cluster_size()) as usize % self.geometry.entries();
        let host = match self.geometry.decode_entry(*table.get(index)?) {
            Cluster::Data { host } | Cluster::Zero { host: Some(host) } => {
                host..host + self.geometry.cluster_size()
            }
            Cluster::Compressed { host, stored_bytes } => host..host + stored_bytes,
            Cluster::Unallocated | Cluster::Zero { host: None } => return None,
        };
        self.set(guest, 0);
        Some(host)
    }

    /// Unmaps every cluster that begins within these bytes of the disk, which start at a cluster.
    pub(super) fn clear(&mut self, guest: Range<u64>) {
        self.clear_where(guest, |entry| entry != 0);
    }

    /// As [`clear`](Self::clear), but leaves clusters that read as zeros.
    pub(super) fn clear_data(&mut self, guest: Range<u64>) {
        let geometry = self.geometry;
        self.clear_where(guest, |entry| {
            matches!(
                geometry.decode_entry(entry),
                Cluster::Data { .. } | Cluster::Compressed { .. }
            )
        });
    }

    fn clear_where(&mut self, guest: Range<u64>, condition: impl Fn(u64) -> bool) {
        let (cluster, span) = (self.geometry.cluster_size(), self.geometry.l2_span());
        let inside = guest.start / span..guest.end.div_ceil(span);
        let mut empty = Vec::new();
        for (index, table) in self.tables.range_mut(inside) {
            let base = index * span;
            // Below the number of entries, so they fit.
            let from = (guest.start.saturating_sub(base) / cluster) as usize;
            let to = (guest.end - base).min(span).div_ceil(cluster) as usize;
            let touched = table.get(from..to).unwrap_or_default();
            if !touched.iter().any(|entry| condition(*entry)) {
                continue;
            }
            if touched.len() == table.len() {
                empty.push(*index);
            } else if let Some(touched) = Arc::make_mut(table).get_mut(from..to) {
                touched.fill(0);
            }
        }
        for index in empty {
            self.tables.remove(&index);
        }
    }

    /// Counts the references of the header and of the remaining data clusters, and corrects bit 63 of the entries ("L2
    /// table entry").
    ///
    /// # Errors
    /// Where a cluster is both an L2 table and data, or is referenced too often.
    pub(super) fn count_references(&mut self, base: &Tables) -> Result<Refcounts, ComposeError> {
        let geometry = self.geometry;
        let cluster = geometry.cluster_size();
        let mut counts = Refcounts::new(geometry, base.file_bytes)?;
        counts.reference(0..cluster)?;
        // A zero cluster may have a host cluster that was never written: past the end of the file it is dropped.
        let is_dropped = |host: u64| host >= base.file_bytes;
        for entry in self.tables.values().flat_map(|table| table.iter()) {
            match geometry.decode_entry(*entry) {
                Cluster::Zero { host: Some(host) } if is_dropped(host) => {}
                Cluster::Data { host } | Cluster::Zero { host: Some(host) } => {
                    counts.reference(host..host + cluster)?;
                }
                Cluster::Compressed { host, stored_bytes } => {
                    counts.reference(host..host + stored_bytes)?;
                }
                Cluster::Unallocated | Cluster::Zero { host: None } => {}
            }
        }
        if let Some(l2) = base.l2.values().find(|l2| counts.count_at(l2.host) > 0) {
            return Err(ComposeError::Overlap {
                structure: "an L2 table",
                offset: l2.host,
            });
        }
        let corrected = |entry: u64| match geometry.decode_entry(entry) {
            Cluster::Zero { host: Some(host) } if is_dropped(host) => ZERO,
            Cluster::Data { host } | Cluster::Zero { host: Some(host) } => {
                let copied = if counts.count_at(host) == 1 {
                    COPIED
                } else {
                    0
                };
                entry & !COPIED | copied
            }
            _ => entry,
        };
        for table in self.tables.values_mut() {
            if table.iter().any(|entry| corrected(*entry) != *entry) {
                for entry in Arc::make_mut(table) {
                    *entry = corrected(*entry);
                }
            }
        }
        Ok(counts)
    }

    /// Returns whether any cluster is compressed.
    pub(super) fn has_compressed(&self) -> bool {
        let mut entries = self.tables.values().flat_map(|table| table.iter());
        entries.any(|entry| {
            matches!(
                self.geometry.decode_entry(*entry),
                Cluster::Compressed { .. }
            )
        })
    }

    /// Returns the numbers of L2 tables that are the base's and of others, once those in `changed` get entries.
    pub(super) fn count_tables(&self, base: &Tables, changed: &BTreeSet<u64>) -> (u64, u64) {
        let is_unchanged = |(index, table): &(&u64, &Arc<[u64]>)| {
            let same = |l2: &L2Table| Arc::ptr_eq(&l2.entries, table);
            !changed.contains(index) && base.l2.get(index).is_some_and(same)
        };
        let unchanged = self.tables.iter().filter(is_unchanged).count();
        let new = changed
            .iter()
            .filter(|index| !self.tables.contains_key(index));
        let others = self.tables.len() - unchanged + new.count();
        (unchanged as u64, others as u64)
    }
}
