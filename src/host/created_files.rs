//! Files of sandboxes that snapdeck has created, or is about to remove: without a domain only a record proves that.

use super::Host;
use super::digest::hash_block;
use snapdeck_model::Result;

/// Longest file whose content may be recorded, in bytes.
const MAX_CONTENT_BYTES: u64 = 64 << 20;

/// The records of the files of sandboxes on a host.
#[derive(Clone, Copy)]
pub struct CreatedFiles<'a> {
    host: &'a Host,
}

impl<'a> CreatedFiles<'a> {
    pub(super) fn new(host: &'a Host) -> Self {
        Self { host }
    }
}

impl CreatedFiles<'_> {
    /// Records the identity of an existing file: inode and time of birth. A missing file is fine.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn record(self, path: &str) -> Result<()> {
        if let Some(identity) = self.host.scratch_dirs().birth(path).await? {
            self.record_identity(path, &identity);
        }
        Ok(())
    }

    pub(super) fn record_identity(self, path: &str, identity: &str) {
        let location = self.host.location();
        self.host.records.record(location, path, identity);
    }

    /// Records that a file with these bytes is about to be created.
    pub fn record_content(self, path: &str, bytes: &[u8]) {
        self.record_identity(path, &content_id(bytes));
    }

    /// Returns whether this snapdeck, or an earlier process of it, has recorded the file, and no other has its name now.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn is_own(self, path: &str) -> Result<bool> {
        let (location, records) = (self.host.location(), &self.host.records);
        let Some(id) = records.find_id(location, path) else {
            return Ok(false);
        };
        let identity = self.host.scratch_dirs().birth(path).await?;
        if identity.is_some_and(|identity| records.contains(location, path, &identity)) {
            return Ok(true);
        }
        if !id.starts_with(CONTENT) {
            return Ok(false);
        }
        let content = self.host.fs().read_file(path, MAX_CONTENT_BYTES).await?;
        Ok(content.is_some_and(|bytes| content_id(&bytes) == id))
    }

    /// Removes the records of a path.
    pub fn forget(self, path: &str) {
        let (location, records) = (self.host.location(), &self.host.records);
        while let Some(id) = records.find_id(location, path) {
            records.remove(location, path, &id);
            if records.contains(location, path, &id) {
                // It cannot be removed; it does no harm.
                return;
            }
        }
    }
}

const CONTENT: &str = "sha256:";

fn content_id(bytes: &[u8]) -> String {
    format!("{CONTENT}{}", hash_block(bytes))
}
