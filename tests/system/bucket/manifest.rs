//! Manifests beside objects.

use snapdeck_model::{BLOCK_BYTES, Kind, Manifest, Object};

use super::{assert_error, list, random, upload};
use crate::common::stores::stores;

fn manifest_of(object: &Object, bytes: &[u8]) -> Manifest {
    let blocks = bytes
        .chunks(BLOCK_BYTES as usize)
        .map(snapdeck_host::hash_block)
        .collect();
    let mut manifest = Manifest::new(object.name.clone(), object.size_bytes, blocks);
    manifest.etag = object.etag.clone();
    manifest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_stored_beside_its_object_and_deleted_with_it() {
    for store in stores().await {
        let bucket = store.bucket().await;
        let bytes = random(9 << 20, 1);
        let object = upload(&bucket, "app", &bytes, false).await.unwrap();
        assert_eq!(bucket.manifest(&object).await.unwrap(), None);

        let mut manifest = manifest_of(&object, &bytes);
        bucket.write_manifest(&manifest).await.unwrap();
        assert_eq!(
            bucket.manifest(&object).await.unwrap(),
            Some(manifest.clone())
        );
        manifest.notes = Some("before the update".into());
        bucket.write_manifest(&manifest).await.unwrap();
        assert_eq!(bucket.manifest(&object).await.unwrap(), Some(manifest));

        let keys: Vec<String> = list(&bucket)
            .await
            .unwrap()
            .concat()
            .iter()
            .map(|object| object.key.clone())
            .collect();
        assert_eq!(
            keys,
            [store.key("app.qcow2")],
            "{}: the manifest is listed as an object",
            store.name
        );
        bucket.delete_object(&object).await.unwrap();
        assert_eq!(store.get("app.json").await, None, "{}", store.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_another_image_is_ignored_and_never_written() {
    for store in stores().await {
        let bucket = store.bucket().await;
        let (old, new) = (random(100, 1), random(100, 2));
        let object = upload(&bucket, "app", &old, false).await.unwrap();
        let manifest = manifest_of(&object, &old);
        bucket.write_manifest(&manifest).await.unwrap();

        let object = upload(&bucket, "app", &new, true).await.unwrap();
        assert_eq!(
            bucket.manifest(&object).await.unwrap(),
            None,
            "{}",
            store.name
        );
        let refused = bucket.write_manifest(&manifest).await.unwrap_err();
        assert_error(&refused, Kind::Conflict, &["app.json", "replaced"]);
        let manifest = manifest_of(&object, &new);
        bucket.write_manifest(&manifest).await.unwrap();
        assert_eq!(bucket.manifest(&object).await.unwrap(), Some(manifest));

        for junk in [&b"{}"[..], b"", b"not JSON", &[b' '; 1 << 20]] {
            store.put("app.json", junk.to_vec()).await;
            assert_eq!(bucket.manifest(&object).await.unwrap(), None);
        }
    }
}
