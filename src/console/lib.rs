//! The terminal console. It uses the engine and none of the crates below it.

mod actions;
mod all_hosts;
mod app;
mod background;
mod cell;
mod columns;
mod commands;
mod dialog;
mod draw;
mod escapes;
mod events;
mod filter;
#[cfg(test)]
mod fixture;
mod format;
mod jobs;
mod keymap;
mod lineage;
mod list;
mod log_view;
mod logging;
mod lookup;
mod matrix;
mod mouse;
mod notifications;
mod osc;
mod perform;
mod picture;
mod queries;
mod query;
mod rates;
mod reference;
mod run;
mod selection;
mod session;
mod table;
mod terminal;
#[cfg(test)]
mod tests;
mod theme;
mod tree;
mod verbs;
mod viewer;

pub use logging::log_fields;
pub use reference::{Reference, keymap_file, keys};
pub use run::{Options, run};
