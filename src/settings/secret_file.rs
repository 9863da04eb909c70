//! Files with secrets: they are read only if no other user can read or replace them.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::geteuid;

use snapdeck_model::{Error, Kind, Result};

/// Maximum length of a file in bytes.
const MAX_BYTES: u64 = 256 * 1024;
const STICKY: u32 = 0o1000;

/// Reads a file with a secret. Links are followed: certificates are usually links.
///
/// # Errors
/// `InvalidInput` if it cannot be read, is not a regular file, is too long, or if other users can read it, write to it, or
/// put another file in its place.
pub fn read_secret_file(summary: &str, path: &Path) -> Result<Vec<u8>> {
    read(summary, path, true)
}

/// Reads a file that belongs to a secret and is public itself, such as a certificate.
///
/// # Errors
/// `InvalidInput` if it cannot be read, is not a regular file or is too long.
pub fn read_public_file(summary: &str, path: &Path) -> Result<Vec<u8>> {
    read(summary, path, false)
}

fn read(summary: &str, path: &Path, is_secret: bool) -> Result<Vec<u8>> {
    let failed = || Error::new(Kind::InvalidInput, format!("{summary}: {}", path.display()));
    let cannot_read = |error: io::Error| {
        failed()
            .with_cause(error)
            .hint("check the file's path and permissions")
    };
    // Opening a FIFO must not wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open(path)
        .map_err(cannot_read)?;
    let metadata = file.metadata().map_err(cannot_read)?;
    if !metadata.is_file() {
        return Err(failed().with_cause("it is not a regular file"));
    }
    if is_secret {
        check_file(path, &metadata)
            .map_err(|(cause, hint)| failed().with_cause(cause).hint(hint))?;
        check_directories(path, &metadata)
            .map_err(cannot_read)?
            .map_or(Ok(()), |cause| {
                Err(failed()
                    .with_cause(cause)
                    .hint("move it to a directory that only its owner and root can write to"))
            })?;
    }
    read_bounded(file)
        .map_err(cannot_read)?
        .ok_or_else(|| failed().with_cause(format!("it is longer than {} KiB", MAX_BYTES / 1024)))
}

fn read_bounded(file: File) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= MAX_BYTES).then_some(bytes))
}

/// Returns whether root or this user owns it.
fn is_trusted_owner(metadata: &Metadata) -> bool {
    [0, geteuid().as_raw()].contains(&metadata.uid())
}

/// Fails with cause and hint.
fn check_file(path: &Path, metadata: &Metadata) -> Result<(), (String, String)> {
    let shown = path.display();
    if !is_trusted_owner(metadata) {
        let user = geteuid();
        return Err((
            format!("it belongs to another user (uid {})", metadata.uid()),
            format!("run `chown {user} {shown}`"),
        ));
    }
    // The bits of the group show the rights of access control lists, too.
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err((
            format!("other users can read or write it (mode {mode:04o})"),
            format!("run `chmod 600 {shown}`, and make a new one if others may have read it"),
        ));
    }
    Ok(())
}

/// Returns why other users can put another file in its place, if they can.
fn check_directories(path: &Path, metadata: &Metadata) -> io::Result<Option<String>> {
    let absolute = std::path::absolute(path)?;
    let resolved = path.canonicalize()?;
    let now = resolved.metadata()?;
    if (now.dev(), now.ino()) != (metadata.dev(), metadata.ino()) {
        return Ok(Some("it was replaced while it was read".to_owned()));
    }
    let parents = |path: &Path| {
        path.ancestors()
            .skip(1)
            .map(Path::to_owned)
            .collect::<Vec<_>>()
    };
    for dir in parents(&absolute).into_iter().chain(parents(&resolved)) {
        let metadata = dir.metadata()?;
        let shown = dir.display();
        if !is_trusted_owner(&metadata) {
            let uid = metadata.uid();
            return Ok(Some(format!(
                "its directory {shown} belongs to another user (uid {uid})"
            )));
        }
        // In a sticky directory only the owner of a file replaces it.
        if metadata.mode() & 0o022 != 0 && metadata.mode() & STICKY == 0 {
            let mode = metadata.mode() & 0o7777;
            return Ok(Some(format!(
                "other users can write to its directory {shown} (mode {mode:04o})"
            )));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn cause_of(path: &Path) -> String {
        read_secret_file("cannot read it", path)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn only_a_file_that_nobody_else_can_read_or_replace_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        write(&file, "x").unwrap();
        for mode in [0o600, 0o400] {
            set_mode(&file, mode);
            assert_eq!(read_secret_file("", &file).unwrap(), b"x");
        }
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o610] {
            set_mode(&file, mode);
            let cause = cause_of(&file);
            assert!(
                cause.contains("other users can read or write it"),
                "{cause}"
            );
            assert_eq!(read_public_file("", &file).unwrap(), b"x");
        }
        set_mode(&file, 0o600);
        for mode in [0o777, 0o775, 0o702] {
            set_mode(dir.path(), mode);
            let cause = cause_of(&file);
            assert!(cause.contains("write to its directory"), "{cause}");
        }
        set_mode(dir.path(), 0o1777);
        assert!(read_secret_file("", &file).is_ok());
    }

    #[test]
    fn the_directory_of_a_link_and_that_of_its_target_count() {
        let dir = tempfile::tempdir().unwrap();
        let (open, closed) = (dir.path().join("open"), dir.path().join("closed"));
        for dir in [&open, &closed] {
            create_dir(dir).unwrap();
            write(dir.join("token"), "x").unwrap();
            set_mode(&dir.join("token"), 0o600);
            set_mode(dir, 0o700);
        }
        symlink(open.join("token"), closed.join("link")).unwrap();
        symlink(closed.join("token"), open.join("link")).unwrap();
        for link in [open.join("link"), closed.join("link")] {
            assert!(read_secret_file("", &link).is_ok());
        }
        set_mode(&open, 0o777);
        for link in [open.join("link"), closed.join("link")] {
            let cause = cause_of(&link);
            assert!(cause.contains("write to its directory"), "{cause}");
        }
    }

    #[test]
    fn what_is_not_a_short_regular_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&*fifo, dir.path(), Path::new("/dev/zero")] {
            let cause = cause_of(path);
            assert!(cause.contains("not a regular file"), "{cause}");
        }
        let long = dir.path().join("long");
        write(&long, vec![b'x'; MAX_BYTES as usize + 1]).unwrap();
        set_mode(&long, 0o600);
        assert!(cause_of(&long).contains("longer than 256 KiB"));
        assert!(cause_of(&dir.path().join("none")).contains("No such file"));
    }
}
