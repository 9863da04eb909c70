//! The examination of the bucket: everything that operations will ask of the store, asked before one fails.

mod probe;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Bucket;
use super::client::{Store, no_sdk_retry};
use super::errors::{sdk_error, status_and_code};
use super::list::snapshot_name;
use super::object::to_timestamp;
use snapdeck_model::{Check, Error, HealthReport, Kind};

/// One small call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A clock further off is told of; S3 takes no request from one beyond the second (`RequestTimeTooSkewed`).
const SKEW: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15 * 60));
const CLOCK_HINT: &str = "timedatectl set-ntp true, here or at the store: whichever is wrong";

impl Bucket {
    /// Looks at everything that operations need of the bucket; ends within a minute and a half. It writes two objects
    /// whose keys are no snapshot's and removes them, also when it is cancelled or dropped; nothing else is touched.
    pub async fn run_checks(&self, cancel: &CancellationToken) -> HealthReport {
        let mut checks = Vec::new();
        let reached = self.run_checks_into(&mut checks, cancel).await;
        HealthReport {
            host: None,
            reachable: reached,
            checks,
        }
    }

    async fn run_checks_into(&self, checks: &mut Vec<Check>, cancel: &CancellationToken) -> bool {
        if !self.is_configured() {
            checks.push(Check::warning(
                "bucket",
                "none configured; push and pull will fail",
                "set [bucket] name in the settings (AWS_DEFAULT_BUCKET)",
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
        let found = check_listing(store, prefix, checks).await;
        if found == StoreAccess::Bucket {
            probe::run_probe(store, prefix, checks, cancel).await;
        }
        found != StoreAccess::NoAccess
    }
}

fn failed_check(what: &str, error: &Error) -> Check {
    let hint = error.hint_text().unwrap_or("check the store's log");
    Check::failed(what, error.message(), hint)
}

/// What was not looked at, behind what was seen.
fn with_unchecked(check: Check, unseen: &str) -> Check {
    Check {
        finding: format!("{}; not checked: {unseen}", check.finding),
        ..check
    }
}

/// What there is to go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreAccess {
    Bucket,
    /// A store that has no such bucket.
    Store,
    /// No store, or it does not let us in.
    NoAccess,
}

/// Lists the first objects.
async fn check_listing(store: &Store, prefix: &str, checks: &mut Vec<Check>) -> StoreAccess {
    let header = DateHeader::default();
    let (begun, since) = (Timestamp::now(), Instant::now());
    let listed = store
        .client
        .list_objects_v2()
        .bucket(&store.bucket)
        .prefix(prefix)
        .delimiter("/")
        .customize()
        .interceptor(header.clone())
        .config_override(no_sdk_retry(CALL_TIMEOUT))
        .send()
        .await;
    let (place, endpoint) = (store.address(prefix), &store.endpoint);
    let seconds = since.elapsed().as_secs_f64();
    let answered = Check::passed(
        "store",
        format!("{endpoint} answered within {seconds:.2} s"),
    );
    let clock = header
        .time()
        .map(|there| check_clock(there, begun, Timestamp::now()));
    let error = match listed {
        Ok(page) => {
            checks.push(answered);
            checks.extend(clock);
            checks.push(Check::passed("list", format!("{place} can be listed")));
            let keys = page.contents().iter().filter_map(|object| object.key());
            let count = keys
                .filter(|key| snapshot_name(prefix, key).is_some())
                .count();
            let more = match page.is_truncated {
                Some(true) => " or more",
                _ => "",
            };
            checks.push(match count {
                0 => Check::warning(
                    "objects",
                    format!("no snapshots under {place}"),
                    "push one, or check [bucket] name and prefix",
                ),
                count => Check::passed("objects", format!("{count}{more} under {place}")),
            });
            return StoreAccess::Bucket;
        }
        Err(error) => error,
    };
    let said = sdk_error(store, format!("cannot list {place}"), &error);
    let rest = "rights, features of the store";
    match status_and_code(&error) {
        // Who may not list may be let in all the same.
        Some((403, "AccessDenied")) => {
            checks.push(answered);
            checks.extend(clock);
            checks.push(with_unchecked(failed_check("list", &said), "objects"));
            StoreAccess::Bucket
        }
        Some(_) if said.kind() == Kind::NotFound => {
            checks.push(answered);
            checks.extend(clock);
            let bucket = &store.bucket;
            let mend =
                format!("aws s3 mb s3://{bucket} creates it; or check [bucket] name and endpoint");
            checks.push(with_unchecked(
                Check::failed("bucket", said.message(), mend),
                rest,
            ));
            StoreAccess::Store
        }
        Some(_) => {
            checks.push(with_unchecked(failed_check("store", &said), rest));
            checks.extend(clock);
            StoreAccess::NoAccess
        }
        None => {
            checks.push(with_unchecked(failed_check("store", &said), rest));
            StoreAccess::NoAccess
        }
    }
}

/// Remembers when an answer was made, by its `Date` header (RFC 9110, section 6.6.1).
#[derive(Debug, Clone, Default)]
struct DateHeader(Arc<Mutex<Option<String>>>);

impl DateHeader {
    fn time(&self) -> Option<Timestamp> {
        let date = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        to_timestamp(&DateTime::from_str(&date, DateTimeFormat::HttpDate).ok()?)
    }
}

impl Intercept for DateHeader {
    fn name(&self) -> &'static str {
        "DateHeader"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date.map(str::to_owned);
        Ok(())
    }
}

/// Is the store's clock ours? It was read between `begun` and `answered`, and shows whole seconds.
fn check_clock(there: Timestamp, begun: Timestamp, answered: Timestamp) -> Check {
    let second = SignedDuration::from_secs(1);
    let skew = match there {
        there if there + second < begun => there.duration_since(begun),
        there if there > answered => there.duration_since(answered),
        _ => SignedDuration::ZERO,
    };
    let (what, off) = ("clock", skew.unsigned_abs());
    let way = if skew.is_negative() {
        "behind"
    } else {
        "ahead of"
    };
    let seen = format!("the store's is {} s {way} this machine's", off.as_secs());
    match off {
        off if off > SKEW.1 => {
            let seen = format!("{seen}: stores refuse requests from clocks 15 minutes off");
            Check::failed(what, seen, CLOCK_HINT)
        }
        off if off > SKEW.0 => Check::warning(what, seen, CLOCK_HINT),
        _ => Check::passed(what, "in sync with the store"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use snapdeck_model::Verdict;

    #[test]
    fn a_clock_is_a_warning_after_a_minute_and_a_failure_after_fifteen() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (there, verdict) in [
            (9_999, Verdict::Passed),
            (10_003, Verdict::Passed),
            (9_900, Verdict::Warning),
            (10_100, Verdict::Warning),
            (9_000, Verdict::Failed),
            (12_000, Verdict::Failed),
        ] {
            let check = check_clock(at(there), at(10_000), at(10_002));
            assert_eq!(check.verdict, verdict, "{there}: {}", check.finding);
        }
    }
}
