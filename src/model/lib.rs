//! Names and plain data shared by all other crates: no I/O, no environment, no HTTP. Sentences for people are only in
//! errors and in the table of verbs.

mod annotations;
mod blocks;
mod buffer_pool;
mod doctor;
mod error;
mod guest;
mod host_load;
mod host_lock;
mod identity;
mod inventory;
mod json_bounds;
mod lineage;
mod manifest;
mod name_proposal;
mod names;
mod operation;
mod parts;
mod presigned;
mod progress;
mod retention;
pub mod settings;
mod text;
mod verb;

pub use annotations::{Annotations, AnnotationsPatch, MAX_NOTE_BYTES, parse_label};
pub use blocks::{BLOCK_BYTES, BlockSet, MAX_IMAGE_BYTES, block_bytes, block_count};
pub use buffer_pool::BufferPool;
pub use doctor::{Check, HealthReport, Verdict};
pub use error::{Error, Kind, Result};
pub use guest::{AgentChannel, DiskUse, Guest, GuestAccess, GuestMemory, Picture, Stats, Vnc};
pub use host_load::HostLoad;
pub use host_lock::{HostLock, LockedResource};
pub use identity::{DiskIdentity, FileStamp, ImageIdentity, SandboxIdentity};
pub use inventory::{
    BackingFormat, ChainLink, Compression, ForeignDomain, ImageFacts, Object, PartialPull, Sandbox,
    SandboxState, Snapshot,
};
pub use lineage::{
    KnownDigests, Lineage, LineageIndex, MAX_PARENTS, Manifests, PullCost, RelatedSnapshot,
    SharedBytes, order_by_ancestry,
};
pub use manifest::{
    Claim, Consistency, ContentProof, Damage, Digest, MAX_MANIFEST_BYTES, Manifest, Parent,
};
pub use name_proposal::{propose_clone_id, propose_sandbox_id, propose_snapshot_name};
pub use names::{HostName, SandboxId, SnapshotName, is_organization};
pub use operation::{Method, Operation, Outcome, PushPlan, SandboxSpec, TransferStats};
pub use parts::{ExpectedVariables, SnapshotParts};
pub use presigned::PresignedRequest;
pub use progress::{Phase, Progress, ProgressCell, Wait, WaitChange, WaitTarget};
pub use retention::{
    Candidate, LEFTOVER_MIN_AGE, Leftover, LeftoverKind, PrunePlan, PruneRule, family_name,
    find_matching, find_removable, parse_age,
};
pub use text::{
    escape_json, escape_unprintable, escape_unprintable_lines, is_unprintable, printable,
    printable_lines_within, printable_within,
};
pub use verb::{Applicability, Danger, SandboxVerb, VerbKind};
