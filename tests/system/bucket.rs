//! The bucket on real S3 servers: s3s-fs in this process, and the lab's SeaweedFS.
mod assembly;
mod manifest;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::common::proxy::proxy;
use crate::common::stores::{Lab, labs, s3s_fs, wait_until};
use bytes::Bytes;
use futures_util::StreamExt;
use snapdeck_bucket::Bucket;
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

async fn listed(bucket: &Bucket) -> Result<Vec<Vec<Object>>> {
    let pages: Vec<Result<Vec<Object>>> = bucket.list().collect().await;
    pages.into_iter().collect()
}

/// Asserts kind and words of an error, and that it has no secrets and no debug output.
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
    for lab in labs().await {
        let bucket = lab.bucket().await;
        for size in [0, 1, 5 * MIB + 1, 40 * MIB] {
            let bytes = random(size, size as u64);
            let to = format!("image-{size}");
            let object = upload(&bucket, &to, &bytes, false).await.unwrap();
            assert_eq!(object.key, lab.key(&format!("{to}.qcow2")));
            assert_eq!(object.size_bytes, size as u64);
            assert!(object.modified.is_some() && object.etag.is_some());
            assert_eq!(bucket.head(&name(&to)).await.unwrap(), Some(object.clone()));
            assert!(
                download(&bucket, &object).await.unwrap() == bytes,
                "{}: {size}",
                lab.name
            );
            let seen_by_others = lab.get(&format!("{to}.qcow2")).await.unwrap();
            assert!(seen_by_others == bytes, "{}: {size}", lab.name);
        }
        let pages = listed(&bucket).await.unwrap();
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
        assert_eq!(lab.leftovers().await, [""; 0], "{}", lab.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_thousand_objects_are_listed_in_pages() {
    for lab in labs().await {
        let bucket = lab.bucket().await;
        assert_eq!(
            listed(&bucket).await.unwrap().concat(),
            [],
            "an empty bucket has no objects"
        );
        let strangers = ["deep/a.qcow2", "note.json", "a b.qcow2", "a.qcow2.qcow2"];
        let files = (0..1_003).map(|n| format!("image-{n:04}.qcow2"));
        let files: Vec<String> = files.chain(strangers.map(String::from)).collect();
        futures_util::stream::iter(&files)
            .map(|file| lab.put(file, vec![1, 2, 3]))
            .buffer_unordered(16)
            .collect::<()>()
            .await;
        let pages = listed(&bucket).await.unwrap();
        assert!(pages.len() > 1 && pages.iter().all(|page| page.len() <= 1_000));
        let names: Vec<String> = pages.concat().iter().map(|o| o.name.to_string()).collect();
        let expected: Vec<String> = (0..1_003).map(|n| format!("image-{n:04}")).collect();
        assert_eq!(names, expected, "{}", lab.name);
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
    for lab in labs().await {
        let bucket = lab.bucket().await;
        let (old, new) = (random(9 * MIB, 1), random(10 * MIB, 2));
        upload(&bucket, "image", &old, false).await.unwrap();
        let refused = upload(&bucket, "image", &new, false).await.unwrap_err();
        assert_error(
            &refused,
            Kind::Conflict,
            &["image.qcow2", "exists", "--overwrite"],
        );
        assert!(lab.get("image.qcow2").await.unwrap() == old);
        upload(&bucket, "image", &new, true).await.unwrap();
        assert!(lab.get("image.qcow2").await.unwrap() == new);
        lab.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_created_during_the_upload_is_not_overwritten() {
    for lab in labs().await {
        let bucket = lab.bucket().await;
        let read = async |_, length| {
            lab.put("image.qcow2", b"theirs".to_vec()).await;
            Ok(Bytes::from(vec![0; length]))
        };
        let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
        let outcome = bucket
            .upload(&name("image"), 100, read, false, &progress, &cancel)
            .await;
        assert_error(&outcome.unwrap_err(), Kind::Conflict, &["exists"]);
        assert_eq!(lab.get("image.qcow2").await.unwrap(), b"theirs");
        lab.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_reports_whether_the_object_existed() {
    for lab in labs().await {
        let bucket = lab.bucket().await;
        lab.put("image.qcow2", vec![1]).await;
        bucket.delete(&name("image")).await.unwrap();
        assert_eq!(bucket.head(&name("image")).await.unwrap(), None);
        let error = bucket.delete(&name("image")).await.unwrap_err();
        assert_error(
            &error,
            Kind::NotFound,
            &["cannot delete s3://", "image.qcow2"],
        );
    }
}

/// Starts an upload of 40 MiB over a slow connection and waits until it has moved some bytes.
async fn slow_upload(
    lab: &Lab,
) -> (
    tokio::task::JoinHandle<Result<Object>>,
    CancellationToken,
    Arc<crate::common::proxy::Faults>,
) {
    let (address, trouble) = proxy(lab.address()).await;
    trouble.slow.store(30, SeqCst);
    let bucket = lab.bucket_at(address).await;
    let (progress, cancel) = (Arc::new(ProgressCell::default()), CancellationToken::new());
    let (shown, token) = (progress.clone(), cancel.clone());
    let task = tokio::spawn(async move {
        let read = async |_, length| Ok(Bytes::from(vec![7; length]));
        let read = |offset, length| read(offset, length);
        let size = 40 << 20;
        bucket
            .upload(&name("image"), size, read, false, &progress, &token)
            .await
    });
    wait_until(
        async || shown.sample().done_bytes > 4 << 20 && !lab.leftovers().await.is_empty(),
        "some bytes are uploaded",
    )
    .await;
    (task, cancel, trouble)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_upload_stops_at_once_and_leaves_no_parts() {
    for lab in labs().await {
        let (task, cancel, trouble) = slow_upload(&lab).await;
        let asked = Instant::now();
        cancel.cancel();
        let error = task.await.unwrap().unwrap_err();
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
        assert_error(&error, Kind::Cancelled, &["image.qcow2", "was cancelled"]);
        assert!(
            trouble.sent.load(SeqCst) < 40 << 20,
            "it was not stopped before its end"
        );
        lab.clean().await;
        assert_eq!(lab.get("image.qcow2").await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_upload_leaves_no_parts() {
    for lab in labs().await {
        let (task, _cancel, _trouble) = slow_upload(&lab).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        lab.clean().await;
        assert_eq!(lab.get("image.qcow2").await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_source_fails_leaves_no_parts() {
    for lab in labs().await {
        let bucket = lab.bucket().await;
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
        lab.clean().await;
        assert_eq!(lab.get("image.qcow2").await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_parts_are_sent_again() {
    for lab in labs().await {
        let (address, trouble) = proxy(lab.address()).await;
        let bucket = lab.bucket_at(address).await;
        let bytes = random(40 * MIB, 3);
        trouble.busy.store(2, SeqCst);
        trouble.cut_up.store(2, SeqCst);
        // `upload` also asserts that progress ends at the size, although parts were sent twice.
        let object = upload(&bucket, "image", &bytes, false).await.unwrap();
        assert_eq!(trouble.busy.load(SeqCst) + trouble.cut_up.load(SeqCst), 0);
        assert!(
            trouble.sent.load(SeqCst) > 40 << 20,
            "no bytes were sent twice"
        );
        assert!(
            lab.get("image.qcow2").await.unwrap() == bytes,
            "{}",
            lab.name
        );

        trouble.cut_down.store(3, SeqCst);
        let back = download(&bucket, &object).await.unwrap();
        assert_eq!(trouble.cut_down.load(SeqCst), 0);
        assert!(back == bytes, "{}", lab.name);
        lab.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_fault_is_an_error_and_leaves_no_parts() {
    let lab = s3s_fs().await;
    let (address, trouble) = proxy(lab.address()).await;
    let bucket = lab.bucket_at(address).await;
    trouble.busy.store(i32::MAX, SeqCst);
    let error = upload(&bucket, "image", &random(MIB, 4), false)
        .await
        .unwrap_err();
    assert_error(
        &error,
        Kind::Failed,
        &["image.qcow2", "SlowDown", "try again"],
    );
    assert!(error.is_retryable());
    lab.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_during_its_download_is_an_error() {
    for lab in labs().await {
        let bucket = lab.bucket().await;
        // More than is in memory at a time.
        let size = 96 * MIB;
        let object = upload(&bucket, "image", &random(size, 5), false)
            .await
            .unwrap();
        // The first ranges wait until the object is replaced by one of the same size.
        let replaced = tokio::sync::OnceCell::new();
        let replace = || lab.put("image.qcow2", vec![9; size]);
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
        bucket.delete(&name("image")).await.unwrap();
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
    for lab in labs().await {
        let (address, trouble) = proxy(lab.address()).await;
        let bucket = lab.bucket_at(address).await;
        let bytes = random(20 * MIB, 8);
        let object = upload(&bucket, "image", &bytes, false).await.unwrap();
        for wanted in [&[][..], &[0], &[2], &[0, 2], &[0, 1, 2]] {
            trouble.received.store(0, SeqCst);
            let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
            let came = Mutex::new(Vec::new());
            let write = |block: u64, part: Bytes| {
                let offset = block as usize * 8 * MIB;
                assert!(part == bytes[offset..offset + part.len()], "{}", lab.name);
                came.lock().unwrap().push(block);
                async { Ok(()) }
            };
            let blocks = BlockSet::from_predicate(20 << 20, |block| wanted.contains(&block));
            let fetched = bucket.download(&object, &blocks, write, &progress, &cancel);
            fetched.await.unwrap();
            let mut came = came.into_inner().unwrap();
            came.sort_unstable();
            assert_eq!(came, wanted, "{}", lab.name);
            let sample = progress.sample();
            assert_eq!(sample.done_bytes, blocks.bytes());
            assert_eq!(sample.total_bytes, blocks.bytes());
            let received = trouble.received.load(SeqCst);
            assert!(received < blocks.bytes() + (MIB as u64) / 10, "{received}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_download_stops_at_once() {
    for lab in labs().await {
        let bucket = lab.bucket().await;
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
    for lab in labs().await {
        let bucket = lab.bucket().await;
        let (alive, most) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let read = |_, length| {
            let now = alive.fetch_add(length, SeqCst) + length;
            most.fetch_max(now, SeqCst);
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
        let most = most.load(SeqCst);
        assert!(most <= 64 * MIB, "{}: {most} bytes", lab.name);
        assert!(
            most > 8 * MIB,
            "{}: parts are not uploaded in parallel",
            lab.name
        );
        bucket.delete(&name("image")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_configured_is_an_error() {
    let mut settings = s3s_fs().await.settings;
    settings.name = None;
    let bucket = Bucket::new(&settings).await;
    assert!(!bucket.is_configured());
    assert_eq!(bucket.location(), "no bucket");
    let words = [
        "no bucket configured",
        "[bucket] name",
        "AWS_DEFAULT_BUCKET",
    ];
    let error = bucket.head(&name("a")).await.unwrap_err();
    assert_error(&error, Kind::InvalidInput, &words);
    let error = listed(&bucket).await.unwrap_err();
    assert_error(&error, Kind::InvalidInput, &words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_differs_from_a_missing_object() {
    for lab in labs().await {
        assert_eq!(lab.bucket().await.head(&name("a")).await.unwrap(), None);
        let mut settings = lab.settings.clone();
        settings.name = Some("no-such-bucket".into());
        let bucket = Bucket::new(&settings).await;
        let words = ["no-such-bucket does not exist", "[bucket] name"];
        let errors = [
            bucket.head(&name("a")).await.unwrap_err(),
            listed(&bucket).await.unwrap_err(),
            bucket.delete(&name("a")).await.unwrap_err(),
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
    for lab in labs().await {
        let good = lab.settings.credentials.clone().unwrap();
        let secret_access_key = "secret-of-another".to_owned();
        for access_key_id in [good.access_key_id, "nobody".to_owned()] {
            let mut settings = lab.settings.clone();
            settings.credentials = Some(Credentials {
                access_key_id,
                secret_access_key: secret_access_key.clone(),
            });
            let bucket = Bucket::new(&settings).await;
            let errors = [
                bucket.head(&name("a")).await.unwrap_err(),
                listed(&bucket).await.unwrap_err(),
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
        let bucket = Bucket::new(&settings).await;
        let asked = Instant::now();
        for error in [
            listed(&bucket).await.unwrap_err(),
            upload(&bucket, "a", &random(1, 1), true).await.unwrap_err(),
        ] {
            assert_error(
                &error,
                Kind::Unreachable,
                &[&endpoint, "cannot connect to", "[bucket] endpoint"],
            );
        }
        assert!(
            asked.elapsed() < Duration::from_secs(20),
            "{:?}",
            asked.elapsed()
        );
    }
    settings.endpoint = Some("127.0.0.1:9000".into());
    let error = listed(&Bucket::new(&settings).await).await.unwrap_err();
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
    let error = listed(&Bucket::new(&settings).await).await.unwrap_err();
    assert_error(
        &error,
        Kind::Unreachable,
        &["did not answer like an S3 store", "[bucket] endpoint"],
    );
}
