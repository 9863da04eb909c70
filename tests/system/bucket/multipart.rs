//! Multipart objects; the store copies some of the parts.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use snapdeck_bucket::{Bucket, MultipartObject, PartSources};
use snapdeck_model::{Error, Kind, Object, ProgressCell, Result};
use tokio_util::sync::CancellationToken;

use super::{MIB, assert_error, delete, name, random, upload};
use crate::common::proxy::proxy;
use crate::common::stores::{TestStore, s3s_fs, stores};

const PART: usize = 8 * MIB;

/// Fills an object with three parts of `source` and a short last one; returns which parts the store copied.
async fn upload_or_copy_parts(
    multipart: &MultipartObject<'_>,
    source: &Object,
    bytes: &Bytes,
) -> Result<Vec<bool>> {
    let mut copied = Vec::new();
    multipart
        .upload_part(3, Bytes::from_static(b"tail"))
        .await?;
    for index in [2, 0, 1] {
        let offset = index as usize * PART;
        let is_copied = multipart
            .copy_part(index, source, offset as u64, PART as u64)
            .await?;
        if !is_copied {
            let part = bytes.slice(offset..offset + PART);
            multipart.upload_part(index, part).await?;
        }
        copied.push(is_copied);
    }
    Ok(copied)
}

async fn compose(bucket: &Bucket, source: &Object, bytes: &Bytes) -> (Object, Vec<bool>) {
    let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
    let to = name("new");
    let max_bytes = 3 * PART as u64 + 4;
    let multipart = bucket
        .begin_multipart(
            &to,
            max_bytes,
            (false, PartSources::Copied),
            &progress,
            &cancel,
        )
        .await
        .unwrap();
    assert_eq!(multipart.part_bytes(), PART as u64);
    let work = upload_or_copy_parts(&multipart, source, bytes);
    let copied = multipart.run_with_progress(work).await.unwrap();
    assert_eq!(
        progress.sample().done_bytes,
        max_bytes,
        "each part counts once"
    );
    let object = multipart.complete().await.unwrap();
    assert_eq!(object.size_bytes, max_bytes);
    (object, copied)
}

#[track_caller]
fn assert_composed(bytes: &[u8], base: &Bytes) {
    assert!(bytes[..3 * PART] == base[..3 * PART] && &bytes[3 * PART..] == b"tail");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_accepted_in_any_order_and_copied_in_the_store() {
    for store in stores().await {
        let (address, faults) = proxy(store.address()).await;
        let bucket = store.bucket_at(address).await;
        let base = random(3 * PART + 5, 1);
        // A name whose key is percent-encoded in `x-amz-copy-source`.
        let source = upload(&bucket, "a.b_c-1", &base, false).await.unwrap();
        faults.sent.store(0, SeqCst);
        let (_, copied) = compose(&bucket, &source, &base).await;
        assert_eq!(copied, [true; 3], "{}", store.name);
        assert!(
            faults.sent.load(SeqCst) < MIB as u64,
            "the parts were sent instead of copied"
        );
        assert_composed(&store.get("new.qcow2").await.unwrap(), &base);
        store.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_damaged_in_transit_is_sent_again() {
    // s3s-fs does not verify the checksums of parts.
    for store in stores()
        .await
        .into_iter()
        .filter(|store| store.name != "s3s-fs")
    {
        let (address, faults) = proxy(store.address()).await;
        let bucket = store.bucket_at(address).await;
        let base = random(3 * PART, 6);
        let source = upload(&bucket, "base", &base, false).await.unwrap();
        faults.refuse_copies.store(true, SeqCst);
        faults.corrupt_up.store(2, SeqCst);
        compose(&bucket, &source, &base).await;
        assert_eq!(faults.corrupt_up.load(SeqCst), 0, "{}", store.name);
        assert_composed(&store.get("new.qcow2").await.unwrap(), &base);
        store.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_copies_are_reported_to_the_caller() {
    for store in stores().await {
        let (address, faults) = proxy(store.address()).await;
        let bucket = store.bucket_at(address).await;
        let base = random(3 * PART, 2);
        let source = upload(&bucket, "base", &base, false).await.unwrap();
        faults.refuse_copies.store(true, SeqCst);
        let (_, copied) = compose(&bucket, &source, &base).await;
        assert_eq!(copied, [false; 3], "{}", store.name);
        assert_composed(&store.get("new.qcow2").await.unwrap(), &base);
        store.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_source_is_not_copied() {
    for store in stores().await {
        let bucket = store.bucket().await;
        let base = random(3 * PART, 3);
        let source = upload(&bucket, "base", &base, false).await.unwrap();
        delete(&bucket, "base").await;
        let (_, copied) = compose(&bucket, &source, &base).await;
        assert_eq!(copied, [false; 3], "{}", store.name);
        assert_composed(&store.get("new.qcow2").await.unwrap(), &base);
        store.clean().await;
    }
}

/// Begins an object that must not be overwritten, and uploads one part.
async fn begin<'a>(
    bucket: &'a Bucket,
    to: &'a snapdeck_model::SnapshotName,
    progress: &'a ProgressCell,
    cancel: &'a CancellationToken,
) -> MultipartObject<'a> {
    let multipart = bucket
        .begin_multipart(
            to,
            2 * PART as u64,
            (false, PartSources::Copied),
            progress,
            cancel,
        )
        .await
        .unwrap();
    multipart.upload_part(1, random(100, 4)).await.unwrap();
    multipart
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_upload_leaves_no_object_and_no_parts() {
    for store in stores().await {
        let bucket = store.bucket().await;
        let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
        let to = name("new");

        let multipart = begin(&bucket, &to, &progress, &cancel).await;
        let incomplete = multipart.complete().await.unwrap_err();
        assert_error(&incomplete, Kind::Failed, &["new.qcow2", "not all"]);
        assert_no_object_or_parts(&store).await;

        begin(&bucket, &to, &progress, &cancel).await.abort().await;
        assert_no_object_or_parts(&store).await;

        drop(begin(&bucket, &to, &progress, &cancel).await);
        assert_no_object_or_parts(&store).await;

        let multipart = begin(&bucket, &to, &progress, &cancel).await;
        let work = async {
            cancel.cancel();
            std::future::pending::<Result<(), Error>>().await
        };
        let cancelled = multipart.run_with_progress(work).await.unwrap_err();
        assert_error(&cancelled, Kind::Cancelled, &["new.qcow2"]);
        multipart.abort().await;
        assert_no_object_or_parts(&store).await;
    }
}

async fn assert_no_object_or_parts(store: &TestStore) {
    store.clean().await;
    assert_eq!(store.get("new.qcow2").await, None, "{}", store.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_too_long_is_refused() {
    let store = s3s_fs().await;
    let bucket = store.bucket().await;
    let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
    let to = name("new");
    let multipart = begin(&bucket, &to, &progress, &cancel).await;
    let long = multipart.upload_part(0, random(PART + 1, 5)).await;
    assert_error(&long.unwrap_err(), Kind::Failed, &["longer than"]);
    multipart.abort().await;
}
