//! The log-in of a multiplexed SSH connection: it stays in the background and is used through its control socket.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::process::Command;

use super::address::SshAddress;
use snapdeck_process::tool_command;

/// For the TCP connection and the server's greeting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);
/// Between keepalive messages; the third without an answer ends the connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// After so long without a session the connection closes, also when snapdeck was killed.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// First delay, and number, of further attempts after a connection was refused because of too many others.
const REFUSED_BACKOFF: Duration = Duration::from_millis(300);
const REFUSED_RETRIES: usize = 4;
/// Bytes of ssh's log that are read.
const MAX_LOG_BYTES: u64 = 16 * 1024;

/// Includes the settings of user and machine, of which the first value is used (ssh_config(5)); by default AES-GCM is
/// preferred, as in OpenSSH 10. Earlier versions prefer ChaCha20, which costs 1.6 times the CPU time per byte.
const SSH_CONFIG: &str = "\
Include ~/.ssh/config
Include /etc/ssh/ssh_config
Host *
  Ciphers ^aes128-gcm@openssh.com,aes256-gcm@openssh.com
";

/// Why there is no connection.
pub(super) enum LoginError {
    /// ssh could not be started.
    NotStarted(io::Error),
    /// ssh failed, with its messages.
    Refused(String),
}

/// Logs in, with files in the private directory `dir`, and returns the control socket; again if the server, or a jump host,
/// refuses the connection because of too many others.
pub(super) async fn log_in(address: &SshAddress, dir: &Path) -> Result<PathBuf, LoginError> {
    let mut delays = ExponentialBuilder::default()
        .with_min_delay(REFUSED_BACKOFF)
        .with_max_times(REFUSED_RETRIES)
        .with_jitter()
        .build();
    loop {
        let error = match try_log_in(address, dir).await {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        match delays.next().filter(|_| is_refused_for_now(&error)) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return Err(error),
        }
    }
}

/// Returns whether sshd has closed the connection before the log-in, as it does beyond `MaxStartups`.
fn is_refused_for_now(error: &LoginError) -> bool {
    let LoginError::Refused(message) = error else {
        return false;
    };
    [
        "kex_exchange_identification",
        "Connection reset by",
        "Not allowed at this time",
    ]
    .iter()
    .any(|text| message.contains(text))
}

async fn try_log_in(address: &SshAddress, dir: &Path) -> Result<PathBuf, LoginError> {
    let [config, log, socket] = ["config", "log", "master"].map(|name| dir.join(name));
    std::fs::write(&config, SSH_CONFIG).map_err(LoginError::NotStarted)?;
    // ssh appends to it.
    let _ = std::fs::remove_file(&log);
    let mut command = Command::from(tool_command("ssh"));
    // With -f it goes to the background as soon as it is logged in.
    command.arg("-E").arg(&log).arg("-S").arg(&socket);
    command.args(["-M", "-f", "-N"]);
    for option in options(address) {
        command.arg("-o").arg(option);
    }
    if let Some(port) = address.port {
        command.arg("-p").arg(port.to_string());
    }
    if let Some(user) = &address.user {
        command.arg("-l").arg(user);
    }
    if let Some(keyfile) = &address.keyfile {
        command.arg("-i").arg(keyfile);
    }
    command.arg("-F").arg(&config).arg("--").arg(&address.host);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let status = command.status().await.map_err(LoginError::NotStarted)?;
    match status.success() {
        true => Ok(socket),
        false => Err(LoginError::Refused(read_message(&log))),
    }
}

fn options(address: &SshAddress) -> Vec<String> {
    let host_keys = match address.no_verify {
        true => "no",
        false => "yes",
    };
    let mut options = vec![
        format!("ControlPersist={}s", IDLE_TIME.as_secs()),
        "BatchMode=yes".to_owned(),
        format!("StrictHostKeyChecking={host_keys}"),
        format!("ConnectTimeout={}", CONNECT_TIMEOUT.as_secs()),
        format!("ServerAliveInterval={}", KEEPALIVE_INTERVAL.as_secs()),
    ];
    if address.keyfile.is_some() {
        options.push("IdentitiesOnly=yes".to_owned());
    }
    if let Some(file) = &address.known_hosts {
        // The option is a list, separated by spaces.
        options.push(format!("UserKnownHostsFile=\"{file}\""));
    }
    options
}

/// Returns what ssh has logged, without the note on a new host key.
fn read_message(log: &Path) -> String {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(log).and_then(|file| file.take(MAX_LOG_BYTES).read_to_end(&mut bytes));
    if let Err(error) = read {
        return format!("ssh has left no log: {error}");
    }
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim();
    let text = text.strip_prefix("ssh: ").unwrap_or(text);
    match text.strip_prefix("Warning: Permanently added ") {
        Some(rest) => rest
            .split_once('\n')
            .map_or("", |(_, rest)| rest.trim())
            .to_owned(),
        None => text.to_owned(),
    }
}
