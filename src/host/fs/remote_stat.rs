//! Metadata of a remote host's files: directory listings, stat(1) and the headers of images, for many files in one
//! command.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::blocks::parse_time_ns;
use super::errors::parse_system_error;
use super::remote::{CALL_TIMEOUT, PIN, RemoteFs};
use crate::disk_space::DiskSpace;
use crate::held_locks::{MAX_LOCKS, parse_lock};
use crate::image_file::{ImageFile, ImageHeader, NOT_A_FILE, TRUNCATED_HEADER};
use crate::inventory::file_source::{
    DirListing, FileMetadataSource, MAX_FILES, MAX_PARTIALS, parse_damage, parse_partial,
};
use snapdeck_model::{Error, FileStamp, HostLock, Kind, Result};
use snapdeck_qcow2::{HEADER_BYTES, OtherReferences};

/// Bytes of paths in one command (Linux, execve(2): 128 KiB for one argument, which the whole command line is).
const MAX_PATH_BYTES: usize = 48 * 1024;
/// Cause of a path that `canonicalize` in `remote.sh` gives up.
pub(super) const TOO_MANY_LINKS: &str = "its links lead too far";
/// Error kind of a file whose header cannot be read although stat(1) succeeded.
const CHANGED_WHILE_READ: io::ErrorKind = io::ErrorKind::InvalidData;
/// Maximum length of a header that is read; QEMU's own is within the first cluster.
const MAX_HEADER_BYTES: usize = 2 << 20;

/// Maximum length of a file, far above those of file systems in use: the sum of many does not overflow.
const MAX_FILE_BYTES: u64 = 1 << 48;

/// Headers by path, valid as long as the file's stamp.
pub(super) type HeaderCache = Arc<Mutex<HashMap<PathBuf, ImageFile>>>;

#[derive(Debug)]
pub(crate) struct FileStatus {
    /// Canonical path.
    pub path: PathBuf,
    pub file: io::Result<ImageFile>,
}

impl RemoteFs {
    /// Lists the images of each directory; the first one is that of the snapshots, and has those of organizations, too.
    pub(crate) async fn list(&self, dirs: &[&str]) -> Result<Vec<DirListing>> {
        let action = format!("list {}", dirs.join(" and "));
        let organizations = self.settings.organizations.iter();
        let organizations = organizations.filter(|name| self.settings.is_organization(name));
        let organizations: Vec<&str> = organizations.map(String::as_str).collect();
        let organizations = organizations.join(" ");
        let args = [&[&*organizations], dirs].concat();
        let output = self
            .call(&action, "list_images", &args, CALL_TIMEOUT)
            .await?;
        parse_listings(&output.stdout, dirs.len()).map_err(|dir| {
            let summary = format!("cannot {action} on host {}", self.runner.host());
            let cause = format!("{} has more than {MAX_FILES} files", dir.display());
            Error::new(Kind::Failed, summary).with_cause(cause)
        })
    }

    /// Returns the canonical path, the metadata and the header of each of `paths`, in their order.
    pub(crate) async fn stat_files(&self, paths: &[PathBuf]) -> Result<Vec<FileStatus>> {
        self.stat_all("stat", paths).await
    }

    /// Returns the metadata and the header of a file, which no link to the directory of an organization leads to.
    pub(super) async fn stat_pinned(&self, path: &str) -> Result<Option<FileStatus>> {
        let path = PathBuf::from(&*self.script_path(path));
        Ok(self.stat_all("stat_pinned", &[path]).await?.pop())
    }

    async fn stat_all(&self, verb: &str, paths: &[PathBuf]) -> Result<Vec<FileStatus>> {
        let is_changed = |status: &&mut FileStatus| {
            let error = status.file.as_ref().err();
            error.is_some_and(|error| error.kind() == CHANGED_WHILE_READ)
        };
        let is_text = |path: &&PathBuf| path.to_str().is_some();
        let texts: Vec<PathBuf> = paths.iter().filter(is_text).cloned().collect();
        let mut statuses = Vec::new();
        for batch in split_into_batches(&texts) {
            let mut batch = self.stat_once(verb, batch).await?;
            let mut changed: Vec<&mut FileStatus> = batch.iter_mut().filter(is_changed).collect();
            if !changed.is_empty() {
                // They were removed or written between stat and head.
                let paths = changed.iter().map(|status| status.path.clone());
                let paths: Vec<PathBuf> = paths.filter(|path| path.to_str().is_some()).collect();
                if paths.len() < changed.len() {
                    statuses.append(&mut batch);
                    continue;
                }
                for (status, retried) in changed.iter_mut().zip(self.stat_once(verb, &paths).await?)
                {
                    status.file = retried.file;
                }
            }
            statuses.append(&mut batch);
        }
        // Commands take text only.
        let mut statuses = statuses.into_iter();
        let all = paths.iter().map(|path| {
            let status = path.to_str().and_then(|_| statuses.next());
            status.unwrap_or_else(|| FileStatus {
                path: path.clone(),
                file: Err(io::Error::other("its name is not UTF-8")),
            })
        });
        Ok(all.collect())
    }

    async fn stat_once(&self, verb: &str, paths: &[PathBuf]) -> Result<Vec<FileStatus>> {
        let args: Vec<&str> = paths.iter().filter_map(|path| path.to_str()).collect();
        let output = self
            .call("read file metadata", verb, &args, CALL_TIMEOUT)
            .await?;
        let mut statuses = parse_stat_output(&output.stdout, &output.stderr, paths);
        if self.dir.is_some() {
            // The next command enters the directory, too.
            for (status, path) in statuses.iter_mut().zip(paths) {
                status.path.clone_from(path);
            }
        }
        self.fill_headers(&mut statuses).await?;
        Ok(statuses)
    }

    /// Fills in the headers of all files: cached ones, and the others with one command.
    async fn fill_headers(&self, statuses: &mut [FileStatus]) -> Result<()> {
        let mut uncached = Vec::new();
        {
            let mut cache = self.lock_header_cache();
            for (index, status) in statuses.iter_mut().enumerate() {
                let Ok(file) = &mut status.file else { continue };
                match cache.get(&status.path) {
                    Some(cached) if cached.stamp == file.stamp => {
                        file.copy_header(cached);
                    }
                    _ => {
                        cache.remove(&status.path);
                        uncached.push(index);
                    }
                }
            }
        }
        let mut length = HEADER_BYTES;
        // Headers longer than usual are read completely in the second round.
        for _ in 0..2 {
            if uncached.is_empty() {
                break;
            }
            let mut incomplete = Vec::new();
            let mut longest = 0;
            let mut messages = String::new();
            // A file that makes its reader wait hides those after it: they are read one by one then.
            for verb in ["read_headers", "read_headers_singly"] {
                if uncached.is_empty() {
                    break;
                }
                let files = uncached.iter().filter_map(|index| {
                    let FileStatus { path, file } = &statuses[*index];
                    let size_bytes = file.as_ref().ok()?.size_bytes;
                    let bytes = head_bytes(length, size_bytes).to_string();
                    Some([bytes, path.to_str()?.to_owned()])
                });
                let args: Vec<String> = files.flatten().collect();
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let output = self.call("read headers", verb, &args, CALL_TIMEOUT).await?;
                messages.clone_from(&output.stderr);
                let mut output = &output.stdout[..];
                let mut unread = Vec::new();
                for index in uncached {
                    let FileStatus { path, file } = &mut statuses[index];
                    let Ok(image) = file else { continue };
                    let Some(header) = split_head(&mut output, path, length, image.size_bytes)
                    else {
                        unread.push(index);
                        continue;
                    };
                    match ImageHeader::parse(header) {
                        Err(needed) if needed <= MAX_HEADER_BYTES && length < needed => {
                            longest = longest.max(needed);
                            incomplete.push(index);
                        }
                        header => {
                            let truncated = |_| ImageHeader::unknown(TRUNCATED_HEADER);
                            image.set_header(header.unwrap_or_else(truncated));
                            self.lock_header_cache().insert(path.clone(), image.clone());
                        }
                    }
                }
                uncached = unread;
            }
            for index in uncached {
                let FileStatus { path, file } = &mut statuses[index];
                let cause = find_message(&messages, path)
                    .unwrap_or("it is unreadable, or was changed while it was read");
                *file = Err(io::Error::new(CHANGED_WHILE_READ, cause.to_owned()));
            }
            uncached = incomplete;
            length = longest;
        }
        Ok(())
    }

    fn lock_header_cache(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, ImageFile>> {
        self.header_cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes cached headers of files without metadata in `source`.
    pub(crate) fn prune_header_cache(&self, source: &FileMetadataSource) {
        self.lock_header_cache()
            .retain(|path, _| source.has_metadata(path));
    }
}

pub(super) fn path_from_bytes(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Parses the output of the verb `list_images` for `count` directories.
///
/// # Errors
/// The directory that has too many files.
fn parse_listings(output: &[u8], count: usize) -> Result<Vec<DirListing>, PathBuf> {
    let mut fields = output.split(|byte| *byte == 0).map(path_from_bytes);
    let mut listings = Vec::new();
    for index in 0..count {
        let dir = fields.next().unwrap_or_default();
        let space = fields.next().unwrap_or_default();
        let space = space.to_str().and_then(DiskSpace::parse);
        let names: Vec<PathBuf> = fields
            .by_ref()
            .take_while(|name| !name.as_os_str().is_empty())
            .take(MAX_FILES + 1)
            .collect();
        if names.len() > MAX_FILES {
            return Err(dir);
        }
        let is_present = names.first().is_none_or(|name| name != Path::new("/"));
        let (mut damages, mut locks, mut partials) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(name) = fields.next().filter(|name| !name.as_os_str().is_empty()) {
            let content = fields.next().unwrap_or_default();
            let (name, content) = (name.to_string_lossy(), content.as_os_str().as_bytes());
            if damages.len() < MAX_FILES {
                damages.extend(parse_damage(&dir, &name, content));
            }
            if locks.len() < MAX_LOCKS {
                locks.extend(parse_held_lock(&name, content));
            }
            if partials.len() < MAX_PARTIALS {
                partials.extend(parse_partial(&name, content));
            }
        }
        let names = if is_present { names } else { Vec::new() };
        let mut listing = DirListing {
            dir,
            is_present,
            damages,
            locks,
            partials,
            space,
            ..DirListing::default()
        };
        for name in &names {
            let text = name.to_string_lossy();
            let unlisted = text.strip_prefix('/').and_then(|text| text.split_once('/'));
            if let Some((organization, cause)) = unlisted {
                listing.add_unlisted(organization, cause);
            } else if index == 0 || name.components().count() == 1 {
                // Only the first directory is that of the snapshots.
                listing.add_file(name);
            }
        }
        listings.push(listing);
    }
    Ok(listings)
}

/// Parses the content of a lock file after a line with its time.
fn parse_held_lock(name: &str, content: &[u8]) -> Option<HostLock> {
    let end = content.iter().position(|byte| *byte == b'\n')?;
    let (time, text) = (
        std::str::from_utf8(&content[..end]).ok()?,
        &content[end + 1..],
    );
    parse_lock(name, time.parse().ok(), text)
}

fn split_into_batches(paths: &[PathBuf]) -> Vec<&[PathBuf]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, path) in paths.iter().enumerate() {
        let length = path.as_os_str().len() + 3;
        if bytes + length > MAX_PATH_BYTES && index > start {
            batches.push(&paths[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += length;
    }
    if start < paths.len() {
        batches.push(&paths[start..]);
    }
    batches
}

/// Parses the output of the verb `stat` for `paths`.
fn parse_stat_output(stdout: &[u8], stderr: &str, paths: &[PathBuf]) -> Vec<FileStatus> {
    let fields = stdout.split(|byte| *byte == 0).take(9 * paths.len());
    let fields: Vec<&[u8]> = fields.collect();
    let (canonical, stats) = fields.split_at(paths.len().min(fields.len()));
    let stats: HashMap<&[u8], &[&[u8]]> = stats
        .chunks_exact(8)
        .map(|stat| (stat[0], &stat[1..]))
        .collect();
    let find_stat = |path: &Path| {
        let Some(stat) = stats.get(path.as_os_str().as_bytes()) else {
            return Err(find_message(stderr, path)
                .map_or_else(|| io::ErrorKind::NotFound.into(), parse_system_error));
        };
        parse_stat(stat).unwrap_or_else(|| Err(io::Error::other("cannot parse the output of stat")))
    };
    let statuses = paths
        .iter()
        .enumerate()
        .map(|(index, path)| match canonical.get(index) {
            Some([]) => FileStatus {
                path: path.clone(),
                file: Err(io::Error::other(TOO_MANY_LINKS)),
            },
            canonical => FileStatus {
                path: canonical.map_or_else(|| path.clone(), |bytes| path_from_bytes(bytes)),
                file: find_stat(path),
            },
        });
    statuses.collect()
}

/// Returns the last part of the message of stat(1) or dd(1) about `path`.
fn find_message<'a>(stderr: &'a str, path: &Path) -> Option<&'a str> {
    // They quote the name; most names need no quotes inside. `pin` (open_file.sh) has another one for it.
    let path = path.to_string_lossy();
    let name = path.rsplit('/').next().filter(|_| path.contains(PIN));
    let pinned = name.map(|name| format!("'/proc/self/fd/5/{name}'"));
    let quoted = format!("'{path}'");
    let is_about = |line: &&str| {
        line.contains(&quoted) || pinned.as_ref().is_some_and(|name| line.contains(name))
    };
    let line = stderr.lines().find(is_about)?;
    Some(line.rsplit_once(": ")?.1)
}

/// Parses size, blocks of 512 bytes, inode, modification time, type, device and change time.
fn parse_stat(stat: &[&[u8]]) -> Option<io::Result<ImageFile>> {
    let text = |index: usize| std::str::from_utf8(stat.get(index)?).ok();
    if !matches!(
        text(4)?,
        "regular file" | "regular empty file" | "block special file"
    ) {
        return Some(Err(io::Error::new(io::ErrorKind::InvalidInput, NOT_A_FILE)));
    }
    let time_ns = |index| parse_time_ns(text(index)?);
    let size_bytes = text(0)?
        .parse()
        .ok()
        .filter(|bytes| *bytes <= MAX_FILE_BYTES)?;
    let blocks: u64 = text(1)?.parse().ok()?;
    Some(Ok(ImageFile {
        size_bytes,
        allocated_bytes: blocks.saturating_mul(512).min(MAX_FILE_BYTES),
        stamp: FileStamp {
            inode: text(2)?.parse().ok()?,
            modified_ns: time_ns(3)?,
            size_bytes,
            changed_ns: Some(time_ns(6)?),
        },
        device: text(5)?.parse().ok()?,
        facts: Err("its header was not read".into()),
        other_references: OtherReferences::default(),
        directory_id: None,
    }))
}

/// Returns the bytes of a header of `length` that a file of `size_bytes` has.
fn head_bytes(length: usize, size_bytes: u64) -> usize {
    usize::try_from(size_bytes).map_or(length, |size| size.min(length))
}

/// Removes the entry of the file `path` from the front of `output`, of a verb that reads headers, and returns its bytes.
fn split_head<'a>(
    output: &mut &'a [u8],
    path: &Path,
    length: usize,
    size_bytes: u64,
) -> Option<&'a [u8]> {
    let title = [b"==> ", path.as_os_str().as_bytes(), b" <==\n"].concat();
    let entry = output.strip_prefix(b"\n").unwrap_or(output);
    let content = entry.strip_prefix(&title[..])?;
    let (head, rest) = content.split_at_checked(head_bytes(length, size_bytes))?;
    *output = rest;
    Some(head)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::remote::script_argv;
    use super::*;
    use crate::fs::blocks::format_stamp;

    fn script(verb: &str, args: &[&str]) -> std::process::Command {
        let argv = script_argv(verb, "0:0", None, args);
        let mut script = std::process::Command::new(argv[0]);
        script.args(&argv[1..]).env("LC_ALL", "C");
        script
    }

    fn run_script(verb: &str, args: &[&str]) -> std::process::Output {
        script(verb, args).output().unwrap()
    }

    #[test]
    fn a_directory_with_too_many_files_is_not_listed() {
        let listing = |count| [b"/s\0\0".to_vec(), b"a\0".repeat(count), b"\0\0".to_vec()].concat();
        let listed = parse_listings(&listing(MAX_FILES), 1).unwrap();
        assert_eq!(listed[0].others.len(), MAX_FILES);
        let refused = parse_listings(&listing(MAX_FILES + 1), 1);
        assert_eq!(refused.unwrap_err(), Path::new("/s"));
    }

    #[test]
    fn output_of_the_script_is_parsed() {
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
        let args: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        let output = run_script("stat", &args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let statuses = parse_stat_output(&output.stdout, &stderr, &paths);
        let sizes: Vec<Result<u64, io::ErrorKind>> = statuses
            .iter()
            .map(|status| match &status.file {
                Ok(file) => Ok(file.size_bytes),
                Err(error) => Err(error.kind()),
            })
            .collect();
        let (missing, directory) = (io::ErrorKind::NotFound, io::ErrorKind::InvalidInput);
        assert_eq!(
            sizes,
            [Ok(4), Ok(12), Ok(0), Ok(4), Err(missing), Err(directory)]
        );
        for verb in ["read_headers", "read_headers_singly"] {
            let sizes = ["4", "8", "0", "4"];
            let files = sizes
                .iter()
                .zip(&args)
                .flat_map(|(size, path)| [*size, path]);
            let output = run_script(verb, &files.collect::<Vec<_>>());
            let mut output = &output.stdout[..];
            for (path, text) in paths.iter().zip(texts) {
                let head = split_head(&mut output, path, 8, text.len() as u64);
                assert_eq!(head, Some(&text[..text.len().min(8)]), "{verb}");
            }
        }
        let missing = &paths[4];
        let output = run_script("read_headers_singly", &["8", args[4]]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let cause = Some("No such file or directory");
        assert_eq!(find_message(&stderr, missing), cause);
    }

    #[test]
    fn headers_are_not_read_through_links_nor_from_fifos() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::os::unix::fs::symlink("/dev/zero", path("link")).unwrap();
        let mkfifo = std::process::Command::new("mkfifo")
            .arg(path("fifo"))
            .status();
        assert!(mkfifo.unwrap().success());
        std::fs::write(path("file"), "text").unwrap();
        let [link, fifo, file] = ["link", "fifo", "file"].map(path);
        let files = ["4", &link, "4", &fifo, "4", &file];
        let output = run_script("read_headers_singly", &files);
        let expected = format!("==> {fifo} <==\n\0\0\0\0\n==> {file} <==\ntext\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        let output = run_script("read_headers", &["4", &link, "4", &file]);
        let expected = format!("==> {link} <==\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }

    #[test]
    fn a_file_cannot_forge_the_header_of_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a.qcow2", "b.qcow2"].map(|name| dir.path().join(name));
        let [a, b] = [a.to_str().unwrap(), b.to_str().unwrap()];
        // It has become longer since stat(1).
        std::fs::write(a, format!("text\n==> {b} <==\nforged\n")).unwrap();
        std::fs::write(b, "of b").unwrap();
        for verb in ["read_headers", "read_headers_singly"] {
            let output = run_script(verb, &["4", a, "4", b]);
            let expected = format!("==> {a} <==\ntext\n==> {b} <==\nof b\n");
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
            // It has become shorter.
            let output = run_script(verb, &["700", a, "4", b]);
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.ends_with(&format!("\n==> {b} <==\nof b\n")), "{text}");
            assert_eq!(text.len(), 700 + 4 + 2 + a.len() + b.len() + 2 * 9);
            // The kernel says 0 of files that it makes up.
            let output = run_script(verb, &["0", "/proc/self/cmdline", "4", b]);
            let expected = format!("==> /proc/self/cmdline <==\n\n==> {b} <==\nof b\n");
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        }
    }

    #[test]
    fn a_record_of_damage_cannot_forge_the_listing_of_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
        for path in [&first, &second] {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::write(second.join("of-second.qcow2"), "").unwrap();
        let forged = "{}\0\0/forged\0\0forged.qcow2\0\0\0";
        std::fs::write(first.join(".a.qcow2.damaged"), forged).unwrap();
        let args = ["", first.to_str().unwrap(), second.to_str().unwrap()];
        let output = run_script("list_images", &args);
        let listings = parse_listings(&output.stdout, 2).unwrap();
        assert_eq!(listings[1].dir, second);
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("of-second.qcow2"),
            "{output:?}"
        );
    }

    #[test]
    fn a_fifo_that_takes_the_name_of_a_file_while_it_is_opened_does_not_hold_up_the_script() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("file"), "text").unwrap();
        // `dd` looks at it last before it is opened.
        let fake = "#!/bin/sh\nrm -f \"$FILE\"; mkfifo \"$FILE\"\n";
        std::fs::write(path("dd"), fake).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path("dd"), mode).unwrap();
        let programs = format!("{}:/usr/bin:/bin", dir.path().display());
        let file = path("file");
        let output = script("read_file", &[&file, "10"])
            .env("PATH", programs)
            .env("FILE", &file)
            .output()
            .unwrap();
        assert!(!output.status.success() && output.stdout.is_empty());
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains("makes its reader wait"), "{message}");
    }

    #[test]
    fn a_file_that_takes_the_name_of_another_while_that_is_hashed_is_not_taken_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let [file, good, bad] = ["file", "good", "bad"].map(path);
        // Each of them runs before the file is opened, or between its first and its last byte.
        for program in ["dd", "sha256sum", "sync"] {
            let real = format!("/usr/bin/{program}");
            let swap = "[ ! -e \"$DIR/good\" ] || { mv \"$DIR/file\" \"$DIR/bad\"; mv \"$DIR/good\" \"$DIR/file\"; }";
            let change = "chmod 640 \"$DIR/file\"";
            let act = if program == "dd" { swap } else { change };
            let fake = format!("#!/bin/sh\n{act}\nexec {real} \"$@\"\n");
            let programs = dir.path().join(format!("{program}.d"));
            std::fs::create_dir(&programs).unwrap();
            std::fs::write(programs.join(program), fake).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(programs.join(program), mode).unwrap();
            for verb in ["hash_blocks", "hash_parts", "list_holes"] {
                let is_run = program == "dd" || (program == "sync") == (verb == "list_holes");
                let _ = std::fs::remove_file(&bad);
                std::fs::write(&file, "evil").unwrap();
                std::fs::write(&good, "good").unwrap();
                let metadata = std::fs::metadata(&file).unwrap();
                let stamp = format_stamp(crate::image_file::file_stamp(&metadata));
                let args: Vec<&str> = match verb {
                    "hash_blocks" => vec![&file, &stamp, "8388608", "0", "0", "4"],
                    "hash_parts" => vec!["sha256sum", &file, &stamp, "0", "4"],
                    _ => vec![&file, &stamp, "1"],
                };
                let output = script(verb, &args)
                    .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
                    .env("DIR", dir.path())
                    .output()
                    .unwrap();
                let message = String::from_utf8_lossy(&output.stderr);
                let is_refused = message.contains("it was changed while it was read");
                assert_eq!(is_refused, is_run, "{program} {verb}: {output:?}");
                assert_eq!(
                    output.status.success(),
                    !is_run,
                    "{program} {verb}: {message}"
                );
            }
        }
    }

    #[test]
    fn new_files_are_not_written_to_what_has_their_name() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        // A file of the shell's `noclobber` may be a FIFO or a device, which it opens.
        let mkfifo = std::process::Command::new("mkfifo")
            .arg(path("fifo"))
            .status();
        assert!(mkfifo.unwrap().success());
        let write = |verb: &str| {
            let mut running = script(verb, &[&path("a.json"), "token", "4"])
                .stdin(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            running.stdin.take().unwrap().write_all(b"text").unwrap();
            running.wait_with_output().unwrap()
        };
        for verb in ["write_file", "create_new", "create_file"] {
            std::os::unix::fs::symlink(path("fifo"), path(".a.json.token")).unwrap();
            let output = write(verb);
            assert!(!output.status.success(), "{verb}");
            assert!(!dir.path().join("a.json").exists(), "{verb}");
            std::fs::remove_file(path(".a.json.token")).unwrap();
            let output = write(verb);
            assert!(output.status.success(), "{verb}: {output:?}");
            assert_eq!(std::fs::read_to_string(path("a.json")).unwrap(), "text");
            std::fs::remove_file(path("a.json")).unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{verb}");
        }
    }

    #[test]
    fn long_lists_are_split() {
        let paths: Vec<PathBuf> = (0..2000).map(|n| format!("/dir/{n:060}").into()).collect();
        let batches = split_into_batches(&paths);
        assert!(batches.len() > 1);
        assert_eq!(batches.concat(), paths);
        assert!(split_into_batches(&[]).is_empty());
    }

    #[test]
    fn fuzz_stat_output() {
        let paths = [PathBuf::from("/a/b.qcow2"), PathBuf::from("/a/c.qcow2")];
        let stat = "/a/b.qcow2\0/a/c.qcow2\0/a/b.qcow2\x001024\x008\x0077\x001700000000.123456789\0regular file\x0064769\0\
                    1700000000.5\0";
        snapdeck_fuzz::FuzzTarget::new("output of stat")
            .seed(stat)
            .seed(stat.replace("1700000000.5", "170141183460469231731687303715884105727.5"))
            .seed(format!(
                "{stat}/a/c.qcow2\x000\x000\x001\x001.0\0regular empty file\x001\x001.0\0"
            ))
            .run(|output| {
                let stderr = snapdeck_fuzz::text(output);
                let statuses = parse_stat_output(output, &stderr, &paths);
                assert_eq!(statuses.len(), 2);
                let files = statuses
                    .iter()
                    .filter_map(|status| status.file.as_ref().ok());
                for file in files {
                    assert!(file.stamp.size_bytes.max(file.allocated_bytes) <= MAX_FILE_BYTES);
                }
            });
    }

    #[test]
    fn fuzz_headers_output() {
        let path = Path::new("/a/b");
        snapdeck_fuzz::FuzzTarget::new("output of head")
            .seed("==> /a/b <==\nQFI\n==> /a/b <==\n")
            .run(|output| {
                let mut rest = output;
                while let Some(head) = split_head(&mut rest, path, 4, 3) {
                    assert!(head.len() <= 3);
                    let _ = ImageHeader::parse(head);
                }
            });
    }

    #[test]
    fn fuzz_listings() {
        snapdeck_fuzz::FuzzTarget::new("list of images")
            .seed("/snapshots\x00100 70 4096\0a.qcow2\0.b.qcow2.damaged\0\0.b.qcow2.damaged\0{}\0.c.qcow2.lock\x001700000000\npull c, by a on b\0\0/sandboxes\0\0/\0\0\0")
            .memory(1 << 20, 64)
            .run(|output| {
                if let Ok(listings) = parse_listings(output, 2) {
                    assert_eq!(listings.len(), 2);
                }
            });
    }
}
