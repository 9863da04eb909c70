//! Manifests: `PREFIX/NAME.json` beside `PREFIX/NAME.qcow2`.

use std::time::Duration;

use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::ByteStream;

use super::client::{Store, long_call};
use super::errors::{answer, told};
use super::object::{self, look};
use crate::model::{Error, Kind, MAX_MANIFEST_BYTES, Manifest, Object, Result};

/// For one that is long, over a slow line.
const CALL: Duration = Duration::from_secs(120);
/// Writes, while others write the same.
const TRIES: u32 = 4;

/// The manifest under `key`, where there is one and it is that of `object`; any other is ignored.
pub(super) async fn read(store: &Store, key: &str, object: &Object) -> Result<Option<Manifest>> {
    let what = || format!("cannot read {}", store.address(key));
    let call = store.client.get_object().bucket(&store.bucket).key(key);
    let found = match call
        .customize()
        .config_override(long_call(CALL))
        .send()
        .await
    {
        Ok(found) => found,
        Err(error) => {
            return match answer(&error) {
                // Who may not list is not told that there is none.
                Some((403 | 404, _)) => Ok(None),
                _ => Err(told(store, what(), &error)),
            };
        }
    };
    let mut body = found.body;
    let mut json = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| {
            Error::new(Kind::Unreachable, what())
                .because(error)
                .worth_retrying()
        })?;
        json.extend_from_slice(&chunk);
        if json.len() as u64 > MAX_MANIFEST_BYTES {
            break;
        }
    }
    match Manifest::read(&json) {
        Ok(manifest) if manifest.is_of(object) => Ok(Some(manifest)),
        Ok(_) => {
            tracing::debug!("{} is of another image and is ignored", store.address(key));
            Ok(None)
        }
        Err(error) => {
            tracing::debug!("{} is ignored: {error}", store.address(key));
            Ok(None)
        }
    }
}

/// Writes `manifest` under `key`, in the place of any other, while the image under `image_key` is the one it speaks
/// of: who replaces an image writes another manifest, and that is not to be lost.
pub(super) async fn write(
    store: &Store,
    key: &str,
    image_key: &str,
    manifest: &Manifest,
) -> Result<()> {
    let json = manifest.write()?;
    let what = || format!("cannot write {}", store.address(key));
    let mut conditional = true;
    for _ in 0..TRIES {
        let there = look(store, key).await?;
        let image = object::head(store, &manifest.name, image_key).await?;
        if !image.is_some_and(|image| manifest.is_of(&image)) {
            return Err(Error::new(Kind::Refused, what())
                .because("its image was replaced or removed meanwhile"));
        }
        let there = there.map(|found| found.e_tag.unwrap_or_default());
        let call = store
            .client
            .put_object()
            .bucket(&store.bucket)
            .key(key)
            .content_type("application/json")
            .body(ByteStream::from(json.clone()));
        let call = match there {
            _ if !conditional => call,
            Some(tag) if tag.is_empty() => call,
            Some(tag) => call.if_match(tag),
            None => call.if_none_match("*"),
        };
        let plain = RequestChecksumCalculation::WhenRequired;
        let config = long_call(CALL).request_checksum_calculation(plain);
        let Err(error) = call.customize().config_override(config).send().await else {
            return Ok(());
        };
        match answer(&error) {
            Some((409 | 412, _)) => {}
            // As `Pending::complete`: a store that takes no conditions.
            Some((501, _) | (_, "InvalidArgument" | "InvalidRequest")) if conditional => {
                conditional = false;
            }
            _ => return Err(told(store, what(), &error)),
        }
    }
    Err(Error::new(Kind::Failed, what()).because("others write it again and again"))
}

/// Removes what is under `key`, if anything is.
pub(super) async fn delete(store: &Store, key: &str) -> Result<()> {
    let call = store.client.delete_object().bucket(&store.bucket).key(key);
    match call.send().await {
        Ok(_) => Ok(()),
        Err(error) if matches!(answer(&error), Some((404, _))) => Ok(()),
        Err(error) => Err(told(
            store,
            format!("cannot delete {}", store.address(key)),
            &error,
        )),
    }
}
