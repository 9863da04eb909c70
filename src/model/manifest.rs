//! The manifest: a JSON file beside an object or a snapshot with lineage, block digests and annotations.
//!
//! It is trusted only while its length and entity tag are those of the object, or its length and stamp those of the
//! file. An image without a manifest can be used everywhere; operations on it are slower.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use super::annotations::{MANIFEST_FORMAT, MANIFEST_SCHEMA};
use super::json_bounds::is_bounded;
use super::{
    Annotations, Error, ExpectedVariables, FileStamp, HostName, Kind, Object, Result, SandboxId,
    SnapshotName, block_count,
};

/// Maximum length in bytes. The manifest of the largest possible object (5 TiB) has 27 MiB.
pub const MAX_MANIFEST_BYTES: u64 = 32 << 20;

/// The SHA-256 of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Parses the output of `Display` and of `sha256sum`.
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

/// A host whose word digests are, of one installation of snapdeck: another installation may have another host of that name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Claim(String);

impl Claim {
    /// Returns the claim of a host; `installation` is a random id.
    pub fn new(host: &HostName, installation: &str) -> Self {
        Self(format!("{host} {installation}"))
    }
}

/// Consistency of the file systems on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// The guest was shut down.
    CleanShutdown,
    /// The guest agent had frozen the file systems.
    Quiesced,
    /// As after a power cut.
    CrashConsistent,
    /// Read while the guest wrote: possibly inconsistent.
    LiveUnsafe,
}

impl Consistency {
    /// Returns the word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CleanShutdown => "clean-shutdown",
            Self::Quiesced => "quiesced",
            Self::CrashConsistent => "crash-consistent",
            Self::LiveUnsafe => "live-unsafe",
        }
    }
}

/// Origin of the digests of an adopted image, one that no push or pull of snapdeck wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ContentProof {
    /// All bytes were read.
    Read,
    /// The SHA-256 that the store has of it, or of its parts, is that of a host's file.
    Sha256,
    /// The store's CRC64NVME of it is that of a host's file; this excludes accidents, not intent.
    Crc64Nvme,
    /// The entity tag is the MD5 of a host's file, or of the MD5s of its parts; this excludes accidents, not intent.
    Md5,
}

impl ContentProof {
    /// Returns the word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Sha256 => "sha256",
            Self::Crc64Nvme => "crc64nvme",
            Self::Md5 => "md5",
        }
    }

    /// Returns whether another image with the same proof cannot be made on purpose.
    pub fn is_collision_resistant(self) -> bool {
        match self {
            Self::Read | Self::Sha256 => true,
            Self::Crc64Nvme | Self::Md5 => false,
        }
    }
}

/// The snapshot that another one is based on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    /// Name of the parent.
    pub name: SnapshotName,
    /// Entity tag of the parent's object, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// Damage that a check found, stored beside the file until it is repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Damage {
    /// The file that was checked.
    pub file: FileStamp,
    /// The file that was about to replace it, if that was interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<FileStamp>,
    /// Whether its blocks are being overwritten, so that its times change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_repairing: bool,
    /// The damage, a sentence without a full stop.
    #[serde(rename = "what")]
    pub problem: String,
}

impl Damage {
    /// Returns whether it is that of the file with `stamp`.
    pub fn is_of(&self, stamp: FileStamp) -> bool {
        let is_same = |file: &FileStamp| file.is_same_file(&stamp);
        let has_inode =
            |file: &FileStamp| file.inode == stamp.inode && file.size_bytes == stamp.size_bytes;
        is_same(&self.file)
            || self.is_repairing && has_inode(&self.file)
            || self.replacement.as_ref().is_some_and(is_same)
    }
}

/// Manifest of an image. Unknown keys are preserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Older manifests have none.
    #[serde(default = "default_schema")]
    schema: String,
    format: u32,
    /// Name of the snapshot.
    pub name: SnapshotName,
    /// Length of the image in bytes.
    pub size_bytes: u64,
    /// Size of the guest's disk in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_size: Option<u64>,
    /// Time of creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Host of the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// The sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxId>,
    /// The snapshot that the sandbox was based on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Consistency of the file systems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// Word of the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Pause of a running guest in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_ms: Option<u64>,
    /// The operator's note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// The operator's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether the snapshot is pinned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// Entity tag of the object with these bytes, if there is or was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Tag of the upload of the object, which is in the object's metadata, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_tag: Option<String>,
    /// The UEFI variables that belong to the image, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<ExpectedVariables>,
    /// Beside a file: its stamp when its bytes were verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileStamp>,
    /// Of an adopted image: the origin of its digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ContentProof>,
    /// In the bucket: the host whose word digests are, which neither snapdeck nor the store has compared with the bytes. They
    /// say nothing of the images of other hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Claim>,
    /// Beside a file: entity tag of an object whose checksums were compared with the file and did not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub different_object: Option<String>,
    /// Digests of the blocks in order; in JSON one base64 text of all.
    #[serde(serialize_with = "write_blocks", deserialize_with = "read_blocks")]
    pub blocks: Vec<Digest>,
    /// Keys unknown to this version.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Manifest {
    /// Returns a manifest without optional values.
    pub fn new(name: SnapshotName, size_bytes: u64, blocks: Vec<Digest>) -> Self {
        Self {
            schema: default_schema(),
            format: MANIFEST_FORMAT,
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
            upload_tag: None,
            variables: None,
            file: None,
            proof: None,
            claimed: None,
            different_object: None,
            blocks,
            extra: Map::new(),
        }
    }

    /// Parses the JSON of a manifest.
    ///
    /// # Errors
    /// `Damaged` for anything but a manifest of this format with exactly the digests of an image of its length.
    pub fn read(json: &[u8]) -> Result<Self> {
        let invalid =
            |reason: String| Error::new(Kind::Damaged, "invalid manifest").with_cause(reason);
        if json.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(invalid("it is longer than 32 MiB".into()));
        }
        if !is_bounded(json) {
            return Err(invalid(
                "it has more values or longer texts than a manifest".into(),
            ));
        }
        let manifest: Self =
            serde_json::from_slice(json).map_err(|error| invalid(error.to_string()))?;
        if manifest.schema != MANIFEST_SCHEMA {
            return Err(invalid("it has another schema".into()));
        }
        if manifest.format != MANIFEST_FORMAT {
            return Err(invalid(format!(
                "unknown format version {}",
                manifest.format
            )));
        }
        let blocks = block_count(manifest.size_bytes);
        if manifest.blocks.len() as u64 != blocks {
            return Err(invalid(format!(
                "it has {} digests for {blocks} blocks",
                manifest.blocks.len()
            )));
        }
        Ok(manifest)
    }

    /// Returns whether `json` is a manifest of this format, also one with annotations only.
    ///
    /// Any other `NAME.json` is another program's and is neither written nor removed. Manifests without a schema, which
    /// earlier versions wrote, are recognised by what all of them have: format, name, length, and digests or the
    /// identity of the image.
    pub fn is_manifest(json: &[u8]) -> bool {
        if json.len() as u64 > MAX_MANIFEST_BYTES || !is_bounded(json) {
            return false;
        }
        let Ok(Value::Object(manifest)) = serde_json::from_slice(json) else {
            return false;
        };
        if manifest.get("format") != Some(&MANIFEST_FORMAT.into()) {
            return false;
        }
        if let Some(schema) = manifest.get("schema") {
            return schema.as_str() == Some(MANIFEST_SCHEMA);
        }
        let name = manifest.get("name").and_then(Value::as_str);
        let size_bytes = manifest.get("sizeBytes").and_then(Value::as_u64);
        let (Some(name), Some(size_bytes)) = (name, size_bytes) else {
            return false;
        };
        let is_image = match (manifest.get("blocks"), manifest.get("file")) {
            (Some(blocks), _) => {
                let blocks = read_blocks(blocks);
                blocks.is_ok_and(|blocks| blocks.len() as u64 == block_count(size_bytes))
            }
            (None, Some(file)) => FileStamp::deserialize(file).is_ok(),
            (None, None) => manifest.get("etag").is_some_and(Value::is_string),
        };
        name.parse::<SnapshotName>().is_ok() && is_image
    }

    /// Returns its JSON on one line.
    ///
    /// # Errors
    /// `Failed` if it cannot be written as JSON or is longer than [`MAX_MANIFEST_BYTES`].
    pub fn write(&self) -> Result<Vec<u8>> {
        let failed = || {
            Error::new(
                Kind::Failed,
                format!("cannot write the manifest of {}", self.name),
            )
        };
        let json = serde_json::to_vec(self).map_err(|error| failed().with_cause(error))?;
        match json.len() as u64 > MAX_MANIFEST_BYTES {
            true => Err(failed().with_cause("it is longer than 32 MiB")),
            false => Ok(json),
        }
    }

    /// Returns its annotations.
    pub fn annotations(&self) -> Annotations {
        Annotations {
            notes: self.notes.clone(),
            labels: self.labels.clone(),
            pinned: self.pinned,
        }
    }

    /// Merges its annotations into the `existing` ones of its destination ([`Annotations::merge`]).
    pub fn with_existing_annotations(mut self, existing: Annotations) -> Self {
        let Annotations {
            notes,
            labels,
            pinned,
        } = existing.merge(&self.annotations());
        self.notes = notes;
        self.labels = labels;
        self.pinned = pinned;
        self
    }

    /// Adds what the `earlier` manifest says of the origin of the same bytes.
    pub fn with_lineage_of(mut self, earlier: Option<Self>) -> Self {
        let Some(earlier) = earlier.filter(|earlier| earlier.has_same_content(&self)) else {
            return self;
        };
        self.created = self.created.or(earlier.created);
        self.host = self.host.or(earlier.host);
        self.sandbox = self.sandbox.or(earlier.sandbox);
        self.parent = self.parent.or(earlier.parent);
        self.consistency = self.consistency.or(earlier.consistency);
        self.method = self.method.or(earlier.method);
        self.paused_ms = self.paused_ms.or(earlier.paused_ms);
        self
    }

    /// Returns whether it describes the bytes of `object`. Only a strong entity tag proves it (RFC 9110, section 8.8.1).
    pub fn matches_object(&self, object: &Object) -> bool {
        self.size_bytes == object.size_bytes && self.matches_etag(object.etag.as_deref())
    }

    /// Returns whether it describes the bytes of the file with `stamp`.
    pub fn matches_file(&self, stamp: FileStamp) -> bool {
        self.size_bytes == stamp.size_bytes && self.file == Some(stamp)
    }

    /// Returns whether it was written for the file with `stamp`, whose bytes may have been changed since.
    pub fn is_of_file(&self, stamp: FileStamp) -> bool {
        self.file.is_some_and(|file| file.is_same_file(&stamp))
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

    /// Returns whether both images have the same bytes.
    pub fn has_same_content(&self, other: &Self) -> bool {
        self.size_bytes == other.size_bytes && self.blocks == other.blocks
    }
}

fn default_schema() -> String {
    MANIFEST_SCHEMA.to_owned()
}

fn write_blocks<S: Serializer>(blocks: &[Digest], serializer: S) -> Result<S::Ok, S::Error> {
    let bytes: Vec<u8> = blocks.iter().flat_map(|digest| digest.0).collect();
    serializer.serialize_str(&BASE64.encode(bytes))
}

fn read_blocks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Digest>, D::Error> {
    deserializer.deserialize_str(BlocksVisitor)
}

/// Decodes the text where it is: a copy would take 27 MiB of the largest manifest.
struct BlocksVisitor;

impl de::Visitor<'_> for BlocksVisitor {
    type Value = Vec<Digest>;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("the digests of blocks in base64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<Digest>, E> {
        let bytes = BASE64.decode(text).map_err(E::custom)?;
        let (digests, []) = bytes.as_chunks() else {
            return Err(E::custom("a digest must have 32 bytes"));
        };
        Ok(digests.iter().copied().map(Digest).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BLOCK_BYTES;

    fn manifest() -> Manifest {
        let blocks = vec![Digest([1; 32]), Digest([2; 32])];
        let mut manifest = Manifest::new("app".parse().unwrap(), BLOCK_BYTES + 1, blocks);
        manifest.etag = Some("\"abc-2\"".into());
        manifest.consistency = Some(Consistency::CleanShutdown);
        manifest.file = Some(FileStamp {
            inode: 7,
            modified_ns: 1_700_000_000_123_456_789,
            size_bytes: BLOCK_BYTES + 1,
            changed_ns: Some(1_700_000_000_123_456_790),
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
            problem: None,
        }
    }

    #[test]
    fn unknown_keys_survive_reading_and_writing() {
        let mut manifest = manifest();
        let json = manifest.write().unwrap();
        assert_eq!(Manifest::read(&json).unwrap(), manifest);
        manifest
            .extra
            .insert("laterVersion".into(), serde_json::json!({"a": [1]}));
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
    fn only_manifests_are_recognised_older_ones_too() {
        let now = String::from_utf8(manifest().write().unwrap()).unwrap();
        assert!(now.contains("\"schema\":\"snapdeck.manifest/1\""), "{now}");
        let old = now.replace("\"schema\":\"snapdeck.manifest/1\",", "");
        assert_eq!(Manifest::read(old.as_bytes()).unwrap(), manifest());
        let base = "{\"format\":1,\"name\":\"app\",\"sizeBytes\":3";
        let file = "\"file\":{\"inode\":7,\"modifiedNs\":1,\"sizeBytes\":3}";
        for json in [
            now.clone(),
            old.clone(),
            format!("{base},\"etag\":\"1\",\"pinned\":true}}"),
            format!("{base},{file}}}"),
        ] {
            assert!(Manifest::is_manifest(json.as_bytes()), "{json}");
        }
        for json in [
            String::new(),
            "{}".into(),
            "[1]".into(),
            "{\"format\":1}".into(),
            format!("{base}}}"),
            format!("{base},\"file\":\"disk.qcow2\"}}"),
            format!("{base},\"blocks\":[1,2]}}"),
            format!("{base},\"blocks\":\"\"}}"),
            format!("{base},{file}}}").replace("app", "../app"),
            "{\"builder\":\"packer\",\"name\":\"app\",\"format\":1,\"schema\":\"packer/1\"}".into(),
            now.replace("manifest/1", "manifest/2"),
            now.replace("\"format\":1", "\"format\":2"),
            old.replace("\"format\":1", "\"format\":\"1\""),
            now[..now.len() - 1].into(),
        ] {
            assert!(!Manifest::is_manifest(json.as_bytes()), "{json}");
        }
    }

    #[test]
    fn digests_are_hexadecimal() {
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
    fn manifest_of_40_gib_is_small() {
        let blocks = vec![Digest([9; 32]); 5120];
        let manifest = Manifest::new("app".parse().unwrap(), 40 << 30, blocks);
        assert!(manifest.write().unwrap().len() < 220 << 10);
    }

    #[test]
    fn invalid_manifests_are_rejected() {
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
    fn only_its_own_image_matches() {
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
        assert!(!manifest.is_of_file(touched));
        for changed_ns in [None, stamp.changed_ns.map(|changed| changed + 1)] {
            let changed = FileStamp {
                changed_ns,
                ..stamp
            };
            assert!(!manifest.matches_file(changed));
            assert!(manifest.is_of_file(changed));
        }
        let mut weak = manifest.clone();
        weak.etag = Some("W/\"abc-2\"".into());
        assert!(!weak.matches_object(&object(size, Some("W/\"abc-2\""))));
    }

    #[test]
    fn fuzz_manifest() {
        let mut annotated = manifest();
        annotated.notes = Some("a \"note\"".into());
        annotated.labels.insert("os".into(), "windows".into());
        annotated.parent = Some(Parent {
            name: "base".parse().unwrap(),
            etag: Some("\"1\"".into()),
        });
        annotated.created = Some(Timestamp::UNIX_EPOCH);
        snapdeck_fuzz::FuzzTarget::new("manifest")
            .seed(manifest().write().unwrap())
            .seed(annotated.write().unwrap())
            .words(&[
                "\"blocks\":",
                "\"sizeBytes\":",
                "\"labels\":{",
                "\"file\":{",
                "\"extra\":",
            ])
            .max_bytes(1 << 20)
            .memory(4 << 20, 16)
            .run(|json| {
                let Ok(manifest) = Manifest::read(json) else {
                    Manifest::is_manifest(json);
                    return;
                };
                assert_eq!(
                    manifest.blocks.len() as u64,
                    block_count(manifest.size_bytes)
                );
                let written = manifest.write().unwrap();
                assert_eq!(Manifest::read(&written).unwrap(), manifest);
                assert!(Manifest::is_manifest(&written));
            });
    }
}
