//! UEFI variables that belong to a snapshot: `NAME_VARS.fd` beside the image, on a host and in the bucket. A Windows
//! guest does not boot without its own. A snapshot without any is as good as one with.

use std::sync::Arc;

use bytes::Bytes;

use snapdeck_bucket::Bucket;
use snapdeck_host::{Content, FileReader, Host};
use snapdeck_model::{
    BlockSet, BufferPool, Error, Kind, Object, ProgressCell, Result, SnapshotName,
};

use crate::context::Context;

/// Firmware's flash memory is a few hundred KiB, and at most 16 MiB: what is longer is something else.
const MAX_BYTES: u64 = 16 << 20;

/// Reads the variables in the file `path` of the host.
pub(crate) async fn read_variables(host: &Host, path: &str) -> Result<Bytes> {
    read_whole_file(&host.open_reader(path).await?, path).await
}

/// As [`read`], of an opened file.
pub(crate) async fn read_whole_file(reader: &FileReader, path: &str) -> Result<Bytes> {
    let size = reader.size_bytes();
    refuse_long(path, size)?;
    reader
        .read_at(&BufferPool::default(), 0, size as usize)
        .await
}

/// Uploads the variables of `name`, whose image is in the bucket; without any, what the bucket has of another image is
/// removed.
pub(crate) async fn upload(
    bucket: &Bucket,
    variables: Option<&Bytes>,
    name: &SnapshotName,
    overwrite: bool,
    ctx: &Context,
) -> Result<()> {
    let beside = bucket.variables();
    let Some(bytes) = variables else {
        if overwrite && beside.head(name).await?.is_some() {
            beside.delete(name).await?;
            ctx.info(format!(
                "removed {}, which belonged to the previous image",
                beside.key(name)
            ));
        }
        return Ok(());
    };
    let part = |offset: u64, length: usize| {
        // Within 16 MiB.
        let start = offset as usize;
        let part = bytes.slice(start..start + length);
        async { Ok(part) }
    };
    beside
        .upload(
            name,
            bytes.len() as u64,
            part,
            overwrite,
            &ProgressCell::default(),
            &ctx.cancel,
        )
        .await?;
    ctx.info(format!("its UEFI variables are {}", beside.key(name)));
    Ok(())
}

fn refuse_long(what: &str, size: u64) -> Result<()> {
    match size <= MAX_BYTES {
        true => Ok(()),
        false => Err(Error::new(
            Kind::Damaged,
            format!("{what} has {size} bytes: not a UEFI variables file"),
        )),
    }
}

/// The variables of a snapshot, fetched from the bucket.
pub(crate) struct FetchedVariables {
    object: Object,
    bytes: Bytes,
}

impl FetchedVariables {
    /// Fetches them; `None` where the bucket has none.
    pub(crate) async fn fetch(
        bucket: &Bucket,
        name: &SnapshotName,
        ctx: &Context,
    ) -> Result<Option<Self>> {
        let beside = bucket.variables();
        let Some(object) = beside.head(name).await? else {
            return Ok(None);
        };
        refuse_long(&object.key, object.size_bytes)?;
        // Few bytes: they are collected in one piece, whatever the order they come in.
        let parts = Arc::new(std::sync::Mutex::new(Vec::new()));
        let take = |offset: u64, part: Bytes| {
            let parts = parts.clone();
            async move {
                let mut parts = parts
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                parts.push((offset, part));
                Ok(())
            }
        };
        let all = BlockSet::all(object.size_bytes);
        beside
            .download(&object, &all, take, &ProgressCell::default(), &ctx.cancel)
            .await?;
        let mut parts = std::mem::take(
            &mut *parts
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        parts.sort_unstable_by_key(|(offset, _)| *offset);
        let parts: Vec<Bytes> = parts.into_iter().map(|(_, part)| part).collect();
        let bytes = parts.concat().into();
        Ok(Some(Self { object, bytes }))
    }

    /// Refuses where the host has others of that name that may not be replaced.
    pub(crate) async fn refuse_existing(
        &self,
        host: &Host,
        name: &SnapshotName,
        replace: bool,
    ) -> Result<()> {
        let path = host.snapshot_variables_path(name);
        if replace || !host.has_file(&path).await? || self.is_equal_to_file(host, &path).await? {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            format!(
                "{path} already exists on host {} and differs from the one in the bucket",
                host.name()
            ),
        )
        .hint("move it away, or pass --overwrite to replace it"))
    }

    async fn is_equal_to_file(&self, host: &Host, path: &str) -> Result<bool> {
        let there = host.open_reader(path).await?;
        let length = self.bytes.len();
        Ok(there.size_bytes() == length as u64
            && there.read_at(&BufferPool::default(), 0, length).await? == self.bytes)
    }

    /// Puts them beside the image that is about to land: first, so that no image is there without its own. Returns
    /// the path where nothing was before.
    pub(crate) async fn publish(
        &self,
        host: &Host,
        name: &SnapshotName,
        replace: bool,
    ) -> Result<Option<String>> {
        let path = host.snapshot_variables_path(name);
        let there = host.has_file(&path).await?;
        if there && self.is_equal_to_file(host, &path).await? {
            return Ok(None);
        }
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
        let writer = host.open_writer(&partial, &content).await?;
        let landed = async {
            writer.write_at(0, self.bytes.clone()).await?;
            writer.finish().await?;
            writer.rename_into_place(&path, replace).await
        }
        .await;
        if landed.is_err() {
            // Whatever keeps it from being removed is told by the other error.
            let _ = writer.discard().await;
        }
        landed.map(|()| (!there).then_some(path))
    }
}
