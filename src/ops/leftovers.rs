//! Removes backups that a killed snapdeck, whose watchdogs were killed too, has left on a host. They keep libvirt from
//! saving the sandbox or backing it up again.

use tokio_util::sync::CancellationToken;

use snapdeck_host::{Host, StaleBackup};
use snapdeck_model::{Kind, Result, SandboxId};

use crate::context::LogFn;

/// Ends and removes stale backups, and logs each; skips those of sandboxes that another snapdeck has locked.
///
/// The caller holds the lock of `locked`.
pub async fn clear_leftovers(host: &Host, locked: Option<&SandboxId>, log: &LogFn) {
    let backups = match host.backups().stale().await {
        Ok(backups) => backups,
        // The operation that follows reports it better.
        Err(error) => return tracing::debug!("{error}"),
    };
    for backup in backups {
        match remove_backup(host, &backup, locked).await {
            Ok(Some(message)) => log(true, message),
            Ok(None) => {}
            Err(error) => log(true, error.to_string()),
        }
    }
}

async fn remove_backup(
    host: &Host,
    backup: &StaleBackup,
    locked: Option<&SandboxId>,
) -> Result<Option<String>> {
    if locked == Some(&backup.id) {
        return host.backups().remove_stale(backup).await.map(Some);
    }
    let request = host.locks().sandbox(&backup.id);
    let lost = CancellationToken::new();
    let lock = match host
        .locks()
        .acquire(vec![request], "remove leftovers", lost)
        .await
    {
        Ok(lock) => lock,
        Err(error) if error.kind() == Kind::Conflict => return Ok(None),
        Err(error) => return Err(error),
    };
    // The previous holder of the lock may have removed it just now.
    let result = match host.backups().stale().await {
        Ok(backups) if !backups.contains(backup) => Ok(None),
        Ok(_) => host.backups().remove_stale(backup).await.map(Some),
        Err(error) => Err(error),
    };
    lock.release().await;
    result
}
