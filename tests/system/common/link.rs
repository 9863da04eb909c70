//! The connection to a host's sshd, and its faults. Each TCP connection has its own sshd (`sshd -i`), which runs in the
//! host's mount namespace and ends with the test.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::process::{DEADLINE, process_tree, run};

/// A network fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Connections are closed and new ones refused.
    Closed,
    /// Connections stay open, new ones are accepted, and no bytes pass.
    Frozen,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    ToHost,
    FromHost,
}

/// A port that forwards to a host's sshd.
pub(crate) struct Link {
    pub address: SocketAddrV4,
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<LinkState>,
    changed: Condvar,
    sshd: Box<dyn Fn() -> Command + Send + Sync>,
}

#[derive(Default)]
struct LinkState {
    fault: Option<Fault>,
    is_dropped: bool,
    /// sshd has received SIGSTOP.
    paused: bool,
    /// Fault, direction, and the bytes that pass before it.
    planned: Option<(Fault, Direction, u64)>,
    bytes_per_second: Option<u64>,
    passed: [u64; 2],
    accepted: usize,
    connections: Vec<Connection>,
}

struct Connection {
    client: TcpStream,
    host: UnixStream,
    sshd: Child,
}

impl Link {
    /// Opens a port of `ip`; `sshd` returns the command that serves a connection on its standard input and output.
    pub(crate) fn open(ip: Ipv4Addr, sshd: impl Fn() -> Command + Send + Sync + 'static) -> Self {
        let listener = listen(ip);
        let address = match listener.local_addr().unwrap() {
            std::net::SocketAddr::V4(address) => address,
            other => panic!("{other}"),
        };
        let inner = Arc::new(Inner {
            state: Mutex::default(),
            changed: Condvar::new(),
            sshd: Box::new(sshd),
        });
        let shared = inner.clone();
        // Processes get SIGKILL when the thread that started them ends (pdeathsig), so it lives as long as the link.
        std::thread::spawn(move || shared.accept(listener, address));
        Self { address, inner }
    }

    /// Starts a fault.
    pub(crate) fn cut(&self, fault: Fault) {
        let mut state = self.inner.lock();
        state.fail(fault);
        self.inner.changed.notify_all();
    }

    /// Starts a fault after `bytes` more in a direction.
    pub(crate) fn cut_after(&self, fault: Fault, direction: Direction, bytes: u64) {
        self.inner.lock().planned = Some((fault, direction, bytes));
    }

    /// Returns whether a fault is active.
    pub(crate) fn is_cut(&self) -> bool {
        self.inner.lock().fault.is_some()
    }

    /// Ends the fault: new connections are accepted, and delayed bytes pass.
    pub(crate) fn heal(&self) {
        let mut state = self.inner.lock();
        state.fault = None;
        state.planned = None;
        self.inner.changed.notify_all();
    }

    /// Sets a limit in bytes per second for each connection and direction; `None` for no limit.
    pub(crate) fn limit(&self, bytes_per_second: Option<u64>) {
        self.inner.lock().bytes_per_second = bytes_per_second;
    }

    /// Returns the bytes that have passed so far.
    pub(crate) fn bytes_passed(&self, direction: Direction) -> u64 {
        self.inner.lock().passed[direction as usize]
    }

    /// Returns the number of connections accepted so far.
    pub(crate) fn connection_count(&self) -> usize {
        self.inner.lock().accepted
    }

    /// Kills sshd and its sessions but not the processes in them. New connections are refused until [`Link::heal`].
    pub(crate) fn kill_sshd(&self) {
        let mut state = self.inner.lock();
        state.fault = Some(Fault::Closed);
        state.signal("KILL");
        state.fail(Fault::Closed);
        self.inner.changed.notify_all();
    }

    /// Sends SIGSTOP to the sshd of each open connection: nothing passes there any more, and new connections work.
    pub(crate) fn stop_open(&self) {
        self.inner.lock().signal("STOP");
    }

    /// Sends SIGSTOP or SIGCONT to sshd and its sessions: connections stay open, and no request is answered.
    pub(crate) fn pause_sshd(&self, paused: bool) {
        let mut state = self.inner.lock();
        state.paused = paused;
        state.signal(if paused { "STOP" } else { "CONT" });
        self.inner.changed.notify_all();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        state.is_dropped = true;
        state.signal("CONT");
        state.fail(Fault::Closed);
        self.inner.changed.notify_all();
        let since = Instant::now();
        while !state.connections.is_empty() && since.elapsed() < DEADLINE {
            state.reap();
            drop(state);
            std::thread::sleep(Duration::from_millis(5));
            state = self.inner.lock();
            if since.elapsed() > Duration::from_secs(2) {
                state.signal("KILL");
            }
        }
    }
}

/// Listens on a free port below the kernel's ephemeral ports (from 32768), so that no other process gets it while
/// the link is closed.
fn listen(ip: Ipv4Addr) -> TcpListener {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(37) + NEXT.fetch_add(1, Relaxed) * 101;
    for number in 0..10_000 {
        let port = u16::try_from(20_000 + first.wrapping_add(number) % 12_000).unwrap();
        if let Ok(listener) = TcpListener::bind((ip, port)) {
            return listener;
        }
    }
    panic!("no port of {ip} is free");
}

impl LinkState {
    fn fail(&mut self, fault: Fault) {
        self.fault = Some(fault);
        self.planned = None;
        if fault == Fault::Closed {
            for connection in &self.connections {
                // Fails if the other side has closed it.
                let _ = connection.client.shutdown(Shutdown::Both);
                let _ = connection.host.shutdown(Shutdown::Both);
            }
        }
        self.reap();
    }

    /// Removes connections whose sshd has ended.
    fn reap(&mut self) {
        self.connections
            .retain_mut(|connection| !matches!(connection.sshd.try_wait(), Ok(Some(_))));
    }

    /// Signals the sshd processes but not their other descendants.
    fn signal(&self, name: &str) {
        let is_sshd = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.starts_with("sshd"))
        };
        let sshd_pids = |connection: &Connection| {
            let first = connection.sshd.id();
            process_tree(first)
                .into_iter()
                // The first process is not renamed before exec.
                .filter(move |pid| *pid == first || is_sshd(pid))
        };
        let sshd: Vec<String> = self
            .connections
            .iter()
            .flat_map(sshd_pids)
            .map(|pid| pid.to_string())
            .collect();
        if !sshd.is_empty() {
            // Some may have ended meanwhile.
            let script = format!("kill -{name} \"$@\" 2>/dev/null || :");
            let words: Vec<&str> = sshd.iter().map(String::as_str).collect();
            run("sh", &[&["-c", &script, "kill"], &words[..]].concat());
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        // Poisoned by a test that has failed.
        self.state.lock().unwrap_or_else(|lock| lock.into_inner())
    }

    fn accept(self: &Arc<Self>, listener: TcpListener, address: SocketAddrV4) {
        let mut listener = Some(listener);
        loop {
            let state = self.lock();
            if state.is_dropped {
                return;
            }
            let closed = state.fault == Some(Fault::Closed);
            drop(state);
            if closed {
                listener = None;
            } else if listener.is_none() {
                listener = TcpListener::bind(address).ok();
            }
            let accepted = listener.as_ref().map(|listener| {
                listener.set_nonblocking(true).unwrap();
                listener.accept()
            });
            match accepted {
                Some(Ok((client, _))) => self.serve(client),
                Some(Err(error)) if error.kind() != ErrorKind::WouldBlock => panic!("{error}"),
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn serve(self: &Arc<Self>, client: TcpStream) {
        client.set_nonblocking(false).unwrap();
        client.set_nodelay(true).unwrap();
        let (host, inside) = UnixStream::pair().unwrap();
        let (input, output): (OwnedFd, OwnedFd) =
            (inside.try_clone().unwrap().into(), inside.into());
        let sshd = (self.sshd)()
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let streams = (client.try_clone().unwrap(), host.try_clone().unwrap());
        let ends = (client.try_clone().unwrap(), host.try_clone().unwrap());
        let mut state = self.lock();
        state.reap();
        state.accepted += 1;
        state.connections.push(Connection { client, host, sshd });
        if state.is_dropped || state.fault == Some(Fault::Closed) {
            // Accepted while the fault started.
            state.fail(Fault::Closed);
        }
        if state.paused {
            state.signal("STOP");
        }
        drop(state);
        let (to_host, from_host) = (self.clone(), self.clone());
        std::thread::spawn(move || {
            to_host.pump(Direction::ToHost, streams.0, &streams.1);
            let _ = streams.1.shutdown(Shutdown::Write);
        });
        std::thread::spawn(move || {
            from_host.pump(Direction::FromHost, ends.1, &ends.0);
            let _ = ends.0.shutdown(Shutdown::Write);
        });
    }

    fn pump(&self, direction: Direction, mut from: impl Read, mut to: impl Write) {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            // The end of the stream is delayed as bytes are.
            let length = from.read(&mut buffer).unwrap_or(0);
            let Some(rate) = self.pass(direction, length) else {
                return;
            };
            if length == 0 || to.write_all(&buffer[..length]).is_err() {
                return;
            }
            if let Some(rate) = rate {
                std::thread::sleep(Duration::from_secs_f64(length as f64 / rate as f64));
            }
        }
    }

    /// Waits until bytes may pass; returns the limit in bytes per second, or `None` if the connection is closed.
    fn pass(&self, direction: Direction, length: usize) -> Option<Option<u64>> {
        let length = length as u64;
        let mut state = self.lock();
        if let Some((fault, planned, remaining)) = &mut state.planned
            && *planned == direction
        {
            *remaining = remaining.saturating_sub(length);
            if *remaining == 0 {
                let fault = *fault;
                state.fail(fault);
                self.changed.notify_all();
            }
        }
        while state.fault == Some(Fault::Frozen) && !state.is_dropped {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(|lock| lock.into_inner());
        }
        if state.is_dropped || state.fault.is_some() {
            return None;
        }
        state.passed[direction as usize] += length;
        Some(state.bytes_per_second)
    }
}
