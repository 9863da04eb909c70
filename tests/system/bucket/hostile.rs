//! Stores that answer without end, hardly at all, or with sizes and texts that no store has.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use snapdeck_bucket::{Bucket, StoreRetry};
use snapdeck_model::{Error, Kind, Object, Result};
use tokio_util::sync::CancellationToken;

use super::{assert_error, list, name};
use crate::common::hostile::{Answer, Body, HostileStore, Request, entry, page};
use crate::common::stores::wait_until;

const LENGTH: usize = 1000;

fn object(etag: &str) -> Object {
    Object {
        name: name("a"),
        key: "snapshots/a.qcow2".into(),
        size_bytes: LENGTH as u64,
        modified: None,
        etag: Some(etag.into()),
        problem: None,
    }
}

/// A store with an object `a` whose manifest is `answer`.
fn with_manifest(answer: impl Fn() -> Answer + Send + Sync + 'static) -> HostileStore {
    HostileStore::start(
        move |request: &Request| match request.line.contains(".json") {
            true => answer(),
            false => Answer::ok(vec![0; LENGTH]).header("etag", "\"e\""),
        },
    )
}

async fn list_error(store: &HostileStore) -> Error {
    list(&store.bucket()).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_without_end_are_refused_before_they_fill_the_memory() {
    let entries = entry("snapshots/a.qcow2", "e", 1).repeat(1000);
    let tags = "<a/>".repeat(100_000);
    let start = "<?xml version=\"1.0\"?><ListBucketResult>";
    type Make = Box<dyn Fn() -> Answer + Send + Sync>;
    let endless = |status: u16, bytes: &str| -> Make {
        let bytes = bytes.to_owned();
        Box::new(move || Answer::new(status, Body::Endless(start, bytes.clone().into_bytes())))
    };
    for make in [
        endless(200, &entries),
        endless(200, &tags),
        endless(200, &"x".repeat(1 << 20)),
        endless(403, &"x".repeat(1 << 20)),
        endless(500, &entries),
    ] {
        let store = HostileStore::start(move |_| make());
        let error = list_error(&store).await;
        assert_error(&error, Kind::Failed, &["is not trusted", "longer than"]);
        // Each attempt ends at its limit; the rest is in buffers of the sockets.
        assert!(store.sent_mib() < 100, "{} MiB", store.sent_mib());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_an_object_is_limited_and_its_bytes_are_counted() {
    let store = HostileStore::start(|request| match request.line.starts_with("HEAD ") {
        true => Answer::new(200, Body::Announced(LENGTH as u64)).header("etag", "\"e\""),
        false => Answer::new(403, Body::Endless("", vec![b'x'; 1 << 20])),
    });
    let bucket = store.bucket();
    let error = bucket.manifest(&object("\"e\"")).await.unwrap_err();
    assert_error(&error, error.kind(), &["cannot download", "a.json"]);
    assert!(store.sent_mib() < 100, "{} MiB", store.sent_mib());

    let store = with_manifest(|| Answer::new(200, Body::Endless("{\"a\":\"", vec![b'x'; 1 << 20])));
    let manifest = store.bucket().manifest(&object("\"e\"")).await;
    assert_eq!(manifest.unwrap(), None);
    assert!(store.sent_mib() < 100, "{} MiB", store.sent_mib());
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_without_end_are_refused() {
    let next = |request: &Request| {
        let token = request.parameter("continuation-token").unwrap_or("0");
        token.parse::<u64>().unwrap() + 1
    };
    // One key a page, and a thousand.
    for keys in [1, 1000] {
        let store = HostileStore::start(move |request| {
            let number = next(request);
            let key = |key| entry(&format!("snapshots/k{number}-{key}.qcow2"), "e", i64::MAX);
            let entries: String = (0..keys).map(key).collect();
            page(&entries, Some(&number.to_string()))
        });
        let error = list_error(&store).await;
        let word = if keys == 1 {
            "does not end"
        } else {
            "more than 100000"
        };
        assert_error(&error, Kind::Failed, &[word]);
        assert!(store.requests.load(SeqCst) <= 2500);
    }
    // The same page again and again, and a token that is longer than any.
    for token in ["same".to_owned(), "x".repeat(100_000)] {
        let store = HostileStore::start(move |_| page("", Some(&token)));
        let error = list_error(&store).await;
        assert_error(&error, Kind::Failed, &["does not end"]);
        assert!(store.requests.load(SeqCst) <= 2);
    }
    let store = HostileStore::start(|_| {
        Answer::ok(
            "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>\
             <Upload><Key>snapshots/a.qcow2</Key><UploadId>u</UploadId></Upload></ListMultipartUploadsResult>",
        )
    });
    let error = store.bucket().leftovers().await.unwrap_err();
    assert_error(&error, Kind::Failed, &["does not end"]);
    assert!(store.requests.load(SeqCst) < 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_and_texts_of_a_store_are_bounded() {
    let store = HostileStore::start(|request| match request.is_listing() {
        true => page(
            &[
                entry("snapshots/a.qcow2", "&#27;]0;title&#7;", i64::MAX),
                entry("snapshots/b.qcow2", "\u{202e}txt", i64::MAX),
                entry("snapshots/&#27;[31m.qcow2", "e", -5),
                entry(&format!("snapshots/{}.qcow2", "k".repeat(2000)), "e", 1),
                entry("snapshots/c.qcow2", "&quot;e&quot;", -5),
            ]
            .concat(),
            None,
        ),
        false => Answer::not_found(),
    });
    let objects = list(&store.bucket()).await.unwrap().concat();
    let facts: Vec<(&str, Option<&str>, u64)> = objects
        .iter()
        .map(|object| {
            (
                object.name.as_str(),
                object.etag.as_deref(),
                object.size_bytes,
            )
        })
        .collect();
    let largest = 64 << 40;
    assert_eq!(
        facts,
        [
            ("a", None, largest),
            ("b", None, largest),
            ("c", Some("\"e\""), 0)
        ]
    );

    let message = format!("&#27;]52;c;x&#7;&#x9b;31m\u{202e}{}", "x".repeat(1 << 20));
    let store = HostileStore::start(move |_| Answer::error(400, "&#27;[31mBad", &message));
    let text = list_error(&store).await.to_string();
    assert!(
        text.contains("\\u{1b}[31mBad: \\u{1b}]52;c;x\\u{7}\\u{9b}31m"),
        "{text}"
    );
    assert!(text.len() < 2000 && !text.contains(['\u{1b}', '\u{9b}', '\u{202e}']));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_would_fill_the_memory_is_not_a_manifest() {
    let values = format!("{{\"format\":1,\"z\":[{}0]}}", "0,".repeat(8 << 20));
    let texts = format!("{{\"format\":1,\"notes\":\"{}\"}}", "N".repeat(15 << 20));
    let deep = "[".repeat(20 << 20);
    for json in [values, texts, deep] {
        let store = with_manifest(move || Answer::ok(json.clone()));
        let bucket = store.bucket();
        let before = resident_mib();
        assert_eq!(bucket.manifest(&object("\"e\"")).await.unwrap(), None);
        assert_eq!(bucket.annotations(&name("a")).await.unwrap(), None);
        // Another program's, which is not overwritten.
        let key = bucket.foreign_manifest(&name("a")).await.unwrap();
        assert_eq!(key.as_deref(), Some("snapshots/a.json"));
        assert!(resident_mib() < before + 250, "{} MiB", resident_mib());
    }
}

/// Returns the largest resident set of this process. Tests that run at the same time have their part in it.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

/// Calls a store that never answers to the end, with the policy of a job, and cancels the job in the middle.
async fn assert_cancelled<T>(
    body: impl Fn() -> Body + Send + Sync + 'static,
    call: impl AsyncFnOnce(Bucket) -> Result<T>,
) {
    let store = HostileStore::start(move |_| Answer::new(200, body()));
    let cancel = CancellationToken::new();
    let limit = Duration::from_secs(300);
    let policy = StoreRetry::new(limit, cancel.clone(), Arc::new(|_| {}));
    let bucket = store.bucket().with_retry(policy);
    let cancelled = async {
        wait_until(async || store.sent.load(SeqCst) > 0, "the store was asked").await;
        cancel.cancel();
        Instant::now()
    };
    let (result, since) = tokio::join!(call(bucket), cancelled);
    let elapsed = since.elapsed();
    let error = result.err().expect("the call is cancelled");
    assert_eq!(error.kind(), Kind::Cancelled, "{error}");
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_of_a_job_is_cancelled_within_a_second() {
    let a = || object("\"e\"");
    for silent in [false, true] {
        let body = move || if silent { Body::Silence } else { Body::Drip };
        assert_cancelled(body, async |bucket| bucket.manifest(&a()).await).await;
        assert_cancelled(body, async |bucket| bucket.annotations(&name("a")).await).await;
        assert_cancelled(body, async |bucket| {
            bucket.foreign_manifest(&name("a")).await
        })
        .await;
        assert_cancelled(body, async |bucket| bucket.leftovers().await).await;
    }
    let silence = || Body::Silence;
    assert_cancelled(silence, async |bucket| bucket.head(&name("a")).await).await;
    assert_cancelled(silence, async |bucket| bucket.find(&name("a")).await).await;
    assert_cancelled(silence, async |bucket| bucket.delete_object(&a()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_drips_is_abandoned() {
    let store = with_manifest(|| Answer::new(200, Body::Drip));
    let since = Instant::now();
    let error = store.bucket().manifest(&object("\"e\"")).await.unwrap_err();
    assert_error(&error, Kind::Unreachable, &["a.json", "hardly a byte"]);
    assert!(
        since.elapsed() < Duration::from_secs(60),
        "{:?}",
        since.elapsed()
    );
}
