//! What is in force and where it came from, secrets masked.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value as Json, json};

use super::layer::{Key, Layer, Origin, SECTIONS, Setting, Table, Value, heading, section_keys};

/// What stands for a secret.
const MASK: &str = "********";

/// What is in force and where it came from. Its `Display` is a commented `config.toml`. Secrets do not
/// leave it.
#[derive(Clone)]
pub struct Report {
    layer: Layer,
    file: Option<PathBuf>,
    file_found: bool,
    notes: Vec<String>,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("file", &self.file)
            .field("notes", &self.notes)
            .finish_non_exhaustive()
    }
}

impl Report {
    pub(super) fn new(
        layer: Layer,
        file: Option<PathBuf>,
        found: bool,
        notes: Vec<String>,
    ) -> Self {
        Self {
            layer,
            file,
            file_found: found,
            notes,
        }
    }

    /// Things the user wrote that have no effect, and why.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The sections with their tables, in the order of the documentation.
    fn tables(&self) -> impl Iterator<Item = (&'static str, &Table)> {
        static EMPTY: Table = Table::new();
        SECTIONS.iter().flat_map(|section| {
            let tables: Vec<&Table> = match *section {
                "hosts" => self.layer.hosts.iter().collect(),
                other => vec![self.layer.tables.get(other).unwrap_or(&EMPTY)],
            };
            tables.into_iter().map(|table| (*section, table))
        })
    }

    /// One document: `{"configFile", "hosts": [{KEY: {"value", "from"}}], "bucket": {KEY: ...}, ..., "notes"}`
    /// with the keys in camelCase; `value` is null where a key is not set.
    pub fn to_json(&self) -> Json {
        let mut root = Map::new();
        let file = self.file.as_ref().filter(|_| self.file_found);
        root.insert("configFile".to_owned(), json!(file));
        for (section, table) in self.tables() {
            let entries: Map<String, Json> = section_keys(section)
                .map(|key| {
                    (
                        to_camel_case(key.name),
                        entry_to_json(key, table.get(key.name)),
                    )
                })
                .collect();
            if section != "hosts" {
                root.insert(section.to_owned(), Json::Object(entries));
            } else if let Json::Array(hosts) = root
                .entry(section)
                .or_insert_with(|| Json::Array(Vec::new()))
            {
                hosts.push(Json::Object(entries));
            }
        }
        root.insert("notes".to_owned(), json!(self.notes));
        Json::Object(root)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.file_found) {
            (Some(file), true) => writeln!(f, "# settings file: {}", file.display())?,
            (Some(file), false) => writeln!(f, "# settings file: none at {}", file.display())?,
            (None, _) => writeln!(f, "# settings file: none, there is no home directory")?,
        }
        for note in &self.notes {
            writeln!(f, "# note: {note}")?;
        }
        for (section, table) in self.tables() {
            writeln!(f, "\n{}", heading(section))?;
            for key in section_keys(section) {
                match table.get(key.name) {
                    Some(setting) => {
                        let line = format!("{} = {}", key.name, format_value(key, &setting.value));
                        writeln!(f, "{line:<56} # {}", setting.origin)?;
                    }
                    None => writeln!(f, "# {} is not set: {}", key.name, describe_unset(key))?,
                }
            }
        }
        Ok(())
    }
}

/// What holds where a key is not set.
fn describe_unset(key: &Key) -> &'static str {
    match key.name {
        "endpoint" => "AWS itself",
        "region" => "from the AWS chain, else us-east-1",
        "access_key_id" | "secret_access_key" => {
            "from the AWS chain (environment, profiles, SSO, instance roles)"
        }
        "template" => "built in",
        "viewer" => "remote-viewer or vncviewer, whichever is installed",
        _ => "no bucket, only hosts",
    }
}

/// A text that may be shown in place of the value.
fn mask_secret(key: &Key, text: &str) -> String {
    match key.name {
        "secret_access_key" => MASK.to_owned(),
        // Four characters tell one key from another; of a short one they would tell too much.
        "access_key_id" if text.chars().count() >= 8 => {
            text.chars().take(4).chain(MASK.chars()).collect()
        }
        "access_key_id" => MASK.to_owned(),
        _ => text.to_owned(),
    }
}

fn format_value(key: &Key, value: &Value) -> String {
    match value {
        Value::Text(text) => toml::Value::String(mask_secret(key, text)).to_string(),
        Value::Integer(count) => count.to_string(),
        Value::Boolean(on) => on.to_string(),
    }
}

fn entry_to_json(key: &Key, setting: Option<&Setting>) -> Json {
    let Some(setting) = setting else {
        return json!({"value": null, "from": null});
    };
    let value = match &setting.value {
        Value::Text(text) => json!(mask_secret(key, text)),
        Value::Integer(count) => json!(count),
        Value::Boolean(on) => json!(on),
    };
    let from = match &setting.origin {
        Origin::Default => json!({"layer": "default"}),
        Origin::File { path, line } => json!({"layer": "file", "file": path, "line": line}),
        Origin::Environment(name) => json!({"layer": "environment", "variable": name}),
        Origin::Flag(name) => json!({"layer": "flag", "flag": name}),
    };
    json!({"value": value, "from": from})
}

fn to_camel_case(name: &str) -> String {
    let mut after_dash = false;
    name.chars()
        .filter_map(|c| {
            let upper = std::mem::replace(&mut after_dash, c == '_');
            match (c, upper) {
                ('_', _) => None,
                (c, true) => Some(c.to_ascii_uppercase()),
                (c, false) => Some(c),
            }
        })
        .collect()
}
