//! Pulls whose bytes go straight from the bucket to a host over SSH.

use std::io::BufRead;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use snapdeck_model::Operation;

use super::{BLOCK, MIB, ProxiedWorld, bytes};
use crate::common::{
    CommandOutput, Direction, Fault, World, exists, output, run, sha256, signal, wait_for_exit,
    wait_until,
};

/// MiB in the object: with its tables 6 blocks, which the host downloads by three requests.
const IMAGE: u32 = 40;

/// Creates an environment with a host over SSH that downloads by itself, as `route` says, and never unattended, and the object
/// `app`.
fn with_object(route: &str) -> (ProxiedWorld, String) {
    let (world, image) = with_unattended(route);
    let line = format!("transfer = \"{route}\"\n");
    world.reconfigure(&line, &format!("{line}unattended_secs = 0\n"));
    (world, image)
}

/// As [`with_object`], with unattended downloads.
pub(super) fn with_unattended(route: &str) -> (ProxiedWorld, String) {
    let inner = World::over_ssh(1);
    let faults = inner.use_proxy();
    let world = ProxiedWorld { inner, faults };
    set_route(&world, "relay", route);
    let image = world.path("scratch/app.qcow2");
    world.image(&image, IMAGE);
    world.put_with_manifest(&image, "app", None);
    (world, image)
}

pub(crate) fn set_route(world: &World, from: &str, to: &str) {
    let owner = "owner = \"0:0\"\n";
    let line = |route: &str| match route {
        "relay" => owner.to_owned(),
        route => format!("{owner}transfer = \"{route}\"\n"),
    };
    world.reconfigure(&line(from), &line(to));
}

/// Returns the processes of this machine, which is the host as well, that show a signature.
pub(crate) fn processes_with_a_signature() -> String {
    let script = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -a 'X-Amz-Sig[n]ature'";
    let found = output(std::process::Command::new("sh").args(["-c", script]));
    String::from_utf8_lossy(&found.stdout).into_owned()
}

/// Asserts that no file of the test, of both machines, and no output has a signature.
#[track_caller]
pub(crate) fn assert_no_signature(world: &World, ran: &CommandOutput) {
    let text = format!("{}{}", ran.stdout, ran.stderr);
    assert!(!text.contains("X-Amz"), "{text}");
    let grep = [
        "-rlaF",
        "--exclude=app.qcow2",
        "X-Amz-Signature",
        &world.path(""),
    ];
    let found = output(std::process::Command::new("grep").args(grep));
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

pub(crate) fn passed(world: &World) -> u64 {
    let link = world.link();
    link.bytes_passed(Direction::ToHost) + link.bytes_passed(Direction::FromHost)
}

#[test]
fn the_bytes_do_not_pass_this_machine() {
    let (world, image) = with_object("direct");
    let size = std::fs::metadata(&image).unwrap().len();
    let before = passed(&world);
    let ran = world.snapdeck(&["pull", "app", "--json"]).ok();
    assert_eq!(bytes(&ran.json(), "fetchedBytes"), size);
    world.assert_pulled(&world, "app", &image);
    world.assert_fetched(size);
    // The scripts for the host, and its answers.
    let passed = passed(&world) - before;
    assert!(passed < 2 * MIB, "{passed} of {size}");
    assert_no_signature(&world, &ran);
    world.snapdeck(&["verify", "app"]).ok();
}

#[test]
fn a_pull_is_not_faster_than_the_limit_of_its_host() {
    let (world, image) = with_object("direct");
    world.reconfigure("unattended_secs = 0\n", "max_mib_per_sec = 5\n");
    // Two blocks at most are in the last request, or written last.
    let least = Duration::from_secs((u64::from(IMAGE) - 16) / 5);
    for route in ["direct", "relay"] {
        let started = Instant::now();
        let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
        assert!(started.elapsed() >= least, "{route}");
        assert!(bytes(&result, "fetchedBytes") > 0);
        world.assert_pulled(&world, "app", &image);
        std::fs::remove_file(world.snapshot_path("app")).unwrap();
        if route == "direct" {
            world.reconfigure("transfer = \"direct\"\n", "");
        }
    }
}

#[test]
fn a_signature_is_in_no_process_and_a_kill_ends_the_download() {
    let (world, image) = with_object("direct");
    let child = world.start_held(4 * BLOCK);
    assert!(world.curl_count() > 0);
    assert_eq!(processes_with_a_signature(), "");
    signal(&child, "KILL");
    let ran = wait_for_exit(child);
    assert_no_signature(&world, &ran);
    wait_until("curl has ended", || world.curl_count() == 0);
    world.release();
    world.received();
    let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(bytes(&result, "resumedBytes"), 4 * BLOCK);
    world.assert_pulled(&world, "app", &image);
}

#[test]
fn what_the_host_cannot_download_is_relayed() {
    let (world, image) = with_object("auto");
    let endpoint = "transfer = \"auto\"\nbucket_endpoint = \"http://127.0.0.1:1\"\n";
    world.reconfigure("transfer = \"auto\"\n", endpoint);
    let ran = world.snapdeck(&["pull", "app"]).ok();
    assert!(ran.stderr.contains("curl: (7)"), "{ran:?}");
    world.assert_pulled(&world, "app", &image);
    std::fs::remove_file(world.snapshot_path("app")).unwrap();
    world.reconfigure("\"auto\"", "\"direct\"");
    let ran = world.snapdeck(&["pull", "app"]);
    ran.failed(
        1,
        &["cannot download to", "curl: (7)", "hint: set transfer"],
    );
    assert!(!exists(&world.snapshot_path("app")));
}

/// Asserts that a pull succeeds through this machine, and says why.
#[track_caller]
fn assert_relayed(world: &ProxiedWorld, image: &str, reason: &str) {
    let ran = world.snapdeck(&["pull", "app"]).ok();
    assert!(ran.stderr.contains(reason), "{reason}: {ran:?}");
    world.assert_pulled(world, "app", image);
    std::fs::remove_file(world.snapshot_path("app")).unwrap();
}

#[test]
fn a_host_that_is_not_able_to_download_is_relayed() {
    let (world, image) = with_object("auto");
    world.set_sshd("SetEnv http_proxy=http://127.0.0.1:1");
    assert_relayed(&world, &image, "curl: (7)");
    world.set_sshd("");
    let old = "echo 'curl: option --proto: is unknown' >&2; exit 2";
    world.fake("curl", old);
    assert_relayed(&world, &image, "curl: option --proto: is unknown");
    world.fake("curl", "exec /nonexistent/curl \"$@\"");
    assert_relayed(&world, &image, "cannot download");
}

#[test]
fn a_certificate_that_the_host_does_not_know_is_relayed() {
    let (world, image) = with_object("auto");
    let path = |name: &str| world.path(&format!("scratch/{name}"));
    let (key, certificate) = (path("key.pem"), path("certificate.pem"));
    let subject = "-subj /CN=127.0.0.1 -days 2 -newkey ec -pkeyopt ec_paramgen_curve:P-256";
    let files = ["-keyout", &key, "-out", &certificate];
    let words: Vec<&str> = ["req", "-x509", "-nodes"]
        .into_iter()
        .chain(subject.split(' '))
        .chain(files)
        .collect();
    run("openssl", &words);
    let mut server = std::process::Command::new("openssl")
        .args([
            "s_server",
            "-accept",
            "127.0.0.1:0",
            "-www",
            "-key",
            &key,
            "-cert",
            &certificate,
        ])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(server.stdout.take().unwrap()).lines();
    let port = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.strip_prefix("ACCEPT ")?.rsplit_once(':')?.1.to_owned()))
        .unwrap();
    let endpoint = format!("transfer = \"auto\"\nbucket_endpoint = \"https://127.0.0.1:{port}\"\n");
    world.reconfigure("transfer = \"auto\"\n", &endpoint);
    assert_relayed(&world, &image, "curl: (60)");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn a_request_that_expires_is_signed_again() {
    let (world, image) = with_object("direct");
    world.faults.expired.store(1, SeqCst);
    world.snapdeck(&["pull", "app"]).ok();
    assert_eq!(world.faults.expired.load(SeqCst), 0);
    world.assert_pulled(&world, "app", &image);
    // A store that refuses all: the clock of this machine may be wrong, which signs the requests.
    std::fs::remove_file(world.snapshot_path("app")).unwrap();
    set_route(&world, "direct", "auto");
    world.faults.expired.store(i32::MAX, SeqCst);
    assert_relayed(&world, &image, "403");
}

#[test]
fn a_store_that_ignores_ranges_or_conditions_does_no_harm() {
    let (world, image) = with_object("auto");
    *world.faults.unknown_header.lock().unwrap() = Some("Range");
    let ran = world.snapdeck(&["pull", "app"]).ok();
    assert!(ran.stderr.contains("the store answered 200"), "{ran:?}");
    world.assert_pulled(&world, "app", &image);
    std::fs::remove_file(world.snapshot_path("app")).unwrap();
    // The object is replaced, and the store sends bytes of the new one.
    *world.faults.unknown_header.lock().unwrap() = Some("If-Match");
    let child = world.start_held(4 * BLOCK);
    world.image(&image, IMAGE);
    world.put_with_manifest(&image, "app", None);
    world.release();
    let ran = wait_for_exit(child);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(world.names("snapshots").is_empty(), "{ran:?}");
}

#[test]
fn a_corrupted_block_is_downloaded_again() {
    let (world, image) = with_object("direct");
    world.faults.corrupt.store(1, SeqCst);
    world.snapdeck(&["pull", "app"]).ok();
    assert_eq!(world.faults.corrupt.load(SeqCst), 0);
    world.assert_pulled(&world, "app", &image);
    std::fs::remove_file(world.snapshot_path("app")).unwrap();
    // The digest of the manifest is wrong: twice is an error, also through this machine.
    let mut manifest = world.manifest(&image, "app", None);
    manifest.blocks[1] = snapdeck_model::Digest([7; 32]);
    world.put_manifest(&manifest, "app");
    world.received();
    let ran = world.snapdeck(&["pull", "app"]);
    ran.failed(1, &["could not download 8 MiB"]);
    set_route(&world, "direct", "auto");
    let ran = world.snapdeck(&["pull", "app"]);
    ran.failed(1, &["is damaged", "match its manifest: 1"]);
    assert!(!exists(&world.snapshot_path("app")));
}

#[test]
fn a_request_that_is_cut_or_refused_is_repeated() {
    let (world, image) = with_object("direct");
    for fault in [&world.faults.cut_down, &world.faults.overloaded] {
        fault.store(1, SeqCst);
        world.snapdeck(&["pull", "app"]).ok();
        world.assert_pulled(&world, "app", &image);
        std::fs::remove_file(world.snapshot_path("app")).unwrap();
    }
}

#[test]
fn an_object_that_is_replaced_stops_the_pull() {
    for route in ["auto", "direct"] {
        let (world, image) = with_object(route);
        let child = world.start_held(4 * BLOCK);
        world.image(&image, IMAGE);
        world.put_with_manifest(&image, "app", None);
        world.release();
        let ran = wait_for_exit(child);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(world.names("snapshots").is_empty(), "{ran:?}");
        world.snapdeck(&["pull", "app"]).ok();
        world.assert_pulled(&world, "app", &image);
    }
}

#[test]
fn a_connection_that_is_lost_is_survived() {
    for fault in [Fault::Closed, Fault::Frozen] {
        let (world, image) = with_object("direct");
        let child = world.start_held(4 * BLOCK);
        world.link().cut(fault);
        wait_until("the loss is noticed", || world.link().is_cut());
        std::thread::sleep(std::time::Duration::from_secs(1));
        world.link().heal();
        world.release();
        wait_for_exit(child).ok();
        assert_eq!(sha256(&world.snapshot_path("app")), sha256(&image));
    }
}

#[test]
fn a_killed_sshd_is_survived() {
    let (world, image) = with_object("direct");
    let child = world.start_held(4 * BLOCK);
    world.link().kill_sshd();
    wait_until("curl has ended", || world.curl_count() == 0);
    world.release();
    world.link().heal();
    wait_for_exit(child).ok();
    world.assert_pulled(&world, "app", &image);
}

/// Runs snapdeck with a clock that is off by `seconds`.
pub(crate) fn with_clock_offset(world: &World, args: &[&str], seconds: &str) -> CommandOutput {
    let mut command = world.command_with_fault(args, ("CLOCK_OFFSET", seconds));
    wait_for_exit(command.spawn().unwrap())
}

#[test]
fn requests_are_signed_by_the_clock_of_the_store() {
    let (world, image) = with_object("direct");
    for offset in ["-7200", "7200"] {
        let ran = with_clock_offset(&world, &["pull", "app", "--json"], offset).ok();
        let size = std::fs::metadata(&image).unwrap().len();
        assert_eq!(bytes(&ran.json(), "fetchedBytes"), size);
        world.assert_pulled(&world, "app", &image);
        let ran = with_clock_offset(&world, &["doctor"], offset);
        assert!(ran.stdout.contains("reaches the store"), "{ran:?}");
        std::fs::remove_file(world.snapshot_path("app")).unwrap();
    }
    let requests = world.faults.requests.lock().unwrap().clone();
    let now = jiff::Timestamp::now();
    let dates = requests
        .iter()
        .filter_map(|request| request.split_once("X-Amz-Date=")?.1.get(..16));
    let mut count = 0;
    for date in dates {
        let signed: jiff::Timestamp = date.parse().unwrap();
        assert!(
            now.duration_since(signed).unsigned_abs() < Duration::from_secs(600),
            "{date}"
        );
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn a_disk_that_fills_up_is_an_error() {
    let (world, _) = with_object("auto");
    let Some(disk) = world.small_disk("snapshots", "44m") else {
        return;
    };
    let child = world.start_held(4 * BLOCK);
    let filler = world.path("snapshots/filler");
    disk.run_on_host(&[
        "sh",
        "-c",
        "dd if=/dev/zero of=\"$0\" bs=64K 2>/dev/null || :",
        &filler,
    ]);
    world.release();
    wait_for_exit(child).failed(1, &["No space left"]);
    disk.run_on_host(&["rm", &filler]);
    world.snapdeck(&["pull", "app"]).ok();
}

#[test]
fn doctor_tries_a_request_from_the_host() {
    let (world, _) = with_object("direct");
    let ran = world.snapdeck(&["doctor"]);
    assert!(ran.stdout.contains("direct downloads"), "{ran:?}");
    assert!(ran.stdout.contains("reaches the store"), "{ran:?}");
    let endpoint = "transfer = \"direct\"\nbucket_endpoint = \"http://127.0.0.1:1\"\n";
    world.reconfigure("transfer = \"direct\"\n", endpoint);
    let ran = world.snapdeck(&["doctor"]);
    assert!(
        ran.stdout.contains("it cannot reach the store: curl: (7)"),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("bucket_endpoint"), "{ran:?}");
    assert_no_signature(&world, &ran);
}

#[test]
fn a_snapdeck_that_was_stopped_goes_on() {
    let (world, image) = with_object("direct");
    let child = world.start_held(4 * BLOCK);
    assert!(world.curl_count() > 0);
    signal(&child, "STOP");
    // Without heartbeats the host ends the downloads.
    wait_until("curl has ended", || world.curl_count() == 0);
    signal(&child, "CONT");
    world.release();
    wait_for_exit(child).ok();
    world.assert_pulled(&world, "app", &image);
}

#[test]
fn a_host_that_cannot_reach_the_store_is_not_tried_by_each_job() {
    let (world, image) = with_object("auto");
    world.snapshot("golden", 9);
    let count = world.path("scratch/count");
    let refused = format!("echo >>{count}; echo 'curl: (7) refused' >&2; exit 7");
    world.fake("curl", &refused);
    let requests = || std::fs::read(&count).unwrap_or_default().len();
    // Of the program, too: futures of an unoptimized build are large.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder
        .enable_all()
        .thread_stack_size(8 << 20)
        .build()
        .unwrap();
    let engine = runtime.block_on(world.engine());
    let _inside = runtime.enter();
    let run = |operation: Operation| {
        if matches!(operation, Operation::Pull { .. }) {
            let _ = std::fs::remove_file(world.snapshot_path("app"));
        }
        let id = engine.submit_all(vec![operation])[0].clone().unwrap();
        runtime.block_on(engine.wait(id)).unwrap();
        let job = engine.view().job(id).unwrap().clone();
        let lines = job.log.iter().map(|line| line.text.clone());
        lines.collect::<Vec<_>>().join("\n")
    };
    let host: snapdeck_model::HostName = "alpha".parse().unwrap();
    let pull = || Operation::Pull {
        host: host.clone(),
        name: "app".parse().unwrap(),
        overwrite: false,
    };
    let log = run(pull());
    assert!(
        log.contains("downloads 40.3") && log.contains("curl: (7) refused"),
        "{log}"
    );
    let before = requests();
    assert!(before > 0);
    let log = run(pull());
    assert!(
        log.contains("through this machine: cannot download to"),
        "{log}"
    );
    assert!(log.contains("curl: (7) refused (an earlier job)"), "{log}");
    let log = run(Operation::Upload {
        host: host.clone(),
        name: "golden".parse().unwrap(),
        overwrite: false,
    });
    assert!(log.contains("uploading through this machine: "), "{log}");
    assert_eq!(requests(), before);
    world.assert_pulled(&world, "app", &image);
    // The health check finds that it is repaired.
    let curl = format!("exec {} \"$@\"", crate::common::find_program("curl"));
    world.fake("curl", &curl);
    engine
        .run_health_checks(std::slice::from_ref(&host), false)
        .unwrap();
    wait_until("the check has finished", || {
        let view = engine.view();
        view.health_checks.iter().any(|check| !check.is_running)
    });
    let log = run(pull());
    assert!(
        log.contains("host alpha downloads") && !log.contains("machine"),
        "{log}"
    );
    runtime.block_on(engine.shutdown());
}

#[test]
fn hosts_of_which_none_can_download_share_the_relay() {
    let inner = World::over_ssh(2);
    let faults = inner.use_proxy();
    let world = ProxiedWorld { inner, faults };
    let text = "owner = \"0:0\"\n";
    let endpoint = "transfer = \"auto\"\nbucket_endpoint = \"http://127.0.0.1:1\"\n";
    world.reconfigure(text, &format!("{text}{endpoint}"));
    let image = world.path("scratch/app.qcow2");
    world.image(&image, IMAGE);
    world.put_with_manifest(&image, "app", None);
    world.received();
    world.snapdeck(&["pull", "app", "--all-hosts"]).ok();
    world.assert_fetched(std::fs::metadata(&image).unwrap().len());
}
