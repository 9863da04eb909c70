//! What comes from the terminal, read by a thread of its own: a sequence that comes in parts, or not to its end, holds
//! up nobody but that thread, and the console is woken once for what came.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crossterm::event::{Event, poll, read};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc::{Receiver, channel};

use super::escapes;

/// Events that wait for the console; past these, the terminal waits.
const QUEUE_CAPACITY: usize = 1024;
/// For looking whether an event has come, behind an escape alone: crossterm, given no time, looks at nothing, and a busy
/// machine takes some.
const POLL_TIMEOUT: Duration = Duration::from_millis(5);
/// How long the thread's end is waited for.
const JOIN_TIMEOUT: Duration = Duration::from_millis(100);

/// Events of the terminal. Dropped, they are read no more: what is typed then is for whoever has the terminal next.
pub(crate) struct Events {
    /// `None` only while it is dropped.
    events: Option<Receiver<io::Result<Event>>>,
    /// Closed by the thread's end.
    reader_exit: mpsc::Receiver<()>,
}

impl Events {
    /// Those from now on.
    ///
    /// # Errors
    /// Where the system starts no thread.
    pub(crate) fn listen() -> io::Result<Self> {
        let (sender, events) = channel(QUEUE_CAPACITY);
        let (alive, reading) = mpsc::channel();
        thread::Builder::new()
            .name("terminal-events".into())
            .spawn(move || {
                let _alive: mpsc::Sender<()> = alive;
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
            reader_exit: reading,
        })
    }

    /// The next event; an error is the last.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Event>> {
        self.events.as_mut()?.recv().await
    }

    /// The next one, where there is one now.
    pub(crate) fn try_next(&mut self) -> Option<io::Result<Event>> {
        self.events.as_mut()?.try_recv().ok()
    }
}

/// The next event, where it has come already.
fn poll_event() -> Option<io::Result<Event>> {
    poll(POLL_TIMEOUT).unwrap_or(false).then(read)
}

impl Drop for Events {
    fn drop(&mut self) {
        self.events = None;
        // A new size is an event like any other, and nobody takes it: that ends the thread's wait for the terminal.
        let _ = kill(Pid::this(), Signal::SIGWINCH);
        let _ = self.reader_exit.recv_timeout(JOIN_TIMEOUT);
    }
}
