//! Objects put together from parts, some of them copied by the store.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use snapdeck_bucket::{Bucket, MultipartObject};
use snapdeck_model::{Error, Kind, Object, ProgressCell, Result};
use tokio_util::sync::CancellationToken;

use super::{MIB, assert_error, name, random, upload};
use crate::common::proxy::proxy;
use crate::common::stores::{Lab, labs, s3s_fs};

const PART: usize = 8 * MIB;

/// Three parts from `source` and a short last one of ours; `false` for each that was not copied.
async fn compose(
    assembly: &MultipartObject<'_>,
    source: &Object,
    bytes: &Bytes,
) -> Result<Vec<bool>> {
    let mut copied = Vec::new();
    assembly.upload_part(3, Bytes::from_static(b"tail")).await?;
    for index in [2, 0, 1] {
        let offset = index as usize * PART;
        let done = assembly
            .copy_part(index, source, offset as u64, PART as u64)
            .await?;
        if !done {
            let part = bytes.slice(offset..offset + PART);
            assembly.upload_part(index, part).await?;
        }
        copied.push(done);
    }
    Ok(copied)
}

async fn composed(bucket: &Bucket, source: &Object, bytes: &Bytes) -> (Object, Vec<bool>) {
    let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
    let to = name("new");
    let most = 3 * PART as u64 + 4;
    let assembly = bucket
        .begin_multipart(&to, most, false, &progress, &cancel)
        .await
        .unwrap();
    assert_eq!(assembly.part_bytes(), PART as u64);
    let work = compose(&assembly, source, bytes);
    let copied = assembly.run_with_progress(work).await.unwrap();
    assert_eq!(progress.sample().done_bytes, most, "each part counts once");
    let object = assembly.complete().await.unwrap();
    assert_eq!(object.size_bytes, most);
    (object, copied)
}

#[track_caller]
fn assert_is(got: &[u8], base: &Bytes) {
    assert!(got[..3 * PART] == base[..3 * PART] && &got[3 * PART..] == b"tail");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_come_in_any_order_and_the_store_copies_what_it_has() {
    for lab in labs().await {
        let (address, trouble) = proxy(lab.address()).await;
        let bucket = lab.bucket_at(address).await;
        let base = random(3 * PART + 5, 1);
        // A name whose key must be quoted where it names a source.
        let source = upload(&bucket, "a.b_c-1", &base, false).await.unwrap();
        trouble.sent.store(0, SeqCst);
        let (_, copied) = composed(&bucket, &source, &base).await;
        assert_eq!(copied, [true; 3], "{}", lab.name);
        assert!(trouble.sent.load(SeqCst) < MIB as u64, "nothing was sent");
        assert_is(&lab.get("new.qcow2").await.unwrap(), &base);
        lab.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_damaged_on_its_way_is_sent_again() {
    // s3s-fs looks at no part's checksum.
    for lab in labs().await.into_iter().filter(|lab| lab.name != "s3s-fs") {
        let (address, trouble) = proxy(lab.address()).await;
        let bucket = lab.bucket_at(address).await;
        let base = random(3 * PART, 6);
        let source = upload(&bucket, "base", &base, false).await.unwrap();
        trouble.refuse_copies.store(true, SeqCst);
        trouble.corrupt_up.store(2, SeqCst);
        composed(&bucket, &source, &base).await;
        assert_eq!(trouble.corrupt_up.load(SeqCst), 0, "{}", lab.name);
        assert_is(&lab.get("new.qcow2").await.unwrap(), &base);
        lab.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_store_does_not_copy_it_says_so_and_is_not_asked_again() {
    for lab in labs().await {
        let (address, trouble) = proxy(lab.address()).await;
        let bucket = lab.bucket_at(address).await;
        let base = random(3 * PART, 2);
        let source = upload(&bucket, "base", &base, false).await.unwrap();
        trouble.refuse_copies.store(true, SeqCst);
        let (_, copied) = composed(&bucket, &source, &base).await;
        assert_eq!(copied, [false; 3], "{}", lab.name);
        assert_is(&lab.get("new.qcow2").await.unwrap(), &base);
        lab.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_gone_is_not_copied() {
    for lab in labs().await {
        let bucket = lab.bucket().await;
        let base = random(3 * PART, 3);
        let source = upload(&bucket, "base", &base, false).await.unwrap();
        bucket.delete(&name("base")).await.unwrap();
        let (_, copied) = composed(&bucket, &source, &base).await;
        assert_eq!(copied, [false; 3], "{}", lab.name);
        assert_is(&lab.get("new.qcow2").await.unwrap(), &base);
        lab.clean().await;
    }
}

/// An assembly with a part in it, of an object that may not be overwritten.
async fn begun<'a>(
    bucket: &'a Bucket,
    to: &'a snapdeck_model::SnapshotName,
    progress: &'a ProgressCell,
    cancel: &'a CancellationToken,
) -> MultipartObject<'a> {
    let assembly = bucket
        .begin_multipart(to, 2 * PART as u64, false, progress, cancel)
        .await
        .unwrap();
    assembly.upload_part(1, random(100, 4)).await.unwrap();
    assembly
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_completed_leaves_nothing() {
    for lab in labs().await {
        let bucket = lab.bucket().await;
        let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
        let to = name("new");

        let assembly = begun(&bucket, &to, &progress, &cancel).await;
        let lacking = assembly.complete().await.unwrap_err();
        assert_error(&lacking, Kind::Failed, &["new.qcow2", "not all"]);
        assert_left_nothing(&lab).await;

        begun(&bucket, &to, &progress, &cancel).await.abort().await;
        assert_left_nothing(&lab).await;

        drop(begun(&bucket, &to, &progress, &cancel).await);
        assert_left_nothing(&lab).await;

        let assembly = begun(&bucket, &to, &progress, &cancel).await;
        let work = async {
            cancel.cancel();
            std::future::pending::<Result<(), Error>>().await
        };
        let cancelled = assembly.run_with_progress(work).await.unwrap_err();
        assert_error(&cancelled, Kind::Cancelled, &["new.qcow2"]);
        assembly.abort().await;
        assert_left_nothing(&lab).await;
    }
}

async fn assert_left_nothing(lab: &Lab) {
    lab.clean().await;
    assert_eq!(lab.get("new.qcow2").await, None, "{}", lab.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_too_long_is_none() {
    let lab = s3s_fs().await;
    let bucket = lab.bucket().await;
    let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
    let to = name("new");
    let assembly = begun(&bucket, &to, &progress, &cancel).await;
    let long = assembly.upload_part(0, random(PART + 1, 5)).await;
    assert_error(&long.unwrap_err(), Kind::Failed, &["longer than"]);
    assembly.abort().await;
}
