//! Programs that the console starts: a shell, a serial console, and commands of the operator, in the foreground or in the
//! background with the output in the log.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Command;

use super::commands::TaskResult;
use super::custom::CommandRun;
use super::dialog::SerialConsole;
use super::foreground::{ForegroundCommand, Pause};
use super::run::{Screen, env_var};
use super::serial::{SerialSession, SerialTerminal};
use snapdeck_engine::Engine;
use snapdeck_model::{Error, HostName, Kind, SandboxId, printable_within};
use snapdeck_process::desktop_command;

/// Output of a command that is logged, in bytes; the rest is read and dropped.
const MAX_OUTPUT_BYTES: u64 = 256 << 10;
/// Characters of a line that is logged.
const MAX_LINE_CHARS: usize = 500;

impl Screen {
    /// Starts the process that is attached to a serial console, and shows it.
    pub(crate) fn open_serial(
        &mut self,
        argv: &[String],
        host: HostName,
        sandbox: SandboxId,
    ) -> snapdeck_model::Result<()> {
        let (columns, rows) = self.app.serial_size();
        let terminal = SerialTerminal::new(columns, rows);
        let session = SerialSession::start(argv, terminal.clone(), self.serial_changed.clone());
        let session = session.map_err(|error| {
            let summary = format!("cannot open the serial console of {sandbox}");
            Error::new(Kind::Failed, summary).with_cause(error)
        })?;
        tracing::info!("attached to the serial console of {sandbox} on {host}");
        self.serial = Some(session);
        self.app.clear_notice();
        self.app.open(Box::new(SerialConsole {
            host,
            sandbox,
            terminal,
        }));
        Ok(())
    }

    /// Starts commands, one after the other, after the UUIDs were asked for that they need.
    pub(crate) fn start_commands(&mut self, runs: Vec<CommandRun>, engine: &Engine) {
        if runs.iter().all(|run| run.uuid_of.is_none()) {
            let runs: Vec<_> = runs.into_iter().map(|run| (run, String::new())).collect();
            return self.run_commands(&runs);
        }
        let engine = engine.clone();
        self.tasks
            .spawn(async move { TaskResult::Commands(Box::pin(add_uuids(&engine, runs)).await) });
    }

    pub(crate) fn run_commands(&mut self, runs: &[(CommandRun, String)]) {
        let mut in_background = Vec::new();
        for (run, uuid) in runs {
            let argv = run.words(uuid);
            if run.background {
                in_background.push((run.name, argv));
                continue;
            }
            self.foreground.push_back(ForegroundCommand {
                title: format!("snapdeck: {}", argv.join(" ")),
                argv,
                pause: if run.pause {
                    Pause::Always
                } else {
                    Pause::Never
                },
            });
        }
        let Some((name, _)) = in_background.first() else {
            return;
        };
        let name = *name;
        self.app.show_notice(format!("started {name}"), false);
        self.tasks.spawn(async move {
            TaskResult::CommandEnded(name, run_all_in_background(in_background).await)
        });
    }
}

/// Returns the commands with the UUIDs that they need.
async fn add_uuids(
    engine: &Engine,
    runs: Vec<CommandRun>,
) -> snapdeck_model::Result<Vec<(CommandRun, String)>> {
    let mut complete = Vec::new();
    for run in runs {
        let uuid = match &run.uuid_of {
            Some((host, sandbox)) => Box::pin(engine.domain_uuid(host, sandbox)).await?,
            None => String::new(),
        };
        complete.push((run, uuid));
    }
    Ok(complete)
}

/// Returns the command that opens a shell on a host: ssh, or the operator's shell for this machine.
pub(crate) fn shell_command(
    engine: &Engine,
    host: &HostName,
) -> snapdeck_model::Result<ForegroundCommand> {
    let local = || {
        let shell = env_var("SHELL").filter(|shell| !shell.is_empty());
        vec![shell.unwrap_or_else(|| "/bin/sh".to_owned())]
    };
    let argv = engine.login_argv(host)?.unwrap_or_else(local);
    Ok(ForegroundCommand {
        argv,
        title: format!("snapdeck: shell on {host}; exit returns to the console"),
        pause: Pause::SshFailed,
    })
}

/// Runs the commands, one after the other: a command for hundreds of rows must not start hundreds of programs. One that
/// fails does not keep the others from running; the error is a message.
async fn run_all_in_background(commands: Vec<(&str, Vec<String>)>) -> Result<(), String> {
    let (count, mut failed, mut first) = (commands.len(), 0, None);
    for (name, argv) in commands {
        tracing::info!("running {name}: {}", argv.join(" "));
        if let Err(error) = run_in_background(name, &argv).await {
            if count > 1 {
                tracing::error!("{name}: {}: {error}", argv.join(" "));
            }
            failed += 1;
            first.get_or_insert(error);
        }
    }
    match first {
        None => Ok(()),
        Some(error) if count == 1 => Err(error),
        Some(error) => Err(format!("{failed} of {count} failed, see the log: {error}")),
    }
}

/// Runs `argv` and logs its output; the error is a message.
async fn run_in_background(name: &str, argv: &[String]) -> Result<(), String> {
    let (program, args) = argv.split_first().ok_or("the command is empty")?;
    let mut child = Command::from(desktop_command(program))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own: ctrl-c in this terminal must not reach it.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    tokio::join!(log_output(name, stdout), log_output(name, stderr));
    match child.wait().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} failed: {status}")),
        Err(error) => Err(format!("cannot wait for {program}: {error}")),
    }
}

async fn log_output(name: &str, output: Option<impl AsyncRead + Unpin>) {
    let Some(mut output) = output else { return };
    let mut reader = BufReader::new((&mut output).take(MAX_OUTPUT_BYTES));
    let mut line = Vec::new();
    while let Ok(count) = reader.read_until(b'\n', &mut line).await {
        if count == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let text = printable_within(text.trim_end(), MAX_LINE_CHARS);
        tracing::info!("{name}: {text}");
        line.clear();
    }
    // The program must not wait for a reader.
    let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
}
