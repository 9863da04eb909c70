//! Names and plain data: what every floor above speaks of. No I/O, no environment.

mod annotations;
mod blocks;
mod buffer_pool;
mod doctor;
mod error;
mod guest;
mod inventory;
mod lineage;
mod manifest;
mod names;
mod operation;
mod progress;
mod retention;
pub mod settings;

pub use annotations::{Annotations, AnnotationsPatch, MAX_NOTE_BYTES, parse_label};
pub use blocks::{BlockSet, block_bytes, block_count};
pub use buffer_pool::BufferPool;
pub use doctor::{Check, HealthReport, Verdict};
pub use error::{Error, Kind, Result};
pub use guest::{AgentChannel, DiskUse, Guest, GuestAccess, Picture, Stats, Vnc};
pub use inventory::{
    ChainLink, Compression, ForeignDomain, ImageFacts, Object, Sandbox, SandboxState, Snapshot,
};
pub use lineage::{
    Lineage, LineageIndex, MAX_PARENTS, Manifests, PullCost, RelatedSnapshot, SharedBytes,
    order_by_ancestry, shared_bytes,
};
pub use manifest::{
    BLOCK_BYTES, Consistency, Damage, Digest, FileStamp, MAX_MANIFEST_BYTES, Manifest, Parent,
};
pub use names::{HostName, SandboxId, SnapshotName};
pub use operation::{
    Method, Operation, Outcome, PushPlan, SandboxSpec, SandboxVerb, TransferStats,
};
pub use progress::{Phase, Progress, ProgressCell};
pub use retention::{
    Candidate, ImageIdentity, LEFTOVER_MIN_AGE, Leftover, LeftoverKind, PrunePlan, PruneRule,
    family_name, find_matching, find_removable,
};
