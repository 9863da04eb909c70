//! What the engine samples while a front end watches: loads of hosts, metrics and screens of guests. `make test` starts the
//! lab.
mod host_load;
