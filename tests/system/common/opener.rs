//! Processes of others that have an image open.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use super::process::wait_until;

/// A process that has a file open until it is dropped.
pub(crate) struct Opener {
    child: Child,
    /// The name of the process in messages.
    pub name: &'static str,
}

impl Opener {
    fn spawn(name: &'static str, command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, name }
    }

    /// Opens a qcow2 image and its backing files with qemu-io, and waits until it has; with `options` such as `-r`.
    pub(crate) fn qemu_io(options: &[&str], image: &str) -> Self {
        let mut command = Command::new("qemu-io");
        let mut opener = Self::spawn("qemu-io", command.args(options).arg(image));
        let mut prompt = [0; 8];
        opener
            .child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut prompt)
            .unwrap();
        assert_eq!(&prompt, b"qemu-io>");
        opener
    }

    /// Exports a qcow2 image for writing with qemu-nbd, and waits until it has opened it.
    pub(crate) fn qemu_nbd(image: &str, socket: &str) -> Self {
        let mut command = Command::new("qemu-nbd");
        let args = ["--persistent", "-f", "qcow2", "-k", socket, image];
        let opener = Self::spawn("qemu-nbd", command.args(args));
        wait_until("qemu-nbd serves", || std::path::Path::new(socket).exists());
        opener
    }

    /// Opens a file with a program that knows no locks: by `<`, `>>` or `<>` of a shell.
    pub(crate) fn shell(redirection: &str, file: &str) -> Self {
        let script = format!("exec 3{redirection}\"$1\"; echo open; exec sleep 1000 >/dev/null");
        let mut command = Command::new("sh");
        let mut opener = Self::spawn("sleep", command.args(["-c", &script, "sh", file]));
        let mut line = [0; 4];
        opener
            .child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .unwrap();
        let pid = opener.child.id();
        wait_until("sleep runs", || {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        });
        opener
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
