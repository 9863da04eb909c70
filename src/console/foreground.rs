//! Runs a program in the foreground: it has the terminal until it ends. Jobs go on meanwhile.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, tcsetpgrp};
use tokio::process::Command;

use super::run::Screen;
use super::signals::Signals;
use super::terminal::Terminal;
use snapdeck_model::escape_unprintable;
use snapdeck_process::tool_command;

/// Exit status of ssh itself (ssh(1)).
const SSH_FAILED_STATUS: i32 = 255;

/// When the operator must press enter before the console covers the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    Always,
    Never,
    /// If ssh could not log in, so that its message can be read.
    SshFailed,
}

/// A program and what is printed before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForegroundCommand {
    pub argv: Vec<String>,
    pub title: String,
    pub pause: Pause,
}

/// The end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForegroundEnd {
    Exited,
    /// It failed, or could not be started.
    Failed,
    /// A signal ends this process.
    Terminated,
}

impl Screen {
    /// Runs the waiting commands, one after the other, until one fails.
    ///
    /// # Errors
    /// As [`Self::run_in_foreground`].
    pub(crate) async fn run_all_in_foreground(
        &mut self,
        terminal: &mut Terminal,
        signals: &mut Signals,
    ) -> io::Result<ForegroundEnd> {
        while let Some(command) = self.foreground.pop_front() {
            let end = self.run_in_foreground(&command, terminal, signals).await?;
            if end == ForegroundEnd::Exited {
                continue;
            }
            let skipped = std::mem::take(&mut self.foreground).len();
            if let (Some(notice), 1..) = (self.app.notice(), skipped) {
                let text = format!("{}; {skipped} more not run", notice.text);
                self.app.show_notice(text, true);
            }
            return Ok(end);
        }
        Ok(ForegroundEnd::Exited)
    }

    /// Releases the terminal, runs the command, and takes the terminal back. Events must not be read meanwhile.
    ///
    /// # Errors
    /// If the terminal cannot be used again.
    async fn run_in_foreground(
        &mut self,
        command: &ForegroundCommand,
        terminal: &mut Terminal,
        signals: &mut Signals,
    ) -> io::Result<ForegroundEnd> {
        tracing::info!("running {}", command.argv.join(" "));
        terminal.leave();
        let title = escape_unprintable(&command.title);
        // A closed terminal is reported by the next frame.
        let _ = writeln!(io::stdout(), "{title}");
        let modes = tcgetattr(io::stdout()).ok();
        let result = run(&command.argv, signals).await;
        take_terminal_back(modes.as_ref());
        let (message, end) = match result {
            Ok(Some(status)) => (failure(&command.argv, status), ForegroundEnd::Exited),
            Ok(None) => (None, ForegroundEnd::Terminated),
            Err(error) => {
                let program = command.argv.first().map_or("", String::as_str);
                let message = format!("cannot start {program}: {error}");
                (Some((-1, message)), ForegroundEnd::Exited)
            }
        };
        let is_paused = match (command.pause, &message) {
            _ if end == ForegroundEnd::Terminated => false,
            (Pause::Always, _) => true,
            (Pause::Never, _) => false,
            (Pause::SshFailed, Some((status, _))) => *status == SSH_FAILED_STATUS,
            (Pause::SshFailed, None) => false,
        };
        if is_paused {
            wait_for_enter(message.as_ref().map(|(_, text)| text.as_str())).await;
        }
        // After the wait, in which signals are not received.
        signals.end_foreground();
        terminal.reenter()?;
        if let Some((_, text)) = message {
            tracing::warn!("{text}");
            self.app.show_notice(text, true);
            return Ok(match end {
                ForegroundEnd::Exited => ForegroundEnd::Failed,
                end => end,
            });
        }
        Ok(end)
    }
}

/// Runs `argv` with this terminal; `None` if a signal ends this process meanwhile.
async fn run(argv: &[String], signals: &mut Signals) -> io::Result<Option<ExitStatus>> {
    let (program, args) = argv
        .split_first()
        .ok_or_else(|| io::Error::other("the command is empty"))?;
    let mut child = Command::from(tool_command(program)).args(args).spawn()?;
    tokio::select! {
        status = child.wait() => status.map(Some),
        () = signals.next_termination() => {
            if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                // It may have ended meanwhile.
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
            Ok(None)
        }
    }
}

/// Returns exit status and message of a program that failed. The status of a shell is that of its last command.
fn failure(argv: &[String], status: ExitStatus) -> Option<(i32, String)> {
    let program = argv.first().map_or("", String::as_str);
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some((code, format!("{program} exited with status {code}"))),
        (None, signal) => {
            let signal = signal.unwrap_or(0);
            Some((-1, format!("{program} was ended by signal {signal}")))
        }
    }
}

/// Makes this the foreground process group of the terminal again, with the modes that it had: a shell that was killed, or
/// replaced by another program, has not done so.
fn take_terminal_back(modes: Option<&Termios>) {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTTOU);
    // Not blocked, it would stop this process, which is in the background.
    if signals.thread_block().is_err() {
        return;
    }
    // Fails if stdout is no terminal; the next frame reports a closed one.
    let _ = tcsetpgrp(io::stdout(), getpgrp());
    if let Some(modes) = modes {
        let _ = tcsetattr(io::stdout(), SetArg::TCSADRAIN, modes);
    }
    let _ = signals.thread_unblock();
}

async fn wait_for_enter(message: Option<&str>) {
    let message = message.map_or(String::new(), |text| {
        format!("{}. ", escape_unprintable(text))
    });
    let mut stdout = io::stdout();
    let prompt = write!(stdout, "\n{message}Press enter to return to snapdeck.");
    // A closed terminal ends the wait.
    let _ = prompt.and_then(|()| stdout.flush());
    let _ = tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new())).await;
}
