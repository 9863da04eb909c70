//! Reads the terminal's events in a thread, so that an incomplete escape sequence does not block the console.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crossterm::event::{Event, poll, read};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc::{Receiver, channel};

use super::escapes;

const QUEUE_CAPACITY: usize = 1024;
/// Wait for another event after an escape. With a timeout of 0 crossterm does not read, and a busy machine needs time.
const POLL_TIMEOUT: Duration = Duration::from_millis(5);
const JOIN_TIMEOUT: Duration = Duration::from_millis(100);
/// Waits for the thread before another program gets the terminal.
const STOP_ATTEMPTS: usize = 50;

/// The terminal's events. Reading ends on drop: later input belongs to the shell or another program.
pub(crate) struct Events {
    /// `None` only during the drop.
    events: Option<Receiver<io::Result<Event>>>,
    /// Closed when the thread ends.
    reader_exit: mpsc::Receiver<()>,
}

impl Events {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn listen() -> io::Result<Self> {
        let (sender, events) = channel(QUEUE_CAPACITY);
        let (exit_sender, reader_exit) = mpsc::channel();
        thread::Builder::new()
            .name("terminal-events".into())
            .spawn(move || {
                let _exit_sender: mpsc::Sender<()> = exit_sender;
                loop {
                    for event in escapes::merge_escape_sequence(read(), poll_event) {
                        let is_last = event.is_err();
                        if sender.blocking_send(event).is_err() || is_last {
                            return;
                        }
                    }
                }
            })?;
        Ok(Self {
            events: Some(events),
            reader_exit,
        })
    }

    /// Returns the next event; an error is the last one.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Event>> {
        self.events.as_mut()?.recv().await
    }

    /// Ends the thread so that another program can read the terminal; returns whether it has ended. If it read the
    /// terminal while another process group has it, SIGTTIN would stop the console.
    pub(crate) fn stop(mut self) -> bool {
        self.end(STOP_ATTEMPTS)
    }

    fn end(&mut self, attempts: usize) -> bool {
        self.events = None;
        (0..attempts).any(|_| {
            // SIGWINCH makes an event, whose failed send ends the thread.
            let _ = kill(Pid::this(), Signal::SIGWINCH);
            let exit = self.reader_exit.recv_timeout(JOIN_TIMEOUT);
            exit == Err(mpsc::RecvTimeoutError::Disconnected)
        })
    }

    /// Returns the next event if one is queued.
    pub(crate) fn try_next(&mut self) -> Option<io::Result<Event>> {
        self.events.as_mut()?.try_recv().ok()
    }
}

/// Reads the next event if one is available.
fn poll_event() -> Option<io::Result<Event>> {
    poll(POLL_TIMEOUT).unwrap_or(false).then(read)
}

impl Drop for Events {
    fn drop(&mut self) {
        self.end(1);
    }
}
