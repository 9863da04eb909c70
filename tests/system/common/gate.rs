//! Programs that snapdeck finds on a host: real ones, missing ones, and fakes.

use std::path::Path;

use super::files::exists;
use super::host::Host;
use super::process::{found, run, until};
use super::ssh;

impl Host {
    /// Where snapdeck looks for programs.
    pub(super) fn programs(&self) -> String {
        format!("{}:{}", self.tool("fakes"), self.programs.borrow())
    }

    /// Puts a program of that name before all others that snapdeck finds. It is a fake: for what the real one
    /// cannot be made to do at a given moment.
    pub(crate) fn fake(&self, program: &str, script: &str) {
        let dir = self.tool("fakes");
        std::fs::create_dir_all(&dir).unwrap();
        let text = self.tool("fake");
        std::fs::write(&text, format!("#!/bin/bash\n{script}\n")).unwrap();
        // Written by another process: a fork of a test beside this one would hold our handle open, and a
        // program that is open for writing cannot be run.
        run(
            "install",
            &["-m", "755", &text, &format!("{dir}/{program}")],
        );
    }

    /// From here on snapdeck finds all programs but these.
    pub(crate) fn without_programs(&self, missing: &[&str]) {
        let dir = self.tool("programs");
        std::fs::create_dir(&dir).unwrap();
        for place in self.programs.borrow().split(':') {
            let Ok(entries) = std::fs::read_dir(place) else {
                continue;
            };
            for entry in entries {
                let name = entry.unwrap().file_name();
                let link = Path::new(&dir).join(&name);
                if missing.iter().all(|missing| name != *missing) {
                    // There from an earlier place: that one comes first.
                    let _ = std::os::unix::fs::symlink(Path::new(place).join(&name), link);
                }
            }
        }
        *self.programs.borrow_mut() = dir;
        if self.is_over_ssh() {
            ssh::write_authorized(self);
        }
    }

    /// Makes qemu-img stop before it begins with `verb`, until [`Gate::open`].
    pub(crate) fn gate(&self, verb: &str) -> Gate {
        let gate = Gate {
            pid: self.tool("gate.pid"),
            go: self.tool("gate.go"),
        };
        let Gate { pid, go } = &gate;
        let (dir, real) = (self.dir.display(), found("qemu-img"));
        self.fake(
            "qemu-img",
            &format!(
                "if [ \"$1\" = {verb} ]; then\n\
                 echo $$ >{pid}.new && mv {pid}.new {pid}\n\
                 until [ -e {go} ] || [ ! -d {dir} ]; do sleep 0.02; done\n\
                 fi\n\
                 exec {real} \"$@\""
            ),
        );
        gate
    }
}

/// A fake qemu-img that waits.
pub(crate) struct Gate {
    pid: String,
    go: String,
}

impl Gate {
    /// Waits until somebody stands before it.
    #[track_caller]
    pub(crate) fn reached(&self) {
        until("qemu-img was called", || exists(&self.pid));
    }

    /// Lets all through, now and later.
    pub(crate) fn open(&self) {
        std::fs::write(&self.go, "").unwrap();
    }

    /// Is the process that stood before it gone?
    pub(crate) fn is_left(&self) -> bool {
        let pid = std::fs::read_to_string(&self.pid).unwrap();
        let command = std::fs::read(format!("/proc/{}/cmdline", pid.trim()));
        // What only waits for its parent to take note of its end has no arguments any more.
        command.map_or(true, |words| words.is_empty())
    }
}
