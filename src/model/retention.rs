//! Retention: which snapshots a prune rule matches, and which of them are kept.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::{Error, HostName, ImageIdentity, Kind, Operation, Result, SnapshotName};

/// Minimum age of a leftover that is removed.
pub const LEFTOVER_MIN_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Conditions for a removal, all of which must be met. A rule without conditions matches nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneRule {
    /// Not among the newest N of its family (the same name with any version) on its host or in the bucket.
    pub keep_newest: Option<usize>,
    /// Created longer ago than this.
    pub older_than: Option<Duration>,
    /// No sandbox is based on it.
    pub unused: bool,
}

impl PruneRule {
    /// Returns whether the rule depends on the age of snapshots.
    pub fn uses_age(&self) -> bool {
        self.keep_newest.is_some() || self.older_than.is_some()
    }
}

/// Parses an age with its unit: `12h`, `30d`, `8w`.
///
/// # Errors
/// `InvalidInput` for any other form.
pub fn parse_age(text: &str) -> Result<Duration> {
    let invalid = |cause: &str| {
        Error::new(Kind::InvalidInput, format!("{text:?} is not an age")).with_cause(cause)
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let hours = match unit {
        "h" => 1,
        "d" => 24,
        "w" => 7 * 24,
        _ => return Err(invalid("use a number with a unit: h, d or w")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(hours * 60 * 60))
        .map(Duration::from_secs)
        .ok_or_else(|| invalid("the number is missing or too large"))
}

/// A snapshot on a host or in the bucket that a prune considers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Name of the snapshot.
    pub name: SnapshotName,
    /// The host it is on; `None`: the bucket.
    pub host: Option<HostName>,
    /// Bytes that its removal frees.
    pub size_bytes: u64,
    /// Time of creation by its manifest; `None`: unknown. The time of a file says when it was copied, or anything else.
    pub created: Option<Timestamp>,
    /// Whether a sandbox is based on a snapshot of this name.
    #[serde(skip)]
    pub in_use: bool,
    /// Whether no other copy with the same bytes is known to remain.
    #[serde(rename = "lastCopy")]
    pub is_last_copy: bool,
    /// Identity of the image; `None`: unknown.
    #[serde(skip)]
    pub identity: Option<ImageIdentity>,
    /// Reasons to keep it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keep_reasons: Vec<String>,
}

/// Returns the family of a snapshot: its name without the version at its end.
///
/// A version begins behind `-`, `_` or `.`, with a digit or with `v` and a digit, and consists of digits, `-`, `_` and
/// `.`: `app` is the family of `app-v1.1` and of `app-2026-01-31`. A name without a version is its own family.
pub fn family_name(name: &SnapshotName) -> &str {
    let text = name.as_str();
    let is_separator = |c: char| matches!(c, '-' | '_' | '.');
    let stem = text.trim_end_matches(|c: char| c.is_ascii_digit() || is_separator(c));
    let end = &text[stem.len()..];
    let (stem, has_version) = match stem.strip_suffix('v') {
        Some(before) if end.starts_with(|c: char| c.is_ascii_digit()) => (
            before.trim_end_matches(is_separator),
            before.ends_with(is_separator),
        ),
        // The number of `win2022` has no separator before it: it belongs to the name.
        _ => (
            stem,
            end.starts_with(is_separator) && end.contains(|c: char| c.is_ascii_digit()),
        ),
    };
    match has_version && !stem.is_empty() {
        true => stem,
        false => text,
    }
}

/// The place and the name without the version.
type Family<'a> = (&'a Option<HostName>, &'a str);

/// Returns the indices of the candidates that match `rule`, or may match it since their age is unknown, kept or not.
pub fn find_matching(rule: &PruneRule, all: &[Candidate], now: Timestamp) -> Vec<usize> {
    if *rule == PruneRule::default() {
        return Vec::new();
    }
    let mut families: HashMap<Family, Vec<(Timestamp, usize)>> = HashMap::new();
    for (index, candidate) in all.iter().enumerate() {
        // One of unknown age is kept, and does not count as one of the newest.
        if let Some(created) = candidate.created {
            let family = (&candidate.host, family_name(&candidate.name));
            families.entry(family).or_default().push((created, index));
        }
    }
    let mut newest = vec![false; all.len()];
    if let Some(count) = rule.keep_newest {
        for members in families.values_mut() {
            // Of the same age, the later name is the newer one.
            members
                .sort_by_key(|(created, index)| std::cmp::Reverse((*created, &all[*index].name)));
            members
                .iter()
                .take(count)
                .for_each(|(_, index)| newest[*index] = true);
        }
    }
    let is_old = |candidate: &Candidate| match (rule.older_than, candidate.created) {
        (None, _) | (Some(_), None) => true,
        (Some(limit), Some(time)) => {
            let age = Duration::try_from(now.duration_since(time)).unwrap_or_default();
            age > limit
        }
    };
    (0..all.len())
        .filter(|index| {
            let candidate = &all[*index];
            !newest[*index] && is_old(candidate) && !(rule.unused && candidate.in_use)
        })
        .collect()
}

/// Returns the indices of the candidates that match `rule` and have no reason to be kept.
pub fn find_removable(rule: &PruneRule, all: &[Candidate], now: Timestamp) -> Vec<usize> {
    let mut indices = find_matching(rule, all, now);
    indices.retain(|index| {
        let candidate = &all[*index];
        let is_age_known = candidate.created.is_some() || !rule.uses_age();
        is_age_known && candidate.keep_reasons.is_empty()
    });
    indices
}

/// Removals of a prune.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PrunePlan {
    /// Snapshots to remove.
    pub to_remove: Vec<Candidate>,
    /// Snapshots that match the rule but are kept.
    pub kept: Vec<Candidate>,
    /// Leftovers to remove.
    pub leftovers: Vec<Leftover>,
    /// Leftovers of other installations of snapdeck, or of unknown ones, which are kept.
    pub foreign_leftovers: Vec<Leftover>,
    /// Hosts and stores that could not be read, a sentence each.
    pub warnings: Vec<String>,
}

impl PrunePlan {
    /// Returns the bytes that the removal frees.
    pub fn reclaimed_bytes(&self) -> u64 {
        let snapshots = self.to_remove.iter().map(|candidate| candidate.size_bytes);
        let leftovers = self.leftovers.iter().map(|leftover| leftover.size_bytes);
        snapshots.chain(leftovers).fold(0, u64::saturating_add)
    }

    /// Keeps only removals that `current`, a second plan of the same rule, has too, with the same identity.
    ///
    /// The rest is kept for the reasons of `current`, or for `changed_reason` if it has none. Nothing is added.
    pub fn revalidate(mut self, current: &Self, changed_reason: &str) -> Self {
        let find = |list: &[Candidate], candidate: &Candidate| -> Option<Candidate> {
            let is_same = |other: &&Candidate| {
                (&other.host, &other.name) == (&candidate.host, &candidate.name)
            };
            list.iter().find(is_same).cloned()
        };
        for mut candidate in std::mem::take(&mut self.to_remove) {
            let identity = find(&current.to_remove, &candidate).and_then(|found| found.identity);
            if identity.is_some() && identity == candidate.identity {
                self.to_remove.push(candidate);
                continue;
            }
            candidate.keep_reasons = match find(&current.kept, &candidate) {
                Some(kept) => kept.keep_reasons,
                None => vec![changed_reason.to_owned()],
            };
            self.kept.push(candidate);
        }
        self
    }

    /// Returns the removals; each is refused if the image has changed by then.
    pub fn operations(&self) -> Vec<Operation> {
        let removal = |candidate: &Candidate| Operation::Remove {
            host: candidate.host.clone(),
            name: candidate.name.clone(),
            from_bucket: candidate.host.is_none(),
            expected_identity: candidate.identity.clone(),
        };
        self.to_remove.iter().map(removal).collect()
    }

    /// Returns whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.to_remove.is_empty() && self.leftovers.is_empty()
    }
}

/// A leftover of an interrupted operation that was not touched for [`LEFTOVER_MIN_AGE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Leftover {
    /// Kind of the leftover.
    pub kind: LeftoverKind,
    /// The host it is on; `None`: the bucket.
    pub host: Option<HostName>,
    /// Path of the file or directory, or key of the unfinished object.
    pub path: String,
    /// The unfinished snapshot, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<SnapshotName>,
    /// Id of a multipart upload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_id: Option<String>,
    /// Until when an upload of the same snapshot continues this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continuable_until: Option<Timestamp>,
    /// Bytes that its removal frees.
    pub size_bytes: u64,
    /// Time of the last write.
    pub modified: Option<Timestamp>,
    /// Whether this installation's records prove that it created it.
    pub is_own: bool,
    /// Whether it may have been modified within a day: such a one is removed only if it is asked for by its name.
    pub is_recent: bool,
    /// User, machine and process that created it, or the store's name for the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creator: Option<String>,
    /// Id in the mark of the file or directory; empty if it has none.
    #[serde(skip)]
    pub mark_id: String,
    /// Device and inode of the file or directory when it was listed.
    #[serde(skip)]
    pub file_id: String,
}

/// Kind of a leftover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum LeftoverKind {
    /// Partial image of a pull.
    Partial,
    /// Directory of a push or create under `temp_dir`.
    Directory,
    /// Directory of the backup of a running sandbox.
    Backup,
    /// Multipart upload of a push or create.
    Upload,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 24 * 60 * 60;
    const NOW: i64 = 1_000 * DAY;

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    fn aged(name: &str, days: i64) -> Candidate {
        Candidate {
            name: name.parse().unwrap(),
            host: None,
            size_bytes: 1,
            created: Timestamp::from_second(NOW - days * DAY).ok(),
            in_use: false,
            is_last_copy: false,
            identity: None,
            keep_reasons: Vec::new(),
        }
    }

    fn rule(keep: Option<usize>, days: Option<u64>, unused: bool) -> PruneRule {
        PruneRule {
            keep_newest: keep,
            older_than: days.map(|days| Duration::from_secs(days * DAY as u64)),
            unused,
        }
    }

    fn removable<'a>(rule: &PruneRule, all: &'a [Candidate]) -> Vec<&'a str> {
        let indices = find_removable(rule, all, now());
        indices
            .into_iter()
            .map(|index| all[index].name.as_str())
            .collect()
    }

    #[test]
    fn ages_need_a_unit() {
        assert_eq!(parse_age("12h"), Ok(Duration::from_secs(12 * 3600)));
        assert_eq!(parse_age("2w"), parse_age("14d"));
        for text in ["", "3", "3m", "d", "-1d", "1.5d", "99999999999999999d"] {
            assert!(parse_age(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn family_is_the_name_without_version() {
        for (name, expected) in [
            ("app-v1.1", "app"),
            ("app-1.10.2", "app"),
            ("app_v2", "app"),
            ("app-2026-01-31", "app"),
            ("app.3", "app"),
            ("my-app-v1-2", "my-app"),
            ("app", "app"),
            ("win2022", "win2022"),
            ("winv2", "winv2"),
            ("app-v1.0-rc1", "app-v1.0-rc1"),
            ("app-", "app-"),
            ("app-v", "app-v"),
            ("1.0", "1.0"),
            ("v1.0", "v1.0"),
            ("2026-01-31", "2026-01-31"),
        ] {
            assert_eq!(family_name(&name.parse().unwrap()), expected, "{name}");
        }
    }

    #[test]
    fn all_conditions_must_be_met() {
        let mut all = vec![
            aged("app-1", 40),
            aged("app-2", 30),
            aged("app-3", 20),
            aged("web-1", 50),
            aged("web-2", 5),
        ];
        all[0].in_use = true;
        for (rule, expected) in [
            (rule(Some(1), None, false), &["app-1", "app-2", "web-1"][..]),
            (rule(Some(2), None, false), &["app-1"]),
            (rule(Some(9), None, false), &[]),
            (rule(None, Some(25), false), &["app-1", "app-2", "web-1"]),
            (rule(None, Some(30), false), &["app-1", "web-1"]),
            (
                rule(None, None, true),
                &["app-2", "app-3", "web-1", "web-2"],
            ),
            (rule(Some(1), Some(45), false), &["web-1"]),
            (rule(Some(1), None, true), &["app-2", "web-1"]),
            (rule(None, None, false), &[]),
        ] {
            assert_eq!(removable(&rule, &all), expected, "{rule:?}");
        }
    }

    #[test]
    fn hosts_and_bucket_are_counted_separately_and_an_unknown_age_is_kept() {
        let mut all = vec![
            aged("app-1", 9),
            aged("app-2", 8),
            aged("app-3", 7),
            aged("app-4", 6),
        ];
        all[0].host = Some("alpha".parse().unwrap());
        all[1].created = None;
        // It does not take the place of the newest.
        assert_eq!(removable(&rule(Some(1), None, false), &all), ["app-3"]);
        assert_eq!(
            removable(&rule(None, Some(1), false), &all),
            ["app-1", "app-3", "app-4"]
        );
        assert_eq!(removable(&rule(None, None, true), &all).len(), 4);
        // It is listed.
        let matching = find_matching(&rule(None, Some(7), false), &all, now());
        assert_eq!(matching, [0, 1]);
    }

    #[test]
    fn later_name_is_newer_and_a_future_time_is_new() {
        let all = vec![aged("app-1", 3), aged("app-2", 3), aged("web-1", -3)];
        assert_eq!(removable(&rule(Some(1), None, false), &all), ["app-1"]);
        assert_eq!(
            removable(&rule(None, Some(1), false), &all),
            ["app-1", "app-2"]
        );
    }

    #[test]
    fn revalidation_only_keeps_more() {
        let object = |name: &str, etag: &str| {
            let mut candidate = aged(name, 9);
            candidate.identity = Some(ImageIdentity::Object {
                size_bytes: 1,
                etag: Some(etag.to_owned()),
                modified: None,
            });
            candidate
        };
        let mut pinned = object("c", "1");
        pinned.keep_reasons = vec!["pinned".to_owned()];
        let before = PrunePlan {
            to_remove: vec![
                object("a", "1"),
                object("b", "1"),
                object("c", "1"),
                object("d", "1"),
                aged("e", 9),
            ],
            ..PrunePlan::default()
        };
        let now = PrunePlan {
            to_remove: vec![
                object("a", "1"),
                object("b", "2"),
                aged("e", 9),
                object("f", "1"),
            ],
            kept: vec![pinned],
            ..PrunePlan::default()
        };
        let changed = "changed";
        let plan = before.revalidate(&now, changed);
        assert_eq!(plan.to_remove, [object("a", "1")]);
        let kept: Vec<(&str, &str)> = plan
            .kept
            .iter()
            .map(|candidate| (candidate.name.as_str(), candidate.keep_reasons[0].as_str()))
            .collect();
        assert_eq!(
            kept,
            [
                ("b", changed),
                ("c", "pinned"),
                ("d", changed),
                ("e", changed)
            ]
        );
    }

    fn any_candidate() -> impl Strategy<Value = Candidate> {
        (
            "[ab](-v?[0-9])?",
            prop::option::of(-5_i64..60),
            any::<bool>(),
            any::<bool>(),
            prop::bool::weighted(0.3),
        )
            .prop_map(|(name, days, on_host, in_use, pinned)| Candidate {
                host: on_host.then(|| "alpha".parse().unwrap()),
                created: days.and_then(|days| Timestamp::from_second(NOW - days * DAY).ok()),
                in_use,
                keep_reasons: pinned.then(|| "pinned".to_owned()).into_iter().collect(),
                ..aged(&name, 0)
            })
    }

    proptest! {
        #[test]
        fn candidates_with_keep_reasons_and_the_newest_are_never_removed(
            all in prop::collection::vec(any_candidate(), 0..30),
            keep in prop::option::of(1_usize..4),
            days in prop::option::of(0_u64..50),
            unused: bool,
        ) {
            let rule = rule(keep, days, unused);
            let removable = find_removable(&rule, &all, now());
            for index in &removable {
                let candidate = &all[*index];
                prop_assert!(candidate.keep_reasons.is_empty());
                prop_assert!(!(unused && candidate.in_use));
                prop_assert!((days.is_none() && keep.is_none()) || candidate.created.is_some());
                if let Some(keep) = keep {
                    let is_of_family = |other: &&Candidate| {
                        other.host == candidate.host
                            && family_name(&other.name) == family_name(&candidate.name)
                    };
                    prop_assert!(all.iter().filter(is_of_family).count() > keep);
                }
            }
            // A candidate that is pinned later is kept and does not make another one removable.
            let mut more = all.clone();
            if let Some(first) = removable.first() {
                more[*first].keep_reasons.push("pinned".to_owned());
                let rest = find_removable(&rule, &more, now());
                prop_assert_eq!(&rest, &removable[1..]);
            }
        }
    }
}
