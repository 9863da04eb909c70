//! Checks everything that operations need of the bucket, before one fails.

mod probe;

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Bucket;
use super::keys::{IMAGE_SUFFIX, snapshot_name};
use super::s3::{ListPage, Reason, Store, printable};
use snapdeck_model::settings::BucketSettings;
use snapdeck_model::{Check, Error, HealthReport, Kind};

/// Timeout of one small call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of the search for incomplete snapshots.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// Incomplete snapshots that are named.
const MAX_NAMED: usize = 5;
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60);
/// S3 refuses requests with a larger difference (`RequestTimeTooSkewed`).
const REFUSED_CLOCK_SKEW: Duration = Duration::from_secs(15 * 60);
const CLOCK_HINT: &str =
    "run timedatectl set-ntp true where the clock is wrong: on this machine or on the store";

impl Bucket {
    /// Checks everything that operations need of the bucket, within a minute and a half.
    ///
    /// Writes two objects whose keys no snapshot can have and removes them, also when it is cancelled or dropped;
    /// changes nothing else.
    pub async fn run_checks(&self, cancel: &CancellationToken) -> HealthReport {
        let mut checks = Vec::new();
        let reachable = self.run_checks_into(&mut checks, cancel).await;
        HealthReport {
            host: None,
            reachable,
            checks,
        }
    }

    async fn run_checks_into(&self, checks: &mut Vec<Check>, cancel: &CancellationToken) -> bool {
        if !self.is_configured() {
            checks.push(Check::warning(
                "bucket",
                "none configured; push and pull will fail",
                "set [bucket] name or AWS_DEFAULT_BUCKET, or run snapdeck init",
            ));
            return true;
        }
        let store = match self.lazy_client.get_store().await {
            Ok(store) => store,
            Err(error) => {
                checks.push(failed_check("store", &error));
                return error.kind() != Kind::Unreachable;
            }
        };
        let prefix = &self.lazy_client.settings().prefix;
        let access = check_listing(store, self.lazy_client.settings(), checks).await;
        if access == StoreAccess::Bucket {
            checks.extend(self.check_complete().await);
            checks.extend(self.check_versions(store).await);
            probe::run_probe(store, prefix, checks, cancel).await;
        }
        access != StoreAccess::NoAccess
    }

    /// Shows whether the bucket keeps or locks what is removed. `None` if the store does not say it, or has neither.
    async fn check_versions(&self, store: &Store) -> Option<Check> {
        let store = store.with_timeout(CALL_TIMEOUT);
        if !store.keeps_versions().await.ok()? {
            return None;
        }
        let name = "versions";
        let lock = store.bucket_lock().await.ok().flatten();
        let lock = match lock.map(|lock| lock.default_retention) {
            Some(Some(retention)) => format!(", and locks new objects: {retention}"),
            Some(None) => ", and can lock them".to_owned(),
            None => String::new(),
        };
        if self.deletes_versions() {
            let finding = format!(
                "the bucket keeps old versions{lock}; remove and prune delete those that are not locked"
            );
            return Some(Check::passed(name, finding));
        }
        Some(Check::warning(
            name,
            format!("the bucket keeps old versions{lock}; remove and prune free no space in it"),
            "add a lifecycle rule with NoncurrentVersionExpiration, or set [bucket] delete_versions = true",
        ))
    }

    /// Looks for incomplete snapshots, as far as [`LIST_TIMEOUT`] allows. `None` if the bucket cannot be listed.
    async fn check_complete(&self) -> Option<Check> {
        let mut pages = pin!(self.list());
        let deadline = Instant::now() + LIST_TIMEOUT;
        let (mut problems, mut count, mut is_whole) = (Vec::new(), 0, true);
        loop {
            match timeout_at(deadline, pages.next()).await {
                Ok(Some(page)) => {
                    for object in page.ok()?.objects {
                        count += 1;
                        problems.extend(object.problem.map(|problem| (object.name, problem)));
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    is_whole = false;
                    break;
                }
            }
        }
        let name = "complete";
        let checked = match is_whole {
            true => format!("{count} listed"),
            false => format!("the first {count} listed"),
        };
        let Some((first, _)) = problems.first() else {
            return (count > 0)
                .then(|| Check::passed(name, format!("{checked}, none is incomplete")));
        };
        let hint =
            format!("push it again with --overwrite, or run snapdeck remove {first} --bucket");
        let named = problems.iter().take(MAX_NAMED);
        let mut found: Vec<String> = named
            .map(|(name, problem)| format!("{name}: {problem}"))
            .collect();
        if problems.len() > MAX_NAMED {
            found.push(format!("and {} more", problems.len() - MAX_NAMED));
        }
        Some(Check::warning(name, found.join("; "), hint))
    }
}

fn failed_check(name: &str, error: &Error) -> Check {
    let hint = error.hint_text().unwrap_or("check the store's log");
    Check::failed(name, error.message(), hint)
}

fn with_unchecked(check: Check, unchecked: &str) -> Check {
    Check {
        finding: format!("{}; not checked: {unchecked}", check.finding),
        ..check
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreAccess {
    Bucket,
    /// The store has no such bucket.
    Store,
    /// The store does not respond, or it refuses the keys.
    NoAccess,
}

async fn check_listing(
    store: &Store,
    settings: &BucketSettings,
    checks: &mut Vec<Check>,
) -> StoreAccess {
    let prefix = &*settings.prefix;
    let (requested, started) = (Timestamp::now(), Instant::now());
    let listed = store.with_timeout(CALL_TIMEOUT).list(prefix, None).await;
    let (address, endpoint) = (store.address(prefix), store.endpoint());
    let seconds = started.elapsed().as_secs_f64().max(0.01);
    let reachable = Check::passed(
        "store",
        format!("{endpoint} responded within {seconds:.2} s"),
    );
    let server_time = store.server_time();
    let clock = server_time.map(|time| check_clock(time, requested, Timestamp::now()));
    let failed = match listed {
        Ok(page) => {
            checks.push(reachable);
            checks.extend(clock);
            checks.push(Check::passed("list", format!("{address} can be listed")));
            for organization in &settings.organizations {
                let folder = format!("{prefix}{organization}/");
                let listed = store.with_timeout(CALL_TIMEOUT).list(&folder, None).await;
                checks.extend(
                    listed
                        .err()
                        .map(|failed| failed_check("list", &failed.error)),
                );
            }
            checks.push(check_names(&page, settings, &address));
            return StoreAccess::Bucket;
        }
        Err(failed) => failed,
    };
    let error = failed.error;
    let probe_checks = "rights, features of the store";
    match failed.reason {
        // Keys without the right to list may have other rights.
        Reason::AccessDenied => {
            checks.push(reachable);
            checks.extend(clock);
            checks.push(with_unchecked(failed_check("list", &error), "objects"));
            StoreAccess::Bucket
        }
        Reason::NotFound => {
            checks.push(reachable);
            checks.extend(clock);
            let hint = format!(
                "run aws s3 mb s3://{} to create it, or check [bucket] name and endpoint",
                store.bucket()
            );
            let check = Check::failed("bucket", error.message(), hint);
            checks.push(with_unchecked(check, probe_checks));
            StoreAccess::Store
        }
        reason => {
            checks.push(with_unchecked(failed_check("store", &error), probe_checks));
            // Without a response to this call the time is that of an earlier one.
            checks.extend(clock.filter(|_| reason != Reason::NoResponse));
            StoreAccess::NoAccess
        }
    }
}

/// Counts the snapshots of a page, and names images that are not listed.
fn check_names(page: &ListPage, settings: &BucketSettings, address: &str) -> Check {
    let prefix = &*settings.prefix;
    let keys = page.objects.iter().map(|object| &*object.key);
    let images = keys.filter(|key| key.ends_with(IMAGE_SUFFIX));
    let (snapshots, foreign): (Vec<&str>, Vec<&str>) =
        images.partition(|key| snapshot_name(prefix, key, &[IMAGE_SUFFIX]).is_some());
    let more = match page.is_last && settings.organizations.is_empty() {
        true => "",
        false => " or more",
    };
    if !foreign.is_empty() {
        let named = foreign.iter().take(MAX_NAMED);
        let named: Vec<String> = named.map(|key| format!("\"{}\"", printable(key))).collect();
        let finding = format!(
            "{}{more} under {address}; {} not listed: {}",
            snapshots.len(),
            foreign.len(),
            named.join(", ")
        );
        let hint = "a snapshot's name has letters, digits, '.', '_' and '-' only: rename the objects to use them";
        return Check::warning("objects", finding, hint);
    }
    match snapshots.len() {
        0 if settings.organizations.is_empty() => Check::warning(
            "objects",
            format!("no snapshots under {address}"),
            "push one, or check [bucket] name and prefix",
        ),
        count => Check::passed("objects", format!("{count}{more} under {address}")),
    }
}

/// Compares the store's clock, read in whole seconds between `requested` and `received`, with this machine's.
fn check_clock(server_time: Timestamp, requested: Timestamp, received: Timestamp) -> Check {
    let second = SignedDuration::from_secs(1);
    let skew = match server_time {
        time if time + second < requested => time.duration_since(requested),
        time if time > received => time.duration_since(received),
        _ => SignedDuration::ZERO,
    };
    let direction = if skew.is_negative() {
        "behind"
    } else {
        "ahead of"
    };
    let skew = skew.unsigned_abs();
    let finding = format!(
        "the store's clock is {} s {direction} this machine's",
        skew.as_secs()
    );
    match skew {
        skew if skew > REFUSED_CLOCK_SKEW => {
            let finding = format!("{finding}; stores refuse requests beyond 15 min");
            Check::failed("clock", finding, CLOCK_HINT)
        }
        skew if skew > MAX_CLOCK_SKEW => Check::warning("clock", finding, CLOCK_HINT),
        _ => Check::passed("clock", "in sync with the store"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use snapdeck_model::Verdict;

    #[test]
    fn clock_skew_is_a_warning_after_a_minute_and_a_failure_after_fifteen() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (server_time, verdict) in [
            (9_999, Verdict::Passed),
            (10_003, Verdict::Passed),
            (9_900, Verdict::Warning),
            (10_100, Verdict::Warning),
            (9_000, Verdict::Failed),
            (12_000, Verdict::Failed),
        ] {
            let check = check_clock(at(server_time), at(10_000), at(10_002));
            assert_eq!(check.verdict, verdict, "{server_time}: {}", check.finding);
        }
    }
}
