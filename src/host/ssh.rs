//! SSH to a host: one multiplexed connection, opened on first use and again after it was lost; more of them only while
//! all sessions of the first are in use. It is the user's own ssh: settings, agent, jump hosts and known host keys are
//! as on the command line.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::address::SshAddress;
use super::command::read_bounded;
use super::control_dir::{ControlDir, socket_parent};
use super::login_queue;
use super::login_shell::{self, LoginShell};
use super::quote::quote_words;
use super::rate_limit::RateLimit;
use super::ssh_login::{LoginError, log_in};
use snapdeck_model::{Error, HostName, Kind, Result, Vnc, printable};
use snapdeck_process::tool_command;

/// For the whole log-in, once it has a place in the queue.
const OPEN_TIMEOUT: Duration = Duration::from_secs(12);
/// Sessions at once on one connection (sshd_config, `MaxSessions`, default 10).
const MAX_SESSIONS: usize = 10;
/// Requests of a host to the bucket at a time.
const MAX_LANES: usize = 8;
/// Connections to one host, at most.
const MAX_MASTERS: usize = 4;
/// For a free session on one of them.
const SESSION_TIMEOUT: Duration = Duration::from_secs(20);
/// For a control command to the local ssh.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(3);
/// A file of settings without any (ssh(1), `-F`).
const NO_SETTINGS: &str = "/dev/null";
/// Bytes of ssh's messages that are read.
const MAX_MESSAGE: usize = 4096;
/// Callers within this time share the error of the last attempt.
const FAILURE_TTL: Duration = Duration::from_millis(500);

/// The SSH connections to one host.
#[derive(Clone)]
pub(crate) struct Ssh {
    inner: Arc<SshState>,
}

struct SshState {
    host: HostName,
    address: SshAddress,
    slot: Mutex<MasterSlot>,
    /// For requests of the host to the bucket, which hold a session each for minutes.
    lanes: Arc<Semaphore>,
    rate_limit: RateLimit,
}

#[derive(Default)]
struct MasterSlot {
    masters: Vec<Arc<Master>>,
    last_failure: Option<(Instant, Error)>,
}

/// A multiplexed connection.
pub(crate) struct Master {
    control_socket: PathBuf,
    shell: LoginShell,
    _log_reader: AbortOnDropHandle<()>,
    sessions: Arc<Semaphore>,
    is_dead: AtomicBool,
    next_forward_id: AtomicU32,
    /// Private directory of its sockets, removed on drop.
    dir: ControlDir,
}

impl Ssh {
    /// `max_bytes_per_sec` limits the transfers of images; 0: no limit.
    pub(crate) fn new(host: HostName, address: SshAddress, max_bytes_per_sec: u64) -> Self {
        let rate_limit = RateLimit::new(max_bytes_per_sec);
        // The host keeps the limit for each request on its own.
        let lanes = rate_limit.bytes_per_sec().map_or(MAX_LANES, |_| 1);
        Self {
            inner: Arc::new(SshState {
                host,
                address,
                slot: Mutex::default(),
                lanes: Arc::new(Semaphore::new(lanes)),
                rate_limit,
            }),
        }
    }

    pub(crate) fn address(&self) -> &SshAddress {
        &self.inner.address
    }

    /// Returns a connection, opening one if there is none.
    ///
    /// # Errors
    /// `Unreachable` with ssh's message, within 12 s after its turn; retryable unless the host refused the log-in.
    pub(crate) async fn acquire_master(&self) -> Result<Arc<Master>> {
        self.find_or_open(|_| true, 1)
            .await?
            .ok_or_else(|| self.timeout_error())
    }

    /// Returns a connection and the permit for one session on it, to be held as long as the session.
    ///
    /// # Errors
    /// As [`Ssh::acquire_master`]; `Unreachable` if all sessions stay in use for 20 s.
    pub(crate) async fn acquire_session(&self) -> Result<(Arc<Master>, OwnedSemaphorePermit)> {
        let has_room = |master: &Master| master.sessions.available_permits() > 0;
        let deadline = Instant::now() + SESSION_TIMEOUT;
        while Instant::now() < deadline {
            match self.find_or_open(has_room, MAX_MASTERS).await? {
                Some(master) => {
                    // Another task may have taken it.
                    if let Ok(permit) = master.sessions.clone().try_acquire_owned() {
                        return Ok((master, permit));
                    }
                }
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        Err(Error::new(
            Kind::Unreachable,
            format!("all SSH sessions to host {} are in use", self.inner.host),
        )
        .hint("run fewer jobs at once (jobs.parallel in the settings)"))
    }

    /// Returns the permit for a request that the host sends to the bucket. It has a few for all jobs: other sessions must not
    /// wait for them.
    pub(crate) async fn acquire_lane(&self) -> Option<OwnedSemaphorePermit> {
        self.inner.lanes.clone().acquire_owned().await.ok()
    }

    /// Returns the limit for transfers of images.
    pub(crate) fn rate_limit(&self) -> &RateLimit {
        &self.inner.rate_limit
    }

    fn timeout_error(&self) -> Error {
        Error::new(
            Kind::Unreachable,
            format!("cannot reach host {} over SSH", self.inner.host),
        )
        .with_cause(format!("no answer for {} s", OPEN_TIMEOUT.as_secs()))
        .hint("check that the host is up")
        .retryable()
    }

    /// Returns the first connection that `is_usable`, or a new one if there are fewer than `max_masters`, else `None`.
    async fn find_or_open(
        &self,
        is_usable: impl Fn(&Master) -> bool,
        max_masters: usize,
    ) -> Result<Option<Arc<Master>>> {
        let limit = OPEN_TIMEOUT + login_queue::MAX_WAIT;
        let Ok(mut slot) = timeout(limit, self.inner.slot.lock()).await else {
            return Err(self.timeout_error());
        };
        slot.masters.retain(|master| master.is_up());
        if let Some(master) = slot.masters.iter().find(|master| is_usable(master)) {
            return Ok(Some(master.clone()));
        }
        if slot.masters.len() >= max_masters {
            return Ok(None);
        }
        if let Some((failed_at, error)) = &slot.last_failure
            && failed_at.elapsed() < FAILURE_TTL
        {
            return Err(error.clone());
        }
        let place = login_queue::enter().await;
        let opened = timeout(OPEN_TIMEOUT, place.run(self.open())).await;
        match opened.unwrap_or_else(|_| Err(self.timeout_error())) {
            Ok(master) => {
                let master = Arc::new(master);
                slot.masters.push(master.clone());
                slot.last_failure = None;
                Ok(Some(master))
            }
            Err(error) => {
                slot.last_failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn open(&self) -> Result<Master> {
        let SshState { host, address, .. } = &*self.inner;
        let summary = format!("cannot reach host {host} over SSH");
        let dir = ControlDir::create(&socket_parent())
            .map_err(|error| Error::new(Kind::Failed, &*summary).with_cause(error))?;
        let login = log_in(address, dir.path())
            .await
            .map_err(|error| explain(summary.clone(), address, &error))?;
        let mut master = Master {
            control_socket: login.control_socket,
            shell: LoginShell::Posix,
            _log_reader: login.log_reader,
            sessions: Arc::new(Semaphore::new(MAX_SESSIONS)),
            is_dead: AtomicBool::new(false),
            next_forward_id: AtomicU32::new(0),
            dir,
        };
        master.shell = login_shell::detect(&master, address, summary).await?;
        Ok(master)
    }

    /// Checks whether `master` is still connected, after something on it failed.
    pub(crate) async fn check_alive(&self, master: &Master) {
        let is_alive = master.control(&["-O", "check"]).await.is_ok();
        master.is_dead.fetch_or(!is_alive, Relaxed);
    }

    /// Closes all connections and their sessions.
    pub(crate) async fn disconnect(&self) {
        let Ok(mut slot) = timeout(CONTROL_TIMEOUT, self.inner.slot.lock()).await else {
            return;
        };
        for master in std::mem::take(&mut slot.masters) {
            master.is_dead.store(true, Relaxed);
            // If this fails, it closes a minute after its last use.
            let _ = master.control(&["-O", "exit"]).await;
            let _ = std::fs::remove_dir_all(master.dir.path());
        }
    }

    /// Returns the error of an operation that failed with the connection.
    pub(crate) fn connection_lost_error(&self, summary: impl Into<String>) -> Error {
        Error::new(Kind::Unreachable, summary)
            .with_cause(format!(
                "the SSH connection to host {} was lost",
                self.inner.host
            ))
            .hint("check that the host is up")
            .retryable()
    }
}

impl Master {
    /// Returns whether the connection was not found to be lost.
    pub(crate) fn is_up(&self) -> bool {
        !self.is_dead.load(Relaxed)
    }

    /// Returns an ssh that uses this connection and never opens one. The user's settings applied when it was opened; here
    /// some would break it (`Host *` with a `RemoteCommand`, `StdinNull`, `SessionType` or `ForkAfterAuthentication`).
    fn ssh_command(&self) -> Command {
        let mut command = Command::from(tool_command("ssh"));
        command
            .args(["-F", NO_SETTINGS, "-S"])
            .arg(&self.control_socket)
            .args(["-T", "-o", "BatchMode=yes", "-o", "ControlMaster=no"])
            .args(["-o", "ProxyCommand=false", "-p", "9"]);
        command
    }

    /// Runs a control command of the local ssh; the error is its message.
    async fn control(&self, args: &[&str]) -> std::result::Result<(), String> {
        let run = async {
            let mut command = self.ssh_command();
            command
                .args(args)
                .arg("none")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true);
            let mut child = command.spawn().map_err(|error| error.to_string())?;
            let message = read_bounded(child.stderr.take(), MAX_MESSAGE).await;
            match child.wait().await {
                Ok(status) if status.success() => Ok(()),
                Ok(_) => Err(String::from_utf8_lossy(&message).trim().to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        let result = timeout(CONTROL_TIMEOUT, run).await;
        result.unwrap_or_else(|_| Err("ssh does not respond".to_owned()))
    }

    /// Returns a command that runs `line` in the user's login shell on the host.
    pub(crate) fn shell_command(&self, line: &str) -> Command {
        self.command_in(self.shell, line)
    }

    /// As [`Master::shell_command`], if the login shell is `shell`.
    pub(crate) fn command_in(&self, shell: LoginShell, line: &str) -> Command {
        let mut command = self.ssh_command();
        command.args(["none", "--", &shell.command_line(line)]);
        command
    }

    /// Returns a command that connects to the host's SFTP server.
    pub(crate) fn sftp_command(&self) -> Command {
        let mut command = self.ssh_command();
        command.args(["-s", "none", "--", "sftp"]);
        command
    }

    /// Writes a script that replaces ssh for libvirt's own transport and uses this connection.
    ///
    /// # Errors
    /// An I/O error.
    pub(crate) fn write_ssh_wrapper(&self) -> std::io::Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let (path, new) = (self.dir.path().join("ssh"), self.dir.path().join("ssh.new"));
        // It may be running.
        if path.exists() {
            return Ok(path);
        }
        let socket = self.control_socket.to_string_lossy();
        let socket = quote_words([&*socket]);
        std::fs::write(
            &new,
            format!(
                "#!/bin/sh\nexec ssh -F {NO_SETTINGS} -S {socket} -o ControlMaster=no -o ProxyCommand=false \"$@\"\n"
            ),
        )?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o700))?;
        std::fs::rename(&new, &path)?;
        Ok(path)
    }

    /// Forwards a new private local socket to the socket `remote_path`, as long as the connection lasts.
    ///
    /// # Errors
    /// `Unreachable` with ssh's message. A host that forbids forwarding shows it only on connect.
    pub(crate) async fn forward_socket(&self, remote_path: &str) -> Result<SocketForward> {
        self.forward(escape_path(remote_path)?, remote_path).await
    }

    /// Forwards a new private local socket to a VNC server, as long as the connection lasts.
    ///
    /// # Errors
    /// As [`Master::forward_socket`].
    pub(crate) async fn forward_vnc(&self, vnc: &Vnc) -> Result<SocketForward> {
        let remote = match vnc {
            // ssh splits address and port at the last colon.
            Vnc::Tcp { address, port } if address.contains(':') => format!("[{address}]:{port}"),
            Vnc::Tcp { address, port } => format!("{address}:{port}"),
            Vnc::Socket(path) => escape_path(path)?,
        };
        self.forward(remote, vnc).await
    }

    /// `remote` as in the option `-L` (ssh(1)).
    async fn forward(&self, remote: String, name: impl std::fmt::Display) -> Result<SocketForward> {
        let number = self.next_forward_id.fetch_add(1, Relaxed);
        let local_path = self.dir.path().join(format!("f{number}"));
        let forward = SocketForward { local_path, remote };
        match self
            .control(&["-O", "forward", "-L", &forward.option()])
            .await
        {
            Ok(()) => Ok(forward),
            Err(cause) => Err(
                Error::new(Kind::Unreachable, format!("cannot forward {name}")).with_cause(cause),
            ),
        }
    }

    /// Ends a forwarding; open connections over it stay.
    pub(crate) async fn close_forward(&self, forward: &SocketForward) {
        // If this fails, it ends with the connection.
        let _ = self
            .control(&["-O", "cancel", "-L", &forward.option()])
            .await;
        let _ = std::fs::remove_file(&forward.local_path);
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        if !self.control_socket.exists() {
            return;
        }
        // The process of the connection may hang.
        let mut exit = tool_command("timeout");
        exit.args(["3", "ssh", "-F", NO_SETTINGS, "-S"]);
        exit.arg(&self.control_socket);
        exit.args(["-o", "BatchMode=yes", "-O", "exit", "none"]);
        let exit = exit.stdin(Stdio::null()).stdout(Stdio::null());
        // If this fails, it closes a minute after its last use.
        let _ = exit.stderr(Stdio::null()).status();
    }
}

/// Escapes what ssh replaces in a path of the option `-L` (ssh_config(5), "TOKENS").
///
/// # Errors
/// `Failed` for a variable of the environment, which cannot be escaped: hosts choose paths, and would get its value.
fn escape_path(path: &str) -> Result<String> {
    if path.contains("${") {
        return Err(
            Error::new(Kind::Failed, format!("cannot forward {}", printable(path)))
                .with_cause("ssh replaces a ${NAME} in the path by a variable of this machine"),
        );
    }
    let escape = |char| match char {
        '\\' | ':' => format!("\\{char}"),
        '%' => "%%".to_owned(),
        _ => char.to_string(),
    };
    Ok(path.chars().map(escape).collect())
}

/// A local socket that is forwarded to one on the host.
pub(crate) struct SocketForward {
    pub local_path: PathBuf,
    remote: String,
}

impl SocketForward {
    fn option(&self) -> String {
        // The path has no colon (`socket_parent`).
        format!("{}:{}", self.local_path.display(), self.remote)
    }
}

/// Returns the error for a failed log-in, with a hint.
fn explain(summary: String, address: &SshAddress, error: &LoginError) -> Error {
    let message = match error {
        LoginError::Refused(message) => message.clone(),
        LoginError::NotStarted(error) => error.to_string(),
    };
    let has = |text: &str| message.contains(text);
    let failed = Error::new(Kind::Unreachable, summary);
    if has("IDENTIFICATION HAS CHANGED") {
        return failed
            .with_cause("its host key differs from the known one")
            .hint(format!(
                "possible man-in-the-middle; if the host was reinstalled: `{}`, then `{}` once",
                address.command_to_forget_host_key(),
                address.command("ssh")
            ));
    }
    if has("Host key verification failed") {
        return failed.with_cause("its host key is not known").hint(format!(
            "log in once with `{}` and compare the key",
            address.command("ssh")
        ));
    }
    if has("Permission denied") || has("Too many authentication failures") {
        return failed.with_cause(&message).hint(format!(
            "the server rejected all keys: run `{}`; a key with a passphrase needs `{}`",
            address.command("ssh-copy-id"),
            address.command_to_add_key()
        ));
    }
    if has("Could not resolve") {
        return failed
            .with_cause(&message)
            .hint("check the host's uri in the settings");
    }
    if let LoginError::NotStarted(error) = error
        && error.kind() == std::io::ErrorKind::NotFound
    {
        return failed
            .with_cause("ssh is not installed on this machine")
            .hint("install openssh-client");
    }
    failed
        .with_cause(message.trim().lines().next_back().unwrap_or(&message))
        .hint("check that the host is up and sshd is running")
        .retryable()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_escaped_for_ssh() {
        let escaped = escape_path("/run/50%:a\\b").map_err(|error| error.message());
        assert_eq!(escaped.as_deref(), Ok("/run/50%%\\:a\\\\b"));
        assert!(escape_path("/run/${HOME}/vnc").is_err());
    }
}
