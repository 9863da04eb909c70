//! The signals that the event loop handles.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) struct Signals {
    sigterm: Signal,
    sighup: Signal,
    sigint: Signal,
    sigquit: Signal,
    pub sigcont: Signal,
    sigwinch: Signal,
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
        })
    }

    /// Returns the next signal. In raw mode the keys ctrl-c and ctrl-\ send none.
    pub(crate) async fn next_signal(&mut self) -> SignalEvent {
        tokio::select! {
            _ = self.sigterm.recv() => SignalEvent::Terminate,
            _ = self.sighup.recv() => SignalEvent::Terminate,
            _ = self.sigint.recv() => SignalEvent::Terminate,
            _ = self.sigquit.recv() => SignalEvent::Terminate,
            _ = self.sigcont.recv() => SignalEvent::Continue,
            _ = self.sigwinch.recv() => SignalEvent::Resize,
        }
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
