//! Pulls to several hosts and resumed pulls: real libvirt and S3, with a proxy that counts and holds downloads.

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use crate::common::proxy::{Faults, proxy};
use crate::common::{
    CommandOutput, Host, World, exists, run, sha256, signal, stamp, wait_for_exit, wait_until,
};
use serde_json::{Value, json};
use snapdeck_engine::{Engine, JobId, JobState};
use snapdeck_model::{Kind, Operation, Outcome};
use tokio::runtime::Runtime;

const HOSTS: [&str; 3] = ["alpha", "beta", "gamma"];
/// Size of the object in MiB: more than five ranges of a download.
const IMAGE: u32 = 40;
const MIB: u64 = 1024 * 1024;
/// Three ranges of a download, in bytes.
const HALF: u64 = 24 * MIB;

/// Three hosts, an object `app`, and a proxy to the bucket.
struct FanOut {
    world: World,
    image: String,
    faults: Arc<Faults>,
    runtime: Runtime,
}

impl FanOut {
    fn new() -> Self {
        let world = World::hosts(3);
        let store = std::env::var("SNAPDECK_LAB_S3").unwrap();
        let runtime = Runtime::new().unwrap();
        let address = store.trim_start_matches("http://").to_owned();
        let (address, faults) = runtime.block_on(proxy(address));
        world.reconfigure(&store, &format!("http://{address}"));
        let image = world.path("scratch/app.qcow2");
        let fan = Self {
            world,
            image,
            faults,
            runtime,
        };
        fan.put();
        fan
    }

    /// Uploads another image of the same size.
    fn put(&self) {
        self.world.image(&self.image, IMAGE);
        self.world.put(&self.image, "app");
    }

    fn host(&self, name: &str) -> &Host {
        let mut hosts = self.world.hosts.iter();
        hosts.find(|host| host.name == name).unwrap()
    }

    fn dir(&self, host: &str) -> String {
        self.host(host).path("snapshots")
    }

    fn file(&self, host: &str) -> String {
        format!("{}/app.qcow2", self.dir(host))
    }

    fn partial(&self, host: &str) -> String {
        format!("{}/.app.qcow2.pull/partial", self.dir(host))
    }

    fn resume_log(&self, host: &str) -> String {
        format!("{}.mark", self.partial(host))
    }

    /// Returns the bytes of complete blocks in the log beside a host's partial file.
    fn logged_bytes(&self, host: &str) -> u64 {
        let text = std::fs::read_to_string(self.resume_log(host)).unwrap_or_default();
        let entries = text.split(['\t', '\n']);
        let records = entries.filter(|entry| entry.starts_with(|c: char| c.is_ascii_digit()));
        records.count() as u64 * 8 * MIB
    }

    fn size(&self) -> u64 {
        std::fs::metadata(&self.image).unwrap().len()
    }

    /// Returns the bytes received from the bucket since the last call.
    fn received(&self) -> u64 {
        self.faults.received.swap(0, SeqCst)
    }

    /// Asserts that `bytes` were fetched since the last check, with up to 1 % overhead.
    #[track_caller]
    fn assert_fetched(&self, bytes: u64) {
        let received = self.received();
        let range = bytes..bytes + bytes / 100 + MIB / 4;
        assert!(range.contains(&received), "{received} for {bytes}");
    }

    /// Asserts that the host has the complete snapshot and no other file.
    #[track_caller]
    fn assert_pulled(&self, host: &str) {
        assert_eq!(sha256(&self.file(host)), sha256(&self.image), "{host}");
        assert_eq!(self.names(host), ["app.qcow2"], "{host}");
    }

    fn names(&self, host: &str) -> Vec<String> {
        self.host(host).names("snapshots")
    }

    /// Starts a pull that stops after `bytes`, and waits until these are logged on `hosts`.
    fn start_held(&self, bytes: u64, args: &[&str], hosts: &[&str]) -> Child {
        self.faults.hold_from.store(bytes, SeqCst);
        let child = self.world.start(args);
        for host in hosts {
            wait_until("the blocks are logged", || self.logged_bytes(host) == bytes);
        }
        child
    }

    fn release(&self) {
        self.faults.hold_from.store(0, SeqCst);
    }

    /// Kills a pull after `bytes`, which are then on each of `hosts`.
    fn kill_pull_at(&self, bytes: u64, args: &[&str], hosts: &[&str]) {
        let child = self.start_held(bytes, args, hosts);
        signal(&child, "KILL");
        assert_eq!(wait_for_exit(child).code, None);
        self.release();
        self.received();
    }

    fn engine(&self) -> Engine {
        self.runtime.block_on(self.world.engine())
    }

    fn submit(&self, engine: &Engine) -> Vec<JobId> {
        let pull = |host: &&str| Operation::Pull {
            host: host.parse().unwrap(),
            name: "app".parse().unwrap(),
            overwrite: false,
        };
        let _inside = self.runtime.enter();
        let submitted = engine.submit_all(HOSTS.iter().map(pull).collect());
        submitted.into_iter().map(Result::unwrap).collect()
    }
}

/// Files of an incomplete pull.
const PARTIAL_FILES: [&str; 1] = [".app.qcow2.pull"];

/// Arguments of a pull to all hosts.
const ALL: [&str; 9] = [
    "pull", "app", "--host", "alpha", "--host", "beta", "--host", "gamma", "--json",
];

#[track_caller]
fn results(ran: &CommandOutput) -> Vec<Value> {
    ran.json()["results"].as_array().unwrap().clone()
}

#[test]
fn three_hosts_fetch_the_object_once() {
    let fan = FanOut::new();
    let ran = fan
        .world
        .snapdeck(&["pull", "app", "--host", "beta", "--json"]);
    assert_eq!(
        ran.ok().json()["host"],
        "beta",
        "the result of one host is not in a list"
    );
    fan.assert_pulled("beta");
    fan.assert_fetched(fan.size());
    std::fs::remove_file(fan.file("beta")).unwrap();

    let ran = fan.world.snapdeck(&ALL).ok();
    let hosts: Vec<Value> = results(&ran)
        .iter()
        .map(|result| result["host"].clone())
        .collect();
    assert_eq!(hosts, HOSTS);
    HOSTS.iter().for_each(|host| fan.assert_pulled(host));
    fan.assert_fetched(fan.size());
}

#[test]
fn text_output_has_a_line_for_each_host() {
    let fan = FanOut::new();
    let ran = fan.world.snapdeck(&["pull", "app", "--all-hosts"]).ok();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{ran:?}");
    for (line, host) in lines.iter().zip(HOSTS) {
        assert!(
            line.starts_with(&format!("pulled app on {host}: ")),
            "{ran:?}"
        );
        let message = format!("pull app → {host}: downloading");
        assert!(ran.stderr.contains(&message), "{ran:?}");
    }
}

#[test]
fn a_failed_host_does_not_stop_the_others() {
    let fan = FanOut::new();
    std::fs::remove_dir(fan.dir("alpha")).unwrap();
    let (base, beta) = (fan.world.path("scratch/base.qcow2"), fan.file("beta"));
    fan.world.image(&base, 0);
    run(
        "qemu-img",
        &[
            "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &base, &beta,
        ],
    );
    let before = stamp(&beta);

    let args = [
        "pull", "app", "--host", "beta", "--host", "alpha", "--host", "gamma",
    ];
    let ran = fan.world.snapdeck(&[&args[..], &["--json"]].concat());
    assert_eq!(
        ran.code,
        Some(4),
        "not the code of the first failure: {ran:?}"
    );
    let results = results(&ran);
    let errors: Vec<_> = results
        .iter()
        .map(|result| (&result["host"], &result["error"]["kind"]))
        .collect();
    assert_eq!(
        errors,
        [
            (&json!("beta"), &json!("conflict")),
            (&json!("alpha"), &json!("failed")),
            (&json!("gamma"), &Value::Null)
        ]
    );
    assert_eq!(results[2]["snapshotPath"], json!(fan.file("gamma")));
    for prefix in ["snapdeck: beta: ", "snapdeck: alpha: "] {
        assert!(
            ran.stderr.lines().any(|line| line.starts_with(prefix)),
            "{ran:?}"
        );
    }
    assert_eq!(stamp(&beta), before);
    fan.assert_pulled("gamma");
    fan.assert_fetched(fan.size());

    let ran = fan.world.snapdeck(&args);
    assert_eq!(ran.code, Some(4));
    assert!(
        ran.stdout.starts_with("already present: app on gamma"),
        "{ran:?}"
    );
    assert_eq!(ran.stdout.lines().count(), 1);
    assert_eq!(fan.names("beta"), ["app.qcow2"]);
}

#[test]
fn a_missing_object_is_an_error_for_each_host() {
    let fan = FanOut::new();
    let args = ["pull", "nothing", "--all-hosts", "--json"];
    let ran = fan.world.snapdeck(&args);
    assert_eq!(ran.code, Some(3));
    let kinds: Vec<Value> = results(&ran)
        .iter()
        .map(|result| result["error"]["kind"].clone())
        .collect();
    assert_eq!(kinds, ["notFound"; 3]);
}

#[test]
fn a_host_with_a_valid_copy_is_skipped() {
    let fan = FanOut::new();
    std::fs::copy(&fan.image, fan.file("beta")).unwrap();
    let before = stamp(&fan.file("beta"));
    let ran = fan.world.snapdeck(&ALL).ok();
    let skipped: Vec<Value> = results(&ran)
        .iter()
        .map(|result| result["skipped"].clone())
        .collect();
    assert_eq!(skipped, [false, true, false]);
    assert_eq!(stamp(&fan.file("beta")), before);
    HOSTS.iter().for_each(|host| fan.assert_pulled(host));
    fan.assert_fetched(fan.size());
}

#[test]
fn a_signal_cancels_all_hosts_and_keeps_partial_files() {
    let fan = FanOut::new();
    let child = fan.start_held(HALF, &ALL, &HOSTS);
    signal(&child, "INT");
    let ran = wait_for_exit(child);
    assert_eq!(ran.code, Some(130), "{ran:?}");
    for (result, host) in results(&ran).iter().zip(HOSTS) {
        assert_eq!(result["error"]["kind"], "cancelled");
        assert_eq!(fan.names(host), PARTIAL_FILES);
        assert!(ran.stderr.contains("keeping 24 MiB of "), "{ran:?}");
    }
    fan.release();
    fan.received();
    fan.world.snapdeck(&ALL).ok();
    HOSTS.iter().for_each(|host| fan.assert_pulled(host));
    fan.assert_fetched(fan.size() - HALF);
}

#[test]
fn the_others_continue_when_one_host_is_cancelled() {
    let fan = FanOut::new();
    fan.faults.hold_from.store(HALF, SeqCst);
    let engine = fan.engine();
    let ids = fan.submit(&engine);
    let job = |id| engine.view().job(id).unwrap().clone();
    wait_until("all hosts have the blocks before the hold", || {
        HOSTS.iter().all(|host| fan.logged_bytes(host) == HALF)
    });
    assert!(
        ids.iter().all(|id| job(*id).state == JobState::Running),
        "jobs of one pull must run together, beyond jobs.parallel (2)"
    );
    let [alpha, beta, gamma] = ids[..] else {
        panic!("{ids:?}")
    };
    // The job that started the download.
    engine.cancel(alpha);
    let wait = |id| fan.runtime.block_on(engine.wait(id));
    assert_eq!(wait(alpha).unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(fan.names("alpha"), PARTIAL_FILES);
    fan.release();
    for (id, host) in [(beta, "beta"), (gamma, "gamma")] {
        let outcome = wait(id).unwrap();
        assert!(matches!(outcome, Outcome::Pulled { skipped: false, .. }));
        fan.assert_pulled(host);
    }
    fan.assert_fetched(fan.size());
}

#[test]
fn the_download_ends_when_all_hosts_are_cancelled() {
    let fan = FanOut::new();
    fan.faults.hold_from.store(HALF, SeqCst);
    let engine = fan.engine();
    let ids = fan.submit(&engine);
    let done = |id: &JobId| engine.view().job(*id).unwrap().progress().done_bytes;
    wait_until("all three download", || {
        ids.iter().all(|id| done(id) > 8 * MIB)
    });
    ids.iter().for_each(|id| engine.cancel(*id));
    for id in ids {
        let error = fan.runtime.block_on(engine.wait(id)).unwrap_err();
        assert_eq!(error.kind(), Kind::Cancelled);
    }
    // The last user of the S3 client closes its connections.
    drop(engine);
    fan.release();
    wait_until("the connections are closed", || {
        fan.faults.open.load(SeqCst) == 0
    });
    assert!(fan.received() < fan.size());
}

#[test]
fn a_killed_pull_is_resumed_by_the_next() {
    let fan = FanOut::new();
    let args = ["pull", "app", "--host", "alpha", "-v"];
    fan.kill_pull_at(HALF, &args, &["alpha"]);
    let ran = fan.world.snapdeck(&args).ok();
    assert!(ran.stderr.contains("resuming: 24 MiB of "), "{ran:?}");
    fan.assert_pulled("alpha");
    fan.assert_fetched(fan.size() - HALF);
}

#[test]
fn partial_files_of_different_lengths_are_completed_together() {
    let fan = FanOut::new();
    let pull = |host| ["pull", "app", "--host", host];
    fan.kill_pull_at(HALF, &pull("alpha"), &["alpha"]);
    fan.kill_pull_at(HALF - 8 * MIB, &pull("beta"), &["beta"]);
    let both = ["pull", "app", "--host", "alpha", "--host", "beta"];
    fan.world.snapdeck(&both).ok();
    fan.assert_pulled("alpha");
    fan.assert_pulled("beta");
    fan.assert_fetched(fan.size() - HALF + 8 * MIB);
    std::fs::remove_file(fan.file("alpha")).unwrap();
    std::fs::remove_file(fan.file("beta")).unwrap();

    // Blocks that several hosts lack are fetched once.
    fan.kill_pull_at(HALF, &both, &["alpha", "beta"]);
    let ran = fan.world.snapdeck(&ALL).ok();
    let bytes = |key: &str| -> Vec<u64> {
        let results = results(&ran);
        let bytes = results.iter().map(|result| result[key].as_u64().unwrap());
        bytes.collect()
    };
    assert_eq!(bytes("resumedBytes"), [HALF, HALF, 0]);
    let rest = fan.size() - HALF;
    assert_eq!(bytes("fetchedBytes"), [rest, rest, fan.size()]);
    HOSTS.iter().for_each(|host| fan.assert_pulled(host));
    fan.assert_fetched(fan.size());
}

#[test]
fn a_partial_file_is_not_used_for_another_object_and_not_without_its_log() {
    let fan = FanOut::new();
    let args = ["pull", "app", "--host", "alpha"];
    let edit = |from: &str, to: &str| {
        let text = std::fs::read_to_string(fan.resume_log("alpha")).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(fan.resume_log("alpha"), text.replace(from, to)).unwrap();
    };
    let cases: [(&str, &dyn Fn()); 3] = [
        ("the object is replaced", &|| fan.put()),
        ("the log is damaged", &|| edit("{", "")),
        ("the log is missing", &|| {
            std::fs::remove_file(fan.resume_log("alpha")).unwrap();
        }),
    ];
    for (what, change) in cases {
        fan.kill_pull_at(HALF, &args, &["alpha"]);
        change();
        fan.received();
        let ran = fan.world.snapdeck(&args);
        assert_eq!(ran.code, Some(0), "{what}: {ran:?}");
        fan.assert_pulled("alpha");
        fan.assert_fetched(fan.size());
        std::fs::remove_file(fan.file("alpha")).unwrap();
    }
}

#[test]
fn a_directory_of_another_program_is_refused_and_not_changed() {
    let fan = FanOut::new();
    let dir = format!("{}/.app.qcow2.pull", fan.dir("alpha"));
    run("mkdir", &["-m", "700", &dir]);
    std::fs::write(fan.partial("alpha"), "precious").unwrap();
    let args = ["pull", "app", "--host", "alpha"];
    let refused = fan.world.snapdeck(&args);
    refused.failed(4, &[".app.qcow2.pull", "did not create it"]);
    assert_eq!(std::fs::read(fan.partial("alpha")).unwrap(), b"precious");
    std::fs::remove_file(fan.partial("alpha")).unwrap();
    // Others can use it.
    run("chmod", &["755", &dir]);
    let refused = fan.world.snapdeck(&args);
    refused.failed(4, &[".app.qcow2.pull", "is not private"]);
    // An empty one is what a killed pull may leave.
    run("chmod", &["700", &dir]);
    fan.world.snapdeck(&args).ok();
    fan.assert_pulled("alpha");
    assert_eq!(fan.names("alpha"), ["app.qcow2"]);
}

#[test]
fn a_partial_file_is_verified_after_a_reboot_of_the_host() {
    let fan = FanOut::new();
    let args = ["pull", "app", "--host", "alpha", "--json"];
    fan.kill_pull_at(HALF, &args, &["alpha"]);
    let text = std::fs::read_to_string(fan.resume_log("alpha")).unwrap();
    let text = text.replace("\"bootId\":\"", "\"bootId\":\"0");
    std::fs::write(fan.resume_log("alpha"), text).unwrap();
    // One block was not written to disk.
    let partial = std::fs::File::options()
        .write(true)
        .open(fan.partial("alpha"));
    std::os::unix::fs::FileExt::write_all_at(&partial.unwrap(), &[0; 4096], 9 * MIB).unwrap();
    let result = fan.world.snapdeck(&args).ok().json();
    assert_eq!(result["resumedBytes"], json!(HALF - 8 * MIB));
    fan.assert_pulled("alpha");
    fan.assert_fetched(fan.size() - HALF + 8 * MIB);
}

#[test]
fn a_damaged_partial_file_is_detected_and_removed() {
    use std::os::unix::fs::FileExt;
    let fan = FanOut::new();
    let args = ["pull", "app", "--host", "alpha"];
    fan.kill_pull_at(HALF, &args, &["alpha"]);
    let partial = std::fs::File::options()
        .write(true)
        .open(fan.partial("alpha"))
        .unwrap();
    partial.write_all_at(b"bad data", 0).unwrap();
    let ran = fan.world.snapdeck(&args);
    ran.failed(1, &["cannot be used as a snapshot", "pull it again"]);
    assert!(!exists(&fan.file("alpha")) && fan.names("alpha").is_empty());
    fan.world.snapdeck(&args).ok();
    fan.assert_pulled("alpha");
}
