//! Data beside the inventory: finished jobs, locks of other processes, and samples for a front end that watches (loads of
//! hosts, metrics and screens of guests). `make test` starts the lab.
mod guest_memory;
mod history;
mod host_load;
mod locks;
mod screens;
