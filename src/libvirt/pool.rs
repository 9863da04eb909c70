//! Connections to one libvirtd: the main one receives events, spare ones are opened while several calls run.

use std::any::Any;
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use virt::connect::Connect;
use virt::error::Error as VirtError;

use crate::{Event, EventRegistration, load, start_event_loop};

/// Connections besides the main one that are kept for the next call, and how long.
const MAX_SPARES: usize = 4;
const SPARE_TTL: Duration = Duration::from_secs(30);
/// Connections that are being closed: a libvirtd may never answer that.
const MAX_CLOSING: usize = 8;
/// Seconds between keepalive probes, and unanswered probes until the connection counts as lost: 10 s in all. Each one
/// wakes the processor twice.
const KEEPALIVE: (i32, u32) = (5, 1);

/// Parameters for opening a connection.
#[derive(Clone)]
pub struct ConnectTarget {
    /// URIs, tried in this order until one opens.
    pub uris: Vec<String>,
    /// Transport of the connection, dropped after it. Only connections with the same one are reused.
    pub tunnel: Option<Arc<dyn Any + Send + Sync>>,
}

impl ConnectTarget {
    fn shares_tunnel(&self, other: &Self) -> bool {
        match (&self.tunnel, &other.tunnel) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (one, two) => one.is_none() && two.is_none(),
        }
    }
}

/// Cause of a failed call.
#[derive(Debug)]
pub enum CallError {
    /// The dynamic loader cannot load libvirt's client library; its message.
    LibraryMissing(String),
    /// No connection could be opened; the message for the first URI.
    CannotConnect(String),
    /// The connection was lost during the call; libvirt's message.
    ConnectionLost(String),
    /// libvirt's error on a working connection.
    Libvirt(VirtError),
}

/// Connections to one libvirtd, opened when first needed and again after they were lost.
pub struct ConnectionPool {
    /// Prefix of log messages.
    name: String,
    /// The connection that receives events.
    main: Mutex<Option<Arc<PooledConnection>>>,
    /// Whether the main connection was lost and is not reopened yet.
    is_connection_lost: AtomicBool,
    /// Connections of calls that ran while another call used the main one, and since when they are unused.
    spares: Mutex<Vec<(Instant, Arc<PooledConnection>)>>,
    /// Number of connections that are being closed.
    closing: Arc<AtomicUsize>,
    changes: watch::Sender<u64>,
}

struct PooledConnection {
    /// Before the connection, because it must be dropped first.
    event_registration: Option<EventRegistration>,
    connect: Connect,
    is_closed: Arc<AtomicBool>,
    is_main: bool,
    is_leased: AtomicBool,
    target: ConnectTarget,
}

/// A connection for the exclusive use of one call.
///
/// Up to libvirt 10.3 the process crashes when a connection is lost while several calls use it (CVE-2024-4418);
/// distributions ship these versions for years.
pub struct Lease {
    connection: Arc<PooledConnection>,
    pool: Arc<ConnectionPool>,
}

impl Lease {
    /// Returns `None` if another call uses the connection.
    fn try_acquire(connection: &Arc<PooledConnection>, pool: &Arc<ConnectionPool>) -> Option<Self> {
        let (connection, pool) = (connection.clone(), pool.clone());
        (!connection.is_leased.swap(true, Acquire)).then(|| Self { connection, pool })
    }

    /// Calls libvirt. Blocks.
    ///
    /// # Errors
    /// [`CallError::ConnectionLost`]; [`CallError::Libvirt`].
    pub fn call<T>(
        &self,
        call: impl FnOnce(&Connect) -> Result<T, VirtError>,
    ) -> Result<T, CallError> {
        call(&self.connection.connect)
            .map_err(|error| self.pool.classify_error(&self.connection, error))
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

impl ConnectionPool {
    /// Creates a pool without a connection. `name` is used in log messages.
    pub fn new(name: String) -> Self {
        Self {
            name,
            main: Mutex::default(),
            is_connection_lost: AtomicBool::default(),
            spares: Mutex::default(),
            closing: Arc::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Returns a counter that changes with every event, and when the connection is lost.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns the number of events so far; `None` without a connection that receives events.
    pub fn event_count(&self) -> Option<u64> {
        // While another call opens or checks the connection, the number is unknown.
        let slot = self.main.try_lock().ok()?;
        let connection = slot.as_ref()?;
        let has_events =
            connection.event_registration.is_some() && !connection.is_closed.load(Relaxed);
        has_events.then(|| *self.changes.borrow())
    }

    /// Returns whether the connection that receives events was lost and is not reopened yet.
    pub fn is_connection_lost(&self) -> bool {
        self.is_connection_lost.load(Relaxed)
    }

    /// Returns the main connection, or another one if a call uses it. Blocks.
    ///
    /// # Errors
    /// [`CallError::LibraryMissing`]; [`CallError::CannotConnect`].
    pub fn lease(self: &Arc<Self>, target: ConnectTarget) -> Result<Lease, CallError> {
        let main = self.main_connection(&target)?;
        if let Some(lease) = Lease::try_acquire(&main, self) {
            return Ok(lease);
        }
        drop(main);
        self.lease_spare(target)
    }

    /// Returns a connection other than the main one, for a long call. Blocks.
    ///
    /// # Errors
    /// As [`ConnectionPool::lease`].
    pub fn lease_spare(self: &Arc<Self>, target: ConnectTarget) -> Result<Lease, CallError> {
        let spares = std::mem::take(&mut *self.lock_spares());
        let is_usable = |connection: &PooledConnection| {
            connection.target.shares_tunnel(&target)
                && connection.connect.is_alive().unwrap_or(false)
        };
        // The others are closed here, on this thread.
        let (mut spares, _): (Vec<_>, Vec<_>) = spares
            .into_iter()
            .partition(|(_, connection)| is_usable(connection));
        let spare = spares.pop();
        self.lock_spares().extend(spares);
        let lease = spare.and_then(|(_, connection)| Lease::try_acquire(&connection, self));
        if let Some(lease) = lease {
            return Ok(lease);
        }
        if self.closing.load(Relaxed) >= MAX_CLOSING {
            let cause = format!("it does not answer the end of {MAX_CLOSING} connections");
            return Err(CallError::CannotConnect(cause));
        }
        let connection = Arc::new(PooledConnection {
            event_registration: None,
            connect: self.open(&target)?,
            is_closed: Arc::default(),
            is_main: false,
            is_leased: AtomicBool::new(true),
            target,
        });
        let pool = self.clone();
        Ok(Lease { connection, pool })
    }

    /// Keeps a connection for the next call that needs one: opening one takes several round trips. It is closed after
    /// [`SPARE_TTL`], because its keepalive probes wake libvirtd and this process.
    fn return_spare(self: &Arc<Self>, connection: &Arc<PooledConnection>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut spares = self.lock_spares();
        if spares.len() >= MAX_SPARES || !connection.connect.is_alive().unwrap_or(false) {
            return;
        }
        spares.push((Instant::now(), connection.clone()));
        drop(spares);
        let pool = Arc::downgrade(self);
        runtime.spawn(async move {
            tokio::time::sleep(SPARE_TTL).await;
            if let Some(pool) = pool.upgrade() {
                let spares = std::mem::take(&mut *pool.lock_spares());
                let (expired, fresh): (Vec<_>, Vec<_>) = spares
                    .into_iter()
                    .partition(|(since, _)| since.elapsed() >= SPARE_TTL);
                pool.lock_spares().extend(fresh);
                let expired = expired
                    .into_iter()
                    .map(|(_, connection)| connection)
                    .collect();
                close(expired, &pool.closing);
            }
        });
    }

    fn lock_spares(&self) -> MutexGuard<'_, Vec<(Instant, Arc<PooledConnection>)>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks: holds the lock while it opens the connection.
    fn main_connection(
        self: &Arc<Self>,
        target: &ConnectTarget,
    ) -> Result<Arc<PooledConnection>, CallError> {
        let mut slot = self.main.lock().unwrap_or_else(PoisonError::into_inner);
        let is_usable = |connection: &&Arc<PooledConnection>| {
            !connection.is_closed.load(Relaxed) && connection.target.shares_tunnel(target)
        };
        if let Some(connection) = slot.as_ref().filter(is_usable) {
            return Ok(connection.clone());
        }
        // The old connection is closed here, on this thread, or at the end of the call that still uses it.
        *slot = None;
        let connect = self.open(target)?;
        let is_closed = Arc::new(AtomicBool::new(false));
        let on_event = {
            let (is_closed, pool) = (is_closed.clone(), Arc::downgrade(self));
            let changes = self.changes.clone();
            Arc::new(move |event| {
                if event == Event::Closed
                    && !is_closed.swap(true, Relaxed)
                    && let Some(pool) = pool.upgrade()
                {
                    pool.is_connection_lost.store(true, Relaxed);
                }
                changes.send_modify(|count| *count = count.wrapping_add(1));
            })
        };
        // Subscribers need no scan, but data fetched before may be stale: events may have been missed in between.
        self.changes.send_if_modified(|count| {
            *count = count.wrapping_add(1);
            false
        });
        let event_registration = EventRegistration::new(&connect, on_event)
            .inspect_err(|error| tracing::warn!("{} sends no events: {error}", self.name))
            .ok();
        let connection = PooledConnection {
            event_registration,
            connect,
            is_closed,
            is_main: true,
            is_leased: AtomicBool::new(false),
            target: target.clone(),
        };
        self.is_connection_lost.store(false, Relaxed);
        Ok(slot.insert(Arc::new(connection)).clone())
    }

    fn open(&self, target: &ConnectTarget) -> Result<Connect, CallError> {
        load().map_err(CallError::LibraryMissing)?;
        start_event_loop().map_err(CallError::CannotConnect)?;
        let mut first_error = None;
        let opened = target
            .uris
            .iter()
            .find_map(|uri| match Connect::open(Some(uri)) {
                Ok(connect) => Some(connect),
                Err(error) => {
                    // Messages of ssh have several lines.
                    let words: Vec<&str> = error.message().split_whitespace().collect();
                    tracing::debug!("{}: {uri}: {}", self.name, words.join(" "));
                    first_error.get_or_insert(error);
                    None
                }
            });
        let Some(connect) = opened else {
            let cause = first_error.map(|error| error.message().to_owned());
            return Err(CallError::CannotConnect(cause.unwrap_or_default()));
        };
        // The embedded and the test driver have no keepalive, and no connection that could be lost.
        let _ = connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1);
        Ok(connect)
    }

    fn classify_error(&self, connection: &PooledConnection, error: VirtError) -> CallError {
        let is_lost =
            connection.is_closed.load(Relaxed) || !connection.connect.is_alive().unwrap_or(false);
        if !is_lost {
            return CallError::Libvirt(error);
        }
        // Also if the driver has no close callback.
        let was_closed = connection.is_closed.swap(true, Relaxed);
        self.is_connection_lost
            .fetch_or(connection.is_main && !was_closed, Relaxed);
        CallError::ConnectionLost(error.message().to_owned())
    }
}

impl Drop for ConnectionPool {
    fn drop(&mut self) {
        let main = self.main.get_mut().unwrap_or_else(PoisonError::into_inner);
        let spares = self
            .spares
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let (main, spares) = (main.take(), std::mem::take(spares));
        let unused = spares.into_iter().map(|(_, connection)| connection);
        close(unused.chain(main).collect(), &self.closing);
    }
}

/// Closes connections on a thread of their own: it waits for libvirtd. tokio's threads are for all hosts.
fn close(connections: Vec<Arc<PooledConnection>>, closing: &Arc<AtomicUsize>) {
    if connections.is_empty() {
        return;
    }
    closing.fetch_add(connections.len(), Relaxed);
    let closing = closing.clone();
    std::thread::spawn(move || {
        for connection in connections {
            drop(connection);
            closing.fetch_sub(1, Relaxed);
        }
    });
}
