//! Records of multipart uploads that a later process can continue.
//!
//! ```text
//! STATE/uploads/DIGEST    one object's upload: a line of JSON that says what is uploaded, then one for each part that the
//!                         store has; locked (flock) by the process that uploads
//! ```
//! A record has no key and no signature: without the rights of the bucket its upload ID is of no use.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::s3::{Checksums, UploadHandle, UploadedPart};
use snapdeck_model::{BLOCK_BYTES, Digest, FileStamp, HostName};
use snapdeck_ownership::{append_private_file, create_private_dir, open_private_file};

/// Version of the files.
const FORMAT: u32 = 1;
/// Age at which an upload is not continued any more. Rules of a bucket often abort unfinished ones then.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Longest record that is read: 10,000 parts of the largest object (5 TiB) with their digests have 46 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Files of the directory that are looked at when old ones are removed.
const MAX_FILES: usize = 10_000;

/// Bytes that are uploaded: a file of a host in one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadSource {
    /// The host that has it.
    pub host: HostName,
    /// Path of the file.
    pub path: String,
    /// The stamp of the file when the upload began.
    pub stamp: FileStamp,
}

/// A part that the store has from an earlier process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPart {
    /// From 0.
    pub index: u64,
    /// Digests of its blocks.
    pub digests: Vec<Digest>,
    /// Whether the digests are only the word of the host.
    pub is_claimed: bool,
}

/// The records of one state directory; without one, no upload is continued.
#[derive(Debug, Clone, Default)]
pub struct UploadRecords {
    directory: Option<Arc<Path>>,
    /// Fires when this process ends: what is cancelled then is to be continued.
    exit: CancellationToken,
}

/// The record of an upload that this process does. The lock ends with it.
#[derive(Debug)]
pub(super) struct UploadRecord {
    file: File,
    path: PathBuf,
    has_parts: AtomicBool,
    exit: CancellationToken,
}

/// A record, and what is to be uploaded.
pub(super) struct RecordRequest {
    pub(super) record: UploadRecord,
    pub(super) source: UploadSource,
    pub(super) size_bytes: u64,
    pub(super) part_bytes: u64,
    /// Metadata and properties that the object gets.
    pub(super) options: String,
}

/// The first line of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UploadDescription {
    format: u32,
    /// Location of the bucket.
    location: String,
    key: String,
    upload_id: String,
    pub(super) upload_tag: String,
    pub(super) checksums: Checksums,
    source: UploadSource,
    part_bytes: u64,
    options: String,
    created: Timestamp,
}

/// Any other line of a record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartLine {
    index: u64,
    length: u64,
    etag: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc64nvme: Option<String>,
    claimed: bool,
    digests: Vec<String>,
}

/// A part as it was recorded.
#[derive(Debug, Clone)]
pub(super) struct RecordedPart {
    pub(super) length: u64,
    pub(super) uploaded: UploadedPart,
    pub(super) kept: KeptPart,
}

impl UploadDescription {
    pub(super) fn handle(&self) -> UploadHandle {
        UploadHandle {
            key: self.key.clone(),
            id: self.upload_id.clone(),
            checksums: self.checksums,
        }
    }

    /// Returns why this upload cannot be continued as the one that is requested, if it cannot.
    pub(super) fn mismatch(&self, request: &RecordRequest) -> Option<&'static str> {
        let source = &request.source;
        let same_file = (&self.source.host, &self.source.path) == (&source.host, &source.path);
        let same_options = self.part_bytes == request.part_bytes && self.options == request.options;
        let reasons = [
            (self.is_old(), "it is older than 7 days"),
            (!same_file, "it is of another file"),
            (self.source.stamp != source.stamp, "the file was changed"),
            (!same_options, "the settings of the object were changed"),
        ];
        let reason = reasons.into_iter().find(|(applies, _)| *applies)?;
        Some(reason.1)
    }

    fn is_old(&self) -> bool {
        Timestamp::now().duration_since(self.created) > MAX_AGE
    }

    fn end(&self) -> Option<Timestamp> {
        self.created.checked_add(MAX_AGE).ok()
    }
}

impl UploadRecords {
    /// Returns the records in `directory`, which is created with the first one. `exit` fires when this process ends.
    pub fn new(directory: &Path, exit: CancellationToken) -> Self {
        Self {
            directory: Some(directory.into()),
            exit,
        }
    }

    /// Opens the record of the object, which is empty if there was none. `None` without a state directory, or if another
    /// process uploads the object.
    pub(super) fn open(&self, location: &str, key: &str) -> Option<UploadRecord> {
        let directory = self.directory.as_deref()?;
        let path = record_path(directory, location, key);
        let open = || {
            create_private_dir(directory)?;
            remove_old(directory);
            append_private_file(&path)
        };
        match open() {
            Ok(file) => self.lock(file, path),
            Err(error) => {
                tracing::warn!(
                    "cannot open {}: {error}; if the upload is interrupted, it begins again",
                    path.display()
                );
                None
            }
        }
    }

    /// Returns until when the upload with this ID can be continued; `None` if it cannot.
    pub(super) fn continuable_until(
        &self,
        location: &str,
        key: &str,
        id: &str,
    ) -> Option<Timestamp> {
        let path = record_path(self.directory.as_deref()?, location, key);
        let file = open_private_file(&path).ok()?;
        let description = Lines::open(&file).description(location, key)?;
        let is_usable = description.upload_id == id && !description.is_old();
        is_usable.then(|| description.end()).flatten()
    }

    /// Removes the record of an upload that is to be aborted; `false` if a process uses it.
    pub(super) fn release(&self, location: &str, key: &str, id: &str) -> bool {
        let Some(directory) = self.directory.as_deref() else {
            return true;
        };
        let path = record_path(directory, location, key);
        let Ok(file) = open_private_file(&path) else {
            return true;
        };
        let Some(record) = self.lock(file, path) else {
            return false;
        };
        let description = Lines::open(&record.file).description(location, key);
        if description.is_some_and(|description| description.upload_id == id) {
            record.remove();
        }
        true
    }

    /// Locks a record; `None` if another process uses it, or has removed it since it was opened.
    fn lock(&self, file: File, path: PathBuf) -> Option<UploadRecord> {
        file.try_lock().ok()?;
        let (open, named) = (file.metadata().ok()?, fs::symlink_metadata(&path).ok()?);
        let is_same = (open.dev(), open.ino()) == (named.dev(), named.ino());
        is_same.then(|| UploadRecord {
            file,
            path,
            has_parts: AtomicBool::new(false),
            exit: self.exit.clone(),
        })
    }
}

impl RecordRequest {
    /// Returns whether the object has a part of `length` bytes there.
    pub(super) fn has_part(&self, index: u64, length: u64) -> bool {
        let offset = index.checked_mul(self.part_bytes);
        let rest = offset.and_then(|offset| self.size_bytes.checked_sub(offset));
        rest.is_some_and(|rest| rest > 0 && length == rest.min(self.part_bytes))
    }

    /// Records that the upload begins; `None` if that cannot be written.
    pub(super) fn begin(
        self,
        location: String,
        handle: &UploadHandle,
        tag: &str,
    ) -> Option<UploadRecord> {
        let description = UploadDescription {
            format: FORMAT,
            location,
            key: handle.key.clone(),
            upload_id: handle.id.clone(),
            upload_tag: tag.to_owned(),
            checksums: handle.checksums,
            source: self.source,
            part_bytes: self.part_bytes,
            options: self.options,
            created: Timestamp::now(),
        };
        self.record.begin(&description).then_some(self.record)
    }
}

impl UploadDescription {
    fn is_of(&self, location: &str, key: &str) -> bool {
        self.format == FORMAT && self.location == location && self.key == key
    }
}

impl UploadRecord {
    /// Returns what is recorded of the object's upload; `None` if that is nothing. Removes a last line that was not written
    /// to its end.
    pub(super) fn read(
        &self,
        location: &str,
        key: &str,
    ) -> Option<(UploadDescription, BTreeMap<u64, RecordedPart>)> {
        let mut lines = Lines::open(&self.file);
        let description = lines.description(location, key)?;
        let (mut parts, mut valid_bytes) = (BTreeMap::new(), lines.read_bytes);
        while let Some(part) = lines.next::<PartLine>().and_then(PartLine::into_part) {
            parts.insert(part.kept.index, part);
            valid_bytes = lines.read_bytes;
        }
        // What is appended to a torn line would not be read.
        self.file.set_len(valid_bytes).ok()?;
        Some((description, parts))
    }

    /// Returns whether the store has a part of this upload.
    pub(super) fn has_parts(&self) -> bool {
        self.has_parts.load(Relaxed)
    }

    /// Returns whether this process ends.
    pub(super) fn is_exiting(&self) -> bool {
        self.exit.is_cancelled()
    }

    /// Sets that the store has parts of an earlier process.
    pub(super) fn set_has_parts(&self) {
        self.has_parts.store(true, Relaxed);
    }

    /// Replaces what was recorded; returns whether that could be written.
    fn begin(&self, description: &UploadDescription) -> bool {
        let begin = || {
            self.file.set_len(0)?;
            self.append(description)?;
            self.file.sync_all()
        };
        let begun = begin();
        if let Err(error) = &begun {
            tracing::warn!(
                "cannot write {}: {error}; if the upload is interrupted, it begins again",
                self.path.display()
            );
            self.remove();
        }
        begun.is_ok()
    }

    /// Adds a part that the store has.
    pub(super) fn add(&self, part: &RecordedPart) {
        let Some(line) = PartLine::new(part) else {
            return;
        };
        match self.append(&line) {
            Ok(()) => self.set_has_parts(),
            // The part is sent again if the upload is interrupted.
            Err(error) => tracing::debug!("cannot write {}: {error}", self.path.display()),
        }
    }

    /// Removes it if nothing is recorded.
    pub(super) fn remove_if_empty(&self) {
        if self.file.metadata().is_ok_and(|file| file.len() == 0) {
            self.remove();
        }
    }

    /// Removes it: the upload is completed or aborted.
    pub(super) fn remove(&self) {
        // One that remains names an upload that does not exist.
        let _ = fs::remove_file(&self.path);
    }

    fn append(&self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        (&self.file).write_all(&text)
    }
}

impl PartLine {
    fn new(part: &RecordedPart) -> Option<Self> {
        let RecordedPart {
            length,
            uploaded,
            kept,
        } = part;
        Some(Self {
            index: kept.index,
            length: *length,
            etag: uploaded.etag.clone()?,
            crc64nvme: uploaded.crc64nvme.clone(),
            claimed: kept.is_claimed,
            digests: kept.digests.iter().map(Digest::to_string).collect(),
        })
    }

    fn into_part(self) -> Option<RecordedPart> {
        let digests = self.digests.iter().map(|text| Digest::from_hex(text));
        let digests: Vec<Digest> = digests.collect::<Option<_>>()?;
        let is_whole = digests.len() as u64 == self.length.div_ceil(BLOCK_BYTES);
        is_whole.then(|| RecordedPart {
            length: self.length,
            uploaded: UploadedPart::new(self.index, Some(self.etag), self.crc64nvme),
            kept: KeptPart {
                index: self.index,
                digests,
                is_claimed: self.claimed,
            },
        })
    }
}

/// Reads whole lines of JSON from the start of a file.
struct Lines<'a> {
    reader: BufReader<io::Take<&'a File>>,
    read_bytes: u64,
}

impl<'a> Lines<'a> {
    fn open(file: &'a File) -> Self {
        Self {
            reader: BufReader::new(file.take(MAX_FILE_BYTES)),
            read_bytes: 0,
        }
    }

    /// Returns the first line, if it is that of an upload of the object.
    fn description(&mut self, location: &str, key: &str) -> Option<UploadDescription> {
        let description: UploadDescription = self.next()?;
        description.is_of(location, key).then_some(description)
    }

    /// Returns the next line; `None` at the end, and for a line that is not such a one.
    fn next<T: for<'de> Deserialize<'de>>(&mut self) -> Option<T> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).ok()?;
        if line.last() != Some(&b'\n') {
            return None;
        }
        let value = serde_json::from_slice(&line).ok()?;
        self.read_bytes += line.len() as u64;
        Some(value)
    }
}

fn record_path(directory: &Path, location: &str, key: &str) -> PathBuf {
    let name = digest(&SHA256, format!("{location}/{key}").as_bytes());
    let hex: String = name
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    directory.join(hex)
}

/// Removes records that are too old to be used.
fn remove_old(directory: &Path) {
    let max_age = Duration::from_secs(MAX_AGE.as_secs().unsigned_abs());
    let Some(limit) = SystemTime::now().checked_sub(max_age) else {
        return;
    };
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten().take(MAX_FILES) {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|modified| modified < limit) {
            // One that remains is not used.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LOCATION: &str = "http://store/b";
    const KEY: &str = "lab/a.qcow2";
    const SIZE_BYTES: u64 = 2 * BLOCK_BYTES + 5;

    fn request(records: &UploadRecords) -> RecordRequest {
        let stamp = FileStamp {
            inode: 7,
            modified_ns: 1,
            size_bytes: SIZE_BYTES,
            changed_ns: Some(1),
        };
        RecordRequest {
            record: records.open(LOCATION, KEY).unwrap(),
            source: UploadSource {
                host: "alpha".parse().unwrap(),
                path: "/s/a.qcow2".into(),
                stamp,
            },
            size_bytes: SIZE_BYTES,
            part_bytes: BLOCK_BYTES,
            options: "o".into(),
        }
    }

    fn part(index: u64, length: u64) -> RecordedPart {
        RecordedPart {
            length,
            uploaded: UploadedPart::new(index, Some("\"e\"".into()), Some("c".into())),
            kept: KeptPart {
                index,
                digests: vec![Digest([index as u8; 32])],
                is_claimed: index == 1,
            },
        }
    }

    /// Records an upload with its first two parts; returns the text.
    fn record(records: &UploadRecords) -> String {
        let handle = UploadHandle {
            key: KEY.into(),
            id: "id".into(),
            checksums: Checksums::Object,
        };
        let record = request(records)
            .begin(LOCATION.into(), &handle, "tag")
            .unwrap();
        assert!(!record.has_parts());
        record.add(&part(0, BLOCK_BYTES));
        record.add(&part(1, BLOCK_BYTES));
        assert!(record.has_parts());
        let mode = record.file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::read_to_string(&record.path).unwrap()
    }

    #[test]
    fn a_later_process_reads_what_was_recorded_up_to_a_torn_line() {
        let state = tempfile::tempdir().unwrap();
        let records = UploadRecords::new(&state.path().join("uploads"), CancellationToken::new());
        let text = record(&records);
        let path = record_path(records.directory.as_deref().unwrap(), LOCATION, KEY);
        for (cut, kept) in [(0, 2), (1, 1), (50, 1)] {
            fs::write(&path, &text[..text.len() - cut]).unwrap();
            let request = request(&records);
            let (description, parts) = request.record.read(LOCATION, KEY).unwrap();
            assert_eq!(description.mismatch(&request), None);
            assert_eq!(description.handle().id, "id");
            assert_eq!(description.checksums, Checksums::Object);
            assert_eq!(parts.len(), kept, "{cut}");
            assert_eq!(parts[&0].kept, part(0, BLOCK_BYTES).kept);
            assert_eq!(parts[&0].uploaded.etag.as_deref(), Some("\"e\""));
            // What is added is read, too.
            request.record.add(&part(2, 5));
            drop(request);
            let request = self::request(&records);
            let (_, parts) = request.record.read(LOCATION, KEY).unwrap();
            assert_eq!(parts.len(), kept + 1);
            assert!(request.has_part(2, parts[&2].length));
        }
    }

    #[test]
    fn a_record_that_was_removed_meanwhile_is_not_used() {
        let state = tempfile::tempdir().unwrap();
        let records = UploadRecords::new(state.path(), CancellationToken::new());
        let text = record(&records);
        let path = record_path(state.path(), LOCATION, KEY);
        let file = append_private_file(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, text).unwrap();
        assert!(records.lock(file, path).is_none());
        assert!(records.open(LOCATION, KEY).is_some());
    }

    #[test]
    fn only_parts_of_the_object_fit() {
        let state = tempfile::tempdir().unwrap();
        let request = request(&UploadRecords::new(state.path(), CancellationToken::new()));
        assert!(request.has_part(0, BLOCK_BYTES) && request.has_part(2, 5));
        for (index, length) in [(0, 5), (1, BLOCK_BYTES + 1), (2, 6), (3, 0), (u64::MAX, 5)] {
            assert!(!request.has_part(index, length), "{index} {length}");
        }
    }

    #[test]
    fn other_and_damaged_records_are_not_used() {
        let state = tempfile::tempdir().unwrap();
        let records = UploadRecords::new(state.path(), CancellationToken::new());
        let text = record(&records);
        let path = record_path(state.path(), LOCATION, KEY);
        for other in [
            "",
            "\n",
            "{}\n",
            "[]\n",
            &text.replace(KEY, "lab/b.qcow2"),
            &text.replace("\"format\":1", "\"format\":2"),
        ] {
            fs::write(&path, other).unwrap();
            let record = records.open(LOCATION, KEY).unwrap();
            assert!(record.read(LOCATION, KEY).is_none(), "{other}");
        }
        // A part without the digests of all its blocks.
        let line = text.lines().next().unwrap();
        let short = text.replace("\"length\":8388608", "\"length\":8388609");
        fs::write(&path, &short).unwrap();
        let record = records.open(LOCATION, KEY).unwrap();
        assert_eq!(record.read(LOCATION, KEY).unwrap().1.len(), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{line}\n"));
    }

    #[test]
    fn another_file_is_another_upload() {
        let state = tempfile::tempdir().unwrap();
        let records = UploadRecords::new(state.path(), CancellationToken::new());
        record(&records);
        let mut request = request(&records);
        let (description, _) = request.record.read(LOCATION, KEY).unwrap();
        let old = UploadDescription {
            created: Timestamp::now() - SignedDuration::from_hours(7 * 24 + 1),
            ..description.clone()
        };
        assert!(old.mismatch(&request).unwrap().contains("7 days"));
        request.options = "p".into();
        assert!(description.mismatch(&request).unwrap().contains("settings"));
        request.source.stamp.changed_ns = Some(2);
        assert!(description.mismatch(&request).unwrap().contains("changed"));
        request.source.host = "beta".parse().unwrap();
        assert!(
            description
                .mismatch(&request)
                .unwrap()
                .contains("another file")
        );
    }

    #[test]
    fn one_process_uses_a_record() {
        let state = tempfile::tempdir().unwrap();
        let records = UploadRecords::new(state.path(), CancellationToken::new());
        record(&records);
        let until = records.continuable_until(LOCATION, KEY, "id").unwrap();
        assert!(until > Timestamp::now() + SignedDuration::from_hours(6 * 24));
        assert_eq!(records.continuable_until(LOCATION, KEY, "other"), None);
        let used = records.open(LOCATION, KEY).unwrap();
        assert!(records.open(LOCATION, KEY).is_none());
        assert!(!records.release(LOCATION, KEY, "id"));
        drop(used);
        assert!(records.release(LOCATION, KEY, "other"));
        assert!(records.continuable_until(LOCATION, KEY, "id").is_some());
        assert!(records.release(LOCATION, KEY, "id"));
        assert_eq!(records.continuable_until(LOCATION, KEY, "id"), None);
    }

    #[test]
    fn records_that_are_too_old_are_removed() {
        let state = tempfile::tempdir().unwrap();
        let records = UploadRecords::new(state.path(), CancellationToken::new());
        let old = state.path().join("old");
        let file = File::create(&old).unwrap();
        let age = Duration::from_secs(8 * 24 * 60 * 60);
        file.set_modified(SystemTime::now() - age).unwrap();
        assert!(records.open(LOCATION, KEY).is_some());
        assert!(!old.exists());
        assert!(UploadRecords::default().open(LOCATION, KEY).is_none());
    }
}
