//! What is said of snapshots, where they come from, and what a rule lets go: the real binary, real libvirt, a real S3
//! store. `make test` starts what they need.
mod leftovers;
mod lineage;
mod notes;
mod prune;
