//! Directories of the snapshots `ORG/NAME` on a host.

use super::Host;
use snapdeck_model::{Error, Kind, Result, SnapshotName};

impl Host {
    /// Creates the directory `ORG` of a snapshot `ORG/NAME`, with owner and mode of the snapshots directory, unless it exists.
    ///
    /// It is never removed: a pull of another snapshot may be about to give an image its name in it.
    ///
    /// # Errors
    /// `Conflict` if it is a link, on another file system, another user's, or another directory of the settings; an I/O error;
    /// `Unreachable`.
    pub async fn ensure_organization_dir(&self, name: &SnapshotName) -> Result<()> {
        let Some(organization) = name.organization() else {
            return Ok(());
        };
        let scratch = self.scratch_dirs();
        if scratch.check_organization(organization).await? {
            return Ok(());
        }
        scratch.make_organization(organization).await?;
        // Another process may have given its name to something else.
        if scratch.check_organization(organization).await? {
            return Ok(());
        }
        let dir = &self.settings.snapshots_dir;
        let summary = format!("cannot create {dir}/{organization} on host {}", self.name());
        Err(Error::new(Kind::Conflict, summary).with_cause("it was removed while it was created"))
    }

    /// Fails for a snapshot `ORG/NAME` if `ORG` is not one of the organizations, or another directory of the host.
    ///
    /// # Errors
    /// `NotFound` and `InvalidInput`.
    pub(super) fn check_organization(&self, name: &SnapshotName) -> Result<()> {
        let settings = &self.settings;
        let is_unusable = |organization: &&str| !settings.is_organization(organization);
        let Some(organization) = name.organization().filter(is_unusable) else {
            return Ok(());
        };
        let summary = format!("{name} cannot be a snapshot on host {}", self.name());
        let mut known = settings.organizations.iter();
        Err(match known.any(|known| known == organization) {
            true => Error::new(Kind::InvalidInput, summary).with_cause(format!(
                "{}/{organization} is, or has, another directory of the settings",
                settings.snapshots_dir
            )),
            false => Error::unknown_organization(organization, summary),
        })
    }
}
