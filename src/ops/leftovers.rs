//! What a snapdeck that was killed together with its guards has left on a host: backups of sandboxes' disks, which keep
//! libvirt from saving them or backing them up again.

use tokio_util::sync::CancellationToken;

use crate::context::LogFn;
use snapdeck_host::{Host, StaleBackup};
use snapdeck_model::{Kind, Result, SandboxId};

/// Ends and removes what was left of backups, naming each in `log`, but for what another snapdeck has in hand; `ours` is
/// the sandbox whose lock we hold.
pub async fn clear_leftovers(host: &Host, ours: Option<&SandboxId>, log: &LogFn) {
    let left = match host.backups().stale().await {
        Ok(left) => left,
        // Whatever is to be done there says so better.
        Err(error) => return tracing::debug!("{error}"),
    };
    for left in left {
        match remove_backups(host, &left, ours).await {
            Ok(Some(what)) => log(true, what),
            Ok(None) => {}
            Err(error) => log(true, error.to_string()),
        }
    }
}

async fn remove_backups(
    host: &Host,
    left: &StaleBackup,
    ours: Option<&SandboxId>,
) -> Result<Option<String>> {
    if ours == Some(&left.id) {
        return host.backups().remove_stale(left).await.map(Some);
    }
    let want = host.locks().sandbox(&left.id);
    let lost = CancellationToken::new();
    let lock = match host
        .locks()
        .acquire(vec![want], "remove leftovers", lost)
        .await
    {
        Ok(lock) => lock,
        Err(error) if error.kind() == Kind::Conflict => return Ok(None),
        Err(error) => return Err(error),
    };
    // Whoever had it may have cleared it just now.
    let cleared = match host.backups().stale().await {
        Ok(now) if !now.contains(left) => Ok(None),
        Ok(_) => host.backups().remove_stale(left).await.map(Some),
        Err(error) => Err(error),
    };
    lock.release().await;
    cleared
}
