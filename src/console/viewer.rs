//! From a sandbox's VNC address to a viewer: onto the clipboard, and into a program.

use std::process::Stdio;

use crossterm::Command as _;
use crossterm::clipboard::CopyToClipboard;

/// Viewers that are looked for where the settings name none, with their arguments.
const KNOWN_VIEWERS: &[&str] = &[
    "remote-viewer {url}",
    "vncviewer {host}::{port}",
    "gvncviewer {host}:{display}",
];

/// What makes a terminal put `text` on its clipboard (OSC 52). tmux swallows that unless it is told otherwise, and
/// hands on what is wrapped for it, unless it is told otherwise: there both are sent.
pub(crate) fn clipboard_sequence(text: &str, in_tmux: bool) -> String {
    let mut plain = String::new();
    // It writes to a string, which cannot fail.
    let _ = CopyToClipboard::to_clipboard_from(text).write_ansi(&mut plain);
    match in_tmux {
        true => format!("{plain}{}", wrap_for_tmux(&plain, true)),
        false => plain,
    }
}

/// `sequence` so that tmux hands it on to its own terminal.
pub(crate) fn wrap_for_tmux(sequence: &str, in_tmux: bool) -> String {
    match in_tmux {
        true => format!("\x1bPtmux;{}\x1b\\", sequence.replace('\x1b', "\x1b\x1b")),
        false => sequence.to_owned(),
    }
}

/// The command that shows `url` (`vnc://HOST:PORT`): `wish` from the settings, else the first viewer that is
/// installed.
///
/// # Errors
/// Why there is none.
pub(crate) fn command(
    wish: Option<&str>,
    url: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, String> {
    if variable("DISPLAY").is_none() && variable("WAYLAND_DISPLAY").is_none() {
        return Err("no display for a viewer".to_owned());
    }
    let path = variable("PATH").unwrap_or_default();
    let is_installed = |line: &&str| {
        let program = line.split(' ').next().unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    };
    let line = match wish {
        Some(line) => line,
        None => KNOWN_VIEWERS.iter().copied().find(is_installed).ok_or(
            "no viewer installed: install virt-viewer or a vncviewer, or set [console] viewer",
        )?,
    };
    let address = url.trim_start_matches("vnc://");
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "5900"));
    let display = port.parse::<u32>().unwrap_or(5900).saturating_sub(5900);
    let fill = |word: &str| {
        word.replace("{url}", url)
            .replace("{host}", host)
            .replace("{port}", port)
            .replace("{display}", &display.to_string())
    };
    Ok(line.split_whitespace().map(fill).collect())
}

/// Starts a viewer, which goes on by itself.
///
/// # Errors
/// Why it could not be started.
pub(crate) fn start(argv: &[String]) -> Result<(), String> {
    let (program, args) = argv.split_first().ok_or("the viewer's command is empty")?;
    let started = tokio::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A ctrl-c in our terminal is not meant for it.
        .process_group(0)
        .spawn();
    let mut child = started.map_err(|error| format!("cannot start {program}: {error}"))?;
    tokio::spawn(async move { child.wait().await });
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn copies_in_a_terminal_and_through_tmux() {
        // base64 of vnc://127.0.0.1:5901
        let plain = "\x1b]52;c;dm5jOi8vMTI3LjAuMC4xOjU5MDE=";
        let alone = clipboard_sequence("vnc://127.0.0.1:5901", false);
        assert!(alone.starts_with(plain), "{alone:?}");
        let wrapped = clipboard_sequence("vnc://127.0.0.1:5901", true);
        assert!(wrapped.starts_with(&alone), "{wrapped:?}");
        assert!(
            wrapped.contains(&format!("\x1bPtmux;\x1b{plain}")),
            "{wrapped:?}"
        );
        assert!(wrapped.ends_with("\x1b\\"), "{wrapped:?}");
    }

    #[test]
    fn finds_a_viewer_or_says_why_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vncviewer"), "").unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        let with = |names: &'static [&str]| {
            let path = path.clone();
            move |name: &str| names.contains(&name).then(|| path.clone())
        };
        let url = "vnc://127.0.0.1:5901";
        let found = command(None, url, with(&["PATH", "DISPLAY"])).unwrap();
        assert_eq!(found, ["vncviewer", "127.0.0.1::5901"]);
        let wished = command(
            Some("my-viewer --at {url} {display}"),
            url,
            with(&["DISPLAY"]),
        );
        assert_eq!(wished.unwrap(), ["my-viewer", "--at", url, "1"]);
        let none = command(None, url, with(&["DISPLAY"])).unwrap_err();
        assert!(none.contains("virt-viewer"), "{none}");
        let blind = command(None, url, with(&["PATH"])).unwrap_err();
        assert!(blind.contains("no display"), "{blind}");
    }
}
