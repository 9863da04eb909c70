//! Wrong input and failures around the program: each is a clear error with its exit code, and no files remain.

use std::process::{Command, Stdio};

use crate::common::{State, World, is_remote, is_root, lab, run, wait_for_exit};
use crate::operations::assert_no_temporary_files;

fn with_sandbox() -> (World, String) {
    World::with_sandbox(State::Off)
}

#[test]
fn an_unreachable_bucket_is_an_error() {
    let (world, id) = with_sandbox();
    // No server listens on a port that was just free.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let endpoint = format!("http://127.0.0.1:{port}");
    world.reconfigure(&lab("SNAPDECK_LAB_S3"), &endpoint);
    for args in [
        &["objects"][..],
        &["push", &id, "app"],
        &["pull", "app"],
        &["remove", "app", "--bucket"],
    ] {
        let ran = world.snapdeck(args);
        ran.failed(5, &[&endpoint, "cannot connect to", "AWS_ENDPOINT_URL"]);
    }
    // Snapshots on the host are still listed.
    world.snapdeck(&["exists", "base"]).ok();
    assert_no_temporary_files(&world);
}

#[test]
fn a_wrong_secret_is_an_error_that_does_not_show_it() {
    let (world, id) = with_sandbox();
    world.reconfigure(&lab("SNAPDECK_LAB_S3_SECRET"), "of-another-user");
    for args in [&["objects"][..], &["push", &id, "app"], &["pull", "app"]] {
        let ran = world.snapdeck(args);
        assert!(!ran.stderr.contains("of-another-user"), "{ran:?}");
        ran.failed(5, &["denied access", "AWS_SECRET_ACCESS_KEY"]);
    }
    assert_no_temporary_files(&world);
}

#[test]
fn a_missing_bucket_is_an_error() {
    let (world, id) = with_sandbox();
    let bucket = format!("{}-none", world.tag);
    let name = |bucket: &str| format!("name = \"{bucket}\"\nprefix");
    world.reconfigure(&name(&lab("SNAPDECK_LAB_BUCKET")), &name(&bucket));
    for args in [&["objects"][..], &["push", &id, "app"], &["pull", "app"]] {
        world.snapdeck(args).failed(3, &[&bucket, "does not exist"]);
    }
    assert_no_temporary_files(&world);
}

#[test]
fn without_a_bucket_only_bucket_commands_fail() {
    let (world, id) = with_sandbox();
    let name = format!("name = \"{}\"\nprefix", lab("SNAPDECK_LAB_BUCKET"));
    world.reconfigure(&name, "prefix");
    world.snapdeck(&["push", &id, "app"]).failed(2, &["bucket"]);
    world.snapdeck(&["snapshots"]).ok();
    assert_no_temporary_files(&world);
}

#[test]
fn a_missing_libvirt_socket_is_an_error() {
    let (world, id) = with_sandbox();
    let socket = world.path("no-socket");
    world.set_socket(&socket);
    world.configure("");
    for args in [
        &["sandboxes"][..],
        &["snapshots"],
        &["push", &id, "app"],
        &["remove", "base", "--local"],
    ] {
        let ran = world.snapdeck(args);
        ran.failed(
            5,
            &[
                "cannot reach libvirt of host alpha",
                &socket,
                "check that libvirtd is running",
            ],
        );
    }
    world.snapdeck(&["objects"]).ok();
    assert_no_temporary_files(&world);
}

#[test]
fn a_missing_qemu_img_is_an_error() {
    let (world, id) = with_sandbox();
    let image = world.snapshot_path("base");
    world.put(&image, "app");
    let running = world.sandbox("b", "base", State::Running);
    world.force_convert();
    world.hide_programs(&["qemu-img"]);
    for args in [&["create", &running, "new"][..], &["pull", "app"]] {
        let ran = world.snapdeck(args);
        ran.failed(
            1,
            &["cannot run qemu-img", "not installed", "install qemu-utils"],
        );
    }
    assert_eq!(world.state(&running), "running");
    assert!(!world.is_in_bucket("new"));
    // The downloaded file is kept.
    let files = [".app.qcow2.pull", "base.qcow2"];
    assert_eq!(world.names("snapshots"), files);
    assert!(world.names("temp").is_empty());
    // A stopped sandbox is pushed without qemu-img.
    world.snapdeck(&["push", &id, "new"]).ok();
}

#[test]
fn a_missing_virsh_is_an_error() {
    let (world, _) = with_sandbox();
    let running = world.sandbox("b", "base", State::Running);
    world.hide_programs(&["virsh"]);
    let ran = world.snapdeck(&["create", &running, "new"]);
    ran.failed(1, &["virsh is not installed", "install libvirt-clients"]);
    assert_eq!(world.state(&running), "running");
    assert_no_temporary_files(&world);
}

#[test]
fn an_unreadable_snapshots_directory_is_an_error() {
    let world = World::new();
    world.snapshot("base", 0);
    let dir = world.path("snapshots");
    let mut command = world.command(&["snapshots"]);
    if is_remote() {
        world.enforce_permissions();
        run("chmod", &["000", &dir]);
    } else if is_root() {
        // The binary is in a directory that other users cannot enter.
        let copy = world.path("snapdeck");
        std::fs::copy(env!("CARGO_BIN_EXE_snapdeck"), &copy).unwrap();
        run("chmod", &["700", &dir]);
        command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args([&copy, "snapshots"])
            .env("SNAPDECK_CONFIG", world.config());
    } else {
        run("chmod", &["000", &dir]);
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_exit(child).failed(5, &["host alpha", &dir, "Permission denied"]);
    run("chmod", &["755", &dir]);
}

#[test]
fn a_missing_snapshots_directory_is_a_warning_and_fails_a_pull() {
    let world = World::new();
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 0);
    world.put(&image, "app");
    let dir = world.path("snapshots");
    std::fs::remove_dir(&dir).unwrap();
    let ran = world.snapdeck(&["snapshots"]).ok();
    assert!(
        ran.stderr
            .contains(&format!("directory {dir} does not exist")),
        "{ran:?}"
    );
    world
        .snapdeck(&["pull", "app"])
        .failed(1, &[&dir, "No such file or directory", "snapshots_dir"]);
}

#[test]
fn a_missing_temp_directory_is_an_error() {
    let (world, id) = World::with_sandbox(State::Running);
    world.force_convert();
    let dir = world.path("temp");
    std::fs::remove_dir(&dir).unwrap();
    world
        .snapdeck(&["create", &id, "app"])
        .failed(1, &[&dir, "No such file or directory", "temp_dir"]);
    assert!(!world.is_in_bucket("app"));
}

#[test]
fn an_unknown_owner_is_an_error() {
    let world = World::new();
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 0);
    world.put(&image, "app");
    let owner = format!("owner = \"{}:", run("id", &["-u"]).trim());
    world.reconfigure(&owner, "owner = \"no-such-user:");
    world
        .snapdeck(&["pull", "app"])
        .failed(1, &["no-such-user", "owner"]);
    assert!(world.names("snapshots").is_empty());
}

#[test]
fn invalid_names_are_refused() {
    let (world, id) = with_sandbox();
    for name in [
        "../x",
        "a;b",
        "a/b/c",
        "a/.b",
        ".hidden",
        "-n",
        "a b",
        "$(id)",
        "",
        &"x".repeat(129),
    ] {
        for args in [
            &["push", &id, "--", name][..],
            &["pull", "--", name],
            &["remove", "--local", "--", name],
            &["push", "--", name, "app"],
            &["create", "--", name, "app"],
        ] {
            let ran = world.snapdeck(args);
            ran.failed(2, &["is not a valid", "letters, digits"]);
        }
    }
    assert_no_temporary_files(&world);
}

#[test]
fn an_unknown_sandbox_is_not_found() {
    let world = World::new();
    for verb in ["push", "create"] {
        let ran = world.snapdeck(&[verb, "unknown", "app", "--json"]);
        assert_eq!(ran.error_kind(), "notFound");
        ran.failed(
            3,
            &[
                "sandbox unknown not found on host alpha",
                "snapdeck sandboxes",
            ],
        );
    }
    assert_no_temporary_files(&world);
}

#[test]
fn a_sandbox_with_a_damaged_disk_is_an_error() {
    let (world, id) = with_sandbox();
    std::fs::write(world.disk("a"), "not an image").unwrap();
    world
        .snapdeck(&["push", &id, "app"])
        .failed(1, &[&world.disk("a"), "qcow2"]);
    assert!(!world.is_in_bucket("app"));
    assert_no_temporary_files(&world);
}

#[test]
fn a_sandbox_without_its_base_is_an_error() {
    let (world, id) = with_sandbox();
    std::fs::remove_file(world.snapshot_path("base")).unwrap();
    world
        .snapdeck(&["push", &id, "app"])
        .failed(1, &[&world.disk("a"), "base.qcow2"]);
    let sandboxes = world.snapdeck(&["sandboxes", "--json"]).ok().json();
    assert_eq!(sandboxes[0]["id"], id, "the sandbox is not listed");
    assert_no_temporary_files(&world);
}

#[test]
fn a_temp_disk_that_is_too_small_is_an_error() {
    let (world, id) = with_sandbox();
    let running = world.sandbox("b", "base", State::Running);
    let Some(_disk) = world.small_disk("temp", "1m") else {
        return;
    };
    world.force_convert();
    let ran = world.snapdeck(&["create", &running, "app", "--json"]);
    assert_eq!(ran.error_kind(), "noSpace");
    // Less the file of the watchdog.
    ran.failed(1, &["it may take", "has 10", "KiB free", "temp_dir"]);
    assert_eq!(world.state(&running), "running");
    assert!(!world.is_in_bucket("app"));
    // A stopped sandbox is pushed without temporary space.
    world.snapdeck(&["push", &id, "app"]).ok();
    assert_no_temporary_files(&world);
}

#[test]
fn a_snapshots_disk_that_is_too_small_is_an_error() {
    let world = World::new();
    let image = world.path("scratch/app.qcow2");
    world.image(&image, 3);
    world.put(&image, "app");
    let Some(_disk) = world.small_disk("snapshots", "1m") else {
        return;
    };
    let ran = world.snapdeck(&["pull", "app", "--json"]);
    assert_eq!(ran.error_kind(), "noSpace");
    ran.failed(
        1,
        &["cannot pull app to host ", "it needs ", " free\nhint: "],
    );
    assert!(world.names("snapshots").is_empty());
}

#[test]
fn info_without_the_bucket_shows_the_host_with_a_warning() {
    let world = World::new();
    world.snapshot("app", 0);
    world.reconfigure(&lab("SNAPDECK_LAB_S3"), "http://127.0.0.1:1");
    let ran = world.snapdeck(&["info", "app", "--json"]).ok();
    assert!(ran.json()["snapshot"].is_object());
    assert!(ran.stderr.contains("warning"), "{ran:?}");
}
