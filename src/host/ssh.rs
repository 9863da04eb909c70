//! The way to a host over SSH: one multiplexed connection, made when it is first needed and made again when it was
//! lost; more of them only while one has no room for another session. It is the user's own ssh: settings, agent,
//! jump hosts and known host keys are as on the command line.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use openssh::{ControlPersist, ForwardType, KnownHosts, Session, SessionBuilder, Socket};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::address::SshAddress;
use snapdeck_model::{Error, HostName, Kind, Result, Vnc};

/// For the TCP connection and the server's greeting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);
/// For all of it, the log-in included; and for waiting until somebody else has made it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(12);
/// How often the server is asked for a sign of life; the third that goes unanswered ends the connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// A connection nobody uses goes after so long, also when we were killed and cannot end it.
const IDLE_SECS: std::num::NonZeroUsize = std::num::NonZeroUsize::MIN.saturating_add(59);
/// Sessions at once on one connection (sshd_config, `MaxSessions`, default 10).
const MAX_SESSIONS: usize = 10;
/// Connections to one host, at most.
const MAX_MASTERS: usize = 4;
/// For a free session on one of them.
const SESSION_TIMEOUT: Duration = Duration::from_secs(20);
/// For a question to our own ssh.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(3);
/// A host that could not be reached is not tried again sooner: many callers share one answer.
const FAILURE_TTL: Duration = Duration::from_millis(500);

/// The user's settings and the machine's, read as ssh itself reads them; the first value of a setting is the one that
/// holds (ssh_config(5)). Where they say nothing of ciphers, AES-GCM comes first, as with OpenSSH 10 it does by itself:
/// before, that was ChaCha20, which with the processors of today costs 1.6 times as much for each byte.
const SSH_CONFIG: &str = "\
Include ~/.ssh/config
Include /etc/ssh/ssh_config
Host *
  Ciphers ^aes128-gcm@openssh.com,aes256-gcm@openssh.com
";

/// The way to one host.
#[derive(Clone)]
pub(crate) struct Ssh {
    inner: Arc<SshState>,
}

struct SshState {
    host: HostName,
    address: SshAddress,
    slot: Mutex<MasterSlot>,
}

#[derive(Default)]
struct MasterSlot {
    /// Those that stand, as far as is known.
    masters: Vec<Arc<Master>>,
    last_failure: Option<(Instant, Error)>,
}

/// A connection that stands, or stood until a moment ago.
pub(crate) struct Master {
    session: Session,
    sessions: Arc<Semaphore>,
    is_dead: AtomicBool,
    next_forward_id: AtomicU32,
    /// Private: sockets lie here. Gone with us.
    dir: TempDir,
}

impl Ssh {
    pub(crate) fn new(host: HostName, address: SshAddress) -> Self {
        Self {
            inner: Arc::new(SshState {
                host,
                address,
                slot: Mutex::default(),
            }),
        }
    }

    pub(crate) fn address(&self) -> &SshAddress {
        &self.inner.address
    }

    /// A connection; a new one where there is none.
    ///
    /// # Errors
    /// `Unreachable` with what ssh said, within 12 s; worth retrying unless the host turned us away.
    pub(crate) async fn acquire_master(&self) -> Result<Arc<Master>> {
        self.find_or_open(|_| true, 1)
            .await?
            .ok_or_else(|| self.timeout_error())
    }

    /// A place for one session, to be held while it lasts, and its connection.
    ///
    /// # Errors
    /// As [`Ssh::master`]; `Unreachable` where all places stay taken for 20 s.
    pub(crate) async fn acquire_session(&self) -> Result<(Arc<Master>, OwnedSemaphorePermit)> {
        let room = |master: &Master| master.sessions.available_permits() > 0;
        let deadline = Instant::now() + SESSION_TIMEOUT;
        while Instant::now() < deadline {
            match self.find_or_open(room, MAX_MASTERS).await? {
                Some(master) => {
                    // Somebody may have been faster.
                    if let Ok(place) = master.sessions.clone().try_acquire_owned() {
                        return Ok((master, place));
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

    fn timeout_error(&self) -> Error {
        Error::new(
            Kind::Unreachable,
            format!("cannot reach host {} over SSH", self.inner.host),
        )
        .with_cause(format!("no answer for {} s", OPEN_TIMEOUT.as_secs()))
        .hint("is the host up?")
        .retryable()
    }

    /// The first connection that `will_do`; a new one where none does and there are fewer than `most`, else `None`.
    async fn find_or_open(
        &self,
        will_do: impl Fn(&Master) -> bool,
        most: usize,
    ) -> Result<Option<Arc<Master>>> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let Ok(mut slot) = timeout_at(deadline, self.inner.slot.lock()).await else {
            return Err(self.timeout_error());
        };
        slot.masters.retain(|master| master.is_up());
        if let Some(master) = slot.masters.iter().find(|master| will_do(master)) {
            return Ok(Some(master.clone()));
        }
        if slot.masters.len() >= most {
            return Ok(None);
        }
        if let Some((at, error)) = &slot.last_failure
            && at.elapsed() < FAILURE_TTL
        {
            return Err(error.clone());
        }
        let opened = timeout_at(deadline, self.open()).await;
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
        let what = format!("cannot reach host {host} over SSH");
        let dir = tempfile::Builder::new()
            .prefix("snapdeck-ssh-")
            .tempdir()
            .map_err(|error| Error::new(Kind::Failed, &*what).with_cause(error))?;
        let config = dir.path().join("config");
        std::fs::write(&config, SSH_CONFIG)
            .map_err(|error| Error::new(Kind::Failed, &*what).with_cause(error))?;
        let mut builder = SessionBuilder::default();
        builder
            .config_file(config)
            .known_hosts_check(match address.no_verify {
                true => KnownHosts::Accept,
                false => KnownHosts::Strict,
            })
            .connect_timeout(CONNECT_TIMEOUT)
            .server_alive_interval(KEEPALIVE_INTERVAL)
            .control_directory(dir.path())
            .control_persist(ControlPersist::IdleFor(IDLE_SECS));
        if let Some(user) = &address.user {
            builder.user(user.clone());
        }
        if let Some(port) = address.port {
            builder.port(port);
        }
        if let Some(keyfile) = &address.keyfile {
            builder.keyfile(keyfile);
        }
        if let Some(file) = &address.known_hosts {
            // ssh takes several files there, parted by spaces.
            builder.user_known_hosts_file(format!("\"{file}\""));
        }
        let session = builder
            .connect(&address.host)
            .await
            .map_err(|error| explain(what, address, &error))?;
        Ok(Master {
            session,
            sessions: Arc::new(Semaphore::new(MAX_SESSIONS)),
            is_dead: AtomicBool::new(false),
            next_forward_id: AtomicU32::new(0),
            dir,
        })
    }

    /// To be called when something on `master` failed: finds out whether it still stands.
    pub(crate) async fn check_alive(&self, master: &Master) {
        let stands = matches!(
            timeout(CONTROL_TIMEOUT, master.session.check()).await,
            Ok(Ok(()))
        );
        master.is_dead.fetch_or(!stands, Relaxed);
    }

    /// Ends the connections. Whatever still goes over them breaks off.
    pub(crate) async fn disconnect(&self) {
        let Ok(mut slot) = timeout(CONTROL_TIMEOUT, self.inner.slot.lock()).await else {
            return;
        };
        for master in std::mem::take(&mut slot.masters) {
            master.is_dead.store(true, Relaxed);
            let mut exit = master.ssh_command();
            exit.args(["-O", "exit", "none"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true);
            // Where that fails it goes by itself, a minute after its last use.
            let _ = timeout(CONTROL_TIMEOUT, exit.status()).await;
            let _ = std::fs::remove_dir_all(master.dir.path());
        }
    }

    /// What to say of something that broke off with the connection.
    pub(crate) fn connection_lost_error(&self, what: impl Into<String>) -> Error {
        Error::new(Kind::Unreachable, what)
            .with_cause(format!(
                "the SSH connection to host {} was lost",
                self.inner.host
            ))
            .hint("is the host up?")
            .retryable()
    }
}

impl Master {
    /// Does it stand, as far as is known?
    pub(crate) fn is_up(&self) -> bool {
        !self.is_dead.load(Relaxed)
    }

    /// An ssh that hands `more` to this connection, and never makes one of its own.
    fn ssh_command(&self) -> Command {
        let mut command = Command::new("ssh");
        command
            .arg("-S")
            .arg(self.session.control_socket())
            .args(["-T", "-o", "BatchMode=yes", "-o", "ControlMaster=no"])
            .args(["-o", "ProxyCommand=false", "-p", "9"]);
        command
    }

    /// A command that runs `line` there, in the user's login shell.
    pub(crate) fn shell_command(&self, line: &str) -> Command {
        let mut command = self.ssh_command();
        command.args(["none", "--", line]);
        command
    }

    /// A command that is the host's SFTP server.
    pub(crate) fn sftp_command(&self) -> Command {
        let mut command = self.ssh_command();
        command.args(["-s", "none", "--", "sftp"]);
        command
    }

    /// A program that behaves as ssh does and uses this connection, for libvirt's own transport.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn write_ssh_wrapper(&self) -> std::io::Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let (path, new) = (self.dir.path().join("ssh"), self.dir.path().join("ssh.new"));
        // Others may be running it.
        if path.exists() {
            return Ok(path);
        }
        let socket = self.session.control_socket().to_string_lossy().into_owned();
        let socket = super::quote::quote_words([&*socket]);
        std::fs::write(
            &new,
            format!(
                "#!/bin/sh\nexec ssh -S {socket} -o ControlMaster=no -o ProxyCommand=false \"$@\"\n"
            ),
        )?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o700))?;
        std::fs::rename(&new, &path)?;
        Ok(path)
    }

    /// A private socket here that leads to the socket `there`, as long as the connection stands.
    ///
    /// # Errors
    /// `Unreachable` with what ssh said. That the host forbids it shows only when it is connected to.
    pub(crate) async fn forward_socket(&self, there: &str) -> Result<SocketForward> {
        let number = self.next_forward_id.fetch_add(1, Relaxed);
        let here = self.dir.path().join(format!("f{number}"));
        let asked = self
            .session
            .request_port_forward(ForwardType::Local, &*here, Path::new(there));
        match timeout(CONTROL_TIMEOUT, asked).await {
            Ok(Ok(())) => Ok(SocketForward {
                local_path: here,
                remote_path: there.to_owned(),
            }),
            Ok(Err(error)) => Err(
                Error::new(Kind::Unreachable, format!("cannot forward {there}")).with_cause(error),
            ),
            Err(_) => Err(
                Error::new(Kind::Unreachable, format!("cannot forward {there}"))
                    .with_cause("ssh does not answer"),
            ),
        }
    }

    /// Makes `port` of our loopback lead to a VNC server there, as long as the connection stands.
    ///
    /// # Errors
    /// As [`Master::forward`].
    pub(crate) async fn forward_port(&self, port: u16, to: &Vnc) -> Result<()> {
        let here = Socket::TcpSocket {
            host: "127.0.0.1".into(),
            port,
        };
        let there = match to {
            Vnc::Tcp { address, port } => Socket::TcpSocket {
                // ssh parts address and port at the last colon.
                host: match address.contains(':') {
                    true => format!("[{address}]").into(),
                    false => address.as_str().into(),
                },
                port: *port,
            },
            Vnc::Socket(path) => Path::new(path).into(),
        };
        let asked = self
            .session
            .request_port_forward(ForwardType::Local, here, there);
        let failed = || Error::new(Kind::Unreachable, format!("cannot forward {to}"));
        match timeout(CONTROL_TIMEOUT, asked).await {
            Ok(asked) => asked.map_err(|error| failed().with_cause(error)),
            Err(_) => Err(failed().with_cause("ssh does not answer")),
        }
    }

    /// Ends a forwarding; connections over it go on.
    pub(crate) async fn close_forward(&self, forward: &SocketForward) {
        let ended = self.session.close_port_forward(
            ForwardType::Local,
            &*forward.local_path,
            Path::new(&forward.remote_path),
        );
        // Where that fails it goes with the connection.
        let _ = timeout(CONTROL_TIMEOUT, ended).await;
        let _ = std::fs::remove_file(&forward.local_path);
    }
}

/// A socket here that leads to one there.
pub(crate) struct SocketForward {
    /// Path of the one here.
    pub local_path: PathBuf,
    remote_path: String,
}

/// ssh's words, and what to do.
fn explain(what: String, address: &SshAddress, error: &openssh::Error) -> Error {
    let said = match error {
        openssh::Error::Connect(error) | openssh::Error::Master(error) => error.to_string(),
        other => other.to_string(),
    };
    let to = match &address.user {
        Some(user) => format!("{user}@{}", address.host),
        None => address.host.clone(),
    };
    let has = |text: &str| said.contains(text);
    let failed = Error::new(Kind::Unreachable, what);
    if has("IDENTIFICATION HAS CHANGED") {
        return failed
            .with_cause("its host key differs from the known one")
            .hint(format!(
                "possible man-in-the-middle; if the host was reinstalled: `ssh-keygen -R {}`, then `ssh {to}` once",
                address.host
            ));
    }
    if has("Host key verification failed") {
        return failed
            .with_cause("its host key is not known")
            .hint(format!("log in once with `ssh {to}` and compare the key"));
    }
    if has("Permission denied") || has("Too many authentication failures") {
        return failed.with_cause(&said).hint(format!(
            "the server rejected all keys: run `ssh-copy-id {to}`; a key with a passphrase needs `ssh-add`"
        ));
    }
    if has("Could not resolve") {
        return failed
            .with_cause(&said)
            .hint("check the host's uri in the settings");
    }
    if let openssh::Error::Connect(error) = error
        && error.kind() == std::io::ErrorKind::NotFound
    {
        return failed
            .with_cause("ssh is not installed here")
            .hint("install openssh-client");
    }
    failed
        .with_cause(last_line(&said))
        .hint("check that the host is up and sshd is running")
        .retryable()
}

fn last_line(said: &str) -> &str {
    said.trim().lines().next_back().unwrap_or(said)
}
