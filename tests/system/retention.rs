//! Annotations, lineage, prune and leftovers: the real program, libvirt and an S3 server. `make test` starts the lab.
mod annotations;
mod leftovers;
mod lineage;
mod prune;
