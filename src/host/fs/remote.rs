//! The file system of a remote host: shell commands; the bytes of files go through [`super::file_session`].

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::blocks::{BlockCopy, BlockSender, format_stamp};
use super::errors::{explain, suggest_other_id, system_error};
use super::file_session::Mode;
use super::partial_owner::PartialOwner;
use super::remote_file::RemoteFile;
use super::remote_handles::{RemoteWriter, SftpReader};
use super::remote_stat::{HeaderCache, path_from_bytes};
use super::resume_log::Content;
use super::{FileReader, FileWriter, HostFiles, HostFs, PreopenedFile};
use crate::command::{CommandRunner, Output};
use crate::image_file::ImageFile;
use crate::reconnect::RetryPolicy;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{Error, FileStamp, Kind, Result};
use snapdeck_ownership::{OwnershipRecords, random_id};

const SCRIPT: &str = concat!(include_str!("../open_file.sh"), include_str!("remote.sh"));
/// For calls on names and on the first bytes of files.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// For removing a file, and for flushing a whole one to the disk.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// For flushing the data of one file.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// Most output of one command.
const MAX_OUTPUT_BYTES: usize = 64 << 20;

/// Returns the command that runs a verb of [`SCRIPT`]; `owner` is that of the host.
pub(super) fn script_argv<'a>(verb: &'a str, owner: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [&["sh", "-c", SCRIPT, "snapdeck", verb, owner], args].concat()
}

#[derive(Clone)]
pub(crate) struct RemoteFs {
    pub(super) settings: Arc<HostSettings>,
    pub(super) records: OwnershipRecords,
    pub(super) runner: CommandRunner,
    pub(super) retry_policy: RetryPolicy,
    pub(super) header_cache: HeaderCache,
}

impl RemoteFs {
    pub(crate) fn new(
        settings: Arc<HostSettings>,
        runner: CommandRunner,
        records: OwnershipRecords,
    ) -> Self {
        Self {
            settings,
            records,
            runner,
            retry_policy: RetryPolicy::no_retry(),
            header_cache: HeaderCache::default(),
        }
    }

    pub(crate) fn with_retry_policy(&self, policy: RetryPolicy) -> Self {
        Self {
            retry_policy: policy,
            ..self.clone()
        }
    }

    /// Runs one verb of the script; `action` completes "cannot ... on host NAME".
    pub(super) async fn call(
        &self,
        action: &str,
        verb: &str,
        args: &[&str],
        deadline: Duration,
    ) -> Result<Output> {
        let argv = script_argv(verb, &self.settings.owner, args);
        let never = CancellationToken::new();
        let run = || {
            self.runner
                .run_raw(&argv, MAX_OUTPUT_BYTES, deadline, &never)
        };
        let output = self.retry_policy.call(run).await?;
        self.check_status(action, output)
    }

    fn check_status(&self, action: &str, output: Output) -> Result<Output> {
        match output.status.success() {
            true => Ok(output),
            false => Err(system_error(self.summary(action), &output.stderr)),
        }
    }

    fn summary(&self, action: &str) -> String {
        format!("cannot {action} on host {}", self.runner.host())
    }

    pub(super) async fn call_line(
        &self,
        action: &str,
        verb: &str,
        args: &[&str],
        deadline: Duration,
    ) -> Result<String> {
        let output = self.call(action, verb, args, deadline).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.trim_end_matches('\n').to_owned())
    }

    pub(super) async fn rename_into_place(
        &self,
        from: &str,
        to: &str,
        replaced: Option<FileStamp>,
        inode: &str,
    ) -> Result<()> {
        let stamp = replaced.map(format_stamp).unwrap_or_default();
        let action = format!("rename {from} to {to}");
        let args = [from, to, &stamp, inode];
        self.call(&action, "rename_into_place", &args, SYNC_TIMEOUT)
            .await
            .map(|_| ())
    }

    async fn open(&self, path: &str, mode: Mode) -> Result<RemoteFile> {
        let (runner, policy) = (self.runner.clone(), self.retry_policy.clone());
        RemoteFile::open(runner, policy, &self.settings.owner, path, mode).await
    }

    /// Runs a verb that reads a whole file from stdin.
    async fn send_file(&self, action: &str, verb: &str, path: &str, bytes: &[u8]) -> Result<()> {
        let size = bytes.len().to_string();
        let attempts = AtomicUsize::new(0);
        let run = async || {
            let token = random_id();
            let mut args = vec![path, &*token, &*size];
            if attempts.fetch_add(1, Relaxed) > 0 {
                args.push("again");
            }
            let argv = script_argv(verb, &self.settings.owner, &args);
            let output = self.runner.run_with_input(&argv, bytes, CALL_TIMEOUT);
            self.check_status(action, output.await?)
        };
        self.retry_policy.call(run).await.map(|_| ())
    }
}

#[async_trait]
impl HostFs for RemoteFs {
    async fn image_file(&self, path: &str) -> Result<Option<ImageFile>> {
        let mut files = self.stat_files(&[PathBuf::from(path)]).await?;
        match files.pop().map(|status| status.file) {
            Some(Ok(file)) => Ok(Some(file)),
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                Err(explain(self.summary(&format!("read {path}")), &error))
            }
            _ => Ok(None),
        }
    }

    async fn open_reader(&self, path: &str) -> Result<FileReader> {
        Ok(Box::new(self.open(path, Mode::Read).await?))
    }

    async fn preopen(&self, path: &str) -> PreopenedFile {
        let sftp = SftpReader::open(&self.runner, &self.settings.owner, path).await;
        PreopenedFile::new(HostFiles::Remote(self.clone()), path, sftp)
    }

    async fn open_writer(&self, path: &str, content: &Content) -> Result<FileWriter> {
        let mode = Mode::Write {
            content: content.clone(),
            partial: PartialOwner::new(&self.records, &self.settings, path),
        };
        let file = self.open(path, mode).await?;
        Ok(Box::new(RemoteWriter::new(self, file)))
    }

    async fn open_for_repair(&self, path: &str) -> Result<FileWriter> {
        let file = self.open(path, Mode::Repair).await?;
        Ok(Box::new(RemoteWriter::new(self, file)))
    }

    async fn hash_blocks(
        &self,
        path: &str,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        self.hash(path, blocks, results, cancel).await
    }

    async fn remove_files(&self, paths: &[&str]) -> Result<bool> {
        let action = format!("remove {}", paths.join(", "));
        let reply = self
            .call_line(&action, "remove_files", paths, SYNC_TIMEOUT)
            .await?;
        Ok(reply == "removed")
    }

    async fn remove_second_name(&self, partial: &str) -> Result<()> {
        let action = format!("remove {partial}");
        self.call(&action, "remove_second_name", &[partial], SYNC_TIMEOUT)
            .await?;
        Ok(())
    }

    async fn read_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let action = format!("read {path}");
        let args = [path, &limit.to_string()];
        let output = self.call(&action, "read_file", &args, CALL_TIMEOUT).await?;
        Ok(output.stdout.strip_prefix(b"exists\n").map(<[u8]>::to_vec))
    }

    async fn write_file(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        self.send_file(&format!("write {path}"), "write_file", path, &bytes)
            .await
    }

    async fn create_file(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        self.send_file(&format!("create {path}"), "create_file", path, &bytes)
            .await
    }

    async fn create_new(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        self.send_file(&format!("create {path}"), "create_new", path, &bytes)
            .await
            .map_err(suggest_other_id)
    }

    async fn flush_file(&self, path: &str, cancel: &CancellationToken) -> Result<()> {
        let output = self
            .runner
            .run_raw(
                &["sync", "--data", "--", path],
                MAX_OUTPUT_BYTES,
                FLUSH_TIMEOUT,
                cancel,
            )
            .await?;
        self.check_status(&format!("flush {path}"), output)
            .map(|_| ())
    }

    async fn free_bytes(&self, dir: &str) -> Result<u64> {
        let action = format!("read the free space of {dir}");
        let reply = self
            .call_line(&action, "free_bytes", &[dir], CALL_TIMEOUT)
            .await?;
        let product = reply.split_once(' ').and_then(|(blocks, size)| {
            let (blocks, size): (u64, u64) = (blocks.parse().ok()?, size.parse().ok()?);
            Some(blocks.saturating_mul(size))
        });
        product.ok_or_else(|| {
            Error::new(Kind::Failed, self.summary(&action))
                .with_cause(format!("unexpected output of stat: {reply:?}"))
        })
    }

    async fn canonicalize(&self, paths: &[&str]) -> Result<Vec<PathBuf>> {
        let output = self
            .call("read file metadata", "canonicalize", paths, CALL_TIMEOUT)
            .await?;
        let fields = output.stdout.split(|byte| *byte == 0).map(path_from_bytes);
        Ok(fields.take(paths.len()).collect())
    }
}
