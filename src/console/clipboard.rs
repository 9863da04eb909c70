//! Copies texts: into the paste buffer of tmux if the console runs in it, else to the terminal.

use std::process::Stdio;
use std::time::Duration;

use snapdeck_model::escape_unprintable_lines;
use snapdeck_process::tool_command;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// Limit of the wait for tmux, a local program.
const TMUX_TIMEOUT: Duration = Duration::from_secs(2);

/// Puts `text` into the paste buffer of the tmux at `server`, the value of `TMUX`, which sends it on to its terminal (`-w`,
/// since tmux 3.2). By default tmux accepts no text for the clipboard from the programs in it (`set-clipboard`).
///
/// Returns whether it was copied. The text may be pasted into a shell: unprintable characters are escaped, except newlines.
pub(crate) async fn copy_to_tmux(text: &str, server: Option<&str>) -> bool {
    let Some(server) = server.filter(|server| !server.is_empty()) else {
        return false;
    };
    let text = escape_unprintable_lines(text);
    let copied = timeout(TMUX_TIMEOUT, load_buffer(text.as_bytes(), server)).await;
    match copied {
        Ok(Ok(true)) => true,
        Ok(Ok(false)) | Err(_) => false,
        Ok(Err(error)) => {
            tracing::debug!("cannot run tmux: {error}");
            false
        }
    }
}

async fn load_buffer(text: &[u8], server: &str) -> std::io::Result<bool> {
    let mut child = Command::from(tool_command("tmux"))
        .env("TMUX", server)
        .args(["load-buffer", "-w", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text).await?;
    }
    child.wait().await.map(|status| status.success())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn tmux(socket: &std::path::Path, args: &[&str]) -> Option<String> {
        let mut command = std::process::Command::new("tmux");
        let output = command.arg("-S").arg(socket).args(args).output().ok()?;
        Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    #[tokio::test]
    async fn a_text_is_in_the_paste_buffer_of_tmux() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("tmux");
        let session = ["-f", "/dev/null", "new-session", "-d", "sleep 60"];
        tmux(&socket, &session).expect("tmux is needed: tests/lab/packages.sh test");
        let server = format!("{},0,0", socket.display());
        let copied = copy_to_tmux("base\nvnc://127.0.0.1:5901\u{1b}", Some(&server)).await;
        let shown = tmux(&socket, &["show-buffer"]);
        tmux(&socket, &["kill-server"]);
        assert!(copied);
        assert_eq!(shown.as_deref(), Some("base\nvnc://127.0.0.1:5901\\u{1b}"));
    }

    #[tokio::test]
    async fn without_tmux_nothing_is_copied() {
        assert!(!copy_to_tmux("a", None).await);
        let dir = tempfile::tempdir().unwrap();
        let server = format!("{},0,0", dir.path().join("none").display());
        assert!(!copy_to_tmux("a", Some(&server)).await);
    }
}
