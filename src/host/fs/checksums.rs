//! Checksums of the parts of a file as S3 stores keep them, computed on the host itself.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use md5::{Digest as _, Md5};
use tokio_util::sync::CancellationToken;

use super::blocks::format_stamp;
use super::checked_open::check_stamp;
use super::local::LocalFs;
use super::pinned::open_pinned;
use super::remote::{RemoteFs, script_error};
use snapdeck_model::{Error, FileStamp, Kind, ProgressCell, Result};

/// For one part, in addition to [`READ_RATE`].
const PART_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a part that are hashed in a second, at least.
const READ_RATE: u64 = 4 << 20;
/// Bytes of one read.
const CHUNK_BYTES: u64 = 1 << 20;
/// Parts in progress.
const CONCURRENCY: usize = 4;
/// Bytes and parts of one command on a remote host, whose progress is seen at its end.
const MAX_COMMAND_BYTES: u64 = 128 << 20;
const MAX_COMMAND_PARTS: usize = 1000;
/// Bytes of the line for a part.
const MAX_LINE_BYTES: usize = 256;

/// A checksum that S3 stores keep of a part or an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-256.
    Sha256,
    /// MD5.
    Md5,
    /// CRC64NVME; only on the local host, as no common program computes it.
    Crc64Nvme,
}

impl Checksum {
    /// Returns the checksum of bytes in memory.
    pub fn compute(self, bytes: &[u8]) -> Vec<u8> {
        let mut hasher = Hasher::new(self);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Returns the program of coreutils that computes it, and the length of its output in bytes.
    fn program(self) -> Option<(&'static str, usize)> {
        match self {
            Self::Sha256 => Some(("sha256sum", 32)),
            Self::Md5 => Some(("md5sum", 16)),
            Self::Crc64Nvme => None,
        }
    }
}

enum Hasher {
    Sha256(Context),
    Md5(Md5),
    Crc64Nvme(Box<crc_fast::Digest>),
}

impl Hasher {
    fn new(checksum: Checksum) -> Self {
        match checksum {
            Checksum::Sha256 => Self::Sha256(Context::new(&SHA256)),
            Checksum::Md5 => Self::Md5(Md5::new()),
            Checksum::Crc64Nvme => {
                let digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
                Self::Crc64Nvme(Box::new(digest))
            }
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(context) => context.update(bytes),
            Self::Md5(md5) => md5.update(bytes),
            Self::Crc64Nvme(crc) => crc.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha256(context) => context.finish().as_ref().to_vec(),
            Self::Md5(md5) => md5.finalize().to_vec(),
            Self::Crc64Nvme(crc) => crc.finalize().to_be_bytes().to_vec(),
        }
    }
}

/// Returns the ranges of consecutive parts of these lengths.
fn ranges(lengths: &[u64]) -> Vec<Range<u64>> {
    let mut start = 0_u64;
    let range = |length: &u64| {
        let range = start..start.saturating_add(*length);
        start = range.end;
        range
    };
    lengths.iter().map(range).collect()
}

fn deadline(bytes: u64) -> Duration {
    PART_TIMEOUT + Duration::from_secs(bytes / READ_RATE)
}

impl LocalFs {
    pub(super) async fn checksums(
        &self,
        (path, stamp): (&str, Option<FileStamp>),
        checksum: Checksum,
        lengths: &[u64],
        progress: &Arc<ProgressCell>,
        cancel: &CancellationToken,
    ) -> Result<Vec<Vec<u8>>> {
        let (name, settings) = (path.to_owned(), self.settings.clone());
        let action = &format!("read {path}");
        let open = move || {
            let file = open_pinned(&settings, &name)?;
            check_stamp(&file, stamp)?;
            Ok(file)
        };
        let file = Arc::new(self.run(action.clone(), PART_TIMEOUT, open).await?);
        let tasks = ranges(lengths).into_iter().map(|range| {
            let (file, progress, stop) = (file.clone(), progress.clone(), cancel.clone());
            async move {
                let deadline = deadline(range.end - range.start);
                let read = move || hash_range(&file, range, checksum, &progress, &stop);
                let result = self.run(action.clone(), deadline, read);
                // The thread sees it, too.
                let result = cancel.run_until_cancelled(result).await;
                result.unwrap_or_else(|| Err(Error::cancelled(action)))
            }
            .boxed()
        });
        let tasks: Vec<_> = tasks.collect();
        let sums = stream::iter(tasks).buffered(CONCURRENCY);
        let sums = sums.try_collect().await?;
        let check = move || check_stamp(&file, stamp);
        self.run(action.clone(), PART_TIMEOUT, check).await?;
        Ok(sums)
    }
}

fn hash_range(
    file: &File,
    range: Range<u64>,
    checksum: Checksum,
    progress: &ProgressCell,
    cancel: &CancellationToken,
) -> io::Result<Vec<u8>> {
    let mut hasher = Hasher::new(checksum);
    let mut buffer = vec![0; CHUNK_BYTES.min(range.end - range.start) as usize];
    let mut offset = range.start;
    while offset < range.end {
        if cancel.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = CHUNK_BYTES.min(range.end - offset) as usize;
        let chunk = &mut buffer[..length];
        file.read_exact_at(chunk, offset)?;
        hasher.update(chunk);
        progress.add(length as u64);
        offset += length as u64;
    }
    Ok(hasher.finish())
}

impl RemoteFs {
    pub(super) async fn checksums(
        &self,
        (path, stamp): (&str, Option<FileStamp>),
        checksum: Checksum,
        lengths: &[u64],
        progress: &Arc<ProgressCell>,
        cancel: &CancellationToken,
    ) -> Result<Vec<Vec<u8>>> {
        let stamp = &*stamp.map(format_stamp).unwrap_or_default();
        let action = &format!("read {path}");
        let summary = &format!("cannot {action} on host {}", self.runner.host());
        let Some(program) = checksum.program() else {
            return Err(Error::new(Kind::InvalidInput, summary)
                .with_cause("no program there computes this checksum"));
        };
        let ranges = ranges(lengths);
        let batches = batches(&ranges);
        let tasks = batches.into_iter().map(|batch| {
            async move {
                let run =
                    || self.run_batch_of_parts(summary, (path, stamp), program, batch, cancel);
                let sums = self.retry_policy.call(run).await?;
                progress.add(batch.iter().map(|range| range.end - range.start).sum());
                Ok::<_, Error>(sums)
            }
            .boxed()
        });
        let tasks: Vec<_> = tasks.collect();
        let sums = stream::iter(tasks).buffered(CONCURRENCY);
        let sums: Vec<Vec<Vec<u8>>> = sums.try_collect().await?;
        Ok(sums.into_iter().flatten().collect())
    }

    async fn run_batch_of_parts(
        &self,
        summary: &str,
        (path, stamp): (&str, &str),
        (program, sum_bytes): (&str, usize),
        batch: &[Range<u64>],
        cancel: &CancellationToken,
    ) -> Result<Vec<Vec<u8>>> {
        let numbers = batch
            .iter()
            .flat_map(|range| [range.start, range.end - range.start]);
        let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
        let path = self.script_path(path);
        let mut args = vec![program, &*path, stamp];
        args.extend(numbers.iter().map(String::as_str));
        let argv = self.argv("hash_parts", &args);
        let limit = MAX_LINE_BYTES * (batch.len() + 1);
        let deadline = deadline(batch.iter().map(|range| range.end - range.start).sum());
        let output = self.runner.run_raw(&argv, limit, deadline, cancel).await?;
        if !output.status.success() {
            return Err(script_error(summary.to_owned(), &output.stderr, &args));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let sums: Option<Vec<Vec<u8>>> = text.lines().map(parse_hex).collect();
        let is_complete = |sums: &Vec<Vec<u8>>| {
            sums.len() == batch.len() && sums.iter().all(|sum| sum.len() == sum_bytes)
        };
        sums.filter(is_complete).ok_or_else(|| {
            Error::new(Kind::Failed, summary).with_cause(format!("unexpected output of {program}"))
        })
    }
}

/// Splits parts into those of one command each.
fn batches(ranges: &[Range<u64>]) -> Vec<&[Range<u64>]> {
    let mut batches = Vec::new();
    let mut rest = ranges;
    while let Some(first) = rest.first() {
        let fits = |range: &&Range<u64>| range.end - first.start <= MAX_COMMAND_BYTES;
        let count = rest.iter().take(MAX_COMMAND_PARTS).take_while(fits).count();
        let (batch, others) = rest.split_at(count.max(1));
        batches.push(batch);
        rest = others;
    }
    batches
}

fn parse_hex(line: &str) -> Option<Vec<u8>> {
    let is_hex = line.len().is_multiple_of(2) && line.bytes().all(|byte| byte.is_ascii_hexdigit());
    let byte = |at| u8::from_str_radix(line.get(at..at + 2)?, 16).ok();
    is_hex.then(|| (0..line.len()).step_by(2).map(byte).collect())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn checksums_are_those_of_the_standards() {
        // RFC 1321, FIPS 180-4, and the check value of CRC-64/NVME.
        let of = |checksum: Checksum, text: &str| hex(&checksum.compute(text.as_bytes()));
        assert_eq!(of(Checksum::Md5, "abc"), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            of(Checksum::Sha256, "abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(of(Checksum::Crc64Nvme, "123456789"), "ae8b14860a799888");
    }

    #[test]
    fn parts_are_split_into_commands() {
        let mib = 1 << 20;
        let parts = ranges(&[100 * mib, 20 * mib, 20 * mib, 500 * mib, 1]);
        assert_eq!(parts[1], 100 * mib..120 * mib);
        let counts: Vec<usize> = batches(&parts).iter().map(|batch| batch.len()).collect();
        assert_eq!(counts, [2, 1, 1, 1]);
        assert_eq!(batches(&ranges(&[1; 2500])).len(), 3);
        assert_eq!(batches(&[]).len(), 0);
    }

    #[test]
    fn a_line_is_hexadecimal() {
        assert_eq!(parse_hex("00ff"), Some(vec![0, 255]));
        for bad in ["0", "0g", "unreadable", "é0"] {
            assert_eq!(parse_hex(bad), None, "{bad}");
        }
    }
}
