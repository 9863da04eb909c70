//! Copies of snapshots between hosts, without the bucket: the real program, libvirt, QEMU and sshd.

use crate::api::server::{Api, TOKEN};
use crate::common::{State, World, exists, sha256, signal, stamp, wait_for_exit, wait_until};
use serde_json::{Value, json};
use snapdeck_model::BLOCK_BYTES;

/// Size of the images in MiB: several blocks.
const IMAGE: u32 = 40;

const COPY: [&str; 7] = [
    "copy", "golden", "--from", "alpha", "--to", "beta", "--json",
];

fn number(result: &Value, key: &str) -> u64 {
    result[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key}: {result}"))
}

fn size(path: &str) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// Asserts that a host has the complete snapshot, and nothing of an unfinished copy.
#[track_caller]
fn assert_copied(world: &World, host: usize, name: &str, image: &str) {
    let host = &world.hosts[host];
    assert_eq!(sha256(&host.snapshot_path(name)), sha256(image));
    let names = host.names("snapshots");
    assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
}

#[test]
fn a_copy_has_the_same_bytes_variables_and_notes() {
    let world = World::hosts(2);
    let image = world.snapshot("golden", IMAGE);
    let variables = world.path("snapshots/golden_VARS.fd");
    std::fs::write(&variables, b"variables of the golden image").unwrap();
    let note = ["note", "golden", "for the fair", "--label", "os=2022"];
    world
        .snapdeck(&[&note[..], &["--host", "alpha"]].concat())
        .ok();
    let before = stamp(&image);

    let result = world.snapdeck(&COPY).ok().json();
    assert_eq!(number(&result, "fetchedBytes"), size(&image), "{result}");
    assert_eq!(
        (&result["from"], &result["host"]),
        (&json!("alpha"), &json!("beta"))
    );
    assert_copied(&world, 1, "golden", &image);
    assert_eq!(stamp(&image), before, "the source was written");
    let beta = &world.hosts[1];
    let copied = std::fs::read(beta.path("snapshots/golden_VARS.fd")).unwrap();
    assert_eq!(copied, std::fs::read(&variables).unwrap());
    let manifest = std::fs::read(beta.path("snapshots/golden.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["notes"], "for the fair");
    assert_eq!(manifest["labels"]["os"], "2022");
    let listed = world.s5cmd(&["ls", "{}/*"]);
    assert_eq!(
        String::from_utf8_lossy(&listed.stdout),
        "",
        "something is in the bucket"
    );

    let again = world.snapdeck(&COPY).ok().json();
    assert_eq!(
        (&again["skipped"], &again["differs"]),
        (&json!(true), &json!(false))
    );
    world.snapdeck(&["verify", "golden", "--host", "beta"]).ok();
}

#[test]
fn what_a_host_says_of_the_object_is_not_copied() {
    let world = World::hosts(2);
    let golden = world.snapshot("golden", IMAGE);
    let other = world.path("scratch/other.qcow2");
    world.image(&other, IMAGE);
    assert_eq!(size(&golden), size(&other));
    world.put(&other, "golden");
    let alpha = ["--host", "alpha"];
    world
        .snapdeck(&[&["adopt", "golden"][..], &alpha].concat())
        .ok();
    // Root on the host says that its image was downloaded from the object.
    let path = world.path("snapshots/golden.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["etag"] = json!(world.etag("golden"));
    std::fs::write(&path, manifest.to_string()).unwrap();
    world.snapdeck(&COPY).ok();

    let beta = ["--host", "beta"];
    let id = world.id("box");
    for args in [
        &["sandbox", "new", &*id, "golden"][..],
        &["push", &id, "box"],
    ] {
        world.snapdeck(&[args, &beta].concat()).ok();
    }
    // The store has copied no block of the other image.
    world.snapdeck(&["verify", "box", "--bucket"]).ok();
}

#[test]
fn only_blocks_that_the_host_does_not_have_are_read() {
    let world = World::hosts(2);
    let old = world.snapshot("golden-v1", IMAGE);
    let copy = |name| {
        let args = ["copy", name, "--from", "alpha", "--to", "beta", "--json"];
        world.snapdeck(&args).ok().json()
    };
    copy("golden-v1");
    let new = world.snapshot_path("golden-v2");
    std::fs::copy(&old, &new).unwrap();
    world.scribble(&new, 80, 1);
    let result = copy("golden-v2");
    let read = number(&result, "fetchedBytes");
    assert!((1..=2 * BLOCK_BYTES).contains(&read), "{result}");
    assert_eq!(read + number(&result, "copiedBytes"), size(&new));
    assert_copied(&world, 1, "golden-v2", &new);
}

#[test]
fn a_copy_goes_to_several_hosts() {
    let world = World::hosts(3);
    let image = world.snapshot("golden", IMAGE);
    let args = [
        "copy",
        "golden",
        "--from",
        "alpha",
        "--to",
        "beta,gamma",
        "--json",
    ];
    let results = world.snapdeck(&args).ok().json();
    assert_eq!(results["results"].as_array().unwrap().len(), 2, "{results}");
    for host in [1, 2] {
        assert_copied(&world, host, "golden", &image);
    }
}

#[test]
fn a_snapshot_in_use_is_not_replaced() {
    let world = World::hosts(2);
    let image = world.snapshot("golden", IMAGE);
    let beta = &world.hosts[1];
    let other = beta.snapshot("golden", IMAGE);
    let before = stamp(&other);
    // Known by a manifest that it is another image.
    world.snapdeck(&["upload", "golden", "--host", "beta"]).ok();
    world
        .snapdeck(&["upload", "golden", "--host", "alpha", "--overwrite"])
        .ok();
    let kept = world.snapdeck(&COPY).ok().json();
    assert_eq!(
        (&kept["skipped"], &kept["differs"]),
        (&json!(true), &json!(true)),
        "{kept}"
    );

    let overwrite = [&COPY[..], &["--overwrite"]].concat();
    let id = beta.sandbox("a", "golden", State::Off);
    world
        .snapdeck(&overwrite)
        .failed(4, &["cannot replace golden on host beta", &id]);
    assert_eq!(stamp(&other), before);
    world
        .snapdeck(&["sandbox", "destroy", &id, "--yes", "--host", "beta"])
        .ok();
    world.snapdeck(&["pin", "golden", "--host", "beta"]).ok();
    world.snapdeck(&overwrite).failed(4, &["pinned"]);
    world.snapdeck(&["unpin", "golden", "--host", "beta"]).ok();
    world.snapdeck(&overwrite).ok();
    assert_copied(&world, 1, "golden", &image);
}

#[test]
fn a_killed_copy_is_resumed() {
    let world = World::over_ssh(2);
    let image = world.snapshot("golden", IMAGE);
    let gate = world.hosts[1].gate("check");
    let child = world.start(&COPY);
    gate.wait_reached();
    signal(&child, "KILL");
    wait_for_exit(child);
    gate.open();
    assert!(!exists(&world.hosts[1].snapshot_path("golden")));
    let result = world.snapdeck(&COPY).ok().json();
    assert_eq!(number(&result, "resumedBytes"), size(&image), "{result}");
    assert_eq!(number(&result, "fetchedBytes"), 0);
    assert_copied(&world, 1, "golden", &image);
}

#[test]
fn a_copy_of_a_killed_server_is_resumed_by_the_next() {
    let world = World::hosts(2);
    let image = world.hosts[1].snapshot("golden", IMAGE);
    let gate = world.gate("check");
    let start = || {
        let token = ("SNAPDECK_API_TOKEN", TOKEN);
        Api::start_with(&world, &["--host", "alpha"], &[token])
    };
    let api = start();
    let body = json!({"snapshot": "golden", "from": "beta"});
    api.begin("/snapshots/copy", &body);
    gate.wait_reached();
    api.signal("KILL");
    api.wait_for_exit();
    gate.open();
    let api = start();
    wait_until("the job is finished", || api.state(1) == "finished");
    assert_copied(&world, 0, "golden", &image);
}

#[test]
fn what_cannot_be_copied_is_refused() {
    let world = World::hosts(2);
    world
        .snapdeck(&COPY)
        .failed(3, &["golden is not on host alpha"]);
    let itself = ["copy", "golden", "--from", "alpha", "--to", "alpha"];
    world.snapdeck(&itself).failed(2, &["it is the same host"]);
    let unknown = ["copy", "golden", "--from", "alpha", "--to", "delta"];
    world
        .snapdeck(&unknown)
        .failed(2, &["delta is not configured"]);
    let named = [&COPY[..], &["--host", "alpha"]].concat();
    world.snapdeck(&named).failed(2, &["--from and --to"]);

    // A damaged block of the source, whose manifest is that of a pull.
    let image = world.snapshot("golden", IMAGE);
    for command in [&["upload"][..], &["remove", "--local"], &["pull"]] {
        let args = [command, &["golden", "--host", "alpha"]].concat();
        world.snapdeck(&args).ok();
    }
    world.scribble(&image, 80, 1);
    world
        .snapdeck(&COPY)
        .failed(1, &["do not match its manifest"]);
    assert!(world.hosts[1].names("snapshots").is_empty());
}

#[test]
fn the_api_copies_a_snapshot_to_its_host() {
    let world = World::hosts(2);
    let image = world.hosts[1].snapshot("golden", 1);
    let token = ("SNAPDECK_API_TOKEN", TOKEN);
    let api = Api::start_with(&world, &["--host", "alpha"], &[token]);
    let body = json!({"snapshot": "golden", "from": "beta"});
    let result = api.post("/snapshots/copy", &body).expect_status(200);
    assert_eq!(
        (&result["from"], &result["host"]),
        (&json!("beta"), &json!("alpha"))
    );
    assert_copied(&world, 0, "golden", &image);
    let unknown = json!({"snapshot": "golden", "from": "delta"});
    api.post("/snapshots/copy", &unknown)
        .failed(404, "notFound", &["delta"]);
    let itself = json!({"snapshot": "golden", "from": "alpha"});
    api.post("/snapshots/copy", &itself)
        .failed(409, "conflict", &["cannot copy from itself"]);
}
