//! A host's libvirt: the SSH tunnel to it, deadlines of calls, and their errors.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell, watch};
use tokio_util::sync::CancellationToken;
use virt::connect::Connect;
use virt::error::{Error as VirtError, ErrorNumber};

use super::blocking_pool::{BlockingPool, Timeout};
use super::command::CommandRunner;
use super::ssh::{Master, SocketForward, Ssh};
use snapdeck_libvirt::{CallError, ConnectTarget, ConnectionPool, Lease};
use snapdeck_model::{Error, HostName, Kind, Result};

/// Concurrent calls on one host.
const MAX_CALLS: usize = 4;
/// Concurrent long calls on one host; a job has one at a time.
const MAX_LONG_CALLS: usize = 64;
/// For finding libvirt's socket on a host; the first session on a slow line takes seconds.
const FIND_SOCKET_TIMEOUT: Duration = Duration::from_secs(20);

/// Sockets of libvirtd, and of the modular daemons, on a host.
const SOCKET_PATHS: &[&str] = &[
    "/run/libvirt/libvirt-sock",
    "/var/run/libvirt/libvirt-sock",
    "/run/libvirt/virtqemud-sock",
    "/var/run/libvirt/virtqemud-sock",
];
/// Prints the first of its arguments that is a socket.
const FIND_SOCKET_SCRIPT: &str =
    r#"for path do if [ -S "$path" ]; then printf %s "$path"; exit; fi; done; exit 1"#;

/// The libvirt of a host. Cheap to clone; connects when it is first used.
#[derive(Clone)]
pub struct Libvirt {
    connections: Arc<ConnectionPool>,
    calls: BlockingPool,
    long_calls: BlockingPool,
    runner: CommandRunner,
    uri: Arc<str>,
    /// Does a guest run under KVM? Probed once.
    pub(super) kvm_usable: Arc<OnceCell<bool>>,
    /// To a remote libvirt, as long as its SSH connection lasts.
    tunnel: Arc<Mutex<Option<Arc<LibvirtTunnel>>>>,
}

struct LibvirtTunnel {
    master: Arc<Master>,
    /// `None` if libvirt has no socket at the usual paths.
    forward: Option<SocketForward>,
}

impl Libvirt {
    pub(crate) fn new(runner: CommandRunner, uri: String) -> Self {
        Self {
            connections: Arc::new(ConnectionPool::new(format!("host {}", runner.host()))),
            calls: BlockingPool::new(MAX_CALLS),
            long_calls: BlockingPool::new(MAX_LONG_CALLS),
            runner,
            uri: uri.into(),
            kvm_usable: Arc::default(),
            tunnel: Arc::default(),
        }
    }

    pub(crate) fn host(&self) -> &HostName {
        self.runner.host()
    }

    /// Returns a counter that changes with every event, and when the connection is lost.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.connections.changes()
    }

    /// Returns the number of events so far; `None` without a connection that receives events.
    pub(crate) fn event_count(&self) -> Option<u64> {
        self.connections.event_count()
    }

    /// Returns whether the connection that receives events was lost and is not reopened yet.
    pub fn is_connection_lost(&self) -> bool {
        self.connections.is_connection_lost()
    }

    /// Calls libvirt; `action` completes "cannot ... on host NAME".
    ///
    /// # Errors
    /// `Unreachable` if the connection cannot be opened or is lost, or libvirt does not answer within `deadline`;
    /// `NotFound` for a domain that does not exist; `Conflict` if its state does not allow the call; else `Failed`.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        action: impl Into<String>,
        deadline: Duration,
        call: impl FnOnce(&Connect) -> Result<T, VirtError> + Send + 'static,
    ) -> Result<T> {
        let lease = ConnectionPool::lease;
        self.call_leased(&self.calls, lease, action, deadline, call)
            .await
    }

    /// As [`Libvirt::call`], for calls that may take minutes: other calls do not wait for it.
    ///
    /// # Errors
    /// As [`Libvirt::call`].
    pub(crate) async fn call_long<T: Send + 'static>(
        &self,
        action: impl Into<String>,
        deadline: Duration,
        call: impl FnOnce(&Connect) -> Result<T, VirtError> + Send + 'static,
    ) -> Result<T> {
        let lease = ConnectionPool::lease_spare;
        self.call_leased(&self.long_calls, lease, action, deadline, call)
            .await
    }

    async fn call_leased<T: Send + 'static>(
        &self,
        threads: &BlockingPool,
        lease: fn(&Arc<ConnectionPool>, ConnectTarget) -> Result<Lease, CallError>,
        action: impl Into<String>,
        deadline: Duration,
        call: impl FnOnce(&Connect) -> Result<T, VirtError> + Send + 'static,
    ) -> Result<T> {
        let summary = format!("cannot {} on host {}", action.into(), self.host());
        let connections = self.connections.clone();
        let (target, tunnel) = self.connect_target().await?;
        let result = match threads
            .run(deadline, move || lease(&connections, target)?.call(call))
            .await
        {
            Ok(result) => result.map_err(|error| self.explain(error, summary)),
            Err(Timeout) => Err(Error::new(Kind::Unreachable, summary)
                .with_cause(format!(
                    "libvirt did not answer within {} s",
                    deadline.as_secs()
                ))
                .hint("check whether libvirtd hangs there")
                .retryable()),
        };
        let is_lost = matches!(&result, Err(error) if error.kind() == Kind::Unreachable);
        if let (true, Some(ssh), Some(tunnel)) = (is_lost, self.runner.ssh(), tunnel) {
            ssh.check_alive(&tunnel.master).await;
        }
        result
    }

    /// Returns the URIs to connect to, and the tunnel that they lead through.
    async fn connect_target(&self) -> Result<(ConnectTarget, Option<Arc<LibvirtTunnel>>)> {
        let Some(ssh) = self.runner.ssh() else {
            let uris = vec![self.uri.to_string()];
            return Ok((ConnectTarget { uris, tunnel: None }, None));
        };
        let master = ssh.acquire_master().await?;
        let mut slot = self.tunnel.lock().await;
        let tunnel = match slot.as_ref() {
            Some(tunnel) if Arc::ptr_eq(&tunnel.master, &master) => tunnel.clone(),
            _ => {
                let forward = self.forward_socket(ssh, &master).await?;
                let tunnel = LibvirtTunnel { master, forward };
                slot.insert(Arc::new(tunnel)).clone()
            }
        };
        let address = ssh.address();
        let (driver, path) = (&address.driver, &address.path);
        let mut uris = Vec::new();
        if let Some(forward) = &tunnel.forward {
            let socket = forward.local_path.display();
            uris.push(format!("{driver}://{path}?socket={socket}"));
        }
        // If sshd forbids forwarding: libvirt's own SSH transport, over the same connection.
        let program = tunnel.master.write_ssh_wrapper().map_err(|error| {
            let summary = format!("cannot reach libvirt of host {}", self.host());
            Error::new(Kind::Failed, summary).with_cause(error)
        })?;
        let socket = address.socket.as_ref();
        uris.push(format!(
            "{driver}+ssh://none{path}?no_tty=1&command={}{}",
            program.display(),
            socket.map_or(String::new(), |socket| format!("&socket={socket}"))
        ));
        let target = ConnectTarget {
            uris,
            tunnel: Some(tunnel.clone()),
        };
        Ok((target, Some(tunnel)))
    }

    async fn forward_socket(&self, ssh: &Ssh, master: &Master) -> Result<Option<SocketForward>> {
        let address = ssh.address();
        let remote_path = match &address.socket {
            Some(socket) => socket.clone(),
            // The socket of a session has no fixed path.
            None if address.path != "/system" => return Ok(None),
            None => {
                let argv = [&["sh", "-c", FIND_SOCKET_SCRIPT, "snapdeck"], SOCKET_PATHS].concat();
                let output = self
                    .runner
                    .run(&argv, FIND_SOCKET_TIMEOUT, &CancellationToken::new())
                    .await?;
                if !output.status.success() {
                    return Ok(None);
                }
                output.stdout
            }
        };
        master.forward_socket(&remote_path).await.map(Some)
    }

    fn explain(&self, error: CallError, summary: String) -> Error {
        match error {
            CallError::LibraryMissing(cause) => {
                Error::new(Kind::Unreachable, "cannot load libvirt's client library")
                    .with_cause(cause)
                    .hint("install it: libvirt0 on Debian and Ubuntu, libvirt-libs on Fedora")
            }
            CallError::CannotConnect(cause) => Error::new(
                Kind::Unreachable,
                format!(
                    "cannot reach libvirt of host {} ({})",
                    self.host(),
                    self.uri
                ),
            )
            .with_cause(cause)
            .hint("check that libvirtd is running and that you have access to it")
            .retryable(),
            CallError::ConnectionLost(cause) => Error::new(Kind::Unreachable, summary)
                .with_cause(format!("the connection to libvirt was lost ({cause})"))
                .retryable(),
            CallError::Libvirt(error) => {
                Error::new(error_kind(&error), summary).with_cause(error.message())
            }
        }
    }
}

fn error_kind(error: &VirtError) -> Kind {
    let is_any = |numbers: &[ErrorNumber]| numbers.iter().any(|number| error.code().is(*number));
    if is_any(&[ErrorNumber::NoDomain]) {
        Kind::NotFound
    } else if is_any(&[ErrorNumber::OperationInvalid]) {
        Kind::Conflict
    } else if is_any(&[
        ErrorNumber::NoConnect,
        ErrorNumber::AuthFailed,
        ErrorNumber::AuthCancelled,
        ErrorNumber::AuthUnavailable,
        ErrorNumber::AccessDenied,
    ]) {
        Kind::Unreachable
    } else {
        Kind::Failed
    }
}
