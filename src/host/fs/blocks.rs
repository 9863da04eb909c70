//! Blocks of a host's files, hashed and copied on the host itself, so that their bytes are not transferred.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::checked_open::check_stamp;
use super::file_session::OpenInfo;
use super::local::LocalFs;
use super::pinned::open_pinned;
use super::remote::{RemoteFs, script_error};
use super::remote_handles::RemoteWriter;
use super::session_commands::{command_error, send_heartbeats};
use crate::command::{Input, bounded_lines, read_text};
use crate::digest::BlockHasher;
use crate::image_file::file_stamp;
use snapdeck_libvirt::{begin_sync, clone_range};
use snapdeck_model::{BLOCK_BYTES, Digest, Error, FileStamp, Kind, Result, printable_within};

/// For one block.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// For sharing all extents of a file, which moves no bytes.
const SHARE_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of one read or write.
const CHUNK_BYTES: u64 = 1 << 20;
/// Blocks in progress; hashing takes most of the time.
const CONCURRENCY: usize = 4;
/// Blocks in one command, whose length is limited (128 KiB; Linux, execve(2)).
const MAX_BLOCKS_PER_COMMAND: usize = 1000;
/// Bytes of the line for a block: a digest, and a name.
const MAX_LINE_BYTES: u64 = 1024;
/// Characters of an unexpected output in a message.
const MAX_TEXT_CHARS: usize = 40;

/// A block to hash, or to copy to another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// Number in the source file, from 0.
    pub source: u64,
    /// Number in the target file.
    pub target: u64,
    /// Length in bytes.
    pub size_bytes: u64,
}

/// The state of a block that was hashed or copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockState {
    /// The digest of its bytes, which were read.
    Hashed(Digest),
    /// It shares the extents of a file that has not changed since its digests were recorded; it was not read.
    Trusted,
    /// The file ends before it.
    Unreadable,
}

/// Receives the state of each block as it is finished.
pub type BlockSender = UnboundedSender<(BlockCopy, BlockState)>;

/// A file that blocks are copied from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySource {
    /// Path on the host.
    pub path: String,
    /// The stamp with which the digests of its blocks were recorded.
    pub stamp: Option<FileStamp>,
}

impl LocalFs {
    /// Reads and hashes blocks of a file, which has `stamp` all the time.
    pub(crate) async fn hash(
        &self,
        path: &str,
        stamp: Option<FileStamp>,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let file = Arc::new(self.open(path, stamp).await?);
        self.hash_file(path, file.clone(), blocks, results, cancel)
            .await?;
        let check = move || check_stamp(&file, stamp);
        self.run(format!("read {path}"), BLOCK_TIMEOUT, check).await
    }

    /// Reads and hashes blocks of an open file; `path` is its name.
    pub(crate) async fn hash_file(
        &self,
        path: &str,
        file: Arc<File>,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let hash = move |block| match read_and_hash(&file, block, |_, _| Ok(())) {
            Ok(digest) => Ok(BlockState::Hashed(digest)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Ok(BlockState::Unreadable)
            }
            // An error of the disk says nothing of the file's content.
            Err(error) => Err(error),
        };
        self.for_each_block(format!("read {path}"), blocks, results, cancel, hash)
            .await
    }

    /// Copies blocks of `source` into `target`.
    ///
    /// While `source` has its stamp, its extents are shared if the file system can; otherwise the blocks are read, hashed
    /// and written.
    pub(crate) async fn copy_blocks(
        &self,
        source: &CopySource,
        target: Arc<File>,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let file = Arc::new(self.open(&source.path, None).await?);
        let stamp = source.stamp;
        let can_share = Arc::new(AtomicBool::new(true));
        // The kernel serialises the writes to a file: a thread that waits there spins, one that waits here leaves
        // the CPU to hashing.
        let write_lock = Arc::new(Mutex::new(()));
        let copy = move |block: BlockCopy| {
            let is_unchanged = || Ok::<_, io::Error>(Some(file_stamp(&file.metadata()?)) == stamp);
            let lock_writes = || write_lock.lock().unwrap_or_else(PoisonError::into_inner);
            let (from, to) = (block.source * BLOCK_BYTES, block.target * BLOCK_BYTES);
            let size = block.size_bytes;
            if can_share.load(Relaxed) && is_unchanged()? {
                let is_shared = check_clone(clone_range(&file, from, size, &target, to))?;
                can_share.store(is_shared, Relaxed);
                // It may have changed meanwhile.
                if is_shared && is_unchanged()? {
                    return Ok(BlockState::Trusted);
                }
            }
            let write = |offset, bytes: &[u8]| {
                let _lock = lock_writes();
                target.write_all_at(bytes, to + offset)
            };
            let digest = read_and_hash(&file, block, write)?;
            begin_sync(&target, to, size);
            Ok(BlockState::Hashed(digest))
        };
        let action = format!("copy from {}", source.path);
        self.for_each_block(action, blocks, results, cancel, copy)
            .await
    }

    async fn open(&self, path: &str, stamp: Option<FileStamp>) -> Result<File> {
        let (name, settings) = (path.to_owned(), self.settings.clone());
        let open = move || {
            let file = open_pinned(&settings, &name)?;
            check_stamp(&file, stamp)?;
            Ok(file)
        };
        self.run(format!("open {path}"), BLOCK_TIMEOUT, open).await
    }

    async fn for_each_block(
        &self,
        action: String,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
        call: impl Fn(BlockCopy) -> io::Result<BlockState> + Clone + Send + Sync + 'static,
    ) -> Result<()> {
        let (action, call) = (&action, &call);
        let tasks = blocks.iter().map(|block| {
            let (block, call) = (*block, call.clone());
            let task = async move {
                if cancel.is_cancelled() {
                    return Err(Error::cancelled(action));
                }
                let state = self
                    .run(action.clone(), BLOCK_TIMEOUT, move || call(block))
                    .await?;
                // The receiver may have been dropped.
                let _ = results.send((block, state));
                Ok(())
            };
            task.boxed()
        });
        run_concurrently(tasks.collect()).await
    }
}

/// Runs the tasks, a few at once, until one fails.
async fn run_concurrently(tasks: Vec<BoxFuture<'_, Result<()>>>) -> Result<()> {
    let tasks = futures_util::stream::iter(tasks).buffer_unordered(CONCURRENCY);
    tasks.try_collect().await
}

/// Returns whether the file system shares the extents: if it cannot, the caller copies; a full disk is an error.
fn check_clone(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(error),
        Err(_) => Ok(false),
    }
}

/// Reads and hashes a block in chunks, each of which is passed to `on_chunk` with its offset in the block.
fn read_and_hash(
    file: &File,
    block: BlockCopy,
    on_chunk: impl Fn(u64, &[u8]) -> io::Result<()>,
) -> io::Result<Digest> {
    let mut hasher = BlockHasher::default();
    let mut buffer = vec![0; CHUNK_BYTES.min(block.size_bytes) as usize];
    let mut done = 0;
    while done < block.size_bytes {
        let length = CHUNK_BYTES.min(block.size_bytes - done) as usize;
        let chunk = &mut buffer[..length];
        file.read_exact_at(chunk, block.source * BLOCK_BYTES + done)?;
        hasher.update(chunk);
        on_chunk(done, chunk)?;
        done += length as u64;
    }
    Ok(hasher.finish())
}

/// Formats inode, modification time, length and, if known, change time as the script's stat(1) does.
pub(super) fn format_stamp(stamp: FileStamp) -> String {
    const SECOND_NS: i128 = 1_000_000_000;
    let FileStamp {
        inode,
        modified_ns,
        size_bytes,
        changed_ns,
    } = stamp;
    let format_time = |time_ns: i128| {
        let (seconds, ns) = (time_ns.div_euclid(SECOND_NS), time_ns.rem_euclid(SECOND_NS));
        format!("{seconds}.{ns:09}")
    };
    let changed = changed_ns.map(|changed| format!(" {}", format_time(changed)));
    let (modified, changed) = (format_time(modified_ns), changed.unwrap_or_default());
    format!("{inode} {modified} {size_bytes}{changed}")
}

/// Parses what [`format_stamp`] formats, with a change time.
pub(super) fn parse_stamp(text: &str) -> Option<FileStamp> {
    let mut fields = text.split(' ');
    let stamp = FileStamp {
        inode: fields.next()?.parse().ok()?,
        modified_ns: parse_time_ns(fields.next()?)?,
        size_bytes: fields.next()?.parse().ok()?,
        changed_ns: Some(parse_time_ns(fields.next()?)?),
    };
    fields.next().is_none().then_some(stamp)
}

/// Parses a time of stat(1), seconds with nine decimals.
pub(super) fn parse_time_ns(text: &str) -> Option<i128> {
    let (seconds, nanoseconds) = text.split_once('.')?;
    // Numbers of 64 bits: their product fits.
    let (seconds, nanoseconds): (i64, u32) = (seconds.parse().ok()?, nanoseconds.parse().ok()?);
    Some(i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds))
}

/// A verb of the script that prints one line for each block.
#[derive(Clone, Copy)]
struct BlockVerb<'a> {
    name: &'a str,
    /// The file that it reads.
    path: &'a str,
    /// The stamp that the file must have; any if it is empty.
    stamp: &'a str,
    /// The writer to whose file it writes, if it does.
    writer: Option<&'a RemoteWriter>,
}

/// Blocks of one command.
#[derive(Clone, Copy)]
struct Batch<'a> {
    verb: BlockVerb<'a>,
    blocks: &'a [BlockCopy],
    /// Number of those that are finished.
    done: &'a AtomicUsize,
    results: &'a BlockSender,
}

impl RemoteWriter {
    /// Copies blocks of `source` into the file, and hashes the copies.
    pub(super) async fn copy_blocks(
        &self,
        source: &CopySource,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let verb = BlockVerb {
            name: "copy_blocks",
            path: &source.path,
            stamp: "",
            writer: Some(self),
        };
        let action = format!("copy from {}", source.path);
        self.fs
            .for_each_block(&action, verb, blocks, results, cancel)
            .await
    }

    /// Replaces the content of the file by the extents of `source`, if its file system can share them and `source` has its
    /// stamp; returns whether it did. Otherwise the content is undefined.
    pub(super) async fn share_extents(&self, source: &CopySource) -> Result<bool> {
        let Some(stamp) = &source.stamp.map(format_stamp) else {
            return Ok(false);
        };
        let (path, host) = (&*source.path, self.fs.runner.host());
        let file = &*self.fs.script_path(path);
        // One that was killed may have left another size.
        let size = self.file.open_info().size_bytes.to_string();
        let size = &*size;
        let share = move |info: OpenInfo| {
            let work = async move {
                let args = [file, &*info.descriptor, &*info.inode, size, &**stamp];
                let summary = format!("cannot share {path} on host {host}");
                self.call_beside(summary, ("share_extents", &args), SHARE_TIMEOUT)
                    .await
            };
            work.boxed()
        };
        let reply = self.fs.retry_policy.call(|| self.run_beside(share)).await?;
        Ok(reply == "shared")
    }
}

impl RemoteFs {
    /// Reads and hashes blocks of a file, which has `stamp` all the time.
    pub(crate) async fn hash(
        &self,
        path: &str,
        stamp: Option<FileStamp>,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let verb = BlockVerb {
            name: "hash_blocks",
            path,
            stamp: &stamp.map(format_stamp).unwrap_or_default(),
            writer: None,
        };
        self.for_each_block(&format!("read {path}"), verb, blocks, results, cancel)
            .await
    }

    /// Runs a verb of the script on all blocks; after a lost connection it continues behind the last one.
    async fn for_each_block(
        &self,
        action: &str,
        verb: BlockVerb<'_>,
        blocks: &[BlockCopy],
        results: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let summary = &format!("cannot {action} on host {}", self.runner.host());
        // An error ends all: the file is not opened again while others write to it.
        let end = &cancel.child_token();
        let batch_size = blocks
            .len()
            .div_ceil(CONCURRENCY)
            .clamp(1, MAX_BLOCKS_PER_COMMAND);
        let tasks = blocks.chunks(batch_size).map(|blocks| {
            let task = async move {
                let done = &AtomicUsize::new(0);
                let batch = Batch {
                    verb,
                    blocks,
                    done,
                    results,
                };
                let run = || self.run_batch(summary, batch, end);
                tokio::select! {
                    result = self.retry_policy.call(run) => result,
                    () = cancel.cancelled() => Err(Error::cancelled(action)),
                }
            };
            task.boxed()
        });
        run_concurrently(tasks.collect()).await
    }

    async fn run_batch(
        &self,
        summary: &str,
        batch: Batch<'_>,
        end: &CancellationToken,
    ) -> Result<()> {
        let Some(writer) = batch.verb.writer else {
            return self.run_lines(summary, batch, None).await;
        };
        // The connection was lost when another command had failed.
        if end.is_cancelled() {
            return Err(Error::new(Kind::Unreachable, summary)
                .with_cause("another command on the host has failed"));
        }
        let run = move |info: OpenInfo| {
            let work = async move {
                let result = tokio::select! {
                    result = self.run_lines(summary, batch, Some(&info)) => result,
                    () = end.cancelled() => Err(Error::cancelled(summary)),
                };
                result.inspect_err(|error| {
                    if !error.is_retryable() {
                        end.cancel();
                    }
                })
            };
            work.boxed()
        };
        writer.run_beside(run).await
    }

    /// Runs the verb on the blocks of a batch after the first `done`, which it counts up.
    async fn run_lines(
        &self,
        summary: &str,
        batch: Batch<'_>,
        target: Option<&OpenInfo>,
    ) -> Result<()> {
        let (verb, done) = (batch.verb, batch.done);
        let remaining = batch.blocks.get(done.load(Relaxed)..).unwrap_or_default();
        let numbers = remaining
            .iter()
            .flat_map(|block| [block.source, block.target, block.size_bytes]);
        let numbers: Vec<String> = [BLOCK_BYTES]
            .into_iter()
            .chain(numbers)
            .map(|number| number.to_string())
            .collect();
        let path = self.script_path(verb.path);
        let files = match target {
            Some(info) => vec![&*path, &info.descriptor, &info.inode],
            None => vec![&*path, verb.stamp],
        };
        let args: Vec<&str> = files
            .into_iter()
            .chain(numbers.iter().map(String::as_str))
            .collect();
        let mut running = match verb.writer {
            Some(writer) => writer.start_beside(verb.name, &args).await?,
            None => {
                let argv = self.argv(verb.name, &args);
                self.runner.start(&argv, Input::None).await?
            }
        };
        let (mut stdin, stderr) = (running.stdin(), running.stderr());
        let Some(stdout) = running.stdout() else {
            return Err(Error::new(Kind::Failed, summary));
        };
        let mut lines = bounded_lines(stdout, MAX_LINE_BYTES * (remaining.len() as u64 + 1));
        let mut remaining = remaining.iter();
        let timeout_error = |_| {
            Error::new(Kind::Unreachable, summary)
                .with_cause(format!("no answer for {} s", BLOCK_TIMEOUT.as_secs()))
                .retryable()
        };
        let receive = async {
            while let Some(line) = timeout(BLOCK_TIMEOUT, lines.next_line())
                .await
                .map_err(timeout_error)?
                .unwrap_or_default()
            {
                let Some(block) = remaining.next() else { break };
                let state = match line.split(' ').next().unwrap_or_default() {
                    "unreadable" => BlockState::Unreadable,
                    digest => match Digest::from_hex(digest) {
                        Some(digest) => BlockState::Hashed(digest),
                        None => {
                            return Err(Error::new(Kind::Failed, summary).with_cause(format!(
                                "unexpected output of sha256sum: {:?}",
                                printable_within(digest, MAX_TEXT_CHARS)
                            )));
                        }
                    },
                };
                let _ = batch.results.send((*block, state));
                done.fetch_add(1, Relaxed);
            }
            let exit = async { tokio::join!(read_text(stderr), self.runner.wait(&mut running)) };
            timeout(BLOCK_TIMEOUT, exit).await.map_err(timeout_error)
        };
        let heartbeats = async {
            match &mut stdin {
                Some(stdin) if verb.writer.is_some() => send_heartbeats(stdin).await,
                _ => std::future::pending().await,
            }
        };
        let (message, status) = tokio::select! {
            exit = receive => exit?,
            never = heartbeats => match never {},
        };
        let (status, summary) = (status?, summary.to_owned());
        match status.success() && remaining.next().is_none() {
            true => Ok(()),
            false if verb.writer.is_some() => Err(command_error(summary, status, &message, &args)),
            false => Err(script_error(summary, &message, &args)),
        }
    }
}
