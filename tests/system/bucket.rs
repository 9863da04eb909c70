//! The bucket on real S3 servers: s3s-fs in this process, and the lab's SeaweedFS.
mod hostile;
mod manifest;
mod multipart;
mod other_stores;
mod overload;
mod rights;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::common::proxy::proxy;
use crate::common::stores::{TestStore, s3s_fs, stores, wait_until};
use bytes::Bytes;
use futures_util::StreamExt;
use snapdeck_bucket::{Bucket, ObjectPage, StoreRetry};
use snapdeck_model::settings::Credentials;
use snapdeck_model::{BlockSet, Error, Kind, Object, Phase, ProgressCell, Result, SnapshotName};
use tokio_util::sync::CancellationToken;

const MIB: usize = 1024 * 1024;

fn name(text: &str) -> SnapshotName {
    text.parse().unwrap()
}

/// Returns pseudorandom bytes (xorshift64).
fn random(length: usize, seed: u64) -> Bytes {
    let mut state = seed + 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

async fn upload(bucket: &Bucket, to: &str, bytes: &Bytes, overwrite: bool) -> Result<Object> {
    let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
    let read = |offset: u64, length| {
        let offset = offset as usize;
        let part = bytes.slice(offset..offset + length);
        async { Ok(part) }
    };
    let size = bytes.len() as u64;
    let object = bucket
        .upload(&name(to), size, read, overwrite, &progress, &cancel)
        .await?;
    let sample = progress.sample();
    assert_eq!(sample.phase, Phase::Uploading);
    assert_eq!((sample.done_bytes, sample.total_bytes), (size, size));
    Ok(object)
}

async fn download(bucket: &Bucket, object: &Object) -> Result<Vec<u8>> {
    let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
    let file = Mutex::new(vec![0; object.size_bytes as usize]);
    let write = |block: u64, bytes: Bytes| {
        let offset = block as usize * 8 * MIB;
        file.lock().unwrap()[offset..offset + bytes.len()].copy_from_slice(&bytes);
        async { Ok(()) }
    };
    let all = BlockSet::all(object.size_bytes);
    bucket
        .download(object, &all, write, &progress, &cancel)
        .await?;
    let sample = progress.sample();
    assert_eq!(sample.phase, Phase::Downloading);
    assert_eq!(sample.done_bytes, object.size_bytes);
    Ok(file.into_inner().unwrap())
}

async fn list(bucket: &Bucket) -> Result<Vec<Vec<Object>>> {
    let pages: Vec<Result<ObjectPage>> = bucket.list().collect().await;
    let objects = |page: ObjectPage| page.objects;
    pages.into_iter().map(|page| page.map(objects)).collect()
}

async fn delete(bucket: &Bucket, name: &str) {
    let object = bucket.head(&self::name(name)).await.unwrap().unwrap();
    bucket.delete_object(&object).await.unwrap();
}

/// Asserts the kind of an error, words of its message, and that the message has no secrets and no debug output.
fn assert_error(error: &Error, kind: Kind, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    for raw in ["secret-of", "lab-secret", "Error {", "Some(", "\n"] {
        assert!(!text.contains(raw), "{raw:?} is in {text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_downloaded_object_equals_the_uploaded_one() {
    for store in stores().await {
        let bucket = store.bucket().await;
        for size in [0, 1, 5 * MIB + 1, 40 * MIB] {
            let bytes = random(size, size as u64);
            let to = format!("image-{size}");
            let object = upload(&bucket, &to, &bytes, false).await.unwrap();
            assert_eq!(object.key, store.key(&format!("{to}.qcow2")));
            assert_eq!(object.size_bytes, size as u64);
            assert!(object.modified.is_some() && object.etag.is_some());
            assert_eq!(bucket.head(&name(&to)).await.unwrap(), Some(object.clone()));
            assert!(
                download(&bucket, &object).await.unwrap() == bytes,
                "{}: {size}",
                store.name
            );
            let read_by_other_client = store.get(&format!("{to}.qcow2")).await.unwrap();
            assert!(read_by_other_client == bytes, "{}: {size}", store.name);
        }
        let pages = list(&bucket).await.unwrap();
        let sizes: Vec<u64> = pages
            .concat()
            .iter()
            .map(|object| object.size_bytes)
            .collect();
        assert_eq!(
            sizes,
            [0, 1, 40 << 20, (5 << 20) + 1],
            "not in the order of keys"
        );
        // Listed objects can be downloaded, although not every store lists ETags.
        download(&bucket, &pages[0][1]).await.unwrap();
        assert_eq!(store.leftovers().await, [""; 0], "{}", store.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_thousand_objects_are_listed_in_pages() {
    for store in stores().await {
        let bucket = store.bucket().await;
        assert_eq!(
            list(&bucket).await.unwrap().concat(),
            [],
            "an empty bucket has no objects"
        );
        let ignored_files = ["deep/a.qcow2", "note.json", "a b.qcow2", "a.qcow2.qcow2"];
        let files = (0..1_003).map(|n| format!("image-{n:04}.qcow2"));
        let files: Vec<String> = files.chain(ignored_files.map(String::from)).collect();
        futures_util::stream::iter(&files)
            .map(|file| store.put(file, vec![1, 2, 3]))
            .buffer_unordered(16)
            .collect::<()>()
            .await;
        let pages = list(&bucket).await.unwrap();
        assert!(pages.len() > 1 && pages.iter().all(|page| page.len() <= 1_000));
        let names: Vec<String> = pages.concat().iter().map(|o| o.name.to_string()).collect();
        let expected: Vec<String> = (0..1_003).map(|n| format!("image-{n:04}")).collect();
        assert_eq!(names, expected, "{}", store.name);
        assert!(
            pages
                .concat()
                .iter()
                .all(|o| o.size_bytes == 3 && o.modified.is_some())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_overwritten_only_on_request() {
    for store in stores().await {
        let bucket = store.bucket().await;
        let (old, new) = (random(9 * MIB, 1), random(10 * MIB, 2));
        upload(&bucket, "image", &old, false).await.unwrap();
        let refused = upload(&bucket, "image", &new, false).await.unwrap_err();
        assert_error(
            &refused,
            Kind::Conflict,
            &["image.qcow2", "exists", "--overwrite"],
        );
        assert!(store.get("image.qcow2").await.unwrap() == old);
        upload(&bucket, "image", &new, true).await.unwrap();
        assert!(store.get("image.qcow2").await.unwrap() == new);
        store.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_created_during_the_upload_is_not_overwritten() {
    for store in stores().await {
        let bucket = store.bucket().await;
        let read = async |_, length| {
            store.put("image.qcow2", b"other".to_vec()).await;
            Ok(Bytes::from(vec![0; length]))
        };
        let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
        let outcome = bucket
            .upload(&name("image"), 100, read, false, &progress, &cancel)
            .await;
        assert_error(&outcome.unwrap_err(), Kind::Conflict, &["exists"]);
        assert_eq!(store.get("image.qcow2").await.unwrap(), b"other");
        store.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_reports_whether_the_object_existed() {
    for store in stores().await {
        let bucket = store.bucket().await;
        store.put("image.qcow2", vec![1]).await;
        let object = bucket.head(&name("image")).await.unwrap().unwrap();
        bucket.delete_object(&object).await.unwrap();
        assert_eq!(bucket.head(&name("image")).await.unwrap(), None);
        let error = bucket.delete_object(&object).await.unwrap_err();
        assert_error(
            &error,
            Kind::NotFound,
            &["cannot delete s3://", "image.qcow2"],
        );
        // Another client has put another object there, also one of the same length.
        for other in [vec![2], vec![1, 2, 3]] {
            store.put("image.qcow2", other.clone()).await;
            let error = bucket.delete_object(&object).await.unwrap_err();
            assert_error(&error, Kind::Conflict, &["image.qcow2", "another client"]);
            assert_eq!(store.get("image.qcow2").await.unwrap(), other);
        }
    }
}

/// Starts an upload of 40 MiB over a slow connection and waits until it has moved some bytes.
async fn slow_upload(
    store: &TestStore,
) -> (
    tokio::task::JoinHandle<Result<Object>>,
    CancellationToken,
    Arc<crate::common::proxy::Faults>,
) {
    let (address, faults) = proxy(store.address()).await;
    faults.slow.store(30, SeqCst);
    let bucket = store.bucket_at(address).await;
    let (progress, cancel) = (Arc::new(ProgressCell::default()), CancellationToken::new());
    let (watched, token) = (progress.clone(), cancel.clone());
    let task = tokio::spawn(async move {
        let read = async |_, length| Ok(Bytes::from(vec![7; length]));
        let read = |offset, length| read(offset, length);
        let size = 40 << 20;
        bucket
            .upload(&name("image"), size, read, false, &progress, &token)
            .await
    });
    wait_until(
        async || watched.sample().done_bytes > 4 << 20 && !store.leftovers().await.is_empty(),
        "some bytes are uploaded",
    )
    .await;
    (task, cancel, faults)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_upload_stops_at_once_and_leaves_no_parts() {
    for store in stores().await {
        let (task, cancel, faults) = slow_upload(&store).await;
        let started = Instant::now();
        cancel.cancel();
        let error = task.await.unwrap().unwrap_err();
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
        assert_error(&error, Kind::Cancelled, &["image.qcow2", "was cancelled"]);
        assert!(
            faults.sent.load(SeqCst) < 40 << 20,
            "the upload was not stopped before its end"
        );
        store.clean().await;
        assert_eq!(store.get("image.qcow2").await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_cancelled_within_a_second_in_each_phase() {
    for store in stores().await {
        for request in ["uploads", "POST /", "DELETE "] {
            let (address, faults) = proxy(store.address()).await;
            let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
            let limit = Duration::from_secs(300);
            let policy = StoreRetry::new(limit, cancel.clone(), Arc::new(|_| {}));
            let bucket = store.bucket_at(address).await.with_retry(policy);
            // The request to begin is a POST, too.
            let (held, started) = (&faults, &std::sync::OnceLock::new());
            let read = async |_, length| {
                held.hold_requests(Some(request));
                if request == "DELETE " {
                    cancel.cancel();
                    let _ = started.set(Instant::now());
                }
                Ok(Bytes::from(vec![7; length]))
            };
            if request == "uploads" {
                held.hold_requests(Some(request));
            }
            let read = |offset, length| read(offset, length);
            let to = name("image");
            let upload = bucket.upload(&to, 20 << 20, read, false, &progress, &cancel);
            let watch = async {
                if request != "DELETE " {
                    wait_until(async || held.held.load(SeqCst) > 0, "the request is held").await;
                    cancel.cancel();
                    let _ = started.set(Instant::now());
                }
            };
            let (result, ()) = tokio::join!(upload, watch);
            let elapsed = started.get().unwrap().elapsed();
            assert_error(&result.unwrap_err(), Kind::Cancelled, &["was cancelled"]);
            assert!(elapsed < Duration::from_secs(4), "{request}: {elapsed:?}");
            // What was held fails, and the cleanup continues.
            held.hold_requests(None);
            store.clean().await;
            assert_eq!(store.get("image.qcow2").await, None, "{request}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_upload_leaves_no_parts() {
    for store in stores().await {
        let (task, _cancel, _faults) = slow_upload(&store).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        store.clean().await;
        assert_eq!(store.get("image.qcow2").await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_source_fails_leaves_no_parts() {
    for store in stores().await {
        let bucket = store.bucket().await;
        let read = |offset, length| async move {
            match offset {
                0 => Ok(Bytes::from(vec![0; length])),
                _ => Err(Error::new(Kind::Damaged, "cannot read the image")),
            }
        };
        let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
        let outcome = bucket
            .upload(&name("image"), 20 << 20, read, false, &progress, &cancel)
            .await;
        assert_error(
            &outcome.unwrap_err(),
            Kind::Damaged,
            &["cannot read the image"],
        );
        store.clean().await;
        assert_eq!(store.get("image.qcow2").await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_parts_are_sent_again() {
    for store in stores().await {
        let (address, faults) = proxy(store.address()).await;
        let bucket = store.bucket_at(address).await;
        let bytes = random(40 * MIB, 3);
        faults.busy.store(2, SeqCst);
        faults.cut_up.store(2, SeqCst);
        // `upload` also asserts that progress ends at the size, although parts were sent twice.
        let object = upload(&bucket, "image", &bytes, false).await.unwrap();
        assert_eq!(faults.busy.load(SeqCst) + faults.cut_up.load(SeqCst), 0);
        assert!(
            faults.sent.load(SeqCst) > 40 << 20,
            "no bytes were sent twice"
        );
        assert!(
            store.get("image.qcow2").await.unwrap() == bytes,
            "{}",
            store.name
        );

        faults.cut_down.store(3, SeqCst);
        let downloaded = download(&bucket, &object).await.unwrap();
        assert_eq!(faults.cut_down.load(SeqCst), 0);
        assert!(downloaded == bytes, "{}", store.name);
        store.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_fault_is_an_error_and_leaves_no_parts() {
    let store = s3s_fs().await;
    let (address, faults) = proxy(store.address()).await;
    let bucket = store.bucket_at(address).await;
    faults.busy.store(i32::MAX, SeqCst);
    let error = upload(&bucket, "image", &random(MIB, 4), false)
        .await
        .unwrap_err();
    assert_error(
        &error,
        Kind::Failed,
        &["image.qcow2", "SlowDown", "try again"],
    );
    assert!(error.is_retryable());
    store.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_during_its_download_is_an_error() {
    for store in stores().await {
        let bucket = store.bucket().await;
        // More than is in memory at a time.
        let size = 96 * MIB;
        let object = upload(&bucket, "image", &random(size, 5), false)
            .await
            .unwrap();
        // The first ranges wait until the object is replaced by one of the same size.
        let replaced = tokio::sync::OnceCell::new();
        let replace = || store.put("image.qcow2", vec![9; size]);
        let write = |_, _| async {
            replaced.get_or_init(replace).await;
            Ok(())
        };
        let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
        let all = BlockSet::all(object.size_bytes);
        let outcome = bucket
            .download(&object, &all, write, &progress, &cancel)
            .await;
        assert_error(
            &outcome.unwrap_err(),
            Kind::Failed,
            &["changed while it was being downloaded"],
        );
        // A download with the old ETag fails at once.
        let error = download(&bucket, &object).await.unwrap_err();
        assert_error(&error, Kind::Failed, &["changed"]);
        delete(&bucket, "image").await;
        let error = download(&bucket, &object).await.unwrap_err();
        assert_error(
            &error,
            Kind::NotFound,
            &["cannot download", "no such object"],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_fetches_only_the_requested_blocks() {
    for store in stores().await {
        let (address, faults) = proxy(store.address()).await;
        let bucket = store.bucket_at(address).await;
        let bytes = random(20 * MIB, 8);
        let object = upload(&bucket, "image", &bytes, false).await.unwrap();
        for requested in [&[][..], &[0], &[2], &[0, 2], &[0, 1, 2]] {
            faults.received.store(0, SeqCst);
            let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
            let received_blocks = Mutex::new(Vec::new());
            let write = |block: u64, part: Bytes| {
                let offset = block as usize * 8 * MIB;
                assert!(part == bytes[offset..offset + part.len()], "{}", store.name);
                received_blocks.lock().unwrap().push(block);
                async { Ok(()) }
            };
            let blocks = BlockSet::from_predicate(20 << 20, |block| requested.contains(&block));
            let fetched = bucket.download(&object, &blocks, write, &progress, &cancel);
            fetched.await.unwrap();
            let mut received_blocks = received_blocks.into_inner().unwrap();
            received_blocks.sort_unstable();
            assert_eq!(received_blocks, requested, "{}", store.name);
            let sample = progress.sample();
            assert_eq!(sample.done_bytes, blocks.bytes());
            assert_eq!(sample.total_bytes, blocks.bytes());
            let received = faults.received.load(SeqCst);
            assert!(received < blocks.bytes() + (MIB as u64) / 10, "{received}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_download_stops_at_once() {
    for store in stores().await {
        let bucket = store.bucket().await;
        let object = upload(&bucket, "image", &random(20 * MIB, 6), false)
            .await
            .unwrap();
        let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
        // A write that never ends.
        let write = |_, _| async {
            cancel.cancel();
            std::future::pending().await
        };
        let all = BlockSet::all(object.size_bytes);
        let outcome = bucket.download(&object, &all, write, &progress, &cancel);
        let outcome = tokio::time::timeout(Duration::from_secs(10), outcome)
            .await
            .unwrap();
        assert_error(&outcome.unwrap_err(), Kind::Cancelled, &["was cancelled"]);
    }
}

/// Bytes that are counted while they are in memory.
struct CountedBytes {
    bytes: Vec<u8>,
    alive: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.bytes.len(), SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_keeps_few_parts_in_memory() {
    for store in stores().await {
        let bucket = store.bucket().await;
        let (alive, peak) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let read = |_, length| {
            let now = alive.fetch_add(length, SeqCst) + length;
            peak.fetch_max(now, SeqCst);
            let counted = CountedBytes {
                bytes: vec![1; length],
                alive: alive.clone(),
            };
            async { Ok(Bytes::from_owner(counted)) }
        };
        let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
        bucket
            .upload(&name("image"), 128 << 20, read, false, &progress, &cancel)
            .await
            .unwrap();
        let peak = peak.load(SeqCst);
        assert!(peak <= 64 * MIB, "{}: {peak} bytes", store.name);
        assert!(
            peak > 8 * MIB,
            "{}: parts are not uploaded in parallel",
            store.name
        );
        delete(&bucket, "image").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_configured_is_an_error() {
    let mut settings = s3s_fs().await.settings;
    settings.name = None;
    let bucket = Bucket::new(&settings);
    assert!(!bucket.is_configured());
    assert_eq!(bucket.location(), "no bucket");
    let words = [
        "no bucket configured",
        "[bucket] name",
        "AWS_DEFAULT_BUCKET",
    ];
    let error = bucket.head(&name("a")).await.unwrap_err();
    assert_error(&error, Kind::InvalidInput, &words);
    let error = list(&bucket).await.unwrap_err();
    assert_error(&error, Kind::InvalidInput, &words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_differs_from_a_missing_object() {
    for store in stores().await {
        assert_eq!(store.bucket().await.head(&name("a")).await.unwrap(), None);
        let mut settings = store.settings.clone();
        settings.name = Some("no-such-bucket".into());
        let bucket = Bucket::new(&settings);
        let words = ["no-such-bucket does not exist", "[bucket] name"];
        let errors = [
            bucket.head(&name("a")).await.unwrap_err(),
            list(&bucket).await.unwrap_err(),
            upload(&bucket, "a", &random(1, 1), false)
                .await
                .unwrap_err(),
            upload(&bucket, "a", &random(1, 1), true).await.unwrap_err(),
        ];
        for error in errors {
            assert_error(&error, Kind::NotFound, &words);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_an_error() {
    for store in stores().await {
        let good = store.settings.credentials.clone().unwrap();
        let secret_access_key = "secret-of-another".to_owned();
        for access_key_id in [good.access_key_id, "unknown-key".to_owned()] {
            let mut settings = store.settings.clone();
            settings.credentials = Some(Credentials {
                access_key_id,
                secret_access_key: secret_access_key.clone(),
            });
            let bucket = Bucket::new(&settings);
            let errors = [
                bucket.head(&name("a")).await.unwrap_err(),
                list(&bucket).await.unwrap_err(),
                upload(&bucket, "a", &random(1, 1), true).await.unwrap_err(),
            ];
            for error in errors {
                assert_error(
                    &error,
                    Kind::Unreachable,
                    &["denied access", "secret_access_key"],
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_endpoint_is_an_error_within_20_seconds() {
    let mut settings = s3s_fs().await.settings;
    // A port on which no server listens.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for endpoint in [
        format!("http://{closed}"),
        "http://no-such-host.invalid".to_owned(),
    ] {
        settings.endpoint = Some(endpoint.clone());
        let bucket = Bucket::new(&settings);
        let started = Instant::now();
        for error in [
            list(&bucket).await.unwrap_err(),
            upload(&bucket, "a", &random(1, 1), true).await.unwrap_err(),
        ] {
            assert_error(
                &error,
                Kind::Unreachable,
                &[&endpoint, "cannot connect to", "[bucket] endpoint"],
            );
        }
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{:?}",
            started.elapsed()
        );
    }
    settings.endpoint = Some("127.0.0.1:9000".into());
    let error = list(&Bucket::new(&settings)).await.unwrap_err();
    assert_error(
        &error,
        Kind::InvalidInput,
        &["127.0.0.1:9000", "not a URL", "http://HOST:PORT"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_an_s3_store_is_an_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = s3s_fs().await.settings;
    settings.endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = client.read(&mut [0; 4096]).await;
            let page = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nIt works!";
            let _ = client.write_all(page.as_bytes()).await;
        }
    });
    let error = list(&Bucket::new(&settings)).await.unwrap_err();
    assert_error(
        &error,
        Kind::Unreachable,
        &["did not answer like an S3 store", "[bucket] endpoint"],
    );
}
