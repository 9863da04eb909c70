//! Images and other files, as the tests judge them.

use std::path::Path;
use std::process::Command;

use super::process::{output, run};

/// Are the contents of two images the same, sector by sector?
pub(crate) fn same_disk(a: &str, b: &str) -> bool {
    let compared = output(Command::new("qemu-img").args(["compare", "-q", "-U", a, b]));
    compared.status.success()
}

/// The checksum of a file.
pub(crate) fn sha256(path: &str) -> String {
    let said = run("sha256sum", &[path]);
    said.split_whitespace().next().unwrap().to_owned()
}

/// Tells whether a file was touched: its inode and when it was last written.
pub(crate) fn stamp(path: &str) -> (u64, std::time::SystemTime) {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).unwrap();
    (metadata.ino(), metadata.modified().unwrap())
}

pub(crate) fn exists(path: &str) -> bool {
    Path::new(path).exists()
}
