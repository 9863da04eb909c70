//! The connection to a host's libvirt: opened when it is first needed, opened again when it was lost.

use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OnceCell, watch};
use virt::connect::Connect;
use virt::error::ErrorNumber;

use super::blocking_pool::{BlockingPool, Timeout};
use super::command::CommandRunner;
use super::ssh::{Master, SocketForward, Ssh};
use snapdeck_libvirt::{Event, EventRegistration};
use snapdeck_model::{Error, HostName, Kind, Result};

/// Calls under way at once on one host.
const MAX_CALLS: usize = 4;
/// Long calls under way at once on one host; a job has one at a time.
const MAX_LONG_CALLS: usize = 64;
/// Links beside the main one that are kept for the next call, and how long.
const MAX_SPARES: usize = 4;
const SPARE_TTL: Duration = Duration::from_secs(30);
/// For finding libvirt's socket on a host; a first session on a slow line takes seconds.
const FIND_SOCKET_TIMEOUT: Duration = Duration::from_secs(20);
/// Seconds between keepalive probes, and probes without an answer until the link counts as dead: 10 s in all. Each one
/// wakes the processor twice.
const KEEPALIVE: (i32, u32) = (5, 1);

/// Sockets of the one libvirtd, and of the modular daemons, on a host.
const SOCKET_PATHS: &[&str] = &[
    "/run/libvirt/libvirt-sock",
    "/var/run/libvirt/libvirt-sock",
    "/run/libvirt/virtqemud-sock",
    "/var/run/libvirt/virtqemud-sock",
];
/// Says which of its arguments is a socket.
const FIND_SOCKET_SCRIPT: &str =
    r#"for path do if [ -S "$path" ]; then printf %s "$path"; exit; fi; done; exit 1"#;

/// One host's libvirt.
#[derive(Clone)]
pub struct Libvirt {
    inner: Arc<ConnectionPool>,
    pool: BlockingPool,
    long_pool: BlockingPool,
    runner: CommandRunner,
    /// Does a guest run under KVM? Probed once.
    pub(super) kvm_usable: Arc<OnceCell<bool>>,
    /// The way to a remote libvirt, while its SSH connection stands.
    tunnel: Arc<tokio::sync::Mutex<Option<Arc<LibvirtTunnel>>>>,
}

struct LibvirtTunnel {
    master: Arc<Master>,
    /// Its socket; `None` where it has no usual one.
    forward: Option<SocketForward>,
}

/// What to open, in this order until one opens.
#[derive(Clone)]
struct ConnectTarget {
    uris: Vec<String>,
    tunnel: Option<Arc<LibvirtTunnel>>,
}

impl ConnectTarget {
    /// Do both lead through the same connection?
    fn shares_tunnel(&self, other: &Self) -> bool {
        match (&self.tunnel, &other.tunnel) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (one, two) => one.is_none() && two.is_none(),
        }
    }
}

struct ConnectionPool {
    host: HostName,
    uri: String,
    /// The one that tells of changes.
    main: Mutex<Option<Arc<PooledConnection>>>,
    /// Is the main one known to be lost, and no other open yet?
    is_connection_lost: AtomicBool,
    /// Links that calls have left which came while another had the main one, and since when.
    spares: Mutex<Vec<(Instant, Arc<PooledConnection>)>>,
    changes: watch::Sender<u64>,
}

struct PooledConnection {
    /// Before the connection, for it goes first.
    event_registration: Option<EventRegistration>,
    connect: Connect,
    is_closed: Arc<AtomicBool>,
    is_main: bool,
    is_leased: AtomicBool,
    target: ConnectTarget,
}

/// A link for one call, which has it to itself: up to libvirt 10.3 a link that ends under several calls takes the process
/// with it (CVE-2024-4418), and distributions keep those for years.
struct Lease {
    connection: Arc<PooledConnection>,
    pool: Arc<ConnectionPool>,
}

impl Lease {
    /// `None` where another call has it.
    fn try_acquire(link: &Arc<PooledConnection>, inner: &Arc<ConnectionPool>) -> Option<Self> {
        let (link, inner) = (link.clone(), inner.clone());
        (!link.is_leased.swap(true, Acquire)).then(|| Self {
            connection: link,
            pool: inner,
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.is_leased.store(false, Release);
        if !self.connection.is_main {
            self.pool.return_spare(&self.connection);
        }
    }
}

impl Libvirt {
    pub(crate) fn new(place: CommandRunner, uri: String) -> Self {
        Self {
            inner: Arc::new(ConnectionPool {
                host: place.host().clone(),
                uri,
                main: Mutex::default(),
                is_connection_lost: AtomicBool::default(),
                spares: Mutex::default(),
                changes: watch::Sender::new(0),
            }),
            pool: BlockingPool::new(MAX_CALLS),
            long_pool: BlockingPool::new(MAX_LONG_CALLS),
            runner: place,
            kvm_usable: Arc::default(),
            tunnel: Arc::default(),
        }
    }

    /// What leads to it now.
    async fn connect_target(&self) -> Result<ConnectTarget> {
        let Some(ssh) = self.runner.ssh() else {
            return Ok(ConnectTarget {
                uris: vec![self.inner.uri.clone()],
                tunnel: None,
            });
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
            uris.push(format!(
                "{driver}://{path}?socket={}",
                forward.local_path.display()
            ));
        }
        // Where forwarding is forbidden: libvirt's own way, through the same connection.
        let program = tunnel.master.write_ssh_wrapper().map_err(|error| {
            Error::new(
                Kind::Failed,
                format!("cannot reach libvirt of host {}", self.inner.host),
            )
            .with_cause(error)
        })?;
        let socket = address.socket.as_ref();
        uris.push(format!(
            "{driver}+ssh://there{path}?no_tty=1&command={}{}",
            program.display(),
            socket.map_or(String::new(), |socket| format!("&socket={socket}"))
        ));
        Ok(ConnectTarget {
            uris,
            tunnel: Some(tunnel),
        })
    }

    async fn forward_socket(&self, ssh: &Ssh, master: &Master) -> Result<Option<SocketForward>> {
        let address = ssh.address();
        let there = match &address.socket {
            Some(socket) => socket.clone(),
            // Another's socket is at no fixed place.
            None if address.path != "/system" => return Ok(None),
            None => {
                let argv = [&["sh", "-c", FIND_SOCKET_SCRIPT, "snapdeck"], SOCKET_PATHS].concat();
                let said = self
                    .runner
                    .run(
                        &argv,
                        FIND_SOCKET_TIMEOUT,
                        &tokio_util::sync::CancellationToken::new(),
                    )
                    .await?;
                if !said.status.success() {
                    return Ok(None);
                }
                said.stdout
            }
        };
        master.forward_socket(&there).await.map(Some)
    }

    pub(crate) fn host(&self) -> &HostName {
        &self.inner.host
    }

    /// Returns a counter that changes with every event, and when the connection is lost.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// How often it has told of a change; as long as this is the same, it has told of none. `None` where nothing
    /// would be told: without a connection, or on one that has no events.
    pub(crate) fn event_count(&self) -> Option<u64> {
        // Where another call looks at it or opens it, nothing is known.
        let slot = self.inner.main.try_lock().ok()?;
        let link = slot.as_ref()?;
        let tells = link.event_registration.is_some() && !link.is_closed.load(Relaxed);
        tells.then(|| *self.inner.changes.borrow())
    }

    /// Is the connection that receives events lost, and no other open yet?
    pub fn is_connection_lost(&self) -> bool {
        self.inner.is_connection_lost.load(Relaxed)
    }

    /// Calls libvirt; `what` completes "cannot ... on host NAME".
    ///
    /// # Errors
    /// `Unreachable` where it cannot be opened, was lost, or does not answer within `deadline`; `NotFound`
    /// for a domain that is not there; `Unsupported` where its state does not allow the call; `Failed` else.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        what: impl Into<String>,
        deadline: Duration,
        call: impl FnOnce(&Connect) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T> {
        let lease = ConnectionPool::lease;
        self.call_leased(&self.pool, lease, what, deadline, call)
            .await
    }

    /// As [`Libvirt::call`], for what may take minutes: it holds up no other call.
    ///
    /// # Errors
    /// As [`Libvirt::call`].
    pub(crate) async fn call_long<T: Send + 'static>(
        &self,
        what: impl Into<String>,
        deadline: Duration,
        call: impl FnOnce(&Connect) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T> {
        let lease = ConnectionPool::lease_spare;
        self.call_leased(&self.long_pool, lease, what, deadline, call)
            .await
    }

    async fn call_leased<T: Send + 'static>(
        &self,
        threads: &BlockingPool,
        lease: fn(&Arc<ConnectionPool>, ConnectTarget) -> Result<Lease>,
        what: impl Into<String>,
        deadline: Duration,
        call: impl FnOnce(&Connect) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T> {
        let what = format!("cannot {} on host {}", what.into(), self.inner.host);
        let inner = self.inner.clone();
        let said = what.clone();
        let door = self.connect_target().await?;
        let through = door.tunnel.clone();
        let called = threads
            .run(deadline, move || {
                let Lease {
                    connection: link, ..
                } = &lease(&inner, door)?;
                call(&link.connect).map_err(|error| inner.explain(link, &error, said))
            })
            .await
            .unwrap_or_else(|Timeout| {
                Err(Error::new(Kind::Unreachable, what)
                    .with_cause(format!(
                        "libvirt did not answer within {} s",
                        deadline.as_secs()
                    ))
                    .hint("check whether libvirtd hangs there")
                    .retryable())
            });
        let lost = matches!(&called, Err(error) if error.kind() == Kind::Unreachable);
        if let (true, Some(ssh), Some(tunnel)) = (lost, self.runner.ssh(), through) {
            ssh.check_alive(&tunnel.master).await;
        }
        called
    }
}

impl ConnectionPool {
    /// The main link; where another call has it, another. Blocks.
    fn lease(self: &Arc<Self>, door: ConnectTarget) -> Result<Lease> {
        let main = self.main_connection(&door)?;
        if let Some(lease) = Lease::try_acquire(&main, self) {
            return Ok(lease);
        }
        drop(main);
        self.lease_spare(door)
    }

    /// Another link than the main one. Blocks.
    fn lease_spare(self: &Arc<Self>, door: ConnectTarget) -> Result<Lease> {
        let spares = std::mem::take(&mut *self.lock_spares());
        let serves = |link: &PooledConnection| {
            link.target.shares_tunnel(&door) && link.connect.is_alive().unwrap_or(false)
        };
        // The others are closed here, on this thread.
        let (mut spares, _): (Vec<_>, Vec<_>) =
            spares.into_iter().partition(|(_, link)| serves(link));
        let spare = spares.pop();
        self.lock_spares().extend(spares);
        let lease = spare.and_then(|(_, link)| Lease::try_acquire(&link, self));
        if let Some(lease) = lease {
            return Ok(lease);
        }
        let link = Arc::new(PooledConnection {
            event_registration: None,
            connect: self.open(&door)?,
            is_closed: Arc::default(),
            is_main: false,
            is_leased: AtomicBool::new(true),
            target: door,
        });
        let inner = self.clone();
        Ok(Lease {
            connection: link,
            pool: inner,
        })
    }

    /// Keeps a link for the next call that needs another: opening one takes several round trips. Not for long: each
    /// keeps libvirtd and us awake a little.
    fn return_spare(self: &Arc<Self>, link: &Arc<PooledConnection>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut spares = self.lock_spares();
        if spares.len() >= MAX_SPARES || !link.connect.is_alive().unwrap_or(false) {
            return;
        }
        spares.push((Instant::now(), link.clone()));
        drop(spares);
        let inner = Arc::downgrade(self);
        runtime.spawn(async move {
            tokio::time::sleep(SPARE_TTL).await;
            if let Some(inner) = inner.upgrade() {
                let spares = std::mem::take(&mut *inner.lock_spares());
                let (old, young): (Vec<_>, Vec<_>) = spares
                    .into_iter()
                    .partition(|(since, _)| since.elapsed() >= SPARE_TTL);
                inner.lock_spares().extend(young);
                tokio::task::spawn_blocking(move || drop(old));
            }
        });
    }

    fn lock_spares(&self) -> MutexGuard<'_, Vec<(Instant, Arc<PooledConnection>)>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks: its lock is held while opening.
    fn main_connection(self: &Arc<Self>, door: &ConnectTarget) -> Result<Arc<PooledConnection>> {
        let mut slot = self.main.lock().unwrap_or_else(PoisonError::into_inner);
        let stands = |link: &&Arc<PooledConnection>| {
            !link.is_closed.load(Relaxed) && link.target.shares_tunnel(door)
        };
        if let Some(link) = slot.as_ref().filter(stands) {
            return Ok(link.clone());
        }
        // The old one is closed here, on this thread, or where a call ends that still has it.
        *slot = None;
        let connect = self.open(door)?;
        let closed = Arc::new(AtomicBool::new(false));
        let tell = {
            let (closed, inner) = (closed.clone(), Arc::downgrade(self));
            let changes = self.changes.clone();
            Arc::new(move |event| {
                if event == Event::Closed
                    && !closed.swap(true, Relaxed)
                    && let Some(inner) = inner.upgrade()
                {
                    inner.is_connection_lost.store(true, Relaxed);
                }
                changes.send_modify(|count| *count = count.wrapping_add(1));
            })
        };
        // Nobody need look again for it, but what was told before is no proof for what comes: it may have missed some.
        self.changes.send_if_modified(|count| {
            *count = count.wrapping_add(1);
            false
        });
        let watch = EventRegistration::new(&connect, tell)
            .inspect_err(|error| tracing::warn!("host {} sends no events: {error}", self.host))
            .ok();
        let link = PooledConnection {
            event_registration: watch,
            connect,
            is_closed: closed,
            is_main: true,
            is_leased: AtomicBool::new(false),
            target: door.clone(),
        };
        self.is_connection_lost.store(false, Relaxed);
        Ok(slot.insert(Arc::new(link)).clone())
    }

    fn open(&self, door: &ConnectTarget) -> Result<Connect> {
        let failed = |cause: String| {
            Error::new(
                Kind::Unreachable,
                format!("cannot reach libvirt of host {} ({})", self.host, self.uri),
            )
            .with_cause(cause)
            .hint("check that libvirtd is running and that you have access to it")
            .retryable()
        };
        snapdeck_libvirt::load().map_err(|cause| {
            let what = "cannot load libvirt's client library";
            let hint = "install it: libvirt0 on Debian and Ubuntu, libvirt-libs on Fedora";
            Error::new(Kind::Unreachable, what)
                .with_cause(cause)
                .hint(hint)
        })?;
        snapdeck_libvirt::start_event_loop().map_err(failed)?;
        let mut refused = None;
        let opened = door
            .uris
            .iter()
            .find_map(|uri| match Connect::open(Some(uri)) {
                Ok(connect) => Some(connect),
                Err(error) => {
                    tracing::debug!("host {}: {uri}: {}", self.host, error.message());
                    refused.get_or_insert(error);
                    None
                }
            });
        let Some(connect) = opened else {
            let cause = refused.map(|error| error.message().to_owned());
            return Err(failed(cause.unwrap_or_default()));
        };
        // The embedded and the test driver have none, nor a link that could die.
        let _ = connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1);
        Ok(connect)
    }

    fn explain(&self, link: &PooledConnection, error: &virt::error::Error, what: String) -> Error {
        let lost = link.is_closed.load(Relaxed) || !link.connect.is_alive().unwrap_or(false);
        if lost {
            // Also where the driver has no close callback.
            let was_known = link.is_closed.swap(true, Relaxed);
            self.is_connection_lost
                .fetch_or(link.is_main && !was_known, Relaxed);
            return Error::new(Kind::Unreachable, what)
                .with_cause(format!(
                    "the connection to libvirt was lost ({})",
                    error.message()
                ))
                .retryable();
        }
        let known = |number| error.code().is(number);
        let kind = if known(ErrorNumber::NoDomain) {
            Kind::NotFound
        } else if known(ErrorNumber::OperationInvalid) {
            Kind::Conflict
        } else if [
            ErrorNumber::NoConnect,
            ErrorNumber::AuthFailed,
            ErrorNumber::AuthCancelled,
            ErrorNumber::AuthUnavailable,
            ErrorNumber::AccessDenied,
        ]
        .into_iter()
        .any(known)
        {
            Kind::Unreachable
        } else {
            Kind::Failed
        };
        Error::new(kind, what).with_cause(error.message())
    }
}

impl Drop for ConnectionPool {
    fn drop(&mut self) {
        let link = self.main.get_mut().unwrap_or_else(PoisonError::into_inner);
        let spares = self
            .spares
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let (link, spares) = (link.take(), std::mem::take(spares));
        if link.is_some() || !spares.is_empty() {
            // Closing waits for libvirt, and whoever drops the last handle may be an async worker.
            std::thread::spawn(move || drop((link, spares)));
        }
    }
}
