//! An object of the bucket, or a snapshot of another host, and what is known of its content.

use humansize::{BINARY, format_size};

use snapdeck_bucket::{Bucket, StoredObject};
use snapdeck_model::{
    Annotations, Digest, Error, ExpectedVariables, Kind, MAX_IMAGE_BYTES, Manifest, Object, Result,
    SnapshotName, SnapshotParts, block_bytes,
};

use crate::context::Context;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RemoteObject {
    /// Completes "cannot ... NAME to host HOST".
    pub verb: &'static str,
    pub object: Object,
    pub manifest: Option<Manifest>,
    /// Annotations of an object without a manifest.
    pub annotations: Option<Annotations>,
    /// The other parts of the snapshot, as its metadata names them.
    pub parts: Option<SnapshotParts>,
}

impl RemoteObject {
    /// Looks up the object and its manifest.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` if it is larger than an image may be; those of the bucket.
    pub(crate) async fn find(bucket: &Bucket, name: &SnapshotName, ctx: &Context) -> Result<Self> {
        let stored = bucket.find(name).await?.ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!(
                    "snapshot not found in store: {name} is not in {}",
                    bucket.location()
                ),
            )
            .hint("list objects with `snapdeck objects`")
        })?;
        let StoredObject { object, parts } = stored;
        refuse_oversized(&object)?;
        let manifest = match bucket.manifest(&object).await {
            Ok(manifest) => manifest,
            Err(error) if parts.is_some_and(|parts| parts.has_manifest) => return Err(error),
            Err(error) if error.kind() == Kind::Cancelled => return Err(error),
            // Without a manifest everything works, but slower.
            Err(error) => {
                ctx.info(format!("{error}; continuing without its manifest"));
                None
            }
        };
        let annotations = match manifest {
            Some(_) => None,
            None => bucket.annotations(name).await.unwrap_or_else(|error| {
                ctx.info(error.to_string());
                None
            }),
        };
        Ok(Self {
            verb: "pull",
            object,
            manifest,
            annotations,
            parts,
        })
    }

    /// Returns the object without the manifest of an adoption by a host whose digests are only the word of that host: the object
    /// may be of any origin, and have other blocks.
    pub(crate) fn without_claimed_digests(mut self, ctx: &Context) -> Self {
        let is_claimed =
            |manifest: &mut Manifest| manifest.claimed.is_some() && manifest.proof.is_some();
        if let Some(manifest) = self.manifest.take_if(is_claimed) {
            self.annotations = Some(manifest.annotations());
            let name = &manifest.name;
            ctx.info(format!(
                "the digests of {} are the word of a host: downloading all of it; `snapdeck adopt {name} --bucket` reads it",
                self.object.key
            ));
        }
        self
    }

    /// Returns the object, if it has no manifest, with the digests that `recorded` has: the manifest of the copy that a host has
    /// downloaded from it. Its entity tag is only the store's word, which may send other bytes by now.
    pub(crate) fn with_digests_of(mut self, recorded: Option<&Manifest>) -> Self {
        let is_of_object = |recorded: &&Manifest| recorded.matches_object(&self.object);
        if self.manifest.is_none()
            && let Some(recorded) = recorded.filter(is_of_object)
        {
            let (name, blocks) = (self.object.name.clone(), recorded.blocks.clone());
            self.manifest = Some(Manifest::new(name, self.object.size_bytes, blocks));
        }
        self
    }

    /// Returns whether both are the same object. Of one without a manifest, a host may have recorded digests of its own.
    pub(crate) fn is_same_object(&self, other: &Self) -> bool {
        let has_same_digests = match (&self.manifest, &other.manifest) {
            (Some(ours), Some(theirs)) => ours.has_same_content(theirs),
            _ => true,
        };
        self.object == other.object && has_same_digests
    }

    /// Fails if the manifest that belongs to the image is missing: the push was interrupted before its end.
    ///
    /// # Errors
    /// `Damaged`.
    pub(crate) fn refuse_incomplete(&self) -> Result<()> {
        match self.parts {
            Some(parts) if parts.has_manifest && self.manifest.is_none() => {
                Err(self.incomplete_error("its manifest is missing"))
            }
            _ => Ok(()),
        }
    }

    /// Returns the error for a snapshot of which `problem` says what is missing.
    pub(crate) fn incomplete_error(&self, problem: &str) -> Error {
        Error::new(Kind::Damaged, format!("cannot use {}", self.object.key))
            .with_cause(format!("the snapshot is incomplete: {problem}"))
            .hint("push it again with --overwrite, or remove it from the bucket")
    }

    /// Returns the UEFI variables that belong to the image, if known.
    pub(crate) fn expected_variables(&self) -> Option<ExpectedVariables> {
        let recorded = || self.manifest.as_ref()?.variables;
        self.parts.map(|parts| parts.variables).or_else(recorded)
    }

    /// Returns the digest that a block must have, if known.
    pub(crate) fn digest(&self, block: u64) -> Option<Digest> {
        let blocks = &self.manifest.as_ref()?.blocks;
        blocks.get(usize::try_from(block).ok()?).copied()
    }

    /// Returns the length of a block in bytes.
    pub(crate) fn block_bytes(&self, block: u64) -> u64 {
        block_bytes(block, self.object.size_bytes)
    }
}

/// Fails for an object that is larger than an image may be, before memory is taken for its blocks.
fn refuse_oversized(object: &Object) -> Result<()> {
    if object.size_bytes <= MAX_IMAGE_BYTES {
        return Ok(());
    }
    let size = |bytes| format_size(bytes, BINARY);
    Err(
        Error::new(Kind::Damaged, format!("cannot use {}", object.key))
            .with_cause(format!(
                "the store says that it has {}, an image has {} at most",
                size(object.size_bytes),
                size(MAX_IMAGE_BYTES)
            ))
            .hint("check the object with another S3 client"),
    )
}

/// Returns whether the bucket still has this very object.
///
/// # Errors
/// Those of the bucket.
pub(crate) async fn is_unchanged(bucket: &Bucket, object: &Object) -> Result<bool> {
    let current = bucket.head(&object.name).await?;
    Ok(current.is_some_and(|current| {
        current.etag == object.etag && current.size_bytes == object.size_bytes
    }))
}
