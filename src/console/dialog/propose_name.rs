//! A name for a new snapshot.

use jiff::civil::Date;

use snapdeck_engine::View;
use snapdeck_model::{HostName, SandboxId, SnapshotName};

use crate::lookup;

/// Returns a name for a snapshot of a sandbox: the next version of its base, or the sandbox's id with the date.
///
/// No snapshot, object or active job has the name. `None`: all such names are too long.
pub(crate) fn propose_name(
    view: &View,
    host: &HostName,
    sandbox: &SandboxId,
    today: Date,
) -> Option<SnapshotName> {
    let taken = Taken::new(view);
    let base = lookup::sandbox(view, host, sandbox).and_then(|sandbox| sandbox.base());
    let next = base.and_then(|base| next_version(base.as_str(), &taken, today));
    let dated = || free_name(&format!("{sandbox}-{today}"), &taken);
    next.or_else(dated)
}

/// The names that exist or will exist.
struct Taken<'a>(std::collections::HashSet<&'a str>);

impl<'a> Taken<'a> {
    fn new(view: &'a View) -> Self {
        let hosts = view.hosts.iter();
        let snapshots = hosts.flat_map(|host| host.snapshots.iter().map(|one| one.name.as_str()));
        let objects = view
            .bucket
            .objects
            .iter()
            .map(|object| object.name.as_str());
        let jobs = view.jobs.iter().filter(|job| !job.state.is_finished());
        let jobs = jobs.filter_map(|job| Some(job.operation.snapshot()?.as_str()));
        Self(snapshots.chain(objects).chain(jobs).collect())
    }
}

/// Returns the version after the highest one of the family of `base`; `None` if its name has no version.
fn next_version(base: &str, taken: &Taken<'_>, today: Date) -> Option<SnapshotName> {
    let (stem, version) = split_version(base)?;
    if let Some(date) = date_like(version, today) {
        return free_name(&format!("{stem}{date}"), taken);
    }
    // `1.0` has the fixed part `1.` and the number `0`.
    let digits = version.len() - version.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (fixed, number) = version.split_at(version.len() - digits);
    let width = number.len();
    let prefix = format!("{stem}{fixed}");
    // `app-20261031` is not a version after `app-3`.
    let is_similar = |text: &&str| text.len() <= width + 2;
    let number_of = |name: &str| {
        let text = name.strip_prefix(&prefix).filter(is_similar);
        text?.parse::<u64>().ok()
    };
    let highest = taken.0.iter().filter_map(|name| number_of(name)).max();
    let next = highest.max(number.parse().ok())?.checked_add(1)?;
    free_name(&format!("{prefix}{next:0width$}"), taken)
}

/// Splits a name before its version: `app-v1.0` into `app-v` and `1.0`.
fn split_version(name: &str) -> Option<(&str, &str)> {
    let is_separator = |c: char| matches!(c, '-' | '_' | '.');
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || is_separator(c));
    let end = &name[stem.len()..];
    let version = end.trim_start_matches(is_separator);
    let before = stem.strip_suffix('v').unwrap_or(stem);
    // The number of `win2022` belongs to the name.
    let is_separated = match before.len() == stem.len() {
        true => version.len() < end.len(),
        false => version.len() == end.len() && before.ends_with(is_separator),
    };
    let ends_with_digit = version.ends_with(|c: char| c.is_ascii_digit());
    let has_stem = !before.trim_end_matches(is_separator).is_empty();
    (is_separated && ends_with_digit && has_stem).then(|| name.split_at(name.len() - version.len()))
}

/// Returns `today` in the format of a version that is a month (`2026-10`) or a day (`2026-10-31`).
fn date_like(version: &str, today: Date) -> Option<String> {
    let parts: Vec<&str> = version.split(['-', '_', '.']).collect();
    let is_number = |text: &str, length: usize, most: u32| {
        text.len() == length && (1..=most).contains(&text.parse().unwrap_or(0))
    };
    let separator = version.chars().find(|c| !c.is_ascii_digit());
    let is_year = |text: &str| is_number(text, 4, 9999) && text.starts_with("20");
    let (year, month, day) = (today.year(), today.month(), today.day());
    match (parts.as_slice(), separator) {
        ([y, m], Some(s)) if is_year(y) && is_number(m, 2, 12) => {
            Some(format!("{year:04}{s}{month:02}"))
        }
        ([y, m, d], Some(s)) if is_year(y) && is_number(m, 2, 12) && is_number(d, 2, 31) => {
            Some(format!("{year:04}{s}{month:02}{s}{day:02}"))
        }
        ([all], None) if all.len() == 8 && is_year(&all[..4]) => {
            Some(format!("{year:04}{month:02}{day:02}"))
        }
        _ => None,
    }
}

/// Returns `name`, or the first free one of `name.2`, `name.3`, ...
fn free_name(name: &str, taken: &Taken<'_>) -> Option<SnapshotName> {
    let numbered = (2..).map(|number| format!("{name}.{number}"));
    let mut names = [name.to_owned()].into_iter().chain(numbered);
    names.find(|name| !taken.0.contains(&**name))?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::fixture::{object, populated, queued_job, sandbox, snapshot};
    use snapdeck_model::SandboxState;

    /// Returns the proposal for a sandbox on `base` if these names exist, in turn on a host and in the bucket.
    fn proposal(base: Option<&str>, names: &[&str]) -> String {
        let mut view = populated();
        view.jobs.clear();
        let mut host = (*view.hosts[0]).clone();
        let mut sandbox = sandbox("web", SandboxState::Running);
        sandbox.chain[1].snapshot = base.map(|base| base.parse().unwrap());
        host.sandboxes = Arc::new([sandbox]);
        host.snapshots = names
            .iter()
            .step_by(2)
            .map(|name| snapshot(name, 1, &[]))
            .collect();
        view.hosts[0] = Arc::new(host);
        let mut bucket = (*view.bucket).clone();
        bucket.objects = names
            .iter()
            .skip(1)
            .step_by(2)
            .map(|name| object(name, 1))
            .collect();
        view.bucket = Arc::new(bucket);
        let (host, id) = ("alpha".parse().unwrap(), "web".parse().unwrap());
        let name = propose_name(&view, &host, &id, jiff::civil::date(2026, 11, 29));
        name.unwrap().to_string()
    }

    #[test]
    fn the_next_version_of_the_base_is_proposed() {
        for (base, names, expected) in [
            ("app-v1.0", &["app-v1.0"][..], "app-v1.1"),
            (
                "app-v1.0",
                &["app-v1.0", "app-v1.9", "other-v1.20"],
                "app-v1.10",
            ),
            ("app-3", &["app-3"], "app-4"),
            ("app_v009", &[], "app_v010"),
            ("app-v2026-10", &["app-v2026-10"], "app-v2026-11"),
            ("app-v2026-10", &["app-v2026-11"], "app-v2026-11.2"),
            ("app-2026.10.31", &[], "app-2026.11.29"),
            ("app-20261031", &["x", "app-20261129"], "app-20261129.2"),
        ] {
            assert_eq!(proposal(Some(base), names), expected, "{base} {names:?}");
        }
    }

    #[test]
    fn a_base_without_version_gives_the_sandbox_and_the_date() {
        for base in [
            None,
            Some("win2022"),
            Some("winv2"),
            Some("app-"),
            Some("1.0"),
        ] {
            assert_eq!(proposal(base, &[]), "web-2026-11-29", "{base:?}");
        }
        let taken = ["web-2026-11-29", "web-2026-11-29.2"];
        assert_eq!(proposal(None, &taken), "web-2026-11-29.3");
    }

    #[test]
    fn a_name_that_a_job_uses_is_not_proposed() {
        let mut view = populated();
        let job = queued_job(7, "config-vm-2026-11-29");
        view.jobs.push(Arc::new(job));
        let (host, id) = ("alpha".parse().unwrap(), "config-vm".parse().unwrap());
        let name = propose_name(&view, &host, &id, jiff::civil::date(2026, 11, 29));
        assert_eq!(name.unwrap().as_str(), "config-vm-2026-11-29.2");
    }

    #[test]
    fn a_name_that_is_too_long_is_not_proposed() {
        let view = populated();
        let (host, id) = ("alpha".parse().unwrap(), "x".repeat(125).parse().unwrap());
        let today = jiff::civil::date(2026, 11, 29);
        assert_eq!(propose_name(&view, &host, &id, today), None);
    }
}
