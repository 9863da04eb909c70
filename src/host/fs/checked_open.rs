//! Opens files in directories that QEMU's user may own, and change at any moment.
//!
//! A link is never followed, and only a regular file is opened: a FIFO would block, and a link may lead to a file that
//! only root may read or write.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::unistd::geteuid;

use super::errors::CHANGED_WHILE_READ;
use super::local::FileOwner;
use crate::image_file::file_stamp;
use snapdeck_model::FileStamp;

/// Attempts to open a file with a lease, which a pull holds for 50 ms.
const LEASE_ATTEMPTS: usize = 6;
const LEASE_INTERVAL: Duration = Duration::from_millis(20);

/// Opens a regular file for reading.
///
/// A file that not everyone may read has one name and belongs to root, to this user or to `owner` (USER:GROUP): QEMU's
/// user gets nothing read that it may not read itself.
///
/// # Errors
/// `ResourceBusy` for any other file; an I/O error.
pub(crate) fn open_regular(path: &Path, owner: &str) -> io::Result<File> {
    let file = open_no_follow(OpenOptions::new().read(true), path)?;
    let is_public = file.metadata()?.mode() & 0o004 != 0;
    if !is_public {
        check_private(&file, path, owner)?;
    }
    Ok(file)
}

/// Opens a regular file for reading that only root or this user can write, and that has one name.
///
/// # Errors
/// As [`open_regular`].
pub(super) fn open_trusted(path: &Path) -> io::Result<File> {
    let file = open_no_follow(OpenOptions::new().read(true), path)?;
    if !(is_own(&file.metadata()?) && is_only_name(&file, path)?) {
        return Err(busy(path, "can be changed by another user"));
    }
    // libvirt gives a file of QEMU's user to root when a guest ends, whatever name it has then.
    let dir = std::fs::canonicalize(path.parent().unwrap_or(path))?;
    for dir in dir.ancestors() {
        let metadata = dir.symlink_metadata()?;
        let is_own = metadata.uid() == 0 || metadata.uid() == geteuid().as_raw();
        let is_sticky = metadata.mode() & 0o1000 != 0;
        if !is_own || (metadata.mode() & 0o022 != 0 && !is_sticky) {
            return Err(busy(dir, "can be changed by another user"));
        }
    }
    Ok(file)
}

/// Returns whether only root or this user can write to a file.
pub(super) fn is_own(metadata: &Metadata) -> bool {
    let is_own = metadata.uid() == 0 || metadata.uid() == geteuid().as_raw();
    is_own && metadata.mode() & 0o022 == 0
}

/// Opens a regular file to write to it: one with a single name that belongs to root, to this user or to `owner`.
///
/// # Errors
/// As [`open_regular`].
pub(super) fn open_own(options: &mut OpenOptions, path: &Path, owner: &str) -> io::Result<File> {
    let file = open_no_follow(options, path)?;
    check_private(&file, path, owner)?;
    Ok(file)
}

/// Fails unless the open `file` has `stamp`, if there is one. That was taken by name, and another file may have had the name.
///
/// # Errors
/// `ResourceBusy` if it has another one; an I/O error.
pub(super) fn check_stamp(file: &File, stamp: Option<FileStamp>) -> io::Result<()> {
    let now = file_stamp(&file.metadata()?);
    match stamp.is_none_or(|stamp| stamp.is_unchanged(&now)) {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            CHANGED_WHILE_READ,
        )),
    }
}

/// Opens a regular file; never the target of a link.
///
/// # Errors
/// `ResourceBusy` for anything else; an I/O error.
pub(crate) fn open_no_follow(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let options = options.custom_flags(flags);
    let opened = await_lease(|| options.open(path));
    let not_regular = || busy(path, "is not a regular file");
    match opened {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(not_regular()),
        // A link, a socket, or a FIFO without a reader.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(nix::libc::ELOOP | nix::libc::ENXIO)
            ) =>
        {
            Err(not_regular())
        }
        Err(error) => Err(error),
    }
}

/// Opens a file without waiting, but for a moment: a pull that publishes it has a lease on it that long.
pub(crate) fn await_lease(mut open: impl FnMut() -> io::Result<File>) -> io::Result<File> {
    for _ in 0..LEASE_ATTEMPTS {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(LEASE_INTERVAL);
            }
            opened => return opened,
        }
    }
    open()
}

/// Returns whether `path` is the only name of the open `file`.
pub(crate) fn is_only_name(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    // One call for both: the name may change between two.
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino(), named.nlink()) == (open.dev(), open.ino(), 1)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn check_private(file: &File, path: &Path, owner: &str) -> io::Result<()> {
    if !is_only_name(file, path)? {
        return Err(busy(path, "has other names (hard links), or was replaced"));
    }
    let uid = file.metadata()?.uid();
    let is_known = uid == 0
        || uid == geteuid().as_raw()
        || FileOwner::resolve(owner).is_ok_and(|owner| owner.uid() == uid);
    match is_known {
        true => Ok(()),
        false => Err(busy(
            path,
            &format!("belongs to another user (uid {uid}) than {owner}"),
        )),
    }
}

fn busy(path: &Path, reason: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!("{} {reason}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::{Permissions, hard_link, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_private_ones_by_their_only_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let open = |name: &str| open_regular(&path(name), "0:0").map_err(|error| error.kind());
        write(path("private"), "x").unwrap();
        set_permissions(path("private"), Permissions::from_mode(0o600)).unwrap();
        symlink(path("private"), path("link")).unwrap();
        symlink(path("new"), path("dangling")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open("private").is_ok());
        assert_eq!(open("new").err(), Some(io::ErrorKind::NotFound));
        for name in ["link", "dangling", "fifo", "."] {
            assert_eq!(
                open(name).err(),
                Some(io::ErrorKind::ResourceBusy),
                "{name}"
            );
        }
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true);
        for name in ["link", "dangling", "fifo"] {
            assert!(open_no_follow(options, &path(name)).is_err(), "{name}");
        }
        assert!(!path("new").exists());
        hard_link(path("private"), path("hard")).unwrap();
        assert_eq!(open("hard").err(), Some(io::ErrorKind::ResourceBusy));
        set_permissions(path("private"), Permissions::from_mode(0o644)).unwrap();
        assert!(open("hard").is_ok());
        let own = |name| open_own(OpenOptions::new().write(true), &path(name), "0:0");
        assert!(own("hard").is_err());
        std::fs::remove_file(path("private")).unwrap();
        assert!(own("hard").is_ok());
    }
}
