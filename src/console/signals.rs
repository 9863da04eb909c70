//! The signals that the event loop handles.

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Time after a program in the foreground in which the signals of its keys may still arrive: one that has replaced its shell is in
/// the process group of this one, and may have ended by the same signal.
const LATE_SIGNALS: Duration = Duration::from_millis(500);

pub(crate) struct Signals {
    sigterm: Signal,
    sighup: Signal,
    sigint: Signal,
    sigquit: Signal,
    pub sigcont: Signal,
    sigwinch: Signal,
    /// The end of the last program in the foreground.
    foreground_ended_at: Option<Instant>,
}

pub(crate) enum SignalEvent {
    Terminate,
    Continue,
    Resize,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            sigterm: signal(SignalKind::terminate())?,
            sighup: signal(SignalKind::hangup())?,
            sigint: signal(SignalKind::interrupt())?,
            sigquit: signal(SignalKind::quit())?,
            sigcont: signal(SignalKind::from_raw(nix::libc::SIGCONT))?,
            sigwinch: signal(SignalKind::window_change())?,
            foreground_ended_at: None,
        })
    }

    /// Returns the next signal. In raw mode the keys ctrl-c and ctrl-\ send none.
    pub(crate) async fn next_signal(&mut self) -> SignalEvent {
        loop {
            let (event, is_key) = tokio::select! {
                _ = self.sigterm.recv() => (SignalEvent::Terminate, false),
                _ = self.sighup.recv() => (SignalEvent::Terminate, false),
                _ = self.sigint.recv() => (SignalEvent::Terminate, true),
                _ = self.sigquit.recv() => (SignalEvent::Terminate, true),
                _ = self.sigcont.recv() => (SignalEvent::Continue, false),
                _ = self.sigwinch.recv() => (SignalEvent::Resize, false),
            };
            let ended_at = self.foreground_ended_at;
            let is_late = ended_at.is_some_and(|ended_at| ended_at.elapsed() < LATE_SIGNALS);
            if !(is_key && is_late) {
                return event;
            }
        }
    }

    /// Records that a program in the foreground has ended.
    pub(crate) fn end_foreground(&mut self) {
        self.foreground_ended_at = Some(Instant::now());
    }

    /// Waits for a signal that ends this process while another program has the terminal: ctrl-c and ctrl-\ are for
    /// that program then.
    pub(crate) async fn next_termination(&mut self) {
        loop {
            tokio::select! {
                _ = self.sigterm.recv() => return,
                _ = self.sighup.recv() => return,
                _ = self.sigint.recv() => {}
                _ = self.sigquit.recv() => {}
            }
        }
    }
}
