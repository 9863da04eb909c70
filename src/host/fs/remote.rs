//! Files of a remote host, by a few shell commands; their bytes by [`super::stream`].

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::blocks::{BlockCopy, BlockSender};
use super::errors::{TEMP_DIR_HINT, explain, parse_system_error, suggest_other_id, system_error};
use super::remote_file::{Mode, RemoteFile};
use super::remote_handles::{RemoteWriter, SftpReader};
use super::resume_log::Content;
use super::{FileReader, FileWriter, HostFiles, HostFs, PreopenedFile};
use crate::command::{CommandRunner, Output};
use crate::image_file::{ImageFile, TRUNCATED_HEADER, parse_header};
use crate::inventory::file_source::{DirListing, FileMetadataSource, parse_damage};
use crate::reconnect::RetryPolicy;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{Error, FileStamp, Kind, Result};
use snapdeck_qcow2::HEADER_BYTES;

const SCRIPT: &str = include_str!("remote.sh");
/// For calls on names and on the first bytes of files.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// For removing, and for bringing a whole file to the disk.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// For flushing the data of one file.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of paths in one command (Linux, execve(2): 128 KiB for one argument, which the whole line is).
const MAX_PATH_BYTES: usize = 48 * 1024;
/// Bytes that one command may say.
const MAX_OUTPUT_BYTES: usize = 64 << 20;
/// What is said of a file that was there when it was looked at and could not be read then.
const CHANGED_WHILE_READ: io::ErrorKind = io::ErrorKind::ResourceBusy;
/// Longest header that is read; QEMU's own is within the first cluster.
const MAX_HEADER_BYTES: usize = 2 << 20;

/// The words of a call on [`SCRIPT`].
pub(super) fn script_argv(verb: &str, args: &[&str]) -> Vec<String> {
    ["sh", "-c", SCRIPT, "snapdeck", verb]
        .iter()
        .chain(args)
        .map(|word| (*word).to_owned())
        .collect()
}

/// The files of one remote host.
#[derive(Clone)]
pub(crate) struct RemoteFs {
    settings: Arc<HostSettings>,
    pub runner: CommandRunner,
    pub retry_policy: RetryPolicy,
    /// Headers seen, until their file changes.
    header_cache: Arc<Mutex<HashMap<PathBuf, ImageFile>>>,
}

impl RemoteFs {
    pub(crate) fn new(settings: Arc<HostSettings>, runner: CommandRunner) -> Self {
        Self {
            settings,
            runner,
            retry_policy: RetryPolicy::no_retry(),
            header_cache: Arc::default(),
        }
    }

    /// The same files, for somebody who waits for the host.
    pub(crate) fn with_retry_policy(&self, patience: RetryPolicy) -> Self {
        Self {
            retry_policy: patience,
            ..self.clone()
        }
    }

    /// Runs one verb of the script; `what` completes "cannot ... on host NAME".
    async fn call(
        &self,
        what: &str,
        verb: &str,
        args: &[&str],
        deadline: Duration,
    ) -> Result<Output> {
        let words = script_argv(verb, args);
        let argv: Vec<&str> = words.iter().map(String::as_str).collect();
        let once = async || {
            let never = CancellationToken::new();
            self.check_status(
                what,
                self.runner
                    .run_raw(&argv, MAX_OUTPUT_BYTES, deadline, &never)
                    .await?,
            )
        };
        self.retry_policy.call(once).await
    }

    fn check_status(&self, what: &str, output: Output) -> Result<Output> {
        match output.status.success() {
            true => Ok(output),
            false => Err(explain(
                format!("cannot {what} on host {}", self.runner.host()),
                &parse_system_error(&output.stderr),
            )),
        }
    }

    pub(crate) async fn call_line(
        &self,
        what: &str,
        verb: &str,
        args: &[&str],
        deadline: Duration,
    ) -> Result<String> {
        let output = self.call(what, verb, args, deadline).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.trim_end_matches('\n').to_owned())
    }

    pub(crate) async fn rename_into_place(
        &self,
        from: &str,
        to: &str,
        replace: bool,
        inode: &str,
    ) -> Result<()> {
        let how = if replace { "replace" } else { "keep" };
        let what = format!("name {to}");
        self.call(&what, "land", &[from, to, how, inode], SYNC_TIMEOUT)
            .await?;
        Ok(())
    }

    /// The images of each directory.
    pub(crate) async fn list(&self, dirs: &[&str]) -> Result<Vec<DirListing>> {
        let output = self
            .call(
                &format!("list {}", dirs.join(" and ")),
                "list",
                dirs,
                CALL_TIMEOUT,
            )
            .await?;
        let mut fields = output.stdout.split(|byte| *byte == 0).map(path_from_bytes);
        let mut listed = Vec::new();
        for _ in dirs {
            let dir = fields.next().unwrap_or_default();
            let names: Vec<PathBuf> = fields
                .by_ref()
                .take_while(|name| !name.as_os_str().is_empty())
                .collect();
            let there = names.first().is_none_or(|name| name != Path::new("/"));
            let mut damages = Vec::new();
            while let Some(name) = fields.next().filter(|name| !name.as_os_str().is_empty()) {
                let json = fields.next().unwrap_or_default();
                let name = name.to_string_lossy();
                damages.extend(parse_damage(&dir, &name, json.as_os_str().as_bytes()));
            }
            listed.push(DirListing {
                images: match there {
                    true => names.iter().map(|name| dir.join(name)).collect(),
                    false => Vec::new(),
                },
                dir,
                damages,
                is_present: there,
            });
        }
        Ok(listed)
    }

    /// Looks at `paths`: where they really are, and what they are. In their order.
    pub(crate) async fn stat_files(&self, paths: &[PathBuf]) -> Result<Vec<FileStatus>> {
        let mut all = Vec::new();
        for batch in split_into_batches(paths) {
            let mut seen = self.stat_once(batch).await?;
            let torn = |seen: &&mut FileStatus| matches!(&seen.file, Err(why) if why.kind() == CHANGED_WHILE_READ);
            let mut torn: Vec<&mut FileStatus> = seen.iter_mut().filter(torn).collect();
            if !torn.is_empty() {
                // Gone or written just then: a second look tells which.
                let paths: Vec<PathBuf> = torn.iter().map(|seen| seen.path.clone()).collect();
                for (seen, again) in torn.iter_mut().zip(self.stat_once(&paths).await?) {
                    seen.file = again.file;
                }
            }
            all.append(&mut seen);
        }
        Ok(all)
    }

    async fn stat_once(&self, paths: &[PathBuf]) -> Result<Vec<FileStatus>> {
        let words: Vec<&str> = paths.iter().filter_map(|path| path.to_str()).collect();
        let output = self
            .call("look at files", "see", &words, CALL_TIMEOUT)
            .await?;
        let mut seen = parse_stat_output(&output.stdout, &output.stderr, paths);
        self.fill_headers(&mut seen).await?;
        Ok(seen)
    }

    /// Fills in the headers of what is a file: known ones, and the others by one command.
    async fn fill_headers(&self, seen: &mut [FileStatus]) -> Result<()> {
        let wanted: Vec<usize> = {
            let mut known = self.lock_header_cache();
            let mut wanted = Vec::new();
            for (index, seen) in seen.iter_mut().enumerate() {
                let Ok(file) = &mut seen.file else { continue };
                match known.get(&seen.path) {
                    Some(old) if old.stamp == file.stamp => file.facts = old.facts.clone(),
                    _ => {
                        known.remove(&seen.path);
                        wanted.push(index);
                    }
                }
            }
            wanted
        };
        let mut length = HEADER_BYTES;
        let mut wanted = wanted;
        // A header longer than usual is read once more, whole.
        for _ in 0..2 {
            if wanted.is_empty() {
                break;
            }
            let paths: Vec<PathBuf> = wanted.iter().map(|at| seen[*at].path.clone()).collect();
            let words: Vec<&str> = paths.iter().filter_map(|path| path.to_str()).collect();
            let number = length.to_string();
            let args: Vec<&str> = [&*number].into_iter().chain(words).collect();
            let output = self
                .call("read headers", "heads", &args, CALL_TIMEOUT)
                .await?;
            let mut rest = &output.stdout[..];
            let mut again = Vec::new();
            let mut longest = 0;
            for at in wanted {
                let FileStatus { path, file } = &mut seen[at];
                let Ok(image) = file else { continue };
                let Some(start) = split_head(&mut rest, path, length, image.size_bytes) else {
                    *file = Err(io::Error::new(
                        CHANGED_WHILE_READ,
                        "it cannot be read, or changed while it was",
                    ));
                    continue;
                };
                match parse_header(start) {
                    Err(needed) if needed <= MAX_HEADER_BYTES && length < needed => {
                        longest = longest.max(needed);
                        again.push(at);
                    }
                    facts => {
                        image.facts = facts.unwrap_or_else(|_| Err(TRUNCATED_HEADER.into()));
                        self.lock_header_cache().insert(path.clone(), image.clone());
                    }
                }
            }
            wanted = again;
            length = longest;
        }
        Ok(())
    }

    fn lock_header_cache(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, ImageFile>> {
        self.header_cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets headers of files that are not among `paths`.
    pub(crate) fn prune_header_cache(&self, eyes: &FileMetadataSource) {
        self.lock_header_cache()
            .retain(|path, _| eyes.has_metadata(path));
    }

    async fn open(&self, path: &str, mode: Mode) -> Result<RemoteFile> {
        let (runner, policy) = (self.runner.clone(), self.retry_policy.clone());
        RemoteFile::open(runner, policy, path, mode).await
    }
}

#[async_trait]
impl HostFs for RemoteFs {
    async fn image_file(&self, path: &str) -> Result<Option<ImageFile>> {
        let what = format!("read {path}");
        let file = PathBuf::from(path);
        let seen = self.stat_files(&[file]).await?;
        match seen.into_iter().next().map(|seen| seen.file) {
            Some(Ok(file)) => Ok(Some(file)),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Some(Err(error)) => Err(explain(
                format!("cannot {what} on host {}", self.runner.host()),
                &error,
            )),
            None => Ok(None),
        }
    }

    async fn open_reader(&self, path: &str) -> Result<FileReader> {
        Ok(Box::new(self.open(path, Mode::Read).await?))
    }

    async fn preopen(&self, path: &str) -> PreopenedFile {
        let sftp = SftpReader::open(&self.runner, path).await;
        PreopenedFile::new(HostFiles::Remote(self.clone()), path, sftp)
    }

    async fn open_writer(&self, path: &str, content: &Content) -> Result<FileWriter> {
        let mode = Mode::Write {
            owner: self.settings.owner.clone(),
            content: content.clone(),
        };
        Ok(Box::new(RemoteWriter::new(
            self,
            self.open(path, mode).await?,
        )))
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

    async fn make_temp_dir(&self) -> Result<String> {
        let parent = &self.settings.temp_dir;
        let what = format!("make a directory in {parent}");
        self.call_line(&what, "make_temp_dir", &[parent], CALL_TIMEOUT)
            .await
            .map_err(|error| error.hint(TEMP_DIR_HINT))
    }

    async fn make_backup_dir(&self, id: &str) -> Result<String> {
        let (parent, owner) = (&self.settings.sandboxes_dir, &self.settings.owner);
        let what = format!("make a directory in {parent}");
        let args: [&str; 3] = [parent, id, owner];
        self.call_line(&what, "make_backup_dir", &args, CALL_TIMEOUT)
            .await
    }

    async fn backup_dirs(&self) -> Result<Vec<String>> {
        let parent = &self.settings.sandboxes_dir;
        let what = format!("list {parent}");
        let output = self
            .call(&what, "backup_dirs", &[parent], CALL_TIMEOUT)
            .await?;
        let names = output.stdout.split(|byte| *byte == 0);
        let names = names.filter_map(|name| String::from_utf8(name.to_vec()).ok());
        Ok(names.filter(|name| !name.is_empty()).collect())
    }

    async fn remove_temp_dir(&self, path: &str) -> Result<()> {
        let what = format!("remove {path}");
        self.call(&what, "remove_temp_dir", &[path], SYNC_TIMEOUT)
            .await?;
        Ok(())
    }

    async fn remove_file(&self, path: &str) -> Result<bool> {
        let what = format!("remove {path}");
        let said = self
            .call_line(&what, "remove_file", &[path], SYNC_TIMEOUT)
            .await?;
        Ok(said == "removed")
    }

    async fn read_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let (what, limit) = (format!("read {path}"), limit.to_string());
        let output = self
            .call(&what, "read_file", &[path, &limit], CALL_TIMEOUT)
            .await?;
        Ok(output.stdout.strip_prefix(b"there\n").map(<[u8]>::to_vec))
    }

    async fn write_file(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        let words = script_argv(
            "write_file",
            &[path, &self.settings.owner, &bytes.len().to_string()],
        );
        let argv: Vec<&str> = words.iter().map(String::as_str).collect();
        let once = async || {
            self.check_status(
                &format!("write {path}"),
                self.runner
                    .run_with_input(&argv, &bytes, CALL_TIMEOUT)
                    .await?,
            )
        };
        self.retry_policy.call(once).await.map(|_| ())
    }

    async fn create_exclusive(&self, path: &str) -> Result<()> {
        let what = format!("create {path}");
        // Tells a file that a try made whose answer was lost from one of somebody else's.
        let ours = format!("{}-{:?}", std::process::id(), std::time::SystemTime::now());
        self.call(
            &what,
            "claim",
            &[path, &self.settings.owner, &ours],
            CALL_TIMEOUT,
        )
        .await
        .map_err(suggest_other_id)?;
        Ok(())
    }

    async fn copy_file(&self, from: &str, to: &str) -> Result<()> {
        let what = format!("copy {from} to {to}");
        self.call(&what, "copy", &[from, to], SYNC_TIMEOUT).await?;
        Ok(())
    }

    async fn flush_file(&self, path: &str, cancel: &CancellationToken) -> Result<()> {
        let output = self
            .runner
            .run(&["sync", "--data", "--", path], FLUSH_TIMEOUT, cancel)
            .await?;
        match output.status.success() {
            true => Ok(()),
            false => Err(system_error(
                format!("cannot flush {path} on host {}", self.runner.host()),
                &output.stderr,
            )),
        }
    }

    async fn free_bytes(&self, dir: &str) -> Result<u64> {
        let what = format!("look at {dir}");
        let said = self
            .call_line(&what, "free_bytes", &[dir], CALL_TIMEOUT)
            .await?;
        let product = said.split_once(' ').and_then(|(blocks, size)| {
            let (blocks, size): (u64, u64) = (blocks.parse().ok()?, size.parse().ok()?);
            Some(blocks.saturating_mul(size))
        });
        product.ok_or_else(|| {
            Error::new(
                Kind::Failed,
                format!("cannot {what} on host {}", self.runner.host()),
            )
            .with_cause(format!("stat said {said:?}"))
        })
    }

    async fn canonicalize(&self, paths: &[&str]) -> Result<Vec<PathBuf>> {
        let output = self
            .call("look at files", "real", paths, CALL_TIMEOUT)
            .await?;
        let fields = output.stdout.split(|byte| *byte == 0).map(path_from_bytes);
        Ok(fields.take(paths.len()).collect())
    }
}

/// A file there.
#[derive(Debug)]
pub(crate) struct FileStatus {
    /// Where it really is.
    pub path: PathBuf,
    pub file: io::Result<ImageFile>,
}

fn path_from_bytes(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn split_into_batches(paths: &[PathBuf]) -> Vec<&[PathBuf]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, path) in paths.iter().enumerate() {
        let length = path.as_os_str().len() + 3;
        if bytes + length > MAX_PATH_BYTES && at > start {
            batches.push(&paths[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += length;
    }
    if start < paths.len() {
        batches.push(&paths[start..]);
    }
    batches
}

/// Reads what the verb `see` says of `paths`.
fn parse_stat_output(stdout: &[u8], stderr: &str, paths: &[PathBuf]) -> Vec<FileStatus> {
    let fields: Vec<&[u8]> = stdout.split(|byte| *byte == 0).collect();
    let (real, stats) = fields.split_at(paths.len().min(fields.len()));
    let stats: HashMap<&[u8], &[&[u8]]> = stats
        .chunks_exact(6)
        .map(|stat| (stat[0], &stat[1..]))
        .collect();
    let look = |asked: &Path| {
        let Some(stat) = stats.get(asked.as_os_str().as_bytes()) else {
            // stat names the file in quotes of its own; most names need none inside.
            let quoted = format!("'{}'", asked.display());
            let line = stderr.lines().find(|line| line.contains(&quoted));
            return Err(match line.and_then(|line| line.rsplit_once(": ")) {
                Some((_, why)) => parse_system_error(why),
                None => io::ErrorKind::NotFound.into(),
            });
        };
        parse_stat(stat).unwrap_or_else(|| Err(io::Error::other("cannot parse the output of stat")))
    };
    paths
        .iter()
        .enumerate()
        .map(|(at, asked)| FileStatus {
            path: real
                .get(at)
                .map_or_else(|| asked.clone(), |real| path_from_bytes(real)),
            file: look(asked),
        })
        .collect()
}

/// Size, blocks of 512 bytes, inode, modification time, type.
fn parse_stat(stat: &[&[u8]]) -> Option<io::Result<ImageFile>> {
    let text = |at: usize| std::str::from_utf8(stat.get(at)?).ok();
    if !matches!(
        text(4)?,
        "regular file" | "regular empty file" | "block special file"
    ) {
        return Some(Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        )));
    }
    let (seconds, nanoseconds) = text(3)?.split_once('.')?;
    let size_bytes = text(0)?.parse().ok()?;
    let blocks: u64 = text(1)?.parse().ok()?;
    Some(Ok(ImageFile {
        size_bytes,
        allocated_bytes: blocks.saturating_mul(512),
        stamp: FileStamp {
            inode: text(2)?.parse().ok()?,
            modified_ns: seconds.parse::<i128>().ok()? * 1_000_000_000
                + nanoseconds.parse::<i128>().ok()?,
            size_bytes,
        },
        facts: Err("its header was not read".into()),
    }))
}

/// Takes what `head -v` says of the file `path` from the front of `rest`.
fn split_head<'a>(
    rest: &mut &'a [u8],
    path: &Path,
    length: usize,
    size_bytes: u64,
) -> Option<&'a [u8]> {
    let title = [b"==> ", path.as_os_str().as_bytes(), b" <==\n"].concat();
    let bare = rest.strip_prefix(b"\n").unwrap_or(rest);
    let body = bare.strip_prefix(&title[..])?;
    let length = usize::try_from(size_bytes).map_or(length, |size| size.min(length));
    let (start, after) = body.split_at_checked(length)?;
    *rest = after;
    Some(start)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(words: &[String]) -> std::process::Output {
        std::process::Command::new(&words[0])
            .args(&words[1..])
            .env("LC_ALL", "C")
            .output()
            .unwrap()
    }

    #[test]
    fn understands_what_its_own_script_says() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "a b.qcow2",
            "$(x)'\".qcow2",
            "empty.qcow2",
            "line\nbreak.qcow2",
        ];
        let texts: [&[u8]; 4] = [b"one\n", b"==> two <==\n", b"", b"four"];
        for (name, text) in names.iter().zip(texts) {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let mut paths: Vec<PathBuf> = names.iter().map(|name| dir.path().join(name)).collect();
        paths.push(dir.path().join("missing.qcow2"));
        paths.push(dir.path().to_owned());
        let words: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        let said = run(&script_argv("see", &words));
        let seen = parse_stat_output(&said.stdout, &String::from_utf8_lossy(&said.stderr), &paths);
        let sizes: Vec<Option<u64>> = seen
            .iter()
            .map(|seen| seen.file.as_ref().ok().map(|file| file.size_bytes))
            .collect();
        assert_eq!(sizes, [Some(4), Some(12), Some(0), Some(4), None, None]);
        let kinds: Vec<io::ErrorKind> = seen
            .iter()
            .filter_map(|seen| seen.file.as_ref().err().map(io::Error::kind))
            .collect();
        assert_eq!(
            kinds,
            [io::ErrorKind::NotFound, io::ErrorKind::InvalidInput]
        );
        let said = run(&script_argv("heads", &[&["8"], &words[..4]].concat()));
        let mut rest = &said.stdout[..];
        for (path, text) in paths.iter().zip(texts) {
            let start = split_head(&mut rest, path, 8, text.len() as u64);
            assert_eq!(start, Some(&text[..text.len().min(8)]));
        }
    }

    #[test]
    fn long_lists_are_parted() {
        let paths: Vec<PathBuf> = (0..2000).map(|n| format!("/dir/{n:060}").into()).collect();
        let parts = split_into_batches(&paths);
        assert!(parts.len() > 1);
        assert_eq!(parts.concat(), paths);
        assert!(split_into_batches(&[]).is_empty());
    }
}
