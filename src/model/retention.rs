//! Which snapshots may go by a rule, and which of them something holds.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{FileStamp, HostName, Object, Operation, SnapshotName};

/// How old what was left behind must be before it may go.
pub const LEFTOVER_MIN_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// What is to go: what meets all of these. A rule without any lets nothing go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneRule {
    /// Not the newest so many of a family ([`family`]), in each place.
    pub keep_newest: Option<usize>,
    /// What was last written longer ago than this.
    pub older_than: Option<Duration>,
    /// What no sandbox stands on.
    pub unused: bool,
}

/// Which image of a name is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ImageIdentity {
    /// The file of a host's snapshot, by its stamp.
    File(FileStamp),
    /// An object.
    Object {
        /// Its length in bytes.
        size_bytes: u64,
        /// Its entity tag.
        etag: Option<String>,
        /// When it was last written.
        modified: Option<Timestamp>,
    },
}

impl ImageIdentity {
    /// Of an object, as it was listed or asked for: a listing may tell the time with more digits, and the tag in other
    /// quotes.
    pub fn from_object(object: &Object) -> Self {
        let seconds = |at: Timestamp| Timestamp::from_second(at.as_second()).ok();
        Self::Object {
            size_bytes: object.size_bytes,
            etag: object
                .etag
                .as_ref()
                .map(|etag| etag.trim_matches('"').to_owned()),
            modified: object.modified.and_then(seconds),
        }
    }
}

/// A snapshot in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Its name.
    pub name: SnapshotName,
    /// The host it is on; `None`: the bucket.
    pub host: Option<HostName>,
    /// Bytes that are free when it is gone.
    pub size_bytes: u64,
    /// When it was last written.
    pub modified: Option<Timestamp>,
    /// Do sandboxes stand on a snapshot of this name?
    #[serde(skip)]
    pub in_use: bool,
    /// Is no other copy known?
    #[serde(rename = "lastCopy")]
    pub is_last_copy: bool,
    /// Which image it is; `None` where it could not be looked at.
    #[serde(skip)]
    pub identity: Option<ImageIdentity>,
    /// What holds it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keep_reasons: Vec<String>,
}

/// The family of a snapshot: its name without a version at its end. That begins behind `-`, `_` or `.`, with a digit or
/// with `v` and a digit, and has digits, `-`, `_` and `.` only: `app` of `app-v1.1` and of `app-2026-01-31`. A name
/// without one is a family of its own.
pub fn family_name(name: &SnapshotName) -> &str {
    let text = name.as_str();
    let is_mark = |c: char| matches!(c, '-' | '_' | '.');
    let version = |c: char| c.is_ascii_digit() || is_mark(c);
    let stem = text.trim_end_matches(version);
    let end = &text[stem.len()..];
    let (stem, end) = match stem.strip_suffix('v') {
        Some(before) if end.starts_with(|c: char| c.is_ascii_digit()) => {
            (before.trim_end_matches(is_mark), before.ends_with(is_mark))
        }
        // `win2022` has no mark before its number: it is a name.
        _ => (
            stem,
            end.starts_with(is_mark) && end.contains(|c: char| c.is_ascii_digit()),
        ),
    };
    match end && !stem.is_empty() {
        true => stem,
        false => text,
    }
}

/// The numbers of those in `all` that meet `rule`, held or not. One whose time is not known counts as the newest.
pub fn find_matching(rule: &PruneRule, all: &[Candidate], now: Timestamp) -> Vec<usize> {
    if *rule == PruneRule::default() {
        return Vec::new();
    }
    let mut families: HashMap<(&Option<HostName>, &str), Vec<usize>> = HashMap::new();
    for (at, one) in all.iter().enumerate() {
        let members = families
            .entry((&one.host, family_name(&one.name)))
            .or_default();
        members.push(at);
    }
    let mut kept = vec![false; all.len()];
    if let Some(keep) = rule.keep_newest {
        for members in families.values_mut() {
            let newest_first = |at: &usize| {
                let one = &all[*at];
                let age = one.modified.map(|then| now.duration_since(then));
                // `None` is before any age. Of the same age, the later name is the newer one.
                (age, std::cmp::Reverse(&one.name))
            };
            members.sort_by_key(newest_first);
            members.iter().take(keep).for_each(|at| kept[*at] = true);
        }
    }
    let is_old = |one: &Candidate| match (rule.older_than, one.modified) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(limit), Some(then)) => {
            let age = Duration::try_from(now.duration_since(then)).unwrap_or_default();
            age > limit
        }
    };
    (0..all.len())
        .filter(|at| !kept[*at] && is_old(&all[*at]) && !(rule.unused && all[*at].in_use))
        .collect()
}

/// The numbers of those in `all` that may go by `rule`: they meet it, and nothing holds them.
pub fn find_removable(rule: &PruneRule, all: &[Candidate], now: Timestamp) -> Vec<usize> {
    let mut chosen = find_matching(rule, all, now);
    chosen.retain(|at| all[*at].keep_reasons.is_empty());
    chosen
}

/// What a prune would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrunePlan {
    /// What goes.
    pub to_remove: Vec<Candidate>,
    /// What would go if nothing held it.
    pub kept: Vec<Candidate>,
    /// What was left behind by what broke off, and goes too.
    pub leftovers: Vec<Leftover>,
    /// What could not be looked at, a sentence each.
    pub warnings: Vec<String>,
}

impl PrunePlan {
    /// Bytes that all of it frees.
    pub fn reclaimed_bytes(&self) -> u64 {
        let goes = self.to_remove.iter().map(|one| one.size_bytes);
        let left = self.leftovers.iter().map(|one| one.size_bytes);
        goes.chain(left).fold(0, u64::saturating_add)
    }

    /// Is that snapshot, the very same image, to go?
    fn removes(&self, one: &Candidate) -> bool {
        let is_it = |other: &&Candidate| (&other.host, &other.name) == (&one.host, &one.name);
        let found = self.to_remove.iter().find(is_it);
        found.is_some_and(|found| found.identity.is_some() && found.identity == one.identity)
    }

    /// This plan after a second look, which found `now`: what it does not let go any more is held, and nothing goes
    /// that was not to go before.
    pub fn revalidate(mut self, now: Self) -> Self {
        let (goes, stays) = self.to_remove.into_iter().partition(|one| now.removes(one));
        self.to_remove = goes;
        let stays: Vec<Candidate> = stays;
        self.kept.extend(stays.into_iter().map(|mut one| {
            let is_it = |other: &&Candidate| (&other.host, &other.name) == (&one.host, &one.name);
            let held = now
                .kept
                .iter()
                .find(is_it)
                .map(|found| found.keep_reasons.clone());
            one.keep_reasons =
                held.unwrap_or_else(|| vec!["it has changed since it was listed".to_owned()]);
            one
        }));
        self
    }

    /// The removals of what goes; each is refused where it is another image by then.
    pub fn operations(&self) -> Vec<Operation> {
        let removal = |one: &Candidate| Operation::Remove {
            host: one.host.clone(),
            name: one.name.clone(),
            from_bucket: one.host.is_none(),
            expected_identity: one.identity.clone(),
        };
        self.to_remove.iter().map(removal).collect()
    }

    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.to_remove.is_empty() && self.leftovers.is_empty()
    }
}

/// Something that an operation left behind, and that nobody has touched for a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leftover {
    /// What it is.
    pub kind: LeftoverKind,
    /// The host it is on; `None`: the bucket.
    pub host: Option<HostName>,
    /// Path of the file or directory, or key of the object that was to be.
    pub path: String,
    /// The snapshot that was to be, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<SnapshotName>,
    /// The store's id of an upload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_id: Option<String>,
    /// Bytes that are free when it is gone.
    pub size_bytes: u64,
    /// When it was last touched.
    pub modified: Option<Timestamp>,
}

/// What was left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LeftoverKind {
    /// Of a pull: the part of an image.
    Partial,
    /// Of a push or create: a directory under `temp_dir`.
    Directory,
    /// Of a push or create: a multipart upload.
    Upload,
}

impl LeftoverKind {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Partial => "part of a pull",
            Self::Directory => "temporary directory",
            Self::Upload => "unfinished upload",
        }
    }
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

    /// Days old, in the bucket.
    fn aged(name: &str, days: i64) -> Candidate {
        Candidate {
            name: name.parse().unwrap(),
            host: None,
            size_bytes: 1,
            modified: Timestamp::from_second(NOW - days * DAY).ok(),
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

    fn chosen<'a>(rule: &PruneRule, all: &'a [Candidate]) -> Vec<&'a str> {
        let chosen = find_removable(rule, all, now());
        chosen.into_iter().map(|at| all[at].name.as_str()).collect()
    }

    #[test]
    fn a_family_is_what_differs_in_its_version_only() {
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
    fn all_conditions_count_together() {
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
            assert_eq!(chosen(&rule, &all), expected, "{rule:?}");
        }
    }

    #[test]
    fn each_place_keeps_its_own_and_an_unknown_time_is_new() {
        let mut all = vec![aged("app-1", 9), aged("app-2", 8), aged("app-3", 7)];
        all[0].host = Some("alpha".parse().unwrap());
        all[1].modified = None;
        assert_eq!(chosen(&rule(Some(1), None, false), &all), ["app-3"]);
        assert_eq!(
            chosen(&rule(None, Some(1), false), &all),
            ["app-1", "app-3"]
        );
    }

    #[test]
    fn of_the_same_age_the_later_name_stays_and_the_future_is_young() {
        let all = vec![aged("app-1", 3), aged("app-2", 3), aged("web-1", -3)];
        assert_eq!(chosen(&rule(Some(1), None, false), &all), ["app-1"]);
        assert_eq!(
            chosen(&rule(None, Some(1), false), &all),
            ["app-1", "app-2"]
        );
    }

    #[test]
    fn a_second_look_only_ever_keeps_more() {
        let at = |name: &str, etag: &str| {
            let mut one = aged(name, 9);
            one.identity = Some(ImageIdentity::Object {
                size_bytes: 1,
                etag: Some(etag.to_owned()),
                modified: None,
            });
            one
        };
        let mut pinned = at("c", "1");
        pinned.keep_reasons = vec!["pinned".to_owned()];
        let before = PrunePlan {
            to_remove: vec![
                at("a", "1"),
                at("b", "1"),
                at("c", "1"),
                at("d", "1"),
                aged("e", 9),
            ],
            ..PrunePlan::default()
        };
        let now = PrunePlan {
            to_remove: vec![at("a", "1"), at("b", "2"), aged("e", 9), at("f", "1")],
            kept: vec![pinned],
            ..PrunePlan::default()
        };
        let plan = before.revalidate(now);
        assert_eq!(plan.to_remove, [at("a", "1")]);
        let held: Vec<(&str, &str)> = plan
            .kept
            .iter()
            .map(|one| (one.name.as_str(), one.keep_reasons[0].as_str()))
            .collect();
        let changed = "it has changed since it was listed";
        assert_eq!(
            held,
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
            .prop_map(|(name, days, here, used, held)| Candidate {
                host: here.then(|| "alpha".parse().unwrap()),
                modified: days.and_then(|days| Timestamp::from_second(NOW - days * DAY).ok()),
                in_use: used,
                keep_reasons: held.then(|| "pinned".to_owned()).into_iter().collect(),
                ..aged(&name, 0)
            })
    }

    proptest! {
        #[test]
        fn nothing_held_is_ever_chosen_and_the_newest_stay(
            all in prop::collection::vec(any_candidate(), 0..30),
            keep in prop::option::of(1_usize..4),
            days in prop::option::of(0_u64..50),
            unused: bool,
        ) {
            let rule = rule(keep, days, unused);
            let chosen = find_removable(&rule, &all, now());
            for at in &chosen {
                let one = &all[*at];
                prop_assert!(one.keep_reasons.is_empty());
                prop_assert!(!(unused && one.in_use));
                prop_assert!(days.is_none() || one.modified.is_some());
                if let Some(keep) = keep {
                    let of_it = |other: &&Candidate| {
                        other.host == one.host && family_name(&other.name) == family_name(&one.name)
                    };
                    prop_assert!(all.iter().filter(of_it).count() > keep);
                }
            }
            // What comes to be held later stays, and makes nothing else go.
            let mut more = all.clone();
            if let Some(first) = chosen.first() {
                more[*first].keep_reasons.push("pinned".to_owned());
                let now_chosen = find_removable(&rule, &more, now());
                prop_assert_eq!(&now_chosen, &chosen[1..]);
            }
        }
    }
}
