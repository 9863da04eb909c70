//! The files of snapdeck itself, which other users of its machine must not write.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::common::{State, World, run, wait_for_exit};

fn find(dir: &Path) -> Vec<PathBuf> {
    let found = run("find", &[dir.to_str().unwrap()]);
    found.lines().map(PathBuf::from).collect()
}

#[test]
fn state_is_private_whatever_the_umask() {
    let (world, id) = World::with_sandbox(State::Off);
    let command = world.command(&[]);
    let program = command.get_program().to_owned();
    let script =
        "umask 000; \"$0\" push \"$1\" app && \"$0\" pull app && exec \"$0\" create \"$1\" other";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", script]).arg(program).arg(&id).env_clear();
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    let child = shell
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    wait_for_exit(child.unwrap()).ok();
    let state = world.dir.join("home/.local");
    let all = find(&state);
    assert!(all.len() > 2, "{all:?}");
    for path in all {
        let mode = std::fs::symlink_metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{} {mode:o}", path.display());
    }
    let snapshot = std::fs::metadata(world.snapshot_path("app")).unwrap();
    assert_eq!(snapshot.permissions().mode() & 0o7777, 0o644);
}
