//! Manifests: `PREFIX/NAME_WIDTH.json` beside `PREFIX/NAME_WIDTH.qcow2`.

use std::time::Duration;

use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::ByteStream;

use super::client::{Store, no_sdk_retry};
use super::errors::{sdk_error, status_and_code};
use super::object;
use snapdeck_model::{
    Annotations, AnnotationsPatch, Error, Kind, MAX_MANIFEST_BYTES, Manifest, Object, Result,
};

/// For one that is long, over a slow line.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Writes, while others write the same.
const MAX_ATTEMPTS: u32 = 4;

/// The manifest under `key`, where there is one and it is that of `object`; any other is ignored.
pub(super) async fn read(store: &Store, key: &str, object: &Object) -> Result<Option<Manifest>> {
    let Some((json, _)) = read_json(store, key).await? else {
        return Ok(None);
    };
    match Manifest::read(&json) {
        Ok(manifest) if manifest.matches_object(object) => Ok(Some(manifest)),
        Ok(_) => {
            tracing::debug!(
                "ignoring {}: it belongs to a different image",
                store.address(key)
            );
            Ok(None)
        }
        Err(error) => {
            tracing::debug!("ignoring {}: {error}", store.address(key));
            Ok(None)
        }
    }
}

/// What is under `key`, as far as a manifest could be long, with its entity tag; `None` where nothing is.
async fn read_json(store: &Store, key: &str) -> Result<Option<(Vec<u8>, String)>> {
    let what = || format!("cannot read {}", store.address(key));
    let call = store.client.get_object().bucket(&store.bucket).key(key);
    let found = match call
        .customize()
        .config_override(no_sdk_retry(CALL_TIMEOUT))
        .send()
        .await
    {
        Ok(found) => found,
        Err(error) => {
            return match status_and_code(&error) {
                // Who may not list is not told that there is none.
                Some((403 | 404, _)) => Ok(None),
                _ => Err(sdk_error(store, what(), &error)),
            };
        }
    };
    let mut body = found.body;
    let mut json = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| {
            Error::new(Kind::Unreachable, what())
                .with_cause(error)
                .retryable()
        })?;
        json.extend_from_slice(&chunk);
        if json.len() as u64 > MAX_MANIFEST_BYTES {
            break;
        }
    }
    Ok(Some((json, found.e_tag.unwrap_or_default())))
}

/// What is said of a snapshot under `key`, whatever image that manifest is of; `None` where nothing is.
pub(super) async fn read_annotations(store: &Store, key: &str) -> Result<Option<Annotations>> {
    let found = read_json(store, key).await?;
    Ok(found.and_then(|(json, _)| Annotations::from_manifest_json(&json).ok()))
}

/// Changes what is said of `object` under `key`, and nothing else there.
pub(super) async fn annotate(
    store: &Store,
    key: &str,
    object: &Object,
    change: &AnnotationsPatch,
) -> Result<Annotations> {
    let image = || {
        let size = ("sizeBytes".to_owned(), object.size_bytes.into());
        let etag = object.etag.clone();
        let etag = etag.map(|etag| ("etag".to_owned(), etag.into()));
        [size].into_iter().chain(etag).collect()
    };
    let mut conditional = true;
    for _ in 0..MAX_ATTEMPTS {
        let found = read_json(store, key).await?;
        let json = found.as_ref().map(|(json, _)| &**json);
        let (json, remarks) = change.apply(json, &object.name, image)?;
        let there = found.map(|(_, tag)| tag);
        if put_if_unchanged(store, key, json, there, &mut conditional).await? {
            return Ok(remarks);
        }
    }
    Err(write_conflict_error(store, key))
}

/// Writes `json` under `key`, while what is there has the entity tag `there`, or while nothing is; tells whether that
/// was so. A store that takes no conditions is found out, and from then on overwrites.
async fn put_if_unchanged(
    store: &Store,
    key: &str,
    json: Vec<u8>,
    there: Option<String>,
    conditional: &mut bool,
) -> Result<bool> {
    let call = store
        .client
        .put_object()
        .bucket(&store.bucket)
        .key(key)
        .content_type("application/json")
        .body(ByteStream::from(json));
    let call = match there {
        _ if !*conditional => call,
        Some(tag) if tag.is_empty() => call,
        Some(tag) => call.if_match(tag),
        None => call.if_none_match("*"),
    };
    let plain = RequestChecksumCalculation::WhenRequired;
    let config = no_sdk_retry(CALL_TIMEOUT).request_checksum_calculation(plain);
    let Err(error) = call.customize().config_override(config).send().await else {
        return Ok(true);
    };
    match status_and_code(&error) {
        Some((409 | 412, _)) => Ok(false),
        // As `MultipartUpload::complete`: a store that takes no conditions.
        Some((501, _) | (_, "InvalidArgument" | "InvalidRequest")) if *conditional => {
            *conditional = false;
            Ok(false)
        }
        _ => Err(sdk_error(
            store,
            format!("cannot write {}", store.address(key)),
            &error,
        )),
    }
}

fn write_conflict_error(store: &Store, key: &str) -> Error {
    Error::new(Kind::Failed, format!("cannot write {}", store.address(key)))
        .with_cause("other writers keep changing it")
}

/// Writes `manifest` under `key`, in the place of any other, while the image under `image_key` is the one it speaks
/// of: who replaces an image writes another manifest, and that is not to be lost. What was said there stays said.
pub(super) async fn write(
    store: &Store,
    key: &str,
    image_key: &str,
    manifest: &Manifest,
) -> Result<()> {
    let what = || format!("cannot write {}", store.address(key));
    let mut conditional = true;
    for _ in 0..MAX_ATTEMPTS {
        let there = read_json(store, key).await?;
        let said = there
            .as_ref()
            .and_then(|(json, _)| Annotations::from_manifest_json(json).ok());
        let json = manifest
            .clone()
            .with_existing_annotations(said.unwrap_or_default())
            .write()?;
        let image = object::head(store, &manifest.name, image_key).await?;
        if !image.is_some_and(|image| manifest.matches_object(&image)) {
            return Err(Error::new(Kind::Conflict, what())
                .with_cause("its image was replaced or removed meanwhile"));
        }
        let there = there.map(|(_, tag)| tag);
        if put_if_unchanged(store, key, json, there, &mut conditional).await? {
            return Ok(());
        }
    }
    Err(write_conflict_error(store, key))
}

/// Removes what is under `key`, if anything is.
pub(super) async fn delete(store: &Store, key: &str) -> Result<()> {
    let call = store.client.delete_object().bucket(&store.bucket).key(key);
    match call.send().await {
        Ok(_) => Ok(()),
        Err(error) if matches!(status_and_code(&error), Some((404, _))) => Ok(()),
        Err(error) => Err(sdk_error(
            store,
            format!("cannot delete {}", store.address(key)),
            &error,
        )),
    }
}
