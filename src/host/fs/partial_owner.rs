//! Whose a partial file is: only one with a resume log of snapdeck is written to, and only this installation's is emptied.

use std::io;
use std::sync::Arc;

use super::resume_log::{Content, ResumeLog};
use snapdeck_model::settings::HostSettings;
use snapdeck_ownership::{OwnerMark, OwnershipRecords};

/// The records of one partial file.
#[derive(Clone)]
pub(super) struct PartialOwner {
    records: OwnershipRecords,
    settings: Arc<HostSettings>,
    path: Arc<str>,
}

impl PartialOwner {
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

    /// Returns the owner of a file that is about to be created, and records it. `log_text` is the text of a log without a
    /// file.
    ///
    /// # Errors
    /// `ResourceBusy` if that is not a resume log.
    pub(super) fn claim_new(&self, log_text: &[u8]) -> io::Result<OwnerMark> {
        let has_text = log_text.iter().any(|byte| !byte.is_ascii_whitespace());
        if has_text && ResumeLog::last_header(log_text).is_none() {
            let log = ResumeLog::path(&self.path);
            return Err(foreign(format!("{log} exists and is not of snapdeck")));
        }
        let mark = OwnerMark::new();
        self.records
            .record(&self.settings.uri, &self.path, &mark.id);
        Ok(mark)
    }

    /// Returns the owner of an existing file, by the text of its log, if `content` may be written to it.
    ///
    /// Blocks of the same content are only added, and the whole is verified. For another content the file is emptied.
    ///
    /// # Errors
    /// `ResourceBusy` if snapdeck did not create it, or another installation has created it for another content.
    pub(super) fn check_existing(
        &self,
        log_text: &[u8],
        content: &Content,
    ) -> io::Result<Option<OwnerMark>> {
        let Some(header) = ResumeLog::last_header(log_text) else {
            return Err(foreign("it exists, and snapdeck did not create it".into()));
        };
        let is_same = content.version.is_some() && header.content == *content;
        let is_own = header.owner.as_ref().is_some_and(|owner| {
            let (location, path) = (&self.settings.uri, &self.path);
            self.records.contains(location, path, &owner.id)
        });
        match (is_same || is_own, header.owner) {
            (true, owner) => Ok(owner),
            (false, owner) => {
                let creator = owner.map_or("another snapdeck".to_owned(), |owner| owner.creator);
                Err(foreign(format!(
                    "it is the partial file of another object, created by {creator}"
                )))
            }
        }
    }

    /// Removes the record of a file that was removed or renamed.
    pub(super) fn forget(&self, owner: Option<&OwnerMark>) {
        if let Some(owner) = owner {
            self.records
                .remove(&self.settings.uri, &self.path, &owner.id);
        }
    }
}

fn foreign(cause: String) -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, cause)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;

    fn content(version: Option<&str>) -> Content {
        Content {
            version: version.map(str::to_owned),
            size_bytes: 9,
        }
    }

    fn log(version: Option<&str>, owner: Option<OwnerMark>) -> Vec<u8> {
        let log = ResumeLog {
            content: content(version),
            boot_id: "b".into(),
            owner,
        };
        log.header(&BTreeMap::new()).into_bytes()
    }

    #[test]
    fn only_own_files_are_emptied_and_only_those_of_snapdeck_continued() {
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
        });
        let owner = PartialOwner::new(&OwnershipRecords::in_memory(), &settings, "/s/.a.partial");
        let own = owner.claim_new(b"").unwrap();
        let other = OwnerMark::new();
        let check = |text: &[u8], version| owner.check_existing(text, &content(version));
        for version in ["1", "2"] {
            let text = log(Some("1"), Some(own.clone()));
            assert_eq!(check(&text, Some(version)).unwrap(), Some(own.clone()));
        }
        let text = log(Some("1"), Some(other.clone()));
        assert_eq!(check(&text, Some("1")).unwrap(), Some(other.clone()));
        assert!(check(&text, Some("2")).is_err());
        assert_eq!(check(&log(Some("1"), None), Some("1")).unwrap(), None);
        for text in [log(Some("1"), None), log(None, Some(other)), b"x".to_vec()] {
            assert!(check(&text, Some("2")).is_err() && check(&text, None).is_err());
        }
        assert!(owner.claim_new(b"another tool's\n").is_err());
        owner.forget(Some(&own));
        assert!(check(&log(Some("1"), Some(own)), Some("2")).is_err());
    }
}
