//! `qemu-img` on a host.

use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::Host;
use super::command::{CommandRunner, Input, TextOutput, read_text};
use super::reconnect::RetryPolicy;
use snapdeck_model::{Error, Kind, Phase, ProgressCell, Result};

/// Reads the image's tables only, however large the disk.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(120);
/// Writes the tables of an empty image.
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);
/// Reads every table of the image.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// A conversion that has not come one step (0.01 %... 1 %, as QEMU likes) further for so long hangs.
const STALL_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// `qemu-img` on a host.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    runner: &'a CommandRunner,
    retry_policy: &'a RetryPolicy,
}

impl<'a> Images<'a> {
    pub(super) fn new(host: &'a Host) -> Self {
        Self {
            runner: &host.runner,
            retry_policy: &host.retry_policy,
        }
    }

    /// Returns the bytes that a flattened copy of `disk` takes at most (`qemu-img measure`); `shared` while QEMU has the
    /// disk open.
    ///
    /// # Errors
    /// `Failed` with qemu-img's message; `Unreachable`.
    pub async fn measure(self, disk: &str, shared: bool) -> Result<u64> {
        self.retry_policy
            .call(|| measure(self.runner, disk, shared))
            .await
    }

    /// Flattens `disk` into the new file `target` (`qemu-img convert`); `shared` while QEMU has the disk open. Progress
    /// counts to `expected_bytes`, as measured. qemu-img has exited when this returns.
    ///
    /// # Errors
    /// `Cancelled`; `NoSpace`; `Failed` with qemu-img's message; `Unreachable`.
    pub async fn convert(
        self,
        disk: &str,
        target: &str,
        shared: bool,
        expected_bytes: u64,
        progress: &ProgressCell,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let runner = self.runner;
        convert(
            runner,
            disk,
            target,
            shared,
            expected_bytes,
            progress,
            cancel,
        )
        .await
    }

    /// Checks an image (`qemu-img check`); `Some` with a warning if it has leaked clusters only.
    ///
    /// # Errors
    /// `Damaged` if it is not consistent; `Cancelled`; `Failed` if qemu-img cannot tell; `Unreachable`.
    pub async fn check(self, path: &str, cancel: &CancellationToken) -> Result<Option<String>> {
        self.retry_policy
            .call(|| check(self.runner, path, cancel))
            .await
    }

    /// Makes the existing file `overlay` an empty overlay on `base`, both qcow2; `size_bytes` if its disk has another size
    /// than the base's.
    ///
    /// # Errors
    /// `Failed` with qemu-img's message; `NoSpace`; `Unreachable`.
    pub async fn make_overlay(
        self,
        base: &str,
        overlay: &str,
        size_bytes: Option<u64>,
    ) -> Result<()> {
        self.retry_policy
            .call(|| make_overlay(self.runner, base, overlay, size_bytes))
            .await
    }
}

/// `--force-share`: reads an image whose locks QEMU holds.
fn share_flags(shared: bool) -> &'static [&'static str] {
    if shared { &["-U"] } else { &[] }
}

/// Bytes a flattened copy of `disk` may take at most, compressible or not.
async fn measure(place: &CommandRunner, disk: &str, shared: bool) -> Result<u64> {
    #[derive(Deserialize)]
    struct MeasureOutput {
        required: u64,
    }
    let what = || format!("cannot measure {disk} on host {}", place.host());
    let mut argv = vec![
        "qemu-img",
        "measure",
        "--output=json",
        "-f",
        "qcow2",
        "-O",
        "qcow2",
    ];
    argv.extend(share_flags(shared));
    argv.push(disk);
    let said = place
        .run(&argv, MEASURE_TIMEOUT, &CancellationToken::new())
        .await?;
    if !said.status.success() {
        return Err(explain(what(), &said));
    }
    serde_json::from_str(&said.stdout)
        .map(|measured: MeasureOutput| measured.required)
        .map_err(|error| {
            Error::new(Kind::Failed, what())
                .with_cause(format!("qemu-img measure printed invalid JSON: {error}"))
        })
}

/// Makes an empty overlay on `base`; `size_bytes`: of its disk, where that is not the base's.
async fn make_overlay(
    place: &CommandRunner,
    base: &str,
    overlay: &str,
    size_bytes: Option<u64>,
) -> Result<()> {
    // The format is named, so that nobody ever guesses it from bytes that a guest wrote.
    let mut argv = vec![
        "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay,
    ];
    let size = size_bytes.map(|bytes| bytes.to_string());
    argv.extend(size.as_deref());
    create(place, &argv, overlay).await
}

/// Makes an empty image of `size_bytes` that `owner` (USER:GROUP) may write, and nobody else.
pub(crate) async fn make_scratch(
    place: &CommandRunner,
    path: &str,
    size_bytes: u64,
    owner: &str,
) -> Result<()> {
    let script = r#"umask 077 && qemu-img create -q -f qcow2 "$1" "$2" && chown -- "$3" "$1""#;
    let size = size_bytes.to_string();
    create(place, &["sh", "-c", script, "sh", path, &size, owner], path).await
}

async fn create(place: &CommandRunner, argv: &[&str], path: &str) -> Result<()> {
    let said = place
        .run(argv, CREATE_TIMEOUT, &CancellationToken::new())
        .await?;
    match said.status.success() {
        true => Ok(()),
        false => Err(explain(
            format!("cannot create {path} on host {}", place.host()),
            &said,
        )),
    }
}

/// Flattens `disk` into the new file `target`. `expected_bytes`, as measured, is what progress counts to.
async fn convert(
    place: &CommandRunner,
    disk: &str,
    target: &str,
    shared: bool,
    expected_bytes: u64,
    progress: &ProgressCell,
    cancel: &CancellationToken,
) -> Result<()> {
    let what = || format!("cannot convert {disk} on host {}", place.host());
    let mut argv = vec!["qemu-img", "convert", "-p", "-f", "qcow2", "-O", "qcow2"];
    argv.extend(share_flags(shared));
    argv.extend([disk, target]);
    progress.enter(Phase::Converting, expected_bytes);
    let mut child = place.start(&argv, Input::None).await?;
    let (mut stdout, stderr) = (child.stdout(), child.stderr());

    let told = async {
        let mut percent = PercentParser::default();
        let mut buffer = [0; 4096];
        while let Some(stdout) = &mut stdout {
            match tokio::time::timeout(STALL_TIMEOUT, stdout.read(&mut buffer)).await {
                Err(_) => return false,
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(length)) => {
                    let said = buffer.iter().take(length);
                    if let Some(part) = said.filter_map(|byte| percent.push_byte(*byte)).last() {
                        progress.set_done((expected_bytes as f64 * part) as u64);
                    }
                }
            }
        }
        true
    };
    let ended = async {
        let (moving, stderr) = tokio::join!(told, read_text(stderr));
        if !moving {
            return Err(Error::new(Kind::Failed, what()).with_cause(format!(
                "qemu-img made no progress for {} minutes",
                STALL_TIMEOUT.as_secs() / 60
            )));
        }
        let status = place.wait(&mut child).await?;
        if status.success() {
            return Ok(());
        }
        let stdout = String::new();
        Err(explain(
            what(),
            &TextOutput {
                status,
                stdout,
                stderr,
            },
        ))
    };
    let ended = tokio::select! {
        ended = ended => ended,
        () = cancel.cancelled() => Err(Error::cancelled("qemu-img convert")),
    };
    if ended.is_err() {
        // Waits until it is gone: it must not go on writing what is about to be removed.
        child.terminate().await;
    }
    ended
}

/// Is the image consistent? `Some` with a warning where it is but for leaked clusters, which waste space only.
///
/// # Errors
/// `Damaged` where it is not; `Failed` where that could not be found out.
pub(crate) async fn check(
    place: &CommandRunner,
    path: &str,
    cancel: &CancellationToken,
) -> Result<Option<String>> {
    let what = || format!("cannot check {path} on host {}", place.host());
    let argv = ["qemu-img", "check", "-f", "qcow2", path];
    let said = place.run(&argv, CHECK_TIMEOUT, cancel).await?;
    // QEMU, docs/tools/qemu-img, "check": the meaning of its exit codes.
    match said.status.code() {
        Some(0) => Ok(None),
        Some(3) => Ok(Some(format!(
            "{path} has leaked clusters: its data is intact, some space is wasted"
        ))),
        Some(2) => Err(Error::new(
            Kind::Damaged,
            format!(
                "qemu-img check failed: {path} on host {} is damaged",
                place.host()
            ),
        )
        .with_cause(find_error_line(&said))),
        Some(1) if !is_access_error(&said.stderr) => Err(Error::new(
            Kind::Damaged,
            format!(
                "qemu-img check failed: {path} on host {} cannot be read as qcow2",
                place.host()
            ),
        )
        .with_cause(last_line(&said.stderr))),
        _ => Err(explain(what(), &said)),
    }
}

/// Failures of exit code 1 that say nothing about the image.
fn is_access_error(stderr: &str) -> bool {
    [
        "Permission denied",
        "No such file",
        LOCK_MESSAGE,
        "Input/output error",
        "Cannot allocate memory",
    ]
    .iter()
    .any(|words| stderr.contains(words))
}

/// How QEMU says that another process holds an image's locks.
const LOCK_MESSAGE: &str = "Is another process using";

/// The line of a check's output that counts the errors, else the last one.
fn find_error_line(said: &TextOutput) -> String {
    let counts = |line: &&str| line.contains("errors were found");
    match said.stdout.lines().find(counts) {
        Some(line) => line.to_owned(),
        None => last_line(&said.stderr).to_owned(),
    }
}

fn last_line(text: &str) -> &str {
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it said nothing")
}

fn explain(what: String, said: &TextOutput) -> Error {
    let stderr = &said.stderr;
    if stderr.contains("No space left") || stderr.contains("Disk quota exceeded") {
        return Error::new(Kind::NoSpace, what)
            .with_cause(last_line(stderr))
            .hint("free space there, or set temp_dir of the host to a larger disk");
    }
    let error = Error::new(Kind::Failed, what);
    if stderr.contains(LOCK_MESSAGE) {
        return error.with_cause(last_line(stderr)).hint(
            "another program has the image open: wait for it, or pause the sandbox rather than stop it",
        );
    }
    match said.status.code() {
        Some(_) => error.with_cause(last_line(stderr)),
        None => error.with_cause(format!("qemu-img was killed by a signal ({})", said.status)),
    }
}

/// Reads `(12.34/100%)` out of what `qemu-img -p` says, byte by byte.
#[derive(Default)]
struct PercentParser {
    digits: String,
    is_in_parens: bool,
}

impl PercentParser {
    /// The part done, 0 to 1, at the byte that completes it.
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
    fn reads_progress_as_qemu_img_writes_it() {
        let mut percent = PercentParser::default();
        let told: Vec<f64> = b"    (0.00/100%)\r    (50.25/100%)\r    (100.00/100%)\r\n"
            .iter()
            .filter_map(|byte| percent.push_byte(*byte))
            .collect();
        assert_eq!(told, [0.0, 0.5025, 1.0]);
    }

    #[test]
    fn noise_is_no_progress() {
        let mut percent = PercentParser::default();
        let noise = b"(x) 12/100% ((..) (123456789123456789";
        assert!(noise.iter().all(|byte| percent.push_byte(*byte).is_none()));
    }
}
