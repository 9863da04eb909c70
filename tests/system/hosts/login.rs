//! SSH logins that fail: an error with a hint within the timeout, and never a prompt on the terminal.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use snapdeck_host::Host;

use crate::common::{
    CommandOutput, Fault, State, World, exists, is_root, output, same_disk, wait_for_exit,
    wait_for_exit_within,
};

/// A login times out after 12 s; the rest is for a slow machine.
const DEADLINE: Duration = Duration::from_secs(40);

#[track_caller]
fn assert_unreachable(world: &World, words: &[&str]) {
    for args in [&["snapshots"][..], &["sandboxes"], &["push", "vm", "app"]] {
        let ran = wait_for_exit_within(world.start(args), DEADLINE);
        ran.failed(5, &[&["cannot reach host alpha over SSH"], words].concat());
    }
    assert!(!world.is_in_bucket("app"));
}

#[test]
fn an_unknown_host_name_is_an_error() {
    let world = World::over_ssh(1);
    let address = world.link().address.to_string();
    world.reconfigure(&address, "no-such-host.invalid");
    assert_unreachable(&world, &["Could not resolve", "uri"]);
}

#[test]
fn a_refused_client_key_is_an_error() {
    let world = World::over_ssh(1);
    world.replace_client_key();
    assert_unreachable(&world, &["Permission denied", "ssh-copy-id"]);
}

#[test]
fn a_host_that_accepts_passwords_only_is_an_error() {
    let world = World::over_ssh(1);
    world.accept_passwords_only();
    assert_unreachable(&world, &["Permission denied", "ssh-copy-id"]);
}

#[test]
fn an_unknown_host_key_is_an_error_and_not_added() {
    let world = World::over_ssh(1);
    world.clear_known_hosts();
    assert_unreachable(&world, &["host key is not known", "compare the key"]);
    // The key is not added.
    assert_eq!(std::fs::read_to_string(world.known_hosts()).unwrap(), "");
}

#[test]
fn a_changed_host_key_is_an_error() {
    let world = World::over_ssh(1);
    world.replace_host_key();
    assert_unreachable(&world, &["differs from the known one", "ssh-keygen -R"]);
}

#[test]
fn no_verify_skips_the_host_key_check() {
    let world = World::over_ssh(1);
    world.snapshot("base", 0);
    world.clear_known_hosts();
    world.reconfigure("/system?", "/system?no_verify=1&");
    world.snapdeck(&["exists", "base"]).ok();
}

#[test]
fn a_refused_connection_is_an_error() {
    let world = World::over_ssh(1);
    world.link().cut(Fault::Closed);
    assert_unreachable(&world, &["Connection refused", "check that the host is up"]);
}

#[test]
fn a_silent_host_is_an_error() {
    let world = World::over_ssh(1);
    world.link().cut(Fault::Frozen);
    assert_unreachable(&world, &["check that the host is up"]);
}

#[test]
fn an_sshd_without_forwarding_is_sufficient() {
    let world = World::over_ssh(1);
    world.set_sshd("AllowStreamLocalForwarding no\nAllowTcpForwarding no");
    world.snapshot("base", 4);
    let id = world.sandbox("vm", "base", State::Running);
    world.snapdeck(&["create", &id, "app"]).ok();
    assert!(same_disk(&world.get("app"), &world.disk("vm")));
    assert_eq!(world.state(&id), "running");
    world.snapdeck(&["pull", "app"]).ok();
    assert!(same_disk(&world.snapshot_path("app"), &world.disk("vm")));
    assert!(world.names("temp").is_empty());
}

#[test]
fn an_sshd_without_sftp_is_sufficient() {
    let world = World::over_ssh(1);
    world.set_sshd("Subsystem sftp /bin/false");
    world.snapshot("base", 4);
    let id = world.sandbox("vm", "base", State::Running);
    world.snapdeck(&["create", &id, "app"]).ok();
    assert!(same_disk(&world.get("app"), &world.disk("vm")));
    world.snapdeck(&["pull", "app"]).ok();
    assert!(same_disk(&world.snapshot_path("app"), &world.disk("vm")));
}

/// Writes a startup file that bash reads for commands of an SSH session, too.
fn write_bashrc(world: &World, text: &str) {
    std::fs::write(world.path("home/.bashrc"), text).unwrap();
}

#[test]
fn a_login_shell_that_prints_is_an_error_and_nothing_is_done() {
    let world = World::over_ssh(1);
    let base = world.snapshot("base", 1);
    world.set_home(&world.path("home"));
    for text in [
        "printf 'Welcome \\033[31m\\n'",
        "yes | head -c 1000000",
        "echo",
    ] {
        write_bashrc(&world, text);
        let ran = world.snapdeck(&["remove", "base", "--local"]);
        let ran = ran.failed(5, &["its login shell prints", ".bashrc"]);
        assert!(!ran.stderr.contains('\u{1b}'), "{}", ran.stderr);
        assert!(std::path::Path::new(&base).exists());
    }
    write_bashrc(&world, "echo only to stderr >&2");
    world.snapdeck(&["exists", "base"]).ok();
}

#[test]
fn variables_of_the_host_do_not_change_its_programs() {
    let world = World::over_ssh(1);
    world.snapshot("base", 1);
    let id = world.sandbox("vm", "base", State::Off);
    world.set_home(&world.path("home"));
    write_bashrc(
        &world,
        "export POSIXLY_CORRECT=1 BLOCK_SIZE=human-readable DF_BLOCK_SIZE=1G DU_BLOCK_SIZE=1G LC_ALL=C",
    );
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    assert!(same_disk(&world.snapshot_path("app"), &world.disk("vm")));
    world.snapdeck(&["doctor"]).ok();
}

#[test]
fn the_directory_for_temporary_files_may_have_any_name() {
    let world = World::over_ssh(1);
    world.snapshot("base", 1);
    for name in ["with a space", "with%h", &"long".repeat(20), "ümlaut"] {
        let dir = world.dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        let mut command = world.command(&["exists", "base"]);
        let ran = output(command.env("TMPDIR", dir));
        assert!(ran.status.success(), "{name}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_hosts_behind_one_server_are_all_reached() {
    let world = World::over_ssh(1);
    let server = world.start_sshd("MaxStartups 10:100:10");
    let (before, after) = (world.link().address, server.address);
    let mut settings = world.settings().hosts[0].clone();
    settings.uri = settings
        .uri
        .replace(&before.to_string(), &after.to_string());
    let hosts: Vec<Host> = (0..40)
        .map(|_| Host::new(settings.clone()).unwrap())
        .collect();
    let asked = hosts.iter().map(|host| host.fs().has_file("/missing"));
    for answer in join_all(asked).await {
        assert!(answer.is_ok(), "{answer:?}");
    }
    for host in &hosts {
        host.disconnect().await;
    }
}

/// Runs snapdeck where the machine's ssh has these settings.
fn with_ssh_config(world: &World, text: &str, args: &[&str]) -> CommandOutput {
    let config = world.path("ssh_config");
    std::fs::write(&config, text).unwrap();
    let snapdeck = world.command(args);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec"])
        .arg("mount --bind \"$1\" /etc/ssh/ssh_config; shift; exec \"$@\"")
        .args(["sh", &config])
        .arg(snapdeck.get_program())
        .args(snapdeck.get_args())
        .env_clear()
        .envs(
            snapdeck
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    wait_for_exit(command.spawn().unwrap())
}

#[test]
fn the_users_settings_of_an_interactive_ssh_are_not_for_snapdeck() {
    if !is_root() {
        eprintln!("skipped without root: it replaces ssh_config");
        return;
    }
    let world = World::over_ssh(1);
    world.snapshot("base", 4);
    let id = world.sandbox("vm", "base", State::Running);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mark = world.path("mark");
    let text = format!(
        "Host *\n  RemoteCommand touch {mark}\n  RequestTTY force\n  SessionType subsystem\n  StdinNull yes\n  \
         ForkAfterAuthentication yes\n  PermitLocalCommand yes\n  LocalCommand touch {mark}; echo local\n  \
         LocalForward {} 127.0.0.1:9\n  ExitOnForwardFailure yes\n  Tunnel point-to-point\n  ControlMaster auto\n  \
         ControlPath {}/%C\n  ControlPersist yes\n  LogLevel QUIET\n  VisualHostKey yes\n  ForwardAgent yes\n  \
         ServerAliveCountMax 100\n  ConnectionAttempts 10\n  SetEnv LC_ALL=de_DE.UTF-8\n",
        taken.local_addr().unwrap(),
        world.path("home"),
    );
    with_ssh_config(&world, &text, &["create", &id, "app"]).ok();
    assert!(same_disk(&world.get("app"), &world.disk("vm")));
    with_ssh_config(&world, &text, &["pull", "app"]).ok();
    assert!(same_disk(&world.snapshot_path("app"), &world.disk("vm")));
    assert!(!exists(&mark), "a command of the user has run");
    // The cause of a failure is still read from ssh's log.
    world.replace_client_key();
    with_ssh_config(&world, &text, &["snapshots"]).failed(5, &["Permission denied"]);
}

#[test]
fn a_login_shell_of_another_language_is_sufficient() {
    let world = World::over_ssh(1);
    world.snapshot("base", 4);
    let id = world.sandbox("vm", "base", State::Running);
    for (shell, name) in [("tcsh", "app-t"), ("fish", "app-f")] {
        if !exists(&format!("/usr/bin/{shell}")) {
            eprintln!("skipped with {shell}: not installed");
            continue;
        }
        world.set_login_shell(shell);
        world.snapdeck(&["create", &id, name]).ok();
        assert!(same_disk(&world.get(name), &world.disk("vm")), "{shell}");
        world.snapdeck(&["pull", name]).ok();
        assert!(same_disk(&world.snapshot_path(name), &world.disk("vm")));
        world.snapdeck(&["doctor"]).ok();
        world
            .snapdeck(&["remove", name, "--local", "--bucket"])
            .ok();
    }
}

#[test]
fn a_user_without_a_login_shell_is_an_error() {
    let world = World::over_ssh(1);
    for (shell, words) in [
        (
            "/usr/sbin/nologin",
            "This account is currently not available.",
        ),
        ("/bin/false", "exit status 1"),
    ] {
        world.set_login_shell(shell);
        let ran = world.snapdeck(&["snapshots"]);
        ran.failed(
            5,
            &["its login shell runs no commands", words, "chsh -s /bin/sh"],
        );
    }
}
