//! Files of snapshots `ORG/NAME`: their directory is in that of the snapshots, which QEMU's user may own. That user can put a link
//! in its place at any moment: it is opened once, never through a link, and used by its descriptor.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::checked_open::open_regular;
use super::pull_dir::foreign;
use snapdeck_model::settings::HostSettings;

/// Cause of the error for the directory of another user, after its path; also in `open_file.sh`.
pub(super) const OTHER_USER: &str = "belongs to another user than the snapshots directory";

/// A name of a file on which no link leads elsewhere, as long as this lives.
pub(super) struct PinnedPath {
    path: PathBuf,
    /// The directory of an organization, and its path.
    dir: Option<(File, PathBuf)>,
}

impl PinnedPath {
    /// Returns the name of the file `path` of a host; any that is not in the directory of an organization stays as it is.
    ///
    /// # Errors
    /// `ResourceBusy` if that directory is a link, on another file system, or of a user who may not write to the snapshots directory;
    /// `NotFound` without one.
    pub(super) fn open(settings: &HostSettings, path: &Path) -> io::Result<Self> {
        let split = path
            .to_str()
            .and_then(|path| settings.split_organization(path));
        match split {
            Some((organization, name)) => {
                let parent = Path::new(&settings.snapshots_dir);
                Self::in_organization(parent, organization, name, path)
            }
            None => Ok(Self::plain(path.to_owned())),
        }
    }

    /// Returns the name of a file in a directory that needs no check.
    pub(super) fn plain(path: PathBuf) -> Self {
        Self { path, dir: None }
    }

    /// Returns the name of the file `ORG/NAME` in the directory `parent`; `shown` is its path for messages.
    ///
    /// # Errors
    /// As [`PinnedPath::open`].
    pub(super) fn in_organization(
        parent: &Path,
        organization: &str,
        name: &str,
        shown: &Path,
    ) -> io::Result<Self> {
        let shown_dir = shown.parent().unwrap_or(shown).to_owned();
        let parent = open_directory(parent, 0)?;
        let path = descriptor_path(&parent).join(organization);
        let dir = open_directory(&path, nix::libc::O_NOFOLLOW).map_err(|error| {
            match error.raw_os_error() {
                Some(nix::libc::ENOTDIR | nix::libc::ELOOP) => {
                    foreign(format!("{} is not a directory", shown_dir.display()))
                }
                _ => error,
            }
        })?;
        let (own, above) = (dir.metadata()?, parent.metadata()?);
        if own.dev() != above.dev() {
            // No file could get its name there in one step.
            return Err(foreign(format!(
                "{} is on another file system than the snapshots directory",
                shown_dir.display()
            )));
        }
        let is_trusted = |uid: u32| uid == 0 || uid == geteuid().as_raw();
        let is_for_group = |dir: &Metadata| dir.mode() & 0o022 == 0o020;
        let is_shared = own.gid() == above.gid() && is_for_group(&own) && is_for_group(&above);
        // Whose directory it is in can give its name to a directory of root.
        if own.uid() != above.uid()
            && !(is_trusted(own.uid()) && is_trusted(above.uid()))
            && !is_shared
        {
            return Err(foreign(format!("{} {OTHER_USER}", shown_dir.display())));
        }
        Ok(Self {
            path: descriptor_path(&dir).join(name),
            dir: Some((dir, shown_dir)),
        })
    }

    /// Names the directory in a message by its path, not by its descriptor.
    pub(super) fn explain(&self, error: io::Error) -> io::Error {
        let Some((dir, shown)) = &self.dir else {
            return error;
        };
        let descriptor = descriptor_path(dir).display().to_string();
        let text = error.to_string();
        match error.raw_os_error().is_none() && text.contains(&descriptor) {
            true => {
                let shown = shown.display().to_string();
                io::Error::new(error.kind(), text.replace(&descriptor, &shown))
            }
            false => error,
        }
    }
}

impl Deref for PinnedPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// Opens a regular file of a host for reading, as [`open_regular`].
///
/// # Errors
/// As [`PinnedPath::open`] and [`open_regular`].
pub(super) fn open_pinned(settings: &HostSettings, path: &str) -> io::Result<File> {
    let pinned = PinnedPath::open(settings, Path::new(path))?;
    open_regular(&pinned, &settings.owner).map_err(|error| pinned.explain(error))
}

/// Opens a directory without the right to list it.
fn open_directory(path: &Path, flags: i32) -> io::Result<File> {
    let flags = flags | nix::libc::O_PATH | nix::libc::O_DIRECTORY;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Returns the path of an open directory, by its descriptor.
fn descriptor_path(dir: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_directory_that_is_replaced_by_a_link_is_not_entered() {
        let root = tempfile::tempdir().unwrap();
        let (snapshots, outside) = (root.path().join("s"), root.path().join("outside"));
        std::fs::create_dir_all(snapshots.join("acme")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        for dir in [&snapshots.join("acme"), &outside] {
            std::fs::write(dir.join("app.qcow2"), dir.to_str().unwrap()).unwrap();
        }
        let shown = snapshots.join("acme/app.qcow2");
        let open = || PinnedPath::in_organization(&snapshots, "acme", "app.qcow2", &shown);
        let pinned = open().unwrap();
        std::fs::rename(snapshots.join("acme"), snapshots.join("moved")).unwrap();
        symlink(&outside, snapshots.join("acme")).unwrap();
        // The directory that was opened, not the one that has its name now.
        let text = std::fs::read_to_string(&*pinned).unwrap();
        assert!(text.ends_with("/acme"), "{text}");
        std::fs::remove_file(&*pinned).unwrap();
        assert!(outside.join("app.qcow2").exists());
        assert!(!snapshots.join("moved/app.qcow2").exists());
        let error = open().err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert!(
            error.to_string().contains("acme is not a directory"),
            "{error}"
        );
        std::fs::remove_file(snapshots.join("acme")).unwrap();
        assert_eq!(open().err().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
