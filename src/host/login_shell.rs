//! The login shell of the user on a host, through which sshd runs every command: whether it is silent, and how a command is
//! passed through it unchanged.

use std::process::Stdio;
use std::time::Duration;

use tokio::time::timeout;

use super::address::SshAddress;
use super::command::read_bounded;
use super::quote::{quote_for_any_shell, quote_words};
use super::ssh::Master;
use snapdeck_model::{Error, Kind, Result};

/// For a first command, which shows how the login shell reads it and whether it prints something of its own.
const TIMEOUT: Duration = Duration::from_secs(6);
/// A word that shells other than POSIX ones do not read as it is quoted for those.
const WORD: &str = "snapdeck $0 'a'\n!b\\\\c";
/// Bytes that are read of the output, and shown of what the shell adds to it.
const MAX_OUTPUT_BYTES: usize = 4096;
const MAX_SHOWN_BYTES: usize = 80;
/// As long as the longest script is when it is encoded.
const LONG_WORD_BYTES: usize = 48 << 10;
/// Exit status of ssh itself (ssh(1)).
const SSH_FAILED_STATUS: i32 = 255;
const SILENCE_HINT: &str = "make the shell's startup files silent without a terminal (~/.bashrc: `[ -t 1 ] || return`; \
                            ~/.cshrc: `if (! $?prompt) exit`)";

/// The language of a login shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginShell {
    /// sh, bash, dash, ksh, zsh, and fish, which reads the quoted words of a command in the same way.
    Posix,
    /// csh, tcsh: it only starts `sh`.
    Other,
}

impl LoginShell {
    /// Returns what the login shell gets to run `line` of POSIX shell.
    pub(crate) fn command_line(self, line: &str) -> String {
        match self {
            Self::Posix => line.to_owned(),
            Self::Other => quote_for_any_shell(line),
        }
    }
}

/// Runs a command in the login shell.
///
/// # Errors
/// `Unreachable` if it prints something before the command's output, which would be taken for a part of it; if it runs no
/// commands; and, retryable, if it does not start in time.
pub(crate) async fn detect(
    master: &Master,
    address: &SshAddress,
    summary: String,
) -> Result<LoginShell> {
    let failed = Error::new(Kind::Unreachable, summary);
    let mut refusal = String::new();
    for shell in [LoginShell::Posix, LoginShell::Other] {
        let Ok(output) = timeout(TIMEOUT, run(master, shell)).await else {
            return Err(failed
                .with_cause(format!(
                    "its login shell did not start within {} s",
                    TIMEOUT.as_secs()
                ))
                .hint("check the login shell's startup files on the host")
                .retryable());
        };
        let output = match output {
            Ok(output) => output,
            Err(error) => return Err(failed.with_cause(error)),
        };
        match output.read() {
            Answer::Echoed => return Ok(shell),
            Answer::Printed(text) => {
                let cause =
                    format!("its login shell prints {text:?} before the output of each command");
                return Err(failed.with_cause(cause).hint(SILENCE_HINT));
            }
            Answer::Refused(text) => refusal = text,
        }
    }
    let user = address.user.as_deref().unwrap_or("USER");
    let hint = format!("give the user a shell on the host: `chsh -s /bin/sh {user}`");
    let cause = format!("its login shell runs no commands: {refusal}");
    Err(failed.with_cause(cause).hint(hint))
}

struct Output {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

enum Answer {
    /// The word, and nothing else.
    Echoed,
    /// Something before or instead of it.
    Printed(String),
    /// The shell has not run the command, with its message.
    Refused(String),
}

async fn run(master: &Master, shell: LoginShell) -> std::io::Result<Output> {
    let mut line = format!("exec {}", quote_words(["printf", "%s", WORD]));
    if shell == LoginShell::Other {
        // csh (not tcsh) refuses a long word, which scripts are.
        line = format!(": {}; {line}", "x".repeat(LONG_WORD_BYTES));
    }
    let mut command = master.command_in(shell, &line);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let (stdout, stderr) = tokio::join!(
        read_bounded(child.stdout.take(), MAX_OUTPUT_BYTES),
        read_bounded(child.stderr.take(), MAX_OUTPUT_BYTES)
    );
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Output {
        status: child.wait().await?.code(),
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

impl Output {
    fn read(&self) -> Answer {
        let (status, stdout) = (self.status.unwrap_or_default(), &*self.stdout);
        match stdout.strip_suffix(WORD) {
            Some("") => return Answer::Echoed,
            Some(text) => return Answer::Printed(shorten(text)),
            // The next command reports it.
            None if status == SSH_FAILED_STATUS => return Answer::Echoed,
            None if status == 0 && !stdout.is_empty() => return Answer::Printed(shorten(stdout)),
            None => {}
        }
        let lines = self.stderr.lines().chain(stdout.lines());
        let line = lines.map(str::trim).find(|line| !line.is_empty());
        Answer::Refused(match line {
            Some(line) => format!("{:?}", shorten(line)),
            None => format!("exit status {status}"),
        })
    }
}

fn shorten(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_SHOWN_BYTES);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: i32, stdout: &str, stderr: &str) -> String {
        let output = Output {
            status: Some(status),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        };
        match output.read() {
            Answer::Echoed => "echoed".to_owned(),
            Answer::Printed(text) => format!("printed {text:?}"),
            Answer::Refused(text) => format!("refused {text}"),
        }
    }

    #[test]
    fn the_output_shows_what_the_shell_does() {
        let long = "x".repeat(200);
        assert_eq!(read(0, WORD, "a warning"), "echoed");
        assert_eq!(read(0, &format!("hi\n{WORD}"), ""), r#"printed "hi\n""#);
        assert_eq!(read(0, &long, ""), format!("printed {:?}", "x".repeat(80)));
        assert_eq!(
            read(1, "", "\nUnmatched ''.\n"),
            r#"refused "Unmatched ''.""#
        );
        assert_eq!(
            read(1, "not available.\n", ""),
            r#"refused "not available.""#
        );
        assert_eq!(read(1, "", ""), "refused exit status 1");
        assert_eq!(read(255, "", ""), "echoed");
    }
}
