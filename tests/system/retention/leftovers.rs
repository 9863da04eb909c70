//! Leftovers of interrupted operations.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::common::{
    State, World, exists, only_local, output, process_tree, run, sha256, signal, wait_for_exit,
    wait_until,
};

fn age(path: &str, hours: u64) {
    let at = SystemTime::now() - Duration::from_secs(hours * 60 * 60);
    std::fs::File::open(path).unwrap().set_modified(at).unwrap();
}

fn paths(plan: &Value) -> Vec<String> {
    let all = plan["leftovers"].as_array().unwrap();
    let mut paths: Vec<String> = all
        .iter()
        .map(|leftover| leftover["path"].as_str().unwrap().to_owned())
        .collect();
    paths.sort();
    paths
}

/// Creates a file or directory of an interrupted job, with its mark; `None` for one without.
///
/// With `is_recorded` it is also in the state directory, as if this installation had created it.
fn leave(world: &World, path: &str, creator: Option<&str>, is_recorded: bool) {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let id = format!("{:032x}", NEXT.fetch_add(1, Relaxed));
    let mark = creator
        .map(|creator| json!({"id": id, "creator": creator, "created": "2026-01-02T03:04:05Z"}));
    if path.ends_with(".partial") {
        std::fs::write(path, [1; 9000]).unwrap();
        let mut header = json!({"content": {"version": "v", "sizeBytes": 9000}, "bootId": "b"});
        if let Some(mark) = mark {
            header["owner"] = mark;
        }
        std::fs::write(format!("{path}.mark"), format!("{header}\t")).unwrap();
    } else {
        std::fs::create_dir(path).unwrap();
        std::fs::write(format!("{path}/disk.qcow2"), [1; 9000]).unwrap();
        if let Some(mark) = mark {
            std::fs::write(format!("{path}/.snapdeck-owner"), mark.to_string()).unwrap();
        }
    }
    if is_recorded {
        let dir = world.dir.join("home/.local/state/snapdeck/owned");
        std::fs::create_dir_all(&dir).unwrap();
        let record = json!({
            "location": world.uri(), "path": path, "id": id, "created": jiff::Timestamp::now()
        });
        std::fs::write(dir.join(format!("{id}.json")), record.to_string()).unwrap();
    }
}

/// Makes a leftover and what is in it or beside it older than a day.
fn make_old(path: &str) {
    run(
        "find",
        &[
            path,
            "-exec",
            "touch",
            "-h",
            "-d",
            "25 hours ago",
            "{}",
            "+",
        ],
    );
    let log = format!("{path}.mark");
    if exists(&log) {
        age(&log, 25);
    }
}

#[test]
fn old_unused_leftovers_on_a_host_are_removed() {
    let world = World::new();
    let file = |name: &str| world.path(&format!("snapshots/{name}"));
    let dir = |name: &str| world.path(&format!("temp/{name}"));
    let backup = |name: &str| world.path(&format!("sandboxes/{name}"));
    let old = [
        file(".old.qcow2.partial"),
        file(".old_VARS.fd.partial"),
        file(".older.qcow2.pull"),
        file(".older_VARS.fd.pull"),
        backup(".vm.0a1b2c3d.backup"),
        dir("snapdeck-old"),
    ];
    let kept = [
        file(".young.qcow2.partial"),
        file(".locked.qcow2.partial"),
        dir("snapdeck-busy"),
        dir("snapdeck-open"),
        file(".held.qcow2.pull"),
        dir("snapdeck-link"),
    ];
    for path in old.iter().chain(&kept[..5]) {
        leave(&world, path, Some("root on here, process 1"), true);
        make_old(path);
    }
    age(&kept[0], 23);
    let locked = std::fs::File::open(&kept[1]).unwrap();
    locked.try_lock().unwrap();
    age(&format!("{}/disk.qcow2", kept[2]), 1);
    let open = std::fs::File::open(format!("{}/disk.qcow2", kept[3])).unwrap();
    // Its writer may be in a container.
    let held = std::fs::File::create(format!("{}/partial", kept[4])).unwrap();
    held.try_lock().unwrap();
    make_old(&kept[4]);
    std::os::unix::fs::symlink(world.path("scratch"), &kept[5]).unwrap();
    // Only the link is removed, never what it names.
    let target = world.path("scratch/precious");
    std::fs::write(&target, "data").unwrap();
    std::os::unix::fs::symlink(world.path("scratch"), format!("{}/link", old[5])).unwrap();
    make_old(&old[5]);

    let dry = ["prune", "--leftovers", "--local", "--dry-run", "--json"];
    let plan = world.snapdeck(&dry).ok().json();
    let mut expected = old.clone();
    expected.sort();
    assert_eq!(paths(&plan), expected, "{plan}");
    assert!(plan["reclaimedBytes"].as_u64().unwrap() >= 54_000, "{plan}");
    assert!(old.iter().all(|path| Path::new(path).exists()));

    let ran = world
        .snapdeck(&["prune", "--leftovers", "--local", "--yes"])
        .ok();
    assert!(
        ran.stdout.contains("removed temporary directory"),
        "{ran:?}"
    );
    assert!(!old.iter().any(|path| Path::new(path).exists()), "{ran:?}");
    assert!(!exists(&format!("{}.mark", old[0])) && exists(&target));
    for path in &kept {
        assert!(Path::new(path).exists(), "{path}");
    }
    let records = world.dir.join("home/.local/state/snapdeck/owned");
    assert_eq!(std::fs::read_dir(records).unwrap().count(), 5);
    drop((locked, open, held));
}

#[test]
fn the_directory_of_a_killed_pull_is_its_operators() {
    let world = World::new();
    let image = world.path("scratch/image.qcow2");
    world.image(&image, 2);
    world.put(&image, "app");
    let (child, gate) = world.start_to_gate("check", &["pull", "app"]);
    signal(&child, "KILL");
    wait_for_exit(child);
    gate.open();
    let dir = world.path("snapshots/.app.qcow2.pull");
    let is_unlocked = || {
        let flock = Command::new("flock")
            .args(["-n", &format!("{dir}/partial"), "true"])
            .status();
        flock.unwrap().success()
    };
    wait_until("the partial file is unlocked", is_unlocked);
    make_old(&dir);
    let dry = ["prune", "--leftovers", "--local", "--dry-run", "--json"];
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(paths(&plan), [&*dir]);
    assert_eq!(plan["leftovers"][0]["kind"], "partial");
    assert_eq!(plan["leftovers"][0]["name"], "app");
    let other = output(world.command(&dry).env("HOME", &world.dir));
    let plan: Value = serde_json::from_slice(&other.stdout).unwrap();
    assert_eq!(paths(&plan), [""; 0], "it is another operator's");
    assert_eq!(plan["foreignLeftovers"][0]["path"], *dir);
    world
        .snapdeck(&["prune", "--leftovers", "--local", "--yes"])
        .ok();
    assert_eq!(world.names("snapshots"), [""; 0]);
    let records = world.dir.join("home/.local/state/snapdeck/owned");
    assert_eq!(std::fs::read_dir(records).unwrap().count(), 0);
}

#[test]
fn a_partial_download_is_listed_and_freed_at_once() {
    let world = World::new();
    let image = world.path("scratch/image.qcow2");
    world.image(&image, 2);
    world.put(&image, "app");
    let (child, gate) = world.start_to_gate("check", &["pull", "app"]);
    let list = ["snapshots", "--partial", "--json"];
    let listed = world.snapdeck(&list).ok().json();
    assert_eq!(listed[0]["name"], "app", "{listed}");
    let bytes = listed[0]["allocatedBytes"].as_u64().unwrap();
    assert!(bytes >= 1 << 20, "{listed}");
    // While the pull runs, its lock is held.
    let prune = ["prune", "--partial", "app", "--local", "--yes"];
    world.snapdeck(&prune).failed(4, &["pull app"]);
    assert!(exists(&world.path("snapshots/.app.qcow2.pull/partial")));
    signal(&child, "INT");
    wait_for_exit(child);
    gate.open();

    let other = world.path("snapshots/.other.qcow2.pull");
    leave(&world, &other, Some("root on here, process 1"), true);
    let dry = [
        "prune",
        "--partial",
        "app",
        "--local",
        "--dry-run",
        "--json",
    ];
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(paths(&plan), [&*world.path("snapshots/.app.qcow2.pull")]);
    assert!(plan["reclaimedBytes"].as_u64().unwrap() >= 1 << 20);
    // Another operator sees it, and it stays.
    let run = output(world.command(&prune).env("HOME", &world.dir));
    let message = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(4), "{message}");
    assert!(
        message.contains("another installation created it"),
        "{message}"
    );
    assert!(message.contains("--foreign"), "{message}");
    assert!(exists(&world.path("snapshots/.app.qcow2.pull")));
    let ran = world.snapdeck(&prune).ok();
    assert!(ran.stdout.contains("removed partial pull"), "{ran:?}");
    assert_eq!(world.names("snapshots"), [".other.qcow2.pull"]);
    let ran = world.snapdeck(&prune).ok();
    assert!(ran.stdout.contains("no partial pull of app"), "{ran:?}");
    // A directory of that name without a mark is listed, but stays.
    let unmarked = world.path("snapshots/.mine.qcow2.pull");
    std::fs::create_dir(&unmarked).unwrap();
    std::fs::write(format!("{unmarked}/partial"), [0; 4096]).unwrap();
    let listed = world.snapdeck(&["snapshots", "--partial"]).ok();
    assert!(listed.stdout.contains("not removable"), "{listed:?}");
    let prune = ["prune", "--partial", "mine", "--local", "--yes"];
    world
        .snapdeck(&prune)
        .failed(4, &["nothing proves", ".mine.qcow2.pull"]);
    assert!(exists(&unmarked));
}

#[test]
fn partial_files_of_earlier_versions_do_not_hold_up_a_pull() {
    let world = World::new();
    let image = world.path("scratch/image.qcow2");
    world.image(&image, 2);
    world.put(&image, "app");
    let old = world.path("snapshots/.app.qcow2.partial");
    leave(&world, &old, Some("root on here, process 1"), true);
    world.snapdeck(&["pull", "app"]).ok();
    assert!(exists(&old));
    make_old(&old);
    world
        .snapdeck(&["prune", "--leftovers", "--local", "--yes"])
        .ok();
    assert_eq!(world.names("snapshots"), ["app.qcow2"]);
}

#[test]
fn leftovers_of_others_are_shown_and_removed_only_on_request() {
    let world = World::new();
    let all = [
        world.path("sandboxes/.vm.0a1b2c3d.backup"),
        world.path("snapshots/.app.qcow2.partial"),
        world.path("snapshots/.new.qcow2.pull"),
        world.path("snapshots/.older.qcow2.partial"),
        world.path("temp/snapdeck-0a1b2c3d"),
    ];
    for path in &all {
        let creator = (!path.contains("older")).then_some("ada on build-1, process 7");
        leave(&world, path, creator, false);
        make_old(path);
    }
    let ran = world
        .snapdeck(&["prune", "--leftovers", "--local", "--yes"])
        .ok();
    assert!(ran.stdout.contains("other installations"), "{ran:?}");
    for word in ["ada on build-1", "unknown", "nothing to remove"] {
        assert!(ran.stdout.contains(word), "{word}: {ran:?}");
    }
    let plan = ["prune", "--leftovers", "--local", "--dry-run", "--json"];
    let plan = world.snapdeck(&plan).ok().json();
    assert_eq!(paths(&plan), [""; 0]);
    assert_eq!(plan["foreignLeftovers"].as_array().unwrap().len(), 5);
    assert_eq!(plan["reclaimedBytes"], 0);
    assert!(all.iter().all(|path| Path::new(path).exists()));
    // They are asked for, or requested by name of the flag.
    world
        .snapdeck(&["prune", "--leftovers", "--foreign", "--local"])
        .failed(2, &["--yes"]);
    world
        .snapdeck(&["prune", "--leftovers", "--foreign", "--local", "--yes"])
        .ok();
    assert!(!all.iter().any(|path| Path::new(path).exists()));
}

#[test]
fn directories_of_an_operator_stay_whatever_their_names_are() {
    let (world, id) = World::with_sandbox(State::Running);
    let all = [
        world.path("sandboxes/.accounting.before-upgrade-2026.backup"),
        world.path(&format!("sandboxes/.{id}.0a1b2c3d.backup")),
        world.path("temp/snapdeck-my-own-disks"),
        world.path("temp/snapdeck-0a1b2c3d"),
        world.path("snapshots/.mine.qcow2.pull"),
    ];
    for dir in &all {
        leave(&world, dir, None, false);
    }
    // A directory has the id of another one, of which it is a copy.
    let source = world.path(&format!("temp/snapdeck-{}", "a".repeat(8)));
    leave(&world, &source, Some("root on here, process 1"), true);
    let copy = world.path(&format!("sandboxes/.{id}.copied.backup"));
    run("cp", &["-a", &source, &copy]);
    // The text of a mark is not one.
    std::fs::write(format!("{}/.snapdeck-owner", all[1]), "{}").unwrap();
    std::fs::write(format!("{}/paused", all[1]), "").unwrap();
    for dir in all.iter().chain([&source, &copy]) {
        make_old(dir);
    }
    for partial in [".mine.qcow2.partial", ".noted.qcow2.partial"] {
        let path = world.path(&format!("snapshots/{partial}"));
        std::fs::write(&path, "mine").unwrap();
        age(&path, 25);
    }
    let note = world.path("snapshots/.noted.qcow2.partial.mark");
    std::fs::write(&note, "half done, ask ada\n").unwrap();
    age(&note, 25);
    for verb in ["pause", "resume", "pause"] {
        world.snapdeck(&["sandbox", verb, &id]).ok();
    }
    assert_eq!(world.state(&id), "paused");
    world.snapdeck(&["create", &id, "app"]).ok();
    assert_eq!(world.state(&id), "paused", "its pause is the operator's");
    world
        .snapdeck(&["prune", "--leftovers", "--local", "--yes"])
        .ok();
    assert!(!Path::new(&source).exists(), "its own leftover stays");
    world.snapdeck(&["sandbox", "resume", &id]).ok();
    for dir in all.iter().chain([&copy]) {
        assert!(exists(&format!("{dir}/disk.qcow2")), "{dir}");
    }
    let partials = [
        ".mine.qcow2.partial",
        ".noted.qcow2.partial",
        ".noted.qcow2.partial.mark",
    ];
    for name in partials {
        assert!(exists(&world.path(&format!("snapshots/{name}"))), "{name}");
    }
    let ran = world.snapdeck(&["doctor", "--json"]);
    assert!(!ran.stdout.contains("my-own-disks"), "{ran:?}");
}

#[test]
fn another_operators_backup_is_left_to_its_operator() {
    if only_local("the watchdog runs on the host, not as a child") {
        return;
    }
    let (world, id) = World::with_sandbox(State::Running);
    let (child, _faults) = world.start_to_parts(&["create", &id, "app"]);
    let tree = process_tree(child.id());
    let all = tree.iter().rev().map(u32::to_string);
    let _ = Command::new("kill").arg("-9").args(all).status();
    wait_for_exit(child);
    let backup = || {
        let names = world.names("sandboxes");
        names.into_iter().find(|name| name.ends_with(".backup"))
    };
    assert!(backup().is_some());
    let other = output(
        world
            .command(&["sandbox", "pause", &id])
            .env("HOME", &world.dir),
    );
    assert!(other.status.success(), "{other:?}");
    assert!(backup().is_some(), "another operator has removed it");
    world.snapdeck(&["sandbox", "resume", &id]).ok();
    assert_eq!(backup(), None, "its operator has not removed it");
}

#[test]
fn a_bucket_without_uploads_has_no_leftovers() {
    let world = World::new();
    let dry = ["prune", "--leftovers", "--bucket", "--dry-run", "--json"];
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(paths(&plan), Vec::<String>::new(), "{plan}");
    assert_eq!(
        plan["warnings"],
        serde_json::json!([]),
        "the store cannot list uploads"
    );
}

/// Starts a store with three unfinished uploads: `app` from three days ago, `late` from three days ago with a part sent
/// now, and `new` from now. Returns its address and the DELETE requests that it received.
fn store_with_uploads(prefix: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let deleted = Arc::new(Mutex::new(Vec::new()));
    let requests = deleted.clone();
    let stamp = |ago: u64| {
        let at = SystemTime::now() - Duration::from_secs(ago);
        jiff::Timestamp::try_from(at)
            .unwrap()
            .strftime("%Y-%m-%dT%H:%M:%S.000Z")
            .to_string()
    };
    let (old, now) = (stamp(3 * 24 * 60 * 60), stamp(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let Some(Ok(first)) = lines.next() else {
                continue;
            };
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let upload = |name: &str, at: &str| {
                format!(
                    "<Upload><Key>{prefix}{name}</Key><UploadId>id-{name}</UploadId><Initiated>{at}</Initiated>\
                     <Initiator><ID>1</ID><DisplayName>build-1</DisplayName></Initiator></Upload>"
                )
            };
            let part = |at: &str| {
                format!(
                    "<Part><PartNumber>1</PartNumber><LastModified>{at}</LastModified><Size>700</Size></Part>"
                )
            };
            let (status, body) = if first.starts_with("DELETE") {
                requests.lock().unwrap().push(first.clone());
                ("204 No Content", String::new())
            } else if first.contains("uploadId=id-late") {
                (
                    "200 OK",
                    format!("<ListPartsResult>{}</ListPartsResult>", part(&now)),
                )
            } else if first.contains("uploadId=") {
                (
                    "200 OK",
                    format!("<ListPartsResult>{}</ListPartsResult>", part(&old)),
                )
            } else {
                let uploads = [
                    upload("app.qcow2", &old),
                    upload("late.qcow2", &old),
                    upload("new.qcow2", &now),
                    upload("foreign.iso", &old),
                ];
                let uploads = uploads.concat();
                (
                    "200 OK",
                    format!("<ListMultipartUploadsResult>{uploads}</ListMultipartUploadsResult>"),
                )
            };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    (format!("http://{address}"), deleted)
}

#[test]
fn own_uploads_without_new_parts_for_a_day_are_removed() {
    let world = World::new();
    let (address, deleted) = store_with_uploads(format!("{}/", world.tag));
    world.reconfigure(&std::env::var("SNAPDECK_LAB_S3").unwrap(), &address);
    let dry = ["prune", "--leftovers", "--bucket", "--dry-run", "--json"];
    let app = format!("{}/app.qcow2", world.tag);
    let foreign = |plan: &Value| plan["foreignLeftovers"][0]["path"].clone();
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(
        (paths(&plan), foreign(&plan)),
        (vec![], json!(app)),
        "{plan}"
    );
    assert_eq!(plan["foreignLeftovers"][0]["creator"], "build-1");
    let ran = world
        .snapdeck(&["prune", "--leftovers", "--bucket", "--yes"])
        .ok();
    assert!(ran.stdout.contains("build-1"), "{ran:?}");
    assert!(
        deleted.lock().unwrap().is_empty(),
        "another client's upload"
    );
    // The same upload, begun by this installation.
    let records = world.dir.join("home/.local/state/snapdeck/owned");
    std::fs::create_dir_all(&records).unwrap();
    let location = format!(
        "{address}/{}",
        std::env::var("SNAPDECK_LAB_BUCKET").unwrap()
    );
    let record = json!({
        "location": location, "path": app, "id": "id-app.qcow2", "created": jiff::Timestamp::now()
    });
    std::fs::write(records.join("1.json"), record.to_string()).unwrap();
    // It can be continued.
    let description = json!({
        "format": 1, "location": location, "key": app, "uploadId": "id-app.qcow2", "uploadTag": "tag",
        "checksums": "none", "partBytes": 8 << 20, "options": "", "created": jiff::Timestamp::now(),
        "source": {"host": "alpha", "path": "/a", "stamp": {"inode": 1, "modifiedNs": 2, "sizeBytes": 700}},
    });
    let uploads = world.dir.join("home/.local/state/snapdeck/uploads");
    let name = world.path("scratch/name");
    std::fs::write(&name, format!("{location}/{app}")).unwrap();
    std::fs::create_dir_all(&uploads).unwrap();
    let record = uploads.join(sha256(&name));
    std::fs::write(&record, format!("{description}\n")).unwrap();
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(paths(&plan), [&*app], "{plan}");
    let until: jiff::Timestamp = plan["leftovers"][0]["continuableUntil"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(until > jiff::Timestamp::now() + jiff::SignedDuration::from_hours(6 * 24));
    assert_eq!(plan["reclaimedBytes"], 700);
    let ran = world.snapdeck(&dry[..4]).ok();
    assert!(ran.stdout.contains("can be continued until "), "{ran:?}");
    assert!(deleted.lock().unwrap().is_empty());
    // Not while a process does so.
    let file = std::fs::File::open(&record).unwrap();
    file.lock().unwrap();
    let prune = ["prune", "--leftovers", "--bucket", "--yes"];
    world.snapdeck(&prune).ok();
    assert!(deleted.lock().unwrap().is_empty());
    drop(file);
    world.snapdeck(&prune).ok();
    assert!(!record.exists());
    let deleted = deleted.lock().unwrap();
    assert_eq!(deleted.len(), 1, "{deleted:?}");
    assert!(deleted[0].contains("app.qcow2") && deleted[0].contains("id-app.qcow2"));
}

#[test]
fn of_two_pushes_of_one_name_one_wins_and_the_other_fails() {
    let (world, id) = World::with_sandbox(State::Off);
    let other = world.sandbox("b", "base", State::Off);
    let direct = std::fs::read_to_string(world.config()).unwrap();
    let (child, faults) = world.start_to_parts(&["push", &id, "app"]);
    // The other operator has another state directory and needs no proxy.
    let config = world.path("scratch/other.toml");
    std::fs::write(&config, direct).unwrap();
    let push = |args: &[&str]| {
        let mut command = world.command(args);
        command
            .env("HOME", world.path("scratch"))
            .env("SNAPDECK_CONFIG", &config);
        output(&mut command)
    };
    let won = push(&["push", &other, "app"]);
    assert!(won.status.success(), "{won:?}");
    let (etag, manifest) = (world.etag("app"), world.manifest("app"));
    faults.hold_parts.store(false, SeqCst);
    wait_for_exit(child).failed(4, &["app.qcow2", "already exists"]);
    assert_eq!(world.etag("app"), etag, "the winner's object is lost");
    assert_eq!(world.manifest("app"), manifest);
    assert_eq!(world.uploads(), "[]");
}

#[test]
fn an_upload_of_a_killed_push_belongs_to_its_operator() {
    let (world, id) = World::with_sandbox(State::Off);
    let (child, _faults) = world.start_to_parts(&["push", &id, "app"]);
    signal(&child, "KILL");
    wait_for_exit(child);
    assert_ne!(world.uploads(), "[]");
    let records = world.dir.join("home/.local/state/snapdeck/owned");
    let texts: Vec<String> = std::fs::read_dir(records)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let key = format!("{}/app.qcow2", world.tag);
    assert!(texts.iter().any(|text| text.contains(&key)), "{texts:?}");
    // It is not a day old: it may belong to a process that still runs.
    world
        .snapdeck(&["prune", "--leftovers", "--foreign", "--bucket", "--yes"])
        .ok();
    assert_ne!(world.uploads(), "[]");
}
