//! Programs in the PATH of a host: real, missing and fake ones.

use std::path::Path;

use super::files::exists;
use super::host::Host;
use super::process::{find_program, run, wait_until};
use super::ssh;

impl Host {
    /// Returns the PATH of snapdeck on this host.
    pub(super) fn programs(&self) -> String {
        format!("{}:{}", self.tool("fakes"), self.programs.borrow())
    }

    /// Ends all SSH sessions of it with all their processes, as a reboot does, and changes its boot ID; `Link::heal` lets it answer
    /// again.
    pub(crate) fn reboot(&self) {
        self.link().kill_sshd();
        let fakes = format!("{}:", self.tool("fakes"));
        let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
        let of_host = namespace(&self.holder());
        let is_in_session = |pid: &String| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            namespace(pid) == of_host && String::from_utf8_lossy(&environment).contains(&fakes)
        };
        let processes = || {
            let names = std::fs::read_dir("/proc").unwrap().flatten();
            let names = names.filter_map(|entry| entry.file_name().into_string().ok());
            names.filter(is_in_session).collect::<Vec<_>>()
        };
        wait_until("its processes have ended", || {
            let pids = processes();
            let _ = std::process::Command::new("kill")
                .arg("-KILL")
                .args(&pids)
                .stderr(std::process::Stdio::null())
                .status();
            pids.is_empty()
        });
        let cat = find_program("cat");
        self.fake(
            "cat",
            &format!("case \"$*\" in */boot_id) echo another; exit ;; esac\nexec {cat} \"$@\""),
        );
    }

    /// Returns the number of its processes that send a request to the store; all hosts are on this machine.
    pub(crate) fn curl_count(&self) -> usize {
        let fakes = self.tool("fakes");
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let is_request = |entry: &std::fs::DirEntry| {
            let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let is_of_host = || String::from_utf8_lossy(&read("environ")).contains(&fakes);
            read("cmdline").starts_with(b"curl\0-q\0-sS\0-f\0") && is_of_host()
        };
        processes.filter(is_request).count()
    }

    /// Puts a script first in the PATH, for behaviour that the real program shows only by chance.
    pub(crate) fn fake(&self, program: &str, script: &str) {
        let dir = self.tool("fakes");
        std::fs::create_dir_all(&dir).unwrap();
        let text = self.tool("fake");
        std::fs::write(&text, format!("#!/bin/bash\n{script}\n")).unwrap();
        // Written by another process: a process forked by a concurrent test would inherit our open file, and a file
        // that is open for writing cannot be executed (ETXTBSY).
        run(
            "install",
            &["-m", "755", &text, &format!("{dir}/{program}")],
        );
    }

    /// Removes programs from the PATH.
    pub(crate) fn hide_programs(&self, missing: &[&str]) {
        let dir = self.tool("programs");
        std::fs::create_dir(&dir).unwrap();
        for path_dir in self.programs.borrow().split(':') {
            let Ok(entries) = std::fs::read_dir(path_dir) else {
                continue;
            };
            for entry in entries {
                let name = entry.unwrap().file_name();
                let link = Path::new(&dir).join(&name);
                if missing.iter().all(|missing| name != *missing) {
                    // Fails for a name from an earlier directory, which has precedence.
                    let _ = std::os::unix::fs::symlink(Path::new(path_dir).join(&name), link);
                }
            }
        }
        *self.programs.borrow_mut() = dir;
        if self.is_over_ssh() {
            ssh::write_authorized(self);
        }
    }

    /// Makes `qemu-img VERB` wait until [`Gate::open`].
    pub(crate) fn gate(&self, verb: &str) -> Gate {
        let gate = Gate {
            pid_file: self.tool("gate.pid"),
            release_file: self.tool("gate.go"),
        };
        let Gate {
            pid_file,
            release_file,
        } = &gate;
        let (dir, real) = (self.dir.display(), find_program("qemu-img"));
        self.fake(
            "qemu-img",
            &format!(
                "if [ \"$1\" = {verb} ]; then\n\
                 echo $$ >{pid_file}.new && mv {pid_file}.new {pid_file}\n\
                 until [ -e {release_file} ] || [ ! -d {dir} ]; do sleep 0.02; done\n\
                 fi\n\
                 exec {real} \"$@\""
            ),
        );
        gate
    }
}

/// A qemu-img that waits until the gate is opened.
pub(crate) struct Gate {
    pid_file: String,
    release_file: String,
}

impl Gate {
    /// Waits until qemu-img is called.
    #[track_caller]
    pub(crate) fn wait_reached(&self) {
        wait_until("qemu-img was called", || exists(&self.pid_file));
    }

    /// Makes this call and later ones continue.
    pub(crate) fn open(&self) {
        std::fs::write(&self.release_file, "").unwrap();
    }

    /// Makes the next call wait again.
    pub(crate) fn reset(self) {
        std::fs::remove_file(&self.pid_file).unwrap();
        let _ = std::fs::remove_file(&self.release_file);
    }

    /// Returns whether the qemu-img that waited has ended.
    pub(crate) fn has_ended(&self) -> bool {
        let pid = std::fs::read_to_string(&self.pid_file).unwrap();
        let command = std::fs::read(format!("/proc/{}/cmdline", pid.trim()));
        // A zombie has no arguments.
        command.map_or(true, |words| words.is_empty())
    }
}
