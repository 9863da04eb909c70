//! Programs that snapdeck starts get none of its secrets, and no open files.

use std::process::Command;

use crate::common::{State, World, exists, find_program, lab, output};

const SECRET: &str = "never-in-a-child";

/// Adds variables with secrets to a command.
fn with_secrets(command: &mut Command) -> &mut Command {
    // The keys of the bucket are in use, so that they are right.
    command.env("AWS_ACCESS_KEY_ID", lab("SNAPDECK_LAB_S3_KEY"));
    command.env("AWS_SECRET_ACCESS_KEY", lab("SNAPDECK_LAB_S3_SECRET"));
    for name in [
        "SNAPDECK_API_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "GITHUB_TOKEN",
        "MY_PASSWORD",
        "LC_SECRET",
        "SOMETHING_ELSE",
    ] {
        command.env(name, SECRET);
    }
    command.env("LANG", "C.UTF-8")
}

/// A script that records its environment and open files in `file`, then runs the real program.
fn recorder(program: &str, file: &str) -> String {
    let real = find_program(program);
    // ls has what bash has inherited: bash opens its own files for itself only.
    format!(
        "tr '\\0' '\\n' </proc/$$/environ >>{file}\nls -l /proc/self/fd >>{file} 2>&1\nexec {real} \"$@\""
    )
}

#[track_caller]
fn has_no_secrets(file: &str) {
    assert!(exists(file), "the program was not started");
    let recorded = std::fs::read_to_string(file).unwrap();
    assert!(
        recorded.contains("PATH=") && recorded.contains("LANG=C.UTF-8"),
        "{recorded}"
    );
    for secret in [SECRET, "AWS_", "SNAPDECK_", &lab("SNAPDECK_LAB_S3_SECRET")] {
        assert!(!recorded.contains(secret), "{secret}: {recorded}");
    }
    // What the test has inherited itself is not snapdeck's.
    let ls = output(Command::new("ls").args(["-l", "/proc/self/fd"]));
    let inherited = open_files(&String::from_utf8_lossy(&ls.stdout));
    for (number, target) in open_files(&recorded) {
        // The directory that ls reads.
        let is_own = ["0", "1", "2"].contains(&&*number) || target.starts_with("/proc/");
        // The image of a pull, which qemu-img checks.
        let is_image = number == "8" && target.ends_with(".qcow2.pull/partial");
        let is_inherited = inherited.contains(&(number, target.clone()));
        assert!(is_own || is_image || is_inherited, "{target}: {recorded}");
    }
}

/// Returns number and target of the open files in a listing.
fn open_files(listing: &str) -> Vec<(String, String)> {
    let lines = listing.lines().filter_map(|line| line.split_once(" -> "));
    let number = |entry: &str| entry.rsplit(' ').next().unwrap().to_owned();
    lines
        .map(|(entry, target)| (number(entry), target.to_owned()))
        .collect()
}

#[test]
fn programs_on_this_machine_get_no_secrets() {
    let (world, id) = World::with_sandbox(State::Off);
    let programs = ["qemu-img", "qemu-nbd", "sh"];
    let record = |program: &str| world.path(&format!("scratch/{program}.record"));
    if world.is_over_ssh() {
        return;
    }
    for program in programs {
        world.fake(program, &recorder(program, &record(program)));
    }
    for args in [
        &["push", &*id, "app"][..],
        &["verify", "base"],
        &["pull", "app"],
    ] {
        let ran = output(with_secrets(&mut world.command(args)));
        assert!(ran.status.success(), "{ran:?}");
    }
    has_no_secrets(&record("qemu-img"));
    if exists(&record("sh")) {
        has_no_secrets(&record("sh"));
    }
}

#[test]
fn ssh_gets_no_secrets_that_it_could_send_to_a_host() {
    let world = World::over_ssh(1);
    world.snapshot("base", 1);
    let id = world.sandbox("a", "base", State::Running);
    let bin = world.dir.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let record = world.path("scratch/ssh.record");
    let script = world.path("scratch/ssh");
    std::fs::write(
        &script,
        format!("#!/bin/bash\n{}\n", recorder("ssh", &record)),
    )
    .unwrap();
    crate::common::run(
        "install",
        &["-m", "755", &script, bin.join("ssh").to_str().unwrap()],
    );
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    for args in [
        &["create", &*id, "app"][..],
        &["pull", "app"],
        &["sandboxes"],
    ] {
        let mut command = world.command(args);
        let ran = output(with_secrets(command.env("PATH", &path)));
        assert!(ran.status.success(), "{ran:?}");
    }
    has_no_secrets(&record);
}
