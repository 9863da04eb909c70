//! A process of QEMU's user that replaces files by links as soon as they appear.

use std::process::{Child, Command, Output, Stdio};

use crate::common::output;

pub(super) const QEMU_USER: &str = "libvirt-qemu:kvm";

pub(super) fn command(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    let user = [
        "--reuid",
        "libvirt-qemu",
        "--regid",
        "kvm",
        "--clear-groups",
        "--",
    ];
    command.args(user).arg(program);
    command
}

/// Runs a program as QEMU's user.
pub(super) fn as_qemu_user(program: &str, args: &[&str]) -> Output {
    output(command(program).args(args))
}

/// Replaces every entry of DIR whose name matches PATTERN: a file by a link to SECRET, a directory by one with links of the
/// names that are used in it. Where it may create files in the directory, it puts links there instead.
const SCRIPT: &str = r#"
import os, re, sys, time
directory, pattern, secret = sys.argv[1], re.compile(sys.argv[2]), sys.argv[3]
names = ['file', 'copy', 'scratch', 'overlay', 'paused', '.guard', 'done', 'nbd', '.snapdeck-owner', 'run', 'partial', 'partial.mark',
    '.snapdeck-owner.new']
end, count = time.time() + 100, 0
print('ready', flush=True)
while time.time() < end:
    for name in os.listdir(directory):
        path = f'{directory}/{name}'
        if not pattern.fullmatch(name) or os.path.islink(path): continue
        count += 1
        try:
            if not os.path.isdir(path):
                os.symlink(secret, f'{directory}/.zz{count}')
                os.rename(f'{directory}/.zz{count}', path)
                continue
            target = path
            if not os.access(path, os.W_OK):
                if os.path.exists(f'{directory}/.zm'): continue
                os.rename(path, f'{directory}/.zm')
                os.mkdir(path)
            for entry in names:
                try: os.symlink(secret, f'{path}/{entry}')
                except OSError: pass
        except OSError: pass
"#;

/// A running attack, which ends with this.
pub(super) struct Attacker(Child);

impl Attacker {
    pub(super) fn start(dir: &str, pattern: &str, secret: &str) -> Self {
        let mut attack = command("/usr/bin/python3");
        attack.args(["-S", "-c", SCRIPT, dir, pattern, secret]);
        let mut attack = attack.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 5];
        std::io::Read::read_exact(attack.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Self(attack)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
