//! Manifests beside objects.

use snapdeck_model::{BLOCK_BYTES, Kind, Manifest, Object};

use super::{assert_error, listed, name, random, upload};
use crate::common::stores::labs;

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
async fn stands_beside_its_object_and_goes_with_it() {
    for lab in labs().await {
        let bucket = lab.bucket().await;
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

        let names: Vec<String> = listed(&bucket)
            .await
            .unwrap()
            .concat()
            .iter()
            .map(|object| object.key.clone())
            .collect();
        assert_eq!(
            names,
            [lab.key("app.qcow2")],
            "{}: it is no object",
            lab.name
        );
        bucket.delete(&name("app")).await.unwrap();
        assert_eq!(lab.get("app.json").await, None, "{}", lab.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_another_image_is_ignored_and_never_written() {
    for lab in labs().await {
        let bucket = lab.bucket().await;
        let (old, new) = (random(100, 1), random(100, 2));
        let object = upload(&bucket, "app", &old, false).await.unwrap();
        let manifest = manifest_of(&object, &old);
        bucket.write_manifest(&manifest).await.unwrap();

        let object = upload(&bucket, "app", &new, true).await.unwrap();
        assert_eq!(
            bucket.manifest(&object).await.unwrap(),
            None,
            "{}",
            lab.name
        );
        let late = bucket.write_manifest(&manifest).await.unwrap_err();
        assert_error(&late, Kind::Conflict, &["app.json", "replaced"]);
        let manifest = manifest_of(&object, &new);
        bucket.write_manifest(&manifest).await.unwrap();
        assert_eq!(bucket.manifest(&object).await.unwrap(), Some(manifest));

        for junk in [&b"{}"[..], b"", b"no JSON", &[b' '; 1 << 20]] {
            lab.put("app.json", junk.to_vec()).await;
            assert_eq!(bucket.manifest(&object).await.unwrap(), None);
        }
    }
}
