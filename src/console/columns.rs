//! Columns of the lists: headers, widths and values. Lists are drawn, filtered and sorted by them.

use std::hash::Hash;
use std::sync::Arc;

use super::actions::Pane;
use snapdeck_engine::{JobId, JobView};
use snapdeck_model::settings::ListColumns;
use snapdeck_model::{Object, Sandbox, SandboxId, Snapshot, SnapshotName, family_name};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Column {
    Name,
    /// The sign of a sandbox's state.
    Sign,
    /// The host, in the lists of all hosts.
    Host,
    /// The state of a sandbox; `sound` or `damaged` for a snapshot.
    State,
    Cpus,
    /// Bytes.
    Memory,
    /// Bytes of the file, the object, or the sandbox's overlay.
    Size,
    /// Number of sandboxes based on a snapshot.
    Dependents,
    /// Modification time, in seconds since 1970.
    Modified,
    /// The snapshot a sandbox is based on.
    Base,
    /// Where else a snapshot or object is: the bucket, or the current host. Not a property of the row itself: rows cannot
    /// be sorted or filtered by it.
    Elsewhere,
}

/// Header, width and rank of a column in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ColumnSpec {
    pub column: Column,
    pub header: &'static str,
    /// Columns of the terminal; of the name, the least.
    pub width: usize,
    pub is_right_aligned: bool,
    /// In a narrow list, columns of higher rank are left out first; 0: never.
    pub rank: u8,
    /// Width of a short form, and the rank at which it is used.
    pub short: Option<(usize, u8)>,
}

impl ColumnSpec {
    /// Returns the name in the settings: the header in lower case, with dashes.
    pub(crate) fn id(&self) -> String {
        self.header.to_lowercase().replace(' ', "-")
    }
}

const fn left(column: Column, header: &'static str, width: usize, rank: u8) -> ColumnSpec {
    ColumnSpec {
        column,
        header,
        width,
        is_right_aligned: false,
        rank,
        short: None,
    }
}

const fn with_short(spec: ColumnSpec, width: usize, rank: u8) -> ColumnSpec {
    ColumnSpec {
        short: Some((width, rank)),
        ..spec
    }
}

const fn right(column: Column, header: &'static str, width: usize, rank: u8) -> ColumnSpec {
    ColumnSpec {
        is_right_aligned: true,
        ..left(column, header, width, rank)
    }
}

const SANDBOX_COLUMNS: &[ColumnSpec] = &[
    left(Column::Host, "HOST", 10, 1),
    left(Column::Sign, "", 1, 0),
    left(Column::Name, "NAME", 14, 0),
    left(Column::State, "STATE", 9, 2),
    left(Column::Base, "BASE", 16, 5),
    right(Column::Size, "OVERLAY", 7, 3),
    right(Column::Cpus, "CPU", 3, 7),
    right(Column::Memory, "MEM", 5, 6),
];

const SNAPSHOT_COLUMNS: &[ColumnSpec] = &[
    // The name of a snapshot says more than its host.
    left(Column::Host, "HOST", 10, 3),
    left(Column::Name, "NAME", 14, 0),
    right(Column::Size, "SIZE", 6, 2),
    right(Column::Dependents, "USED", 4, 5),
    with_short(left(Column::Elsewhere, "BUCKET", 9, 1), 2, 6),
    left(Column::Modified, "MODIFIED", 10, 7),
];

const OBJECT_COLUMNS: &[ColumnSpec] = &[
    left(Column::Name, "NAME", 14, 0),
    right(Column::Size, "SIZE", 6, 1),
    with_short(left(Column::Elsewhere, "ON HOST", 9, 1), 2, 6),
    left(Column::Modified, "UPLOADED", 10, 7),
];

pub(crate) const HOST_COLUMNS: &[ColumnSpec] = &[
    left(Column::Sign, "", 1, 0),
    left(Column::Name, "HOST", 12, 0),
    left(Column::State, "STATE", 12, 5),
    right(Column::Dependents, "RUNNING", 7, 3),
    left(Column::Cpus, "CPU", 19, 2),
    left(Column::Memory, "MEMORY", 21, 2),
    left(Column::Size, "DISK", 20, 1),
    left(Column::Base, "SNAPSHOTS", 14, 6),
];

/// The columns of a list that the user has chosen, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChosenColumns {
    all: &'static [ColumnSpec],
    /// Those of the settings.
    default: Vec<&'static ColumnSpec>,
    shown: Vec<&'static ColumnSpec>,
}

impl ChosenColumns {
    /// Returns all columns of a list.
    pub(crate) fn new(pane: Pane) -> Self {
        let all = match pane {
            Pane::Sandboxes => SANDBOX_COLUMNS,
            Pane::Snapshots => SNAPSHOT_COLUMNS,
            _ => OBJECT_COLUMNS,
        };
        let shown: Vec<&ColumnSpec> = all.iter().collect();
        Self {
            all,
            default: shown.clone(),
            shown,
        }
    }

    /// Returns the columns of the settings, if any.
    pub(crate) fn configured(pane: Pane, settings: &ListColumns) -> Self {
        let columns = Self::new(pane);
        let names = match pane {
            Pane::Sandboxes => &settings.sandboxes,
            Pane::Snapshots => &settings.snapshots,
            _ => &settings.bucket,
        };
        let Some(names) = names else { return columns };
        let shown = columns.pick(names, |spec| spec.id());
        Self {
            default: shown.clone(),
            shown,
            ..columns
        }
    }

    /// Returns the list with the columns of these headers instead; unknown ones are skipped.
    pub(crate) fn with(&self, headers: &[impl AsRef<str>]) -> Self {
        Self {
            shown: self.pick(headers, |spec| spec.header.to_owned()),
            ..self.clone()
        }
    }

    /// Returns the list with its default columns.
    pub(crate) fn reset(&self) -> Self {
        Self {
            shown: self.default.clone(),
            ..self.clone()
        }
    }

    /// Returns the columns with these names, behind those that are always shown.
    fn pick(
        &self,
        names: &[impl AsRef<str>],
        name_of: impl Fn(&ColumnSpec) -> String,
    ) -> Vec<&'static ColumnSpec> {
        let fixed = self.all.iter();
        let mut shown: Vec<&ColumnSpec> =
            fixed.filter(|spec| spec.column.is_always_shown()).collect();
        for name in names {
            let mut all = self.all.iter();
            let spec = all.find(|spec| name_of(spec) == name.as_ref());
            shown.extend(spec.filter(|spec| !shown.contains(spec)));
        }
        shown
    }

    pub(crate) fn shown(&self) -> impl Iterator<Item = &'static ColumnSpec> + '_ {
        self.shown.iter().copied()
    }

    /// Returns the columns that can be chosen, the shown ones first, and whether each is shown.
    pub(crate) fn choices(&self) -> Vec<(&'static ColumnSpec, bool)> {
        let shown = self.shown().map(|spec| (spec, true));
        let is_hidden = |spec: &&'static ColumnSpec| !self.shown.contains(spec);
        let hidden = self.all.iter().filter(is_hidden).map(|spec| (spec, false));
        let all = shown.chain(hidden);
        all.filter(|(spec, _)| !spec.column.is_always_shown())
            .collect()
    }

    /// Returns the headers of the chosen columns; `None` for the default.
    pub(crate) fn headers(&self) -> Option<Vec<&'static str>> {
        let is_default = self.shown == self.default;
        let chosen = self.shown().filter(|spec| !spec.column.is_always_shown());
        (!is_default).then(|| chosen.map(|spec| spec.header).collect())
    }
}

/// The names of the columns in filters and in the session file.
pub(crate) const COLUMNS: &[(&str, Column)] = &[
    ("name", Column::Name),
    ("host", Column::Host),
    ("state", Column::State),
    ("cpus", Column::Cpus),
    ("memory", Column::Memory),
    ("size", Column::Size),
    ("users", Column::Dependents),
    ("date", Column::Modified),
    ("base", Column::Base),
];

impl Column {
    pub(crate) fn name(self) -> &'static str {
        let named = COLUMNS.iter().find(|(_, column)| *column == self);
        named.map_or("name", |(name, _)| name)
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let named = COLUMNS.iter().find(|(other, _)| *other == name);
        named.map(|(_, column)| *column)
    }

    /// Returns whether no choice of columns leaves it out.
    fn is_always_shown(self) -> bool {
        matches!(self, Self::Host | Self::Sign | Self::Name)
    }

    pub(crate) fn is_sortable(self) -> bool {
        !matches!(self, Self::Elsewhere | Self::Sign)
    }

    /// Returns whether the values are numbers, which are sorted in descending order by default.
    pub(crate) fn is_number(self) -> bool {
        matches!(
            self,
            Self::Cpus | Self::Memory | Self::Size | Self::Dependents | Self::Modified
        )
    }
}

/// The value of a row in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Number(u64),
}

/// An item of a list.
pub(crate) trait Row {
    type Key: Clone + Ord + Hash;
    fn key(&self) -> &Self::Key;
    /// Returns the text that the words of a filter match.
    fn text(&self) -> &str;
    /// Returns another text that the words of a filter match.
    fn secondary_text(&self) -> &str {
        ""
    }
    /// Returns the name that all versions of the item have in common; `None` if it has no versions.
    fn family(&self) -> Option<&str> {
        None
    }
    /// Returns the value in `column`; `None` if the item has no such property.
    fn value(&self, column: Column) -> Option<Value<'_>> {
        (column == Column::Name).then(|| Value::Text(self.text()))
    }
}

impl Row for Sandbox {
    type Key = SandboxId;
    fn key(&self) -> &SandboxId {
        &self.id
    }
    fn text(&self) -> &str {
        self.id.as_str()
    }
    fn value(&self, column: Column) -> Option<Value<'_>> {
        Some(match column {
            Column::Name => Value::Text(self.text()),
            Column::State => Value::Text(self.state.as_str()),
            Column::Cpus => Value::Number(self.cpus.into()),
            Column::Memory => Value::Number(self.memory_bytes),
            Column::Size => Value::Number(self.chain.first()?.size_bytes?),
            Column::Base => Value::Text(self.base()?.as_str()),
            Column::Sign
            | Column::Host
            | Column::Dependents
            | Column::Modified
            | Column::Elsewhere => return None,
        })
    }
}

impl Row for Snapshot {
    type Key = SnapshotName;
    fn key(&self) -> &SnapshotName {
        &self.name
    }
    fn text(&self) -> &str {
        self.name.as_str()
    }
    fn family(&self) -> Option<&str> {
        Some(family_name(&self.name))
    }
    fn value(&self, column: Column) -> Option<Value<'_>> {
        Some(match column {
            Column::Name => Value::Text(self.text()),
            Column::State => Value::Text(match self.problem {
                Some(_) => "damaged",
                None => "sound",
            }),
            Column::Size => Value::Number(self.size_bytes),
            Column::Dependents => Value::Number(self.dependents.len() as u64),
            Column::Modified => seconds(self.modified)?,
            Column::Sign
            | Column::Host
            | Column::Cpus
            | Column::Memory
            | Column::Base
            | Column::Elsewhere => return None,
        })
    }
}

impl Row for Object {
    type Key = SnapshotName;
    fn key(&self) -> &SnapshotName {
        &self.name
    }
    fn text(&self) -> &str {
        self.name.as_str()
    }
    fn family(&self) -> Option<&str> {
        Some(family_name(&self.name))
    }
    fn value(&self, column: Column) -> Option<Value<'_>> {
        Some(match column {
            Column::Name => Value::Text(self.text()),
            Column::Size => Value::Number(self.size_bytes),
            Column::Modified => seconds(self.modified)?,
            _ => return None,
        })
    }
}

impl Row for SnapshotName {
    type Key = Self;
    fn key(&self) -> &Self {
        self
    }
    fn text(&self) -> &str {
        self.as_str()
    }
}

impl Row for Arc<JobView> {
    type Key = JobId;
    fn key(&self) -> &JobId {
        &self.id
    }
    fn text(&self) -> &str {
        self.operation.subject()
    }
}

fn seconds(time: Option<jiff::Timestamp>) -> Option<Value<'static>> {
    Some(Value::Number(time?.as_second().try_into().unwrap_or(0)))
}
