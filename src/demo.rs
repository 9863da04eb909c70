//! demo
/// Stand-in.
pub fn run() -> color_eyre::Result<()> {
    Ok(())
}
