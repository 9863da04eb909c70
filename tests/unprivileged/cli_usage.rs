//! The command line of the program: usage errors, `config`, and the text of --help.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs snapdeck with an empty environment and its own home directory.
fn snapdeck(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_snapdeck"))
        .args(args)
        .env_clear()
        .env("HOME", home.path())
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A settings file with two hosts.
fn two_hosts() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(
        &file,
        "[[hosts]]\nname = \"alpha\"\nuri = \"qemu:///system\"\n[[hosts]]\nname = \"beta\"\nuri = \"qemu:///system\"\n",
    )
    .unwrap();
    let path = file.to_str().unwrap().to_owned();
    (dir, path)
}

/// The program starts without libvirt installed.
#[test]
fn libvirt_is_not_loaded_at_start() {
    // With this variable the loader lists the libraries and does not run the program, as for ldd(1).
    let output = snapdeck(&[], &[("LD_TRACE_LOADED_OBJECTS", "1")]);
    let libraries = stdout(&output);
    assert!(libraries.contains("libc.so"), "{libraries}");
    assert!(!libraries.contains("libvirt"), "{libraries}");
}

#[test]
fn without_libvirt_the_error_names_the_package() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("libvirt.so.0"), "not a library").unwrap();
    let path = dir.path().to_str().unwrap();
    let output = snapdeck(&["sandboxes"], &[("LD_LIBRARY_PATH", path)]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    let message = stderr(&output);
    assert!(
        message.contains("cannot load libvirt's client library"),
        "{message}"
    );
    assert!(message.contains("libvirt0 on Debian"), "{message}");
}

#[test]
fn bad_usage_is_a_sentence_with_a_hint_and_exit_code_2() {
    for (args, words) in [
        (
            &["pull", "../x"][..],
            "\"../x\" is not a valid snapshot name; use 1 to 128",
        ),
        (&["push", "a;b", "x"], "\"a;b\" is not a valid sandbox id"),
        (&["create", "vm"], "<NAME>"),
        (&["remove", "x"], "<--local|--bucket>"),
        (&["--nope"], "--nope"),
        (&["pushh", "a", "b"], "'push'"),
        (
            &["pull", "x", "--host", "nope"],
            "host nope is not configured\nhint: use a configured host: local",
        ),
        (
            &["objects", "--host", "nope"],
            "host nope is not configured",
        ),
        (
            &["--config", "/nonexistent/c.toml", "objects"],
            "/nonexistent/c.toml",
        ),
        (&["config", "--endpoint", "minio"], "flag --endpoint"),
        (&[], "the console needs a terminal"),
        (&["demo"], "the console needs a terminal"),
    ] {
        let output = snapdeck(args, &[]);
        let sentence = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {sentence}");
        assert!(sentence.starts_with("snapdeck: "), "{args:?}: {sentence}");
        let hints: Vec<&str> = sentence.lines().skip(1).collect();
        assert!(hints.len() <= 1, "{args:?}: {sentence}");
        assert!(
            hints.iter().all(|hint| hint.starts_with("hint: ")),
            "{args:?}: {sentence}"
        );
        assert!(sentence.contains(words), "{args:?}: {sentence}");
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

/// Runs snapdeck with an empty environment and this home directory.
fn snapdeck_at(home: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_snapdeck"))
        .args(args)
        .env_clear()
        .env("HOME", home)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn init_prints_a_file_without_writing_it() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".ssh")).unwrap();
    std::fs::write(home.path().join(".ssh/config"), "Host rack1 *\n").unwrap();
    let output = snapdeck_at(
        home.path(),
        &[
            "init",
            "--print",
            "--host",
            "rack1",
            "--bucket-name",
            "images",
            "--profile",
            "a\"b",
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let file = home.path().join("printed.toml");
    std::fs::write(&file, &output.stdout).unwrap();
    assert!(!home.path().join(".config").exists());
    let config = snapdeck_at(
        home.path(),
        &["config", "--json", "--config", file.to_str().unwrap()],
    );
    let json: Value = serde_json::from_slice(&config.stdout).unwrap();
    assert_eq!(json["hosts"][0]["uri"]["value"], "qemu+ssh://rack1/system");
    assert_eq!(json["bucket"]["name"]["value"], "images");
    assert_eq!(json["bucket"]["profile"]["value"], "a\"b");
    assert!(stdout(&output).contains("\n# Virtual CPUs of a new sandbox.\n# cpus = 2\n"));
}

#[test]
fn init_without_a_terminal_needs_yes_and_never_replaces_a_file() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".config/snapdeck/config.toml");
    let output = snapdeck_at(home.path(), &["init"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--yes"), "{}", stderr(&output));
    let dir = home.path().join("snapshots").display().to_string();
    let yes = |dir: &str| {
        let uri = "qemu:///system?socket=/nonexistent";
        snapdeck_at(
            home.path(),
            &[
                "init",
                "--yes",
                "--uri",
                uri,
                "--snapshots-dir",
                dir,
                "--sandboxes-dir",
                "/tmp",
            ],
        )
    };
    let output = yes("relative");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("absolute directory"),
        "{}",
        stderr(&output)
    );
    assert!(!path.exists());
    // A host that does not answer keeps no file from being written.
    let output = yes(&dir);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for part in [
        "✗ libvirt",
        "install -d -m 755",
        &format!("wrote {}", path.display()),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let before = std::fs::read(&path).unwrap();
    let output = yes(&dir);
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("it exists and is not replaced"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn errors_are_json_with_json() {
    for args in [
        &["pull", "../x", "--json"][..],
        &["--json", "exists", "x", "--host", "nope"],
        &["--json"],
    ] {
        let output = snapdeck(args, &[]);
        assert_eq!(output.status.code(), Some(2));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["error"]["kind"], "invalidInput", "{args:?}");
        assert!(!json["error"]["message"].as_str().unwrap().is_empty());
        assert!(stderr(&output).starts_with("snapdeck: "));
    }
}

#[test]
fn commands_need_a_host_if_there_are_several() {
    let (_dir, file) = two_hosts();
    for args in [
        &["pull", "x"][..],
        &["exists", "x"],
        &["info", "x"],
        &["push", "a", "x"],
        &["remove", "x", "--local"],
    ] {
        let output = snapdeck(&[args, &["--config", &file]].concat(), &[]);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            stderr(&output).contains("name one with --host: alpha, beta"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn config_prints_the_settings_without_secrets() {
    let (_dir, file) = two_hosts();
    let env = [
        ("SNAPDECK_CONFIG", file.as_str()),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG"),
        ("AWS_DEFAULT_BUCKET", "daytona"),
    ];
    let output = snapdeck(&["config", "--json", "--prefix", "/images"], &env);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["hosts"][1]["name"]["value"], "beta");
    assert_eq!(json["hosts"][1]["name"]["from"]["line"], 5);
    assert_eq!(
        json["bucket"]["name"]["from"]["variable"],
        "AWS_DEFAULT_BUCKET"
    );
    assert_eq!(json["bucket"]["prefix"]["value"], "images/");
    assert_eq!(json["bucket"]["secretAccessKey"]["value"], "********");
    let text = snapdeck(&["config"], &env);
    for shown in [stdout(&output), stdout(&text)] {
        assert!(
            !shown.contains("wJalr") && !shown.contains("AKIAI"),
            "{shown}"
        );
    }
    assert!(
        stdout(&text).contains("name = \"daytona\""),
        "{}",
        stdout(&text)
    );
}

/// The text output, with masked secrets, is itself a settings file.
#[test]
fn output_of_config_is_a_settings_file() {
    let (dir, file) = two_hosts();
    let first = stdout(&snapdeck(&["config", "--config", &file], &[]));
    let copy = dir.path().join("copy.toml");
    std::fs::write(&copy, &first).unwrap();
    let output = snapdeck(&["config", "--config", copy.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let values = |text: &str| -> Vec<String> {
        let value = |line: &str| line.split(" #").next().unwrap().trim().to_owned();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(value)
            .collect()
    };
    assert_eq!(values(&first), values(&stdout(&output)));
}

#[test]
fn a_closed_stdout_is_not_an_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_snapdeck"))
        .arg("config")
        .env_clear()
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn help_of_every_command() {
    let commands = [
        "",
        "sandboxes",
        "snapshots",
        "objects",
        "sandbox",
        "sandbox new",
        "sandbox stop",
        "sandbox destroy",
        "create",
        "push",
        "pull",
        "remove",
        "exists",
        "info",
        "serve",
        "config",
        "init",
        "demo",
    ];
    let mut all = String::new();
    for command in commands {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let output = snapdeck(&args, &[]);
        assert_eq!(output.status.code(), Some(0));
        all += &format!("===== snapdeck {}\n{}\n", args.join(" "), stdout(&output));
    }
    insta::assert_snapshot!("help", all);
}
