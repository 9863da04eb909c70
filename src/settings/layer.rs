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
pub(super) fn bad(origin: &Origin, why: impl fmt::Display) -> Error {
    let place = match origin {
        Origin::Default => "the defaults".to_owned(),
        Origin::File { path, line } => format!("{} line {line}", path.display()),
        Origin::Environment(name) => format!("environment variable {name}"),
        Origin::Flag(name) => format!("flag {name}"),
    };
    Error::new(Kind::BadInput, "cannot read settings").because(format!("{place}: {why}"))
}

/// A checked value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Count(i64),
    Switch(bool),
}

/// What a key takes.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Text(Check),
    Count { min: i64, max: i64 },
    Switch,
}

/// A key of the file.
pub(super) struct Key {
    pub section: &'static str,
    pub name: &'static str,
    pub form: Form,
}

const fn key(section: &'static str, name: &'static str, form: Form) -> Key {
    Key {
        section,
        name,
        form,
    }
}

/// Every key there is. The file's form, the layers and `snapdeck config` all follow this table.
pub(super) const KEYS: &[Key] = &[
    key("hosts", "name", Form::Text(check::host_name)),
    key("hosts", "uri", Form::Text(check::libvirt_uri)),
    key("hosts", "snapshots_dir", Form::Text(check::directory)),
    key("hosts", "sandboxes_dir", Form::Text(check::directory)),
    key("hosts", "nvram_dir", Form::Text(check::directory)),
    key("hosts", "owner", Form::Text(check::owner)),
    key("hosts", "temp_dir", Form::Text(check::directory)),
    key(
        "hosts",
        "reconnect_secs",
        Form::Count {
            min: 0,
            max: 86_400,
        },
    ),
    key("hosts", "running", Form::Text(check::running)),
    key("bucket", "name", Form::Text(check::bucket_name)),
    key("bucket", "prefix", Form::Text(check::prefix)),
    key("bucket", "endpoint", Form::Text(check::endpoint)),
    key("bucket", "region", Form::Text(check::region)),
    key("bucket", "access_key_id", Form::Text(check::credential)),
    key("bucket", "secret_access_key", Form::Text(check::credential)),
    key("push", "compression", Form::Text(check::compression)),
    key("sandbox", "accel", Form::Text(check::accel)),
    key("sandbox", "cpus", Form::Count { min: 1, max: 512 }),
    key(
        "sandbox",
        "memory_mib",
        Form::Count {
            min: 16,
            max: 16 << 20,
        },
    ),
    key("sandbox", "firmware", Form::Text(check::firmware)),
    key("sandbox", "network", Form::Text(check::network)),
    key("sandbox", "template", Form::Text(check::file)),
    key(
        "sandbox",
        "stop_timeout_secs",
        Form::Count {
            min: 1,
            max: 86_400,
        },
    ),
    key("jobs", "parallel", Form::Count { min: 1, max: 64 }),
    key("console", "mouse", Form::Switch),
    key("console", "picture", Form::Text(check::picture)),
    key("console", "viewer", Form::Text(check::viewer)),
    key("console", "theme", Form::Text(check::theme)),
    key("console", "ascii", Form::Switch),
    key("console", "notify", Form::Text(check::notify)),
    key(
        "console",
        "notify_after_secs",
        Form::Count {
            min: 0,
            max: 86_400,
        },
    ),
];

/// The sections in the order they are shown in; `hosts` is a list, the others are tables.
pub(super) const SECTIONS: &[&str] = &["hosts", "bucket", "push", "sandbox", "jobs", "console"];

/// The keys of a section, in the order they are shown in.
pub(super) fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> + use<'_> {
    KEYS.iter().filter(move |key| key.section == section)
}

pub(super) fn find_key(section: &str, name: &str) -> Option<&'static Key> {
    keys_of(section).find(|key| key.name == name)
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
            Value::Count(_) => "an integer",
            Value::Switch(_) => "a boolean",
        };
        let checked = match (key.form, value) {
            (Form::Text(check), Value::Text(text)) => check(&text).map(Value::Text),
            (Form::Count { min, max }, Value::Count(count)) => match (min..=max).contains(&count) {
                true => Ok(Value::Count(count)),
                false => Err(format!("must be {min} to {max}, is {count}")),
            },
            (Form::Switch, Value::Switch(on)) => Ok(Value::Switch(on)),
            (form, _) => Err(form.mismatch(found)),
        };
        match checked {
            Ok(value) => Ok(Self { value, origin }),
            Err(why) => Err(bad(
                &origin,
                format!("{} in {} {why}", key.name, heading(key.section)),
            )),
        }
    }
}

impl Form {
    /// The end of a sentence about a value of another type.
    pub(crate) fn mismatch(self, found: &str) -> String {
        let wanted = match self {
            Self::Text(_) => "a string in quotes",
            Self::Count { .. } => "an integer",
            Self::Switch => "true or false",
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
    pub(crate) fn cover(&mut self, upper: Self) {
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
