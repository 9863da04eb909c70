//! One layer of settings: values that passed their check, each with the place it was written at.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::check::{self, Check};
use snapdeck_model::{Error, Kind};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `config/default.toml`, compiled in.
    Default,
    /// A file of the user's.
    File {
        /// Its path.
        path: Arc<Path>,
        /// Line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(&'static str),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// An error in what the user wrote at `origin`.
pub(super) fn invalid_setting(origin: &Origin, why: impl fmt::Display) -> Error {
    let place = match origin {
        Origin::Default => "the defaults".to_owned(),
        Origin::File { path, line } => format!("{} line {line}", path.display()),
        Origin::Environment(name) => format!("environment variable {name}"),
        Origin::Flag(name) => format!("flag {name}"),
    };
    Error::new(Kind::InvalidInput, "cannot read settings").with_cause(format!("{place}: {why}"))
}

/// A checked value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
}

/// What a key takes.
#[derive(Clone, Copy)]
pub(super) enum ValueType {
    Text(Check),
    Integer { min: i64, max: i64 },
    Boolean,
}

/// A key of the file.
pub(super) struct Key {
    pub section: &'static str,
    pub name: &'static str,
    pub value_type: ValueType,
}

const fn key(section: &'static str, name: &'static str, form: ValueType) -> Key {
    Key {
        section,
        name,
        value_type: form,
    }
}

/// Every key there is. The file's form, the layers and `snapdeck config` all follow this table.
pub(super) const KEYS: &[Key] = &[
    key("hosts", "name", ValueType::Text(check::parse_host_name)),
    key("hosts", "uri", ValueType::Text(check::parse_libvirt_uri)),
    key(
        "hosts",
        "snapshots_dir",
        ValueType::Text(check::parse_directory),
    ),
    key(
        "hosts",
        "sandboxes_dir",
        ValueType::Text(check::parse_directory),
    ),
    key(
        "hosts",
        "nvram_dir",
        ValueType::Text(check::parse_directory),
    ),
    key("hosts", "owner", ValueType::Text(check::parse_owner)),
    key("hosts", "temp_dir", ValueType::Text(check::parse_directory)),
    key(
        "hosts",
        "reconnect_secs",
        ValueType::Integer {
            min: 0,
            max: 86_400,
        },
    ),
    key("hosts", "running", ValueType::Text(check::parse_running)),
    key("bucket", "name", ValueType::Text(check::parse_bucket_name)),
    key("bucket", "prefix", ValueType::Text(check::parse_prefix)),
    key("bucket", "endpoint", ValueType::Text(check::parse_endpoint)),
    key("bucket", "region", ValueType::Text(check::parse_region)),
    key(
        "bucket",
        "access_key_id",
        ValueType::Text(check::parse_credential),
    ),
    key(
        "bucket",
        "secret_access_key",
        ValueType::Text(check::parse_credential),
    ),
    key(
        "push",
        "compression",
        ValueType::Text(check::parse_compression),
    ),
    key("sandbox", "accel", ValueType::Text(check::parse_accel)),
    key("sandbox", "cpus", ValueType::Integer { min: 1, max: 512 }),
    key(
        "sandbox",
        "memory_mib",
        ValueType::Integer {
            min: 16,
            max: 16 << 20,
        },
    ),
    key(
        "sandbox",
        "firmware",
        ValueType::Text(check::parse_firmware),
    ),
    key("sandbox", "network", ValueType::Text(check::parse_network)),
    key(
        "sandbox",
        "template",
        ValueType::Text(check::parse_file_path),
    ),
    key(
        "sandbox",
        "stop_timeout_secs",
        ValueType::Integer {
            min: 1,
            max: 86_400,
        },
    ),
    key("jobs", "parallel", ValueType::Integer { min: 1, max: 64 }),
    key("console", "mouse", ValueType::Boolean),
    key("console", "picture", ValueType::Text(check::parse_picture)),
    key("console", "viewer", ValueType::Text(check::parse_viewer)),
    key("console", "theme", ValueType::Text(check::parse_theme)),
    key("console", "ascii", ValueType::Boolean),
    key("console", "notify", ValueType::Text(check::parse_notify)),
    key(
        "console",
        "notify_after_secs",
        ValueType::Integer {
            min: 0,
            max: 86_400,
        },
    ),
];

/// The sections in the order they are shown in; `hosts` is a list, the others are tables.
pub(super) const SECTIONS: &[&str] = &["hosts", "bucket", "push", "sandbox", "jobs", "console"];

/// The keys of a section, in the order they are shown in.
pub(super) fn section_keys(section: &str) -> impl Iterator<Item = &'static Key> + use<'_> {
    KEYS.iter().filter(move |key| key.section == section)
}

pub(super) fn find_key(section: &str, name: &str) -> Option<&'static Key> {
    section_keys(section).find(|key| key.name == name)
}

/// `[[hosts]]` or `[bucket]`, as the file writes it.
pub(super) fn heading(section: &str) -> String {
    match section {
        "hosts" => "[[hosts]]".to_owned(),
        other => format!("[{other}]"),
    }
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub value: Value,
    pub origin: Origin,
}

impl Setting {
    /// The value, checked for `key`. A value that is wrong is an error even where a later layer
    /// would replace it: it would bite the day that layer is gone.
    pub(crate) fn new(key: &Key, value: Value, origin: Origin) -> Result<Self, Error> {
        let found = match &value {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Boolean(_) => "a boolean",
        };
        let checked = match (key.value_type, value) {
            (ValueType::Text(check), Value::Text(text)) => check(&text).map(Value::Text),
            (ValueType::Integer { min, max }, Value::Integer(count)) => {
                match (min..=max).contains(&count) {
                    true => Ok(Value::Integer(count)),
                    false => Err(format!("must be {min} to {max}, is {count}")),
                }
            }
            (ValueType::Boolean, Value::Boolean(on)) => Ok(Value::Boolean(on)),
            (form, _) => Err(form.mismatch_message(found)),
        };
        match checked {
            Ok(value) => Ok(Self { value, origin }),
            Err(why) => Err(invalid_setting(
                &origin,
                format!("{} in {} {why}", key.name, heading(key.section)),
            )),
        }
    }
}

impl ValueType {
    /// The end of a sentence about a value of another type.
    pub(crate) fn mismatch_message(self, found: &str) -> String {
        let wanted = match self {
            Self::Text(_) => "a string in quotes",
            Self::Integer { .. } => "an integer",
            Self::Boolean => "true or false",
        };
        format!("must be {wanted}, is {found}")
    }
}

/// The values of one section, by key.
pub(super) type Table = BTreeMap<&'static str, Setting>;

/// A layer. One with hosts replaces the hosts below it; of the tables each key stands alone.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    pub hosts: Vec<Table>,
    pub tables: BTreeMap<&'static str, Table>,
}

impl Layer {
    /// Puts `upper` on top.
    pub(crate) fn merge(&mut self, upper: Self) {
        if !upper.hosts.is_empty() {
            self.hosts = upper.hosts;
        }
        for (section, table) in upper.tables {
            self.tables.entry(section).or_default().extend(table);
        }
    }

    /// Sets one key of a table from a text outside any file.
    pub(crate) fn set_text(
        &mut self,
        key: &Key,
        text: String,
        origin: Origin,
    ) -> Result<(), Error> {
        let setting = Setting::new(key, Value::Text(text), origin)?;
        self.tables
            .entry(key.section)
            .or_default()
            .insert(key.name, setting);
        Ok(())
    }

    /// The setting, where this layer has it.
    pub(crate) fn get(&self, section: &str, name: &str) -> Option<&Setting> {
        self.tables.get(section)?.get(name)
    }
}
