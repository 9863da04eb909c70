//! The first run: a console and `snapdeck init` without a settings file, on a real host and bucket.

use std::path::PathBuf;
use std::process::Command;

use crate::common::screen::Screen;
use crate::common::{World, lab};
use snapdeck_model::settings::Settings;
use snapdeck_settings::Flags;

/// Runs snapdeck with an empty home directory and the keys of the bucket in the environment.
fn unconfigured(world: &World, args: &[&str]) -> Command {
    let mut command = world.command(args);
    command
        .env_remove("SNAPDECK_CONFIG")
        .env("HOME", world.dir.join("new-home"))
        .env("AWS_ACCESS_KEY_ID", lab("SNAPDECK_LAB_S3_KEY"))
        .env("AWS_SECRET_ACCESS_KEY", lab("SNAPDECK_LAB_S3_SECRET"));
    std::fs::create_dir_all(world.dir.join("new-home")).unwrap();
    command
}

fn new_file(world: &World) -> PathBuf {
    world.dir.join("new-home/.config/snapdeck/config.toml")
}

/// The answers to the fields in their order.
fn answers(settings: &Settings) -> Vec<String> {
    let (host, bucket) = (&settings.hosts[0], &settings.bucket);
    let text = |value: &Option<String>| value.clone().unwrap();
    vec![
        host.uri.clone(),
        host.snapshots_dir.clone(),
        host.sandboxes_dir.clone(),
        host.owner.clone(),
        text(&bucket.name),
        bucket.prefix.clone(),
        text(&bucket.endpoint),
        text(&bucket.region),
        String::new(),
    ]
}

/// Asserts that the written file has the host and the bucket of `world`, and no secret.
fn assert_written(world: &World) {
    let text = std::fs::read_to_string(new_file(world)).unwrap();
    assert!(!text.contains(&lab("SNAPDECK_LAB_S3_SECRET")), "{text}");
    let flags = Flags {
        config: Some(new_file(world)),
        ..Flags::default()
    };
    let written = snapdeck_settings::load(&flags, &|_| None, None).unwrap();
    assert_eq!(answers(&written.settings), answers(&world.settings()));
}

#[test]
fn the_first_console_asks_for_the_settings_and_starts_with_them() {
    let world = World::new();
    world.snapshot("base", 1);
    let mut screen = Screen::open(&unconfigured(&world, &[]));
    screen.wait(&["There is no settings file yet", "Hosts"]);
    let answers = answers(&world.settings());
    let (last, others) = answers.split_last().unwrap();
    for answer in others {
        screen.press(answer);
        screen.press("\r");
    }
    screen.press(last);
    screen.wait(&["bucket  ", "write the file"]);
    screen.wait_for("host and bucket are checked", |text| {
        !text.contains("checking")
    });
    assert!(!new_file(&world).exists());
    screen.press("\r");
    screen.wait(&["wrote ", "config.toml", "enter restart"]);
    assert_written(&world);
    screen.press("\r");
    screen.wait(&["Snapshots 1", "base"]);
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
    screen.wait_until_restored();
}

#[test]
fn a_setup_that_is_left_writes_nothing_and_does_not_come_back() {
    let world = World::new();
    for is_first in [true, false] {
        let mut screen = Screen::open(&unconfigured(&world, &[]));
        if is_first {
            screen.wait(&["There is no settings file yet"]);
            screen.press("\u{1b}");
        }
        screen.wait_for("the lists are shown", |text| {
            text.contains("Press : and run setup") && !text.contains("There is no settings file")
        });
        screen.press("q");
        assert_eq!(screen.wait_for_exit(), 0);
    }
    assert!(!new_file(&world).exists());
}

#[test]
fn init_asks_on_a_terminal_and_writes_after_the_checks() {
    let world = World::new();
    let mut screen = Screen::open(&unconfigured(&world, &["init"]));
    for (number, answer) in answers(&world.settings()).iter().enumerate() {
        let labels = [
            "Hosts",
            "Snapshots directory",
            "Sandboxes directory",
            "Owner of",
        ];
        let more = [
            "Bucket",
            "Key prefix",
            "Endpoint URL",
            "Region",
            "AWS profile",
        ];
        let label = labels.iter().chain(&more).nth(number).unwrap();
        screen.wait_for(label, |text| {
            let last = text.trim_end().lines().last().unwrap_or_default();
            last.contains(label) && last.trim_end().ends_with(':')
        });
        screen.press(answer);
        screen.press("\r");
    }
    screen.wait(&["yes, change the answers, or no"]);
    assert!(!new_file(&world).exists());
    screen.press("\r");
    screen.wait(&["wrote "]);
    assert_eq!(screen.wait_for_exit(), 0);
    assert_written(&world);
}

#[test]
fn init_with_flags_asks_nothing() {
    let world = World::new();
    let settings = world.settings();
    let (host, bucket) = (&settings.hosts[0], &settings.bucket);
    let args = [
        "init",
        "--yes",
        "--json",
        "--uri",
        &host.uri,
        "--snapshots-dir",
        &host.snapshots_dir,
        "--sandboxes-dir",
        &host.sandboxes_dir,
        "--owner",
        &host.owner,
        "--bucket-name",
        bucket.name.as_deref().unwrap(),
        "--prefix",
        &bucket.prefix,
        "--endpoint",
        bucket.endpoint.as_deref().unwrap(),
        "--region",
        bucket.region.as_deref().unwrap(),
    ];
    let output = unconfigured(&world, &args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["configFile"], new_file(&world).to_str().unwrap());
    assert_eq!(json["healthChecks"].as_array().unwrap().len(), 2);
    assert_written(&world);
}
