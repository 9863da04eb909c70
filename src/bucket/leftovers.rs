//! Multipart uploads of interrupted jobs: the store keeps their parts until they are aborted.
//!
//! Only those whose id was recorded when they began are this installation's; others may be another client's.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::keys::{IMAGE_SUFFIX, VARIABLES_SUFFIX, snapshot_name, variables_owner};
use super::s3::{PendingUpload, Reason, Store, printable};
use snapdeck_model::{Error, Kind, LEFTOVER_MIN_AGE, Leftover, LeftoverKind, Result};

/// Uploads of snapshots that are looked into: more than interrupted jobs leave.
const MAX_INSPECTED: usize = 1000;
/// Limit of a listing with all its lookups.
const LIST_TIMEOUT: Duration = Duration::from_secs(300);

/// Lists the uploads of snapshots to which no part was uploaded for a day. `None` if the store lists no uploads.
pub(super) async fn list_stale_uploads(
    store: &Store,
    prefix: &str,
) -> Result<Option<Vec<Leftover>>> {
    let listed = timeout(LIST_TIMEOUT, list_uploads(store, prefix)).await;
    listed.unwrap_or_else(|_| {
        let summary = format!(
            "cannot list the unfinished uploads to {}",
            store.address(prefix)
        );
        Err(Error::new(Kind::Unreachable, summary)
            .with_cause(format!("it took longer than {} s", LIST_TIMEOUT.as_secs())))
    })
}

async fn list_uploads(store: &Store, prefix: &str) -> Result<Option<Vec<Leftover>>> {
    let uploads = match store.list_uploads(prefix).await {
        Ok(uploads) => uploads,
        Err(error) if error.reason == Reason::Unsupported => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (mut leftovers, mut inspected) = (Vec::new(), 0);
    for upload in &uploads {
        let suffixes = [IMAGE_SUFFIX, VARIABLES_SUFFIX];
        let name = snapshot_name(prefix, &upload.key, &suffixes)
            .or_else(|| variables_owner(prefix, &upload.key));
        // Uploads to other keys are no business of snapdeck, unless it has begun them.
        if name.is_none() && !store.is_own_upload(&upload.key, &upload.id) {
            continue;
        }
        inspected += 1;
        if inspected > MAX_INSPECTED {
            tracing::warn!(
                "{} has more than {MAX_INSPECTED} unfinished uploads of snapshots; the others are not listed",
                store.address(prefix)
            );
            break;
        }
        if let Some(leftover) = check_stale(store, upload).await? {
            leftovers.push(Leftover { name, ..leftover });
        }
    }
    Ok(Some(leftovers))
}

/// Returns the upload if no part was uploaded to it for a day: an upload of a large image over a slow connection may
/// take longer than that.
async fn check_stale(store: &Store, upload: &PendingUpload) -> Result<Option<Leftover>> {
    let Some(initiated) = upload.initiated.filter(is_old) else {
        return Ok(None);
    };
    let parts = match store.list_parts(&upload.key, &upload.id).await {
        Ok(parts) => parts,
        // Completed or aborted since it was listed.
        Err(error) if error.reason == Reason::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let sent = parts.iter().filter_map(|part| part.modified);
    let last_sent = sent.fold(initiated, Timestamp::max);
    Ok(is_old(&last_sent).then(|| Leftover {
        kind: LeftoverKind::Upload,
        host: None,
        path: upload.key.clone(),
        name: None,
        upload_id: Some(upload.id.clone()),
        continuable_until: store.continuable_until(&upload.key, &upload.id),
        size_bytes: parts
            .iter()
            .fold(0, |sum, part| sum.saturating_add(part.size_bytes)),
        modified: Some(last_sent),
        is_own: store.is_own_upload(&upload.key, &upload.id),
        is_recent: false,
        creator: upload.initiator.as_deref().map(printable),
        mark_id: String::new(),
        file_id: String::new(),
    }))
}

fn is_old(time: &Timestamp) -> bool {
    let limit = Timestamp::now().checked_sub(LEFTOVER_MIN_AGE);
    limit.is_ok_and(|limit| *time < limit)
}

/// Aborts an upload, unless a part was uploaded to it since it was listed; returns whether it was aborted.
pub(super) async fn abort(store: &Store, leftover: &Leftover) -> Result<bool> {
    let Some(id) = &leftover.upload_id else {
        return Ok(false);
    };
    let upload = PendingUpload {
        key: leftover.path.clone(),
        id: id.clone(),
        initiated: leftover.modified,
        initiator: None,
    };
    if check_stale(store, &upload).await?.is_none() {
        return Ok(false);
    }
    if !store.release_upload(&upload.key, id) {
        // A job continues it.
        return Ok(false);
    }
    let was_aborted = store.abort_multipart(&upload.key, id).await?;
    store.forget_upload(&upload.key, id);
    Ok(was_aborted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_stale_after_a_day() {
        let hours_ago = |hours: i64| Timestamp::now() - jiff::SignedDuration::from_hours(hours);
        assert!(is_old(&hours_ago(25)) && !is_old(&hours_ago(23)) && !is_old(&hours_ago(-1)));
    }
}
