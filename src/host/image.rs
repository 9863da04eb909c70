//! `qemu-img` on a host.

use std::process::ExitStatus;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Host;
use super::command::{CommandRunner, TextOutput, read_text};
use super::fs::PullDir;
use super::reconnect::RetryPolicy;
use super::supervisor::{ImageAccess, Limits, PULL_FILE, TARGET, killed_by};
use snapdeck_model::{Error, Kind, Phase, ProgressCell, Result};

/// Reads the image's tables only, however large the disk.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(120);
/// Reads every table of the image.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// CPU time of each of them, whatever the image. It is no elapsed time, so that a busy host or a slow disk fails nothing:
/// an image that was not made to keep qemu-img busy takes milliseconds to seconds of it.
const BASE_CPU_TIME: Duration = Duration::from_secs(60);
/// CPU time in addition for each GiB that the file has allocated, or the new one will have: a check takes 0.01 s of it
/// with clusters of 64 KiB and 1 s with 512 bytes, a conversion 10 s if all is compressed. A table that is referenced
/// a million times takes no more space than one that is referenced once.
const CHECK_CPU_TIME_PER_GIB: u64 = 2;
const CONVERT_CPU_TIME_PER_GIB: u64 = 60;
/// A conversion without progress for this long hangs; qemu-img reports steps of 0.01 % to 1 %.
const STALL_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// A conversion that is slower is ended.
const MIN_BYTES_PER_SECOND: u64 = 1 << 20;

/// Format of an image's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// qcow2.
    Qcow2,
    /// The bytes of the disk.
    Raw,
}

/// A disk with all its backing files, as QEMU is to open them: it follows no name in a header, and probes no format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageChain {
    /// Paths and formats of the files, the disk first.
    files: Vec<(String, ImageFormat)>,
    /// Name for QEMU's programs: `json:` and the options of all files.
    name: String,
}

impl ImageChain {
    /// Returns the chain of files, the disk first; `None` without any.
    pub fn new(files: &[(&str, ImageFormat)]) -> Option<Self> {
        let node = |backing: Option<Value>, (path, format): &(&str, ImageFormat)| {
            let file = json!({"driver": "file", "filename": path});
            Some(match format {
                ImageFormat::Qcow2 => json!({"driver": "qcow2", "file": file, "backing": backing}),
                ImageFormat::Raw => json!({"driver": "raw", "file": file}),
            })
        };
        let options = files.iter().rev().fold(None, node)?;
        Some(Self {
            files: files
                .iter()
                .map(|(path, format)| ((*path).to_owned(), *format))
                .collect(),
            name: format!("json:{options}"),
        })
    }

    pub(crate) fn path(&self) -> &str {
        self.files.first().map_or("", |(path, _)| path)
    }

    pub(crate) fn files(&self) -> Vec<&str> {
        self.files.iter().map(|(path, _)| path.as_str()).collect()
    }

    /// Returns each file as a disk without backing files.
    pub(crate) fn split(&self) -> Vec<Self> {
        let single = |(path, format): &(String, ImageFormat)| Self::new(&[(path, *format)]);
        self.files.iter().filter_map(single).collect()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// `qemu-img` on a host.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    pub(super) runner: &'a CommandRunner,
    pub(super) retry_policy: &'a RetryPolicy,
    /// Owner of the host's files: QEMU's user.
    pub(super) owner: &'a str,
}

impl<'a> Images<'a> {
    pub(super) fn new(host: &'a Host) -> Self {
        Self {
            runner: &host.runner,
            retry_policy: &host.retry_policy,
            owner: &host.settings.owner,
        }
    }

    /// Returns the maximum size of a flattened copy of `disk` in bytes (`qemu-img measure`); `shared` while QEMU has
    /// the disk open.
    ///
    /// # Errors
    /// `Failed` with qemu-img's message; `Cancelled`; `Unreachable`.
    pub async fn measure(
        self,
        disk: &ImageChain,
        shared: bool,
        cancel: &CancellationToken,
    ) -> Result<u64> {
        let files = disk.files();
        let images = self.reads(&files);
        self.retry_policy
            .call(|| measure(self.runner, disk, shared, images, cancel))
            .await
    }

    /// Flattens `disk` into the new file `target` (`qemu-img convert`); `shared` while QEMU has the disk open. Progress
    /// counts to `expected_bytes`, as measured. qemu-img has exited when this returns.
    ///
    /// # Errors
    /// `Cancelled`; `NoSpace`; `Failed` with qemu-img's message; `Unreachable`.
    pub async fn convert(
        self,
        disk: &ImageChain,
        target: &str,
        shared: bool,
        expected_bytes: u64,
        progress: &ProgressCell,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let runner = self.runner;
        let summary = || format!("cannot convert {} on host {}", disk.path(), runner.host());
        let mut argv = vec!["qemu-img", "convert", "-p", "-O", "qcow2"];
        argv.extend(share_flags(shared));
        argv.extend([disk.name(), TARGET]);
        progress.enter(Phase::Converting, expected_bytes);
        let files = disk.files();
        let images = ImageAccess {
            target: Some(target),
            ..self.reads(&files)
        };
        let limits = limits(CONVERT_CPU_TIME_PER_GIB, expected_bytes, images);
        let mut child = runner.start_limited(&argv, limits).await?;
        let (mut stdout, stderr) = (child.stdout(), child.stderr());

        let read_progress = async {
            let mut percent = PercentParser::default();
            let mut buffer = [0; 4096];
            // The program may belong to a user who can make it print progress without end.
            let longest =
                STALL_TIMEOUT + Duration::from_secs(expected_bytes / MIN_BYTES_PER_SECOND);
            let end = Instant::now() + longest;
            while let Some(stdout) = &mut stdout {
                let stalled_at = end.min(Instant::now() + STALL_TIMEOUT);
                match tokio::time::timeout_at(stalled_at, stdout.read(&mut buffer)).await {
                    Err(_) => return false,
                    Ok(Ok(0) | Err(_)) => break,
                    Ok(Ok(length)) => {
                        let bytes = buffer.iter().take(length);
                        let fractions = bytes.filter_map(|byte| percent.push_byte(*byte));
                        if let Some(fraction) = fractions.last() {
                            progress.set_done((expected_bytes as f64 * fraction) as u64);
                        }
                    }
                }
            }
            true
        };
        let run = async {
            let (has_progress, stderr) = tokio::join!(read_progress, read_text(stderr));
            if !has_progress {
                return Err(Error::new(Kind::Failed, summary()).with_cause(format!(
                    "qemu-img made no progress for {} minutes, or less than 1 MiB/s",
                    STALL_TIMEOUT.as_secs() / 60
                )));
            }
            let status = runner.wait(&mut child).await?;
            if status.success() {
                return Ok(());
            }
            Err(explain(summary(), status, &stderr, limits))
        };
        let result = tokio::select! {
            result = run => result,
            () = cancel.cancelled() => Err(Error::cancelled("qemu-img convert")),
        };
        if result.is_err() {
            // Waits for its exit, since the caller removes the file that it writes.
            child.terminate().await;
        }
        result
    }

    /// Checks an image (`qemu-img check`), whose file has `allocated_bytes`; `Some` with a warning if it has leaked
    /// clusters only.
    ///
    /// # Errors
    /// `Damaged` if it is not consistent; `Cancelled`; `Failed` if the check cannot be done; `Unreachable`.
    pub async fn check(
        self,
        path: &str,
        allocated_bytes: u64,
        cancel: &CancellationToken,
    ) -> Result<Option<String>> {
        let files = [path];
        let images = self.reads(&files);
        let limits = limits(CHECK_CPU_TIME_PER_GIB, allocated_bytes, images);
        self.retry_policy
            .call(|| check(self.runner, path, limits, cancel))
            .await
    }

    /// As [`Images::check`], for the file of a pull in its private directory.
    ///
    /// # Errors
    /// As [`Images::check`]; `Conflict` if the directory was replaced.
    pub async fn check_pull(
        self,
        dir: &PullDir,
        allocated_bytes: u64,
        cancel: &CancellationToken,
    ) -> Result<Option<String>> {
        let files = [PULL_FILE];
        let images = ImageAccess {
            pull_dir: Some(dir),
            ..self.reads(&files)
        };
        let limits = limits(CHECK_CPU_TIME_PER_GIB, allocated_bytes, images);
        self.retry_policy
            .call(|| check(self.runner, dir.path(), limits, cancel))
            .await
    }

    fn reads<'b>(self, files: &'b [&'b str]) -> ImageAccess<'b>
    where
        'a: 'b,
    {
        ImageAccess {
            owner: self.owner,
            files,
            target: None,
            pull_dir: None,
        }
    }
}

/// Returns the limits of a qemu-img that reads or writes `bytes`.
fn limits(seconds_per_gib: u64, bytes: u64, images: ImageAccess<'_>) -> Limits<'_> {
    let seconds = seconds_per_gib.saturating_mul(bytes >> 30);
    Limits {
        cpu_time: BASE_CPU_TIME + Duration::from_secs(seconds),
        images: Some(images),
    }
}

/// `--force-share`: reads an image whose locks QEMU holds.
fn share_flags(shared: bool) -> &'static [&'static str] {
    if shared { &["-U"] } else { &[] }
}

async fn measure(
    runner: &CommandRunner,
    disk: &ImageChain,
    shared: bool,
    images: ImageAccess<'_>,
    cancel: &CancellationToken,
) -> Result<u64> {
    let summary = || format!("cannot measure {} on host {}", disk.path(), runner.host());
    let mut argv = vec!["qemu-img", "measure", "--output=json", "-O", "qcow2"];
    argv.extend(share_flags(shared));
    argv.push(disk.name());
    let limits = limits(0, 0, images);
    let output = runner
        .run_limited(&argv, limits, MEASURE_TIMEOUT, cancel)
        .await?;
    if !output.status.success() {
        return Err(explain(summary(), output.status, &output.stderr, limits));
    }
    parse_required_bytes(&output.stdout).map_err(|error| {
        Error::new(Kind::Failed, summary())
            .with_cause(format!("qemu-img measure printed invalid JSON: {error}"))
    })
}

fn parse_required_bytes(json: &str) -> serde_json::Result<u64> {
    #[derive(Deserialize)]
    struct MeasureOutput {
        required: u64,
    }
    serde_json::from_str(json).map(|measured: MeasureOutput| measured.required)
}

async fn check(
    runner: &CommandRunner,
    path: &str,
    limits: Limits<'_>,
    cancel: &CancellationToken,
) -> Result<Option<String>> {
    let summary = || format!("cannot check {path} on host {}", runner.host());
    let is_pull = limits
        .images
        .is_some_and(|images| images.pull_dir.is_some());
    let file = if is_pull { PULL_FILE } else { path };
    let argv = ["qemu-img", "check", "-f", "qcow2", file];
    let mut output = runner
        .run_limited(&argv, limits, CHECK_TIMEOUT, cancel)
        .await?;
    if is_pull {
        output.stderr = output.stderr.replace(PULL_FILE, path);
    }
    // QEMU, docs/tools/qemu-img, "check": the meaning of its exit codes.
    match output.status.code() {
        Some(0) => Ok(None),
        Some(3) => Ok(Some(format!(
            "{path} has leaked clusters: its data is intact, some space is wasted"
        ))),
        Some(2) => Err(Error::new(
            Kind::Damaged,
            format!(
                "qemu-img check failed: {path} on host {} is damaged",
                runner.host()
            ),
        )
        .with_cause(find_error_line(&output))),
        Some(1) if !is_access_error(&output.stderr) => Err(Error::new(
            Kind::Damaged,
            format!(
                "qemu-img check failed: {path} on host {} cannot be read as qcow2",
                runner.host()
            ),
        )
        .with_cause(last_line(&output.stderr))),
        _ => Err(explain(summary(), output.status, &output.stderr, limits)),
    }
}

/// Returns whether this error with exit code 1 is independent of the image's content.
fn is_access_error(stderr: &str) -> bool {
    [
        "Permission denied",
        "Operation not permitted",
        "No such file",
        "No such device",
        LOCK_MESSAGE,
        "Input/output error",
        "I/O error",
        "Stale file handle",
        "Connection",
        "Transport endpoint is not connected",
        "Structure needs cleaning",
        "Interrupted system call",
        "Too many open files",
        "Cannot allocate memory",
        "error while loading shared libraries",
    ]
    .iter()
    .any(|message| stderr.contains(message))
}

/// The signal for a process that has used its CPU time.
const CPU_TIME_SIGNAL: i32 = nix::libc::SIGXCPU;

/// Part of QEMU's message if another process holds the locks of an image.
const LOCK_MESSAGE: &str = "Is another process using";

/// Returns the line of a check's output that counts the errors, else the last line of stderr.
fn find_error_line(output: &TextOutput) -> String {
    let counts = |line: &&str| line.contains("errors were found");
    match output.stdout.lines().find(counts) {
        Some(line) => line.to_owned(),
        None => last_line(&output.stderr).to_owned(),
    }
}

fn last_line(text: &str) -> &str {
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no error message")
}

fn explain(summary: String, status: ExitStatus, stderr: &str, limits: Limits<'_>) -> Error {
    if stderr.contains("No space left") || stderr.contains("Disk quota exceeded") {
        return Error::new(Kind::NoSpace, summary)
            .with_cause(last_line(stderr))
            .hint("free space there, or set temp_dir of the host to a larger disk");
    }
    let error = Error::new(Kind::Failed, summary);
    if stderr.contains(LOCK_MESSAGE) {
        return error.with_cause(last_line(stderr)).hint(
            "another program has the image open: wait for it, or pause the sandbox rather than stop it",
        );
    }
    match killed_by(status) {
        Some(CPU_TIME_SIGNAL) => error
            .with_cause(format!(
                "qemu-img used more than {} s of CPU time",
                limits.cpu_time.as_secs()
            ))
            .hint("do not trust the image: its tables are not those that QEMU writes"),
        Some(signal) => error.with_cause(format!("qemu-img was killed by signal {signal}")),
        None => error.with_cause(last_line(stderr)),
    }
}

/// Parses `(12.34/100%)` in the output of `qemu-img -p`, byte by byte.
#[derive(Default)]
struct PercentParser {
    digits: String,
    is_in_parens: bool,
}

impl PercentParser {
    /// Returns the fraction done, from 0 to 1, at the byte that completes a report.
    fn push_byte(&mut self, byte: u8) -> Option<f64> {
        match byte {
            b'(' => {
                self.digits.clear();
                self.is_in_parens = true;
            }
            b'0'..=b'9' | b'.' if self.is_in_parens && self.digits.len() < 8 => {
                self.digits.push(char::from(byte));
            }
            b'/' if self.is_in_parens => {
                self.is_in_parens = false;
                let percent = self.digits.parse::<f64>().ok()?;
                return Some((percent / 100.0).clamp(0.0, 1.0));
            }
            _ => self.is_in_parens = false,
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_each_file_and_format() {
        let files = [
            ("/b/o,1.qcow2", ImageFormat::Qcow2),
            ("/s/\"x", ImageFormat::Raw),
        ];
        let chain = ImageChain::new(&files);
        let options = chain
            .as_ref()
            .and_then(|chain| chain.name().strip_prefix("json:"));
        let options: Option<Value> = options.and_then(|text| serde_json::from_str(text).ok());
        let expected = json!({
            "driver": "qcow2",
            "file": {"driver": "file", "filename": "/b/o,1.qcow2"},
            "backing": {"driver": "raw", "file": {"driver": "file", "filename": "/s/\"x"}},
        });
        assert_eq!(options, Some(expected));
        let standalone = ImageChain::new(&files[..1]);
        assert!(standalone.is_some_and(|chain| chain.name().contains("\"backing\":null")));
        assert_eq!(ImageChain::new(&[]), None);
    }

    #[test]
    fn progress_of_qemu_img_is_parsed() {
        let mut percent = PercentParser::default();
        let fractions: Vec<f64> = b"    (0.00/100%)\r    (50.25/100%)\r    (100.00/100%)\r\n"
            .iter()
            .filter_map(|byte| percent.push_byte(*byte))
            .collect();
        assert_eq!(fractions, [0.0, 0.5025, 1.0]);
    }

    #[test]
    fn other_output_is_ignored() {
        let mut percent = PercentParser::default();
        let output = b"(x) 12/100% ((..) (123456789123456789";
        assert!(output.iter().all(|byte| percent.push_byte(*byte).is_none()));
    }

    #[test]
    fn fuzz_qemu_img_output() {
        snapdeck_fuzz::FuzzTarget::new("output of qemu-img")
            .seed("{\"required\": 327680, \"fully-allocated\": 1074135040}")
            .seed("    (12.34/100%)\r    (100.00/100%)\r")
            .seed("ERROR cluster 3 refcount=1 reference=2\n\n1 errors were found on the image.\n")
            .run(|output| {
                let mut percent = PercentParser::default();
                for byte in output {
                    let fraction = percent.push_byte(*byte);
                    assert!(fraction.is_none_or(|fraction| (0.0..=1.0).contains(&fraction)));
                }
                let text = snapdeck_fuzz::text(output);
                let _ = parse_required_bytes(&text);
                is_access_error(&text);
                let output = TextOutput {
                    status: ExitStatus::default(),
                    stdout: text.clone().into_owned(),
                    stderr: text.into_owned(),
                };
                assert!(!find_error_line(&output).contains('\n'));
            });
    }
}
