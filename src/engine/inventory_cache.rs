//! The inventory that is kept between two runs, to be shown until the hosts and the bucket answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::Engine;
use super::view::{BucketView, HostView, View};
use snapdeck_model::{HostName, Object, Sandbox, Snapshot};

/// An inventory and its age.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CachedInventory {
    hosts: Vec<CachedHost>,
    bucket: Option<CachedBucket>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct CachedHost {
    name: HostName,
    uri: String,
    #[serde(rename = "seen")]
    last_scan: Timestamp,
    sandboxes: Arc<[Sandbox]>,
    snapshots: Arc<[Snapshot]>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct CachedBucket {
    location: String,
    #[serde(rename = "seen")]
    last_listing: Timestamp,
    objects: Arc<[Object]>,
}

impl Engine {
    /// Returns the current inventory, for a later run.
    pub fn inventory(&self) -> CachedInventory {
        inventory(&self.view(), Instant::now(), Timestamp::now())
    }

    /// Shows the inventory of an earlier run, with its age, for each host and the bucket that have not answered yet.
    /// Operations do not rely on it.
    pub fn restore_inventory(&self, cached: CachedInventory) {
        self.inner
            .publish(|view| restore(view, cached, Instant::now(), Timestamp::now()));
    }
}

fn inventory(view: &View, now: Instant, clock: Timestamp) -> CachedInventory {
    let to_timestamp = |time: Instant| {
        let age = now.saturating_duration_since(time);
        clock.checked_sub(age).unwrap_or(clock)
    };
    let host = |host: &Arc<HostView>| {
        Some(CachedHost {
            name: host.name.clone(),
            uri: host.uri.clone(),
            last_scan: to_timestamp(host.last_scan?),
            sandboxes: host.sandboxes.clone(),
            snapshots: host.snapshots.clone(),
        })
    };
    let bucket = |bucket: &BucketView| {
        Some(CachedBucket {
            location: bucket.location.clone(),
            last_listing: to_timestamp(bucket.last_listing?),
            objects: bucket.objects.clone(),
        })
    };
    CachedInventory {
        hosts: view.hosts.iter().filter_map(host).collect(),
        bucket: bucket(&view.bucket),
    }
}

fn restore(view: &mut View, cached: CachedInventory, now: Instant, clock: Timestamp) {
    // A time in the future (the clock was set back) counts as now.
    let to_instant = |time: Timestamp| {
        let age = Duration::try_from(clock.duration_since(time)).unwrap_or_default();
        now.checked_sub(age)
    };
    for cached in cached.hosts {
        let host = view.hosts.iter_mut().find(|host| host.name == cached.name);
        let Some(host) = host.filter(|host| host.last_scan.is_none() && host.uri == cached.uri)
        else {
            continue;
        };
        let host = Arc::make_mut(host);
        host.last_scan = to_instant(cached.last_scan);
        host.sandboxes = cached.sandboxes;
        host.snapshots = cached.snapshots;
    }
    let bucket = &view.bucket;
    let applies =
        |cached: &CachedBucket| bucket.last_listing.is_none() && bucket.location == cached.location;
    if let Some(cached) = cached.bucket.filter(applies) {
        let bucket = Arc::make_mut(&mut view.bucket);
        bucket.last_listing = to_instant(cached.last_listing);
        bucket.objects = cached.objects;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Link;

    fn host(name: &str, last_scan: Option<Instant>) -> Arc<HostView> {
        Arc::new(HostView {
            name: name.parse().unwrap(),
            uri: format!("qemu+ssh://{name}/system"),
            running_method: Default::default(),
            link: Link::Connecting,
            last_scan,
            sandboxes: Arc::default(),
            snapshots: Arc::default(),
            locks: Arc::default(),
            partials: Arc::default(),
        })
    }

    fn object(name: &str) -> Object {
        Object {
            name: name.parse().unwrap(),
            key: format!("snapshots/{name}.qcow2"),
            size_bytes: 7,
            modified: Some(Timestamp::UNIX_EPOCH),
            etag: None,
            problem: None,
        }
    }

    fn view(updated_at: Option<Instant>) -> View {
        let bucket = BucketView {
            location: "s3://b/".to_owned(),
            last_listing: updated_at,
            objects: match updated_at {
                Some(_) => Arc::new([object("a"), object("b")]),
                None => Arc::default(),
            },
            ..BucketView::default()
        };
        View {
            hosts: vec![host("alpha", updated_at), host("beta", None)],
            bucket: Arc::new(bucket),
            ..View::default()
        }
    }

    #[test]
    fn a_restored_inventory_has_its_age_and_does_not_replace_newer_data() {
        let start = Instant::now();
        let clock: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let cached = inventory(&view(Some(start)), start + Duration::from_secs(60), clock);
        let text = serde_json::to_string(&cached).unwrap();
        let cached: CachedInventory = serde_json::from_str(&text).unwrap();

        let later = clock + Duration::from_secs(3600);
        let now = start + Duration::from_secs(100_000);
        let mut empty = view(None);
        restore(&mut empty, cached.clone(), now, later);
        let age = |time: Option<Instant>| now.saturating_duration_since(time.unwrap()).as_secs();
        assert_eq!(age(empty.hosts[0].last_scan), 3660);
        assert_eq!(age(empty.bucket.last_listing), 3660);
        assert_eq!(empty.bucket.objects.len(), 2);
        assert_eq!(empty.hosts[1].last_scan, None);

        let mut answered = view(None);
        Arc::make_mut(&mut answered.hosts[0]).last_scan = Some(now);
        Arc::make_mut(&mut answered.bucket).location = "s3://other/".to_owned();
        restore(&mut answered, cached, now, later);
        assert_eq!(answered.hosts[0].last_scan, Some(now));
        assert_eq!(answered.bucket.last_listing, None);
    }

    #[test]
    fn fuzz_cached_inventory() {
        let (start, clock) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let cached = inventory(&view(Some(start)), start, clock);
        snapdeck_fuzz::FuzzTarget::new("inventory of the last run")
            .seed(serde_json::to_vec(&cached).unwrap())
            .memory(1 << 20, 64)
            .run(|json| {
                if let Ok(cached) = serde_json::from_slice::<CachedInventory>(json) {
                    restore(&mut view(None), cached, start, clock);
                }
            });
    }
}
