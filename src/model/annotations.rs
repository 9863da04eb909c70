//! Annotations of a snapshot: note, labels and pin. They are stored in the manifest and belong to the name, not to the
//! bytes: a pin is valid in a manifest whose digests are those of an earlier image. If there is no manifest, one with
//! annotations only is written; it has no digests, so it is not read as a manifest of the image.
//!
//! Each host and the bucket have their own annotations. An operation that rewrites a manifest (a pull, a push that
//! overwrites, a verification) preserves those of the place. A pull also copies the object's note if the host has none,
//! and labels with keys that the host does not use. A pin is never copied: a snapshot that is pinned in the bucket may
//! be removed from a host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json_bounds::is_bounded;
use super::text::{
    escape_unprintable, escape_unprintable_lines, printable_lines_within, printable_within,
};
use super::{Error, Kind, Result, SnapshotName};

/// Maximum length of a note in bytes.
pub const MAX_NOTE_BYTES: usize = 4096;
/// Maximum length of a label's key in bytes.
const MAX_LABEL_KEY_BYTES: usize = 63;
/// Maximum length of a label's value in bytes.
const MAX_LABEL_VALUE_BYTES: usize = 256;
/// Maximum number of labels of a snapshot.
const MAX_LABELS: usize = 64;
/// The only format version of manifests that is written and read.
pub(crate) const MANIFEST_FORMAT: u32 = 1;
/// The schema in manifests, which the JSON of other programs does not have.
pub(crate) const MANIFEST_SCHEMA: &str = "snapdeck.manifest/1";

/// Annotations of a snapshot on a host or in the bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Annotations {
    /// The note.
    pub notes: Option<String>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is neither removed, pruned nor overwritten.
    pub pinned: bool,
}

/// Change of annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnnotationsPatch {
    /// The new note; an empty one removes it.
    pub new_note: Option<String>,
    /// Labels to set.
    pub set_labels: Vec<(String, String)>,
    /// Keys of labels to remove.
    pub remove_labels: Vec<String>,
    /// Pin or unpin.
    pub set_pinned: Option<bool>,
}

impl Annotations {
    /// Parses the annotations of a manifest and nothing else of it, to be shown: other programs may have written
    /// unprintable characters, or longer texts.
    ///
    /// # Errors
    /// `Damaged` if it is not a JSON object or an annotation has the wrong type.
    pub fn from_manifest_json(json: &[u8]) -> Result<Self> {
        Ok(Self::parse(json)?.into_printable())
    }

    /// Parses the annotations of a manifest, to be written into one.
    ///
    /// # Errors
    /// As [`Annotations::from_manifest_json`].
    pub fn parse(json: &[u8]) -> Result<Self> {
        let invalid = |error| Error::new(Kind::Damaged, "invalid annotations").with_cause(error);
        if !is_bounded(json) {
            return Err(Error::new(Kind::Damaged, "invalid annotations")
                .with_cause("there are more values or longer texts than in a manifest"));
        }
        serde_json::from_slice(json).map_err(invalid)
    }

    fn into_printable(self) -> Self {
        let note = |text: String| printable_lines_within(&text, MAX_NOTE_BYTES);
        let label = |(key, value): (String, String)| {
            (
                printable_within(&key, MAX_LABEL_VALUE_BYTES),
                printable_within(&value, MAX_LABEL_VALUE_BYTES),
            )
        };
        Self {
            notes: self.notes.map(note),
            labels: self.labels.into_iter().map(label).collect(),
            pinned: self.pinned,
        }
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds the note and labels of `source`, the annotations of the same image elsewhere (see the module documentation).
    pub fn merge(mut self, source: &Self) -> Self {
        self.notes = self.notes.or_else(|| source.notes.clone());
        for (key, value) in &source.labels {
            if self.labels.len() < MAX_LABELS && !self.labels.contains_key(key) {
                self.labels.insert(key.clone(), value.clone());
            }
        }
        self
    }
}

impl AnnotationsPatch {
    /// Returns whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns a change that pins or unpins.
    pub fn with_pinned(pinned: bool) -> Self {
        Self {
            set_pinned: Some(pinned),
            ..Self::default()
        }
    }

    /// Applies the change to a manifest's JSON and preserves everything else in it. `json` is `None`: makes a new
    /// manifest with the annotations, the name and `image` (length and identity of the image).
    ///
    /// # Errors
    /// `InvalidInput` for a note or label that is too long or has unprintable characters; `Conflict` if `json` is not a
    /// manifest of this format.
    pub fn apply(
        &self,
        json: Option<&[u8]>,
        name: &SnapshotName,
        image: impl FnOnce() -> Map<String, Value>,
    ) -> Result<(Vec<u8>, Annotations)> {
        self.validate()?;
        let refused = |cause: &str| {
            Error::new(
                Kind::Conflict,
                format!("cannot write into {}", name.manifest_file_name()),
            )
            .with_cause(cause)
        };
        let mut manifest = match json {
            Some(json) => match parse_bounded(json) {
                Some(Value::Object(manifest))
                    if manifest.contains_key("format") || manifest.contains_key("schema") =>
                {
                    manifest
                }
                _ => {
                    return Err(
                        refused("it is not a manifest").hint("move the file to another directory")
                    );
                }
            },
            None => {
                let mut manifest = image();
                manifest.insert("schema".into(), MANIFEST_SCHEMA.into());
                manifest.insert("format".into(), MANIFEST_FORMAT.into());
                manifest.insert("name".into(), name.as_str().into());
                manifest
            }
        };
        if manifest.get("format") != Some(&MANIFEST_FORMAT.into()) {
            return Err(
                refused("unknown format version").hint("use the version of snapdeck that wrote it")
            );
        }
        let mut annotations = match json {
            Some(json) => Annotations::parse(json)?,
            None => Annotations::default(),
        };
        if let Some(note) = &self.new_note {
            let note = note.trim_end();
            annotations.notes = (!note.is_empty()).then(|| note.to_owned());
        }
        annotations
            .labels
            .retain(|key, _| !self.remove_labels.contains(key));
        annotations.labels.extend(self.set_labels.iter().cloned());
        if annotations.labels.len() > MAX_LABELS {
            return Err(invalid_input(format!(
                "at most {MAX_LABELS} labels are allowed"
            )));
        }
        annotations.pinned = self.set_pinned.unwrap_or(annotations.pinned);
        let failed = |error| {
            Error::new(
                Kind::Failed,
                format!("cannot write the annotations of {name}"),
            )
            .with_cause(error)
        };
        let values = serde_json::to_value(&annotations).map_err(failed)?;
        let empty = [Value::Null, Value::Bool(false), Value::Object(Map::new())];
        for (key, value) in values.as_object().into_iter().flatten() {
            match empty.contains(value) {
                true => drop(manifest.remove(key)),
                false => drop(manifest.insert(key.clone(), value.clone())),
            }
        }
        let json = serde_json::to_vec(&manifest).map_err(failed)?;
        Ok((json, annotations.into_printable()))
    }

    fn validate(&self) -> Result<()> {
        if let Some(note) = &self.new_note {
            if note.len() > MAX_NOTE_BYTES {
                return Err(invalid_input(format!(
                    "a note may have at most {MAX_NOTE_BYTES} bytes, this one has {}",
                    note.len()
                )));
            }
            if escape_unprintable_lines(note) != *note {
                return Err(invalid_input(
                    "a note must not contain control characters or invisible ones",
                ));
            }
        }
        for (key, value) in &self.set_labels {
            validate_label_key(key)?;
            if value.len() > MAX_LABEL_VALUE_BYTES || escape_unprintable(value) != *value {
                return Err(invalid_input(format!(
                    "the value of label {key} is longer than {MAX_LABEL_VALUE_BYTES} bytes, or has control characters \
                     or invisible ones"
                )));
            }
        }
        Ok(())
    }
}

/// Parses a label `KEY=VALUE`.
///
/// # Errors
/// `InvalidInput` for any other form, and for a key with other characters than letters, digits, `.`, `_`, `/` and `-`.
pub fn parse_label(text: &str) -> Result<(String, String)> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| invalid_input(format!("{text:?} is not a label")).hint("write KEY=VALUE"))?;
    validate_label_key(key)?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Parses the JSON of a manifest.
fn parse_bounded(json: &[u8]) -> Option<Value> {
    is_bounded(json)
        .then(|| serde_json::from_slice(json).ok())
        .flatten()
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

fn invalid_input(summary: impl Into<String>) -> Error {
    Error::new(Kind::InvalidInput, summary)
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
        panic!("a manifest exists")
    }

    #[test]
    fn everything_else_in_a_manifest_is_preserved() {
        let mut manifest = Manifest::new(name(), 3, vec![Digest([1; 32])]);
        manifest.etag = Some("\"1\"".into());
        manifest.extra.insert("later".into(), json!([1]));
        let change = AnnotationsPatch {
            set_labels: vec![("os".into(), "2022".into())],
            set_pinned: Some(true),
            ..note("golden\n")
        };
        let (json, annotations) = change
            .apply(Some(&manifest.write().unwrap()), &name(), no_image)
            .unwrap();
        let written = Manifest::read(&json).unwrap();
        assert_eq!(written.notes.as_deref(), Some("golden"));
        assert!(written.pinned && written.labels["os"] == "2022");
        assert_eq!(Annotations::from_manifest_json(&json).unwrap(), annotations);
        let revert = AnnotationsPatch {
            remove_labels: vec!["os".into()],
            set_pinned: Some(false),
            ..note("")
        };
        let (json, annotations) = revert.apply(Some(&json), &name(), no_image).unwrap();
        assert_eq!(Manifest::read(&json).unwrap(), manifest);
        assert!(annotations.is_empty());
    }

    #[test]
    fn merge_prefers_own_annotations_and_never_copies_a_pin() {
        let annotations = |note: Option<&str>, labels: &[(&str, &str)], pinned| Annotations {
            notes: note.map(str::to_owned),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            pinned,
        };
        let object = annotations(Some("theirs"), &[("os", "2022"), ("team", "web")], true);
        let own = annotations(Some("ours"), &[("os", "2025")], false);
        let both = annotations(Some("ours"), &[("os", "2025"), ("team", "web")], false);
        assert_eq!(own.merge(&object), both);
        let copied = annotations(Some("theirs"), &[("os", "2022"), ("team", "web")], false);
        assert_eq!(Annotations::default().merge(&object), copied);
        let pinned = annotations(None, &[], true);
        assert_eq!(pinned.clone().merge(&Annotations::default()), pinned);
    }

    #[test]
    fn new_manifest_of_annotations_has_no_digests() {
        let image = || Map::from_iter([("sizeBytes".to_owned(), json!(3))]);
        let change = AnnotationsPatch::with_pinned(true);
        let (json, annotations) = change.apply(None, &name(), image).unwrap();
        assert!(annotations.pinned);
        assert!(Manifest::read(&json).is_err());
        let (json, annotations) = note("more").apply(Some(&json), &name(), no_image).unwrap();
        assert!(annotations.pinned && annotations.notes.as_deref() == Some("more"));
        let value: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["sizeBytes"], 3);
        assert_eq!(value.get("blocks"), None);
    }

    #[test]
    fn other_files_are_not_changed() {
        for json in ["", "[]", "{}", "{\"a\":1}", "{\"format\":2}"] {
            let result = note("x").apply(Some(json.as_bytes()), &name(), no_image);
            assert_eq!(result.unwrap_err().kind(), Kind::Conflict, "{json}");
        }
    }

    #[test]
    fn texts_of_another_program_are_shown_escaped_and_kept_as_they_are() {
        let json = json!({"format": 1, "notes": "a\u{1b}b", "labels": {"k\u{9b}": "\u{7}"}});
        let pin = AnnotationsPatch::with_pinned(true);
        let json = pin.apply(Some(json.to_string().as_bytes()), &name(), no_image);
        let (json, shown) = json.unwrap();
        assert_eq!(shown.notes.as_deref(), Some("a\\u{1b}b"));
        assert_eq!(shown.labels["k\\u{9b}"], "\\u{7}");
        let written: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(written["notes"], "a\u{1b}b");
        assert_eq!(written["labels"]["k\u{9b}"], "\u{7}");
    }

    #[test]
    fn control_characters_are_rejected_and_not_shown() {
        let label = |key: &str, value: &str| AnnotationsPatch {
            set_labels: vec![(key.into(), value.into())],
            ..AnnotationsPatch::default()
        };
        let long = "x".repeat(MAX_NOTE_BYTES + 1);
        for change in [
            note("a\x1b[2J"),
            note("a\u{202e}b"),
            note("a\u{200b}"),
            note(&long),
            label("a b", "c"),
            label("", "c"),
            label("a", "\n"),
            label("a", "\u{2066}"),
        ] {
            let result = change.apply(None, &name(), Map::new);
            assert_eq!(result.unwrap_err().kind(), Kind::InvalidInput, "{change:?}");
        }
        let annotations = Annotations::from_manifest_json(
            br#"{"notes":"a\u001b[2J\nb\u202e","labels":{"k\n":"\u0007"}}"#,
        )
        .unwrap();
        assert_eq!(
            annotations.notes.as_deref(),
            Some("a\\u{1b}[2J\nb\\u{202e}")
        );
        assert_eq!(annotations.labels["k\\u{a}"], "\\u{7}");
        let long = json!({"notes": "n".repeat(9000), "labels": {"k": "v".repeat(9000)}});
        let annotations = Annotations::from_manifest_json(long.to_string().as_bytes()).unwrap();
        assert!(annotations.labels["k"].chars().count() <= MAX_LABEL_VALUE_BYTES);
        assert!(annotations.notes.unwrap().chars().count() <= MAX_NOTE_BYTES);
        assert_eq!(parse_label("a/b=c=d"), Ok(("a/b".into(), "c=d".into())));
        assert!(parse_label("ab").is_err() && parse_label("=x").is_err());
    }

    #[test]
    fn fuzz_annotations() {
        let name: SnapshotName = "app".parse().unwrap();
        let patch = AnnotationsPatch {
            new_note: Some("a note".into()),
            set_labels: vec![("os".into(), "windows".into())],
            ..AnnotationsPatch::default()
        };
        let (json, _) = patch.apply(None, &name, Map::new).unwrap();
        snapdeck_fuzz::FuzzTarget::new("annotations")
            .seed(json)
            .words(&[
                "\"notes\":\"",
                "\"labels\":{",
                "\"pinned\":true",
                "\"format\":1",
            ])
            .max_bytes(1 << 20)
            .memory(4 << 20, 16)
            .run(|json| {
                if let Ok(annotations) = Annotations::from_manifest_json(json) {
                    let texts = annotations
                        .labels
                        .iter()
                        .flat_map(|(key, value)| [key, value]);
                    let mut texts = texts.chain(&annotations.notes);
                    assert!(
                        !texts.any(|text| text.contains(|c: char| c.is_control() && c != '\n'))
                    );
                }
                if let Ok((written, annotations)) = patch.apply(Some(json), &name, Map::new) {
                    assert_eq!(
                        Annotations::from_manifest_json(&written).unwrap(),
                        annotations
                    );
                }
            });
    }
}
