//! The terminal console. It uses the engine and none of the crates below it.

mod actions;
mod app;
mod areas;
mod background;
mod bookmarks;
mod cell;
mod clipboard;
mod columns;
mod command;
mod commands;
mod custom;
mod dialog;
mod draw;
mod escapes;
mod events;
mod facts;
mod families;
#[cfg(test)]
mod fixture;
mod foreground;
mod format;
mod host_list;
mod keymap;
mod list;
mod load_history;
mod log_view;
mod logging;
mod lookup;
mod notifications;
mod osc;
mod pages;
mod picture;
mod programs;
mod queries;
mod query;
mod rates;
mod reference;
mod run;
mod serial;
mod session;
mod signals;
mod table;
mod terminal;
#[cfg(test)]
mod tests;
mod theme;
mod viewer;
mod widgets;
mod world;

pub use logging::log_fields;
pub use reference::{Reference, keymap_file, keys};
pub use run::{Exit, Options, run};
