//! The console: the screen an operator lives in. Holds an engine handle and nothing below it.

mod actions;
mod app;
mod asking;
mod background;
mod cell;
mod commands;
mod dialog;
mod draw;
mod escapes;
mod events;
mod fields;
mod filter;
#[cfg(test)]
mod fixture;
mod format;
mod jobspage;
mod keymap;
mod kin;
mod list;
mod log;
mod logpane;
mod matrix;
mod meter;
mod mouse;
mod news;
mod perform;
mod picture;
mod query;
mod reference;
mod run;
mod session;
mod shown;
mod table;
mod terminal;
#[cfg(test)]
mod tests;
mod theme;
mod together;
mod tree;
mod verbs;
mod viewer;
mod world;

pub use reference::{Reference, keymap_file, keys};
pub use run::{Options, run};
