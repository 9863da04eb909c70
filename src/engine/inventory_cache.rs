//! The inventory from one run to the next: what was seen last, to be shown until the hosts and the bucket answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::Engine;
use super::view::{BucketView, HostView, View};
use snapdeck_model::{HostName, Object, Sandbox, Snapshot};

/// What was seen, and when.
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
    /// What is known now, for a later run.
    pub fn inventory(&self) -> CachedInventory {
        inventory(&self.view(), Instant::now(), Timestamp::now())
    }

    /// Shows what an earlier run saw, with its age, of each host and the bucket that has not answered yet. Operations
    /// look for themselves: nothing is decided by it.
    pub fn restore_inventory(&self, known: CachedInventory) {
        self.inner
            .publish(|view| restore(view, known, Instant::now(), Timestamp::now()));
    }
}

fn inventory(view: &View, now: Instant, clock: Timestamp) -> CachedInventory {
    let at = |seen: Instant| {
        let age = now.saturating_duration_since(seen);
        clock.checked_sub(age).unwrap_or(clock)
    };
    let host = |host: &Arc<HostView>| {
        Some(CachedHost {
            name: host.name.clone(),
            uri: host.uri.clone(),
            last_scan: at(host.last_scan?),
            sandboxes: host.sandboxes.clone(),
            snapshots: host.snapshots.clone(),
        })
    };
    let bucket = |bucket: &BucketView| {
        Some(CachedBucket {
            location: bucket.location.clone(),
            last_listing: at(bucket.last_listing?),
            objects: bucket.objects.clone(),
        })
    };
    CachedInventory {
        hosts: view.hosts.iter().filter_map(host).collect(),
        bucket: bucket(&view.bucket),
    }
}

fn restore(view: &mut View, known: CachedInventory, now: Instant, clock: Timestamp) {
    // A clock that was set back makes nothing older than it is.
    let ago = |seen: Timestamp| {
        let age = Duration::try_from(clock.duration_since(seen)).unwrap_or_default();
        now.checked_sub(age)
    };
    for found in known.hosts {
        let place = view.hosts.iter_mut().find(|host| host.name == found.name);
        let Some(host) = place.filter(|host| host.last_scan.is_none() && host.uri == found.uri)
        else {
            continue;
        };
        let host = Arc::make_mut(host);
        host.last_scan = ago(found.last_scan);
        host.sandboxes = found.sandboxes;
        host.snapshots = found.snapshots;
    }
    let place = &view.bucket;
    if let Some(found) = known
        .bucket
        .filter(|found| place.last_listing.is_none() && place.location == found.location)
    {
        let bucket = Arc::make_mut(&mut view.bucket);
        bucket.last_listing = ago(found.last_listing);
        bucket.objects = found.objects;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Link;

    fn host(name: &str, seen: Option<Instant>) -> Arc<HostView> {
        Arc::new(HostView {
            name: name.parse().unwrap(),
            uri: format!("qemu+ssh://{name}/system"),
            running_method: Default::default(),
            link: Link::Connecting,
            last_scan: seen,
            sandboxes: Arc::default(),
            snapshots: Arc::default(),
        })
    }

    fn object(name: &str) -> Object {
        Object {
            name: name.parse().unwrap(),
            key: format!("snapshots/{name}.qcow2"),
            size_bytes: 7,
            modified: Some(Timestamp::UNIX_EPOCH),
            etag: None,
        }
    }

    fn view(seen: Option<Instant>) -> View {
        let bucket = BucketView {
            location: "s3://b/".to_owned(),
            last_listing: seen,
            objects: match seen {
                Some(_) => Arc::new([object("a"), object("b")]),
                None => Arc::default(),
            },
            ..BucketView::default()
        };
        View {
            hosts: vec![host("alpha", seen), host("beta", None)],
            bucket: Arc::new(bucket),
            ..View::default()
        }
    }

    #[test]
    fn what_was_seen_comes_back_as_old_as_it_is_where_nothing_newer_is_known() {
        let start = Instant::now();
        let clock: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let known = inventory(&view(Some(start)), start + Duration::from_secs(60), clock);
        let text = serde_json::to_string(&known).unwrap();
        let known: CachedInventory = serde_json::from_str(&text).unwrap();

        let later = clock + Duration::from_secs(3600);
        let now = start + Duration::from_secs(100_000);
        let mut blank = view(None);
        restore(&mut blank, known.clone(), now, later);
        let age = |seen: Option<Instant>| now.saturating_duration_since(seen.unwrap()).as_secs();
        assert_eq!(age(blank.hosts[0].last_scan), 3660);
        assert_eq!(age(blank.bucket.last_listing), 3660);
        assert_eq!(blank.bucket.objects.len(), 2);
        assert_eq!(blank.hosts[1].last_scan, None);

        let mut answered = view(None);
        Arc::make_mut(&mut answered.hosts[0]).last_scan = Some(now);
        Arc::make_mut(&mut answered.bucket).location = "s3://other/".to_owned();
        restore(&mut answered, known, now, later);
        assert_eq!(answered.hosts[0].last_scan, Some(now));
        assert_eq!(answered.bucket.last_listing, None);
    }
}
