//! Files and directories of the state directory that no other user can write to, whatever the umask was.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::geteuid;

/// Creates a directory, and its missing parents, with mode 0700.
///
/// # Errors
/// An I/O error.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Returns whether a file or directory belongs to this user and no other can write to it.
pub fn is_private(metadata: &Metadata) -> bool {
    metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

/// Opens a regular file for reading that only this user could have written: not the target of a link, with one name.
///
/// # Errors
/// `PermissionDenied` for any other file; an I/O error.
pub fn open_private_file(path: &Path) -> io::Result<File> {
    open_private(OpenOptions::new().read(true), path)
}

/// As [`open_private_file`], for reading and appending; creates a missing file with mode 0600.
///
/// # Errors
/// As [`open_private_file`].
pub fn append_private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).append(true).create(true).mode(0o600);
    open_private(options, path)
}

fn open_private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = options.custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    match metadata.is_file() && metadata.nlink() == 1 && is_private(&metadata) {
        true => Ok(file),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "another user may have written it",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::{Permissions, hard_link, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_files_of_this_user_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        write(path("own"), "x").unwrap();
        set_permissions(path("own"), Permissions::from_mode(0o644)).unwrap();
        assert!(open_private_file(&path("own")).is_ok());
        symlink(path("own"), path("link")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        write(path("shared"), "x").unwrap();
        set_permissions(path("shared"), Permissions::from_mode(0o666)).unwrap();
        write(path("linked"), "x").unwrap();
        hard_link(path("linked"), path("other")).unwrap();
        for name in ["link", "fifo", "shared", "linked"] {
            assert!(open_private_file(&path(name)).is_err(), "{name}");
            assert!(append_private_file(&path(name)).is_err(), "{name}");
        }
        append_private_file(&path("new")).unwrap();
        let mode = path("new").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
