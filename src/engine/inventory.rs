//! The inventory: what is where, and how fresh. One follower a host and one for the bucket, so that one
//! that hangs never holds up another.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::Inner;
use super::view::{BucketView, HealthCheckView, HostView, Link, View};
use snapdeck_bucket::Bucket;
use snapdeck_host::{HostInventory, ScanCache};
use snapdeck_model::settings::Settings;
use snapdeck_model::{Error, Kind, Method, Object, Result};

/// The net under the events: a host is looked at this often even if it tells nothing, as of files it never does.
const HOST_POLL: Duration = Duration::from_secs(30);
/// The bucket tells of nothing that happens in it, so it is listed this often.
const BUCKET_POLL: Duration = Duration::from_secs(120);
/// A large one is listed less often: each page of a thousand objects is a request that is paid for and read. So many
/// seconds for each, and that long at most.
const PAGE_POLL: Duration = Duration::from_secs(9);
const MAX_BUCKET_POLL: Duration = Duration::from_secs(900);
/// Events come in flocks: a start alone sends four. One look serves them all.
const EVENT_DEBOUNCE: Duration = Duration::from_millis(100);
/// A host whose connection was lost is shown as away unless it answers again within this.
const RECONNECT_GRACE: Duration = Duration::from_secs(2);
/// A survey that takes longer is given up; each of its calls has a shorter deadline of its own.
const SCAN_TIMEOUT: Duration = Duration::from_secs(30);
/// First and longest wait before a host or bucket that is down is asked again.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A growing listing is shown at most this often.
const PAGE_UPDATE_INTERVAL: Duration = Duration::from_millis(200);

/// The view before anything has answered: every host and the bucket by name.
pub(super) fn empty_view(settings: &Settings, bucket: &Bucket) -> View {
    let hosts = settings.hosts.iter().map(|host| {
        Arc::new(HostView {
            name: host.name.clone(),
            uri: host.uri.clone(),
            link: Link::Connecting,
            last_scan: None,
            sandboxes: Arc::default(),
            snapshots: Arc::default(),
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
    let patients = names.chain([None]).map(|host| {
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
        health_checks: patients.collect(),
    }
}

/// Waits before the next try while something is down: doubling, bounded, back to the start once it is up.
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

pub(super) async fn follow_host(inner: Arc<Inner>, index: usize) {
    let host = &inner.hosts[index];
    let mut changes = host.libvirt().changes();
    let mut backoff = Backoff(BACKOFF.0);
    let mut warned = Vec::new();
    let mut is_met = false;
    let mut known = None;
    let mut is_told = false;
    loop {
        changes.mark_unchanged();
        let is_lost = is_told && host.libvirt().is_connection_lost();
        let Some(survey) = scan_host(&inner, index, &mut known, is_lost).await else {
            return;
        };
        let up = survey.is_ok();
        if up && !is_met {
            is_met = true;
            tokio::spawn(greet_host(inner.clone(), index));
        }
        if let Ok(survey) = &survey {
            let new: Vec<String> = warnings(survey).collect();
            for warning in new.iter().filter(|warning| !warned.contains(*warning)) {
                tracing::warn!("{warning}");
            }
            warned = new;
        }
        show_host(&inner, index, survey);
        let wait = backoff.next(up, HOST_POLL);
        if is_told {
            // How a change comes out is not always told: a guest that fails to start is paused for a moment before.
            known = None;
        }
        is_told = false;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = inner.host_refresh[index].notified() => known = None,
            Ok(()) = changes.changed() => {
                is_told = true;
                tokio::time::sleep(EVENT_DEBOUNCE).await;
            }
            () = inner.stop.cancelled() => return,
        }
    }
}

/// One look at a host; `None` where the engine ends meanwhile. What is lost is not shown as if it were there until the
/// next try has failed, too.
async fn scan_host(
    inner: &Inner,
    index: usize,
    known: &mut Option<ScanCache>,
    mut is_lost: bool,
) -> Option<Result<HostInventory>> {
    let host = &inner.hosts[index];
    let away = |what: String, hint| Err(Error::new(Kind::Unreachable, what).hint(hint));
    let mut look = pin!(tokio::time::timeout(
        SCAN_TIMEOUT,
        host.inventory().scan_cached(known)
    ));
    loop {
        tokio::select! {
            survey = &mut look => return Some(survey.unwrap_or_else(|_| {
                away(format!("host {} does not answer", host.name()), "check that libvirtd is running there")
            })),
            () = tokio::time::sleep(RECONNECT_GRACE), if is_lost => {
                let what = format!("the connection to libvirt of host {} was lost", host.name());
                show_host(inner, index, away(what, "reconnecting"));
                is_lost = false;
            }
            () = inner.stop.cancelled() => return None,
        }
    }
}

/// What is done once, when a host first answers.
async fn greet_host(inner: Arc<Inner>, index: usize) {
    let host = &inner.hosts[index];
    snapdeck_ops::clear_leftovers(host, None, &|_, text| tracing::warn!("{text}")).await;
    if let Ok(false) = host.libvirt().supports_backup().await {
        let mut methods = host.settings().running_methods.iter().copied();
        let running = methods.find(|method| *method != Method::Backup);
        inner.publish(|view| Arc::make_mut(&mut view.hosts[index]).running_method = running);
    }
}

/// What an operator should know of a survey beside what it lists.
pub(super) fn warnings(survey: &HostInventory) -> impl Iterator<Item = String> {
    let unread = survey
        .unresolved_chains
        .iter()
        .map(|chain| format!("cannot follow the disk chain of {chain}"));
    survey.warnings.iter().cloned().chain(unread)
}

/// Puts what a host said into the view; wakes nobody where it said the same as before.
fn show_host(inner: &Inner, index: usize, survey: Result<HostInventory>) {
    let old = inner.view.borrow().hosts[index].clone();
    let mut new = HostView::clone(&old);
    match survey {
        Ok(survey) => {
            if old.link != Link::Up {
                tracing::info!("host {} answers", old.name);
            }
            new.link = Link::Up;
            new.last_scan = Some(Instant::now());
            if *old.sandboxes != survey.sandboxes[..] {
                new.sandboxes = survey.sandboxes.into();
            }
            if *old.snapshots != survey.snapshots[..] {
                new.snapshots = survey.snapshots.into();
            }
        }
        Err(error) => {
            if old.link != Link::Down(error.clone()) {
                tracing::error!("{error}");
            }
            new.link = Link::Down(error);
        }
    }
    let same = old.link == new.link
        && Arc::ptr_eq(&old.sandboxes, &new.sandboxes)
        && Arc::ptr_eq(&old.snapshots, &new.snapshots);
    let show = |view: &mut View| view.hosts[index] = Arc::new(new);
    if same {
        inner.note(show)
    } else {
        inner.publish(show)
    }
}

pub(super) async fn follow_bucket(inner: Arc<Inner>) {
    if inner.settings.bucket.name.is_none() {
        return;
    }
    let mut backoff = Backoff(BACKOFF.0);
    loop {
        let listed = tokio::select! {
            listed = list_objects(&inner) => listed,
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

/// How long a bucket of so many objects is left alone.
fn bucket_poll(objects: usize) -> Duration {
    let pages = u32::try_from(objects / 1000).unwrap_or(u32::MAX);
    PAGE_POLL
        .saturating_mul(pages)
        .clamp(BUCKET_POLL, MAX_BUCKET_POLL)
}

/// Lists the bucket. The first listing is shown as it grows; a later one replaces the old one whole.
async fn list_objects(inner: &Inner) -> Result<Vec<Object>> {
    let first = inner.view.borrow().bucket.last_listing.is_none();
    let mut shown = Instant::now();
    let mut objects = Vec::new();
    let mut pages = pin!(inner.bucket.list());
    while let Some(page) = pages.next().await {
        objects.extend(page?);
        if first && shown.elapsed() > PAGE_UPDATE_INTERVAL {
            shown = Instant::now();
            edit_bucket(inner, |bucket| {
                bucket.is_listing = true;
                bucket.objects = objects.as_slice().into();
            });
        }
    }
    Ok(objects)
}

fn show_bucket(inner: &Inner, listed: Result<Vec<Object>>) {
    let old = inner.view.borrow().bucket.clone();
    match listed {
        Ok(objects) => {
            let same = old.link == Link::Up && !old.is_listing && *old.objects == objects[..];
            let change = |view: &mut View| {
                let bucket = Arc::make_mut(&mut view.bucket);
                bucket.link = Link::Up;
                bucket.is_listing = false;
                bucket.last_listing = Some(Instant::now());
                if !same {
                    bucket.objects = objects.into();
                }
            };
            if same {
                inner.note(change)
            } else {
                inner.publish(change)
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
    fn backs_off_while_down_and_starts_afresh_once_up() {
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
        assert_eq!(after(10_000_000), 900, "every quarter of an hour at least");
    }
}
