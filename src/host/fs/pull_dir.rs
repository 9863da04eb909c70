//! The private directory of a pull: the file that it writes, the resume log of that file, and the mark of the snapdeck that
//! created the directory.
//!
//! Only this user can change what is in it (mode 0700). It is entered once and then used as a handle, whatever gets its name
//! meanwhile. Only what this installation has created is emptied for other content.

use std::io;
use std::sync::Arc;

use super::resume_log::{Content, ResumeLog};
use snapdeck_model::settings::HostSettings;
use snapdeck_ownership::{OwnerMark, OwnershipRecords};

/// The file that a pull writes.
pub(super) const FILE_NAME: &str = "partial";
/// Name of the file in the directory, which is the working directory of a script.
pub(super) const FILE_PATH: &str = "./partial";

/// The records of one directory.
#[derive(Clone)]
pub(super) struct PullDirRecords {
    records: OwnershipRecords,
    settings: Arc<HostSettings>,
    path: Arc<str>,
}

impl PullDirRecords {
    pub(super) fn new(
        records: &OwnershipRecords,
        settings: &Arc<HostSettings>,
        path: &str,
    ) -> Self {
        Self {
            records: records.clone(),
            settings: settings.clone(),
            path: path.into(),
        }
    }

    /// Returns the mark of a directory that is about to be created, and records it.
    pub(super) fn claim(&self) -> OwnerMark {
        let mark = OwnerMark::new();
        self.records
            .record(&self.settings.uri, &self.path, &mark.id);
        mark
    }

    /// Returns whether a directory of this path is recorded.
    pub(super) fn has_any(&self) -> bool {
        let (location, path) = (&self.settings.uri, &self.path);
        self.records.find_id(location, path).is_some()
    }

    /// Removes the record of a directory that does not exist.
    pub(super) fn forget(&self, id: &str) {
        self.records.remove(&self.settings.uri, &self.path, id);
    }

    /// Removes all records of a directory that does not exist.
    pub(super) fn forget_all(&self) {
        while let Some(id) = self.records.find_id(&self.settings.uri, &self.path) {
            self.forget(&id);
            if self.records.find_id(&self.settings.uri, &self.path) == Some(id) {
                // It cannot be removed; it does no harm.
                return;
            }
        }
    }

    /// Returns the entered directory with this identity, for which `claimed` was recorded, and which has the mark `found`.
    pub(super) fn entered(
        &self,
        claimed: &OwnerMark,
        found: OwnerMark,
        identity: String,
    ) -> PullDir {
        if found.id != claimed.id {
            self.forget(&claimed.id);
        }
        let (location, path) = (&self.settings.uri, &self.path);
        PullDir {
            is_own: self.records.contains(location, path, &found.id),
            records: self.clone(),
            mark: found,
            identity,
        }
    }
}

/// The private directory of a pull, which exists.
#[derive(Clone)]
pub struct PullDir {
    records: PullDirRecords,
    mark: OwnerMark,
    /// Device and inode, as stat(1) prints them with `%d:%i`.
    identity: String,
    /// Whether this installation has created it.
    is_own: bool,
}

impl PullDir {
    /// Returns the path, for messages.
    pub(crate) fn path(&self) -> &str {
        &self.records.path
    }

    /// Returns path, id of the mark, and identity: the words by which a script enters it.
    pub(crate) fn words(&self) -> [&str; 3] {
        [&self.records.path, &self.mark.id, &self.identity]
    }

    /// Fails unless `content` may be written to the file in it, by the text of its log.
    ///
    /// Blocks of the same content are only added, and the whole is verified. For another content the file is emptied.
    ///
    /// # Errors
    /// `ResourceBusy` if another installation has created it for another content.
    pub(super) fn check_content(
        &self,
        log_text: &[u8],
        has_file: bool,
        content: &Content,
    ) -> io::Result<()> {
        let is_same = match ResumeLog::last_header(log_text) {
            Some(header) => content.version.is_some() && header.content == *content,
            None => !has_file,
        };
        if is_same || self.is_own {
            return Ok(());
        }
        let creator = &self.mark.creator;
        Err(foreign(format!(
            "it is the partial file of another object, created by {creator}"
        )))
    }

    /// Removes the record of it, which was removed.
    pub(super) fn forget(&self) {
        self.records.forget(&self.mark.id);
    }
}

pub(super) fn foreign(cause: String) -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, cause)
}

/// Fails because `path` has no mark of snapdeck, or one that is damaged.
pub(super) fn unmarked_error(path: &str) -> io::Error {
    foreign(format!("{path} exists, and snapdeck did not create it"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;
    use snapdeck_model::settings::TransferRoute;

    fn content(version: Option<&str>) -> Content {
        Content {
            version: version.map(str::to_owned),
            size_bytes: 9,
        }
    }

    fn log(version: Option<&str>) -> Vec<u8> {
        let log = ResumeLog {
            content: content(version),
            boot_id: "b".into(),
            owner: None,
        };
        log.header(&BTreeMap::new()).into_bytes()
    }

    #[test]
    fn only_own_files_are_emptied_and_those_of_others_continued() {
        let settings = Arc::new(HostSettings {
            name: "alpha".parse().unwrap(),
            uri: "qemu:///system".into(),
            snapshots_dir: "/s".into(),
            sandboxes_dir: "/b".into(),
            nvram_dir: "/n".into(),
            owner: "qemu:kvm".into(),
            temp_dir: "/t".into(),
            reconnect_timeout: Default::default(),
            running_methods: Vec::new(),
            transfer: TransferRoute::Relay,
            bucket_endpoint: None,
            unattended: std::time::Duration::ZERO,
            max_bytes_per_sec: 0,
            organizations: Vec::new(),
        });
        let records = PullDirRecords::new(&OwnershipRecords::in_memory(), &settings, "/s/.a.pull");
        let claimed = records.claim();
        let own = records.entered(&claimed, claimed.clone(), "1:2".into());
        assert_eq!(own.words(), ["/s/.a.pull", &*claimed.id, "1:2"]);
        for text in [log(Some("1")), b"x".to_vec(), Vec::new()] {
            for version in [Some("1"), Some("2"), None] {
                own.check_content(&text, true, &content(version)).unwrap();
            }
        }
        own.forget();
        assert!(!records.has_any());

        let claimed = records.claim();
        let other = records.entered(&claimed, OwnerMark::new(), "1:2".into());
        assert!(!records.has_any(), "the directory has another mark");
        let check =
            |text: &[u8], has_file, version| other.check_content(text, has_file, &content(version));
        check(&log(Some("1")), true, Some("1")).unwrap();
        check(b"", false, Some("1")).unwrap();
        for (text, version) in [
            (log(Some("1")), Some("2")),
            (log(None), None),
            (b"x".to_vec(), Some("1")),
        ] {
            assert!(check(&text, true, version).is_err());
        }
        records.claim();
        records.claim();
        records.forget_all();
        assert!(!records.has_any());
    }
}
