//! The end of backups, also of those that an earlier snapdeck left.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use virt::domain::{
    Domain, DomainPausedReason, DomainState, DomainStateReason, DomainStateReasonEnum,
};
use virt::error::Error as VirtError;

use crate::{CALL_TIMEOUT, Host, domain};
use snapdeck_model::{Error, Kind, Result, SandboxId, SandboxState};

/// For the end of one, and how often that is looked for.
const END_TIMEOUT: Duration = Duration::from_secs(20);
pub(super) const END_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What an earlier snapdeck left of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleBackup {
    /// The sandbox whose disk it was.
    pub id: SandboxId,
    /// Its directory.
    pub dir: String,
}

impl StaleBackup {
    /// Of a directory's name.
    fn from_dir_name(sandboxes_dir: &str, name: &str) -> Option<Self> {
        let (id, _) = name
            .strip_prefix('.')?
            .strip_suffix(".backup")?
            .rsplit_once('.')?;
        Some(Self {
            id: id.parse().ok()?,
            dir: format!("{sandboxes_dir}/{name}"),
        })
    }

    fn name(&self) -> &str {
        self.dir
            .rsplit_once('/')
            .map_or(&self.dir, |(_, name)| name)
    }
}

impl Host {
    /// What earlier snapdecks left of backups, or another one is at now: take the sandbox's lock before you touch it.
    ///
    /// # Errors
    /// `Unreachable` where the directory may not be listed.
    pub async fn stale_backups(&self) -> Result<Vec<StaleBackup>> {
        let under = &self.settings.sandboxes_dir;
        let names = self.fs.backup_dirs(under).await?;
        Ok(names
            .iter()
            .filter_map(|name| StaleBackup::from_dir_name(under, name))
            .collect())
    }

    /// Ends a backup that was left, lets the sandbox go on if that was left undone, and removes the directory; in words
    /// what there was.
    ///
    /// # Errors
    /// `Failed` where it does not end; `Unreachable`.
    pub async fn remove_stale(&self, left: &StaleBackup) -> Result<String> {
        let is_paused = self.has_file(&format!("{}/paused", left.dir)).await?;
        if is_paused && let Ok(SandboxState::Paused) = self.sandbox_state(&left.id).await {
            self.resume(&left.id).await?;
        }
        let ended = self.end_backup(&left.id, left.name()).await?;
        self.fs.remove_temp_dir(&left.dir).await?;
        let job = if ended { "its backup job, and " } else { "" };
        Ok(format!(
            "removed leftovers of an earlier backup of sandbox {}: {job}{}",
            left.id, left.dir
        ))
    }

    /// Ends the backup whose files are in the directory of that name; was there one?
    pub(super) async fn end_backup(&self, id: &SandboxId, dir_name: &str) -> Result<bool> {
        let since = Instant::now();
        let mut was_there = false;
        loop {
            let name = format!("/{dir_name}/");
            let end = move |domain: &Domain| {
                if !domain::state(domain)?.is_active() {
                    return Ok(false);
                }
                let is_ours =
                    snapdeck_libvirt::backup_xml(domain)?.is_some_and(|xml| xml.contains(&name));
                if is_ours && let Err(error) = snapdeck_libvirt::abort_job(domain) {
                    // It may be ending already: that is seen when it is looked for again.
                    tracing::debug!("aborted a stale backup job: {}", error.message());
                }
                Ok(is_ours)
            };
            let ended = self
                .retry_policy
                .call(|| self.call_domain(id, "end the backup of", CALL_TIMEOUT, end.clone()))
                .await;
            match ended {
                Ok(true) => was_there = true,
                Ok(false) => break,
                Err(error) if error.kind() == Kind::NotFound => break,
                // It was just ending by itself.
                Err(error)
                    if error.kind() == Kind::Unreachable || since.elapsed() > END_TIMEOUT =>
                {
                    return Err(error);
                }
                Err(_) => {}
            }
            if since.elapsed() > END_TIMEOUT {
                return Err(Error::new(
                    Kind::Failed,
                    format!(
                        "the backup job of sandbox {id} on host {} does not end",
                        self.name()
                    ),
                )
                .hint(format!("run `virsh domjobabort {id}` there")));
            }
            sleep(END_POLL_INTERVAL).await;
        }
        // QEMU stops a guest for which there was no room.
        let go_on = |domain: &Domain| match is_paused_on_io_error(domain)? {
            true => domain.resume(),
            false => Ok(()),
        };
        match self.call_domain(id, "resume", CALL_TIMEOUT, go_on).await {
            Err(error) if error.kind() == Kind::Unreachable => Err(error),
            _ => Ok(was_there),
        }
    }
}

/// Has QEMU stopped the guest because a write of its failed?
pub(super) fn is_paused_on_io_error(domain: &Domain) -> Result<bool, VirtError> {
    if !domain.info()?.state.is(DomainState::Paused) {
        return Ok(false);
    }
    let (_, reason) = domain.state()?;
    Ok(matches!(
        reason,
        DomainStateReasonEnum::Known(DomainStateReason::Paused(paused))
            if paused.is(DomainPausedReason::IOError)
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_tells_whose_it_is() {
        let of = |name| {
            StaleBackup::from_dir_name("/s", name).map(|left| (left.id.to_string(), left.dir))
        };
        assert_eq!(
            of(".a.b-c.Xy12.backup"),
            Some(("a.b-c".into(), "/s/.a.b-c.Xy12.backup".into()))
        );
        for other in [
            "a.Xy12.backup",
            ".a.backup",
            ".a.sandbox.lock",
            ".a;b.Xy12.backup",
            ".backup",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
