//! Leftovers of interrupted operations.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::common::{World, exists};

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

#[test]
fn old_unused_leftovers_on_a_host_are_removed() {
    let world = World::new();
    let file = |name: &str| world.path(&format!("snapshots/{name}"));
    for name in [
        ".old.qcow2.partial",
        ".young.qcow2.partial",
        ".locked.qcow2.partial",
        "old.qcow2.partial",
    ] {
        std::fs::write(file(name), [1; 9000]).unwrap();
        age(&file(name), 25);
    }
    age(&file(".young.qcow2.partial"), 23);
    let resume_log = file(".old.qcow2.partial.mark");
    std::fs::write(&resume_log, "{}").unwrap();
    age(&resume_log, 25);
    let locked = std::fs::File::open(file(".locked.qcow2.partial")).unwrap();
    locked.try_lock().unwrap();
    let dir = |name: &str| world.path(&format!("temp/{name}"));
    for name in [
        "snapdeck-old",
        "snapdeck-busy",
        "snapdeck-open",
        "foreign-old",
    ] {
        std::fs::create_dir(dir(name)).unwrap();
        std::fs::write(format!("{}/disk.qcow2", dir(name)), [1; 9000]).unwrap();
        age(&format!("{}/disk.qcow2", dir(name)), 25);
        age(&dir(name), 25);
    }
    age(&format!("{}/disk.qcow2", dir("snapdeck-busy")), 1);
    let open = std::fs::File::open(format!("{}/disk.qcow2", dir("snapdeck-open"))).unwrap();
    std::os::unix::fs::symlink(dir("foreign-old"), dir("snapdeck-link")).unwrap();

    let old = [file(".old.qcow2.partial"), dir("snapdeck-old")];
    let dry = ["prune", "--leftovers", "--local", "--dry-run", "--json"];
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(paths(&plan), old, "{plan}");
    assert!(plan["reclaimedBytes"].as_u64().unwrap() >= 18_000, "{plan}");
    assert!(old.iter().all(|path| exists(path)));

    let ran = world
        .snapdeck(&["prune", "--leftovers", "--local", "--yes"])
        .ok();
    assert!(
        ran.stdout.contains("removed temporary directory"),
        "{ran:?}"
    );
    assert!(!old.iter().any(|path| Path::new(path).exists()) && !exists(&resume_log));
    for name in [
        ".young.qcow2.partial",
        ".locked.qcow2.partial",
        "old.qcow2.partial",
    ] {
        assert!(exists(&file(name)), "{name}");
    }
    for name in [
        "snapdeck-busy",
        "snapdeck-open",
        "foreign-old",
        "snapdeck-link",
    ] {
        assert!(Path::new(&dir(name)).exists(), "{name}");
    }
    drop((locked, open));
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
                    "<Upload><Key>{prefix}{name}</Key><UploadId>id-{name}</UploadId><Initiated>{at}</Initiated></Upload>"
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
fn uploads_without_new_parts_for_a_day_are_removed() {
    let world = World::new();
    let (address, deleted) = store_with_uploads(format!("{}/", world.tag));
    world.reconfigure(&std::env::var("SNAPDECK_LAB_S3").unwrap(), &address);
    let dry = ["prune", "--leftovers", "--bucket", "--dry-run", "--json"];
    let plan = world.snapdeck(&dry).ok().json();
    assert_eq!(paths(&plan), [format!("{}/app.qcow2", world.tag)], "{plan}");
    assert_eq!(plan["reclaimedBytes"], 700);
    assert!(deleted.lock().unwrap().is_empty());
    world
        .snapdeck(&["prune", "--leftovers", "--bucket", "--yes"])
        .ok();
    let deleted = deleted.lock().unwrap();
    assert_eq!(deleted.len(), 1, "{deleted:?}");
    assert!(deleted[0].contains("app.qcow2") && deleted[0].contains("id-app.qcow2"));
}
