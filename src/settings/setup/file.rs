//! The `config.toml` that a setup writes: the defaults with their comments, in which the answers are set.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::{SetupAnswers, SetupField};
use crate::DEFAULT_CONFIG;
use snapdeck_model::{Error, Kind, Result};

const HEADING: &str = "\
# Settings of snapdeck, written by its setup. Lines that begin with \"# key =\" have the defaults.
#
# The environment and flags replace values of this file; `snapdeck config` shows each value in use and its source.
# Keys are not in this file: they come from the environment or an AWS profile.

";

impl SetupAnswers {
    /// Returns the text of a `config.toml` with these answers and comments on every key.
    ///
    /// # Errors
    /// `InvalidInput` for an invalid answer.
    pub fn to_toml(&self) -> Result<String> {
        for field in SetupField::ALL {
            self.check(field).map_err(|problem| {
                let summary = format!("invalid {}", field.label().to_lowercase());
                Error::new(Kind::InvalidInput, summary)
                    .with_cause(problem)
                    .hint("see snapdeck init --help")
            })?;
        }
        let hosts = self
            .hosts()
            .map_err(|problem| Error::new(Kind::InvalidInput, problem))?;
        let mut text = HEADING.to_owned();
        let mut section = "";
        // The head of the defaults is about that file.
        let (_, body) = DEFAULT_CONFIG.split_once("\n\n").unwrap_or(("", ""));
        for line in body.lines() {
            if line.starts_with('[') {
                // Further hosts have no comments.
                if section == "[[hosts]]" {
                    for (name, uri) in hosts.iter().skip(1) {
                        self.push_host(&mut text, name.as_str(), uri);
                    }
                }
                section = line;
            }
            let Some((key, default)) = split_setting(line) else {
                text.push_str(line);
                text.push('\n');
                continue;
            };
            let host = hosts.first().filter(|_| section == "[[hosts]]");
            let value = match (host, key) {
                (Some((name, _)), "name") => Some(name.as_str().to_owned()),
                (Some((_, uri)), "uri") => Some(uri.clone()),
                _ => self.value(section, key),
            };
            match value {
                Some(value) => push_setting(&mut text, key, &value),
                None => text.push_str(&format!("# {key} = {default}\n")),
            }
        }
        Ok(text)
    }

    fn push_host(&self, text: &mut String, name: &str, uri: &str) {
        text.push_str("[[hosts]]\n");
        push_setting(text, "name", name);
        push_setting(text, "uri", uri);
        for key in ["snapshots_dir", "sandboxes_dir", "owner"] {
            let value = self.value("[[hosts]]", key).unwrap_or_default();
            push_setting(text, key, &value);
        }
        text.push('\n');
    }

    /// Returns the answer for a key; `None`: the default.
    fn value(&self, section: &str, key: &str) -> Option<String> {
        let field = match (section, key) {
            ("[[hosts]]", "snapshots_dir") => SetupField::Snapshots,
            ("[[hosts]]", "sandboxes_dir") => SetupField::Sandboxes,
            ("[[hosts]]", "owner") => SetupField::Owner,
            ("[bucket]", "name") => SetupField::Bucket,
            ("[bucket]", "prefix") => SetupField::Prefix,
            ("[bucket]", "endpoint") => SetupField::Endpoint,
            ("[bucket]", "region") => SetupField::Region,
            ("[bucket]", "profile") => SetupField::Profile,
            _ => return None,
        };
        let text = self.get(field);
        let is_set = self.asks(field) && (field == SetupField::Prefix || !text.is_empty());
        is_set.then(|| text.to_owned())
    }
}

fn push_setting(text: &mut String, key: &str, value: &str) {
    let _ = writeln!(text, "{key} = {}", toml::Value::from(value));
}

/// Returns key and value of a line of the defaults, which may be commented out.
pub(super) fn split_setting(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.trim_start_matches("# ").split_once(" = ")?;
    let is_key = key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
    is_key.then_some((key, value))
}

/// Fails if the settings file exists.
///
/// # Errors
/// `Conflict`.
pub fn refuse_existing(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(_) => Err(exists(path)),
        Err(_) => Ok(()),
    }
}

fn exists(path: &Path) -> Error {
    Error::new(Kind::Conflict, summary(path))
        .with_cause("it exists and is not replaced")
        .hint("edit it; `snapdeck config` shows the values in use, `snapdeck init --print` a new file")
}

fn summary(path: &Path) -> String {
    format!("cannot write settings to {}", path.display())
}

/// Writes a new settings file with mode 0600, and its directory if that is missing. It appears complete or not at all.
///
/// # Errors
/// `Conflict` if the file exists: it is not replaced; `Failed` for an I/O error.
pub fn write_settings_file(path: &Path, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path).map_err(|error| error.error)?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(path),
        _ => Error::new(Kind::Failed, summary(path))
            .with_cause(error)
            .hint("check the directory's permissions, or name another file with --config"),
    })
}
