//! Starts VNC viewers.

use std::process::Stdio;

use snapdeck_process::desktop_command;

/// Viewers tried if the settings name none, with their arguments.
const KNOWN_VIEWERS: &[&str] = &[
    "remote-viewer {url}",
    "vncviewer {host}::{port}",
    "gvncviewer {host}:{display}",
];

/// Returns the command that shows `url` (`vnc://HOST:PORT`) in the `configured` viewer, else in the first installed one.
///
/// # Errors
/// If there is no display or no viewer.
pub(crate) fn command(
    configured: Option<&str>,
    url: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, String> {
    if variable("DISPLAY").is_none() && variable("WAYLAND_DISPLAY").is_none() {
        return Err("cannot start a viewer: DISPLAY and WAYLAND_DISPLAY are not set".to_owned());
    }
    let path = variable("PATH").unwrap_or_default();
    let is_installed = |line: &&str| {
        let program = line.split(' ').next().unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    };
    let line = match configured {
        Some(line) => line,
        None => KNOWN_VIEWERS.iter().copied().find(is_installed).ok_or(
            "no VNC viewer is installed: install virt-viewer or vncviewer, or set [console] viewer",
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

/// Starts a viewer in the background; `on_exit` is called when it has ended.
///
/// # Errors
/// If the program cannot be started.
pub(crate) fn start(
    argv: &[String],
    on_exit: impl FnOnce() + Send + 'static,
) -> Result<(), String> {
    let (program, args) = argv.split_first().ok_or("the viewer's command is empty")?;
    let child = tokio::process::Command::from(desktop_command(program))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A group of its own: ctrl-c in this terminal must not reach it.
        .process_group(0)
        .spawn();
    let mut child = child.map_err(|error| format!("cannot start {program}: {error}"))?;
    tokio::spawn(async move {
        let _ = child.wait().await;
        on_exit();
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_configured_or_first_installed_viewer_is_used() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vncviewer"), "").unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        let with = |names: &'static [&str]| {
            let path = path.clone();
            move |name: &str| names.contains(&name).then(|| path.clone())
        };
        let url = "vnc://127.0.0.1:5901";
        let installed = command(None, url, with(&["PATH", "DISPLAY"])).unwrap();
        assert_eq!(installed, ["vncviewer", "127.0.0.1::5901"]);
        let configured = command(
            Some("my-viewer --at {url} {display}"),
            url,
            with(&["DISPLAY"]),
        );
        assert_eq!(configured.unwrap(), ["my-viewer", "--at", url, "1"]);
        let none = command(None, url, with(&["DISPLAY"])).unwrap_err();
        assert!(none.contains("virt-viewer"), "{none}");
        let no_display = command(None, url, with(&["PATH"])).unwrap_err();
        assert!(no_display.contains("DISPLAY"), "{no_display}");
    }
}
