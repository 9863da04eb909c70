/// Placement of clusters in the composed image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The base's bytes stay at their offsets, and the clusters of the overlays are appended. Clusters of the base that
    /// are not referenced any more stay in the file, where they can be read.
    Append,
    /// Everything is rewritten in the order of the disk, without unreferenced clusters.
    Compact,
}
