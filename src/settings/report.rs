//! The settings in use with the origin of each value, secrets masked.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value as Json, json};

use super::layer::{Layer, Origin, heading};

/// Replacement of a secret.
const MASK: &str = "********";

/// The settings in use with the origin of each value. Its `Display` is a commented `config.toml`. It has no secrets.
#[derive(Debug, Clone)]
pub struct Report {
    file: Option<PathBuf>,
    file_exists: bool,
    notes: Vec<String>,
    tables: Vec<(&'static str, Vec<Line>)>,
}

/// A key with its value, masked if it is secret, and origin; `None`: unset.
#[derive(Debug, Clone)]
struct Line {
    key: &'static str,
    setting: Option<(Json, Origin)>,
}

impl Report {
    pub(crate) fn new(
        layer: &Layer,
        file: Option<PathBuf>,
        file_exists: bool,
        notes: Vec<String>,
    ) -> Self {
        let tables = layer.tables().into_iter().map(|(section, entries)| {
            let lines = entries.into_iter().map(|(key, entry)| Line {
                key,
                setting: entry.map(|entry| (mask_secret(key, &entry.json), entry.origin.clone())),
            });
            (section, lines.collect())
        });
        Self {
            tables: tables.collect(),
            file,
            file_exists,
            notes,
        }
    }

    /// Returns a sentence for each setting that has no effect.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns `{"configFile", "hosts": [{KEY: {"value", "from"}}], "bucket": {KEY: ...}, ..., "notes"}` with the keys
    /// in camelCase; `value` is null if a key is not set.
    pub fn to_json(&self) -> Json {
        let mut root = Map::new();
        let file = self.file.as_ref().filter(|_| self.file_exists);
        let file = file.map(|path| path.display().to_string());
        root.insert("configFile".to_owned(), json!(file));
        let mut hosts = Vec::new();
        for (section, lines) in &self.tables {
            let entry = |line: &Line| {
                let (value, origin) = line.setting.clone().unzip();
                (
                    to_camel_case(line.key),
                    json!({"value": value, "from": origin}),
                )
            };
            let entries: Map<String, Json> = lines.iter().map(entry).collect();
            match *section {
                "hosts" => hosts.push(entries),
                _ => drop(root.insert((*section).to_owned(), json!(entries))),
            }
        }
        root.insert("hosts".to_owned(), json!(hosts));
        root.insert("notes".to_owned(), json!(self.notes));
        Json::Object(root)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.file_exists) {
            (Some(file), true) => writeln!(f, "# settings file: {}", file.display())?,
            (Some(file), false) => writeln!(
                f,
                "# settings file: none at {}; `snapdeck init` writes one",
                file.display()
            )?,
            (None, _) => writeln!(f, "# settings file: none, there is no home directory")?,
        }
        for note in &self.notes {
            writeln!(f, "# note: {note}")?;
        }
        for (section, lines) in &self.tables {
            writeln!(f, "\n{}", heading(section))?;
            for Line { key, setting } in lines {
                match setting {
                    Some((value, origin)) => {
                        let text = match value {
                            Json::String(text) => toml::Value::from(text.as_str()).to_string(),
                            number_or_bool => number_or_bool.to_string(),
                        };
                        writeln!(f, "{:<56} # {origin}", format!("{key} = {text}"))?;
                    }
                    None => writeln!(f, "# {key} is not set: {}", describe_unset(key))?,
                }
            }
        }
        Ok(())
    }
}

/// Returns what is used if a key is not set.
fn describe_unset(key: &str) -> &'static str {
    match key {
        "endpoint" => "AWS itself",
        "region" => "from the AWS chain, else us-east-1",
        "profile" => "the default profile of the AWS chain",
        "access_key_id" | "secret_access_key" => {
            "from the AWS chain (environment, profiles, SSO, instance roles)"
        }
        "template" => "built in",
        "viewer" => "remote-viewer or vncviewer, whichever is installed",
        _ => "no bucket, only hosts",
    }
}

fn mask_secret(key: &str, value: &Json) -> Json {
    match (key, value.as_str()) {
        // Four characters distinguish keys; of a short key they would reveal too much.
        ("access_key_id", Some(id)) if id.chars().count() >= 8 => id
            .chars()
            .take(4)
            .chain(MASK.chars())
            .collect::<String>()
            .into(),
        ("access_key_id" | "secret_access_key", _) => MASK.into(),
        _ => value.clone(),
    }
}

fn to_camel_case(key: &str) -> String {
    let mut words = key.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (initial, rest) = word.split_at(1.min(word.len()));
        name + &initial.to_ascii_uppercase() + rest
    })
}
