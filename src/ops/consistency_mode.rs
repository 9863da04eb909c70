//! Protection of a copied disk from its guest's writes.

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConsistencyMode {
    /// The guest is not running; any write to the disk fails the operation.
    AlreadyQuiet,
    /// The operation pauses the guest and resumes it in every case.
    PauseGuest,
    /// The guest keeps writing: best effort.
    Live,
}
