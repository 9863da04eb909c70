//! Commands on a host: always an argument vector, always with a deadline, their output bounded.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::model::{Error, HostName, Kind, Result};

/// Bytes kept of what a command says.
const OUTPUT: usize = 1 << 20;

/// Which Debian package brings a command we need.
fn package_of(program: &str) -> Option<&'static str> {
    match program {
        "qemu-img" => Some("qemu-utils"),
        "virsh" => Some("libvirt-clients"),
        _ => None,
    }
}

/// What a command said.
pub struct Said {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A command, not yet started; it ends with whoever waits for it.
pub fn command(argv: &[&str]) -> Command {
    let (program, args) = argv.split_first().unwrap_or((&"true", &[]));
    let mut command = Command::new(program);
    command
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        // Ctrl-C on our terminal is for us: we end our commands ourselves, in order.
        .process_group(0);
    command
}

/// Starts it.
///
/// # Errors
/// `Failed` with the package that is missing, where there is no such program.
pub fn start(host: &HostName, program: &str, command: &mut Command) -> Result<Child> {
    command.spawn().map_err(|error| {
        let failed = Error::new(Kind::Failed, format!("cannot run {program} on host {host}"));
        match package_of(program) {
            Some(package) if error.kind() == std::io::ErrorKind::NotFound => failed
                .because("it is not installed")
                .hint(format!("install {package} there")),
            _ => failed.because(error),
        }
    })
}

/// Runs `argv` to its end.
///
/// # Errors
/// As [`start`]; `Cancelled`; `Unreachable` after `deadline`. The command has ended in every case.
pub async fn run(
    host: &HostName,
    argv: &[&str],
    deadline: Duration,
    cancel: &CancellationToken,
) -> Result<Said> {
    let program = argv.first().copied().unwrap_or_default();
    let mut child = start(host, program, &mut command(argv))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let said = async {
        let (stdout, stderr, status) = tokio::join!(text(stdout), text(stderr), child.wait());
        status.map(|status| Said {
            status,
            stdout,
            stderr,
        })
    };
    let failed = |kind| Error::new(kind, format!("{program} on host {host} did not end"));
    let ended = tokio::select! {
        said = said => said.map_err(|error| failed(Kind::Failed).because(error)),
        () = tokio::time::sleep(deadline) => {
            Err(failed(Kind::Unreachable).because(format!("it was given {} s", deadline.as_secs())))
        }
        () = cancel.cancelled() => Err(Error::cancelled(program)),
    };
    if ended.is_err() {
        // Waits until it is gone, so that nothing it holds or writes outlives the error.
        let _ = child.kill().await;
    }
    ended
}

/// The first of what a stream says; the rest is read and forgotten, so that nobody blocks on a full pipe.
pub async fn text(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What was said until an error is what there is.
        let _ = (&mut stream)
            .take(OUTPUT as u64)
            .read_to_end(&mut bytes)
            .await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
