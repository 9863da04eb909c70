//! Locks of jobs on a host, as they are shown.

use jiff::Timestamp;

use super::{SandboxId, SnapshotName};

/// A lock that a snapdeck process holds on a host, for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLock {
    /// Locked sandbox or snapshot.
    pub resource: LockedResource,
    /// The job, such as `pull winserver-22 → beta`; in a lock of several readers, that of one of them.
    pub job: String,
    /// User, machine and process, such as `anna on desk, process 4711`; empty if it is not recorded.
    pub holder: String,
    /// Time since when, by the clock of the host.
    pub since: Option<Timestamp>,
}

/// A locked sandbox or snapshot of a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockedResource {
    /// A sandbox.
    Sandbox(SandboxId),
    /// A snapshot.
    Snapshot(SnapshotName),
}
