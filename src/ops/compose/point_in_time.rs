//! The disk of a running sandbox as of one point in time, readable while its guest keeps writing.

use std::time::Duration;

use bytes::Bytes;

use snapdeck_host::{Backup, Export, FileReader};
use snapdeck_model::{BufferPool, Consistency, Error, Kind, Phase, Result};
use snapdeck_qcow2::{ReadRequest, TableBudget, Tables};

use super::abort::ComposeAbort;
use super::layer::{ClusterData, read_tables};
use crate::context::Context;

/// A captured disk, and the backup that preserves it.
pub(super) struct PointInTime {
    pub backup: Backup,
    pub disk: CapturedDisk,
}

pub(super) struct CapturedDisk {
    pub overlay: OverlaySource,
    pub pause_duration: Duration,
    pub consistency: Consistency,
    pub variables: Option<Bytes>,
}

/// The source of the overlay's clusters.
pub(super) enum OverlaySource {
    /// The overlay's tables, and the whole disk as the backup job exports it.
    Export {
        tables: Box<Tables>,
        export: Export,
    },
    Copy(FileReader),
}

impl PointInTime {
    /// Returns the tables of the overlay.
    pub(super) async fn read_tables(&self, buffers: &BufferPool) -> Result<Tables, ComposeAbort> {
        match &self.disk.overlay {
            OverlaySource::Export { tables, .. } => Ok(Tables::clone(tables)),
            OverlaySource::Copy(reader) => {
                read_tables(buffers, &TableBudget::default(), reader).await
            }
        }
    }

    /// Reads what the composer requested of the overlay.
    pub(super) async fn read(
        &self,
        buffers: &BufferPool,
        request: &ReadRequest,
    ) -> Result<ClusterData> {
        match &self.disk.overlay {
            OverlaySource::Export { export, .. } => {
                let bytes = export.read(buffers, &request.guest_ranges()).await?;
                Ok(ClusterData::Guest(bytes))
            }
            OverlaySource::Copy(reader) => {
                // A few MiB at most.
                let (offset, length) = (request.host_range().start, request.host_bytes() as usize);
                let bytes = reader.read_at(buffers, offset, length).await?;
                Ok(ClusterData::Host(bytes))
            }
        }
    }

    /// Waits until the backup job fails, and returns why.
    pub(super) async fn backup_error(&self) -> Error {
        match &self.disk.overlay {
            OverlaySource::Export { .. } => self.backup.wait_for_failure().await,
            OverlaySource::Copy(_) => std::future::pending().await,
        }
    }

    /// Returns the cause of `error`, a failed read: why the backup job ended, if it did.
    pub(super) async fn explain(&self, error: Error) -> Error {
        match (&self.disk.overlay, error.kind()) {
            (OverlaySource::Export { .. }, Kind::Unreachable) => {
                self.backup.diagnose().await.unwrap_or(error)
            }
            _ => error,
        }
    }

    /// Ends the backup and removes its files from the host.
    pub(super) async fn end(self, ctx: &Context) {
        drop(self.disk);
        end_backup(self.backup, ctx).await;
    }
}

pub(super) async fn end_backup(backup: Backup, ctx: &Context) {
    ctx.progress.enter(Phase::CleaningUp, 0);
    let dir = backup.dir().to_owned();
    // The watchdog keeps trying, and so does the next start of snapdeck.
    if let Err(error) = backup.clear().await {
        ctx.warn(format!("{error}; the watchdog removes {dir}"));
    }
}
