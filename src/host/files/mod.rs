//! Files of a host.

mod local;
mod mark;

pub use local::{FileReader, FileWriter, Files};
pub use mark::Content;
