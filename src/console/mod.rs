//! console
use std::path::PathBuf;
/// Stand-in.
pub struct Options {
    /// Stand-in.
    pub log_file: Option<PathBuf>,
    /// Stand-in.
    pub banner: Option<String>,
}
/// Stand-in.
pub fn run(_engine: crate::engine::Engine, _options: Options) -> color_eyre::Result<()> {
    Ok(())
}
