//! A TOML text -> a layer. Every complaint names the file, the line and the key.
//!
//! The text is walked by hand over spanned values: serde's own errors name a line, but neither the
//! table a key stands in nor the key a wrong value belongs to.

use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::layer::{
    Key, Layer, Origin, SECTIONS, Setting, Table, Value, find_key, heading, invalid_setting,
    section_keys,
};
use super::text::{find_similar, line_number};
use snapdeck_model::{Error, Result};

/// A text being read.
struct Document<'a> {
    text: &'a str,
    /// `None`: the defaults that are compiled in.
    path: Option<Arc<Path>>,
}

/// Reads `text`, the content of `path` (`None`: the defaults).
///
/// # Errors
/// `InvalidInput` for a syntax error, an unknown key, a wrong type, a value that cannot be meant.
pub(super) fn read(text: &str, path: Option<&Path>) -> Result<Layer> {
    let document = Document {
        text,
        path: path.map(Arc::from),
    };
    // Only the message is used: the error's own display repeats the line, which may hold a secret.
    let root = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        document.syntax_error(at, error.message())
    })?;
    document.read_layer(root.get_ref())
}

impl Document<'_> {
    fn read_layer(&self, root: &DeTable<'_>) -> Result<Layer> {
        let mut layer = Layer::default();
        for (name, value) in root {
            let at = name.span().start;
            match SECTIONS.iter().find(|section| *section == name.get_ref()) {
                Some(&"hosts") => layer.hosts = self.read_hosts(at, value)?,
                Some(section) => {
                    let table = value.get_ref().as_table().ok_or_else(|| {
                        self.error_at(
                            at,
                            format!("{name} must be a table", name = heading(section)),
                        )
                    })?;
                    layer
                        .tables
                        .insert(section, self.read_table(section, table)?);
                }
                None => return Err(self.unknown_section(at, name.get_ref())),
            }
        }
        Ok(layer)
    }

    fn read_hosts(&self, at: usize, value: &Spanned<DeValue<'_>>) -> Result<Vec<Table>> {
        let list = value.get_ref().as_array().ok_or_else(|| {
            self.error_at(
                at,
                "hosts is a list: each host begins with a line [[hosts]]",
            )
        })?;
        let mut hosts: Vec<Table> = Vec::new();
        for entry in list {
            let at = entry.span().start;
            let table = entry.get_ref().as_table().ok_or_else(|| {
                self.error_at(
                    at,
                    "hosts is a list: each host begins with a line [[hosts]]",
                )
            })?;
            let host = self.read_table("hosts", table)?;
            for required in ["name", "uri"] {
                if !host.contains_key(required) {
                    return Err(self.error_at(at, format!("[[hosts]] has no {required}")));
                }
            }
            let twin = hosts.iter().find_map(|other| {
                let (mine, theirs) = (host.get("name")?, other.get("name")?);
                (mine.value == theirs.value).then_some((mine, theirs))
            });
            if let Some((mine, theirs)) = twin {
                return Err(invalid_setting(
                    &mine.origin,
                    format!(
                        "name in [[hosts]] must be unique, is the one of {}",
                        theirs.origin
                    ),
                ));
            }
            hosts.push(host);
        }
        Ok(hosts)
    }

    fn read_table(&self, section: &str, table: &DeTable<'_>) -> Result<Table> {
        let mut read = Table::new();
        for (name, value) in table {
            let key = find_key(section, name.get_ref())
                .ok_or_else(|| self.unknown_key(name.span().start, section, name.get_ref()))?;
            let origin = self.origin_at(name.span().start);
            let value = self.read_value(key, &origin, value.get_ref())?;
            read.insert(key.name, Setting::new(key, value, origin)?);
        }
        Ok(read)
    }

    fn read_value(&self, key: &Key, origin: &Origin, value: &DeValue<'_>) -> Result<Value> {
        let wrong = |why: String| {
            invalid_setting(
                origin,
                format!("{} in {} {why}", key.name, heading(key.section)),
            )
        };
        match value {
            DeValue::String(text) => Ok(Value::Text(text.to_string())),
            DeValue::Boolean(on) => Ok(Value::Boolean(*on)),
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
                .map(Value::Integer)
                .map_err(|_| wrong(format!("is out of range: {}", digits.as_str()))),
            DeValue::Float(_) => Err(wrong(key.value_type.mismatch_message("a float"))),
            DeValue::Datetime(_) => Err(wrong(key.value_type.mismatch_message("a date"))),
            DeValue::Array(_) => Err(wrong(key.value_type.mismatch_message("a list"))),
            DeValue::Table(_) => Err(wrong(key.value_type.mismatch_message("a table"))),
        }
    }

    fn unknown_section(&self, at: usize, name: &str) -> Error {
        let error = self.error_at(at, format!("unknown key {name:?} at the top level"));
        let home = SECTIONS
            .iter()
            .find(|section| find_key(section, name).is_some());
        match (home, find_similar(name, SECTIONS.iter().copied())) {
            (_, Some(known)) => error.hint(format!("did you mean {}?", heading(known))),
            (Some(home), None) => error.hint(format!("it belongs under {}", heading(home))),
            (None, None) => {
                error.hint("known tables: hosts, bucket, push, sandbox, jobs and console")
            }
        }
    }

    fn unknown_key(&self, at: usize, section: &str, name: &str) -> Error {
        let error = self.error_at(at, format!("unknown key {name:?} in {}", heading(section)));
        let known = || section_keys(section).map(|key| key.name);
        match find_similar(name, known()) {
            Some(known) => error.hint(format!("did you mean {known}?")),
            None => error.hint(format!(
                "known are {}",
                known().collect::<Vec<_>>().join(", ")
            )),
        }
    }

    /// Names the key that the line at `at` begins with, if it begins with one.
    fn syntax_error(&self, at: usize, message: &str) -> Error {
        let start = self
            .text_before(at)
            .rfind('\n')
            .map_or(0, |newline| newline + 1);
        let line = self.text[start..].lines().next().unwrap_or_default();
        let key = line
            .split_once('=')
            .map(|(key, _)| key.trim())
            .filter(|key| {
                !key.is_empty()
                    && key
                        .bytes()
                        .all(|c| c.is_ascii_alphanumeric() || b"_-.".contains(&c))
            });
        match key {
            Some(key) => self.error_at(at, format!("key {key}: {message}")),
            None => self.error_at(at, message),
        }
    }

    fn text_before(&self, at: usize) -> &str {
        self.text.get(..at).unwrap_or(self.text)
    }

    fn origin_at(&self, at: usize) -> Origin {
        match &self.path {
            None => Origin::Default,
            Some(path) => Origin::File {
                path: path.clone(),
                line: line_number(self.text, at),
            },
        }
    }

    fn error_at(&self, at: usize, why: impl std::fmt::Display) -> Error {
        invalid_setting(&self.origin_at(at), why)
    }
}
