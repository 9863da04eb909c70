//! What rows have: the fields that a filter names and that a list is sorted by.

use std::hash::Hash;
use std::sync::Arc;

use snapdeck_engine::{JobId, JobView};
use snapdeck_model::{Object, Sandbox, SandboxId, Snapshot, SnapshotName};

/// A field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// The name.
    Name,
    /// The host, where those of several stand together.
    Host,
    /// A sandbox's state; of a snapshot `sound` or `damaged`.
    State,
    /// Virtual CPUs.
    Cpus,
    /// Memory, in bytes.
    Memory,
    /// Bytes of the file, the object, or the sandbox's overlay.
    Size,
    /// How many need a snapshot.
    Dependents,
    /// When it was written, in seconds since 1970.
    Modified,
    /// The snapshot a sandbox stands on.
    Base,
}

/// All fields by the name a filter and the session's file call them.
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
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        let found = COLUMNS.iter().find(|(_, field)| *field == self);
        found.map_or("name", |(name, _)| name)
    }

    /// The field of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let found = COLUMNS.iter().find(|(known, _)| *known == name);
        found.map(|(_, field)| *field)
    }

    /// Is it a number? The largest come first then.
    pub(crate) fn is_number(self) -> bool {
        matches!(
            self,
            Self::Cpus | Self::Memory | Self::Size | Self::Dependents | Self::Modified
        )
    }
}

/// What a row has in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// A number.
    Number(u64),
}

/// Something a list shows.
pub(crate) trait Row {
    /// What tells it from all others.
    type Key: Clone + Ord + Hash;
    /// Its identity.
    fn key(&self) -> &Self::Key;
    /// What the words of a filter look at.
    fn text(&self) -> &str;
    /// What they look at beside that.
    fn secondary_text(&self) -> &str {
        ""
    }
    /// What it has in `field`; `None`: it has no such thing.
    fn value(&self, field: Column) -> Option<Value<'_>> {
        (field == Column::Name).then(|| Value::Text(self.text()))
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
    fn value(&self, field: Column) -> Option<Value<'_>> {
        Some(match field {
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
    fn value(&self, field: Column) -> Option<Value<'_>> {
        Some(match field {
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
    fn value(&self, field: Column) -> Option<Value<'_>> {
        Some(match field {
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

fn seconds(at: Option<jiff::Timestamp>) -> Option<Value<'static>> {
    Some(Value::Number(at?.as_second().try_into().unwrap_or(0)))
}
