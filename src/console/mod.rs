//! The console: the screen an operator lives in. Holds an engine handle and nothing below it.

mod actions;
mod app;
mod cell;
mod dialog;
mod draw;
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
mod perform;
mod picture;
mod run;
mod shown;
mod terminal;
#[cfg(test)]
mod tests;
mod theme;
mod together;
mod tree;
mod verbs;
mod viewer;
mod world;

pub use run::{Options, run};
