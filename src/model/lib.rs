//! Names and plain data: what every floor above speaks of. No I/O, no environment.

mod blocks;
mod buffers;
mod doctor;
mod error;
mod hashing;
mod inventory;
mod lineage;
mod live;
mod manifest;
mod names;
mod operation;
mod progress;
mod remarks;
mod retention;
pub mod settings;

pub use blocks::{BlockSet, block_bytes, block_count};
pub use buffers::Buffers;
pub use doctor::{Check, Examination, Verdict};
pub use error::{Error, Kind, Result};
pub use hashing::{PendingDigest, begin as begin_hash, hash, hash_if_all_wait};
pub use inventory::{
    ChainLink, Compression, ImageFacts, Object, OtherGuest, Sandbox, SandboxState, Snapshot,
};
pub use lineage::{
    Family, Lineage, MAX_PARENTS, Manifests, Part, PullCost, Relative, nearest_first, shared,
};
pub use live::{AgentChannel, DiskUse, Guest, Picture, Reach, Stats, Vnc};
pub use manifest::{
    BLOCK_BYTES, Consistency, Damage, Digest, FileStamp, Hashing, MAX_MANIFEST_BYTES, Manifest,
    Parent,
};
pub use names::{HostName, SandboxId, SnapshotName};
pub use operation::{Forecast, Method, Moved, Operation, Outcome, SandboxForm, SandboxVerb};
pub use progress::{Phase, Progress, ProgressCell};
pub use remarks::{MAX_NOTE_BYTES, Remarks, RemarksChange, parse_label};
pub use retention::{
    Candidate, LEFT_FOR, Leftover, LeftoverKind, PrunePlan, Rule, Version, choose, family, matching,
};
