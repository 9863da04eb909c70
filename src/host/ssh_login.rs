//! The log-in of a multiplexed SSH connection: it stays in the background and is used through its control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use nix::sys::stat::Mode;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio_util::task::AbortOnDropHandle;

use super::address::SshAddress;
use snapdeck_process::tool_command;

/// For the TCP connection and the server's greeting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);
/// Between keepalive messages.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// Keepalive messages without an answer that end the connection.
const MAX_UNANSWERED: u32 = 3;
/// Settings of the user that are not for this connection: it runs many commands, has a log that is read for the cause of a
/// failure, and stays in the background (ssh_config(5)).
const OVERRIDDEN: &[&str] = &[
    // Attempts are repeated here, each within its deadline.
    "ConnectionAttempts=1",
    "LogLevel=INFO",
    "VisualHostKey=no",
    // Without a command of its own.
    "RemoteCommand=none",
    "RequestTTY=no",
    "PermitLocalCommand=no",
    // Of the user's own connection: a second one cannot have the same ports and devices.
    "ClearAllForwardings=yes",
    "ExitOnForwardFailure=no",
    "Tunnel=no",
    "ForwardAgent=no",
    "ForwardX11=no",
];
/// After so long without a session the connection closes, also when snapdeck was killed.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// First delay, and number, of further attempts after a connection was refused because of too many others.
const REFUSED_BACKOFF: Duration = Duration::from_millis(300);
const REFUSED_RETRIES: usize = 4;
/// Bytes of ssh's log that are kept. A server can cause any number of messages: the rest is dropped, also later.
const MAX_LOG_BYTES: usize = 16 * 1024;

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

/// A multiplexed connection.
pub(super) struct Login {
    pub control_socket: PathBuf,
    /// Reads the log of ssh, which would wait otherwise.
    pub log_reader: AbortOnDropHandle<()>,
}

/// Logs in, with files in the private directory `dir`; again if the server, or a jump host,
/// refuses the connection because of too many others.
pub(super) async fn log_in(address: &SshAddress, dir: &Path) -> Result<Login, LoginError> {
    let mut delays = ExponentialBuilder::default()
        .with_min_delay(REFUSED_BACKOFF)
        .with_max_times(REFUSED_RETRIES)
        .with_jitter()
        .build();
    loop {
        let error = match try_log_in(address, dir).await {
            Ok(login) => return Ok(login),
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

async fn try_log_in(address: &SshAddress, dir: &Path) -> Result<Login, LoginError> {
    let [config, log, control_socket] = ["config", "log", "master"].map(|name| dir.join(name));
    std::fs::write(&config, SSH_CONFIG).map_err(LoginError::NotStarted)?;
    let mut reader = create_log(&log).map_err(LoginError::NotStarted)?;
    let mut command = Command::from(tool_command("ssh"));
    // With -f it goes to the background as soon as it is logged in.
    command.arg("-E").arg(&log).arg("-S").arg(&control_socket);
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
    let mut child = command.spawn().map_err(LoginError::NotStarted)?;
    let (mut text, mut chunk) = (Vec::new(), vec![0; 4096]);
    let status = loop {
        tokio::select! {
            biased;
            read = reader.read(&mut chunk) => {
                let read = read.map_err(LoginError::NotStarted)?;
                keep(&mut text, chunk.get(..read).unwrap_or_default());
            }
            status = child.wait() => break status.map_err(LoginError::NotStarted)?,
        }
    };
    // What came with its end.
    while let Ok(read @ 1..) = reader.try_read(&mut chunk) {
        keep(&mut text, chunk.get(..read).unwrap_or_default());
    }
    if !status.success() {
        return Err(LoginError::Refused(read_message(&text)));
    }
    let log_reader = tokio::spawn(async move {
        // It never ends: the pipe is open for writing, too.
        while reader.read(&mut chunk).await.is_ok() {}
    });
    Ok(Login {
        control_socket,
        log_reader: AbortOnDropHandle::new(log_reader),
    })
}

/// Creates the log of ssh, a pipe, and opens it.
fn create_log(path: &Path) -> io::Result<pipe::Receiver> {
    let _ = std::fs::remove_file(path);
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    pipe::OpenOptions::new()
        .read_write(true)
        .open_receiver(path)
}

fn keep(text: &mut Vec<u8>, bytes: &[u8]) {
    let room = MAX_LOG_BYTES.saturating_sub(text.len());
    text.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
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
        format!("ServerAliveCountMax={MAX_UNANSWERED}"),
    ];
    options.extend(OVERRIDDEN.iter().map(|option| (*option).to_owned()));
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
fn read_message(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
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
