//! Manifests: `PREFIX/NAME.json` beside `PREFIX/NAME.qcow2`.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use super::retry::Retries;
use super::s3::{ObjectBody, PutCondition, Reason, Store, StoreError};
use snapdeck_model::{
    Annotations, AnnotationsPatch, Digest, Error, ExpectedVariables, Kind, MAX_MANIFEST_BYTES,
    Manifest, Object, Result,
};

/// Timeout of reading a long manifest over a slow connection.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// A manifest must have ended, or this much of it must have come, within each interval: a store that drips is not waited
/// for.
const PACE: (usize, Duration) = (16 * 1024, Duration::from_secs(15));
/// Manifests of any length are read concurrently up to this length, that of an image of 180 GiB.
const SMALL_BYTES: usize = 1 << 20;
/// Longer ones in memory at a time: each takes up to three times its length.
static LARGE_MANIFESTS: Semaphore = Semaphore::const_new(2);

/// The object in the place of a manifest.
struct FoundJson {
    bytes: Vec<u8>,
    etag: String,
    permit: Option<SemaphorePermit<'static>>,
}
/// Attempts to write while other clients write the same manifest.
const MAX_ATTEMPTS: u32 = 4;

/// Returns the manifest under `key` if it is that of `object`; any other is ignored.
///
/// In a copy of a bucket, objects may have other entity tags; the tag of their upload shows what belongs together then.
pub(super) async fn read(
    store: &Store,
    key: &str,
    image_key: &str,
    object: &Object,
) -> Result<Option<Manifest>> {
    let Some(json) = read_json(store, key).await? else {
        return Ok(None);
    };
    match Manifest::read(&json.bytes) {
        Ok(mut manifest) if manifest.matches_object(object) => {
            // Only of interest to the store.
            manifest.upload_tag = None;
            // Another client may have renamed or copied both objects.
            manifest.name = object.name.clone();
            return Ok(Some(manifest));
        }
        Ok(mut manifest)
            if manifest.upload_tag.is_some() && manifest.size_bytes == object.size_bytes =>
        {
            let image = store.head(image_key).await?;
            let is_same = image.is_some_and(|image| {
                image.etag == object.etag && image.upload_tag == manifest.upload_tag
            });
            if is_same {
                manifest.etag = object.etag.clone();
                manifest.upload_tag = None;
                manifest.name = object.name.clone();
                return Ok(Some(manifest));
            }
        }
        Ok(_) => tracing::debug!("ignored {}: it is of another image", store.address(key)),
        Err(error) => tracing::debug!("ignored {}: {error}", store.address(key)),
    }
    Ok(None)
}

/// Content type of a manifest, by which operators and other programs recognise it.
const CONTENT_TYPE: &str = "application/vnd.snapdeck.manifest+json";

/// Returns whether the object under `key` is another program's.
pub(super) async fn is_foreign(store: &Store, key: &str) -> Result<bool> {
    let found = read_json(store, key).await?;
    Ok(found.is_some_and(|json| !Manifest::is_manifest(&json.bytes)))
}

/// Returns the digest of the variables that the manifest under `key` names; `None` if there is no manifest of snapdeck.
pub(super) async fn read_variables(store: &Store, key: &str) -> Result<Option<Option<Digest>>> {
    let found = read_json(store, key).await?;
    let own = found.filter(|json| Manifest::is_manifest(&json.bytes));
    Ok(
        own.map(|json| match Manifest::read(&json.bytes).ok()?.variables? {
            ExpectedVariables::Digest(digest) => Some(digest),
            ExpectedVariables::Absent => None,
        }),
    )
}

/// Returns the error for another program's object under `key`.
pub(super) fn foreign_error(store: &Store, key: &str) -> Error {
    Error::new(
        Kind::Conflict,
        format!("cannot write {}", store.address(key)),
    )
    .with_cause("it is not a manifest of snapdeck")
    .hint("move that object elsewhere, or choose another name")
}

/// Returns the object under `key`, at most one chunk longer than a manifest may be.
async fn read_json(store: &Store, key: &str) -> Result<Option<FoundJson>> {
    let read = store.retry.call(|| try_read_json(store, key));
    Ok(store
        .retry
        .until_cancelled("the download", Box::pin(read))
        .await?)
}

async fn try_read_json(store: &Store, key: &str) -> Result<Option<FoundJson>, StoreError> {
    let mut body = match store.get(key, None, None).await {
        Ok(body) => body,
        // Without the right to list, a missing object is a 403.
        Err(error) if error.reason == Reason::NotFound => return Ok(None),
        Err(error) if error.reason == Reason::AccessDenied => {
            return match store.head(key).await {
                // It is there, for example encrypted with a key that may not be used.
                Ok(Some(_)) => Err(error),
                _ => Ok(None),
            };
        }
        Err(error) => return Err(error),
    };
    let etag = body.etag.take().unwrap_or_default();
    let found = timeout(READ_TIMEOUT, read_body(body, etag))
        .await
        .unwrap_or(Err(ReadError::Slow));
    let found = found.map_err(|error| {
        let summary = format!("cannot read {}", store.address(key));
        let (reason, cause) = match error {
            ReadError::Slow => (Reason::Other, "the store sends hardly a byte".to_owned()),
            ReadError::Lost(error) => (Reason::NoResponse, error.to_string()),
        };
        let error = Error::new(Kind::Unreachable, summary).with_cause(cause);
        StoreError {
            reason,
            error: error.hint("check the network to the store").retryable(),
        }
    })?;
    Ok(Some(found))
}

enum ReadError {
    /// Less has come than [`PACE`] demands.
    Slow,
    Lost(std::io::Error),
}

async fn read_body(mut body: ObjectBody, etag: String) -> Result<FoundJson, ReadError> {
    let (pace_bytes, interval) = PACE;
    let (mut bytes, mut permit) = (Vec::new(), None);
    let (mut paced_bytes, mut deadline) = (0, Instant::now() + interval);
    while bytes.len() as u64 <= MAX_MANIFEST_BYTES {
        let chunk = match timeout_at(deadline, body.next_chunk()).await {
            Ok(chunk) => chunk.map_err(ReadError::Lost)?,
            Err(_) if bytes.len() - paced_bytes < pace_bytes => return Err(ReadError::Slow),
            Err(_) => {
                (paced_bytes, deadline) = (bytes.len(), Instant::now() + interval);
                continue;
            }
        };
        let Some(chunk) = chunk else {
            break;
        };
        bytes.extend_from_slice(&chunk);
        if bytes.len() > SMALL_BYTES && permit.is_none() {
            // Never closed.
            permit = LARGE_MANIFESTS.acquire().await.ok();
            (paced_bytes, deadline) = (bytes.len(), Instant::now() + interval);
        }
    }
    Ok(FoundJson {
        bytes,
        etag,
        permit,
    })
}

/// Returns the annotations under `key`, whatever image they were written for.
pub(super) async fn read_annotations(store: &Store, key: &str) -> Result<Option<Annotations>> {
    let found = read_json(store, key).await?;
    Ok(found.and_then(|json| Annotations::from_manifest_json(&json.bytes).ok()))
}

/// Changes only the annotations of `object` under `key`.
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
    update(store, key, |existing| async move {
        change.apply(existing.as_deref(), &object.name, image)
    })
    .await
}

/// Writes `manifest` under `key` and keeps the annotations there, if the image under `image_key` is the one it describes:
/// an upload that replaced the image writes another manifest, which must not be lost.
pub(super) async fn write(
    store: &Store,
    key: &str,
    image_key: &str,
    manifest: &Manifest,
) -> Result<()> {
    update(store, key, |existing| async move {
        let annotations = existing.and_then(|json| Annotations::parse(&json).ok());
        let image = store.head(image_key).await?;
        let upload_tag = image.as_ref().and_then(|image| image.upload_tag.clone());
        let mut manifest = manifest
            .clone()
            .with_existing_annotations(annotations.unwrap_or_default());
        manifest.upload_tag = upload_tag;
        let json = manifest.write()?;
        let image = image.map(|image| image.into_object(manifest.name.clone()));
        if !image.is_some_and(|image| manifest.matches_object(&image)) {
            let summary = format!("cannot write {}", store.address(key));
            return Err(Error::new(Kind::Conflict, summary)
                .with_cause("its image was replaced or removed meanwhile"));
        }
        Ok((json, ()))
    })
    .await
}

/// Replaces the object under `key` by the JSON that `build` makes of it, if it is unchanged by then; repeats both
/// otherwise. Returns the second value of `build`. Another program's object is never replaced. A store that does not
/// support conditional writes overwrites.
async fn update<T, F>(store: &Store, key: &str, build: impl Fn(Option<Vec<u8>>) -> F) -> Result<T>
where
    F: Future<Output = Result<(Vec<u8>, T)>>,
{
    let mut is_conditional = true;
    let mut retries = Retries::default();
    let mut attempts = 0;
    let mut refused_etag = None;
    while attempts < MAX_ATTEMPTS {
        let found = read_json(store, key).await?;
        let (existing, etag, _permit) = match found {
            Some(json) => (Some(json.bytes), Some(json.etag), json.permit),
            None => (None, None, None),
        };
        if existing
            .as_ref()
            .is_some_and(|json| !Manifest::is_manifest(json))
        {
            return Err(foreign_error(store, key));
        }
        let (json, value) = build(existing).await?;
        let condition = match etag {
            _ if !is_conditional => PutCondition::Always,
            Some(etag) if etag.is_empty() => PutCondition::Always,
            // SeaweedFS, after versioning was suspended, refuses the tag that it has.
            Some(etag) if refused_etag.as_ref() == Some(&etag) => PutCondition::Always,
            Some(etag) => {
                refused_etag = Some(etag.clone());
                PutCondition::ETag(etag)
            }
            None => PutCondition::Absent,
        };
        let written = store.put(key, json.into(), CONTENT_TYPE, condition);
        let Err(error) = written.await else {
            return Ok(value);
        };
        match error.reason {
            Reason::Conflict | Reason::PreconditionFailed => attempts += 1,
            Reason::Unsupported if is_conditional => is_conditional = false,
            // After the wait everything is read and checked again.
            _ => store.retry.wait_after(error, &mut retries).await?,
        }
    }
    let summary = format!("cannot write {}", store.address(key));
    Err(Error::new(Kind::Failed, summary)
        .with_cause(format!(
            "other clients changed it during all {MAX_ATTEMPTS} attempts"
        ))
        .hint("try again"))
}
