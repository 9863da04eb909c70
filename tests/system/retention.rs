//! Annotations, lineage, prune and leftovers: the real program, libvirt and an S3 server. `make test` starts the lab.
mod leftovers;
mod lineage;
mod notes;
mod prune;
