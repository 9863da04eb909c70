//! Columns of the lists, which filters name and lists are sorted by.

use std::hash::Hash;
use std::sync::Arc;

use snapdeck_engine::{JobId, JobView};
use snapdeck_model::{Object, Sandbox, SandboxId, Snapshot, SnapshotName};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    Name,
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
            Column::Host | Column::Dependents | Column::Modified => return None,
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
            Column::Host | Column::Cpus | Column::Memory | Column::Base => return None,
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
