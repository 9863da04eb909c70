//! One snapshot to several hosts, and pulls that are taken up: real libvirt and S3, with a line between snapdeck
//! and the bucket that counts and stops.

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use crate::common::proxy::{Trouble, proxy};
use crate::common::{Host, Ran, World, ended, exists, run, sha256, signal, stamp, until};
use serde_json::{Value, json};
use snapdeck_engine::{Engine, JobId, JobState};
use snapdeck_model::{Kind, Operation, Outcome};
use tokio::runtime::Runtime;

const HOSTS: [&str; 3] = ["alpha", "beta", "gamma"];
/// MiB of random bytes in the object: five ranges of a download and a bit.
const IMAGE: u32 = 40;
const MIB: u64 = 1024 * 1024;
/// Three ranges of a download.
const HALF: u64 = 24 * MIB;

/// Three hosts, an object `app`, and the line to the bucket.
struct Fan {
    world: World,
    image: String,
    line: Arc<Trouble>,
    runtime: Runtime,
}

impl Fan {
    fn new() -> Self {
        let world = World::hosts(3);
        let store = std::env::var("SNAPDECK_LAB_S3").unwrap();
        let runtime = Runtime::new().unwrap();
        let address = store.trim_start_matches("http://").to_owned();
        let (address, line) = runtime.block_on(proxy(address));
        world.reconfigure(&store, &format!("http://{address}"));
        let image = world.path("scratch/app.qcow2");
        let fan = Self {
            world,
            image,
            line,
            runtime,
        };
        fan.put();
        fan
    }

    /// Puts another image of the same size.
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
        format!("{}/.app.qcow2.partial", self.dir(host))
    }

    fn mark(&self, host: &str) -> String {
        format!("{}.mark", self.partial(host))
    }

    /// Bytes of the whole blocks that are noted beside a host's partial file.
    fn marked(&self, host: &str) -> u64 {
        let text = std::fs::read_to_string(self.mark(host)).unwrap_or_default();
        let entries = text.split(['\t', '\n']);
        let records = entries.filter(|entry| entry.starts_with(|c: char| c.is_ascii_digit()));
        records.count() as u64 * 8 * MIB
    }

    fn size(&self) -> u64 {
        std::fs::metadata(&self.image).unwrap().len()
    }

    /// Bytes received from the bucket since the last call.
    fn received(&self) -> u64 {
        self.line.received.swap(0, SeqCst)
    }

    /// All of the object was fetched once, no more.
    #[track_caller]
    fn assert_fetched(&self, bytes: u64) {
        let received = self.received();
        let range = bytes..bytes + bytes / 100 + MIB / 4;
        assert!(range.contains(&received), "{received} for {bytes}");
    }

    /// The snapshot is there, whole, and nothing beside it.
    #[track_caller]
    fn assert_pulled(&self, host: &str) {
        assert_eq!(sha256(&self.file(host)), sha256(&self.image), "{host}");
        assert_eq!(self.names(host), ["app.qcow2"], "{host}");
    }

    fn names(&self, host: &str) -> Vec<String> {
        self.host(host).names("snapshots")
    }

    /// Begins a pull that gets no further than `bytes`, and waits until that is noted at `hosts`.
    fn held_at(&self, bytes: u64, args: &[&str], hosts: &[&str]) -> Child {
        self.line.hold_from.store(bytes, SeqCst);
        let child = self.world.start(args);
        for host in hosts {
            until("how far it came is noted", || self.marked(host) == bytes);
        }
        child
    }

    fn let_go(&self) {
        self.line.hold_from.store(0, SeqCst);
    }

    /// Leaves the first `bytes` on each of `hosts`, as a pull does that is killed.
    fn broken_off(&self, bytes: u64, args: &[&str], hosts: &[&str]) {
        let child = self.held_at(bytes, args, hosts);
        signal(&child, "KILL");
        assert_eq!(ended(child).code, None);
        self.let_go();
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
        let taken = engine.submit_all(HOSTS.iter().map(pull).collect());
        taken.into_iter().map(Result::unwrap).collect()
    }
}

/// What a pull leaves that was not completed.
const UNFINISHED: [&str; 2] = [".app.qcow2.partial", ".app.qcow2.partial.mark"];

/// Arguments of a pull to all three.
const ALL: [&str; 9] = [
    "pull", "app", "--host", "alpha", "--host", "beta", "--host", "gamma", "--json",
];

#[track_caller]
fn results(ran: &Ran) -> Vec<Value> {
    ran.json()["results"].as_array().unwrap().clone()
}

#[test]
fn three_hosts_take_what_one_takes_from_the_bucket() {
    let fan = Fan::new();
    let ran = fan
        .world
        .snapdeck(&["pull", "app", "--host", "beta", "--json"]);
    assert_eq!(
        ran.ok().json()["host"],
        "beta",
        "one host is answered as ever"
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
fn a_person_is_told_a_line_for_each_host() {
    let fan = Fan::new();
    let ran = fan.world.snapdeck(&["pull", "app", "--all-hosts"]).ok();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{ran:?}");
    for (line, host) in lines.iter().zip(HOSTS) {
        assert!(
            line.starts_with(&format!("pulled app on {host}: ")),
            "{ran:?}"
        );
        let told = format!("pull app → {host}: downloading");
        assert!(ran.stderr.contains(&told), "{ran:?}");
    }
}

#[test]
fn hosts_that_fail_do_not_stop_the_others() {
    let fan = Fan::new();
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
        "the first that is named and fails: {ran:?}"
    );
    let results = results(&ran);
    let errors: Vec<_> = results
        .iter()
        .map(|result| (&result["host"], &result["error"]["kind"]))
        .collect();
    assert_eq!(
        errors,
        [
            (&json!("beta"), &json!("refused")),
            (&json!("alpha"), &json!("failed")),
            (&json!("gamma"), &Value::Null)
        ]
    );
    assert_eq!(results[2]["snapshotPath"], json!(fan.file("gamma")));
    for told in ["snapdeck: beta: ", "snapdeck: alpha: "] {
        assert!(
            ran.stderr.lines().any(|line| line.starts_with(told)),
            "{ran:?}"
        );
    }
    assert_eq!(stamp(&beta), before);
    fan.assert_pulled("gamma");
    fan.assert_fetched(fan.size());

    let ran = fan.world.snapdeck(&args);
    assert_eq!(ran.code, Some(4));
    assert!(
        ran.stdout.starts_with("already there: app on gamma"),
        "{ran:?}"
    );
    assert_eq!(ran.stdout.lines().count(), 1);
    assert_eq!(fan.names("beta"), ["app.qcow2"]);
}

#[test]
fn an_object_that_is_not_there_is_missed_by_each() {
    let fan = Fan::new();
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
fn a_host_with_a_valid_copy_is_passed_over() {
    let fan = Fan::new();
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
fn a_signal_cancels_all_and_what_is_there_is_kept_for_the_next() {
    let fan = Fan::new();
    let child = fan.held_at(HALF, &ALL, &HOSTS);
    signal(&child, "INT");
    let ran = ended(child);
    assert_eq!(ran.code, Some(130), "{ran:?}");
    for (result, host) in results(&ran).iter().zip(HOSTS) {
        assert_eq!(result["error"]["kind"], "cancelled");
        assert_eq!(fan.names(host), UNFINISHED);
        let told = format!("{HALF} of {} bytes) stays in", fan.size());
        assert!(ran.stderr.contains(&told), "{ran:?}");
    }
    fan.let_go();
    fan.received();
    fan.world.snapdeck(&ALL).ok();
    HOSTS.iter().for_each(|host| fan.assert_pulled(host));
    fan.assert_fetched(fan.size() - HALF);
}

#[test]
fn one_that_is_cancelled_leaves_the_others_to_it() {
    let fan = Fan::new();
    fan.line.hold_from.store(HALF, SeqCst);
    let engine = fan.engine();
    let ids = fan.submit(&engine);
    let job = |id| engine.view().job(id).unwrap().clone();
    until("all three have what they can have", || {
        HOSTS.iter().all(|host| fan.marked(host) == HALF)
    });
    assert!(
        ids.iter().all(|id| job(*id).state == JobState::Running),
        "together, whatever jobs.parallel says (2)"
    );
    let [alpha, beta, gamma] = ids[..] else {
        panic!("{ids:?}")
    };
    // The first one is the one that asked for the fetch.
    engine.cancel(alpha);
    let wait = |id| fan.runtime.block_on(engine.wait(id));
    assert_eq!(wait(alpha).unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(fan.names("alpha"), UNFINISHED);
    fan.let_go();
    for (id, host) in [(beta, "beta"), (gamma, "gamma")] {
        let outcome = wait(id).unwrap();
        assert!(matches!(outcome, Outcome::Pulled { skipped: false, .. }));
        fan.assert_pulled(host);
    }
    fan.assert_fetched(fan.size());
}

#[test]
fn when_all_are_cancelled_the_fetch_ends() {
    let fan = Fan::new();
    fan.line.hold_from.store(HALF, SeqCst);
    let engine = fan.engine();
    let ids = fan.submit(&engine);
    let done = |id: &JobId| engine.view().job(*id).unwrap().progress().done_bytes;
    until("all three download", || {
        ids.iter().all(|id| done(id) > 8 * MIB)
    });
    ids.iter().for_each(|id| engine.cancel(*id));
    for id in ids {
        let error = fan.runtime.block_on(engine.wait(id)).unwrap_err();
        assert_eq!(error.kind(), Kind::Cancelled);
    }
    // The client goes with the last who uses it, and its connections with it.
    drop(engine);
    fan.let_go();
    until("the line is closed", || fan.line.open.load(SeqCst) == 0);
    assert!(fan.received() < fan.size());
}

#[test]
fn a_pull_that_was_killed_is_taken_up_by_the_next() {
    let fan = Fan::new();
    let args = ["pull", "app", "--host", "alpha", "-v"];
    fan.broken_off(HALF, &args, &["alpha"]);
    let ran = fan.world.snapdeck(&args).ok();
    let told = format!("{HALF} of {} bytes are on host alpha", fan.size());
    assert!(ran.stderr.contains(&told), "{ran:?}");
    fan.assert_pulled("alpha");
    fan.assert_fetched(fan.size() - HALF);
}

#[test]
fn hosts_that_came_to_different_points_are_completed_together() {
    let fan = Fan::new();
    let pull = |host| ["pull", "app", "--host", host];
    fan.broken_off(HALF, &pull("alpha"), &["alpha"]);
    fan.broken_off(HALF - 8 * MIB, &pull("beta"), &["beta"]);
    let both = ["pull", "app", "--host", "alpha", "--host", "beta"];
    fan.world.snapdeck(&both).ok();
    fan.assert_pulled("alpha");
    fan.assert_pulled("beta");
    fan.assert_fetched(fan.size() - HALF + 8 * MIB);
    std::fs::remove_file(fan.file("alpha")).unwrap();
    std::fs::remove_file(fan.file("beta")).unwrap();

    // What one lacks is fetched for it, and what all lack once for all.
    fan.broken_off(HALF, &both, &["alpha", "beta"]);
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
fn what_is_left_is_not_used_for_another_object_or_without_its_note() {
    let fan = Fan::new();
    let args = ["pull", "app", "--host", "alpha"];
    let edit = |from: &str, to: &str| {
        let text = std::fs::read_to_string(fan.mark("alpha")).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(fan.mark("alpha"), text.replace(from, to)).unwrap();
    };
    let cases: [(&str, &dyn Fn()); 3] = [
        ("the object is another one", &|| fan.put()),
        ("the note is broken", &|| edit("{", "")),
        ("the note is gone", &|| {
            std::fs::remove_file(fan.mark("alpha")).unwrap();
        }),
    ];
    for (what, change) in cases {
        fan.broken_off(HALF, &args, &["alpha"]);
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
fn after_a_start_of_the_host_what_is_left_is_checked_and_used() {
    let fan = Fan::new();
    let args = ["pull", "app", "--host", "alpha", "--json"];
    fan.broken_off(HALF, &args, &["alpha"]);
    let text = std::fs::read_to_string(fan.mark("alpha")).unwrap();
    let text = text.replace("\"bootId\":\"", "\"bootId\":\"0");
    std::fs::write(fan.mark("alpha"), text).unwrap();
    // One block never reached the disk.
    let partial = std::fs::File::options()
        .write(true)
        .open(fan.partial("alpha"));
    std::os::unix::fs::FileExt::write_all_at(&partial.unwrap(), &[0; 4096], 9 * MIB).unwrap();
    let told = fan.world.snapdeck(&args).ok().json();
    assert_eq!(told["resumedBytes"], json!(HALF - 8 * MIB));
    fan.assert_pulled("alpha");
    fan.assert_fetched(fan.size() - HALF + 8 * MIB);
}

#[test]
fn what_is_left_and_broken_is_found_out_and_thrown_away() {
    use std::os::unix::fs::FileExt;
    let fan = Fan::new();
    let args = ["pull", "app", "--host", "alpha"];
    fan.broken_off(HALF, &args, &["alpha"]);
    let partial = std::fs::File::options()
        .write(true)
        .open(fan.partial("alpha"))
        .unwrap();
    partial.write_all_at(b"no image", 0).unwrap();
    let ran = fan.world.snapdeck(&args);
    ran.failed(1, &["is not fit to be a snapshot", "pull it again"]);
    assert!(!exists(&fan.file("alpha")) && fan.names("alpha").is_empty());
    fan.world.snapdeck(&args).ok();
    fan.assert_pulled("alpha");
}
