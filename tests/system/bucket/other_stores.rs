//! Stores of other kinds: rclone, moto; buckets with versions, locks and keys.

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{
    BucketVersioningStatus, DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled,
    ObjectLockRetention, ObjectLockRetentionMode, ObjectLockRule, VersioningConfiguration,
};
use serde_json::Value;
use std::time::{Duration, SystemTime};
use tokio::runtime::Runtime;

use super::{assert_error, name, upload};
use crate::common::hostile::{Answer, Body, HostileStore};
use crate::common::{State, World, lab};
use bytes::Bytes;
use snapdeck_model::Kind;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    Runtime::new().unwrap().block_on(future)
}

/// Returns a check of the bucket as JSON.
#[track_caller]
fn check(world: &World, name: &str) -> Value {
    let report = world.snapdeck(&["doctor", "--json"]).json();
    let reports = report["healthChecks"].as_array().unwrap();
    let report = reports.iter().find(|report| report["host"].is_null());
    let checks = report.unwrap()["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name);
    check
        .unwrap_or_else(|| panic!("{name}: {checks:?}"))
        .clone()
}

/// Creates the bucket of the lab, with versions, and with Object Lock for a day if `locked`.
fn make_versioned_bucket(client: &Client, locked: bool) {
    let bucket = lab("SNAPDECK_LAB_BUCKET");
    block_on(async {
        let create = client.create_bucket().bucket(&bucket);
        let create = create.object_lock_enabled_for_bucket(locked);
        create.send().await.unwrap();
        let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled);
        let versioning = client.put_bucket_versioning().bucket(&bucket);
        let versioning = versioning.versioning_configuration(enabled.build());
        versioning.send().await.unwrap();
        if locked {
            let mode = ObjectLockRetentionMode::Governance;
            let retention = DefaultRetention::builder().mode(mode).days(1).build();
            let rule = ObjectLockRule::builder()
                .default_retention(retention)
                .build();
            let lock = ObjectLockConfiguration::builder()
                .object_lock_enabled(ObjectLockEnabled::Enabled)
                .rule(rule)
                .build();
            let call = client.put_object_lock_configuration().bucket(&bucket);
            call.object_lock_configuration(lock).send().await.unwrap();
        }
    });
}

fn count_versions(client: &Client) -> usize {
    let call = client.list_object_versions();
    let listed = block_on(call.bucket(lab("SNAPDECK_LAB_BUCKET")).send()).unwrap();
    listed.versions().len()
}

#[test]
fn rclone_below_a_path_keeps_snapshots() {
    for path in ["/storage/v1/s3", "/storage/v1/s3/"] {
        let world = World::new();
        let _server = world.use_rclone(path);
        world.live_in_store();
    }
}

#[test]
fn a_store_that_verifies_no_checksum_is_named() {
    let world = World::new();
    let server = world.use_moto();
    let bucket = lab("SNAPDECK_LAB_BUCKET");
    block_on(server.client().create_bucket().bucket(bucket).send()).unwrap();
    world.live_in_store();
    let checksums = check(&world, "checksums");
    assert_eq!(checksums["verdict"], "warning", "{checksums}");
    let finding = checksums["finding"].as_str().unwrap();
    assert!(
        finding.contains("accepts a part with a wrong CRC64NVME"),
        "{finding}"
    );
}

#[test]
fn every_write_to_a_locked_bucket_has_a_checksum() {
    let world = World::new();
    let faults = world.use_proxy();
    world.live_in_store();
    for request in faults.requests.lock().unwrap().iter() {
        let line = request.lines().next().unwrap();
        let is_copy = request.contains("x-amz-copy-source");
        let has_checksum = ["content-md5:", "x-amz-checksum-", "x-amz-trailer:"]
            .iter()
            .any(|header| request.to_lowercase().contains(header));
        assert!(
            !line.starts_with("PUT ") || is_copy || has_checksum,
            "{request}"
        );
    }
}

#[test]
fn what_a_bucket_with_versions_keeps_is_named_and_freed_on_request() {
    let world = World::new();
    let server = world.use_moto();
    let client = server.client();
    make_versioned_bucket(&client, false);
    world.snapshot("base", 4);
    let versions = check(&world, "versions");
    assert_eq!(versions["verdict"], "warning", "{versions}");
    world.snapdeck(&["upload", "base"]).ok();
    let pruned = world.snapdeck(&["prune", "--bucket", "--unused", "--dry-run"]);
    assert!(
        pruned
            .stderr
            .contains("keeps old versions: nothing is freed"),
        "{pruned:?}"
    );
    let removed = world.snapdeck(&["remove", "base", "--bucket"]).ok();
    assert!(removed.stderr.contains("no space is freed"), "{removed:?}");
    assert!(count_versions(&client) >= 2);

    world.reconfigure("[bucket]", "[bucket]\ndelete_versions = true");
    assert_eq!(check(&world, "versions")["verdict"], "passed");
    world.snapdeck(&["upload", "base"]).ok();
    let before = count_versions(&client);
    world.snapdeck(&["upload", "base", "base2"]);
    let removed = world.snapdeck(&["remove", "base", "--bucket"]).ok();
    assert!(!removed.stderr.contains("no space is freed"), "{removed:?}");
    // Those of doctor's probe stay: they are no snapshot's.
    assert!(count_versions(&client) < before, "{removed:?}");
    let call = client
        .list_object_versions()
        .bucket(lab("SNAPDECK_LAB_BUCKET"));
    let image = format!("{}/base.qcow2", world.tag);
    let left = block_on(call.prefix(&image).send()).unwrap();
    assert!(left.versions().is_empty(), "{left:?}");
    let listed = world.snapdeck(&["objects", "--json"]).ok();
    assert!(!listed.stdout.contains("\"base\""), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_lookup_says_that_the_object_may_be_missing() {
    let store = HostileStore::start(|_| Answer::new(403, Body::Text(Vec::new())));
    let error = store.bucket().head(&name("app")).await.unwrap_err();
    let words = [
        "cannot look up",
        "denied access",
        "s3:ListBucket",
        "does not exist",
    ];
    assert_error(&error, Kind::Unreachable, &words);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_answer_to_the_begin_of_an_upload_is_named_at_once() {
    let store = HostileStore::start(|request| {
        let has = |text: &str| request.line.contains(text);
        match (has("uploads"), has(".qcow2")) {
            (true, _) => Answer::ok("<Began><Id>1</Id></Began>").header("server", "Odd/1"),
            (false, true) => Answer::not_found(),
            (false, false) => Answer::ok(""),
        }
    });
    let bytes = Bytes::from_static(b"image");
    let error = upload(&store.bucket(), "app", &bytes, false)
        .await
        .unwrap_err();
    let words = [
        "(Odd/1) answers CreateMultipartUpload in a form",
        "docs/stores.md",
    ];
    assert_error(&error, Kind::Failed, &words);
}

#[test]
fn a_locked_version_is_named_with_its_time() {
    let world = World::new();
    let server = world.use_moto();
    let client = server.client();
    make_versioned_bucket(&client, true);
    world.snapshot("base", 4);
    world.reconfigure("[bucket]", "[bucket]\ndelete_versions = true");
    let versions = check(&world, "versions");
    let finding = versions["finding"].as_str().unwrap();
    assert!(finding.contains("GOVERNANCE for 1 day"), "{finding}");
    world.snapdeck(&["upload", "base"]).ok();
    // This server applies the bucket's default only to objects that are uploaded as a whole.
    let until = SystemTime::now() + Duration::from_secs(24 * 3600);
    let retention = ObjectLockRetention::builder()
        .mode(ObjectLockRetentionMode::Governance)
        .retain_until_date(until.into())
        .build();
    let lock = client
        .put_object_retention()
        .bucket(lab("SNAPDECK_LAB_BUCKET"));
    let lock = lock.key(format!("{}/base.qcow2", world.tag));
    block_on(lock.retention(retention).send()).unwrap();
    let removed = world.snapdeck(&["remove", "base", "--bucket"]).ok();
    assert!(
        removed.stderr.contains("is locked: GOVERNANCE until 20"),
        "{removed:?}"
    );
    // What is kept does not become the object again.
    let listed = world.snapdeck(&["objects", "--json"]).ok();
    assert!(!listed.stdout.contains("base"), "{listed:?}");
}

#[test]
fn objects_are_stored_as_the_settings_say() {
    let world = World::new();
    let server = world.use_moto();
    let (client, bucket) = (server.client(), lab("SNAPDECK_LAB_BUCKET"));
    block_on(client.create_bucket().bucket(&bucket).send()).unwrap();
    world.snapshot("base", 4);
    let id = world.sandbox("vm", "base", State::Off);
    let head = |file: &str| {
        let key = format!("{}/{file}", world.tag);
        block_on(client.head_object().bucket(&bucket).key(key).send()).unwrap()
    };
    let encryption = |file: &str| head(file).server_side_encryption.map(|one| one.to_string());
    world.reconfigure(
        "[bucket]",
        "[bucket]\nencryption = \"s3\"\nstorage_class = \"STANDARD_IA\"",
    );
    world.snapdeck(&["push", &id, "app"]).ok();
    assert_eq!(
        head("app.qcow2").storage_class.unwrap().as_str(),
        "STANDARD_IA"
    );
    for file in ["app.qcow2", "app.json"] {
        assert_eq!(encryption(file).as_deref(), Some("AES256"), "{file}");
    }
    let key = "arn:aws:kms:us-east-1:123456789012:key/1234";
    world.reconfigure("\"s3\"", &format!("\"kms:{key}\""));
    world.snapdeck(&["push", &id, "app", "--overwrite"]).ok();
    for file in ["app.qcow2", "app.json"] {
        assert_eq!(encryption(file).as_deref(), Some("aws:kms"), "{file}");
        assert_eq!(head(file).ssekms_key_id.as_deref(), Some(key), "{file}");
    }
    world.snapdeck(&["pull", "app"]).ok();
    world.reconfigure("\"STANDARD_IA\"", "\"GLACIER\"");
    world
        .snapdeck(&["objects"])
        .failed(2, &["storage_class", "GLACIER"]);
}
