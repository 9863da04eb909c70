//! The inventory of hosts and the bucket in the view. Each host and the bucket have a task of their own, so that one that
//! hangs does not delay the others.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::state::Inner;
use super::view::{BucketView, HealthCheckView, HostView, Link, View};
use snapdeck_bucket::Bucket;
use snapdeck_host::{HostInventory, ScanCache};
use snapdeck_model::settings::Settings;
use snapdeck_model::{Error, HostLock, Kind, Method, Object, Result};
use snapdeck_ownership::describe_self;

/// Fallback poll interval: libvirt's events do not cover files.
const HOST_POLL: Duration = Duration::from_secs(30);
/// The bucket has no events.
const BUCKET_POLL: Duration = Duration::from_secs(120);
/// A large bucket is listed less often: each page of 1000 objects is a request that is paid for. Interval per page, and
/// its limit.
const PAGE_POLL: Duration = Duration::from_secs(9);
const MAX_BUCKET_POLL: Duration = Duration::from_secs(900);
/// One start emits four events.
const EVENT_DEBOUNCE: Duration = Duration::from_millis(100);
/// A host whose connection was lost is shown as unreachable unless it is reconnected within this time.
const RECONNECT_GRACE: Duration = Duration::from_secs(2);
/// Limit for a scan; its single calls have shorter timeouts.
const SCAN_TIMEOUT: Duration = Duration::from_secs(30);
/// Minimum and maximum wait before an unreachable host or bucket is retried.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Minimum interval between updates of the view during the first listing.
const PAGE_UPDATE_INTERVAL: Duration = Duration::from_millis(200);

/// Returns the view before the first answers.
pub(super) fn empty_view(settings: &Settings, bucket: &Bucket) -> View {
    let hosts = settings.hosts.iter().map(|host| {
        Arc::new(HostView {
            name: host.name.clone(),
            uri: host.uri.clone(),
            link: Link::Connecting,
            last_scan: None,
            sandboxes: Arc::default(),
            snapshots: Arc::default(),
            locks: Arc::default(),
            partials: Arc::default(),
            running_method: host.running_methods.first().copied(),
        })
    });
    let link = if settings.bucket.name.is_some() {
        Link::Connecting
    } else {
        Link::Unconfigured
    };
    let bucket = BucketView {
        location: bucket.location().to_owned(),
        link,
        ..Default::default()
    };
    let names = settings.hosts.iter().map(|host| Some(host.name.clone()));
    let health_checks = names.chain([None]).map(|host| {
        Arc::new(HealthCheckView {
            host,
            is_running: false,
            report: None,
        })
    });
    View {
        hosts: hosts.collect(),
        bucket: Arc::new(bucket),
        jobs: Vec::new(),
        interrupted_jobs: Arc::default(),
        health_checks: health_checks.collect(),
    }
}

/// Exponential backoff.
struct Backoff(Duration);

impl Backoff {
    fn next(&mut self, up: bool, poll: Duration) -> Duration {
        if up {
            self.0 = BACKOFF.0;
            return poll;
        }
        let wait = self.0;
        self.0 = (wait * 2).min(BACKOFF.1);
        wait
    }
}

/// Warnings of one scan that are logged.
const MAX_NEW_WARNINGS: usize = 20;

pub(super) async fn follow_host(inner: Arc<Inner>, index: usize) {
    let host = &inner.hosts[index];
    let mut changes = host.libvirt().changes();
    let mut backoff = Backoff(BACKOFF.0);
    let mut warned = HashSet::new();
    let mut was_reachable = false;
    let mut cache = None;
    let mut has_event = false;
    loop {
        changes.mark_unchanged();
        let is_lost = has_event && host.libvirt().is_connection_lost();
        let Some(scanned) = scan_host(&inner, index, &mut cache, is_lost).await else {
            return;
        };
        let up = scanned.is_ok();
        if up && !was_reachable {
            was_reachable = true;
            tokio::spawn(on_first_answer(inner.clone(), index));
        }
        if let Ok(inventory) = &scanned {
            let current: HashSet<String> = warnings(inventory).collect();
            // A host can have other ones each time.
            let new = current.difference(&warned).take(MAX_NEW_WARNINGS);
            new.for_each(|warning| tracing::warn!("{warning}"));
            warned = current;
        }
        show_host(&inner, index, scanned);
        let wait = backoff.next(up, HOST_POLL);
        if has_event {
            // The end of a change may have no event: a guest that fails to start is paused first. Scan afresh next time.
            cache = None;
        }
        has_event = false;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = inner.host_refresh[index].notified() => cache = None,
            Ok(()) = changes.changed() => {
                has_event = true;
                tokio::time::sleep(EVENT_DEBOUNCE).await;
            }
            () = inner.stop.cancelled() => return,
        }
    }
}

/// Scans a host; `None` if the engine ends meanwhile. With `is_lost`, the connection was lost: the host is shown as
/// unreachable while the scan takes longer than [`RECONNECT_GRACE`].
async fn scan_host(
    inner: &Inner,
    index: usize,
    cache: &mut Option<ScanCache>,
    mut is_lost: bool,
) -> Option<Result<HostInventory>> {
    let host = &inner.hosts[index];
    let unreachable =
        |message: String, hint| Err(Error::new(Kind::Unreachable, message).hint(hint));
    let mut scan = pin!(tokio::time::timeout(
        SCAN_TIMEOUT,
        host.inventory().scan_cached(cache)
    ));
    loop {
        tokio::select! {
            scanned = &mut scan => return Some(scanned.unwrap_or_else(|_| {
                unreachable(format!("host {} does not respond", host.name()), "check that libvirtd is running there")
            })),
            () = tokio::time::sleep(RECONNECT_GRACE), if is_lost => {
                let message = format!("the connection to libvirt of host {} was lost", host.name());
                show_host(inner, index, unreachable(message, "reconnecting"));
                is_lost = false;
            }
            () = inner.stop.cancelled() => return None,
        }
    }
}

async fn on_first_answer(inner: Arc<Inner>, index: usize) {
    let host = &inner.hosts[index];
    snapdeck_ops::clear_leftovers(host, None, &|_, text| tracing::warn!("{text}")).await;
    if let Ok(false) = host.libvirt().supports_backup().await {
        let mut methods = host.settings().running_methods.iter().copied();
        let fallback = methods.find(|method| *method != Method::Backup);
        inner.publish(|view| Arc::make_mut(&mut view.hosts[index]).running_method = fallback);
    }
}

/// Returns what an operator should know about an inventory.
pub(super) fn warnings(inventory: &HostInventory) -> impl Iterator<Item = String> {
    let unresolved = inventory
        .unresolved_chains
        .iter()
        .map(|chain| format!("cannot follow the disk chain of {chain}"));
    let endless = inventory.endless_chains.iter();
    let endless = endless.map(|chain| format!("a disk cannot be opened: {chain}"));
    inventory
        .warnings
        .iter()
        .cloned()
        .chain(unresolved)
        .chain(endless)
}

/// Updates a host in the view; an unchanged one wakes no receivers.
fn show_host(inner: &Inner, index: usize, scanned: Result<HostInventory>) {
    let old = inner.view.borrow().hosts[index].clone();
    let mut new = HostView::clone(&old);
    match scanned {
        Ok(inventory) => {
            if old.link != Link::Up {
                tracing::info!("host {} is reachable", old.name);
            }
            new.link = Link::Up;
            new.last_scan = Some(Instant::now());
            match inventory.snapshots_space {
                Some(space) => inner.disk_spaces().insert(old.name.clone(), space),
                None => inner.disk_spaces().remove(&old.name),
            };
            if *old.sandboxes != inventory.sandboxes[..] {
                new.sandboxes = inventory.sandboxes.into();
            }
            if *old.snapshots != inventory.snapshots[..] {
                new.snapshots = inventory.snapshots.into();
            }
            let locks = locks_of_others(inventory.locks);
            if *old.locks != locks[..] {
                new.locks = locks.into();
            }
            if *old.partials != inventory.partials[..] {
                new.partials = inventory.partials.into();
            }
        }
        Err(error) => {
            if old.link != Link::Down(error.clone()) {
                tracing::error!("{error}");
            }
            new.link = Link::Down(error);
        }
    }
    let is_unchanged = old.link == new.link
        && Arc::ptr_eq(&old.sandboxes, &new.sandboxes)
        && Arc::ptr_eq(&old.snapshots, &new.snapshots)
        && Arc::ptr_eq(&old.locks, &new.locks)
        && Arc::ptr_eq(&old.partials, &new.partials);
    let update = |view: &mut View| view.hosts[index] = Arc::new(new);
    if is_unchanged {
        inner.publish_silently(update)
    } else {
        inner.publish(update)
    }
}

fn locks_of_others(mut locks: Vec<HostLock>) -> Vec<HostLock> {
    if !locks.is_empty() {
        let own = describe_self();
        locks.retain(|lock| lock.holder != own);
    }
    locks
}

pub(super) async fn follow_bucket(inner: Arc<Inner>) {
    if inner.settings.bucket.name.is_none() {
        return;
    }
    let mut backoff = Backoff(BACKOFF.0);
    let mut warned = HashSet::new();
    loop {
        let listed = tokio::select! {
            listed = list_objects(&inner, &mut warned) => listed,
            () = inner.stop.cancelled() => return,
        };
        let poll = bucket_poll(listed.as_ref().map_or(0, Vec::len));
        let up = listed.is_ok();
        show_bucket(&inner, listed);
        tokio::select! {
            () = tokio::time::sleep(backoff.next(up, poll)) => {}
            () = inner.bucket_refresh.notified() => {}
            () = inner.stop.cancelled() => return,
        }
    }
}

fn bucket_poll(objects: usize) -> Duration {
    let pages = u32::try_from(objects / 1000).unwrap_or(u32::MAX);
    PAGE_POLL
        .saturating_mul(pages)
        .clamp(BUCKET_POLL, MAX_BUCKET_POLL)
}

/// Lists the bucket. The first listing is shown as it grows; a later one replaces the old one as a whole. Warns of folders that may not
/// be listed, but for those of `warned`.
async fn list_objects(inner: &Inner, warned: &mut HashSet<String>) -> Result<Vec<Object>> {
    let mut current = HashSet::new();
    let is_first = inner.view.borrow().bucket.last_listing.is_none();
    let mut updated_at = Instant::now();
    let mut objects = Vec::new();
    let mut pages = pin!(inner.bucket.list());
    while let Some(page) = pages.next().await {
        let page = page?;
        objects.extend(page.objects);
        current.extend(page.denied.map(|error| error.to_string()));
        if is_first && updated_at.elapsed() > PAGE_UPDATE_INTERVAL {
            updated_at = Instant::now();
            edit_bucket(inner, |bucket| {
                bucket.is_listing = true;
                bucket.objects = objects.as_slice().into();
            });
        }
    }
    let new = current.difference(warned);
    new.for_each(|warning| tracing::warn!("{warning}"));
    *warned = current;
    Ok(objects)
}

fn show_bucket(inner: &Inner, listed: Result<Vec<Object>>) {
    let old = inner.view.borrow().bucket.clone();
    match listed {
        Ok(objects) => {
            let is_unchanged =
                old.link == Link::Up && !old.is_listing && *old.objects == objects[..];
            let update = |view: &mut View| {
                let bucket = Arc::make_mut(&mut view.bucket);
                bucket.link = Link::Up;
                bucket.is_listing = false;
                bucket.last_listing = Some(Instant::now());
                if !is_unchanged {
                    bucket.objects = objects.into();
                }
            };
            if is_unchanged {
                inner.publish_silently(update)
            } else {
                inner.publish(update)
            }
        }
        Err(error) => {
            if old.link != Link::Down(error.clone()) {
                tracing::error!("{error}");
                edit_bucket(inner, |bucket| {
                    bucket.link = Link::Down(error);
                    bucket.is_listing = false;
                });
            }
        }
    }
}

fn edit_bucket(inner: &Inner, change: impl FnOnce(&mut BucketView)) {
    inner.publish(|view| change(Arc::make_mut(&mut view.bucket)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_and_resets_after_success() {
        let mut backoff = Backoff(BACKOFF.0);
        let waits: Vec<u64> = (0..7)
            .map(|_| backoff.next(false, HOST_POLL).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60]);
        assert_eq!(backoff.next(true, HOST_POLL), HOST_POLL);
        assert_eq!(backoff.next(false, HOST_POLL).as_secs(), 1);
    }

    #[test]
    fn a_large_bucket_is_listed_less_often() {
        let after = |objects| bucket_poll(objects).as_secs();
        assert_eq!(after(0), 120);
        assert_eq!(after(10_000), 120);
        assert_eq!(after(20_000), 180);
        assert_eq!(after(10_000_000), 900, "at least every 15 minutes");
    }
}
