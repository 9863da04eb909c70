//! `snapdeck doctor` on real hosts and a real bucket: it finds problems, suggests fixes, and removes its test files.
//! `make test` starts the lab.

use std::sync::atomic::Ordering::SeqCst;

use crate::common::screen::Screen;
use crate::common::{
    CommandOutput, Fault, State, World, only_local, run, sha256, signal, wait_for_exit, wait_until,
};
use serde_json::Value;

/// One check of a health report.
struct Check {
    verdict: String,
    finding: String,
    fix: String,
}

/// Returns the check named `name` of `host` (`None`: the bucket), the worst of several.
#[track_caller]
fn find_check(ran: &CommandOutput, host: Option<&str>, name: &str) -> Check {
    checks(ran, host)
        .into_iter()
        .filter(|check| check["name"] == name)
        .max_by_key(|check| match check["verdict"].as_str() {
            Some("failed") => 2,
            Some("warning") => 1,
            _ => 0,
        })
        .map(|check| {
            let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
            Check {
                verdict: text("verdict"),
                finding: text("finding"),
                fix: text("fix"),
            }
        })
        .unwrap_or_else(|| panic!("no check {name:?} of {host:?} in {}", ran.stdout))
}

fn checks(ran: &CommandOutput, host: Option<&str>) -> Vec<Value> {
    let json = ran.json();
    let reports = json["healthChecks"].as_array().unwrap();
    let report = reports
        .iter()
        .find(|report| report["host"].as_str() == host);
    report.unwrap()["checks"].as_array().unwrap().clone()
}

/// Asserts the verdict of a check, and that its finding and fix contain these words.
#[track_caller]
fn assert_check(
    ran: &CommandOutput,
    host: Option<&str>,
    name: &str,
    verdict: &str,
    finding: &str,
    fix: &str,
) {
    let check = find_check(ran, host, name);
    assert_eq!(check.verdict, verdict, "{name}: {}", check.finding);
    assert!(
        check.finding.contains(finding),
        "{name}: {finding:?} in {:?}",
        check.finding
    );
    assert!(
        check.fix.contains(fix),
        "{name}: {fix:?} in {:?}",
        check.fix
    );
}

const ALPHA: Option<&str> = Some("alpha");

fn doctor(world: &World) -> CommandOutput {
    world.snapdeck(&["doctor", "--json"])
}

/// Lists all files of the host and all objects in the bucket.
fn list_all(world: &World) -> String {
    let dir = world.dir.join(&world.name);
    let files = run("find", &[dir.to_str().unwrap()]);
    let listed = world.s5cmd(&["ls", "{}/*"]);
    format!("{files}{}", String::from_utf8_lossy(&listed.stdout))
}

/// Adds a snapshot, a sandbox and an object; returns the id of the sandbox.
fn populate(world: &World) -> String {
    let base = world.snapshot("base", 3);
    run("chmod", &["644", &base]);
    world.put(&base, "base");
    world.sandbox("vm", "base", State::Off)
}

#[test]
fn a_healthy_host_and_bucket_pass_unchanged() {
    let world = World::new();
    populate(&world);
    let (before, base) = (list_all(&world), sha256(&world.snapshot_path("base")));
    let ran = doctor(&world).ok();
    assert_ne!(ran.json()["verdict"], "failed");
    for what in [
        "libvirt",
        "QEMU",
        "acceleration",
        "UEFI firmware",
        "qemu-img",
        "virsh",
        "swtpm",
        "clock",
        "owner",
        "owner and mode",
        "reflinks",
        "snapshots directory",
        "sandboxes directory",
        "NVRAM directory",
        "temporary directory",
        "temporary space",
        "snapshots space",
        "snapshots",
        "sandboxes",
        "leftovers",
    ] {
        assert_ne!(find_check(&ran, ALPHA, what).verdict, "failed", "{what}");
    }
    assert_check(
        &ran,
        ALPHA,
        "snapshots",
        "passed",
        "1 found, all pass qemu-img check",
        "",
    );
    for what in [
        "store", "clock", "list", "objects", "write", "read", "delete",
    ] {
        assert_eq!(find_check(&ran, None, what).verdict, "passed", "{what}");
    }
    // Features that the lab's store has.
    for what in [
        "part copying",
        "pending uploads",
        "checksums",
        "conditional writes",
    ] {
        let check = find_check(&ran, None, what);
        assert_eq!(check.verdict, "passed", "{what}: {}", check.finding);
    }
    assert_eq!(list_all(&world), before);
    assert_eq!(sha256(&world.snapshot_path("base")), base);
}

#[test]
fn text_output_is_grouped_and_readable_without_colour() {
    let world = World::new();
    populate(&world);
    let ran = world.snapdeck(&["doctor", "--host", "alpha"]).ok();
    assert!(ran.stdout.starts_with("alpha  qemu"), "{}", ran.stdout);
    assert!(ran.stdout.contains("  ✓ qemu-img "), "{}", ran.stdout);
    assert!(!ran.stdout.contains("bucket"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with(" passed\n"), "{}", ran.stdout);
    world
        .snapdeck(&["doctor", "--host", "nope"])
        .failed(2, &["nope", "alpha"]);
}

#[test]
fn missing_programs_are_reported_with_their_package() {
    let world = World::new();
    world.hide_programs(&["qemu-img", "qemu-io", "qemu-nbd", "virsh"]);
    let ran = doctor(&world);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_check(
        &ran,
        ALPHA,
        "qemu-img",
        "failed",
        "not installed",
        "install qemu-utils",
    );
    assert_check(
        &ran,
        ALPHA,
        "qemu-io",
        "failed",
        "push is refused",
        "install qemu-utils",
    );
    assert_check(
        &ran,
        ALPHA,
        "virsh",
        "failed",
        "not installed",
        "install libvirt-clients",
    );
    if world.is_over_ssh() {
        assert_check(
            &ran,
            ALPHA,
            "qemu-nbd",
            "warning",
            "SFTP",
            "install qemu-utils",
        );
    }
}

#[test]
fn missing_and_full_directories_are_reported_with_a_fix() {
    let world = World::new();
    std::fs::remove_dir(world.path("nvram")).unwrap();
    let Some(disk) = world.small_disk("temp", "64k") else {
        return;
    };
    disk.fill();
    let ran = doctor(&world);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let (nvram, temp) = (world.path("nvram"), world.path("temp"));
    let install = format!("install -d -m 755 {nvram}");
    let missing = if crate::common::is_root() {
        &*install
    } else {
        "install -d"
    };
    assert_check(
        &ran,
        ALPHA,
        "NVRAM directory",
        "failed",
        "No such file",
        missing,
    );
    assert_check(
        &ran,
        ALPHA,
        "temporary directory",
        "failed",
        "No space left",
        &format!("df -h {temp}"),
    );
    assert_eq!(
        find_check(&ran, ALPHA, "snapshots directory").verdict,
        "passed"
    );
}

#[test]
fn too_little_space_for_a_flattened_image_is_a_warning() {
    let world = World::new();
    let id = populate(&world);
    let Some(_disk) = world.small_disk("temp", "1m") else {
        return;
    };
    let ran = doctor(&world).ok();
    assert_check(&ran, ALPHA, "temporary space", "warning", &id, "temp_dir");
    assert_eq!(find_check(&ran, ALPHA, "snapshots space").verdict, "passed");
}

#[test]
fn directories_without_permission_are_reported_with_a_command() {
    let world = World::over_ssh(1);
    world.enforce_permissions();
    let (snapshots, temp) = (world.path("snapshots"), world.path("temp"));
    run("chmod", &["000", &snapshots]);
    run("chmod", &["555", &temp]);
    let ran = doctor(&world);
    run("chmod", &["755", &snapshots, &temp]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for (what, dir) in [
        ("snapshots directory", &snapshots),
        ("temporary directory", &temp),
    ] {
        let setfacl = format!(":rwx {dir}");
        assert_check(&ran, ALPHA, what, "failed", "Permission denied", &setfacl);
    }
    // Checks of files that cannot be read are missing, not passed.
    assert!(
        checks(&ran, ALPHA)
            .iter()
            .all(|check| check["name"] != "snapshots"),
        "{}",
        ran.stdout
    );
}

#[test]
fn unreadable_and_invalid_snapshots_are_reported() {
    use std::os::unix::fs::FileExt;
    let world = World::new();
    populate(&world);
    let private = world.snapshot("private", 0);
    run("chmod", &["600", &private]);
    std::fs::write(world.snapshot_path("noise"), "not an image").unwrap();
    let overlay = world.snapshot_path("overlay");
    run(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            "qcow2",
            "-b",
            &world.snapshot_path("base"),
            &overlay,
        ],
    );
    let torn = world.snapshot("torn", 2);
    // The refcount block is the third cluster: clusters in use are marked as free.
    let image = std::fs::File::options().write(true).open(&torn).unwrap();
    image.write_all_at(&[0; 16], 2 * 65536).unwrap();
    let ran = doctor(&world);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_check(
        &ran,
        ALPHA,
        "owner and mode",
        "warning",
        "private (",
        &format!("find {private} -maxdepth 0 -type f"),
    );
    let unfit: Vec<String> = checks(&ran, ALPHA)
        .iter()
        .filter(|check| check["name"] == "snapshots" && check["verdict"] == "failed")
        .map(|check| {
            format!(
                "{} -> {}",
                check["finding"].as_str().unwrap(),
                check["fix"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(unfit.len(), 3, "{unfit:?}");
    for (words, fix) in [
        (
            "noise.qcow2: it is not a qcow2 image",
            "snapdeck pull noise --host alpha",
        ),
        (
            "overlay.qcow2: it has the backing file ",
            "qemu-img info -f qcow2 -- ",
        ),
        (
            "torn.qcow2: qemu-img check failed: ",
            "snapdeck pull torn --host alpha",
        ),
    ] {
        assert!(
            unfit
                .iter()
                .any(|text| text.contains(words) && text.contains(fix)),
            "{words}: {unfit:?}"
        );
    }
}

#[test]
fn an_unknown_owner_is_reported() {
    let world = World::new();
    let config = std::fs::read_to_string(world.config()).unwrap();
    let line = config
        .lines()
        .find(|line| line.starts_with("owner = "))
        .unwrap();
    world.reconfigure(line, "owner = \"no-such-user:kvm\"");
    let ran = doctor(&world);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_check(&ran, ALPHA, "owner", "failed", "no such user", "owner");
}

#[test]
fn running_sandboxes_and_missing_bases_are_reported() {
    let world = World::new();
    world.snapshot("base", 1);
    world.snapshot("missing", 1);
    let running = world.sandbox("runs", "base", State::Running);
    let torn = world.sandbox("torn", "missing", State::Off);
    std::fs::remove_file(world.snapshot_path("missing")).unwrap();
    let ran = doctor(&world);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_check(
        &ran,
        ALPHA,
        "sandboxes",
        "failed",
        &torn,
        "snapdeck pull missing --host alpha",
    );
    // The error "sandbox must be stopped or paused": doctor shows which one runs, and the alternative.
    let passed: Vec<Value> = checks(&ran, ALPHA)
        .into_iter()
        .filter(|check| check["name"] == "sandboxes" && check["verdict"] == "passed")
        .collect();
    assert!(
        passed[0]["finding"].as_str().unwrap().contains(&running),
        "{passed:?}"
    );
    assert_eq!(
        passed[0]["fix"]
            .as_str()
            .unwrap()
            .split(" --host")
            .next()
            .unwrap(),
        format!("use `snapdeck create {running} NAME")
    );
}

#[test]
fn old_leftovers_of_killed_operations_are_reported() {
    let world = World::new();
    let (old, new) = (
        world.path("temp/snapdeck-aaaaaaaa"),
        world.path("temp/snapdeck-bbbbbbbb"),
    );
    let busy = world.path("temp/snapdeck-cccccccc");
    let mark = r#"{"id":"0123456789abcdef0123456789abcdef","creator":"ada on build-1","created":"2026-01-02T03:04:05Z"}"#;
    for dir in [&old, &new, &busy] {
        std::fs::create_dir(dir).unwrap();
        std::fs::write(format!("{dir}/.snapdeck-owner"), mark).unwrap();
    }
    // An old directory with a new file in it.
    std::fs::write(format!("{busy}/flat.qcow2"), "").unwrap();
    // A file of another program.
    let partial = world.path("snapshots/.x.qcow2.partial");
    std::fs::write(&partial, "").unwrap();
    let marks = [&old, &busy].map(|dir| format!("{dir}/.snapdeck-owner"));
    run(
        "touch",
        &[
            "-d",
            "3 days ago",
            &marks[0],
            &marks[1],
            &old,
            &busy,
            &partial,
        ],
    );
    let ran = doctor(&world).ok();
    let check = find_check(&ran, ALPHA, "leftovers");
    assert_eq!(check.verdict, "warning");
    assert!(check.finding.starts_with("1 older"), "{}", check.finding);
    assert!(check.finding.contains(&*old), "{}", check.finding);
    assert_eq!(
        check.fix,
        "snapdeck prune --leftovers --foreign --host alpha"
    );
}

#[test]
fn other_checks_run_without_libvirt() {
    let world = World::new();
    world.set_socket("/nowhere");
    world.configure("");
    let ran = doctor(&world);
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert_check(
        &ran,
        ALPHA,
        "libvirt",
        "failed",
        "not checked: QEMU",
        "systemctl start libvirtd",
    );
    assert_eq!(find_check(&ran, ALPHA, "qemu-img").verdict, "passed");
    assert_eq!(find_check(&ran, None, "write").verdict, "passed");
}

#[test]
fn an_unreachable_host_does_not_delay_others() {
    let world = World::over_ssh(2);
    world.hosts[0].replace_client_key();
    world.hosts[1].link().cut(Fault::Closed);
    let ran = doctor(&world);
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert_check(
        &ran,
        ALPHA,
        "SSH",
        "failed",
        "Permission denied",
        "ssh-copy-id",
    );
    assert_check(
        &ran,
        Some("beta"),
        "SSH",
        "failed",
        "Connection refused",
        "sshd",
    );
    for host in [ALPHA, Some("beta")] {
        assert_eq!(
            checks(&ran, host).len(),
            1,
            "an unreachable host has other checks"
        );
    }
    assert_eq!(find_check(&ran, None, "delete").verdict, "passed");
}

#[test]
fn ssh_latency_and_throughput_are_measured() {
    let world = World::over_ssh(1);
    let ran = doctor(&world).ok();
    assert_check(&ran, ALPHA, "SSH", "passed", "logged in within", "");
    assert!(
        find_check(&ran, ALPHA, "line")
            .finding
            .contains("/s from the host")
    );
    // "Push/Pull slow on remote hosts"
    world.link().limit(Some(1 << 20));
    let ran = doctor(&world).ok();
    world.link().limit(None);
    assert_check(
        &ran,
        ALPHA,
        "line",
        "warning",
        "large snapshots take long",
        "on the host itself",
    );
}

#[test]
fn a_missing_or_inaccessible_bucket_is_reported() {
    if only_local("the bucket is the same for all hosts") {
        return;
    }
    let world = World::new();
    let config = std::fs::read_to_string(world.config()).unwrap();
    let change =
        |from: &str, to: &str| std::fs::write(world.config(), config.replace(from, to)).unwrap();

    change("name = \"lab\"", "name = \"no-such-bucket\"");
    let ran = doctor(&world);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_check(
        &ran,
        None,
        "bucket",
        "failed",
        "no-such-bucket",
        "aws s3 mb s3://no-such-bucket",
    );

    change("secret_access_key = \"", "secret_access_key = \"x");
    let ran = doctor(&world);
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert_check(
        &ran,
        None,
        "store",
        "failed",
        "SignatureDoesNotMatch",
        "secret_access_key",
    );

    change(
        "endpoint = \"http://127.0.0.1",
        "endpoint = \"http://127.0.0.9",
    );
    let ran = doctor(&world);
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert_check(
        &ran,
        None,
        "store",
        "failed",
        "not checked: rights",
        "endpoint",
    );
    assert_eq!(find_check(&ran, ALPHA, "qemu-img").verdict, "passed");

    // "snapshot not found in store"
    change("", "");
    let ran = doctor(&world).ok();
    assert_check(
        &ran,
        None,
        "objects",
        "warning",
        "no snapshots under",
        "prefix",
    );
}

#[test]
fn a_cancelled_check_leaves_no_objects() {
    let world = World::new();
    populate(&world);
    let before = list_all(&world);
    let store = crate::common::lab("SNAPDECK_LAB_S3").replace("http://", "");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (address, faults) = runtime.block_on(crate::common::proxy::proxy(store.clone()));
    world.reconfigure(&store, &address.to_string());
    // The test object is written, and reading it never ends.
    faults.hold_from.store(1, SeqCst);
    let child = world.start(&["doctor"]);
    let probe = || world.s5cmd(&["ls", "{}/.snapdeck-probe*"]).status.success();
    wait_until("the test object is written", probe);
    signal(&child, "INT");
    let ran = wait_for_exit(child);
    ran.failed(130, &["cancelled"]);
    // A check that is still running on a host over SSH removes its own file.
    wait_until("nothing is left", || list_all(&world) == before);
}

#[test]
fn the_console_shows_the_checks_and_repeats_them() {
    let world = World::new();
    populate(&world);
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&["base"]);
    screen.press("D");
    screen.wait(&["┌ doctor", "alpha", "✓ libvirt"]);
    std::fs::remove_dir(world.path("nvram")).unwrap();
    screen.wait(&["run again", "✓ NVRAM directory"]);
    screen.press("r");
    screen.wait(&["✗ NVRAM directory", "install -d"]);
    screen.press("\u{1b}");
    screen.wait_for("the page is closed", |text| !text.contains("┌ doctor"));
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
}
