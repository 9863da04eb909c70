//! UEFI variables of a snapshot: `NAME_VARS.fd` beside the image, on a host and in the bucket. A Windows guest does not
//! boot without its own; a snapshot without variables is valid too.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use humansize::{BINARY, format_size};

use snapdeck_bucket::Bucket;
use snapdeck_host::{Content, FileReader, Host};
use snapdeck_model::{
    BlockSet, BufferPool, Error, Kind, Object, ProgressCell, Result, SnapshotName,
};

use crate::context::Context;

/// Limit of a variables file: flash memory of firmware has a few hundred KiB, and 16 MiB at most.
const MAX_BYTES: u64 = 16 << 20;

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

/// Uploads the variables of `name`, whose image is in the bucket.
///
/// Without any, those of the image that was overwritten are removed.
pub(crate) async fn upload(
    bucket: &Bucket,
    variables: Option<&Bytes>,
    name: &SnapshotName,
    overwrite: bool,
    ctx: &Context,
) -> Result<()> {
    let store = bucket.variables();
    let Some(bytes) = variables else {
        if overwrite && let Some(object) = store.head(name).await? {
            store.delete_object(&object).await?;
            ctx.info(format!(
                "removed {}, which belonged to the previous image",
                store.key(name)
            ));
        }
        return Ok(());
    };
    let read = |offset: u64, length: usize| {
        // At most 16 MiB.
        let start = offset as usize;
        let part = bytes.slice(start..start + length);
        async { Ok(part) }
    };
    let progress = ProgressCell::default();
    let size_bytes = bytes.len() as u64;
    store
        .upload(name, size_bytes, read, overwrite, &progress, &ctx.cancel)
        .await?;
    ctx.info(format!("uploaded its UEFI variables: {}", store.key(name)));
    Ok(())
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

/// UEFI variables of a snapshot, downloaded from the bucket.
pub(crate) struct FetchedVariables {
    object: Object,
    bytes: Bytes,
}

impl FetchedVariables {
    /// Downloads the variables; `None` if the bucket has none.
    pub(crate) async fn fetch(
        bucket: &Bucket,
        name: &SnapshotName,
        ctx: &Context,
    ) -> Result<Option<Self>> {
        let store = bucket.variables();
        let Some(object) = store.head(name).await? else {
            return Ok(None);
        };
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
            .download(&object, &all, collect, &progress, &ctx.cancel)
            .await?;
        let blocks = blocks.into_inner().unwrap_or_else(PoisonError::into_inner);
        let bytes = blocks.into_values().collect::<Vec<_>>().concat().into();
        Ok(Some(Self { object, bytes }))
    }

    /// Fails if the host has other variables of that name that may not be replaced.
    pub(crate) async fn refuse_existing(
        &self,
        host: &Host,
        name: &SnapshotName,
        replace: bool,
    ) -> Result<()> {
        let path = host.snapshot_variables_path(name);
        if replace
            || !host.fs().has_file(&path).await?
            || self.is_equal_to_file(host, &path).await?
        {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            format!(
                "{path} already exists on host {} and differs from the one in the bucket",
                host.name()
            ),
        )
        .hint("move it elsewhere, or pass --overwrite to replace it"))
    }

    async fn is_equal_to_file(&self, host: &Host, path: &str) -> Result<bool> {
        let file = host.fs().open_reader(path).await?;
        let length = self.bytes.len();
        Ok(file.size_bytes() == length as u64
            && file.read_at(&BufferPool::default(), 0, length).await? == self.bytes)
    }

    /// Installs the variables before their image, so that no image is without them. Returns the path if it is new.
    pub(crate) async fn publish(
        &self,
        host: &Host,
        name: &SnapshotName,
        replace: bool,
    ) -> Result<Option<String>> {
        let path = host.snapshot_variables_path(name);
        let existing = host.fs().image_file(&path).await?;
        if existing.is_some() && self.is_equal_to_file(host, &path).await? {
            return Ok(None);
        }
        let replaced = existing.as_ref().map(|file| file.stamp);
        let tag = self.object.etag.as_deref().unwrap_or_default();
        let content = Content {
            version: Some(format!("{} {tag}", self.object.key)),
            size_bytes: self.object.size_bytes,
        };
        let partial = format!(
            "{}/.{}.partial",
            host.settings().snapshots_dir,
            name.variables_file_name()
        );
        let writer = host.fs().open_writer(&partial, &content).await?;
        let result = async {
            writer.write_at(0, self.bytes.clone()).await?;
            writer.finish().await?;
            let replaced = replaced.filter(|_| replace);
            writer.rename_into_place(&path, replaced).await
        }
        .await;
        if result.is_err() {
            // The first error is reported.
            let _ = writer.discard().await;
        }
        result.map(|()| existing.is_none().then_some(path))
    }
}
