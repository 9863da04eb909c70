//! Pulls and verifications from a store that lies or hardly answers.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::common::hostile::{Answer, Body, HostileStore, entry, page};
use crate::common::{World, lab, signal, wait_for_exit, wait_until};
use crate::operations::assert_no_temporary_files;

fn world_at(store: &HostileStore) -> World {
    let world = World::new();
    world.reconfigure(&lab("SNAPDECK_LAB_S3"), &store.endpoint());
    world
}

#[test]
fn an_object_of_an_impossible_size_is_refused() {
    for size in [i64::MAX as u64, 1 << 50, 1 << 47, 6 << 40] {
        let store = HostileStore::start(move |request| match &request.line {
            _ if request.is_listing() => {
                let key = "app.qcow2";
                page(&entry(key, "&quot;e&quot;", size as i64), None)
            }
            line if line.contains(".json") => Answer::not_found(),
            line if line.starts_with("HEAD ") => {
                Answer::new(200, Body::Announced(size)).header("etag", "\"e\"")
            }
            _ => Answer::not_found(),
        });
        let world = world_at(&store);
        for args in [&["verify", "app", "--bucket"][..], &["pull", "app"]] {
            let ran = world.snapdeck(args);
            ran.failed(1, &["app.qcow2", "at most", "another S3 client"]);
        }
        assert!(world.names("snapshots").is_empty());
        assert_no_temporary_files(&world);
    }
}

#[test]
fn a_store_that_hardly_answers_does_not_hold_up_a_cancelled_job() {
    // What does not answer: a lookup, a manifest, the bytes.
    for (method, part, silent) in [
        ("HEAD ", "app.qcow2", true),
        ("GET ", "app.json", true),
        ("GET ", "app.json", false),
        ("GET ", "app.qcow2", false),
    ] {
        let store = HostileStore::start(move |request| {
            let line = &request.line;
            if line.starts_with(method) && line.contains(part) {
                return match (silent, request.range) {
                    (true, _) => Answer::new(200, Body::Silence),
                    (false, None) => Answer::new(200, Body::Drip),
                    (false, Some((first, last))) => Answer::new(206, Body::Drip)
                        .header("etag", "\"e\"")
                        .header("content-range", format!("bytes {first}-{last}/1000000")),
                };
            }
            match line.starts_with("HEAD ") {
                true if line.contains(".qcow2") => {
                    Answer::new(200, Body::Announced(1_000_000)).header("etag", "\"e\"")
                }
                // The bucket itself.
                true if !line.contains("app") => Answer::ok(""),
                _ => Answer::not_found(),
            }
        });
        let world = world_at(&store);
        let child = world.start(&["pull", "app"]);
        wait_until("the store was asked", || store.sent.load(SeqCst) > 0);
        let since = Instant::now();
        signal(&child, "INT");
        wait_for_exit(child).failed(130, &["was cancelled"]);
        let elapsed = since.elapsed();
        assert!(
            elapsed < Duration::from_secs(5),
            "{method}{part}: {elapsed:?}"
        );
        assert!(!world.names("snapshots").contains(&"app.qcow2".to_owned()));
    }
}
