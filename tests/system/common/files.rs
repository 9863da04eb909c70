//! Comparison of images and other files.

use std::path::Path;
use std::process::Command;

use super::process::{output, run};

/// Returns whether the guest-visible contents of two images are equal.
pub(crate) fn same_disk(a: &str, b: &str) -> bool {
    let compared = output(Command::new("qemu-img").args(["compare", "-q", "-U", a, b]));
    compared.status.success()
}

/// Returns the checksum of a file.
pub(crate) fn sha256(path: &str) -> String {
    let sum = run("sha256sum", &[path]);
    sum.split_whitespace().next().unwrap().to_owned()
}

/// Returns inode and modification time, which change when a file is written or replaced.
pub(crate) fn stamp(path: &str) -> (u64, std::time::SystemTime) {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).unwrap();
    (metadata.ino(), metadata.modified().unwrap())
}

pub(crate) fn exists(path: &str) -> bool {
    Path::new(path).exists()
}
