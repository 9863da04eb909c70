//! Whole blocks of a host's files: hashed and copied on the host itself, so that they never cross the line to it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use nix::fcntl::copy_file_range;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::errors::{explain, parse_system_error};
use super::local::LocalFs;
use super::remote::{RemoteFs, script_argv};
use crate::command::{Input, read_text};
use crate::digest::BlockHasher;
use crate::image_file::file_stamp;
use snapdeck_libvirt::{begin_sync, clone_range};
use snapdeck_model::{BLOCK_BYTES, Digest, Error, FileStamp, Kind, Result};

/// For one block.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// For taking over a whole file's extents, which moves no bytes.
const CLONE_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes read or written at a time.
const CHUNK_BYTES: u64 = 1 << 20;
/// Blocks that are worked on at once: hashing is what takes the time.
const CONCURRENCY: usize = 4;
/// Blocks in one command, whose line has a limit (128 KiB; Linux, execve(2)).
const MAX_BLOCKS_PER_COMMAND: usize = 1000;

/// A block of one file that goes to another place, or stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// Which block it is, from 0.
    pub source: u64,
    /// Which block it becomes.
    pub target: u64,
    /// Its length.
    pub size_bytes: u64,
}

/// What is known of a block that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockState {
    /// Its bytes were read.
    Hashed(Digest),
    /// It was taken from a file that is as it was when its bytes were known, and not read again.
    Trusted,
    /// It cannot be read, or is not there.
    Unreadable,
}

/// Where to tell of each block, as it is done.
pub type BlockSender = UnboundedSender<(BlockCopy, BlockState)>;

/// A file that blocks are copied from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySource {
    /// Its path.
    pub path: String,
    /// What it is while its bytes are known.
    pub stamp: Option<FileStamp>,
}

impl LocalFs {
    /// Reads and hashes blocks of a file.
    pub(crate) async fn hash(
        &self,
        path: &str,
        pieces: &[BlockCopy],
        told: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let name = path.to_owned();
        let file = self.run(format!("open {path}"), BLOCK_TIMEOUT, move || {
            File::open(name)
        });
        let file = Arc::new(file.await?);
        self.for_each_block(format!("read {path}"), pieces, told, cancel, move |piece| {
            match read_and_hash(&file, piece, |_, _| Ok(())) {
                Ok(digest) => Ok(BlockState::Hashed(digest)),
                // A bad place of the disk, or past the end.
                Err(_) => Ok(BlockState::Unreadable),
            }
        })
        .await
    }

    /// Copies blocks of `origin` into `to`. While `origin` is as it was when its bytes were known, `to` shares their
    /// extents, or has them copied by the kernel; else they are read, hashed and written.
    pub(crate) async fn copy_blocks(
        &self,
        origin: &CopySource,
        to: Arc<File>,
        pieces: &[BlockCopy],
        told: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let (path, stamp) = (origin.path.clone(), origin.stamp);
        let file = self.run(format!("open {path}"), BLOCK_TIMEOUT, move || {
            File::open(path)
        });
        let file = Arc::new(file.await?);
        let what = format!("copy from {}", origin.path);
        let can_share = Arc::new(AtomicBool::new(true));
        // The kernel takes the writes to a file one by one: who waits for it spins, who waits here lets others hash.
        let turn = Arc::new(Mutex::new(()));
        self.for_each_block(what, pieces, told, cancel, move |piece| {
            let is_known = || Ok::<_, io::Error>(Some(file_stamp(&file.metadata()?)) == stamp);
            let my_turn = || turn.lock().unwrap_or_else(PoisonError::into_inner);
            let (from, at) = (piece.source * BLOCK_BYTES, piece.target * BLOCK_BYTES);
            if is_known()? {
                let mut shared = can_share.load(Relaxed);
                if shared {
                    shared =
                        check_kernel_copy(clone_range(&file, from, piece.size_bytes, &to, at))?;
                    can_share.store(shared, Relaxed);
                }
                let done = shared || {
                    let _turn = my_turn();
                    let copied =
                        check_kernel_copy(copy_range(&file, from, piece.size_bytes, &to, at))?;
                    begin_sync(&to, at, piece.size_bytes);
                    copied
                };
                // And it still is.
                if done && is_known()? {
                    return Ok(BlockState::Trusted);
                }
            }
            let write = |done, bytes: &[u8]| {
                let _turn = my_turn();
                to.write_all_at(bytes, at + done)
            };
            read_and_hash(&file, piece, write).map(BlockState::Hashed)
        })
        .await
    }

    async fn for_each_block(
        &self,
        what: String,
        pieces: &[BlockCopy],
        told: &BlockSender,
        cancel: &CancellationToken,
        work: impl Fn(BlockCopy) -> io::Result<BlockState> + Clone + Send + Sync + 'static,
    ) -> Result<()> {
        let (what, work) = (&what, &work);
        let each = pieces.iter().map(|piece| {
            let (piece, work) = (*piece, work.clone());
            let each = async move {
                if cancel.is_cancelled() {
                    return Err(Error::cancelled(what.clone()));
                }
                let seen = self
                    .run(what.clone(), BLOCK_TIMEOUT, move || work(piece))
                    .await?;
                // Who does not listen any more has lost interest.
                let _ = told.send((piece, seen));
                Ok(())
            };
            each.boxed()
        });
        run_concurrently(each.collect()).await
    }
}

/// Does them, a few at once, until one fails.
async fn run_concurrently(works: Vec<BoxFuture<'_, Result<()>>>) -> Result<()> {
    let works = futures_util::stream::iter(works).buffer_unordered(CONCURRENCY);
    works.try_collect().await
}

/// Did the kernel move them? Where it cannot, there are other ways; where the disk is full, there is none.
fn check_kernel_copy(said: io::Result<()>) -> io::Result<bool> {
    match said {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(error),
        Err(_) => Ok(false),
    }
}

/// Has the kernel copy `bytes` of `from` into `to` (copy_file_range(2)).
fn copy_range(from: &File, offset: u64, bytes: u64, to: &File, to_offset: u64) -> io::Result<()> {
    let (mut offset, mut to_offset) = (offset.cast_signed(), to_offset.cast_signed());
    let end = offset.saturating_add_unsigned(bytes);
    while offset < end {
        let left = usize::try_from(end - offset).map_err(io::Error::other)?;
        if copy_file_range(from, Some(&mut offset), to, Some(&mut to_offset), left)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Reads and hashes a block of `file` step by step; each step is given to `take` with how many bytes came before it.
fn read_and_hash(
    file: &File,
    piece: BlockCopy,
    take: impl Fn(u64, &[u8]) -> io::Result<()>,
) -> io::Result<Digest> {
    let mut hashing = BlockHasher::default();
    let mut buffer = vec![0; CHUNK_BYTES.min(piece.size_bytes) as usize];
    let mut done = 0;
    while done < piece.size_bytes {
        let length = CHUNK_BYTES.min(piece.size_bytes - done) as usize;
        let step = &mut buffer[..length];
        file.read_exact_at(step, piece.source * BLOCK_BYTES + done)?;
        hashing.update(step);
        take(done, step)?;
        done += length as u64;
    }
    Ok(hashing.finish())
}

/// As the script has it from stat(1): inode, time, length.
fn format_stamp(stamp: FileStamp) -> String {
    let second = 1_000_000_000;
    let (seconds, rest) = (
        stamp.modified_ns.div_euclid(second),
        stamp.modified_ns.rem_euclid(second),
    );
    format!("{} {seconds}.{rest:09} {}", stamp.inode, stamp.size_bytes)
}

impl RemoteFs {
    /// Reads and hashes blocks of a file.
    pub(crate) async fn hash(
        &self,
        path: &str,
        pieces: &[BlockCopy],
        told: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        self.for_each_block(("read", path), &["hash", path], pieces, told, cancel)
            .await
    }

    /// Copies blocks of `origin` into the file `to`, and hashes what stands there then, unless `origin` is as it was when
    /// its bytes were known.
    pub(crate) async fn copy_blocks(
        &self,
        origin: &CopySource,
        to: &str,
        pieces: &[BlockCopy],
        told: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let (path, stamp) = (&*origin.path, origin.stamp.map(format_stamp));
        let words = ["copy_blocks", path, to, stamp.as_deref().unwrap_or("")];
        self.for_each_block(("copy from", path), &words, pieces, told, cancel)
            .await
    }

    /// Makes the file `to`, of `size_bytes`, share all extents of `origin`, if its file system can and `origin` is what
    /// it was; whatever was in it is gone then. Is it so?
    pub(crate) async fn clone_file(
        &self,
        origin: &CopySource,
        to: &str,
        size_bytes: u64,
    ) -> Result<bool> {
        let Some(stamp) = origin.stamp else {
            return Ok(false);
        };
        let stamp = format_stamp(stamp);
        let what = format!("share {}", origin.path);
        let size = size_bytes.to_string();
        let said = self
            .call_line(
                &what,
                "clone",
                &[&origin.path, to, &size, &stamp],
                CLONE_TIMEOUT,
            )
            .await?;
        Ok(said == "shared")
    }

    /// Runs a verb of the script on all pieces, which answers a line for each; what was answered is not asked again
    /// after the host was away.
    async fn for_each_block(
        &self,
        (verb, path): (&str, &str),
        words: &[&str],
        pieces: &[BlockCopy],
        told: &BlockSender,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let what = &format!("cannot {verb} {path} on host {}", self.runner.host());
        let many = pieces
            .len()
            .div_ceil(CONCURRENCY)
            .clamp(1, MAX_BLOCKS_PER_COMMAND);
        let each = pieces.chunks(many).map(|pieces| {
            let each = async move {
                let answered = AtomicUsize::new(0);
                let mut wait = self.retry_policy.start_retry();
                loop {
                    let work = self.run_batch(what, words, pieces, &answered, told);
                    let worked = tokio::select! {
                        worked = work => worked,
                        () = cancel.cancelled() => Err(Error::cancelled(what.clone())),
                    };
                    match worked {
                        Ok(()) => {
                            self.retry_policy.mark_reachable();
                            return Ok(());
                        }
                        Err(error) => wait.wait_after(error).await?,
                    }
                }
            };
            each.boxed()
        });
        run_concurrently(each.collect()).await
    }

    async fn run_batch(
        &self,
        what: &str,
        words: &[&str],
        pieces: &[BlockCopy],
        answered: &AtomicUsize,
        told: &BlockSender,
    ) -> Result<()> {
        let left = pieces.get(answered.load(Relaxed)..).unwrap_or_default();
        let block = BLOCK_BYTES.to_string();
        let mut args: Vec<String> = words[1..].iter().map(|word| (*word).to_owned()).collect();
        args.push(block);
        for piece in left {
            args.extend(
                [piece.source, piece.target, piece.size_bytes].map(|number| number.to_string()),
            );
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let argv = script_argv(words[0], &args);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let mut running = self.runner.start(&argv, Input::None).await?;
        let stderr = running.stderr();
        let Some(stdout) = running.stdout() else {
            return Err(Error::new(Kind::Failed, what));
        };
        let mut lines = BufReader::new(stdout).lines();
        let mut left = left.iter();
        let too_late = || {
            Error::new(Kind::Unreachable, what)
                .with_cause(format!("no answer for {} s", BLOCK_TIMEOUT.as_secs()))
                .retryable()
        };
        while let Some(line) = timeout(BLOCK_TIMEOUT, lines.next_line())
            .await
            .map_err(|_| too_late())?
            .unwrap_or_default()
        {
            let Some(piece) = left.next() else { break };
            let seen = match line.split(' ').next().unwrap_or_default() {
                "known" => BlockState::Trusted,
                digest => {
                    Digest::from_hex(digest).map_or(BlockState::Unreadable, BlockState::Hashed)
                }
            };
            let _ = told.send((*piece, seen));
            answered.fetch_add(1, Relaxed);
        }
        let ended = async { tokio::join!(read_text(stderr), self.runner.wait(&mut running)) };
        let (stderr_text, status) = timeout(BLOCK_TIMEOUT, ended)
            .await
            .map_err(|_| too_late())?;
        match status?.success() && left.next().is_none() {
            true => Ok(()),
            false => Err(explain(what.to_owned(), &parse_system_error(&stderr_text))),
        }
    }
}
