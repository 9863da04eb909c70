//! The file system of a remote host: shell commands; the bytes of files go through [`super::file_session`].

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::blocks::{BlockCopy, BlockSender, format_stamp, parse_stamp};
use super::errors::{explain, suggest_other_id, system_error};
use super::file_session::Mode;
use super::pull_dir::{FILE_NAME, FILE_PATH, PullDir, PullDirRecords, unmarked_error};
use super::remote_file::RemoteFile;
use super::remote_handles::{RemoteWriter, SftpReader};
use super::remote_stat::{HeaderCache, TOO_MANY_LINKS, path_from_bytes};
use super::resume_log::Content;
use super::{Checksum, FileReader, FileWriter, HostAnswer, HostFiles, HostFs, PreopenedFile};
use crate::command::{CommandRunner, Output};
use crate::image_file::ImageFile;
use crate::reconnect::RetryPolicy;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{BlockSet, Error, FileStamp, Kind, PresignedRequest, ProgressCell, Result};
use snapdeck_ownership::{OwnerMark, OwnershipRecords, random_id};

/// Each command sends it: its comments are two fifths of the bytes.
static SCRIPT: LazyLock<String> = LazyLock::new(|| {
    without_comments(concat!(
        include_str!("../open_file.sh"),
        include_str!("../private_dir.sh"),
        include_str!("../lock_file.sh"),
        include_str!("remote.sh")
    ))
});
/// For calls on names and on the first bytes of files.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// For removing a file, and for flushing a whole one to the disk.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// For flushing the data of one file.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a reply of one line.
const MAX_LINE_BYTES: usize = 4096;
/// Most output of one command.
const MAX_OUTPUT_BYTES: usize = 64 << 20;

/// Between the snapshots directory and the path of a file in that of an organization, for the script.
pub(super) const PIN: &str = "/./";

/// Returns the path that [`RemoteFs::script_path`] was called with, for messages.
pub(super) fn shown_path(path: &str) -> String {
    path.replacen(PIN, "/", 1)
}

/// Returns the error behind the `message` of a script that ran with `args`; it names paths as [`RemoteFs::script_path`] was given
/// them.
pub(super) fn script_error(summary: String, message: &str, args: &[&str]) -> Error {
    let pinned = args.iter().find(|arg| arg.contains(PIN));
    let dir = pinned.and_then(|path| Some(shown_path(path).rsplit_once('/')?.0.to_owned()));
    let Some(dir) = dir else {
        return system_error(summary, message);
    };
    // As `pin` (open_file.sh) names the directory of an organization, and files of a missing one.
    let message = message
        .replace("/proc/self/fd/5/", &format!("{dir}/"))
        .replace("/proc/self/missing/", &format!("{dir}/"));
    system_error(summary, &message)
}

/// Returns a script without the lines that are comments.
fn without_comments(script: &str) -> String {
    let lines = script.split_inclusive('\n');
    lines
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect()
}

/// Returns the command that runs a verb of [`SCRIPT`], in the directory `dir` if there is one; `owner` is that of the host.
pub(super) fn script_argv<'a>(
    verb: &'a str,
    owner: &'a str,
    dir: Option<&'a PullDir>,
    args: &[&'a str],
) -> Vec<&'a str> {
    let script = ["sh", "-c", SCRIPT.as_str(), "snapdeck"];
    match dir {
        None => [&script[..], &[verb, owner], args].concat(),
        Some(dir) => [&script[..], &["in", owner], &dir.words(), &[verb], args].concat(),
    }
}

#[derive(Clone)]
pub(crate) struct RemoteFs {
    pub(super) settings: Arc<HostSettings>,
    pub(super) records: OwnershipRecords,
    pub(super) runner: CommandRunner,
    pub(super) retry_policy: RetryPolicy,
    pub(super) header_cache: HeaderCache,
    /// The directory in which all commands run, with relative names.
    pub(super) dir: Option<Arc<PullDir>>,
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
            dir: None,
        }
    }

    /// Returns the files in `dir`, which are named by relative paths.
    pub(super) fn inside(&self, dir: Option<&PullDir>) -> Self {
        Self {
            header_cache: HeaderCache::default(),
            dir: dir.cloned().map(Arc::new),
            ..self.clone()
        }
    }

    /// Returns the command that runs a verb of the script.
    pub(super) fn argv<'a>(&'a self, verb: &'a str, args: &[&'a str]) -> Vec<&'a str> {
        script_argv(verb, &self.settings.owner, self.dir.as_deref(), args)
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
        let argv = self.argv(verb, args);
        let never = CancellationToken::new();
        let run = || {
            self.runner
                .run_raw(&argv, MAX_OUTPUT_BYTES, deadline, &never)
        };
        let output = self.retry_policy.call(run).await?;
        self.check_status(action, output, args)
    }

    /// Returns the path for the script, which follows no link to the directory of an organization (open_file.sh, `pin`).
    pub(super) fn script_path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match self.settings.split_organization(path) {
            Some((organization, name)) => {
                let dir = &self.settings.snapshots_dir;
                format!("{dir}{PIN}{organization}/{name}").into()
            }
            // A path with such a part is not to be one of an organization.
            None if path.contains(PIN) => {
                let path: PathBuf = Path::new(path).components().collect();
                path.to_string_lossy().into_owned().into()
            }
            None => path.into(),
        }
    }

    fn check_status(&self, action: &str, output: Output, args: &[&str]) -> Result<Output> {
        match output.status.success() {
            true => Ok(output),
            false => Err(script_error(self.summary(action), &output.stderr, args)),
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
        // It is kept or printed.
        let short = output
            .stdout
            .get(..MAX_LINE_BYTES)
            .unwrap_or(&output.stdout);
        let text = String::from_utf8_lossy(short);
        Ok(text.trim_end_matches('\n').to_owned())
    }

    /// Renames the file of a pull, in whose directory commands run, to `path` beside the directory.
    pub(super) async fn rename_into_place(
        &self,
        path: &str,
        replaced: Option<FileStamp>,
        inode: &str,
    ) -> Result<Option<FileStamp>> {
        let stamp = replaced.map(format_stamp).unwrap_or_default();
        let dir = self.dir.as_deref().map_or("", PullDir::path);
        let action = format!("rename {dir}/{FILE_NAME} to {path}");
        let parent = dir.rsplit_once('/').map_or("", |(parent, _)| parent);
        let name = path
            .strip_prefix(parent)
            .and_then(|name| name.strip_prefix('/'));
        let to = match (name, self.settings.split_organization(path)) {
            (Some(name), None) if !name.contains('/') => format!("../{name}"),
            (Some(_), Some((organization, name))) if parent == self.settings.snapshots_dir => {
                format!(".././{organization}/{name}")
            }
            _ => {
                return Err(Error::new(Kind::InvalidInput, self.summary(&action))
                    .with_cause(format!("it is not beside {dir}")));
            }
        };
        let args = [FILE_PATH, &*to, &*stamp, inode];
        let reply = self.call_line(&action, "rename_into_place", &args, SYNC_TIMEOUT);
        Ok(parse_stamp(&reply.await?))
    }

    /// Creates the directory of a pull, or uses an existing one.
    async fn make_pull(&self, path: &str) -> Result<PullDir> {
        let records = PullDirRecords::new(&self.records, &self.settings, path);
        let claimed = records.claim();
        let action = format!("create {path}");
        let args = [path, &*claimed.to_text()];
        let reply = match self
            .call_line(&action, "make_pull", &args, CALL_TIMEOUT)
            .await
        {
            Ok(reply) => reply,
            Err(error) => {
                // If the response was lost, it may exist.
                if error.kind() != Kind::Unreachable {
                    records.forget(&claimed.id);
                }
                return Err(error);
            }
        };
        let entered = reply.split_once('\n').and_then(|(identity, mark)| {
            let found = OwnerMark::parse(mark.as_bytes())?;
            Some(records.entered(&claimed, found, identity.to_owned()))
        });
        entered.ok_or_else(|| {
            records.forget(&claimed.id);
            explain(self.summary(&action), &unmarked_error(path))
        })
    }

    /// Removes the directory in which commands run.
    pub(super) async fn remove_pull(&self) -> Result<()> {
        let Some(dir) = &self.dir else {
            return Ok(());
        };
        let action = format!("remove {}", dir.path());
        let outside = self.inside(None);
        outside
            .call(&action, "remove_pull", &dir.words(), SYNC_TIMEOUT)
            .await?;
        dir.forget();
        Ok(())
    }

    async fn open(&self, path: &str, mode: Mode) -> Result<RemoteFile> {
        let (runner, policy) = (self.runner.clone(), self.retry_policy.clone());
        let path = self.script_path(path);
        RemoteFile::open(runner, policy, &self.settings.owner, &path, mode).await
    }

    /// Reads the first `limit` bytes of a file that fits `owner`, as the verb `read_file`.
    async fn read_head(
        &self,
        path: &str,
        script_path: &str,
        limit: u64,
        owner: &str,
    ) -> Result<Option<Vec<u8>>> {
        const EXISTS: &[u8] = b"exists\n";
        let (action, text) = (format!("read {path}"), limit.to_string());
        let args = [script_path, &*text, owner];
        let argv = self.argv("read_file", &args);
        let max_bytes = usize::try_from(limit).map_or(MAX_OUTPUT_BYTES, |limit| {
            limit.saturating_add(EXISTS.len()).min(MAX_OUTPUT_BYTES)
        });
        let never = CancellationToken::new();
        let run = || self.runner.run_raw(&argv, max_bytes, CALL_TIMEOUT, &never);
        let output = self.check_status(&action, self.retry_policy.call(run).await?, &args)?;
        let mut bytes = output.stdout;
        Ok(bytes
            .starts_with(EXISTS)
            .then(|| bytes.split_off(EXISTS.len())))
    }

    /// Runs a verb that reads a whole file from stdin.
    async fn send_file(&self, action: &str, verb: &str, path: &str, bytes: &[u8]) -> Result<()> {
        let size = bytes.len().to_string();
        let attempts = AtomicUsize::new(0);
        let run = async || {
            let (token, path) = (random_id(), self.script_path(path));
            let mut args = vec![&*path, &*token, &*size];
            if attempts.fetch_add(1, Relaxed) > 0 {
                args.push("again");
            }
            let argv = self.argv(verb, &args);
            let output = self.runner.run_with_input(&argv, bytes, CALL_TIMEOUT);
            self.check_status(action, output.await?, &args)
        };
        self.retry_policy.call(run).await.map(|_| ())
    }
}

#[async_trait]
impl HostFs for RemoteFs {
    async fn image_file(&self, path: &str) -> Result<Option<ImageFile>> {
        let is_pinned = self.settings.split_organization(path).is_some();
        let status = match is_pinned {
            true => self.stat_pinned(path).await?,
            false => self.stat_files(&[PathBuf::from(path)]).await?.pop(),
        };
        match status.map(|status| status.file) {
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
        let file = self.script_path(path);
        let sftp = SftpReader::open(&self.runner, &self.settings.owner, &file).await;
        PreopenedFile::new(HostFiles::Remote(self.clone()), path, sftp)
    }

    async fn open_writer(&self, dir: &str, content: &Content) -> Result<FileWriter> {
        let pull_dir = self.make_pull(dir).await?;
        let fs = self.inside(Some(&pull_dir));
        let mode = Mode::Write {
            content: content.clone(),
            dir: pull_dir,
        };
        let path = format!("{dir}/{FILE_NAME}");
        match self.open(&path, mode).await {
            Ok(file) => Ok(Box::new(RemoteWriter::new(fs, file))),
            Err(error) => {
                // A new one has nothing to resume. The first error is reported.
                let _ = self.remove_finished(dir).await;
                Err(error)
            }
        }
    }

    async fn open_for_repair(&self, path: &str, stamp: FileStamp) -> Result<FileWriter> {
        let file = self.open(path, Mode::Repair(stamp)).await?;
        Ok(Box::new(RemoteWriter::new(self.clone(), file)))
    }

    async fn hash_blocks(
        &self,
        path: &str,
        stamp: Option<FileStamp>,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        self.hash(path, stamp, blocks, results, cancel).await
    }

    async fn part_checksums(
        &self,
        file: (&str, Option<FileStamp>),
        checksum: Checksum,
        lengths: &[u64],
        progress: &Arc<ProgressCell>,
        cancel: &CancellationToken,
    ) -> Result<Vec<Vec<u8>>> {
        self.checksums(file, checksum, lengths, progress, cancel)
            .await
    }

    async fn hole_blocks(&self, path: &str, stamp: Option<FileStamp>) -> Result<BlockSet> {
        self.find_holes(path, stamp).await
    }

    async fn remove_files(&self, paths: &[&str]) -> Result<bool> {
        let action = format!("remove {}", paths.join(", "));
        let files: Vec<Cow<str>> = paths.iter().map(|path| self.script_path(path)).collect();
        let args: Vec<&str> = files.iter().map(|path| &**path).collect();
        let reply = self
            .call_line(&action, "remove_files", &args, SYNC_TIMEOUT)
            .await?;
        Ok(reply == "removed")
    }

    async fn remove_finished(&self, dir: &str) -> Result<()> {
        let records = PullDirRecords::new(&self.records, &self.settings, dir);
        let recorded = if records.has_any() { "recorded" } else { "" };
        let (action, verb) = (format!("remove {dir}"), "remove_finished_pull");
        let args = [dir, recorded];
        let output = self.call(&action, verb, &args, SYNC_TIMEOUT).await?;
        match &*output.stdout {
            b"" => {}
            b"\n" => records.forget_all(),
            mark => {
                if let Some(mark) = OwnerMark::parse(mark) {
                    records.forget(&mark.id);
                }
            }
        }
        Ok(())
    }

    async fn read_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.read_head(path, &self.script_path(path), limit, "")
            .await
    }

    async fn read_own_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.read_head(path, &self.script_path(path), limit, "own")
            .await
    }

    async fn read_trusted(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.read_head(path, path, limit, "trusted").await
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
        let file = self.script_path(path);
        let args = [&*file];
        let argv = self.argv("flush_file", &args);
        let output = self
            .runner
            .run_raw(&argv, MAX_OUTPUT_BYTES, FLUSH_TIMEOUT, cancel)
            .await?;
        self.check_status(&format!("flush {path}"), output, &args)
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

    async fn try_request(&self, request: &PresignedRequest) -> Result<Option<HostAnswer>> {
        self.send_from_host(request).await.map(Some)
    }

    async fn canonicalize(&self, paths: &[&str]) -> Result<Vec<PathBuf>> {
        let output = self
            .call("read file metadata", "canonicalize", paths, CALL_TIMEOUT)
            .await?;
        let fields = output.stdout.split(|byte| *byte == 0);
        let canonical = fields.zip(paths).map(|(bytes, path)| match bytes {
            [] => Err(
                Error::new(Kind::Failed, self.summary(&format!("resolve {path}")))
                    .with_cause(TOO_MANY_LINKS),
            ),
            bytes => Ok(path_from_bytes(bytes)),
        });
        canonical.collect()
    }
}
