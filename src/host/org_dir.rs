//! Directories of the snapshots `ORG/NAME` on a host.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Host;
use super::fs::system_error;
use snapdeck_model::{Error, Kind, Result, SnapshotName};
use snapdeck_ownership::random_id;

const SCRIPT: &str = concat!(
    include_str!("open_file.sh"),
    include_str!("private_dir.sh"),
    include_str!("org_dir.sh")
);
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_OUTPUT_BYTES: usize = 4096;

impl Host {
    /// Creates the directory `ORG` of a snapshot `ORG/NAME`, with owner and mode of the snapshots directory, unless it exists.
    ///
    /// It is never removed: a pull of another snapshot may be about to give an image its name in it.
    ///
    /// # Errors
    /// `Conflict` if it is a link, on another file system, or another user's; an I/O error; `Unreachable`.
    pub async fn ensure_organization_dir(&self, name: &SnapshotName) -> Result<()> {
        let Some(organization) = name.organization() else {
            return Ok(());
        };
        let dir = &*self.settings.snapshots_dir;
        let summary = format!("cannot create {dir}/{organization} on host {}", self.name());
        let never = CancellationToken::new();
        let run = async || {
            let token = random_id();
            let script = ["sh", "-c", SCRIPT, "snapdeck", dir, organization, &*token];
            let runner = &self.runner;
            runner
                .run_raw(&script, MAX_OUTPUT_BYTES, TIMEOUT, &never)
                .await
        };
        let output = self.retry_policy.call(run).await?;
        match output.status.success() {
            true => Ok(()),
            false => Err(system_error(summary, &output.stderr)),
        }
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
