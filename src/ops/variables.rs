//! UEFI variables of a snapshot: `NAME_VARS.fd` beside the image on a host, under a key with their digest in the bucket.
//! A Windows guest does not boot without its own; a snapshot without variables is valid too.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use humansize::{BINARY, format_size};

use snapdeck_bucket::Bucket;
use snapdeck_host::{Content, FileReader, Host, hash_block};
use snapdeck_model::{
    BlockSet, BufferPool, Digest, Error, ExpectedVariables, Kind, Object, ProgressCell, Result,
    SnapshotName, SnapshotParts,
};

use crate::context::Context;
use crate::remote_object::RemoteObject;
use crate::request::SnapshotRequest;
use crate::sandbox_disk::SandboxDisk;

/// Limit of a variables file: flash memory of firmware has a few hundred KiB, and 16 MiB at most.
pub(crate) const MAX_BYTES: u64 = 16 << 20;

/// Reads the variables file `path` of the host.
pub(crate) async fn read_variables(host: &Host, path: &str) -> Result<Bytes> {
    read_whole_file(&host.fs().open_reader(path).await?, path).await
}

/// Reads the open variables file `path`.
pub(crate) async fn read_whole_file(reader: &FileReader, path: &str) -> Result<Bytes> {
    let size_bytes = reader.size_bytes();
    refuse_long(path, size_bytes)?;
    reader
        .read_at(&BufferPool::default(), 0, size_bytes as usize)
        .await
}

/// Returns the bytes of variables as the flash memory of a guest, whatever the format of their file.
///
/// # Errors
/// `Damaged` if they are not of that format.
pub(crate) fn decode(bytes: Bytes, source: &SandboxDisk) -> Result<Bytes> {
    let firmware = &source.firmware;
    let path = firmware.variables.as_deref().unwrap_or_default();
    let error = |cause: String| {
        Error::new(Kind::Damaged, format!("cannot read UEFI variables {path}")).with_cause(cause)
    };
    match &*firmware.variables_format {
        "raw" => Ok(bytes),
        "qcow2" => match snapdeck_qcow2::flatten(&bytes, MAX_BYTES) {
            Ok(flat) => Ok(flat.into()),
            Err(reason) => Err(error(reason.to_string())),
        },
        format => Err(error(format!("their format {format:?} is unknown"))),
    }
}

/// Fails if none were found of a sandbox that has UEFI, and the object that is to be overwritten has some: a snapshot
/// that booted would be replaced by one that does not.
///
/// # Errors
/// `Conflict`; those of the bucket.
pub(crate) async fn refuse_missing(
    bucket: &Bucket,
    source: &SandboxDisk,
    request: &SnapshotRequest,
) -> Result<()> {
    if !request.overwrite || !source.firmware.is_uefi || source.variables.is_some() {
        return Ok(());
    }
    let Some(replaced) = bucket.find(&request.name).await? else {
        return Ok(());
    };
    let has_variables = match replaced.parts {
        Some(parts) => parts.variables != ExpectedVariables::Absent,
        None => bucket.variables().head(&request.name).await?.is_some(),
    };
    if !has_variables {
        return Ok(());
    }
    let path = source.firmware.variables.as_deref().unwrap_or("a file");
    Err(Error::new(
        Kind::Conflict,
        format!("cannot overwrite {}", replaced.object.key),
    )
    .with_cause(format!(
        "it has UEFI variables, and those of sandbox {} were not found ({path})",
        source.id
    ))
    .hint("check <nvram> of the sandbox, or push it under another name"))
}

/// Returns what belongs to an image with these variables.
pub(crate) fn snapshot_parts(variables: Option<&Bytes>) -> SnapshotParts {
    SnapshotParts {
        variables: match variables {
            Some(bytes) => ExpectedVariables::Digest(hash_block(bytes)),
            None => ExpectedVariables::Absent,
        },
        has_manifest: true,
    }
}

/// Uploads the variables of `name` under the key of their digest; returns whether they were not there.
pub(crate) async fn upload(
    bucket: &Bucket,
    name: &SnapshotName,
    bytes: &Bytes,
    ctx: &Context,
) -> Result<bool> {
    let store = bucket.variables_of(hash_block(bytes));
    let is_new = store.head(name).await?.is_none();
    let read = |offset: u64, length: usize| {
        // At most 16 MiB.
        let start = offset as usize;
        let part = bytes.slice(start..start + length);
        async { Ok(part) }
    };
    let progress = ProgressCell::default();
    let size_bytes = bytes.len() as u64;
    // What is there has the same bytes, or should have.
    store
        .upload(name, size_bytes, read, true, &progress, &ctx.cancel)
        .await?;
    ctx.info(format!("uploaded its UEFI variables: {}", store.key(name)));
    Ok(is_new)
}

fn refuse_long(path: &str, size_bytes: u64) -> Result<()> {
    if size_bytes <= MAX_BYTES {
        return Ok(());
    }
    let size = format_size(size_bytes, BINARY);
    Err(Error::new(
        Kind::Damaged,
        format!("{path} has {size}: not a UEFI variables file"),
    ))
}

/// The UEFI variables of an image.
pub(crate) enum SourceVariables {
    Fetched(FetchedVariables),
    /// It has none.
    Absent,
    /// Nothing says whether it has any, and none were found.
    Unknown,
}

impl SourceVariables {
    /// Downloads the variables of `source` and compares them with their digest, if that is known.
    ///
    /// # Errors
    /// `Damaged` if they are missing or are others; those of the bucket.
    pub(crate) async fn fetch(
        bucket: &Bucket,
        source: &RemoteObject,
        ctx: &Context,
    ) -> Result<Self> {
        let name = &source.object.name;
        let (store, expected) = match source.expected_variables() {
            Some(ExpectedVariables::Absent) => return Ok(Self::Absent),
            Some(ExpectedVariables::Digest(digest)) => (bucket.variables_of(digest), Some(digest)),
            None => (bucket.variables(), None),
        };
        let Some(object) = store.head(name).await? else {
            return match expected {
                Some(_) => Err(source.incomplete_error(&format!(
                    "its UEFI variables ({}) are missing",
                    store.key(name)
                ))),
                None => Ok(Self::Unknown),
            };
        };
        let bytes = download(&store, &object, ctx).await?;
        let digest = hash_block(&bytes);
        if expected.is_some_and(|expected| expected != digest) {
            let summary = format!("{} is damaged", object.key);
            return Err(Error::new(Kind::Damaged, summary)
                .with_cause("its SHA-256 is not the one that its image names")
                .hint("push the snapshot again with --overwrite"));
        }
        Ok(Self::Fetched(FetchedVariables {
            object,
            bytes,
            digest,
        }))
    }

    /// Returns the variables beside a snapshot of another host.
    pub(crate) fn of_snapshot(source: &RemoteObject, bytes: Bytes) -> Self {
        let digest = hash_block(&bytes);
        Self::Fetched(FetchedVariables {
            object: Object {
                size_bytes: bytes.len() as u64,
                etag: Some(digest.to_string()),
                ..source.object.clone()
            },
            bytes,
            digest,
        })
    }

    /// Returns what the manifest of the image says of them.
    pub(crate) fn expected(&self) -> Option<ExpectedVariables> {
        match self {
            Self::Fetched(variables) => Some(ExpectedVariables::Digest(variables.digest)),
            Self::Absent => Some(ExpectedVariables::Absent),
            Self::Unknown => None,
        }
    }
}

async fn download(store: &Bucket, object: &Object, ctx: &Context) -> Result<Bytes> {
    refuse_long(&object.key, object.size_bytes)?;
    // Blocks arrive in any order.
    let blocks = Mutex::new(BTreeMap::new());
    let collect = |block: u64, data: Bytes| {
        let mut blocks = blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.insert(block, data);
        async { Ok(()) }
    };
    let (all, progress) = (BlockSet::all(object.size_bytes), ProgressCell::default());
    store
        .download(object, &all, collect, &progress, &ctx.cancel)
        .await?;
    let blocks = blocks.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(blocks.into_values().collect::<Vec<_>>().concat().into())
}

/// UEFI variables of a snapshot, downloaded from the bucket or read on another host.
pub(crate) struct FetchedVariables {
    object: Object,
    bytes: Bytes,
    digest: Digest,
}

impl FetchedVariables {
    /// Installs the variables, also in place of others.
    pub(crate) async fn install(&self, host: &Host, name: &SnapshotName) -> Result<()> {
        let path = host.snapshot_variables_path(name);
        let existing = host.fs().image_file(&path).await?;
        let replaced = existing.map(|file| file.stamp);
        let tag = self.object.etag.as_deref().unwrap_or_default();
        let content = Content {
            version: Some(format!("{} {tag}", self.object.key)),
            size_bytes: self.object.size_bytes,
        };
        let dir = host.variables_pull_dir(name);
        host.fs().remove_finished(&dir).await?;
        let writer = host.fs().open_writer(&dir, &content).await?;
        let result = async {
            writer.write_at(0, self.bytes.clone()).await?;
            writer.finish().await?;
            writer.rename_into_place(&path, replaced).await
        }
        .await;
        if result.is_err() {
            // The first error is reported.
            let _ = writer.discard().await;
        }
        result.map(|_| ())
    }
}

/// Returns the digest of the variables beside a snapshot of the host; `None` if there are none.
pub(crate) async fn local_digest(host: &Host, name: &SnapshotName) -> Result<Option<Digest>> {
    let path = host.snapshot_variables_path(name);
    match host.fs().has_file(&path).await? {
        true => Ok(Some(hash_block(&read_variables(host, &path).await?))),
        false => Ok(None),
    }
}

/// Returns why the variables beside a snapshot of the host are not those that its manifest names; `None` if they are.
pub(crate) async fn find_local_problem(
    host: &Host,
    name: &SnapshotName,
    expected: Option<ExpectedVariables>,
) -> Result<Option<String>> {
    let Some(expected) = expected else {
        return Ok(None);
    };
    let path = host.snapshot_variables_path(name);
    Ok(match (expected, local_digest(host, name).await?) {
        (ExpectedVariables::Absent, None) => None,
        (ExpectedVariables::Absent, Some(_)) => Some(format!(
            "{path} does not belong to it: its manifest says that it has no UEFI variables"
        )),
        (ExpectedVariables::Digest(_), None) => Some(format!(
            "it is incomplete: its UEFI variables ({path}) are missing"
        )),
        (ExpectedVariables::Digest(expected), Some(digest)) if expected == digest => None,
        (ExpectedVariables::Digest(_), Some(_)) => Some(format!(
            "the UEFI variables in {path} are not those of its manifest"
        )),
    })
}
