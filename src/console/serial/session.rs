//! The process that is attached to a serial console, on a pseudo-terminal of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

use super::SerialTerminal;
use snapdeck_process::tool_command;

/// Pieces of input that wait for a slow guest.
const INPUT_QUEUE: usize = 256;
const READ_BYTES: usize = 16 << 10;
/// Pause after each full buffer, so that a guest that sends without end takes a part of one core.
const FLOOD_PAUSE: Duration = Duration::from_millis(5);

/// An open serial console. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct SerialSession {
    _child: Child,
    input: SyncSender<Vec<u8>>,
}

impl SerialSession {
    /// Starts `argv` and shows its output in `terminal`; `changed` is notified of each change.
    ///
    /// # Errors
    /// If there is no pseudo-terminal, or the program cannot be started.
    pub(crate) fn start(
        argv: &[String],
        terminal: SerialTerminal,
        changed: Arc<Notify>,
    ) -> io::Result<Self> {
        let (program, args) = argv
            .split_first()
            .ok_or_else(|| io::Error::other("the command is empty"))?;
        let (master, slave) = open_pty()?;
        let mut command = Command::from(tool_command(program));
        command
            .args(args)
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?))
            .stderr(Stdio::from(slave))
            // A group of its own: it must not read from, or be stopped by, the console's terminal.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn()?;
        // The master reports the end of the output once no process has the other end open.
        drop(command);
        let (input, queue) = sync_channel::<Vec<u8>>(INPUT_QUEUE);
        let mut writer = master.try_clone()?;
        thread::Builder::new()
            .name("serial-input".into())
            .spawn(move || {
                while let Ok(bytes) = queue.recv() {
                    if writer.write_all(&bytes).is_err() {
                        return;
                    }
                }
            })?;
        thread::Builder::new()
            .name("serial-output".into())
            .spawn(move || read_output(master, &terminal, &changed))?;
        Ok(Self {
            _child: child,
            input,
        })
    }

    /// Sends input to the guest; returns false if too much is waiting already.
    pub(crate) fn send(&self, bytes: Vec<u8>) -> bool {
        match self.input.try_send(bytes) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => true,
            Err(TrySendError::Full(_)) => false,
        }
    }
}

/// Notifies of the end, also if the emulator panics.
struct NotifyOnDrop<'a>(&'a Notify);

impl Drop for NotifyOnDrop<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn read_output(mut master: File, terminal: &SerialTerminal, changed: &Notify) {
    let _notify = NotifyOnDrop(changed);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = match master.read(&mut buffer) {
            // EIO: the process has ended.
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let Some(mut state) = terminal.lock() else {
            return;
        };
        state.emulator.process(&buffer[..count]);
        drop(state);
        changed.notify_one();
        if count == READ_BYTES {
            thread::sleep(FLOOD_PAUSE);
        }
    }
    terminal.set_end("the connection was closed");
}

/// Opens both ends of a pseudo-terminal; no other process inherits them.
fn open_pty() -> io::Result<(File, File)> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = ptsname_r(&master)?;
    let slave = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(path)?;
    let master: std::os::fd::OwnedFd = master.into();
    Ok((File::from(master), slave))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn argv(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    async fn wait_for(terminal: &SerialTerminal, changed: &Notify, is_done: impl Fn(&str) -> bool) {
        let wait = async {
            loop {
                let text = terminal.lock().unwrap().emulator.screen().contents();
                if is_done(&text) {
                    return;
                }
                changed.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn input_and_output_pass_through_the_terminal() {
        let (terminal, changed) = (SerialTerminal::new(80, 24), Arc::new(Notify::new()));
        let script = "test -t 0 && stty raw -echo && printf 'login: ' && head -c 4 | tr a-z A-Z";
        let session =
            SerialSession::start(&argv(script), terminal.clone(), changed.clone()).unwrap();
        wait_for(&terminal, &changed, |text| text.contains("login: ")).await;
        assert!(session.send(b"root".to_vec()));
        wait_for(&terminal, &changed, |text| text.contains("login: ROOT")).await;
        while terminal.end().is_none() {
            changed.notified().await;
        }
    }

    #[tokio::test]
    async fn dropping_a_session_ends_its_process() {
        let (terminal, changed) = (SerialTerminal::new(80, 24), Arc::new(Notify::new()));
        let script = "echo ready; exec sleep 1000";
        let session =
            SerialSession::start(&argv(script), terminal.clone(), changed.clone()).unwrap();
        wait_for(&terminal, &changed, |text| text.contains("ready")).await;
        drop(session);
        let end = async {
            while terminal.end().is_none() {
                changed.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), end)
            .await
            .unwrap();
    }
}
