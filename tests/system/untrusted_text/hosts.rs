//! Messages of programs, login shells and sshd of a host.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::json;

use super::{EVIL, SHOWN, assert_own_sequences, checked, open, quit, snapdeck};
use crate::api::server::Api;
use crate::common::{State, World};

/// A script that prints the text, and then a megabyte of it.
fn print_evil() -> String {
    format!("printf '%s\\n' '{EVIL}' >&2; yes '{EVIL}' | head -c 1000000 >&2")
}

#[test]
fn the_errors_of_a_program() {
    let world = World::new();
    world.snapshot("base", 1);
    let id = world.sandbox("vm", "base", State::Off);
    let image = world.path("scratch/image.qcow2");
    world.image(&image, 1);
    world.put(&image, "app");
    // On both streams.
    world.fake(
        "qemu-img",
        &format!("printf '{{\"%s' '{EVIL}'; {}; exit 1", print_evil()),
    );
    for args in [
        &["verify", "base"][..],
        &["pull", "app"],
        &["sandbox", "new", &world.id("new"), "base"],
    ] {
        let ran = snapdeck(&world, args);
        assert_ne!(ran.code, Some(0), "{args:?}: {ran:?}");
        assert!(ran.stderr.len() < 20_000, "{} bytes", ran.stderr.len());
    }
    let failed = world.snapdeck(&["verify", "base"]);
    assert!(failed.stderr.contains(SHOWN), "{}", failed.stderr);
    snapdeck(&world, &["push", &id, "app2", "--compact"]);
    snapdeck(&world, &["doctor"]);

    let api = Api::start(&world);
    let failed = checked(
        &api,
        api.post("/snapshots/pull", &json!({"snapshot": "app"})),
    );
    assert!(failed.status >= 400, "{failed:?}");
    assert!(failed.body.len() < 20_000, "{} bytes", failed.body.len());
    checked(&api, api.get("/jobs"));

    let mut screen = open(&world, &world.command(&[]), true);
    screen.wait(&[&id, "app2", "↓"]);
    screen.press("\t\tf");
    screen.wait(&["pull to", "y pull"]);
    screen.press("y");
    screen.wait(&["✗ pull"]);
    quit(&world, screen);
}

#[test]
fn a_banner_and_the_login_shell() {
    let world = World::over_ssh(1);
    world.snapshot("base", 1);
    let home = world.path("home");
    std::fs::create_dir_all(&home).unwrap();
    let banner = world.path("home/banner");
    std::fs::write(&banner, format!("{EVIL}\n{}", EVIL.repeat(500))).unwrap();
    world.set_sshd(&format!("SetEnv HOME={home}\nBanner {banner}"));
    let bashrc = world.path("home/.bashrc");
    std::fs::write(&bashrc, print_evil()).unwrap();
    snapdeck(&world, &["exists", "base"]).ok();
    snapdeck(&world, &["sandboxes"]).ok();
    let mut screen = open(&world, &world.command(&["snapshots"]), false);
    screen.wait(&["base"]);
    assert_eq!(screen.wait_for_exit(), 0);
    assert_own_sequences(&screen);

    // The shell prints on both streams, and the log-in fails.
    std::fs::write(&bashrc, format!("printf '%s' '{EVIL}'; {}", print_evil())).unwrap();
    snapdeck(&world, &["exists", "base"]).failed(5, &["login shell prints", "PWNED"]);
    let screen = open(&world, &world.command(&[]), false);
    screen.wait(&["alpha ✗", "login shell prints"]);
    quit(&world, screen);

    std::fs::remove_file(&bashrc).unwrap();
    world.accept_passwords_only();
    snapdeck(&world, &["exists", "base"]).failed(5, &["Permission denied"]);
}

#[test]
fn a_holder_of_a_lock() {
    let world = World::new();
    world.snapshot("base", 1);
    let lock = world.path("snapshots/.base.qcow2.lock");
    std::fs::write(&lock, format!("{EVIL}\nfake  row\n")).unwrap();
    let mut holder = Command::new("flock")
        .args(["-x", &lock, "sh", "-c", "echo held; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(holder.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    let refused = snapdeck(&world, &["remove", "base", "--local"]);
    refused.failed(4, &["another snapdeck process", SHOWN]);
    drop(holder.stdin.take());
    holder.wait().unwrap();
}
