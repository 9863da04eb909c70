//! Runs commands of the operator: in the foreground, or in the background with the output in the log.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Command;

use super::commands::TaskResult;
use super::custom::CommandRun;
use super::foreground::{ForegroundCommand, Pause};
use super::run::Screen;
use snapdeck_engine::Engine;
use snapdeck_model::printable_within;
use snapdeck_process::desktop_command;

/// Output of a command that is logged, in bytes; the rest is read and dropped.
const MAX_OUTPUT_BYTES: u64 = 256 << 10;
/// Characters of a line that is logged.
const MAX_LINE_CHARS: usize = 500;

impl Screen {
    /// Starts a command, after its UUID was asked for if it needs one.
    pub(crate) fn start_command(&mut self, run: CommandRun, engine: &Engine) {
        let Some((host, sandbox)) = run.uuid_of.clone() else {
            return self.run_command(&run, "");
        };
        let engine = engine.clone();
        self.tasks.spawn(async move {
            let uuid = Box::pin(engine.domain_uuid(&host, &sandbox)).await;
            TaskResult::Command(uuid.map(|uuid| (run, uuid)))
        });
    }

    pub(crate) fn run_command(&mut self, run: &CommandRun, uuid: &str) {
        let argv = run.words(uuid);
        tracing::info!("running {}: {}", run.name, argv.join(" "));
        if !run.background {
            self.foreground = Some(ForegroundCommand {
                title: format!("snapdeck: {}", argv.join(" ")),
                argv,
                pause: if run.pause {
                    Pause::Always
                } else {
                    Pause::Never
                },
            });
            return;
        }
        self.app.show_notice(format!("started {}", run.name), false);
        let name = run.name;
        self.tasks.spawn(async move {
            TaskResult::CommandEnded(name, run_in_background(name, &argv).await)
        });
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
