//! The connection to a host's libvirt: opened when it is first needed, opened again when it was lost.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use virt::connect::Connect;
use virt::error::ErrorNumber;

use super::ffi::{self, Event, Watch};
use super::threads::{Threads, TooLate};
use crate::model::{Error, HostName, Kind, Result};

/// Calls under way at once on one host.
const CALLS: usize = 4;
/// Seconds between keepalive probes, and probes without an answer until the link counts as dead: 9 s in all.
const KEEPALIVE: (i32, u32) = (3, 2);

/// One host's libvirt.
#[derive(Clone)]
pub struct Libvirt {
    inner: Arc<Inner>,
    threads: Threads,
}

struct Inner {
    host: HostName,
    uri: String,
    link: Mutex<Option<Arc<Link>>>,
    changes: watch::Sender<u64>,
}

struct Link {
    /// Before the connection, for it goes first.
    _watch: Option<Watch>,
    connect: Connect,
    closed: Arc<AtomicBool>,
}

impl Libvirt {
    pub fn new(host: HostName, uri: String) -> Self {
        Self {
            inner: Arc::new(Inner {
                host,
                uri,
                link: Mutex::default(),
                changes: watch::Sender::new(0),
            }),
            threads: Threads::new(CALLS),
        }
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Calls libvirt; `what` completes "cannot ... on host NAME".
    ///
    /// # Errors
    /// `Unreachable` where it cannot be opened, was lost, or does not answer within `deadline`; `NotFound`
    /// for a domain that is not there; `Refused` where its state does not allow the call; `Failed` else.
    pub async fn call<T: Send + 'static>(
        &self,
        what: impl Into<String>,
        deadline: Duration,
        call: impl FnOnce(&Connect) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T> {
        let what = format!("cannot {} on host {}", what.into(), self.inner.host);
        let inner = self.inner.clone();
        let said = what.clone();
        self.threads
            .run(deadline, move || {
                let link = inner.link()?;
                call(&link.connect).map_err(|error| inner.explain(&link, &error, said))
            })
            .await
            .unwrap_or_else(|TooLate| {
                Err(Error::new(Kind::Unreachable, what)
                    .because(format!(
                        "libvirt has not answered for {} s",
                        deadline.as_secs()
                    ))
                    .hint("is libvirtd hanging there?")
                    .worth_retrying())
            })
    }
}

impl Inner {
    /// The connection; a new one where there is none or it is lost. Blocks: its lock is held while opening.
    fn link(self: &Arc<Self>) -> Result<Arc<Link>> {
        let mut slot = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = slot.as_ref().filter(|link| !link.closed.load(Relaxed)) {
            return Ok(link.clone());
        }
        // The old one is closed here, on this thread.
        *slot = None;
        let link = Arc::new(self.open()?);
        *slot = Some(link.clone());
        Ok(link)
    }

    fn open(self: &Arc<Self>) -> Result<Link> {
        let failed = |cause: String| {
            Error::new(
                Kind::Unreachable,
                format!("cannot reach libvirt of host {} ({})", self.host, self.uri),
            )
            .because(cause)
            .hint("is libvirtd running, and may you use it?")
            .worth_retrying()
        };
        ffi::start_event_loop().map_err(failed)?;
        let connect =
            Connect::open(Some(&self.uri)).map_err(|error| failed(error.message().to_owned()))?;
        // The embedded and the test driver have none, nor a link that could die.
        let _ = connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1);
        let closed = Arc::new(AtomicBool::new(false));
        let tell = {
            let (closed, changes) = (closed.clone(), self.changes.clone());
            Arc::new(move |event| {
                closed.fetch_or(event == Event::Closed, Relaxed);
                changes.send_modify(|count| *count = count.wrapping_add(1));
            })
        };
        let watch = Watch::new(&connect, tell)
            .inspect_err(|error| tracing::warn!("host {} tells no events: {error}", self.host))
            .ok();
        Ok(Link {
            _watch: watch,
            connect,
            closed,
        })
    }

    fn explain(&self, link: &Link, error: &virt::error::Error, what: String) -> Error {
        let lost = link.closed.load(Relaxed) || !link.connect.is_alive().unwrap_or(false);
        if lost {
            // Also where the driver has no close callback.
            link.closed.store(true, Relaxed);
            return Error::new(Kind::Unreachable, what)
                .because(format!(
                    "the connection to libvirt was lost ({})",
                    error.message()
                ))
                .worth_retrying();
        }
        let known = |number| error.code().is(number);
        let kind = if known(ErrorNumber::NoDomain) {
            Kind::NotFound
        } else if known(ErrorNumber::OperationInvalid) {
            Kind::Refused
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
        Error::new(kind, what).because(error.message())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let link = self.link.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = link.take() {
            // Closing waits for libvirt, and whoever drops the last handle may be an async worker.
            std::thread::spawn(move || drop(link));
        }
    }
}
