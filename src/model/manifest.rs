//! The manifest: the small JSON that stands beside an object or a snapshot and says what its bytes are, where they
//! came from, and how far they can be trusted.
//!
//! It is believed only while it is the image's: it names the image's length and entity tag, beside a file also the
//! file's stamp. An image without one is welcome everywhere, and only slower.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Annotations, Error, HostName, Kind, Object, Result, SandboxId, SnapshotName};

/// Bytes of a block, the unit in which images are hashed, compared and fetched; the last one may be shorter.
pub const BLOCK_BYTES: u64 = 8 << 20;
/// Longest manifest that is read, in bytes. The largest object there can be (5 TiB) has one of 27 MiB.
pub const MAX_MANIFEST_BYTES: u64 = 32 << 20;

/// The version of the form that is written, and the newest that is read.
const FORMAT: u32 = 1;

/// The SHA-256 of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads what `Display` writes, and `sha256sum`.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// 64 hexadecimal digits.
impl std::fmt::Display for Digest {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// How sound the file systems on the disk are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// The guest had shut down.
    CleanShutdown,
    /// The guest had been asked to bring its file systems to rest.
    Quiesced,
    /// As after a power cut.
    CrashConsistent,
    /// Read while it was written: possibly torn.
    LiveUnsafe,
}

impl Consistency {
    /// Its word: `clean-shutdown`, `quiesced`, `crash-consistent`, `live-unsafe`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CleanShutdown => "clean-shutdown",
            Self::Quiesced => "quiesced",
            Self::CrashConsistent => "crash-consistent",
            Self::LiveUnsafe => "live-unsafe",
        }
    }
}

/// The snapshot that another one was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    /// Its name.
    pub name: SnapshotName,
    /// Entity tag of its object, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// Tells whether a file is still the one seen before: equal while nobody has written it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileStamp {
    /// Inode.
    pub inode: u64,
    /// Modification time, nanoseconds since the epoch.
    pub modified_ns: i128,
    /// Length in bytes.
    pub size_bytes: u64,
}

/// What a check found wrong with a file, kept beside it until it is repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Damage {
    /// The file's stamp then: of another file it says nothing.
    pub file: FileStamp,
    /// What is wrong, a sentence without its end.
    #[serde(rename = "what")]
    pub problem: String,
}

/// What is known of an image. Keys this version does not know are kept as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Version of this form.
    format: u32,
    /// The snapshot's name.
    pub name: SnapshotName,
    /// Length of the image in bytes.
    pub size_bytes: u64,
    /// Size of the disk the guest sees, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_size: Option<u64>,
    /// When the image was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The host it was made on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// The sandbox whose disk it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxId>,
    /// The snapshot that sandbox stood on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// How sound its file systems are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// How it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// How long the guest stood still for it, in milliseconds, where it ran before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_ms: Option<u64>,
    /// What the operator has to say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// The operator's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Is it to be kept whatever happens?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// Entity tag of the object with these bytes, where there is or was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Beside a file: its stamp when it was known to hold these bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileStamp>,
    /// Digests of the blocks in their order; in JSON one base64 text of 32 bytes each.
    #[serde(serialize_with = "write_blocks", deserialize_with = "read_blocks")]
    pub blocks: Vec<Digest>,
    /// What this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Manifest {
    /// A manifest of an image of so many bytes, which says nothing else yet.
    pub fn new(name: SnapshotName, size_bytes: u64, blocks: Vec<Digest>) -> Self {
        Self {
            format: FORMAT,
            name,
            size_bytes,
            virtual_size: None,
            created: None,
            host: None,
            sandbox: None,
            parent: None,
            consistency: None,
            method: None,
            paused_ms: None,
            notes: None,
            labels: BTreeMap::new(),
            pinned: false,
            etag: None,
            file: None,
            blocks,
            extra: Map::new(),
        }
    }

    /// Reads a manifest from its JSON.
    ///
    /// # Errors
    /// `Damaged` for what is none, is of a newer form, or has not exactly the digests of an image of its length.
    pub fn read(json: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::new(Kind::Damaged, "it is no manifest").with_cause(why);
        if json.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(bad("it is too long".into()));
        }
        let manifest: Self =
            serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(bad(format!("unknown format version {}", manifest.format)));
        }
        let wanted = manifest.size_bytes.div_ceil(BLOCK_BYTES);
        if manifest.blocks.len() as u64 != wanted {
            return Err(bad(format!(
                "it has {} digests for {wanted} blocks",
                manifest.blocks.len()
            )));
        }
        Ok(manifest)
    }

    /// Its JSON, on one line.
    ///
    /// # Errors
    /// `Failed` where it cannot be written as JSON, or would be too long to be read again.
    pub fn write(&self) -> Result<Vec<u8>> {
        let failed = || {
            Error::new(
                Kind::Failed,
                format!("cannot write a manifest of {}", self.name),
            )
        };
        let json = serde_json::to_vec(self).map_err(|error| failed().with_cause(error))?;
        match json.len() as u64 > MAX_MANIFEST_BYTES {
            true => Err(failed().with_cause("it would be too long")),
            false => Ok(json),
        }
    }

    /// What is said in it of the snapshot.
    pub fn annotations(&self) -> Annotations {
        Annotations {
            notes: self.notes.clone(),
            labels: self.labels.clone(),
            pinned: self.pinned,
        }
    }

    /// The same manifest where `there` is said of the snapshot already: that stays, and what is said in this one is
    /// brought to it ([`Remarks::joined`]).
    pub fn with_existing_annotations(mut self, there: Annotations) -> Self {
        let Annotations {
            notes,
            labels,
            pinned,
        } = there.merge(&self.annotations());
        self.notes = notes;
        self.labels = labels;
        self.pinned = pinned;
        self
    }

    /// Are these the bytes of `object`? Only a strong entity tag says so (RFC 9110, section 8.8.1).
    pub fn matches_object(&self, object: &Object) -> bool {
        self.size_bytes == object.size_bytes && self.matches_etag(object.etag.as_deref())
    }

    /// Are these the bytes of a file that is as `stamp` says?
    pub fn matches_file(&self, stamp: FileStamp) -> bool {
        self.size_bytes == stamp.size_bytes && self.file == Some(stamp)
    }

    fn matches_etag(&self, tag: Option<&str>) -> bool {
        let bare = |tag: &str| tag.trim_matches('"').to_owned();
        match (self.etag.as_deref(), tag) {
            (Some(ours), Some(theirs)) if !ours.starts_with("W/") && !ours.is_empty() => {
                bare(ours) == bare(theirs)
            }
            _ => false,
        }
    }

    /// Is every byte the same as in the image of `other`?
    pub fn has_same_content(&self, other: &Self) -> bool {
        self.size_bytes == other.size_bytes && self.blocks == other.blocks
    }
}

fn write_blocks<S: Serializer>(blocks: &[Digest], serializer: S) -> Result<S::Ok, S::Error> {
    let bytes: Vec<u8> = blocks.iter().flat_map(|digest| digest.0).collect();
    serializer.serialize_str(&BASE64.encode(bytes))
}

fn read_blocks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Digest>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = BASE64.decode(text).map_err(de::Error::custom)?;
    let (digests, []) = bytes.as_chunks() else {
        return Err(de::Error::custom("a digest must have 32 bytes"));
    };
    Ok(digests.iter().copied().map(Digest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let blocks = vec![Digest([1; 32]), Digest([2; 32])];
        let mut manifest = Manifest::new("app".parse().unwrap(), BLOCK_BYTES + 1, blocks);
        manifest.etag = Some("\"abc-2\"".into());
        manifest.consistency = Some(Consistency::CleanShutdown);
        manifest.file = Some(FileStamp {
            inode: 7,
            modified_ns: 1_700_000_000_123_456_789,
            size_bytes: BLOCK_BYTES + 1,
        });
        manifest
    }

    fn object(size_bytes: u64, etag: Option<&str>) -> Object {
        Object {
            name: "app".parse().unwrap(),
            key: "snapshots/app.qcow2".into(),
            size_bytes,
            modified: None,
            etag: etag.map(str::to_owned),
        }
    }

    #[test]
    fn comes_back_as_it_was_written_with_what_is_not_known() {
        let mut manifest = manifest();
        let json = manifest.write().unwrap();
        assert_eq!(Manifest::read(&json).unwrap(), manifest);
        manifest
            .extra
            .insert("fromTheFuture".into(), serde_json::json!({"a": [1]}));
        let json = manifest.write().unwrap();
        assert_eq!(Manifest::read(&json).unwrap(), manifest);
        let text = String::from_utf8(json).unwrap();
        for part in [
            "\"sizeBytes\":8388609",
            "\"clean-shutdown\"",
            "\"modifiedNs\":17",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn a_digest_is_written_in_hexadecimal_and_parsed() {
        let text = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
        let digest = Digest::from_hex(text).unwrap();
        assert_eq!(digest.0[..3], [0x76, 0x92, 0xc3]);
        assert_eq!(digest.to_string(), text);
        for bad in [
            "",
            "76",
            &text[1..],
            &text.replace("76", "7g"),
            &text.replace("76", "+6"),
        ] {
            assert_eq!(Digest::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn is_compact() {
        let blocks = vec![Digest([9; 32]); 5120];
        let manifest = Manifest::new("app".parse().unwrap(), 40 << 30, blocks);
        assert!(manifest.write().unwrap().len() < 220 << 10, "of 40 GiB");
    }

    #[test]
    fn what_is_none_is_refused() {
        let good = String::from_utf8(manifest().write().unwrap()).unwrap();
        let size = format!("\"sizeBytes\":{}", BLOCK_BYTES + 1);
        for (from, to) in [
            ("{", "["),
            ("\"format\":1", "\"format\":2"),
            (&size, "\"sizeBytes\":8388608"),
            (&size, "\"sizeBytes\":18446744073709551615"),
            (&size, "\"sizeBytes\":-1"),
            ("\"app\"", "\"../app\""),
            ("\"clean-shutdown\"", "\"clean\""),
            ("\"blocks\":\"", "\"blocks\":\"AAAA"),
            ("\"blocks\":\"", "\"blocks\":\"!"),
        ] {
            assert!(good.contains(from), "{from}");
            let bad = good.replacen(from, to, 1);
            assert!(Manifest::read(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Manifest::read(b"").is_err());
    }

    #[test]
    fn is_believed_for_its_own_image_alone() {
        let manifest = manifest();
        let size = BLOCK_BYTES + 1;
        assert!(manifest.matches_object(&object(size, Some("\"abc-2\""))));
        assert!(manifest.matches_object(&object(size, Some("abc-2"))));
        for (size, tag) in [
            (size - 1, Some("\"abc-2\"")),
            (size, Some("\"abc-3\"")),
            (size, Some("W/\"abc-2\"")),
            (size, None),
        ] {
            assert!(
                !manifest.matches_object(&object(size, tag)),
                "{size} {tag:?}"
            );
        }
        let stamp = manifest.file.unwrap();
        assert!(manifest.matches_file(stamp));
        let touched = FileStamp {
            modified_ns: stamp.modified_ns + 1,
            ..stamp
        };
        assert!(!manifest.matches_file(touched));
        let mut weak = manifest.clone();
        weak.etag = Some("W/\"abc-2\"".into());
        assert!(!weak.matches_object(&object(size, Some("W/\"abc-2\""))));
    }
}
