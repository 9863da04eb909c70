//! Buckets that keep old versions of objects, and those that lock them.

use aws_sdk_s3::types::{
    BucketVersioningStatus, ObjectLockEnabled, ObjectLockMode, ObjectLockRetentionMode,
};
use jiff::Timestamp;

use super::bounds;
use super::odd_answer::RenameRoot;
use super::{MAX_PAGES, Reason, Store, StoreError, to_timestamp};
use snapdeck_model::Result;

/// An old version of an object.
#[derive(Debug, Clone)]
pub(crate) struct OldVersion {
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) size_bytes: u64,
}

/// Object Lock of a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BucketLock {
    /// Mode and time for which a new object is locked, such as "GOVERNANCE for 30 days".
    pub(crate) default_retention: Option<String>,
}

impl Store {
    /// Returns whether the bucket keeps old versions.
    pub(crate) async fn keeps_versions(&self) -> Result<bool, StoreError> {
        let call = self.client.get_bucket_versioning().bucket(&self.bucket);
        let answer = call.customize().interceptor(RenameRoot).send().await;
        let answer = answer.map_err(|error| self.error("read the versioning of", "", &error))?;
        // A suspended one keeps those that there are.
        Ok(answer.status() == Some(&BucketVersioningStatus::Enabled))
    }

    /// Returns how the bucket locks objects; `None` without Object Lock.
    pub(crate) async fn bucket_lock(&self) -> Result<Option<BucketLock>, StoreError> {
        let call = self.client.get_object_lock_configuration();
        let lock = match call.bucket(&self.bucket).send().await {
            Ok(answer) => answer.object_lock_configuration,
            Err(error) => match self.error("read the Object Lock of", "", &error) {
                error if error.reason == Reason::NotFound => None,
                error => return Err(error),
            },
        };
        let lock = lock.filter(|lock| lock.object_lock_enabled == Some(ObjectLockEnabled::Enabled));
        Ok(lock.map(|lock| {
            let rule = lock.rule.and_then(|rule| rule.default_retention);
            let default_retention = rule.and_then(|rule| {
                let mode = match rule.mode? {
                    ObjectLockRetentionMode::Governance => "GOVERNANCE",
                    ObjectLockRetentionMode::Compliance => "COMPLIANCE",
                    _ => "an unknown mode",
                };
                let time = match (rule.days, rule.years) {
                    (Some(1), _) => "1 day".to_owned(),
                    (Some(days), _) => format!("{days} days"),
                    (None, Some(1)) => "1 year".to_owned(),
                    (None, Some(years)) => format!("{years} years"),
                    (None, None) => return None,
                };
                Some(format!("{mode} for {time}"))
            });
            BucketLock { default_retention }
        }))
    }

    /// Lists the old versions of a deleted object; none if `key` has an object now.
    pub(crate) async fn old_versions(&self, key: &str) -> Result<Vec<OldVersion>, StoreError> {
        let action = "list the old versions of";
        let (mut found, mut is_deleted) = (Vec::new(), false);
        let (mut key_marker, mut id_marker) = (None, None);
        for _ in 0..MAX_PAGES {
            let call = self.client.list_object_versions().bucket(&self.bucket);
            let page = call
                .prefix(key)
                .set_key_marker(key_marker)
                .set_version_id_marker(id_marker)
                .send()
                .await
                .map_err(|error| self.error(action, key, &error))?;
            let is_key = |text: Option<&str>| text == Some(key);
            is_deleted |= page
                .delete_markers()
                .iter()
                .any(|marker| is_key(marker.key()) && marker.is_latest() == Some(true));
            let versions = page.versions.unwrap_or_default().into_iter();
            let versions = versions.filter(|version| is_key(version.key()));
            // The next upload may get the id of one without a version.
            let is_version = |id: &String| !id.is_empty() && id != "null";
            found.extend(
                versions
                    .filter(|version| version.is_latest == Some(false))
                    .filter_map(|version| {
                        Some(OldVersion {
                            key: key.to_owned(),
                            id: bounds::token(version.version_id).filter(is_version)?,
                            size_bytes: bounds::size(version.size),
                        })
                    }),
            );
            // Other keys with this prefix come after it.
            let next = page.next_key_marker.filter(|next| next.as_str() <= key);
            if page.is_truncated != Some(true) || next.is_none() {
                return Ok(if is_deleted { found } else { Vec::new() });
            }
            (key_marker, id_marker) = (next, page.next_version_id_marker);
        }
        Err(self.invalid_response(action, key, "the listing does not end"))
    }

    /// Deletes a version of an object, which is not kept then.
    pub(crate) async fn delete_old_version(&self, version: &OldVersion) -> Result<(), StoreError> {
        let call = self.client.delete_object().bucket(&self.bucket);
        let call = call.key(&version.key).version_id(&version.id);
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.error("delete an old version of", &version.key, &error)),
        }
    }

    /// Returns how a version is locked, such as "GOVERNANCE until 2026-12-31"; `None` if it is not, or that is unknown.
    pub(crate) async fn version_lock(&self, version: &OldVersion) -> Option<String> {
        let call = self.client.head_object().bucket(&self.bucket);
        let call = call.key(&version.key).version_id(&version.id);
        let head = call.send().await.ok()?;
        if head
            .object_lock_legal_hold_status()
            .map(|hold| hold.as_str())
            == Some("ON")
        {
            return Some("under a legal hold".to_owned());
        }
        let until = head.object_lock_retain_until_date().and_then(to_timestamp);
        let until = until.filter(|until| *until > Timestamp::now())?;
        let mode = match head.object_lock_mode()? {
            ObjectLockMode::Governance => "GOVERNANCE",
            ObjectLockMode::Compliance => "COMPLIANCE",
            _ => "locked",
        };
        Some(format!(
            "{mode} until {}",
            until.strftime("%Y-%m-%d %H:%M UTC")
        ))
    }
}
