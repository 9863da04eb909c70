//! What the operator has to say of a snapshot: a note, labels, a pin. It is kept in the manifest and is about the name,
//! whatever became of the bytes since: a pin counts also in a manifest whose digests are of an earlier image. Where
//! there is no manifest, one of remarks alone is written; it has no digests, so nothing else takes it for a manifest.
//!
//! Remarks are a place's own: those on a host and those in the bucket may differ. Where a manifest is written anew (a
//! pull, a push that overwrites, a verification), nothing that was said at that place is lost. A pull brings the
//! object's note where the host has none, and the object's labels whose keys the host does not use. A pin stays where
//! it was set and goes nowhere: what is to be kept in the bucket for ever may come and go on a host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Error, Kind, Result, SnapshotName};

/// Longest note, in bytes.
pub const MAX_NOTE_BYTES: usize = 4096;
/// Longest key of a label, in bytes.
const MAX_LABEL_KEY_BYTES: usize = 63;
/// Longest value of a label, in bytes.
const MAX_LABEL_VALUE_BYTES: usize = 256;
/// Labels of one snapshot.
const MAX_LABELS: usize = 64;
/// The form of manifests whose remarks can be changed.
const MANIFEST_FORMAT: u64 = 1;

/// What is said of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Annotations {
    /// The note.
    pub notes: Option<String>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Is it to be kept whatever happens?
    pub pinned: bool,
}

/// What is to be said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnnotationsPatch {
    /// The new note; an empty one takes it away.
    pub new_note: Option<String>,
    /// Labels to set.
    pub set_labels: Vec<(String, String)>,
    /// Keys of labels to take away.
    pub remove_labels: Vec<String>,
    /// Pin it or unpin it.
    pub set_pinned: Option<bool>,
}

impl Annotations {
    /// The remarks in a manifest; only they are looked at. Control characters, which a terminal would obey, become
    /// spaces.
    ///
    /// # Errors
    /// `Damaged` for what is no JSON object, or has remarks of another form.
    pub fn from_manifest_json(json: &[u8]) -> Result<Self> {
        let bad = |error| Error::new(Kind::Damaged, "it has no remarks").with_cause(error);
        let mut remarks: Self = serde_json::from_slice(json).map_err(bad)?;
        let plain = |text: &str| text.replace(|c: char| c.is_control() && c != '\n', " ");
        remarks.notes = remarks.notes.map(|notes| plain(&notes));
        remarks.labels = remarks
            .labels
            .iter()
            .map(|(key, value)| {
                (
                    plain(key).replace('\n', " "),
                    plain(value).replace('\n', " "),
                )
            })
            .collect();
        Ok(remarks)
    }

    /// Is nothing said?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is said at a place once an image came there of which `brought` is said elsewhere (see the module's page).
    pub fn merge(mut self, brought: &Self) -> Self {
        self.notes = self.notes.or_else(|| brought.notes.clone());
        for (key, value) in &brought.labels {
            if self.labels.len() < MAX_LABELS && !self.labels.contains_key(key) {
                self.labels.insert(key.clone(), value.clone());
            }
        }
        self
    }
}

impl AnnotationsPatch {
    /// Is nothing to be said otherwise?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Pins or unpins.
    pub fn with_pinned(pinned: bool) -> Self {
        Self {
            set_pinned: Some(pinned),
            ..Self::default()
        }
    }

    /// Makes it, in a manifest's JSON, and leaves all else there as it is. Where there is no manifest a new one says
    /// the remarks, and of the image its name and `image`: its length and how it is known again.
    ///
    /// # Errors
    /// `InvalidInput` for a note or label that is too long or has control characters; `Unsupported` where `json` is no
    /// manifest, or of a newer form.
    pub fn apply(
        &self,
        json: Option<&[u8]>,
        name: &SnapshotName,
        image: impl FnOnce() -> Map<String, Value>,
    ) -> Result<(Vec<u8>, Annotations)> {
        self.validate()?;
        let refused = |why: &str| {
            Error::new(
                Kind::Conflict,
                format!("cannot write into {}", name.manifest_file_name()),
            )
            .with_cause(why)
        };
        let mut manifest = match json {
            Some(json) => match serde_json::from_slice(json) {
                Ok(Value::Object(manifest)) if manifest.contains_key("format") => manifest,
                _ => return Err(refused("it is no manifest").hint("move it away")),
            },
            None => {
                let mut manifest = image();
                manifest.insert("format".into(), MANIFEST_FORMAT.into());
                manifest.insert("name".into(), name.as_str().into());
                manifest
            }
        };
        if manifest.get("format").and_then(Value::as_u64) != Some(MANIFEST_FORMAT) {
            return Err(
                refused("unknown format version").hint("use the version of snapdeck that wrote it")
            );
        }
        let mut remarks = match json {
            Some(json) => Annotations::from_manifest_json(json)?,
            None => Annotations::default(),
        };
        if let Some(note) = &self.new_note {
            let note = note.trim_end();
            remarks.notes = (!note.is_empty()).then(|| note.to_owned());
        }
        remarks
            .labels
            .retain(|key, _| !self.remove_labels.contains(key));
        remarks.labels.extend(self.set_labels.iter().cloned());
        if remarks.labels.len() > MAX_LABELS {
            return Err(invalid_input(format!(
                "at most {MAX_LABELS} labels are allowed"
            )));
        }
        remarks.pinned = self.set_pinned.unwrap_or(remarks.pinned);
        let failed = |error| {
            Error::new(
                Kind::Failed,
                format!("cannot write the annotations of {name}"),
            )
            .with_cause(error)
        };
        let said = serde_json::to_value(&remarks).map_err(failed)?;
        let nothing = [Value::Null, Value::Bool(false), Value::Object(Map::new())];
        for (key, value) in said.as_object().into_iter().flatten() {
            match nothing.contains(value) {
                true => drop(manifest.remove(key)),
                false => drop(manifest.insert(key.clone(), value.clone())),
            }
        }
        let json = serde_json::to_vec(&manifest).map_err(failed)?;
        Ok((json, remarks))
    }

    fn validate(&self) -> Result<()> {
        if let Some(note) = &self.new_note {
            if note.len() > MAX_NOTE_BYTES {
                return Err(invalid_input(format!(
                    "a note may have at most {MAX_NOTE_BYTES} bytes, this one has {}",
                    note.len()
                )));
            }
            if note.chars().any(|c| c.is_control() && c != '\n') {
                return Err(invalid_input("a note must not contain control characters"));
            }
        }
        for (key, value) in &self.set_labels {
            validate_label_key(key)?;
            if value.len() > MAX_LABEL_VALUE_BYTES || value.chars().any(char::is_control) {
                return Err(invalid_input(format!(
                    "the value of label {key} is longer than {MAX_LABEL_VALUE_BYTES} bytes, or has control characters"
                )));
            }
        }
        Ok(())
    }
}

/// A label as it is given: `KEY=VALUE`.
///
/// # Errors
/// `InvalidInput` for any other form, and for a key of other characters than letters, digits, `.`, `_`, `/` and `-`.
pub fn parse_label(text: &str) -> Result<(String, String)> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| invalid_input(format!("{text:?} is not a label")).hint("write KEY=VALUE"))?;
    validate_label_key(key)?;
    Ok((key.to_owned(), value.to_owned()))
}

fn validate_label_key(key: &str) -> Result<()> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._/-".contains(&c);
    match !key.is_empty() && key.len() <= MAX_LABEL_KEY_BYTES && key.bytes().all(allowed) {
        true => Ok(()),
        false => Err(
            invalid_input(format!("{key:?} is not a valid label key")).hint(format!(
                "use 1 to {MAX_LABEL_KEY_BYTES} letters, digits, '.', '_', '/' and '-'"
            )),
        ),
    }
}

fn invalid_input(what: impl Into<String>) -> Error {
    Error::new(Kind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, Manifest};
    use serde_json::json;

    fn name() -> SnapshotName {
        "app".parse().unwrap()
    }

    fn note(text: &str) -> AnnotationsPatch {
        AnnotationsPatch {
            new_note: Some(text.to_owned()),
            ..AnnotationsPatch::default()
        }
    }

    fn no_image() -> Map<String, Value> {
        panic!("there is a manifest")
    }

    #[test]
    fn a_manifest_keeps_all_else() {
        let mut manifest = Manifest::new(name(), 3, vec![Digest([1; 32])]);
        manifest.etag = Some("\"1\"".into());
        manifest.extra.insert("later".into(), json!([1]));
        let change = AnnotationsPatch {
            set_labels: vec![("os".into(), "2022".into())],
            set_pinned: Some(true),
            ..note("golden\n")
        };
        let (json, said) = change
            .apply(Some(&manifest.write().unwrap()), &name(), no_image)
            .unwrap();
        let written = Manifest::read(&json).unwrap();
        assert_eq!(written.notes.as_deref(), Some("golden"));
        assert!(written.pinned && written.labels["os"] == "2022");
        assert_eq!(Annotations::from_manifest_json(&json).unwrap(), said);
        let back = AnnotationsPatch {
            remove_labels: vec!["os".into()],
            set_pinned: Some(false),
            ..note("")
        };
        let (json, said) = back.apply(Some(&json), &name(), no_image).unwrap();
        assert_eq!(Manifest::read(&json).unwrap(), manifest);
        assert!(said.is_empty());
    }

    #[test]
    fn what_is_said_at_a_place_is_more_than_what_is_brought_and_pins_stay_where_they_are() {
        let said = |note: Option<&str>, labels: &[(&str, &str)], pinned| Annotations {
            notes: note.map(str::to_owned),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            pinned,
        };
        let object = said(Some("theirs"), &[("os", "2022"), ("team", "web")], true);
        let own = said(Some("ours"), &[("os", "2025")], false);
        let both = said(Some("ours"), &[("os", "2025"), ("team", "web")], false);
        assert_eq!(own.merge(&object), both);
        let brought = said(Some("theirs"), &[("os", "2022"), ("team", "web")], false);
        assert_eq!(Annotations::default().merge(&object), brought);
        let pinned = said(None, &[], true);
        assert_eq!(pinned.clone().merge(&Annotations::default()), pinned);
    }

    #[test]
    fn without_a_manifest_no_digests_are_made_up() {
        let image = || Map::from_iter([("sizeBytes".to_owned(), json!(3))]);
        let change = AnnotationsPatch::with_pinned(true);
        let (json, said) = change.apply(None, &name(), image).unwrap();
        assert!(said.pinned);
        assert!(Manifest::read(&json).is_err(), "nobody takes it for one");
        let (json, said) = note("more").apply(Some(&json), &name(), no_image).unwrap();
        assert!(said.pinned && said.notes.as_deref() == Some("more"));
        let value: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["sizeBytes"], 3);
        assert_eq!(value.get("blocks"), None);
    }

    #[test]
    fn what_is_no_manifest_is_left_alone() {
        for json in ["", "[]", "{}", "{\"a\":1}", "{\"format\":2}"] {
            let made = note("x").apply(Some(json.as_bytes()), &name(), no_image);
            assert_eq!(made.unwrap_err().kind(), Kind::Conflict, "{json}");
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_taken_and_not_shown() {
        let label = |key: &str, value: &str| AnnotationsPatch {
            set_labels: vec![(key.into(), value.into())],
            ..AnnotationsPatch::default()
        };
        let long = "x".repeat(MAX_NOTE_BYTES + 1);
        for change in [
            note("a\x1b[2J"),
            note(&long),
            label("a b", "c"),
            label("", "c"),
            label("a", "\n"),
        ] {
            let made = change.apply(None, &name(), Map::new);
            assert_eq!(made.unwrap_err().kind(), Kind::InvalidInput, "{change:?}");
        }
        let said = Annotations::from_manifest_json(
            br#"{"notes":"a\u001b[2J\nb","labels":{"k\n":"\u0007"}}"#,
        )
        .unwrap();
        assert_eq!(said.notes.as_deref(), Some("a [2J\nb"));
        assert_eq!(said.labels["k "], " ");
        assert_eq!(parse_label("a/b=c=d"), Ok(("a/b".into(), "c=d".into())));
        assert!(parse_label("ab").is_err() && parse_label("=x").is_err());
    }
}
