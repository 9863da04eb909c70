//! Manifests that were read, each valid while its image is unchanged.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use snapdeck_model::{HostName, Manifest, SnapshotName};

/// Takes 40 MiB for images of 40 GiB.
const MAX_CACHED_MANIFESTS: usize = 256;
/// Digests in all of them, which take 64 MiB: the store says how many there are.
const MAX_CACHED_DIGESTS: usize = 2 << 20;

/// An unchanged image without a manifest may get one.
const MISSING_MANIFEST_TTL: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct ManifestCache {
    entries: HashMap<(Option<HostName>, SnapshotName), CachedManifest>,
}

struct CachedManifest {
    /// Identifies the image.
    fingerprint: String,
    cached_at: Instant,
    manifest: Option<Arc<Manifest>>,
}

impl ManifestCache {
    /// Returns the cached manifest, `Some(None)` if the image is known to have none, and `None` if it is not cached.
    ///
    /// `host` is `None` for the bucket.
    pub(crate) fn get(
        &self,
        host: Option<&HostName>,
        name: &SnapshotName,
        fingerprint: &str,
    ) -> Option<Option<Arc<Manifest>>> {
        let cached = self.entries.get(&(host.cloned(), name.clone()))?;
        let is_fresh =
            cached.manifest.is_some() || cached.cached_at.elapsed() < MISSING_MANIFEST_TTL;
        (cached.fingerprint == fingerprint && is_fresh).then(|| cached.manifest.clone())
    }

    pub(crate) fn insert(
        &mut self,
        host: Option<&HostName>,
        name: &SnapshotName,
        fingerprint: String,
        manifest: Option<Arc<Manifest>>,
    ) {
        let digests = |manifest: &Option<Arc<Manifest>>| {
            manifest
                .as_ref()
                .map_or(0, |manifest| manifest.blocks.len())
        };
        let cached: usize = self
            .entries
            .values()
            .map(|entry| digests(&entry.manifest))
            .sum();
        if self.entries.len() >= MAX_CACHED_MANIFESTS
            || cached + digests(&manifest) > MAX_CACHED_DIGESTS
        {
            self.entries.clear();
        }
        let cached = CachedManifest {
            fingerprint,
            cached_at: Instant::now(),
            manifest,
        };
        self.entries.insert((host.cloned(), name.clone()), cached);
    }
}
