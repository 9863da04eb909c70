//! The rights of the key pair: docs/rights.md has a policy with exactly the actions that are needed.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::SeqCst;

use serde_json::Value;

use crate::common::{State, World, lab, signal, wait_for_exit};

/// Returns the policy in docs/rights.md.
fn documented_policy() -> Value {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rights.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, json) = page.split_once("```json\n").unwrap();
    let (json, _) = json.split_once("\n```").unwrap();
    serde_json::from_str(json).unwrap()
}

/// Returns action and resource of each statement, with the names of the bucket and the prefix of a test.
fn allowed(policy: &Value, prefix: &str) -> BTreeSet<(String, String)> {
    let texts = |value: &Value| -> Vec<String> {
        let values = value.as_array().unwrap().iter();
        values
            .map(|value| value.as_str().unwrap().to_owned())
            .collect()
    };
    let mut pairs = BTreeSet::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        for resource in texts(&statement["Resource"]) {
            let resource = resource
                .replace("my-snapshots", &lab("SNAPDECK_LAB_BUCKET"))
                .replace("snapshots/*", &format!("{prefix}*"));
            for action in texts(&statement["Action"]) {
                pairs.insert((action, resource.clone()));
            }
        }
    }
    pairs
}

/// Returns the actions on a bucket or an object that a request needs (AWS, "Actions, resources, and condition keys for
/// Amazon S3").
fn needed(request: &str, prefix: &str) -> Vec<(String, String)> {
    let bucket = lab("SNAPDECK_LAB_BUCKET");
    let line = request.lines().next().unwrap();
    let [method, url, _] = line.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{line}");
    };
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let path = path.strip_prefix(&format!("/{bucket}")).expect(line);
    let key = path.strip_prefix('/').unwrap_or_default();
    let has = |name: &str| {
        let mut names = query.split('&').map(|pair| pair.split('=').next().unwrap());
        names.any(|found| found == name)
    };
    let action = match (method, key) {
        ("HEAD", "") => "s3:ListBucket",
        ("GET", "") if has("uploads") => "s3:ListBucketMultipartUploads",
        ("GET", "") if has("versioning") => "s3:GetBucketVersioning",
        ("GET", "") if has("list-type") => "s3:ListBucket",
        (_, "") => panic!("another request for the bucket: {line}"),
        ("GET", _) if has("uploadId") => "s3:ListMultipartUploadParts",
        ("GET" | "HEAD", _) => "s3:GetObject",
        ("PUT", _) => "s3:PutObject",
        ("POST", _) if has("uploads") || has("uploadId") => "s3:PutObject",
        ("DELETE", _) if has("uploadId") => "s3:AbortMultipartUpload",
        ("DELETE", _) => "s3:DeleteObject",
        _ => panic!("another request: {line}"),
    };
    if key.is_empty() {
        assert!(
            method == "HEAD" || has("prefix") || has("versioning"),
            "not only its prefix: {line}"
        );
        return vec![(action.to_owned(), format!("arn:aws:s3:::{bucket}"))];
    }
    assert!(key.starts_with(prefix), "outside the prefix: {line}");
    let objects = format!("arn:aws:s3:::{bucket}/{prefix}*");
    let mut needed = vec![(action.to_owned(), objects.clone())];
    let source = request
        .lines()
        .find_map(|line| line.strip_prefix("x-amz-copy-source: "));
    if let Some(source) = source {
        assert!(
            source.starts_with(&format!("{bucket}/{prefix}")),
            "{source}"
        );
        needed.push(("s3:GetObject".to_owned(), objects));
        // Ceph refuses a copy without a length.
        assert!(request.contains("\r\ncontent-length: 0\r\n"), "{request}");
    }
    needed
}

#[test]
fn the_documented_policy_has_the_actions_of_all_commands_and_no_others() {
    let (world, id) = World::with_sandbox(State::Off);
    let prefix = format!("{}/", world.tag);
    let (push, faults) = world.start_to_parts(&["push", &id, "cancelled", "--json"]);
    signal(&push, "INT");
    faults.hold_parts.store(false, SeqCst);
    assert_eq!(wait_for_exit(push).error_kind(), "cancelled");
    world.snapdeck(&["prune", "--leftovers", "--dry-run"]).ok();
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["push", &id, "app", "--overwrite"]).ok();
    world.snapdeck(&["objects"]).ok();
    world.snapdeck(&["note", "app", "golden", "--bucket"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    world.snapdeck(&["verify", "app"]).ok();
    world.snapdeck(&["doctor", "--json"]);
    world.snapdeck(&["remove", "app", "--bucket"]).ok();

    let requests = faults.requests.lock().unwrap().clone();
    assert!(requests.len() > 20, "{requests:?}");
    let used = requests.iter().flat_map(|request| needed(request, &prefix));
    let mut used: BTreeSet<(String, String)> = used.collect();
    // Of uploads older than a day.
    let objects = format!("arn:aws:s3:::{}/{prefix}*", lab("SNAPDECK_LAB_BUCKET"));
    used.insert(("s3:ListMultipartUploadParts".to_owned(), objects));
    assert_eq!(used, allowed(&documented_policy(), &prefix));
}
