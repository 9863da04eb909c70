//! The proposed name of a new snapshot, and the proposed id of a new sandbox.

use jiff::civil::Date;

use super::retention::family_name;
use super::{SandboxId, SnapshotName};

/// Names that are tried.
const MAX_TRIES: u64 = 10_000;
/// Bytes of a sandbox's id in a name, so that date and number fit.
const MAX_ID_BYTES: usize = 100;

/// Returns a name for a snapshot of `sandbox` that is free: the next version of `base`, the snapshot that it is based on,
/// else the sandbox with the date; `None` if ten thousand such names are taken.
///
/// The version is a month or a day (`app-2026-10`, `app-v2026-10-31`), which becomes that of `today`, or ends with a number
/// (`app-v1.0`, `app-3`), which is increased. A name without a version has no next one.
pub fn propose_snapshot_name(
    base: Option<&SnapshotName>,
    sandbox: &SandboxId,
    today: Date,
    is_free: impl Fn(&SnapshotName) -> bool,
) -> Option<SnapshotName> {
    let free = |text: String| text.parse().ok().filter(&is_free);
    let next = base.and_then(|base| {
        let version = base.as_str().get(family_name(base).len()..)?;
        match next_date(version, today) {
            Some((start, date)) => {
                numbered(&format!("{}{date}", head(base, start)), '.').find_map(free)
            }
            None => next_numbers(base, version)?.find_map(free),
        }
    });
    let dated = || {
        let id = sandbox.as_str();
        let id = id.get(..MAX_ID_BYTES).unwrap_or(id);
        let organization = base.and_then(SnapshotName::organization);
        let with = organization.map(|organization| format!("{organization}/{id}-{today}"));
        // It may be too long.
        let with = with.and_then(|name| numbered(&name, '-').find_map(free));
        with.or_else(|| numbered(&format!("{id}-{today}"), '-').find_map(free))
    };
    next.or_else(dated)
}

/// Returns an id for a sandbox on `base` that is free: the family of that snapshot, without its organization, with a number, from
/// 1; `None` if ten thousand are taken.
pub fn propose_sandbox_id(
    base: &SnapshotName,
    is_free: impl Fn(&SandboxId) -> bool,
) -> Option<SandboxId> {
    let family = family_name(base);
    let family = family.split_once('/').map_or(family, |(_, name)| name);
    number_id(family, 1, is_free)
}

/// Returns an id for a clone of `sandbox` that is free: the same with another number; `None` if ten thousand are taken.
pub fn propose_clone_id(
    sandbox: &SandboxId,
    is_free: impl Fn(&SandboxId) -> bool,
) -> Option<SandboxId> {
    let id = sandbox.as_str();
    let stem = id.trim_end_matches(|c: char| c.is_ascii_digit());
    let (stem, first) = match stem.strip_suffix('-') {
        Some(stem) if stem.len() + 1 < id.len() => (stem, 1),
        _ => (id, 2),
    };
    number_id(stem, first, is_free)
}

fn number_id(stem: &str, first: u64, is_free: impl Fn(&SandboxId) -> bool) -> Option<SandboxId> {
    let stem = stem.get(..MAX_ID_BYTES).unwrap_or(stem);
    let ids = (first..MAX_TRIES).filter_map(|number| format!("{stem}-{number}").parse().ok());
    ids.into_iter().find(is_free)
}

/// Returns the name without its last `bytes`.
fn head(name: &SnapshotName, bytes: usize) -> &str {
    let text = name.as_str();
    text.get(..text.len().saturating_sub(bytes)).unwrap_or(text)
}

/// Returns the text, then with 2, 3, ... behind it.
fn numbered(text: &str, separator: char) -> impl Iterator<Item = String> {
    let text = text.to_owned();
    (1..MAX_TRIES).map(move |number| match number {
        1 => text.clone(),
        number => format!("{text}{separator}{number}"),
    })
}

/// Returns the date of `today` in the form of the date at the end of `version`, and the length of that; `None` if it does
/// not end with one.
fn next_date(version: &str, today: Date) -> Option<(usize, String)> {
    let forms = [
        ("0000-00-00", "%Y-%m-%d"),
        ("00000000", "%Y%m%d"),
        ("0000-00", "%Y-%m"),
    ];
    let is_of_form = |text: &str, form: &str| {
        let mut pairs = text.chars().zip(form.chars());
        pairs.all(|(c, expected)| match expected {
            '0' => c.is_ascii_digit(),
            separator => c == separator,
        })
    };
    forms.into_iter().find_map(|(form, format)| {
        let start = version.len().checked_sub(form.len())?;
        let date = version.get(start..).filter(|date| is_of_form(date, form))?;
        let is_whole = !version
            .get(..start)?
            .ends_with(|c: char| c.is_ascii_digit());
        let year: u16 = date.get(..4)?.parse().ok()?;
        let is_year = (1990..2100).contains(&year);
        (is_whole && is_year).then(|| (form.len(), today.strftime(format).to_string()))
    })
}

/// Returns the names of the versions behind that of `base`, whose last number is increased.
fn next_numbers(base: &SnapshotName, version: &str) -> Option<impl Iterator<Item = String>> {
    let digits = version.len() - version.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let number = version.get(version.len() - digits..)?;
    let value: u64 = number.parse().ok()?;
    let head = head(base, digits).to_owned();
    let width = number.len();
    let later = (1..MAX_TRIES).map_while(move |step| value.checked_add(step));
    Some(later.map(move |value| format!("{head}{value:0width$}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use jiff::civil::date;

    fn propose(base: Option<&str>, sandbox: &str, taken: &[&str]) -> String {
        let base = base.map(|base| base.parse().unwrap());
        let is_free = |name: &SnapshotName| !taken.contains(&name.as_str());
        let today = date(2026, 11, 29);
        propose_snapshot_name(base.as_ref(), &sandbox.parse().unwrap(), today, is_free)
            .unwrap()
            .to_string()
    }

    #[test]
    fn the_next_version_of_the_base_is_proposed() {
        for (base, expected) in [
            ("app-v1.0", "app-v1.1"),
            ("app-v1.9", "app-v1.10"),
            ("app-v2", "app-v3"),
            ("foo-3", "foo-4"),
            ("foo_009", "foo_010"),
            ("app-1.2.3", "app-1.2.4"),
            ("base-v2026-10", "base-v2026-11"),
            ("base-2026-10-31", "base-2026-11-29"),
            ("base-20261031", "base-20261129"),
            ("win2022-v1", "win2022-v2"),
            ("acme/app-v1.0", "acme/app-v1.1"),
            // Not a date.
            ("app-4711-12", "app-4711-13"),
        ] {
            assert_eq!(propose(Some(base), "box", &[base]), expected, "{base}");
        }
    }

    #[test]
    fn a_free_id_is_proposed_for_a_sandbox() {
        let new = |base: &str, taken: &[&str]| {
            let is_free = |id: &SandboxId| !taken.contains(&id.as_str());
            propose_sandbox_id(&base.parse().unwrap(), is_free)
                .unwrap()
                .to_string()
        };
        assert_eq!(new("win11-v1.2", &[]), "win11-1");
        assert_eq!(new("acme/win11-v1.2", &["win11-1"]), "win11-2");
        assert_eq!(new("golden", &["golden-1", "golden-3"]), "golden-2");
        let clone = |id: &str, taken: &[&str]| {
            let is_free = |id: &SandboxId| !taken.contains(&id.as_str());
            propose_clone_id(&id.parse().unwrap(), is_free)
                .unwrap()
                .to_string()
        };
        assert_eq!(clone("box", &["box"]), "box-2");
        assert_eq!(clone("win11-1", &["win11-1", "win11-2"]), "win11-3");
        assert_eq!(clone("win2022", &["win2022"]), "win2022-2");
        assert_eq!(clone(&"a".repeat(128), &[]).len(), MAX_ID_BYTES + 2);
    }

    #[test]
    fn a_taken_name_is_never_proposed() {
        let versions = ["app-v1.0", "app-v1.1", "app-v1.2"];
        assert_eq!(propose(Some("app-v1.0"), "box", &versions), "app-v1.3");
        let months = ["app-2026-10", "app-2026-11", "app-2026-11.2"];
        assert_eq!(
            propose(Some("app-2026-10"), "box", &months),
            "app-2026-11.3"
        );
        let days = ["box-2026-11-29", "box-2026-11-29-2"];
        assert_eq!(propose(None, "box", &days), "box-2026-11-29-3");
    }

    #[test]
    fn without_a_version_it_is_the_sandbox_with_the_date() {
        for base in [
            None,
            Some("winserver-base"),
            Some("win2022"),
            Some("app-v99999999999999999999"),
        ] {
            assert_eq!(propose(base, "box", &[]), "box-2026-11-29", "{base:?}");
        }
        assert_eq!(
            propose(Some("acme/base"), "box", &[]),
            "acme/box-2026-11-29"
        );
        assert_eq!(
            propose(Some("acme-1/2"), "box", &[]),
            "acme-1/box-2026-11-29"
        );
        let long = "a".repeat(128);
        assert_eq!(
            propose(None, &long, &[]).len(),
            MAX_ID_BYTES + "-2026-11-29".len()
        );
        let long = format!("{}-9", "a".repeat(126));
        assert_eq!(propose(Some(&long), "box", &[]), "box-2026-11-29");
    }
}
